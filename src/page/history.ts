/** The last ten minutes of some numbers, in the columns that the charts draw. */

export const WINDOW_S = 600;
/** One a second, and some that came closer together. */
const POINTS_MAX = 2 * WINDOW_S;

/** Columns by name; null where nothing is known. */
export type Values<Name extends string> = Readonly<Record<Name, number | null>>;

export class History<Name extends string> {
  /** Unix seconds, ascending. */
  readonly times: number[] = [];
  readonly #columns: Readonly<Record<Name, (number | null)[]>>;

  constructor(private readonly names: readonly Name[]) {
    this.#columns = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<
      Name,
      (number | null)[]
    >;
  }

  column(name: Name): readonly (number | null)[] {
    return this.#columns[name];
  }

  /**
   * @param atS Unix seconds; a moment that is not later than the last is moved behind it, as clocks
   * may be set back
   */
  add(atS: number, values: Values<Name>): void {
    const lastS = this.times.at(-1) ?? Number.NEGATIVE_INFINITY;
    this.#push(Math.max(atS, lastS + 1e-3), values);
    while (this.times.length > POINTS_MAX || this.times[0]! < this.times.at(-1)! - WINDOW_S)
      this.#shift();
  }

  /** Nothing is known of what follows until the next values: no line is drawn there. */
  gap(atS: number): void {
    if (this.times.length === 0) return;
    this.add(atS, Object.fromEntries(this.names.map((name) => [name, null])) as Record<Name, null>);
  }

  #push(atS: number, values: Values<Name>): void {
    this.times.push(atS);
    for (const name of this.names) this.#columns[name].push(values[name]);
  }

  #shift(): void {
    this.times.shift();
    for (const name of this.names) this.#columns[name].shift();
  }
}
