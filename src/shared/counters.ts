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

/** Gossip without effect: short, wrong count, no peer, from itself, or over an allowance. */
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

/** Why no node was recorded; the first three in the order of the node table's results. */
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

/** Packet services that an operator can switch off; order of the bits in BREAKERS. */
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

/** Punch requests: two commands were sent; the target is unknown; a node of the bridge was told. */
const PUNCH_OUTCOMES = ["sent", "target_unknown", "bridged"] as const;

/** Where a relayed packet went: to a node of the bridge, of this beacon, or of another one. */
const TIERS = ["bridged", "local", "peer"] as const;

const DIRECTIONS = ["received", "sent"] as const;

/** One kind of packet, or several by the value of a label. */
interface PacketCounter {
  /** The metric's. */
  readonly name: string;
  readonly help: string;
  readonly label?: string;
  readonly values?: readonly string[];
}

/** All counters, by their property in statistics. Sent: what a kernel or connection took. */
export const PACKET_COUNTERS = {
  /** "unknown" are types that the protocol does not have. */
  packetsReceived: {
    name: "beacon_packets_received_total",
    help: "Beacon messages received, by type.",
    label: "type",
    values: MESSAGE_NAMES,
  },
  malformed: {
    name: "beacon_malformed_total",
    help: "Datagrams dropped because they are no message for a beacon, by reason.",
    label: "reason",
    values: MALFORMED_REASONS,
  },
  discovers: { name: "beacon_discover_total", help: "Discover messages handled." },
  nodesRefused: {
    name: "beacon_nodes_refused_total",
    help: "Discovers and punch requests that found no place in the node table, by reason.",
    label: "reason",
    values: REFUSAL_REASONS,
  },
  limited: {
    name: "beacon_limited_total",
    help: "Packets, new nodes and answers dropped by a limit, and claims that moved no node, by limit.",
    label: "limit",
    values: LIMITS,
  },
  limitedShadow: {
    name: "beacon_limited_shadow_total",
    help: "What limits would have dropped while --limits-shadow was on, by limit.",
    label: "limit",
    values: LIMITS,
  },
  switchedOff: {
    name: "beacon_switched_off_total",
    help: "Messages dropped because an operator switched off what they ask for, by breaker.",
    label: "breaker",
    values: BREAKERS,
  },
  punches: {
    name: "beacon_punch_total",
    help: "Punch requests, by outcome.",
    label: "outcome",
    values: PUNCH_OUTCOMES,
  },
  punchGrants: {
    name: "beacon_punch_grants_total",
    help: "Punch requests while --require-punch-grant was on, by what became of them.",
    label: "outcome",
    values: GRANT_OUTCOMES,
  },
  keysRefused: {
    name: "beacon_node_keys_refused_total",
    help: "Discovers with another key than the node's, which keeps its own.",
  },
  relayForwarded: {
    name: "beacon_relay_forwarded_total",
    help: "Relayed packets that the kernel or a bridged node's connection took, by the tier of their destination.",
    label: "tier",
    values: TIERS,
  },
  relayNotFound: {
    name: "beacon_relay_not_found_total",
    help: "Relay packets dropped because nobody knows their destination.",
  },
  relayDropped: {
    name: "beacon_relay_dropped_total",
    help: "Relay packets to a known destination that could not be sent, by reason.",
    label: "reason",
    values: DROP_REASONS,
  },
  repliesSent: {
    name: "beacon_replies_sent_total",
    help: "Discover replies and punch commands that the kernel or a WebSocket connection took.",
  },
  replyDropped: {
    name: "beacon_reply_dropped_total",
    help: "Discover replies and punch commands that could not be sent, by reason.",
    label: "reason",
    values: DROP_REASONS,
  },
  gossipReceived: {
    name: "beacon_gossip_received_total",
    help: "Gossip messages of peers, and of strangers where their gossip is taken.",
  },
  gossipRejected: {
    name: "beacon_gossip_rejected_total",
    help: "Gossip messages that changed nothing, by reason.",
    label: "reason",
    values: GOSSIP_REJECTIONS,
  },
  receivedBytes: {
    name: "beacon_received_bytes_total",
    help: "Payload bytes of UDP datagrams and WebSocket frames received.",
  },
  sentBytes: {
    name: "beacon_sent_bytes_total",
    help: "Payload bytes that the kernel or a WebSocket connection took.",
  },
  offloadSegments: {
    name: "beacon_offload_segments_total",
    help: "Packets that arrived or left merged with others of their flow.",
    label: "direction",
    values: DIRECTIONS,
  },
  receiveErrors: {
    name: "beacon_receive_errors_total",
    help: "Receive calls that failed and were tried again.",
  },
} as const satisfies Readonly<Record<string, PacketCounter>>;

