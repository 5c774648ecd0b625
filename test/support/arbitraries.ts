/** What properties draw from: addresses, endpoints, node ids. */
import fc from "fast-check";
import { type Family, NAME_WORDS } from "../../ffi/endpoint.ts";

export const port: fc.Arbitrary<number> = fc.integer({ min: 0, max: 65_535 });
/** Four bytes of an IPv4 address. */
export const v4Bytes = fc.uint8Array({ minLength: 4, maxLength: 4 });
/** Sixteen bytes of an IPv6 address that is not IPv4-mapped. */
export const v6Bytes = fc
  .uint8Array({ minLength: 16, maxLength: 16 })
  .filter(
    (bytes) =>
      !(
        bytes.subarray(0, 10).every((byte) => byte === 0) &&
        bytes[10] === 0xff &&
        bytes[11] === 0xff
      ),
  );

const MAPPED_PREFIX = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/** An endpoint's words made from bytes, by what the header of ffi/endpoint.ts says. */
export function endpointFromBytes(
  address: Uint8Array,
  portNumber: number,
  scope = 0,
): Int32Array<ArrayBuffer> {
  const words = new Int32Array(new ArrayBuffer(24));
  const view = new DataView(words.buffer);
  view.setUint16(2, portNumber);
  new Uint8Array(words.buffer).set(
    address.length === 4 ? [...MAPPED_PREFIX, ...address] : address,
    4,
  );
  view.setUint32(20, scope, true);
  return words;
}

/** A struct sockaddr_in or sockaddr_in6 made field by field. */
export function nameFromBytes(
  family: Family,
  address: Uint8Array,
  portNumber: number,
  scope = 0,
): Int32Array<ArrayBuffer> {
  const words = new Int32Array(new ArrayBuffer(NAME_WORDS * 4));
  const view = new DataView(words.buffer);
  view.setUint16(0, family, true);
  view.setUint16(2, portNumber);
  new Uint8Array(words.buffer).set(address, address.length === 4 ? 4 : 8);
  if (address.length === 16) view.setUint32(24, scope, true);
  return words;
}

export const v4Endpoint = fc.tuple(v4Bytes, port).map(([bytes, p]) => endpointFromBytes(bytes, p));
export const v6Endpoint = fc
  .tuple(v6Bytes, port, fc.nat(0xffff))
  .map(([bytes, p, scope]) => endpointFromBytes(bytes, p, scope));
export const anyEndpoint = fc.oneof(v4Endpoint, v6Endpoint);

/** A node id as the packet path holds it: a signed 32-bit number, not 0. */
export const nodeId = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }).filter((id) => id !== 0);
