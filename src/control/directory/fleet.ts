/**
 * The other beacons of the fleet as the directory's log tells of them, and what is to be done about
 * each.
 *
 * What a beacon publishes is applied at once. A beacon is *followed*: its changes are each one more
 * than the last, and what stands of its claims is compared with the sums in its leases. Or it is
 * *behind*, at least in some ranges of node ids: something was missed, it restarted, or it is new.
 * Then a snapshot that its changes continue is loaded; what they name holds before what is in that.
 *
 * Nothing here waits or speaks to anybody: entries and the time come in, what is to be asked and
 * loaded can be read.
 */
import { ALL_RANGES, CLAIM_RANGES, countRanges } from "../../shared/claim-digest.ts";
import { PEERS_MAX } from "../../shared/memory.ts";
import { UNMARKED } from "../../shared/routes-owner.ts";
import {
  ASK,
  type Ask,
  CHANGES,
  type Changes,
  type Entry,
  LEASE,
  type Lease,
  type SnapshotName,
} from "./entries.ts";
import type { Claimer, FleetRoutes } from "./fleet-routes.ts";
import { WAITING_MAX, WaitingClaims } from "./waiting-claims.ts";

/** Why a snapshot is needed. */
export const RESYNC_REASONS = [
  "new",
  "restarted",
  "gap",
  "diverged",
  "too_far_behind",
  "refused",
  "moved",
] as const;
export type ResyncReason = (typeof RESYNC_REASONS)[number];

/** Limit of nodes changed after the needed snapshot, 60 bytes each; beyond, a later one. */
const KEPT_MAX = 65_536;
/** Spread of asks in ms: most beacons read another one's ask before they write theirs. */
const ASK_SPREAD_MS = 250;
/** Nobody answered: the same is asked again, after twice as long each time. */
const ASK_AGAIN_MS = 1000;
const ASK_AGAIN_MS_MAX = 10_000;
/** A lease is what its beacon says, in these bounds. */
const LEASE_MS_MIN = 1000;
const LEASE_MS_MAX = 600_000;
/** Of one that has not said it. */
const LEASE_MS_DEFAULT = 10_000;
/** Those that a byte holds, without that of routes which came in other ways. */
const FIRST_MARK = UNMARKED + 1;
const MARKS = 255;

/** Delay of the reload of a beacon that diverges repeatedly, doubled each time. */
const DIVERGED_MS = 1000;
const DIVERGED_MS_MAX = 300_000;

export class Followed {
  number: number | undefined;
  mark = FIRST_MARK;
  readonly waiting: WaitingClaims;
  /** Of node ids, in which it is behind. */
  ranges = ALL_RANGES;
  incomplete = 0;
  /** It is not compared before that; how long after the next divergence. */
  compareAtMs = 0;
  compareAgainMs = DIVERGED_MS;
  seq = 0;
  isBehind = true;
  /** While it is behind: the last change that there was; undefined while nothing told. */
  #last: number | undefined;
  /** A snapshot has to have all changes until this one. */
  #needed: number | undefined;
  /** Per node, the last change after `needed`: it outranks an older snapshot. */
  readonly #changed = new Map<number, number>();
  /** What is to be loaded; whether it is being loaded. */
  wanted: SnapshotName | undefined;
  isLoading = false;
  /** Times that it fell behind: a snapshot that was asked for before is not enough. */
  loads = 0;
  askAtMs = 0;
  askAgainMs = ASK_AGAIN_MS;
  lease: Lease | undefined;
  /** When it said what was heard last, on the fleet's clock. */
  saidMs = 0;

  constructor(
    readonly name: string,
    public epoch: number,
    public heardMs: number,
    waitingMax = WAITING_MAX,
  ) {
    this.waiting = new WaitingClaims(waitingMax);
  }

  get leaseMs(): number {
    return Math.min(Math.max(this.lease?.leaseMs ?? LEASE_MS_DEFAULT, LEASE_MS_MIN), LEASE_MS_MAX);
  }

  /** It is behind from now on. @param ranges of node ids, in which it is */
  fallBehind(nowMs: number, random: number, ranges: number): void {
    this.ranges = this.isBehind ? this.ranges | ranges : ranges;
    this.isBehind = true;
    this.loads++;
    this.#begin(undefined);
    this.wanted = undefined;
    this.askAtMs = nowMs + random * ASK_SPREAD_MS;
    this.askAgainMs = ASK_AGAIN_MS;
  }

