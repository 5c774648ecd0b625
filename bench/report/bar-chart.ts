/** Bars from 0 to a median, a group a case, each with its name before it and its number behind it. */
import type { CustomSeriesOption, XAXisComponentOption } from "echarts";
import type { Spread } from "../harness/statistics.ts";
import { type Axis, xAxis } from "./axes.ts";
import { whisker } from "./line-chart.ts";
import { COLOUR, type Role } from "./palette.ts";
import { FONT, FONT_SIZE, type Picture } from "./svg.ts";

export interface Bar extends Spread {
  readonly name: string;
  readonly colour: Role;
  /** What stands behind it. */
  readonly label: string;
}

export interface BarChart {
  readonly title: string;
  readonly sentence: string;
  readonly x: Axis;
  readonly groups: readonly { readonly title: string; readonly bars: readonly Bar[] }[];
}

const TOP = 44;
const LEFT = 24;
/** Where bars begin: behind their names. */
const BARS_LEFT = 168;
const GROUP_TITLE_HEIGHT = 36;
const BAR_PITCH = 26;
const BAR_HEIGHT = 16;
/** Room behind the longest bar for its number. */
const LABEL_ROOM = 1.22;

export function barChart({ title, sentence, x, groups }: BarChart): Picture {
  const bars = Math.max(...groups.map((group) => group.bars.length));
  const groupHeight = GROUP_TITLE_HEIGHT + bars * BAR_PITCH;
  const most = Math.max(...groups.flatMap((group) => group.bars.map(({ max }) => max)));
  return {
    title,
    sentence,
    height: TOP + groups.length * groupHeight + 70,
    option: {
      grid: { left: BARS_LEFT, right: 28, top: TOP, bottom: 62 },
      xAxis: {
        ...xAxis({ ...x, min: 0, max: most * LABEL_ROOM }, []),
        ...{ splitNumber: 4, splitLine: { show: true, lineStyle: { color: COLOUR.grid } } },
        axisLabel: { color: COLOUR.quiet, fontSize: FONT_SIZE, showMaxLabel: false },
      } as XAXisComponentOption,
      yAxis: { type: "category", data: groups.map((group) => group.title), inverse: true, show: false },
      series: [groupSeries(groups, groupHeight)],
    },
  };
}

function groupSeries(groups: BarChart["groups"], groupHeight: number): CustomSeriesOption {
  return {
    ...{ type: "custom", silent: true },
    data: groups.map((_, row) => [0, row]),
    renderItem: (_params, api) => {
      const { title, bars } = groups[api.value(1) as number]!;
      const at = (value: number) => api.coord([value, api.value(1)])[0]!;
      const top = api.coord([0, api.value(1)])[1]! - groupHeight / 2;
      const text = (content: string, x: number, y: number, fill: string, fontWeight = 400) => ({
        type: "text" as const,
        style: {
          ...{ text: content, x, y, fill, fontFamily: FONT, fontSize: FONT_SIZE, fontWeight },
          textVerticalAlign: "middle" as const,
        },
      });
      return {
        type: "group",
        children: [
          text(title, LEFT, top + GROUP_TITLE_HEIGHT / 2 + 4, COLOUR.text, 600),
          ...bars.flatMap(({ name, colour, label, median, min, max }, i) => {
            const y = top + GROUP_TITLE_HEIGHT + (i + 0.5) * BAR_PITCH;
            const width = at(median) - at(0);
            return [
              text(name, LEFT, y, COLOUR.text),
              {
                type: "rect" as const,
                shape: { x: at(0), y: y - BAR_HEIGHT / 2, width, height: BAR_HEIGHT },
                style: { fill: COLOUR[colour] },
              },
              ...(min === max ? [] : [whisker(at(min), y, at(max), y, COLOUR.text)]),
              text(label, at(max) + 8, y, COLOUR.text),
            ];
          }),
        ],
      };
    },
  };
}
