import { expect, test } from "bun:test";
import { accountOf, isPlausibleCount, longestGap, since } from "../../bench/rig/account.ts";

const arrivals = (numbers: readonly number[], atUs = numbers.map((_, i) => i * 1000)) => ({
  numbers,
  delaysUs: numbers.map((_, i) => (i + 1) * 1000),
  atUs,
});

test("a stream that arrives whole and in order", () => {
  expect(accountOf(arrivals([0, 1, 2, 3]), 4)).toEqual({
    sent: 4,
    delivered: 4,
    duplicates: 0,
    overtaken: 0,
    delayMs: { min: 1, p50: 2.5, p99: 3.97 },
    elapsedMs: 3,
  });
});

test("loss, duplicates and overtaking are told apart", () => {
  const { delivered, duplicates, overtaken } = accountOf(arrivals([0, 2, 1, 1, 5, 2]), 6);
  expect({ delivered, duplicates, overtaken }).toEqual({
    delivered: 4,
    duplicates: 2,
    overtaken: 1,
  });
});

test("nothing at all", () => {
  expect(accountOf(arrivals([]), 3)).toMatchObject({
    delivered: 0,
    duplicates: 0,
    overtaken: 0,
    elapsedMs: 0,
  });
});

test("arrivals of a number and those above it", () => {
  expect(since(arrivals([3, 5, 4, 6, 2], [0, 10, 20, 30, 40]), 4)).toEqual({
    numbers: [5, 4, 6],
    delaysUs: [2000, 3000, 4000],
    atUs: [10, 20, 30],
  });
  expect(since(arrivals([1, 2]), 3)).toEqual(arrivals([]));
});

test("the longest gap", () => {
  expect(longestGap(arrivals([4, 5, 9, 10], [0, 1000, 8000, 9000]))).toEqual({
    ms: 7,
    before: 5,
    after: 9,
  });
});

test("counts that chance explains, and such that it does not", () => {
  expect(isPlausibleCount(950, 1000, 0.95)).toBe(true);
  expect(isPlausibleCount(925, 1000, 0.95)).toBe(true);
  expect(isPlausibleCount(900, 1000, 0.95)).toBe(false);
  expect(isPlausibleCount(1000, 1000, 0.95)).toBe(false);
});
