/**
 * The test rig: `bun run rig <name>`. Small internets of network namespaces; all traffic stays
 * inside and ends by itself.
 */
import { writeFileSync } from "node:fs";
import { Command, InvalidArgumentError } from "commander";
import { removeLeftovers } from "./namespace.ts";
import { Report } from "./report.ts";
import { NEEDED_FOR_NAMESPACES, obstacle } from "./requirements.ts";
import type { Run, RunOptions } from "./run.ts";
import { CHAOS_RUN, MINUTES_DEFAULT, MINUTES_MIN } from "./runs/chaos.ts";
import { HOSTILE_RUN } from "./runs/hostile.ts";
import { LINKS_RUN } from "./runs/links.ts";
import { MESH_RUN } from "./runs/mesh.ts";
import { NAT_RUN } from "./runs/nat.ts";
import { REMAP_RUN } from "./runs/remap.ts";
import { RESTART_RUN } from "./runs/restart.ts";
import { FLEET_DEFAULT, FLEET_MIN, UPGRADE_RUN } from "./runs/upgrade.ts";

const RUNS: readonly Run[] = [
  NAT_RUN,
  LINKS_RUN,
  REMAP_RUN,
  RESTART_RUN,
  UPGRADE_RUN,
  MESH_RUN,
  HOSTILE_RUN,
  CHAOS_RUN,
];
/** Exit codes of processes that end by a signal: 128 and its number. */
const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

const program = new Command("rig")
  .description("Tries the beacon on small internets, made of network namespaces. Needs root.")
  .showHelpAfterError();

const whole =
  (min: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < min)
      throw new InvalidArgumentError(`must be a whole number from ${min}`);
    return value;
  };

for (const run of RUNS) {
  const command = program
    .command(run.name)
    .description(run.description)
    .option("--smoke", "a run of seconds, to see that it works", false)
    .option("--json <file>", "writes the raw result there")
    .action((options: Partial<RunOptions> & { readonly json?: string }) =>
      start(run, { smoke: false, only: "", ...options }),
    );
  if (run.hasParts) command.option("--only <text>", "tries only what has this in its name");
  if (run === UPGRADE_RUN)
    command.option("--fleet <n>", "nodes of the large fleet", whole(FLEET_MIN), FLEET_DEFAULT);
  if (run === CHAOS_RUN) {
    command
      .option("--minutes <n>", "how long it takes", whole(MINUTES_MIN), MINUTES_DEFAULT)
      .option("--seed <n>", "repeats the schedule of an earlier run", whole(0));
  }
}
program
  .command("clean")
  .description("removes what runs have left that were killed")
  .action(() => {
    refuseWithout(obstacle());
    const removed = removeLeftovers();
    console.log(removed.length === 0 ? "nothing was left" : `removed ${removed.join(", ")}`);
  });

async function start(run: Run, options: RunOptions & { readonly json?: string }): Promise<void> {
  refuseWithout(obstacle([...NEEDED_FOR_NAMESPACES, ...run.needs]));
  for (const [signal, code] of Object.entries(SIGNALS))
    process.on(signal, () => process.exit(code));
  const removed = removeLeftovers();
  if (removed.length > 0) console.log(`removed what an earlier run left: ${removed.join(", ")}`);
  const report = new Report(run.name);
  await run.run(report, options);
  report.finish();
  if (options.json !== undefined) writeFileSync(options.json, report.json());
  process.exitCode = report.failures.length === 0 ? 0 : 1;
}

function refuseWithout(why: string | undefined): void {
  if (why === undefined) return;
  console.error(`the rig ${why}`);
  process.exit(1);
}

await program.parseAsync();
process.exit(); // and with it, whatever was made goes away
