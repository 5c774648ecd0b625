/** The page: follows one beacon's statistics, and charts the last ten minutes. */
import type { Stats } from "../features.ts";
import { type Rates, ratesBetween } from "../view/rates.ts";
import { sumOf } from "../view/totals.ts";
import { type ChartSpec, Charts } from "./charts.ts";
import { byId, setText, showNotice } from "./dom.ts";
import { bytes, cores, short } from "./format.ts";
import { History } from "./history.ts";
import { serveLookups } from "./lookup.ts";
import { follow } from "./stream.ts";
import { Summary } from "./summary.ts";
import { Tables } from "./tables.ts";
import { askForToken, forgetToken, hasToken } from "./token.ts";

const COLUMNS = {
  packetsIn: (rates: Rates) => rates.packetsIn,
  packetsOut: (rates: Rates) => rates.packetsOut,
  bytesIn: (rates: Rates) => rates.bytesIn,
  bytesOut: (rates: Rates) => rates.bytesOut,
  local: (rates: Rates) => rates.relays["local"] ?? 0,
  peer: (rates: Rates) => rates.relays["peer"] ?? 0,
  bridged: (rates: Rates) => rates.relays["bridged"] ?? 0,
  drops: (rates: Rates) => sumOf(rates.drops),
  cores: (rates: Rates) => rates.cores,
  nodes: (_: Rates, stats: Stats) => stats.nodes,
};
type Column = keyof typeof COLUMNS;
const names = Object.keys(COLUMNS) as Column[];

const CHARTS: readonly ChartSpec<Column>[] = [
  {
    title: "Packets per second",
    series: [
      { name: "packetsIn", label: "in" },
      { name: "packetsOut", label: "out" },
    ],
    format: short,
    atLeast: 10,
  },
  {
    title: "Bytes per second",
    series: [
      { name: "bytesIn", label: "in" },
      { name: "bytesOut", label: "out" },
    ],
    format: bytes,
    atLeast: 1000,
  },
  {
    title: "Relays per second",
    series: [
      { name: "local", label: "local" },
      { name: "peer", label: "peers" },
      { name: "bridged", label: "WebSocket" },
    ],
    format: short,
    atLeast: 10,
  },
  {
    title: "Drops per second",
    series: [{ name: "drops", label: "all reasons" }],
    format: short,
    atLeast: 10,
  },
  {
    title: "CPU cores",
    series: [{ name: "cores", label: "all threads" }],
    format: cores,
    atLeast: 0.1,
  },
  { title: "Nodes", series: [{ name: "nodes", label: "known" }], format: short, atLeast: 10 },
];

const history = new History<Column>(names);
const summary = new Summary();
const tables = new Tables();
let charts: Charts<Column> | undefined;
/** The reading before, of the same connection. */
let earlier: Stats | undefined;
let latest: { readonly stats: Stats; readonly rates: Rates | undefined } | undefined;
let isDrawing = false;
/** Whether the numbers are of now. */
let isLive = false;

/** A tab that nobody sees draws nothing. */
function drawSoon(): void {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    draw();
  });
}

function draw(): void {
  if (latest === undefined) return;
  byId("numbers").hidden = false;
  summary.show(latest.stats, latest.rates, isLive);
  tables.show(latest.stats, latest.rates);
  charts ??= new Charts(byId("charts"), history, CHARTS); // once it can be measured
  charts.draw(nowS());
}

function showLink(text: string, tone: "good" | "bad" | "", trouble: string): void {
  const link = byId("link");
  link.className = `pill ${tone}`;
  setText(link, text);
  showNotice(byId("trouble"), trouble);
  byId("forget").hidden = !hasToken();
}

function nowS(): number {
  return Date.now() / 1000;
}

byId("forget").addEventListener("click", () => {
  forgetToken();
  location.reload();
});
serveLookups();
void follow({
  opened: () => {
    earlier = undefined;
    history.gap(nowS());
    showLink("live", "good", "");
  },
  read: (stats) => {
    const rates = earlier && ratesBetween(earlier, stats);
    earlier = stats;
    isLive = true;
    latest = { stats, rates };
    if (rates !== undefined)
      history.add(
        nowS(),
        Object.fromEntries(names.map((name) => [name, COLUMNS[name](rates, stats)])) as Record<
          Column,
          number
        >,
      );
    drawSoon();
  },
  lost: (reason, inMs) => {
    isLive = false;
    showLink(
      "not connected",
      "bad",
      `No numbers from the beacon: ${reason}. Trying again in ${inMs / 1000} s.`,
    );
    drawSoon();
  },
  refused: async (why) => {
    showLink("token needed", "", "");
    await askForToken(why);
  },
});
