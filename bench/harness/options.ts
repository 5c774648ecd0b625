/** What every bench is told. */
export interface BenchOptions {
  readonly rounds: number;
  /** Length of one measurement. */
  readonly seconds: number;
  /**
   * How long what is measured is loaded before it counts: until all its code is compiled, as that
   * of a relay of months is.
   */
  readonly warmUpSeconds: number;
  /** Messages a receive call, of every target. */
  readonly batch: number;
  /** Measure only cases with this in their title. */
  readonly only: string;
  /** Root of another checkout, whose beacon is measured beside this one's where the bench can. */
  readonly against?: string;
  /** Run in seconds, to see that the bench works; the figures mean nothing. */
  readonly smoke: boolean;
  /** How long a soak takes; other benches are not told. */
  readonly minutes?: number;
  /** Beacons of a fleet and nodes of each, of the directory; other benches are not told. */
  readonly beacons?: number;
  readonly nodes?: number;
}
