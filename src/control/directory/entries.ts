/**
 * What beacons write into the directory's log, as bytes, and how that is read: as if a stranger had
 * written it.
 *
 *   version   1 byte    1
 *   kind      1 byte    CHANGES, LEASE or ASK
 *   epoch     8 bytes   float64, a whole number: which start of the beacon says this
 *   name      2 bytes, and so many of UTF-8: where its peers reach it, "host:port"
 *
 * Everything is big endian. Times are milliseconds of the fleet's clock (clock.ts), a multiple of
 * TIME_STEP_MS. Behind that:
 *
 *   CHANGES   seq 8 (float64, 1 more than the one before), time 8 (float64), claims 2, gone 2,
 *             then for each claim: node id 4, age 4 (how long before `time`, see ageOf); then the ids, 4 each, that are gone
 *   LEASE     seq 8 (float64, of its last CHANGES), time 8 (float64), beacon id 4, nodes 4, lease 4 (ms), 1 if it leaves, else 0,
 *             snapshot: parts 2 (0 for none), seq 8 (float64)
 *   ASK       epoch 8 and name of the beacon whose snapshot is asked for
 *
 * An entry may have an extension, in a field of its own that earlier versions do not read:
 *
 *   version   1 byte    1; a reader ignores any other
 *   LEASE     snapshot of some ranges: ranges 4 (bit i for range i), parts 2 (0 for none), seq 8 (float64); then, unless they are
 *             not known yet, the sums of what the beacon claims, as of seq (claim-digest.ts), 4 bytes each
 *   ASK       ranges 4, in which the snapshot is needed
 */
import { ALL_RANGES, CLAIM_RANGES, SUM_WORDS } from "../../shared/claim-digest.ts";

export const CHANGES = 1;
export const LEASE = 2;
export const ASK = 3;
const VERSION = 1;

/** Claims and removed ids of one entry: applied at once, in less than a millisecond. */
export const CHANGES_MAX = 1024;
/** An epoch is the time of its start, in ms, times this, and something random. */
export const EPOCHS_PER_MS = 1024;
/** Longest name, in bytes: a host name and a port. */
export const NAME_BYTES_MAX = 255 + 6;
/** Parts of a snapshot: 16 million nodes. */
export const PARTS_MAX = 1024;
/** Times are exact in a float64, and two beacons compare the same ones. */
export const TIME_STEP_MS = 1 / 16;
/** Ages from here on count whole seconds: 1.5 days and 68 years fit. */
const AGE_SECONDS = 0x8000_0000;
const SUMS = CLAIM_RANGES * SUM_WORDS;

interface Said {
  readonly epoch: number;
  /** Of the beacon that says it. */
  readonly name: string;
}

/** Nodes that are a beacon's own, and when each was last heard there. */
export interface Claims {
  readonly nodeIds: Int32Array;
  readonly timesMs: Float64Array;
}

export interface Changes extends Said {
  readonly kind: typeof CHANGES;
  readonly seq: number;
  /** When it was written. */
  readonly timeMs: number;
  readonly claims: Claims;
  readonly gone: Int32Array;
}

export interface SnapshotName {
  /** The changes until this one are in it; some later ones may be. */
  readonly seq: number;
  readonly parts: number;
  /** Of node ids, that it has. */
  readonly ranges: number;
}

export interface Lease extends Said {
  readonly kind: typeof LEASE;
  readonly seq: number;
  readonly timeMs: number;
  readonly beaconId: number;
  readonly nodes: number;
  readonly leaseMs: number;
  readonly isLeaving: boolean;
  /** The last one of all ranges, and the last one of some. */
  readonly snapshot: SnapshotName | undefined;
  readonly ranged: SnapshotName | undefined;
  /** Of what the beacon claims; undefined: an earlier version, or not known yet. */
  readonly sums: Int32Array | undefined;
}

export interface Ask extends Said {
  readonly kind: typeof ASK;
  readonly of: Said;
  /** In which the snapshot is needed. */
  readonly ranges: number;
}

export type Entry = Changes | Lease | Ask;

/** A time as entries hold it. */
export const stepped = (timeMs: number): number => Math.floor(timeMs / TIME_STEP_MS) * TIME_STEP_MS;

