import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { ENDPOINT_PORT_MASK, ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import { nodeHash, slotOfHash } from "../../src/shared/hash.ts";
import {
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  SHARD_LOCK,
  SharedMemory,
  workerLock,
} from "../../src/shared/memory.ts";
import { ADDED, CONTENDED, MOVED, REFRESHED } from "../../src/shared/nodes.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { IS_BRIDGED } from "../../src/shared/slots.ts";
import { again } from "../support/again.ts";
import {
  derive,
  FINISHED,
  isWhole,
  KEY_NODES,
  keyFor,
  type NodeWorkerData,
  type NodeWorkerResult,
  ROUNDS,
  STABLE,
  STOP,
} from "../support/node-worker.ts";
import { patience, repeatWhile } from "../support/patience.ts";

const SECRET = 0x1357_9bdf;
const NODES = 2;
/** Ids from here on come and go. */
const PASSING_ID = 1000;

function oneShard() {
  const memory = new SharedMemory({ workers: 1, nodesMax: 500, routesMax: 100 });
  memory.words[HASH_SECRET] = SECRET;
  const nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
  const endpoint = new Int32Array(ENDPOINT_WORDS);
  for (let id = 1; id <= NODES; id++) {
    derive(id, endpoint);
    expect(nodes.record(id, endpoint, 0, 0, 1)).toBe(ADDED);
  }
  return { memory, nodes };
}

function start(
  memory: SharedMemory,
  worker: number,
  task: NodeWorkerData["task"],
  operations: number,
  words: SharedArrayBuffer,
  passing: readonly [number, number] = [0, 0],
): Worker {
  const data: NodeWorkerData = {
    shape: memory.shape,
    buffer: memory.buffer,
    keysBuffer: memory.keysBuffer,
    holder: workerLock(worker),
    task,
    nodes: NODES,
    firstId: PASSING_ID + worker * 1_000_000,
    operations,
    seed: worker + 1,
    passing,
    words,
  };
  return new Worker(new URL("../support/node-worker.ts", import.meta.url), { workerData: data });
}

async function result(worker: Worker): Promise<NodeWorkerResult> {
  const [message] = (await once(worker, "message")) as [NodeWorkerResult];
  return message;
}

/** What must hold of a table that nobody is writing to. */
function expectConsistent(memory: SharedMemory, nodes: NodeTableOwner): void {
  expect(memory.words[memory.shardWords(0) + SHARD_LOCK]).toBe(0);
  const scratch = new Int32Array(ENDPOINT_WORDS);
  const entries = [...nodes.entries()];
  expect(nodes.size()).toBe(entries.length);
  expect(new Set(entries.map(({ nodeId }) => nodeId)).size).toBe(entries.length);
  for (const { nodeId, endpoint } of entries) {
    expect(nodes.find(nodeId)).toBeGreaterThanOrEqual(0);
    expect(isWhole(endpoint, scratch)).toBe(true);
  }
  for (let id = 1; id <= NODES; id++) expect(nodes.find(id)).toBeGreaterThanOrEqual(0);
}

function idsOfOneSlot(memory: SharedMemory): [number, number] {
  const slotOf = (id: number) => slotOfHash(nodeHash(id, SECRET), memory.slotsPerShard);
  const first = PASSING_ID;
  for (let second = first + 1; ; second++)
    if (slotOf(second) === slotOf(first)) return [first, second];
}

test("isWhole tells whole endpoints from mixed ones", () => {
  const [a, b, scratch] = [0, 0, 0].map(() => new Int32Array(ENDPOINT_WORDS)) as [
    Int32Array,
    Int32Array,
    Int32Array,
  ];
  derive(0x12_3456, a);
  derive(0x65_4321, b);
  expect(isWhole(a, scratch)).toBe(true);
  for (let words = 1; words < ENDPOINT_WORDS; words++) {
    const mixed = new Int32Array([...a.subarray(0, words), ...b.subarray(words)]);
    expect(isWhole(mixed, scratch)).toBe(false);
  }
});

test("readers never see a torn entry, and nothing is lost, while writers move, add and expire", async () => {
  const { memory, nodes } = oneShard();
  // Enough that a table without its lock, or without a reader's second look at the version, fails
  // here.
  const OPERATIONS = { move: 200_000, cycle: 20_000, read: 1_000_000 };
  const words = new SharedArrayBuffer(8);
  const tasks = ["move", "cycle", "move", "cycle", "read", "read"] as const;
  const results: Promise<NodeWorkerResult>[] = [];
  // Started one after the other: concurrent first loads of the C library crashed Bun before 1.4.0.
  for (const [worker, task] of tasks.entries()) {
    const thread = start(memory, worker, task, OPERATIONS[task], words);
    results.push(result(thread));
    await once(thread, "online");
  }
  const of = (task: (typeof tasks)[number]) =>
    Promise.all(results.filter((_, worker) => tasks[worker] === task));
  const readers = await of("read");
  Atomics.store(new Int32Array(words), STOP, 1);
  for (const { torn, missed, done } of readers) {
    expect(torn).toBe(0);
    expect(missed).toBe(0);
    // A read fails only when writers changed the entry twice within each of its tries.
    expect(done).toBeGreaterThan(0.9 * OPERATIONS.read);
  }
  for (const { done, contended } of await of("move")) {
    expect(done).toBeGreaterThanOrEqual(OPERATIONS.move);
    expect(contended).toBe(0);
  }
  for (const { done, contended } of await of("cycle")) {
    expect(done).toBeGreaterThanOrEqual(OPERATIONS.cycle);
    expect(contended).toBe(0);
  }
  nodes.expire(0, 0, nodes.slotsPerShard, 1);
  expect(nodes.size()).toBe(NODES);
  expectConsistent(memory, nodes);
});

test("readers find the old state or the new, and nothing else, while nodes come to the bridge and leave it", async () => {
  const { memory, nodes } = oneShard();
  const OPERATIONS = { watch: 100_000, move: 1000 };
  /** Two nodes whose search begins in one slot: when one leaves, the other moves up. */
  const passing = idsOfOneSlot(memory);
  const words = new SharedArrayBuffer(16);
  const shared = new Int32Array(words);
  // The main thread does not wait for a lock.
  const bridge = (id: number) => again(() => nodes.bridge(id, 1), CONTENDED);
  const unbridge = (id: number) => again(() => nodes.unbridge(id), false);
  for (const id of passing) expect(bridge(id)).toBe(ADDED);
  const tasks = ["move", "watch", "watch"] as const;
  const results: Promise<NodeWorkerResult>[] = [];
  for (const [worker, task] of tasks.entries()) {
    const thread = start(memory, worker, task, OPERATIONS[task], words, passing);
    results.push(result(thread));
    await once(thread, "online");
  }

  const endpoint = new Int32Array(ENDPOINT_WORDS);
  /**
   * The flags of a node that is there. Nobody but this thread changes them, whatever another one
   * records.
   */
  const flagsOf = (id: number): number => {
    const slot = nodes.find(id);
    if (slot < 0) throw new Error(`node ${id} is gone`);
    // It does not move, but is recorded at ever other endpoints.
    repeatWhile(() => nodes.slots.read(slot, id, endpoint, 0) < 0, `node ${id} is read`);
    return endpoint[0]! & ~ENDPOINT_PORT_MASK;
  };
  const changed = { bridged: 0, unbridged: 0, removed: 0, added: 0, moved: 0 };
  const check = patience("both watchers finish");
  while (Atomics.load(shared, FINISHED) < 2) {
    check();
    for (let round = 0; round < 100; round++) {
      for (let id = 1; id <= NODES; id++) {
        if (flagsOf(id) !== 0) throw new Error(`node ${id} has flags of the bridge`);
        if (bridge(id) === MOVED) changed.bridged++;
        if (flagsOf(id) !== IS_BRIDGED) throw new Error(`node ${id} lost the bridge's flag`);
        if (unbridge(id)) changed.unbridged++;
      }
      const stable = Atomics.add(shared, STABLE, 1) + 1;
      const [stays, leaves] = (stable & 1) === 0 ? passing : passing.toReversed();
      const slot = nodes.find(stays!);
      if (unbridge(leaves!) && nodes.find(leaves!) < 0) changed.removed++;
      if (nodes.find(stays!) !== slot) changed.moved++;
      if (bridge(leaves!) === ADDED) changed.added++;
    }
    await new Promise(setImmediate);
  }
  Atomics.store(shared, STOP, 1);
  const [mover, ...watchers] = await Promise.all(results);
  for (const { torn, missed, done } of watchers) {
    expect(torn).toBe(0);
    expect(missed).toBe(0);
    expect(done).toBeGreaterThan(0.9 * OPERATIONS.watch);
  }
  expect(mover!.contended).toBe(0);
  expect(changed.bridged).toBeGreaterThan(0);
  expect(changed).toEqual({
    bridged: changed.bridged,
    unbridged: changed.bridged,
    removed: changed.bridged / NODES,
    added: changed.bridged / NODES,
    moved: changed.bridged / NODES,
  });
  for (const id of passing) expect(unbridge(id)).toBe(true);
  expect(nodes.size()).toBe(NODES);
  expectConsistent(memory, nodes);
});

test("no node has another's key, or half of one, while nodes come with their keys and go", async () => {
  const { memory, nodes } = oneShard();
  const OPERATIONS = 100_000;
  const words = new SharedArrayBuffer(8);
  const results: Promise<NodeWorkerResult>[] = [];
  for (const worker of [0, 1]) {
    const thread = start(memory, worker, "keys", OPERATIONS, words);
    results.push(result(thread));
    await once(thread, "online");
  }
  const ids = [0, 1_000_000].flatMap((of) =>
    Array.from({ length: KEY_NODES }, (_, i) => PASSING_ID + of + i),
  );
  const seen = { keys: 0, removed: 0, moved: 0 };
  const KEYS_MIN = 100_000;
  const check = patience("keys are seen, and nodes are removed and moved");
  for (let from = 0; seen.keys < KEYS_MIN || seen.removed < KEY_NODES || seen.moved === 0; ) {
    check();
    const slotsBefore = ids.map((id) => nodes.find(id));
    const removed = nodes.expire(0, from, 128, 0); // about half of them: others move up
    from = (from + 128) % nodes.slotsPerShard;
    seen.removed += Math.max(0, removed);
    for (const [i, id] of ids.entries()) {
      const slot = nodes.find(id);
      if (slot >= 0 && slotsBefore[i]! >= 0 && slot !== slotsBefore[i]) seen.moved++;
      const key = nodes.keyOf(id);
      if (key === undefined) continue;
      seen.keys++;
      if (Buffer.compare(key, keyFor(id)) !== 0) throw new Error(`node ${id} has another's key`);
    }
    if (from === 0) await new Promise(setImmediate);
  }
  Atomics.store(new Int32Array(words), STOP, 1);
  for (const { done, torn, contended } of await Promise.all(results)) {
    expect({ torn, contended }).toEqual({ torn: 0, contended: 0 });
    expect(done).toBeGreaterThan(0);
  }
  nodes.expire(0, 0, nodes.slotsPerShard, 1);
  expect(nodes.size()).toBe(NODES);
  expectConsistent(memory, nodes);
});

describe("a writer that dies", () => {
  test("leaves nothing that breakLocks does not put right, wherever it was", async () => {
    const { memory, nodes } = oneShard();
    const DEATHS = 30;
    const lock = memory.shardWords(0) + SHARD_LOCK;
    const endpoint = new Int32Array(ENDPOINT_WORDS);
    let diedWithLock = 0;
    for (let death = 0; death < DEATHS; death++) {
      const words = new SharedArrayBuffer(8);
      const worker = start(memory, 1, "spin", 0, words);
      const exit = once(worker, "exit");
      // Wherever it is by the time it went round a few times.
      const rounds = new Int32Array(words);
      while (Atomics.load(rounds, ROUNDS) < 1 + death * 7)
        await Atomics.waitAsync(rounds, ROUNDS, Atomics.load(rounds, ROUNDS)).value;
      await worker.terminate();
      await exit;
      const held = Atomics.load(memory.words, lock) === workerLock(1);
      if (held) diedWithLock++;
      expect(nodes.breakLocks(workerLock(1))).toBe(held ? 1 : 0);
      expectConsistent(memory, nodes);
      nodes.expire(0, 0, nodes.slotsPerShard, 1);
      expectConsistent(memory, nodes);
      derive(death, endpoint);
      for (let id = 1; id <= NODES; id++)
        expect([MOVED, REFRESHED]).toContain(nodes.record(id, endpoint, 0, 0, 1));
    }
    // It holds the lock nearly all the time; that none of the deaths fell there would mean that
    // this tests nothing.
    expect(diedWithLock).toBeGreaterThan(0);
    nodes.expire(0, 0, nodes.slotsPerShard, 1);
    expect(nodes.size()).toBe(NODES);
    expectConsistent(memory, nodes);
  });
});
