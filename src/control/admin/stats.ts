/** The beacon's numbers: read out of shared memory, once, in the shape that everything else shows them in. */
import type { SocketAddress } from "../../../ffi/endpoint.ts";
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
import type { BridgeStats } from "../bridge/bridge.ts";
import type { DirectoryStats } from "../directory/stats.ts";
import type { BreakerStates } from "../limits/breakers.ts";
import type { MeshStats } from "../mesh/mesh.ts";
import type { PunchedPairs } from "../punch/outcomes.ts";

/** Counts by name: message type, reason or outcome. */
export type Counts = Readonly<Record<string, number>>;

/** What was counted of packets since the beacon started, by a worker, for the WebSocket bridge, or for punches with grants. */
export interface PacketStats {
  /** Beacon messages by type; "unknown" are types that the protocol does not have. */
  readonly packetsReceived: Counts;
  readonly malformed: Counts;
  readonly discovers: number;
  /** Discovers and PunchRequests that found no place in the table. */
  readonly nodesRefused: Counts;
  /** What limits dropped; and what they would have, in shadow. Of the endpoint hold, claims that moved nothing. */
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
  /** DiscoverReplies and PunchCommands that the kernel took, or the connection of a bridged node. */
  readonly repliesSent: number;
  readonly replyDropped: Counts;
  /** Gossip of peers, and of strangers that may be believed, that was handed on, and gossip of anybody that was not. */
  readonly gossipReceived: number;
  readonly gossipRejected: Counts;
  /** Payload of UDP datagrams and of WebSocket frames, of all packets that are counted above, without headers. */
  readonly receivedBytes: number;
  readonly sentBytes: number;
  /** Messages a receive call brought: `buckets[i]` calls brought at most `bounds[i]`, and more than the bound before. */
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

/** One worker's counts; a worker that was replaced goes on counting. */
export interface WorkerStats extends PacketStats {
  readonly worker: number;
  readonly alive: boolean;
  readonly restarts: number;
  /** Datagrams that the kernel dropped at this worker's socket, mostly because its buffer was full; null if it does not tell. */
  readonly socketReceiveDrops: number | null;
  /** Seconds of CPU that its thread has used; null while it has none, or if that cannot be read. A worker that was replaced starts anew. */
  readonly cpuS: number | null;
}

export interface Stats {
  readonly version: string;
  readonly beaconId: number;
  readonly address: SocketAddress;
  readonly uptimeS: number;
  readonly healthy: boolean;
  /** Why /readyz answers 503; null if it answers 200. */
  readonly notReady: string | null;
  /** Warnings though the beacon is ready, a sentence each. */
  readonly warnings: readonly string[];
  readonly nodes: number;
  readonly nodesMax: number;
  /** Bytes of this process in memory, and the CPU seconds it used; null if that cannot be read. */
  readonly residentBytes: number | null;
  readonly cpuS: number | null;
  readonly mesh: MeshStats;
  /** null without a directory. */
  readonly directory: DirectoryStats | null;
  /** What became of pairs of nodes that were told of each other. */
  readonly punchedPairs: PunchedPairs;
  /** What an operator has switched off, and what not. */
  readonly breakers: BreakerStates;
  /** Log lines that were dropped, as standard output did not take them. */
  readonly logLinesDropped: number;
  /** When the node table was last saved, in Unix seconds; null if it was not. */
  readonly stateSavedS: number | null;
  readonly workers: readonly WorkerStats[];
  /** The WebSocket bridge, and what came of the packets that came through it; null if there is none. */
  readonly bridge: (BridgeStats & { readonly packets: PacketStats }) | null;
  /** What came of punch requests whose grants the main thread verified; null if grants were never required. */
  readonly grants: PacketStats | null;
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

/** Sum of named counts. */
export function total(counts: Counts): number {
  return Object.values(counts).reduce((sum, value) => sum + value, 0);
}
