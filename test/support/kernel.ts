/**
 * A kernel that plays a script: PacketCalls without a socket. It reads the structs that it is
 * handed by address, as the real one does, and cuts merged messages into the datagrams that would
 * leave.
 */
import { type Pointer, toArrayBuffer } from "bun:ffi";
import {
  CMSG_HEADER_BYTES,
  CMSG_LEN_WORD,
  CMSG_LEVEL_WORD,
  CMSG_TYPE_WORD,
  IN_PKTINFO_BYTES,
  IN6_PKTINFO_BYTES,
  IOV_BASE_WORD,
  IOV_LEN_WORD,
  IOVEC_WORDS,
  IP_PKTINFO,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_PKTINFO,
  MMSGHDR_WORDS,
  MSG_CONTROL_WORD,
  MSG_CONTROLLEN_WORD,
  MSG_DONTWAIT,
  MSG_FLAGS_WORD,
  MSG_IOV_WORD,
  MSG_IOVLEN_WORD,
  MSG_LEN_WORD,
  MSG_NAME_WORD,
  MSG_NAMELEN_WORD,
  SOL_UDP,
  UDP_SEGMENT,
} from "../../ffi/abi.ts";
import type { PacketCalls } from "../../ffi/libc.ts";

/** One message as sendmmsg finds it. */
export interface SentMessage {
  /** The sockaddr, in hex. */
  readonly name: string;
  /** Bytes of each iovec. */
  readonly pieces: readonly Uint8Array[];
  /** Segment size of its UDP_SEGMENT control message, 0 without one. */
  readonly segmentBytes: number;
  /** Data of its IP_PKTINFO or IPV6_PKTINFO control message, in hex, "" without one. */
  readonly source: string;
}

/** One datagram on its way. */
export interface SentDatagram {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** What a call of sendmmsg does: how many messages it takes, or a negative errno. */
export type SendStep = (messages: readonly SentMessage[], wait: boolean) => number;

/** What a receive brings in one message. */
export interface ReceivedMessage {
  readonly bytes: Uint8Array;
  /** The sockaddr; none: a message from nobody, as after a shutdown. */
  readonly name?: Uint8Array;
  readonly control?: Uint8Array;
  readonly flags?: number;
}

export type ReceiveStep = readonly ReceivedMessage[] | number;

const memoryAt = (address: number, bytes: number): ArrayBuffer =>
  bytes === 0 ? new ArrayBuffer(0) : toArrayBuffer(address as Pointer, 0, bytes);

function pointerIn(words: Int32Array, at: number): number {
  return (words[at]! >>> 0) + (words[at + 1]! >>> 0) * 2 ** 32;
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}

/** The datagrams that a message is cut into (udp(7), UDP_SEGMENT). */
export function cut({ name, pieces, segmentBytes }: SentMessage): SentDatagram[] {
  const bytes = new Uint8Array(Buffer.concat(pieces));
  if (segmentBytes === 0) return [{ name, bytes }];
  const datagrams: SentDatagram[] = [];
  for (let at = 0; at < bytes.length; at += segmentBytes) {
    datagrams.push({ name, bytes: bytes.slice(at, at + segmentBytes) });
  }
  return datagrams;
}

export class ScriptedKernel implements PacketCalls {
  /**
   * Steps of the calls to come; when they are used up, a send takes everything and a receive times
   * out.
   */
  readonly sends: SendStep[] = [];
  readonly receives: ReceiveStep[] = [];
  /** Every message taken, in order. */
  readonly sent: SentMessage[] = [];
  /** For each call of sendmmsg: whether it might wait, and how many messages it was offered. */
  readonly sendCalls: { wait: boolean; offered: number }[] = [];
  /**
   * For each call of recvmmsg: its flags, and the room that each message offers for a name and for
   * control data.
   */
  readonly receiveCalls: { flags: number; nameBytes: number[]; controlBytes: number[] }[] = [];
  #errno = 0;

  constructor(private readonly timeoutErrno: number) {}

  /** The datagrams that left. */
  get datagrams(): SentDatagram[] {
    return this.sent.flatMap(cut);
  }

  errno(): number {
    return this.#errno;
  }

