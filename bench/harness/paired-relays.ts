/**
 * Relays at a steady rate between nodes of different beacons, each with a number of its own, so
 * that each that is lost is known.
 */
import { type FleetShape, firstNodeOf } from "./fleet.ts";
import type { FleetNodes } from "./fleet-nodes.ts";

const TICK_MS = 1;
const PAIRS = 500;
/** Twenty minutes of 5,000 a second. */
const RELAYS_MAX = 6_000_000;
/** Discovers that leave in one tick, beside the relays: a socket's buffer holds many more. */
const DISCOVERS_PER_TICK = 64;

interface Pair {
  readonly from: number;
  readonly to: number;
  readonly node: number;
}

/**
 * Relays of one phase, of those between beacons that were there all the time, and of the others.
 */
export interface PhaseCount {
  sent: number;
  arrived: number;
}

export class PairedRelays {
  readonly #pairs: readonly Pair[];
  readonly #phaseOf = new Uint8Array(RELAYS_MAX);
  readonly #arrived = new Uint8Array(RELAYS_MAX);
  readonly #sentMs = new Float64Array(RELAYS_MAX);
  /** Of each phase, "healthy" and others. */
  readonly #phases: {
    readonly name: string;
    readonly healthy: PhaseCount;
    readonly others: PhaseCount;
  }[] = [];
  #sent = 0;
  duplicates = 0;
  #isRunning = false;
  #running: Promise<void> | undefined;
  #discovers: { beacon: number; next: number; end: number } | undefined;
  #discovered: (() => void) | undefined;

  /** @param broken the beacon that is not there all the time */
  constructor(
    private readonly nodes: FleetNodes,
    private readonly shape: FleetShape,
    private readonly broken: number,
  ) {
    const { beacons, nodesEach } = shape;
    this.#pairs = Array.from({ length: PAIRS }, (_, i) => {
      const from = i % beacons;
      const to = (from + 1 + (Math.floor(i / beacons) % (beacons - 1))) % beacons;
      return { from, to, node: firstNodeOf(shape, to) + (i % nodesEach) };
    });
  }

  /** What is sent from now on belongs to this phase. */
  phase(name: string): void {
    const none = () => ({ sent: 0, arrived: 0 });
    this.#phases.push({ name, healthy: none(), others: none() });
  }

  start(perS: number): void {
    this.#isRunning = true;
    this.#running = this.#run(perS);
  }

  /** Ends it, once what is on its way has had its time. Safe more than once. */
  async stop(): Promise<void> {
    if (!this.#isRunning) return;
    this.#isRunning = false;
    await this.#running;
    await Bun.sleep(200);
    this.#drain();
  }

  async #run(perS: number): Promise<void> {
    const start = performance.now();
    while (this.#isRunning) {
      const now = performance.now();
      const due = Math.min(RELAYS_MAX, Math.floor(((now - start) / 1000) * perS));
      while (this.#sent < due) this.#send(now);
      this.#discover();
      this.nodes.flush();
      this.#drain();
      await Bun.sleep(TICK_MS);
    }
  }

  #send(now: number): void {
    const number = this.#sent++;
    const pair = this.#pairs[number % PAIRS]!;
    const phase = this.#phases.length - 1;
    this.#phaseOf[number] = phase;
    this.#sentMs[number] = now;
    this.#countOf(number).sent++;
    this.nodes.relay(pair.from, pair.node, number, 0);
  }

  #countOf(number: number): PhaseCount {
    const { from, to } = this.#pairs[number % PAIRS]!;
    const { healthy, others } = this.#phases[this.#phaseOf[number]!]!;
    return from === this.broken || to === this.broken ? others : healthy;
  }

  #drain(): void {
    this.nodes.drain((_, number) => {
      if (this.#arrived[number]) {
        this.duplicates++;
        return;
      }
      this.#arrived[number] = 1;
      this.#countOf(number).arrived++;
    });
  }

  /**
   * Lets all nodes of a beacon say to it that they are there, beside the relays; resolves when all
   * have.
   */
  discoverAll(beacon: number): Promise<void> {
    const next = firstNodeOf(this.shape, beacon);
    this.#discovers = { beacon, next, end: next + this.shape.nodesEach };
    return new Promise((resolve) => {
      this.#discovered = resolve;
    });
  }

  #discover(): void {
    const all = this.#discovers;
    if (all === undefined) return;
    for (let i = 0; i < DISCOVERS_PER_TICK && all.next < all.end; i++)
      this.nodes.discover(all.beacon, all.next++);
    if (all.next < all.end) return;
    this.#discovers = undefined;
    this.#discovered?.();
  }

  get phases(): readonly {
    readonly name: string;
    readonly healthy: PhaseCount;
    readonly others: PhaseCount;
  }[] {
    return this.#phases;
  }

  /**
   * Longest time, in ms, in which none of the relays between healthy beacons that were sent in a
   * phase arrived.
   */
  longestGapMs(phase: number): number {
    let longest = 0;
    let sinceMs: number | undefined;
    for (let number = 0; number < this.#sent; number++) {
      if (this.#phaseOf[number] !== phase) continue;
      const { from, to } = this.#pairs[number % PAIRS]!;
      if (from === this.broken || to === this.broken) continue;
      if (this.#arrived[number]) sinceMs = undefined;
      else {
        sinceMs ??= this.#sentMs[number]!;
        longest = Math.max(longest, this.#sentMs[number]! - sinceMs);
      }
    }
    return longest;
  }

  /**
   * When the last relay of a phase was sent to or from the broken beacon that did not arrive, in
   * the time of performance.now; NaN if all did.
   */
  lastLostMs(phase: number): number {
    for (let number = this.#sent - 1; number >= 0; number--) {
      if (this.#phaseOf[number] !== phase || this.#arrived[number]) continue;
      const { from, to } = this.#pairs[number % PAIRS]!;
      if (from === this.broken || to === this.broken) return this.#sentMs[number]!;
    }
    return Number.NaN;
  }
}
