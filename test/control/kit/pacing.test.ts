import { expect, test } from "bun:test";
import { Pacing } from "../../../src/control/kit/pacing.ts";

/**
 * Time that stands still while nobody sleeps or works, and the slices that were worked, in their
 * order.
 */
function made() {
  let nowMs = 1000;
  const sleepers: { readonly untilMs: number; readonly wake: () => void }[] = [];
  const slept = (ms: number) =>
    new Promise<void>((wake) => {
      sleepers.push({ untilMs: nowMs + ms, wake });
    });
  const slices = new Pacing({ nowMs: () => nowMs, sleep: slept });
  return {
    slices,
    work: (ms: number) => {
      nowMs += ms;
      return nowMs;
    },
    /** Wakes the first sleeper of all. @returns for how long there was nothing to do */
    next: async () => {
      sleepers.sort((one, other) => one.untilMs - other.untilMs);
      const { untilMs, wake } = sleepers.shift()!;
      const freeMs = Math.max(0, untilMs - nowMs);
      nowMs = Math.max(nowMs, untilMs);
      wake();
      await new Promise(setImmediate);
      return freeMs;
    },
    sleeping: () => sleepers.length,
  };
}

test("who works on and on is free for twice as long as a slice is", async () => {
  const { slices, work, next, sleeping } = made();
  const pause = slices.pause();
  void (async () => {
    for (;;) {
      work(0.25);
      await pause();
    }
  })();
  await new Promise(setImmediate);
  for (let i = 0; i < 5; i++) {
    expect(sleeping()).toBe(1);
    expect(await next()).toBeCloseTo(1);
  }
});

test("of several one works at a time, and all come to their turn", async () => {
  const { slices, work, next } = made();
  const turns: string[] = [];
  for (const name of ["a", "b", "c"]) {
    const pause = slices.pause();
    void (async () => {
      for (;;) {
        turns.push(name);
        work(0.6);
        await pause();
      }
    })();
  }
  await new Promise(setImmediate);
  turns.length = 0;
  for (let i = 0; i < 12; i++) expect(await next()).toBeGreaterThan(i < 3 ? -1 : 0.5);
  expect(turns.join("")).toBe("abc".repeat(4));
});
