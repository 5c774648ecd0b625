/** Figures over rounds, and how they are shown. */
import { expect, test } from "bun:test";
import {
  meets,
  quantile,
  showBar,
  showNumber,
  showSpread,
  spreadOf,
} from "../../bench/harness/statistics.ts";

test("a spread and a quantile leave the values as they were", () => {
  const some = [4, 1, 2, 3];
  expect(spreadOf(some)).toEqual({ median: 2.5, min: 1, max: 4 });
  expect([0, 1].map((q) => quantile(some, q))).toEqual([1, 4]);
  expect(some).toEqual([4, 1, 2, 3]);
});

test("numbers have three figures that count, ratios have thousandths", () => {
  const shown = [1_234_567, 345.4, 34.54, 1.234, 0.0123, 0].map(showNumber);
  expect(shown).toEqual(["1,234,567", "345", "34.5", "1.23", "0.0123", "0.00"]);
  expect(showSpread({ median: 1.02, min: 1.02, max: 1.02 }, "×")).toBe("1.020 ×");
  expect(showSpread({ median: 1.02, min: 0.98, max: 1.07 }, "×")).toBe("1.020 × (0.980 to 1.070)");
});

test("the median is what meets a bar", () => {
  expect([meets([1, 1, 9], { atMost: 1 }), meets([1, 2, 2], { atMost: 1 })]).toEqual([true, false]);
  expect([meets([5, 5, 0], { atLeast: 5 }), meets([4.9], { atLeast: 5 })]).toEqual([true, false]);
  expect(showBar([1], { atLeast: 2 })).toBe("bar: at least 2, MISSED");
});
