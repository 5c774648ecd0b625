/** Runs every bench, and keeps the runs for the report. */
import { copyFileSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { loadRun } from "../harness/results.ts";
import { readRuns } from "./report.ts";

export interface AllOptions {
  readonly smoke: boolean;
  /** Of each bench. */
  readonly limitMinutes: number;
  /** What else each bench is told: ["--rounds", "8"]. */
  readonly flags: readonly string[];
}

/** A bench is given so much more than its own limit before it is told to end: a busy loop keeps its timer from running. */
const GRACE_MS = 60_000;
/** And so much to end then. */
const END_MS_MAX = 10_000;

/** @returns whether it went well */
export type RunBench = (name: string, args: readonly string[], timeoutMs: number) => Promise<boolean>;

/**
 * Runs benches one after the other, each as a process of its own: what one pins, allocates or leaks is not the next one's.
 * What one of them fails does not keep the others from running.
 *
 * All runs are kept aside until the last has ended: kept where they belong at once, they would make the tree dirty, and the
 * later benches would say that they measured something else than a commit.
 * @param aside where runs are kept at first; git ignores it
 * @param results where they belong
 * @returns the benches that failed
 */
export async function runAll(
  names: readonly string[],
  { smoke, limitMinutes, flags }: AllOptions,
  aside: string,
  results: string,
  run: RunBench,
): Promise<string[]> {
  if (!smoke) console.log(estimate(names, results, limitMinutes));
  const failed: string[] = [];
  const done: string[] = [];
  mkdirSync(aside, { recursive: true });
  for (const [i, name] of names.entries()) {
    console.log(`\n=== ${name} (${i + 1} of ${names.length})`);
    const where = smoke ? ["--smoke"] : ["--json", join(aside, `${name}.json`)];
    const args = [...where, "--limit", String(limitMinutes), ...flags];
    const kept = join(aside, `${name}.json`);
    rmSync(kept, { force: true }); // of an earlier call, which ended before its last bench
    if (!(await run(name, args, limitMinutes * 60_000 + GRACE_MS))) failed.push(name);
    else if (existsSync(kept) && loadRun(kept).figures.length > 0) done.push(name);
    else if (!smoke) console.log(`${name} measured nothing; its kept run is the one before`);
  }
  if (!smoke) {
    mkdirSync(results, { recursive: true });
    for (const name of done) copyFileSync(join(aside, `${name}.json`), join(results, `${name}.json`));
  }
  for (const name of failed)
    console.error(`FAILED: ${name}${smoke ? "" : "; its kept run is the one before"}`);
  return failed;
}

/** How long it took when each was run last. */
export function estimate(names: readonly string[], results: string, limitMinutes: number): string {
  const last = new Map(readRuns(results, names).map(({ bench, elapsedS }) => [bench, elapsedS]));
  const known = names.filter((name) => last.has(name));
  const unknown = names.filter((name) => !last.has(name));
  const minutes = (s: number) => `${Math.max(1, Math.round(s / 60))} min`;
  const sum = known.reduce((total, name) => total + last.get(name)!, 0);
  return [
    known.length > 0
      ? `about ${minutes(sum)}, as the kept runs took: ${known.map((name) => `${name} ${minutes(last.get(name)!)}`).join(", ")}`
      : "no run is kept that tells how long it takes",
    ...(unknown.length > 0 ? [`not known yet: ${unknown.join(", ")}`] : []),
    `each has at most ${limitMinutes} min`,
  ].join("; ");
}

/**
 * @param main the file of the command line
 * @param root from where the benches are run
 * @param endMsMax how long a bench that is told to end may take to do so
 */
export const asProcess =
  (main: string, root: string, endMsMax = END_MS_MAX): RunBench =>
  async (name, args, timeoutMs) => {
    const child = Bun.spawn([process.execPath, main, name, ...args], {
      cwd: root,
      stdio: ["ignore", "inherit", "inherit"],
    });
    // Asked to end, a bench ends what it started; killed, it would leave that behind.
    const end = () => child.kill("SIGTERM");
    process.on("exit", end);
    const asking = setTimeout(end, timeoutMs);
    const killing = setTimeout(() => child.kill("SIGKILL"), timeoutMs + endMsMax);
    const code = await child.exited;
    clearTimeout(asking);
    clearTimeout(killing);
    process.off("exit", end);
    return code === 0;
  };
