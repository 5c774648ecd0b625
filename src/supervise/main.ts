/**
 * `beacon supervise`: a process that stays while serving processes come and go behind it. A
 * container, or a program such as runit, watches it, and an upgrade looks to them as if nothing had
 * happened. It is a small service manager: the serving process gets a NOTIFY_SOCKET, and names its
 * successor there (MAINPID). Whatever else it notifies goes on to the service manager of this
 * process, if there is one.
 *
 * Loads none of the server's modules, so that it stays small.
 */
import { constants } from "node:os";
import { becomeSubreaper, endedChild, type ProcessEnd, reap } from "../../ffi/children.ts";
import { type Notification, NotifySocket } from "../../ffi/notify-socket.ts";
import { tryWrite } from "../../ffi/try-write.ts";
import { sendUnixDatagram } from "../../ffi/unix.ts";
import type { EarlySignals, ServerSignal } from "../early-signals.ts";
import { programCommand } from "../program-command.ts";
import { childPids, hasVariable } from "./processes.ts";
import { RESTARTS_MAX, Restarts } from "./restarts.ts";
import { SUPERVISOR_VARIABLE } from "./variable.ts";

/** Interval in ms: a raw descriptor cannot be awaited (Bun 1.4.5). */
const TICK_MS = 50;
/** As WatchdogSec of the unit, in ticks: a paused container does not count as hung. */
const WATCHDOG_MS = 30_000;
/** Timeout in ms of a successor without predecessor: 30 s to prepare, 5 s to cut over. */
const HEIR_MS = 40_000;
/** Of notifications and of orphans, in one go; the rest waits for the next. */
const BATCH_MAX = 1000;
/** Exit codes on purpose: asked to end, or bad configuration. */
const EXITS_ON_PURPOSE = [0, 2];
const EXIT_FAILED = 1;
const STDERR_FD = 2;

/** The process that serves, or is about to. */
interface Serving {
  readonly pid: number;
  /** Of this process; else of its predecessor, which ends within seconds. */
  readonly child: Bun.Subprocess | undefined;
  isReady: boolean;
  /** Whether it said that it is about to end. */
  saidStopping: boolean;
  silentTicks: number;
}

type End = Pick<ProcessEnd, "code" | "signal">;

/** Runs the server with these flags until it ends on purpose. @returns the exit code */
export function supervise(flags: readonly string[], signals: EarlySignals): Promise<number> {
  const supervision = new Supervision([...programCommand(), ...flags]);
  const forward = (signal: ServerSignal) => () => supervision.forward(signal);
  signals.deliverTo({
    SIGTERM: () => supervision.stop("SIGTERM"),
    SIGINT: () => supervision.stop("SIGINT"),
    SIGHUP: forward("SIGHUP"),
    SIGUSR1: forward("SIGUSR1"),
    SIGUSR2: forward("SIGUSR2"),
  });
  return supervision.exitCode;
}

class Supervision {
  readonly exitCode: Promise<number>;
  readonly #finish: (code: number) => void;
  readonly #socket = NotifySocket.bind();
  readonly #outer = process.env["NOTIFY_SOCKET"] || undefined;
  /** Watchdog interval in µs, as text, passed on to the serving process. */
  readonly #watchdogUs: string;
  readonly #watchdogTicks: number;
  readonly #restarts = new Restarts();
  #serving: Serving | undefined;
  /** Processes besides the serving one that reported ready. */
  readonly #readyHeirs = new Set<number>();
  /** Whether such a process is waited for, as the serving one died. */
  #awaitsHeir = false;
  /** Until it is given up, or the next process is started. */
  #ticksLeft = 0;
  /** Signals that wait for a process that serves. */
  readonly #held = new Set<ServerSignal>();
  /** Started by this process, and not waited for by the runtime yet. */
  readonly #ownChildren = new Set<number>();
  #isStopping = false;

