/** Restarts of a crashed server: quickly at first, then later, and not for ever. */

/** Before the first restart; doubled for each that follows, up to the longest. */
const DELAY_MS = 100;
const DELAY_MS_MAX = 5000;
/** Limit of restarts in a row, some 30 s: container managers have back-offs of their own. */
export const RESTARTS_MAX = 10;
/** A process that served for so long has not failed to start. */
export const STEADY_MS = 10_000;

export class Restarts {
  #inARow = 0;
  #readyMs: number | undefined;

  /** Notes that a process serves. */
  ready(nowMs: number): void {
    this.#readyMs ??= nowMs;
  }

  /** Notes a crash. @returns how long to wait before the next start; undefined to give up */
  crashed(nowMs: number): number | undefined {
    if (this.#readyMs !== undefined && nowMs - this.#readyMs >= STEADY_MS) this.#inARow = 0;
    this.#readyMs = undefined;
    if (this.#inARow === RESTARTS_MAX) return undefined;
    return Math.min(DELAY_MS * 2 ** this.#inARow++, DELAY_MS_MAX);
  }
}