  sendmmsg(_fd: number, headers: number, count: number, flags: number): number {
    const messages: SentMessage[] = [];
    for (let m = 0; m < count; m++)
      messages.push(this.#sentMessage(headers + m * MMSGHDR_WORDS * 4));
    const wait = (flags & MSG_DONTWAIT) === 0;
    this.sendCalls.push({ wait, offered: count });
    const taken = this.sends.shift()?.(messages, wait) ?? count;
    if (taken > count) throw new Error(`the script takes ${taken} of ${count} messages`);
    if (taken < 0) return this.#fail(-taken);
    this.sent.push(...messages.slice(0, taken));
    return taken;
  }

  #sentMessage(address: number): SentMessage {
    const header = new Int32Array(memoryAt(address, MMSGHDR_WORDS * 4));
    const name = new Uint8Array(
      memoryAt(pointerIn(header, MSG_NAME_WORD), header[MSG_NAMELEN_WORD]!),
    );
    const iovecCount = header[MSG_IOVLEN_WORD]!;
    const iovecs = new Int32Array(
      memoryAt(pointerIn(header, MSG_IOV_WORD), iovecCount * IOVEC_WORDS * 4),
    );
    const pieces: Uint8Array[] = [];
    for (let i = 0; i < iovecCount; i++) {
      const iovec = i * IOVEC_WORDS;
      const bytes = iovecs[iovec + IOV_LEN_WORD]!;
      pieces.push(
        new Uint8Array(memoryAt(pointerIn(iovecs, iovec + IOV_BASE_WORD), bytes)).slice(),
      );
    }
    return { name: hex(name), pieces, ...this.#control(header) };
  }

  /** Reads the control messages as udp_cmsg_send, ip_cmsg_send and ip6_datagram_send_ctl do. */
  #control(header: Int32Array): Pick<SentMessage, "segmentBytes" | "source"> {
    const found = { segmentBytes: 0, source: "" };
    const controlBytes = header[MSG_CONTROLLEN_WORD]!;
    const control = new DataView(memoryAt(pointerIn(header, MSG_CONTROL_WORD), controlBytes));
    for (let at = 0; at + CMSG_HEADER_BYTES <= controlBytes; ) {
      const bytes = control.getInt32(at + CMSG_LEN_WORD * 4, true);
      if (bytes < CMSG_HEADER_BYTES || at + bytes > controlBytes)
        throw new Error("a broken control message");
      const level = control.getInt32(at + CMSG_LEVEL_WORD * 4, true);
      const type = control.getInt32(at + CMSG_TYPE_WORD * 4, true);
      const data = new Uint8Array(
        control.buffer,
        at + CMSG_HEADER_BYTES,
        bytes - CMSG_HEADER_BYTES,
      );
      if (level === SOL_UDP && type === UDP_SEGMENT) {
        if (data.length !== 2) throw new Error("UDP_SEGMENT is not a u16");
        found.segmentBytes = control.getUint16(at + CMSG_HEADER_BYTES, true);
      } else if (level === IPPROTO_IP && type === IP_PKTINFO && data.length === IN_PKTINFO_BYTES) {
        found.source = hex(data);
      } else if (
        level === IPPROTO_IPV6 &&
        type === IPV6_PKTINFO &&
        data.length === IN6_PKTINFO_BYTES
      ) {
        found.source = hex(data);
      } else {
        throw new Error(`a control message of level ${level} and type ${type}`);
      }
      at += Math.ceil(bytes / 8) * 8;
    }
    return found;
  }

  recvmmsg(_fd: number, headers: number, count: number, flags: number): number {
    const words = new Int32Array(memoryAt(headers, count * MMSGHDR_WORDS * 4));
    const column = (word: number) =>
      Array.from({ length: count }, (_, m) => words[m * MMSGHDR_WORDS + word]!);
    this.receiveCalls.push({
      flags,
      nameBytes: column(MSG_NAMELEN_WORD),
      controlBytes: column(MSG_CONTROLLEN_WORD),
    });
    const step = this.receives.shift() ?? -this.timeoutErrno;
    if (typeof step === "number") return this.#fail(-step);
    if (step.length > count)
      throw new Error(`the script brings ${step.length} messages for ${count}`);
    for (const [m, message] of step.entries())
      this.#deliver(headers + m * MMSGHDR_WORDS * 4, message);
    return step.length;
  }

  #deliver(address: number, { bytes, name, control, flags }: ReceivedMessage): void {
    const header = new Int32Array(memoryAt(address, MMSGHDR_WORDS * 4));
    const iovec = new Int32Array(memoryAt(pointerIn(header, MSG_IOV_WORD), IOVEC_WORDS * 4));
    const room = iovec[IOV_LEN_WORD]!;
    const taken = bytes.subarray(0, room);
    new Uint8Array(memoryAt(pointerIn(iovec, IOV_BASE_WORD), room)).set(taken);
    if (name !== undefined) {
      const nameRoom = header[MSG_NAMELEN_WORD]!;
      new Uint8Array(memoryAt(pointerIn(header, MSG_NAME_WORD), nameRoom)).set(
        name.subarray(0, nameRoom),
      );
    }
    header[MSG_NAMELEN_WORD] = name?.length ?? 0;
    const controlRoom = header[MSG_CONTROLLEN_WORD]!;
    const controlTaken = (control ?? new Uint8Array()).subarray(0, controlRoom);
    if (controlTaken.length > 0) {
      new Uint8Array(memoryAt(pointerIn(header, MSG_CONTROL_WORD), controlRoom)).set(controlTaken);
    }
    header[MSG_CONTROLLEN_WORD] = controlTaken.length;
    header[MSG_FLAGS_WORD] = flags ?? 0;
    header[MSG_LEN_WORD] = taken.length;
  }

  #fail(errno: number): number {
    this.#errno = errno;
    return -1;
  }
}

/** One control message, padded to whole 8 bytes as the kernel pads it. */
export function controlMessage(
  level: number,
  type: number,
  data: Uint8Array,
  lengthBytes?: number,
): Uint8Array {
  const bytes = new Uint8Array(Math.ceil((CMSG_HEADER_BYTES + data.length) / 8) * 8);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(
    0,
    BigInt.asUintN(64, BigInt(lengthBytes ?? CMSG_HEADER_BYTES + data.length)),
    true,
  );
  view.setInt32(8, level, true);
  view.setInt32(12, type, true);
  bytes.set(data, CMSG_HEADER_BYTES);
  return bytes;
}

/** A 32-bit number as it lies in a control message. */
export function int32Bytes(value: number): Uint8Array {
  return new Uint8Array(new Int32Array([value]).buffer);
}
