/** `beacon status`: how a beacon does, on one page or as one value. */

import { hostPort } from "../../ffi/host-port.ts";
import type { Stats } from "../features.ts";
import { directoryText } from "../view/directory.ts";
import { drops, type Rates, ratesBetween } from "../view/rates.ts";
import { totalsOf } from "../view/totals.ts";
import { type Api, ApiError } from "./api.ts";
import { type Console, EXIT_NO, EXIT_OK } from "./console.ts";
import { statsOf } from "./reading.ts";
import { countList, duration, percent, rateList, short, whole } from "./text.ts";

/** How a beacon answers those who ask whether to send it traffic. */
export interface Readiness {
  readonly health: { readonly ok: boolean; readonly text: string };
  readonly ready: { readonly ok: boolean; readonly text: string };
}

/** Drops that are worth a line; the rest is in --json and in the metrics. */
const DROPS_SHOWN = 6;
const PEERS_SHOWN = 20;

/** @returns EXIT_OK if it is healthy and ready @throws ApiError */
export async function status(api: Api, asJson: boolean, out: Console): Promise<number> {
  const [earlier, later] = await twoReadings(api);
  const [health, ready] = await Promise.all([api.plain("healthz"), api.plain("readyz")]);
  const rates = ratesBetween(earlier, later);
  if (asJson)
    out.json({ health, ready, rates: rates ?? null, dropped: nonZero(drops(later)), stats: later });
  else for (const line of statusLines(later, rates, { health, ready })) out.line(line);
  return health.ok && ready.ok ? EXIT_OK : EXIT_NO;
}

async function twoReadings(api: Api): Promise<[Stats, Stats]> {
  const readings: Stats[] = [];
  for await (const stats of api.lines("api/stats/stream")) {
    readings.push(statsOf(stats, api.url));
    if (readings.length === 2) return [readings[0]!, readings[1]!];
  }
  throw new ApiError("unreachable", `${api.url}: stopped answering: is the beacon ending?`);
}

/** @param rates undefined if they cannot be told */
export function statusLines(
  stats: Stats,
  rates: Rates | undefined,
  { health, ready }: Readiness,
): string[] {
  const { workers, mesh } = stats;
  const received = totalsOf(stats, ({ packetsReceived }) => packetsReceived);
  const row = (name: string, text: string) => `${name.padEnd(9)} ${text}`;
  const alive = workers.filter((worker) => worker.alive).length;
  const restarts = workers.reduce((sum, worker) => sum + worker.restarts, 0);
  const off = Object.entries(stats.breakers).filter(([, state]) => state === "off");
  return [
    `beacon ${stats.version} at ${hostPort(stats.address.address, stats.address.port)}, id ${stats.beaconId}, up ${duration(stats.uptimeS)}`,
    // Warnings are whole in the statistics; /readyz has them in one line, which may be cut. Older
    // beacons have them only there.
    row(
      "health",
      `${health.text}; ${stats.warnings ? ready.text.replace(/^ready; .*/, "ready") : ready.text}`,
    ),
    ...(stats.warnings ?? []).map((warning) => row("warning", warning)),
    row(
      "nodes",
      `${whole(stats.nodes)} of ${whole(stats.nodesMax)} (${percent(stats.nodes / stats.nodesMax)})`,
    ),
    ...(rates === undefined
      ? [row("traffic", "the beacon was started anew meanwhile")]
      : [
          row(
            "traffic",
            `in ${short(rates.packetsIn)} packets/s, ${short(rates.bytesIn)} B/s; ` +
              `out ${short(rates.packetsOut)} packets/s, ${short(rates.bytesOut)} B/s`,
          ),
          row("relays", rateList(rates.relays, "none now")),
          row("drops", rateList(first(rates.drops, DROPS_SHOWN), "none now")),
        ]),
    row("received", `${countList(received, "nothing")} since the start`),
    row("dropped", `${countList(largest(drops(stats), DROPS_SHOWN), "nothing")} since the start`),
    ...(rates === undefined ? [] : [row("cpu", cpuText(rates))]),
    row("workers", `${alive} of ${workers.length} alive, replaced ${restarts} times`),
    ...(stats.directory ? [row("directory", directoryText(stats.directory))] : []),
    row("peers", mesh.peers.length === 0 ? "none" : String(mesh.peers.length)),
    ...mesh.peers.slice(0, PEERS_SHOWN).map(peerLine),
    ...(mesh.peers.length > PEERS_SHOWN ? [`  and ${mesh.peers.length - PEERS_SHOWN} more`] : []),
    ...(stats.bridge === null
      ? []
      : [
          row(
            "bridge",
            `${whole(stats.bridge.peers)} nodes${stats.bridge.listening ? "" : "; it does not listen"}`,
          ),
        ]),
    row("breakers", off.length === 0 ? "all on" : `off: ${off.map(([name]) => name).join(", ")}`),
  ];
}

/** What the beacon uses of the machine. */
export function cpuText({ cores, workers }: Rates): string {
  const busy = workers.flatMap((worker) => (worker.busy === null ? [] : [worker.busy]));
  const busiest =
    busy.length === 0 ? "" : `, the busiest worker ${percent(Math.max(...busy))} of its core`;
  return cores === null ? "unknown" : `${percent(cores)} of a core${busiest}`;
}

function peerLine({
  address,
  routes,
  gossipAgeS,
  isInDirectory,
  check,
}: Stats["mesh"]["peers"][number]): string {
  const where = isInDirectory ? " in the directory" : "";
  const heard = gossipAgeS === null ? "not heard yet" : `heard ${duration(gossipAgeS)} ago${where}`;
  const rtt = check?.lastRttMs == null ? "" : `, round trip ${check.lastRttMs.toFixed(1)} ms`;
  const lost =
    check && check.lost > 0 ? `, ${whole(check.lost)} of ${whole(check.sent)} checks lost` : "";
  return `  ${address}: ${whole(routes)} nodes, ${heard}${rtt}${lost}`;
}

function nonZero(counts: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
}

function largest(counts: Readonly<Record<string, number>>, most: number): Record<string, number> {
  return first(Object.fromEntries(Object.entries(counts).sort(([, a], [, b]) => b - a)), most);
}

function first(counts: Readonly<Record<string, number>>, most: number): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).slice(0, most));
}
