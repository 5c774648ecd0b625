/**
 * Internal errors: exceptions that no code expects, and so mistakes of this program. One in one
 * piece of work is counted and logged, and the work after it goes on.
 */
import type { Logger } from "pino";
import type { Counts } from "./metrics.ts";

/** Interval of the log line about the same work. */
const REPORT_MS = 60_000;

/** A piece of work, and its name in the log. */
export type Step = readonly [work: string, run: () => unknown];

export class Guard {
  readonly #reportedMs = new Map<string, number>();
  readonly #errors: Record<string, number> = {};

  constructor(
    private readonly log: Pick<Logger, "error">,
    private readonly nowMs: () => number = () => performance.now(),
  ) {}

  /** Runs work that is done again and again. An error is logged, once a minute at most. */
  run(work: string, run: () => void): void {
    try {
      run();
    } catch (error) {
      this.report(work, error);
    }
  }

  /** Runs each step once the one before is over, whatever came of it. Errors are logged. */
  async runAll(steps: readonly Step[]): Promise<void> {
    for (const [work, run] of steps) {
      try {
        await run();
      } catch (error) {
        this.report(work, error);
      }
    }
  }

  /** Number of internal errors by work. */
  get errors(): Counts {
    return { ...this.#errors };
  }

  /** Counts an internal error of work that goes on, and logs it, once a minute at most. */
  report(work: string, error: unknown): void {
    this.#errors[work] = (this.#errors[work] ?? 0) + 1;
    const nowMs = this.nowMs();
    if (nowMs - (this.#reportedMs.get(work) ?? Number.NEGATIVE_INFINITY) < REPORT_MS) return;
    this.#reportedMs.set(work, nowMs);
    this.log.error(
      { event: "internal_error", err: error, work },
      `${work} failed, the rest goes on: report it, with this line`,
    );
  }
}
