/**
 * What this beacon publishes of its nodes: numbered changes, so that what it published, claims less
 * those gone, in order, is what its node table holds. Changes of a node that were not yet published
 * are one, the last.
 */
import { NO_MARK, type RouteTableOwner, TABLE_FULL, UNMARKED } from "../../shared/routes-owner.ts";
import type { Pause } from "../kit/pacing.ts";
import type { FleetClock } from "./clock.ts";
import { CHANGES, CHANGES_MAX, type Changes, EPOCHS_PER_MS, TIME_STEP_MS } from "./entries.ts";
import type { OwnNodes } from "./fleet-routes.ts";

/** Limit of unpublished nodes: two seconds at full rate; beyond, a snapshot is cheaper. */
export const UNTOLD_MAX = 131_072;
/** Starts that are remembered: the log, in which they may be found, is a minute long. */
const EPOCHS_MAX = 1024;
/** In the table of published claims all nodes lead to one peer: this beacon. */
export const SELF = 0;
/** Age in ms from which dates are published in whole seconds, as in snapshots. */
const OLD_MS = 86_400_000;
/** Calls of `roundOld`, one a second, in which it goes through all that is published. */
const ROUND_CALLS = 3600;
/** Steps of a sweep between two looks at the clock. */
const SLICE_STEPS = 512;
/** Nodes between two looks at the clock: first claims touch new pages, 25 µs each. */
const SLICE_NODES = 8;
/** What is collected for longer is left to the next entry. */
const COLLECT_MS = 0.5;

export interface AnnouncerParts {
  readonly name: string;
  /** Other beacons' claims. */
  readonly table: RouteTableOwner;
  /** Published claims: room for all nodes of this beacon and UNTOLD_MAX removed ones. */
  readonly published: RouteTableOwner;
  readonly own: OwnNodes;
  readonly clock: FleetClock;
  readonly random: () => number;
  readonly monotonicMs: () => number;
  readonly pause: Pause;
}

export class Announcer {
  /** Number of this start; 0 before the first. Publications of earlier starts are void. */
  epoch = 0;
  /** The last changes that the directory has. */
  seq = 0;
  claimsTold = 0;
  goneTold = 0;
  readonly #epochs = new Set<number>();
  /** The latest start by this beacon's name that is not this process's. */
  #othersEpoch = 0;
  /** Changed nodes, and the earliest date of their claim. */
  readonly #untold = new Map<number, number>();
  #underWay: Changes | undefined;
  /** The epoch of which all nodes are in the table of published claims, and nothing else. */
  #wholeEpoch = 0;
  /** Where `roundOld` goes on. */
  #roundAt = 0;

  constructor(private readonly parts: AnnouncerParts) {}

  /** To be called once the fleet's time is known, which says which start is the later one. */
  start(): void {
    if (this.epoch === 0) this.#begin();
  }

  /** Begins another epoch: the followers need a snapshot. */
  restart(): void {
    if (this.epoch !== 0) this.#begin();
  }

