/** The entry: runs the command of the first argument, or the server; loads only that. */
import { isCommand, SUPERVISE } from "./config/commands.ts";
import { EarlySignals } from "./early-signals.ts";

const [word, ...args] = process.argv.slice(2);
/** A container's entry point is `beacon supervise`; any command may follow it. */
const command = word === SUPERVISE && isCommand(args[0]) ? args : [word ?? "", ...args];
if (isCommand(command[0]) && command[0] !== SUPERVISE) {
  const { run } = await import("./cli/main.ts");
  process.exit(await run(command));
}

const signals = EarlySignals.hold(); // before the imports, which take long
if (word === SUPERVISE) {
  const { supervise } = await import("./supervise/main.ts");
  process.exit(await supervise(args, signals));
}
const { serve } = await import("./serve.ts");
await serve(signals);
