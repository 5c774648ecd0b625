/**
 * The kinds of values that options take. Each reads text and checks a value however it came; the
 * reason of a refusal is all that a schema says, since whoever reads the value knows its place.
 */
import * as v from "valibot";
import type { Kind } from "./option.ts";
import { pathFromStart } from "./start-folder.ts";
import {
  ConfigError,
  parseAddressPrefix,
  parseBytes,
  parseDurationMs,
  parseHostNamePort,
  parseHostPort,
  shown,
  withReason,
} from "./units.ts";

/** Highest rate limit: far above any machine's rate, and still measured. */
const RATE_MAX = 1_000_000_000;

const TOKEN_CHARS_MAX = 1024;

/** Checks a value by a kind's schema. @throws ConfigError with only the reason */
export function check<T>({ schema }: Kind<T>, value: unknown): T {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (!result.success) throw new ConfigError(result.issues[0].message);
  return result.output;
}

/** What `read` returns for a value; its ConfigError is the schema's reason. */
const readBy = <T>(read: (value: unknown) => T): v.GenericSchema<unknown, T> =>
  v.pipe(
    v.unknown(),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      try {
        return read(dataset.value);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        addIssue({ message: error.message });
        return NEVER;
      }
    }),
  );

const ranged = (min: number, max: number, reason: string): v.GenericSchema<unknown, number> =>
  v.pipe(
    v.unknown(),
    v.check(
      (value) => Number.isInteger(value) && Number(value) >= min && Number(value) <= max,
      reason,
    ),
    v.transform((value) => Number(value) + 0), // -0 is 0
  );

const sameText = (text: string): string => text;

export const whole = (min: number, max: number): Kind<number> => ({
  form: "count",
  parse: (text) => (/^\d+$/.test(text) ? Number(text) : text),
  schema: ranged(min, max, `must be a whole number from ${min} to ${max}`),
});

/** A number a second, 0 for no limit. */
export const rate = whole(0, RATE_MAX);

/** In milliseconds. */
export const duration = (min: string, max: string): Kind<number> => ({
  form: "duration",
  parse: (text) => (text === "0" ? 0 : parseDurationMs(text)), // as in Go, 0 needs no unit
  schema: ranged(parseDurationMs(min), parseDurationMs(max), `must be from ${min} to ${max}`),
});

export const bytes = (min: string, max: string): Kind<number> => ({
  form: "size",
  parse: parseBytes,
  schema: ranged(parseBytes(min), parseBytes(max), `must be from ${min} to ${max}`),
});

export const oneOf = <const T extends string>(names: readonly T[]): Kind<T> => ({
  form: names.join("|"),
  parse: sameText,
  schema: v.picklist(names, `must be one of ${names.join(", ")}`),
});

export const onOff: Kind<boolean> = {
  form: "on|off",
  parse: (text) => (text === "on" ? true : text === "off" ? false : text),
  schema: v.boolean("must be on or off (in JSON and in code, true or false)"),
};

/** Text that `parse` does not refuse. */
export const parsedBy = (form: string, parse: (text: string) => unknown): Kind<string> => ({
  form,
  parse: sameText,
  schema: readBy((value) => {
    const text = typeof value === "string" ? value : "";
    parse(text);
    return text;
  }),
});

export const bindAddress = parsedBy("address", parseHostPort);
export const hostAddress = parsedBy("host:port", parseHostNamePort);
export const addressPrefix = parsedBy("prefix", parseAddressPrefix);

/** What `kind` takes, or the word. */
export const orWord = <T, const Word extends string>(
  word: Word,
  kind: Kind<T>,
): Kind<T | Word> => ({
  ...kind,
  form: `${kind.form}|${word}`,
  schema: readBy((value) =>
    value === word
      ? word
      : withReason(
          () => check(kind, value),
          (reason) => `${reason}; or ${word}`,
        ),
  ),
});

/** A file's path; relative to the folder in which the process started. */
export const path: Kind<string> = {
  form: "path",
  parse: sameText,
  fromJson: (value) => (value === false ? "off" : value),
  schema: v.pipe(
    v.string("must be the path of a file"),
    v.check((text) => text !== "" && !text.includes("\0"), "must be the path of a file"),
    v.transform(pathFromStart),
  ),
};

const TOKEN_FORM = `must be a string of printable ASCII without spaces, at most ${TOKEN_CHARS_MAX} characters`;

export const token: Kind<string> = {
  form: "token",
  parse: sameText,
  fromJson: (value) => value,
  schema: v.pipe(
    v.string(TOKEN_FORM),
    v.maxLength(TOKEN_CHARS_MAX, TOKEN_FORM),
    v.regex(/^[!-~]*$/, TOKEN_FORM),
  ),
};

/** At most `max` of what `kind` takes, each once. `what` names them. */
export const listOf = (kind: Kind<string>, max: number, what: string): Kind<readonly string[]> => ({
  form: "list",
  parse: (text) => (text.trim() === "" ? [] : text.split(",").map((entry) => entry.trim())),
  fromJson: (value) => value,
  schema: readBy((value) => {
    if (!Array.isArray(value) || value.length > max)
      throw new ConfigError(
        `must be a list of at most ${max} ${what} with commas between (in JSON and in code, an array)`,
      );
    const entries = Array.from(value, (entry: unknown) => {
      const text = typeof entry === "string" ? entry : "";
      return withReason(
        () => check(kind, text),
        (reason) => `${shown(text)}: ${reason}`,
      );
    });
    return Object.freeze([...new Set(entries)]);
  }),
});
