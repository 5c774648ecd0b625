/** Wakes several periodic loops together: a wake-up costs more than their work (70 µs). */
export class Beat {
  #next: Promise<void> | undefined;

  constructor(
    private readonly periodMs: number,
    private readonly sleep: (ms: number) => Promise<void>,
  ) {}

  /** Settles at the next beat, within a period. */
  next(): Promise<void> {
    this.#next ??= this.sleep(this.periodMs).then(() => {
      this.#next = undefined;
    });
    return this.#next;
  }
}
