/** Lines through medians, with a whisker from the least to the most of the rounds at each. */
import type { CustomSeriesOption, LineSeriesOption } from "echarts";
import { type Axis, xAxis, yAxis } from "./axes.ts";
import { COLOUR, type Role } from "./palette.ts";
import type { Point } from "./points.ts";
import { FONT_SIZE, type Picture, WIDTH } from "./svg.ts";

export interface Line {
  readonly name: string;
  readonly colour: Role;
  /** Lines differ in more than colour. */
  readonly dash: "solid" | "dashed" | "dotted";
  readonly symbol: "circle" | "triangle" | "diamond" | "rect" | "none";
  /** Symbols are rings, to tell lines of the same dash apart. */
  readonly hollow?: boolean;
  readonly points: readonly Point[];
}

export interface LineChart {
  readonly title: string;
  readonly sentence: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly lines: readonly Line[];
  /** A line across, such as "1: as expensive as without". */
  readonly level?: { readonly at: number; readonly name: string };
}

const DASHES = { solid: "solid", dashed: [7, 5], dotted: [2, 4] } as const;
const LEGEND_TOP = 44;
const ROW_HEIGHT = 26;
/** The symbol before a name, and the gap behind it. */
const LEGEND_EXTRA = 76;
/** Wider than most letters are, so that a wide font does not make rows overlap. */
const LETTER_WIDTH = FONT_SIZE * 0.58;
const PLOT_HEIGHT = 250;

export function lineChart({ title, sentence, x, y, lines, level }: LineChart): Picture {
  const points = lines.flatMap((line) => line.points);
  const rows = legendRows(lines.map(({ name }) => name));
  const top = LEGEND_TOP + rows.length * ROW_HEIGHT + 36;
  const height = top + PLOT_HEIGHT + 66;
  const colours = [...new Set(lines.map(({ colour }) => colour))];
  const along = points.flatMap(({ min, max }) => [min, max]);
  return {
    title,
    sentence,
    height,
    option: {
      legend: rows.map((names, row) => ({
        ...{ data: names, left: 16, top: LEGEND_TOP + row * ROW_HEIGHT, padding: 0, itemGap: 34 },
        ...{ itemWidth: 36, itemHeight: 10, selectedMode: false },
        textStyle: { color: COLOUR.text, fontSize: FONT_SIZE },
        inactiveColor: COLOUR.quiet,
      })),
      grid: { left: 16, right: 38, top, bottom: 50, containLabel: true },
      xAxis: xAxis(
        x,
        points.map((point) => point.x),
      ),
      yAxis: yAxis(y, level ? [...along, level.at] : along),
      series: [
        ...lines.map((line) => whiskers(line, (colours.indexOf(line.colour) - (colours.length - 1) / 2) * 4)),
        ...lines.map((line, i) => lineSeries(line, i === 0 ? level : undefined)),
      ],
    },
  };
}

function lineSeries(
  { name, colour, dash, symbol, hollow, points }: Line,
  level: LineChart["level"],
): LineSeriesOption {
  return {
    ...{ type: "line", name, symbol, symbolSize: 9, silent: true, z: 3 },
    data: points.map(({ x, median }) => [x, median]),
    lineStyle: { color: COLOUR[colour], width: 2, type: DASHES[dash] as "solid" },
    itemStyle: hollow
      ? { color: COLOUR.card, borderColor: COLOUR[colour], borderWidth: 2 }
      : { color: COLOUR[colour], borderColor: COLOUR.card, borderWidth: 1 },
    emphasis: { disabled: true },
    ...(level && {
      markLine: {
        ...{ symbol: "none", silent: true, animation: false, data: [{ yAxis: level.at }] },
        lineStyle: { color: COLOUR.quiet, type: [2, 3] as unknown as "dotted", width: 1 },
        label: {
          ...{ formatter: level.name, position: "insideStartBottom", color: COLOUR.quiet },
          fontSize: FONT_SIZE,
        },
      },
    }),
  };
}

/** @param asidePx so that whiskers at the same place stand beside each other */
function whiskers({ colour, points }: Line, asidePx: number): CustomSeriesOption {
  return {
    ...{ type: "custom", silent: true, z: 2, clip: false },
    data: points.filter(({ min, max }) => min !== max).map(({ x, min, max }) => [x, min, max]),
    encode: { x: 0, y: [1, 2] },
    renderItem: (_params, api) => {
      const [x = 0, low = 0] = api.coord([api.value(0), api.value(1)]);
      const [, high = 0] = api.coord([api.value(0), api.value(2)]);
      return whisker(x + asidePx, low, x + asidePx, high, COLOUR[colour]);
    },
  };
}

/** A line with a cap at both ends, along one of the axes. */
export function whisker(x1: number, y1: number, x2: number, y2: number, stroke: string) {
  const [capX, capY] = x1 === x2 ? [3, 0] : [0, 3];
  const style = { stroke, lineWidth: 1.5 };
  const line = (a: number, b: number, c: number, d: number) =>
    ({ type: "line", shape: { x1: a, y1: b, x2: c, y2: d }, style }) as const;
  return {
    type: "group" as const,
    children: [
      line(x1, y1, x2, y2),
      line(x1 - capX, y1 - capY, x1 + capX, y1 + capY),
      line(x2 - capX, y2 - capY, x2 + capX, y2 + capY),
    ],
  };
}

/** Names of a legend, in rows that fit, each as full as the others. */
function legendRows(names: readonly string[]): string[][] {
  const widthOf = (row: readonly string[]) =>
    row.reduce((width, name) => width + name.length * LETTER_WIDTH + LEGEND_EXTRA, 0);
  for (let columns = names.length; columns > 1; columns--) {
    if (names.length % columns !== 0 && columns !== Math.ceil(names.length / 2)) continue;
    const rows = Array.from({ length: Math.ceil(names.length / columns) }, (_, row) =>
      names.slice(row * columns, (row + 1) * columns),
    );
    if (rows.every((row) => widthOf(row) <= WIDTH - 24)) return rows;
  }
  return names.map((name) => [name]);
}
