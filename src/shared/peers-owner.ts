/** The peer table in the hands of the main thread, which alone writes. */
import { ENDPOINT_WORDS, localNumber } from "../../ffi/endpoint.ts";
import { LEARNED_PEERS_MAX, PEERS_MAX } from "./memory.ts";
import { PeerTable, peerKey } from "./peers.ts";
import { IS_PEER, SLOT_ID } from "./slots.ts";

const NO_ENDPOINT = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));

export class PeerTableOwner extends PeerTable {
  /** Adds a peer, which is not in the table. @returns its number, or -1 if there are PEERS_MAX */
  add(endpoint: Int32Array, at: number): number {
    return this.#addIn(0, PEERS_MAX, this.end, endpoint, at);
  }

  /** The same of a learned peer. @returns its number, or -1 if there are LEARNED_PEERS_MAX */
  addLearned(endpoint: Int32Array, at: number): number {
    return this.#addIn(PEERS_MAX, LEARNED_PEERS_MAX, this.learnedEnd, endpoint, at);
  }

  /** @param end the word that says how many of the places from `first` on are in use */
  #addIn(first: number, places: number, end: number, endpoint: Int32Array, at: number): number {
    const words = this.words;
    let peer = first;
    while (peer < first + places && words[this.slot(peer) + SLOT_ID] !== 0) peer++;
    if (peer === first + places) return -1;
    const slot = this.slot(peer);
    this.slots.limitMerge(slot, 0);
    this.setInstance(peer, 0, 0);
    this.slots.publish(slot, endpoint, at, IS_PEER);
    Atomics.store(words, slot + SLOT_ID, this.slotId(peer));
    Atomics.store(words, this.keysAt + peer, peerKey(endpoint, at));
    if (peer - first >= words[end]!) Atomics.store(words, end, peer - first + 1);
    return peer;
  }

  /** Sends to a peer from the local address that its endpoint at `endpoint[at]` names. */
  setLocal(peer: number, endpoint: Int32Array, at: number): void {
    const slot = this.slot(peer);
    if (localNumber(this.words, this.slots.endpointAt(slot)) !== localNumber(endpoint, at))
      this.slots.publish(slot, endpoint, at, IS_PEER);
  }

  /** Notes the instance of its signed gossip, upper and lower half; 0 for none. */
  setInstance(peer: number, upper: number, lower: number): void {
    this.words[this.instancesAt + 2 * peer] = upper;
    this.words[this.instancesAt + 2 * peer + 1] = lower;
  }

  /** Stops treating its endpoint as a peer's source; packets still go there. */
  disown(peer: number): void {
    Atomics.store(this.words, this.keysAt + peer, 0);
  }

  /** Removes a peer to which no route leads any more. */
  remove(peer: number): void {
    this.disown(peer);
    const slot = this.slot(peer);
    Atomics.store(this.words, slot + SLOT_ID, 0);
    // whoever remembers the endpoint by its version sees that it is gone
    this.slots.publish(slot, NO_ENDPOINT, 0, 0);
  }

  /** Notes nothing of merged sizes any more: paths change. */
  refresh(peer: number): void {
    this.slots.limitMerge(this.slot(peer), 0);
  }
}
