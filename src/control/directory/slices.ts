/**
 * Shares the main thread with everything else that it serves: what the directory has to do at
 * length is done in slices, one after the other, whoever does it, with the thread free in between.
 */

/** A slice, and how long the thread is free behind it. */
const WORK_MS = 0.25;
const FREE_MS = 1;

/**
 * Waits for the next slice once this one is over; undefined while it goes on. To be called again
 * and again while something is done.
 */
export type Pause = () => Promise<unknown> | undefined;

export class Slices {
  /** When the next slice may begin. */
  #nextMs = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly monotonicMs: () => number,
    private readonly sleep: (ms: number) => Promise<void>,
  ) {}

  /** @returns for one that does one thing after the other */
  pause(): Pause {
    let endMs = this.monotonicMs() + WORK_MS;
    const next = async (nowMs: number) => {
      const beginMs = Math.max(nowMs + FREE_MS, this.#nextMs);
      this.#nextMs = beginMs + WORK_MS + FREE_MS;
      await this.sleep(beginMs - nowMs);
      endMs = this.monotonicMs() + WORK_MS;
    };
    return () => {
      const nowMs = this.monotonicMs();
      return nowMs < endMs ? undefined : next(nowMs);
    };
  }
}
