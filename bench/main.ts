/**
 * The benches: `bun run bench <name>`. All load stays on this machine, and everything ends by
 * itself.
 */
import { join } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { BATCH_MAX_DEFAULT } from "../src/control/workers/options.ts";
import type { BenchOptions } from "./harness/options.ts";
import { Recorder, type Run, saveRun } from "./harness/results.ts";
import { asProcess, runAll } from "./report/all.ts";
import { compareFiles } from "./report/compare.ts";
import { pathsIn, report } from "./report/report.ts";
import { benchAllocation } from "./suite/allocation.ts";
import { benchCoturn } from "./suite/coturn.ts";
import { BEACONS_DEFAULT, benchDirectory, NODES_DEFAULT } from "./suite/directory.ts";
import { benchDirectoryClock } from "./suite/directory-clock.ts";
import { benchDirectoryMemory, MEMORY_MINUTES_DEFAULT } from "./suite/directory-memory.ts";
import { benchDiscover } from "./suite/discover.ts";
import { benchIdle } from "./suite/idle.ts";
import { benchLatency } from "./suite/latency.ts";
import { benchMemory } from "./suite/memory.ts";
import { benchMesh } from "./suite/mesh.ts";
import { benchOperator } from "./suite/operator.ts";
import { benchRelay } from "./suite/relay.ts";
import { benchSoak, MINUTES_DEFAULT } from "./suite/soak.ts";
import { benchStart } from "./suite/start.ts";
import { benchWss } from "./suite/wss.ts";

type Bench = (options: BenchOptions, recorder: Recorder) => Promise<void>;

const BENCHES: readonly [name: string, description: string, run: Bench][] = [
  ["relay", "CPU time a relayed packet, against the reference in C", benchRelay],
  [
    "latency",
    "time through a beacon, from idle to 90 % load, against the reference in C",
    benchLatency,
  ],
  [
    "discover",
    "CPU time a Discover: nodes that are known, new, and move, against the reference in C",
    benchDiscover,
  ],
  ["memory", "resident memory, empty and with up to a million nodes", benchMemory],
  ["mesh", "relays through two beacons, what gossip costs, and a full mesh", benchMesh],
  [
    "directory",
    "a fleet of ten beacons with a million nodes, and its route directory",
    benchDirectory,
  ],
  [
    "directory-clock",
    "lookups after the clock of a directory's server has stepped",
    benchDirectoryClock,
  ],
  [
    "directory-memory",
    "memory of a directory's server over minutes of moves",
    benchDirectoryMemory,
  ],
  ["operator", "what relays notice of operators who look at 500,000 nodes", benchOperator],
  [
    "start",
    "time from exec to the first relayed packet, with and without a state file",
    benchStart,
  ],
  [
    "soak",
    "minutes of everything: whether memory, rate, files and threads stay what they are",
    benchSoak,
  ],
  ["coturn", "CPU time a relayed packet, beside coturn", benchCoturn],
  ["wss", "the WebSocket bridge, against a bare server on Bun", benchWss],
  ["idle", "CPU time of a beacon with nothing to do", benchIdle],
  ["allocation", "heap growth over 5 million relayed packets", benchAllocation],
];

/** Where runs are kept unless told otherwise; git ignores it. */
const RUNS_FOLDER = join(import.meta.dir, "runs");
const LIMIT_MINUTES_DEFAULT = 60;
const SMOKE = {
  rounds: 1,
  seconds: 0.1,
  warmUpSeconds: 0.05,
  minutes: 0.07,
  beacons: 3,
  nodes: 500,
};

const positive = (text: string): number => {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError("must be a number over 0");
  return value;
};

interface Flags extends BenchOptions {
  readonly json?: string;
  readonly limit: number;
}

async function runBench(name: string, run: Bench, flags: Flags): Promise<void> {
  const { json, limit, ...options } = flags.smoke ? { ...flags, ...SMOKE } : flags;
  const command = `bun run bench ${process.argv.slice(2).join(" ")}`;
  const recorder = new Recorder(name, command, options.smoke);
  const timer = setTimeout(() => {
    recorder.note(`stopped before its end: it took more than the ${limit} minutes of --limit`);
    keep(recorder.run(), json);
    process.exit(1);
  }, limit * 60_000);
  await run(options, recorder);
  clearTimeout(timer);
  keep(recorder.run(), json);
}

