/**
 * What this beacon tells the directory of its nodes: numbered changes, so that what it said, claims less those gone, in order, is what its
 * node table holds. Changes of a node that were not yet told are one, the last.
 */
import { type RouteTable, UNMARKED } from "../../shared/routes.ts";
import type { DirectoryClock } from "./clock.ts";
import { CHANGES, CHANGES_MAX, type Changes, EPOCHS_PER_MS, TIME_STEP_MS } from "./entries.ts";
import type { OwnNodes } from "./fleet-routes.ts";

/** Nodes whose change is not told yet: two seconds of the fastest. Beyond that a snapshot is less work for everybody. */
const UNTOLD_MAX = 131_072;
/** Starts that are remembered: the log, in which they may be found, is a minute long. */
const EPOCHS_MAX = 1024;

export interface AnnouncerParts {
  readonly name: string;
  readonly table: RouteTable;
  readonly own: OwnNodes;
  readonly clock: DirectoryClock;
  readonly random: () => number;
}

export class Announcer {
  /** Which start this is; 0 before the first. All that was told before does not count any more. */
  epoch = 0;
  /** The last changes that the directory has. */
  seq = 0;
  claimsTold = 0;
  goneTold = 0;
  readonly #epochs = new Set<number>();
  /** The latest start by this beacon's name that is not this process's. */
  #othersEpoch = 0;
  /** Nodes that came or went; which of the two shows when it is told. */
  readonly #untold = new Set<number>();
  #underWay: Changes | undefined;

  constructor(private readonly parts: AnnouncerParts) {}

  /** To be called once the directory's time is known, which says which start is the later one. */
  start(): void {
    if (this.epoch === 0) this.#begin();
  }

  /** Begins anew: whoever follows needs a snapshot. */
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

  /** Somebody else has this beacon's name, or had it: whatever the clock says, the next start is the later one. */
  outbid(epoch: number): void {
    this.#othersEpoch = Math.max(this.#othersEpoch, epoch);
  }

  /** Whether an epoch was this process's. */
  wasMine(epoch: number): boolean {
    return this.#epochs.has(epoch);
  }

  /** The node came: it is dated now, as what others claim is known now. */
  came(nodeId: number): void {
    if (this.epoch !== 0) this.claimedMs(nodeId);
    this.changed(nodeId);
  }

  /** The node went, or is to be claimed again. */
  changed(nodeId: number): void {
    if (this.epoch === 0) return; // nobody was told anything yet
    this.#untold.add(nodeId);
    if (this.#untold.size > UNTOLD_MAX) this.restart();
  }

  get untold(): number {
    return this.#untold.size;
  }

  /** What is to be told next; the same until it is `told`. undefined: nothing. */
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

  /** When this beacon last heard a node, as it claims it: later than every claim of another that it knew. -1 if it is not here. */
  claimedMs(nodeId: number): number {
    const { own, clock, table } = this.parts;
    const heardMs = own.heardMs(nodeId);
    if (heardMs < 0) return -1;
    const ownMs = clock.timeOf(heardMs);
    const otherMs = table.claimedMs(nodeId);
    // Claims without a mark are gossip's: as old as they came, and not compared with this beacon's own, they may well be later.
    if (otherMs < ownMs || table.markOf(nodeId) === UNMARKED) return ownMs;
    // The node came here after the other beacon's claim was known, whatever the two clocks say.
    const laterMs = clock.momentOf(otherMs + TIME_STEP_MS);
    // If the shard is locked, the time is not kept; the next call then computes it again from the same claim.
    return clock.timeOf(own.heardAtLeast(nodeId, laterMs) ? own.heardMs(nodeId) : laterMs);
  }

  #collect(): Changes | undefined {
    const nodeIds: number[] = [];
    const timesMs: number[] = [];
    const gone: number[] = [];
    for (const nodeId of this.#untold) {
      if (nodeIds.length + gone.length === CHANGES_MAX) break;
      this.#untold.delete(nodeId);
      const claimedMs = this.claimedMs(nodeId);
      if (claimedMs < 0) {
        gone.push(nodeId);
        continue;
      }
      nodeIds.push(nodeId);
      timesMs.push(claimedMs);
    }
    if (nodeIds.length + gone.length === 0) return undefined;
    return {
      kind: CHANGES,
      name: this.parts.name,
      epoch: this.epoch,
      seq: this.seq + 1,
      // A claim can be ahead of the clock; in an entry none is later than its time.
      timeMs: timesMs.reduce((latest, ms) => Math.max(latest, ms), this.parts.clock.nowMs()),
      claims: { nodeIds: Int32Array.from(nodeIds), timesMs: Float64Array.from(timesMs) },
      gone: Int32Array.from(gone),
    };
  }
}
