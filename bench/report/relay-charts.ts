/** Charts of the relay bench. Each sentence is computed from what the chart shows. */
import type { Run } from "../harness/results.ts";
import { showNumber, showValue, spreadOf } from "../harness/statistics.ts";
import { dotPlot } from "./dot-plot.ts";
import { type Line, lineChart } from "./line-chart.ts";
import { groupOf, growthOf, type Point, pointsOf, ratiosOf, showRange } from "./points.ts";
import type { Picture } from "./svg.ts";
import { meetsBar, RATIO } from "./verdicts.ts";

const CPU_AXIS = "CPU time a packet, ns";
const times = (value: number) => value.toFixed(2);
const showCount = (count: number) => count.toLocaleString("en-US");
const perCent = (share: number) => `${Math.round(share * 100)} %`;

const BEACON = { colour: "blue", dash: "solid", symbol: "circle" } as const;
const C = { colour: "vermilion", dash: "dashed", symbol: "diamond", hollow: true } as const;

function cpuOf(run: Run, group: string, along: string) {
  const figures = groupOf(run, group);
  const of = (name: string) => pointsOf(figures, `CPU a packet, ${name}`, along);
  return {
    beacon: of("beacon"),
    c: of("C"),
    beaconOffload: of("beacon, offload"),
    cOffload: of("C, offload"),
  };
}

const cost = (points: readonly Point[]) => showRange(points.map(({ median }) => median));
/** Each point over the one that was measured beside it: what lies along the axis was measured minutes apart. */
const over = (points: readonly Point[], against: readonly Point[]) =>
  `${showRange(ratiosOf(points, against), times)} times C's`;

export function costByPayload(run: Run): Picture | undefined {
  const { beacon, c, beaconOffload, cOffload } = cpuOf(run, "payload", "payloadBytes");
  if (beacon.length < 2 || beaconOffload.length < 2) return undefined;
  return lineChart({
    title: "Cost of a packet, by its payload",
    sentence:
      `From ${beacon[0]!.x} to ${showCount(beacon.at(-1)!.x)} bytes a packet costs the beacon ${cost(beacon)} ns of ` +
      `CPU time with offload off, ${over(beacon, c)}; in bursts with offload on it costs ${cost(beaconOffload)} ns, ` +
      `${over(beaconOffload, cOffload)}.`,
    x: { name: "payload, bytes", min: 0 },
    y: { name: CPU_AXIS, log: true },
    lines: [
      { ...BEACON, name: "beacon", points: beacon },
      { ...C, name: "C", points: c },
      { name: "beacon, offload", colour: "green", dash: "solid", symbol: "triangle", points: beaconOffload },
      { name: "C, offload", colour: "purple", dash: "dashed", symbol: "rect", points: cOffload },
    ],
  });
}

export function costByNodes(run: Run): Picture | undefined {
  const { beacon, c } = cpuOf(run, "nodes", "nodes");
  if (beacon.length < 2 || c.length < 2) return undefined;
  const [few, many] = [beacon[0]!, beacon.at(-1)!];
  const [together] = groupOf(run, "many over few");
  return lineChart({
    title: "Cost of a packet, by the nodes it may be for",
    sentence:
      `With ${showCount(few.x)} to ${showCount(many.x)} nodes a packet costs the beacon ${cost(beacon)} ns of CPU time, ` +
      `${over(beacon, c)}.${together ? ` Side by side, it costs ${times(spreadOf(together.values).median)} times as much with ${showCount(Number(together.params?.["nodes"]))} as with few.` : ""}`,
    x: { name: "nodes", log: true, ticks: powersOfTen(beacon) },
    y: { name: CPU_AXIS, min: 0 },
    lines: [
      { ...BEACON, name: "beacon", points: beacon },
      { ...C, name: "C", points: c },
    ],
  });
}

export function costByUnknown(run: Run): Picture | undefined {
  const { beacon, c } = cpuOf(run, "unknown", "unknown");
  if (beacon.length < 2 || c.length < 2) return undefined;
  const [least, most] = [beacon[0]!, beacon.at(-1)!];
  return lineChart({
    title: "Cost of a packet, by the share to unknown nodes",
    sentence:
      `With ${perCent(least.x)} to ${perCent(most.x)} of the packets to nodes that nobody knows, a packet costs the beacon ` +
      `${cost(beacon)} ns of CPU time, ${over(beacon, c)}.`,
    x: { name: "packets to unknown nodes", min: 0, max: 1, show: perCent },
    y: { name: CPU_AXIS, min: 0 },
    lines: [
      { ...BEACON, name: "beacon", points: beacon },
      { ...C, name: "C", points: c },
    ],
  });
}

