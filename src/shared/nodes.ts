/**
 * The node table: node id → endpoint, in shared memory, read by every thread and written by every thread.
 *
 * Each shard is an open-addressed table with linear probing: a node is found with about one cache miss, as the slots of one
 * search lie side by side. A slot is one cache line:
 *
 *   word 0       node id, 0 while vacant
 *   word 1       version: +1 with every change of endpoint; its lowest bit names the copy in force
 *   word 2       clock second of the last refresh
 *   word 3       largest packet that the path to this endpoint lets us merge, 0 while no limit is known
 *   words 4-9    endpoint, copy 0, with the node's flags in the free half of its first word
 *   words 10-15  endpoint, copy 1
 *
 * A writer holds the shard's lock, fills the copy that is not in force, and brings it in force with one store; a new node
 * appears with one store, too. So a reader needs no lock and never waits: it reads the copy in force and then asks whether it
 * still is. And a writer that dies at any instruction leaves a whole table, and its lock.
 *
 * Removing a node closes the gap: nodes behind it that would no longer be found move up (Knuth, TAOCP 6.4, algorithm R). Only
 * the main thread removes, whose death is the process's. Tombstones in place of gaps were tried: after some turnovers of
 * a full table every vacant slot is one, and a search for an absent node walks hundreds.
 *
 * Node ids are taken signed or unsigned, and held signed, as Int32Array has them.
 */
