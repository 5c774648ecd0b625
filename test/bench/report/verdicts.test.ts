import { describe, expect, test } from "bun:test";
import type { Figure } from "../../../bench/harness/results.ts";
import {
  barNews,
  judge,
  match,
  roundsNeeded,
  type Verdict,
} from "../../../bench/report/verdicts.ts";
import { madeUpRun, ratio } from "./runs.ts";

const LOW = [1.01, 1.02, 1.03, 1.0, 1.04, 1.05];
const HIGH = LOW.map((value) => value + 0.1);

const verdictOf = (
  a: readonly number[],
  b: readonly number[],
  changed: Partial<Figure> = {},
): Verdict => judge([[ratio("case", a, changed), ratio("case", b, changed)]])[0]!.verdict;

describe("verdicts on a single figure", () => {
  test.each<[string, readonly number[], readonly number[], Partial<Figure>, Verdict]>([
    ["more of what should be less", LOW, HIGH, {}, "worse"],
    ["less of it", HIGH, LOW, {}, "better"],
    ["more of what should be more", LOW, HIGH, { better: "more" }, "better"],
    ["less of it", HIGH, LOW, { better: "more" }, "worse"],
    ["neither is better", LOW, HIGH, { better: "neither" }, "moved"],
    ["from a figure below 0 upwards", LOW.map((v) => v - 3), LOW, {}, "worse"],
    ["the same", LOW, LOW, {}, "noise"],
    ["overlapping", [1, 3, 5, 7, 9, 11], [2, 4, 6, 8, 10, 12], {}, "noise"],
    ["three rounds apart", [1, 2, 3], [11, 12, 13], {}, "few rounds"],
    ["one round", [1], [100], {}, "few rounds"],
    ["four rounds apart", [1, 2, 3, 4], [11, 12, 13, 14], {}, "worse"],
    ["samples over time", LOW, HIGH, { params: { group: "soak", series: true } }, "no rounds"],
  ])("%s", (_what, a, b, changed, verdict) => {
    expect(verdictOf(a, b, changed)).toBe(verdict);
  });

  test("where the ranks differ and the medians do not, nothing is better or worse", () => {
    expect(verdictOf([1, 1, 1, 1, 5, 5, 5, 5, 5], [5, 5, 5, 5, 5, 9, 9, 9, 9])).toBe("moved");
  });

  test("the change is that of the medians, also from 0 and below", () => {
    const change = (a: number, b: number) =>
      judge([[ratio("case", [a]), ratio("case", [b])]])[0]!.changePercent;
    expect(change(2, 3)).toBeCloseTo(50, 10);
    expect(change(-2, -1)).toBeCloseTo(50, 10);
    expect(change(0, 3)).toBe(Infinity);
    expect(change(0, 0)).toBe(0);
  });
});

describe("verdicts among many figures", () => {
  /** A table of figures, of which the first few changed. */
  const table = (figures: number, changed: number) =>
    judge(
      Array.from({ length: figures }, (_, i) => [
        ratio(`case ${i}`, LOW),
        ratio(`case ${i}`, i < changed ? HIGH : LOW),
      ]),
    ).map(({ verdict }) => verdict);

  test("one of 40 that changed keeps a question mark after six rounds, as its p of 0.002 is more than 0.05 / 40", () => {
    expect(table(40, 1).slice(0, 2)).toEqual(["worse?", "noise"]);
  });

  test("two of 40 that changed are beyond the noise, as each p is less than 2 × 0.05 / 40", () => {
    expect(table(40, 2).slice(0, 3)).toEqual(["worse", "worse", "noise"]);
  });

  test("figures that cannot have a verdict do not burden the others", () => {
    const few: [Figure, Figure][] = Array.from({ length: 100 }, (_, i) => [
      ratio(`few ${i}`, [1]),
      ratio(`few ${i}`, [2]),
    ]);
    const verdicts = judge([[ratio("case", LOW), ratio("case", HIGH)], ...few]).map(
      ({ verdict }) => verdict,
    );
    expect(verdicts.slice(0, 2)).toEqual(["worse", "few rounds"]);
  });

  test("where nothing changed, hardly a table in twenty calls anything beyond the noise", () => {
    let random = 1;
    const noise = () => {
      random = (random * 48271) % 2147483647;
      return random / 2147483647;
    };
    const rounds = () => Array.from({ length: 7 }, noise);
    let tablesWithCalls = 0;
    let alone = 0;
    for (let i = 0; i < 200; i++) {
      const verdicts = judge(
        Array.from(
          { length: 20 },
          (_, f) => [ratio(`${f}`, rounds()), ratio(`${f}`, rounds())] as const,
        ),
      ).map(({ verdict }) => verdict);
      if (verdicts.some((verdict) => verdict === "worse" || verdict === "better"))
        tablesWithCalls++;
      alone += verdicts.filter((verdict) => verdict !== "noise").length;
    }
    expect(tablesWithCalls).toBeLessThan(20);
    // of 4,000 figures: without the procedure, these would have been called
    expect(alone).toBeGreaterThan(60);
  });
});

test("roundsNeeded: four for one figure, seven for forty", () => {
  expect([0, 1, 20, 40, 100].map(roundsNeeded)).toEqual([4, 4, 6, 7, 8]);
});

test("figures are matched by case, name and unit; what is left over is named", () => {
  const [one, two, three] = [ratio("one", [1]), ratio("two", [2]), ratio("three", [3])];
  const inOtherUnit = { ...two, unit: "ns" };
  const { pairs, onlyA, onlyB } = match(
    madeUpRun([one, two]),
    madeUpRun([three, inOtherUnit, one]),
  );
  expect(pairs).toEqual([[one, one]]);
  expect(onlyA).toEqual([two]);
  expect(onlyB).toEqual([three, inOtherUnit]);
});

test("news of bars", () => {
  const news = (a: number, b: number, barA?: Figure["bar"], barB: Figure["bar"] = barA) =>
    barNews({ a: ratio("case", [a], { bar: barA }), b: ratio("case", [b], { bar: barB }) });
  expect(news(1.02, 1.04, { atMost: 1.03 })).toBe("newly MISSED");
  expect(news(1.04, 1.02, { atMost: 1.03 })).toBe("newly met");
  expect(news(4, 6, { atLeast: 5 })).toBe("newly met");
  expect(news(1.04, 1.05, { atMost: 1.03 })).toBeUndefined();
  expect(news(1.02, 1.02, { atMost: 1.01 }, { atMost: 1.03 })).toBeUndefined();
  expect(news(1.02, 1.02)).toBeUndefined();
  expect(barNews({ a: ratio("case", [1], { bar: { atMost: 2 } }), b: ratio("case", [1]) })).toBe(
    "no bar any more",
  );
});
