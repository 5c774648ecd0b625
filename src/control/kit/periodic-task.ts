/** Something that is done again and again on the main thread, never twice at once. */
export class PeriodicTask {
  readonly #stopping = new AbortController();
  #running: Promise<void> | undefined;
  #again = false;
  #wake: (() => void) | undefined;

  /**
   * @param run sees to its own errors. Aborting `signal` must end it soon
   * @param intervalMs from the start of one run to the start of the next, or to the end of the
   * first if that takes longer
   * @param failed receives an error that `run` throws all the same; the next run comes when it is
   * due
   */
  constructor(
    private readonly run: (signal: AbortSignal) => Promise<void>,
    private readonly intervalMs: () => number,
    private readonly failed: (error: unknown) => void,
  ) {}

  /** The first run begins at once. */
  start(): void {
    this.#running ??= this.#repeat();
  }

  /** Runs it without waiting for the interval; if it runs now, once more after that. */
  soon(): void {
    this.#again = true;
    this.#wake?.();
  }

  /** Ends it; resolves when nothing of it runs any more. Safe more than once. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake?.();
    await this.#running;
  }

  async #repeat(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      this.#again = false;
      const startMs = performance.now();
      try {
        await this.run(signal);
      } catch (error) {
        this.failed(error);
      }
      if (this.#again || signal.aborted) continue;
      await this.#pause(Math.max(0, startMs + this.intervalMs() - performance.now()));
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
