import { beforeEach, describe, expect, test } from "bun:test";
import { endpointOf } from "../../ffi/endpoint.ts";
import { monotonicUs } from "../../ffi/libc.ts";
import { nodeHash, slotOfHash } from "../../src/shared/hash.ts";
import {
  ARRIVALS_NOTED,
  CLOCK_S,
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  SHARD_LOCK,
  SharedMemory,
  workerLock,
} from "../../src/shared/memory.ts";
import { ADDED, HELD, KEY_KEPT, MOVED, NODE_LIMIT, REFRESHED } from "../../src/shared/nodes.ts";
import { HEARD_SINCE, NodeTableOwner } from "../../src/shared/nodes-owner.ts";

const SECRET = 0x5ec2_e701;
const HOME = endpointOf("192.0.2.1", 9001);
const AWAY = endpointOf("2001:db8::1", 4000);
const NODES_MAX = 8;
/** A second on the table's clock. */
const NOW_S = 100;

let memory: SharedMemory;
/** Of the main thread and a worker. */
let nodes: NodeTableOwner;
let worker: NodeTableOwner;
/** What their clock says. */
let nowMs: number;
let readings: number;

const setNoted = (isNoted: boolean): void => {
  memory.words[memory.rulesAt + ARRIVALS_NOTED] = Number(isNoted);
};
const lock = (holder: number): void => {
  memory.words[memory.shardWords(0) + SHARD_LOCK] = holder;
};
/** Two ids whose searches begin in one slot: if the first goes, the second moves. */
function idsOfOneSlot(): [number, number] {
  const slotOf = (id: number) => slotOfHash(nodeHash(id, SECRET), memory.slotsPerShard);
  for (let second = 2; ; second++) if (slotOf(second) === slotOf(1)) return [1, second];
}

beforeEach(() => {
  memory = new SharedMemory({ workers: 1, nodesMax: NODES_MAX, routesMax: 1 });
  memory.words[HASH_SECRET] = SECRET;
  memory.words[CLOCK_S] = NOW_S;
  nowMs = 5_000_000.25;
  readings = 0;
  const clock = {
    nowNs: () => {
      readings++;
      return nowMs * 1e6;
    },
  };
  nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK, clock);
  worker = new NodeTableOwner(memory, workerLock(0), clock);
  setNoted(true);
});

describe("while nothing is noted", () => {
  test("no clock is read, no arrival noted, and none of the memory for it is touched", () => {
    setNoted(false);
    const [first, second] = idsOfOneSlot();
    for (const one of [nodes, worker]) {
      expect(one.record(first, HOME, 0, 0, NOW_S)).toBe(ADDED);
      expect(one.record(second, HOME, 0, 0, NOW_S)).toBe(ADDED);
      expect(one.bridge(8, NOW_S)).toBe(ADDED);
      expect(one.record(second, AWAY, 0, 0, NOW_S)).toBe(MOVED);
      one.touchToRecord(first);
      expect(nodes.heardMs(second)).toBe(0);
      const slot = nodes.find(second);
      expect(nodes.remove(first)).toBe(1);
      expect(nodes.find(second)).not.toBe(slot);
      expect(nodes.removeUnlessHeardSince(second, -1)).toBe(HEARD_SINCE);
      expect(nodes.removeUnlessHeardSince(second, 0)).toBe(1);
      expect(nodes.unbridge(8)).toBe(true);
    }
    memory.words[memory.shardWords(0) + SHARD_LOCK] = workerLock(0);
    expect(nodes.breakLocks(workerLock(0))).toBe(1);
    expect(readings).toBe(0);
    const heard = memory.heard(memory.slotsAt);
    expect(memory.floats.subarray(heard, heard + memory.slotsPerShard).some((ms) => ms !== 0)).toBe(
      false,
    );
    const arrivals = memory.words.subarray(memory.arrivals(0), memory.arrivals(2));
    expect(arrivals.some((word) => word !== 0)).toBe(false);
  });

  test("a node is known for one that was not noted, until it is heard again", () => {
    setNoted(false);
    nodes.record(7, HOME, 0, 0, NOW_S);
    setNoted(true);
    expect(nodes.heardMs(7)).toBe(0);
    worker.record(7, HOME, 0, 0, NOW_S);
    expect(nodes.heardMs(7)).toBe(nowMs);
  });
});

