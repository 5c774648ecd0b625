/**
 * What was counted of packets: read out of shared memory, in the shape that statistics and metrics
 * have.
 */
import { MESSAGE_NAMES } from "../../protocol.ts";
import {
  BATCH_AT,
  BATCH_BUCKETS,
  BATCH_MESSAGES,
  BREAKERS,
  BROKEN_AT,
  DISCOVERS,
  DROP_REASONS,
  GOSSIP_RECEIVED,
  GOSSIP_REJECTED_AT,
  GOSSIP_REJECTIONS,
  GRANT_OUTCOMES,
  GRANTS_AT,
  KEYS_REFUSED,
  LIMITED_AT,
  LIMITS,
  MALFORMED_AT,
  MALFORMED_REASONS,
  PUNCHES_BRIDGED,
  PUNCHES_SENT,
  PUNCHES_TARGET_UNKNOWN,
  RECEIVE_ERRORS,
  RECEIVED_AT,
  RECEIVED_BYTES,
  REFUSAL_REASONS,
  REFUSED_AT,
  RELAY_DROPPED_AT,
  RELAY_NOT_FOUND,
  RELAYED_LOCAL,
  RELAYED_TO_BRIDGE,
  RELAYED_TO_PEER,
  REPLIES_SENT,
  REPLY_DROPPED_AT,
  SEGMENTS_RECEIVED,
  SEGMENTS_SENT,
  SENT_BYTES,
  SHADOWED_AT,
} from "../../shared/counters.ts";
import type { SharedMemory } from "../../shared/memory.ts";
import { type Counts, type Distribution, type Shown, total } from "../kit/metrics.ts";

/**
 * What was counted of packets since the beacon started, by a worker, for the WebSocket bridge, or
 * for punches with grants.
 */
export interface PacketStats {
  /** Beacon messages by type; "unknown" are types that the protocol does not have. */
  readonly packetsReceived: Counts;
  readonly malformed: Counts;
  readonly discovers: number;
  /** Discovers and PunchRequests that found no place in the table. */
  readonly nodesRefused: Counts;
  /**
   * What limits dropped; and what they would have, in shadow. Of the endpoint hold, claims that
   * moved nothing.
   */
  readonly limited: Counts;
  readonly limitedShadow: Counts;
  /** What was dropped because it is switched off. */
  readonly switchedOff: Counts;
  readonly punches: Counts;
  /** What became of punch requests while grants were required. */
  readonly punchGrants: Counts;
  /** Discovers with another key than the node's. */
  readonly keysRefused: number;
  /** Packets that the kernel took, or the connection of a bridged node, by tier. */
  readonly relayForwarded: Counts;
  readonly relayNotFound: number;
  readonly relayDropped: Counts;
  /**
   * DiscoverReplies and PunchCommands that the kernel took, or the connection of a bridged node.
   */
  readonly repliesSent: number;
  readonly replyDropped: Counts;
  /**
   * Gossip of peers, and of strangers that may be believed, that was handed on, and gossip of
   * anybody that was not.
   */
  readonly gossipReceived: number;
  readonly gossipRejected: Counts;
  /**
   * Payload of UDP datagrams and of WebSocket frames, of all packets that are counted above,
   * without headers.
   */
  readonly receivedBytes: number;
  readonly sentBytes: number;
  /**
   * Messages a receive call brought: `buckets[i]` calls brought at most `bounds[i]`, and more than
   * the bound before.
   */
  readonly receiveBatch: {
    readonly bounds: readonly number[];
    readonly buckets: readonly number[];
    readonly calls: number;
    readonly messages: number;
  };
  /** Packets that arrived, or left, merged with others. */
  readonly offloadSegments: { readonly received: number; readonly sent: number };
  readonly receiveErrors: number;
}

/** Reads one row of the counters. */
export function packetStats(memory: SharedMemory, row: number): PacketStats {
  const count = (column: number) => memory.counters[row + column]!;
  const byName = (at: number, names: readonly string[]) =>
    Object.fromEntries(names.map((name, i) => [name, count(at + i)]));
  const buckets = BATCH_BUCKETS.map((_, i) => count(BATCH_AT + i));
  return {
    packetsReceived: byName(RECEIVED_AT, MESSAGE_NAMES),
    malformed: byName(MALFORMED_AT, MALFORMED_REASONS),
    discovers: count(DISCOVERS),
    nodesRefused: byName(REFUSED_AT, REFUSAL_REASONS),
    limited: byName(LIMITED_AT, LIMITS),
    limitedShadow: byName(SHADOWED_AT, LIMITS),
    switchedOff: byName(BROKEN_AT, BREAKERS),
    punches: {
      sent: count(PUNCHES_SENT),
      target_unknown: count(PUNCHES_TARGET_UNKNOWN),
      bridged: count(PUNCHES_BRIDGED),
    },
    punchGrants: byName(GRANTS_AT, GRANT_OUTCOMES),
    keysRefused: count(KEYS_REFUSED),
    relayForwarded: {
      bridged: count(RELAYED_TO_BRIDGE),
      local: count(RELAYED_LOCAL),
      peer: count(RELAYED_TO_PEER),
    },
    relayNotFound: count(RELAY_NOT_FOUND),
    relayDropped: byName(RELAY_DROPPED_AT, DROP_REASONS),
    repliesSent: count(REPLIES_SENT),
    replyDropped: byName(REPLY_DROPPED_AT, DROP_REASONS),
    gossipReceived: count(GOSSIP_RECEIVED),
    gossipRejected: byName(GOSSIP_REJECTED_AT, GOSSIP_REJECTIONS),
    receivedBytes: count(RECEIVED_BYTES),
    sentBytes: count(SENT_BYTES),
    receiveBatch: {
      bounds: BATCH_BUCKETS,
      buckets,
      calls: buckets.reduce((sum, calls) => sum + calls, 0),
      messages: count(BATCH_MESSAGES),
    },
    offloadSegments: { received: count(SEGMENTS_RECEIVED), sent: count(SEGMENTS_SENT) },
    receiveErrors: count(RECEIVE_ERRORS),
  };
}

