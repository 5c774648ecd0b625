/**
 * The route directory on paper: what a fleet of any size would come to, from what each step costs
 * here. `bun bench/report/directory-model.ts` prints the table of docs/DIRECTORY.md; the chart is
 * one of the report's.
 *
 * A beacon tells what changed 50 times a second, and reads what all others told as often; a move is
 * two changes, the claim of the one beacon and the loss of the other. So the log's entries grow
 * with the beacons, what the server sends with their square, and what a beacon reads with their
 * number. What a beacon and the server are woken for, a hundred times a second each, costs the more
 * the less there is to do each time: that part is what the fleet that was measured took beyond the
 * steps, and grows with the beacons at the server and with nothing at a beacon.
 */
import { join } from "node:path";
import { CHANGES, encodeEntry } from "../../src/control/directory/entries.ts";
import { loadRun, type Run } from "../harness/results.ts";
import { showNumber, spreadOf } from "../harness/statistics.ts";
import { UNITS, UNITS_GROUP } from "../suite/directory-units.ts";
import { lineChart, type Picture } from "./draw.ts";
import { groupOf } from "./verdicts.ts";

/** Of src/control/directory/directory.ts: how often a beacon tells, and reads. */
const TELLS_PER_S = 50;
const READS_PER_S = 50;
/** What Redis puts around an entry of the log in an answer. */
const ENTRY_FRAME_BYTES = 48;
/** A moved node's share, claim and loss, in bytes of an entry. */
const MOVE_BYTES = 8 + 4;
const SNAPSHOT_NODE_BYTES = 8;
const NAME_BYTES = "beacon-17.example.net:9001".length;
/** Of bytes in base64. */
const BASE64 = 4 / 3;
/** Slots are twice the routes; 8 bytes a slot, and 9 beside it. */
const ROUTE_BYTES = 2 * (8 + 9);
const LINE_BITS_PER_S = 10e9;
/** A part of the nodes that moves in a second: 2,000 of a million. */
const MOVING_SHARE = 0.002;
const NODES_EACH = 100_000;

interface Sides {
  readonly server: number;
  readonly beacon: number;
}

/** CPU time of each step, in ns; and what being woken takes, shares of a core, for each beacon. */
type Costs = Readonly<Record<keyof typeof UNITS, Sides>> & { readonly wakes: Sides };

export interface Fleet {
  readonly beacons: number;
  readonly nodesEach: number;
  /** In the whole fleet. */
  readonly movesPerS: number;
}

export interface Estimate {
  readonly entriesPerS: number;
  /** Shares of a core. */
  readonly server: number;
  readonly beacon: number;
  /** Bytes a second that one beacon reads, and that the server sends. */
  readonly readPerS: number;
  readonly sentPerS: number;
  /** Of a beacon's routes. */
  readonly routeBytes: number;
  /** Of the server, a minute of the log and all snapshots at once. */
  readonly serverBytes: number;
  /**
   * All beacons at once, from nothing: the server's core, its line at 10 Gbit/s, and a beacon's
   * main thread.
   */
  readonly startS: { readonly server: number; readonly line: number; readonly beacon: number };
}

export function estimate(costs: Costs, { beacons, nodesEach, movesPerS }: Fleet): Estimate {
  const changesPerS = 2 * movesPerS;
  // Not more entries than there is to tell.
  const entriesPerS = Math.min(beacons * TELLS_PER_S, changesPerS);
  const headBytes = encodeEntry({
    ...{ kind: CHANGES, name: "n".repeat(NAME_BYTES), epoch: 1, seq: 1, timeMs: 0 },
    ...{
      claims: { nodeIds: new Int32Array(0), timesMs: new Float64Array(0) },
      gone: new Int32Array(0),
    },
  }).length;
  const readPerS =
    entriesPerS * (headBytes * BASE64 + ENTRY_FRAME_BYTES) + movesPerS * MOVE_BYTES * BASE64;
  const reads = Math.min(READS_PER_S, entriesPerS);
  const ns = (of: "server" | "beacon", followers: number, writers: number) =>
    writers * costs.write[of] * (entriesPerS / beacons) +
    followers *
      (reads * costs.read[of] + entriesPerS * costs.entry[of] + changesPerS * costs.change[of]);
  const fleetNodes = beacons * nodesEach;
  const others = fleetNodes - nodesEach;
  const loadedBytes = beacons * others * SNAPSHOT_NODE_BYTES;
  return {
    entriesPerS,
    server: ns("server", beacons, beacons) / 1e9 + beacons * costs.wakes.server,
    beacon: ns("beacon", 1, 1) / 1e9 + costs.wakes.beacon,
    readPerS,
    sentPerS: readPerS * beacons,
    routeBytes: others * ROUTE_BYTES,
    serverBytes: 60 * readPerS + fleetNodes * SNAPSHOT_NODE_BYTES,
    startS: {
      server:
        (fleetNodes * costs.snapshotWritten.server +
          beacons * others * costs.snapshotLoaded.server) /
        1e9,
      line: (loadedBytes * 8) / LINE_BITS_PER_S,
      beacon:
        (nodesEach * costs.snapshotWritten.beacon + others * costs.snapshotLoaded.beacon) / 1e9,
    },
  };
}

