import { describe, expect, test } from "bun:test";
import { MovableClock } from "../../bench/rig/chaos/clock.ts";
import { lanesOf } from "../../bench/rig/chaos/faults.ts";
import { growthOf, type Sample } from "../../bench/rig/chaos/growth.ts";
import {
  type Deliveries,
  type Happened,
  judgeFaults,
  judgePairs,
} from "../../bench/rig/chaos/judge.ts";
import { type Lane, type Pace, scheduleOf } from "../../bench/rig/chaos/schedule.ts";
import { Program } from "../e2e/support/program.ts";
import { until } from "../e2e/support/wait.ts";
import { temporaryFolder } from "../support/folder.ts";

const folder = temporaryFolder();

describe("a schedule", () => {
  const LANES: readonly Lane[] = [
    { faults: ["a", "b", "c"].map((name) => ({ name, forMs: [100, 900] })), pauseMs: [200, 500] },
    { faults: [{ name: "d", forMs: [0, 0] }], pauseMs: [1000, 2000] },
  ];
  const PACE: Pace = { acts: 4, actMs: 10_000, calmMs: 3000, brisk: false };

  test("is the same for the same seed, and another for another", () => {
    expect(scheduleOf(LANES, PACE, 5)).toEqual(scheduleOf(LANES, PACE, 5));
    expect(scheduleOf(LANES, PACE, 5)).not.toEqual(scheduleOf(LANES, PACE, 6));
  });

  test("keeps to its lanes, its pauses and its acts", () => {
    for (let seed = 0; seed < 50; seed++) {
      const { planned, calms, endMs } = scheduleOf(LANES, PACE, seed);
      expect(endMs).toBe(4 * 13_000);
      expect(calms).toEqual([0, 1, 2, 3].map((act) => [act * 13_000 + 10_000, (act + 1) * 13_000]));
      for (const [number, { faults, pauseMs }] of LANES.entries()) {
        const lane = planned.filter((one) => one.lane === number);
        for (const [i, { name, atMs, forMs }] of lane.entries()) {
          const { atMs: beforeMs, forMs: beforeForMs } = lane[i - 1] ?? { atMs: 0, forMs: 0 };
          expect(atMs - (beforeMs + beforeForMs)).toBeGreaterThanOrEqual(pauseMs[0]);
          const [least, most] = faults.find((fault) => fault.name === name)!.forMs;
          expect(forMs).toBeWithin(least, most + 1);
          expect(calms.some(([fromMs, toMs]) => atMs + forMs > fromMs && atMs < toMs)).toBe(false);
        }
        // Each once before any comes again.
        for (let i = 0; i + faults.length <= lane.length; i += faults.length) {
          const round = lane.slice(i, i + faults.length).map(({ name }) => name);
          expect(round.sort()).toEqual(faults.map(({ name }) => name).sort());
        }
      }
    }
  });

  test("that is brisk has each fault once, as short as can be", () => {
    const { planned, calms, endMs } = scheduleOf(LANES, { ...PACE, acts: 1, brisk: true }, 1);
    expect(planned.map(({ name, forMs }) => [name, forMs]).sort()).toEqual([
      ["a", 100],
      ["b", 100],
      ["c", 100],
      ["d", 0],
    ]);
    const lastMs = Math.max(...planned.map(({ atMs, forMs }) => atMs + forMs));
    expect(calms).toEqual([[lastMs, lastMs + 3000]]);
    expect(endMs).toBe(lastMs + 3000);
  });

  test("of the chaos kills no worker six times in a minute, after which a beacon ends", () => {
    const lanes = lanesOf(true);
    for (let seed = 0; seed < 200; seed++) {
      const { planned } = scheduleOf(
        lanes,
        { acts: 10, actMs: 46_000, calmMs: 14_000, brisk: false },
        seed,
      );
      // As if it were always the same worker.
      const deathsMs = planned.filter(({ name }) => /worker/.test(name)).map(({ atMs }) => atMs);
      expect(deathsMs.length).toBeGreaterThan(10);
      for (const [i, atMs] of deathsMs.entries()) {
        expect((deathsMs[i + 5] ?? Number.POSITIVE_INFINITY) - atMs).toBeGreaterThan(60_000);
      }
    }
  });

  test("of the chaos has every fault within two minutes", () => {
    const lanes = lanesOf(true);
    const names = lanes.flatMap(({ faults }) => faults.map(({ name }) => name));
    expect(new Set(names).size).toBe(names.length);
    for (let seed = 0; seed < 200; seed++) {
      const { planned } = scheduleOf(
        lanes,
        { acts: 2, actMs: 46_000, calmMs: 14_000, brisk: false },
        seed,
      );
      expect(new Set(planned.map(({ name }) => name)).size).toBe(names.length);
    }
  });

  test("names only faults that there are", () => {
    const faults = lanesOf(true).flatMap((lane) => lane.faults);
    const named = faults.flatMap(({ heldUpBy = [], hiddenBy = [] }) => [...heldUpBy, ...hiddenBy]);
    expect(named.filter((name) => !faults.some((fault) => fault.name === name))).toEqual([]);
  });
});

