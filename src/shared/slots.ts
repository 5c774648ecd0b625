/**
 * Slots: one endpoint each, one cache line each, in shared memory. Nodes and peers are kept in
 * them.
 *
 *   word 0       whose slot it is, 0 while vacant
 *   word 1       version: +1 with every change of endpoint; its lowest bit names the copy in force
 *   word 2       clock second of the last refresh
 *   word 3       largest packet that the path to this endpoint lets us merge, 0 while no limit is known
 *   words 4-9    endpoint, copy 0, with flags in the free byte of its first word
 *   words 10-15  endpoint, copy 1
 *
 * A writer fills the copy that is not in force, and brings it in force with one store; a new slot
 * appears with one store, too. So a reader needs no lock and never waits: it reads the copy in
 * force and then asks whether it still is. Writers of one slot have to keep out of each other's
 * way.
 */
import { ENDPOINT_FLAGS_MASK, ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import { LOADS_IN_ORDER } from "./loads.ts";

export const SLOT_WORDS = 16;
export const SLOT_ID = 0;
const VERSION = 1;
export const SLOT_SEEN_S = 2;
const MERGE_LIMIT = 3;
const COPIES = 4;
if (COPIES + 2 * ENDPOINT_WORDS !== SLOT_WORDS)
  throw new Error("a slot holds two copies of an endpoint");

/** Flag: the node asked for RelayDeliverDest in place of RelayDeliver. */
export const WANTS_DEST = 1;
/** Flag: not a node but a peer beacon, which gets Relays as they are. */
export const IS_PEER = 2;
/** Flag: the node is on the WebSocket bridge and gets its packets there. */
export const IS_BRIDGED = 4;
/** Flag: the node's public key is known, and stands where the memory's `nodeKey` says. */
export const HAS_KEY = 8;
/** Flag: this beacon itself, for its self-check (src/control/mesh/self-check.ts). */
export const IS_SELF = 16;

/** Retries of a read during which a writer changed the entry twice. */
const READS_MAX = 16;

/** Slots, named by the index of their first word in the shared memory. */
export class Slots {
  constructor(private readonly words: Int32Array) {}

  /** Changes whenever the slot's endpoint or flags do. */
  version(slot: number): number {
    return this.words[slot + VERSION]!;
  }

  /** Largest packet to merge on the way to this endpoint; 0 while unknown. */
  mergeLimit(slot: number): number {
    return this.words[slot + MERGE_LIMIT]!;
  }

  /** Notes that packets above `bytes` cannot be merged to this endpoint; 0 for no limit. */
  limitMerge(slot: number, bytes: number): void {
    this.words[slot + MERGE_LIMIT] = bytes;
  }

  /**
   * Copies the slot's endpoint to `out[outAt]`, with the flags in its first word.
   * @param id whose slot it was a moment ago
   * @returns the version that was read, or -1 if the slot is no longer theirs or did not hold still
   */
  read(slot: number, id: number, out: Int32Array, outAt: number): number {
    const { words } = this;
    for (let attempt = 0; attempt < READS_MAX; attempt++) {
      const version = words[slot + VERSION]!;
      // Where the copy is depends on the version, so no processor reads the one before the other.
      const copy = slot + COPIES + (version & 1) * ENDPOINT_WORDS;
      out[outAt] = words[copy]!;
      out[outAt + 1] = words[copy + 1]!;
      out[outAt + 2] = words[copy + 2]!;
      out[outAt + 3] = words[copy + 3]!;
      out[outAt + 4] = words[copy + 4]!;
      out[outAt + 5] = words[copy + 5]!;
      // As in loads.ts: for all the compiler knows, `out` may be the slot.
      const versionNow = LOADS_IN_ORDER
        ? words[slot + VERSION]!
        : Atomics.load(words, slot + VERSION);
      if (versionNow === version) return words[slot + SLOT_ID] === (id | 0) ? version : -1;
    }
    return -1;
  }

  /** Index of the endpoint in force, for the slot's writer. */
  endpointAt(slot: number): number {
    return slot + COPIES + (this.words[slot + VERSION]! & 1) * ENDPOINT_WORDS;
  }

  /** The flags in force, for the slot's writer. */
  flags(slot: number): number {
    return this.words[this.endpointAt(slot)]! & ENDPOINT_FLAGS_MASK;
  }

  /** Puts other flags in force, with the same endpoint. Only for the slot's writer. */
  setFlags(slot: number, flags: number): void {
    this.publish(slot, this.words, this.endpointAt(slot), flags);
  }

  /** Puts the endpoint at `endpoint[at]` in force, with these flags. Only for the slot's writer. */
  publish(slot: number, endpoint: Int32Array, at: number, flags: number): void {
    const { words } = this;
    // never -1, which means "could not be read"
    const version = (words[slot + VERSION]! + 1) & 0x7fff_ffff;
    const copy = slot + COPIES + (version & 1) * ENDPOINT_WORDS;
    words[copy] = (endpoint[at]! & ~ENDPOINT_FLAGS_MASK) | flags;
    for (let word = 1; word < ENDPOINT_WORDS; word++) words[copy + word] = endpoint[at + word]!;
    Atomics.store(words, slot + VERSION, version);
  }
}
