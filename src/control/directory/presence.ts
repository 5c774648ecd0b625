/**
 * Until when a beacon counts as there that is not heard. That its lease is over shows in what
 * others, or this beacon, wrote into the log since: while nothing is heard of anybody, it is the
 * directory that is away.
 */
import type { FleetClock } from "./clock.ts";
import type { Followed } from "./fleet.ts";

/** A log without a lease for this share of one is one that was away. */
const SILENT_SHARE = 2;
/** Time in which all beacons see that the server is back: a hung connection, and another. */
const BACK_MS = 10_000;

export interface PresenceParts {
  readonly leaseMs: number;
  readonly graceMs: number;
  readonly clock: FleetClock;
  readonly monotonicMs: () => number;
}

export class Presence {
  /** Time of the last return of the server or the log: older silence does not count. */
  #backMs = 0;
  /** … count as heard until then. */
  #patientUntilMs: number;
  /** When there was something in the log. */
  #lastHeardMs: number;
  /** Everything written until this moment was read; stalls while nothing can be read. */
  #heardUntilMs: number;

  constructor(private readonly parts: PresenceParts) {
    const nowMs = parts.monotonicMs();
    this.#patientUntilMs = nowMs;
    this.#lastHeardMs = nowMs;
    this.#heardUntilMs = nowMs;
  }

  /** Until then nobody counts as silent. */
  get patientUntilMs(): number {
    return this.#patientUntilMs;
  }

  /** The server was entered. @param knewOthers who may be back later than this beacon */
  entered(knewOthers: boolean): void {
    this.#lastHeardMs = this.parts.monotonicMs();
    if (knewOthers) this.#beginPatience();
  }

  /** The server takes nothing now: others may have been refused, too, and not this beacon alone. */
  refused(): void {
    this.#beginPatience();
  }

  /** Entries were not read: others may have been well. */
  missed(): void {
    this.#beginPatience();
  }

  /** The log goes on, at least until then. @param timeMs the directory's, of an entry */
  goesOn(timeMs: number): void {
    const { clock, leaseMs, monotonicMs } = this.parts;
    const nowMs = monotonicMs();
    // Nobody could write, or it could not be read; otherwise there were at least this beacon's own
    // leases.
    if (nowMs - this.#lastHeardMs > leaseMs / SILENT_SHARE) this.#beginPatience();
    this.#lastHeardMs = nowMs;
    this.#heardUntilMs = Math.max(this.#heardUntilMs, Math.min(clock.momentOf(timeMs), nowMs));
  }

  /** When a beacon's lease is over, if the log goes on behind that. */
  overMs({ heardMs, saidMs, leaseMs }: Followed): number {
    // Who is back needs a lease's time to be heard again, and may be back later than this beacon.
    const isBack = saidMs >= this.#backMs;
    return (isBack ? heardMs : Math.max(heardMs, this.#patientUntilMs)) + leaseMs;
  }

  deadlineMs(beacon: Followed): number {
    const overMs = this.overMs(beacon);
    if (this.#heardUntilMs > overMs) return overMs;
    return Math.max(beacon.heardMs, this.#heardUntilMs) + beacon.leaseMs + this.parts.graceMs;
  }

  #beginPatience(): void {
    const { clock, monotonicMs } = this.parts;
    this.#patientUntilMs = monotonicMs() + BACK_MS;
    this.#backMs = clock.nowMs();
  }
}
