/** The Sync message with this beacon's nodes: builds it, signs it if there is a key, sends it. */
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

/** Maximum number of nodes in one datagram: 16,375, and 16,363 if signed. */
export const GOSSIP_NODES_MAX = Math.floor((UDP_PAYLOAD_MAX - SYNC_BYTES) / 4);
export const SIGNED_GOSSIP_NODES_MAX = Math.floor(
  (UDP_PAYLOAD_MAX - SYNC_BYTES - SYNC_TRAILER_BYTES) / 4,
);

/** Spare room of the buffers, so that a growing table does not reallocate them in each round. */
const ROOM_TO_GROW = 1.25;

/** Attempts with a full send buffer, which drains within milliseconds, and their interval. */
const TRIES_MAX = 20;
const RETRY_MS = 5;

/** A clock that steps back by more starts another instance; less has passed by the next message. */
const STEP_BACK_MS = 1_000;

/** Visits all nodes, as scanNodes does. */
export type Scan = (visit: NodeVisitor) => Promise<unknown>;

export class GossipSender {
  /** Signs the next messages; undefined for none. */
  key: string | undefined;
  #instance = newInstance();
  readonly #send: SendBatch;
  readonly #bytes: Uint8Array;
  readonly #message: DataView;
  #nodes = 0;
  #messageBytes = 0;
  #signedMs = 0;
  /** Ids and ages of the nodes of a scan. */
  #found: readonly [Int32Array, Int32Array] = [new Int32Array(0), new Int32Array(0)];

  /**
   * @param socket of the public port, which peers know as the source
   * @param locals the local addresses that endpoints carry the numbers of
   * @param nowMs Unix milliseconds; the clock may step
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

  /** The instance in signatures; the clock's steps back change it. */
  get instance(): bigint {
    return this.#instance;
  }

  /** Maximum number of nodes in a message. */
  get nodesMax(): number {
    return this.key === undefined ? GOSSIP_NODES_MAX : SIGNED_GOSSIP_NODES_MAX;
  }

  /** Empties the message, which withdraws all nodes. */
  clear(): void {
    this.#nodes = 0;
    this.#seal();
  }

  /**
   * Fills the message with the nodes of the table; if they do not fit, with those last seen.
   * @param size approximate number of nodes in the table
   * @param nowS the clock
   * @param ttlS age in seconds at which a node is expired
   * @returns how many nodes did not fit
   */
  async collect(scan: Scan, size: number, nowS: number, ttlS: number): Promise<number> {
    const [nodeIds, ages] = this.#roomFor(size + GOSSIP_NODES_MAX);
    const byAge = new Uint32Array(ttlS); // number of nodes of each age
    let found = 0;
    await scan((nodeId, entry) => {
      // A connected node is present, whenever its last UDP packet arrived.
      const isBridged = (entry[0]! & IS_BRIDGED) !== 0;
      const ageS = isBridged ? 0 : Math.max(0, nowS - entry[ENTRY_SEEN_S]!);
      if (ageS >= ttlS) return;
      // The table grew by more than a message during the scan.
      if (found === nodeIds.length) return;
      nodeIds[found] = nodeId;
      ages[found++] = ageS;
      byAge[ageS]!++;
    });
    // The ages that fit completely, and the room that is left for nodes of the next age.
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

  /** Completes the message, once for all peers: signing the largest takes 50 µs. */
  #seal(): void {
    this.#message.setUint16(SYNC_COUNT_AT, this.#nodes);
    this.#messageBytes = SYNC_BYTES + 4 * this.#nodes;
    if (this.key === undefined) return;
    const nowMs = this.nowMs();
    if (this.#signedMs - nowMs > STEP_BACK_MS) {
      this.#instance = nextInstance(this.#instance);
      this.#signedMs = 0;
    }
    // Later than the previous message of this instance.
    this.#signedMs = Math.max(this.#signedMs + 1, nowMs);
    this.#messageBytes = sign(this.#bytes, this.key, {
      instance: this.#instance,
      timeMs: this.#signedMs,
    });
  }

  /** Keeps the buffers between rounds: megabytes of garbage would start the collector each time. */
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

  /** Sends the message. @returns 0, or the errno of the kernel */
  async send(endpoint: Int32Array): Promise<number> {
    for (let attempt = 1; ; attempt++) {
      this.#send.setDestination(0, endpoint, 0);
      this.#send.setPiece(0, 0, 0, this.#messageBytes);
      this.#send.finish(0, 1, 0);
      const taken = this.#send.send(0, 1, false);
      if (taken > 0) return 0;
      const isTemporary = taken === -EAGAIN || taken === -EINTR;
      if (!isTemporary || attempt === TRIES_MAX) return -taken;
      await Bun.sleep(RETRY_MS);
    }
  }
}
