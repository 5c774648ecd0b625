/** A simulated host: its clocks, which every process on it shares. */

export interface HostOptions {
  readonly name: string;
  readonly beaconId: number;
  /** Monotonic clock when the simulation begins. */
  readonly bootedMs: number;
  /** Rate error of the monotonic clock. */
  readonly drift: number;
  /** Error of the wall clock. */
  readonly wallMs: number;
  /** Share of a round trip to the server that is the way there; used where clocks are bad. */
  readonly thereShare: number;
  /** Added to the server's answers to TIME: the server's clock was ahead when the host asked. */
  readonly timeAheadMs?: number;
}

export class Host {
  readonly name: string;
  readonly beaconId: number;
  readonly thereShare: number;
  readonly timeAheadMs: number;
  wallMs: number;
  #suspendedSinceMs: number | undefined;
  #suspendedMs = 0;

  constructor(private readonly options: HostOptions) {
    this.name = options.name;
    this.beaconId = options.beaconId;
    this.thereShare = options.thereShare;
    this.timeAheadMs = options.timeAheadMs ?? 0;
    this.wallMs = options.wallMs;
  }

  get isSuspended(): boolean {
    return this.#suspendedSinceMs !== undefined;
  }

  /** Duration of all finished suspends: CLOCK_MONOTONIC and timers stand still meanwhile. */
  get suspendedMs(): number {
    return this.#suspendedMs;
  }

  suspend(nowMs: number): void {
    this.#suspendedSinceMs ??= nowMs;
  }

  resume(nowMs: number): void {
    if (this.#suspendedSinceMs === undefined) return;
    this.#suspendedMs += nowMs - this.#suspendedSinceMs;
    this.#suspendedSinceMs = undefined;
  }

  /** CLOCK_MONOTONIC. It never steps. */
  monotonicMs(nowMs: number): number {
    const { bootedMs, drift } = this.options;
    return bootedMs + ((this.#suspendedSinceMs ?? nowMs) - this.#suspendedMs) * (1 + drift);
  }
}