  #begin(): void {
    const { clock, random } = this.parts;
    // At random also above others': two that outbid the same one must not come to the same.
    const chance = Math.floor(random() * EPOCHS_PER_MS);
    const epoch = Math.floor(clock.nowMs()) * EPOCHS_PER_MS + chance;
    this.epoch = Math.max(epoch, this.epoch + 1, this.#othersEpoch + 1 + chance);
    this.#epochs.add(this.epoch);
    if (this.#epochs.size > EPOCHS_MAX) this.#epochs.delete(this.#epochs.values().next().value!);
    this.seq = 0;
    this.#untold.clear();
    this.#underWay = undefined;
  }

  /** Another process has this beacon's name: the next start must be later than its start. */
  outbid(epoch: number): void {
    this.#othersEpoch = Math.max(this.#othersEpoch, epoch);
  }

  /** Whether an epoch was this process's. */
  wasMine(epoch: number): boolean {
    return this.#epochs.has(epoch);
  }

  /** The node came: its claim is later than any other that is known now. */
  came(nodeId: number): void {
    const { table } = this.parts;
    // Claims without a mark are gossip's: as old as they came, and not compared with this beacon's
    // own, they may well be later.
    this.changed(nodeId, table.markOf(nodeId) === UNMARKED ? 0 : table.claimedMs(nodeId));
  }

  /** The node went, or is to be published again. @param afterMs its claim is later than this */
  changed(nodeId: number, afterMs = 0): void {
    if (this.epoch === 0) return; // nothing was published yet
    const earliestMs = afterMs > 0 ? afterMs + TIME_STEP_MS : 0;
    this.#untold.set(nodeId, Math.max(earliestMs, this.#untold.get(nodeId) ?? 0));
    if (this.#untold.size > UNTOLD_MAX) this.restart();
  }

  get untold(): number {
    return this.#untold.size;
  }

  /** What is to be published next; the same until it is `told`. undefined: nothing. */
  next(): Changes | undefined {
    this.#underWay ??= this.#collect();
    return this.#underWay;
  }

  /** The directory has what `next` gave. */
  told(changes: Changes): void {
    this.claimsTold += changes.claims.nodeIds.length;
    this.goneTold += changes.gone.length;
    if (changes !== this.#underWay) return; // it was of the start before
    this.seq = changes.seq;
    this.#underWay = undefined;
  }

  /** Date of a node here: last received, at least what was published; -1 if it is not here. */
  ownMs(nodeId: number): number {
    const { own, clock } = this.parts;
    const heardMs = own.heardMs(nodeId);
    if (heardMs < 0) return -1;
    return Math.max(clock.timeOf(heardMs), this.publishedMs(nodeId), this.#untold.get(nodeId) ?? 0);
  }

  /** The date that was published for a node; -1 for none. */
  publishedMs(nodeId: number): number {
    return this.parts.published.claimedMs(nodeId);
  }

  /** Whether the published table is complete, so that its sums and snapshots hold at `seq`. */
  get isWhole(): boolean {
    return this.epoch !== 0 && this.#wholeEpoch === this.epoch;
  }

  /** Sums of all published claims at `seq` (claim-digest.ts); undefined while incomplete. */
  get sums(): Int32Array | undefined {
    return this.isWhole && this.#underWay === undefined
      ? this.parts.published.sumsOf(SELF)
      : undefined;
  }

  /**
   * After a start: publishes all nodes that are here, for snapshots to tell. Changes go on
   * meanwhile. Nodes of earlier epochs that are gone leave the table first, because they can fill
   * it; `untold` holds those that leave later.
   */
  async complete(signal: AbortSignal): Promise<void> {
    const { own, published, pause } = this.parts;
    const { epoch } = this;
    const isGone = (nodeId: number) => own.heardMs(nodeId) < 0;
    for (let from = 0; from < published.sweepSteps; from += SLICE_STEPS) {
      await pause();
      if (this.epoch !== epoch || signal.aborted) return;
      const end = Math.min(from + SLICE_STEPS, published.sweepSteps);
      published.sweep(SELF, NO_MARK, from, end, isGone);
    }
    const found: number[] = [];
    if (!(await own.scan((nodeId) => found.push(nodeId), pause, signal))) return;
    for (const [i, nodeId] of found.entries()) {
      if (i % SLICE_NODES === 0) await pause();
      if (this.epoch !== epoch || signal.aborted) return;
      const dateMs = this.#dateMs(nodeId);
      if (dateMs >= 0 && !this.#publish(nodeId, dateMs)) this.changed(nodeId);
    }
    this.#wholeEpoch = epoch;
  }

  /** Republishes nodes whose dates became old, in whole seconds. Called once a second. */
  roundOld(): void {
    const { published, clock } = this.parts;
    const oldMs = clock.nowMs() - OLD_MS;
    const end = Math.min(
      this.#roundAt + Math.ceil(published.sweepSteps / ROUND_CALLS),
      published.sweepSteps,
    );
    published.visit(this.#roundAt, end, (nodeId, _peer, claimedMs) => {
      if (claimedMs < oldMs && claimedMs % 1000 !== 0) this.changed(nodeId);
    });
    this.#roundAt = end % published.sweepSteps;
  }

  /** The date to be published. */
  #dateMs(nodeId: number): number {
    const ownMs = this.ownMs(nodeId);
    return ownMs < this.parts.clock.nowMs() - OLD_MS ? Math.floor(ownMs / 1000) * 1000 : ownMs;
  }

  /** @returns false if there is no room for the claim */
  #publish(nodeId: number, dateMs: number): boolean {
    return this.parts.published.claim(nodeId, SELF, dateMs) !== TABLE_FULL;
  }

  #collect(): Changes | undefined {
    const { published, clock, name, monotonicMs } = this.parts;
    const nodeIds: number[] = [];
    const timesMs: number[] = [];
    const gone: number[] = [];
    /** There is no room for their claims until those of nodes that are gone are removed. */
    const refused: [nodeId: number, earliestMs: number][] = [];
    const endMs = monotonicMs() + COLLECT_MS;
    for (const nodeId of this.#untold.keys()) {
      const count = nodeIds.length + gone.length + refused.length;
      if (
        count === CHANGES_MAX ||
        (count % SLICE_NODES === SLICE_NODES - 1 && monotonicMs() > endMs)
      )
        break;
      const dateMs = this.#dateMs(nodeId);
      const earliestMs = this.#untold.get(nodeId)!;
      this.#untold.delete(nodeId);
      if (dateMs < 0) {
        published.withdraw(nodeId, SELF);
        gone.push(nodeId);
        continue;
      }
      if (!this.#publish(nodeId, dateMs)) {
        refused.push([nodeId, earliestMs]);
        continue;
      }
      nodeIds.push(nodeId);
      timesMs.push(dateMs);
    }
    // behind the others
    for (const [nodeId, earliestMs] of refused) this.#untold.set(nodeId, earliestMs);
    if (nodeIds.length + gone.length === 0) return undefined;
    return {
      kind: CHANGES,
      name,
      epoch: this.epoch,
      seq: this.seq + 1,
      // A claim can be ahead of the clock; in an entry none is later than its time.
      timeMs: timesMs.reduce((latest, ms) => Math.max(latest, ms), clock.nowMs()),
      claims: { nodeIds: Int32Array.from(nodeIds), timesMs: Float64Array.from(timesMs) },
      gone: Int32Array.from(gone),
    };
  }
}
