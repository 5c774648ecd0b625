/**
 * Punches whose grants were good, on the main thread: both ends are told of each other from the
 * beacon's public port, as a worker would have done at once if it had not had to ask for a grant.
 */
import { type Clock, CoarseClock } from "../../ffi/clock.ts";
import type { Family } from "../../ffi/endpoint.ts";
import type { PacketCalls } from "../../ffi/libc.ts";
import { allocatePacketMemory, SendBatch } from "../../ffi/mmsg.ts";
import { LocalAddresses } from "../shared/local-addresses.ts";
import type { SharedMemory } from "../shared/memory.ts";
import type { NodeTable } from "../shared/nodes.ts";
import { Admission } from "./admission.ts";
import { REPLY_BYTES, Replies } from "./replies.ts";
import { Runs } from "./runs.ts";
import { Sender } from "./sender.ts";

/** A punch: a command for each of the two ends. */
const RUNS = 2;

export interface IntroductionOptions {
  /** One of the beacon's sockets. */
  readonly fd: number;
  readonly family: Family;
}

export class Introductions {
  readonly #replies: Replies;
  readonly #sender: Sender;
  readonly #admission: Admission;

  /** @param nodes the main thread's */
  constructor(
    calls: PacketCalls,
    memory: SharedMemory,
    nodes: NodeTable,
    { fd, family }: IntroductionOptions,
    clock: Clock = new CoarseClock(),
  ) {
    const packets = allocatePacketMemory(0, RUNS * REPLY_BYTES);
    const { grantsRow: counterRow, bridgeWords: threadWords } = memory;
    const sender = new Sender(
      new SendBatch(calls, fd, family, RUNS, packets, new LocalAddresses(memory)),
      new Runs(RUNS),
      nodes.slots,
      memory,
      counterRow,
      { offload: false, mayWait: false }, // the main thread has other things to do
    );
    this.#sender = sender;
    this.#admission = new Admission(memory, counterRow, clock);
    const parts = { memory, nodes, packets, repliesAt: 0, sender, threadWords, counterRow };
    this.#replies = new Replies(parts, this.#admission, () => sender.flush());
  }

  /**
   * Sends PunchCommands to an endpoint and to a node, each about the other. Nothing is sent, which
   * is counted, if the node is not known any more, or is behind the WebSocket bridge by now.
   * @param requesterId of the node at that endpoint
   */
  introduce(requester: Int32Array, requesterId: number, targetId: number): void {
    if (!this.#replies.findTarget(requesterId | 0, targetId | 0)) return;
    this.#replies.introduce(requester, requesterId | 0, targetId | 0);
    this.#sender.flush();
    this.#admission.nextBatch();
  }
}
