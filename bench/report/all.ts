/** Runs every bench, and keeps the runs for the report. */
import { copyFileSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { loadRun } from "../harness/results.ts";

export interface AllOptions {
  readonly smoke: boolean;
  /** Of each bench. */
  readonly limitMinutes: number;
  /** Further flags of each bench: ["--rounds", "8"]. */
  readonly flags: readonly string[];
}

/**
 * Time beyond its own limit before a bench is ended, s: a busy loop keeps its timer from running.
 */
const GRACE_S = 60;
/** Time to end then, s; a bench that is killed leaves behind what it started. */
const END_S_MAX = 10;

/** Resolves to whether the bench succeeded. */
export type RunBench = (
  name: string,
  args: readonly string[],
  timeoutS: number,
) => Promise<boolean>;

/**
 * Runs benches one after the other, each as a process of its own: pinning, allocations and leaks of
 * one do not affect the next. A bench that fails does not keep the others from running.
 *
 * All runs are kept aside until the last has ended. Kept in the results at once, they would make
 * the tree dirty, and the later benches would record a dirty commit.
 * @param aside folder that git ignores
 * @returns the benches that failed
 */
export async function runAll(
  names: readonly string[],
  { smoke, limitMinutes, flags }: AllOptions,
  aside: string,
  results: string,
  run: RunBench,
): Promise<string[]> {
  const failed: string[] = [];
  const done: string[] = [];
  mkdirSync(aside, { recursive: true });
  for (const [i, name] of names.entries()) {
    console.log(`\n=== ${name} (${i + 1} of ${names.length})`);
    const kept = join(aside, `${name}.json`);
    rmSync(kept, { force: true }); // of an earlier call, which ended before its last bench
    const args = [
      ...(smoke ? ["--smoke"] : ["--json", kept]),
      "--limit",
      String(limitMinutes),
      ...flags,
    ];
    if (!(await run(name, args, limitMinutes * 60 + GRACE_S))) failed.push(name);
    else if (existsSync(kept) && loadRun(kept).figures.length > 0) done.push(name);
    else if (!smoke) console.log(`${name} measured nothing; its kept run is the one before`);
  }
  mkdirSync(results, { recursive: true });
  for (const name of done) copyFileSync(join(aside, `${name}.json`), join(results, `${name}.json`));
  for (const name of failed)
    console.error(`FAILED: ${name}${smoke ? "" : "; its kept run is the one before"}`);
  return failed;
}

/** Runs a bench by the command line in `main`; timeout(1) ends one that does not end. */
export const asProcess =
  (main: string, root: string, endS = END_S_MAX): RunBench =>
  async (name, args, timeoutS) => {
    const limit = ["timeout", "--foreground", `--kill-after=${endS}`, String(timeoutS)];
    const child = Bun.spawn([...limit, process.execPath, main, name, ...args], {
      cwd: root,
      stdio: ["ignore", "inherit", "inherit"],
    });
    const end = () => child.kill("SIGTERM");
    process.on("exit", end);
    const code = await child.exited;
    process.off("exit", end);
    return code === 0;
  };
