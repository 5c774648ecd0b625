/** The commands that read runs, and the one that makes them all. */
import { join, relative } from "node:path";
import type { Command } from "commander";
import { asProcess, runAll } from "./all.ts";
import { compareFiles } from "./compare.ts";
import { pathsIn, report } from "./report.ts";

export interface Setting {
  /** Of all benches, in the order of the report. */
  readonly benches: readonly string[];
  /** The folder of the benches. */
  readonly folder: string;
  readonly limitMinutes: number;
  readonly parseNumber: (text: string) => number;
}

export function addReportCommands(program: Command, setting: Setting): void {
  const { benches, folder, limitMinutes, parseNumber } = setting;
  program
    .command("compare")
    .description("what got better or worse from one run to another, beyond the noise")
    .argument("<a.json>", "the run before")
    .argument("<b.json>", "the run after")
    .option("--fail-on-worse", "exit with 1 if a ratio got worse, or no ratio could be judged", false)
    .action((a: string, b: string, { failOnWorse }: { failOnWorse: boolean }) => {
      process.exitCode = compareFiles(a, b, failOnWorse);
    });
  program
    .command("report")
    .description("writes bench/RESULTS.md and its charts, from the runs in bench/results/")
    .option("--check", "write nothing; exit with 1 if they are not what the runs give", false)
    .action(({ check }: { check: boolean }) => {
      process.exitCode = report(folder, benches, check);
    });
  program
    .command("all")
    .description("runs every bench, keeps the runs in bench/results/ and writes the report")
    .option("--rounds <n>", "measurements of each contender, in turn", parseNumber)
    .option("--smoke", "runs of seconds, to see that all work; keeps and reports nothing", false)
    .option("--limit <minutes>", "give each bench up after so long", parseNumber, limitMinutes)
    .action(async ({ rounds, smoke, limit }: { rounds?: number; smoke: boolean; limit: number }) => {
      const root = join(folder, "..");
      const flags = rounds === undefined ? [] : ["--rounds", String(rounds)];
      // From the root, so that no path of this machine is in the command that a run keeps.
      process.chdir(root);
      const aside = join(relative(root, folder), "runs", "all");
      const options = { smoke, limitMinutes: limit, flags };
      const run = asProcess(join(folder, "main.ts"), root);
      const failed = await runAll(benches, options, aside, pathsIn(folder).results, run);
      if (!smoke) report(folder, benches, false);
      process.exitCode = failed.length === 0 ? 0 : 1;
    });
}
