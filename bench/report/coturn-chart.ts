/** The chart of the coturn bench: CPU time a packet of each relay, a group a case. */
import type { Run } from "../harness/results.ts";
import { showNumber, spreadOf } from "../harness/statistics.ts";
import { type Bar, barChart } from "./bar-chart.ts";
import type { Role } from "./palette.ts";
import { groupOf, showRange } from "./points.ts";
import type { Picture } from "./svg.ts";

const COTURN = "coturn";
const COLOURS: Readonly<Record<string, Role>> = {
  [COTURN]: "purple",
  beacon: "blue",
  "beacon, offload": "green",
  C: "vermilion",
};
const PREFIX = "CPU a packet, ";

export function coturnCost(run: Run): Picture | undefined {
  const figures = groupOf(run, "coturn").filter(
    ({ name }) => name.startsWith(PREFIX) && name.slice(PREFIX.length) in COLOURS,
  );
  const groups = [...Map.groupBy(figures, (figure) => figure.case)].map(([title, those]) => ({
    title,
    bars: Object.entries(COLOURS).flatMap(([name, colour]): Bar[] => {
      const figure = those.find((one) => one.name === PREFIX + name);
      if (figure === undefined) return [];
      const spread = spreadOf(figure.values);
      return [{ name, colour, ...spread, label: showNumber(spread.median) }];
    }),
  }));
  const overCoturn = Object.keys(COLOURS).flatMap((name) => {
    const ratios = groups.flatMap(({ bars }) => {
      const [coturn, other] = [COTURN, name].map((who) => bars.find((bar) => bar.name === who));
      return name !== COTURN && coturn && other ? [coturn.median / other.median] : [];
    });
    const whose = name === "C" ? "C's" : `the ${name.replace("beacon", "beacon's").replace(",", " with")}`;
    return ratios.length === 0 ? [] : [`${showRange(ratios)} times ${whose}`];
  });
  if (overCoturn.length === 0) return undefined;
  return barChart({
    title: "Cost of a packet, coturn beside the beacon",
    sentence: `The CPU time that coturn takes for a packet is ${overCoturn.join(", ")}.`,
    x: { name: "CPU time a packet, ns" },
    groups,
  });
}
