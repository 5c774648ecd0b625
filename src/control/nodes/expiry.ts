/**
 * Time in the table: tells the workers what time it is, and removes nodes that went silent. Both go
 * by a clock that starts with the beacon and only runs forward, so that setting the host's clock
 * cannot empty the table.
 */
import { CLOCK_S, type SharedMemory } from "../../shared/memory.ts";
import type { NodeTableOwner } from "../../shared/nodes-owner.ts";

export const TICK_MS = 1000;
/** The whole table is looked through once in a tenth of the time to live, at least this often. */
const SWEEP_S_MAX = 30;
/** Slots per lock: some 10 µs, the longest wait of a Discover. */
const SLOTS_PER_LOCK = 512;

export class Reaper {
  /** Whether nobody is removed for now. */
  isPaused = false;
  readonly #ttlS: number;
  /** Slots of each shard to look at a tick. */
  readonly #slotsPerTick: number;
  /** By shard: the next slot to look at, and how many slots are due. */
  readonly #next: number[];
  readonly #due: number[];

  /** @param ttlMs how long a node stays without a refresh */
  constructor(
    private readonly memory: SharedMemory,
    private readonly nodes: NodeTableOwner,
    ttlMs: number,
  ) {
    this.#ttlS = Math.ceil(ttlMs / 1000);
    const sweepS = Math.min(Math.max(Math.floor(this.#ttlS / 10), 1), SWEEP_S_MAX);
    this.#slotsPerTick = Math.ceil(nodes.slotsPerShard / sweepS);
    this.#next = Array.from({ length: nodes.shards }, () => 0);
    this.#due = Array.from({ length: nodes.shards }, () => 0);
    Atomics.store(memory.words, CLOCK_S, 1);
  }

  /**
   * To be called every TICK_MS: sets the clock and sweeps a part of the table. A node is removed
   * once it was silent for its time to live and the sweep comes by, at most a tenth of it (or 30 s)
   * later. A locked shard is skipped, and its slots stay due for the next tick: the lock of a dead
   * worker is only freed between two ticks.
   * @param elapsedMs since the beacon started, monotonic
   * @returns how many nodes were removed
   */
  tick(elapsedMs: number): number {
    const nowS = 1 + Math.floor(elapsedMs / 1000);
    Atomics.store(this.memory.words, CLOCK_S, nowS);
    if (this.isPaused) return 0;
    let removed = 0;
    for (let shard = 0; shard < this.nodes.shards; shard++)
      removed += this.#sweep(shard, nowS - this.#ttlS);
    return removed;
  }

  /** Removes nodes not refreshed since `beforeS` from the due slots. @returns how many */
  #sweep(shard: number, beforeS: number): number {
    const { slotsPerShard } = this.nodes;
    let due = Math.min(this.#due[shard]! + this.#slotsPerTick, slotsPerShard);
    let from = this.#next[shard]!;
    let removed = 0;
    while (due > 0) {
      const count = Math.min(SLOTS_PER_LOCK, due, slotsPerShard - from);
      const expired = this.nodes.expire(shard, from, count, beforeS);
      if (expired < 0) break; // locked
      removed += expired;
      due -= count;
      from = (from + count) % slotsPerShard;
    }
    this.#due[shard] = due;
    this.#next[shard] = from;
    return removed;
  }
}