  /** A snapshot was loaded: it is followed from the last change on. */
  follow({ seq }: SnapshotName): void {
    this.seq = Math.max(seq, this.#last!);
    this.isBehind = false;
    this.#changed.clear();
    this.wanted = undefined;
  }

  /** Whether a change was heard before, while it is behind. */
  has(seq: number): boolean {
    return this.#last !== undefined && seq <= this.#last;
  }

  /** A change was applied. @param max nodes to keep. @returns whether it was too much to keep */
  keep({ seq, claims, gone }: Changes, max: number): boolean {
    if (this.#last !== seq - 1) this.#begin(seq - 1);
    this.#last = seq;
    for (const nodeId of claims.nodeIds) this.#changed.set(nodeId, seq);
    for (const nodeId of gone) this.#changed.set(nodeId, seq);
    if (this.#changed.size <= max) return false;
    this.#begin(seq);
    return true;
  }

  /** Its last change is of this number: more was missed, or came from a forger. */
  reached(seq: number): void {
    if (seq !== this.#last) this.#begin(seq);
  }

  /** Its changes so far were not applied to the routes: it had no number. */
  numbered(number: number): void {
    this.number = number;
    if (this.#changed.size > 0) this.#begin(this.#last);
    if (this.wanted !== undefined && !this.continues(this.wanted)) this.wanted = undefined;
  }

  /** Whether a snapshot is continued by the changes that were applied. */
  continues({ seq }: SnapshotName): boolean {
    return this.#needed !== undefined && seq >= this.#needed;
  }

  /** Whether a change that names the node was applied that a snapshot does not have. */
  hasChanged(nodeId: number, { seq }: SnapshotName): boolean {
    return (this.#changed.get(nodeId) ?? -1) > seq;
  }

  #begin(needed: number | undefined): void {
    this.#needed = needed;
    this.#last = needed;
    this.#changed.clear();
  }
}

export interface FleetParts {
  /** This beacon's. */
  readonly name: string;
  readonly beaconId: number;
  readonly routes: FleetRoutes;
  /** Changed nodes to keep of a beacon that is behind. Default: 65,536. */
  readonly keptNodesMax?: number;
  readonly random: () => number;
  /** What the log says of this beacon itself, or by its name. */
  readonly heardOfSelf: (entry: Entry) => void;
  /** Another beacon asks for this one's snapshot of some ranges of node ids. */
  readonly asked: (ranges: number, asker: string) => void;
  /** Changes of another beacon were applied. */
  readonly applied: (changes: Changes) => void;
  /** Beacons came or went. */
  readonly changed: () => void;
  /** A beacon is no longer to be routed to. */
  readonly left: (beacon: Followed, why: string) => void;
  readonly complain: (about: string, message: string) => void;
}

export class Fleet {
  readonly beacons = new Map<string, Followed>();
  /** The beacon found last by each number: a change asks for one with each claim. */
  readonly #atNumber: (Followed | undefined)[] = [];
  readonly resyncs = Object.fromEntries(RESYNC_REASONS.map((reason) => [reason, 0])) as Record<
    ResyncReason,
    number
  >;
  /** Beacons beyond what there is room for; entries of a beacon's earlier starts. */
  ignored = 0;
  stale = 0;
  /** Ranges of beacons' node ids in which other claims stood here than they said. */
  diverged = 0;

  constructor(private readonly parts: FleetParts) {}

  /** What the log says. @param nowMs monotonic, as all times here */
  hear(entry: Entry, nowMs: number): void {
    const { name, heardOfSelf, asked } = this.parts;
    if (entry.kind === ASK) {
      if (entry.of.name === name) asked(entry.ranges, entry.name);
      else this.#otherAsks(entry, nowMs);
    }
    if (entry.name === name) {
      heardOfSelf(entry);
      return;
    }
    const beacon = this.#beaconOf(entry, nowMs);
    if (beacon === undefined) return;
    beacon.heardMs = nowMs;
    if (entry.kind !== ASK) beacon.saidMs = entry.timeMs;
    if (entry.kind === CHANGES) this.#hearChanges(beacon, entry, nowMs);
    else if (entry.kind === LEASE) this.#hearLease(beacon, entry, nowMs);
  }

  /** A lease found in the directory, not read from the log: who is there, not how far. */
  find(lease: Lease, nowMs: number): void {
    if (lease.name === this.parts.name || lease.isLeaving) return;
    const beacon = this.#beaconOf(lease, nowMs);
    if (beacon !== undefined) beacon.lease ??= lease;
  }

  /** A beacon was there a moment ago; whatever it says is new. */
  adopt(name: string, nowMs: number): void {
    if (name === this.parts.name || this.beacons.has(name) || this.beacons.size >= PEERS_MAX)
      return;
    this.beacons.set(name, new Followed(name, 0, nowMs, this.parts.keptNodesMax));
  }

  fallBehind(beacon: Followed, reason: ResyncReason, nowMs: number, ranges = ALL_RANGES): void {
    this.resyncs[reason]++;
    beacon.fallBehind(nowMs, this.parts.random(), ranges);
  }

  /** The beacon whose claims lead to a peer number. */
  claimerAt(number: number): Claimer | undefined {
    const last = this.#atNumber[number];
    if (last?.number === number && this.beacons.get(last.name) === last)
      return last as Followed & Claimer;
    for (const beacon of this.beacons.values()) {
      if (beacon.number !== number) continue;
      this.#atNumber[number] = beacon;
      return beacon as Followed & Claimer;
    }
    return undefined;
  }

  /** The beacons with claims that wait. */
  waiters(): Claimer[] {
    const waiters: Claimer[] = [];
    for (const beacon of this.beacons.values())
      if (beacon.waiting.size > 0 && beacon.number !== undefined)
        waiters.push(beacon as Followed & Claimer);
    return waiters;
  }

  tooManyWait({ name, waiting }: Claimer): void {
    this.parts.complain(
      "too_many_wait",
      `more than ${waiting.size} nodes of ${name} have a later claim by another beacon: find it with "beacon explain", and check whether it has these nodes`,
    );
  }

  /** Drops those whose lease is over. @param deadlineMs when that is */
  expire(nowMs: number, deadlineMs: (beacon: Followed) => number): void {
    for (const beacon of this.beacons.values()) {
      if (nowMs > deadlineMs(beacon)) this.#drop(beacon, "was not heard for its lease");
    }
  }

  /** Returns the beacons whose snapshots are needed now, and counts them as asked. */
  toAsk(nowMs: number): readonly Followed[] {
    const asked: Followed[] = [];
    for (const beacon of this.beacons.values()) {
      const isUnderWay = beacon.wanted !== undefined || beacon.isLoading;
      if (beacon.number === undefined || !beacon.isBehind || isUnderWay || nowMs < beacon.askAtMs)
        continue;
      asked.push(beacon);
      beacon.askAtMs = nowMs + beacon.askAgainMs * (1 + this.parts.random() / 2);
      beacon.askAgainMs = Math.min(2 * beacon.askAgainMs, ASK_AGAIN_MS_MAX);
    }
    return asked;
  }

  /** A beacon whose snapshot is to be loaded, and that has a number. */
  toLoad(): Followed | undefined {
    for (const beacon of this.beacons.values())
      if (beacon.wanted !== undefined && beacon.number !== undefined) return beacon;
    return undefined;
  }

  /** The next snapshot's claims are told from those before by their mark. */
  nextMark(beacon: Followed): void {
    beacon.mark = (beacon.mark % MARKS) + FIRST_MARK;
  }

  #apply(beacon: Followed, changes: Changes): void {
    const { routes, applied } = this.parts;
    const { nodeIds, timesMs } = changes.claims;
    applied(changes);
    if (beacon.number === undefined) {
      this.#contest(changes);
      return;
    }
    const claimer = beacon as Claimer;
    for (const nodeId of changes.gone) routes.withdraw(nodeId, claimer);
    for (let i = 0; i < nodeIds.length; i++) routes.claim(nodeIds[i]!, claimer, timesMs[i]!);
  }

  #beaconOf(entry: Entry, nowMs: number): Followed | undefined {
    let beacon = this.beacons.get(entry.name);
    if (beacon === undefined) {
      if (entry.kind === LEASE && entry.isLeaving) return undefined;
      if (this.beacons.size >= PEERS_MAX) {
        this.ignored++;
        // Others may have room for it, and believe its claims.
        if (entry.kind === CHANGES) this.#contest(entry);
        this.parts.complain(
          "beacons",
          `the directory names more than ${PEERS_MAX} beacons: ${entry.name} and others are left out`,
        );
        return undefined;
      }
      beacon = new Followed(entry.name, entry.epoch, nowMs, this.parts.keptNodesMax);
      this.beacons.set(entry.name, beacon);
      this.fallBehind(beacon, "new", nowMs);
      this.parts.changed();
    } else if (entry.epoch < beacon.epoch) {
      this.stale++;
      if (entry.kind === LEASE) this.parts.complain("double_name", doubleName(entry.name));
      return undefined;
    } else if (entry.epoch > beacon.epoch) {
      beacon.epoch = entry.epoch;
      beacon.lease = undefined;
      this.fallBehind(beacon, "restarted", nowMs);
    }
    return beacon;
  }

  #hearChanges(beacon: Followed, changes: Changes, nowMs: number): void {
    if (!beacon.isBehind) {
      if (changes.seq <= beacon.seq) return;
      if (changes.seq === beacon.seq + 1) {
        beacon.seq = changes.seq;
        this.#apply(beacon, changes);
        return;
      }
      this.fallBehind(beacon, "gap", nowMs);
    }
    if (beacon.has(changes.seq)) return;
    this.#apply(beacon, changes);
    if (beacon.keep(changes, this.parts.keptNodesMax ?? KEPT_MAX)) this.resyncs.too_far_behind++;
    if (beacon.wanted !== undefined && !beacon.continues(beacon.wanted)) beacon.wanted = undefined;
  }

  #hearLease(beacon: Followed, lease: Lease, nowMs: number): void {
    if (lease.isLeaving) {
      this.#drop(beacon, "left");
      return;
    }
    beacon.lease = lease;
    this.#findDoubles(beacon, lease);
    if (!beacon.isBehind) {
      if (lease.seq > beacon.seq) this.fallBehind(beacon, "gap", nowMs);
      else this.#compare(beacon as Followed & Claimer, lease, nowMs);
      if (!beacon.isBehind) return;
    }
    beacon.reached(lease.seq);
    beacon.wanted = [lease.ranged, lease.snapshot].find(
      (one) => one && (one.ranges & beacon.ranges) === beacon.ranges && beacon.continues(one),
    );
  }

  /** Compares standing claims with a lease's sums; reloads the ranges that differ. */
  #compare(beacon: Followed & Claimer, { sums, seq, nodes }: Lease, nowMs: number): void {
    const { routes, complain } = this.parts;
    if (sums === undefined || nowMs < beacon.compareAtMs) return;
    // Who had changes of its own that it does not know of had them from a forger.
    const ranges = seq < beacon.seq ? ALL_RANGES : routes.differing(beacon, sums, nodes);
    if (ranges === 0) {
      if (beacon.incomplete === 0) beacon.compareAgainMs = DIVERGED_MS;
      return;
    }
    beacon.compareAtMs = nowMs + beacon.compareAgainMs;
    beacon.compareAgainMs = Math.min(2 * beacon.compareAgainMs, DIVERGED_MS_MAX);
    const count = countRanges(ranges & ~beacon.incomplete);
    if (count === 0) {
      this.fallBehind(beacon, "refused", nowMs, ranges);
      return;
    }
    this.diverged += count;
    complain(
      "diverged",
      `the routes to ${beacon.name} differ from what it claims, in ${count} of ${CLAIM_RANGES} ranges of node ids: these are reloaded`,
    );
    this.fallBehind(beacon, "diverged", nowMs, ranges);
  }

