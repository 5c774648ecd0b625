/**
 * A node whose packets leave merged, and which can tell how they arrive: on the project's own
 * syscall layer.
 */
import { AF_INET, AF_INET6, SEGMENTS_MAX } from "../../../ffi/abi.ts";
import { ENDPOINT_WORDS, endpointOf, type Family, socketAddressOf } from "../../../ffi/endpoint.ts";
import { EAGAIN, errnoName } from "../../../ffi/errno.ts";
import { allocateFixed, type FixedMemory, kernel } from "../../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch, SendBatch } from "../../../ffi/mmsg.ts";
import { UdpSocket } from "../../../ffi/socket.ts";
import { until } from "./wait.ts";
import type { WireAddress } from "./wire.ts";

const BUFFER_BYTES = 4 << 20;
const RECEIVE_BATCH = 32;
const SEND_MESSAGES = 256;
const SEND_BYTES = 8 << 20;

export interface Arrival {
  readonly bytes: Uint8Array;
  readonly from: WireAddress;
  /** How many packets the message held that this one arrived in. */
  readonly together: number;
}

export class BurstSocket {
  readonly socket: UdpSocket;
  readonly address: WireAddress;
  readonly #family: Family;
  readonly #target: Int32Array;
  readonly #receiveMemory: FixedMemory;
  readonly #sendMemory: FixedMemory;
  readonly #receive: ReceiveBatch;
  readonly #send: SendBatch;
  readonly #arrived: Arrival[] = [];

  /** @param receiveMerged whether the kernel may hand over what arrives merged */
  constructor(host: string, beacon: WireAddress, receiveMerged = false) {
    this.#family = host.includes(":") ? AF_INET6 : AF_INET;
    this.socket = UdpSocket.open(this.#family);
    this.socket.setBuffers(BUFFER_BYTES, BUFFER_BYTES);
    if (receiveMerged && !this.socket.enableOffload())
      throw new Error("this kernel has no UDP_GRO");
    this.socket.bind(host, 0);
    const { address, port } = this.socket.localAddress();
    this.address = { address, port };
    this.#target = endpointOf(beacon.address, beacon.port);
    this.#receiveMemory = allocatePacketMemory(RECEIVE_BATCH, 0);
    this.#receive = new ReceiveBatch(
      kernel,
      this.socket.fd,
      this.#family,
      RECEIVE_BATCH,
      this.#receiveMemory,
      receiveMerged,
    );
    this.#sendMemory = allocateFixed(SEND_BYTES);
    this.#send = new SendBatch(
      kernel,
      this.socket.fd,
      this.#family,
      SEND_MESSAGES,
      this.#sendMemory,
    );
  }

  /**
   * Sends several messages in one call, each cut into its packets by the kernel: all of one size,
   * the last maybe shorter.
   */
  send(...messages: (readonly Uint8Array[])[]): void {
    const taken = this.trySend(...messages);
    if (taken !== messages.length) {
      const why = taken < 0 ? errnoName(-taken) : "stopped";
      throw new Error(`the kernel took ${taken} of ${messages.length} messages (${why})`);
    }
  }

  /** @returns how many messages the kernel took, or a negative errno */
  trySend(...messages: (readonly Uint8Array[])[]): number {
    if (messages.length > SEND_MESSAGES)
      throw new RangeError(`${messages.length} messages in one call`);
    const memory = new Uint8Array(this.#sendMemory.buffer);
    let at = 0;
    for (const [m, packets] of messages.entries()) {
      if (packets.length > SEGMENTS_MAX)
        throw new RangeError(`${packets.length} packets in one message`);
      this.#send.setDestination(m, this.#target, 0);
      for (const [i, packet] of packets.entries()) {
        memory.set(packet, at);
        this.#send.setPiece(m, i, at, packet.length);
        at += packet.length;
      }
      this.#send.finish(m, packets.length, packets[0]!.length);
    }
    return this.#send.send(0, messages.length, true);
  }

  /** Sends each packet as a message of its own, in one call. */
  sendEach(packets: readonly Uint8Array[]): void {
    this.send(...packets.map((packet) => [packet]));
  }

  /** Takes what has arrived. */
  take(): Arrival[] {
    this.#drain();
    return this.#arrived.splice(0);
  }

  /** Waits for so many packets and takes them. @throws Error if they do not come */
  async arrivals(count: number): Promise<Arrival[]> {
    let seen = 0;
    try {
      await until(`${count} packets arrive`, () => {
        this.#drain();
        seen = this.#arrived.length;
        return seen >= count;
      });
    } catch {
      throw new Error(`${seen} packets arrived, not ${count}`);
    }
    return this.#arrived.splice(0, count);
  }

  #drain(): void {
    for (;;) {
      const messages = this.#receive.receive(false);
      if (messages === -EAGAIN) return;
      if (messages < 0) throw new Error(`recvmmsg: ${errnoName(-messages)}`);
      const endpoint = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
      for (let m = 0; m < messages; m++) {
        this.#receive.readSource(m, endpoint);
        const { address, port } = socketAddressOf(endpoint, 0);
        const at = this.#receive.packetAt(m);
        const bytes = this.#receive.length(m);
        const segmentBytes = this.#receive.segmentBytes(m) || Math.max(bytes, 1);
        const together = Math.max(1, Math.ceil(bytes / segmentBytes));
        for (let offset = 0; offset < Math.max(bytes, 1); offset += segmentBytes) {
          const end = at + Math.min(offset + segmentBytes, bytes);
          const packet = new Uint8Array(this.#receiveMemory.buffer.slice(at + offset, end));
          this.#arrived.push({ bytes: packet, from: { address, port }, together });
        }
      }
    }
  }

  close(): void {
    this.socket.close();
  }
}
