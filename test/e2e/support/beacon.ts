/** Options of a beacon in tests, and sums of its counters over all workers. */
import type { Config, Stats, WorkerStats } from "../../../src/beacon.ts";
import { settings } from "../../../src/settings.ts";

export const UNLIMITED = {
  relayLimit: 0,
  relayAddressLimit: 0,
  punchSourceLimit: 0,
  punchLimit: 0,
  endpointHoldMs: 0,
  newNodeLimit: 0,
  answerLimit: 0,
  wssUpgradeLimit: 0,
  wssFailureLimit: 0,
} satisfies Partial<Config>;

const flags = Object.keys(UNLIMITED).map(
  (name) => settings.find(({ property }) => property === name)!.flag,
);

/** The same for a process. */
export const UNLIMITED_FLAGS: readonly string[] = flags.map((flag) => `--${flag}=0`);

type Counts = Readonly<Record<string, number>>;

/** Sum over the workers. */
export function sum(stats: Stats, value: (worker: WorkerStats) => number): number {
  return stats.workers.reduce((all, worker) => all + value(worker), 0);
}

/** Sum over the workers, name by name, without the names that stand at 0. */
export function sumByName(
  stats: Stats,
  counts: (worker: WorkerStats) => Counts,
): Record<string, number> {
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

/**
 * Datagrams, or segments of merged ones, that the workers have taken: each is in exactly one of
 * these counters.
 */
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
 * Whether all that the workers have taken is also done with: a batch's messages, and what was sent,
 * are counted when it is over. For beacons that got no merged messages.
 */
export function isSettled(stats: Stats): boolean {
  return taken(stats) === sum(stats, (w) => w.receiveBatch.messages);
}
