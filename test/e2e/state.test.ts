/**
 * Beacons that are started again with the state file of the one before: who was known is reached,
 * without a word of its own.
 */

import { afterEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Beacon, type Config } from "../../src/beacon.ts";
import { temporaryPaths } from "../support/folder.ts";
import { recordedLog } from "../support/log.ts";
import { sum, UNLIMITED_FLAGS } from "./support/beacon.ts";
import { type Client, Clients } from "./support/client.ts";
import { BeaconProcess, freePort } from "./support/mesh.ts";
import { installed, type LogLine, MAIN, type Program, Programs } from "./support/program.ts";
import { decodeState, encodeState, type SavedNode } from "./support/state.ts";
import { until, untilEqual } from "./support/wait.ts";
import { decode, discoverEx, relay } from "./support/wire.ts";

const newPath = temporaryPaths();

let port = 0;
const clients = new Clients(() => ({ port }));
const programs = new Programs();
const opened: Beacon[] = [];
const loads: Load[] = [];
afterEach(async () => {
  for (const load of loads.splice(0)) await load.stop();
  for (const beacon of opened.splice(0)) await beacon.close();
  await programs.kill();
  clients.close();
});

/** Clients that are many nodes together: node `id` is the `id % clients`th's. */
const SOCKETS = 5;
const openSockets = () => Promise.all(Array.from({ length: SOCKETS }, () => clients.open()));
const ids = (count: number) => Array.from({ length: count }, (_, i) => 1 + i);

/** Relays to nodes in turn, about 2,000 a second, whatever becomes of the beacon meanwhile. */
class Load {
  /**
   * Nodes that got a packet since the last `restart`. The nodes ask for RelayDeliverDest, so
   * packets say whom they are for.
   */
  readonly reached = new Set<number>();
  #senderId = 1_000_001;
  #running = true;
  readonly #done: Promise<void>;

  constructor(
    private readonly sender: Client,
    private readonly nodes: readonly Client[],
    nodeIds: readonly number[],
  ) {
    loads.push(this);
    this.#done = this.#run(nodeIds);
  }

  /** Only packets that are sent from now on count. */
  restart(): void {
    this.#senderId++;
    this.reached.clear();
  }

  stop(): Promise<void> {
    this.#running = false;
    return this.#done;
  }

  async #run(nodeIds: readonly number[]): Promise<void> {
    const AT_ONCE = 10;
    const PAUSE_MS = 5;
    for (let next = 0; this.#running; ) {
      for (let i = 0; i < AT_ONCE; i++) {
        await this.#relay(nodeIds[next]!);
        next = (next + 1) % nodeIds.length;
      }
      await Bun.sleep(PAUSE_MS);
      for (const client of this.nodes) this.#collect(client);
    }
  }

  async #relay(nodeId: number): Promise<void> {
    try {
      await this.sender.relay(this.#senderId, nodeId, new Uint8Array(200));
    } catch (error) {
      // no beacon there now
      if ((error as NodeJS.ErrnoException).code !== "ECONNREFUSED") throw error;
    }
  }

  #collect(client: Client): void {
    for (const { bytes } of client.take()) {
      const message = decode(bytes);
      if (message.type === "deliverDest" && message.senderId === this.#senderId)
        this.reached.add(message.destId);
    }
  }
}

