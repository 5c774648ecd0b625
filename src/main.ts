/** The entry: runs the command that the first argument names, or else the server. Loads no more than it runs. */
import { isCommand } from "./config/commands.ts";
import { EarlySignals } from "./early-signals.ts";

if (isCommand(process.argv[2])) {
  const { run } = await import("./cli/main.ts");
  process.exit(await run(process.argv.slice(2)));
}

const signals = EarlySignals.hold(); // before the import, which takes long
const { serve } = await import("./serve.ts");
await serve(signals);
