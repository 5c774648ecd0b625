/**
 * What is in the messages of an upgrade, apart from how each version keeps it in memory: the two processes may be of different versions.
 * Words are little-endian, endpoints as in ffi/endpoint.ts. Times are ages, since each process has a clock of its own; only the limits'
 * are on CLOCK_MONOTONIC, which all processes of a host share.
 *
 *   nodes      64 bytes each: id, endpoint with its local address and the flag WANTS_DEST (1) or HAS_KEY (8), age in seconds, key or zeros
 *   removed    the ids of nodes that were removed since they were told of; a node that came back is told of again behind them
 *   routes     a peer's endpoint (6 words), 1 if it is a learned one, ms since it was heard or -1, and the ids of its nodes
 *   claims     the endpoint of a peer of which the directory tells, and 12 bytes each: a node's id, and when it was claimed, a float
 *   cells      16 bytes each: number of the limit in CELL_LIMITS, of the cell among its, and its time in ns, a float
 *   the rest   JSON, as the schemas say
 *
 * What one process hands to another of the same user needs no proof, but it is checked as what comes from a file is: a mistake of one
 * version must not bring the other into a state that there is no way out of.
 */
import * as v from "valibot";
import { ENDPOINT_FLAGS_MASK, ENDPOINT_WORDS, LOCAL_NUMBERS_END } from "../../../ffi/endpoint.ts";
import {
  ANSWER_LIMIT,
  ENDPOINT_HOLD,
  GRANT_RATE,
  NEW_NODE_LIMIT,
  PUNCH_LIMIT,
  PUNCH_SOURCE_LIMIT,
  RELAY_ADDRESS_LIMIT,
  RELAY_LIMIT,
} from "../../shared/limits.ts";

import { NODE_KEY_WORDS, PEERS_MAX } from "../../shared/memory.ts";
import { HAS_KEY, WANTS_DEST } from "../../shared/slots.ts";
import { ENTRY_SEEN_S, SLOTS_PER_SLICE } from "../nodes/scan.ts";
import { BODY_BYTES_MAX, FormatError } from "./channel.ts";

/** Of all of it. Another number is another language: such a process is refused. */
export const FORMAT = 1;

const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const text = v.pipe(v.string(), v.maxLength(1024));
/** Names of one list: those of the last round with a registry, or of the one before. */
const names = v.pipe(v.array(text), v.maxLength(PEERS_MAX));

const localNumbers = v.pipe(count, v.minValue(1), v.maxValue(LOCAL_NUMBERS_END - 1));
/** An endpoint's. */
const words = v.pipe(v.array(v.pipe(v.number(), v.integer())), v.length(ENDPOINT_WORDS));

/** The first message; with it, the sockets' descriptors, in the order of their group. */
export const offerSchema = v.object({
  format: v.literal(FORMAT),
  version: text,
  /** As it was configured. */
  addr: text,
  hashSecret: v.pipe(v.number(), v.integer(), v.minValue(-(2 ** 31)), v.maxValue(2 ** 31 - 1)),
  /** What the sockets have on. */
  offload: v.boolean(),
  steering: v.boolean(),
  /** Whether the state file may be replaced. */
  maySave: v.boolean(),
  /** Local addresses by the number that endpoints name; earlier versions send none. */
  locals: v.optional(v.pipe(v.array(v.tuple([localNumbers, words])), v.maxLength(LOCAL_NUMBERS_END))),
});
export type Offer = v.InferOutput<typeof offerSchema>;

/** What peers are named by, and where those names led. */
export const namesSchema = v.object({
  advertised: text,
  listed: names,
  lastListed: names,
  /** Beacons that the directory tells of; earlier versions know of none. */
  fleet: v.optional(names),
  hosts: v.pipe(v.array(v.tuple([text, v.pipe(v.array(text), v.maxLength(64))])), v.maxLength(PEERS_MAX)),
});
export type MeshNames = v.InferOutput<typeof namesSchema>;

/** An instance of a peer, 16 hex digits; the address that it was heard from, its last time, and ms since then. */
export const instancesSchema = v.array(
  v.tuple([v.pipe(v.string(), v.regex(/^[0-9a-f]{1,16}$/)), text, count, count]),
);
export type HeardInstances = v.InferOutput<typeof instancesSchema>;

