/** The time for which a beacon that is asked to stop goes on relaying. */
export class Drain {
  /** Resolves when that time is over, or at `end`. */
  readonly over: Promise<void>;
  readonly #endMs: number;
  readonly #timer: Timer;
  readonly #resolve: () => void;

  constructor(durationMs: number) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.over = promise;
    this.#resolve = resolve;
    this.#endMs = performance.now() + durationMs;
    this.#timer = setTimeout(resolve, durationMs);
  }

  get leftMs(): number {
    return Math.max(0, Math.round(this.#endMs - performance.now()));
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#resolve();
  }
}
