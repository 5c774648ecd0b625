/**
 * A directory's server as beacons see it: its log, its hash and its parts, its clock, and what it
 * loses.
 */
import {
  type LogEntry,
  type LogSize,
  NO_ENTRY,
  READ_COUNT,
} from "../../../../src/control/directory/store.ts";
import { ofServer, type StoreError } from "../../../../src/control/directory/store-error.ts";
import type { Timeline } from "./timeline.ts";

/** When the simulation begins, on a clock that is right. */
export const BEGAN_MS = 1_900_000_000_000;
/** How far back a replica can be. */
export const LAG_MS_MAX = 1_000;

/** Memory that an entry or a key takes beside its content. */
const ENTRY_OVERHEAD_BYTES = 30;
const KEY_OVERHEAD_BYTES = 120;

interface Id {
  readonly ms: number;
  readonly count: number;
}

interface Logged extends Id, LogEntry {
  /** Number of the stream's node that holds it. */
  readonly node: number;
  /** Virtual, as all that follow. */
  readonly addedMs: number;
}

interface Part {
  readonly bytes: Uint8Array;
  /** By the server's clock. */
  readonly endsMs: number;
}

/** What a key held before it was written. */
interface Before {
  readonly atMs: number;
  readonly key: string;
  readonly field: Uint8Array | undefined;
  readonly part: Part | undefined;
  readonly isField: boolean;
}

export class Server {
  /** It takes no writes, for lack of memory or as a replica. */
  isFull = false;
  isReplica = false;
  log: Logged[] = [];
  readonly hash = new Map<string, Uint8Array>();
  readonly parts = new Map<string, Part>();
  /** Sum of the steps of its clock. */
  steppedMs = 0;
  /** Memory that its log, hash and parts may take; more, and it refuses what needs memory. */
  maxBytes = Number.POSITIVE_INFINITY;
  /** Size of a node of the stream: `XADD … ~` drops whole nodes. 0: each entry is a node. */
  nodeBytes = 0;
  #node = 0;
  #bytesOfNode = 0;
  /** Readers that wait for an entry. */
  readonly readers = new Set<() => void>();
  #last: Id = { ms: 0, count: 0 };
  #written: Before[] = [];

  /**
   * @param clockMs how wrong its clock is
   * @param written is told of every write
   */
  constructor(
    private readonly timeline: Timeline,
    private clockMs: number,
    private readonly written: (where: string, bytes: Uint8Array | undefined) => void = () => {},
  ) {}

  /** A replica that lacks what was written in the last so many ms. */
  replica(lagMs: number, clockMs: number): Server {
    const replica = new Server(this.timeline, clockMs, this.written);
    replica.maxBytes = this.maxBytes;
    replica.nodeBytes = this.nodeBytes;
    replica.#node = this.#node + 1;
    const untilMs = this.timeline.nowMs - lagMs;
    replica.log = this.log.filter(({ addedMs }) => addedMs <= untilMs);
    replica.#last = replica.log.at(-1) ?? this.#last;
    for (const [name, lease] of this.hash) replica.hash.set(name, lease);
    for (const [key, part] of this.parts) replica.parts.set(key, part);
    for (let i = this.#written.length - 1; i >= 0 && this.#written[i]!.atMs > untilMs; i--) {
      const { key, field, part, isField } = this.#written[i]!;
      if (isField) put(replica.hash, key, field);
      else put(replica.parts, key, part);
    }
    return replica;
  }

  get nowMs(): number {
    return BEGAN_MS + this.timeline.nowMs + this.clockMs;
  }

  /** Ids do not go back with the clock. Parts expire by it. */
  stepClock(ms: number): void {
    this.clockMs += ms;
    this.steppedMs += ms;
  }

  /** The ids of entries are later by so much than its clock says, as after it was set back. */
  idsAhead(ms: number): void {
    this.#last = { ms: Math.max(this.#last.ms + 1, Math.floor(this.nowMs + ms)), count: 0 };
  }

  /** @throws StoreError */
  mustTakeWrites(): void {
    if (this.isReplica) throw refusal("read_only", "is a replica");
    if (this.isFull || this.isOutOfMemory) throw refusal("full", "takes no writes", false);
  }

  get isOutOfMemory(): boolean {
    return this.maxBytes < Number.POSITIVE_INFINITY && this.bytes >= this.maxBytes;
  }

