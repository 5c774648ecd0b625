import { afterEach, beforeEach, describe, expect, type Mock, spyOn, test } from "bun:test";
import { endpointOf } from "../../../ffi/endpoint.ts";
import { Reaper } from "../../../src/control/nodes/expiry.ts";
import {
  CLOCK_S,
  MAIN_THREAD_LOCK,
  SHARD_LOCK,
  SharedMemory,
  workerLock,
} from "../../../src/shared/memory.ts";
import { NodeTableOwner } from "../../../src/shared/nodes-owner.ts";

const NODES = 10_000;
const SHARDS = 4;
const TTL_S = 20;
/** Ticks of one sweep: a tenth of the time to live. */
const SWEEP_TICKS = TTL_S / 10;
const HOME = endpointOf("192.0.2.1", 4000);

let memory: SharedMemory;
let nodes: NodeTableOwner;
let reaper: Reaper;
let sleep: Mock<typeof Bun.sleepSync>;
let nowS: number;

beforeEach(() => {
  memory = new SharedMemory({ workers: SHARDS, nodesMax: NODES, routesMax: 10 });
  nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
  reaper = new Reaper(memory, nodes, TTL_S * 1000);
  for (let id = 1; id <= NODES; id++) nodes.record(id, HOME, 0, 0, 1);
  nowS = 0;
  // A thread that sleeps here would sleep for minutes in all.
  sleep = spyOn(Bun, "sleepSync").mockImplementation(() => {});
});
afterEach(() => sleep.mockRestore());

function tick(seconds = 1): number {
  nowS += seconds;
  return reaper.tick(nowS * 1000);
}

const lockOf = (shard: number): number => memory.shardWords(shard) + SHARD_LOCK;
const nodesIn = (shard: number): number =>
  [...nodes.entries()].filter(({ nodeId }) => nodes.shardOf(nodeId) === shard).length;

describe("Reaper", () => {
  test("removes silent nodes within one sweep, and keeps the others", () => {
    for (let id = 1; id <= 100; id++) nodes.record(id, HOME, 0, 0, 15);
    let removed = tick(TTL_S + 1);
    for (let i = 1; i < SWEEP_TICKS; i++) removed += tick();
    expect(removed).toBe(NODES - 100);
    expect(nodes.size()).toBe(100);
    expect(memory.words[CLOCK_S]).toBe(1 + nowS);
  });

  test("never sleeps for a locked shard, and removes the silent nodes of the others meanwhile", () => {
    memory.words[lockOf(1)] = workerLock(0);
    tick(TTL_S + 1);
    for (let i = 1; i < SWEEP_TICKS; i++) tick();
    expect(sleep).not.toHaveBeenCalled();
    for (let shard = 0; shard < SHARDS; shard++) {
      if (shard === 1) expect(nodesIn(shard)).toBeGreaterThan(0);
      else expect(nodesIn(shard)).toBe(0);
    }
  });

  test("removes the silent nodes of a shard that was locked in the first tick after its release", () => {
    memory.words[lockOf(1)] = workerLock(0);
    tick(TTL_S + 1);
    for (let i = 1; i < SWEEP_TICKS; i++) tick();
    expect(nodes.breakLocks(workerLock(0))).toBe(1);
    tick();
    expect(nodes.size()).toBe(0);
  });

  test("removes nothing while it is paused, but moves the clock", () => {
    reaper.isPaused = true;
    for (let i = 0; i < 3; i++) expect(tick(TTL_S)).toBe(0);
    expect(nodes.size()).toBe(NODES);
    expect(memory.words[CLOCK_S]).toBe(1 + nowS);
  });
});
