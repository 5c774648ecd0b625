/**
 * What other beacons claim becomes routes, in place, while the workers read them; and a node of this beacon's own that was later heard
 * elsewhere is given up. The later claim wins, whatever the order in which they come; of two at the same time, that of the beacon whose name
 * sorts last.
 */
import { PEER_PLACES } from "../../shared/memory.ts";
import { CLAIMED_LATER, CLAIMED_LATER_BEFORE, type RouteTable, TABLE_FULL } from "../../shared/routes.ts";
import type { DirectoryClock } from "./clock.ts";
import { EPOCHS_PER_MS } from "./entries.ts";
import type { Pause } from "./slices.ts";

/** A claim so far ahead of the directory's time is of a clock gone wrong: it counts as made now, or it would win for as long. */
const FUTURE_MS = 1000;
/** Beacons may differ by so much in what time it is. */
const CLOCKS_APART_MS = 1000;
/** Before all that was ever said in the log. */
export const IN_SNAPSHOT = 0;
/** Steps of a sweep between two looks at the clock: some 0.1 ms where many routes are withdrawn. */
const SLICE_STEPS = 512;

/** This beacon's own nodes. Moments are of CLOCK_MONOTONIC, in milliseconds. */
export interface OwnNodes {
  size(): number;
  /** When the node was last heard; -1 if it is not here. */
  heardMs(nodeId: number): number;
  /** It counts as heard no earlier than this. @returns false if the shard is locked, and nothing changed */
  heardAtLeast(nodeId: number, ms: number): boolean;
  /** Gives it up, unless it was heard after that moment. @returns whether it was, and stays */
  giveUp(nodeId: number, heardMs: number): boolean;
  /** Goes through all. @returns false if the signal ended it */
  scan(visit: (nodeId: number) => void, pause: Pause, signal: AbortSignal): Promise<boolean>;
}

/** A beacon that claims nodes. */
export interface Claimer {
  readonly name: string;
  /** Its peer number. */
  readonly number: number;
  /** What its claims are marked with, so that those that a snapshot no longer names are found. */
  readonly mark: number;
  /** Whether this beacon may have missed some of its claims. */
  readonly isBehind: boolean;
}

export interface FleetRoutesParts {
  readonly table: RouteTable;
  readonly own: OwnNodes;
  readonly clock: DirectoryClock;
  /** This beacon's name. */
  readonly name: string;
  /** When this beacon claims to have heard a node of its own: later than every other claim that it knew when the node came. */
  readonly claimedMs: (nodeId: number) => number;
  /** The beacon that has a peer number; undefined if the directory does not tell of it. */
  readonly beaconAt: (number: number) => { readonly name: string; readonly epoch: number } | undefined;
  /** A node has to be claimed again: somebody has not heard that this beacon heard it later. */
  readonly claimAgain: (nodeId: number) => void;
  /** The beacon with this peer number has to be loaded: claims of it lost to those of another one, whose routes were withdrawn. */
  readonly outlived: (number: number) => void;
  readonly pause: Pause;
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
  /** The last sweep that was asked for: settles when all are done. */
  #swept: Promise<void> = Promise.resolve();
  /**
   * By the peer's number whose claim was later and that of the other: whether there was such a claim that the other may not know of, and
   * so still have the node. What was said in the log since it began it has heard, and given up what it lost.
   */
  readonly #outbid = new Uint8Array(PEER_PLACES * PEER_PLACES);
  /** By peer's number: whether it claims a node as of earlier than it did, so that others' claims may be later now. */
  readonly #hasLowered = new Uint8Array(PEER_PLACES);

  constructor(private readonly parts: FleetRoutesParts) {}