/** The names and configured addresses of listening sockets, in the order of their descriptors. */
export const listenersSchema = v.pipe(v.array(v.tuple([text, text])), v.maxLength(16));

export const breakersSchema = v.record(text, v.picklist(["on", "off"]));
export const formatSchema = v.object({ format: count });
export const preparedSchema = v.object({
  version: text,
  /** How many of CELL_LIMITS the new process knows; earlier versions know the first seven, and report none. */
  cellLimits: v.optional(count, 7),
  /** Whether the new process takes `removed`; earlier versions would give up. */
  takesRemovals: v.optional(v.boolean(), false),
  /** Whether it takes `listeners`; earlier versions would give up, and open the ports themselves. */
  takesListeners: v.optional(v.boolean(), false),
});
export const refusedSchema = v.object({ reason: text });

/** @throws FormatError */
export function readJson<Schema extends v.GenericSchema>(
  schema: Schema,
  body: Uint8Array,
): v.InferOutput<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new FormatError("a message is no JSON");
  }
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw new FormatError(
    `a message is not as it should be: ${v.getDotPath(issue) ?? "all of it"}: ${issue.message}`,
  );
}

const NODE_WORDS = 16;
const NODE_ENDPOINT_AT = 1;
const NODE_AGE_S_AT = 7;
const NODE_KEY_AT = 8;
if (NODE_KEY_AT + NODE_KEY_WORDS !== NODE_WORDS) throw new Error("a node's entry ends with its key");
/** Of a message. */
const NODES_BYTES_MAX = Math.floor(BODY_BYTES_MAX / (NODE_WORDS * 4)) * NODE_WORDS * 4;

/** Entries of nodes, collected for some messages. */
export class NodeEntries {
  readonly #words = new Int32Array(16 * SLOTS_PER_SLICE * NODE_WORDS);
  #used = 0;

  /** Whether there is room for as many nodes as a slice of a scan may find. */
  get hasRoomForSlice(): boolean {
    return this.#words.length - this.#used >= SLOTS_PER_SLICE * NODE_WORDS;
  }

  /** @param entry of scanNodes @param key 32 bytes, if it has one */
  add(nodeId: number, entry: Int32Array, nowS: number, key: Uint8Array | undefined): void {
    const words = this.#words;
    const at = this.#used;
    this.#used += NODE_WORDS;
    words[at] = nodeId;
    for (let word = 0; word < ENDPOINT_WORDS; word++) words[at + NODE_ENDPOINT_AT + word] = entry[word]!;
    const flags = (entry[0]! & WANTS_DEST) | (key ? HAS_KEY : 0);
    words[at + NODE_ENDPOINT_AT] = (entry[0]! & ~ENDPOINT_FLAGS_MASK) | flags;
    words[at + NODE_AGE_S_AT] = Math.max(0, nowS - entry[ENTRY_SEEN_S]!);
    words.fill(0, at + NODE_KEY_AT, at + NODE_WORDS);
    if (key) new Uint8Array(words.buffer).set(key, (at + NODE_KEY_AT) * 4);
  }

