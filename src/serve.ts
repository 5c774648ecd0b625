/** The server's process: reads the configuration, runs one beacon until a signal, exits. */
import { writeFileSync } from "node:fs";
import {
  Beacon,
  type ConfigChanges,
  ConfigError,
  TakeOver,
  UpgradeError,
  version,
} from "./beacon.ts";
import { folderForSuccessor } from "./config/start-folder.ts";
import { type CommandLine, type Config, flagOf, parseCommandLine } from "./config.ts";
import { createLogger } from "./control/log/log.ts";
import { ServiceManager } from "./control/upgrade/service-manager.ts";
import { obstacleToUpgrade } from "./control/upgrade/watcher.ts";
import type { EarlySignals } from "./early-signals.ts";
import { programCommand } from "./program-command.ts";
import { SUPERVISOR_VARIABLE } from "./supervise/variable.ts";

/** Exit codes: 1, the start failed or the beacon ended; 2, bad configuration or file. */
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
/** One Ctrl-C can arrive twice: from the terminal, and passed on by npm or timeout(1). */
const SAME_SIGNAL_MS = 500;
/** Timeout in ms of last gossip and state file after a second request to stop. */
const HURRY_MS = 1000;
/** Time that a service manager is asked to allow beyond the time to drain. */
const CLOSE_MS_MAX = 30_000;
const SERVING = "serving";
/** How often a supervised process looks whether its supervisor is alive. */
const SUPERVISOR_CHECK_MS = 1000;
const STDOUT_FD = 1;
const STDERR_FD = 2;

/** Runs the server that the command line describes, and ends the process. */
export async function serve(signals: EarlySignals): Promise<never> {
  /** To go on in place of another process, if one started this to do so. */
  const takeOver = TakeOver.fromEnvironment(process.env);
  let commandLine: CommandLine;
  try {
    commandLine = readCommandLine();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    await takeOver?.refuse(error.message);
    print(STDERR_FD, `beacon: ${error.message}\n`);
    process.exit(EXIT_USAGE);
  }
  if (commandLine.kind === "print") {
    print(STDOUT_FD, commandLine.text);
    process.exit(0);
  }
  const server = new Server(commandLine.config, takeOver);
  signals.deliverTo({
    SIGTERM: () => server.stop(),
    SIGINT: () => server.stop(),
    SIGHUP: () => server.onceStarted(() => server.reload()),
    SIGUSR2: () => server.onceStarted(() => server.upgrade()),
    // By default it kills, and other programs take it for "open your log again": who sends it by
    // habit means no harm.
    SIGUSR1: () => server.warn("SIGUSR1 means nothing here: SIGHUP reads the configuration again"),
  });
  process.exit(await server.run());
}

/** Not process.stdout, which makes a shared pipe non-blocking (Bun 1.4.5). */
function print(fd: number, text: string): void {
  try {
    writeFileSync(fd, text);
  } catch {} // the reader is gone
}

function readCommandLine(): CommandLine {
  return parseCommandLine(process.argv.slice(2), process.env, version);
}

/** One beacon, and what signals and a service manager have to do with it. */
class Server {
  readonly #log;
  readonly #beacon;
  readonly #manager;
  /** When SIGTERM or SIGINT arrived first. */
  #stopMs: number | undefined;
  #hasHandedOver = false;

