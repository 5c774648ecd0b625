/**
 * Pacing of long work on the main thread: it runs in slices, with the thread free in between, so
 * that timers, mail and requests get their turn.
 */

/** Length of a slice, and how long the thread is free after it, in ms: a fifth of a core. */
const WORK_MS = 0.25;
const FREE_MS = 1;

/** Waits for the next slice, or returns undefined during one. Call it every few 10 µs. */
export type Pause = () => Promise<unknown> | undefined;

interface PacingOptions {
  readonly workMs?: number;
  readonly freeMs?: number;
  readonly nowMs?: () => number;
  readonly sleep?: (ms: number) => Promise<unknown>;
}

/** Pieces of work that share their slices, one after the other. */
export class Pacing {
  readonly #workMs: number;
  readonly #freeMs: number;
  readonly #nowMs: () => number;
  readonly #sleep: (ms: number) => Promise<unknown>;
  /** When the next slice may begin. */
  #nextMs = Number.NEGATIVE_INFINITY;

  constructor({
    workMs = WORK_MS,
    freeMs = FREE_MS,
    nowMs = () => performance.now(),
    sleep = Bun.sleep,
  }: PacingOptions = {}) {
    this.#workMs = workMs;
    this.#freeMs = freeMs;
    this.#nowMs = nowMs;
    this.#sleep = sleep;
  }

  /** Returns the pause of one piece of work, whose first slice begins now. */
  pause(): Pause {
    let endMs = this.#nowMs() + this.#workMs;
    const next = async (nowMs: number) => {
      const beginMs = Math.max(nowMs + this.#freeMs, this.#nextMs);
      this.#nextMs = beginMs + this.#workMs + this.#freeMs;
      await this.#sleep(beginMs - nowMs);
      endMs = this.#nowMs() + this.#workMs;
    };
    return () => {
      const nowMs = this.#nowMs();
      return nowMs < endMs ? undefined : next(nowMs);
    };
  }
}
