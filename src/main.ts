#!/usr/bin/env bun
/** The command line: a command's word first, and that command runs; else reads the configuration, runs one beacon until a signal, exits. */
import type { ConfigChanges } from "./beacon.ts";
import { isCommand } from "./config/commands.ts";
import type { CommandLine } from "./config.ts";

if (isCommand(process.argv[2])) {
  const { run } = await import("./cli/main.ts");
  process.exit(await run(process.argv.slice(2)));
}

// Only now: a command loads no server, as the server loads no command.
const { Beacon, ConfigError, TakeOver, UpgradeError, version } = await import("./beacon.ts");
const { flagOf, parseCommandLine } = await import("./config.ts");
const { createLogger } = await import("./control/log.ts");
const { ServiceManager } = await import("./control/service-manager.ts");
const { sameCommand } = await import("./control/upgrade/successor.ts");

/** Exit codes: 1, the beacon could not start or ended by itself; 2, the configuration is bad, or a file that it names. */
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
/** One Ctrl-C can arrive twice: from the terminal, and passed on by npm or timeout(1). */
const SAME_SIGNAL_MS = 500;
/** How long a beacon that was asked twice to stop may take for its last gossip and its state file. */
const HURRY_MS = 1000;
/** What a service manager is asked to allow beyond the time to drain. */
const CLOSE_MS_MAX = 30_000;

function readCommandLine(): CommandLine {
  return parseCommandLine(process.argv.slice(2), process.env, version);
}

/** To go on in place of another process, if one started this to do so. */
const takeOver = TakeOver.fromEnvironment(process.env);

async function readCommandLineOrExit(): Promise<CommandLine> {
  try {
    return readCommandLine();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    await takeOver?.refuse(error.message);
    process.stderr.write(`beacon: ${error.message}\n`);
    process.exit(EXIT_USAGE);
  }
}

const commandLine = await readCommandLineOrExit();
if (commandLine.kind === "print") {
  process.stdout.write(commandLine.text);
  process.exit(0);
}

const { config } = commandLine;
const log = createLogger({ level: config.logLevel, format: config.logFormat });
const beacon = new Beacon(config, log);
const manager = ServiceManager.fromEnvironment(process.env, log);

let askedMs: number | undefined;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    if (takeOver && !takeOver.isServing) process.exit(0); // nothing has begun; the process before goes on
    if (askedMs === undefined) {
      askedMs = performance.now();
      if (!hasHandedOver) manager.stopping("draining", beacon.config.drainMs + CLOSE_MS_MAX);
      void beacon.drain();
    } else if (performance.now() - askedMs > SAME_SIGNAL_MS) {
      // Asked again: whoever asks does not want to wait.
      setTimeout(() => process.exit(0), HURRY_MS);
      void beacon.close();
    }
  });
}

/** Reads the configuration again: same arguments and environment, but the files they name may say something else now. */
function reload(): void {
  if (askedMs !== undefined) return; // it goes, and has said so
  if (beacon.isUpgrading) {
    log.warn("configuration not reloaded: an upgrade is under way, and the new process has read it");
    return;
  }
  manager.reloading();
  try {
    const wanted = readCommandLine();
    if (wanted.kind === "run") report(beacon.reconfigure(wanted.config));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    log.error(`configuration not reloaded, the one in force stays: ${error.message}`);
  }
  manager.ready(SERVING);
}

function report({ reloaded, needRestart }: ConfigChanges): void {
  const flags = (properties: typeof reloaded) => properties.map(flagOf);
  log.info({ changed: flags(reloaded) }, "configuration reloaded");
  if (needRestart.length > 0) log.warn(`changed only by a restart: ${flags(needRestart).join(", ")}`);
}

// By default it kills, and other programs take it for "open your log again": who sends it by habit means no harm.
process.on("SIGUSR1", () => log.warn("SIGUSR1 means nothing here: SIGHUP reads the configuration again"));

let hasHandedOver = false;
beacon.successor = {
  command: sameCommand(),
  onServing: (pid) => {
    hasHandedOver = true;
    manager.mainProcess(pid);
  },
};

/** Starts the program anew, from its file as it is now, and hands over to it. */
async function upgrade(): Promise<void> {
  if (askedMs !== undefined) return; // it goes
  try {
    await beacon.upgrade();
  } catch (error) {
    if (!(error instanceof UpgradeError)) throw error;
    log.error(`no upgrade, this process goes on: ${error.message}`);
  }
}

const SERVING = "serving";
// Without a handler the signal would kill. What it asks for is done once the beacon listens.
process.on("SIGHUP", () => void beacon.listen().then(reload, () => {}));
process.on("SIGUSR2", () => void beacon.listen().then(upgrade, () => {}));
try {
  await beacon.listen(takeOver);
  await takeOver?.committed; // a service manager listens to its main process only
  if (askedMs === undefined) manager.ready(SERVING);
  const keepAlive = () => {
    if (!hasHandedOver) manager.watchdog();
  };
  if (manager.watchdogMs !== undefined) setInterval(keepAlive, manager.watchdogMs / 2);
  await beacon.closed;
  process.exit(0);
} catch (error) {
  const reason = error instanceof Error ? error.message : String(error);
  log.fatal(reason);
  await takeOver?.refuse(reason);
  await beacon.close();
  process.exit(error instanceof ConfigError ? EXIT_USAGE : EXIT_FAILED);
}
