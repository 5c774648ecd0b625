/**
 * The other beacons of the fleet as the directory's log tells of them, and what is to be done about each.
 *
 * What a beacon says holds at once, so that all beacons' changes hold in the order of the log. A beacon is *followed*: its changes are each
 * one more than the last. Or it is *behind*: something was missed, it began anew, or nobody heard of it before. Then its changes are also
 * kept, until a snapshot that they continue is loaded: what they say holds before what is in that.
 *
 * Nothing here waits or speaks to anybody: entries and the time come in, what is to be asked and loaded can be read.
 */
import { PEERS_MAX } from "../../shared/memory.ts";
import { UNMARKED } from "../../shared/routes.ts";
import { ASK, CHANGES, type Changes, type Entry, LEASE, type Lease, type SnapshotName } from "./entries.ts";
import type { Claimer, FleetRoutes } from "./fleet-routes.ts";

/** Why a snapshot is needed. */
export const RESYNC_REASONS = [
  "new",
  "restarted",
  "gap",
  "log_lost",
  "too_far_behind",
  "moved",
  "outbid",
] as const;
export type ResyncReason = (typeof RESYNC_REASONS)[number];

/** Changed nodes that are kept of a beacon that is behind, some 60 bytes each; more, and it needs a later snapshot. */
const KEPT_MAX = 65_536;
/** Those who miss the same ask within so long of each other, so that most hear another one's question first. */
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

export class Followed {
  number: number | undefined;
  mark = FIRST_MARK;
  seq = 0;
  /** Kept changes while it is behind; undefined while it is followed. */
  kept: Changes[] | undefined = [];
  #keptNodes = 0;
  /** The number of the last kept change that names a node. */
  readonly #lastOf = new Map<number, number>();
  /** The first change that a snapshot need not have, less 1; undefined while nothing told. */
  needed: number | undefined;
  /** What is to be loaded; whether it is being loaded. */
  wanted: SnapshotName | undefined;
  isLoading = false;
  askAtMs = 0;
  askAgainMs = ASK_AGAIN_MS;
  lease: Lease | undefined;
  /** When it said what was heard last, the directory's time. */
  saidMs = 0;
  /** Changes of an earlier start were ignored, which others may have applied: they may not know of the later one. */
  isContradicted = false;

  constructor(
    readonly name: string,
    public epoch: number,
    public heardMs: number,
  ) {}

  get isBehind(): boolean {
    return this.kept !== undefined;
  }

  get leaseMs(): number {
    return Math.min(Math.max(this.lease?.leaseMs ?? LEASE_MS_DEFAULT, LEASE_MS_MIN), LEASE_MS_MAX);
  }

  /** It is behind from now on. */
  fallBehind(nowMs: number, random: number): void {
    this.kept = [];
    this.#forgetKept();
    this.needed = undefined;
    this.wanted = undefined;
    this.askAtMs = nowMs + random * ASK_SPREAD_MS;
    this.askAgainMs = ASK_AGAIN_MS;
  }

  /** It is followed from the changes behind this number on. */
  follow(seq: number): void {
    this.seq = seq;
    this.kept = undefined;
    this.#forgetKept();
    this.wanted = undefined;
  }

  /** While it is behind: the number of the last change that there was; undefined while nothing told. */
  get last(): number | undefined {
    return this.kept!.at(-1)?.seq ?? this.needed;
  }

  /**
   * @param changes behind the last
   * @param max nodes to keep
   * @returns whether it was too much to keep
   */
  keep(changes: Changes, max: number): boolean {
    if (this.last !== changes.seq - 1) this.#begin(changes.seq - 1);
    this.kept!.push(changes);
    const { seq, claims, gone } = changes;
    for (const nodeId of claims.nodeIds) this.#lastOf.set(nodeId, seq);
    for (const nodeId of gone) this.#lastOf.set(nodeId, seq);
    this.#keptNodes += claims.nodeIds.length + gone.length + 1;
    if (this.#keptNodes <= max) return false;
    this.#begin(changes.seq);
    return true;
  }

  /** Its last change is of this number. */
  reached(seq: number): void {
    if (this.last === undefined || seq > this.last) this.#begin(seq);
  }

  /** The number of the last kept change that names a node; -1 if none does. */
  lastOf(nodeId: number): number {
    return this.#lastOf.get(nodeId) ?? -1;
  }

  /** A snapshot has to have all changes until this one. */
  #begin(needed: number): void {
    this.kept!.length = 0;
    this.#forgetKept();
    this.needed = needed;
  }

