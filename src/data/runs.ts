/**
 * Merging: which packets of a batch leave as one message.
 *
 * The words of the batch path: a *datagram* arrives, or several merged into one message, then each
 * is a
 * *segment*; each is one beacon *packet*; packets that leave as one message are a *run*; what one
 * receive call brings is a *batch*.
 *
 * A run has one destination. Its packets have one size, but for the last, which may be shorter and
 * ends it (udp(7), UDP_SEGMENT). A packet joins the newest run of its destination or starts a newer
 * one, and runs leave in the order they were started, so what one destination gets keeps its order,
 * whatever lies between.
 */
import { SEGMENTS_MAX, UDP_PAYLOAD_MAX } from "../../ffi/abi.ts";

/** What a run carries, as its packets are counted. */
export const TO_NODE = 0;
export const TO_PEER = 1;
export const REPLY = 2;

/** Slot of a run that belongs to no node: a reply. */
export const NO_SLOT = -1;

/** Limit of runs of a batch: above 256 messages a call saves nothing. More go in parts. */
export const RUNS_MAX = 256;
if (RUNS_MAX > 256) throw new Error("a run's number must fit into a byte of the map");

/** Entries of the map from slot to newest run; a power of two. 1 KiB stays cached. */
const MAP_ENTRIES = 1024;
const MAP_SHIFT = 32 - Math.log2(MAP_ENTRIES);

/** The runs of one batch, in the order in which they leave. */
export class Runs {
  /** How many there are. */
  count = 0;
  // Columns, by run.
  readonly slot: Int32Array;
  readonly version: Int32Array;
  readonly flags: Int32Array;
  readonly kind: Uint8Array;
  readonly packets: Int32Array;
  readonly bytes: Int32Array;
  readonly segmentBytes: Int32Array;
  /** Largest packet that may join; 0 once the run is closed. */
  readonly joinBytesMax: Int32Array;

  // Slot → newest run, in either of two neighbouring entries, so that two slots that meet do not
  // push each other out at every packet. Nothing in it is ever cleared: an entry counts if the run
  // that it names is of this batch and goes to this slot.
  readonly #map = new Uint8Array(MAP_ENTRIES);

  /** @param capacity runs of a batch, 1 to RUNS_MAX */
  constructor(readonly capacity: number) {
    if (capacity < 1 || capacity > RUNS_MAX)
      throw new RangeError(`capacity must be 1..${RUNS_MAX}`);
    this.slot = new Int32Array(capacity);
    this.version = new Int32Array(capacity);
    this.flags = new Int32Array(capacity);
    this.kind = new Uint8Array(capacity);
    this.packets = new Int32Array(capacity);
    this.bytes = new Int32Array(capacity);
    this.segmentBytes = new Int32Array(capacity);
    this.joinBytesMax = new Int32Array(capacity);
  }

  /** Forgets all runs. */
  clear(): void {
    this.count = 0;
  }

  /** @returns the newest run to this slot while its entry had this version, or -1 */
  newest(slot: number, version: number): number {
    const run = this.#map[this.#entryOf(slot)]!;
    return this.#goesTo(run, slot) && this.version[run] === version ? run : -1;
  }

  #goesTo(run: number, slot: number): boolean {
    return run < this.count && this.slot[run] === slot;
  }

  #setNewest(slot: number, run: number): void {
    const entry = this.#entryOf(slot);
    this.#map[entry] = run;
    // The neighbour may name an older run to this slot; it would pass for the newest once this
    // entry is somebody else's.
    if (this.#goesTo(this.#map[entry ^ 1]!, slot)) this.#map[entry ^ 1] = run;
  }

  /** Returns the slot's entry, a vacant one, or one to replace. */
  #entryOf(slot: number): number {
    // Fibonacci hashing: all slots are multiples of 16
    const entry = Math.imul(slot, 0x9e37_79b1) >>> MAP_SHIFT;
    const run = this.#map[entry]!;
    if (this.#goesTo(run, slot)) return entry;
    const otherRun = this.#map[entry ^ 1]!;
    return this.#goesTo(otherRun, slot) || (run < this.count && otherRun >= this.count)
      ? entry ^ 1
      : entry;
  }

  /** Adds a packet of this size to a run. @returns its place, or -1 if it does not fit */
  join(run: number, packetBytes: number): number {
    const place = this.packets[run]!;
    if (packetBytes > this.joinBytesMax[run]! || packetBytes === 0) return -1;
    const bytes = this.bytes[run]! + packetBytes;
    if (bytes > UDP_PAYLOAD_MAX) return -1;
    this.packets[run] = place + 1;
    this.bytes[run] = bytes;
    if (packetBytes < this.segmentBytes[run]! || place + 1 === SEGMENTS_MAX)
      this.joinBytesMax[run] = 0;
    return place;
  }

  /** Packets of this size that a run can still take without being ended by them. */
  room(run: number, packetBytes: number): number {
    if (packetBytes !== this.segmentBytes[run]! || packetBytes > this.joinBytesMax[run]!) return 0;
    const segments = SEGMENTS_MAX - this.packets[run]!;
    return Math.min(segments, Math.floor((UDP_PAYLOAD_MAX - this.bytes[run]!) / packetBytes));
  }

  /** Adds packets to a run, at most `room`, behind its last one. */
  joinSeries(run: number, packets: number, packetBytes: number): void {
    this.packets[run]! += packets;
    this.bytes[run]! += packets * packetBytes;
    if (this.packets[run] === SEGMENTS_MAX) this.joinBytesMax[run] = 0;
  }

  /**
   * Starts a run with one packet. The caller has seen to it that `count` < `capacity`.
   * @param mergeBytesMax largest packet that may be merged with others to this destination, 0 for
   * none
   * @returns the run
   */
  start(
    kind: number,
    slot: number,
    version: number,
    flags: number,
    packetBytes: number,
    mergeBytesMax: number,
  ): number {
    if (mergeBytesMax > 0) this.#setNewest(slot, this.count);
    const run = this.count++;
    this.kind[run] = kind;
    this.slot[run] = slot;
    this.version[run] = version;
    this.flags[run] = flags;
    this.packets[run] = 1;
    this.bytes[run] = packetBytes;
    this.segmentBytes[run] = packetBytes;
    this.joinBytesMax[run] = packetBytes <= mergeBytesMax ? packetBytes : 0;
    return run;
  }
}
