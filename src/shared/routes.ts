/**
 * The route table: node id → the peer beacon that announced it last. The main thread alone writes, one route at a time and in place;
 * every worker reads, without a lock. An update of any size holds up nobody.
 *
 * Open addressing (open-addressing.ts), a slot of two words: node id, and the peer's number.
 */
import { nodeHash, slotOfHash } from "./hash.ts";
import { OrderedWord } from "./loads.ts";
import { HASH_SECRET, ROUTE_REMOVALS, ROUTE_WORDS, type SharedMemory } from "./memory.ts";
import { type Area, FINDS_MAX, removeSlot, searchSlots } from "./open-addressing.ts";

const PEER = 1;

/** In place of a peer's number: nobody has the node; there is no room for another route. */
export const NO_PEER = -1;
export const TABLE_FULL = -2;

export class RouteTable {
  readonly #words: Int32Array;
  readonly #secret: number;
  readonly #area: Area;
  readonly #ordered: OrderedWord;
  readonly #slots: number;
  readonly #routesMax: number;
  #routes = 0;

  constructor(memory: SharedMemory) {
    const { words, routeSlots, routeSlotsAt: first } = memory;
    const secret = memory.words[HASH_SECRET]!;
    this.#words = words;
    this.#secret = secret;
    this.#slots = routeSlots;
    this.#routesMax = memory.shape.routesMax;
    this.#ordered = new OrderedWord(words);
    this.#area = {
      words,
      first,
      end: first + routeSlots * ROUTE_WORDS,
      slotWords: ROUTE_WORDS,
      removals: memory.routesAt + ROUTE_REMOVALS,
      homeOf: (id) => first + slotOfHash(nodeHash(id, secret), routeSlots) * ROUTE_WORDS,
      copy: (slot, vacant) => {
        Atomics.store(words, vacant + PEER, words[slot + PEER]!);
        Atomics.store(words, vacant, words[slot]!);
      },
    };
  }

  /** @returns the number of the peer that has the node, or NO_PEER */
  find(nodeId: number): number {
    const id = nodeId | 0;
    if (id === 0) return NO_PEER;
    const slot = this.#search(id, 0);
    const peer = slot < 0 ? NO_PEER : this.#peerAt(slot, id);
    return peer === NO_PEER ? this.#findDespiteRemovals(id) : peer;
  }

  /** The same for a node that was not found at first look: has it no route, or did a removal hide it? */
  #findDespiteRemovals(id: number): number {
    const { removals } = this.#area;
    for (let attempt = 0; attempt < FINDS_MAX; attempt++) {
      const removalsBefore = this.#ordered.load(removals);
      const slot = this.#search(id, removalsBefore & 1);
      const peer = slot < 0 ? NO_PEER : this.#peerAt(slot, id);
      if (peer !== NO_PEER) return peer;
      // No route, unless a removal hid it meanwhile, or moved it away between the look at its id and that at its peer.
      if ((removalsBefore & 1) === 0 && this.#ordered.load(removals) === removalsBefore) return NO_PEER;
    }
    return NO_PEER;
  }

  /** @returns the peer in the slot, or NO_PEER if it is not, or no longer, this node's */
  #peerAt(slot: number, id: number): number {
    const words = this.#words;
    if (words[slot] !== id) return NO_PEER;
    const peer = this.#ordered.load(slot + PEER); // so that the loads of the id stay where they are, before and behind
    // A removal may have let another route move into this slot between the two.
    return words[slot] === id ? peer : NO_PEER;
  }

  /**
   * Routes a node to a peer, whoever had it before. Main thread only.
   * @param nodeId not 0
   * @returns the number of the peer that had it, NO_PEER, or TABLE_FULL if there is no room for another route
   */
  claim(nodeId: number, peer: number): number {
    const words = this.#words;
    const slot = this.#search(nodeId | 0, 0);
    if (slot < 0) return TABLE_FULL;
    if (words[slot] !== 0) return Atomics.exchange(words, slot + PEER, peer);
    if (this.#routes >= this.#routesMax) return TABLE_FULL;
    this.#routes++;
    Atomics.store(words, slot + PEER, peer);
    Atomics.store(words, slot, nodeId | 0);
    return NO_PEER;
  }

  /** Removes a node's route if it leads to this peer. Main thread only. @returns whether it did */
  withdraw(nodeId: number, peer: number): boolean {
    const words = this.#words;
    const slot = this.#search(nodeId | 0, 0);
    if (slot < 0 || words[slot] === 0 || words[slot + PEER] !== peer) return false;
    removeSlot(this.#area, slot);
    this.#routes--;
    return true;
  }

  /** Routes in the table, for the thread that writes it. */
  get size(): number {
    return this.#routes;
  }

  /** @returns as searchSlots */
  #search(id: number, gaps: number): number {
    const { first, end } = this.#area;
    const home = first + slotOfHash(nodeHash(id, this.#secret), this.#slots) * ROUTE_WORDS;
    return searchSlots(this.#words, first, end, ROUTE_WORDS, home, id, gaps);
  }
}
