/**
 * The WebSocket bridge in a beacon's life: while it drains, when it ends, and what of it is in the
 * state file.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryPaths } from "../support/folder.ts";
import { UpgradeRefused, WebSocketClient } from "../support/websocket.ts";
import { BridgeBeacon, type BridgedNode, KnownNodes, textOf } from "./support/bridged.ts";
import { Client } from "./support/client.ts";
import { Mesh, nameOf } from "./support/mesh.ts";
import { expectFree } from "./support/ports.ts";
import { decodeState } from "./support/state.ts";
import { inTime, until, untilEqual } from "./support/wait.ts";
import { decodeSync, deliver, deliverDest } from "./support/wire.ts";

const GOING_AWAY = { code: 1001, reason: "going away" };
/** Two signals that are less apart are one that arrived twice. */
const SAME_SIGNAL_MS = 500;

const newPath = temporaryPaths();

let ids = 1000;
const newId = () => ++ids;

let mesh = new Mesh();
const beacons: BridgeBeacon[] = [];
afterEach(async () => {
  for (const beacon of beacons.splice(0)) await beacon.close();
  await mesh.close();
  mesh = new Mesh();
});

async function start(...args: Parameters<typeof BridgeBeacon.start>): Promise<BridgeBeacon> {
  const beacon = await BridgeBeacon.start(...args);
  beacons.push(beacon);
  return beacon;
}

const healthOf = (wss: URL | string) => new URL("/health", String(wss).replace(/^ws/, "http"));
const health = async (wss: URL | string) => {
  const response = await fetch(healthOf(wss));
  return [response.status, (await response.text()).trim()];
};

async function expectReaches(from: BridgedNode, to: BridgedNode): Promise<void> {
  const payload = crypto.getRandomValues(new Uint8Array(20));
  from.relay(to.nodeId, payload);
  expect(await to.next()).toEqual(Buffer.from(deliver(from.nodeId, payload)));
}

describe("a beacon that drains", () => {
  test("lets nobody in, and relays on for who is there, until it closes with 1001", async () => {
    const host = await start({ drainMs: 3_600_000 });
    const [a, b] = [await host.bridged(newId()), await host.bridged(newId())];
    const udp = await host.udp(newId());
    const unproven = await host.open();
    const challenge = await textOf(unproven);
    expect(await health(host.url)).toEqual([200, "ok"]);

    const drained = host.beacon.drain();
    expect(await health(host.url)).toEqual([503, "closing"]);
    const refusal: UpgradeRefused = await host.open().then(
      () => Promise.reject(new Error("let in")),
      (error) => error,
    );
    expect(refusal).toBeInstanceOf(UpgradeRefused);
    expect(refusal.status).toBe(503);
    expect(host.stats.upgrades["closing"]).toBe(1);
    for (let i = 0; i < 3; i++) {
      await expectReaches(a, b);
      await udp.relay(1, a.nodeId, new Uint8Array(3));
      expect(await a.message()).toEqual({ type: "deliver", senderId: 1, payload: Buffer.alloc(3) });
    }
    const c = newId();
    unproven.text(host.nodes.identity(c).reply(challenge)); // it was there before
    expect(await textOf(unproven)).toBe('{"type":"auth_ok"}');

    const { port } = host.at;
    await inTime("it closes", host.beacon.close());
    await inTime("the drain is over", drained);
    const closings = [a.connection, b.connection, unproven].map(({ closed }) => closed);
    expect(await Promise.all(closings)).toEqual([GOING_AWAY, GOING_AWAY, GOING_AWAY]);
    await expectFree(port);
  });

  test("upon SIGTERM, and ends with the second", async () => {
    const known = new KnownNodes();
    const keys = newPath();
    const [a, b] = [known.identity(newId()), known.identity(newId())];
    writeFileSync(keys, known.file());
    const flags = ["--wss=127.0.0.1:0", `--wss-keys=${keys}`, "--drain=1h"];
    const { program, wss } = await mesh.beacon("127.0.0.1:0", flags);
    const nodes = [await mesh.bridged({ wss }, a), await mesh.bridged({ wss }, b)] as const;
    program.signal("SIGTERM");
    await untilEqual("/health", () => health(wss!), [503, "closing"]);
    await Bun.sleep(SAME_SIGNAL_MS);
    await expect(mesh.bridged({ wss }, a)).rejects.toThrow(UpgradeRefused);
    await expectReaches(nodes[0], nodes[1]);
    await expectReaches(nodes[1], nodes[0]);
    program.signal("SIGTERM");
    for (const { connection } of nodes) expect(await connection.closed).toEqual(GOING_AWAY);
    expect(await program.exited()).toBe(0);
    expect(program.stderr).toBe("");
  });
});

