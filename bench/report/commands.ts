/** The commands that read runs: `bun run bench compare`, and what else makes sense of kept figures. */
import type { Command } from "commander";
import { compareFiles } from "./compare.ts";

export function addReportCommands(program: Command): void {
  program
    .command("compare")
    .description("what got better or worse from one run to another, beyond the noise")
    .argument("<a.json>", "the run before")
    .argument("<b.json>", "the run after")
    .option("--fail-on-worse", "exit with 1 if a ratio got worse, or no ratio could be judged", false)
    .action((a: string, b: string, { failOnWorse }: { failOnWorse: boolean }) => {
      process.exitCode = compareFiles(a, b, failOnWorse);
    });
}
