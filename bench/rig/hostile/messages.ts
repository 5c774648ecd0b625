/** Beacon messages without end: the n-th of each is made of the n-th ids. */
import {
  DISCOVER,
  DISCOVER_BYTES,
  FIRST_ID_AT,
  PUNCH_REQUEST,
  PUNCH_REQUEST_BYTES,
  RELAY,
  RELAY_BYTES,
  SECOND_ID_AT,
  SYNC,
  SYNC_BYTES,
  SYNC_COUNT_AT,
} from "../../../src/protocol.ts";
import type { Write } from "./datagrams.ts";

/** The n-th id. */
export type Ids = (n: number) => number;

export const always =
  (id: number): Ids =>
  () =>
    id;
export const inTurn =
  (ids: readonly number[]): Ids =>
  (n) =>
    ids[n % ids.length]!;
/** `first` and those after it, `count` of them, over and over. */
export const upFrom =
  (first: number, count = 2 ** 24): Ids =>
  (n) =>
    first + (n % count);

/** Ids that no node has which is not an attacker's. */
export const NOBODYS_FROM = 0x2000_0000;
/** Beyond an honest packet, and small enough to leave the line to others. */
const PAYLOAD_BYTES = 100;
export const MESSAGE_BYTES_MAX = RELAY_BYTES + PAYLOAD_BYTES;

export function discovers(ids: Ids): Write {
  return (view, at, n) => {
    view.setUint8(at, DISCOVER);
    view.setUint32(at + FIRST_ID_AT, ids(n));
    return DISCOVER_BYTES;
  };
}

export function punchRequests(requesters: Ids, targets: Ids): Write {
  return (view, at, n) => {
    view.setUint8(at, PUNCH_REQUEST);
    view.setUint32(at + FIRST_ID_AT, requesters(n));
    view.setUint32(at + SECOND_ID_AT, targets(n));
    return PUNCH_REQUEST_BYTES;
  };
}

export function relays(senders: Ids, destinations: Ids, payloadBytes = PAYLOAD_BYTES): Write {
  return (view, at, n) => {
    view.setUint8(at, RELAY);
    view.setUint32(at + FIRST_ID_AT, senders(n));
    view.setUint32(at + SECOND_ID_AT, destinations(n));
    return RELAY_BYTES + payloadBytes;
  };
}

export const gossipBytes = (ids: number): number => SYNC_BYTES + 4 * ids;

/**
 * Gossip that claims these nodes.
 * @param count what it says of their number, 0 to 65,535; the truth unless given
 */
export function gossip(
  beaconId: number,
  nodeIds: readonly number[],
  count = nodeIds.length,
): Write {
  return (view, at) => {
    view.setUint8(at, SYNC);
    view.setUint32(at + FIRST_ID_AT, beaconId);
    view.setUint16(at + SYNC_COUNT_AT, count);
    for (const [i, id] of nodeIds.entries()) view.setUint32(at + SYNC_BYTES + 4 * i, id);
    return gossipBytes(nodeIds.length);
  };
}

/** One of several sorts after the other; each gets numbers of its own without a gap. */
export function alternating(...sorts: readonly Write[]): Write {
  return (view, at, n) => sorts[n % sorts.length]!(view, at, Math.floor(n / sorts.length));
}
