/**
 * The route table: node id → the peer beacon that announced it last. The main thread alone writes
 * (routes-owner.ts), one route at a time and in place; every worker reads, without a lock. An
 * update of any size holds up nobody.
 *
 * Open addressing (open-addressing.ts), a slot of two words: node id, and the peer's number.
 */
import { nodeHash, slotOfHash } from "./hash.ts";
import { OrderedWord } from "./loads.ts";
import {
  HASH_SECRET,
  type MemoryShape,
  ROUTE_REMOVALS,
  ROUTE_WORDS,
  type SharedMemory,
} from "./memory.ts";
import { FINDS_MAX, searchSlots } from "./open-addressing.ts";

/** The word of a slot behind its node id. */
export const PEER = 1;

/** In place of a peer's number: no peer has the node. */
export const NO_PEER = -1;

/** What a table lies in. */
export type RouteMemory = Pick<
  SharedMemory,
  "words" | "routesAt" | "routeSlots" | "routeSlotsAt"
> & {
  readonly shape: Pick<MemoryShape, "routesMax">;
};

export class RouteTable {
  protected readonly words: Int32Array;
  protected readonly secret: number;
  /** The number of slots, the first one's word, and the word behind the last. */
  protected readonly slots: number;
  protected readonly first: number;
  protected readonly end: number;
  readonly #removals: number;
  readonly #ordered: OrderedWord;

  constructor(memory: RouteMemory) {
    this.words = memory.words;
    this.secret = memory.words[HASH_SECRET]!;
    this.slots = memory.routeSlots;
    this.first = memory.routeSlotsAt;
    this.end = this.first + this.slots * ROUTE_WORDS;
    this.#removals = memory.routesAt + ROUTE_REMOVALS;
    this.#ordered = new OrderedWord(memory.words);
  }

  /** @returns the number of the peer that has the node, or NO_PEER */
  find(nodeId: number): number {
    const id = nodeId | 0;
    if (id === 0) return NO_PEER;
    const slot = this.search(id, 0);
    const peer = slot < 0 ? NO_PEER : this.#peerAt(slot, id);
    return peer === NO_PEER ? this.#findDespiteRemovals(id) : peer;
  }

  /** Finds a node that was missed at first: is there no route, or did a removal hide it? */
  #findDespiteRemovals(id: number): number {
    const removals = this.#removals;
    for (let attempt = 0; attempt < FINDS_MAX; attempt++) {
      const removalsBefore = this.#ordered.load(removals);
      const slot = this.search(id, removalsBefore & 1);
      const peer = slot < 0 ? NO_PEER : this.#peerAt(slot, id);
      if (peer !== NO_PEER) return peer;
      // No route, unless a removal hid it meanwhile, or moved it away between the look at its id
      // and that at its peer.
      if ((removalsBefore & 1) === 0 && this.#ordered.load(removals) === removalsBefore)
        return NO_PEER;
    }
    return NO_PEER;
  }

  /** @returns the peer in the slot, or NO_PEER if it is not, or no longer, this node's */
  #peerAt(slot: number, id: number): number {
    const words = this.words;
    if (words[slot] !== id) return NO_PEER;
    // so that the loads of the id stay where they are, before and behind
    const peer = this.#ordered.load(slot + PEER);
    // A removal may have let another route move into this slot between the two.
    return words[slot] === id ? peer : NO_PEER;
  }

  /** @returns as searchSlots */
  protected search(id: number, gaps: number): number {
    return searchSlots(this.words, this.first, this.end, ROUTE_WORDS, this.home(id), id, gaps);
  }

  /** The slot where the search for a node begins. */
  protected home(id: number): number {
    return this.first + slotOfHash(nodeHash(id, this.secret), this.slots) * ROUTE_WORDS;
  }
}
