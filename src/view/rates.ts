/** Rates: the difference of two readings, for the page and the command line. */
import type { Counts } from "../control/kit/metrics.ts";
import type { WorkerStats } from "../control/workers/metrics.ts";
import type { PacketStats } from "../control/workers/packet-stats.ts";
import type { Stats } from "../features.ts";
import { rows, sumOf } from "./totals.ts";

/** Numbers a second, unless they say otherwise. */
export interface Rates {
  /** Seconds between the readings. */
  readonly overS: number;
  readonly packetsIn: number;
  readonly packetsOut: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Relays that went on, by tier: local, peer, bridged. */
  readonly relays: Counts;
  /** Dropped packets by reason, most frequent first; only reasons that occurred. */
  readonly drops: Counts;
  /** Share of a core, of all threads; above 1 it uses several. null if unknown. */
  readonly cores: number | null;
  readonly workers: readonly WorkerRates[];
}

export interface WorkerRates {
  readonly worker: number;
  readonly alive: boolean;
  readonly packetsIn: number;
  readonly packetsOut: number;
  /** Share of the time that its loop works, 0 to 1; null while it cannot be told. */
  readonly busy: number | null;
  /** Messages that a receive call brings, on average; 0 without any. */
  readonly batch: number;
  /** Share of its packets that arrived, and that left, merged with others, 0 to 1. */
  readonly mergedIn: number;
  readonly mergedOut: number;
  /** Datagrams that the kernel dropped at its socket. */
  readonly kernelDrops: number | null;
}

/**
 * @param earlier a reading of the same beacon, or of one that was replaced meanwhile
 * @returns undefined if the two are not of one run of the beacon, or of the same moment
 */
export function ratesBetween(earlier: Stats, later: Stats): Rates | undefined {
  const overS = later.uptimeS - earlier.uptimeS;
  if (overS <= 0 || earlier.workers.length !== later.workers.length) return undefined;
  const per = (from: number, to: number) => Math.max(0, to - from) / overS;
  const packets = (value: (stats: PacketStats) => number) =>
    per(sum(earlier, value), sum(later, value));
  return {
    overS,
    packetsIn: packets(packetsIn),
    packetsOut: packets(packetsOut),
    bytesIn: packets((stats) => stats.receivedBytes),
    bytesOut: packets((stats) => stats.sentBytes),
    relays: Object.fromEntries(
      Object.keys(later.workers[0]?.relayForwarded ?? {}).map((tier) => [
        tier,
        packets((stats) => stats.relayForwarded[tier] ?? 0),
      ]),
    ),
    drops: dropRates(earlier, later, overS),
    cores: earlier.cpuS === null || later.cpuS === null ? null : per(earlier.cpuS, later.cpuS),
    workers: later.workers.map((worker, i) => workerRates(earlier.workers[i]!, worker, overS)),
  };
}

/** Packets that went no further since the beacon started, by reason. */
export function drops(stats: Stats): Counts {
  const counts: Record<string, number> = {};
  const add = (prefix: string, some: Counts) => {
    for (const [reason, count] of Object.entries(some)) {
      const name = prefix === "" ? reason : `${prefix}: ${reason}`;
      counts[name] = (counts[name] ?? 0) + count;
    }
  };
  for (const worker of stats.workers) add("", { "kernel buffer": worker.socketReceiveDrops ?? 0 });
  for (const row of rows(stats)) {
    add("", { "not found": row.relayNotFound });
    add("relay", row.relayDropped);
    add("reply", row.replyDropped);
    add("limit", row.limited);
    add("switched off", row.switchedOff);
    add("malformed", row.malformed);
    add("node refused", row.nodesRefused);
    add("gossip", row.gossipRejected);
    add("punch", { "target unknown": row.punches["target_unknown"] ?? 0 });
  }
  return counts;
}

function dropRates(earlier: Stats, later: Stats, overS: number): Counts {
  const before = drops(earlier);
  const rates = Object.entries(drops(later)).map(
    ([reason, count]) => [reason, (count - (before[reason] ?? 0)) / overS] as const,
  );
  return Object.fromEntries(rates.filter(([, rate]) => rate > 0).sort(([, a], [, b]) => b - a));
}

function workerRates(earlier: WorkerStats, later: WorkerStats, overS: number): WorkerRates {
  const per = (value: (stats: WorkerStats) => number) =>
    Math.max(0, value(later) - value(earlier)) / overS;
  const ratio = (part: number, whole: number) => (whole === 0 ? 0 : part / whole);
  const share = (part: number, whole: number) => Math.min(1, ratio(part, whole));
  const received = per(packetsIn);
  const sent = per(packetsOut);
  return {
    worker: later.worker,
    alive: later.alive,
    packetsIn: received,
    packetsOut: sent,
    // A thread that was replaced begins at 0.
    busy:
      later.cpuS === null || earlier.cpuS === null || later.cpuS < earlier.cpuS
        ? null
        : Math.min(1, (later.cpuS - earlier.cpuS) / overS),
    batch: ratio(
      per((stats) => stats.receiveBatch.messages),
      per((stats) => stats.receiveBatch.calls),
    ),
    mergedIn: share(
      per((stats) => stats.offloadSegments["received"]!),
      received,
    ),
    mergedOut: share(
      per((stats) => stats.offloadSegments["sent"]!),
      sent,
    ),
    kernelDrops:
      later.socketReceiveDrops === null ? null : per((stats) => stats.socketReceiveDrops ?? 0),
  };
}

function sum(stats: Stats, value: (stats: PacketStats) => number): number {
  return rows(stats).reduce((all, row) => all + value(row), 0);
}

function packetsIn({ packetsReceived }: PacketStats): number {
  return sumOf(packetsReceived);
}

function packetsOut({ relayForwarded, repliesSent }: PacketStats): number {
  return sumOf(relayForwarded) + repliesSent;
}
