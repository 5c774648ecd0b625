/**
 * Endpoints: an IP address and a UDP port in six 32-bit words, the one form in which this program
 * holds addresses in memory, whatever the family of the socket they came from.
 *
 *   word 0     bits 16-31: port in network byte order
 *              bits 8-15:  number of the local address that this endpoint talks to, see below; 0 if unknown
 *              bits 0-7:   free for the holder's flags
 *   words 1-4  the 16 bytes of the IPv6 address, IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2)
 *   word 5     scope id (the interface, for link-local addresses), else 0
 *
 * A host may have several addresses. A NAT or a connected socket only admits packets from the
 * address that its client sent to, so an endpoint carries that local address: as a number, the
 * place of the address in a list that the holder keeps (`LocalAddresses` in src/shared/). Number 0
 * leaves the choice to the kernel.
 */
import ipaddr from "ipaddr.js";
import { AF_INET, type AF_INET6, SOCKADDR_IN_BYTES, SOCKADDR_IN6_BYTES } from "./abi.ts";

export type Family = typeof AF_INET | typeof AF_INET6;

export const ENDPOINT_WORDS = 6;
/** The parts of word 0: the remote port, the number of the local address, the holder's flags. */
export const ENDPOINT_PORT_MASK = 0xffff_0000 | 0;
export const ENDPOINT_LOCAL_MASK = 0xff00;
export const ENDPOINT_LOCAL_SHIFT = 8;
export const ENDPOINT_FLAGS_MASK = 0xff;
/** Numbers of local addresses lie below this; 0 is none. */
export const LOCAL_NUMBERS_END = 256;
/** Room for either sockaddr, rounded up to whole 8 bytes. */
export const NAME_WORDS = 8;
/** Bytes 8-11 of an IPv4-mapped address (00 00 ff ff) as a little-endian word. */
export const MAPPED_WORD = 0xffff_0000 | 0;

export function nameBytes(family: Family): number {
  return family === AF_INET ? SOCKADDR_IN_BYTES : SOCKADDR_IN6_BYTES;
}

/** Copies the sockaddr at `name[nameAt]` to `endpoint[at]`, without local address and flags. */
export function endpointFromName(
  family: Family,
  name: Int32Array,
  nameAt: number,
  endpoint: Int32Array,
  at: number,
): void {
  endpoint[at] = name[nameAt]! & ENDPOINT_PORT_MASK;
  if (family === AF_INET) {
    endpoint[at + 1] = 0;
    endpoint[at + 2] = 0;
    endpoint[at + 3] = MAPPED_WORD;
    endpoint[at + 4] = name[nameAt + 1]!;
    endpoint[at + 5] = 0;
  } else {
    endpoint[at + 1] = name[nameAt + 2]!;
    endpoint[at + 2] = name[nameAt + 3]!;
    endpoint[at + 3] = name[nameAt + 4]!;
    endpoint[at + 4] = name[nameAt + 5]!;
    endpoint[at + 5] = name[nameAt + 6]!;
  }
}

/** Writes the endpoint at `endpoint[at]` as a sockaddr of `family` to `name[nameAt]`. */
export function nameFromEndpoint(
  family: Family,
  endpoint: Int32Array,
  at: number,
  name: Int32Array,
  nameAt: number,
): void {
  name[nameAt] = (endpoint[at]! & ENDPOINT_PORT_MASK) | family;
  if (family === AF_INET) {
    name[nameAt + 1] = endpoint[at + 4]!;
  } else {
    name[nameAt + 1] = 0; // flow label
    name[nameAt + 2] = endpoint[at + 1]!;
    name[nameAt + 3] = endpoint[at + 2]!;
    name[nameAt + 4] = endpoint[at + 3]!;
    name[nameAt + 5] = endpoint[at + 4]!;
    name[nameAt + 6] = endpoint[at + 5]!;
  }
}

/** Whether the endpoint at `endpoint[at]` is an IPv4 one. */
export function isIPv4(endpoint: Int32Array, at: number): boolean {
  return endpoint[at + 1] === 0 && endpoint[at + 2] === 0 && endpoint[at + 3] === MAPPED_WORD;
}

/** Returns whether `endpoint[at]` is link-local, in fe80::/10 (RFC 4291, 2.5.6). */
export function isLinkLocal(endpoint: Int32Array, at: number): boolean {
  return (endpoint[at + 1]! & 0xc0ff) === 0x80fe;
}

/** Number of the local address that the endpoint at `endpoint[at]` talks to, 0 if unknown. */
export function localNumber(endpoint: Int32Array, at: number): number {
  return (endpoint[at]! & ENDPOINT_LOCAL_MASK) >>> ENDPOINT_LOCAL_SHIFT;
}

/** Sets that number, 0 to LOCAL_NUMBERS_END - 1. */
export function setLocalNumber(endpoint: Int32Array, at: number, number: number): void {
  endpoint[at] = (endpoint[at]! & ~ENDPOINT_LOCAL_MASK) | (number << ENDPOINT_LOCAL_SHIFT);
}

/** Whether the endpoint at `endpoint[at]` is on this host: in 127.0.0.0/8, or ::1. */
export function isLoopback(endpoint: Int32Array, at: number): boolean {
  if (isIPv4(endpoint, at)) return (endpoint[at + 4]! & 0xff) === 127;
  const isLow = endpoint[at + 1] === 0 && endpoint[at + 2] === 0 && endpoint[at + 3] === 0;
  return isLow && endpoint[at + 4] === 0x0100_0000;
}

/** Whether the endpoint has port 0, to which nothing can be sent. */
export function hasNoPort(endpoint: Int32Array, at: number): boolean {
  return (endpoint[at]! & ENDPOINT_PORT_MASK) === 0;
}

/** An address and port as people write them. */
export interface SocketAddress {
  readonly address: string;
  readonly port: number;
  readonly family: "IPv4" | "IPv6";
}

/** Endpoint words of an IP literal and port; not for the packet path. @throws Error */
export function endpointOf(address: string, port: number): Int32Array {
  const words = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
  const parsed = ipaddr.parse(address);
  const v6 = parsed instanceof ipaddr.IPv6 ? parsed : parsed.toIPv4MappedAddress();
  const bytes = new Uint8Array(words.buffer);
  bytes[2] = port >>> 8;
  bytes[3] = port & 0xff;
  bytes.set(v6.toByteArray(), 4);
  return words;
}

/** The endpoint at `endpoint[at]` as text; IPv4-mapped addresses as IPv4. */
export function socketAddressOf(endpoint: Int32Array, at: number): SocketAddress {
  const bytes = new Uint8Array(endpoint.buffer, endpoint.byteOffset + at * 4, ENDPOINT_WORDS * 4);
  const address = ipaddr.fromByteArray(Array.from(bytes.subarray(4, 20)));
  const port = (bytes[2]! << 8) | bytes[3]!;
  return isIPv4(endpoint, at)
    ? { address: (address as ipaddr.IPv6).toIPv4Address().toString(), port, family: "IPv4" }
    : { address: address.toString(), port, family: "IPv6" };
}
