/**
 * What a beacon says on the wire. One message a datagram, its first byte the type; integers are
 * big-endian. Bytes behind the fields named here are tolerated and ignored.
 *
 *   0x01 Discover          [01][nodeId u32]
 *   0x02 DiscoverReply     [02][ipLen u8 = 4 or 16][ip][port u16]
 *   0x03 PunchRequest      [03][requesterId u32][targetId u32]
 *   0x04 PunchCommand      [04][ipLen u8][ip][port u16]
 *   0x05 Relay             [05][senderId u32][destId u32][payload]
 *   0x06 RelayDeliver      [06][senderId u32][payload]
 *   0x07 Sync              [07][beaconId u32][count u16][nodeId u32 × count], signed: [instance u64][Unix ms u64][HMAC-SHA-256]
 *   0x08 DiscoverEx        as 0x01, from a node that wants 0x09 in place of 0x06
 *   0x09 RelayDeliverDest  [09][senderId u32][destId u32][payload]
 *
 * Where a beacon asks for grants, two of these have more behind them:
 *
 *   Discover, DiscoverEx   [public key 32], the node's Ed25519 key
 *   PunchRequest           [expiry u64, Unix seconds][signature 64], an Ed25519 signature of `punchGrantText` by the target
 */
import { ENDPOINT_PORT_MASK, isIPv4 } from "../ffi/endpoint.ts";

export const DISCOVER = 0x01;
export const DISCOVER_REPLY = 0x02;
export const PUNCH_REQUEST = 0x03;
export const PUNCH_COMMAND = 0x04;
export const RELAY = 0x05;
export const RELAY_DELIVER = 0x06;
export const SYNC = 0x07;
export const DISCOVER_EX = 0x08;
export const RELAY_DELIVER_DEST = 0x09;

/** Message names by type, as metrics and the log name them. */
export const MESSAGE_NAMES = [
  "unknown",
  "discover",
  "discover_reply",
  "punch_request",
  "punch_command",
  "relay",
  "relay_deliver",
  "sync",
  "discover_ex",
  "relay_deliver_dest",
] as const;

/** Bytes of the fixed part; a shorter datagram is malformed. */
export const DISCOVER_BYTES = 5;
export const PUNCH_REQUEST_BYTES = 9;
export const RELAY_BYTES = 9;
export const RELAY_DELIVER_BYTES = 5;
/** With the key, and with the grant; where those start. */
export const DISCOVER_WITH_KEY_BYTES = DISCOVER_BYTES + 32;
export const PUNCH_REQUEST_WITH_GRANT_BYTES = PUNCH_REQUEST_BYTES + 8 + 64;
export const NODE_KEY_AT = DISCOVER_BYTES;
export const GRANT_EXPIRY_AT = PUNCH_REQUEST_BYTES;
export const GRANT_SIGNATURE_AT = GRANT_EXPIRY_AT + 8;
export const SYNC_BYTES = 7;

/** Offsets of node ids, and of what a delivery starts with, from the message's first byte. */
export const FIRST_ID_AT = 1;
export const SECOND_ID_AT = 5;
/** A Relay becomes a RelayDeliver in place by starting this many bytes later. */
export const DELIVER_AT = RELAY_BYTES - RELAY_DELIVER_BYTES;

/** Offset of a Sync's count; the beacon id is at FIRST_ID_AT, node ids at SYNC_BYTES. */
export const SYNC_COUNT_AT = 5;
/** Extra bytes of a signed Sync, which beacons without a key ignore: gossip-signature.ts. */
export const SYNC_TRAILER_BYTES = 8 + 8 + 32;

/** The longest DiscoverReply or PunchCommand: an IPv6 one. */
export const ADDRESS_MESSAGE_BYTES_MAX = 1 + 1 + 16 + 2;

/**
 * What a node signs to let another one ask for a punch with it. In ASCII, numbers decimal.
 * @param requesterId unsigned, as the target's id
 * @param expiryS Unix seconds; the grant is good before them
 */
export function punchGrantText(requesterId: number, targetId: number, expiryS: number): string {
  return `punch-grant:${requesterId}:${targetId}:${expiryS}`;
}

/**
 * Writes a DiscoverReply or PunchCommand for the endpoint at `endpoint[at]` to `bytes[to]`. An
 * IPv4-mapped address is written as 4 bytes.
 * @returns its length: 8 or 20
 */
export function writeAddressMessage(
  type: typeof DISCOVER_REPLY | typeof PUNCH_COMMAND,
  endpoint: Int32Array,
  at: number,
  bytes: Uint8Array,
  to: number,
): number {
  const v4 = isIPv4(endpoint, at);
  const ipBytes = v4 ? 4 : 16;
  bytes[to] = type;
  bytes[to + 1] = ipBytes;
  let next = to + 2;
  for (let word = at + (v4 ? 4 : 1); word < at + 5; word++) {
    const value = endpoint[word]!;
    bytes[next++] = value;
    bytes[next++] = value >>> 8;
    bytes[next++] = value >>> 16;
    bytes[next++] = value >>> 24;
  }
  const port = endpoint[at]! & ENDPOINT_PORT_MASK;
  bytes[next++] = port >>> 16;
  bytes[next++] = port >>> 24;
  return next - to;
}

/** Rewrites a Relay's head to a RelayDeliver's, `DELIVER_AT` bytes further, in place. */
export function rewriteToDeliver(packets: DataView, at: number): void {
  const senderId = packets.getInt32(at + FIRST_ID_AT);
  packets.setUint8(at + DELIVER_AT, RELAY_DELIVER);
  packets.setInt32(at + DELIVER_AT + FIRST_ID_AT, senderId);
}

/** A Relay becomes a RelayDeliverDest, in place: only the type differs. */
export function rewriteToDeliverDest(packets: DataView, at: number): void {
  packets.setUint8(at, RELAY_DELIVER_DEST);
}