describe("a beacon with 1,000 nodes", () => {
  const NODE_IDS = ids(1000);

  /** Starts a beacon on the port of the one before. */
  function start(path: string): Program {
    return programs.beacon([
      `--addr=127.0.0.1:${port}`,
      "--http=127.0.0.1:0",
      "--log-format=json",
      "--log-level=debug",
      "--workers=2",
      "--max-nodes=5000",
      `--state-file=${path}`,
      "--state-interval=1s",
      ...UNLIMITED_FLAGS,
    ]);
  }

  /** Registers all nodes, and relays to them from now on. */
  async function register(beacon: BeaconProcess): Promise<Load> {
    const nodes = await openSockets();
    const AT_ONCE = 50;
    for (const id of NODE_IDS) {
      await nodes[id % SOCKETS]!.send(discoverEx(id));
      if (id % AT_ONCE === 0)
        await untilEqual("nodes", async () => (await beacon.stats()).nodes, id);
    }
    const load = new Load(await clients.open(), nodes, NODE_IDS);
    await untilEqual("nodes reached at first", () => load.reached.size, NODE_IDS.length);
    return load;
  }

  /** Starts it again, waits until it relays to all nodes, and says how long that took. */
  async function expectAllReached(what: string, path: string, load: Load): Promise<void> {
    load.restart();
    const startMs = performance.now();
    const program = start(path);
    const beacon = await BeaconProcess.of(program, "127.0.0.1");
    const listensMs = performance.now() - startMs;
    await untilEqual("nodes reached again", () => load.reached.size, NODE_IDS.length);
    const shown = [listensMs, performance.now() - startMs].map((ms) => ms.toFixed(0));
    console.log(
      `${what}: from start to listening ${shown[0]} ms, to all 1,000 nodes reached ${shown[1]} ms`,
    );
    const stats = await beacon.stats();
    expect({
      nodes: stats.nodes,
      discovers: sum(stats, (w) => w.discovers),
      notFound: sum(stats, (w) => w.relayNotFound), // not even the first packets came too early
    }).toEqual({ nodes: NODE_IDS.length, discovers: 0, notFound: 0 });
    expect(
      program.log().find(({ msg }) => msg.includes("held 1000 nodes: 1000 restored")),
    ).toBeDefined();
  }

  test("is asked to stop and started again: it relays to all of them", async () => {
    port = freePort();
    const path = newPath();
    const first = start(path);
    const load = await register(await BeaconProcess.of(first, "127.0.0.1"));
    first.signal("SIGTERM");
    expect(await first.exited()).toBe(0);
    await expectAllReached("asked to stop", path, load);
  });

  test("is killed after a save and started again: it relays to all that were in the file", async () => {
    port = freePort();
    const path = newPath();
    const first = start(path);
    const load = await register(await BeaconProcess.of(first, "127.0.0.1"));
    await first.logged(/saved 1000 nodes/);
    await first.kill();
    const saved = decodeState(readFileSync(path));
    expect(saved.nodes.map(({ nodeId }) => nodeId).sort((a, b) => a - b)).toEqual(NODE_IDS);
    await expectAllReached("killed", path, load);
  });
});

/** A beacon in this process, started again and again, with what it logs. */
async function beaconWith(
  options: Partial<Config>,
): Promise<{ beacon: Beacon; log: readonly LogLine[] }> {
  const { log, lines } = recordedLog();
  const beacon = new Beacon({ addr: "127.0.0.1:0", workers: 2, maxNodes: 1000, ...options }, log);
  opened.push(beacon);
  await beacon.listen();
  ({ port } = beacon.address);
  return { beacon, log: lines };
}

const messages = (log: readonly LogLine[], level: string) =>
  log.filter((line) => line.level === level).map(({ msg }) => msg);
const loaded = (log: readonly LogLine[]) => log.find(({ msg }) => msg.includes(" held "))?.msg;
const saved = (log: readonly LogLine[]) => log.find(({ msg }) => msg.startsWith("saved "))?.msg;

/** A client as a state file would hold it. */
function savedNode(nodeId: number, client: Client, ageS = 0, wantsDest = true): SavedNode {
  return { nodeId, ...client.address, ageS, wantsDest };
}

const SENDER_ID = 1_000_000;
const relayTo = (nodeId: number, payload: Uint8Array) => relay(SENDER_ID, nodeId, payload);

/** Registers two nodes and relays from one to the other. */
async function expectRelays(): Promise<void> {
  const [a, b] = [await clients.open(), await clients.open()];
  await a.discover(2001);
  await b.discover(2002);
  await a.relay(2001, 2002, new Uint8Array([7]));
  expect(await b.message()).toEqual({
    type: "deliver",
    senderId: 2001,
    payload: new Uint8Array([7]),
  });
}

