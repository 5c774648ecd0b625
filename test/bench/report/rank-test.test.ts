import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { leastP, rankTest } from "../../../bench/report/rank-test.ts";

/** Two-sided p by trying every choice of ranks: slow, and simple enough to be right. */
function byEveryChoice(a: readonly number[], b: readonly number[]): number {
  const all = [...a, ...b];
  const rankOf = (value: number) =>
    all.filter((other) => other < value).length +
    (all.filter((other) => other === value).length + 1) / 2;
  const ranks = all.map(rankOf);
  const mean = (a.length * (all.length + 1)) / 2;
  const distances: number[] = [];
  for (let choice = 0; choice < 1 << all.length; choice++) {
    const chosen = ranks.filter((_, i) => choice & (1 << i));
    if (chosen.length === a.length)
      distances.push(Math.abs(chosen.reduce((x, y) => x + y, 0) - mean));
  }
  const observed = Math.abs(a.map(rankOf).reduce((x, y) => x + y, 0) - mean);
  return distances.filter((distance) => distance >= observed).length / distances.length;
}

describe("rankTest against published values", () => {
  test("Hollander and Wolfe, permeability of membranes: W = 35, p = 0.1272 in one direction", () => {
    const term = [0.8, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
    const early = [1.15, 0.88, 0.9, 0.74, 1.21];
    expect(rankTest(term, early) / 2).toBeCloseTo(0.1272, 4);
  });

  test("SciPy's manual, ages at diagnosis: U = 17, p = 0.111 in both directions", () => {
    expect(rankTest([19, 22, 16, 29, 24], [20, 11, 17, 12])).toBeCloseTo(1 / 9, 10);
  });

  // Mann and Whitney 1947, table I: the probability of a U not larger than this, in one direction.
  test.each([
    [4, 4, 0, 0.014],
    [4, 4, 1, 0.029],
    [5, 5, 2, 0.016],
    [6, 6, 5, 0.021],
    [6, 6, 10, 0.12],
    [3, 6, 2, 0.048],
  ])("table of Mann and Whitney: %d against %d, U = %d", (m, n, u, p) => {
    const a = Array.from({ length: m }, (_, i) => i);
    // The first of b stand before as many of a as U asks for, the others behind all.
    let left = u;
    const b = Array.from({ length: n }, (_, i) => {
      const before = Math.min(left, m);
      left -= before;
      return m - before - 0.5 + i / 1000;
    });
    expect(rankTest(a, b) / 2).toBeCloseTo(p, 3);
  });
});

describe("rankTest", () => {
  const values = fc.array(fc.integer({ min: 0, max: 8 }), { minLength: 1, maxLength: 6 });

  test("is exact, ties and all", () => {
    fc.assert(
      fc.property(values, values, (a, b) => {
        expect(rankTest(a, b)).toBeCloseTo(byEveryChoice(a, b), 10);
      }),
    );
  });

  test("is the same both ways, and blind to what keeps the order", () => {
    fc.assert(
      fc.property(values, values, (a, b) => {
        const p = rankTest(a, b);
        expect(rankTest(b, a)).toBeCloseTo(p, 10);
        const stretch = (value: number) => Math.exp(value) - 3;
        expect(rankTest(a.map(stretch), b.map(stretch))).toBeCloseTo(p, 10);
      }),
    );
  });
});

test("leastP is what samples that do not overlap have", () => {
  expect(leastP(3, 3)).toBeCloseTo(0.1, 10);
  expect(leastP(4, 4)).toBeCloseTo(2 / 70, 10);
  for (const [m, n] of [
    [2, 5],
    [3, 4],
    [6, 6],
  ] as const) {
    const a = Array.from({ length: m }, (_, i) => i);
    const b = Array.from({ length: n }, (_, i) => 100 + i);
    expect(rankTest(a, b)).toBeCloseTo(leastP(m, n), 10);
  }
  expect(leastP(1, 1)).toBe(1);
});
