/** Warns while a table has no room: once a minute in the log, and to whoever reads `warning`. */
import type { ThrottledLog } from "../kit/throttled-log.ts";

/** Window in ticks of a second for refusals: gossip comes once a minute at least. */
const WINDOW_TICKS = 61;

export interface FullTableOptions {
  /** "node table" */
  readonly name: string;
  /** Name of the entries that found no room: "registrations". */
  readonly entries: string;
  /** The option that bounds the table, with its value: "--max-nodes 1000". */
  readonly option: string;
  /** Returns how many entries were refused since the start. */
  readonly refused: () => number;
}

export class FullTable {
  readonly #window = new Array<number>(WINDOW_TICKS).fill(0);
  #at = 0;
  #refused: number;
  #recent = 0;

  constructor(
    private readonly options: FullTableOptions,
    private readonly complaints: ThrottledLog,
  ) {
    this.#refused = options.refused();
  }

  /** To be called about every second. */
  tick(): void {
    const total = this.options.refused();
    const refused = Math.max(0, total - this.#refused);
    this.#recent += refused - this.#window[this.#at]!;
    this.#window[this.#at] = refused;
    this.#at = (this.#at + 1) % WINDOW_TICKS;
    this.#refused = total;
    if (refused > 0) this.complaints.warn(this.options.name, this.warning!);
  }

  /** A warning for the operator; undefined after a minute without a refusal. */
  get warning(): string | undefined {
    const { name, entries, option } = this.options;
    if (this.#recent === 0) return undefined;
    return (
      `${name} full: ${this.#recent} ${entries} refused within the last minute; ` +
      `raise ${option}, then restart or upgrade`
    );
  }
}
