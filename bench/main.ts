/** The benches: `bun run bench <name>`. All load stays on the loopback interface and ends by itself. */
import { Command, InvalidArgumentError } from "commander";
import { BATCH_MAX_DEFAULT } from "../src/config.ts";
import { benchAllocation } from "./allocation.ts";
import { benchIdle } from "./idle.ts";
import { benchLatency } from "./latency.ts";
import { benchMemory } from "./memory.ts";
import { benchMesh } from "./mesh.ts";
import type { BenchOptions } from "./options.ts";
import { benchRelay } from "./relay.ts";
import { benchWss } from "./wss.ts";

const positive = (text: string): number => {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError("must be a number over 0");
  return value;
};

const BENCHES: readonly [string, string, (options: BenchOptions) => Promise<void>][] = [
  ["relay", "CPU time a relayed packet, against the reference in C", benchRelay],
  ["latency", "time through an idle beacon, against the reference in C", benchLatency],
  ["memory", "resident memory with 500,000 nodes", benchMemory],
  ["mesh", "CPU time and pauses with a full mesh: 500,000 nodes, 524,000 routes", benchMesh],
  ["wss", "the WebSocket bridge, against a bare server on Bun", benchWss],
  ["idle", "CPU time of a beacon with nothing to do", benchIdle],
  ["allocation", "heap growth over 5 million relayed packets", benchAllocation],
];

const program = new Command("bench").description("Measures the beacon.").showHelpAfterError();
for (const [name, description, run] of BENCHES) {
  program
    .command(name)
    .description(description)
    .option("--rounds <n>", "measurements of each contender, in turn", positive, 8)
    .option("--seconds <n>", "length of one measurement", positive, 2)
    .option("--batch <n>", "messages a receive call", positive, BATCH_MAX_DEFAULT)
    .option("--only <text>", "only comparisons with this in their title", "")
    .option("--smoke", "a run of seconds, to see that it works", false)
    .action((options: BenchOptions) =>
      run(options.smoke ? { ...options, rounds: 1, seconds: 0.1 } : options),
    );
}
await program.parseAsync();
process.exit(0);
