/** Many nodes behind the WebSocket bridge: all of them at once, and many that do not read. */
import { afterEach, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type BridgeSocket, Connection } from "../../src/control/bridge/connection.ts";
import { BUFFERED_BYTES_MAX, Outbox } from "../../src/control/bridge/outbox.ts";
import { SharedMemory } from "../../src/shared/memory.ts";
import { temporaryFolder } from "../support/folder.ts";
import { BridgedNode, KnownNodes } from "./support/bridged.ts";
import { type BeaconProcess, freePort, Mesh } from "./support/mesh.ts";
import { PATIENCE_MS, until, untilEqual } from "./support/wait.ts";
import { deliver, discover, relay } from "./support/wire.ts";

const folder = temporaryFolder();
const keys = join(folder, "keys.json");

let mesh = new Mesh();
const nodes = new Set<BridgedNode>();
afterEach(async () => {
  for (const { connection } of nodes) connection.destroy();
  nodes.clear();
  await mesh.close();
  mesh = new Mesh();
});

const known = new KnownNodes();
const idsFrom = (first: number, count: number) =>
  Array.from({ length: count }, (_, i) => first + i);

async function start(
  nodeIds: readonly number[],
  addr = "127.0.0.1:0",
  wss = "127.0.0.1:0",
): Promise<BeaconProcess> {
  writeFileSync(keys, known.file(nodeIds));
  return mesh.beacon(addr, ["--max-nodes=3000", `--wss=${wss}`, `--wss-keys=${keys}`]);
}

async function connect({ wss }: BeaconProcess, nodeId: number): Promise<BridgedNode> {
  const node = await BridgedNode.connect(wss!, known.identity(nodeId));
  nodes.add(node);
  return node;
}

test("1,000 nodes whose beacon was killed are all back at once, and relay", async () => {
  const SINK = 1;
  const nodeIds = idsFrom(1000, 1000);
  const first = await start(nodeIds, `127.0.0.1:${freePort()}`);
  const before = await Promise.all(nodeIds.map((nodeId) => connect(first, nodeId)));
  expect((await first.stats()).bridge).toMatchObject({ peers: nodeIds.length });

  /** As a node does: tries until it is in. */
  const deadline = performance.now() + PATIENCE_MS;
  const reconnect = async ({ connection, nodeId }: BridgedNode): Promise<BridgedNode> => {
    await connection.closed;
    for (;;) {
      try {
        return await connect(first, nodeId);
      } catch (error) {
        if (performance.now() > deadline) throw error;
        await Bun.sleep(50);
      }
    }
  };
  const reconnecting = Promise.all(before.map(reconnect));
  first.program.signal("SIGKILL");
  await first.program.exited();
  const again = await start(nodeIds, first.name, new URL(first.wss!).host);
  const startedMs = performance.now();
  const back = await reconnecting;
  console.log(
    `${back.length} nodes were back ${Math.round(performance.now() - startedMs)} ms after the beacon was`,
  );

  expect((await again.stats()).bridge).toMatchObject({
    peers: nodeIds.length,
    connections: nodeIds.length,
  });
  const sink = mesh.burst(again);
  sink.sendEach([discover(SINK)]);
  await sink.arrivals(1);
  for (const node of back) node.relay(SINK, Buffer.from(`from ${node.nodeId}`));
  const arrived = (await sink.arrivals(nodeIds.length)).map(({ bytes }) =>
    Buffer.from(bytes).toString("latin1"),
  );
  const expected = nodeIds.map((nodeId) =>
    Buffer.from(deliver(nodeId, Buffer.from(`from ${nodeId}`))).toString("latin1"),
  );
  expect(arrived.sort()).toEqual(expected.sort());
});