/** @returns undefined where the run lacks them */
export function costsOf(run: Run): Costs | undefined {
  const figures = groupOf(run, UNITS_GROUP);
  const cost = (unit: string, side: string) => {
    const figure = figures.find(
      ({ params }) => params?.["unit"] === unit && params["side"] === side,
    );
    return figure ? Math.max(0, spreadOf(figure.values).median) : Number.NaN;
  };
  const steps = Object.fromEntries(
    Object.keys(UNITS).map((unit) => [
      unit,
      { server: cost(unit, "server"), beacon: cost(unit, "beacon") },
    ]),
  ) as Record<keyof typeof UNITS, Sides>;
  const measured = groupOf(run, "directory churn");
  const percent = (name: string) => {
    const figure = measured.find((one) => one.name === name);
    return figure ? spreadOf(figure.values).median / 100 : Number.NaN;
  };
  const [beacons, nodesEach, movesPerS] = ["beacons", "nodesEach", "movesPerS"].map((name) =>
    Number(measured[0]?.params?.[name]),
  ) as [number, number, number];
  const costs = { ...steps, wakes: { server: 0, beacon: 0 } };
  const bare = estimate(costs, { beacons, nodesEach, movesPerS });
  const wakes = {
    server: Math.max(0, percent("server, moving") - bare.server) / beacons,
    beacon: Math.max(0, percent("main thread of a beacon, moving over staying") - bare.beacon),
  };
  const isKnown = Object.values({ ...steps, wakes }).every(
    ({ server, beacon }) => !Number.isNaN(server + beacon),
  );
  return isKnown ? { ...steps, wakes } : undefined;
}

const fleetOf = (beacons: number): Fleet => ({
  beacons,
  nodesEach: NODES_EACH,
  movesPerS: beacons * NODES_EACH * MOVING_SHARE,
});

/** Where something is used up. */
function lastWith(costs: Costs, share: (estimate: Estimate) => number): number {
  let beacons = 2;
  while (beacons < 10_000 && share(estimate(costs, fleetOf(beacons + 1))) <= 1) beacons++;
  return beacons;
}

const line = ({ sentPerS }: Estimate) => (sentPerS * 8) / LINE_BITS_PER_S;

export function directoryModel(run: Run): Picture | undefined {
  const costs = costsOf(run);
  if (costs === undefined) return undefined;
  const sizes = [5, 10, 20, 50, 100, 200, 500];
  const points = (share: (estimate: Estimate) => number) =>
    sizes.map((beacons) => {
      const percent = 100 * share(estimate(costs, fleetOf(beacons)));
      return { x: beacons, median: percent, min: percent, max: percent };
    });
  const most = lastWith(costs, ({ server }) => server);
  const sentence =
    `With ${NODES_EACH.toLocaleString("en-US")} nodes a beacon, of which ${MOVING_SHARE * 100} % move each second, ` +
    `one server's core is used up at ${most} beacons, its line of 10 Gbit/s at ${lastWith(costs, line)}; a beacon's ` +
    `main thread then spends ${showNumber(100 * estimate(costs, fleetOf(most)).beacon)} % of a core.`;
  return lineChart(
    { title: "A directory's fleet on paper, by its beacons", sentence },
    {
      x: { name: "beacons", log: 10 },
      y: { name: "% of a core, or of the line", log: 10 },
      lines: [
        { name: "server's core", colour: "blue", points: points(({ server }) => server) },
        {
          name: "server's line, 10 Gbit/s",
          colour: "vermilion",
          dash: "dashed",
          points: points(line),
        },
        {
          name: "main thread of a beacon",
          colour: "green",
          points: points(({ beacon }) => beacon),
        },
      ],
    },
  );
}

/** Markdown. */
export function modelTable(costs: Costs): string {
  const fleets = [10, 30, 100, 200].map(fleetOf);
  const estimates = fleets.map((fleet) => estimate(costs, fleet));
  const row = (name: string, show: (estimate: Estimate) => string) =>
    `| ${[name, ...estimates.map(show)].join(" | ")} |`;
  const percent = (share: number) => `${showNumber(100 * share)} %`;
  const mega = (bytes: number, unit = "MB") => `${showNumber(bytes / 1e6)} ${unit}`;
  return [
    `| | ${fleets.map(({ beacons, nodesEach }) => `${beacons} beacons, ${(beacons * nodesEach) / 1e6} M nodes`).join(" | ")} |`,
    `|---|${fleets.map(() => "---|").join("")}`,
    `| moves a second | ${fleets.map(({ movesPerS }) => movesPerS.toLocaleString("en-US")).join(" | ")} |`,
    row("log entries a second", ({ entriesPerS }) => entriesPerS.toLocaleString("en-US")),
    row("server, of a core", ({ server }) => percent(server)),
    row("beacon's main thread, of a core", ({ beacon }) => percent(beacon)),
    row("a beacon reads", ({ readPerS }) => mega(readPerS, "MB/s")),
    row("the server sends", ({ sentPerS }) => mega(sentPerS * 8, "Mbit/s")),
    row("routes of a beacon", ({ routeBytes }) => mega(routeBytes)),
    row("server's memory, with all snapshots", ({ serverBytes }) => mega(serverBytes)),
    row("all from nothing: server's core", ({ startS }) => `${showNumber(startS.server)} s`),
    row("… its line of 10 Gbit/s", ({ startS }) => `${showNumber(startS.line)} s`),
    row("… a beacon's main thread", ({ startS }) => `${showNumber(startS.beacon)} s`),
  ].join("\n");
}

if (import.meta.main) {
  const costs = costsOf(loadRun(join(import.meta.dir, "../results/directory.json")));
  if (costs === undefined)
    throw new Error("bench/results/directory.json lacks the costs: bun run bench directory");
  console.log(modelTable(costs));
}