describe("a judgement", () => {
  const SECONDS = 20;
  /** A packet every 100 ms; those that `lost` says do not arrive, the others after 5 ms. */
  function deliveries(title: string, lost: (atMs: number) => boolean): Deliveries {
    const sentMs = Array.from({ length: 10 * SECONDS }, (_, i) => 100 * i);
    return { title, sentMs, arrivedMs: sentMs.map((atMs) => (lost(atMs) ? Number.NaN : atMs + 5)) };
  }
  const within = (fromMs: number, toMs: number) => (atMs: number) => atMs >= fromMs && atMs < toMs;
  const fault = (fields: Partial<Happened>): Happened => ({
    ...{ name: "fault", beganMs: 5000, endedMs: 7000, concerned: [0], backWithinMs: 2000 },
    ...{ wellAfterMs: 10, trace: "a line" },
    ...fields,
  });

  test("excuses those whom a fault concerns until its bound, and nobody else", () => {
    const all = [
      deliveries("concerned", within(5000, 8500)),
      deliveries("late", within(5000, 11_000)),
      deliveries("bystander", within(6000, 7000)),
      deliveries("well", () => false),
    ];
    const [concerned, late, bystander, well] = judgePairs(all, [fault({ concerned: [0, 1] })]);
    // From second 4, as a packet may be on its way when it begins, to second 8.
    expect(concerned).toEqual({
      ...{
        title: "concerned",
        seconds: 15,
        silentSeconds: 0,
        sent: 150,
        delivered: 150,
        gapMs: 100,
      },
      ...{ sentInAll: 200, deliveredInAll: 165 },
    });
    expect(late).toMatchObject({ seconds: 15, silentSeconds: 2, sent: 150, delivered: 130 });
    // from its first packet of second 9 that counts to the first that arrives
    expect(late!.gapMs).toBe(2005);
    expect(bystander).toMatchObject({
      seconds: 20,
      silentSeconds: 1,
      sent: 200,
      delivered: 190,
      gapMs: 1100,
    });
    expect(well).toMatchObject({
      seconds: 20,
      silentSeconds: 0,
      sent: 200,
      delivered: 200,
      gapMs: 100,
    });
  });

  test("tells a gap at the end, too", () => {
    const [pair] = judgePairs([deliveries("cut off", within(18_000, 20_000))], []);
    expect(pair).toMatchObject({ silentSeconds: 2, delivered: 180, gapMs: 19_900 - 17_905 });
  });

  test("says of a fault what others had meanwhile, and when all was well", () => {
    const all = [
      deliveries("concerned", within(5000, 8000)),
      deliveries("beside", within(6000, 6300)),
    ];
    const happened = [
      fault({}),
      fault({ name: "other", beganMs: 12_000, endedMs: 13_000, concerned: [], trace: undefined }),
      fault({
        name: "other",
        beganMs: 15_000,
        endedMs: 15_500,
        concerned: [],
        wellAfterMs: undefined,
      }),
    ];
    const [one, other, never] = judgeFaults(["fault", "other", "never"], all, happened);
    expect(one).toEqual({
      ...{ name: "fault", times: 1, sent: 21, delivered: 18, gapMs: 400 },
      ...{ backAfterMs: { median: 1005, max: 1005 }, untraced: 0, unwell: 0, trace: "a line" },
    });
    expect(other).toMatchObject({ times: 2, sent: 2 * (11 + 6), untraced: 1, unwell: 1 });
    expect(other!.backAfterMs).toEqual({ median: 10, max: 10 });
    expect(never).toMatchObject({ times: 0, sent: 0, backAfterMs: undefined });
  });

  test("does not take another fault's doing for this one's", () => {
    const all = [deliveries("concerned twice", within(5000, 10_500))];
    const happened = [fault({}), fault({ name: "other", beganMs: 8000, endedMs: 10_000 })];
    const [one, other] = judgeFaults(["fault", "other"], all, happened);
    expect(one!.backAfterMs!.max).toBe(10); // nothing came until the other one was over, too
    expect(other!.backAfterMs!.max).toBe(505);
    expect(judgePairs(all, happened)[0]).toMatchObject({
      silentSeconds: 0,
      delivered: 120,
      sent: 120,
    });
  });
});