  #forgetKept(): void {
    this.#keptNodes = 0;
    this.#lastOf.clear();
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
  /** Somebody asks for this beacon's snapshot. */
  readonly asked: () => void;
  /** The log lost entries that this beacon did not read: claims to its nodes may have been among them. */
  readonly missed: () => void;
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
  readonly resyncs = Object.fromEntries(RESYNC_REASONS.map((reason) => [reason, 0])) as Record<
    ResyncReason,
    number
  >;
  /** Beacons beyond what there is room for; entries of a beacon's earlier starts. */
  ignored = 0;
  stale = 0;

  constructor(private readonly parts: FleetParts) {}

  /** What the log says. @param nowMs monotonic, as all times here */
  hear(entry: Entry, nowMs: number): void {
    const { name, heardOfSelf, asked } = this.parts;
    if (entry.kind === ASK) {
      if (entry.of.name === name) asked();
      else this.#otherAsks(entry.of.name, nowMs);
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

  /** A lease that was found in the directory, not heard: it tells who is there, not how far they are. */
  find(lease: Lease, nowMs: number): void {
    if (lease.name === this.parts.name || lease.isLeaving) return;
    const beacon = this.#beaconOf(lease, nowMs);
    if (beacon !== undefined) beacon.lease ??= lease;
  }

  /** A beacon was there a moment ago; whatever it says is new. */
  adopt(name: string, nowMs: number): void {
    if (name === this.parts.name || this.beacons.has(name) || this.beacons.size >= PEERS_MAX) return;
    this.beacons.set(name, new Followed(name, 0, nowMs));
  }

  /** Entries may be missing from here on: everybody is behind. */
  logLost(nowMs: number): void {
    for (const beacon of this.beacons.values()) this.fallBehind(beacon, "log_lost", nowMs);
  }

  fallBehind(beacon: Followed, reason: ResyncReason, nowMs: number): void {
    this.resyncs[reason]++;
    beacon.fallBehind(nowMs, this.parts.random());
  }

  /** Claims of a beacon lost to those of another one that is gone. */
  outlived(number: number, nowMs: number): void {
    for (const beacon of this.beacons.values())
      if (beacon.number === number) this.fallBehind(beacon, "outbid", nowMs);
  }

  /** Drops those whose lease is over. @param deadlineMs when that is */
  expire(nowMs: number, deadlineMs: (beacon: Followed) => number): void {
    for (const beacon of this.beacons.values()) {
      if (nowMs > deadlineMs(beacon)) this.#drop(beacon, "was not heard for its lease");
    }
  }

  /** Whose snapshots are to be asked for now; they count as asked. */
  toAsk(nowMs: number): readonly Followed[] {
    const asked: Followed[] = [];
    for (const beacon of this.beacons.values()) {
      const isUnderWay = beacon.wanted !== undefined || beacon.isLoading;
      if (!beacon.isBehind || isUnderWay || nowMs < beacon.askAtMs) continue;
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

  /** A kept change holds once more, now that a snapshot of before it was loaded: as far as none behind it names the same nodes. */
  applyAgain(beacon: Followed & Claimer, { seq, timeMs, claims, gone }: Changes): void {
    const { routes } = this.parts;
    for (const nodeId of gone) if (beacon.lastOf(nodeId) === seq) routes.withdraw(nodeId, beacon);
    for (const [i, nodeId] of claims.nodeIds.entries())
      if (beacon.lastOf(nodeId) === seq) routes.claim(nodeId, beacon, claims.timesMs[i]!, timeMs);
  }

  #apply(beacon: Followed, changes: Changes): void {
    const { routes, applied } = this.parts;
    const { nodeIds, timesMs } = changes.claims;
    applied(changes);
    if (beacon.number === undefined) {
      this.#contest(beacon, changes);
      return;
    }
    const claimer = beacon as Claimer;
    for (const nodeId of changes.gone) routes.gone(nodeId, claimer);
    for (let i = 0; i < nodeIds.length; i++) routes.claim(nodeIds[i]!, claimer, timesMs[i]!, changes.timeMs);
  }

  #beaconOf(entry: Entry, nowMs: number): Followed | undefined {
    let beacon = this.beacons.get(entry.name);
    if (beacon === undefined) {
      if (entry.kind === LEASE && entry.isLeaving) return undefined;
      if (this.beacons.size >= PEERS_MAX) {
        this.ignored++;
        // Others may have room for it, and believe its claims.
        if (entry.kind === CHANGES)
          this.#contest({ name: entry.name, number: undefined, isBehind: true }, entry);
        this.parts.complain(
          "beacons",
          `the directory names more than ${PEERS_MAX} beacons: ${entry.name} and others are left out`,
        );
        return undefined;
      }
      beacon = new Followed(entry.name, entry.epoch, nowMs);
      this.beacons.set(entry.name, beacon);
      this.fallBehind(beacon, "new", nowMs);
      this.parts.changed();
    } else if (entry.epoch < beacon.epoch) {
      this.stale++;
      if (entry.kind === LEASE) this.parts.complain("double_name", doubleName(entry.name));
      if (entry.kind === CHANGES) beacon.isContradicted = true;
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
      this.#skipped(beacon, nowMs);
    }
    if (changes.seq <= (beacon.last ?? -1)) return;
    this.#apply(beacon, changes);
    if (beacon.keep(changes, this.parts.keptNodesMax ?? KEPT_MAX)) this.resyncs.too_far_behind++;
    this.#want(beacon, beacon.wanted);
  }

  #hearLease(beacon: Followed, lease: Lease, nowMs: number): void {
    if (lease.isLeaving) {
      this.#drop(beacon, "left");
      return;
    }
    beacon.lease = lease;
    this.#findDoubles(beacon, lease);
    if (!beacon.isBehind) {
      if (lease.seq <= beacon.seq) return;
      this.#skipped(beacon, nowMs);
    }
    beacon.reached(lease.seq);
    this.#want(beacon, lease.snapshot);
  }

  /** Nothing can be routed to that beacon as yet; others may route to it what this one has: that is settled now. */
  #contest(
    beacon: Pick<Followed, "name" | "number" | "isBehind">,
    { claims: { nodeIds, timesMs }, gone }: Changes,
  ): void {
    const { routes } = this.parts;
    for (const nodeId of gone) routes.contestGone(nodeId, beacon);
    for (let i = 0; i < nodeIds.length; i++) routes.contest(nodeIds[i]!, beacon.name, timesMs[i]!);
  }

