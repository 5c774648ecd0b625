/**
 * Nodes that move from beacon to beacon: how soon all know, and what that costs; beside it the same
 * Discovers of nodes that stay, and a fleet without a directory. The three go on in turn, in the
 * moods of the same minutes.
 */
import type { Stats } from "../../src/beacon.ts";
import { DirectoryServer } from "../harness/directory-server.ts";
import { Fleet, type FleetShape, isSettled, untilSettled } from "../harness/fleet.ts";
import { FleetNodes } from "../harness/fleet-nodes.ts";
import { type FleetUse, fleetUseDuring } from "../harness/fleet-usage.ts";
import { GOSSIP_NODES_MAX } from "../harness/gossip.ts";
import { type MoveSample, Moves } from "../harness/moves.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Pauses } from "../harness/pauses.ts";
import type { Recorder } from "../harness/results.ts";
import { quantile } from "../harness/statistics.ts";

const MOVES_PER_S = 2_000;
const MOVES_PER_S_SMOKE = 200;
/** Of these, so many are looked at. */
const SAMPLES_PER_S = 20;
/** One turn of each kind, for each second of --seconds. */
const TURN_S = 5;
const SETTLE_MS = 300;
/** Those who did not run for a while catch up with what is due. */
const RESUMED_MS = 2000;
const RESUMED_MS_SMOKE = 300;
const SETTLED_MS_MAX = 60_000;
const FOUND_MS_BAR = 100;
const CPU_PERCENT_BAR = 5;
/** Of gossip: how often, and bytes of a node. */
const GOSSIP_S = 10;
const GOSSIP_NODE_BYTES = 4;

const KINDS = ["moving", "staying", "off"] as const;
type Kind = (typeof KINDS)[number];

export async function measureChurn(
  shape: FleetShape,
  options: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  const { batch, smoke, rounds, seconds } = options;
  const movesPerS = smoke ? MOVES_PER_S_SMOKE : MOVES_PER_S;
  const turnS = TURN_S * seconds;
  const server = await DirectoryServer.prepare();
  await server.start();
  const fleet = await Fleet.start(shape, { directory: server.url, batch });
  let without: Fleet | undefined;
  const used: Record<Kind, FleetUse[]> = { moving: [], staying: [], off: [] };
  const pauses: Record<Kind, Pauses[]> = { moving: [], staying: [], off: [] };
  try {
    without = await Fleet.start(shape, { directory: "off", batch });
    const nodes = new FleetNodes(fleet);
    const nodesWithout = new FleetNodes(without);
    nodes.registerAll();
    nodesWithout.registerAll();
    without.suspend();
    const all = fleet.targets.map((_, beacon) => beacon);
    const before = await untilSettled(fleet, all, SETTLED_MS_MAX);
    const moves = new Moves(nodes, shape);
    const still = new Moves(nodesWithout, shape);
    const acts: Record<Kind, () => Promise<void>> = {
      moving: () => moves.run(turnS, movesPerS, true, SAMPLES_PER_S),
      staying: () => moves.run(turnS, movesPerS, false, SAMPLES_PER_S),
      off: () => still.run(turnS, movesPerS, false, SAMPLES_PER_S),
    };
    // Compiled code.
    for (const act of [acts.moving, acts.staying]) await act();
    moves.samples.length = 0;
    const lagBefore = lagOf(await Promise.all(all.map((beacon) => fleet.statsOf(beacon))));
    for (let round = 0; round < rounds; round++) {
      for (const kind of round % 2 === 0 ? KINDS : KINDS.toReversed()) {
        if (kind === "off") without.resume();
        await Bun.sleep(kind !== "off" ? SETTLE_MS : smoke ? RESUMED_MS_SMOKE : RESUMED_MS);
        const during = kind === "off" ? without : fleet;
        await during.probe.start();
        used[kind].push(
          await fleetUseDuring(during, kind === "off" ? undefined : server, acts[kind]),
        );
        pauses[kind].push(await during.probe.read());
        if (kind === "off") without.suspend();
      }
      const shown = KINDS.map((kind) => `${mean(used[kind].at(-1)!.control).toFixed(2)} % ${kind}`);
      recorder.progress(`round ${round + 1}  main thread of a beacon: ${shown.join(", ")}`);
    }
    const after = await Promise.all(all.map((beacon) => fleet.statsOf(beacon)));
    const lag = lagOf(after).map((count, i) => count - lagBefore[i]!);
    const settled = await untilSettled(fleet, all, SETTLED_MS_MAX);
    if (!settled.every((stats) => isSettled(stats, shape))) throw new Error("not settled");
    report({ shape, movesPerS, used, pauses, lag, before, after: settled, moves }, recorder);
    nodes.close();
    nodesWithout.close();
  } finally {
    without?.resume();
    await without?.stop();
    await fleet.stop();
    await server.stop();
  }
}