import { ENDPOINT_PORT_MASK, ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import { nodeHash, shardOfHash, slotOfHash } from "./hash.ts";
import {
  HASH_SECRET,
  SHARD_LOCK,
  SHARD_NODES,
  SHARD_REMOVALS,
  type SharedMemory,
  SLOT_WORDS,
} from "./memory.ts";

const ID = 0;
const VERSION = 1;
const SEEN_S = 2;
const MERGE_LIMIT = 3;
const COPIES = 4;
/** Node flag: the node asked for RelayDeliverDest in place of RelayDeliver. */
export const WANTS_DEST = 1;

/**
 * The longest search. At half load a chain of 100 slots is already one in many millions; reaching this means a
 * shard so full that it must refuse.
 */
const PROBES_MAX = 512;
/** Searches for a node that is not found while a removal may have moved it. */
const FINDS_MAX = 4;
/** A reader tries again when a writer changed the entry twice within the few nanoseconds of the read. */
const READS_MAX = 16;
/** Tries of the lock without a pause: some 10 µs, far longer than a writer holds it while it runs. */
const LOCK_SPINS_MAX = 1000;
/** Then the holder is off its core or dead: wait, up to a second. The supervisor frees a dead one's lock sooner. */
const LOCK_WAIT_MS = 1;
const LOCK_WAITS_MAX = 1000;

/** What `record` did. From NODE_LIMIT on, nothing was recorded; the order is that of REFUSAL_REASONS. */
export const REFRESHED = 0;
export const MOVED = 1;
export const ADDED = 2;
export const NODE_LIMIT = 3;
export const SHARD_FULL = 4;
export const CONTENDED = 5;

/** One entry as tests and tools see it. */
export interface NodeEntry {
  readonly nodeId: number;
  readonly endpoint: Int32Array;
  readonly seenS: number;
  readonly wantsDest: boolean;
}

export class NodeTable {
  readonly #words: Int32Array;
  readonly #secret: number;
  readonly #shards: number;
  readonly #slotsPerShard: number;

  /** @param holder this thread's number in the shard locks: MAIN_THREAD_LOCK or workerLock(i) */
  constructor(
    private readonly memory: SharedMemory,
    private readonly holder: number,
  ) {
    this.#words = memory.words;
    this.#secret = memory.words[HASH_SECRET]!;
    this.#shards = memory.shards;
    this.#slotsPerShard = memory.slotsPerShard;
  }

  /** @returns the slot of a node, for the methods below, or -1. Use it at once: a removal may move the node. */
  find(nodeId: number): number {
    const words = this.#words;
    const id = nodeId | 0;
    if (id === 0) return -1;
    const hash = nodeHash(id, this.#secret);
    const shard = shardOfHash(hash, this.#shards);
    const removals = this.memory.shardWords(shard) + SHARD_REMOVALS;
    for (let attempt = 0; attempt < FINDS_MAX; attempt++) {
      const removalsBefore = Atomics.load(words, removals);
      const slot = this.#search(id, hash, shard);
      if (slot >= 0 && words[slot + ID] === id) return slot;
      if ((removalsBefore & 1) === 0 && Atomics.load(words, removals) === removalsBefore) return -1;
    }
    return -1;
  }

  /** @returns the slot that holds the node, or else the vacant one that ends the search for it, or -1 for neither */
  #search(id: number, hash: number, shard: number): number {
    const words = this.#words;
    const first = this.#firstSlot(shard);
    const end = first + this.#slotsPerShard * SLOT_WORDS;
    let slot = first + slotOfHash(hash, this.#slotsPerShard) * SLOT_WORDS;
    for (let probe = 0; probe < PROBES_MAX; probe++) {
      const found = words[slot + ID]!;
      if (found === id || found === 0) return slot;
      slot += SLOT_WORDS;
      if (slot === end) slot = first;
    }
    return -1;
  }

  /** Changes whenever the slot's endpoint or flags do. */
  version(slot: number): number {
    return Atomics.load(this.#words, slot + VERSION);
  }

  /** Largest packet that may be merged on the way to this slot's endpoint, 0 while no limit is known. */
  mergeLimit(slot: number): number {
    return this.#words[slot + MERGE_LIMIT]!;
  }

  /** Notes that packets over `bytes` cannot be merged on the way to this endpoint. A hint: gone at the next refresh. */
  limitMerge(slot: number, bytes: number): void {
    this.#words[slot + MERGE_LIMIT] = bytes;
  }

  /**
   * Copies the endpoint of `nodeId`, found at `slot`, to `out[outAt]`, with the node's flags in its first word.
   * @returns the version that was read, or -1 if the node is no longer there or its entry did not hold still
   */
  read(slot: number, nodeId: number, out: Int32Array, outAt: number): number {
    const words = this.#words;
    for (let attempt = 0; attempt < READS_MAX; attempt++) {
      const version = Atomics.load(words, slot + VERSION);
      const copy = slot + COPIES + (version & 1) * ENDPOINT_WORDS;
      // Atomic loads keep their order on arm64 too; plain ones could slip behind the check below.
      out[outAt] = Atomics.load(words, copy);
      out[outAt + 1] = Atomics.load(words, copy + 1);
      out[outAt + 2] = Atomics.load(words, copy + 2);
      out[outAt + 3] = Atomics.load(words, copy + 3);
      out[outAt + 4] = Atomics.load(words, copy + 4);
      out[outAt + 5] = Atomics.load(words, copy + 5);
      if (Atomics.load(words, slot + ID) !== (nodeId | 0)) return -1;
      if (Atomics.load(words, slot + VERSION) === version) return version;
    }
    return -1;
  }

  /**
   * Records that `nodeId` was heard from the endpoint at `endpoint[at]` at clock second `nowS`.
   * @param flags the node's flags, or -1 to leave them as they are
   * @returns REFRESHED, MOVED (endpoint or flags changed) or ADDED, or why not: NODE_LIMIT, SHARD_FULL, CONTENDED
   * @throws RangeError for node id 0, which is nobody's
   */
  record(nodeId: number, endpoint: Int32Array, at: number, flags: number, nowS: number): number {
    const id = nodeId | 0;
    if (id === 0) throw new RangeError("node id 0 cannot be recorded");
    const hash = nodeHash(id, this.#secret);
    const shard = shardOfHash(hash, this.#shards);
    if (!this.#lock(shard)) return CONTENDED;
    const result = this.#recordLocked(id, hash, shard, endpoint, at, flags, nowS);
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
  ): number {
    const words = this.#words;
    const slot = this.#search(id, hash, shard);
    if (slot < 0) return SHARD_FULL;
    const isNew = words[slot + ID] === 0;
    if (isNew && this.size() >= this.memory.shape.nodesMax) return NODE_LIMIT;
    words[slot + SEEN_S] = nowS;
    words[slot + MERGE_LIMIT] = 0;
    if (!isNew) return this.#moveLocked(slot, endpoint, at, flags) ? MOVED : REFRESHED;
    this.#publishLocked(slot, endpoint, at, Math.max(flags, 0));
    Atomics.store(words, slot + ID, id);
    Atomics.add(words, this.memory.shardWords(shard) + SHARD_NODES, 1);
    return ADDED;
  }

  /** @returns whether anything changed */
  #moveLocked(slot: number, endpoint: Int32Array, at: number, flags: number): boolean {
    const words = this.#words;
    const copy = slot + COPIES + (words[slot + VERSION]! & 1) * ENDPOINT_WORDS;
    const newFlags = flags < 0 ? words[copy]! & ~ENDPOINT_PORT_MASK : flags;
    let changed = words[copy]! ^ ((endpoint[at]! & ENDPOINT_PORT_MASK) | newFlags);
    for (let word = 1; word < ENDPOINT_WORDS; word++) changed |= words[copy + word]! ^ endpoint[at + word]!;
    if (changed === 0) return false;
    this.#publishLocked(slot, endpoint, at, newFlags);
    return true;
  }

  #publishLocked(slot: number, endpoint: Int32Array, at: number, flags: number): void {
    const words = this.#words;
    const version = (words[slot + VERSION]! + 1) & 0x7fff_ffff; // never -1, which means "could not be read"
    const copy = slot + COPIES + (version & 1) * ENDPOINT_WORDS;
    words[copy] = (endpoint[at]! & ENDPOINT_PORT_MASK) | flags;
    for (let word = 1; word < ENDPOINT_WORDS; word++) words[copy + word] = endpoint[at + word]!;
    Atomics.store(words, slot + VERSION, version);
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

  /**
   * Removes the nodes among `count` slots of a shard, from slot `from` on, that were last refreshed before clock
   * second `beforeS`. The lock is held meanwhile: keep `count` small.
   * @returns how many were removed, or -1 if the lock could not be had
   */
  expire(shard: number, from: number, count: number, beforeS: number): number {
    const words = this.#words;
    const end = Math.min(from + count, this.#slotsPerShard);
    const first = this.#firstSlot(shard);
    if (!this.#lock(shard)) return -1;
    let removed = 0;
    for (let index = from; index < end; ) {
      const slot = first + index * SLOT_WORDS;
      if (words[slot + ID] !== 0 && words[slot + SEEN_S]! < beforeS) {
        this.#removeLocked(shard, slot); // and look at the slot again: another node may have moved into it
        removed++;
      } else {
        index++;
      }
    }
    if (removed > 0) Atomics.sub(words, this.memory.shardWords(shard) + SHARD_NODES, removed);
    this.#unlock(shard);
    return removed;
  }

  #removeLocked(shard: number, removed: number): void {
    const words = this.#words;
    const first = this.#firstSlot(shard);
    const slots = this.#slotsPerShard;
    const end = first + slots * SLOT_WORDS;
    const removals = this.memory.shardWords(shard) + SHARD_REMOVALS;
    Atomics.add(words, removals, 1);
    let gap = removed;
    Atomics.store(words, gap + ID, 0);
    for (let slot = next(gap); words[slot + ID] !== 0 && slot !== removed; slot = next(slot)) {
      const hash = nodeHash(words[slot + ID]!, this.#secret);
      const home = first + slotOfHash(hash, slots) * SLOT_WORDS;
      if (distance(home, slot) < distance(gap, slot)) continue; // found without passing the gap
      this.#moveUpLocked(slot, gap);
      gap = slot;
    }
    Atomics.add(words, removals, 1);

    function next(slot: number): number {
      return slot + SLOT_WORDS === end ? first : slot + SLOT_WORDS;
    }
    /** How far a search walks from one slot to another. */
    function distance(from: number, to: number): number {
      return to >= from ? to - from : to - from + slots * SLOT_WORDS;
    }
  }

  /** Moves a node from its slot into a vacant one. For a moment it is in both, never in none. */
  #moveUpLocked(slot: number, vacant: number): void {
    const words = this.#words;
    const copy = slot + COPIES + (words[slot + VERSION]! & 1) * ENDPOINT_WORDS;
    this.#publishLocked(vacant, words, copy, words[copy]! & ~ENDPOINT_PORT_MASK);
    words[vacant + SEEN_S] = words[slot + SEEN_S]!;
    words[vacant + MERGE_LIMIT] = words[slot + MERGE_LIMIT]!;
    Atomics.store(words, vacant + ID, words[slot + ID]!);
    Atomics.store(words, slot + ID, 0);
  }

  /** Frees the locks that a dead thread left behind, and counts its shard's nodes anew. @returns how many */
  breakLocks(deadHolder: number): number {
    const words = this.#words;
    let broken = 0;
    for (let shard = 0; shard < this.#shards; shard++) {
      const shardWords = this.memory.shardWords(shard);
      if (Atomics.compareExchange(words, shardWords + SHARD_LOCK, deadHolder, this.holder) !== deadHolder)
        continue;
      const first = this.#firstSlot(shard);
      let nodes = 0;
      for (let index = 0; index < this.#slotsPerShard; index++) {
        if (words[first + index * SLOT_WORDS + ID] !== 0) nodes++;
      }
      Atomics.store(words, shardWords + SHARD_NODES, nodes);
      this.#unlock(shard);
      broken++;
    }
    return broken;
  }

  /** Every node, in no order, without holding any lock; for tools and tests, not for the packet path. */
  *entries(): Generator<NodeEntry> {
    const words = this.#words;
    for (let shard = 0; shard < this.#shards; shard++) {
      const first = this.#firstSlot(shard);
      for (let index = 0; index < this.#slotsPerShard; index++) {
        const slot = first + index * SLOT_WORDS;
        const nodeId = words[slot + ID]!;
        if (nodeId === 0) continue;
        const endpoint = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
        if (this.read(slot, nodeId, endpoint, 0) < 0) continue;
        const wantsDest = (endpoint[0]! & WANTS_DEST) !== 0;
        endpoint[0] = endpoint[0]! & ENDPOINT_PORT_MASK;
        yield { nodeId: nodeId >>> 0, endpoint, seenS: words[slot + SEEN_S]!, wantsDest };
      }
    }
  }

  #firstSlot(shard: number): number {
    return this.memory.slotsAt + shard * this.#slotsPerShard * SLOT_WORDS;
  }

  #lock(shard: number): boolean {
    const lock = this.memory.shardWords(shard) + SHARD_LOCK;
    for (let attempt = 0; attempt < LOCK_SPINS_MAX + LOCK_WAITS_MAX; attempt++) {
      const holder = Atomics.compareExchange(this.#words, lock, 0, this.holder);
      if (holder === 0) return true;
      // Nobody notifies: releasing a lock costs no system call, and this wait is the rare case.
      if (attempt >= LOCK_SPINS_MAX) Atomics.wait(this.#words, lock, holder, LOCK_WAIT_MS);
    }
    return false;
  }

  #unlock(shard: number): void {
    Atomics.store(this.#words, this.memory.shardWords(shard) + SHARD_LOCK, 0);
  }
}
