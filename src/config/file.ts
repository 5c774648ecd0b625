/** Files that options come from, of bounded size; the config file is one JSON object. */
import { closeSync, openSync, readSync, statSync } from "node:fs";
import { duplicateKey } from "./duplicate-key.ts";
import { ConfigError, quoted, shown } from "./units.ts";

/** Limit of the config file; keeps a wrong path (a log, a device) from filling memory. */
const CONFIG_FILE_BYTES_MAX = 1024 * 1024;

/** Fits nearly every file; larger files are read in steps. */
const FIRST_READ_BYTES = 16 * 1024;

/** The object that the file holds. Throws a ConfigError that names the file. */
export function readJsonObject(path: string): Record<string, unknown> {
  const bytes = readBounded(path, "the config file", CONFIG_FILE_BYTES_MAX);
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (error) {
    // The parser quotes what it stumbled over, which may be a secret without its quotation marks.
    const detail = error instanceof Error ? error.message.replace(/".*"/s, "***") : "";
    throw new ConfigError(`${shown(path)}: the config file is not JSON: ${shown(detail)}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new ConfigError(`${shown(path)}: the config file must hold one JSON object`);
  const twice = duplicateKey(text);
  if (twice !== undefined)
    throw new ConfigError(
      `${shown(path)}: the config file has ${quoted(twice.key)} in lines ${twice.lines.join(" and ")}; give one of them`,
    );
  return value as Record<string, unknown>;
}

/** Returns a JSON value as command-line text; other values become text that is refused. */
export function jsonText(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return value ? "on" : "off";
  return jsonShown(value);
}

/** A JSON value for a message. */
export function jsonShown(value: unknown): string {
  if (typeof value === "string") return quoted(value);
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  // not whole: JSON.stringify overflows on deep nesting
  return Array.isArray(value) ? "[...]" : "{...}";
}

/** Reads a file of at most `bytesMax`. @throws ConfigError that names it; `what` is its role */
export function readBounded(path: string, what: string, bytesMax: number): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = readAtMost(bytesMax + 1, path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ConfigError(`${shown(path)}: ${what} cannot be read (${code ?? "unknown error"})`);
  }
  if (bytes.length > bytesMax)
    throw new ConfigError(`${shown(path)}: ${what} is larger than ${bytesMax} bytes`);
  return bytes;
}

/** Rights that others than the owner have. */
const OTHERS = 0o077;

/**
 * Whether others than its owner may do anything with the file; false if it is gone. A credential of
 * systemd is never exposed: its folder is the unit's alone, and where an access list lets the
 * unit's user read it (systemd 254), its mode shows rights of a group.
 */
export function isExposed(
  path: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
): boolean {
  const credentials = env["CREDENTIALS_DIRECTORY"];
  if (credentials && path.startsWith(`${credentials}/`)) return false;
  return ((statSync(path, { throwIfNoEntry: false })?.mode ?? 0) & OTHERS) !== 0;
}

/** Reads in steps: the size is 0 for a pipe, /dev/stdin and all of /proc. */
function readAtMost(bytesMax: number, path: string): Uint8Array {
  const fd = openSync(path, "r");
  try {
    let buffer = new Uint8Array(Math.min(bytesMax, FIRST_READ_BYTES));
    let length = 0;
    for (;;) {
      const got = readSync(fd, buffer, length, buffer.length - length, null);
      length += got;
      if (got === 0 || length === bytesMax) return buffer.subarray(0, length);
      if (length < buffer.length) continue;
      const larger = new Uint8Array(Math.min(bytesMax, 2 * buffer.length));
      larger.set(buffer);
      buffer = larger;
    }
  } finally {
    closeSync(fd);
  }
}
