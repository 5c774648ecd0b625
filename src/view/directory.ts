/** The directory in one line, the same wherever a person reads it. */
import type { DirectoryStats } from "../control/directory/stats.ts";

/** What is said of the lag holds for this share of the changes. */
const SHARE = 0.99;

/** "ok at 192.0.2.10:6379, round trip 0.4 ms; 3 other beacons, 1 not in step; 99% of changes within 0.05 s" */
export function directoryText({
  state,
  stateS,
  server,
  roundTripS,
  beacons,
  lag,
}: Pick<DirectoryStats, "state" | "stateS" | "server" | "roundTripS" | "beacons" | "lag">): string {
  const since = state === "ok" ? "" : ` for ${Math.floor(stateS)} s`;
  const where = server === null ? "" : ` at ${server}`;
  const trip = roundTripS === null ? "" : `, round trip ${(1000 * roundTripS).toFixed(1)} ms`;
  const others = beacons.length === 1 ? "1 other beacon" : `${beacons.length} other beacons`;
  const late = beacons.filter((beacon) => beacon.state !== "following").length;
  return [
    `${state.replaceAll("_", " ")}${since}${where}${trip}`,
    `${others}${late === 0 ? "" : `, ${late} not in step`}`,
    ...lagText(lag),
  ].join("; ");
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