describe("what is restored", () => {
  test("a node's address, and how it wants its packets", async () => {
    const path = newPath();
    const [plain, extended, sender] = await Promise.all([
      clients.open(),
      clients.open(),
      clients.open(),
    ]);
    const nodes = [savedNode(7, plain, 1, false), savedNode(0xffff_ffff, extended, 2)];
    writeFileSync(path, encodeState({ savedMs: Date.now(), nodes }));
    const { beacon, log } = await beaconWith({ stateFile: path });
    expect(messages(log, "warn")).toEqual([]);
    expect(loaded(log)).toEndWith("held 2 nodes: 2 restored");
    const payload = new Uint8Array([1, 2, 3]);
    for (const id of [7, 0xffff_ffff]) await sender.send(relayTo(id, payload), beacon.address);
    expect(await plain.message()).toEqual({ type: "deliver", senderId: SENDER_ID, payload });
    expect(await extended.message()).toEqual({
      type: "deliverDest",
      senderId: SENDER_ID,
      destId: 0xffff_ffff,
      payload,
    });
  });

  test("its age: one that is too old by now is not, and one that is old goes in time", async () => {
    const path = newPath();
    const client = await clients.open();
    const SAVED_S_AGO = 10;
    // Of 20 s to live: 6 s too old by now, with 3 s left, and with 10 s left.
    const nodes = [savedNode(1, client, 16), savedNode(2, client, 7), savedNode(3, client, 0)];
    writeFileSync(path, encodeState({ savedMs: Date.now() - 1000 * SAVED_S_AGO, nodes }));
    const { beacon, log } = await beaconWith({ stateFile: path, nodeTtlMs: 20_000 });
    expect(loaded(log)).toEndWith("held 3 nodes: 2 restored, 1 too old");
    expect(beacon.stats().nodes).toBe(2);
    await untilEqual("nodes", () => beacon.stats().nodes, 1);
    await client.send(relayTo(3, new Uint8Array()), beacon.address);
    expect(await client.message()).toMatchObject({ type: "deliverDest", destId: 3 });
    await beacon.close();
    const [left] = decodeState(readFileSync(path)).nodes;
    expect(left).toMatchObject({ nodeId: 3 });
    // As old as it was, and not as new as this beacon.
    expect(left!.ageS).toBeGreaterThan(SAVED_S_AGO);
  });

  test.each([1, 3])("with another number of workers: %i", async (workers) => {
    const path = newPath();
    const sockets = await openSockets();
    const nodes = ids(1000).map((id) => savedNode(id, sockets[id % SOCKETS]!));
    writeFileSync(path, encodeState({ savedMs: Date.now(), nodes }));
    const { beacon, log } = await beaconWith({ stateFile: path, workers, maxNodes: 2000 });
    expect(loaded(log)).toEndWith("held 1000 nodes: 1000 restored");
    const load = new Load(await clients.open(), sockets, ids(1000));
    await untilEqual("nodes reached", () => load.reached.size, 1000);
    expect(sum(beacon.stats(), (w) => w.relayNotFound)).toBe(0);
  });

  test("what fits, where --max-nodes is smaller, and it says what does not", async () => {
    const path = newPath();
    const sockets = await openSockets();
    const nodes = ids(1000).map((id) => savedNode(id, sockets[id % SOCKETS]!));
    writeFileSync(path, encodeState({ savedMs: Date.now(), nodes }));
    const { beacon, log } = await beaconWith({ stateFile: path, workers: 1, maxNodes: 600 });
    expect(loaded(log)).toEndWith(
      "held 1000 nodes: 600 restored, 400 without room: raise --max-nodes",
    );
    expect(beacon.stats().nodes).toBe(600);
    const load = new Load(await clients.open(), sockets, ids(1000));
    await untilEqual("nodes reached", () => load.reached.size, 600);
    await until(
      "the others are asked for",
      () => sum(beacon.stats(), (w) => w.relayNotFound) >= 400,
    );
    expect(load.reached.size).toBe(600);
  });

  test("not what the new address cannot reach", async () => {
    const path = newPath();
    const both = await beaconWith({ addr: ":0", stateFile: path });
    const [four, six] = [await clients.open("127.0.0.1"), await clients.open("::1")];
    await four.discover(4);
    await six.discover(6);
    await both.beacon.close();
    expect(saved(both.log)).toStartWith("saved 2 nodes");
    const file = readFileSync(path);

    for (const [addr, reached, id] of [
      ["127.0.0.1:0", four, 4],
      ["[::1]:0", six, 6],
    ] as const) {
      writeFileSync(path, file);
      const { beacon, log } = await beaconWith({ addr, stateFile: path });
      expect(loaded(log)).toEndWith(
        "held 2 nodes: 1 restored, 1 not to be reached from this address",
      );
      const sender = await clients.open(beacon.address.address);
      await sender.relay(SENDER_ID, id, new Uint8Array([id]));
      expect(await reached.message()).toMatchObject({
        type: "deliver",
        payload: new Uint8Array([id]),
      });
      await sender.relay(SENDER_ID, 10 - id, new Uint8Array());
      await untilEqual("relays to nobody", () => sum(beacon.stats(), (w) => w.relayNotFound), 1);
      await beacon.close();
    }
  });
});