/** Age of a claim at `timeMs`: in TIME_STEP_MS, or in whole seconds for old ones. */
export function ageOf(claimedMs: number, timeMs: number): number {
  const steps = Math.max(0, Math.round((timeMs - claimedMs) / TIME_STEP_MS));
  if (steps < AGE_SECONDS) return steps;
  return (
    AGE_SECONDS +
    Math.min(Math.floor(timeMs / 1000) - Math.floor(claimedMs / 1000), AGE_SECONDS - 1)
  );
}

/** When a claim of this age was made. */
export function claimedAt(timeMs: number, age: number): number {
  if (age < AGE_SECONDS) return timeMs - age * TIME_STEP_MS;
  return Math.max(0, Math.floor(timeMs / 1000) - (age - AGE_SECONDS)) * 1000;
}

export function encodeEntry(entry: Entry): Uint8Array<ArrayBuffer> {
  const out = new Writer();
  out.word8(VERSION);
  out.word8(entry.kind);
  out.said(entry);
  if (entry.kind === CHANGES) {
    const { nodeIds, timesMs } = entry.claims;
    out.float(entry.seq);
    out.float(entry.timeMs);
    out.word16(nodeIds.length);
    out.word16(entry.gone.length);
    for (let i = 0; i < nodeIds.length; i++) {
      out.word32(nodeIds[i]!);
      out.word32(ageOf(timesMs[i]!, entry.timeMs));
    }
    for (const nodeId of entry.gone) out.word32(nodeId);
  } else if (entry.kind === LEASE) {
    out.float(entry.seq);
    out.float(entry.timeMs);
    out.word32(entry.beaconId);
    out.word32(entry.nodes);
    out.word32(entry.leaseMs);
    out.word8(Number(entry.isLeaving));
    out.word16(entry.snapshot?.parts ?? 0);
    out.float(entry.snapshot?.seq ?? 0);
  } else {
    out.said(entry.of);
  }
  return out.bytes;
}

/** @returns undefined for an entry without an extension */
export function encodeExtra(entry: Entry): Uint8Array<ArrayBuffer> | undefined {
  if (entry.kind === CHANGES || (entry.kind === ASK && entry.ranges === ALL_RANGES))
    return undefined;
  const out = new Writer();
  out.word8(VERSION);
  if (entry.kind === ASK) {
    out.word32(entry.ranges);
    return out.bytes;
  }
  out.word32(entry.ranged?.ranges ?? 0);
  out.word16(entry.ranged?.parts ?? 0);
  out.float(entry.ranged?.seq ?? 0);
  for (const word of entry.sums ?? []) out.word32(word);
  return out.bytes;
}

/** @returns undefined for what no beacon of this version writes */
export function decodeEntry(bytes: Uint8Array, extra?: Uint8Array): Entry | undefined {
  const from = new Reader(bytes);
  if (from.word8() !== VERSION) return undefined;
  const kind = from.word8();
  const said = from.said();
  let entry: Entry;
  if (kind === CHANGES) entry = readChanges(from, said);
  else if (kind === LEASE) entry = readLease(from, said);
  else if (kind === ASK) entry = { kind, ...said, of: from.said(), ranges: ALL_RANGES };
  else return undefined;
  if (!from.isWhole) return undefined;
  return extra === undefined || extra[0] !== VERSION ? entry : extended(entry, new Reader(extra));
}

/** @returns undefined if the extension is malformed */
function extended(entry: Entry, from: Reader): Entry | undefined {
  from.word8();
  if (entry.kind === ASK) {
    const ask = { ...entry, ranges: from.word32() | 0 };
    from.expect(ask.ranges !== 0);
    return from.isWhole ? ask : undefined;
  }
  if (entry.kind !== LEASE) return undefined;
  const [ranges, parts, seq] = [from.word32() | 0, from.word16(), from.whole()];
  from.expect(parts <= PARTS_MAX && (parts === 0) === (ranges === 0));
  const sums = from.isWhole ? undefined : Int32Array.from({ length: SUMS }, () => from.word32());
  const ranged = parts === 0 ? undefined : { parts, seq, ranges };
  return from.isWhole ? { ...entry, ranged, sums } : undefined;
}

function readChanges(from: Reader, said: Said): Changes {
  const [seq, timeMs] = [from.whole(), from.time()];
  const [claims, gone] = [from.word16(), from.word16()];
  from.expect(claims + gone <= CHANGES_MAX);
  const nodeIds = new Int32Array(claims);
  const timesMs = new Float64Array(claims);
  for (let i = 0; i < claims && from.isGood; i++) {
    nodeIds[i] = from.nodeId();
    timesMs[i] = claimedAt(timeMs, from.word32());
  }
  const goneIds = new Int32Array(gone);
  for (let i = 0; i < gone && from.isGood; i++) goneIds[i] = from.nodeId();
  return { kind: CHANGES, ...said, seq, timeMs, claims: { nodeIds, timesMs }, gone: goneIds };
}

