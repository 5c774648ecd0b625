/** The directory in one line, the same wherever a person reads it. */
import type { DirectoryStats } from "../control/directory/stats.ts";

/** What is said of the lag holds for this share of the changes. */
const SHARE = 0.99;

type Shown =
  | ("state" | "stateS" | "server" | "roundTripS" | "beacons" | "lag")
  | ("logEntries" | "logBytes" | "logOldestS");

/** "ok at 192.0.2.10:6379, round trip 0.4 ms; 3 other beacons, 1 not in step; 2400 routes …" */
export function directoryText(directory: Pick<DirectoryStats, Shown>): string {
  const { state, stateS, server, roundTripS, beacons, lag } = directory;
  const since = state === "ok" ? "" : ` for ${Math.floor(stateS)} s`;
  const where = server === null ? "" : ` at ${server}`;
  const trip = roundTripS === null ? "" : `, round trip ${(1000 * roundTripS).toFixed(1)} ms`;
  const others = beacons.length === 1 ? "1 other beacon" : `${beacons.length} other beacons`;
  const late = beacons.filter((beacon) => beacon.state !== "following").length;
  return [
    `${state.replaceAll("_", " ")}${since}${where}${trip}`,
    `${others}${late === 0 ? "" : `, ${late} not in step`}`,
    ...nodesText(beacons),
    ...lagText(lag),
    ...logText(directory),
  ].join("; ");
}

// Beacons of earlier versions report neither nodes nor the log's size.

function nodesText(beacons: DirectoryStats["beacons"]): string[] {
  const counted = beacons.filter(({ nodes }) => nodes != null);
  if (counted.length === 0) return [];
  const sum = (read: (beacon: (typeof counted)[number]) => number) =>
    counted.reduce((all, beacon) => all + read(beacon), 0);
  return [`${sum(({ routes }) => routes)} routes to their ${sum(({ nodes }) => nodes ?? 0)} nodes`];
}

function logText({ logEntries, logBytes, logOldestS }: Pick<DirectoryStats, Shown>): string[] {
  if (logEntries == null) return [];
  const bytes = logBytes == null ? [] : [`${(logBytes / 1e6).toFixed(1)} MB`];
  const age = logOldestS == null ? [] : [`${Math.floor(logOldestS)} s`];
  return [[`log of ${logEntries} entries`, ...bytes, ...age].join(", ")];
}

function lagText({ bounds, counts }: DirectoryStats["lag"]): string[] {
  const all = counts.reduce((sum, count) => sum + count, 0);
  if (all === 0) return [];
  const changes = `${100 * SHARE}% of changes`;
  let within = 0;
  for (const [i, bound] of bounds.entries()) {
    within += counts[i] ?? 0;
    if (within >= SHARE * all) return [`${changes} within ${bound} s`];
  }
  return [`not even ${changes} within ${bounds.at(-1)} s`];
}
