/** Nodes' keys from a JSON file: `{"42":"<base64>", …}`. */
import { duplicateKey } from "../../config/duplicate-key.ts";
import { readBounded } from "../../config/file.ts";
import { ConfigError, quoted, shown, withReason } from "../../config/units.ts";
import { bytesOfBase64, type KeySource } from "./keys.ts";

/** About a million nodes. */
const FILE_BYTES_MAX = 64 * 1024 * 1024;
const KEY_BYTES = 32;
const NODE_ID_MAX = 2 ** 32 - 1;

/** Keys in one array, found by sorted id: 36 bytes a node, nothing for the collector. */
export class FileKeys implements KeySource {
  readonly #nodeIds: Uint32Array;
  readonly #keys: Uint8Array;

  private constructor(keys: Record<string, unknown>) {
    this.#nodeIds = Uint32Array.from(Object.keys(keys), nodeIdOf).sort();
    this.#keys = new Uint8Array(KEY_BYTES * this.#nodeIds.length);
    for (const [i, nodeId] of this.#nodeIds.entries())
      this.#keys.set(nodeKey(nodeId, keys[nodeId]), KEY_BYTES * i);
  }

  /** Reads and checks the file. @throws ConfigError that names it and the first bad entry */
  static read(path: string): FileKeys {
    const bytes = readBounded(path, "the key file", FILE_BYTES_MAX);
    return withReason(
      () => new FileKeys(jsonObject(bytes)),
      (reason) => `${shown(path)}: ${reason}`,
    );
  }

  async keyOf(nodeId: number): Promise<Uint8Array | undefined> {
    let from = 0;
    for (let end = this.#nodeIds.length; from < end; ) {
      const middle = (from + end) >>> 1;
      if (this.#nodeIds[middle]! < nodeId) from = middle + 1;
      else end = middle;
    }
    if (this.#nodeIds[from] !== nodeId) return undefined;
    return this.#keys.slice(KEY_BYTES * from, KEY_BYTES * (from + 1));
  }

  /** Nothing goes on. */
  close(): void {}
}

const QUOTE = 0x22;

function countOf(byte: number, bytes: Uint8Array): number {
  let count = 0;
  for (let i = 0; i < bytes.length; i++) if (bytes[i] === byte) count++;
  return count;
}

function nodeIdOf(name: string): number {
  const nodeId = Number(name);
  if (/^[1-9]\d*$/.test(name) && nodeId <= NODE_ID_MAX) return nodeId;
  throw new ConfigError(`${quoted(name)} is no node id: those go from "1" to "${NODE_ID_MAX}"`);
}

/** The message does not show the text: it may be a private key. */
function nodeKey(nodeId: number, text: unknown): Uint8Array {
  const key = typeof text === "string" ? bytesOfBase64(text) : undefined;
  if (key?.length === KEY_BYTES) return key;
  throw new ConfigError(
    `the key of node "${nodeId}" must be the standard base64 of ${KEY_BYTES} bytes`,
  );
}

function jsonObject(bytes: Uint8Array): Record<string, unknown> {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    value = JSON.parse(text);
  } catch {
    throw new ConfigError("the key file is not JSON"); // the parser's words quote it
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    const keys = value as Record<string, unknown>;
    // Each entry is two strings. Counting takes 60 ms for the largest file, reading it again a
    // second.
    const twice =
      countOf(QUOTE, bytes) === 4 * Object.keys(keys).length ? undefined : duplicateKey(text);
    if (twice === undefined) return keys;
    throw new ConfigError(
      `node ${quoted(twice.key)} has two entries, in lines ${twice.lines.join(" and ")}; keep one of them`,
    );
  }
  throw new ConfigError(
    'the key file must hold one JSON object, such as {"42":"<base64 of the key>"}',
  );
}