describe("a beacon that ends", () => {
  test("upon SIGTERM closes with 1001, and has nothing to warn of", async () => {
    const known = new KnownNodes();
    const keys = newPath();
    const identity = known.identity(newId());
    writeFileSync(keys, known.file());
    const beacon = await mesh.beacon("127.0.0.1:0", ["--wss=127.0.0.1:0", `--wss-keys=${keys}`]);
    const { program } = beacon;
    const node = await mesh.bridged(beacon, identity);
    program.signal("SIGTERM");
    expect(await node.connection.closed).toEqual(GOING_AWAY);
    expect(await program.exited()).toBe(0);
    expect(program.stderr).toBe("");
    expect(program.log().at(-1)!.msg).toBe("beacon closed");
    expect(beacon.warnings()).toEqual([]);
  });

  test("closes in all states of a connection, and frees its port", async () => {
    const gate = Promise.withResolvers<void>();
    let asked = 0;
    const nodes = new KnownNodes();
    const host = await start(
      {},
      {
        nodes,
        keyOf: async (nodeId) => {
          if (asked++ > 0) await gate.promise;
          return nodes.keyOf(nodeId);
        },
      },
    );
    const open = await host.bridged(newId());
    const [challenged, verifying] = [await host.open(), await host.open()];
    verifying.text(nodes.identity(newId()).reply(await textOf(verifying)));
    await until("it is asked for the key", () => asked === 2);
    const wss = `127.0.0.1:${host.url.port}`;
    await inTime("it closes", host.beacon.close());
    const closings = [open.connection, challenged, verifying].map(({ closed }) => closed);
    expect(await Promise.all(closings)).toEqual([GOING_AWAY, GOING_AWAY, GOING_AWAY]);
    gate.resolve();
    await start({ wss }); // on the same port
  });

  test("does so soon where a node has stopped reading; the others are told", async () => {
    const host = await start();
    const [sender, stuck, other] = [
      await host.client(),
      await host.bridged(newId()),
      await host.bridged(newId()),
    ];
    stuck.connection.pause();
    await fill(host, sender, stuck);
    await inTime("it closes", host.beacon.close());
    expect(await other.connection.closed).toEqual(GOING_AWAY);
    stuck.connection.resume();
    await inTime("its connection ends", stuck.connection.closed);
  });
});

/** Sends to a node that does not read until packets are dropped. */
async function fill(
  host: BridgeBeacon,
  sender: Client,
  { nodeId }: { readonly nodeId: number },
): Promise<void> {
  await until("its buffers are full", async () => {
    for (let i = 0; i < 16; i++) await sender.relay(1, nodeId, new Uint8Array(60_000));
    return host.stats.dropped["slow_reader"]! > 0;
  });
}

/** Sockets that a process has open. */
function socketsOf(pid: number): number {
  const path = `/proc/${pid}/fd`;
  return readdirSync(path).filter((fd) => linkAt(join(path, fd))?.startsWith("socket:")).length;
}