describe("a file that cannot be used", () => {
  const nodes: SavedNode[] = [
    { nodeId: 7, address: "127.0.0.1", port: 9, ageS: 0, wantsDest: true },
  ];
  const whole = () => encodeState({ savedMs: Date.now(), nodes });
  const flipped = () => {
    const bytes = whole();
    bytes[40]! ^= 1;
    return bytes;
  };

  test.each([
    { name: "damaged", content: flipped, says: "is damaged (its checksum does not match)" },
    {
      name: "cut short",
      content: () => whole().subarray(0, 50),
      says: "is damaged (it has 50 bytes in place of 64)",
    },
    {
      name: "cut off within its header",
      content: () => whole().subarray(0, 8),
      says: "is damaged (it ends within its header)",
    },
    {
      name: "a newer beacon's",
      content: () => encodeState({ savedMs: Date.now(), nodes }, 3),
      says: "is of a newer beacon (format 3, this one knows 2)",
    },
  ])(
    "$name: kept aside with a warning, and the beacon starts without nodes",
    async ({ content, says }) => {
      const path = newPath();
      const bytes = Buffer.from(content());
      writeFileSync(path, bytes);
      const { beacon, log } = await beaconWith({ stateFile: path });
      expect(messages(log, "warn")).toEqual([
        `the state file "${path}" ${says}: starting without it; it is kept as "${path}.rejected"`,
      ]);
      expect(readFileSync(`${path}.rejected`)).toEqual(bytes);
      expect(beacon.stats().nodes).toBe(0);
      await expectRelays();
      await beacon.close();
      const ids = decodeState(readFileSync(path)).nodes.map(({ nodeId }) => nodeId);
      expect(ids.sort()).toEqual([2001, 2002]);
      expect(readFileSync(`${path}.rejected`)).toEqual(bytes); // for whoever wants to look into it
    },
  );
});

describe("a path that cannot be written", () => {
  test.each([
    {
      name: "in no directory",
      path: () => join(newPath(), "nodes"),
      warning: /cannot be saved/,
      advice: "create it, or choose another path",
    },
  ])("$name: a warning that says what to do, and the beacon works and ends", async (testCase) => {
    const { path, advice } = testCase;
    const stateFile = path();
    const program = programs.beacon([
      "--addr=127.0.0.1:0",
      "--http=127.0.0.1:0",
      "--log-format=json",
      "--workers=1",
      "--max-nodes=1000",
      `--state-file=${stateFile}`,
    ]);
    const beacon = await BeaconProcess.of(program, "127.0.0.1");
    ({ port } = beacon.at);
    const warning = await program.logged(testCase.warning);
    expect(warning.level).toBe("warn");
    expect(warning.msg).toContain(JSON.stringify(stateFile));
    expect(warning.msg).toEndWith(advice);
    await expectRelays();
    expect((await beacon.stats()).stateSavedS).toBeNull();
    expect(await beacon.metric("beacon_state_saved_timestamp_seconds")).toBe(0);
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
  });
});

const NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
const canBeNobody =
  process.getuid?.() === 0 &&
  installed("setpriv") &&
  Bun.spawnSync([...NOBODY, "test", "-r", MAIN]).success;

test.skipIf(!canBeNobody)(
  "a file that may not be read is not written over (needs root and setpriv, and sources that all may read)",
  async () => {
    const own = mkdtempSync(join(tmpdir(), "beacon-nobody-"));
    try {
      chmodSync(own, 0o777);
      const path = join(own, "nodes");
      writeFileSync(path, "somebody's", { mode: 0o600 });
      const flags = [
        "--addr=127.0.0.1:0",
        "--http=off",
        "--log-format=json",
        "--workers=1",
        "--max-nodes=1000",
      ];
      const command = [...NOBODY, process.execPath, MAIN, ...flags, `--state-file=${path}`];
      const program = programs.spawn(command);
      await program.logged(/cannot be read \(EACCES\)/);
      await program.logged(/no nodes are saved either/);
      await program.logged(/listens on/);
      program.signal("SIGTERM");
      expect(await program.exited()).toBe(0);
      expect(readFileSync(path, "utf8")).toBe("somebody's");
    } finally {
      rmSync(own, { recursive: true });
    }
  },
);

describe("when it is saved", () => {
  test("right after the start, and then again and again", async () => {
    const path = newPath();
    const program = programs.beacon([
      "--addr=127.0.0.1:0",
      "--http=127.0.0.1:0",
      "--log-format=json",
      "--log-level=debug",
      "--workers=1",
      "--max-nodes=1000",
      `--state-file=${path}`,
      "--state-interval=1s",
    ]);
    const beacon = await BeaconProcess.of(program, "127.0.0.1");
    ({ port } = beacon.at);
    const before = Math.floor(Date.now() / 1000);
    await program.logged(/saved 0 nodes/);
    await expectRelays();
    const from = program.lines.length;
    await program.logged(/saved 2 nodes/, from);
    const { stateSavedS } = await beacon.stats();
    expect(stateSavedS).toBeWithin(before - 1, Date.now() / 1000 + 1);
    expect(await beacon.metric("beacon_state_saved_timestamp_seconds")).toBeGreaterThanOrEqual(
      stateSavedS!,
    );
    expect(decodeState(readFileSync(path)).nodes).toHaveLength(2);
  });

  test("not at all without --state-file", async () => {
    const { beacon, log } = await beaconWith({});
    await beacon.close();
    expect(log.filter(({ msg }) => msg.includes("state file"))).toEqual([]);
  });
});