interface Measured {
  readonly shape: FleetShape;
  readonly movesPerS: number;
  readonly used: Record<Kind, FleetUse[]>;
  readonly pauses: Record<Kind, Pauses[]>;
  /** Changes that were applied, by the bound of their lag. */
  readonly lag: readonly number[];
  readonly before: readonly Stats[];
  readonly after: readonly Stats[];
  readonly moves: Moves;
}

/** A figure's name, its unit, and how it is read. */
type Shown<T> = readonly [name: string, unit: string, value: (one: T) => number];

type Figure = ReturnType<Recorder["of"]>;

function report(measured: Measured, recorder: Recorder): void {
  const { shape, movesPerS, lag, before, after } = measured;
  const { beacons, nodesEach } = shape;
  const title = `${movesPerS} moves a second among ${beacons} beacons with ${nodesEach} nodes each`;
  const params = { group: "directory churn", movesPerS, ...shape };
  const figure = recorder.of(title, params);
  const bounds = after[0]!.directory!.lag.bounds;
  reportLookups(measured, figure, recorder);
  for (const q of [0.5, 0.99]) {
    const name = `p${q * 100} of changes, from written until applied (within the bounds of the histogram)`;
    figure(name, "ms", [quantileOfHistogram(bounds, lag, q) * 1000]);
  }
  reportUse(measured, figure);
  const gossipKb = (nodesEach * GOSSIP_NODE_BYTES * (beacons - 1)) / GOSSIP_S / 1000;
  figure("gossip would send, of a beacon (computed)", "kB/s", [gossipKb]);
  recorder.note(
    `gossip would be the whole list, ${GOSSIP_NODE_BYTES} bytes a node, to each other beacon every ${GOSSIP_S} s, ` +
      `and as much comes in; but its message holds ${GOSSIP_NODES_MAX} nodes of a beacon at most`,
  );
  const grew = (of: (stats: Stats) => number) => sumOf(after, of) - sumOf(before, of);
  figure("entries written, of a beacon", "", [
    grew((stats) => stats.directory!.entriesTold) / beacons,
  ]);
  figure("resyncs meanwhile, of all", "", [
    grew((stats) => sumOf(Object.values(stats.directory!.resyncs), (n) => n)),
  ]);
}

function reportLookups({ moves }: Measured, figure: Figure, recorder: Recorder): void {
  const samples = moves.samples.filter(({ moved }) => moved);
  /** Milliseconds from a Discover to the first relay that found its node. */
  const foundMs = ({ foundNs }: MoveSample) => (foundNs ?? Infinity) / 1e6;
  const found = samples.map(foundMs);
  const stayed = moves.samples
    .filter(({ moved }) => !moved)
    .map(foundMs)
    .filter((ms) => ms !== Infinity);
  const inTime = found.filter((ms) => ms !== Infinity);
  recorder.progress(
    `${moves.moved} moves, ${found.length} looked at, of which ${found.length - inTime.length} were not found`,
  );
  if (inTime.length < found.length)
    recorder.note(
      `${found.length - inTime.length} of ${found.length} moves were not found within 2 s`,
    );
  for (const q of [0.5, 0.9, 0.99]) {
    const name = `p${q * 100} from a node's Discover until a relay from a third beacon finds it`;
    figure(name, "ms", [quantile(inTime, q)], q === 0.99 ? { bar: { atMost: FOUND_MS_BAR } } : {});
  }
  figure("longest of these", "ms", [Math.max(...inTime)]);
  for (const q of [0.5, 0.99])
    figure(
      `p${q * 100} of the same for nodes that stay: a relay's way, and the machine's moods`,
      "ms",
      [quantile(stayed, q)],
    );
  const relays = samples.reduce((all, { sent }) => all + sent, 0);
  const arrived = samples.reduce((all, one) => all + one.arrived, 0);
  figure("without relays a move, of those looked at", "ms", [
    ((relays - arrived) * 2) / found.length,
  ]);
}