  #skipped(beacon: Followed, nowMs: number): void {
    this.fallBehind(beacon, "gap", nowMs);
    this.parts.missed();
  }

  /** A snapshot is loaded if what is kept continues it. */
  #want(beacon: Followed, snapshot: SnapshotName | undefined): void {
    beacon.wanted = snapshot !== undefined && snapshot.seq >= beacon.needed! ? snapshot : undefined;
  }

  #otherAsks(name: string, nowMs: number): void {
    const beacon = this.beacons.get(name);
    if (beacon === undefined || !beacon.isBehind) return;
    beacon.askAtMs = Math.max(beacon.askAtMs, nowMs + ASK_AGAIN_MS * (1 + this.parts.random() / 2));
  }

  #findDoubles(beacon: Followed, { beaconId }: Lease): void {
    const other =
      beaconId === this.parts.beaconId
        ? this.parts.name
        : [...this.beacons.values()].find((one) => one !== beacon && one.lease?.beaconId === beaconId)?.name;
    if (other === undefined) return;
    this.parts.complain(
      "double_id",
      `two beacons have the id ${beaconId}, ${other} and ${beacon.name}: give each its own --beacon-id`,
    );
  }

  #drop(beacon: Followed, why: string): void {
    this.beacons.delete(beacon.name);
    if (beacon.isContradicted) this.parts.missed();
    this.parts.left(beacon, why);
    this.parts.changed();
  }
}

export const doubleName = (name: string): string =>
  `two beacons say that they are at ${name}: give each its own --advertise-addr`;
