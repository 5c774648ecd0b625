/** The charts of the report, each with a sentence computed from the figures that it shows. */
import type { Figure, Run } from "../harness/results.ts";
import { showNumber, showValue, spreadOf } from "../harness/statistics.ts";
import { directoryModel } from "./directory-model.ts";
import { type Line, lineChart, type Picture, type Point, type Row, rowChart } from "./draw.ts";
import { groupOf, isSeries, meetsBar, RATIO } from "./verdicts.ts";

export interface ChartPlan {
  /** The file's name without its ending. */
  readonly name: string;
  readonly bench: string;
  /** Returns undefined where the run lacks the figures, as runs with `--only` do. */
  readonly picture: (run: Run) => Picture | undefined;
}

const CPU_AXIS = "CPU time a packet, ns";
const times = (value: number) => value.toFixed(2);
const showCount = (count: number) => count.toLocaleString("en-US");
const perCent = (share: number) => `${Math.round(share * 100)} %`;

const BEACON = { name: "beacon", colour: "blue" } as const;
const OFFLOAD = { name: "beacon, offload", colour: "green" } as const;
const C = { name: "C", colour: "vermilion", dash: "dashed" } as const;

/**
 * Returns the figures of one name as points from left to right.
 * @param along the parameter that is the x axis
 * @param scale of the values, 1e-6 for millions
 */
function pointsOf(figures: readonly Figure[], name: string, along: string, scale = 1): Point[] {
  return figures
    .filter((figure) => figure.name === name && typeof figure.params?.[along] === "number")
    .map(({ values, params }) => ({
      x: params![along] as number,
      ...spreadOf(values.map((value) => value * scale)),
    }))
    .sort((a, b) => a.x - b.x);
}

/** "1,020 to 1,400", or one number where both read the same. */
function showRange(
  values: readonly number[],
  show: (value: number) => string = showNumber,
): string {
  const [least, most] = [show(Math.min(...values)), show(Math.max(...values))];
  return least === most ? least : `${least} to ${most}`;
}

const cost = (points: readonly Point[]) => showRange(points.map(({ median }) => median));

/**
 * Ratios of points measured beside each other: points along the axis were measured minutes apart.
 */
const overC = (points: readonly Point[], c: readonly Point[]) =>
  `${showRange(
    points.flatMap(({ x, median }) => {
      const other = c.find((point) => point.x === x);
      return other ? [median / other.median] : [];
    }),
    times,
  )} times C's`;

const growthOf = (points: readonly Point[]) => times(points.at(-1)!.median / points[0]!.median);

/**
 * CPU time a packet of the beacon and C.
 * @param sentence from both ends of the axis, and the cost
 */
function costAlong(
  run: Run,
  along: { readonly group: string; readonly param: string; readonly title: string },
  x: Parameters<typeof lineChart>[1]["x"],
  sentence: (least: number, most: number, cost: string) => string,
): Picture | undefined {
  const figures = groupOf(run, along.group);
  const [beacon, c] = [BEACON, C].map(({ name }) =>
    pointsOf(figures, `CPU a packet, ${name}`, along.param),
  );
  if (beacon!.length < 2 || c!.length < 2) return undefined;
  const costs = `costs the beacon ${cost(beacon!)} ns of CPU time, ${overC(beacon!, c!)}`;
  return lineChart(
    { title: along.title, sentence: sentence(beacon![0]!.x, beacon!.at(-1)!.x, costs) },
    {
      ...{ x, y: { name: CPU_AXIS, min: 0 } },
      lines: [
        { ...BEACON, points: beacon! },
        { ...C, points: c! },
      ],
    },
  );
}

function costByNodes(run: Run): Picture | undefined {
  const [together] = groupOf(run, "many over few");
  const title = "Cost of a packet, by the nodes it may be for";
  return costAlong(
    run,
    { group: "nodes", param: "nodes", title },
    { name: "nodes", log: 10 },
    (few, many, costs) =>
      `With ${showCount(few)} to ${showCount(many)} nodes a packet ${costs}.` +
      (together
        ? ` Side by side, it costs ${times(spreadOf(together.values).median)} times as much with ` +
          `${showCount(Number(together.params?.["nodes"]))} as with few.`
        : ""),
  );
}