  /** Settles claims of a beacon without a number: other beacons may route to it already. */
  #contest({ name, claims: { nodeIds, timesMs } }: Changes): void {
    for (let i = 0; i < nodeIds.length; i++)
      this.parts.routes.contest(nodeIds[i]!, name, timesMs[i]!);
  }

  #otherAsks({ of, ranges }: Ask, nowMs: number): void {
    const beacon = this.beacons.get(of.name);
    if (beacon === undefined || !beacon.isBehind || (ranges & beacon.ranges) !== beacon.ranges)
      return;
    beacon.askAtMs = Math.max(beacon.askAtMs, nowMs + ASK_AGAIN_MS * (1 + this.parts.random() / 2));
  }

  #findDoubles(beacon: Followed, { beaconId }: Lease): void {
    const other =
      beaconId === this.parts.beaconId
        ? this.parts.name
        : [...this.beacons.values()].find(
            (one) => one !== beacon && one.lease?.beaconId === beaconId,
          )?.name;
    if (other === undefined) return;
    this.parts.complain(
      "double_id",
      `two beacons have the id ${beaconId}, ${other} and ${beacon.name}: give each its own --beacon-id`,
    );
  }

  #drop(beacon: Followed, why: string): void {
    this.beacons.delete(beacon.name);
    this.parts.left(beacon, why);
    this.parts.changed();
  }
}

export const doubleName = (name: string): string =>
  `two beacons say that they are at ${name}: give each its own --advertise-addr`;