export type PacketCounterName = keyof typeof PACKET_COUNTERS;

let columns = 0;
const reserve = (count: number): number => {
  columns += count;
  return columns - count;
};

/** The first column of each counter; the others follow in the order of its values. */
export const COLUMN = Object.fromEntries(
  Object.entries<PacketCounter>(PACKET_COUNTERS).map(([property, { values }]) => [
    property,
    reserve(values?.length ?? 1),
  ]),
) as Readonly<Record<PacketCounterName, number>>;

// Constants, for the packet path.
export const RECEIVED_AT = COLUMN.packetsReceived;
export const MALFORMED_AT = COLUMN.malformed;
export const RELAY_DROPPED_AT = COLUMN.relayDropped;
export const REPLY_DROPPED_AT = COLUMN.replyDropped;
export const REFUSED_AT = COLUMN.nodesRefused;
export const GOSSIP_REJECTED_AT = COLUMN.gossipRejected;
export const LIMITED_AT = COLUMN.limited; // dropped by a limit
export const SHADOWED_AT = COLUMN.limitedShadow; // would have been dropped
export const BROKEN_AT = COLUMN.switchedOff; // dropped by a breaker
export const RELAY_NOT_FOUND = COLUMN.relayNotFound;
export const DISCOVERS = COLUMN.discovers;
export const GOSSIP_RECEIVED = COLUMN.gossipReceived;
export const RECEIVED_BYTES = COLUMN.receivedBytes;
export const SENT_BYTES = COLUMN.sentBytes;
export const RECEIVE_ERRORS = COLUMN.receiveErrors;
export const KEYS_REFUSED = COLUMN.keysRefused;
export const REPLIES_SENT = COLUMN.repliesSent;
export const PUNCHES_SENT = COLUMN.punches + PUNCH_OUTCOMES.indexOf("sent");
export const PUNCHES_TARGET_UNKNOWN = COLUMN.punches + PUNCH_OUTCOMES.indexOf("target_unknown");
export const PUNCHES_BRIDGED = COLUMN.punches + PUNCH_OUTCOMES.indexOf("bridged");
export const RELAYED_TO_BRIDGE = COLUMN.relayForwarded + TIERS.indexOf("bridged");
export const RELAYED_LOCAL = COLUMN.relayForwarded + TIERS.indexOf("local");
export const RELAYED_TO_PEER = COLUMN.relayForwarded + TIERS.indexOf("peer");
export const SEGMENTS_RECEIVED = COLUMN.offloadSegments + DIRECTIONS.indexOf("received");
export const SEGMENTS_SENT = COLUMN.offloadSegments + DIRECTIONS.indexOf("sent");
/** Receive calls, by the bucket of the messages that they brought; and those messages. */
export const BATCH_AT = reserve(BATCH_BUCKETS.length);
export const BATCH_MESSAGES = reserve(1);

/** Floats of a row: whole cache lines, so that workers do not slow each other down. */
export const COUNTER_ROW = Math.ceil(columns / 8) * 8;

/** Offset of a reason in its list, for code that counts it. */
export const malformedColumn = (reason: MalformedReason): number =>
  MALFORMED_AT + MALFORMED_REASONS.indexOf(reason);
export const grantColumn = (outcome: GrantOutcome): number =>
  COLUMN.punchGrants + GRANT_OUTCOMES.indexOf(outcome);
export const dropOffset = (reason: DropReason): number => DROP_REASONS.indexOf(reason);