  constructor(
    config: Config,
    private readonly takeOver: TakeOver | undefined,
  ) {
    this.#log = createLogger({ level: config.logLevel, format: config.logFormat });
    // The runtime would print an error itself, which blocks while the reader of standard error
    // stalls.
    for (const event of ["uncaughtException", "unhandledRejection"] as const)
      process.on(event, (err: unknown) =>
        this.#log.error(
          { err },
          "unexpected error: the beacon continues; report it, with this line",
        ),
      );
    this.#beacon = new Beacon(config, this.#log);
    this.#manager = ServiceManager.fromEnvironment(process.env, this.#log);
    this.#beacon.successor = {
      command: [...programCommand(), ...process.argv.slice(2)],
      get folder() {
        return folderForSuccessor();
      },
      onServing: (pid) => {
        this.#hasHandedOver = true;
        this.#manager.mainProcess(pid);
      },
      onServingAgain: () => {
        this.#hasHandedOver = false;
        this.#manager.ready(SERVING);
      },
      // A process that took over is watched by what watched its predecessor.
      obstacle: takeOver ? undefined : obstacleToUpgrade(process.env),
    };
  }

  /** Calls `act` once the beacon listens, if it comes to that. */
  onceStarted(act: () => void): void {
    void this.#started().then(act, () => {});
  }

  /** Starts the beacon if nothing else did yet; settles once it listens. */
  #started(): Promise<void> {
    return this.#beacon.listen(this.takeOver);
  }

  /** @returns the exit code, once the beacon has ended */
  async run(): Promise<number> {
    const { takeOver } = this;
    try {
      if (this.#stopMs === undefined) await this.#started();
      await takeOver?.committed; // a service manager listens to its main process only
      if (this.#stopMs === undefined) this.#manager.ready(SERVING);
      this.#startWatchdog();
      this.#watchSupervisor();
      await this.#beacon.closed;
      return 0;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#log.fatal(reason);
      await takeOver?.refuse(reason);
      await this.#beacon.close();
      return error instanceof ConfigError ? EXIT_USAGE : EXIT_FAILED;
    }
  }

  #startWatchdog(): void {
    const { watchdogMs } = this.#manager;
    if (watchdogMs === undefined) return;
    setInterval(() => {
      if (!this.#hasHandedOver) this.#manager.watchdog();
    }, watchdogMs / 2);
  }

  /** Ends with `beacon supervise`, whose successor's server needs the ports. */
  #watchSupervisor(): void {
    const pid = Number(process.env[SUPERVISOR_VARIABLE] ?? "");
    if (!(pid > 0)) return;
    const timer = setInterval(() => {
      if (isAlive(pid)) return;
      clearInterval(timer);
      this.#log.error(`process ${pid}, which supervised this one, ended: this one ends, too`);
      this.#stopMs ??= performance.now();
      void this.#beacon.close();
    }, SUPERVISOR_CHECK_MS);
  }

  /** Drains and closes; a second call closes at once, as does one before it serves. */
  stop(): void {
    // nothing has begun; the process before goes on
    if (this.takeOver && !this.takeOver.isServing) process.exit(0);
    if (this.#stopMs === undefined) {
      this.#stopMs = performance.now();
      if (!this.#hasHandedOver)
        this.#manager.stopping("draining", this.#beacon.config.drainMs + CLOSE_MS_MAX);
      void (this.#beacon.isListening ? this.#beacon.drain() : this.#beacon.close());
    } else if (performance.now() - this.#stopMs > SAME_SIGNAL_MS) {
      setTimeout(() => process.exit(0), HURRY_MS);
      void this.#beacon.close();
    }
  }

  /** Reads the configuration again: same arguments, files anew. */
  reload(): void {
    if (this.#stopMs !== undefined) return;
    if (this.#beacon.isUpgrading) {
      this.warn(
        "configuration not reloaded: an upgrade is under way, and the new process has read it",
      );
      return;
    }
    this.#manager.reloading();
    try {
      const wanted = readCommandLine();
      if (wanted.kind === "run") this.#report(this.#beacon.reconfigure(wanted.config));
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      this.#log.error(`configuration not reloaded, the one in force stays: ${error.message}`);
    }
    this.#manager.ready(SERVING);
  }

  #report({ reloaded, needRestart }: ConfigChanges): void {
    const flags = (properties: typeof reloaded) => properties.map(flagOf);
    this.#log.info({ changed: flags(reloaded) }, "configuration reloaded");
    if (needRestart.length > 0)
      this.warn(`changed only by a restart: ${flags(needRestart).join(", ")}`);
  }

  /** Starts the program anew, from its file as it is now, and hands over to it. */
  async upgrade(): Promise<void> {
    if (this.#stopMs !== undefined) return;
    try {
      await this.#beacon.upgrade();
    } catch (error) {
      if (!(error instanceof UpgradeError)) throw error;
      this.#log.error(`no upgrade, this process goes on: ${error.message}`);
    }
  }

  warn(message: string): void {
    this.#log.warn(message);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}