function reportUse({ shape, used, pauses }: Measured, figure: Figure): void {
  const { beacons } = shape;
  const less = (kind: Kind, other: Kind, of: (use: FleetUse) => readonly number[]) =>
    used[kind].map((use, round) => mean(of(use)) - mean(of(used[other][round]!)));
  const control = ({ control }: FleetUse) => control;
  const whole = ({ control, workers }: FleetUse) =>
    control.map((percent, i) => percent + workers[i]!);
  const core = "% of a core";
  const mainThread = "main thread of a beacon";
  const bar = { atMost: CPU_PERCENT_BAR };
  figure(`${mainThread}, moving over staying`, core, less("moving", "staying", control), { bar });
  figure(`${mainThread}, moving over no directory`, core, less("moving", "off", control), { bar });
  figure(`${mainThread}, staying over no directory`, core, less("staying", "off", control));
  figure("whole beacon, moving over staying", core, less("moving", "staying", whole));
  figure("whole beacon, moving over no directory", core, less("moving", "off", whole));
  const each = <T>(of: Record<Kind, T[]>, kinds: readonly Kind[], figures: readonly Shown<T>[]) => {
    for (const [name, unit, value] of figures)
      for (const kind of kinds) figure(`${name}, ${kind}`, unit, of[kind].map(value));
  };
  each(used, KINDS, [
    [mainThread, core, (use) => mean(use.control)],
    ["whole beacon", core, (use) => mean(whole(use))],
  ]);
  each(
    used,
    ["moving", "staying"],
    [
      ["server", core, ({ server }) => server],
      ["to the server, of a beacon", "kB/s", ({ serverIn }) => serverIn / 1000 / beacons],
      ["from the server, of a beacon", "kB/s", ({ serverOut }) => serverOut / 1000 / beacons],
      ["both ways, of all", "kB/s", ({ serverIn, serverOut }) => (serverIn + serverOut) / 1000],
    ],
  );
  each(pauses, KINDS, [
    ["longest turn of the main thread, CPU time", "ms", ({ used }) => used.max],
    ["p99.9 turn of the main thread, CPU time", "ms", ({ used }) => used.p999],
    ["latest timer", "ms", ({ late }) => late.max],
  ]);
}

/** Counts of all beacons by bound. */
function lagOf(all: readonly Stats[]): number[] {
  const [first] = all;
  return first!.directory!.lag.counts.map((_, i) =>
    sumOf(all, ({ directory }) => directory!.lag.counts[i]!),
  );
}

/** As Prometheus has it: evenly spread within a bucket. */
function quantileOfHistogram(
  bounds: readonly number[],
  counts: readonly number[],
  q: number,
): number {
  let left = q * sumOf(counts, (count) => count);
  for (const [i, count] of counts.entries()) {
    const [from, to] = [bounds[i - 1] ?? 0, bounds[i] ?? bounds.at(-1)!];
    if (left <= count && count > 0) return from + ((to - from) * left) / count;
    left -= count;
  }
  return bounds.at(-1)!;
}

const mean = (values: readonly number[]): number => sumOf(values, (value) => value) / values.length;

function sumOf<T>(all: readonly T[], of: (one: T) => number): number {
  return all.reduce((total, one) => total + of(one), 0);
}
