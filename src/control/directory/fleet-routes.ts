/**
 * Other beacons' claims to nodes, which become routes in place, while the workers read them.
 *
 * A claim stands until its beacon withdraws it, or claims the node anew. Of all claims to a node
 * that stand, the latest has the route; of two with the same date, that of the beacon whose name
 * sorts last. The others wait. So the routes depend on what stands, and not on the order in which
 * it was read. A node of this beacon's own that another one claims as of later is given up.
 */
import { differingRanges, rangeOf } from "../../shared/claim-digest.ts";
import { NO_PEER } from "../../shared/routes.ts";
import { type RouteTableOwner, TABLE_FULL } from "../../shared/routes-owner.ts";
import type { Pause } from "../kit/pacing.ts";
import type { WaitingClaims } from "./waiting-claims.ts";

/** Steps of a sweep between two looks at the clock: some 0.1 ms where many routes are withdrawn. */
const SLICE_STEPS = 512;

/** This beacon's own nodes. Moments are of CLOCK_MONOTONIC, in milliseconds. */
export interface OwnNodes {
  size(): number;
  /** When the node was last heard; -1 if it is not here. */
  heardMs(nodeId: number): number;
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
  readonly waiting: WaitingClaims;
  /** Ranges of node ids with claims refused for lack of room since their last snapshot. */
  incomplete: number;
}

export interface FleetRoutesParts {
  readonly table: RouteTableOwner;
  readonly own: OwnNodes;
  /** This beacon's name. */
  readonly name: string;
  /** Date of an own node here, and the published one, if any; -1 for none. */
  readonly ownMs: (nodeId: number) => number;
  readonly publishedMs: (nodeId: number) => number;
  /** The beacon that has a peer number; undefined if the directory does not know it. */
  readonly claimerAt: (number: number) => Claimer | undefined;
  /** The beacons with claims that wait. */
  readonly waiters: () => readonly Claimer[];
  /** Publishes a node again, by its own date or one later than `afterMs`. */
  readonly claimAgain: (nodeId: number, afterMs: number) => void;
  /** A claim of this beacon was refused, because too many wait. */
  readonly tooManyWait: (claimer: Claimer) => void;
  readonly pause: Pause;
}

export class FleetRoutes {
  /** Nodes given up, as another beacon heard them later; published again, as this one did. */
  lost = 0;
  claimedAgain = 0;
  /** Claims that found no room in the table. */
  refused = 0;
  /** The last sweep that was asked for: settles when all are done. */
  #swept: Promise<void> = Promise.resolve();

  constructor(private readonly parts: FleetRoutesParts) {}

  /** @param timeMs when it was made, on the fleet's clock */
  claim(nodeId: number, claimer: Claimer, timeMs: number): void {
    this.contest(nodeId, claimer.name, timeMs);
    this.#stand(nodeId, claimer, timeMs, claimer.mark);
  }

  /** Compares a claim with this beacon's own, which may be given up. Nothing is routed by that. */
  contest(nodeId: number, claimer: string, timeMs: number): void {
    const { own, name, ownMs, publishedMs } = this.parts;
    const heardMs = own.heardMs(nodeId); // before it is dated: it may be heard meanwhile
    if (heardMs < 0) return;
    const wins = (ms: number) => ms > timeMs || (ms === timeMs && name > claimer);
    if (wins(ownMs(nodeId))) {
      // The others keep this beacon's claim if what it published was later.
      if (!wins(publishedMs(nodeId))) this.#claimAgain(nodeId, 0);
    } else if (own.giveUp(nodeId, heardMs)) {
      this.#claimAgain(nodeId, timeMs);
    } else {
      this.lost++;
    }
  }

  withdraw(nodeId: number, claimer: Claimer): void {
    if (this.parts.table.withdraw(nodeId, claimer.number)) this.settle(nodeId);
    else claimer.waiting.take(nodeId);
  }

  /** A node's route was withdrawn: the latest of the claims that wait has it now. */
  settle(nodeId: number): void {
    for (const claimer of this.parts.waiters()) {
      const claim = claimer.waiting.take(nodeId);
      if (claim !== undefined) this.#stand(nodeId, claimer, claim.timeMs, claim.mark);
    }
  }

