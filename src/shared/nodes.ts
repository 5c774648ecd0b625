/**
 * The node table: node id → endpoint, in shared memory, read by every thread and written by every
 * thread.
 *
 * It is cut into shards, each with a lock and an area of slots (slots.ts) with open addressing
 * (open-addressing.ts). A writer holds the shard's lock; a reader needs none and never waits. A
 * writer that dies at any instruction leaves a whole table, and its lock. Only the main thread
 * removes nodes (nodes-owner.ts), whose death is the process's.
 *
 * Beside a slot there is room for the node's public key (`keepKey`). The first one stays until the
 * node is removed, so whoever reads it on the main thread, where nodes are removed, needs no lock;
 * nobody else does.
 *
 * Once ARRIVALS_NOTED is set, it is noted which nodes are added (arrivals.ts) and when each was
 * last heard (heard.ts).
 *
 * Node ids are taken signed or unsigned, and held signed, as Int32Array has them.
 */
import { type Clock, MonotonicClock } from "../../ffi/clock.ts";
import {
  ENDPOINT_FLAGS_MASK,
  ENDPOINT_LOCAL_MASK,
  ENDPOINT_PORT_MASK,
  ENDPOINT_WORDS,
} from "../../ffi/endpoint.ts";
import { ArrivalNotes } from "./arrivals.ts";
import { nodeHash, shardOfHash, slotOfHash } from "./hash.ts";
import { HeardTimes } from "./heard.ts";
import { OrderedWord } from "./loads.ts";
import {
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  NODE_KEY_WORDS,
  SHARD_LOCK,
  SHARD_NODES,
  SHARD_REMOVALS,
  type SharedMemory,
} from "./memory.ts";
import { FINDS_MAX, searchSlots } from "./open-addressing.ts";
import { HAS_KEY, IS_BRIDGED, SLOT_ID, SLOT_SEEN_S, SLOT_WORDS, Slots } from "./slots.ts";

/** Spins before a pause: some 10 µs, far longer than a running writer holds a lock. */
const LOCK_SPINS_MAX = 1000;
/**
 * Then the holder is off its core or dead. A worker waits, up to a second; the supervisor frees a
 * dead worker's lock sooner. The main thread never waits: the supervisor, which frees the lock,
 * runs there. Its callers retry after `LOCK_RETRY_MS`.
 */
const LOCK_WAIT_MS = 1;
const LOCK_WAITS_MAX = 1000;
/** `enter` could not lock the shard. */
export const NOT_ENTERED = -2;
/** Retry interval of the main thread for a locked shard: a few scheduler slices (4 ms each). */
export const LOCK_RETRY_MS = 10;

/** Results of `record` and `bridge`. From NODE_LIMIT on, in the order of REFUSAL_REASONS. */
export const REFRESHED = 0;
export const MOVED = 1;
export const ADDED = 2;
export const HELD = 3;
export const NODE_LIMIT = 4;
export const SHARD_FULL = 5;
export const CONTENDED = 6;

/** Results of `keepKey`: kept; node absent or not verified; or it has another key. */
export const KEY_KEPT = 0;
export const KEY_IGNORED = 1;
export const KEY_REFUSED = 2;

/** The node table, as every thread may use it. */
export class NodeTable {
  protected readonly words: Int32Array;
  protected readonly secret: number;
  readonly shards: number;
  /** The range of slots in `entryAt` and `expire`. */
  readonly slotsPerShard: number;
  /** The shard that was entered last. */
  protected entered = 0;
  readonly #ordered: OrderedWord;
  protected readonly heard: HeardTimes;
  protected readonly arrivals: ArrivalNotes;
  readonly #lockTriesMax: number;
  /** The slots, whose endpoints anybody may read by what `find` returned. */
  readonly slots: Slots;

