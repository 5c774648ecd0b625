/**
 * Sending: hands the runs of a batch to the kernel in one call, and sees to what the kernel
 * refuses. A refusal costs the packets it is about and no others. Counters count what the kernel
 * took.
 */
import { UDP_PAYLOAD_MAX } from "../../ffi/abi.ts";
import {
  EACCES,
  EAGAIN,
  EHOSTUNREACH,
  EINTR,
  EINVAL,
  EIO,
  EMSGSIZE,
  ENETDOWN,
  ENETUNREACH,
  ENOBUFS,
  ENOMEM,
  EPERM,
} from "../../ffi/errno.ts";
import type { SendBatch } from "../../ffi/mmsg.ts";
import { FIRST_ID_AT, SECOND_ID_AT } from "../protocol.ts";
import {
  dropOffset,
  RELAY_DROPPED_AT,
  RELAYED_LOCAL,
  RELAYED_TO_PEER,
  REPLIES_SENT,
  REPLY_DROPPED_AT,
  SEGMENTS_SENT,
  SENT_BYTES,
} from "../shared/counters.ts";
import { DropLog } from "../shared/drops.ts";
import { OFFLOAD_ERRNO, type SharedMemory } from "../shared/memory.ts";
import { SLOT_ID, type Slots } from "../shared/slots.ts";
import { NO_SLOT, REPLY, type Runs, TO_NODE, TO_PEER } from "./runs.ts";

/** Tries of a send that a signal interrupts. */
const INTERRUPTS_MAX = 16;

const DROP_BUFFER_FULL = dropOffset("buffer_full");
const DROP_UNREACHABLE = dropOffset("unreachable");
const DROP_DENIED = dropOffset("denied");
const DROP_TOO_BIG = dropOffset("too_big");
const DROP_SEND_ERROR = dropOffset("send_error");

/** Which drop reason an errno of sendmmsg is counted under: an offset into DROP_REASONS. */
export function dropOffsetOfErrno(errno: number): number {
  switch (errno) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
      return DROP_BUFFER_FULL;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    // a blackhole route, or a source address that this host has lost meanwhile
    // (ip_route_output_key_hash)
    case EINVAL:
      return DROP_UNREACHABLE;
    case EPERM:
    case EACCES:
      return DROP_DENIED;
    case EMSGSIZE:
      return DROP_TOO_BIG;
    default:
      return DROP_SEND_ERROR;
  }
}

export class Sender {
  /** Whether packets may be merged; goes off for good when the host turns out not to support it. */
  merging: boolean;
  readonly #words: Int32Array;
  readonly #counters: Float64Array;
  readonly #drops: DropLog;
  readonly #packetView: DataView;
  readonly #waits: boolean;
  #mayWait: boolean;
  // What the kernel took of this batch. Counted once it is known: a counter never goes down.
  readonly #packets = new Int32Array(3); // by kind of run
  #bytes = 0;
  #segments = 0;

  /**
   * @param memory for its counters, its drops, and OFFLOAD_ERRNO
   * @param row this thread's first column in `counters`
   * @param options whether packets may be merged, and whether a full socket buffer may be waited
   * for
   */
  constructor(
    readonly batch: SendBatch,
    readonly runs: Runs,
    private readonly slots: Slots,
    memory: SharedMemory,
    private readonly row: number,
    options: { readonly offload: boolean; readonly mayWait: boolean },
  ) {
    if (runs.capacity !== batch.messages)
      throw new Error("a run is a message: the capacities must agree");
    this.#waits = this.#mayWait = options.mayWait;
    this.#words = memory.words;
    this.#counters = memory.counters;
    this.#drops = new DropLog(memory, row);
    this.#packetView = new DataView(batch.packets.buffer);
    this.merging = options.offload && memory.words[OFFLOAD_ERRNO] === 0;
  }

  /** Largest packet that may be merged with others to this slot's endpoint. */
  mergeBytesMax(slot: number): number {
    if (!this.merging) return 0;
    const limit = this.slots.mergeLimit(slot);
    return limit === 0 ? UDP_PAYLOAD_MAX : limit;
  }