  /** A gossip-only peer is about to get a node's route: the claim that had it waits. */
  displace(nodeId: number): void {
    const { table, claimerAt } = this.parts;
    const number = table.holder(nodeId);
    const holder = number === NO_PEER ? undefined : claimerAt(number);
    if (holder !== undefined)
      this.#wait(nodeId, holder, table.claimedMs(nodeId), table.markOf(nodeId));
  }

  hasClaims({ number, waiting }: Claimer): boolean {
    return waiting.size > 0 || this.parts.table.routesOf(number) > 0;
  }

  /**
   * Ranges of node ids in which other claims of a beacon stand than it publishes, or one waits for
   * a node that has no route. Ranges with refused claims count once there is room for all nodes of
   * the beacon that are missing.
   * @param sums what it publishes
   * @param nodes how many it has
   */
  differing(claimer: Claimer, sums: Int32Array, nodes: number): number {
    const { number, waiting } = claimer;
    const { table } = this.parts;
    let ranges = differingRanges(sums, table.sumsOf(number), waiting.sums);
    for (const nodeId of waiting.nodeIds())
      if (table.holder(nodeId) === NO_PEER) ranges |= 1 << rangeOf(nodeId);
    claimer.incomplete &= ranges;
    const missing = nodes - table.routesOf(number) - waiting.size;
    return missing > Math.min(table.room, waiting.room) ? ranges & ~claimer.incomplete : ranges;
  }

  /** Withdraws a beacon's claims without this mark that are to go. One sweep at a time. */
  sweep(
    number: number,
    mark: number,
    isToGo: (nodeId: number) => boolean = () => true,
  ): Promise<void> {
    const swept = this.#swept.then(() => this.#sweep(number, mark, isToGo));
    this.#swept = swept.catch(() => {}); // the caller's error; the next sweep runs all the same
    return swept;
  }

  /** Settles when no sweep is under way. */
  async swept(): Promise<void> {
    for (let last: unknown; last !== this.#swept; ) {
      last = this.#swept;
      await last;
    }
  }

  async #sweep(number: number, mark: number, isToGo: (nodeId: number) => boolean): Promise<void> {
    const { table, pause, claimerAt } = this.parts;
    claimerAt(number)?.waiting.sweep(mark, isToGo);
    const settle = (nodeId: number) => this.settle(nodeId);
    const end = table.sweepSteps;
    for (let from = 0; from < end && table.routesOf(number) > 0; from += SLICE_STEPS) {
      const over = pause();
      if (over !== undefined) await over;
      table.sweep(number, mark, from, Math.min(from + SLICE_STEPS, end), isToGo, settle);
    }
    // Again: a later claim of another beacon may have displaced some of these routes during the
    // sweep.
    claimerAt(number)?.waiting.sweep(mark, isToGo);
  }

  /** Gives the route to the later of this claim and the holder's; the other one waits. */
  #stand(nodeId: number, claimer: Claimer, timeMs: number, mark: number): void {
    const { table, claimerAt } = this.parts;
    const holder = table.holder(nodeId);
    const heldMs = holder === NO_PEER ? -1 : table.claimedMs(nodeId);
    if (holder !== NO_PEER && holder !== claimer.number) {
      const other = claimerAt(holder);
      const isLater = timeMs > heldMs || (timeMs === heldMs && claimer.name > (other?.name ?? ""));
      if (!isLater) {
        this.#wait(nodeId, claimer, timeMs, mark);
        return;
      }
      if (other !== undefined) this.#wait(nodeId, other, heldMs, table.markOf(nodeId));
    }
    if (claimer.waiting.size > 0) claimer.waiting.take(nodeId);
    if (table.claim(nodeId, claimer.number, timeMs, mark) === TABLE_FULL) {
      this.refused++;
      claimer.incomplete |= 1 << rangeOf(nodeId);
      // earlier than its own claim before: one that waits may be later
    } else if (timeMs < heldMs) this.settle(nodeId);
  }

  #wait(nodeId: number, claimer: Claimer, timeMs: number, mark: number): void {
    if (claimer.waiting.add(nodeId, { timeMs, mark })) return;
    claimer.incomplete |= 1 << rangeOf(nodeId);
    this.parts.tooManyWait(claimer);
  }

  #claimAgain(nodeId: number, afterMs: number): void {
    if (this.parts.publishedMs(nodeId) >= 0) this.claimedAgain++;
    this.parts.claimAgain(nodeId, afterMs);
  }
}
