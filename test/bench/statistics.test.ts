/** Figures over rounds: what holds for all of them, and how they are written. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  meets,
  quantile,
  showBar,
  showNumber,
  showSpread,
  spreadOf,
} from "../../bench/harness/statistics.ts";

const values = fc.array(fc.double({ noNaN: true, min: -1e9, max: 1e9 }), { minLength: 1, maxLength: 50 });

describe("a spread", () => {
  test("has its median between its ends, whatever the order", () => {
    fc.assert(
      fc.property(values, (some) => {
        const { median, min, max } = spreadOf(some);
        expect(min).toBeLessThanOrEqual(median);
        expect(median).toBeLessThanOrEqual(max);
        expect(spreadOf(some.toReversed())).toEqual({ median, min, max });
      }),
    );
  });

  test("leaves the values as they were", () => {
    const some = [3, 1, 2];
    expect(spreadOf(some)).toEqual({ median: 2, min: 1, max: 3 });
    quantile(some, 0.5);
    expect(some).toEqual([3, 1, 2]);
  });

  test("of an even number has its median between the middle two", () => {
    expect(spreadOf([4, 1, 2, 3]).median).toBe(2.5);
  });
});

test("quantiles rise from the least to the most", () => {
  fc.assert(
    fc.property(values, (some) => {
      const all = [0, 0.5, 0.99, 1].map((q) => quantile(some, q));
      expect(all).toEqual(all.toSorted((a, b) => a - b));
      expect(all.at(-1)).toBe(Math.max(...some));
    }),
  );
});

test("numbers have the digits that count", () => {
  expect([1_234_567, 345.4, 34.54, 1.234, 0.0123, 0].map(showNumber)).toEqual([
    "1,234,567",
    "345",
    "34.5",
    "1.23",
    "0.0123",
    "0.00",
  ]);
});

test("a spread of one value is that value", () => {
  expect(showSpread({ median: 1.02, min: 1.02, max: 1.02 }, "×")).toBe("1.020 ×");
  expect(showSpread({ median: 1.02, min: 0.98, max: 1.07 }, "×")).toBe("1.020 × (0.980 to 1.070)");
});

test("the median is what meets a bar", () => {
  expect(meets([1, 1, 9], { atMost: 1 })).toBe(true);
  expect(meets([1, 2, 2], { atMost: 1 })).toBe(false);
  expect(meets([5, 5, 0], { atLeast: 5 })).toBe(true);
  expect(meets([4.9], { atLeast: 5 })).toBe(false);
  expect(showBar([1], { atMost: 1 })).toBe("bar: at most 1, met");
  expect(showBar([1], { atLeast: 2 })).toBe("bar: at least 2, MISSED");
});
