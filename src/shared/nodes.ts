/**
 * The node table: node id → endpoint, in shared memory, read by every thread and written by every
 * thread.
 *
 * It is cut into shards, each with a lock and an area of slots (slots.ts) with open addressing
 * (open-addressing.ts). A writer holds the shard's lock; a reader needs none and never waits. A
 * writer that dies at any instruction leaves a whole table, and its lock. Only the main thread
 * removes nodes, whose death is the process's.
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
  hasNoPort,
} from "../../ffi/endpoint.ts";
import { ArrivalNotes } from "./arrivals.ts";
import { nodeHash, shardOfHash, slotOfHash } from "./hash.ts";
import { HeardTimes } from "./heard.ts";
import { OrderedWord } from "./loads.ts";
import {
  GROUP_SLOTS,
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  NODE_KEY_WORDS,
  SHARD_LOCK,
  SHARD_NODES,
  SHARD_REMOVALS,
  type SharedMemory,
} from "./memory.ts";
import { type Area, FINDS_MAX, removeSlot, searchSlots } from "./open-addressing.ts";
import {
  HAS_KEY,
  IS_BRIDGED,
  SLOT_ID,
  SLOT_SEEN_S,
  SLOT_WORDS,
  Slots,
  WANTS_DEST,
} from "./slots.ts";

/**
 * Tries of the lock without a pause: some 10 µs, far longer than a writer holds it while it runs.
 */
const LOCK_SPINS_MAX = 1000;
/**
 * Then the holder is off its core or dead. A worker waits, up to a second; the supervisor frees a
 * dead worker's lock sooner. The main thread never waits: the supervisor, which frees the lock,
 * runs there. Its callers retry after `LOCK_RETRY_MS`.
 */
const LOCK_WAIT_MS = 1;
const LOCK_WAITS_MAX = 1000;
/** Retry interval of the main thread for a locked shard: a few scheduler slices (4 ms each). */
export const LOCK_RETRY_MS = 10;

/**
 * What `record` or `bridge` did. HELD: the node stays where it is, as if nothing had come. From
 * NODE_LIMIT on, nothing was recorded; the order is that of REFUSAL_REASONS.
 */
export const REFRESHED = 0;
export const MOVED = 1;
export const ADDED = 2;
export const HELD = 3;
export const NODE_LIMIT = 4;
export const SHARD_FULL = 5;
export const CONTENDED = 6;

/**
 * What `keepKey` did: the key is the node's, the node is not there or not known to be, or it has
 * another key.
 */
export const KEY_KEPT = 0;
export const KEY_IGNORED = 1;
export const KEY_REFUSED = 2;

/** What `removeUnlessHeardSince` found: the node was heard since, and stays. */
export const HEARD_SINCE = 2;

/** One entry as tests and tools see it. */
export interface NodeEntry {
  readonly nodeId: number;
  readonly endpoint: Int32Array;
  readonly seenS: number;
  readonly wantsDest: boolean;
  /**
   * Connected through the bridge. Then the endpoint is the one heard by UDP, with port 0 if there
   * was none.
   */
  readonly isBridged: boolean;
}

/** The endpoint of a node that was never heard by UDP. */
const NO_ENDPOINT = new Int32Array(ENDPOINT_WORDS);

export class NodeTable {
  readonly #words: Int32Array;
  readonly #secret: number;
  readonly #shards: number;
  readonly #slotsPerShard: number;
  readonly #scratch = new Int32Array(ENDPOINT_WORDS);
  readonly #ordered: OrderedWord;
  readonly #heard: HeardTimes;
  readonly #arrivals: ArrivalNotes;
  readonly #lockTriesMax: number;
  /**
   * Told of each node, by its signed id, that this thread removed, whatever for; after the lock was
   * released, so it may be there again. Main thread only.
   */
  removed: ((nodeId: number) => void) | undefined;
  /** The slots, whose endpoints anybody may read by what `find` returned. */
  readonly slots: Slots;

