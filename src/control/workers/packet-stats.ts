/** Packet counters, read from shared memory, for statistics and metrics. */
import * as v from "valibot";
import {
  BATCH_AT,
  BATCH_BUCKETS,
  BATCH_MESSAGES,
  COLUMN,
  PACKET_COUNTERS,
  type PacketCounterName,
} from "../../shared/counters.ts";
import type { SharedMemory } from "../../shared/memory.ts";
import { type Counts, type Distribution, type Shown, total } from "../kit/metrics.ts";
import { counts, list, number } from "../kit/schema.ts";

const DECLARED = Object.entries(PACKET_COUNTERS) as [
  PacketCounterName,
  { name: string; help: string; label?: string; values?: readonly string[] },
][];

type Counted = {
  [P in PacketCounterName]: (typeof PACKET_COUNTERS)[P] extends {
    readonly values: readonly string[];
  }
    ? typeof counts
    : typeof number;
};

/** Packets since the start, of a worker, the WebSocket bridge, or punch grants. */
export const packetSchema = v.strictObject({
  ...(Object.fromEntries(
    DECLARED.map(([property, { values }]) => [property, values ? counts : number]),
  ) as Counted),
  /** Messages per receive call: `buckets[i]` calls with at most `bounds[i]` messages. */
  receiveBatch: v.strictObject({
    bounds: list(number),
    buckets: list(number),
    calls: number,
    messages: number,
  }),
});
export type PacketStats = v.InferOutput<typeof packetSchema>;

/** Reads one row of the counters. */
export function packetStats(memory: SharedMemory, row: number): PacketStats {
  const count = (column: number) => memory.counters[row + column]!;
  const counted = DECLARED.map(([property, { values }]) => {
    const at = COLUMN[property];
    return [
      property,
      values ? Object.fromEntries(values.map((name, i) => [name, count(at + i)])) : count(at),
    ];
  });
  const buckets = BATCH_BUCKETS.map((_, i) => count(BATCH_AT + i));
  return {
    ...(Object.fromEntries(counted) as Omit<PacketStats, "receiveBatch">),
    receiveBatch: {
      bounds: BATCH_BUCKETS,
      buckets,
      calls: buckets.reduce((sum, calls) => sum + calls, 0),
      messages: count(BATCH_MESSAGES),
    },
  };
}

/** Metrics of each worker, the bridge and grants: label `worker` "bridge" or "grants". */
export const PACKET_METRICS: readonly Shown<PacketStats>[] = DECLARED.map(
  ([property, { name, help, label }]) => ({
    ...{ name, help, ...(label && { label }) },
    values: (stats) => stats[property],
  }),
);

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
