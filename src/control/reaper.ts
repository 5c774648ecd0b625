/**
 * Time in the table: tells the workers what time it is, and removes nodes that went silent. Both go by a clock that
 * starts with the beacon and only runs forward, so that setting the host's clock cannot empty the table.
 */
import { CLOCK_S, type SharedMemory } from "../shared/memory.ts";
import type { NodeTable } from "../shared/nodes.ts";

export const TICK_MS = 1000;
/** The whole table is looked through once in a tenth of the time to live, at least this often. */
const SWEEP_S_MAX = 30;
/** Slots looked at under one hold of a shard's lock: some 10 µs, which is what a Discover may have to wait. */
const SLOTS_PER_LOCK = 512;

export class Reaper {
  /** Whether nobody is removed for now. */
  isPaused = false;
  readonly #ttlS: number;
  readonly #slotsPerTick: number;
  /** Where the sweep goes on, over the slots of all shards. */
  #next = 0;

  /** @param ttlMs how long a node stays without a refresh */
  constructor(
    private readonly memory: SharedMemory,
    private readonly nodes: NodeTable,
    ttlMs: number,
  ) {
    this.#ttlS = Math.ceil(ttlMs / 1000);
    const sweepS = Math.min(Math.max(Math.floor(this.#ttlS / 10), 1), SWEEP_S_MAX);
    this.#slotsPerTick = Math.ceil((nodes.shards * nodes.slotsPerShard) / sweepS);
    Atomics.store(memory.words, CLOCK_S, 1);
  }

  /**
   * To be called every TICK_MS: sets the clock and sweeps a part of the table. A node is removed once it was silent
   * for its time to live and the sweep comes by, at most a tenth of it (or 30 s) later.
   * @param elapsedMs since the beacon started, monotonic
   * @returns how many nodes were removed
   */
  tick(elapsedMs: number): number {
    const nowS = 1 + Math.floor(elapsedMs / 1000);
    Atomics.store(this.memory.words, CLOCK_S, nowS);
    if (this.isPaused) return 0;
    const { slotsPerShard, shards } = this.nodes;
    let removed = 0;
    for (let left = this.#slotsPerTick; left > 0; ) {
      const shard = Math.floor(this.#next / slotsPerShard);
      const from = this.#next % slotsPerShard;
      const count = Math.min(SLOTS_PER_LOCK, left, slotsPerShard - from);
      removed += Math.max(0, this.nodes.expire(shard, from, count, nowS - this.#ttlS));
      left -= count;
      this.#next = (this.#next + count) % (shards * slotsPerShard);
    }
    return removed;
  }
}