export function offloadByFlows(run: Run): Picture | undefined {
  const figures = groupOf(run, "flows");
  const bursts = [...new Set(figures.map((figure) => Number(figure.params?.["burst"])))].sort(
    (a, b) => b - a,
  );
  const lines = bursts.map((burst, i): Line => {
    const those = figures.filter((figure) => figure.params?.["burst"] === burst);
    return {
      ...(i === 0 ? BEACON : C),
      name: burst === 1 ? "single packets" : `bursts of ${burst}`,
      points: pointsOf(those, "times cheaper with offload than without", "flows"),
    };
  });
  if (lines.length === 0 || lines.some(({ points }) => points.length < 2)) return undefined;
  const first = lines[0]!.points;
  const at = (point: (points: readonly Point[]) => Point) =>
    lines.map(({ name, points }) => `${showNumber(point(points).median)} times as ${name}`).join(" and ");
  return lineChart({
    title: "What offload gives, by the number of flows",
    sentence:
      `With ${showCount(first[0]!.x)} ${first[0]!.x === 1 ? "flow" : "flows"}, offload makes packets cheaper ` +
      `${at((points) => points[0]!)}; with ${showCount(first.at(-1)!.x)} flows, ${at((points) => points.at(-1)!)}.`,
    x: { name: "flows", log: true, ticks: powersOfTen(first) },
    y: { name: "times cheaper with offload than without", min: 0 },
    lines,
    level: { at: 1, name: "1: no cheaper" },
  });
}

const sharedBy = (cores: number) =>
  cores === 1 ? "one core, so this shows what they cost, not what they gain" : `${cores} cores`;

export function throughputByWorkers(run: Run): Picture | undefined {
  const figures = groupOf(run, "workers");
  const of = (name: string) => pointsOf(figures, `packets a second, ${name}`, "workers", 1e-6);
  const [beacon, offload, c] = [of("beacon"), of("beacon, offload"), of("C")];
  if (beacon.length < 2 || offload.length < 2) return undefined;
  const { x: workers, median } = beacon.at(-1)!;
  const than = beacon[0]!.x === 1 ? "1 does" : `${beacon[0]!.x} do`;
  const cores = Math.max(1, run.machine.cpus - 1); // one is the load generator's
  return lineChart({
    title: "Throughput, by workers",
    sentence:
      `${workers} workers relay ${showNumber(median)} million packets a second, ${times(growthOf(beacon))} times what ` +
      `${than}; in bursts with offload ${showNumber(offload.at(-1)!.median)} million, ${times(growthOf(offload))} times.` +
      `${workers > cores ? ` Here they share ${sharedBy(cores)}.` : ""}`,
    x: { name: "workers", ticks: beacon.map(({ x }) => x), min: 0, max: workers + 1 },
    y: { name: "million packets a second", log: true },
    lines: [
      { name: "beacon, offload", colour: "green", dash: "solid", symbol: "triangle", points: offload },
      { ...BEACON, name: "beacon", points: beacon },
      { ...C, name: "C, one thread", points: c },
    ],
  });
}

/** What should be little, and has a bar: the yardstick. */
export function yardstick(run: Run): Picture | undefined {
  const figures = groupOf(run, "yardstick").filter(
    ({ unit, bar, better }) => unit === RATIO && better === "less" && bar?.atMost !== undefined,
  );
  if (figures.length === 0) return undefined;
  const met = figures.filter((figure) => meetsBar(figure)).length;
  return dotPlot({
    title: "CPU time a packet, as a ratio",
    sentence:
      `${met} of ${figures.length} ratios of CPU time a packet meet their bars: ` +
      `${figures.map((figure) => `${showValue(spreadOf(figure.values).median, RATIO)} (${figure.case}; ${figure.name})`).join(", ")}.`,
    axisName: "times as much CPU time a packet",
    rows: figures.map(({ case: title, name, values, bar }) => ({
      name: rowName(title, name),
      ...spreadOf(values),
      bar: bar!.atMost!,
    })),
  });
}

/** Does not say "offload" twice. */
function rowName(title: string, name: string): string {
  return `${title}: ${title.includes("offload") ? name.replace(", offload", "") : name}`;
}

/** Ticks from below the first to above the last. */
function powersOfTen(points: readonly Point[]): number[] {
  const [from, to] = [Math.floor(Math.log10(points[0]!.x)), Math.ceil(Math.log10(points.at(-1)!.x))];
  return Array.from({ length: to - from + 1 }, (_, i) => Number(`1e${from + i}`));
}
