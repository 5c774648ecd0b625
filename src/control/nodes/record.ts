/**
 * One node as the state file and an upgrade hold it: 8 words, or 16 with its public key,
 * little-endian.
 *
 *   0   id, not 0
 *   1   6 words, endpoint as in ffi/endpoint.ts, with the number of its local address and the flags
 *       WANTS_DEST (1) and HAS_KEY (8)
 *   7   seconds since it was last seen: an age, as the table's clock starts with the process
 *   8   8 words, its key or zeros
 */
import {
  ENDPOINT_FLAGS_MASK,
  ENDPOINT_LOCAL_MASK,
  ENDPOINT_PORT_MASK,
  ENDPOINT_WORDS,
} from "../../../ffi/endpoint.ts";
import { NODE_KEY_WORDS } from "../../shared/memory.ts";
import { HAS_KEY, WANTS_DEST } from "../../shared/slots.ts";

export const RECORD_WORDS = 8;
export const RECORD_WORDS_WITH_KEY: number = RECORD_WORDS + NODE_KEY_WORDS;
const ENDPOINT_AT = 1;
const AGE_S_AT = ENDPOINT_AT + ENDPOINT_WORDS;
const KEY_AT = AGE_S_AT + 1;
if (KEY_AT !== RECORD_WORDS) throw new Error("a record's key follows the rest");

export interface NodeRecord {
  /** Signed; 0 for a record that is no node's. */
  nodeId: number;
  /** With its local number, without flags. */
  readonly endpoint: Int32Array;
  /** WANTS_DEST or 0. */
  flags: number;
  /** Unsigned. */
  ageS: number;
  hasKey: boolean;
  /** Byte offset of the key's 32 bytes. */
  keyAt: number;
}

/** Writes a record at `words[at]`. @param entry of scanNodes */
export function writeRecord(
  words: Int32Array,
  at: number,
  nodeId: number,
  entry: Int32Array,
  ageS: number,
): void {
  words[at] = nodeId;
  for (let word = 0; word < ENDPOINT_WORDS; word++) words[at + ENDPOINT_AT + word] = entry[word]!;
  words[at + ENDPOINT_AT] = entry[0]! & (ENDPOINT_PORT_MASK | ENDPOINT_LOCAL_MASK | WANTS_DEST);
  words[at + AGE_S_AT] = ageS;
}

/** Adds a node's key, 32 bytes, or that it has none, to its record. */
export function writeRecordKey(words: Int32Array, at: number, key: Uint8Array | undefined): void {
  words.fill(0, at + KEY_AT, at + RECORD_WORDS_WITH_KEY);
  if (key === undefined) return;
  new Uint8Array(words.buffer, words.byteOffset).set(key, (at + KEY_AT) * 4);
  words[at + ENDPOINT_AT]! |= HAS_KEY;
}

/** Yields the records in `words`, each in one object. @param recordWords their size */
export function* readRecords(words: Int32Array, recordWords: number): Generator<NodeRecord> {
  const endpoint = new Int32Array(ENDPOINT_WORDS);
  const record: NodeRecord = { nodeId: 0, endpoint, flags: 0, ageS: 0, hasKey: false, keyAt: 0 };
  for (let at = 0; at + recordWords <= words.length; at += recordWords) {
    for (let word = 0; word < ENDPOINT_WORDS; word++)
      endpoint[word] = words[at + ENDPOINT_AT + word]!;
    const flags = endpoint[0]! & ENDPOINT_FLAGS_MASK;
    endpoint[0] = endpoint[0]! & ~ENDPOINT_FLAGS_MASK;
    record.nodeId = words[at]!;
    record.flags = flags & WANTS_DEST;
    record.ageS = words[at + AGE_S_AT]! >>> 0;
    record.hasKey = recordWords > RECORD_WORDS && (flags & HAS_KEY) !== 0;
    record.keyAt = (at + KEY_AT) * 4;
    yield record;
  }
}
