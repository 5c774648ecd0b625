import { describe, expect, test } from "bun:test";
import type { Conditions } from "../../bench/rig/link.ts";
import { netemCommands } from "../../bench/rig/netem.ts";
import { wirefilterArguments } from "../../bench/rig/wirefilter.ts";

const IN_ORDER = "tc qdisc add dev wan parent 1:1 pfifo limit 10000";
const CASES: readonly [Conditions, netem: string, wirefilter: string, ...behindNetem: string[]][] =
  [
    [{}, "", ""],
    [{ delayMs: 20 }, "delay 20ms", "-d 20"],
    [{ delayMs: 20, jitterMs: 5 }, "delay 20ms 5ms", "-d 20+5U", IN_ORDER],
    [{ delayMs: 20, jitterMs: 5, reorder: true }, "delay 20ms 5ms", "-d 20+5U -N"],
    [{ lossPercent: 2.5 }, "loss 2.5%", "-l 2.5"],
    [{ duplicatePercent: 3 }, "duplicate 3%", "-D 3"],
    [{ rateKbitPerS: 8000 }, "rate 8000kbit", "-b 1000000 -c 100000"],
    [{ rateKbitPerS: 80 }, "rate 80kbit", "-b 10000 -c 16384"],
    [{ delayMs: 1, lossPercent: 1 }, "delay 1ms loss 1%", "-d 1 -l 1"],
  ];

describe.each(CASES)("%j", (conditions, netem, wirefilter, ...behindNetem) => {
  test("for netem", () => {
    const commands = netemCommands("wan", conditions).map((words) => words.join(" "));
    const first = `tc qdisc add dev wan root handle 1: netem limit 10000 ${netem}`.trim();
    expect(commands).toEqual([first, ...behindNetem]);
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
  expect(() => netemCommands("wan", conditions)).toThrow(RangeError);
  expect(() => wirefilterArguments(conditions)).toThrow(RangeError);
});