function costByUnknown(run: Run): Picture | undefined {
  const title = "Cost of a packet, by the share to unknown nodes";
  return costAlong(
    run,
    { group: "unknown", param: "unknown", title },
    { name: "packets to unknown nodes", min: 0, max: 1, show: perCent },
    (least, most, costs) =>
      `With ${perCent(least)} to ${perCent(most)} of the packets to unknown nodes, a packet ${costs}.`,
  );
}

function costByPayload(run: Run): Picture | undefined {
  const figures = groupOf(run, "payload");
  const of = (name: string) => pointsOf(figures, `CPU a packet, ${name}`, "payloadBytes");
  const [beacon, c, offload, cOffload] = [
    of("beacon"),
    of("C"),
    of("beacon, offload"),
    of("C, offload"),
  ];
  if (beacon.length < 2 || offload.length < 2) return undefined;
  const sentence =
    `From ${beacon[0]!.x} to ${showCount(beacon.at(-1)!.x)} bytes a packet costs the beacon ${cost(beacon)} ns ` +
    `of CPU time with offload off, ${overC(beacon, c)}; in bursts with offload on it costs ` +
    `${cost(offload)} ns, ${overC(offload, cOffload)}.`;
  return lineChart(
    { title: "Cost of a packet, by its payload", sentence },
    {
      x: { name: "payload, bytes", min: 0 },
      y: { name: CPU_AXIS, log: 2 },
      lines: [
        { ...BEACON, points: beacon },
        { ...C, points: c },
        { ...OFFLOAD, points: offload },
        { ...C, name: "C, offload", colour: "purple", points: cOffload },
      ],
    },
  );
}

function offloadByFlows(run: Run): Picture | undefined {
  const figures = groupOf(run, "flows");
  const lines = [...Map.groupBy(figures, ({ params }) => Number(params?.["burst"]))]
    .sort(([a], [b]) => b - a)
    .map(([burst, those], i) => ({
      ...(i === 0 ? BEACON : C),
      name: burst === 1 ? "single packets" : `bursts of ${burst}`,
      points: pointsOf(those, "times cheaper with offload than without", "flows"),
    }));
  if (lines.length === 0 || lines.some(({ points }) => points.length < 2)) return undefined;
  const at = (end: 0 | -1) =>
    lines
      .map(({ name, points }) => `${showNumber(points.at(end)!.median)} times as ${name}`)
      .join(" and ");
  const [least, most] = [lines[0]!.points[0]!.x, lines[0]!.points.at(-1)!.x].map(showCount);
  return lineChart(
    {
      title: "What offload gives, by the number of flows",
      sentence:
        `With ${least} ${least === "1" ? "flow" : "flows"}, offload makes packets cheaper ${at(0)}; ` +
        `with ${most} flows, ${at(-1)}.`,
    },
    {
      ...{
        x: { name: "flows", log: 10 },
        y: { name: "times cheaper with offload than without", min: 0 },
      },
      lines,
    },
  );
}

function throughputByWorkers(run: Run): Picture | undefined {
  const figures = groupOf(run, "workers");
  const of = (name: string) => pointsOf(figures, `packets a second, ${name}`, "workers", 1e-6);
  const [beacon, offload, c] = [of("beacon"), of("beacon, offload"), of("C")];
  if (beacon.length < 2 || offload.length < 2) return undefined;
  const { x: workers, median } = beacon.at(-1)!;
  const cores = Math.max(1, run.machine.cpus - 1); // the load generator has one
  const shared =
    cores === 1 ? "one core, so this shows their cost and not their gain" : `${cores} cores`;
  const sentence =
    `${workers} workers relay ${showNumber(median)} million packets a second, ${growthOf(beacon)} times what ` +
    `${beacon[0]!.x === 1 ? "1 does" : `${beacon[0]!.x} do`}; in bursts with offload ` +
    `${showNumber(offload.at(-1)!.median)} million, ${growthOf(offload)} times.` +
    (workers > cores ? ` Here they share ${shared}.` : "");
  return lineChart(
    { title: "Throughput, by workers", sentence },
    {
      x: { name: "workers", min: 0, max: workers + 1 },
      y: { name: "million packets a second", log: 2 },
      lines: [
        { ...OFFLOAD, points: offload },
        { ...BEACON, points: beacon },
        { ...C, name: "C, one thread", points: c },
      ],
    },
  );
}

