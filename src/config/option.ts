/** How one option of the beacon is declared. */
import type * as v from "valibot";

/** How one sort of value is read. */
export interface Kind<T> {
  /** Reads text; what it cannot read, `schema` refuses. @throws ConfigError with only the reason */
  parse(text: string): unknown;
  /**
   * Reads a JSON value that is not a string. Without this it means what its text would (5 is "5",
   * true is "on"), which is wrong for a kind that accepts any text.
   */
  fromJson?(value: unknown): unknown;
  /** Checks a value, however it came. Its messages are reasons: "must be a whole number …". */
  readonly schema: v.GenericSchema<unknown, T>;
}

/** An option: its flag names the environment variable and the config file's key, too. */
export interface Option<T = unknown> {
  readonly flag: string;
  /** A second flag of the same meaning. */
  readonly alias?: string;
  /** Heading in the help text. */
  readonly group: string;
  readonly kind: Kind<T>;
  /** The value's form in the help text: "<count>". */
  readonly value: string;
  /** As an operator would write it. */
  readonly default: string;
  readonly defaultNote?: string;
  readonly help: string;
  /** May change while the beacon runs. */
  readonly reloadable?: true;
  /** Its value appears in no message. */
  readonly secret?: true;
  /** The part of a refused value that appears in no message. */
  readonly secretPart?: RegExp;
}

/** Options by the property that code knows them by. */
export type OptionTable = Readonly<Record<string, Option>>;

/** The values of a table's options. */
export type ValuesOf<Table> = {
  readonly [P in keyof Table]: Table[P] extends Option<infer T> ? T : never;
};
