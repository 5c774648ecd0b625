/**
 * Workers that die, or hang: nothing is forgotten, traffic goes on, and one that keeps dying ends
 * the beacon.
 */
import { dlopen } from "bun:ffi";
import { afterEach, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { AF_INET } from "../../ffi/abi.ts";
import { attachReusePortProgram } from "../../ffi/bpf.ts";
import { EAGAIN } from "../../ffi/errno.ts";
import { kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch } from "../../ffi/mmsg.ts";
import { Beacon } from "../../src/beacon.ts";
import { openSockets } from "../../src/control/sockets/sockets.ts";
import { steeringProgram } from "../../src/control/sockets/steering.ts";
import { type PacketStats, packetStats } from "../../src/control/workers/packet-stats.ts";
import { Supervisor } from "../../src/control/workers/supervisor.ts";
import { HASH_SECRET, HEARTBEAT, MAIN_THREAD_LOCK, SharedMemory } from "../../src/shared/memory.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { recordedLog } from "../support/log.ts";
import { total } from "./support/beacon.ts";
import { type Client, Clients } from "./support/client.ts";
import {
  DIES_BEFORE_READY,
  DIES_ONCE_READY,
  HANGS_AT_FIRST,
  LAST_WORDS,
} from "./support/dying-worker.ts";
import { inTime, until, untilEqual } from "./support/wait.ts";
import { decode, discover, discoverEx } from "./support/wire.ts";

const WORKER_ENTRY = new URL("../../src/data/worker.ts", import.meta.url);
const DYING_ENTRY = new URL("./support/dying-worker.ts", import.meta.url);
/** What the supervisor allows within a minute, and so what a test may use up. */
const RESTARTS_MAX = 5;
/** Ticks without a step after which the supervisor kills a worker. */
const STALLED_TICKS_MAX = 10;
const BUFFER_BYTES = 4 << 20;

/** A beacon's data plane, put together as src/beacon.ts does, with its supervisor in reach. */
class DataPlane {
  /** Whether a thread that starts may open files. */
  hasFiles = true;
  readonly delayed: number[] = [];
  readonly restarted: { worker: number; error: Error; atMs: number }[] = [];
  readonly failed: { worker: number; error: Error }[] = [];
  readonly nodes: NodeTableOwner;
  readonly supervisor: Supervisor;
  readonly port: number;
  readonly #memory: SharedMemory;
  readonly #sockets: ReturnType<typeof openSockets>["sockets"];

  constructor(workers: number, entry: URL, batchMax = 64) {
    const options = { recvBufferBytes: BUFFER_BYTES, sendBufferBytes: BUFFER_BYTES, offload: true };
    const { sockets, offload } = openSockets(
      { host: "127.0.0.1", port: 0 },
      { count: workers, ...options },
    );
    const memory = new SharedMemory({ workers, nodesMax: 1000, routesMax: 100 });
    memory.words[HASH_SECRET] = 12_345;
    const nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
    if (workers > 1) attachReusePortProgram(sockets[0]!, steeringProgram(12_345, workers));
    this.#memory = memory;
    this.#sockets = sockets;
    this.nodes = nodes;
    this.port = sockets[0]!.localAddress().port;
    this.supervisor = new Supervisor(
      entry,
      memory,
      nodes,
      sockets,
      { beaconId: 0, batchMax, offload },
      {
        restarted: (worker, error) =>
          this.restarted.push({ worker, error, atMs: performance.now() }),
        delayed: (worker) => this.delayed.push(worker),
        failed: (worker, error) => this.failed.push({ worker, error }),
      },
      { hold() {}, release: () => this.hasFiles, close() {} },
    );
  }

  stats(worker: number): PacketStats {
    return packetStats(this.#memory, this.#memory.counterRow(worker));
  }

  /** Steps that a worker's loop has taken. */
  steps(worker: number): number {
    return this.#memory.words[this.#memory.workerWords(worker) + HEARTBEAT]!;
  }

  async close(): Promise<void> {
    await this.supervisor.stop();
    for (const socket of this.#sockets) socket.close();
  }
}

let plane: DataPlane | undefined;
const clients = new Clients(() => plane!);
let stopLoad: (() => Promise<unknown>) | undefined;
afterEach(async () => {
  await stopLoad?.();
  stopLoad = undefined;
  await plane?.close();
  plane = undefined;
  clients.close();
});

/** What arrived, as "sender to node", of senders that are looked for. */
const seen = new Set<string>();
afterEach(() => seen.clear());

/** The load's sender, which nobody looks for. */
const LOAD_SENDER = 0;

interface Node {
  readonly id: number;
  readonly client: Client;
}

/** Nodes that ask for RelayDeliverDest, so that every packet says whom it is for. */
async function register(count: number): Promise<Node[]> {
  return Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const client = await clients.open();
      await client.discoverEx(1 + i);
      return { id: 1 + i, client };
    }),
  );
}

