/**
 * When each node was last heard, to the millisecond and on the host's monotonic clock: beacons that
 * share a directory go by it where more than one has heard a node. The second that is in a node's
 * slot is too coarse for that.
 *
 * A float a slot, in a part of the memory that nobody touches, and no clock read, until the main
 * thread sets ARRIVALS_NOTED. Written under the shard's lock, before the id of a node that is new.
 * 0: not noted.
 */
import type { Clock } from "../../ffi/clock.ts";
import { ARRIVALS_NOTED, CLOCK_S, MAIN_THREAD_LOCK, type SharedMemory } from "./memory.ts";

export class HeardTimes {
  readonly #words: Int32Array;
  readonly #floats: Float64Array;
  readonly #isNotedAt: number;
  readonly #isMainThread: boolean;

  /** @param holder this thread's number in the shard locks */
  constructor(
    private readonly memory: SharedMemory,
    holder: number,
    private readonly clock: Clock,
  ) {
    this.#words = memory.words;
    this.#floats = memory.floats;
    this.#isNotedAt = memory.rulesAt + ARRIVALS_NOTED;
    this.#isMainThread = holder === MAIN_THREAD_LOCK;
  }

  /** Whether arrivals and times are noted. */
  get isNoted(): boolean {
    return this.#words[this.#isNotedAt] !== 0;
  }

  /** @returns when the slot's node was heard, in milliseconds, or 0 */
  at(slot: number): number {
    return this.isNoted ? this.#floats[this.memory.heard(slot)]! : 0;
  }

  /** As NodeTable's, by a word: a double waits for its conversion (Bun 1.4.5). */
  touch(slot: number): number {
    return this.isNoted ? this.#words[2 * this.memory.heard(slot)]! : 0;
  }

  /**
   * Notes that the slot's node was heard at clock second `nowS`, a little ago if that is the
   * present one.
   *
   * The main thread restores nodes that were heard earlier: as many whole seconds before now, but
   * not before the clock's beginning. A worker's second is the present one, though the main thread
   * may have gone on to the next one meanwhile.
   * @param isNew what is noted is another node's
   */
  note(slot: number, nowS: number, isNew: boolean): void {
    let heardMs = this.clock.nowNs() / 1e6;
    if (this.#isMainThread) {
      const agoS = this.#words[CLOCK_S]! - nowS;
      if (agoS > 0) heardMs = Math.max(0, heardMs - agoS * 1000);
    }
    if (isNew) this.#floats[this.memory.heard(slot)] = heardMs;
    else this.#raise(slot, heardMs);
  }

  #raise(slot: number, ms: number): void {
    const at = this.memory.heard(slot);
    if (this.#floats[at]! < ms) this.#floats[at] = ms;
  }

  /** Notes for the node that moves to `vacant` what was noted for it where it is. */
  move(slot: number, vacant: number): void {
    if (this.isNoted)
      this.#floats[this.memory.heard(vacant)] = this.#floats[this.memory.heard(slot)]!;
  }
}
