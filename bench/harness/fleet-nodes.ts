/**
 * The nodes of a fleet, all at one socket: their Discovers and Relays go to whichever beacon is to
 * get them, and what comes back is known by the beacon that it comes from.
 */
import { AF_INET } from "../../ffi/abi.ts";
import { endpointOf } from "../../ffi/endpoint.ts";
import { kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch, SendBatch } from "../../ffi/mmsg.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import {
  DISCOVER,
  DISCOVER_BYTES,
  FIRST_ID_AT,
  RELAY,
  RELAY_BYTES,
  RELAY_DELIVER,
  RELAY_DELIVER_BYTES,
  SECOND_ID_AT,
} from "../../src/protocol.ts";
import { type FleetShape, firstNodeOf } from "./fleet.ts";
import { type Address, register } from "./register.ts";

const BUFFER_BYTES = 4 << 20;
const MESSAGES_MAX = 256;
const STRIDE_BYTES = 32;
const RECEIVED_MAX = 64;
const SENDER_ID = 0xfffe_0000;
const PORTS = 65_536;
/** Send calls of one flush that may fail: one that waits does so when a signal comes. */
const REFUSALS_MAX = 100;
/** A relay's payload: two words. */
const PAYLOAD_BYTES = 8;

/** @param beacon that it came from */
export type Visit = (beacon: number, word0: number, word1: number) => void;

export class FleetNodes {
  /** Discovers that were answered. */
  answers = 0;
  readonly #socket = UdpSocket.open(AF_INET);
  readonly #receive: ReceiveBatch;
  readonly #send: SendBatch;
  readonly #view: DataView;
  readonly #endpoints: Int32Array[] = [];
  readonly #beaconAt = new Int16Array(PORTS).fill(-1);
  #queued = 0;

  constructor(
    private readonly fleet: { readonly targets: readonly Address[]; readonly shape: FleetShape },
  ) {
    this.#socket.bind("127.0.0.1", 0);
    this.#socket.setBuffers(BUFFER_BYTES, BUFFER_BYTES);
    const { fd } = this.#socket;
    const memory = allocatePacketMemory(RECEIVED_MAX, MESSAGES_MAX * STRIDE_BYTES);
    this.#receive = new ReceiveBatch(kernel, fd, AF_INET, RECEIVED_MAX, memory, false);
    this.#send = new SendBatch(kernel, fd, AF_INET, MESSAGES_MAX, memory);
    this.#view = new DataView(memory.buffer);
    for (const [beacon, { host, port }] of fleet.targets.entries()) {
      this.#endpoints.push(endpointOf(host, port));
      this.#beaconAt[port] = beacon;
    }
  }

  /** Makes all nodes known, each beacon's to it. */
  registerAll(): void {
    const { targets, shape } = this.fleet;
    for (const [beacon, target] of targets.entries())
      this.register(target, firstNodeOf(shape, beacon), shape.nodesEach);
  }

  register(target: Address, firstId: number, count: number): void {
    register(this.#socket, target, firstId, count);
  }

  /** A node says to a beacon that it is there. Leaves with the next `flush`. */
  discover(beacon: number, nodeId: number): void {
    const at = this.#next(beacon, DISCOVER, DISCOVER_BYTES);
    this.#view.setUint32(at + FIRST_ID_AT, nodeId);
  }

  /** Somebody at a beacon sends this to a node, likewise. */
  relay(beacon: number, nodeId: number, word0: number, word1: number): void {
    const at = this.#next(beacon, RELAY, RELAY_BYTES + PAYLOAD_BYTES);
    this.#view.setUint32(at + FIRST_ID_AT, SENDER_ID);
    this.#view.setUint32(at + SECOND_ID_AT, nodeId);
    this.#view.setUint32(at + RELAY_BYTES, word0);
    this.#view.setUint32(at + RELAY_BYTES + 4, word1);
  }

  #next(beacon: number, type: number, bytes: number): number {
    if (this.#queued === MESSAGES_MAX) this.flush();
    const m = this.#queued++;
    const at = this.#receive.extraAt + m * STRIDE_BYTES;
    this.#send.setDestination(m, this.#endpoints[beacon]!, 0);
    this.#send.setPiece(m, 0, at, bytes);
    this.#send.finish(m, 1, 0);
    this.#view.setUint8(at, type);
    return at;
  }

  /** @throws Error if the kernel does not take them */
  flush(): void {
    for (let sent = 0, refusals = 0; sent < this.#queued; ) {
      const taken = this.#send.send(sent, this.#queued, true);
      if (taken < 0 && ++refusals === REFUSALS_MAX)
        throw new Error(`packets cannot be sent: ${taken}`);
      sent += Math.max(0, taken);
    }
    this.#queued = 0;
  }

  /** Takes all that has arrived, and visits the relays among it. */
  drain(visit: Visit = () => {}): void {
    const [receive, view] = [this.#receive, this.#view];
    for (let messages = RECEIVED_MAX; messages === RECEIVED_MAX; ) {
      messages = receive.receive(false);
      for (let m = 0; m < messages; m++) {
        const at = receive.packetAt(m);
        if (view.getUint8(at) !== RELAY_DELIVER) {
          this.answers++;
          continue;
        }
        const name = receive.names[receive.nameAt(m)]!;
        const port = ((name >>> 16) & 0xff) * 256 + (name >>> 24); // big endian in the upper half
        const payload = at + RELAY_DELIVER_BYTES;
        visit(this.#beaconAt[port]!, view.getUint32(payload), view.getUint32(payload + 4));
      }
    }
  }

  close(): void {
    this.#socket.close();
  }
}
