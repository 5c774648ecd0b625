/**
 * Batches of messages for recvmmsg(2) and sendmmsg(2): all structs laid out once in flat arrays,
 * their addresses written once, so that a batch costs the packet path a few 32-bit stores a message
 * and no allocation.
 *
 * A *message* is one struct mmsghdr: on receive one datagram or several merged by UDP_GRO, on send
 * one datagram or several to be cut by UDP_SEGMENT.
 */
import {
  AF_INET,
  CMSG_ALIGN_BYTES,
  CMSG_DATA_WORD,
  CMSG_HEADER_BYTES,
  CMSG_LEN_WORD,
  CMSG_LEVEL_WORD,
  CMSG_TYPE_WORD,
  IN_PKTINFO_BYTES,
  IN_PKTINFO_LOCAL_WORD,
  IN6_PKTINFO_BYTES,
  IN6_PKTINFO_INTERFACE_WORD,
  IOV_BASE_WORD,
  IOV_LEN_WORD,
  IOVEC_BYTES,
  IOVEC_WORDS,
  IP_PKTINFO,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_PKTINFO,
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
import {
  ENDPOINT_LOCAL_MASK,
  ENDPOINT_LOCAL_SHIFT,
  endpointFromName,
  type Family,
  isLinkLocal,
  MAPPED_WORD,
  NAME_WORDS,
  nameBytes,
  nameFromEndpoint,
} from "./endpoint.ts";
import { allocateFixed, type FixedMemory, type PacketCalls } from "./libc.ts";

/** Bytes for one message's control messages: UDP_GRO needs 24, IPV6_PKTINFO 40. */
const RECEIVE_CONTROL_BYTES = 64;
/** CMSG_SPACE of the control message of a merged send, a u16. */
const SEGMENT_CONTROL_BYTES = 24;
/** CMSG_LEN, not CMSG_SPACE, of a source address, the last one: Linux allocates above 36 bytes. */
const SOURCE_CONTROL_BYTES = CMSG_HEADER_BYTES + IN_PKTINFO_BYTES;
const SOURCE6_CONTROL_BYTES = CMSG_HEADER_BYTES + IN6_PKTINFO_BYTES;
/** Room for both of a sent message, a cache line. */
const SEND_CONTROL_WORDS = 64 / 4;
if (SEGMENT_CONTROL_BYTES + SOURCE6_CONTROL_BYTES > SEND_CONTROL_WORDS * 4)
  throw new Error("a message's control messages need more than a cache line");
/** Iovecs of a message, one more than usable, so that first iovecs spread over cache sets. */
const IOVECS_PER_MESSAGE = SEGMENTS_MAX + 1;

/**
 * Offset between the receive buffers of neighbouring messages: room for the largest datagram or
 * merged receive (65,535 bytes), and an odd number of 64-byte lines, so that the heads of all
 * packets in a batch spread over the cache sets instead of sharing a few.
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

/** Allocates packet memory for `messages`, and `extraBytes` behind it for the caller. */
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
   * @param packets from allocatePacketMemory for the same number of messages; held, as the kernel
   * knows its address
   * @param withControl whether to ask for control messages: the segment size (UDP_GRO), the local
   * address
   */
  constructor(
    private readonly calls: PacketCalls,
    private readonly fd: number,
    private readonly family: Family,
    private readonly messages: number,
    readonly packets: FixedMemory,
    withControl: boolean,
  ) {
    if (messages < 1 || messages > MESSAGES_MAX)
      throw new RangeError(`messages must be 1..${MESSAGES_MAX}`);
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
    this.#controlBytes = withControl ? RECEIVE_CONTROL_BYTES : 0;
    this.#count = messages;
    this.extraAt = messages * RECEIVE_BUFFER_BYTES;
    for (let m = 0; m < messages; m++) {
      const header = this.#headers + m * MMSGHDR_WORDS;
      const iovec = iovecs + m * IOVEC_WORDS;
      structs.storePointer(header + MSG_NAME_WORD, this.nameAt(m));
      structs.storePointer(header + MSG_IOV_WORD, iovec);
      this.#words[header + MSG_IOVLEN_WORD] = 1;
      if (withControl) structs.storePointer(header + MSG_CONTROL_WORD, this.#controlAt(m));
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

  /** Returns whether message m has a sender; what returns after `stopReceiving` has none. */
  hasSender(m: number): boolean {
    return this.#words[this.#headers + m * MMSGHDR_WORDS + MSG_NAMELEN_WORD]! !== 0;
  }

  /** Whether the kernel cut message m short: larger than a receive buffer, so no UDP datagram. */
  truncated(m: number): boolean {
    return (this.#words[this.#headers + m * MMSGHDR_WORDS + MSG_FLAGS_WORD]! & MSG_TRUNC) !== 0;
  }

  /** Returns the segment size of message m (the last may be shorter), or 0 if not merged. */
  segmentBytes(m: number): number {
    const controlBytes = this.#words[this.#headers + m * MMSGHDR_WORDS + MSG_CONTROLLEN_WORD]!;
    return controlBytes === 0 ? 0 : groSegmentBytes(this.#words, this.#controlAt(m), controlBytes);
  }

  /**
   * Copies the address of this host that message m was sent to, as an endpoint with word 0 = 0, to
   * `address`; the scope id is the receiving interface for a link-local address, else 0.
   * @returns false if the kernel did not say
   */
  readLocalAddress(m: number, address: Int32Array): boolean {
    const controlBytes = this.#words[this.#headers + m * MMSGHDR_WORDS + MSG_CONTROLLEN_WORD]!;
    return (
      controlBytes !== 0 &&
      localAddress(this.family, this.#words, this.#controlAt(m), controlBytes, address)
    );
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
  // The kernel writes an int (udp_cmsg_recv).
  const data = controlData(words, at, controlBytes, SOL_UDP, UDP_GRO, 4);
  return data < 0 ? 0 : words[data]!;
}

/**
 * Finds the local address of a datagram among its control messages (IP_PKTINFO, IPV6_PKTINFO).
 * @param family of the socket
 * @param at index of the first control message's first word
 * @param controlBytes msg_controllen as the kernel left it
 * @param address as in ReceiveBatch.readLocalAddress
 * @returns false if there is none or the list is broken
 */
export function localAddress(
  family: Family,
  words: Int32Array,
  at: number,
  controlBytes: number,
  address: Int32Array,
): boolean {
  if (family === AF_INET) {
    const data = controlData(words, at, controlBytes, IPPROTO_IP, IP_PKTINFO, IN_PKTINFO_BYTES);
    if (data < 0) return false;
    address.fill(0);
    address[3] = MAPPED_WORD;
    address[4] = words[data + IN_PKTINFO_LOCAL_WORD]!;
    return true;
  }
  const data = controlData(words, at, controlBytes, IPPROTO_IPV6, IPV6_PKTINFO, IN6_PKTINFO_BYTES);
  if (data < 0) return false;
  address[0] = 0;
  for (let word = 0; word < 4; word++) address[1 + word] = words[data + word]!;
  address[5] = isLinkLocal(address, 0) ? words[data + IN6_PKTINFO_INTERFACE_WORD]! : 0;
  return true;
}

/**
 * Finds the data of the first control message of one type (cmsg(3)).
 * @param dataBytes that it has at least
 * @returns the index of its first word, or -1 if there is none, it is shorter or the list is broken
 */
function controlData(
  words: Int32Array,
  at: number,
  controlBytes: number,
  level: number,
  type: number,
  dataBytes: number,
): number {
  for (let offset = 0; offset + CMSG_HEADER_BYTES <= controlBytes; ) {
    const cmsg = at + offset / 4;
    const bytes = words[cmsg + CMSG_LEN_WORD]!;
    if (bytes < CMSG_HEADER_BYTES || offset + bytes > controlBytes) return -1;
    if (words[cmsg + CMSG_LEVEL_WORD] === level && words[cmsg + CMSG_TYPE_WORD] === type)
      return bytes >= CMSG_HEADER_BYTES + dataBytes ? cmsg + CMSG_DATA_WORD : -1;
    offset += Math.ceil(bytes / CMSG_ALIGN_BYTES) * CMSG_ALIGN_BYTES;
  }
  return -1;
}

/** The local addresses that endpoints name by number (endpoint.ts). */
export interface LocalAddressList {
  readonly words: Int32Array;
  /** Index in `words` of the address with this number, as an endpoint. */
  at(number: number): number;
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
  readonly #controlsLow: number;
  readonly #packetsLow: number;
  readonly #sourceBytes: number;
  /** By message: 1 if it leaves from an address of its own, and that address's number. */
  readonly #hasSource: Uint8Array;
  readonly #written: Uint8Array;

  /**
   * @param messages 1 to MESSAGES_MAX
   * @param packets the memory that all pieces lie in; held, as the kernel knows its address
   * @param locals what the endpoints' numbers of local addresses mean; without it the kernel
   * chooses every source address
   */
  constructor(
    private readonly calls: PacketCalls,
    private readonly fd: number,
    private readonly family: Family,
    readonly messages: number,
    readonly packets: FixedMemory,
    private readonly locals?: LocalAddressList,
  ) {
    if (messages < 1 || messages > MESSAGES_MAX)
      throw new RangeError(`messages must be 1..${MESSAGES_MAX}`);
    const isV4 = family === AF_INET;
    this.#sourceBytes = isV4 ? SOURCE_CONTROL_BYTES : SOURCE6_CONTROL_BYTES;
    this.#hasSource = new Uint8Array(messages);
    this.#written = new Uint8Array(messages);
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
    this.#controlsLow = structs.addressLow(this.#controls);
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
      const source = control + SEGMENT_CONTROL_BYTES / 4;
      words[source + CMSG_LEN_WORD] = this.#sourceBytes;
      words[source + CMSG_LEVEL_WORD] = isV4 ? IPPROTO_IP : IPPROTO_IPV6;
      words[source + CMSG_TYPE_WORD] = isV4 ? IP_PKTINFO : IPV6_PKTINFO;
      for (let i = 0; i < IOVECS_PER_MESSAGE; i++) {
        words[iovec + i * IOVEC_WORDS + IOV_BASE_WORD + 1] = packets.addressHigh;
      }
    }
  }

  /** Addresses message m to `endpoint[at]`, from the local address that the endpoint names. */
  setDestination(m: number, endpoint: Int32Array, at: number): void {
    nameFromEndpoint(this.family, endpoint, at, this.#words, this.#nameWords + m * NAME_WORDS);
    const local = endpoint[at]! & ENDPOINT_LOCAL_MASK;
    this.#hasSource[m] = local === 0 ? 0 : this.#setSource(m, local >>> ENDPOINT_LOCAL_SHIFT);
  }

  /** @returns 1, or 0 where numbers mean nothing */
  #setSource(m: number, local: number): number {
    const { locals } = this;
    if (locals === undefined) return 0;
    if (this.#written[m] === local) return 1; // a number stands for one address for good
    this.#written[m] = local;
    const words = this.#words;
    const data =
      this.#controls + m * SEND_CONTROL_WORDS + SEGMENT_CONTROL_BYTES / 4 + CMSG_DATA_WORD;
    const from = locals.at(local);
    if (this.family === AF_INET) {
      words[data + IN_PKTINFO_LOCAL_WORD] = locals.words[from + 4]!;
    } else {
      for (let word = 0; word < 4; word++) words[data + word] = locals.words[from + 1 + word]!;
      words[data + IN6_PKTINFO_INTERFACE_WORD] = locals.words[from + 5]!;
    }
    return 1;
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
    const base =
      this.#words[this.#iovecs + (m * IOVECS_PER_MESSAGE + i) * IOVEC_WORDS + IOV_BASE_WORD]!;
    return (base - this.#packetsLow) | 0;
  }

  /** Completes message m: `pieces` of them, cut every `segmentBytes`. */
  finish(m: number, pieces: number, segmentBytes: number): void {
    this.#setPieces(m, 0, pieces);
    if (pieces > 1)
      this.#words[this.#controls + m * SEND_CONTROL_WORDS + CMSG_DATA_WORD] = segmentBytes;
    this.#setControl(m, pieces > 1);
  }

  /** Turns message m into its piece i alone, a plain datagram; pieces can be taken in any order. */
  narrow(m: number, i: number): void {
    this.#setPieces(m, i, 1);
    this.#setControl(m, false);
  }

  /** The segment size comes first and the source behind it, so either can be left out. */
  #setControl(m: number, isMerged: boolean): void {
    const header = this.#headers + m * MMSGHDR_WORDS;
    const sourceBytes = this.#hasSource[m]! * this.#sourceBytes;
    const skipped = isMerged ? 0 : SEGMENT_CONTROL_BYTES;
    this.#words[header + MSG_CONTROL_WORD] =
      (this.#controlsLow + m * SEND_CONTROL_WORDS * 4 + skipped) | 0;
    this.#words[header + MSG_CONTROLLEN_WORD] = SEGMENT_CONTROL_BYTES - skipped + sourceBytes;
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
   * @returns how many the kernel took, from the first on, or a negative errno when it refused the
   * first
   */
  send(first: number, end: number, wait: boolean): number {
    const address = this.#headersAddress + first * MMSGHDR_BYTES;
    const count = this.calls.sendmmsg(this.fd, address, end - first, wait ? 0 : MSG_DONTWAIT);
    return count < 0 ? -this.calls.errno() : count;
  }
}