  /** The messages' bodies, good until the next `add`; what is added then starts anew. */
  *take(): Generator<Uint8Array> {
    const bytes = new Uint8Array(this.#words.buffer, 0, this.#used * 4);
    this.#used = 0;
    for (let at = 0; at < bytes.length; at += NODES_BYTES_MAX) yield bytes.subarray(at, at + NODES_BYTES_MAX);
  }
}

export interface NodeTold {
  /** Signed, not 0. */
  readonly nodeId: number;
  /** Without flags, with the other process's number of the local address; good until the next node is read. */
  readonly endpoint: Int32Array;
  /** WANTS_DEST or 0. */
  readonly flags: number;
  readonly ageS: number;
  /** Where the 32 bytes of its key are, from `keyAt` on; undefined if none is known. */
  readonly key: DataView | undefined;
  readonly keyAt: number;
}

/** @throws FormatError */
export function* readNodes(body: Uint8Array): Generator<NodeTold> {
  const words = wordsOf(body, NODE_WORDS, "nodes");
  const view = new DataView(words.buffer, words.byteOffset, words.byteLength);
  const endpoint = new Int32Array(ENDPOINT_WORDS);
  for (let at = 0; at < words.length; at += NODE_WORDS) {
    const nodeId = words[at]!;
    const ageS = words[at + NODE_AGE_S_AT]!;
    if (nodeId === 0 || ageS < 0) throw new FormatError("a node has no id, or an age below 0");
    endpoint.set(words.subarray(at + NODE_ENDPOINT_AT, at + NODE_ENDPOINT_AT + ENDPOINT_WORDS));
    const flags = endpoint[0]! & ENDPOINT_FLAGS_MASK;
    endpoint[0] = endpoint[0]! & ~ENDPOINT_FLAGS_MASK;
    const key = (flags & HAS_KEY) !== 0 ? view : undefined;
    yield { nodeId, endpoint, flags: flags & WANTS_DEST, ageS, key, keyAt: (at + NODE_KEY_AT) * 4 };
  }
}

const REMOVED_MAX = BODY_BYTES_MAX / 4;

/** The messages' bodies. */
export function* writeRemoved(nodeIds: readonly number[]): Generator<Uint8Array> {
  for (let first = 0; first < nodeIds.length; first += REMOVED_MAX)
    yield new Uint8Array(Int32Array.from(nodeIds.slice(first, first + REMOVED_MAX)).buffer);
}

/** @throws FormatError */
export function readRemoved(body: Uint8Array): Int32Array {
  return wordsOf(body, 1, "removed nodes");
}

const ROUTES_LEARNED_AT = ENDPOINT_WORDS;
const ROUTES_AGE_MS_AT = ENDPOINT_WORDS + 1;
const ROUTES_IDS_AT = ENDPOINT_WORDS + 2;
/** More than gossip, which is one datagram, ever brings. */
const ROUTES_MAX = BODY_BYTES_MAX / 4 - ROUTES_IDS_AT;

/** A peer, and the nodes that are reached through it. */
export interface PeerNodes {
  readonly endpoint: Int32Array;
  readonly isLearned: boolean;
  /** Since it was last heard; undefined if it never was. */
  readonly heardAgeMs: number | undefined;
  readonly nodeIds: Int32Array;
}

export function writeRoutes({ endpoint, isLearned, heardAgeMs, nodeIds }: PeerNodes): Uint8Array {
  const count = Math.min(nodeIds.length, ROUTES_MAX);
  const words = new Int32Array(ROUTES_IDS_AT + count);
  words.set(endpoint);
  words[ROUTES_LEARNED_AT] = Number(isLearned);
  words[ROUTES_AGE_MS_AT] = heardAgeMs === undefined ? -1 : Math.min(Math.max(0, heardAgeMs), 2 ** 31 - 1);
  words.set(nodeIds.subarray(0, count), ROUTES_IDS_AT);
  return new Uint8Array(words.buffer);
}

/** @throws FormatError */
export function readRoutes(body: Uint8Array): PeerNodes {
  const words = wordsOf(body, 1, "routes");
  if (words.length < ROUTES_IDS_AT) throw new FormatError("a peer's routes have no peer");
  const ageMs = words[ROUTES_AGE_MS_AT]!;
  return {
    endpoint: words.slice(0, ENDPOINT_WORDS),
    isLearned: words[ROUTES_LEARNED_AT] !== 0,
    heardAgeMs: ageMs < 0 ? undefined : ageMs,
    nodeIds: words.slice(ROUTES_IDS_AT),
  };
}

const CLAIM_BYTES = 12;
const CLAIMS_AT = ENDPOINT_WORDS * 4;
const CLAIMS_MAX = Math.floor((BODY_BYTES_MAX - CLAIMS_AT) / CLAIM_BYTES);

/** What the directory told of a peer's nodes. */
export interface PeerClaims {
  readonly endpoint: Int32Array;
  readonly nodeIds: Int32Array;
  /** Directory time (src/control/directory/clock.ts). */
  readonly timesMs: Float64Array;
}

/** The messages' bodies, each good until the next. */
export function* writeClaims({ endpoint, nodeIds, timesMs }: PeerClaims): Generator<Uint8Array> {
  for (let first = 0; first < nodeIds.length; first += CLAIMS_MAX) {
    const count = Math.min(CLAIMS_MAX, nodeIds.length - first);
    const view = new DataView(new ArrayBuffer(CLAIMS_AT + count * CLAIM_BYTES));
    for (let word = 0; word < ENDPOINT_WORDS; word++) view.setInt32(4 * word, endpoint[word]!, true);
    for (let i = 0; i < count; i++) {
      view.setInt32(CLAIMS_AT + i * CLAIM_BYTES, nodeIds[first + i]!, true);
      view.setFloat64(CLAIMS_AT + i * CLAIM_BYTES + 4, timesMs[first + i]!, true);
    }
    yield new Uint8Array(view.buffer);
  }
}

/** @throws FormatError */
export function readClaims(body: Uint8Array): PeerClaims {
  const count = (body.length - CLAIMS_AT) / CLAIM_BYTES;
  if (!Number.isInteger(count) || count < 0) throw new FormatError("claims are cut short");
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const claims = {
    endpoint: Int32Array.from({ length: ENDPOINT_WORDS }, (_, word) => view.getInt32(4 * word, true)),
    nodeIds: new Int32Array(count),
    timesMs: new Float64Array(count),
  };
  for (let i = 0; i < count; i++) {
    claims.nodeIds[i] = view.getInt32(CLAIMS_AT + i * CLAIM_BYTES, true);
    claims.timesMs[i] = view.getFloat64(CLAIMS_AT + i * CLAIM_BYTES + 4, true);
    if (claims.nodeIds[i] === 0 || !(claims.timesMs[i]! >= 0))
      throw new FormatError("a claim is of no node, or no time");
  }
  return claims;
}

const CELL_BYTES = 16;
/**
 * Limits that have cells. A limit's place is its number in a message, whatever its number in memory; so new
 * ones go to the end.
 */
export const CELL_LIMITS: readonly number[] = [
  RELAY_LIMIT,
  PUNCH_SOURCE_LIMIT,
  PUNCH_LIMIT,
  NEW_NODE_LIMIT,
  ANSWER_LIMIT,
  ENDPOINT_HOLD,
  GRANT_RATE,
  RELAY_ADDRESS_LIMIT,
];
const CELLS_MAX = Math.floor(BODY_BYTES_MAX / CELL_BYTES);

/** Cells of limits, collected for one message. */
export class CellEntries {
  readonly #view = new DataView(new ArrayBuffer(CELLS_MAX * CELL_BYTES));
  #used = 0;

