/**
 * Batches of messages for recvmmsg(2) and sendmmsg(2): all structs laid out once in flat arrays, their
 * addresses written once, so that a batch costs the packet path a few 32-bit stores a message and no
 * allocation.
 *
 * A *message* is one struct mmsghdr: on receive one datagram or several merged by UDP_GRO, on send one datagram
 * or several to be cut by UDP_SEGMENT.
 */
import {
  CMSG_ALIGN_BYTES,
  CMSG_DATA_WORD,
  CMSG_HEADER_BYTES,
  CMSG_LEN_WORD,
  CMSG_LEVEL_WORD,
  CMSG_TYPE_WORD,
  IOV_BASE_WORD,
  IOV_LEN_WORD,
  IOVEC_BYTES,
  IOVEC_WORDS,
  MESSAGES_MAX,
  MMSGHDR_BYTES,
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
  MSG_TRUNC,
  MSG_WAITFORONE,
  SEGMENTS_MAX,
  SOL_UDP,
  UDP_GRO,
  UDP_SEGMENT,
} from "./abi.ts";
import { endpointFromName, type Family, NAME_WORDS, nameBytes, nameFromEndpoint } from "./endpoint.ts";
import { allocateFixed, type FixedMemory, type PacketCalls } from "./libc.ts";

/** Room for the control messages of one received message: UDP_GRO takes 24 bytes, the rest is reserve. */
const RECEIVE_CONTROL_BYTES = 64;
/** CMSG_SPACE(sizeof(u16)): the one control message of a merged send. */
const SEND_CONTROL_BYTES = 24;
const SEND_CONTROL_WORDS = 8; // 32 bytes, so that none straddles a cache line
/**
 * Iovecs reserved for each message of a send. One more than can be used, so that the first iovecs of
 * neighbouring messages, often the only ones used, do not all fall into the same few cache sets.
 */
const IOVECS_PER_MESSAGE = SEGMENTS_MAX + 1;

/**
 * Offset between the receive buffers of neighbouring messages: room for the largest datagram or merged receive
 * (65,535 bytes), and an odd number of 64-byte lines, so that the heads of all packets in a batch spread over
 * the cache sets instead of sharing a few.
 */
const RECEIVE_BUFFER_BYTES = 65_536 + 64;

/** Structs in one piece of fixed memory, each array starting on a cache line. */
class StructMemory {
  readonly words: Int32Array;
  readonly #memory: FixedMemory;
  #used = 0;

