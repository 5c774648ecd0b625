/** The route directory in simulated fleets. `bun run simulate` runs far more schedules. */
import { describe, expect, test } from "bun:test";
import { type Outcome, runSchedule } from "./simulation/schedule.ts";
import { TROUBLES } from "./simulation/troubles.ts";

const SCHEDULES = 240;
/** Of `bun run simulate`'s, those from here on. */
const SEED = 1;

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("the directory's protocol, whatever goes wrong", () => {
  test("all beacons know where every node is, soon after the trouble", async () => {
    const rejected: unknown[] = [];
    const onRejected = (error: unknown) => rejected.push(error);
    process.on("unhandledRejection", onRejected);
    const counts = new Map<string, number>();
    const failed: Pick<Outcome, "seed" | "problems">[] = [];
    for (let seed = SEED; seed < SEED + SCHEDULES; seed++) {
      const outcome = runSchedule(seed);
      await turn();
      const problems = [...outcome.problems, ...rejected.splice(0).map(String)];
      // bun run simulate --schedule <seed> --trace
      if (problems.length > 0) failed.push({ seed, problems });
      for (const [what, count] of outcome.counts) counts.set(what, (counts.get(what) ?? 0) + count);
    }
    process.off("unhandledRejection", onRejected);
    expect(failed).toEqual([]);
    // Everything that can go wrong did.
    for (const { name } of TROUBLES)
      expect([name, counts.get(`trouble: ${name}`)! > 0]).toEqual([name, true]);
    for (const reason of ["new", "restarted", "gap", "diverged", "too_far_behind", "moved"])
      expect([reason, counts.get(`resync: ${reason}`)! > 0]).toEqual([reason, true]);
    for (const what of [
      "moves",
      "snapshots missing",
      "arrivals lost",
      "entries malformed",
      "nodes lost",
    ])
      expect([what, counts.get(what)! > 0]).toEqual([what, true]);
  }, 120_000);

  test("the same seed brings the same schedule, to the last detail", () => {
    const traceOf = (seed: number) => {
      const lines: string[] = [];
      runSchedule(seed, (nowMs, text) => lines.push(`${nowMs} ${text()}`));
      return lines;
    };
    const [one, same, other] = [traceOf(2), traceOf(2), traceOf(3)];
    expect(one.length).toBeGreaterThan(100);
    expect(same).toEqual(one);
    expect(other).not.toEqual(one);
  });
});
