/** Warnings of what may happen again and again: at most one a minute about the same. */
import type { Logger } from "pino";

const COMPLAINT_MS = 60_000;

export class ThrottledLog {
  readonly #lastMs = new Map<string, number>();

  constructor(
    private readonly log: Pick<Logger, "warn">,
    private readonly nowMs: () => number = () => performance.now(),
  ) {}

  /** @param about one of few words, not a name from outside @param fields of the log line */
  warn(about: string, message: string, fields: object = {}): void {
    const nowMs = this.nowMs();
    if (nowMs - (this.#lastMs.get(about) ?? Number.NEGATIVE_INFINITY) < COMPLAINT_MS) return;
    this.#lastMs.set(about, nowMs);
    this.log.warn(fields, message);
  }
}
