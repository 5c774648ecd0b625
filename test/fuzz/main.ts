/**
 * `bun run fuzz`: random cases, and variations of those that reached something new, for all that
 * meets bytes of strangers.
 */
import { randomInt } from "node:crypto";
import { writeFileSync } from "node:fs";
import { Command, InvalidArgumentError } from "commander";
import { type FuzzResult, fuzz, replay } from "./fuzzer.ts";
import type { Target } from "./target.ts";
import { TARGETS } from "./targets.ts";

const whole = (text: string): number => {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new InvalidArgumentError("must be a whole number");
  return value;
};

interface Options {
  readonly cases?: number;
  readonly seconds?: number;
  readonly seed?: number;
  readonly replay?: string;
  readonly json?: string;
}
/** For each target, where neither cases nor seconds are given. */
const SECONDS_DEFAULT = 10;

const program = new Command("fuzz")
  .description("Fuzzes the beacon's parsers until a case fails, a limit is reached or Ctrl-C.")
  .argument(
    "[target...]",
    `some of: ${TARGETS.map(({ name }) => name).join(", ")}; all unless given`,
  )
  .option("--cases <n>", "cases for each target", whole)
  .option("--seconds <n>", `time for each target; ${SECONDS_DEFAULT} unless cases are given`, whole)
  .option("--seed <n>", "brings the cases of an earlier run", whole)
  .option("--replay <hex>", "runs one case of one target, as a failure names it")
  .option("--json <file>", "writes the raw result there")
  .addHelpText(
    "after",
    `\nTargets:\n${TARGETS.map(({ name, about }) => `  ${name.padEnd(18)} ${about}`).join("\n")}`,
  )
  .showHelpAfterError()
  .parse();
const options = program.opts<Options>();

const targets = program.args.length === 0 ? TARGETS : program.args.map(targetOf);
const interrupt = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => interrupt.abort());

if (options.replay !== undefined) {
  if (targets.length !== 1) program.error("--replay takes one target");
  const message = await replay(targets[0]!, options.replay);
  console.log(message ?? "this case does not fail");
  process.exit(message === undefined ? 0 : 1);
}

const seed = options.seed ?? randomInt(2 ** 31);
const seconds = options.seconds ?? (options.cases === undefined ? SECONDS_DEFAULT : Infinity);
const limits = {
  casesMax: options.cases ?? Infinity,
  msMax: seconds * 1000,
  signal: interrupt.signal,
};
console.log(`--seed ${seed}, Bun ${Bun.version}`);
const results: FuzzResult[] = [];
for (const target of targets) {
  if (interrupt.signal.aborted) break;
  const result = await fuzz(target, seed, limits);
  results.push(result);
  const rate = Math.round(result.cases / result.seconds).toLocaleString("en");
  const outcomes = Object.keys(result.outcomes).length;
  console.log(
    `${target.name.padEnd(18)} ${result.cases.toLocaleString("en").padStart(12)} cases, ${rate.padStart(9)}/s, ` +
      `${String(outcomes).padStart(4)} outcomes${result.failure ? ", FAILED" : ""}`,
  );
  if (result.failure) {
    const { message, choices, cases, repeats } = result.failure;
    console.log(`  after ${cases} cases${repeats ? "" : ", and not by itself"}: ${message}`);
    console.log(`  again: bun run fuzz ${target.name} --replay ${choices}`);
  }
}
const cases = results.reduce((sum, result) => sum + result.cases, 0);
const failed = results.filter(({ failure }) => failure !== undefined);
console.log(
  `${cases.toLocaleString("en")} cases, ${failed.length === 0 ? "none failed" : `${failed.length} targets failed`}`,
);
if (options.json !== undefined)
  writeFileSync(options.json, JSON.stringify({ seed, cases, results }, undefined, 2));
process.exit(failed.length === 0 ? 0 : 1);

function targetOf(name: string): Target {
  const target = TARGETS.find((one) => one.name === name);
  return target ?? program.error(`${name}: no such target (see --help)`);
}