  /**
   * @param holder this thread's number in the shard locks: MAIN_THREAD_LOCK or workerLock(i)
   * @param clock by which it is noted when nodes are heard
   */
  constructor(
    protected readonly memory: SharedMemory,
    protected readonly holder: number,
    clock: Clock = new MonotonicClock(),
  ) {
    this.words = memory.words;
    this.secret = memory.words[HASH_SECRET]!;
    this.shards = memory.shards;
    this.slotsPerShard = memory.slotsPerShard;
    this.#ordered = new OrderedWord(memory.words);
    this.heard = new HeardTimes(memory, holder, clock);
    this.arrivals = new ArrivalNotes(memory, holder);
    this.#lockTriesMax = LOCK_SPINS_MAX + (holder === MAIN_THREAD_LOCK ? 0 : LOCK_WAITS_MAX);
    this.slots = new Slots(memory.words);
  }

  /** @returns a node's slot, or -1. Use it at once: a removal may move the node. */
  find(nodeId: number): number {
    const words = this.words;
    const id = nodeId | 0;
    if (id === 0) return -1;
    const hash = nodeHash(id, this.secret);
    const shard = shardOfHash(hash, this.shards);
    const slot = this.#search(id, hash, shard, 0);
    return slot >= 0 && words[slot + SLOT_ID] === id
      ? slot
      : this.#findDespiteRemovals(id, hash, shard);
  }

  /** Finds a node that was not found at first look: is it absent, or did a removal hide it? */
  #findDespiteRemovals(id: number, hash: number, shard: number): number {
    const words = this.words;
    const removals = this.memory.shardWords(shard) + SHARD_REMOVALS;
    for (let attempt = 0; attempt < FINDS_MAX; attempt++) {
      const removalsBefore = this.#ordered.load(removals);
      const slot = this.#search(id, hash, shard, removalsBefore & 1);
      if (slot >= 0 && words[slot + SLOT_ID] === id) return slot;
      if ((removalsBefore & 1) === 0 && this.#ordered.load(removals) === removalsBefore) return -1;
    }
    return -1;
  }

  /**
   * Reads where the search for a node begins, so that the processor has it at hand when the node is
   * looked up: for several nodes, one after the other, it fetches them side by side.
   * @returns what nobody needs, for the compiler to leave the load in
   */
  touch(nodeId: number): number {
    return this.words[this.#home(nodeId)]!;
  }

  /** The same for a node that is to be recorded. */
  touchToRecord(nodeId: number): number {
    const home = this.#home(nodeId);
    return this.words[home]! ^ this.heard.touch(home);
  }

  /** The slot where the search for a node begins. */
  #home(nodeId: number): number {
    const hash = nodeHash(nodeId | 0, this.secret);
    const first = this.firstSlot(shardOfHash(hash, this.shards));
    return first + slotOfHash(hash, this.slotsPerShard) * SLOT_WORDS;
  }