function readLease(from: Reader, said: Said): Lease {
  const [seq, timeMs] = [from.whole(), from.time()];
  const [beaconId, nodes, leaseMs] = [from.word32(), from.word32(), from.word32()];
  const isLeaving = from.word8() === 1;
  const [parts, snapshotSeq] = [from.word16(), from.whole()];
  from.expect(parts <= PARTS_MAX);
  const snapshot = parts === 0 ? undefined : { parts, seq: snapshotSeq, ranges: ALL_RANGES };
  return {
    ...{ kind: LEASE, ...said, seq, timeMs, beaconId, nodes, leaseMs, isLeaving, snapshot },
    ...{ ranged: undefined, sums: undefined },
  };
}

/** Puts values behind each other. */
class Writer {
  #buffer = new Uint8Array(1024);
  #view = new DataView(this.#buffer.buffer);
  #at = 0;

  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#buffer.subarray(0, this.#at);
  }

  // First the room, which may be in another buffer than until now; then what is written there.
  word8(value: number): void {
    const at = this.#take(1);
    this.#view.setUint8(at, value);
  }
  word16(value: number): void {
    const at = this.#take(2);
    this.#view.setUint16(at, value);
  }
  word32(value: number): void {
    const at = this.#take(4);
    this.#view.setUint32(at, value);
  }
  float(value: number): void {
    const at = this.#take(8);
    this.#view.setFloat64(at, value);
  }
  said({ epoch, name }: Said): void {
    const text = Buffer.from(name);
    if (text.length > NAME_BYTES_MAX) throw new RangeError(`a name of ${text.length} bytes`);
    this.float(epoch);
    this.word16(text.length);
    const at = this.#take(text.length);
    this.#buffer.set(text, at);
  }

  /** Makes room, perhaps in another buffer: to be called before either is looked at. */
  #take(bytes: number): number {
    const at = this.#at;
    this.#at += bytes;
    if (this.#at > this.#buffer.length) {
      const larger = new Uint8Array(2 * this.#at);
      larger.set(this.#buffer);
      this.#buffer = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}

/** Reads values in order; after a missing or invalid one, everything is invalid. */
class Reader {
  readonly #view: DataView;
  #at = 0;
  isGood = true;

  constructor(private readonly bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Whether everything was good, and nothing is left. */
  get isWhole(): boolean {
    return this.isGood && this.#at === this.bytes.length;
  }

  expect(isRight: boolean): void {
    this.isGood &&= isRight;
  }

  word8(): number {
    return this.#has(1) ? this.#view.getUint8(this.#at - 1) : 0;
  }
  word16(): number {
    return this.#has(2) ? this.#view.getUint16(this.#at - 2) : 0;
  }
  word32(): number {
    return this.#has(4) ? this.#view.getUint32(this.#at - 4) : 0;
  }
  /** A node's id, signed. */
  nodeId(): number {
    const nodeId = this.word32() | 0;
    this.expect(nodeId !== 0);
    return nodeId;
  }
  whole(): number {
    const value = this.#float();
    this.expect(Number.isSafeInteger(value) && value >= 0);
    return value;
  }
  time(): number {
    const value = this.#float();
    this.expect(
      value >= 0 && value <= Number.MAX_SAFE_INTEGER * TIME_STEP_MS && stepped(value) === value,
    );
    return value;
  }
  said(): Said {
    const epoch = this.whole();
    const length = this.word16();
    this.expect(length > 0 && length <= NAME_BYTES_MAX);
    if (!this.#has(length)) return { epoch, name: "" };
    const name = this.bytes.subarray(this.#at - length, this.#at);
    this.expect(name.every((byte) => byte > 0x20 && byte < 0x7f));
    return { epoch, name: Buffer.from(name).toString() };
  }

  #float(): number {
    return this.#has(8) ? this.#view.getFloat64(this.#at - 8) : 0;
  }

  #has(bytes: number): boolean {
    if (this.#at + bytes > this.bytes.length) this.isGood = false;
    if (this.isGood) this.#at += bytes;
    return this.isGood;
  }
}
