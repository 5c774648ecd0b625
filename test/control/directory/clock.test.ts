import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { DirectoryClock } from "../../../src/control/directory/clock.ts";
import { TIME_STEP_MS } from "../../../src/control/directory/entries.ts";

const SERVER_MS = 1_900_000_000_000;
const DAY_MS = 86_400_000;

/** A host that booted a while ago, and whose own time is days off. */
function host(wallMs = SERVER_MS - 3 * DAY_MS) {
  const at = { ms: 5000 };
  return { at, clock: new DirectoryClock(() => at.ms, wallMs) };
}

describe("DirectoryClock", () => {
  test("goes by this host's own time until the server was asked, and then by the server's, for what was before, too", () => {
    const { at, clock } = host();
    expect(clock.nowMs()).toBe(SERVER_MS - 3 * DAY_MS);
    at.ms = 6000;
    clock.sample(SERVER_MS + 1000, 0);
    expect(clock.nowMs()).toBe(SERVER_MS - 3 * DAY_MS + 1000); // not yet
    clock.adjust();
    expect([clock.nowMs(), clock.timeOf(5000), clock.timeOf(0)]).toEqual([
      SERVER_MS + 1000,
      SERVER_MS,
      SERVER_MS - 5000,
    ]);
  });

  test("takes the answer that came quickest, halfway between question and answer", () => {
    const { clock } = host();
    clock.sample(SERVER_MS + 800, 2000);
    clock.sample(SERVER_MS - 5, 10);
    clock.sample(SERVER_MS + 300, 400);
    clock.adjust();
    expect(clock.nowMs()).toBe(SERVER_MS);
  });

  test("a moment's time stays what it was when another offset is found", () => {
    const { at, clock } = host();
    clock.sample(SERVER_MS, 20);
    clock.adjust();
    const before = clock.timeOf(5000);
    at.ms = 8000;
    clock.sample(SERVER_MS + 3000 - 12, 2); // the first was 21 ms ahead
    clock.adjust();
    expect(clock.timeOf(5000)).toBe(before);
    expect(clock.timeOf(7999)).toBe(before + 2999);
    expect(clock.timeOf(8000)).toBe(SERVER_MS + 3000 - 11);
  });

  test("the network's moods do not change it; a quick answer is not outdone by slow ones, but forgotten after some", () => {
    const { at, clock } = host();
    clock.sample(SERVER_MS, 1);
    clock.adjust();
    const first = clock.nowMs();
    clock.sample(SERVER_MS + 0.2, 1);
    clock.adjust();
    expect(clock.nowMs()).toBe(first);
    for (let i = 1; i <= 8; i++) {
      at.ms += 1000;
      clock.sample(SERVER_MS + 1000 * i + 40, 20 + i);
      clock.adjust();
      if (i < 7) expect(clock.nowMs()).toBe(first + 1000 * i);
    }
    expect(clock.nowMs()).toBeGreaterThan(first + 8000 + 40);
  });

  test("of another server the samples of the one before count for nothing", () => {
    const { clock } = host();
    clock.sample(SERVER_MS, 1);
    clock.adjust();
    clock.forgetSamples();
    clock.sample(SERVER_MS - 30, 40);
    clock.adjust();
    expect(clock.nowMs()).toBe(SERVER_MS - 10);
  });

  test("a moment can be found for a time, and has that one or a later one, however the clock was adjusted", () => {
    const adjustments = fc.array(
      fc.tuple(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: -60_000, max: 60_000 })),
      {
        maxLength: 80,
      },
    );
    fc.assert(
      fc.property(adjustments, fc.integer({ min: -100, max: 100_000 }), (list, aheadSteps) => {
        const { at, clock } = host();
        clock.sample(SERVER_MS, 0);
        clock.adjust();
        for (const [afterMs, byMs] of list) {
          at.ms += afterMs;
          clock.forgetSamples();
          clock.sample(SERVER_MS + at.ms + byMs / 100, 0);
          clock.adjust();
        }
        const timeMs = clock.nowMs() + aheadSteps * TIME_STEP_MS;
        const found = clock.timeOf(clock.momentOf(timeMs));
        expect(found).toBeGreaterThanOrEqual(timeMs);
        if (aheadSteps >= 0) expect(found).toBe(timeMs);
      }),
    );
  });

  test("times are multiples of the step, also of moments that are none", () => {
    const { clock } = host();
    clock.sample(SERVER_MS + 0.3, 0.1);
    clock.adjust();
    for (const ms of [0, 0.01, 1234.567, 5000.0624]) expect((clock.timeOf(ms) / TIME_STEP_MS) % 1).toBe(0);
  });

  test("remembers so many offsets; what is older than the first goes by it", () => {
    const { at, clock } = host();
    for (let i = 0; i < 100; i++) {
      clock.forgetSamples();
      clock.sample(SERVER_MS + at.ms + i, 0);
      clock.adjust();
      at.ms += 1000;
    }
    expect(clock.timeOf(at.ms)).toBe(SERVER_MS + at.ms + 99);
    expect(clock.timeOf(at.ms - 50_500)).toBe(SERVER_MS + at.ms - 50_500 + 49);
    expect(clock.timeOf(0)).toBe(SERVER_MS + 36);
  });
});
