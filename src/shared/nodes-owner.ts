/** The node table in the hands of the main thread, which alone removes nodes. */
import { ENDPOINT_PORT_MASK, ENDPOINT_WORDS, hasNoPort } from "../../ffi/endpoint.ts";
import { nodeHash, shardOfHash, slotOfHash } from "./hash.ts";
import { GROUP_SLOTS, NODE_KEY_WORDS, SHARD_LOCK, SHARD_NODES, SHARD_REMOVALS } from "./memory.ts";
import {
  ADDED,
  CONTENDED,
  MOVED,
  NODE_LIMIT,
  NOT_ENTERED,
  NodeTable,
  REFRESHED,
  SHARD_FULL,
} from "./nodes.ts";
import { type Area, removeSlot } from "./open-addressing.ts";
import { HAS_KEY, IS_BRIDGED, SLOT_ID, SLOT_SEEN_S, SLOT_WORDS, WANTS_DEST } from "./slots.ts";

/** What `removeUnlessHeardSince` found: the node was heard since, and stays. */
export const HEARD_SINCE = 2;

/** One entry as tests and tools see it. */
export interface NodeEntry {
  readonly nodeId: number;
  readonly endpoint: Int32Array;
  readonly seenS: number;
  readonly wantsDest: boolean;
  /** On the bridge: then the endpoint is the one seen by UDP, with port 0 if none. */
  readonly isBridged: boolean;
}

/** The endpoint of a node that was never heard by UDP. */
const NO_ENDPOINT = new Int32Array(ENDPOINT_WORDS);

export class NodeTableOwner extends NodeTable {
  readonly #scratch = new Int32Array(ENDPOINT_WORDS);
  /** Called with each removed node's signed id, after the lock: it may be back already. */
  removed: ((nodeId: number) => void) | undefined;

