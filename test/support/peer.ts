/** A UDP peer on the loopback interface, with blocking calls that are bounded by a timeout. */
import { AF_INET, AF_INET6 } from "../../ffi/abi.ts";
import {
  ENDPOINT_WORDS,
  endpointOf,
  type Family,
  type SocketAddress,
  socketAddressOf,
} from "../../ffi/endpoint.ts";
import { EAGAIN } from "../../ffi/errno.ts";
import { type FixedMemory, kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch, SendBatch } from "../../ffi/mmsg.ts";
import { UdpSocket } from "../../ffi/socket.ts";

/**
 * Limit of a blocking receive, which holds up the thread: a busy machine delays a datagram less.
 */
export const PATIENCE_MS = 30_000;

export const LOOPBACK: Record<Family, string> = { [AF_INET]: "127.0.0.1", [AF_INET6]: "::1" };

const BATCH = 8;
const SEND_BYTES = 70_000;

export interface Datagram {
  readonly bytes: Uint8Array;
  readonly from: SocketAddress;
}

export class Peer {
  readonly socket: UdpSocket;
  readonly port: number;
  /** This peer's endpoint words. */
  readonly endpoint: Int32Array;
  readonly #packets: FixedMemory;
  readonly #receive: ReceiveBatch;
  readonly #send: SendBatch;
  readonly #pending: Datagram[] = [];

  constructor(
    readonly family: Family = AF_INET,
    host: string = LOOPBACK[family],
    prepare: (socket: UdpSocket) => void = () => {},
  ) {
    this.socket = UdpSocket.open(family);
    this.socket.setTimeouts(PATIENCE_MS, PATIENCE_MS);
    prepare(this.socket);
    this.socket.bind(host, 0);
    this.port = this.socket.localAddress().port;
    this.endpoint = endpointOf(host, this.port);
    this.#packets = allocatePacketMemory(BATCH, SEND_BYTES);
    this.#receive = new ReceiveBatch(kernel, this.socket.fd, family, BATCH, this.#packets, false);
    this.#send = new SendBatch(kernel, this.socket.fd, family, 1, this.#packets);
  }

  /** Sends one datagram. */
  send(bytes: Uint8Array, to: Int32Array): void {
    new Uint8Array(this.#packets.buffer).set(bytes, this.#receive.extraAt);
    this.#send.setDestination(0, to, 0);
    this.#send.setPiece(0, 0, this.#receive.extraAt, bytes.length);
    this.#send.finish(0, 1, bytes.length);
    const taken = this.#send.send(0, 1, true);
    if (taken !== 1) throw new Error(`the kernel took ${taken} of 1 datagram`);
  }

  /** The next datagram; undefined when none came in time. */
  receive(): Datagram | undefined {
    if (this.#pending.length === 0) this.#receiveBatch();
    return this.#pending.shift();
  }

  #receiveBatch(): void {
    const count = this.#receive.receive(true);
    if (count < 0 && count !== -EAGAIN) throw new Error(`recvmmsg: errno ${-count}`);
    const endpoint = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
    for (let m = 0; m < count; m++) {
      this.#receive.readSource(m, endpoint);
      const at = this.#receive.packetAt(m);
      this.#pending.push({
        bytes: new Uint8Array(this.#packets.buffer.slice(at, at + this.#receive.length(m))),
        from: socketAddressOf(endpoint, 0),
      });
    }
  }

  close(): void {
    this.socket.close();
  }
}
