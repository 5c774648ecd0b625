/**
 * What is counted of packets. Each worker owns one row of 64-bit floats in shared memory and is its
 * only writer; the main thread reads, and has rows of its own for what comes through the WebSocket
 * bridge and for punches with grants. A float counts exactly to 2^53, and no allocation is needed
 * to write one.
 */
import { MESSAGE_NAMES } from "../protocol.ts";

/** Datagrams dropped because they are no message for a beacon. */
export const MALFORMED_REASONS = [
  "empty",
  "short",
  "unknown_type",
  "not_for_beacon",
  "truncated",
  "no_source_port",
] as const;
export type MalformedReason = (typeof MALFORMED_REASONS)[number];

/**
 * Packets dropped because the kernel did not take them; or the node's entry did not hold still to
 * be read; or there was no room on the way to the WebSocket bridge; or they came from there with
 * the sender id of another node.
 */
export const DROP_REASONS = [
  "buffer_full",
  "unreachable",
  "denied",
  "too_big",
  "send_error",
  "contended",
  "bridge_full",
  "forged_sender",
] as const;
export type DropReason = (typeof DROP_REASONS)[number];

/**
 * Gossip that changed nothing: cut short, of a count that it does not hold, from no peer, from this
 * beacon itself, too much of a peer's, of strangers', or of all.
 */
export const GOSSIP_REJECTIONS = [
  "short",
  "count",
  "unknown_peer",
  "own_id",
  "peer_limit",
  "stranger_limit",
  "mailbox_full",
] as const;
export type GossipRejection = (typeof GOSSIP_REJECTIONS)[number];

/**
 * Why a Discover or PunchRequest recorded no node; the first three in the order of the node table's
 * results. The last: it came from an address at which no node may be, and nothing was answered.
 */
export const REFUSAL_REASONS = [
  "node_limit",
  "shard_full",
  "contended",
  "denied_endpoint",
] as const;

/** Limits that packets meet, in the order of limits.ts. */
export const LIMITS = [
  "relay",
  "relay_address",
  "punch_source",
  "punch",
  "new_node",
  "answer",
  "endpoint_hold",
] as const;
export type Limit = (typeof LIMITS)[number];

/**
 * What an operator can switch off of the packets' ways; the order is that of the bits in the rules'
 * word BREAKERS.
 */
export const BREAKERS = ["discover", "punch", "relay"] as const;

/**
 * What became of punch requests while grants were required. missing: without one. expired,
 * too_long: by its time, see src/control/punch/grants.ts. forged: not signed by the target's key,
 * or for another pair. unknown_key: the target's is not known; bad_key: it is none. key_source: at
 * the moment it could not be had. overload: more than are verified.
 */
export const GRANT_OUTCOMES = [
  "ok",
  "missing",
  "expired",
  "too_long",
  "forged",
  "unknown_key",
  "bad_key",
  "key_source",
  "overload",
] as const;
export type GrantOutcome = (typeof GRANT_OUTCOMES)[number];

/** Upper bounds of the batch histogram's buckets: messages a receive call brought. */
export const BATCH_BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] as const;

// The columns of a row, in order. Names ending in `_AT` start as many columns as the list behind
// them has.
export const RECEIVED_AT = 0; // by message type
export const MALFORMED_AT = RECEIVED_AT + MESSAGE_NAMES.length;
export const RELAY_DROPPED_AT = MALFORMED_AT + MALFORMED_REASONS.length;
export const REPLY_DROPPED_AT = RELAY_DROPPED_AT + DROP_REASONS.length;
export const REFUSED_AT = REPLY_DROPPED_AT + DROP_REASONS.length;
export const BATCH_AT = REFUSED_AT + REFUSAL_REASONS.length;
export const GOSSIP_REJECTED_AT = BATCH_AT + BATCH_BUCKETS.length;
export const LIMITED_AT = GOSSIP_REJECTED_AT + GOSSIP_REJECTIONS.length; // dropped by a limit
export const SHADOWED_AT = LIMITED_AT + LIMITS.length; // would have been dropped
export const BROKEN_AT = SHADOWED_AT + LIMITS.length; // dropped by a breaker
export const GRANTS_AT = BROKEN_AT + BREAKERS.length;
const SINGLES_AT = GRANTS_AT + GRANT_OUTCOMES.length;
export const RELAYED_LOCAL = SINGLES_AT;
export const RELAYED_TO_PEER = SINGLES_AT + 1;
export const RELAY_NOT_FOUND = SINGLES_AT + 2;
export const DISCOVERS = SINGLES_AT + 3;
export const PUNCHES_SENT = SINGLES_AT + 4;
export const PUNCHES_TARGET_UNKNOWN = SINGLES_AT + 5;
export const GOSSIP_RECEIVED = SINGLES_AT + 6;
export const RECEIVED_BYTES = SINGLES_AT + 7;
export const SENT_BYTES = SINGLES_AT + 8;
export const BATCH_MESSAGES = SINGLES_AT + 9;
export const SEGMENTS_RECEIVED = SINGLES_AT + 10;
export const SEGMENTS_SENT = SINGLES_AT + 11;
export const RECEIVE_ERRORS = SINGLES_AT + 12;
export const RELAYED_TO_BRIDGE = SINGLES_AT + 13;
export const PUNCHES_BRIDGED = SINGLES_AT + 14;
export const KEYS_REFUSED = SINGLES_AT + 15;
export const REPLIES_SENT = SINGLES_AT + 16;
const COLUMNS = SINGLES_AT + 17;

/**
 * Floats from one row to the next: whole cache lines, so that workers do not slow each other down.
 */
export const COUNTER_ROW = Math.ceil(COLUMNS / 8) * 8;

/** Offset of a reason in its list, for code that counts it. */
export const malformedColumn = (reason: MalformedReason): number =>
  MALFORMED_AT + MALFORMED_REASONS.indexOf(reason);
export const grantColumn = (outcome: GrantOutcome): number =>
  GRANTS_AT + GRANT_OUTCOMES.indexOf(outcome);
export const dropOffset = (reason: DropReason): number => DROP_REASONS.indexOf(reason);