  /**
   * @param timeMs when it was made, of the directory's time
   * @param saidMs when it was said in the log, likewise; IN_SNAPSHOT if it was not
   */
  claim(nodeId: number, claimer: Claimer, timeMs: number, saidMs: number): void {
    const { table, beaconAt } = this.parts;
    const { number, mark } = claimer;
    const claimedMs = this.contest(nodeId, claimer.name, timeMs);
    const winsTie = (other: number) => claimer.name > (beaconAt(other)?.name ?? "");
    const other = table.claimIfLater(nodeId, number, claimedMs, mark, winsTie);
    if (other === TABLE_FULL) this.refused++;
    else if (other === CLAIMED_LATER_BEFORE) this.#hasLowered[number] = 1;
    else if (other === CLAIMED_LATER) this.#outbid[table.find(nodeId) * PEER_PLACES + number] = 1;
    else if (other >= 0 && other !== number && this.#mayNotKnow(other, saidMs))
      this.#outbid[number * PEER_PLACES + other] = 1;
  }

  /** Whether a beacon may not have heard what was said then: it began later, or not much earlier. */
  #mayNotKnow(number: number, saidMs: number): boolean {
    const beacon = this.parts.beaconAt(number);
    return beacon !== undefined && saidMs < beacon.epoch / EPOCHS_PER_MS + CLOCKS_APART_MS;
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

  gone(nodeId: number, claimer: Claimer): void {
    this.contestGone(nodeId, claimer);
    this.withdraw(nodeId, claimer);
  }

  withdraw(nodeId: number, { number }: Claimer): void {
    this.parts.table.withdraw(nodeId, number);
  }

  /**
   * Another beacon no longer has a node. If this one has it, and may not have heard the other's last claim to it: others had, and may have
   * dropped this one's claim for it.
   */
  contestGone(
    nodeId: number,
    { number, isBehind }: { readonly number: number | undefined; readonly isBehind: boolean },
  ): void {
    const { table, own } = this.parts;
    if (own.heardMs(nodeId) >= 0 && (isBehind || table.find(nodeId) !== number)) this.#claimAgain(nodeId);
  }

  /** Routes that lead to a beacon. */
  countOf(number: number): number {
    return this.parts.table.routesOf(number);
  }

  /** Withdraws those of a beacon's routes that lack this mark. One sweep at a time: many beacons may go at once. */
  sweep(number: number, mark: number): Promise<void> {
    this.#swept = this.#swept.then(() => this.#sweep(number, mark));
    return this.#swept;
  }

  /** Settles when no sweep is under way. */
  async swept(): Promise<void> {
    for (let last: unknown; last !== this.#swept; ) {
      last = this.#swept;
      await last;
    }
  }

  async #sweep(number: number, mark: number): Promise<void> {
    const { table, pause, outlived } = this.parts;
    const end = table.sweepSteps;
    let withdrawn = 0;
    for (let from = 0; from < end && table.routesOf(number) > 0; from += SLICE_STEPS) {
      const over = pause();
      if (over !== undefined) await over;
      withdrawn += table.sweep(number, mark, from, Math.min(from + SLICE_STEPS, end));
    }
    if (withdrawn === 0 && !this.#hasLowered[number]) return;
    this.#hasLowered[number] = 0;
    const outbid = this.#outbid.subarray(number * PEER_PLACES, (number + 1) * PEER_PLACES);
    for (const [other, isOutbid] of outbid.entries()) if (isOutbid) outlived(other);
    outbid.fill(0);
  }

  /** Who heard it later, this beacon or the other one? */
  #compareWithOwn(nodeId: number, claimer: string, claimedMs: number): void {
    const { own, name } = this.parts;
    if (own.heardMs(nodeId) < 0) return;
    const ownMs = this.parts.claimedMs(nodeId);
    const heardMs = own.heardMs(nodeId); // which may be a later moment now
    const isOwn = ownMs > claimedMs || (ownMs === claimedMs && name > claimer);
    if (isOwn || own.giveUp(nodeId, heardMs)) this.#claimAgain(nodeId);
    else this.lost++;
  }

  #claimAgain(nodeId: number): void {
    this.claimedAgain++;
    this.parts.claimAgain(nodeId);
  }
}
