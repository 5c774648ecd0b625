/**
 * The loop of one worker: receive a batch, handle each packet, send what came of it, again. It runs
 * to completion: no queue, no timer, no copy, and no allocation once it is built.
 */

import { type Clock, CoarseClock } from "../../ffi/clock.ts";
import type { Family } from "../../ffi/endpoint.ts";
import { EAGAIN, EBADF, EFAULT, EINTR, EINVAL, ENOTSOCK, SyscallError } from "../../ffi/errno.ts";
import type { PacketCalls } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch, SendBatch } from "../../ffi/mmsg.ts";
import {
  BATCH_AT,
  BATCH_BUCKETS,
  BATCH_MESSAGES,
  malformedColumn,
  RECEIVE_ERRORS,
  RECEIVED_BYTES,
  SEGMENTS_RECEIVED,
} from "../shared/counters.ts";
import { LocalAddresses } from "../shared/local-addresses.ts";
import { Mailbox } from "../shared/mailbox.ts";
import {
  FRAMES,
  GOSSIP,
  GRANTS,
  HEARTBEAT,
  IS_PARKED,
  PARK,
  type SharedMemory,
  STOPPING,
  workerLock,
} from "../shared/memory.ts";
import { NodeTable } from "../shared/nodes.ts";
import { PacketHandler } from "./packets.ts";
import { REPLY_BYTES } from "./replies.ts";
import { RUNS_MAX, Runs } from "./runs.ts";
import { Sender } from "./sender.ts";

/** A parked worker looks so often whether it is to go on; a heartbeat each. */
const PARKED_MS = 1;

/** Limit of failed receive calls in a row before the worker gives up. */
const RECEIVE_ERRORS_MAX = 1000;

const MALFORMED_EMPTY = malformedColumn("empty");
const MALFORMED_TRUNCATED = malformedColumn("truncated");

/** What a loop is built for; all of it is decided before the first packet. */
export interface LoopOptions {
  readonly worker: number;
  readonly fd: number;
  readonly family: Family;
  readonly beaconId: number;
  /** Messages a receive call may bring. */
  readonly batchMax: number;
  /** Whether the socket has UDP_GRO on, and packets may leave merged. */
  readonly offload: boolean;
}

export class RelayLoop {
  readonly #receive: ReceiveBatch;
  readonly #offload: boolean;
  readonly #handler: PacketHandler;
  readonly #words: Int32Array;
  readonly #counters: Float64Array;
  readonly #row: number;
  readonly #heartbeat: number;
  readonly #isParked: number;
  #errorsInARow = 0;

  constructor(
    calls: PacketCalls,
    memory: SharedMemory,
    options: LoopOptions,
    clock: Clock = new CoarseClock(),
  ) {
    const { worker, fd, family, beaconId, batchMax, offload } = options;
    const packets = allocatePacketMemory(batchMax, RUNS_MAX * REPLY_BYTES);
    const nodes = new NodeTable(memory, workerLock(worker));
    this.#words = memory.words;
    this.#counters = memory.counters;
    this.#row = memory.counterRow(worker);
    this.#heartbeat = memory.workerWords(worker) + HEARTBEAT;
    this.#isParked = memory.workerWords(worker) + IS_PARKED;
    this.#offload = offload;
    this.#receive = new ReceiveBatch(calls, fd, family, batchMax, packets, true);
    const sender = new Sender(
      new SendBatch(calls, fd, family, RUNS_MAX, packets, new LocalAddresses(memory)),
      new Runs(RUNS_MAX),
      nodes.slots,
      memory,
      this.#row,
      { offload, mayWait: true },
    );
    this.#handler = new PacketHandler({
      beaconId,
      memory,
      nodes,
      packets,
      repliesAt: this.#receive.extraAt,
      source: this.#receive,
      sender,
      clock,
      gossip: new Mailbox(memory, GOSSIP, worker),
      frames: new Mailbox(memory, FRAMES, worker),
      grants: new Mailbox(memory, GRANTS, worker),
      threadWords: memory.workerWords(worker),
      counterRow: this.#row,
    });
  }

  /**
   * Runs until the main thread says stop, and receives nothing while it says to park, be that from
   * the start.
   * @throws SyscallError when receiving fails for good
   */
  run(): void {
    while (this.#mayReceive()) while (this.step());
  }

  /** Waits while it is to be parked. @returns false once the main thread said stop */
  #mayReceive(): boolean {
    const words = this.#words;
    for (;;) {
      const order = Atomics.load(words, STOPPING);
      if (order !== PARK) return order === 0;
      Atomics.store(words, this.#isParked, 1);
      Bun.sleepSync(PARKED_MS); // not Atomics.wait, whose time goes by the host's clock (Bun 1.4.5)
      words[this.#heartbeat]!++;
    }
  }

  /**
   * Waits for one batch, at most the socket's receive timeout, and handles it.
   * @returns false once the main thread said stop or park
   * @throws SyscallError when receiving fails for good
   */
  step(): boolean {
    const messages = this.#receive.receive(true);
    if (messages > 0) this.#batch(messages);
    else if (messages < 0) this.#receiveFailed(-messages);
    this.#words[this.#heartbeat]!++;
    return Atomics.load(this.#words, STOPPING) === 0;
  }

  #batch(messages: number): void {
    const receive = this.#receive;
    const handler = this.#handler;
    const counters = this.#counters;
    const row = this.#row;
    this.#errorsInARow = 0;
    let receivedBytes = 0;
    if (messages > 1) for (let m = 0; m < messages; m++) handler.touch(receive.packetAt(m));
    for (let m = 0; m < messages; m++) {
      const bytes = receive.length(m);
      const at = receive.packetAt(m);
      receivedBytes += bytes;
      const segmentBytes = this.#offload ? receive.segmentBytes(m) : 0;
      if (bytes === 0) {
        if (receive.hasSender(m)) counters[row + MALFORMED_EMPTY]!++;
      } else if (receive.truncated(m)) {
        counters[row + MALFORMED_TRUNCATED]!++;
      } else if (segmentBytes <= 0 || segmentBytes >= bytes) {
        handler.handle(at, bytes, m);
      } else {
        handler.handleSegments(at, bytes, segmentBytes, m);
        counters[row + SEGMENTS_RECEIVED]! += Math.ceil(bytes / segmentBytes);
      }
    }
    handler.flush();
    counters[row + RECEIVED_BYTES]! += receivedBytes;
    counters[row + BATCH_MESSAGES]! += messages;
    counters[row + BATCH_AT + bucketOf(messages)]!++;
  }

  #receiveFailed(errno: number): void {
    if (errno === EAGAIN || errno === EINTR) return;
    this.#counters[this.#row + RECEIVE_ERRORS]!++;
    const final = errno === EBADF || errno === ENOTSOCK || errno === EFAULT || errno === EINVAL;
    if (final || ++this.#errorsInARow > RECEIVE_ERRORS_MAX)
      throw new SyscallError("recvmmsg", errno);
  }
}

/** The bucket of BATCH_BUCKETS, powers of two, that a batch of so many messages falls into. */
function bucketOf(messages: number): number {
  return Math.min(32 - Math.clz32(messages - 1), BATCH_BUCKETS.length - 1);
}