  get isFull(): boolean {
    return this.#used === CELLS_MAX * CELL_BYTES;
  }

  /** @param place the limit's, in CELL_LIMITS */
  add(place: number, cell: number, timeNs: number): void {
    this.#view.setUint32(this.#used, place, true);
    this.#view.setUint32(this.#used + 4, cell, true);
    this.#view.setFloat64(this.#used + 8, timeNs, true);
    this.#used += CELL_BYTES;
  }

  /** The message's body, good until the next `add`; what is added then starts anew. */
  take(): Uint8Array {
    const bytes = new Uint8Array(this.#view.buffer, 0, this.#used);
    this.#used = 0;
    return bytes;
  }
}

/**
 * Calls `visit` for each cell, with the limit's number in memory.
 * @throws FormatError
 */
export function readCells(
  body: Uint8Array,
  visit: (limit: number, cell: number, timeNs: number) => void,
): void {
  if (body.length % CELL_BYTES !== 0) throw new FormatError("cells are cut short");
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  for (let at = 0; at < body.length; at += CELL_BYTES) {
    const limit = CELL_LIMITS[view.getUint32(at, true)];
    const timeNs = view.getFloat64(at + 8, true);
    if (limit === undefined || !Number.isFinite(timeNs))
      throw new FormatError("a cell is of no limit, or no time");
    visit(limit, view.getUint32(at + 4, true), timeNs);
  }
}

/** A copy, so that it starts where words may. */
function wordsOf(body: Uint8Array, each: number, of: string): Int32Array<ArrayBuffer> {
  if (body.length % (each * 4) !== 0) throw new FormatError(`${of} are cut short`);
  return new Int32Array(body.slice().buffer);
}