/**
 * Counted by each worker, for the WebSocket bridge, and for grants; their label `worker` is
 * "bridge" or "grants" then.
 */
export const PACKET_COUNTERS: readonly Shown<PacketStats>[] = [
  {
    name: "beacon_packets_received_total",
    help: "Beacon messages received, by type.",
    label: "type",
    values: (stats) => stats.packetsReceived,
  },
  {
    name: "beacon_malformed_total",
    help: "Datagrams dropped because they are no message for a beacon, by reason.",
    label: "reason",
    values: (stats) => stats.malformed,
  },
  {
    name: "beacon_discover_total",
    help: "Discover messages handled.",
    values: (stats) => stats.discovers,
  },
  {
    name: "beacon_nodes_refused_total",
    help: "Discovers and punch requests that found no place in the node table, by reason.",
    label: "reason",
    values: (stats) => stats.nodesRefused,
  },
  {
    name: "beacon_limited_total",
    help: "Packets, new nodes and answers dropped by a limit, and claims that moved no node, by limit.",
    label: "limit",
    values: (stats) => stats.limited,
  },
  {
    name: "beacon_limited_shadow_total",
    help: "What limits would have dropped while --limits-shadow was on, by limit.",
    label: "limit",
    values: (stats) => stats.limitedShadow,
  },
  {
    name: "beacon_switched_off_total",
    help: "Messages dropped because an operator switched off what they ask for, by breaker.",
    label: "breaker",
    values: (stats) => stats.switchedOff,
  },
  {
    name: "beacon_punch_total",
    help: "Punch requests, by outcome.",
    label: "outcome",
    values: (stats) => stats.punches,
  },
  {
    name: "beacon_punch_grants_total",
    help: "Punch requests while --require-punch-grant was on, by what became of them.",
    label: "outcome",
    values: (stats) => stats.punchGrants,
  },
  {
    name: "beacon_node_keys_refused_total",
    help: "Discovers with another key than the node's, which keeps its own.",
    values: (stats) => stats.keysRefused,
  },
  {
    name: "beacon_relay_forwarded_total",
    help: "Relayed packets that the kernel or a bridged node's connection took, by the tier of their destination.",
    label: "tier",
    values: (stats) => stats.relayForwarded,
  },
  {
    name: "beacon_relay_not_found_total",
    help: "Relay packets dropped because nobody knows their destination.",
    values: (stats) => stats.relayNotFound,
  },
  {
    name: "beacon_relay_dropped_total",
    help: "Relay packets to a known destination that could not be sent, by reason.",
    label: "reason",
    values: (stats) => stats.relayDropped,
  },
  {
    name: "beacon_replies_sent_total",
    help: "Discover replies and punch commands that the kernel or a WebSocket connection took.",
    values: (stats) => stats.repliesSent,
  },
  {
    name: "beacon_reply_dropped_total",
    help: "Discover replies and punch commands that could not be sent, by reason.",
    label: "reason",
    values: (stats) => stats.replyDropped,
  },
  {
    name: "beacon_gossip_received_total",
    help: "Gossip messages of peers, and of strangers where their gossip is taken.",
    values: (stats) => stats.gossipReceived,
  },
  {
    name: "beacon_gossip_rejected_total",
    help: "Gossip messages that changed nothing, by reason.",
    label: "reason",
    values: (stats) => stats.gossipRejected,
  },
  {
    name: "beacon_received_bytes_total",
    help: "Payload bytes of UDP datagrams and WebSocket frames received.",
    values: (stats) => stats.receivedBytes,
  },
  {
    name: "beacon_sent_bytes_total",
    help: "Payload bytes that the kernel or a WebSocket connection took.",
    values: (stats) => stats.sentBytes,
  },
  {
    name: "beacon_offload_segments_total",
    help: "Packets that arrived or left merged with others of their flow.",
    label: "direction",
    values: (stats) => ({ ...stats.offloadSegments }),
  },
  {
    name: "beacon_receive_errors_total",
    help: "Receive calls that failed and were tried again.",
    values: (stats) => stats.receiveErrors,
  },
];

export const RECEIVE_BATCH: Shown<PacketStats, Distribution> = {
  name: "beacon_receive_batch_size",
  help: "Messages that one receive call brought; a merged message counts once.",
  values: ({ receiveBatch: { bounds, buckets, calls, messages } }) => ({
    bounds,
    counts: buckets,
    count: calls,
    sum: messages,
  }),
};

/** Counts of the log's statistics line, of one row. */
export function packetSummary(row: PacketStats): Counts {
  return {
    received: total(row.packetsReceived),
    relayed: total(row.relayForwarded),
    notFound: row.relayNotFound,
    dropped: total(row.relayDropped) + total(row.replyDropped),
    discovers: row.discovers,
    refused: total(row.nodesRefused),
    limited: total(row.limited),
    limitedShadow: total(row.limitedShadow),
    switchedOff: total(row.switchedOff),
    punches: row.punches["sent"]!,
    punchGrantsRefused: total(row.punchGrants) - row.punchGrants["ok"]!,
    punchTargetsUnknown: row.punches["target_unknown"]!,
    gossip: row.gossipReceived,
    gossipRejected: total(row.gossipRejected),
    malformed: total(row.malformed),
  };
}
