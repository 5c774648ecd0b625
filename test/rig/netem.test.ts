import { describe, expect, test } from "bun:test";
import type { Conditions } from "../../bench/rig/link.ts";
import { netemArguments } from "../../bench/rig/netem.ts";
import { wirefilterArguments } from "../../bench/rig/wirefilter.ts";

const CASES: readonly [Conditions, netem: string, wirefilter: string][] = [
  [{}, "", ""],
  [{ delayMs: 20 }, "delay 20ms", "-d 20"],
  [{ delayMs: 20, jitterMs: 5 }, "delay 20ms 5ms", "-d 20+5U"],
  [{ delayMs: 20, jitterMs: 5, reorder: true }, "delay 20ms 5ms reorder 25%", "-d 20+5U -N"],
  [{ lossPercent: 2.5 }, "loss 2.5%", "-l 2.5"],
  [{ duplicatePercent: 3 }, "duplicate 3%", "-D 3"],
  [{ rateKbitPerS: 8000 }, "rate 8000kbit", "-b 1000000 -c 100000"],
  [{ rateKbitPerS: 80 }, "rate 80kbit", "-b 10000 -c 16384"],
  [{ delayMs: 1, lossPercent: 1 }, "delay 1ms loss 1%", "-d 1 -l 1"],
];

describe.each(CASES)("%j", (conditions, netem, wirefilter) => {
  test("for netem", () => {
    expect(netemArguments(conditions).join(" ")).toBe(`limit 10000 ${netem}`.trim());
  });

  test("for wirefilter", () => {
    expect(wirefilterArguments(conditions).join(" ")).toBe(wirefilter);
  });
});

test.each<[string, Conditions]>([
  ["a delay that may be negative", { delayMs: 5, jitterMs: 6 }],
  ["reordering without jitter", { delayMs: 5, reorder: true }],
  ["everything lost", { lossPercent: 100 }],
  ["copies without end", { duplicatePercent: 100 }],
])("%s is refused by both", (_, conditions) => {
  expect(() => netemArguments(conditions)).toThrow(RangeError);
  expect(() => wirefilterArguments(conditions)).toThrow(RangeError);
});
