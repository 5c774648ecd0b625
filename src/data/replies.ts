/**
 * Messages of the beacon's own that name an endpoint: a node's own address, and the two ends of a
 * punch to each other. Each is a run of its own, and leaves with the sender's next flush.
 */
import { ENDPOINT_WORDS, isIPv4 } from "../../ffi/endpoint.ts";
import type { FixedMemory } from "../../ffi/libc.ts";
import {
  ADDRESS_MESSAGE_BYTES_MAX,
  type DISCOVER_REPLY,
  PUNCH_COMMAND,
  writeAddressMessage,
} from "../protocol.ts";
import { PUNCHES_BRIDGED, PUNCHES_SENT, PUNCHES_TARGET_UNKNOWN } from "../shared/counters.ts";
import { DropLog, nodeDrop } from "../shared/drops.ts";
import { LAST_UNKNOWN_TARGET, type SharedMemory } from "../shared/memory.ts";
import type { NodeTable } from "../shared/nodes.ts";
import { IPV4_PAIR, IPV6_PAIR, MIXED_PAIR, PunchWatch } from "../shared/punch-watch.ts";
import { IS_BRIDGED } from "../shared/slots.ts";
import type { Admission } from "./admission.ts";
import { NO_SLOT, REPLY } from "./runs.ts";
import type { Sender } from "./sender.ts";

const TARGET_UNKNOWN = nodeDrop("target_unknown");

/** Packet memory for one reply, a reply a run. */
export const REPLY_BYTES = 32;
if (REPLY_BYTES < ADDRESS_MESSAGE_BYTES_MAX)
  throw new Error("REPLY_BYTES is too small for an IPv6 address");

export interface ReplyParts {
  readonly memory: SharedMemory;
  readonly nodes: NodeTable;
  /** The memory that the packets are in. */
  readonly packets: FixedMemory;
  /** Where in it there is room for REPLY_BYTES a run. */
  readonly repliesAt: number;
  readonly sender: Sender;
  /** First of this thread's words in shared memory, and first column of its counters. */
  readonly threadWords: number;
  readonly counterRow: number;
}

export class Replies {
  readonly punchWatch: PunchWatch;
  readonly #bytes: Uint8Array;
  readonly #drops: DropLog;
  /** The endpoint of the target that was found last. */
  readonly #target = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));

  /** @param makeRoom sends the runs so far, when there is no room for another one */
  constructor(
    private readonly parts: ReplyParts,
    private readonly admission: Admission,
    private readonly makeRoom: () => void,
  ) {
    this.punchWatch = new PunchWatch(parts.memory);
    this.#bytes = new Uint8Array(parts.packets.buffer);
    this.#drops = new DropLog(parts.memory, parts.counterRow);
  }

  /** Sends `to` a message with the endpoint `about`. @returns false if a limit forbids it */
  send(
    type: typeof DISCOVER_REPLY | typeof PUNCH_COMMAND,
    about: Int32Array,
    to: Int32Array,
  ): boolean {
    if (!this.admission.answer(to)) return false;
    const { runs, batch } = this.parts.sender;
    if (runs.count === runs.capacity) this.makeRoom();
    const replyAt = this.parts.repliesAt + runs.count * REPLY_BYTES;
    const replyBytes = writeAddressMessage(type, about, 0, this.#bytes, replyAt);
    const run = runs.start(REPLY, NO_SLOT, -1, 0, replyBytes, 0);
    batch.setDestination(run, to, 0);
    batch.setPiece(run, 0, replyAt, replyBytes);
    return true;
  }

  /**
   * Finds the target of a punch, for `introduce`.
   * @param requesterId signed, as the target's id
   * @returns false, counted, if it is unknown or has no endpoint to tell
   */
  findTarget(requesterId: number, targetId: number): boolean {
    const { nodes, memory, threadWords } = this.parts;
    const slot = nodes.find(targetId);
    if (slot < 0 || nodes.slots.read(slot, targetId, this.#target, 0) < 0) {
      this.#count(PUNCHES_TARGET_UNKNOWN);
      this.#drops.note(targetId, requesterId, TARGET_UNKNOWN);
      memory.words[threadWords + LAST_UNKNOWN_TARGET] = targetId;
      return false;
    }
    if ((this.#target[0]! & IS_BRIDGED) !== 0) {
      this.#count(PUNCHES_BRIDGED);
      return false;
    }
    return true;
  }

  /** Sends a requester and the target that was found each other's endpoint. */
  introduce(requester: Int32Array, requesterId: number, targetId: number): void {
    this.#count(PUNCHES_SENT);
    const target = this.#target;
    const requesterKnows = this.send(PUNCH_COMMAND, target, requester);
    const targetKnows = this.send(PUNCH_COMMAND, requester, target);
    if (!requesterKnows || !targetKnows) return;
    const isV4 = isIPv4(requester, 0);
    const isMixed = isV4 !== isIPv4(target, 0);
    const family = isMixed ? MIXED_PAIR : isV4 ? IPV4_PAIR : IPV6_PAIR;
    this.punchWatch.watch(requesterId, targetId, family);
  }

  #count(column: number): void {
    this.parts.memory.counters[this.parts.counterRow + column]!++;
  }
}
