/**
 * Keeps an error in one piece of work from stopping the work after it: the steps of a tick, and
 * those of an end.
 */
import type { Logger } from "pino";

/** Interval of the log line about the same work. */
const REPORT_MS = 60_000;

/** A piece of work, and its name in the log. */
export type Step = readonly [work: string, run: () => unknown];

export class Guard {
  readonly #reportedMs = new Map<string, number>();

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

  /** Logs an error of work that goes on, once a minute at most. */
  report(work: string, error: unknown): void {
    const nowMs = this.nowMs();
    if (nowMs - (this.#reportedMs.get(work) ?? Number.NEGATIVE_INFINITY) < REPORT_MS) return;
    this.#reportedMs.set(work, nowMs);
    this.log.error(
      { err: error, work },
      `${work} failed, the rest goes on: report it, with this line`,
    );
  }
}
