import { afterEach, describe, expect, mock, spyOn, test } from "bun:test";
import { PeriodicTask } from "../../../src/control/kit/periodic-task.ts";

/** Longer than any test: whoever waits for it waits for something else, or for good. */
const NEVER_MS = 2 ** 30;

/** Runs that end when the test says so. */
class Runs {
  /** Of every run, in order: its signal, and what ends it. */
  readonly begun: { signal: AbortSignal; end: () => void; fail: (error: Error) => void }[] = [];
  atOnce = 0;
  atOnceMost = 0;
  #awaited: { count: number; resolve: () => void } | undefined;

  readonly run = async (signal: AbortSignal): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.begun.push({ signal, end: resolve, fail: reject });
    this.atOnceMost = Math.max(this.atOnceMost, ++this.atOnce);
    if (this.begun.length === this.#awaited?.count) this.#awaited.resolve();
    try {
      await promise;
    } finally {
      this.atOnce--;
    }
  };

  get last() {
    return this.begun.at(-1)!;
  }

  /** Waits until so many have begun. */
  async reach(count: number): Promise<void> {
    if (this.begun.length >= count) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#awaited = { count, resolve };
    await promise;
  }
}

/** Lets everything go on that can go on without time passing. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise((resume) => setImmediate(resume));
}

function task(intervalMs: number | (() => number)) {
  const runs = new Runs();
  const interval = typeof intervalMs === "number" ? () => intervalMs : intervalMs;
  const failures: unknown[] = [];
  const made = new PeriodicTask(runs.run, interval, (error) => failures.push(error));
  return { runs, failures, task: made };
}

describe("PeriodicTask", () => {
  test("runs at once, and again and again", async () => {
    const { runs, task: periodic } = task(1);
    expect(runs.begun).toHaveLength(0);
    periodic.start();
    expect(runs.begun).toHaveLength(1);
    for (let run = 1; run < 5; run++) {
      runs.last.end();
      await runs.reach(run + 1);
    }
    runs.last.end();
    await periodic.stop();
  });

  test("never runs twice at once, however often it is started and asked for", async () => {
    const { runs, task: periodic } = task(0);
    for (let i = 0; i < 3; i++) periodic.start();
    for (let run = 1; run <= 5; run++) {
      await runs.reach(run);
      for (let i = 0; i < 3; i++) periodic.soon();
      await settle();
      expect(runs.begun).toHaveLength(run);
      runs.last.end();
    }
    await runs.reach(6);
    const stopped = periodic.stop();
    runs.last.end();
    await stopped;
    expect(runs.atOnceMost).toBe(1);
  });

  test("soon ends the pause", async () => {
    const { runs, task: periodic } = task(NEVER_MS);
    periodic.start();
    runs.last.end();
    await settle();
    for (let run = 2; run < 5; run++) {
      expect(runs.begun).toHaveLength(run - 1);
      periodic.soon();
      await runs.reach(run);
      runs.last.end();
      await settle();
    }
    await periodic.stop();
  });

  test("soon in the midst of a run, however often, is one run more", async () => {
    const { runs, task: periodic } = task(NEVER_MS);
    periodic.start();
    for (let i = 0; i < 3; i++) periodic.soon();
    runs.last.end();
    await runs.reach(2);
    runs.last.end();
    await settle();
    expect(runs.begun).toHaveLength(2);
    await periodic.stop();
  });

  test("soon before the start is the start", async () => {
    const { runs, task: periodic } = task(NEVER_MS);
    periodic.soon();
    expect(runs.begun).toHaveLength(0);
    periodic.start();
    runs.last.end();
    await settle();
    expect(runs.begun).toHaveLength(1);
    await periodic.stop();
  });

  test("stop in the midst of a run tells it by its signal, and waits for it, but for no pause", async () => {
    const { runs, task: periodic } = task(NEVER_MS);
    periodic.start();
    const { signal } = runs.last;
    expect(signal.aborted).toBe(false);
    let stopped = false;
    const stopping = periodic.stop().then(() => {
      stopped = true;
    });
    expect(signal.aborted).toBe(true);
    await settle();
    expect(stopped).toBe(false);
    runs.last.end();
    await stopping;
    expect(runs.begun).toHaveLength(1);
  });

  test("stop in a pause ends it without another run", async () => {
    const { runs, task: periodic } = task(NEVER_MS);
    periodic.start();
    runs.last.end();
    await settle();
    await periodic.stop();
    expect(runs.begun).toHaveLength(1);
  });

  test("stop may come twice, and before the start, and nothing starts it again", async () => {
    const { runs, task: periodic } = task(0);
    await periodic.stop();
    periodic.start();
    periodic.soon();
    await Promise.all([periodic.stop(), periodic.stop()]);
    await settle();
    expect(runs.begun).toHaveLength(0);
  });

  test("reports a run that throws, and the next one comes when it is due", async () => {
    const { runs, failures, task: periodic } = task(0);
    periodic.start();
    const error = new Error("no luck");
    runs.last.fail(error);
    await runs.reach(2);
    expect(failures).toEqual([error]);
    const stopped = periodic.stop();
    runs.last.fail(error);
    await stopped;
    expect(failures).toEqual([error, error]);
  });
});

describe("the pause", () => {
  afterEach(() => {
    mock.restore();
  });

  /**
   * A clock that only the runs set, and pauses that take no time.
   * @returns the pauses, in milliseconds
   */
  async function pausesAfter(
    runsMs: readonly number[],
    intervalMs: () => number,
  ): Promise<number[]> {
    let nowMs = 1000;
    const pauses: number[] = [];
    spyOn(performance, "now").mockImplementation(() => nowMs);
    spyOn(globalThis, "setTimeout").mockImplementation(((callback: () => void, ms: number) => {
      pauses.push(ms);
      nowMs += ms;
      queueMicrotask(callback);
    }) as unknown as typeof setTimeout);
    let run = 0;
    const done = Promise.withResolvers<void>();
    const periodic = new PeriodicTask(
      async () => {
        if (run === runsMs.length) done.resolve();
        nowMs += runsMs[run++] ?? 0;
      },
      intervalMs,
      done.reject,
    );
    periodic.start();
    await done.promise;
    await periodic.stop();
    return pauses.slice(0, runsMs.length);
  }

  test("is what a run leaves of the interval, and none if it takes longer", async () => {
    expect(await pausesAfter([0, 30, 99, 100, 250, 40], () => 100)).toEqual([100, 70, 1, 0, 0, 60]);
  });

  test("goes by the interval of this moment", async () => {
    let interval = 0;
    expect(await pausesAfter([5, 5, 5], () => ++interval * 100)).toEqual([95, 195, 295]);
  });
});
