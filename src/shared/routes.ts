/**
 * The route table: node id → the peer beacon that announced it. The main thread alone writes, one route at a time and in place; every
 * worker reads, without a lock. An update of any size holds up nobody.
 *
 * Open addressing (open-addressing.ts), a slot of two words: node id, and a claim. What a claim says beside its peer is the writer's
 * own affair; it fits into CLAIM_BITS_MAX bits.
 */
import { nodeHash, slotOfHash } from "./hash.ts";
import { HASH_SECRET, PEERS_MAX, ROUTE_REMOVALS, ROUTE_WORDS, type SharedMemory } from "./memory.ts";
import { type Area, FINDS_MAX, removeSlot, searchSlots } from "./open-addressing.ts";

const CLAIM = 1;
const PEER_BITS = 8;
if (PEERS_MAX > 1 << PEER_BITS) throw new Error("a peer's number must fit into its bits of a claim");
/** Generations run from 1 on and wrap; 0 is none, so that no claim is 0. */
const GENERATIONS = 1 << (31 - PEER_BITS);

/** What `claim` found, if it was no other claim. */
export const NO_CLAIM = 0;
export const TABLE_FULL = -1;

/** A peer's claim to a node, as of one of its announcements. Positive. */
export const claimOf = (peer: number, generation: number): number => (generation << PEER_BITS) | peer;
export const peerOfClaim = (claim: number): number => claim & ((1 << PEER_BITS) - 1);
export const nextGeneration = (generation: number): number =>
  generation + 1 === GENERATIONS ? 1 : generation + 1;

export class RouteTable {
  readonly #words: Int32Array;
  readonly #secret: number;
  readonly #area: Area;
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
    this.#area = {
      words,
      first,
      end: first + routeSlots * ROUTE_WORDS,
      slotWords: ROUTE_WORDS,
      removals: memory.routesAt + ROUTE_REMOVALS,
      homeOf: (id) => first + slotOfHash(nodeHash(id, secret), routeSlots) * ROUTE_WORDS,
      copy: (slot, vacant) => {
        Atomics.store(words, vacant + CLAIM, words[slot + CLAIM]!);
        Atomics.store(words, vacant, words[slot]!);
      },
    };
  }

  /** @returns the number of the peer that has the node, or -1 */
  find(nodeId: number): number {
    if (nodeId === 0) return -1;
    const words = this.#words;
    const { removals } = this.#area;
    for (let attempt = 0; attempt < FINDS_MAX; attempt++) {
      const removalsBefore = Atomics.load(words, removals);
      const slot = this.#search(nodeId | 0);
      if (slot >= 0 && words[slot] === (nodeId | 0)) {
        const claim = Atomics.load(words, slot + CLAIM);
        // A removal may have let another route move into this slot between the two loads.
        if (Atomics.load(words, slot) === (nodeId | 0)) return peerOfClaim(claim);
      } else if ((removalsBefore & 1) === 0 && Atomics.load(words, removals) === removalsBefore) {
        return -1;
      }
    }
    return -1;
  }

  /**
   * Routes a node to the claim's peer, whoever had it before. Main thread only.
   * @param nodeId not 0
   * @returns the claim that this one replaces, NO_CLAIM, or TABLE_FULL if there is no room for another route
   */
  claim(nodeId: number, claim: number): number {
    const words = this.#words;
    const slot = this.#search(nodeId | 0);
    if (slot < 0) return TABLE_FULL;
    if (words[slot] !== 0) return Atomics.exchange(words, slot + CLAIM, claim);
    if (this.#routes >= this.#routesMax) return TABLE_FULL;
    this.#routes++;
    Atomics.store(words, slot + CLAIM, claim);
    Atomics.store(words, slot, nodeId | 0);
    return NO_CLAIM;
  }

  /** Removes a node's route if it is by this claim. Main thread only. @returns whether it was */
  withdraw(nodeId: number, claim: number): boolean {
    const words = this.#words;
    const slot = this.#search(nodeId | 0);
    if (slot < 0 || words[slot] === 0 || words[slot + CLAIM] !== claim) return false;
    removeSlot(this.#area, slot);
    this.#routes--;
    return true;
  }

  /** Routes in the table, for the thread that writes it. */
  get size(): number {
    return this.#routes;
  }

  #search(id: number): number {
    const { first, end } = this.#area;
    const home = first + slotOfHash(nodeHash(id, this.#secret), this.#slots) * ROUTE_WORDS;
    return searchSlots(this.#words, first, end, ROUTE_WORDS, home, id);
  }
}
