import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { FleetClock } from "../../../src/control/directory/clock.ts";
import { TIME_STEP_MS } from "../../../src/control/directory/entries.ts";

const WALL_MS = 1_900_000_000_000;

function clockAt(startMs = 5000) {
  const at = { ms: startMs };
  return { at, clock: new FleetClock(() => at.ms, WALL_MS) };
}

describe("FleetClock", () => {
  test("shows this host's time before it begins, and the fleet's from then on, of every moment", () => {
    const { at, clock } = clockAt();
    expect([clock.hasBegun, clock.nowMs()]).toEqual([false, WALL_MS]);
    at.ms += 1000;
    clock.begin(WALL_MS - 3_600_000);
    expect([clock.hasBegun, clock.nowMs()]).toEqual([true, WALL_MS - 3_600_000]);
    expect(clock.timeOf(5000)).toBe(WALL_MS - 3_601_000);
    at.ms += 10;
    expect(clock.nowMs()).toBe(WALL_MS - 3_600_000 + 10);
  });

  test("is raised to what another clock shows, and never goes back", () => {
    const { at, clock } = clockAt();
    clock.begin(WALL_MS);
    clock.raise(WALL_MS - 5000);
    expect(clock.nowMs()).toBe(WALL_MS);
    clock.raise(WALL_MS + 40);
    expect(clock.nowMs()).toBe(WALL_MS + 40);
    at.ms += 7;
    clock.raise(WALL_MS + 41); // written a while ago
    expect(clock.nowMs()).toBe(WALL_MS + 47);
  });

  test("counts its first raise for all moments, and further small ones from then on", () => {
    const { at, clock } = clockAt();
    clock.begin(WALL_MS);
    at.ms += 100;
    clock.raise(WALL_MS + 100 + 500);
    expect(clock.timeOf(5000)).toBe(WALL_MS + 500);
    at.ms += 100;
    clock.raise(WALL_MS + 200 + 800);
    expect([clock.timeOf(5000), clock.timeOf(5150), clock.timeOf(5200)]).toEqual([
      WALL_MS + 500,
      WALL_MS + 650,
      WALL_MS + 1000,
    ]);
    clock.raise(WALL_MS + 1000 + 5000); // a jump
    expect([clock.timeOf(5000), clock.timeOf(5200)]).toEqual([WALL_MS + 5500, WALL_MS + 6000]);
  });

  test("returns by how much it was behind if that is more than a second, and 0 otherwise", () => {
    const { clock } = clockAt();
    clock.begin(WALL_MS);
    expect(clock.raise(WALL_MS)).toBe(0);
    expect(clock.raise(WALL_MS - 1)).toBe(0);
    expect(clock.raise(WALL_MS + 1000)).toBe(0);
    expect(clock.raise(WALL_MS + 1000 + 1001)).toBe(1001);
  });

  test("tells what is more than thirty days ahead", () => {
    const { clock } = clockAt();
    clock.begin(WALL_MS);
    const DAYS_MS = 30 * 86_400_000;
    expect([DAYS_MS, DAYS_MS + 1].map((ms) => clock.isTooFarAhead(WALL_MS + ms))).toEqual([
      false,
      true,
    ]);
  });

  test("shows multiples of its step, and momentOf is the moment that has a time", () => {
    const { at, clock } = clockAt();
    clock.begin(WALL_MS);
    at.ms += 0.1;
    expect(clock.nowMs()).toBe(WALL_MS + TIME_STEP_MS);
    expect(clock.momentOf(WALL_MS + 1000)).toBe(6000);
  });

  test("two clocks that read each other's entries show the same, but for how long an entry takes", () => {
    const steps = fc.array(
      fc.record({
        ms: fc.integer({ min: 0, max: 500 }),
        from: fc.boolean(),
        delayMs: fc.integer({ min: 0, max: 50 }),
      }),
      { minLength: 1, maxLength: 40 },
    );
    fc.assert(
      fc.property(steps, fc.integer({ min: -9999, max: 9999 }), (all, apartMs) => {
        const [one, other] = [clockAt(0), clockAt(77)];
        one.clock.begin(WALL_MS);
        other.clock.begin(WALL_MS + apartMs);
        const pass = (ms: number) => {
          one.at.ms += ms;
          other.at.ms += ms;
        };
        for (const { ms, from, delayMs } of all) {
          pass(ms);
          const [writer, reader] = from ? [one, other] : [other, one];
          const writtenMs = writer.clock.nowMs();
          pass(delayMs);
          reader.clock.raise(writtenMs);
          expect(reader.clock.nowMs()).toBeGreaterThanOrEqual(writtenMs);
        }
        one.clock.raise(other.clock.nowMs());
        other.clock.raise(one.clock.nowMs());
        expect(one.clock.nowMs()).toBe(other.clock.nowMs());
      }),
    );
  });
});
