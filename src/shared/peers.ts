/**
 * The peer beacons: peer number → endpoint, and back. The main thread alone writes
 * (peers-owner.ts); every worker reads, without a lock.
 *
 * A peer has a slot (slots.ts) and a key, a word that two endpoints seldom share. Few peers make a
 * mesh, and their keys lie side by side: to find whose endpoint this is, all of them are looked
 * through.
 *
 * Learned peers, strangers whose gossip is believed, have places of their own behind those of the
 * others, so that they never take one from them. An endpoint that is in both is the other's.
 */
import { ENDPOINT_PORT_MASK, ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import { LEARNED_END, PEERS_END, PEERS_MAX, type SharedMemory } from "./memory.ts";
import { SLOT_WORDS, Slots } from "./slots.ts";

/** Whether a peer is an unlisted beacon whose gossip is accepted. */
export const isLearned = (peer: number): boolean => peer >= PEERS_MAX;

export class PeerTable {
  protected readonly words: Int32Array;
  protected readonly keysAt: number;
  readonly #slotsAt: number;
  protected readonly instancesAt: number;
  protected readonly end: number;
  protected readonly learnedEnd: number;
  readonly #found = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
  readonly slots: Slots;

  constructor(memory: SharedMemory) {
    this.words = memory.words;
    this.keysAt = memory.peerKeysAt;
    this.#slotsAt = memory.peerSlotsAt;
    this.instancesAt = memory.peerInstancesAt;
    this.end = memory.peersAt + PEERS_END;
    this.learnedEnd = memory.peersAt + LEARNED_END;
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
    const words = this.words;
    const end = words[this.end]!;
    const learnedEnd = words[this.learnedEnd]!;
    if (end === 0 && learnedEnd === 0) return -1;
    const key = peerKey(endpoint, at);
    const peer = this.#findIn(0, end, key, endpoint, at);
    return peer >= 0 ? peer : this.#findIn(PEERS_MAX, PEERS_MAX + learnedEnd, key, endpoint, at);
  }

  #findIn(from: number, end: number, key: number, endpoint: Int32Array, at: number): number {
    for (let peer = from; peer < end; peer++) {
      if (this.words[this.keysAt + peer] === key && this.#hasEndpoint(peer, endpoint, at))
        return peer;
    }
    return -1;
  }

  #hasEndpoint(peer: number, endpoint: Int32Array, at: number): boolean {
    const found = this.#found;
    if (this.slots.read(this.slot(peer), this.slotId(peer), found, 0) < 0) return false;
    let differs = (found[0]! ^ endpoint[at]!) & ENDPOINT_PORT_MASK;
    for (let word = 1; word < ENDPOINT_WORDS - 1; word++)
      differs |= found[word]! ^ endpoint[at + word]!;
    return differs === 0;
  }

  /** Whether the 8 bytes at `at` are its instance, which only its receivers know. */
  hasInstance(peer: number, view: DataView, at: number): boolean {
    const words = this.words;
    const upper = words[this.instancesAt + 2 * peer]!;
    const lower = words[this.instancesAt + 2 * peer + 1]!;
    return (upper | lower) !== 0 && view.getInt32(at) === upper && view.getInt32(at + 4) === lower;
  }
}

/** Not 0, which is vacant. Mixes the port with the address words. */
export function peerKey(endpoint: Int32Array, at: number): number {
  const port = endpoint[at]! & ENDPOINT_PORT_MASK;
  return (port ^ endpoint[at + 1]! ^ endpoint[at + 2]! ^ endpoint[at + 3]! ^ endpoint[at + 4]!) | 1;
}
