/** The chart of the soak bench, whose values are samples over time: resident memory above, rate below. */
import type { LineSeriesOption, XAXisComponentOption, YAXisComponentOption } from "echarts";
import type { Figure, Run } from "../harness/results.ts";
import { type Axis, xAxis, yAxis } from "./axes.ts";
import { COLOUR, type Role } from "./palette.ts";
import { groupOf, showRange } from "./points.ts";
import type { Picture } from "./svg.ts";

const TOP = 78;
const PANEL_HEIGHT = 140;
const BETWEEN = 52;

export function soakOverTime(run: Run): Picture | undefined {
  const samples = groupOf(run, "soak").filter(
    ({ params, values }) => Number(params?.["sampleS"]) > 0 && values.length > 1,
  );
  const memory = samples.find(({ unit }) => unit === "MB");
  const rate = samples.find(({ unit }) => unit === "/s");
  if (memory === undefined || rate === undefined) return undefined;
  const [first, last] = [memory.values[0]!, memory.values.at(-1)!].map((mb) => mb.toFixed(1));
  const minutes = (memory.values.length * Number(memory.params!["sampleS"])) / 60;
  const time: Axis = { name: "minutes", min: 0, max: minutes };
  const upper = { left: 64, right: 38, top: TOP, height: PANEL_HEIGHT };
  const lower = { ...upper, top: TOP + PANEL_HEIGHT + BETWEEN };
  const thousands = rate.values.map((perS) => perS / 1000);
  return {
    title: "Memory and rate, over time",
    sentence:
      `In ${showRange([minutes], (m) => m.toFixed(m < 10 ? 1 : 0))} minutes of load, resident memory went from ${first} to ${last} MB ` +
      `(${showRange(memory.values, (mb) => mb.toFixed(1))} in between), at ${showRange(thousands)} thousand packets a second.`,
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
      series: [panel(memory, 0, "blue", 1), panel(rate, 1, "green", 1 / 1000)],
    },
  };
}

function panel({ values, params }: Figure, index: number, colour: Role, scale: number): LineSeriesOption {
  const sampleS = Number(params!["sampleS"]);
  return {
    ...{ type: "line", xAxisIndex: index, yAxisIndex: index, symbol: "none", silent: true },
    data: values.map((value, i) => [((i + 1) * sampleS) / 60, value * scale]),
    lineStyle: { color: COLOUR[colour], width: 2 },
    emphasis: { disabled: true },
  };
}
