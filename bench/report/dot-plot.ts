/** A row a ratio: its median, the least and most of its rounds, and its bar. */
import type { CustomSeriesOption, XAXisComponentOption } from "echarts";
import { showValue } from "../harness/statistics.ts";
import { xAxis } from "./axes.ts";
import { whisker } from "./line-chart.ts";
import { COLOUR } from "./palette.ts";
import { FONT, FONT_SIZE, type Picture, WIDTH } from "./svg.ts";
import { RATIO } from "./verdicts.ts";

export interface Row {
  readonly name: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** What the median should be at most. */
  readonly bar: number;
}

export interface DotPlot {
  readonly title: string;
  readonly sentence: string;
  readonly axisName: string;
  readonly rows: readonly Row[];
}

const ROW_HEIGHT = 58;
const LEGEND_Y = 56;
const TOP = 76;
/** The name stands so far above what it names. */
const NAME_ABOVE = 21;
const SIDE = 24;
const TICKS_MAX = 6;
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];

export function dotPlot({ title, sentence, axisName, rows }: DotPlot): Picture {
  const ticks = ticksOf(rows.flatMap(({ min, max, bar }) => [1, min, max, bar]));
  return {
    title,
    sentence,
    height: TOP + rows.length * ROW_HEIGHT + 66,
    option: {
      graphic: legend(),
      grid: { left: SIDE, right: SIDE, top: TOP, bottom: 58 },
      xAxis: {
        ...xAxis({ name: axisName, ticks, show: (value) => value.toFixed(2) }, []),
        splitLine: { show: true, lineStyle: { color: COLOUR.grid } },
      } as XAXisComponentOption,
      yAxis: { type: "category", data: rows.map(({ name }) => name), inverse: true, show: false },
      series: [marks(rows)],
    },
  };
}

function ticksOf(values: readonly number[]): number[] {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  for (const step of STEPS) {
    const [from, to] = [Math.floor(least / step), Math.ceil(most / step)];
    if (to - from < TICKS_MAX) {
      return Array.from({ length: to - from + 1 }, (_, i) => Number(((from + i) * step).toFixed(2)));
    }
  }
  return [least, most];
}

function marks(rows: readonly Row[]): CustomSeriesOption {
  return {
    ...{ type: "custom", silent: true },
    data: rows.map(({ median }, row) => [median, row]),
    renderItem: (_params, api) => {
      const { name, median, min, max, bar } = rows[api.value(1) as number]!;
      const x = (value: number) => api.coord([value, api.value(1)])[0]!;
      const y = api.coord([median, api.value(1)])[1]! + 11;
      const missed = median > bar;
      const colour = missed ? COLOUR.vermilion : COLOUR.blue;
      const value = `${showValue(median, RATIO)}${missed ? ", missed" : ""}`;
      return {
        type: "group",
        children: [
          text(name, SIDE, y - NAME_ABOVE),
          text(value, WIDTH - SIDE, y - NAME_ABOVE, missed ? colour : COLOUR.text, "right"),
          barMark(x(bar), y),
          whisker(x(min), y, x(max), y, colour),
          dot(x(median), y, colour),
        ],
      };
    },
  };
}

function legend() {
  return [
    ...[dot(SIDE, LEGEND_Y, COLOUR.blue), text("median", SIDE + 14, LEGEND_Y)],
    ...[
      whisker(SIDE + 96, LEGEND_Y, SIDE + 124, LEGEND_Y, COLOUR.blue),
      text("all rounds", SIDE + 134, LEGEND_Y),
    ],
    ...[barMark(SIDE + 244, LEGEND_Y), text("bar: at most this", SIDE + 254, LEGEND_Y)],
  ];
}

function text(
  content: string,
  x: number,
  y: number,
  fill: string = COLOUR.text,
  align: "left" | "right" = "left",
) {
  const font = { fontFamily: FONT, fontSize: FONT_SIZE };
  return {
    type: "text" as const,
    style: { ...font, text: content, x, y, fill, align, verticalAlign: "middle" as const },
  };
}

function dot(cx: number, cy: number, fill: string) {
  return {
    type: "circle" as const,
    shape: { cx, cy, r: 6 },
    style: { fill, stroke: COLOUR.card, lineWidth: 1 },
  };
}

function barMark(x: number, y: number) {
  return {
    type: "line" as const,
    shape: { x1: x, y1: y - 9, x2: x, y2: y + 9 },
    style: { stroke: COLOUR.text, lineWidth: 3 },
  };
}
