/** How often values were up to which bound, as Prometheus counts them. */
import { list, number, type StatsOf } from "../kit/schema.ts";

/** Seconds. */
const BOUNDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10] as const;

export const histogram = {
  bounds: list(number),
  /** Values up to each bound and above the one before; last, those above all. */
  counts: list(number),
  sum: number,
};
export type HistogramStats = StatsOf<typeof histogram>;

export class Histogram {
  readonly #counts: number[] = Array.from({ length: BOUNDS.length + 1 }, () => 0);
  #sum = 0;

  /** @param value below 0 counts as 0: two clocks may differ by a little */
  add(value: number): void {
    const bucket = BOUNDS.findIndex((bound) => value <= bound);
    this.#counts[bucket < 0 ? BOUNDS.length : bucket]!++;
    this.#sum += Math.max(0, value);
  }

  stats(): HistogramStats {
    return { bounds: BOUNDS, counts: [...this.#counts], sum: this.#sum };
  }
}
