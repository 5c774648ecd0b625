/**
 * Several loops that have something to do now and then wake the main thread together, for what one
 * of them would: being woken costs more than most of what is done then (70 µs, 2026-11).
 */
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