  constructor(private readonly command: readonly string[]) {
    const { promise, resolve } = Promise.withResolvers<number>();
    this.exitCode = promise;
    this.#finish = resolve;
    const { WATCHDOG_PID: pid = String(process.pid), WATCHDOG_USEC: us = "" } = process.env;
    const isWatched = pid === String(process.pid) && /^[1-9]\d*$/.test(us);
    this.#watchdogUs = isWatched ? us : String(WATCHDOG_MS * 1000);
    this.#watchdogTicks = Math.ceil(Number(this.#watchdogUs) / 1000 / TICK_MS);
    becomeSubreaper();
    this.#start();
    setInterval(() => this.#tick(), TICK_MS);
  }

  /** Passes on a request to end. */
  stop(signal: "SIGTERM" | "SIGINT"): void {
    this.#isStopping = true;
    const pids = this.#serving ? [this.#serving.pid] : this.#heirs();
    if (pids.length === 0) this.#finish(0);
    for (const pid of pids) kill(pid, signal);
  }

  /** Passes on any other signal, once there is a process that serves. */
  forward(signal: ServerSignal): void {
    if (this.#serving?.isReady) kill(this.#serving.pid, signal);
    else this.#held.add(signal);
  }

  #start(): void {
    const { WATCHDOG_PID: _, ...env } = process.env; // which names this process
    try {
      const child = Bun.spawn([...this.command], {
        stdio: ["inherit", "inherit", "inherit"],
        env: {
          ...env,
          NOTIFY_SOCKET: this.#socket.address,
          WATCHDOG_USEC: this.#watchdogUs,
          [SUPERVISOR_VARIABLE]: String(process.pid),
        },
      });
      this.#serving = newServing(child.pid, child);
      this.#ownChildren.add(child.pid);
      void child.exited.then(() => {
        this.#ownChildren.delete(child.pid);
        const { exitCode, signalCode } = child;
        const signal = typeof signalCode === "string" ? constants.signals[signalCode] : undefined;
        this.#onEnd(child.pid, { code: exitCode ?? undefined, signal });
      });
    } catch (error) {
      this.#restart(`the server cannot be started: ${(error as Error).message}`, EXIT_FAILED);
    }
  }

  #tick(): void {
    this.#readNotifications();
    this.#reapOrphans();
    if (this.#serving) this.#watch(this.#serving);
    else if (this.#awaitsHeir) this.#awaitHeir();
    else if (--this.#ticksLeft <= 0) this.#start();
  }

  #watch(serving: Serving): void {
    if (!serving.child && !isThere(serving.pid)) {
      // Its predecessor has waited for it, and knows what this process cannot: how it ended.
      this.#onEnd(serving.pid, { code: serving.saidStopping ? 0 : undefined, signal: undefined });
    } else if (serving.isReady && ++serving.silentTicks >= this.#watchdogTicks) {
      say(`process ${serving.pid} hangs: it is killed`);
      kill(serving.pid, "SIGKILL");
    }
  }

  #onEnd(pid: number, { code, signal }: End): void {
    this.#readNotifications(); // it may have named its successor
    const serving = this.#serving;
    if (serving?.pid !== pid) return;
    this.#serving = undefined;
    if (this.#isStopping && !serving.isReady) this.#finish(code ?? 0);
    else if (this.#isStopping) this.#finish(exitCodeOf(code, signal));
    else if (code !== undefined && EXITS_ON_PURPOSE.includes(code)) this.#finish(code);
    else if (this.#heirs().length > 0) {
      say(`process ${pid} died (${howEnded(code, signal)}) amid a hand-over`);
      this.#awaitsHeir = true;
      this.#ticksLeft = HEIR_MS / TICK_MS;
    } else
      this.#restart(`process ${pid} died (${howEnded(code, signal)})`, exitCodeOf(code, signal));
  }

  /** Starts the server again after a while, or gives up. */
  #restart(reason: string, exitCode: number): void {
    const delayMs = this.#restarts.crashed(performance.now());
    if (delayMs === undefined) {
      say(`${reason}; given up after ${RESTARTS_MAX} restarts in a row`);
      this.#finish(exitCode);
      return;
    }
    say(`${reason}; the next one starts in ${delayMs} ms`);
    this.#ticksLeft = Math.ceil(delayMs / TICK_MS);
  }

  /** Processes that the dead one left behind: its successor, or its predecessor. */
  #heirs(): number[] {
    return childPids().filter(
      (pid) =>
        pid !== this.#serving?.pid && hasVariable(pid, "NOTIFY_SOCKET", this.#socket.address),
    );
  }

  #awaitHeir(): void {
    const heirs = this.#heirs();
    const ready = heirs.find((pid) => this.#readyHeirs.has(pid));
    if (ready !== undefined) {
      this.#awaitsHeir = false;
      this.#serving = newServing(ready);
      this.#onReady(this.#serving);
      say(`process ${ready} serves in its place`);
    } else if (heirs.length === 0) {
      this.#awaitsHeir = false;
      this.#restart("nor does another one serve in its place", EXIT_FAILED);
    } else if (--this.#ticksLeft <= 0) {
      for (const pid of heirs) kill(pid, "SIGKILL");
    }
  }

  #readNotifications(): void {
    for (let count = 0; count < BATCH_MAX; count++) {
      const notification = this.#socket.receive();
      if (notification === undefined) return;
      this.#take(notification);
    }
  }

