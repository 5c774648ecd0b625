/**
 * `bun run simulate`: schedules of everything that can go wrong around the route directory, and
 * what it comes to.
 */
import { Command, InvalidArgumentError } from "commander";
import { type Outcome, runSchedule } from "./schedule.ts";
import { type Extremes, noExtremes, raise } from "./watch.ts";

/** Failures that are told of. */
const FAILURES_MAX = 20;
const PROGRESS_MS = 10_000;

const whole = (text: string): number => {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new InvalidArgumentError("must be a whole number");
  return value;
};

interface Options {
  readonly schedules: number;
  readonly seed: number;
  readonly processes: number;
  readonly schedule?: number;
  readonly trace?: boolean;
  readonly json?: boolean;
}

const options = new Command("simulate")
  .description(
    "Runs the route directory's code in simulated fleets, and looks whether all beacons agree in the end.",
  )
  .option("--schedules <n>", "how many", whole, 1000)
  .option("--seed <n>", "of the first one; the others have the numbers behind it", whole, 1)
  .option("--processes <n>", "that share the schedules", whole, 1)
  .option("--schedule <seed>", "runs this one alone", whole)
  .option("--trace", "with all that happens in it")
  .option("--json", "prints sums as JSON, a line each")
  .parse()
  .opts<Options>();

/** What many schedules came to. */
interface Sums {
  schedules: number;
  virtualMs: number;
  happened: number;
  counts: Record<string, number>;
  /** Schedules in which it happened. */
  within: Record<string, number>;
  settledMs: number[];
  extremes: Extremes;
  failures: { seed: number; problems: readonly string[] }[];
  failed: number;
}

const noSums = (): Sums => ({
  ...{
    schedules: 0,
    virtualMs: 0,
    happened: 0,
    counts: {},
    within: {},
    settledMs: [],
    extremes: noExtremes(),
    failures: [],
    failed: 0,
  },
});

const rejected: string[] = [];
process.on("unhandledRejection", (error) =>
  rejected.push((error as Error)?.stack ?? String(error)),
);

/** Lets rejections that nobody handled be told. */
const turn = () => new Promise((resolve) => setImmediate(resolve));

function add(sums: Sums, outcome: Outcome): void {
  sums.schedules++;
  sums.virtualMs += outcome.virtualMs;
  sums.happened += outcome.happened;
  for (const [what, count] of outcome.counts) {
    sums.counts[what] = (sums.counts[what] ?? 0) + count;
    if (count > 0) sums.within[what] = (sums.within[what] ?? 0) + 1;
  }
  sums.settledMs.push(outcome.settledMs);
  raise(sums.extremes, outcome.extremes);
  const problems = [
    ...outcome.problems,
    ...rejected.splice(0).map((text) => `nobody handled: ${text}`),
  ];
  if (problems.length === 0) return;
  sums.failed++;
  if (sums.failures.length < FAILURES_MAX)
    sums.failures.push({ seed: outcome.seed, problems: problems.slice(0, 5) });
}

function merge(sums: Sums, other: Sums): void {
  sums.schedules += other.schedules;
  sums.virtualMs += other.virtualMs;
  sums.happened += other.happened;
  sums.failed += other.failed;
  for (const key of ["counts", "within"] as const)
    for (const [what, count] of Object.entries(other[key]))
      sums[key][what] = (sums[key][what] ?? 0) + count;
  raise(sums.extremes, other.extremes);
  for (const ms of other.settledMs) sums.settledMs.push(ms);
  sums.failures.push(...other.failures);
}

async function runHere(first: number, count: number, told: (sums: Sums) => void): Promise<void> {
  let sums = noSums();
  let toldMs = performance.now();
  for (let seed = first; seed < first + count; seed++) {
    const outcome = runSchedule(seed, undefined);
    await turn();
    add(sums, outcome);
    if (performance.now() - toldMs < PROGRESS_MS) continue;
    toldMs = performance.now();
    told(sums);
    sums = noSums();
  }
  told(sums);
}

async function runThere(first: number, count: number, told: (sums: Sums) => void): Promise<void> {
  const args = ["--schedules", `${count}`, "--seed", `${first}`, "--json"];
  const child = Bun.spawn([process.execPath, import.meta.path, ...args], {
    stdout: "pipe",
    stderr: "inherit",
  });
  let text = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    const lines = text.split("\n");
    text = lines.pop()!;
    for (const line of lines) told(JSON.parse(line));
  }
  if ((await child.exited) !== 0) throw new Error(`a process ended with ${child.exitCode}`);
}

function report(sums: Sums): void {
  console.log("\n  times  in schedules");
  const whats = Object.keys(sums.counts).sort((one, other) => (one < other ? -1 : 1));
  for (const what of whats)
    console.log(
      `${`${sums.counts[what]}`.padStart(9)} ${`${sums.within[what] ?? 0}`.padStart(8)}  ${what}`,
    );
  const settled = sums.settledMs
    .filter((ms) => !Number.isNaN(ms))
    .sort((one, other) => one - other);
  const at = (share: number) => (settled[Math.floor(share * (settled.length - 1))] ?? 0) / 1000;
  console.log(
    `\nall was well ${at(0.5)} s after the trouble (median), ${at(0.99)} s (99 %), ${at(1)} s (latest)`,
  );
  const { entriesPerS, claimsOfNode, wrongMs } = sums.extremes;
  console.log(
    `in the calm at most: ${entriesPerS.toFixed(1)} entries a second of a beacon, ${claimsOfNode} claims of a node, a lookup wrong for ${wrongMs / 1000} s`,
  );
  for (const { seed, problems } of sums.failures) {
    console.log(`\nFAILED: bun run simulate --schedule ${seed} --trace`);
    for (const problem of problems) console.log(`  ${problem}`);
  }
  console.log(`\n${sums.schedules} schedules, ${sums.failed} failed`);
}

if (options.schedule !== undefined) {
  const print = (nowMs: number, text: () => string) =>
    console.log(`${nowMs.toFixed(2).padStart(10)}  ${text()}`);
  const outcome = runSchedule(options.schedule, options.trace ? print : undefined);
  await turn();
  const sums = noSums();
  add(sums, outcome);
  report(sums);
  process.exit(sums.failed > 0 ? 1 : 0);
}

if (options.json) {
  await runHere(options.seed, options.schedules, (sums) => console.log(JSON.stringify(sums)));
  process.exit(0);
}

const beganMs = performance.now();
const all = noSums();
const told = (sums: Sums) => {
  for (const { seed, problems } of sums.failures) console.log(`failed: ${seed}: ${problems[0]}`);
  merge(all, sums);
  const seconds = (performance.now() - beganMs) / 1000;
  const hours = (all.virtualMs / 3_600_000).toFixed(1);
  console.log(
    `${seconds.toFixed(0)} s: ${all.schedules} schedules, ${hours} hours in them, ${(all.schedules / seconds).toFixed(1)} a second, ${all.failed} failed`,
  );
};
const share = Math.ceil(options.schedules / options.processes);
const runs = Array.from({ length: options.processes }, (_, i) => {
  const count = Math.min(share, options.schedules - i * share);
  return (options.processes === 1 ? runHere : runThere)(options.seed + i * share, count, told);
});
await Promise.all(runs);
report(all);
process.exit(all.failed > 0 ? 1 : 0);
