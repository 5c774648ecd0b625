import { expect, test } from "bun:test";
import { CoarseClock, MonotonicClock } from "../../ffi/clock.ts";
import { monotonicUs } from "../../ffi/libc.ts";

test("the monotonic clock tells the kernel's time, to far less than a microsecond", () => {
  const clock = new MonotonicClock();
  const readings: number[] = [];
  for (let i = 0; i < 1000; i++) {
    const before = monotonicUs();
    readings.push(clock.nowNs());
    expect(readings.at(-1)! / 1000).toBeGreaterThanOrEqual(before);
    expect(readings.at(-1)! / 1000).toBeLessThan(monotonicUs() + 1);
  }
  expect(readings).toEqual(readings.toSorted((a, b) => a - b));
  // All of a thousand readings on a whole microsecond: a clock that tells no less.
  expect(readings.some((ns) => ns % 1000 !== 0)).toBe(true);
});

test("the coarse clock is the same one as of a while ago", () => {
  const [coarse, clock] = [new CoarseClock(), new MonotonicClock()];
  for (let i = 0; i < 1000; i++) {
    const before = coarse.nowNs();
    const now = clock.nowNs();
    expect(before).toBeLessThanOrEqual(now);
    expect(coarse.nowNs()).toBeGreaterThan(now - 1e9); // a tick of any kernel is far shorter
  }
});
