/**
 * The peer beacons: peer number → endpoint, and back. The main thread alone writes; every worker reads, without a lock.
 *
 * A peer has a slot (slots.ts) and a key, a word that two endpoints seldom share. Few peers make a mesh, and their keys lie side by
 * side: to find whose endpoint this is, all of them are looked through.
 */
import { ENDPOINT_PORT_MASK, ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import { PEERS_END, PEERS_MAX, type SharedMemory } from "./memory.ts";
import { IS_PEER, SLOT_ID, SLOT_WORDS, Slots } from "./slots.ts";

const NO_ENDPOINT = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));

export class PeerTable {
  readonly #words: Int32Array;
  readonly #keysAt: number;
  readonly #slotsAt: number;
  readonly #end: number;
  readonly #found = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
  readonly slots: Slots;

  constructor(memory: SharedMemory) {
    this.#words = memory.words;
    this.#keysAt = memory.peerKeysAt;
    this.#slotsAt = memory.peerSlotsAt;
    this.#end = memory.peersAt + PEERS_END;
    this.slots = new Slots(memory.words);
  }

  /** A peer's slot. */
  slot(peer: number): number {
    return this.#slotsAt + peer * SLOT_WORDS;
  }

  /** Whose slot it is, for Slots.read: never 0. */
  slotId(peer: number): number {
    return 1 + peer;
  }

  /** @returns the peer whose endpoint is at `endpoint[at]`, whatever its scope id, or -1 */
  find(endpoint: Int32Array, at: number): number {
    const words = this.#words;
    const end = words[this.#end]!;
    if (end === 0) return -1;
    const key = keyOf(endpoint, at);
    for (let peer = 0; peer < end; peer++) {
      if (words[this.#keysAt + peer] === key && this.#hasEndpoint(peer, endpoint, at)) return peer;
    }
    return -1;
  }

  #hasEndpoint(peer: number, endpoint: Int32Array, at: number): boolean {
    const found = this.#found;
    if (this.slots.read(this.slot(peer), this.slotId(peer), found, 0) < 0) return false;
    let differs = (found[0]! ^ endpoint[at]!) & ENDPOINT_PORT_MASK;
    for (let word = 1; word < ENDPOINT_WORDS - 1; word++) differs |= found[word]! ^ endpoint[at + word]!;
    return differs === 0;
  }

  /** Adds a peer, which is not in the table. Main thread only. @returns its number, or -1 if there are PEERS_MAX */
  add(endpoint: Int32Array, at: number): number {
    const words = this.#words;
    let peer = 0;
    while (peer < PEERS_MAX && words[this.slot(peer) + SLOT_ID] !== 0) peer++;
    if (peer === PEERS_MAX) return -1;
    const slot = this.slot(peer);
    this.slots.limitMerge(slot, 0);
    this.slots.publish(slot, endpoint, at, IS_PEER);
    Atomics.store(words, slot + SLOT_ID, this.slotId(peer));
    Atomics.store(words, this.#keysAt + peer, keyOf(endpoint, at));
    if (peer >= words[this.#end]!) Atomics.store(words, this.#end, peer + 1);
    return peer;
  }

  /** From now on, what comes from its endpoint comes from no peer. What goes there still may. Main thread only. */
  disown(peer: number): void {
    Atomics.store(this.#words, this.#keysAt + peer, 0);
  }

  /** Removes a peer to which no route leads any more. Main thread only. */
  remove(peer: number): void {
    this.disown(peer);
    const slot = this.slot(peer);
    Atomics.store(this.#words, slot + SLOT_ID, 0);
    this.slots.publish(slot, NO_ENDPOINT, 0, 0); // whoever remembers the endpoint by its version sees that it is gone
  }

  /** Notes nothing of merged sizes any more: paths change. Main thread only. */
  refresh(peer: number): void {
    this.slots.limitMerge(this.slot(peer), 0);
  }
}

/** Not 0, which is a vacant place. The port's half of the word is the upper one, an IPv4 address is all of the fourth. */
function keyOf(endpoint: Int32Array, at: number): number {
  const port = endpoint[at]! & ENDPOINT_PORT_MASK;
  return (port ^ endpoint[at + 1]! ^ endpoint[at + 2]! ^ endpoint[at + 3]! ^ endpoint[at + 4]!) | 1;
}