function collect(client: Client): void {
  for (const { bytes } of client.take()) {
    const message = decode(bytes);
    if (message.type === "deliverDest" && message.senderId !== LOAD_SENDER) {
      seen.add(`${message.senderId} to ${message.destId}`);
    }
  }
}

/**
 * Relays to every node until each got a packet of this sender; what was sent to a dead worker may
 * be lost.
 */
async function expectReachable(nodes: readonly Node[], senderId: number): Promise<void> {
  const sender = await clients.open();
  await until(`every node is reached by ${senderId}`, async () => {
    for (const { client } of nodes) collect(client);
    const missing = nodes.filter(({ id }) => !seen.has(`${senderId} to ${id}`));
    for (const { id } of missing) await sender.relay(senderId, id, new Uint8Array(10));
    return missing.length === 0;
  });
}

/**
 * Packets to each node before the load lets others have their turn: some 50,000 a second to 20
 * nodes.
 */
const TURNS = 10;

/**
 * Sends packets from all nodes to all, in small turns, until told to stop: so many flows that every
 * worker gets some.
 */
function load(nodes: readonly Node[]): { stop(): Promise<number> } {
  let running = true;
  let sent = 0;
  const loading = (async () => {
    while (running) {
      for (let turn = 0; turn < TURNS; turn++) {
        for (const [i, { id, client }] of nodes.entries()) {
          const sender = nodes[(i + turn) % nodes.length]!.client;
          await sender.relay(LOAD_SENDER, id, new Uint8Array(200));
          collect(client);
          sent++;
        }
      }
      await Bun.sleep(1);
    }
    return sent;
  })();
  return {
    stop: () => {
      running = false;
      return loading;
    },
  };
}

