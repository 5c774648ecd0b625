import { describe, expect, test } from "bun:test";
import { ASK, encodeEntry } from "../../../src/control/directory/entries.ts";
import { LogHealth } from "../../../src/control/directory/log-health.ts";
import { NO_ENTRY, type Store } from "../../../src/control/directory/store.ts";
import { BOOT_MS, host, leaseOf } from "./fleet-parts.ts";

/** A log whose server's clock is put forward and back, and whose writers' clocks are right. */
function log() {
  const { at, clock } = host();
  const warned: string[] = [];
  const made = new LogHealth({
    clock,
    monotonicMs: () => at.ms,
    complain: (_, message) => warned.push(message),
  });
  let [stepMs, last, count] = [0, 0, 0];
  const id = () => {
    const ms = BOOT_MS + at.ms + stepMs;
    count = ms > last ? 0 : count + 1;
    last = Math.max(last, ms);
    return `${last}-${count}`;
  };
  const lease = (stampMs: number) => leaseOf("b:1", 1, { timeMs: BOOT_MS + stampMs });
  return {
    ...{ at, warned, health: made },
    /** Entries at an interval, read at once. */
    write: (count: number, everyMs = 100, aheadMs = 0) => {
      for (let i = 0; i < count; i++) {
        at.ms += everyMs;
        made.heard(id(), lease(at.ms + aheadMs));
      }
    },
    /** Entries that are read only after all are written. */
    writeAndStall: (count: number, everyMs: number) => {
      const entries = Array.from({ length: count }, () => {
        at.ms += everyMs;
        return [id(), lease(at.ms)] as const;
      });
      for (const [id, entry] of entries) made.heard(id, entry);
    },
    ask: () =>
      made.heard(id(), {
        kind: ASK,
        name: "b:1",
        epoch: 1,
        of: { name: "c:1", epoch: 1 },
        ranges: -1,
      }),
    step: (ms: number) => {
      stepMs += ms;
    },
  };
}

const SAID = "the clock of the directory's server stepped";

describe("LogHealth", () => {
  test("a steady clock has no steps, however late entries are read or written", () => {
    const { write, writeAndStall, health, warned } = log();
    write(100);
    write(3, 60_000);
    writeAndStall(100, 1_000);
    write(100, 0);
    write(100);
    expect([health.steps, warned]).toEqual([0, []]);
  });

  test.each([
    [3_600_000, "forward by 3600.0 s"],
    [1_600, "forward by 1.6 s"],
  ])("a step of %d ms is one step", (ms, how) => {
    const { write, step, health, warned } = log();
    write(10);
    step(ms);
    write(100);
    expect(health.steps).toBe(1);
    expect(warned).toEqual([`${SAID} ${how}: no route depends on it; check NTP on that host`]);
  });

  test.each([1_400, -1_400])("a step of %d ms is none", (ms) => {
    const { write, step, health } = log();
    write(10);
    step(ms);
    write(100);
    expect(health.steps).toBe(0);
  });

  test("a clock that goes back is one step, while ids stand still and when they go on", () => {
    const { write, step, health, warned } = log();
    write(10);
    step(-300_000);
    write(10);
    expect(health.steps).toBe(0); // not known yet: entries of one moment look the same
    write(10);
    expect(health.steps).toBe(1);
    write(400, 1_000); // the clock passes the last id
    write(100);
    expect(health.steps).toBe(1);
    expect(warned).toEqual([
      `${SAID} back by more than 1.5 s: no route depends on it; check NTP on that host`,
    ]);
  });

  test("a clock that goes forward and back again is two steps, and later ones count, too", () => {
    const { write, step, health } = log();
    write(10);
    step(3_600_000);
    write(100);
    step(-3_600_000);
    write(4_000, 1_000);
    expect(health.steps).toBe(2);
    step(5_000);
    write(10);
    expect(health.steps).toBe(3);
  });

  test("a log whose ids were reset is one step back", () => {
    const { health, at } = log();
    const heard = (ms: number) => {
      at.ms += 10;
      health.heard(`${ms + at.ms}-0`, leaseOf("b:1", 1, { timeMs: BOOT_MS + at.ms }));
    };
    for (let i = 0; i < 10; i++) heard(BOOT_MS);
    for (let i = 0; i < 10; i++) heard(BOOT_MS - 60_000);
    expect(health.steps).toBe(1);
  });

  test("stamps of writers that are wrong are no steps", () => {
    const { write, health } = log();
    write(10);
    write(10, 100, 3_600_000);
    write(10, 100, -50_000);
    for (let i = 0; i < 10; i++) write(1, 100, i % 2 === 0 ? 10_000 : 0);
    expect(health.steps).toBe(0);
  });

  test("another log may have another clock", () => {
    const { write, step, health } = log();
    write(10);
    step(3_600_000);
    health.forget();
    write(10);
    expect(health.steps).toBe(0);
  });

  test("entries without a stamp tell nothing", () => {
    const { write, ask, step, health } = log();
    write(10);
    step(3_600_000);
    ask();
    expect(health.steps).toBe(0);
    write(1);
    expect(health.steps).toBe(1);
  });

  test("measures the log once a minute", async () => {
    const { at, health } = log();
    let asked = 0;
    const first = {
      ...NO_ENTRY,
      bytes: encodeEntry(leaseOf("b:1", 1, { timeMs: BOOT_MS + at.ms })),
    };
    const store = {
      logSize: async () => ({ entries: ++asked, bytes: undefined }),
      first: async () => (asked === 1 ? first : NO_ENTRY),
    } as Partial<Store> as Store;
    expect(health.oldestMs).toBeUndefined();
    at.ms += 7_000;
    await health.measure(store);
    expect(health).toMatchObject({ size: { entries: 1, bytes: undefined }, oldestMs: 7_000 });
    at.ms += 59_999;
    await health.measure(store);
    expect(asked).toBe(1);
    at.ms += 1;
    await health.measure(store);
    expect([asked, health.oldestMs]).toEqual([2, undefined]);
  });
});