/** Ratios that have a bar on their most: the yardstick. */
function yardstick(run: Run): Picture | undefined {
  const figures = groupOf(run, "yardstick").filter(
    ({ unit, better, bar }) => unit === RATIO && better === "less" && bar?.atMost !== undefined,
  );
  if (figures.length === 0) return undefined;
  const met = figures.filter((figure) => meetsBar(figure)).length;
  const show = ({ values }: Figure) => showValue(spreadOf(values).median, RATIO);
  const rows = figures.map((figure): Row => {
    const { case: title, name, values, bar } = figure;
    const isMet = meetsBar(figure);
    const short = title.includes("offload") ? name.replace(", offload", "") : name;
    const verdict = `${show(figure)} ${isMet ? "≤" : ">"} ${bar!.atMost}`;
    return {
      name: `${title}: ${short} ${verdict}`,
      colour: isMet ? "blue" : "vermilion",
      ...spreadOf(values),
    };
  });
  const ratios = figures.map((figure) => `${show(figure)} (${figure.case}; ${figure.name})`);
  const sentence = `${met} of ${figures.length} ratios of CPU time a packet meet their bars: ${ratios.join(", ")}.`;
  const least = Math.min(1, ...rows.map(({ min }) => min));
  return rowChart(
    { title: "CPU time a packet, as a ratio", sentence },
    {
      x: { name: "times as much CPU time a packet", min: Math.floor(least * 20) / 20, show: times },
      rows,
    },
  );
}

const QUANTILES = { p50: "solid", p99: "dashed", "p99.9": "dotted" } as const;

function latencyUnderLoad(run: Run): Picture | undefined {
  const figures = groupOf(run, "latency");
  const lines = [BEACON, C].flatMap(({ name: who, colour }) =>
    Object.entries(QUANTILES).map(([q, dash]): Line => {
      const points = pointsOf(figures, `${q}, ${who}`, "load");
      return { name: `${who} ${q}`, colour, points, ...(dash !== "solid" && { dash }) };
    }),
  );
  if (lines.some(({ points }) => points.length < 2)) return undefined;
  const us = (line: string, end: 0 | -1) =>
    showNumber(lines.find(({ name }) => name === line)!.points.at(end)!.median);
  const [least, most] = [lines[0]!.points[0]!.x, lines[0]!.points.at(-1)!.x].map(perCent);
  const sentence =
    `At ${least === "0 %" ? "idle" : `${least} load`} half of the packets are through the beacon within ` +
    `${us("beacon p50", 0)} µs and 99.9 % within ${us("beacon p99.9", 0)} µs (C: ${us("C p50", 0)} and ` +
    `${us("C p99.9", 0)}); at ${most} of what the slower of the two can take, within ${us("beacon p50", -1)} ` +
    `and ${us("beacon p99.9", -1)} µs (C: ${us("C p50", -1)} and ${us("C p99.9", -1)}).`;
  return lineChart(
    { title: "Time through the beacon, by load", sentence },
    {
      x: { name: "load, of what the slower can take", min: 0, max: 1, show: perCent },
      y: { name: "time through it, µs", log: 10 },
      lines,
    },
  );
}