describe("a worker that is killed", () => {
  test("under load, again and again: every node stays known and reachable", async () => {
    const WORKERS = 2;
    const ROUNDS = RESTARTS_MAX - 1;
    plane = new DataPlane(WORKERS, WORKER_ENTRY);
    await plane.supervisor.start();
    const nodes = await register(20);
    const loading = load(nodes);
    stopLoad = loading.stop;
    const recoveredMs: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      for (let worker = 0; worker < WORKERS; worker++) {
        const deaths = plane.restarted.length;
        plane.supervisor.kill(worker);
        const death = await until("the worker is replaced", () => plane?.restarted[deaths]);
        expect(death.worker).toBe(worker);
        expect(death.error).toBeInstanceOf(Error);
        const received = total(plane.stats(worker).packetsReceived);
        await until(
          "the new worker receives",
          () => plane && total(plane.stats(worker).packetsReceived) > received,
        );
        recoveredMs.push(performance.now() - death.atMs);
        await expectReachable(nodes, 1000 + round * WORKERS + worker);
      }
    }
    const sent = await loading.stop();
    expect(sent).toBeGreaterThan(0);
    expect(plane.supervisor.restarts).toEqual([ROUNDS, ROUNDS]);
    expect(plane.failed).toEqual([]);
    expect(plane.nodes.size()).toBe(nodes.length);
    expect([...plane.nodes.entries()].map(({ nodeId }) => nodeId).sort((a, b) => a - b)).toEqual(
      nodes.map(({ id }) => id),
    );
    const shown = recoveredMs.map((ms) => ms.toFixed(0)).join(", ");
    console.log(
      `from a worker's exit to its successor's first packet: ${shown} ms (${sent} packets sent)`,
    );
  });

  test("all at once, while nothing happens", async () => {
    plane = new DataPlane(4, WORKER_ENTRY);
    await plane.supervisor.start();
    const nodes = await register(20);
    for (let worker = 0; worker < 4; worker++) plane.supervisor.kill(worker);
    await until("all are replaced", () => plane?.restarted.length === 4);
    expect(plane.restarted.map(({ worker }) => worker).sort()).toEqual([0, 1, 2, 3]);
    await expectReachable(nodes, 1000);
    expect(plane.nodes.size()).toBe(20);
    // New nodes find their place too: no lock stayed behind.
    for (let id = 101; id <= 140; id++) await nodes[0]!.client.send(discover(id));
    await untilEqual("nodes", () => plane?.nodes.size(), 60);
  });

  test("while nodes register: no shard stays locked", async () => {
    plane = new DataPlane(2, WORKER_ENTRY);
    await plane.supervisor.start();
    const client = await clients.open();
    for (let round = 0; round < RESTARTS_MAX; round++) {
      const deaths = plane.restarted.length;
      for (const worker of [0, 1]) plane.supervisor.kill(worker);
      for (let id = 1; (plane.restarted.length < deaths + 2 || id <= 50) && id <= 900; id++) {
        await client.send(discoverEx(id));
        if (id % 20 === 0) await Bun.sleep(1);
      }
      await until("both are replaced", () => plane?.restarted.length === deaths + 2);
    }
    await expectReachable(
      Array.from({ length: 50 }, (_, i) => ({ id: 1 + i, client })),
      5000,
    );
    expect(plane.supervisor.restarts).toEqual([RESTARTS_MAX, RESTARTS_MAX]);
    const known = [...plane.nodes.entries()].length;
    expect(known).toBeGreaterThanOrEqual(50);
    expect(plane.nodes.size()).toBe(known);
  });
});

test("a worker that dies when no file can be opened is replaced once one can", async () => {
  plane = new DataPlane(1, WORKER_ENTRY);
  const { supervisor, delayed, restarted } = plane;
  await supervisor.start();
  plane.hasFiles = false;
  supervisor.kill(0);
  await until("it is missing", () => delayed.length > 0);
  for (let tick = 0; tick < 2 * STALLED_TICKS_MAX; tick++) supervisor.tick();
  expect(delayed).toEqual([0]);
  expect(restarted).toEqual([]);
  expect(supervisor.isAlive(0)).toBe(false);
  plane.hasFiles = true;
  supervisor.tick();
  expect(restarted.map(({ worker }) => worker)).toEqual([0]);
  const client = await clients.open();
  expect(await client.discover(7)).toEqual({ type: "discoverReply", ...client.address });
  expect(supervisor.restarts).toEqual([1]);
});

