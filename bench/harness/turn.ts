/**
 * A TURN client over UDP, as much of it as relaying through a server without authentication takes:
 * it allocates an address there and binds channels to peers. Sections are those of RFC 8656 (TURN)
 * unless RFC 8489 (STUN) is named.
 */
import ipaddr from "ipaddr.js";
import { kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch } from "../../ffi/mmsg.ts";
import type { UdpSocket } from "../../ffi/socket.ts";
import { type PacketHeader, sendOnce } from "./load.ts";
import type { Address } from "./register.ts";

/** Methods (17); a success response has 0x0100 added, an error response 0x0110 (RFC 8489, 5). */
const ALLOCATE = 0x0003;
const CHANNEL_BIND = 0x0009;
const SUCCESS = 0x0100;
/** Attributes (18; ERROR-CODE: RFC 8489, 14.8). */
const ERROR_CODE = 0x0009;
const CHANNEL_NUMBER = 0x000c;
const XOR_PEER_ADDRESS = 0x0012;
const REQUESTED_TRANSPORT = 0x0019;
/** UDP's number as a protocol over IP, in the first of four bytes (18.7). */
const TRANSPORT_UDP = Uint8Array.of(17, 0, 0, 0);

/** RFC 8489, 5: type, length, cookie, 12 bytes of transaction id. */
const HEADER_BYTES = 20;
const MAGIC_COOKIE = 0x2112_a442;
const TRANSACTION_AT = 8;
const FAMILY_IPV4 = 0x01;

/** Channels have these numbers (12). */
export const CHANNEL_FIRST = 0x4000;

const ANSWER_MS = 200;
const TRIES_MAX = 10;

export type Attributes = ReadonlyMap<number, Uint8Array>;

export interface StunMessage {
  readonly type: number;
  readonly transaction: Uint8Array;
  readonly attributes: Attributes;
}

/** Writes a message; values are padded to four bytes (RFC 8489, 14). */
export function encodeStun({ type, transaction, attributes }: StunMessage): Uint8Array {
  const padded = (bytes: number) => Math.ceil(bytes / 4) * 4;
  const length = [...attributes.values()].reduce((sum, value) => sum + 4 + padded(value.length), 0);
  const message = Buffer.alloc(HEADER_BYTES + length);
  message.writeUInt16BE(type, 0);
  message.writeUInt16BE(length, 2);
  message.writeUInt32BE(MAGIC_COOKIE, 4);
  message.set(transaction, TRANSACTION_AT);
  let at = HEADER_BYTES;
  for (const [attribute, value] of attributes) {
    message.writeUInt16BE(attribute, at);
    message.writeUInt16BE(value.length, at + 2);
    message.set(value, at + 4);
    at += 4 + padded(value.length);
  }
  return message;
}

/** @returns undefined for what is no STUN message, or one that is cut short */
export function decodeStun(bytes: Uint8Array): StunMessage | undefined {
  const message = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (message.length < HEADER_BYTES || message.readUInt32BE(4) !== MAGIC_COOKIE) return undefined;
  if (message.length !== HEADER_BYTES + message.readUInt16BE(2)) return undefined;
  const attributes = new Map<number, Uint8Array>();
  for (let at = HEADER_BYTES; at < message.length; ) {
    if (at + 4 > message.length) return undefined;
    const length = message.readUInt16BE(at + 2);
    if (at + 4 + length > message.length) return undefined;
    const attribute = message.readUInt16BE(at);
    // Of several of one kind the first counts (RFC 8489, 14).
    if (!attributes.has(attribute))
      attributes.set(attribute, message.subarray(at + 4, at + 4 + length));
    at += 4 + Math.ceil(length / 4) * 4;
  }
  const transaction = message.subarray(TRANSACTION_AT, HEADER_BYTES);
  return { type: message.readUInt16BE(0), transaction, attributes };
}

/** An IPv4 address and port as the XOR-… attributes have them (RFC 8489, 14.2). */
export function encodeXorAddress({ host, port }: Address): Uint8Array {
  const value = Buffer.alloc(8);
  value.writeUInt8(FAMILY_IPV4, 1);
  value.writeUInt16BE(port ^ (MAGIC_COOKIE >>> 16), 2);
  const ip = Buffer.from(ipaddr.IPv4.parse(host).toByteArray()).readUInt32BE();
  value.writeUInt32BE((ip ^ MAGIC_COOKIE) >>> 0, 4);
  return value;
}

/**
 * What stands before a payload in a channel (12.4): its number, and the bytes that follow. Over UDP
 * nothing is padded.
 */
export function channelHeader(payloadBytes: number): PacketHeader {
  return {
    bytes: new Uint8Array(4),
    destinationAt: 0,
    first: CHANNEL_FIRST * 0x1_0000 + payloadBytes,
    step: 0x1_0000,
  };
}

export class TurnClient {
  readonly #receive: ReceiveBatch;

  /** @param socket what is sent from here belongs to the allocation, whoever sends it */
  constructor(
    private readonly socket: UdpSocket,
    private readonly server: Address,
  ) {
    socket.setTimeouts(ANSWER_MS, ANSWER_MS);
    const memory = allocatePacketMemory(1, 0);
    this.#receive = new ReceiveBatch(kernel, socket.fd, socket.family, 1, memory, false);
  }

  /** Takes an address at the server (7). @throws Error if it is refused */
  allocate(): void {
    this.#request("Allocate", ALLOCATE, new Map([[REQUESTED_TRANSPORT, TRANSPORT_UDP]]));
  }

  /**
   * Binds a channel to a peer, which permits what comes from there, too (12).
   * @throws Error if it is refused
   */
  bindChannel(channel: number, peer: Address): void {
    const number = Uint8Array.of(channel >>> 8, channel, 0, 0);
    const attributes = new Map([
      [CHANNEL_NUMBER, number],
      [XOR_PEER_ADDRESS, encodeXorAddress(peer)],
    ]);
    this.#request("ChannelBind", CHANNEL_BIND, attributes);
  }

  #request(name: string, method: number, attributes: Attributes): void {
    const transaction = crypto.getRandomValues(new Uint8Array(12));
    const request = encodeStun({ type: method, transaction, attributes });
    for (let attempt = 0; attempt < TRIES_MAX; attempt++) {
      sendOnce(this.socket, request, this.server);
      if (this.#receive.receive(true) < 1) continue;
      const answer = decodeStun(
        new Uint8Array(this.#receive.packets.buffer, 0, this.#receive.length(0)),
      );
      if (answer === undefined || Buffer.compare(answer.transaction, transaction) !== 0) continue;
      if (answer.type === method + SUCCESS) return;
      throw new Error(`the TURN server refuses ${name}: ${errorText(answer.attributes)}`);
    }
    throw new Error(`the TURN server does not answer ${name}`);
  }
}

/** "403 Forbidden IP" (RFC 8489, 14.8). */
function errorText(attributes: Attributes): string {
  const value = attributes.get(ERROR_CODE);
  if (value === undefined || value.length < 4) return "without a reason";
  const code = value[2]! * 100 + value[3]!;
  return `${code} ${new TextDecoder().decode(value.subarray(4))}`.trim();
}
