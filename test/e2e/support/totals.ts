/** A beacon's counters, over all its workers. */
import type { Stats, WorkerStats } from "../../../src/beacon.ts";

type Counts = Readonly<Record<string, number>>;

/** Sum over the workers. */
export function sum(stats: Stats, value: (worker: WorkerStats) => number): number {
  return stats.workers.reduce((all, worker) => all + value(worker), 0);
}

/** Sum over the workers, name by name, without the names that stand at 0. */
export function sumByName(stats: Stats, counts: (worker: WorkerStats) => Counts): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const worker of stats.workers) {
    for (const [name, count] of Object.entries(counts(worker))) {
      if (count !== 0) sums[name] = (sums[name] ?? 0) + count;
    }
  }
  return sums;
}

/** Sum of named counts. */
export function total(counts: Counts): number {
  return Object.values(counts).reduce((all, count) => all + count, 0);
}

/** Datagrams, or segments of merged ones, that the workers have taken: each is in exactly one of these counters. */
export function taken(stats: Stats): number {
  return sum(
    stats,
    (w) => total(w.packetsReceived) + (w.malformed["empty"] ?? 0) + (w.malformed["truncated"] ?? 0),
  );
}

export function socketDrops(stats: Stats): number {
  return sum(stats, (w) => w.socketReceiveDrops ?? 0);
}

/**
 * Whether all that the workers have taken is also done with: a batch's messages, and what was sent, are counted when it is
 * over. For beacons that got no merged messages.
 */
export function isSettled(stats: Stats): boolean {
  return taken(stats) === sum(stats, (w) => w.receiveBatch.messages);
}