  #take({ text, pid }: Notification): void {
    const lines = text.split("\n").filter(Boolean);
    const serving = this.#serving;
    if (pid !== serving?.pid) {
      const isHeir = lines.includes("READY=1") && this.#heirs().includes(pid);
      if (isHeir) this.#readyHeirs.add(pid);
      return;
    }
    serving.silentTicks = 0;
    if (lines.includes("STOPPING=1")) serving.saidStopping = true;
    if (lines.includes("READY=1")) this.#onReady(serving);
    const successor = lines.map((line) => /^MAINPID=([1-9]\d{0,9})$/.exec(line)?.[1]).find(Boolean);
    if (successor !== undefined) this.#follow(Number(successor));
    this.#passOn(lines.filter((line) => !line.startsWith("MAINPID=")));
  }

  #onReady(serving: Serving): void {
    serving.isReady = true;
    this.#readyHeirs.clear();
    this.#restarts.ready(performance.now());
    for (const signal of this.#held) kill(serving.pid, signal);
    this.#held.clear();
  }

  /** The serving process has handed over. */
  #follow(pid: number): void {
    this.#serving = newServing(pid);
    this.#serving.isReady = true;
    if (this.#isStopping) kill(pid, "SIGTERM"); // which its predecessor got, and not it
  }

  /** Passes lines to this process's own service manager. */
  #passOn(lines: readonly string[]): void {
    if (this.#outer === undefined || lines.length === 0) return;
    try {
      sendUnixDatagram(this.#outer, new TextEncoder().encode(lines.join("\n")));
    } catch {}
  }

  /** Waits for processes whose parents ended: successors, and where this is process 1, any. */
  #reapOrphans(): void {
    for (let count = 0; count < BATCH_MAX; count++) {
      const pid = endedChild();
      // The runtime waits for what it started, and says so by itself.
      if (pid === undefined || this.#ownChildren.has(pid)) return;
      const end = reap(pid);
      if (end) this.#onEnd(pid, end);
    }
  }
}

function newServing(pid: number, child?: Bun.Subprocess): Serving {
  return { pid, child, isReady: false, saidStopping: false, silentTicks: 0 };
}

/** As shells have it. */
function exitCodeOf(code: number | undefined, signal: number | undefined): number {
  return code ?? (signal === undefined ? EXIT_FAILED : 128 + signal);
}

function howEnded(code: number | undefined, signal: number | undefined): string {
  if (code !== undefined) return `exit code ${code}`;
  if (signal === undefined) return "its predecessor knows how";
  return (
    Object.entries(constants.signals).find(([, number]) => number === signal)?.[0] ??
    `signal ${signal}`
  );
}

/** Whether there is a process of this number, a zombie included. */
function isThere(pid: number): boolean {
  return kill(pid, 0);
}

/** @returns false if there is no such process any more */
function kill(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

function say(text: string): void {
  tryWrite(STDERR_FD, `beacon supervise: ${text}\n`);
}
