/** How an option of the beacon is declared. */
import type * as v from "valibot";

/** A kind of value. */
export interface Kind<T> {
  /** What stands for a value in the help text, without angle brackets: "count". */
  readonly form: string;
  /** Reads text; returns what it cannot read for `schema` to refuse, or throws a ConfigError. */
  parse(text: string): unknown;
  /** Reads a JSON value that is no string. Default: as its text (5 is "5", true is "on"). */
  fromJson?(value: unknown): unknown;
  /** Checks a value, however it came. Its messages are reasons: "must be a whole number …". */
  readonly schema: v.GenericSchema<unknown, T>;
}

/** An option: its flag names the environment variable and the config file's key, too. */
export interface Option<T = unknown> {
  readonly flag: string;
  /** Another flag of the same meaning. */
  readonly alias?: string;
  readonly kind: Kind<T>;
  /** In place of the kind's. */
  readonly form?: string;
  /** As an operator would write it. */
  readonly default: string;
  /** What the help text says in its place. */
  readonly defaultNote?: string;
  readonly help: string;
  /** May change while the beacon runs. */
  readonly reloadable?: true;
  /** Its value appears in no message. */
  readonly secret?: true;
  /** The part of a refused value that appears in no message. */
  readonly secretPart?: RegExp;
}

/** A feature's options, by heading of the help text, and by property. */
export type OptionGroups = Readonly<Record<string, Readonly<Record<string, Option>>>>;

type Tables<Groups> = Groups[keyof Groups];
type Properties<Groups> = Tables<Groups> extends infer T ? (T extends T ? keyof T : never) : never;

/** The values of options. */
export type ValuesOf<Groups> = {
  readonly [P in Properties<Groups>]: Extract<
    Tables<Groups>,
    { readonly [K in P]: unknown }
  >[P] extends { readonly kind: Kind<infer T> }
    ? T
    : never;
};

/** An option's name where the configuration comes from: its flag, or the property itself. */
export type NameOf<Config> = (property: keyof Config & string) => string;
