#!/usr/bin/env bun
/** The command line: reads the configuration, runs one beacon until a signal, exits. */
import { Beacon, ConfigError, version } from "./beacon.ts";
import { type CommandLine, parseCommandLine } from "./config.ts";
import { createLogger } from "./control/log.ts";

/** Exit codes: 1, the beacon could not start or ended by itself; 2, the configuration is bad. */
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
/** One Ctrl-C can arrive twice: from the terminal, and passed on by npm or timeout(1). */
const SAME_SIGNAL_MS = 500;

function readCommandLine(): CommandLine {
  try {
    return parseCommandLine(process.argv.slice(2), process.env, version);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`beacon: ${error.message}\n`);
    process.exit(EXIT_USAGE);
  }
}

const commandLine = readCommandLine();
if (commandLine.kind === "print") {
  process.stdout.write(commandLine.text);
  process.exit(0);
}

const { config } = commandLine;
const log = createLogger({ level: config.logLevel, format: config.logFormat });
const beacon = new Beacon(config, log);
let askedMs: number | undefined;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    askedMs ??= performance.now();
    // Asked again: whoever asks does not want to wait.
    if (performance.now() - askedMs > SAME_SIGNAL_MS) process.exit(EXIT_FAILED);
    void beacon.close();
  });
}
try {
  await beacon.listen();
  await beacon.closed;
  process.exit(0);
} catch (error) {
  log.fatal(error instanceof Error ? error.message : String(error));
  await beacon.close();
  process.exit(EXIT_FAILED);
}
