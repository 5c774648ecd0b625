/** The log for operators: size, age, and whether its server's clock is steady. */
import type { FleetClock } from "./clock.ts";
import { ASK, decodeEntry, type Entry } from "./entries.ts";
import type { LogSize, Store } from "./store.ts";

/** Interval of measurements: each costs the server some microseconds, for every beacon. */
const MEASURE_MS = 60_000;
/** Smallest step of the server's clock that counts; entries of one writer jitter less. */
const STEP_MS = 1_500;

export interface LogHealthParts {
  readonly clock: FleetClock;
  readonly monotonicMs: () => number;
  readonly complain: (about: string, message: string) => void;
}

/** An entry's id in milliseconds, less … */
interface Difference {
  /** … its writer's stamp, which does not depend on when the entry is read. */
  readonly toStampMs: number;
  /** … this host's monotonic clock, which does not depend on what the writer says. */
  readonly toHostMs: number;
}

export class LogHealth {
  size: LogSize = { entries: undefined, bytes: undefined };
  /** Age of the oldest entry; undefined: not known. */
  oldestMs: number | undefined;
  /** Steps of the server's clock. */
  steps = 0;
  #measureAtMs = Number.NEGATIVE_INFINITY;
  #idMs = 0;
  #difference: Difference | undefined;
  /** Whether the clock is behind the last id, so that ids stand still until it has caught up. */
  #isBehind = false;

  constructor(private readonly parts: LogHealthParts) {}

  /** Asks the server, once a minute. @throws StoreError */
  async measure(store: Store): Promise<void> {
    const { clock, monotonicMs } = this.parts;
    if (monotonicMs() < this.#measureAtMs) return;
    this.#measureAtMs = monotonicMs() + MEASURE_MS;
    this.size = await store.logSize();
    const { bytes } = await store.first();
    const oldest = bytes && decodeEntry(bytes);
    this.oldestMs = oldest && stampOf(oldest) && Math.max(0, clock.nowMs() - stampOf(oldest)!);
  }

  /** The log may be another one, of another server. */
  forget(): void {
    this.#difference = undefined;
  }

  /** Compares an entry's id with two clocks: a step differs from both, a late read from one. */
  heard(id: string, entry: Entry): void {
    const stampMs = stampOf(entry);
    if (stampMs === undefined) return;
    const idMs = Number(id.split("-")[0]);
    const next = { toStampMs: idMs - stampMs, toHostMs: idMs - this.parts.monotonicMs() };
    const stepMs = this.#difference === undefined ? 0 : stepBetween(this.#difference, next);
    if (this.#difference !== undefined && idMs === this.#idMs) {
      if (stepMs < 0 && !this.#isBehind) this.#stepped(`back by more than ${STEP_MS / 1000} s`);
      this.#isBehind ||= stepMs < 0;
      return;
    }
    if (stepMs !== 0 && !this.#isBehind)
      this.#stepped(
        `${stepMs < 0 ? "back" : "forward"} by ${(Math.abs(stepMs) / 1000).toFixed(1)} s`,
      );
    this.#isBehind = false;
    this.#idMs = idMs;
    this.#difference = next;
  }

  #stepped(how: string): void {
    this.steps++;
    this.parts.complain(
      "clock_step",
      `the clock of the directory's server stepped ${how}: no route depends on it; check NTP on that host`,
    );
  }
}

const stampOf = (entry: Entry): number | undefined =>
  entry.kind === ASK ? undefined : entry.timeMs;

/** By how much the server's clock stepped; 0: it did not. */
function stepBetween(before: Difference, after: Difference): number {
  const [byStamp, byHost] = [after.toStampMs - before.toStampMs, after.toHostMs - before.toHostMs];
  const isStep =
    Math.min(Math.abs(byStamp), Math.abs(byHost)) > STEP_MS && byStamp > 0 === byHost > 0;
  return isStep ? byStamp : 0;
}
