/**
 * What the beacon tells systemd, or whoever else started it and speaks the same: sd_notify(3),
 * sd_watchdog_enabled(3). Each notification is one datagram of lines NAME=value. Without
 * NOTIFY_SOCKET nobody wants to hear any.
 */
import type { Logger } from "pino";
import { monotonicUs } from "../../../ffi/libc.ts";
import { sendUnixDatagram } from "../../../ffi/unix.ts";

/** Limit of a status in UTF-16 units: systemd ignores notifications above 4096 bytes. */
const STATUS_LENGTH_MAX = 600;

/** A day: WATCHDOG_USEC can be years, but timers fire at once above 24 days. */
const WATCHDOG_MS_MAX = 24 * 3600 * 1000;

type Environment = Readonly<Record<string, string | undefined>>;

/** A service manager. No call throws or waits; the first failure is a warning. */
export class ServiceManager {
  /** A state that was not delivered; sent with the next notification. */
  #untold: readonly string[] = [];
  #warned = false;

  private constructor(
    private readonly log: Logger,
    /** As sendUnixDatagram takes it; undefined when there is nobody to tell. */
    private readonly address: string | undefined,
    /** Watchdog timeout in ms; call `watchdog()` twice as often. Undefined without one. */
    readonly watchdogMs: number | undefined,
  ) {}

  /** The service manager of NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; empty is unset. */
  static fromEnvironment(env: Environment, log: Logger): ServiceManager {
    const address = env["NOTIFY_SOCKET"] || undefined;
    if (address === undefined) return new ServiceManager(log, undefined, undefined);
    if (!/^[/@]./s.test(address)) {
      // Such as "vsock:2:1234", which systemd 254 has for virtual machines.
      log.warn(
        `NOTIFY_SOCKET ${JSON.stringify(address)} is no path and no @name: no notifications`,
      );
      return new ServiceManager(log, undefined, undefined);
    }
    return new ServiceManager(log, address, watchdogMsIn(env));
  }

  /** Packets are being handled: after start, and after `reloading`. */
  ready(status: string): void {
    this.#tellState(["READY=1", statusLine(status)]);
  }

  /** One line for people, as `systemctl status` shows it. */
  status(text: string): void {
    this.#tell([statusLine(text)]);
  }

  /** The configuration is being read again; `ready` ends it. */
  reloading(): void {
    this.#tellState(["RELOADING=1", `MONOTONIC_USEC=${monotonicUs()}`]);
  }

  /** The beacon is about to end. @param extendMs how long that may take, in any unit */
  stopping(status: string, extendMs: number): void {
    const extendUs = Math.ceil(extendMs * 1000);
    this.#tellState(["STOPPING=1", `EXTEND_TIMEOUT_USEC=${extendUs}`, statusLine(status)]);
  }

  /** Another process is the service from now on, and this one is about to end. */
  mainProcess(pid: number): void {
    this.#tell([`MAINPID=${pid}`]);
  }

  /** The beacon is alive. */
  watchdog(): void {
    this.#tell(["WATCHDOG=1"]);
  }

  #tellState(lines: readonly string[]): void {
    this.#untold = []; // whatever it was, it is over
    if (!this.#tell(lines)) this.#untold = lines;
  }

  /** @returns whether it got through, or nobody wants to hear it */
  #tell(lines: readonly string[]): boolean {
    if (this.address === undefined) return true;
    try {
      // Of two lines with one name the first counts, so the older ones come last.
      sendUnixDatagram(
        this.address,
        new TextEncoder().encode([...lines, ...this.#untold].join("\n")),
      );
      this.#untold = [];
      return true;
    } catch (error) {
      if (!this.#warned)
        this.log.warn(`the service manager was not notified: ${(error as Error).message}`);
      this.#warned = true;
      return false;
    }
  }
}

/** A status ends with its line; systemd refuses a notification with a NUL. */
function statusLine(text: string): string {
  return `STATUS=${text.replace(/\p{Cc}+/gu, " ").slice(0, STATUS_LENGTH_MAX)}`;
}

/** WATCHDOG_USEC in ms, unless it is missing, broken, or meant for another process than this. */
function watchdogMsIn(env: Environment): number | undefined {
  const pid = env["WATCHDOG_PID"] || undefined;
  const us = env["WATCHDOG_USEC"] ?? "";
  if (!/^\d+$/.test(us) || Number(us) === 0) return undefined;
  if (pid !== undefined && pid !== String(process.pid)) return undefined;
  return Math.min(Number(us) / 1000, WATCHDOG_MS_MAX);
}
