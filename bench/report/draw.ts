/** Draws charts as SVG files with echarts: lines over an axis, and rows of ratios or costs. */
import * as echarts from "echarts";
import type { Spread } from "../harness/statistics.ts";

export interface Point extends Spread {
  readonly x: number;
}

export interface Line {
  readonly name: string;
  readonly colour: Colour;
  readonly dash?: "dashed" | "dotted";
  readonly points: readonly Point[];
}

export interface Axis {
  /** With the unit: "payload, bytes". */
  readonly name: string;
  /** Base of a logarithmic axis. */
  readonly log?: 2 | 10;
  readonly min?: number;
  readonly max?: number;
  readonly show?: (value: number) => string;
}

export interface Picture {
  readonly title: string;
  /** Conclusion from the data, in one sentence. */
  readonly sentence: string;
  readonly svg: string;
}

/** Colours of Okabe and Ito, which colour-blind readers tell apart. */
const COLOURS = {
  blue: "#0072b2",
  vermilion: "#d55e00",
  green: "#009e73",
  purple: "#cc79a7",
} as const;
export type Colour = keyof typeof COLOURS;
const [TEXT, GRID] = ["#1f2328", "#e4e8ec"];

/** Narrow, with large letters: a phone leaves 358 pixels, where letters are 10 pixels high. */
const WIDTH = 560;
const FONT = { fontFamily: "system-ui, sans-serif", fontSize: 16, color: TEXT };
const LEGEND = { left: 16, top: 44, itemGap: 16, selectedMode: false as const, textStyle: FONT };
const LEGEND_ROW = 34;
const PLOT_HEIGHT = 250;
const ROW_HEIGHT = 52;

const showTick = (value: number) =>
  value.toLocaleString("en-US", { notation: Math.abs(value) >= 1e4 ? "compact" : "standard" });

const axis = ({ name, log, min, max, show = showTick }: Axis) => ({
  ...(log ? { type: "log" as const, logBase: log } : { type: "value" as const }),
  ...{ name, nameTextStyle: FONT, splitLine: { lineStyle: { color: GRID } } },
  axisLabel: { ...FONT, formatter: show, hideOverlap: true },
  ...(min !== undefined && { min }),
  ...(max !== undefined && { max }),
});

function draw(
  title: string,
  sentence: string,
  height: number,
  option: echarts.EChartsOption,
): Picture {
  const chart = echarts.init(null, null, { renderer: "svg", ssr: true, width: WIDTH, height });
  chart.setOption({
    ...{ animation: false, backgroundColor: "#ffffff", textStyle: FONT },
    title: { text: title, left: 16, top: 12, padding: 0, textStyle: { ...FONT, fontSize: 18 } },
    ...option,
  });
  // Without the styles for a mouse; echarts numbers ids over all charts of a process.
  const svg = chart
    .renderToSVGString()
    .replace(/<style[^>]*>[\s\S]*?<\/style>| class="[^"]*"/g, "")
    .replace(/\bzr\d+-/g, "chart-")
    .replace(">", `><title>${title}</title>`);
  chart.dispose();
  return { title, sentence, svg: `${svg}\n` };
}

/** Bars from the least to the most of the rounds. @param ends of each bar: x1, y1, x2, y2 */
const whiskers = (ends: readonly number[][], stroke: string): echarts.CustomSeriesOption => ({
  ...{ type: "custom", silent: true, data: ends, encode: { x: [0, 2], y: [1, 3] } },
  renderItem: (_params, api) => {
    const [x1 = 0, y1 = 0] = api.coord([api.value(0), api.value(1)]);
    const [x2 = 0, y2 = 0] = api.coord([api.value(2), api.value(3)]);
    return {
      type: "line",
      shape: { x1, y1, x2, y2 },
      style: { stroke, lineWidth: 4, opacity: 0.4 },
    };
  },
});

/** Draws lines through medians, with a bar from the least to the most of the rounds at each. */
export function lineChart(
  { title, sentence }: Omit<Picture, "svg">,
  { x, y, lines }: { readonly x: Axis; readonly y: Axis; readonly lines: readonly Line[] },
): Picture {
  const top = LEGEND.top + Math.ceil(lines.length / 2) * LEGEND_ROW + 36;
  return draw(title, sentence, top + PLOT_HEIGHT + 66, {
    legend: { ...LEGEND, data: lines.map(({ name }) => name) },
    grid: { left: 16, right: 38, top, bottom: 50, containLabel: true },
    xAxis: { ...axis(x), nameLocation: "middle", nameGap: 32 },
    yAxis: { ...axis(y), nameTextStyle: { ...FONT, align: "left" } },
    series: lines.flatMap(({ name, colour, dash = "solid", points }): echarts.SeriesOption[] => [
      whiskers(
        points.filter(({ min, max }) => min !== max).map(({ x, min, max }) => [x, min, x, max]),
        COLOURS[colour],
      ),
      {
        ...{ type: "line", name, silent: true, data: points.map(({ x, median }) => [x, median]) },
        ...{ symbol: points.length > 20 ? "none" : "circle", symbolSize: 8 },
        lineStyle: { color: COLOURS[colour], type: dash as "solid" },
        itemStyle: { color: COLOURS[colour] },
      },
    ]),
  });
}

export interface Row extends Spread {
  /** Printed above the mark. */
  readonly name: string;
  readonly colour: Colour;
}

/** Draws a row for each value: its median, and a bar from the least to the most of the rounds. */
export function rowChart(
  { title, sentence }: Omit<Picture, "svg">,
  { x, rows }: { readonly x: Axis; readonly rows: readonly Row[] },
): Picture {
  return draw(title, sentence, 110 + rows.length * ROW_HEIGHT, {
    grid: { left: 24, right: 24, top: 44, bottom: 62 },
    xAxis: { ...axis(x), nameLocation: "middle", nameGap: 32 },
    yAxis: {
      ...{ type: "category", inverse: true, data: rows.map(({ name }) => name) },
      ...{ axisTick: { show: false }, axisLine: { show: false } },
      axisLabel: {
        ...FONT,
        inside: true,
        margin: 0,
        verticalAlign: "bottom",
        padding: [0, 0, 8, 0],
      },
    },
    series: rows.flatMap(({ colour, median, min, max }, i) => [
      whiskers([[min, i, max, i]], COLOURS[colour]),
      {
        ...{ type: "scatter" as const, silent: true, symbolSize: 12, data: [[median, i]] },
        itemStyle: { color: COLOURS[colour] },
      },
    ]),
  });
}
