/** The chart of the soak bench, whose values are samples over time: resident memory above, rate below. */
import type { LineSeriesOption, XAXisComponentOption, YAXisComponentOption } from "echarts";
import type { Run } from "../harness/results.ts";
import { showNumber, spreadOf } from "../harness/statistics.ts";
import { type Axis, xAxis, yAxis } from "./axes.ts";
import { COLOUR, type Role } from "./palette.ts";
import { groupOf, showRange } from "./points.ts";
import type { Picture } from "./svg.ts";
import { isSeries } from "./verdicts.ts";

const TOP = 78;
const PANEL_HEIGHT = 140;
const BETWEEN = 52;

export function soakOverTime(run: Run): Picture | undefined {
  const series = groupOf(run, "soak").filter((figure) => isSeries(figure) && figure.values.length > 1);
  const [seconds, memory, rate] = ["s", "MB", "/s"].map((unit) =>
    series.find((figure) => figure.unit === unit),
  );
  if (seconds === undefined || memory === undefined || rate === undefined) return undefined;
  const atMinutes = seconds.values.map((s) => s / 60);
  const minutes = Math.round(atMinutes.at(-1)! * 10) / 10;
  const mb = (value: number) => value.toFixed(1);
  const ends = [memory.values[0]!, memory.values.at(-1)!].map(mb);
  const time: Axis = { name: "minutes", min: 0, max: minutes };
  const upper = { left: 64, right: 38, top: TOP, height: PANEL_HEIGHT };
  const lower = { ...upper, top: TOP + PANEL_HEIGHT + BETWEEN };
  const thousands = rate.values.map((perS) => perS / 1000);
  return {
    title: "Memory and rate, over time",
    sentence:
      `In ${minutes} minutes, resident memory went from ${ends.join(" to ")} MB (${showRange(memory.values, mb)} in ` +
      `between), at ${showRange(thousands)} thousand packets a second (median ${showNumber(spreadOf(thousands).median)}).`,
    height: TOP + 2 * PANEL_HEIGHT + BETWEEN + 66,
    option: {
      grid: [upper, lower],
      xAxis: [
        {
          ...xAxis({ ...time, name: "" }, []),
          gridIndex: 0,
          axisLabel: { show: false },
        } as XAXisComponentOption,
        { ...xAxis(time, []), gridIndex: 1 } as XAXisComponentOption,
      ],
      yAxis: [
        { ...yAxis({ name: "resident memory, MB", min: 0 }, memory.values), gridIndex: 0, splitNumber: 3 },
        { ...yAxis({ name: "thousand packets a second", min: 0 }, thousands), gridIndex: 1, splitNumber: 3 },
      ] as YAXisComponentOption[],
      series: [panel(atMinutes, memory.values, 0, "blue"), panel(atMinutes, thousands, 1, "green")],
    },
  };
}

function panel(
  minutes: readonly number[],
  values: readonly number[],
  index: number,
  colour: Role,
): LineSeriesOption {
  return {
    ...{ type: "line", xAxisIndex: index, yAxisIndex: index, symbol: "none", silent: true },
    data: values.map((value, i) => [minutes[i]!, value]),
    lineStyle: { color: COLOUR[colour], width: 2 },
    emphasis: { disabled: true },
  };
}
