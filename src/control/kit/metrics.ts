/** Metrics as features declare them; src/control/admin/metrics.ts shows them to Prometheus. */

/** Counts by the value of a label: message type, reason or outcome. */
export type Counts = Readonly<Record<string, number>>;

/** A metric: a number, or with a label a number for each of its values. */
export interface Shown<From, Values = Counts | number | null> {
  readonly name: string;
  readonly help: string;
  readonly label?: string;
  readonly values: (from: From) => Values;
}

/** How often values were up to which bound. */
export interface Distribution {
  readonly bounds: readonly number[];
  /** Values up to each bound and above the one before; all others may follow. */
  readonly counts: readonly number[];
  readonly count: number;
  readonly sum: number;
}

/** Metrics of the same things: of each worker, of each peer, or of the beacon as a whole. */
export interface MetricGroup<Stats, From> {
  /** The things, each with the labels that tell it from the others. */
  readonly rows: (stats: Stats) => readonly (readonly [labels: Labels, from: From])[];
  /** The names of those labels. */
  readonly rowLabels?: readonly string[];
  readonly counters?: readonly Shown<From>[];
  readonly gauges?: readonly Shown<From>[];
  readonly histograms?: readonly Shown<From, Distribution>[];
}

type Labels = Readonly<Record<string, string | number>>;

/** Sum of named counts. */
export function total(counts: Counts): number {
  return Object.values(counts).reduce((sum, value) => sum + value, 0);
}

/** Adds counts up, name by name. */
export function added(all: readonly Counts[]): Counts {
  const sum: Record<string, number> = {};
  for (const counts of all)
    for (const [name, count] of Object.entries(counts)) sum[name] = (sum[name] ?? 0) + count;
  return sum;
}
