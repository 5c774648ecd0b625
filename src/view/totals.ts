/** Counts of all workers, the bridge and the grants together. */
import type { Counts } from "../control/kit/metrics.ts";
import type { PacketStats } from "../control/workers/packet-stats.ts";
import type { Stats } from "../features.ts";

/** All rows of counts: the workers', the bridge's, that of grants. */
export function rows({ workers, bridge, grants }: Stats): readonly PacketStats[] {
  return [...workers, ...(bridge ? [bridge.packets] : []), ...(grants ? [grants] : [])];
}

export function sumOf(counts: Counts): number {
  return Object.values(counts).reduce((all, count) => all + count, 0);
}

/** The sum of some counts. */
export function totalOf(stats: Stats, counts: (row: PacketStats) => Counts): number {
  return sumOf(totalsOf(stats, counts));
}

/** The same by name. */
export function totalsOf(stats: Stats, counts: (row: PacketStats) => Counts): Counts {
  const totals: Record<string, number> = {};
  for (const row of rows(stats))
    for (const [name, count] of Object.entries(counts(row)))
      totals[name] = (totals[name] ?? 0) + count;
  return totals;
}
