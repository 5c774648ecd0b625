/**
 * What other beacons claim becomes routes, in place, while the workers read them; and a node of this beacon's own that was later heard
 * elsewhere is given up. The later claim wins, whatever the order in which they come; of two at the same time, that of the beacon whose name
 * sorts last.
 */
import { type RouteTable, TABLE_FULL } from "../../shared/routes.ts";
import type { DirectoryClock } from "./clock.ts";

/** A claim so far ahead of the directory's time is of a clock gone wrong: it counts as made now, or it would win for as long. */
const FUTURE_MS = 1000;
/** Steps of a sweep between two looks at the clock: some 0.1 ms. */
const SLICE_STEPS = 8192;

/** This beacon's own nodes. Moments are of CLOCK_MONOTONIC, in milliseconds. */
export interface OwnNodes {
  size(): number;
  /** When the node was last heard; -1 if it is not here. */
  heardMs(nodeId: number): number;
  /** It counts as heard no earlier than this. */
  heardAtLeast(nodeId: number, ms: number): void;
  /** Gives it up, unless it was heard after that moment. @returns whether it was, and stays */
  giveUp(nodeId: number, heardMs: number): boolean;
  /** Goes through all, in slices. @returns false if the signal ended it */
  scan(visit: (nodeId: number) => void, signal: AbortSignal): Promise<boolean>;
}

/** A beacon that claims nodes. */
export interface Claimer {
  readonly name: string;
  /** Its peer number. */
  readonly number: number;
  /** What its claims are marked with, so that those that a snapshot no longer names are found. */
  readonly mark: number;
}

export interface FleetRoutesParts {
  readonly table: RouteTable;
  readonly own: OwnNodes;
  readonly clock: DirectoryClock;
  /** This beacon's name. */
  readonly name: string;
  /** The name of the beacon that has a peer number; "" if the directory does not tell of it. */
  readonly nameOf: (number: number) => string;
  /** A node has to be claimed again: somebody has not heard that this beacon heard it later. */
  readonly claimAgain: (nodeId: number) => void;
  readonly pause: () => Promise<unknown>;
}

export class FleetRoutes {
  /** Nodes given up, as another beacon heard them later; claimed again, as this one did. */
  lost = 0;
  claimedAgain = 0;
  /** Claims that found no room in the table; that came from the future. */
  refused = 0;
  fromFuture = 0;
  /** Claims until then are not of the future; looked at again when one is later. */
  #latestMs = 0;
  readonly #sweeps = new Map<number, Promise<void>>();

  constructor(private readonly parts: FleetRoutesParts) {}

  /** @param timeMs the directory's */
  claim(nodeId: number, claimer: Claimer, timeMs: number): void {
    const { table, nameOf } = this.parts;
    const claimedMs = this.contest(nodeId, claimer.name, timeMs);
    const winsTie = (other: number) => claimer.name > nameOf(other);
    const other = table.claimIfLater(nodeId, claimer.number, claimedMs, claimer.mark, winsTie);
    if (other === TABLE_FULL) this.refused++;
  }

  /**
   * Compares a claim with this beacon's own, which may be given up. Nothing is routed by that.
   * @returns when the claim counts as made
   */
  contest(nodeId: number, claimer: string, timeMs: number): number {
    const claimedMs = timeMs > this.#latestMs ? this.#notFromFuture(timeMs) : timeMs;
    this.#compareWithOwn(nodeId, claimer, claimedMs);
    return claimedMs;
  }

  #notFromFuture(timeMs: number): number {
    const nowMs = this.parts.clock.nowMs();
    this.#latestMs = nowMs + FUTURE_MS;
    if (timeMs <= this.#latestMs) return timeMs;
    this.fromFuture++;
    return nowMs;
  }

  gone(nodeId: number, { number }: Claimer): void {
    this.parts.table.withdraw(nodeId, number);
  }

  /** Routes that lead to a beacon. */
  countOf(number: number): number {
    return this.parts.table.routesOf(number);
  }

  /** Withdraws those of a beacon's routes that lack this mark; one sweep of a number at a time. */
  sweep(number: number, mark: number): Promise<void> {
    const sweep = this.swept(number).then(() => this.#sweep(number, mark));
    this.#sweeps.set(number, sweep);
    return sweep.finally(() => {
      if (this.#sweeps.get(number) === sweep) this.#sweeps.delete(number);
    });
  }

  /** Settles when no sweep of a number is under way. */
  async swept(number: number): Promise<void> {
    await this.#sweeps.get(number);
  }

  async #sweep(number: number, mark: number): Promise<void> {
    const { table, pause } = this.parts;
    const end = table.sweepSteps;
    for (let from = 0; from < end && table.routesOf(number) > 0; from += SLICE_STEPS) {
      if (from > 0) await pause();
      table.sweep(number, mark, from, Math.min(from + SLICE_STEPS, end));
    }
  }

  /** Who heard it later, this beacon or the other one? */
  #compareWithOwn(nodeId: number, claimer: string, claimedMs: number): void {
    const { own, clock, name, claimAgain } = this.parts;
    const heardMs = own.heardMs(nodeId);
    if (heardMs < 0) return;
    const ownMs = clock.timeOf(heardMs);
    const isOwn = ownMs > claimedMs || (ownMs === claimedMs && name > claimer);
    if (isOwn || own.giveUp(nodeId, heardMs)) {
      this.claimedAgain++;
      claimAgain(nodeId);
    } else {
      this.lost++;
    }
  }
}
