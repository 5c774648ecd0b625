/**
 * Packets that come as frames through the WebSocket bridge, on the main thread: they are handled as
 * those that come as datagrams, and leave from the beacon's public port. Frames are collected until
 * `flush`, so that a burst of them leaves merged.
 */
import { type Clock, CoarseClock } from "../../ffi/clock.ts";
import { ENDPOINT_WORDS, type Family } from "../../ffi/endpoint.ts";
import type { PacketCalls } from "../../ffi/libc.ts";
import { allocatePacketMemory, SendBatch } from "../../ffi/mmsg.ts";
import { malformedColumn, RECEIVED_BYTES } from "../shared/counters.ts";
import { LocalAddresses } from "../shared/local-addresses.ts";
import type { SharedMemory } from "../shared/memory.ts";
import type { NodeTable } from "../shared/nodes.ts";
import { type MessageTaker, PacketHandler } from "./packets.ts";
import { REPLY_BYTES } from "./replies.ts";
import { RUNS_MAX, Runs } from "./runs.ts";
import { Sender } from "./sender.ts";

/** The largest frame. */
export const FRAME_BYTES_MAX = 65_536;
/** Room for frames until they are sent: some hundreds of the usual size. */
const FRAMES_BYTES = 16 * FRAME_BYTES_MAX;

const MALFORMED_EMPTY = malformedColumn("empty");

/** Nodes behind the bridge, as frames are sent to them. */
export interface FrameTaker extends MessageTaker {
  /** Sends what was put in; the packets are not needed any more after that. */
  flush(): void;
}

export interface FrameOptions {
  /** One of the beacon's sockets. */
  readonly fd: number;
  readonly family: Family;
  readonly beaconId: number;
  readonly offload: boolean;
}

export class FrameHandler {
  readonly #handler: PacketHandler;
  readonly #bytes: Uint8Array;
  readonly #source = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
  #used = 0;

  /** @param nodes the main thread's */
  constructor(
    calls: PacketCalls,
    private readonly memory: SharedMemory,
    nodes: NodeTable,
    { fd, family, beaconId, offload }: FrameOptions,
    private readonly frames: FrameTaker,
    clock: Clock = new CoarseClock(),
  ) {
    const packets = allocatePacketMemory(0, FRAMES_BYTES + RUNS_MAX * REPLY_BYTES);
    this.#bytes = new Uint8Array(packets.buffer);
    const sender = new Sender(
      new SendBatch(calls, fd, family, RUNS_MAX, packets, new LocalAddresses(memory)),
      new Runs(RUNS_MAX),
      nodes.slots,
      memory,
      memory.bridgeRow,
      { offload, mayWait: false }, // the main thread has other things to do
    );
    this.#handler = new PacketHandler({
      beaconId,
      memory,
      nodes,
      packets,
      repliesAt: FRAMES_BYTES,
      source: {
        readSource: (_, endpoint) => endpoint.set(this.#source),
        readLocalAddress: () => false, // a frame's is its connection's
      },
      sender,
      clock,
      gossip: { put: () => false }, // no node behind the bridge is a peer
      frames,
      grants: { put: () => false }, // nor is one punched from there
      threadWords: memory.bridgeWords,
      counterRow: memory.bridgeRow,
    });
  }

  /**
   * Handles a frame. What comes of it is sent by `flush`, or before if there is no more room.
   * @param nodeId the node that has proven to be behind this connection, signed
   * @param source the endpoint that its connection comes from
   * @param frame at most FRAME_BYTES_MAX bytes; copied
   */
  handle(nodeId: number, source: Int32Array, frame: Uint8Array): void {
    if (frame.length === 0) {
      this.memory.counters[this.memory.bridgeRow + MALFORMED_EMPTY]!++;
      return;
    }
    this.memory.counters[this.memory.bridgeRow + RECEIVED_BYTES]! += frame.length;
    const room = roomFor(frame.length);
    if (this.#used + room > FRAMES_BYTES) this.flush();
    this.#bytes.set(frame, this.#used);
    this.#source.set(source);
    this.#handler.speaksFor(nodeId);
    this.#handler.handle(this.#used, frame.length, 0);
    this.#used += room;
  }

  /** Sends what has come of the frames so far. */
  flush(): void {
    this.#handler.flush();
    this.frames.flush();
    this.#used = 0;
  }
}

/** A frame may be replaced by a reply to it, and is read in whole words. */
function roomFor(bytes: number): number {
  return Math.max(REPLY_BYTES, Math.ceil(bytes / 4) * 4);
}
