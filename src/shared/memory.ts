/**
 * The one map of the memory that the main thread and the workers share. Nobody else computes an offset in it.
 *
 *   process words   64 bytes             what the main thread tells all workers, and they tell it
 *   worker words    64 bytes a worker    what one worker tells the main thread
 *   counters        a row a worker       floats, see counters.ts
 *   shards          64 bytes a shard     lock and counts; shard i belongs with worker i
 *   slots           64 bytes a slot      one node, one cache line, see nodes.ts
 *
 * Everything starts on a cache line and starts as zero.
 */
import { COUNTER_ROW } from "./counters.ts";

const LINE_BYTES = 64;
const LINE_WORDS = LINE_BYTES / 4;

/**
 * Slots for each node of the limit. With half of them empty, a search looks at 1.5 slots for a node that is
 * there and 2.5 for one that is not (Knuth, TAOCP 6.4), each a cache line.
 */
const SLOTS_PER_NODE = 2;
/** So that a shard that gets more than its share of a small table still has room. */
const SLOTS_PER_SHARD_MIN = 1024;

/** Sizes that fix the map. */
export interface MemoryShape {
  readonly workers: number;
  readonly nodesMax: number;
}

// Process words.
/** Not 0: every worker leaves its loop. */
export const STOPPING = 0;
/** Seconds on the main thread's monotonic clock, from 1. */
export const CLOCK_S = 1;
/** Secret of the node hash. */
export const HASH_SECRET = 2;
/** The errno for which a worker found that merged sends cannot work on this host, else 0. */
export const OFFLOAD_ERRNO = 3;

// Worker words, from `workerWords(worker)`.
/** The last node that somebody wanted to punch to and that was not known. */
export const LAST_UNKNOWN_TARGET = 0;

// Shard words, from `shardWords(shard)`.
/** Who holds the shard's lock: 0 nobody, 1 the main thread, 2 + i worker i. */
export const SHARD_LOCK = 0;
export const SHARD_NODES = 1;
/** +1 when a removal begins and +1 when it is done: while it is odd, or if it changed, a search may have missed a node. */
export const SHARD_REMOVALS = 2;

export const SLOT_WORDS = LINE_WORDS;

export const MAIN_THREAD_LOCK = 1;
export const workerLock = (worker: number): number => 2 + worker;

export class SharedMemory {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array;
  readonly counters: Float64Array;
  readonly shards: number;
  readonly slotsPerShard: number;
  /** First word of the first slot. */
  readonly slotsAt: number;
  readonly #workerWordsAt: number;
  readonly #shardWordsAt: number;

  /** @param buffer the same shape's memory, made by another thread; without it, new memory */
  constructor(
    readonly shape: MemoryShape,
    buffer?: SharedArrayBuffer,
  ) {
    const { workers, nodesMax } = shape;
    this.shards = workers;
    this.slotsPerShard = Math.max(SLOTS_PER_SHARD_MIN, Math.ceil((nodesMax * SLOTS_PER_NODE) / workers));
    const countersAt = LINE_BYTES * (1 + workers);
    const shardsAt = countersAt + workers * COUNTER_ROW * 8;
    const slotsAt = shardsAt + this.shards * LINE_BYTES;
    const bytes = slotsAt + this.shards * this.slotsPerShard * LINE_BYTES;
    this.buffer = buffer ?? new SharedArrayBuffer(bytes);
    if (this.buffer.byteLength !== bytes) throw new Error("this shared memory has another shape");
    this.words = new Int32Array(this.buffer);
    this.counters = new Float64Array(this.buffer, countersAt, workers * COUNTER_ROW);
    this.slotsAt = slotsAt / 4;
    this.#workerWordsAt = LINE_WORDS;
    this.#shardWordsAt = shardsAt / 4;
  }

  workerWords(worker: number): number {
    return this.#workerWordsAt + worker * LINE_WORDS;
  }

  /** First column of a worker's row in `counters`. */
  counterRow(worker: number): number {
    return worker * COUNTER_ROW;
  }

  shardWords(shard: number): number {
    return this.#shardWordsAt + shard * LINE_WORDS;
  }
}