  /** @returns a copy of the 32 bytes of a node's public key, or undefined if it has none. */
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
    const slot = this.enter(id);
    if (slot === NOT_ENTERED) return CONTENDED;
    const result = this.#bridgeLocked(id, slot, nowS);
    this.leave();
    return result;
  }

  #bridgeLocked(id: number, slot: number, nowS: number): number {
    if (slot < 0) return SHARD_FULL;
    const isNew = this.words[slot + SLOT_ID] === 0;
    if (isNew && this.isFull()) return NODE_LIMIT;
    if (this.heard.isNoted) this.heard.note(slot, nowS, isNew);
    if (isNew) {
      this.words[slot + SLOT_SEEN_S] = nowS;
      this.slots.limitMerge(slot, 0);
      this.addLocked(slot, id, NO_ENDPOINT, 0, IS_BRIDGED);
      return ADDED;
    }
    const flags = this.slots.flags(slot);
    if ((flags & IS_BRIDGED) !== 0) return REFRESHED;
    this.slots.setFlags(slot, flags | IS_BRIDGED);
    return MOVED;
  }

  /**
   * The node left the bridge: it gets its packets at its endpoint again, or is removed if it has
   * none.
   * @returns false if the lock could not be had, and nothing changed
   */
  unbridge(nodeId: number): boolean {
    const id = nodeId | 0;
    const slot = this.enter(id);
    if (slot === NOT_ENTERED) return false;
    const isThere = slot >= 0 && id !== 0 && this.words[slot + SLOT_ID] === id;
    const isRemoved = isThere && this.#unbridgeLocked(slot);
    this.leave();
    if (isRemoved) this.removed?.(id);
    return true;
  }

  /** @returns whether the node was removed */
  #unbridgeLocked(slot: number): boolean {
    const flags = this.slots.flags(slot);
    if ((flags & IS_BRIDGED) === 0) return false;
    if (hasNoPort(this.words, this.slots.endpointAt(slot))) {
      this.#removeLocked(slot);
      return true;
    }
    this.slots.setFlags(slot, flags & ~IS_BRIDGED);
    return false;
  }

  /** Removes a node, bridged or not. @returns 1, 0 if it is absent, -1 if it is locked */
  remove(nodeId: number): number {
    return this.removeUnlessHeardSince(nodeId, Infinity);
  }

  /**
   * Removes a node, bridged or not, if it was not heard after `ms`, as `heardMs` tells it.
   * @returns 1 if it was removed, 0 if it is not there, -1 if the lock could not be had, or
   * HEARD_SINCE
   */
  removeUnlessHeardSince(nodeId: number, ms: number): number {
    const id = nodeId | 0;
    if (id === 0) return 0;
    const slot = this.enter(id);
    if (slot === NOT_ENTERED) return -1;
    const isThere = slot >= 0 && this.words[slot + SLOT_ID] === id;
    const isRemoved = isThere && this.heard.at(slot) <= ms;
    if (isRemoved) this.#removeLocked(slot);
    this.leave();
    if (isRemoved) this.removed?.(id);
    return isThere && !isRemoved ? HEARD_SINCE : Number(isRemoved);
  }

  #removeLocked(slot: number): void {
    const shard = this.entered;
    removeSlot(this.#area(shard), slot);
    Atomics.sub(this.words, this.memory.shardWords(shard) + SHARD_NODES, 1);
  }

  /**
   * When a node was last heard, by Discover or by coming to the bridge: CLOCK_MONOTONIC in
   * milliseconds, a float.
   * @returns 0 if that was not noted, as before ARRIVALS_NOTED was set, or if it was before the
   * host started; -1 if the node is not there
   */
  heardMs(nodeId: number): number {
    const slot = this.find(nodeId);
    // The id once more, by a load that those behind it wait for: a new node's time is written
    // before its id.
    if (slot < 0 || Atomics.load(this.words, slot + SLOT_ID) !== (nodeId | 0)) return -1;
    return this.heard.at(slot);
  }

  /** The shard that a node belongs to, whether it is there or not. */
  shardOf(nodeId: number): number {
    return shardOfHash(nodeHash(nodeId | 0, this.secret), this.shards);
  }

  /**
   * Removes the nodes among `count` slots of a shard, from slot `from` on, that were last refreshed
   * before clock second `beforeS`; not those that are bridged. The lock is held meanwhile: keep
   * `count` small.
   * @returns how many were removed, or -1 if the lock could not be had
   */
  expire(shard: number, from: number, count: number, beforeS: number): number {
    const words = this.words;
    const end = Math.min(from + count, this.slotsPerShard);
    const first = this.firstSlot(shard);
    let index = this.#nextUsed(shard, from, end);
    if (index === end) return 0;
    const area = this.#area(shard);
    // removals move others up, so there may be more than `count`
    const gone: number[] | undefined = this.removed && [];
    if (!this.lock(shard)) return -1;
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
    this.unlock(shard);
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
    while (index < end && this.words[this.memory.groupWord(shard, index)] === 0) {
      index += GROUP_SLOTS - (index % GROUP_SLOTS);
    }
    return Math.min(index, end);
  }

  /** A shard's slots, for removing nodes from them under its lock. */
  #area(shard: number): Area {
    const words = this.words;
    const first = this.firstSlot(shard);
    return {
      words,
      first,
      end: first + this.slotsPerShard * SLOT_WORDS,
      slotWords: SLOT_WORDS,
      removals: this.memory.shardWords(shard) + SHARD_REMOVALS,
      homeOf: (id) =>
        first + slotOfHash(nodeHash(id, this.secret), this.slotsPerShard) * SLOT_WORDS,
      copy: (slot, vacant) => {
        if ((this.slots.flags(slot) & HAS_KEY) !== 0) {
          const key = this.memory.nodeKey(slot);
          this.memory.nodeKeys.copyWithin(this.memory.nodeKey(vacant), key, key + NODE_KEY_WORDS);
        }
        this.slots.publish(vacant, words, this.slots.endpointAt(slot), this.slots.flags(slot));
        words[vacant + SLOT_SEEN_S] = words[slot + SLOT_SEEN_S]!;
        this.slots.limitMerge(vacant, this.slots.mergeLimit(slot));
        this.heard.move(slot, vacant);
        Atomics.store(words, vacant + SLOT_ID, words[slot + SLOT_ID]!);
      },
    };
  }

  /**
   * Frees the locks that a dead thread left behind, and counts its shard's nodes anew; one that was
   * just added may not be among the arrivals, so they count as lost.
   * @returns how many
   */
  breakLocks(deadHolder: number): number {
    const words = this.words;
    let broken = 0;
    for (let shard = 0; shard < this.shards; shard++) {
      const shardWords = this.memory.shardWords(shard);
      if (
        Atomics.compareExchange(words, shardWords + SHARD_LOCK, deadHolder, this.holder) !==
        deadHolder
      )
        continue;
      const first = this.firstSlot(shard);
      let nodes = 0;
      for (let index = 0; index < this.slotsPerShard; index++) {
        if (words[first + index * SLOT_WORDS + SLOT_ID] !== 0) nodes++;
      }
      Atomics.store(words, shardWords + SHARD_NODES, nodes);
      this.unlock(shard);
      broken++;
    }
    if (broken > 0 && this.heard.isNoted) this.arrivals.lose();
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
    if (this.words[this.memory.groupWord(shard, index)] === 0) return 0;
    const slot = this.firstSlot(shard) + index * SLOT_WORDS;
    const nodeId = this.words[slot + SLOT_ID]!;
    if (nodeId === 0 || this.words[slot + SLOT_SEEN_S]! < sinceS) return 0;
    if (this.slots.read(slot, nodeId, out, 0) < 0) return 0;
    out[ENDPOINT_WORDS] = this.words[slot + SLOT_SEEN_S]!;
    return nodeId;
  }

  /** Yields every node, in no order, without locks; for tools and tests. */
  *entries(): Generator<NodeEntry> {
    const words = this.words;
    for (let shard = 0; shard < this.shards; shard++) {
      const first = this.firstSlot(shard);
      for (let index = 0; index < this.slotsPerShard; index++) {
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
}