describe("growth", () => {
  const calms = [0, 1, 2, 3].map((n) => [n * 60_000 + 46_000, (n + 1) * 60_000] as const);
  const samples = (files: (minute: number, calm: boolean) => number): Sample[] =>
    Array.from({ length: 240 }, (_, second) => {
      const calm = second % 60 >= 49;
      const faults = calm ? 0 : 2;
      return {
        atMs: second * 1000,
        faults,
        threads: 9,
        residentMb: 100,
        files: files(second / 60, calm),
      };
    });

  test("is told from calms alone", () => {
    const growth = growthOf(
      samples((_, calm) => (calm ? 20 : 500)),
      calms,
    );
    const same = { files: 20, threads: 9, residentMb: 100 };
    expect(growth).toEqual({ first: same, last: same });
  });

  test("is seen", () => {
    const growth = growthOf(
      samples((minute) => 20 + Math.floor(minute)),
      calms,
    );
    expect([growth!.first.files, growth!.last.files]).toEqual([20, 23]);
  });

  test("is not told from one calm", () => {
    const one = samples(() => 20).slice(0, 60);
    expect(growthOf(one, calms)).toBeUndefined();
  });
});

describe("a clock that can be moved", () => {
  test.skipIf(Bun.which("cc") === null)(
    "moves for a process that lives by it, whose timers go on (needs cc)",
    async () => {
      const clock = MovableClock.make(folder)!;
      // Not Atomics.wait, which goes by this clock: set back, it waits for as long as that (Bun
      // 1.4.5).
      const script = "for (;;) { await Bun.sleep(5); console.log(new Date().toISOString()); }";
      const program = Program.spawn([process.execPath, "-e", script], {
        env: { ...process.env, ...clock.env } as never,
      });
      try {
        const aheadS = () => (Date.parse(program.lines.at(-1) ?? "") - Date.now()) / 1000;
        for (const offsetS of [0, 86_400, -3600, 0]) {
          clock.move(offsetS);
          await until(`it is ${offsetS} s ahead`, () => Math.abs(aheadS() - offsetS) < 60);
          const lines = program.lines.length;
          await until("it waits no longer than it should", () => program.lines.length > lines + 3);
        }
      } finally {
        await program.kill();
      }
    },
  );
});
