/**
 * The thread that uses the node tables of a schedule: it takes shard locks, and records the
 * residents.
 */
import { SHARD_LOCK, SharedMemory } from "../../../../src/shared/memory.ts";
import { NodeTable } from "../../../../src/shared/nodes.ts";
import { Random } from "../../../e2e/support/random.ts";
import {
  CONTROL_STATE,
  CONTROL_TABLES,
  ENDPOINT,
  type Job,
  RUNNING,
  SHAPE,
  STOPPED,
  THREAD_LOCK,
} from "./real-nodes.ts";

/** Longer than the main thread tries to get a lock. */
const HOLD_US_MAX = 60;

declare const self: Worker;

self.onmessage = ({ data }: MessageEvent<Job>) => {
  const control = new Int32Array(data.control);
  const times = new Float64Array(data.clocks);
  const random = new Random(data.seed);
  const tables = data.tables.map(({ buffer, keysBuffer, residents }, i) => {
    const memory = new SharedMemory(SHAPE, buffer, keysBuffer);
    return {
      memory,
      residents,
      nodes: new NodeTable(memory, THREAD_LOCK, { nowNs: () => times[i]! * 1e6 }),
    };
  });
  while (Atomics.load(control, CONTROL_STATE) === RUNNING) {
    const begun = Math.min(tables.length, Atomics.load(control, CONTROL_TABLES));
    if (begun > 0) {
      const { memory, nodes, residents } = tables[random.below(begun)]!;
      if (random.below(3) > 0) holdLock(memory, random);
      else nodes.record(residents[random.below(residents.length)]!, ENDPOINT, 0, 0, 0);
    }
    if (begun === 0 || random.below(50) === 0) Bun.sleepSync(1);
  }
  Atomics.store(control, CONTROL_STATE, STOPPED);
  Atomics.notify(control, CONTROL_STATE);
};

function holdLock(memory: SharedMemory, random: Random): void {
  const { words } = memory;
  const lock = memory.shardWords(random.below(memory.shards)) + SHARD_LOCK;
  if (Atomics.compareExchange(words, lock, 0, THREAD_LOCK) !== 0) return;
  const endMs = performance.now() + random.below(HOLD_US_MAX) / 1000;
  while (performance.now() < endMs);
  Atomics.store(words, lock, 0);
}