describe("a node was heard", () => {
  test("whenever it was recorded or came to the bridge, to a fraction of a millisecond", () => {
    expect(nodes.heardMs(7)).toBe(-1);
    const acts: [() => number, number][] = [
      [() => worker.record(7, HOME, 0, 0, NOW_S), ADDED],
      [() => worker.record(7, HOME, 0, 0, NOW_S), REFRESHED],
      [() => worker.record(7, AWAY, 0, 0, NOW_S), MOVED],
      [() => nodes.bridge(7, NOW_S), MOVED],
      [() => nodes.bridge(7, NOW_S), REFRESHED],
      [() => nodes.record(7, AWAY, 0, 0, NOW_S), REFRESHED],
    ];
    for (const [act, result] of acts) {
      nowMs += 0.5;
      expect(act()).toBe(result);
      expect(nodes.heardMs(7)).toBe(nowMs);
    }
    expect(nodes.bridge(-8, NOW_S)).toBe(ADDED);
    expect(nodes.heardMs(-8)).toBe(nowMs);
    expect(nodes.heardMs(0xffff_fff8)).toBe(nowMs);
    expect(nodes.heardMs(0)).toBe(-1);
    nodes.remove(7);
    expect(nodes.heardMs(7)).toBe(-1);
  });

  test("not when nothing was recorded, or something else was done with it", () => {
    worker.record(1, HOME, 0, 0, NOW_S);
    const heardMs = nowMs;
    nowMs += 1000;
    expect(worker.record(1, AWAY, 0, 0, NOW_S, 30)).toBe(HELD);
    expect(worker.keepKey(1, HOME, new DataView(new Uint8Array(32).fill(1).buffer), 0)).toBe(
      KEY_KEPT,
    );
    expect(nodes.heardMs(1)).toBe(heardMs);
    nodes.bridge(1, NOW_S);
    nowMs += 1000;
    nodes.unbridge(1);
    expect(nodes.heardMs(1)).toBe(heardMs + 1000);
    for (let id = 2; id <= NODES_MAX; id++) worker.record(id, HOME, 0, 0, NOW_S);
    expect(worker.record(99, HOME, 0, 0, NOW_S)).toBe(NODE_LIMIT);
    expect(nodes.bridge(99, NOW_S)).toBe(NODE_LIMIT);
    expect(nodes.heardMs(99)).toBe(-1);
  });

  test("as many seconds ago as the main thread says; a worker has it from this moment", () => {
    expect(nodes.record(1, HOME, 0, 0, NOW_S - 20)).toBe(ADDED);
    expect(nodes.heardMs(1)).toBe(nowMs - 20_000);
    nodes.record(2, HOME, 0, 0, NOW_S + 20);
    expect(nodes.heardMs(2)).toBe(nowMs);
    nodes.bridge(3, NOW_S - 1);
    expect(nodes.heardMs(3)).toBe(nowMs - 1000);
    worker.record(4, HOME, 0, 0, NOW_S - 1); // the main thread has just set the clock
    expect(nodes.heardMs(4)).toBe(nowMs);
  });

  test("not before the host started: that is as if it had not been noted", () => {
    nowMs = 5000.5;
    nodes.record(1, HOME, 0, 0, NOW_S - 5);
    expect(nodes.heardMs(1)).toBe(0.5);
    nodes.record(2, HOME, 0, 0, NOW_S - 6);
    expect(nodes.heardMs(2)).toBe(0);
  });

  test("never earlier than it was said to be before", () => {
    worker.record(7, HOME, 0, 0, NOW_S);
    const heardMs = nowMs;
    nodes.record(7, HOME, 0, 0, NOW_S - 20);
    expect(nodes.heardMs(7)).toBe(heardMs);
    nowMs += 500;
    worker.record(7, HOME, 0, 0, NOW_S);
    expect(nodes.heardMs(7)).toBe(nowMs);
  });

  test("by itself: one that comes into its slot has nothing of it, and one that moves up takes its time along", () => {
    const [first, second] = idsOfOneSlot();
    worker.record(first, HOME, 0, 0, NOW_S);
    const slot = nodes.find(first);
    nowMs += 1;
    worker.record(second, HOME, 0, 0, NOW_S);
    const heardMs = nowMs;
    nowMs += 1;
    nodes.remove(first);
    expect(nodes.find(second)).toBe(slot);
    expect(nodes.heardMs(second)).toBe(heardMs);
    nodes.remove(second);
    nodes.bridge(first, NOW_S);
    expect(nodes.find(first)).toBe(slot);
    expect(nodes.heardMs(first)).toBe(nowMs);
  });

  test("by the clock of the host, unless told otherwise", () => {
    const table = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
    const before = monotonicUs();
    table.record(7, HOME, 0, 0, NOW_S);
    expect(table.heardMs(7) * 1000).toBeGreaterThanOrEqual(before);
    expect(table.heardMs(7) * 1000).toBeLessThanOrEqual(monotonicUs() + 1);
  });
});

test("removeUnlessHeardSince removes who was not heard after that, bridged or not, and nobody else", () => {
  const told: number[] = [];
  nodes.removed = (id) => told.push(id);
  nodes.record(-1, HOME, 0, 0, NOW_S);
  nodes.bridge(2, NOW_S);
  nodes.record(3, HOME, 0, 0, NOW_S);
  for (const id of [-1, 2, 3])
    expect(nodes.removeUnlessHeardSince(id, nowMs - 0.001)).toBe(HEARD_SINCE);
  expect(nodes.size()).toBe(3);
  for (const id of [0, 4]) expect(nodes.removeUnlessHeardSince(id, Infinity)).toBe(0);
  lock(workerLock(3));
  expect(nodes.removeUnlessHeardSince(3, nowMs)).toBe(-1);
  lock(0);
  expect(told).toEqual([]);
  expect(nodes.removeUnlessHeardSince(0xffff_ffff, nowMs)).toBe(1);
  expect(nodes.removeUnlessHeardSince(2, nowMs)).toBe(1);
  expect(nodes.removeUnlessHeardSince(2, nowMs)).toBe(0);
  expect(told).toEqual([-1, 2]);
  expect([...nodes.entries()].map(({ nodeId }) => nodeId)).toEqual([3]);
}, 120_000);