function coturnCost(run: Run): Picture | undefined {
  const prefix = "CPU a packet, ";
  const figures = groupOf(run, "coturn").filter(({ name }) => name.startsWith(prefix));
  const medians = new Map(
    figures.map((figure) => [
      figure.case + figure.name.slice(prefix.length),
      spreadOf(figure.values).median,
    ]),
  );
  const cases = [...new Set(figures.map((figure) => figure.case))];
  const over = [BEACON, OFFLOAD, C].flatMap(({ name }) => {
    const ratios = cases.flatMap((title) => {
      const [coturn, other] = [medians.get(`${title}coturn`), medians.get(title + name)];
      return coturn && other ? [coturn / other] : [];
    });
    const whose =
      name === "C" ? "C's" : `the ${name.replace("beacon", "beacon's").replace(",", " with")}`;
    return ratios.length === 0 ? [] : [`${showRange(ratios)} times ${whose}`];
  });
  if (over.length === 0) return undefined;
  const rows = figures.map(({ case: title, name, values }): Row => {
    const who = name.slice(prefix.length);
    const colour = [BEACON, OFFLOAD, C].find((one) => one.name === who)?.colour ?? "purple";
    const spread = spreadOf(values);
    return { name: `${title}: ${who} ${showNumber(spread.median)}`, colour, ...spread };
  });
  const title = "Cost of a packet, coturn beside the beacon";
  const sentence = `The CPU time that coturn takes for a packet is ${over.join(", ")}.`;
  return rowChart({ title, sentence }, { x: { name: CPU_AXIS, min: 0 }, rows });
}

/** A line through the samples of a soak. @param sentence from the samples, and minutes */
function soakOverTime(
  run: Run,
  unit: string,
  name: string,
  scale: number,
  sentence: (values: readonly number[], minutes: number) => string,
): Picture | undefined {
  const series = groupOf(run, "soak").filter(
    (figure) => isSeries(figure) && figure.values.length > 1,
  );
  const [seconds, samples] = ["s", unit].map((wanted) =>
    series.find((figure) => figure.unit === wanted),
  );
  if (seconds === undefined || samples === undefined) return undefined;
  const values = samples.values.map((value) => value * scale);
  const points = seconds.values.map((s, i) => ({ x: s / 60, ...spreadOf([values[i]!]) }));
  const minutes = Math.round(points.at(-1)!.x * 10) / 10;
  return lineChart(
    { title: `A soak: ${name}`, sentence: sentence(values, minutes) },
    {
      x: { name: "minutes", min: 0, max: minutes },
      y: { name, min: 0 },
      lines: [{ ...BEACON, points }],
    },
  );
}

const soakMemory = (run: Run) =>
  soakOverTime(run, "MB", "resident memory, MB", 1, (mb, minutes) => {
    const show = (value: number) => value.toFixed(1);
    return (
      `In ${minutes} minutes, resident memory went from ${show(mb[0]!)} to ${show(mb.at(-1)!)} MB ` +
      `(${showRange(mb, show)} in between).`
    );
  });

const soakRate = (run: Run) =>
  soakOverTime(run, "/s", "thousand packets a second", 1e-3, (thousands, minutes) => {
    const median = showNumber(spreadOf(thousands).median);
    return `In ${minutes} minutes, the rate was ${showRange(thousands)} thousand packets a second (median ${median}).`;
  });

/** In the order of the report. */
export const CHARTS: readonly ChartPlan[] = [
  { name: "yardstick", bench: "relay", picture: yardstick },
  { name: "payload", bench: "relay", picture: costByPayload },
  { name: "nodes", bench: "relay", picture: costByNodes },
  { name: "unknown", bench: "relay", picture: costByUnknown },
  { name: "flows", bench: "relay", picture: offloadByFlows },
  { name: "workers", bench: "relay", picture: throughputByWorkers },
  { name: "latency", bench: "latency", picture: latencyUnderLoad },
  { name: "coturn", bench: "coturn", picture: coturnCost },
  { name: "soak-memory", bench: "soak", picture: soakMemory },
  { name: "soak-rate", bench: "soak", picture: soakRate },
  { name: "directory", bench: "directory", picture: directoryModel },
];