  /** Sends all runs and forgets them. */
  flush(): void {
    const { batch, runs, row } = this;
    const counters = this.#counters;
    const end = runs.count;
    if (end === 0) return;
    const kinds = this.#packets.fill(0);
    let bytes = 0;
    let segments = 0;
    for (let run = 0; run < end; run++) {
      const packets = runs.packets[run]!;
      batch.finish(run, packets, runs.segmentBytes[run]!);
      kinds[runs.kind[run]!]! += packets;
      if (packets > 1) segments += packets;
      bytes += runs.bytes[run]!;
    }
    this.#bytes = bytes;
    this.#segments = segments;
    this.#mayWait = this.#waits;
    for (let first = 0; first < end; ) {
      const taken = this.#send(first, end);
      if (taken > 0) {
        first += taken;
      } else {
        this.#refused(first, -taken);
        first++;
      }
    }
    counters[row + RELAYED_LOCAL]! += kinds[TO_NODE]!;
    counters[row + RELAYED_TO_PEER]! += kinds[TO_PEER]!;
    counters[row + REPLIES_SENT]! += kinds[REPLY]!;
    counters[row + SENT_BYTES]! += this.#bytes;
    counters[row + SEGMENTS_SENT]! += this.#segments;
    runs.clear();
  }

  /** @returns as SendBatch.send, but never -EINTR while tries are left */
  #send(first: number, end: number): number {
    let taken = -EINTR;
    for (let attempt = 0; attempt < INTERRUPTS_MAX && taken === -EINTR; attempt++) {
      taken = this.batch.send(first, end, this.#mayWait);
    }
    // The socket's buffer stayed full for the whole send timeout: wait no second time in this
    // batch.
    if (taken === -EAGAIN) this.#mayWait = false;
    return taken;
  }

  /** Sends a refused run's packets one by one where that may help, else counts them. */
  #refused(run: number, errno: number): void {
    const { runs } = this;
    const packets = runs.packets[run]!;
    const mergeRefused = packets > 1 && (errno === EIO || errno === EINVAL || errno === EMSGSIZE);
    if (!mergeRefused) {
      this.#dropped(run, 0, packets, runs.bytes[run]!, errno);
      return;
    }
    this.#segments -= packets;
    if (errno === EIO) {
      // The device has no checksum offload. Every later merge would meet the same.
      this.merging = false;
      Atomics.compareExchange(this.#words, OFFLOAD_ERRNO, 0, errno);
    } else if (runs.slot[run] !== NO_SLOT) {
      // Larger than the path's MTU lets a segment be.
      this.slots.limitMerge(runs.slot[run]!, runs.segmentBytes[run]! - 1);
    }
    for (let piece = 0; piece < packets; piece++) {
      this.batch.narrow(run, piece);
      const taken = this.#send(run, run + 1);
      if (taken <= 0) this.#dropped(run, piece, 1, this.batch.pieceBytes(run, piece), -taken);
    }
  }

  /** @param piece the first of so many packets of the run */
  #dropped(run: number, piece: number, packets: number, bytes: number, errno: number): void {
    const kind = this.runs.kind[run]!;
    const reason = dropOffsetOfErrno(errno);
    this.#counters[this.row + (kind === REPLY ? REPLY_DROPPED_AT : RELAY_DROPPED_AT) + reason]! +=
      packets;
    if (kind !== REPLY) for (let i = 0; i < packets; i++) this.#note(run, piece + i, reason);
    this.#packets[kind]! -= packets;
    if (packets > 1) this.#segments -= packets;
    this.#bytes -= bytes;
  }

  /** Notes a drop: a peer's packet names its node; a node's is found by its slot. */
  #note(run: number, piece: number, reason: number): void {
    const at = this.batch.pieceAt(run, piece);
    const isForPeer = this.runs.kind[run] === TO_PEER;
    const nodeId = isForPeer
      ? this.#packetView.getInt32(at + SECOND_ID_AT)
      : this.#words[this.runs.slot[run]! + SLOT_ID]!;
    this.#drops.note(nodeId, this.#packetView.getInt32(at + FIRST_ID_AT), reason);
  }
}
