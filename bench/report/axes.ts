/** Axes: their ticks, words and lines. */
import type { XAXisComponentOption, YAXisComponentOption } from "echarts";
import { COLOUR } from "./palette.ts";
import { FONT_SIZE } from "./svg.ts";

export interface Axis {
  /** With the unit: "payload, bytes". */
  readonly name: string;
  /** Where the range spans powers of ten. */
  readonly log?: boolean;
  /** Where a tick stands at each value that was measured, and nowhere else. */
  readonly ticks?: readonly number[];
  readonly min?: number;
  readonly max?: number;
  readonly show?: (value: number) => string;
}

/** More ticks than this crowd an axis. */
const TICKS_MAX = 7;

/** From here on all numbers of an axis are in thousands or millions. */
const ROUND_FROM = 1e5;

/** @param largest of the axis: "1,500" beside 2,000, and "1 k" beside 1 M */
function showTick(value: number, largest: number): string {
  const [divisor, suffix] =
    largest < ROUND_FROM || value < 1000 ? [1, ""] : value < 1e6 ? [1e3, " k"] : [1e6, " M"];
  return `${Number((value / divisor).toPrecision(4)).toLocaleString("en-US")}${suffix}`;
}

/**
 * Ticks at 1, 2 and 5 times powers of ten, or at powers alone where those are too many; the first is below all values and
 * the last above.
 * @param values over 0
 */
export function logTicks(values: readonly number[]): number[] {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  for (const steps of [[1, 2, 5], [1, 3], [1]]) {
    const ticks: number[] = [];
    // One power more at either end, as logarithms are rounded.
    for (let power = Math.floor(Math.log10(least)) - 1; power <= Math.ceil(Math.log10(most)) + 1; power++) {
      ticks.push(...steps.map((step) => Number(`${step}e${power}`)));
    }
    const from = Math.max(
      0,
      ticks.findLastIndex((tick) => tick <= least),
    );
    const to = ticks.findIndex((tick) => tick >= most);
    const within = ticks.slice(from, Math.max(to, from + 1) + 1);
    if (within.length <= TICKS_MAX || steps.length === 1) return within;
  }
  return [];
}

/** @param values all that is drawn along it */
export function xAxis(axis: Axis, values: readonly number[]): XAXisComponentOption {
  const { quiet } = COLOUR;
  return {
    ...scale(axis, values),
    ...{ nameLocation: "middle", nameGap: 32 },
    axisLine: { onZero: false, lineStyle: { color: quiet } },
    splitLine: { show: false },
  } as XAXisComponentOption;
}

/** Its name stands above it, its lines go across. @param values all that is drawn along it */
export function yAxis(axis: Axis, values: readonly number[]): YAXisComponentOption {
  return {
    ...scale(axis, values),
    ...{ nameLocation: "end", nameGap: 14 },
    nameTextStyle: { color: COLOUR.quiet, fontSize: FONT_SIZE, align: "left", padding: 0 },
    axisLine: { show: false },
    axisTick: { show: false },
    splitLine: { lineStyle: { color: COLOUR.grid } },
  } as YAXisComponentOption;
}

function scale(axis: Axis, values: readonly number[]) {
  const ticks = axis.ticks ?? (axis.log ? logTicks(values) : undefined);
  const custom = ticks && { customValues: [...ticks] };
  const [min, max] = [axis.min ?? ticks?.[0], axis.max ?? ticks?.at(-1)];
  const largest = max ?? Math.max(...values);
  const show = axis.show ?? ((value: number) => showTick(value, largest));
  return {
    type: axis.log ? "log" : "value",
    name: axis.name,
    nameTextStyle: { color: COLOUR.quiet, fontSize: FONT_SIZE },
    ...(min !== undefined && { min }),
    ...(max !== undefined && { max }),
    axisTick: { lineStyle: { color: COLOUR.quiet }, ...custom },
    axisLabel: { color: COLOUR.quiet, fontSize: FONT_SIZE, formatter: show, ...custom },
  };
}
