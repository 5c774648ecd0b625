/** What `beacon top` shows: lines from numbers, a pure function. */

import { hostPort } from "../../../ffi/host-port.ts";
import type { Stats } from "../../features.ts";
import { conditionOf, warningsOf } from "../../view/condition.ts";
import { directoryText } from "../../view/directory.ts";
import type { Rates, WorkerRates } from "../../view/rates.ts";
import { sumOf } from "../../view/totals.ts";
import { cpuText } from "../status.ts";
import { duration, percent, printable, rateList, short, table, whole } from "../text.ts";

export interface Size {
  readonly columns: number;
  readonly rows: number;
}

/** What the table of workers is sorted by, the busiest first; by number the other way round. */
export type SortKey = "worker" | "packets" | "busy" | "drops";

export interface TopState {
  readonly table: "workers" | "peers";
  readonly sortBy: SortKey;
  /** Why there are no new numbers, or undefined. */
  readonly lost: string | undefined;
  readonly color: boolean;
}

const KEYS = "q quit   m workers/peers   sort workers by: p packets  b busy  d drops  w number";

const sortings: Readonly<Record<SortKey, (worker: WorkerRates) => number>> = {
  worker: ({ worker }) => worker,
  packets: ({ packetsIn }) => -packetsIn,
  busy: ({ busy }) => -(busy ?? 0),
  drops: ({ kernelDrops }) => -(kernelDrops ?? 0),
};

/** A key that was pressed. @returns the state that it leads to, or undefined to quit */
export function pressed(key: string, state: TopState): TopState | undefined {
  switch (key) {
    case "q":
    case "\x03": // Ctrl-C, which a terminal in raw mode makes no signal of
      return undefined;
    case "m":
      return { ...state, table: state.table === "workers" ? "peers" : "workers" };
    case "p":
      return { ...state, table: "workers", sortBy: "packets" };
    case "b":
      return { ...state, table: "workers", sortBy: "busy" };
    case "d":
      return { ...state, table: "workers", sortBy: "drops" };
    case "w":
      return { ...state, table: "workers", sortBy: "worker" };
    default:
      return state;
  }
}

/**
 * @param rates undefined after the first reading
 * @returns as many lines as the size has, none wider than it, apart from colours
 */
export function render(
  stats: Stats,
  rates: Rates | undefined,
  size: Size,
  state: TopState,
): string[] {
  const style = styles(state.color);
  const fit = (text: string) => plain(text).slice(0, size.columns);
  const head = headLines(stats, rates).map(fit);
  head[0] = style.bold(head[0]!);
  const { text, tone } = conditionOf(stats);
  const warnings = [
    ...(state.lost === undefined ? [] : [`no news: ${state.lost}; trying again`]),
    ...(tone === "bad" ? [text] : []),
    ...warningsOf(stats),
  ];
  const bodyRows = Math.max(0, size.rows - head.length - warnings.length - 3);
  const [tableHead = "", ...all] =
    state.table === "workers" ? workerLines(rates, state.sortBy) : peerLines(stats);
  const hidden = all.length - bodyRows;
  const body =
    hidden <= 0
      ? all
      : [...all.slice(0, Math.max(0, bodyRows - 1)), `and ${hidden + 1} more`].slice(0, bodyRows);
  const lines = [
    ...head,
    ...warnings.map((warning) => style.warning(fit(warning))),
    "",
    style.inverse(fit(tableHead.padEnd(size.columns))),
    ...body.map(fit),
  ];
  const filled = Array.from({ length: Math.max(0, size.rows - 1) }, (_, i) => lines[i] ?? "");
  return [...filled, style.dim(fit(KEYS))].slice(-size.rows);
}

/** One line for who has no terminal. */
export function plainLine(stats: Stats, rates: Rates): string {
  return (
    `nodes ${stats.nodes}  in ${short(rates.packetsIn)}/s  out ${short(rates.packetsOut)}/s  ` +
    `relays ${short(sumOf(rates.relays))}/s  drops ${short(sumOf(rates.drops))}/s  ` +
    `cpu ${rates.cores === null ? "-" : percent(rates.cores)}  ${[conditionOf(stats).text, ...warningsOf(stats)].join("; ")}`
  );
}

function headLines(stats: Stats, rates: Rates | undefined): string[] {
  const { nodes, nodesMax } = stats;
  const row = (name: string, text: string) => `${name.padEnd(7)} ${text}`;
  const wait = "...";
  return [
    `beacon ${stats.version}  ${hostPort(stats.address.address, stats.address.port)}  id ${stats.beaconId}  up ${duration(stats.uptimeS)}`,
    row("nodes", `${whole(nodes)} of ${whole(nodesMax)} (${percent(nodes / nodesMax)})`),
    row("cpu", rates ? cpuText(rates) : wait),
    row("in", rates ? `${short(rates.packetsIn)} packets/s  ${short(rates.bytesIn)} B/s` : wait),
    row("out", rates ? `${short(rates.packetsOut)} packets/s  ${short(rates.bytesOut)} B/s` : wait),
    row("relays", rates ? rateList(rates.relays, "none") : wait),
    row("drops", rates ? rateList(rates.drops, "none") : wait),
    ...(stats.directory ? [row("directory", directoryText(stats.directory))] : []),
  ];
}

function workerLines(rates: Rates | undefined, sortBy: SortKey): string[] {
  const key = sortings[sortBy];
  const sorted = [...(rates?.workers ?? [])].sort((a, b) => key(a) - key(b) || a.worker - b.worker);
  return table(
    ["worker", "", "in/s", "out/s", "busy", "batch", "merged in", "merged out", "kernel drops/s"],
    sorted.map((worker) => [
      String(worker.worker),
      worker.alive ? "" : "down",
      short(worker.packetsIn),
      short(worker.packetsOut),
      worker.busy === null ? "-" : percent(worker.busy),
      worker.batch.toFixed(1),
      percent(worker.mergedIn),
      percent(worker.mergedOut),
      worker.kernelDrops === null ? "-" : short(worker.kernelDrops),
    ]),
    [1],
  );
}

function peerLines({ mesh }: Stats): string[] {
  return table(
    ["peer", "nodes", "told by", "heard", "round trip", "lost"],
    mesh.peers.map(({ address, routes, gossipAgeS, isInDirectory, check }) => [
      address,
      whole(routes),
      isInDirectory ? "directory" : "gossip",
      gossipAgeS === null ? "never" : `${duration(gossipAgeS)} ago`,
      check?.lastRttMs == null ? "-" : `${check.lastRttMs.toFixed(1)} ms`,
      check && check.sent > 0 ? percent(check.lost / check.sent) : "-",
    ]),
    [0, 2],
  );
}

/** One column a character: what is wider, or narrower, would move all behind it. */
function plain(text: string): string {
  return printable(text).replace(/[^ -~]/gu, "?");
}

function styles(color: boolean) {
  const style = (code: number) => (text: string) => (color ? `\x1b[${code}m${text}\x1b[0m` : text);
  return { bold: style(1), dim: style(2), inverse: style(7), warning: style(33) };
}