describe("100 readers that stop reading while they are flooded", () => {
  const STUCK = idsFrom(1, 100);
  const [GOOD, UDP] = [1001, 1002];
  const PAYLOAD_BYTES = 60_000;
  /** So many packets fit into the beacon's receive buffer. */
  const AT_ONCE = 20;
  const NODE_BUFFERED_BYTES_MAX = 256 * 1024;
  /** Bytes that the kernel holds of one connection: what both ends may have. */
  const KERNEL_BYTES_MAX = ["wmem", "rmem"]
    .map((name) =>
      Number(readFileSync(`/proc/sys/net/ipv4/tcp_${name}`, "utf8").trim().split(/\s+/)[2]),
    )
    .reduce((sum, bytes) => sum + bytes);

  test("hold up nobody, and cost no more than their bounds; one that reads again gets packets again", async () => {
    const beacon = await start([...STUCK, GOOD]);
    const stuck = await Promise.all(STUCK.map((nodeId) => connect(beacon, nodeId)));
    const good = await connect(beacon, GOOD);
    const [flood, udp, sender] = [
      mesh.burst(beacon),
      await mesh.client(beacon),
      await mesh.client(beacon),
    ];
    await udp.discover(UDP);
    for (const { connection } of stuck) connection.pause();

    const filler = new Uint8Array(PAYLOAD_BYTES);
    let flooded = 0;
    let peak = 0;
    /** Some packets for the readers in turn, and one each for those that read, from both sides. */
    const round = async (number: number) => {
      flood.sendEach(
        Array.from({ length: AT_ONCE }, () => relay(9, STUCK[flooded++ % STUCK.length]!, filler)),
      );
      const payload = Buffer.from(`round ${number}`);
      await sender.relay(8, GOOD, payload);
      expect(await good.next()).toEqual(Buffer.from(deliver(8, payload)));
      await sender.relay(8, UDP, payload);
      expect(Buffer.from((await udp.next()).bytes)).toEqual(Buffer.from(deliver(8, payload)));
      good.relay(UDP, payload);
      expect(Buffer.from((await udp.next()).bytes)).toEqual(Buffer.from(deliver(GOOD, payload)));
    };
    const bridge = async () => {
      const stats = (await beacon.stats()).bridge!;
      peak = Math.max(peak, stats.bufferedBytes);
      return stats;
    };

    // Until the drops of each reader are several times its bound. Before that, the packets fill the
    // kernel's buffers.
    const enoughBytes = 3 * NODE_BUFFERED_BYTES_MAX;
    const bytesMax = STUCK.length * (KERNEL_BYTES_MAX + NODE_BUFFERED_BYTES_MAX + enoughBytes);
    const roundsMax = 2 * Math.ceil(bytesMax / (AT_ONCE * PAYLOAD_BYTES));
    let rounds = 0;
    while (
      (await bridge()).dropped["slow_reader"]! <
      (STUCK.length * enoughBytes) / PAYLOAD_BYTES
    ) {
      if (rounds > roundsMax) throw new Error(`too few dropped: ${JSON.stringify(await bridge())}`);
      for (let i = 0; i < 10; i++) await round(rounds++);
    }
    expect(peak).toBeGreaterThan((STUCK.length * NODE_BUFFERED_BYTES_MAX) / 2);
    expect(peak).toBeLessThanOrEqual(STUCK.length * NODE_BUFFERED_BYTES_MAX);
    expect(peak).toBeLessThan(BUFFERED_BYTES_MAX);
    const { dropped, peers } = await bridge();
    expect(peers).toBe(STUCK.length + 1);
    expect(dropped).toMatchObject({ gone: 0, mailbox_full: 0, text: 0 });

    const [reader] = stuck as [BridgedNode];
    reader.connection.resume();
    const mark = Buffer.from("the mark");
    await until("a packet arrives that was sent afterwards", async () => {
      await sender.relay(8, reader.nodeId, mark);
      return reader.connection.take().some(({ payload }) => payload.equals(deliver(8, mark)));
    });
    await round(rounds++);
    for (const node of stuck) node.connection.destroy();
    await untilEqual("what waits", async () => (await bridge()).bufferedBytes, 0);
    expect((await bridge()).peers).toBe(1);
    await round(rounds++);
  });
});

test("what waits for nodes stays below its bound, however many of them do not read, and however large their packets", () => {
  const CONNECTIONS = 10_000; // the most that --wss-max-peers allows by default
  const outbox = new Outbox(new SharedMemory({ workers: 1, nodesMax: 100, routesMax: 100 }));
  const frame = deliver(1, new Uint8Array(60_000));
  for (let i = 0; i < CONNECTIONS; i++) {
    const connection = new Connection("127.0.0.1", 9);
    let waiting = 0;
    const socket: Pick<BridgeSocket, "cork" | "sendBinary" | "getBufferedAmount" | "terminate"> = {
      cork: (callback) => callback(connection.socket),
      sendBinary: (bytes) => {
        waiting += (bytes as Uint8Array).length;
        return -1; // it waits
      },
      getBufferedAmount: () => waiting,
      terminate: () => {
        connection.isGone = true;
        outbox.update(connection);
      },
    };
    connection.socket = socket as BridgeSocket;
    for (let packet = 0; packet < 10; packet++) outbox.put(connection, frame);
    outbox.flush();
  }
  expect(outbox.sent + outbox.dropped).toBe(10 * CONNECTIONS);
  expect(outbox.bufferedBytes).toBeLessThanOrEqual(BUFFERED_BYTES_MAX);
});
