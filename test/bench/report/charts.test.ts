import { expect, test } from "bun:test";
import { join } from "node:path";
import { type Figure, loadRun, type Run } from "../../../bench/harness/results.ts";
import { CHARTS } from "../../../bench/report/charts.ts";
import { madeUpRun } from "./runs.ts";

const kept = (bench: string) =>
  loadRun(join(import.meta.dir, "../../../bench/results", `${bench}.json`));
const draw = (name: string, run: Run) => CHARTS.find((plan) => plan.name === name)!.picture(run);

test.each(CHARTS.map(({ name, bench }) => [name, bench]))(
  "chart %s is drawn from the kept run, whatever the order of its figures, and from no other run",
  (name, bench) => {
    const run = kept(bench);
    const { svg } = draw(name, run)!;
    expect(svg).toStartWith("<svg");
    expect(draw(name, run)!.svg).toBe(svg);
    if (!["yardstick", "coturn"].includes(name))
      expect(draw(name, { ...run, figures: run.figures.toReversed() })!.svg).toBe(svg);
    expect(draw(name, madeUpRun([], { bench }))).toBeUndefined();
  },
);

const of = (name: string, values: number[], params: Figure["params"], unit = "ns"): Figure => ({
  ...{ case: JSON.stringify(params), name, unit, better: "less", values },
  params,
});

test("the sentence about nodes names the costs and their ratio to C", () => {
  const figures = [1000, 1_000_000].flatMap((nodes, i) => [
    of("CPU a packet, beacon", [2000 + i * 600, 1, 9000], { group: "nodes", nodes }),
    of("CPU a packet, C", [2000 + i * 500], { group: "nodes", nodes }),
  ]);
  const together = of(
    "many over few",
    [1.3, 1.1, 1.2],
    { group: "many over few", nodes: 1_000_000 },
    "×",
  );
  expect(draw("nodes", madeUpRun([...figures, together]))!.sentence).toBe(
    "With 1,000 to 1,000,000 nodes a packet costs the beacon 2,000 to 2,600 ns of CPU time, 1.00 to 1.04 times C's. " +
      "Side by side, it costs 1.20 times as much with 1,000,000 as with few.",
  );
});

test("a missed bar is shown as text, not in colour alone", () => {
  const ratio = (title: string, value: number): Figure => ({
    ...{ case: title, name: "beacon over C", unit: "×", better: "less", values: [value] },
    ...{ bar: { atMost: 1.03 }, params: { group: "yardstick" } },
  });
  const { sentence, svg } = draw(
    "yardstick",
    madeUpRun([ratio("200 B", 1.02), ratio("1200 B", 1.04)]),
  )!;
  expect(sentence).toBe(
    "1 of 2 ratios of CPU time a packet meet their bars: 1.020 (200 B; beacon over C), 1.040 (1200 B; beacon over C).",
  );
  expect(svg).toContain("1200 B: beacon over C 1.040 &gt; 1.03");
});