function keep(run: Run, json: string | undefined): void {
  if (run.smoke && json === undefined) return;
  const path =
    json ??
    join(RUNS_FOLDER, `${run.bench}-${run.startedAt.replaceAll(":", "").slice(0, 17)}.json`);
  saveRun(path, run);
  console.log(`\n${run.figures.length} figures after ${run.elapsedS} s, kept in ${path}`);
}

// By default a signal ends the process without its exit handlers, which end what it started.
for (const [signal, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const) {
  process.on(signal, () => process.exit(code));
}

const program = new Command("bench").description("Measures the beacon.").showHelpAfterError();
for (const [name, description, run] of BENCHES) {
  const command = program
    .command(name)
    .description(description)
    .option("--rounds <n>", "measurements of each contender, in turn", positive, 6)
    .option("--seconds <n>", "length of one measurement", positive, 1)
    .option("--warm-up-seconds <n>", "how long it is loaded before", positive, 1.5)
    .option("--batch <n>", "messages a receive call", positive, BATCH_MAX_DEFAULT)
    .option("--only <text>", "only cases with this in their title", "")
    .option(
      "--against <folder>",
      "another checkout, whose beacon is measured beside this one's (relay)",
    )
    .option("--smoke", "a run of seconds, to see that it works", false)
    .option(
      "--json <file>",
      "where to keep the figures; in bench/runs/ unless given, and nowhere with --smoke",
    )
    .option("--limit <minutes>", "give up after so long", positive, LIMIT_MINUTES_DEFAULT)
    .action((flags: Flags) => runBench(name, run, flags));
  if (run === benchSoak)
    command.option("--minutes <n>", "how long it takes", positive, MINUTES_DEFAULT);
  if (run === benchDirectoryMemory)
    command.option("--minutes <n>", "length of each case", positive, MEMORY_MINUTES_DEFAULT);
  if (run === benchDirectory)
    command
      .option("--beacons <n>", "beacons of the fleet", positive, BEACONS_DEFAULT)
      .option("--nodes <n>", "nodes of each beacon", positive, NODES_DEFAULT);
}
program
  .command("compare")
  .description("what got better or worse from one run to another, beyond the noise")
  .argument("<a.json>", "the run before")
  .argument("<b.json>", "the run after")
  .option("--fail-on-worse", "exit with 1 if a ratio got worse, or no ratio could be judged", false)
  .action((a: string, b: string, { failOnWorse }: { failOnWorse: boolean }) => {
    process.exitCode = compareFiles(a, b, failOnWorse);
  });
const NAMES = BENCHES.map(([name]) => name);
program
  .command("report")
  .description("writes bench/RESULTS.md and its charts, from the runs in bench/results/")
  .option("--check", "write nothing; exit with 1 if they are not what the runs give", false)
  .action(({ check }: { check: boolean }) => {
    process.exitCode = report(import.meta.dir, NAMES, check);
  });
program
  .command("all")
  .description("runs every bench, keeps the runs in bench/results/ and writes the report")
  .option("--rounds <n>", "measurements of each contender, in turn", positive)
  .option("--smoke", "runs of seconds, to see that all work; keeps and reports nothing", false)
  .option("--limit <minutes>", "give each bench up after so long", positive, LIMIT_MINUTES_DEFAULT)
  .action(async ({ rounds, smoke, limit }: { rounds?: number; smoke: boolean; limit: number }) => {
    const root = join(import.meta.dir, "..");
    // From the root, so that no path of this machine is in the command that a run keeps.
    process.chdir(root);
    const flags = rounds === undefined ? [] : ["--rounds", String(rounds)];
    const options = { smoke, limitMinutes: limit, flags };
    const run = asProcess(join(import.meta.dir, "main.ts"), root);
    const failed = await runAll(
      NAMES,
      options,
      "bench/runs/all",
      pathsIn(import.meta.dir).results,
      run,
    );
    if (!smoke) report(import.meta.dir, NAMES, false);
    process.exitCode = failed.length === 0 ? 0 : 1;
  });
try {
  await program.parseAsync();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
process.exit();
