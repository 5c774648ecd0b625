/** Gossip out: this beacon's nodes, in one Sync message, signed if there is a key, to each peer. */

import { UDP_PAYLOAD_MAX } from "../../../ffi/abi.ts";
import { EAGAIN, EINTR } from "../../../ffi/errno.ts";
import { kernel } from "../../../ffi/libc.ts";
import { allocatePacketMemory, type LocalAddressList, SendBatch } from "../../../ffi/mmsg.ts";
import type { UdpSocket } from "../../../ffi/socket.ts";
import {
  FIRST_ID_AT,
  SYNC,
  SYNC_BYTES,
  SYNC_COUNT_AT,
  SYNC_TRAILER_BYTES,
} from "../../protocol.ts";
import { IS_BRIDGED } from "../../shared/slots.ts";
import { ENTRY_SEEN_S, type NodeVisitor } from "../nodes/scan.ts";
import { newInstance, nextInstance, sign } from "./gossip-signature.ts";

/** What fits into one datagram: 16,375, and 16,363 if it is signed. */
export const GOSSIP_NODES_MAX = Math.floor((UDP_PAYLOAD_MAX - SYNC_BYTES) / 4);
export const SIGNED_GOSSIP_NODES_MAX = Math.floor(
  (UDP_PAYLOAD_MAX - SYNC_BYTES - SYNC_TRAILER_BYTES) / 4,
);

/** So that a table that grows does not need a larger place each time. */
const ROOM_TO_GROW = 1.25;

/** A full send buffer drains within milliseconds: so often, and so long apart, it is tried. */
const TRIES_MAX = 20;
const RETRY_MS = 5;

/**
 * A clock that is set back by more begins another instance; less than that is over before the next
 * message.
 */
const STEP_BACK_MS = 1_000;

/** Goes through all nodes, as scanNodes does. */
export type Scan = (visit: NodeVisitor) => Promise<unknown>;

export class GossipSender {
  /** Signs messages from the next one on; undefined: they are not signed. */
  key: string | undefined;
  #instance = newInstance();
  readonly #send: SendBatch;
  readonly #bytes: Uint8Array;
  readonly #message: DataView;
  #nodes = 0;
  #messageBytes = 0;
  #signedMs = 0;
  /** Ids and ages of the nodes that a scan finds. */
  #found: readonly [Int32Array, Int32Array] = [new Int32Array(0), new Int32Array(0)];

  /**
   * @param socket one of the public port's, so that peers know the source
   * @param locals what the endpoints' numbers of local addresses mean
   * @param nowMs Unix milliseconds, on a clock that may be set
   */
  constructor(
    socket: UdpSocket,
    beaconId: number,
    locals?: LocalAddressList,
    private readonly nowMs: () => number = Date.now,
  ) {
    const memory = allocatePacketMemory(0, UDP_PAYLOAD_MAX);
    this.#send = new SendBatch(kernel, socket.fd, socket.family, 1, memory, locals);
    this.#bytes = new Uint8Array(memory.buffer);
    this.#message = new DataView(memory.buffer);
    this.#message.setUint8(0, SYNC);
    this.#message.setUint32(FIRST_ID_AT, beaconId);
    this.clear();
  }

  /**
   * The sender's instance, for peers that check signatures; another one after each step back of the
   * clock.
   */
  get instance(): bigint {
    return this.#instance;
  }

  /** Most nodes that a message has room for. */
  get nodesMax(): number {
    return this.key === undefined ? GOSSIP_NODES_MAX : SIGNED_GOSSIP_NODES_MAX;
  }

  /** The next message names no nodes, which withdraws all. */
  clear(): void {
    this.#nodes = 0;
    this.#seal();
  }

  /**
   * The next message names the nodes of the table, or, if they are too many for one, those seen
   * last.
   * @param size nodes in the table, about
   * @param nowS the clock
   * @param ttlS age, in seconds, at which a node counts as gone
   * @returns how many were left out
   */
  async collect(scan: Scan, size: number, nowS: number, ttlS: number): Promise<number> {
    const [nodeIds, ages] = this.#roomFor(size + GOSSIP_NODES_MAX);
    const byAge = new Uint32Array(ttlS); // how many there are of each age
    let found = 0;
    await scan((nodeId, entry) => {
      // and so here, whenever it was last heard by UDP
      const isBridged = (entry[0]! & IS_BRIDGED) !== 0;
      const ageS = isBridged ? 0 : Math.max(0, nowS - entry[ENTRY_SEEN_S]!);
      if (ageS >= ttlS) return;
      // the table grew by more than a message's worth meanwhile
      if (found === nodeIds.length) return;
      nodeIds[found] = nodeId;
      ages[found++] = ageS;
      byAge[ageS]!++;
    });
    // Ages that fit as a whole, and what room is left for nodes of the next one.
    let room = this.nodesMax;
    let agesWhole = 0;
    while (agesWhole < ttlS && byAge[agesWhole]! <= room) room -= byAge[agesWhole++]!;
    this.#nodes = 0;
    for (let i = 0; i < found; i++) {
      if (ages[i]! < agesWhole || (ages[i] === agesWhole && room-- > 0)) this.#add(nodeIds[i]!);
    }
    this.#seal();
    return found - this.#nodes;
  }

  /** Ends the message, once for all peers: to sign the largest takes 50 µs. */
  #seal(): void {
    this.#message.setUint16(SYNC_COUNT_AT, this.#nodes);
    this.#messageBytes = SYNC_BYTES + 4 * this.#nodes;
    if (this.key === undefined) return;
    const nowMs = this.nowMs();
    if (this.#signedMs - nowMs > STEP_BACK_MS) {
      this.#instance = nextInstance(this.#instance);
      this.#signedMs = 0;
    }
    // later than the one before in this instance
    this.#signedMs = Math.max(this.#signedMs + 1, nowMs);
    this.#messageBytes = sign(this.#bytes, this.key, {
      instance: this.#instance,
      timeMs: this.#signedMs,
    });
  }

  /** Kept from round to round: megabytes of garbage would have the collector run each time. */
  #roomFor(nodes: number): readonly [Int32Array, Int32Array] {
    if (this.#found[0].length < nodes) {
      const room = Math.ceil(nodes * ROOM_TO_GROW);
      this.#found = [new Int32Array(room), new Int32Array(room)];
    }
    return this.#found;
  }

  #add(nodeId: number): void {
    this.#message.setInt32(SYNC_BYTES + 4 * this.#nodes++, nodeId);
  }

  /**
   * Sends the message.
   * @returns 0, or the errno with which the kernel refused it
   */
  async send(endpoint: Int32Array): Promise<number> {
    for (let attempt = 1; ; attempt++) {
      this.#send.setDestination(0, endpoint, 0);
      this.#send.setPiece(0, 0, 0, this.#messageBytes);
      this.#send.finish(0, 1, 0);
      const taken = this.#send.send(0, 1, false);
      if (taken > 0) return 0;
      const mayPass = taken === -EAGAIN || taken === -EINTR;
      if (!mayPass || attempt === TRIES_MAX) return -taken;
      await Bun.sleep(RETRY_MS);
    }
  }
}
