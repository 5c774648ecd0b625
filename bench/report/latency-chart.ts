/** The chart of the latency bench. */
import type { Run } from "../harness/results.ts";
import { showNumber } from "../harness/statistics.ts";
import { type Line, lineChart } from "./line-chart.ts";
import { groupOf, pointsOf } from "./points.ts";
import type { Picture } from "./svg.ts";

/** Of all that the bench has, what a chart can show. */
const QUANTILES = [
  { name: "p50", dash: "solid", symbol: "circle" },
  { name: "p99", dash: "dashed", symbol: "triangle" },
  { name: "p99.9", dash: "dotted", symbol: "diamond" },
] as const;
const CONTENDERS = [
  { name: "beacon", colour: "blue", hollow: false },
  { name: "C", colour: "vermilion", hollow: true },
] as const;

export function latencyUnderLoad(run: Run): Picture | undefined {
  const figures = groupOf(run, "latency");
  const lines = CONTENDERS.flatMap(({ name: who, colour, hollow }) =>
    QUANTILES.map(({ name, dash, symbol }): Line => {
      const points = pointsOf(figures, `${name}, ${who}`, "load");
      return { name: `${who} ${name}`, colour, hollow, dash, symbol, points };
    }),
  );
  if (lines.some(({ points }) => points.length < 2)) return undefined;
  const us = (line: string, at: 0 | -1) =>
    showNumber(lines.find(({ name }) => name === line)!.points.at(at)!.median);
  const [least, most] = [lines[0]!.points[0]!.x, lines[0]!.points.at(-1)!.x].map(
    (load) => `${Math.round(load * 100)} %`,
  );
  return lineChart({
    title: "Time through the beacon, by load",
    sentence:
      `At ${least === "0 %" ? "idle" : `${least} load`} half of the packets are through the beacon within ${us("beacon p50", 0)} µs and ` +
      `99.9 % within ${us("beacon p99.9", 0)} µs (C: ${us("C p50", 0)} and ${us("C p99.9", 0)}); at ${most} of what the ` +
      `slower of the two can take, within ${us("beacon p50", -1)} and ${us("beacon p99.9", -1)} µs ` +
      `(C: ${us("C p50", -1)} and ${us("C p99.9", -1)}).`,
    x: {
      name: "load, of what the slower can take",
      min: 0,
      max: 1,
      show: (share) => `${Math.round(share * 100)} %`,
    },
    y: { name: "time through it, µs", log: true },
    lines,
  });
}