  /** Memory in use. */
  get bytes(): number {
    let bytes = 0;
    for (const entry of this.log)
      bytes +=
        ENTRY_OVERHEAD_BYTES + (4 / 3) * ((entry.bytes?.length ?? 0) + (entry.extra?.length ?? 0));
    for (const lease of this.hash.values()) bytes += KEY_OVERHEAD_BYTES + (4 / 3) * lease.length;
    for (const part of this.parts.values())
      if (part.endsMs > this.nowMs) bytes += KEY_OVERHEAD_BYTES + part.bytes.length;
    return bytes;
  }

  append(bytes: Uint8Array | undefined, extra?: Uint8Array, trimTo = "0-0"): void {
    const ms = Math.floor(this.nowMs);
    this.#last =
      ms > this.#last.ms ? { ms, count: 0 } : { ms: this.#last.ms, count: this.#last.count + 1 };
    this.trimTo(trimTo, true);
    const { count } = this.#last;
    const node = this.#nodeFor((bytes?.length ?? 0) + (extra?.length ?? 0));
    const id = `${this.#last.ms}-${count}`;
    this.log.push({
      ...{ ms: this.#last.ms, count, id, bytes, extra },
      node,
      addedMs: this.timeline.nowMs,
    });
    this.written("log", bytes);
    const readers = [...this.readers];
    this.readers.clear();
    for (const wake of readers) wake();
  }

  /** Drops entries with lower ids; of a node that holds others, too, none if it may. */
  trimTo(text: string, mayKeepSome = false): void {
    const { log } = this;
    const id = idOf(text);
    let end = 0;
    while (end < log.length && compare(log[end]!, id) < 0) end++;
    if (mayKeepSome) while (end > 0 && log[end]?.node === log[end - 1]!.node) end--;
    if (end > 0) this.log = log.slice(end);
  }

  #nodeFor(bytes: number): number {
    this.#bytesOfNode += bytes;
    if (this.#bytesOfNode > this.nodeBytes) {
      this.#bytesOfNode = bytes;
      this.#node++;
    }
    return this.#node;
  }

  logSize(): LogSize {
    const bytes = this.log.reduce(
      (sum, { bytes, extra }) => sum + (bytes?.length ?? 0) + (extra?.length ?? 0),
      0,
    );
    return { entries: this.log.length, bytes };
  }

  /** Everything is gone, and ids begin anew. */
  flush(): void {
    this.log = [];
    this.hash.clear();
    this.parts.clear();
    this.#written = [];
    this.#last = { ms: 0, count: 0 };
  }

  /** Only the last so many entries stay. */
  trim(entries: number): void {
    this.log = entries === 0 ? [] : this.log.slice(-entries);
  }

  last(): LogEntry {
    return this.log.at(-1) ?? NO_ENTRY;
  }

  entriesBehind(after: string): LogEntry[] {
    const id = idOf(after);
    const { log } = this;
    let from = log.length;
    while (from > 0 && compare(log[from - 1]!, id) > 0) from--;
    return log.slice(from, from + READ_COUNT);
  }

  setField(name: string, value: Uint8Array | undefined): void {
    this.#remember({ key: name, field: this.hash.get(name), part: undefined, isField: true });
    put(this.hash, name, value);
  }

  setPart(key: string, bytes: Uint8Array | undefined, ttlMs = 0): void {
    this.#remember({ key, field: undefined, part: this.parts.get(key), isField: false });
    this.written(key, bytes);
    put(this.parts, key, bytes && { bytes: bytes.slice(), endsMs: this.nowMs + ttlMs });
  }

  part(key: string): Part | undefined {
    const part = this.parts.get(key);
    return part !== undefined && part.endsMs > this.nowMs ? part : undefined;
  }

  #remember(before: Omit<Before, "atMs">): void {
    const { nowMs } = this.timeline;
    if (this.#written.length > 0 && this.#written[0]!.atMs < nowMs - 2 * LAG_MS_MAX)
      this.#written = this.#written.filter(({ atMs }) => atMs >= nowMs - LAG_MS_MAX);
    this.#written.push({ atMs: nowMs, ...before });
  }
}

export function refusal(
  failure: StoreError["failure"],
  message: string,
  endsConnection = true,
): StoreError {
  return ofServer({ server: "server", secret: "" }, failure, message, endsConnection);
}

function put<T>(map: Map<string, T>, key: string, value: T | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}

function idOf(text: string): Id {
  const [ms = 0, count = 0] = text.split("-").map(Number);
  return { ms, count };
}

function compare(one: Id, other: Id): number {
  return one.ms - other.ms || one.count - other.count;
}