describe("a worker that dies by itself", () => {
  test("before it is ready: start fails with its error", async () => {
    plane = new DataPlane(2, DYING_ENTRY, DIES_BEFORE_READY);
    const error = await plane.supervisor.start().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect((error as Error).message).toContain(LAST_WORDS);
    expect(plane.restarted).toEqual([]);
    expect(plane.failed).toEqual([]);
  });

  test("again and again: it is given up", async () => {
    plane = new DataPlane(1, DYING_ENTRY, DIES_ONCE_READY);
    await plane.supervisor.start();
    const failed = await until("it is given up", () => plane?.failed[0]);
    expect(failed.worker).toBe(0);
    expect(failed.error.message).toContain(LAST_WORDS);
    expect(plane.restarted.map(({ worker, error }) => [worker, error.message])).toEqual(
      Array(RESTARTS_MAX).fill([0, expect.stringContaining(LAST_WORDS)]),
    );
    expect(plane.supervisor.restarts).toEqual([RESTARTS_MAX]);
    expect(plane.supervisor.isAlive(0)).toBe(false);
    expect(plane.failed).toHaveLength(1);
  });

  test("a beacon whose socket fails for good ends, and says why", async () => {
    const { symbols: libc } = dlopen("libc.so.6", {
      socket: { args: ["i32", "i32", "i32"], returns: "i32" },
      dup2: { args: ["i32", "i32"], returns: "i32" },
      close: { args: ["i32"], returns: "i32" },
    });
    const [AF_INET, SOCK_STREAM] = [2, 1];
    const { log, lines } = recordedLog();
    const beacon = new Beacon({ addr: "127.0.0.1:0", workers: 1, maxNodes: 1000 }, log);
    await beacon.listen();
    const fd = fdOfUdpPort(beacon.address.port);
    // An unconnected TCP socket takes the place of the beacon's: every receive fails with ENOTCONN.
    const other = libc.socket(AF_INET, SOCK_STREAM, 0);
    expect(libc.dup2(other, fd)).toBe(fd);
    libc.close(other);
    const reason = await inTime(
      "the beacon ends",
      beacon.closed.then(
        () => undefined,
        (error: unknown) => error as Error,
      ),
    );
    expect(reason?.message).toMatch(/worker 0 keeps dying.*ENOTCONN/);
    await beacon.close();
    expect(() => beacon.address).toThrow("not listening");
    const messages = lines.map(({ msg }) => msg);
    expect(messages.filter((message) => message.endsWith("was replaced"))).toHaveLength(
      RESTARTS_MAX,
    );
    expect(messages.filter((message) => message.endsWith("not replaced again"))).toHaveLength(1);
    expect(messages.at(-1)).toBe("beacon closed");
  });
});

describe("a worker that hangs", () => {
  test("is killed and replaced, whatever it held", async () => {
    plane = new DataPlane(1, DYING_ENTRY, HANGS_AT_FIRST);
    const { supervisor, restarted, nodes } = plane;
    await supervisor.start();
    supervisor.tick(); // which sees its one step
    for (let tick = 1; tick < STALLED_TICKS_MAX; tick++) supervisor.tick();
    await Bun.sleep(100); // a worker that was killed would have ended
    expect(restarted).toEqual([]);
    expect(supervisor.isAlive(0)).toBe(true);
    const client = await clients.open();
    await client.send(discoverEx(7)); // waits in the socket
    supervisor.tick();
    await until("it is replaced", () => restarted.length > 0);
    expect(restarted.map(({ worker, error }) => [worker, error.message])).toEqual([
      [0, expect.stringContaining(`no step in ${STALLED_TICKS_MAX} seconds`)],
    ]);
    expect(await client.message()).toEqual({ type: "discoverReply", ...client.address });
    expect(nodes.size()).toBe(1);
    expect(supervisor.restarts).toEqual([1]);
    await expectReachable([{ id: 7, client }], 1000);
  });

  test("is not one that waits for packets, and not one that handles them", async () => {
    plane = new DataPlane(2, WORKER_ENTRY);
    const { supervisor, restarted } = plane;
    await supervisor.start();
    const nodes = await register(20);
    await until("both took a step", () => [0, 1].every((worker) => plane!.steps(worker) > 0));
    for (const loading of [undefined, load(nodes)]) {
      stopLoad = loading?.stop;
      for (let round = 0; round < 5; round++) {
        for (let tick = 0; tick < STALLED_TICKS_MAX; tick++) supervisor.tick();
        const before = [0, 1].map((worker) => plane!.steps(worker));
        await until("both take a step", () =>
          before.every((steps, worker) => plane!.steps(worker) > steps),
        );
      }
    }
    expect(restarted).toEqual([]);
    await expectReachable(nodes, 1000);
  });

  test("does not hold up the end", async () => {
    plane = new DataPlane(1, DYING_ENTRY, HANGS_AT_FIRST);
    await plane.supervisor.start();
    await inTime("it stops", plane.supervisor.stop());
    expect(plane.supervisor.isAlive(0)).toBe(false);
    expect(plane.restarted).toEqual([]);
  });

  test("again and again is given up", async () => {
    // Its heartbeat stands still for the supervisor, which is not told of any step.
    plane = new DataPlane(1, WORKER_ENTRY);
    const { supervisor, failed, restarted } = plane;
    await supervisor.start();
    for (let death = 1; death <= RESTARTS_MAX + 1; death++) {
      for (let tick = 0; tick <= 2 * STALLED_TICKS_MAX; tick++) supervisor.tick();
      await until("it died", () => restarted.length + failed.length === death);
    }
    expect(failed.map(({ worker }) => worker)).toEqual([0]);
    expect(supervisor.isAlive(0)).toBe(false);
    // nobody is there to be killed
    for (let tick = 0; tick <= STALLED_TICKS_MAX; tick++) supervisor.tick();
    expect(restarted).toHaveLength(RESTARTS_MAX);
  });
});