  constructor(bytes: number) {
    this.#memory = allocateFixed(bytes + 4 * 64);
    this.words = new Int32Array(this.#memory.buffer);
  }

  /** Reserves `bytes` and returns the index of their first word. */
  reserve(bytes: number): number {
    const at = Math.ceil(this.#used / 64) * 64;
    this.#used = at + bytes;
    if (this.#used > this.#memory.buffer.byteLength) throw new Error("struct memory is too small");
    return at / 4;
  }

  /** The address of a word, as a number. */
  address(word: number): number {
    return this.#memory.address + word * 4;
  }

  /** The low 32 bits of a word's address. */
  addressLow(word: number): number {
    return (this.#memory.addressLow + word * 4) | 0;
  }

  /** Stores the address of `target` in the pointer field at `word`. */
  storePointer(word: number, target: number): void {
    this.words[word] = this.addressLow(target);
    this.words[word + 1] = this.#memory.addressHigh;
  }
}

/** Allocates packet memory for a receive batch of `messages`, and `extraBytes` behind it for the caller's own packets. */
export function allocatePacketMemory(messages: number, extraBytes: number): FixedMemory {
  return allocateFixed(messages * RECEIVE_BUFFER_BYTES + extraBytes);
}

/** The most that one recvmmsg call brings. */
export class ReceiveBatch {
  /** Sockaddrs of the senders, each at `nameAt(message)`. */
  readonly names: Int32Array;
  /** Where the caller's own packet memory starts, behind the receive buffers. */
  readonly extraAt: number;
  readonly #structs: StructMemory;
  readonly #words: Int32Array;
  readonly #headers: number;
  readonly #headersAddress: number;
  readonly #nameWords: number;
  readonly #controls: number;
  readonly #nameBytes: number;
  readonly #controlBytes: number;
  #count: number;

  /**
   * @param packets from allocatePacketMemory for the same number of messages; held, as the kernel knows its address
   * @param withOffload whether to ask for control messages, by which UDP_GRO tells the segment size
   */
  constructor(
    private readonly calls: PacketCalls,
    private readonly fd: number,
    private readonly family: Family,
    private readonly messages: number,
    readonly packets: FixedMemory,
    withOffload: boolean,
  ) {
    if (messages < 1 || messages > MESSAGES_MAX) throw new RangeError(`messages must be 1..${MESSAGES_MAX}`);
    const perMessage = MMSGHDR_BYTES + IOVEC_BYTES + NAME_WORDS * 4 + RECEIVE_CONTROL_BYTES;
    const structs = new StructMemory(messages * perMessage);
    this.#structs = structs;
    this.#words = this.names = structs.words;
    this.#headers = structs.reserve(messages * MMSGHDR_BYTES);
    this.#headersAddress = structs.address(this.#headers);
    const iovecs = structs.reserve(messages * IOVEC_BYTES);
    this.#nameWords = structs.reserve(messages * NAME_WORDS * 4);
    this.#controls = structs.reserve(messages * RECEIVE_CONTROL_BYTES);
    this.#nameBytes = nameBytes(family);
    this.#controlBytes = withOffload ? RECEIVE_CONTROL_BYTES : 0;
    this.#count = messages;
    this.extraAt = messages * RECEIVE_BUFFER_BYTES;
    for (let m = 0; m < messages; m++) {
      const header = this.#headers + m * MMSGHDR_WORDS;
      const iovec = iovecs + m * IOVEC_WORDS;
      structs.storePointer(header + MSG_NAME_WORD, this.nameAt(m));
      structs.storePointer(header + MSG_IOV_WORD, iovec);
      this.#words[header + MSG_IOVLEN_WORD] = 1;
      if (withOffload) structs.storePointer(header + MSG_CONTROL_WORD, this.#controlAt(m));
      this.#words[iovec + IOV_BASE_WORD] = (packets.addressLow + m * RECEIVE_BUFFER_BYTES) | 0;
      this.#words[iovec + IOV_BASE_WORD + 1] = packets.addressHigh;
      this.#words[iovec + IOV_LEN_WORD] = RECEIVE_BUFFER_BYTES;
    }
  }

  /**
   * Takes what has arrived.
   * @param wait whether to wait for the first message, at most the socket's receive timeout
   * @returns the number of messages, or a negative errno: -EAGAIN if there was none, -EINTR
   */
  receive(wait: boolean): number {
    const words = this.#words;
    for (let m = 0, header = this.#headers; m < this.#count; m++, header += MMSGHDR_WORDS) {
      // The kernel overwrote these with what it filled in.
      words[header + MSG_NAMELEN_WORD] = this.#nameBytes;
      words[header + MSG_CONTROLLEN_WORD] = this.#controlBytes;
    }
    const flags = wait ? MSG_WAITFORONE : MSG_DONTWAIT;
    const count = this.calls.recvmmsg(this.fd, this.#headersAddress, this.messages, flags);
    if (count < 0) {
      this.#count = 0;
      return -this.calls.errno();
    }
    this.#count = count;
    return count;
  }

  /** Where message m starts in the packet memory. */
  packetAt(m: number): number {
    return m * RECEIVE_BUFFER_BYTES;
  }

  /** Bytes of message m. */
  length(m: number): number {
    return this.#words[this.#headers + m * MMSGHDR_WORDS + MSG_LEN_WORD]!;
  }

  /** Whether message m came from somewhere; what a receive returns after UdpSocket.stopReceiving did not. */
  hasSender(m: number): boolean {
    return this.#words[this.#headers + m * MMSGHDR_WORDS + MSG_NAMELEN_WORD]! !== 0;
  }

  /** Whether the kernel cut message m short: larger than a receive buffer, so no UDP datagram. */
  truncated(m: number): boolean {
    return (this.#words[this.#headers + m * MMSGHDR_WORDS + MSG_FLAGS_WORD]! & MSG_TRUNC) !== 0;
  }

  /** Size of the segments that were merged into message m (the last may be shorter), or 0 if it is not merged. */
  segmentBytes(m: number): number {
    const controlBytes = this.#words[this.#headers + m * MMSGHDR_WORDS + MSG_CONTROLLEN_WORD]!;
    return controlBytes === 0 ? 0 : groSegmentBytes(this.#words, this.#controlAt(m), controlBytes);
  }

  nameAt(m: number): number {
    return this.#nameWords + m * NAME_WORDS;
  }

  /** Copies the endpoint that message m came from to `endpoint`; the free half of word 0 is 0. */
  readSource(m: number, endpoint: Int32Array): void {
    endpointFromName(this.family, this.names, this.nameAt(m), endpoint, 0);
  }

  #controlAt(m: number): number {
    return this.#controls + m * (RECEIVE_CONTROL_BYTES / 4);
  }

  /** For tests with a scripted kernel: the struct memory and where its parts start, in words. */
  get layout(): { words: Int32Array; headers: number; controls: number; address: number } {
    return {
      words: this.#words,
      headers: this.#headers,
      controls: this.#controls,
      address: this.#structs.address(0),
    };
  }
}

/**
 * Finds UDP_GRO's segment size among control messages.
 * @param at index of the first control message's first word
 * @param controlBytes msg_controllen as the kernel left it
 * @returns the size, or 0 if there is none or the list is broken
 */
export function groSegmentBytes(words: Int32Array, at: number, controlBytes: number): number {
  for (let offset = 0; offset + CMSG_HEADER_BYTES <= controlBytes; ) {
    const cmsg = at + offset / 4;
    const bytes = words[cmsg + CMSG_LEN_WORD]!;
    if (bytes < CMSG_HEADER_BYTES || offset + bytes > controlBytes) return 0;
    if (words[cmsg + CMSG_LEVEL_WORD] === SOL_UDP && words[cmsg + CMSG_TYPE_WORD] === UDP_GRO) {
      // The kernel writes an int (udp_cmsg_recv).
      return bytes >= CMSG_HEADER_BYTES + 4 ? words[cmsg + CMSG_DATA_WORD]! : 0;
    }
    offset += Math.ceil(bytes / CMSG_ALIGN_BYTES) * CMSG_ALIGN_BYTES;
  }
  return 0;
}

/** Messages for one sendmmsg call, each up to SEGMENTS_MAX pieces of packet memory. */
export class SendBatch {
  readonly #words: Int32Array;
  readonly #headers: number;
  readonly #headersAddress: number;
  readonly #iovecs: number;
  readonly #iovecsLow: number;
  readonly #nameWords: number;
  readonly #controls: number;
  readonly #packetsLow: number;

  /**
   * @param messages 1 to MESSAGES_MAX
   * @param packets the memory that all pieces lie in; held, as the kernel knows its address
   */
  constructor(
    private readonly calls: PacketCalls,
    private readonly fd: number,
    private readonly family: Family,
    readonly messages: number,
    readonly packets: FixedMemory,
  ) {
    if (messages < 1 || messages > MESSAGES_MAX) throw new RangeError(`messages must be 1..${MESSAGES_MAX}`);
    const perMessage =
      MMSGHDR_BYTES + IOVECS_PER_MESSAGE * IOVEC_BYTES + NAME_WORDS * 4 + SEND_CONTROL_WORDS * 4;
    const structs = new StructMemory(messages * perMessage);
    const words = structs.words;
    this.#words = words;
    this.#headers = structs.reserve(messages * MMSGHDR_BYTES);
    this.#headersAddress = structs.address(this.#headers);
    this.#iovecs = structs.reserve(messages * IOVECS_PER_MESSAGE * IOVEC_BYTES);
    this.#iovecsLow = structs.addressLow(this.#iovecs);
    this.#nameWords = structs.reserve(messages * NAME_WORDS * 4);
    this.#controls = structs.reserve(messages * SEND_CONTROL_WORDS * 4);
    this.#packetsLow = packets.addressLow;
    for (let m = 0; m < messages; m++) {
      const header = this.#headers + m * MMSGHDR_WORDS;
      const iovec = this.#iovecs + m * IOVECS_PER_MESSAGE * IOVEC_WORDS;
      const name = this.#nameWords + m * NAME_WORDS;
      const control = this.#controls + m * SEND_CONTROL_WORDS;
      structs.storePointer(header + MSG_NAME_WORD, name);
      words[header + MSG_NAMELEN_WORD] = nameBytes(family);
      structs.storePointer(header + MSG_IOV_WORD, iovec);
      structs.storePointer(header + MSG_CONTROL_WORD, control);
      words[control + CMSG_LEN_WORD] = CMSG_HEADER_BYTES + 2;
      words[control + CMSG_LEVEL_WORD] = SOL_UDP;
      words[control + CMSG_TYPE_WORD] = UDP_SEGMENT;
      for (let i = 0; i < IOVECS_PER_MESSAGE; i++) {
        words[iovec + i * IOVEC_WORDS + IOV_BASE_WORD + 1] = packets.addressHigh;
      }
    }
  }

  /** Addresses message m to the endpoint at `endpoint[at]`. */
  setDestination(m: number, endpoint: Int32Array, at: number): void {
    nameFromEndpoint(this.family, endpoint, at, this.#words, this.#nameWords + m * NAME_WORDS);
  }

  /** Makes `bytes` at `packetAt` in the packet memory piece i of message m. */
  setPiece(m: number, i: number, packetAt: number, bytes: number): void {
    const iovec = this.#iovecs + (m * IOVECS_PER_MESSAGE + i) * IOVEC_WORDS;
    this.#words[iovec + IOV_BASE_WORD] = (this.#packetsLow + packetAt) | 0;
    this.#words[iovec + IOV_LEN_WORD] = bytes;
  }

  /** Bytes of piece i of message m. */
  pieceBytes(m: number, i: number): number {
    return this.#words[this.#iovecs + (m * IOVECS_PER_MESSAGE + i) * IOVEC_WORDS + IOV_LEN_WORD]!;
  }

  /** Where in the packet memory piece i of message m is. */
  pieceAt(m: number, i: number): number {
    const base = this.#words[this.#iovecs + (m * IOVECS_PER_MESSAGE + i) * IOVEC_WORDS + IOV_BASE_WORD]!;
    return (base - this.#packetsLow) | 0;
  }

  /** Completes message m: `pieces` of them, to be cut every `segmentBytes`; with one piece nothing is cut. */
  finish(m: number, pieces: number, segmentBytes: number): void {
    this.#setPieces(m, 0, pieces);
    const header = this.#headers + m * MMSGHDR_WORDS;
    if (pieces > 1) {
      this.#words[header + MSG_CONTROLLEN_WORD] = SEND_CONTROL_BYTES;
      this.#words[this.#controls + m * SEND_CONTROL_WORDS + CMSG_DATA_WORD] = segmentBytes;
    } else {
      this.#words[header + MSG_CONTROLLEN_WORD] = 0;
    }
  }

  /** Turns message m into its piece i alone, a plain datagram; pieces can be taken in any order. */
  narrow(m: number, i: number): void {
    this.#setPieces(m, i, 1);
    this.#words[this.#headers + m * MMSGHDR_WORDS + MSG_CONTROLLEN_WORD] = 0;
  }

  #setPieces(m: number, first: number, pieces: number): void {
    const header = this.#headers + m * MMSGHDR_WORDS;
    const iovecBytes = (m * IOVECS_PER_MESSAGE + first) * IOVEC_BYTES;
    this.#words[header + MSG_IOV_WORD] = (this.#iovecsLow + iovecBytes) | 0;
    this.#words[header + MSG_IOVLEN_WORD] = pieces;
  }

  /**
   * Sends messages `first` to `end` (exclusive).
   * @param wait whether to wait for buffer space, at most the socket's send timeout
   * @returns how many the kernel took, from the first on, or a negative errno when it refused the first
   */
  send(first: number, end: number, wait: boolean): number {
    const address = this.#headersAddress + first * MMSGHDR_BYTES;
    const count = this.calls.sendmmsg(this.fd, address, end - first, wait ? 0 : MSG_DONTWAIT);
    return count < 0 ? -this.calls.errno() : count;
  }
}