/** Where a link leads; nowhere, if it has gone. */
function linkAt(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

test("a connection that was closed takes up no socket for long, though the other end does not close it", async () => {
  const CONNECTIONS = 20;
  const keys = newPath();
  writeFileSync(keys, "{}");
  const { program, wss } = await mesh.beacon("127.0.0.1:0", [
    "--wss=127.0.0.1:0",
    `--wss-keys=${keys}`,
  ]);
  const before = socketsOf(program.pid);
  const connections = await Promise.all(
    Array.from({ length: CONNECTIONS }, () => WebSocketClient.open(wss!)),
  );
  await untilEqual("sockets", () => socketsOf(program.pid), before + CONNECTIONS);
  for (const connection of connections) {
    connection.pause(); // it sees no end
    connection.text("no reply");
  }
  await untilEqual("sockets", () => socketsOf(program.pid), before);
  for (const connection of connections) connection.resume();
  for (const { closed } of connections)
    expect(await closed).toEqual({ code: 1008, reason: "auth failed" });
});

describe("the state file", () => {
  const flags = (path: string) => {
    const bytes = readFileSync(path);
    return new Map(
      Array.from({ length: (bytes.length - 32) / 32 }, (_, i) => {
        const at = 32 + 32 * i;
        return [bytes.readUInt32LE(at), bytes.readUInt16LE(at + 4)];
      }),
    );
  };

  test("has bridged nodes only if they were heard by UDP, and without a mark", async () => {
    const stateFile = newPath();
    const [onlyUdp, onlyBridged, both, bothEx] = [newId(), newId(), newId(), newId()];
    const nodes = new KnownNodes();
    const host = await start({ stateFile, stateIntervalMs: 1000 }, { nodes });
    await host.bridged(onlyBridged);
    await host.bridged(both);
    await host.bridged(bothEx);
    const udp = await host.udp(both);
    await host.udp(onlyUdp);
    const ex = await host.client();
    await ex.discoverEx(bothEx);
    const expected = new Map([
      [onlyUdp, 0],
      [both, 0],
      [bothEx, 1],
    ]);
    const saved = () => new Map([...flags(stateFile)].sort(([a], [b]) => a - b));
    await untilEqual("nodes saved", () => existsSync(stateFile) && saved(), expected);
    expect(host.stats.peers).toBe(3); // who are still connected
    const addresses = () =>
      Object.fromEntries(
        decodeState(readFileSync(stateFile)).nodes.map(({ nodeId, address, port }) => [
          nodeId,
          { address, port },
        ]),
      );
    expect(addresses()[both]).toEqual(udp.address);
    await host.beacon.close();
    expect(saved()).toEqual(expected);
    expect(addresses()[both]).toEqual(udp.address);

    // And so it is read again: they are reached by UDP, until they connect.
    const again = await start({ stateFile, addr: `127.0.0.1:${udp.beacon.port}` }, { nodes });
    expect(again.beacon.stats().nodes).toBe(3);
    const sender = await again.client();
    const payload = Uint8Array.of(1, 2, 3);
    await sender.relay(1, both, payload);
    expect((await udp.next()).bytes).toEqual(deliver(1, payload));
    await sender.relay(1, bothEx, payload);
    expect((await ex.next()).bytes).toEqual(deliverDest(1, bothEx, payload));
    const notFound = () => again.count((stats) => stats.relayNotFound);
    await sender.relay(1, onlyBridged, payload);
    await untilEqual("relays to nobody", notFound, 1);
    const back = await again.bridged(both);
    await sender.relay(1, both, payload);
    expect(await back.next()).toEqual(Buffer.from(deliver(1, payload)));
    expect(udp.pending).toBe(0);
  });
});

test("a bridged node is not forgotten, however long it says nothing; its UDP endpoint is, once it has left", async () => {
  const peer = await Client.open("127.0.0.1", { address: "127.0.0.1", port: 9 });
  const host = await start({
    nodeTtlMs: 1000,
    peers: [nameOf(peer)],
    gossipIntervalMs: 100,
    selfCheck: false,
  });
  const [node, both] = [await host.bridged(newId()), await host.bridged(newId())];
  await host.udp(both.nodeId);
  for (let i = 0; i < 5; i++) await host.udp(newId()); // which are forgotten meanwhile
  await untilEqual("nodes", () => host.beacon.stats().nodes, 2);
  await expectReaches(node, both);
  await expectReaches(both, node);
  peer.take();
  const { nodeIds } = decodeSync((await peer.next()).bytes);
  expect(nodeIds.sort()).toEqual([node.nodeId, both.nodeId]);
  both.close();
  await untilEqual("nodes", () => host.beacon.stats().nodes, 1);
  await expectReaches(node, node);
  peer.close();
});