  /**
   * @param holder this thread's number in the shard locks: MAIN_THREAD_LOCK or workerLock(i)
   * @param clock by which it is noted when nodes are heard
   */
  constructor(
    private readonly memory: SharedMemory,
    private readonly holder: number,
    clock: Clock = new MonotonicClock(),
  ) {
    this.#words = memory.words;
    this.#secret = memory.words[HASH_SECRET]!;
    this.#shards = memory.shards;
    this.#slotsPerShard = memory.slotsPerShard;
    this.#ordered = new OrderedWord(memory.words);
    this.#heard = new HeardTimes(memory, holder, clock);
    this.#arrivals = new ArrivalNotes(memory, holder);
    this.#lockTriesMax = LOCK_SPINS_MAX + (holder === MAIN_THREAD_LOCK ? 0 : LOCK_WAITS_MAX);
    this.slots = new Slots(memory.words);
  }

  /**
   * @returns the slot of a node, for the methods below, or -1. Use it at once: a removal may move
   * the node.
   */
  find(nodeId: number): number {
    const words = this.#words;
    const id = nodeId | 0;
    if (id === 0) return -1;
    const hash = nodeHash(id, this.#secret);
    const shard = shardOfHash(hash, this.#shards);
    const slot = this.#search(id, hash, shard, 0);
    return slot >= 0 && words[slot + SLOT_ID] === id
      ? slot
      : this.#findDespiteRemovals(id, hash, shard);
  }

  /** Finds a node that was not found at first look: is it absent, or did a removal hide it? */
  #findDespiteRemovals(id: number, hash: number, shard: number): number {
    const words = this.#words;
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
    return this.#words[this.#home(nodeId)]!;
  }

  /** The same for a node that is to be recorded. */
  touchToRecord(nodeId: number): number {
    const home = this.#home(nodeId);
    return this.#words[home]! ^ this.#heard.touch(home);
  }

  /** The slot where the search for a node begins. */
  #home(nodeId: number): number {
    const hash = nodeHash(nodeId | 0, this.#secret);
    const first = this.#firstSlot(shardOfHash(hash, this.#shards));
    return first + slotOfHash(hash, this.#slotsPerShard) * SLOT_WORDS;
  }

  /** @returns as searchSlots */
  #search(id: number, hash: number, shard: number, gaps: number): number {
    const first = this.#firstSlot(shard);
    const home = first + slotOfHash(hash, this.#slotsPerShard) * SLOT_WORDS;
    const end = first + this.#slotsPerShard * SLOT_WORDS;
    return searchSlots(this.#words, first, end, SLOT_WORDS, home, id, gaps);
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
    const hash = nodeHash(id, this.#secret);
    const shard = shardOfHash(hash, this.#shards);
    if (!this.#lock(shard)) return CONTENDED;
    const result = this.#recordLocked(id, hash, shard, endpoint, at, flags, nowS, holdS);
    this.#unlock(shard);
    return result;
  }

  #recordLocked(
    id: number,
    hash: number,
    shard: number,
    endpoint: Int32Array,
    at: number,
    flags: number,
    nowS: number,
    holdS: number,
  ): number {
    const words = this.#words;
    const slot = this.#search(id, hash, shard, 0);
    if (slot < 0) return SHARD_FULL;
    const isNew = words[slot + SLOT_ID] === 0;
    if (isNew && this.#isFull()) return NODE_LIMIT;
    if (!isNew && this.#isHeldLocked(slot, endpoint, at, nowS, holdS)) return HELD;
    words[slot + SLOT_SEEN_S] = nowS;
    this.slots.limitMerge(slot, 0);
    if (this.#heard.isNoted) this.#heard.note(slot, nowS, isNew);
    if (!isNew) return this.#moveLocked(slot, endpoint, at, flags) ? MOVED : REFRESHED;
    this.#addLocked(slot, id, shard, endpoint, at, Math.max(flags, 0));
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
    return isBridged || nowS - this.#words[slot + SLOT_SEEN_S]! < holdS;
  }

  /**
   * Whether the slot's endpoint is the one at `endpoint[at]`; a slot without a local address is at
   * any.
   */
  #isAtLocked(slot: number, endpoint: Int32Array, at: number): boolean {
    const words = this.#words;
    const copy = this.slots.endpointAt(slot);
    const compared =
      (words[copy]! & ENDPOINT_LOCAL_MASK) === 0 ? ENDPOINT_PORT_MASK : ~ENDPOINT_FLAGS_MASK;
    let differs = (words[copy]! ^ endpoint[at]!) & compared;
    for (let word = 1; word < ENDPOINT_WORDS; word++)
      differs |= words[copy + word]! ^ endpoint[at + word]!;
    return differs === 0;
  }

  #isFull(): boolean {
    return this.size() >= this.memory.shape.nodesMax;
  }

  #addLocked(
    slot: number,
    id: number,
    shard: number,
    endpoint: Int32Array,
    at: number,
    flags: number,
  ): void {
    this.slots.publish(slot, endpoint, at, flags);
    this.#words[this.memory.groupWord(shard, (slot - this.#firstSlot(shard)) / SLOT_WORDS)] = 1;
    Atomics.store(this.#words, slot + SLOT_ID, id);
    Atomics.add(this.#words, this.memory.shardWords(shard) + SHARD_NODES, 1);
    // under the lock: `breakLocks` is told of who dies before
    if (this.#heard.isNoted) this.#arrivals.note(id);
  }

  /** @returns whether anything changed */
  #moveLocked(slot: number, endpoint: Int32Array, at: number, flags: number): boolean {
    const words = this.#words;
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
    const id = nodeId | 0;
    const hash = nodeHash(id, this.#secret);
    const shard = shardOfHash(hash, this.#shards);
    if (!this.#lock(shard)) return CONTENDED;
    const slot = this.#search(id, hash, shard, 0);
    const isThere = slot >= 0 && this.#words[slot + SLOT_ID] === id;
    const result = isThere ? this.#keepKeyLocked(slot, endpoint, key, from) : KEY_IGNORED;
    this.#unlock(shard);
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

  /**
   * @returns a copy of the 32 bytes of a node's public key, or undefined if it has none. Main
   * thread only.
   */
  keyOf(nodeId: number): Uint8Array | undefined {
    const slot = this.find(nodeId);
    if (slot < 0 || this.slots.read(slot, nodeId, this.#scratch, 0) < 0) return undefined;
    if ((this.#scratch[0]! & HAS_KEY) === 0) return undefined;
    const at = this.memory.nodeKey(slot);
    return new Uint8Array(
      Int32Array.from(this.memory.nodeKeys.subarray(at, at + NODE_KEY_WORDS)).buffer,
    );
  }

  /**
   * From now on `nodeId` gets its packets through the bridge, whether it was known or not. It is
   * not removed before `unbridge`, and keeps the endpoint that it has, or gets by UDP meanwhile.
   * @returns as `record`
   * @throws RangeError for node id 0
   */
  bridge(nodeId: number, nowS: number): number {
    const id = nodeId | 0;
    if (id === 0) throw new RangeError("node id 0 cannot be bridged");
    const hash = nodeHash(id, this.#secret);
    const shard = shardOfHash(hash, this.#shards);
    if (!this.#lock(shard)) return CONTENDED;
    const result = this.#bridgeLocked(id, hash, shard, nowS);
    this.#unlock(shard);
    return result;
  }

  #bridgeLocked(id: number, hash: number, shard: number, nowS: number): number {
    const slot = this.#search(id, hash, shard, 0);
    if (slot < 0) return SHARD_FULL;
    const isNew = this.#words[slot + SLOT_ID] === 0;
    if (isNew && this.#isFull()) return NODE_LIMIT;
    if (this.#heard.isNoted) this.#heard.note(slot, nowS, isNew);
    if (isNew) {
      this.#words[slot + SLOT_SEEN_S] = nowS;
      this.slots.limitMerge(slot, 0);
      this.#addLocked(slot, id, shard, NO_ENDPOINT, 0, IS_BRIDGED);
      return ADDED;
    }
    const flags = this.slots.flags(slot);
    if ((flags & IS_BRIDGED) !== 0) return REFRESHED;
    this.slots.setFlags(slot, flags | IS_BRIDGED);
    return MOVED;
  }

  /**
   * The node left the bridge: it gets its packets at its endpoint again, or is removed if it has
   * none. Main thread only, as for every removal.
   * @returns false if the lock could not be had, and nothing changed
   */
  unbridge(nodeId: number): boolean {
    const id = nodeId | 0;
    const hash = nodeHash(id, this.#secret);
    const shard = shardOfHash(hash, this.#shards);
    if (!this.#lock(shard)) return false;
    const slot = this.#search(id, hash, shard, 0);
    const isThere = slot >= 0 && id !== 0 && this.#words[slot + SLOT_ID] === id;
    const isRemoved = isThere && this.#unbridgeLocked(slot, shard);
    this.#unlock(shard);
    if (isRemoved) this.removed?.(id);
    return true;
  }

  /** @returns whether the node was removed */
  #unbridgeLocked(slot: number, shard: number): boolean {
    const flags = this.slots.flags(slot);
    if ((flags & IS_BRIDGED) === 0) return false;
    if (hasNoPort(this.#words, this.slots.endpointAt(slot))) {
      this.#removeLocked(slot, shard);
      return true;
    }
    this.slots.setFlags(slot, flags & ~IS_BRIDGED);
    return false;
  }

  /**
   * Removes a node, bridged or not. Main thread only.
   * @returns how many were removed, 0 if it is not there, or -1 if the lock could not be had
   */
  remove(nodeId: number): number {
    return this.removeUnlessHeardSince(nodeId, Infinity);
  }

  /**
   * Removes a node, bridged or not, if it was not heard after `ms`, as `heardMs` tells it. Main
   * thread only.
   * @returns 1 if it was removed, 0 if it is not there, -1 if the lock could not be had, or
   * HEARD_SINCE
   */
  removeUnlessHeardSince(nodeId: number, ms: number): number {
    const id = nodeId | 0;
    if (id === 0) return 0;
    const hash = nodeHash(id, this.#secret);
    const shard = shardOfHash(hash, this.#shards);
    if (!this.#lock(shard)) return -1;
    const slot = this.#search(id, hash, shard, 0);
    const isThere = slot >= 0 && this.#words[slot + SLOT_ID] === id;
    const isRemoved = isThere && this.#heard.at(slot) <= ms;
    if (isRemoved) this.#removeLocked(slot, shard);
    this.#unlock(shard);
    if (isRemoved) this.removed?.(id);
    return isThere && !isRemoved ? HEARD_SINCE : Number(isRemoved);
  }

  #removeLocked(slot: number, shard: number): void {
    removeSlot(this.#area(shard), slot);
    Atomics.sub(this.#words, this.memory.shardWords(shard) + SHARD_NODES, 1);
  }

  /**
   * When a node was last heard, by Discover or by coming to the bridge: CLOCK_MONOTONIC in
   * milliseconds, a float. Main thread only, where nodes are removed: for any other, the node may
   * move meanwhile.
   * @returns 0 if that was not noted, as before ARRIVALS_NOTED was set, or if it was before the
   * host started; -1 if the node is not there
   */
  heardMs(nodeId: number): number {
    const slot = this.find(nodeId);
    // The id once more, by a load that those behind it wait for: a new node's time is written
    // before its id.
    if (slot < 0 || Atomics.load(this.#words, slot + SLOT_ID) !== (nodeId | 0)) return -1;
    return this.#heard.at(slot);
  }

  /** Nodes in the table. */
  size(): number {
    let nodes = 0;
    for (let shard = 0; shard < this.#shards; shard++) {
      nodes += Atomics.load(this.#words, this.memory.shardWords(shard) + SHARD_NODES);
    }
    return nodes;
  }

  /** Slots of one shard, the range of `expire`. */
  get slotsPerShard(): number {
    return this.#slotsPerShard;
  }

  get shards(): number {
    return this.#shards;
  }

  /** The shard that a node belongs to, whether it is there or not. */
  shardOf(nodeId: number): number {
    return shardOfHash(nodeHash(nodeId | 0, this.#secret), this.#shards);
  }

  /**
   * Removes the nodes among `count` slots of a shard, from slot `from` on, that were last refreshed
   * before clock second `beforeS`; not those that are bridged. The lock is held meanwhile: keep
   * `count` small.
   * @returns how many were removed, or -1 if the lock could not be had
   */
  expire(shard: number, from: number, count: number, beforeS: number): number {
    const words = this.#words;
    const end = Math.min(from + count, this.#slotsPerShard);
    const first = this.#firstSlot(shard);
    let index = this.#nextUsed(shard, from, end);
    if (index === end) return 0;
    const area = this.#area(shard);
    // removals move others up, so there may be more than `count`
    const gone: number[] | undefined = this.removed && [];
    if (!this.#lock(shard)) return -1;
    let removed = 0;
    while (index < end) {
      const slot = first + index * SLOT_WORDS;
      const isSilent = words[slot + SLOT_ID] !== 0 && words[slot + SLOT_SEEN_S]! < beforeS;
      if (isSilent && (this.slots.flags(slot) & IS_BRIDGED) === 0) {
        gone?.push(words[slot + SLOT_ID]!);
        removeSlot(area, slot); // and look at the slot again: another node may have moved into it
        removed++;
      } else {
        index = this.#nextUsed(shard, index + 1, end);
      }
    }
    if (removed > 0) Atomics.sub(words, this.memory.shardWords(shard) + SHARD_NODES, removed);
    this.#unlock(shard);
    if (gone) for (const nodeId of gone) this.removed?.(nodeId);
    return removed;
  }

  /**
   * The first of the slots `from` to `end` of a shard, or `end`, that may ever have held a node;
   * removals move nodes only to where others were. Slots that never did are passed over: they are
   * not even memory yet, and reading them would make the kernel find some.
   */
  #nextUsed(shard: number, from: number, end: number): number {
    let index = from;
    while (index < end && this.#words[this.memory.groupWord(shard, index)] === 0) {
      index += GROUP_SLOTS - (index % GROUP_SLOTS);
    }
    return Math.min(index, end);
  }

  /** A shard's slots, for removing nodes from them under its lock. */
  #area(shard: number): Area {
    const words = this.#words;
    const first = this.#firstSlot(shard);
    return {
      words,
      first,
      end: first + this.#slotsPerShard * SLOT_WORDS,
      slotWords: SLOT_WORDS,
      removals: this.memory.shardWords(shard) + SHARD_REMOVALS,
      homeOf: (id) =>
        first + slotOfHash(nodeHash(id, this.#secret), this.#slotsPerShard) * SLOT_WORDS,
      copy: (slot, vacant) => {
        if ((this.slots.flags(slot) & HAS_KEY) !== 0) {
          const key = this.memory.nodeKey(slot);
          this.memory.nodeKeys.copyWithin(this.memory.nodeKey(vacant), key, key + NODE_KEY_WORDS);
        }
        this.slots.publish(vacant, words, this.slots.endpointAt(slot), this.slots.flags(slot));
        words[vacant + SLOT_SEEN_S] = words[slot + SLOT_SEEN_S]!;
        this.slots.limitMerge(vacant, this.slots.mergeLimit(slot));
        this.#heard.move(slot, vacant);
        Atomics.store(words, vacant + SLOT_ID, words[slot + SLOT_ID]!);
      },
    };
  }

  /**
   * Frees the locks that a dead thread left behind, and counts its shard's nodes anew; one that was
   * just added may not be among the arrivals, so they count as lost. Main thread only.
   * @returns how many
   */
  breakLocks(deadHolder: number): number {
    const words = this.#words;
    let broken = 0;
    for (let shard = 0; shard < this.#shards; shard++) {
      const shardWords = this.memory.shardWords(shard);
      if (
        Atomics.compareExchange(words, shardWords + SHARD_LOCK, deadHolder, this.holder) !==
        deadHolder
      )
        continue;
      const first = this.#firstSlot(shard);
      let nodes = 0;
      for (let index = 0; index < this.#slotsPerShard; index++) {
        if (words[first + index * SLOT_WORDS + SLOT_ID] !== 0) nodes++;
      }
      Atomics.store(words, shardWords + SHARD_NODES, nodes);
      this.#unlock(shard);
      broken++;
    }
    if (broken > 0 && this.#heard.isNoted) this.#arrivals.lose();
    return broken;
  }

  /**
   * Copies what is in slot `index` of a shard to `out`: ENDPOINT_WORDS words of endpoint with the
   * node's flags in the free byte of the first, and behind them the clock second of its last
   * refresh. For whoever goes through the whole table beside the workers, without a lock. Removals
   * move nodes to lower slots, or from the first PROBES_MAX of a shard to its last.
   * @param sinceS a node that was last refreshed before this clock second is passed over
   * @returns the node's id, signed, or 0 if the slot is vacant, passed over, or its entry did not
   * hold still
   */
  entryAt(shard: number, index: number, out: Int32Array, sinceS = -Infinity): number {
    // never used, not even memory yet
    if (this.#words[this.memory.groupWord(shard, index)] === 0) return 0;
    const slot = this.#firstSlot(shard) + index * SLOT_WORDS;
    const nodeId = this.#words[slot + SLOT_ID]!;
    if (nodeId === 0 || this.#words[slot + SLOT_SEEN_S]! < sinceS) return 0;
    if (this.slots.read(slot, nodeId, out, 0) < 0) return 0;
    out[ENDPOINT_WORDS] = this.#words[slot + SLOT_SEEN_S]!;
    return nodeId;
  }

  /**
   * Every node, in no order, without holding any lock; for tools and tests, not for the packet
   * path.
   */
  *entries(): Generator<NodeEntry> {
    const words = this.#words;
    for (let shard = 0; shard < this.#shards; shard++) {
      const first = this.#firstSlot(shard);
      for (let index = 0; index < this.#slotsPerShard; index++) {
        const slot = first + index * SLOT_WORDS;
        const nodeId = words[slot + SLOT_ID]!;
        if (nodeId === 0) continue;
        const endpoint = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
        if (this.slots.read(slot, nodeId, endpoint, 0) < 0) continue;
        const wantsDest = (endpoint[0]! & WANTS_DEST) !== 0;
        const isBridged = (endpoint[0]! & IS_BRIDGED) !== 0;
        endpoint[0] = endpoint[0]! & ENDPOINT_PORT_MASK;
        yield {
          nodeId: nodeId >>> 0,
          endpoint,
          seenS: words[slot + SLOT_SEEN_S]!,
          wantsDest,
          isBridged,
        };
      }
    }
  }

  #firstSlot(shard: number): number {
    return this.memory.slotsAt + shard * this.#slotsPerShard * SLOT_WORDS;
  }

  #lock(shard: number): boolean {
    const lock = this.memory.shardWords(shard) + SHARD_LOCK;
    for (let attempt = 0; attempt < this.#lockTriesMax; attempt++) {
      const holder = Atomics.compareExchange(this.#words, lock, 0, this.holder);
      if (holder === 0) return true;
      // Not Atomics.wait: nobody notifies, as releasing a lock costs no system call; and its
      // timeout goes by the host's clock (Bun 1.4.5), so that it would last for hours where that is
      // set back by hours meanwhile.
      if (attempt >= LOCK_SPINS_MAX) Bun.sleepSync(LOCK_WAIT_MS);
    }
    return false;
  }

  #unlock(shard: number): void {
    Atomics.store(this.#words, this.memory.shardWords(shard) + SHARD_LOCK, 0);
  }
}