  /** @returns as searchSlots */
  #search(id: number, hash: number, shard: number, gaps: number): number {
    const first = this.firstSlot(shard);
    const home = first + slotOfHash(hash, this.slotsPerShard) * SLOT_WORDS;
    const end = first + this.slotsPerShard * SLOT_WORDS;
    return searchSlots(this.words, first, end, SLOT_WORDS, home, id, gaps);
  }

  /**
   * Records that `nodeId` was heard from the endpoint at `endpoint[at]` at clock second `nowS`.
   * @param flags WANTS_DEST, IS_SELF or 0, or -1 to leave that as it is
   * @param holdS seconds after its last refresh in which a node stays at its endpoint; one that is
   * bridged, always. 0 for none
   * @returns REFRESHED, MOVED (endpoint or flags changed) or ADDED, or why not: HELD, NODE_LIMIT,
   * SHARD_FULL, CONTENDED
   * @throws RangeError for node id 0, which is nobody's
   */
  record(
    nodeId: number,
    endpoint: Int32Array,
    at: number,
    flags: number,
    nowS: number,
    holdS = 0,
  ): number {
    const id = nodeId | 0;
    if (id === 0) throw new RangeError("node id 0 cannot be recorded");
    const slot = this.enter(id);
    if (slot === NOT_ENTERED) return CONTENDED;
    const result = this.#recordLocked(id, slot, endpoint, at, flags, nowS, holdS);
    this.leave();
    return result;
  }

  #recordLocked(
    id: number,
    slot: number,
    endpoint: Int32Array,
    at: number,
    flags: number,
    nowS: number,
    holdS: number,
  ): number {
    const words = this.words;
    if (slot < 0) return SHARD_FULL;
    const isNew = words[slot + SLOT_ID] === 0;
    if (isNew && this.isFull()) return NODE_LIMIT;
    if (!isNew && this.#isHeldLocked(slot, endpoint, at, nowS, holdS)) return HELD;
    words[slot + SLOT_SEEN_S] = nowS;
    this.slots.limitMerge(slot, 0);
    if (this.heard.isNoted) this.heard.note(slot, nowS, isNew);
    if (!isNew) return this.#moveLocked(slot, endpoint, at, flags) ? MOVED : REFRESHED;
    this.addLocked(slot, id, endpoint, at, Math.max(flags, 0));
    return ADDED;
  }

  /** Whether the node is to stay at its endpoint, which is another one. */
  #isHeldLocked(
    slot: number,
    endpoint: Int32Array,
    at: number,
    nowS: number,
    holdS: number,
  ): boolean {
    if (holdS === 0) return false;
    if (this.#isAtLocked(slot, endpoint, at)) return false;
    const isBridged = (this.slots.flags(slot) & IS_BRIDGED) !== 0;
    return isBridged || nowS - this.words[slot + SLOT_SEEN_S]! < holdS;
  }

  /** Whether the slot is at `endpoint[at]`; without a local address it is at any. */
  #isAtLocked(slot: number, endpoint: Int32Array, at: number): boolean {
    const words = this.words;
    const copy = this.slots.endpointAt(slot);
    const compared =
      (words[copy]! & ENDPOINT_LOCAL_MASK) === 0 ? ENDPOINT_PORT_MASK : ~ENDPOINT_FLAGS_MASK;
    let differs = (words[copy]! ^ endpoint[at]!) & compared;
    for (let word = 1; word < ENDPOINT_WORDS; word++)
      differs |= words[copy + word]! ^ endpoint[at + word]!;
    return differs === 0;
  }

  protected isFull(): boolean {
    return this.size() >= this.memory.shape.nodesMax;
  }

  protected addLocked(
    slot: number,
    id: number,
    endpoint: Int32Array,
    at: number,
    flags: number,
  ): void {
    const shard = this.entered;
    this.slots.publish(slot, endpoint, at, flags);
    this.words[this.memory.groupWord(shard, (slot - this.firstSlot(shard)) / SLOT_WORDS)] = 1;
    Atomics.store(this.words, slot + SLOT_ID, id);
    Atomics.add(this.words, this.memory.shardWords(shard) + SHARD_NODES, 1);
    // under the lock: `breakLocks` is told of who dies before
    if (this.heard.isNoted) this.arrivals.note(id);
  }

  /** @returns whether anything changed */
  #moveLocked(slot: number, endpoint: Int32Array, at: number, flags: number): boolean {
    const words = this.words;
    const copy = this.slots.endpointAt(slot);
    const flagsBefore = words[copy]! & ENDPOINT_FLAGS_MASK;
    const newFlags = flags < 0 ? flagsBefore : flags | (flagsBefore & (IS_BRIDGED | HAS_KEY));
    let changed = words[copy]! ^ ((endpoint[at]! & ~ENDPOINT_FLAGS_MASK) | newFlags);
    for (let word = 1; word < ENDPOINT_WORDS; word++)
      changed |= words[copy + word]! ^ endpoint[at + word]!;
    if (changed === 0) return false;
    this.slots.publish(slot, endpoint, at, newFlags);
    return true;
  }

  /**
   * Keeps a node's public key, if it has none and is where the key came from, until the node is
   * removed. A key of zeros is none.
   * @param nodeId not 0
   * @param endpoint where the key came from, at `endpoint[0]`
   * @param key where its 32 bytes are, from `from` on
   * @returns KEY_KEPT if it is the node's now, or was before; KEY_IGNORED or KEY_REFUSED; or
   * CONTENDED
   */
  keepKey(nodeId: number, endpoint: Int32Array, key: DataView, from: number): number {
    if (this.memory.nodeKeys.length === 0)
      throw new Error("this thread was not given the memory of keys");
    const slot = this.enter(nodeId | 0);
    if (slot === NOT_ENTERED) return CONTENDED;
    const isThere = slot >= 0 && this.words[slot + SLOT_ID] === (nodeId | 0);
    const result = isThere ? this.#keepKeyLocked(slot, endpoint, key, from) : KEY_IGNORED;
    this.leave();
    return result;
  }

  #keepKeyLocked(slot: number, endpoint: Int32Array, key: DataView, from: number): number {
    const { nodeKeys } = this.memory;
    const at = this.memory.nodeKey(slot);
    const flags = this.slots.flags(slot);
    if ((flags & HAS_KEY) !== 0) {
      let differs = 0;
      for (let word = 0; word < NODE_KEY_WORDS; word++) {
        differs |= nodeKeys[at + word]! ^ key.getInt32(from + 4 * word, true);
      }
      return differs === 0 ? KEY_KEPT : KEY_REFUSED;
    }
    if (!this.#isAtLocked(slot, endpoint, 0)) return KEY_IGNORED;
    let any = 0;
    for (let word = 0; word < NODE_KEY_WORDS; word++) {
      nodeKeys[at + word] = key.getInt32(from + 4 * word, true);
      any |= nodeKeys[at + word]!;
    }
    if (any === 0) return KEY_IGNORED;
    // last: a writer that dies before leaves no half key
    this.slots.setFlags(slot, flags | HAS_KEY);
    return KEY_KEPT;
  }

  /** Nodes in the table. */
  size(): number {
    let nodes = 0;
    for (let shard = 0; shard < this.shards; shard++) {
      nodes += Atomics.load(this.words, this.memory.shardWords(shard) + SHARD_NODES);
    }
    return nodes;
  }

  /**
   * Locks the shard of a node and looks it up. Unless the result is NOT_ENTERED, `leave` must
   * follow.
   * @param id signed
   * @returns as searchSlots, or NOT_ENTERED
   */
  protected enter(id: number): number {
    const hash = nodeHash(id, this.secret);
    const shard = shardOfHash(hash, this.shards);
    if (!this.lock(shard)) return NOT_ENTERED;
    this.entered = shard;
    return this.#search(id, hash, shard, 0);
  }

  /** Unlocks the shard that was entered last. */
  protected leave(): void {
    this.unlock(this.entered);
  }

  protected firstSlot(shard: number): number {
    return this.memory.slotsAt + shard * this.slotsPerShard * SLOT_WORDS;
  }

  protected lock(shard: number): boolean {
    const lock = this.memory.shardWords(shard) + SHARD_LOCK;
    for (let attempt = 0; attempt < this.#lockTriesMax; attempt++) {
      const holder = Atomics.compareExchange(this.words, lock, 0, this.holder);
      if (holder === 0) return true;
      // Not Atomics.wait: nobody notifies, as releasing a lock costs no system call; and its
      // timeout goes by the host's clock (Bun 1.4.5), so that it would last for hours where that is
      // set back by hours meanwhile.
      if (attempt >= LOCK_SPINS_MAX) Bun.sleepSync(LOCK_WAIT_MS);
    }
    return false;
  }

  protected unlock(shard: number): void {
    Atomics.store(this.words, this.memory.shardWords(shard) + SHARD_LOCK, 0);
  }
}