describe("workers that are parked", () => {
  const relayToAll = async (nodes: readonly Node[], senderId: number) => {
    const sender = await clients.open();
    for (const { id } of nodes) await sender.relay(senderId, id, new Uint8Array(10));
  };
  const bothTakeSteps = (count: number) => {
    const before = [0, 1].map((worker) => plane!.steps(worker));
    return until("both take steps", () =>
      before.every((steps, worker) => plane!.steps(worker) >= steps + count),
    );
  };
  const allSeen = (nodes: readonly Node[], senderId: number) => () => {
    for (const { client } of nodes) collect(client);
    return nodes.every(({ id }) => seen.has(`${senderId} to ${id}`));
  };

  test("receive nothing, and handle what came meanwhile once they go on", async () => {
    plane = new DataPlane(2, WORKER_ENTRY);
    const { supervisor } = plane;
    await supervisor.start();
    const nodes = await register(20);
    for (let senderId = 1000; senderId < 1003; senderId++) {
      await supervisor.park();
      await relayToAll(nodes, senderId);
      await bothTakeSteps(10);
      for (let tick = 0; tick < STALLED_TICKS_MAX; tick++) {
        await bothTakeSteps(1);
        supervisor.tick();
      }
      for (const { client } of nodes) collect(client);
      expect([...seen].filter((text) => text.startsWith(String(senderId)))).toEqual([]);
      supervisor.unpark();
      await until("all got theirs", allSeen(nodes, senderId));
    }
    expect(plane.restarted).toEqual([]);
  });

  test("may be so from the start, and one that dies is replaced by one that is, too", async () => {
    plane = new DataPlane(2, WORKER_ENTRY);
    const { supervisor, restarted, nodes: table } = plane;
    await supervisor.start(true);
    const client = await clients.open();
    await client.send(discover(7));
    await bothTakeSteps(10);
    supervisor.kill(0);
    supervisor.kill(1);
    await until("both are replaced", () => restarted.length === 2);
    await supervisor.park();
    await bothTakeSteps(10);
    expect(table.size()).toBe(0);
    supervisor.unpark();
    expect((await client.message()).type).toBe("discoverReply");
  });

  test("end when all end, and leave sockets as they are that others have, too", async () => {
    plane = new DataPlane(2, WORKER_ENTRY);
    const { supervisor, port } = plane;
    supervisor.sharesSockets = true;
    await supervisor.start();
    await supervisor.park();
    const fd = fdOfUdpPort(port);
    await inTime("they stop", supervisor.stop());
    const receive = new ReceiveBatch(kernel, fd, AF_INET, 1, allocatePacketMemory(1, 0), false);
    expect(receive.receive(true)).toBe(-EAGAIN); // and not "nothing, and nothing ever"
  });
});

/** This process's descriptor of the one UDP socket on a port. */
function fdOfUdpPort(port: number): number {
  const hexPort = port.toString(16).toUpperCase().padStart(4, "0");
  const inode = readFileSync("/proc/net/udp", "utf8")
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .find((fields) => fields[1]?.endsWith(`:${hexPort}`))?.[9];
  const fd = readdirSync("/proc/self/fd").find((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`) === `socket:[${inode}]`;
    } catch {
      return false; // the descriptor of the listing itself
    }
  });
  if (inode === undefined || fd === undefined) throw new Error(`nobody here has UDP port ${port}`);
  return Number(fd);
}
