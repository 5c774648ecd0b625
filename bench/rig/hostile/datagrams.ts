/**
 * Packets of an attacker, many a system call: from a socket of its own, or from whatever IPv4
 * sources it names, over a raw socket (raw(7)) with headers made here.
 */
import { AF_INET, AF_INET6, SOCK_CLOEXEC } from "../../../ffi/abi.ts";
import { endpointOf, type Family } from "../../../ffi/endpoint.ts";
import { SyscallError } from "../../../ffi/errno.ts";
import { errno, kernel, libc } from "../../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch, SendBatch } from "../../../ffi/mmsg.ts";
import { UdpSocket } from "../../../ffi/socket.ts";
import type { WireAddress } from "../../../test/e2e/support/wire.ts";

/**
 * <bits/socket_type.h>, <netinet/in.h>. The kernel sends what comes with IPPROTO_RAW with the IP
 * header that it brings.
 */
const SOCK_RAW = 3;
const IPPROTO_RAW = 255;
const IPPROTO_UDP = 17;
const IPV4_BYTES = 20;
const IPV6_BYTES = 40;
const UDP_BYTES = 8;
/** What comes before a message on the wire. */
export const headersBytes = (family: Family): number =>
  (family === AF_INET ? IPV4_BYTES : IPV6_BYTES) + UDP_BYTES;
const HEADERS_BYTES = headersBytes(AF_INET);
const VERSION_AND_LENGTH = 0x45;
const TTL = 64;

/** Messages a call. */
const MESSAGES_MAX = 64;
/** Messages that are taken a call, and calls in a row. */
const HEARD_MAX = 8;
const HEARING_CALLS_MAX = 512;
const BUFFER_BYTES = 1 << 20;

/** Writes the n-th message at `at`. @returns its bytes */
export type Write = (view: DataView, at: number, n: number) => number;

/** Where the n-th packet seems to come from; an IPv4 address as a number. */
export type Source = (n: number) => { readonly address: number; readonly port: number };

export const numberOf = (address: string): number =>
  address.split(".").reduce((number, byte) => number * 256 + Number(byte), 0);

/** So many addresses of 10.0.0.0/8 in turn, which nobody here has, each with a port of its own. */
export function fromEverywhere(addresses: number): Source {
  return (n) => {
    const i = n % addresses;
    return { address: numberOf("10.0.0.1") + i, port: 1024 + (i % 60_000) };
  };
}

/** What sends the packets of an attack, in order. */
export abstract class Sender {
  /** Of all packets so far, with their headers. */
  bytes = 0;
  readonly #view: DataView;
  readonly #batch: SendBatch;
  readonly #stride: number;
  #next = 0;

  /**
   * @param headBytes of a packet that are written here, before the message
   * @param bytesMax of a message
   */
  protected constructor(
    protected readonly fd: number,
    private readonly family: Family,
    private readonly headBytes: number,
    target: WireAddress,
    bytesMax: number,
    private readonly write: Write,
  ) {
    this.#stride = Math.ceil((headBytes + bytesMax) / 8) * 8;
    const memory = allocatePacketMemory(0, MESSAGES_MAX * this.#stride);
    this.#view = new DataView(memory.buffer);
    this.#batch = new SendBatch(kernel, fd, family, MESSAGES_MAX, memory);
    const endpoint = endpointOf(target.address, target.port);
    for (let m = 0; m < MESSAGES_MAX; m++) {
      this.#batch.setDestination(m, endpoint, 0);
      this.#batch.finish(m, 1, 0);
    }
  }

  /**
   * Sends the next packets, as many as the kernel takes without a wait.
   * @returns how many it took, of at most `count`
   */
  send(count: number): number {
    const messages = Math.min(count, MESSAGES_MAX);
    for (let m = 0; m < messages; m++) {
      const at = m * this.#stride;
      const messageBytes = this.write(this.#view, at + this.headBytes, this.#next + m);
      this.writeHead(this.#view, at, this.#next + m, messageBytes);
      this.#batch.setPiece(m, 0, at, this.headBytes + messageBytes);
    }
    const taken = Math.max(0, this.#batch.send(0, messages, false));
    for (let m = 0; m < taken; m++) {
      this.bytes += this.#batch.pieceBytes(m, 0) - this.headBytes + headersBytes(this.family);
    }
    this.#next += taken;
    return taken;
  }

  protected abstract writeHead(view: DataView, at: number, n: number, messageBytes: number): void;

  /** Messages that came back so far, by type. */
  abstract hear(): Readonly<Record<number, number>>;

  abstract close(): void;
}

/** From one address and port, the attacker's own. It hears what is answered. */
export class OwnSender extends Sender {
  readonly #socket: UdpSocket;
  readonly #receive: ReceiveBatch;
  readonly #heard: Record<number, number> = {};

  constructor(address: string, target: WireAddress, bytesMax: number, write: Write) {
    const socket = UdpSocket.open(address.includes(":") ? AF_INET6 : AF_INET);
    socket.bind(address, 0);
    socket.setBuffers(BUFFER_BYTES, BUFFER_BYTES);
    super(socket.fd, socket.family, 0, target, bytesMax, write);
    this.#socket = socket;
    const memory = allocatePacketMemory(HEARD_MAX, 0);
    this.#receive = new ReceiveBatch(kernel, this.fd, socket.family, HEARD_MAX, memory, false);
  }

  protected writeHead(): void {}

  hear(): Readonly<Record<number, number>> {
    const bytes = new Uint8Array(this.#receive.packets.buffer);
    for (let call = 0; call < HEARING_CALLS_MAX; call++) {
      const count = this.#receive.receive(false);
      for (let m = 0; m < count; m++) {
        const type = bytes[this.#receive.packetAt(m)]!;
        this.#heard[type] = (this.#heard[type] ?? 0) + 1;
      }
      if (count < HEARD_MAX) break;
    }
    return { ...this.#heard };
  }

  close(): void {
    this.#socket.close();
  }
}

/** From other people's addresses; what is answered, they get. */
export class SpoofingSender extends Sender {
  /** @throws SyscallError socket: EPERM without CAP_NET_RAW */
  constructor(
    private readonly source: Source,
    private readonly target: WireAddress,
    bytesMax: number,
    write: Write,
  ) {
    const fd = libc.socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    if (fd < 0) throw new SyscallError("socket raw", errno());
    super(fd, AF_INET, HEADERS_BYTES, target, bytesMax, write);
  }

  /**
   * IP's length, identification and checksum are the kernel's; a UDP checksum of 0 is none (RFC
   * 768).
   */
  protected writeHead(view: DataView, at: number, n: number, messageBytes: number): void {
    const { address, port } = this.source(n);
    view.setUint8(at, VERSION_AND_LENGTH);
    view.setUint8(at + 8, TTL);
    view.setUint8(at + 9, IPPROTO_UDP);
    view.setUint32(at + 12, address);
    view.setUint32(at + 16, numberOf(this.target.address));
    view.setUint16(at + IPV4_BYTES, port);
    view.setUint16(at + IPV4_BYTES + 2, this.target.port);
    view.setUint16(at + IPV4_BYTES + 4, HEADERS_BYTES - IPV4_BYTES + messageBytes);
  }

  hear(): Readonly<Record<number, number>> {
    return {};
  }

  close(): void {
    libc.close(this.fd);
  }
}
