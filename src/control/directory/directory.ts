/**
 * The route directory: what keeps the routes of a fleet of any size in step. This beacon writes
 * what changes among its nodes into the log of a Redis or Valkey server, and reads there what
 * changes among the others'; who is behind loads a snapshot. docs/DIRECTORY.md tells it all.
 *
 * While the server is away, everything goes on with the routes that are known.
 */

import { PEERS_MAX } from "../../shared/memory.ts";
import { NO_MARK } from "../../shared/routes-owner.ts";
import { Pacing, type Pause } from "../kit/pacing.ts";
import { Announcer } from "./announcer.ts";
import { Beat } from "./beat.ts";
import { AHEAD_MS_MAX } from "./clock.ts";
import { Condition } from "./condition.ts";
import { Contested } from "./contested.ts";
import {
  ASK,
  type Changes,
  decodeEntry,
  type Entry,
  EPOCHS_PER_MS,
  LEASE,
  type Lease,
} from "./entries.ts";
import { Fleet, type Followed } from "./fleet.ts";
import { FleetRoutes } from "./fleet-routes.ts";
import { Histogram } from "./histogram.ts";
import { LogHealth } from "./log-health.ts";
import { LogReader } from "./log-reader.ts";
import type { DirectoryParts } from "./parts.ts";
import { Presence } from "./presence.ts";
import { SnapshotLoader } from "./snapshot-loader.ts";
import { SnapshotWriter } from "./snapshot-writer.ts";
import type { DirectoryStats } from "./stats.ts";
import type { LogEntry, Store } from "./store.ts";
import { StoreError } from "./store-error.ts";
import { Teller } from "./teller.ts";

const DAY_MS = 86_400_000;
/** The server's time is asked so often for each connection: the quickest answer is the best. */
const CLOCK_SAMPLES = 3;
/** Between two tries to connect, at random up to: doubled each time. */
const RETRY_MS_MIN = 200;
const RETRY_MS_MAX = 2000;
/** The same is logged at most this often. */
const SAID_MS = 60_000;
/** Who ends does not wait longer for the server to take its leave. */
const LEAVE_MS_MAX = 1000;
/** Leases after which a silent beacon is gone; after as many more its field is removed. */
const DEAD_LEASES = 3;
/** Fields of the hash that are looked at. */
const LEASES_MAX = 4 * PEERS_MAX;
/**
 * Between two looks for changes to tell, and between two readings of the log: a move is known
 * everywhere within some 50 ms, and a beacon reads fifty times a second, however many write.
 * Without a pause, forty beacons that write twenty times a second each cost the server 4.6 times as
 * much (Redis 7.0, 2026-11).
 */
const BEAT_MS = 20;
/** Between two looks at what is less pressing: each wakes the thread. */
const LOOK_MS = 100;
/** Between two looks at nodes that gossip claims. */
const CONTESTED_MS = 1000;

const ALONE =
  "directory: no other beacon is in it, though --peers or the registry name some: compare the database number in --directory and --directory-prefix with theirs; are they up, and do they have --directory?";

export class Directory {
  readonly #announcer: Announcer;
  readonly #routes: FleetRoutes;
  readonly #fleet: Fleet;
  readonly #contested: Contested;
  readonly #writer: SnapshotWriter;
  readonly #loader: SnapshotLoader;
  readonly #teller: Teller;
  readonly #reader: LogReader;
  readonly #health: LogHealth;
  readonly #lag = new Histogram();
  readonly #pause: Pause;
  readonly #stopping = new AbortController();
  readonly #stopAsked: Promise<unknown>;
  readonly #condition: Condition;
  readonly #presence: Presence;
  #running: Promise<void> | undefined;
  /** Whether another process goes on in this one's place. */
  #isReplaced = false;
  #hasToldPeers = false;
  /** When another beacon was in the directory last, or that could not be known. */
  #inCompanyMs: number;
  /** Beacons came or went since. */
  #hasNewsOfPeers = false;
  #saidJoinedMs = Number.NEGATIVE_INFINITY;
  #store: Store | undefined;
  /** Why the connection ended, as long as that is not logged. */
  #lost: string | undefined;
  #entriesHeard = 0;
  #bytesHeard = 0;
  #claimsHeard = 0;
  #goneHeard = 0;
  #malformed = 0;
  /** Claims that were ahead of this beacon's clock, which followed. */
  #claimsFromFuture = 0;

  constructor(private readonly parts: DirectoryParts) {
    const { name, beaconId, table, own, clock, random, monotonicMs, complain } = parts;
    this.#condition = new Condition(monotonicMs, parts.leaseMs);
    this.#inCompanyMs = monotonicMs();
    this.#presence = new Presence(parts);
    this.#health = new LogHealth(parts);
    const { signal } = this.#stopping;
    this.#stopAsked = new Promise((resolve) => signal.addEventListener("abort", resolve));
    const pacing = new Pacing({ nowMs: monotonicMs, sleep: parts.sleep });
    this.#pause = pacing.pause();
    const beats = new Beat(BEAT_MS, parts.sleep);
    const beat = () => beats.next();
    const { published } = parts;
    this.#announcer = new Announcer({
      ...{ name, table, published, own, clock, random, monotonicMs, pause: pacing.pause() },
    });
    this.#routes = new FleetRoutes({
      ...{ table, own, name, pause: pacing.pause() },
      ownMs: (nodeId) => this.#announcer.ownMs(nodeId),
      publishedMs: (nodeId) => this.#announcer.publishedMs(nodeId),
      waiters: () => this.#fleet.waiters(),
      claimerAt: (number) => this.#fleet.claimerAt(number),
      claimAgain: (nodeId, afterMs) => this.#announcer.changed(nodeId, afterMs),
      tooManyWait: (claimer) => this.#fleet.tooManyWait(claimer),
    });
    this.#writer = new SnapshotWriter({
      ...{ name, published, announcer: this.#announcer, clock, pause: pacing.pause(), monotonicMs },
    });
    this.#fleet = new Fleet({
      ...{ name, beaconId, routes: this.#routes, random, complain },
      ...(parts.keptNodesMax !== undefined && { keptNodesMax: parts.keptNodesMax }),
      heardOfSelf: (entry) => this.#heardOfSelf(entry),
      asked: (ranges, asker) => this.#writer.ask(ranges, asker),
      applied: (changes) => this.#applied(changes),
      changed: () => {
        this.#hasNewsOfPeers = true;
      },
      left: (beacon, why) => this.#left(beacon, why),
    });
    this.#contested = new Contested({
      table,
      own,
      clock,
      claimAgain: (nodeId) => this.#announcer.changed(nodeId),
    });
    this.#loader = new SnapshotLoader({
      ...{ fleet: this.#fleet, routes: this.#routes, clock, pause: pacing.pause(), monotonicMs },
      follow: (number) => parts.peers.follow(number),
    });
    this.#teller = new Teller({
      ...{ beacon: parts, announcer: this.#announcer, writer: this.#writer, fleet: this.#fleet },
      ...{ condition: this.#condition, presence: this.#presence },
      ...{ beat, gather: () => this.#gather() },
      trimTo: () => this.#reader.trimTo,
      wrote: () => this.#reader.wrote(),
      failed: (error) => this.#failed(error),
    });
    this.#reader = new LogReader({
      ...{ monotonicMs, beat, pause: this.#pause },
      hear: (entry) => this.#hear(entry),
      skipped: () => this.#presence.missed(),
    });
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends it; says that this beacon leaves, unless another process goes on in its place. */
  async stop(isReplaced: boolean): Promise<void> {
    this.#isReplaced = isReplaced;
    this.#stopping.abort();
    await this.#running;
  }

  /** A node of this beacon's was removed. */
  nodeWent(nodeId: number): void {
    this.#announcer.changed(nodeId);
  }

  /** A node of this beacon's was heard in the moment in which it was to be given up. */
  nodeHeard(nodeId: number): void {
    this.#announcer.came(nodeId);
  }

  /** A gossip-only peer gets a node's route. @param isNew whether it did not name the node */
  claimedByGossip(nodeId: number, isNew: boolean): void {
    this.#routes.displace(nodeId);
    if (isNew) this.#contested.claimed(nodeId);
  }

  /** A route to such a peer was withdrawn. */
  withdrawnByGossip(nodeId: number): void {
    this.#routes.settle(nodeId);
  }

  /** Withdraws all routes to a peer, whose number may be another's after that. */
  forget(number: number): Promise<void> {
    for (const beacon of this.#fleet.beacons.values()) {
      if (beacon.number !== number) continue;
      beacon.number = undefined;
      this.#fleet.fallBehind(beacon, "moved", this.parts.monotonicMs());
    }
    return this.#sweep(number);
  }

  /** Beacons whose routes another process handed over: they are good until it is told otherwise. */
  adopt(names: readonly string[]): void {
    for (const name of names) this.#fleet.adopt(name, this.parts.monotonicMs());
  }

  /** What an operator should know; undefined while all is well. */
  get remark(): string | undefined {
    return this.#condition.remark ?? (this.#isAlone ? ALONE : undefined);
  }

  /** Whether there are peers, and none of them was in this directory for a lease's time. */
  get #isAlone(): boolean {
    const { leaseMs, peers, monotonicMs } = this.parts;
    return monotonicMs() - this.#inCompanyMs > leaseMs && peers.notFollowed() > 0;
  }

  /** Routes for which there was no room, since the start. */
  get routesRefused(): number {
    return this.#routes.refused;
  }

  /** Why a node that is in the fleet may have no route here. */
  get hints(): readonly string[] {
    const behind = [...this.#fleet.beacons.values()].filter(({ isBehind }) => isBehind).length;
    return [
      ...(this.remark === undefined ? [] : [this.remark]),
      ...(behind > 0 ? [`the routes to ${behind} beacons of the directory are not in step`] : []),
      ...(this.#routes.refused > 0
        ? ["the directory names more nodes than --max-routes holds"]
        : []),
    ];
  }

  /** Seconds since whoever claims a node has heard it, as far as that was told. */
  claimAgeS(nodeId: number): number {
    const { table, clock } = this.parts;
    return Math.max(0, clock.nowMs() - table.claimedMs(nodeId)) / 1000;
  }

  stats(): DirectoryStats {
    const { table, monotonicMs } = this.parts;
    const nowMs = monotonicMs();
    const [announcer, routes, fleet] = [this.#announcer, this.#routes, this.#fleet];
    const [teller, writer, loader, health] = [
      this.#teller,
      this.#writer,
      this.#loader,
      this.#health,
    ];
    return {
      state: this.#condition.state,
      server: this.#store?.server ?? null,
      stateS: this.#condition.seconds,
      beacons: Array.from(fleet.beacons.values(), ({ name, number, lease, isBehind, heardMs }) => ({
        name,
        beaconId: lease?.beaconId ?? null,
        nodes: lease?.nodes ?? null,
        routes: number === undefined ? 0 : table.routesOf(number),
        state: number === undefined ? "no_address" : isBehind ? "behind" : "following",
        ageS: (nowMs - heardMs) / 1000,
      })),
      roundTripS: this.#store ? this.#store.roundTripMs / 1000 : null,
      logEntries: health.size.entries ?? null,
      logBytes: health.size.bytes ?? null,
      logOldestS: health.oldestMs === undefined ? null : health.oldestMs / 1000,
      clockSteps: health.steps,
      entriesTold: teller.entries,
      bytesTold: teller.bytes,
      claimsTold: announcer.claimsTold,
      goneTold: announcer.goneTold,
      untold: announcer.untold,
      entriesHeard: this.#entriesHeard,
      bytesHeard: this.#bytesHeard,
      claimsHeard: this.#claimsHeard,
      goneHeard: this.#goneHeard,
      entriesMalformed: this.#malformed,
      entriesStale: fleet.stale,
      beaconsIgnored: fleet.ignored,
      snapshotsWritten: writer.written,
      snapshotBytesWritten: writer.bytesWritten,
      snapshotsLoaded: loader.loaded,
      snapshotBytesLoaded: loader.bytesLoaded,
      snapshotsMissing: loader.missing,
      snapshotsMalformed: loader.malformed,
      lastSnapshotWrittenS: writer.lastMs / 1000,
      lastSnapshotLoadedS: loader.lastMs / 1000,
      resyncs: { ...fleet.resyncs },
      lag: this.#lag.stats(),
      nodesLost: routes.lost,
      nodesClaimedAgain: routes.claimedAgain,
      claimsRefused: routes.refused,
      claimsFromFuture: this.#claimsFromFuture,
      diverged: fleet.diverged,
      isAlone: this.#isAlone,
      bytesPerRoute: table.bytesPerRoute,
      failures: { ...this.#condition.failures },
    };
  }

  // The connection.

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    const { sleep, random, connect } = this.parts;
    const ticking = this.#tick();
    for (let retryMs = RETRY_MS_MIN, first = 0; !signal.aborted; first++) {
      const beganMs = this.parts.monotonicMs();
      let store: Store | undefined;
      try {
        store = await connect(first, signal);
        await this.#use(store);
      } catch (thrown) {
        if (signal.aborted) break;
        if (!(thrown instanceof StoreError)) {
          this.#broke(thrown);
        } else {
          // Why a connection was closed is better told by the server when it is asked for another
          // one.
          const isOnlyLost = store !== undefined && thrown.failure === "unreachable";
          this.#lost = isOnlyLost ? thrown.message : undefined;
          this.#failed(thrown, !isOnlyLost);
        }
      }
      if (this.parts.monotonicMs() - beganMs > RETRY_MS_MAX) retryMs = RETRY_MS_MIN;
      await sleep(random() * retryMs, signal);
      retryMs = Math.min(2 * retryMs, RETRY_MS_MAX);
    }
    await ticking;
  }

  /** Until the connection ends. @throws StoreError, why it did */
  async #use(store: Store): Promise<void> {
    const { signal } = this.#stopping;
    if (signal.aborted) {
      store.close();
      return;
    }
    const over = new AbortController();
    let hasJoined = false;
    const end = () => {
      over.abort();
      if (!hasJoined) store.close(); // this beacon has said nothing yet
    };
    signal.addEventListener("abort", end);
    void store.ended.then(end);
    this.#store = store;
    try {
      const knewOthers = this.#fleet.beacons.size > 0;
      await this.#join(store);
      hasJoined = true;
      this.#presence.entered(knewOthers);
      this.#condition.entered(this.#teller.rivalry);
      if (this.#lost !== undefined)
        this.parts.complain("directory_lost", `${this.#lost}; it is back`);
      this.#lost = undefined;
      this.#sayJoined(store);
      let reason: unknown; // the first: closing the connection ends the others
      const loops = [
        this.#teller.tell(store, over.signal),
        this.#load(store, over.signal),
        this.#reader.read(store, over.signal),
      ].map((loop) => {
        const noted = loop.catch((error: unknown) => {
          reason ??= error;
        });
        return noted.finally(end);
      });
      await Promise.race([...loops, this.#stopAsked]);
      if (signal.aborted) await this.#finish(store, loops[0]!);
      store.close(); // which ends what is under way
      await Promise.all(loops);
      if (reason !== undefined && !signal.aborted) throw reason;
      if (!signal.aborted) throw await store.ended;
    } finally {
      over.abort();
      signal.removeEventListener("abort", end);
      store.close();
      this.#store = undefined;
    }
  }

  /** Not each time that a connection is lost and had again at once. */
  #sayJoined({ server }: Store): void {
    const nowMs = this.parts.monotonicMs();
    if (nowMs - this.#saidJoinedMs < SAID_MS) return;
    this.#saidJoinedMs = nowMs;
    this.parts.info(
      `directory: ${server} tells the routes of ${this.#fleet.beacons.size} other beacons`,
    );
  }

  /** Publishes what is pending, then leaves. If the server refuses, the lease expires. */
  async #finish(store: Store, telling: Promise<void>): Promise<void> {
    const { sleep } = this.parts;
    const inTime = async (done: Promise<unknown>) => {
      const over = new AbortController();
      await Promise.race([done.catch(() => {}), sleep(LEAVE_MS_MAX, over.signal)]);
      over.abort(); // so that nothing is left that keeps the process
    };
    await inTime(telling);
    if (this.#isReplaced || this.#teller.rivalry !== undefined) return;
    await inTime(this.#teller.leave(store));
  }

  /** Finds out where in the log to begin, what time it is, and who is there. */
  async #join(store: Store): Promise<void> {
    const last = await store.last();
    await this.#setClock(store, last);
    this.#health.forget(); // it may be another server
    if (!this.#reader.join(last)) await this.#findBeacons(store);
    if (!this.#hasToldPeers) this.#tellPeers();
    this.#teller.join();
  }

  /**
   * Sets the clock to the fleet's time: that of the log's last entry, and what has passed since on
   * the server's clock; or else the server's. Before what was written meanwhile is read: nodes of
   * this beacon's own are compared with its claims.
   */
  async #setClock(store: Store, { id, bytes }: LogEntry): Promise<void> {
    const { clock, monotonicMs } = this.parts;
    let [offsetMs, leastMs] = [0, Number.POSITIVE_INFINITY];
    for (let i = 0; i < CLOCK_SAMPLES; i++) {
      const sentMs = monotonicMs();
      const answerMs = await store.time();
      const tripMs = monotonicMs() - sentMs;
      if (tripMs < leastMs) [offsetMs, leastMs] = [answerMs - sentMs - tripMs / 2, tripMs];
    }
    const serverMs = monotonicMs() + offsetMs;
    const entry = bytes && decodeEntry(bytes);
    const sinceMs = Math.max(0, serverMs - Number.parseInt(id, 10));
    const passedMs = sinceMs > AHEAD_MS_MAX ? 0 : sinceMs; // else the server's clock was set
    const fleetMs = entry === undefined || entry.kind === ASK ? undefined : entry.timeMs + passedMs;
    if (clock.hasBegun) {
      // Half the round trip may be missing from each estimate: it must not add up with each.
      if (fleetMs !== undefined && !clock.isTooFarAhead(fleetMs))
        clock.raise(fleetMs - leastMs / 2);
      return;
    }
    if (fleetMs === undefined || Math.abs(fleetMs - serverMs) <= AHEAD_MS_MAX) {
      clock.begin(Math.max(serverMs, fleetMs ?? 0));
      return;
    }
    // The server's clock was wrong when the fleet began, or is now; or somebody forged the entry.
    const isFleets = await this.#isTimeOfMost(store, fleetMs);
    clock.begin(isFleets ? fleetMs : serverMs);
    if (isFleets === undefined) return;
    const days = Math.round((fleetMs - serverMs) / DAY_MS);
    this.parts.complain(
      "clock",
      `the directory's log is ${days} days off its server's clock, and ${isFleets ? "so are most leases: the fleet's time is kept" : "most leases are not: the log's last entry is ignored"}; set the server's clock by NTP`,
    );
  }

  /** Returns whether most leases are of about this time; undefined if there are none. */
  async #isTimeOfMost(store: Store, timeMs: number): Promise<boolean | undefined> {
    let [near, all] = [0, 0];
    for (const bytes of (await store.beacons(LEASES_MAX)).values()) {
      const lease = decodeEntry(bytes);
      if (lease?.kind !== LEASE) continue;
      all++;
      if (Math.abs(lease.timeMs - timeMs) <= AHEAD_MS_MAX) near++;
    }
    return all === 0 ? undefined : 2 * near > all;
  }

  /** Who is there. Not where the log goes on: it tells in its order, and of earlier starts, too. */
  async #findBeacons(store: Store): Promise<void> {
    const { clock, monotonicMs } = this.parts;
    for (const [name, bytes] of await store.beacons(LEASES_MAX, () => this.#tooManyLeases())) {
      await this.#pause();
      const lease = this.#decode(bytes);
      if (lease?.kind !== LEASE || lease.name !== name) {
        this.#malformed++;
        continue;
      }
      if (name === this.parts.name) this.#announcer.outbid(lease.epoch);
      const ageMs = clock.nowMs() - lease.timeMs; // below 0 if this clock is behind
      if (ageMs < lease.leaseMs * DEAD_LEASES) this.#fleet.find(lease, monotonicMs());
      else if (ageMs > 2 * lease.leaseMs * DEAD_LEASES) await store.removeBeacon(name);
    }
  }

  #tooManyLeases(): void {
    this.parts.complain(
      "leases",
      `the directory holds the leases of more than ${LEASES_MAX} beacons, some of which are not looked at: see who writes there`,
    );
  }

  #tellPeers(): void {
    this.#hasToldPeers = true;
    this.#hasNewsOfPeers = false;
    this.parts.peers.setFleet([...this.#fleet.beacons.keys()]);
  }

  // What others say.

  #hear({ id, bytes, extra }: LogEntry): void {
    this.#entriesHeard++;
    this.#bytesHeard += (bytes?.length ?? 0) + (extra?.length ?? 0);
    const entry = bytes && this.#decode(bytes, extra);
    if (entry === undefined) {
      this.#malformed++;
      this.parts.complain(
        "malformed",
        "the directory's log holds what no beacon of this version writes: see who else writes there, or give this fleet its own --directory-prefix",
      );
      return;
    }
    const nowMs = this.parts.monotonicMs();
    if (entry.kind !== ASK) {
      this.#followClock(entry);
      // A silent beacon's clock raises no other, and may stay ahead of all.
      this.#presence.goesOn(
        this.#teller.rivalry === undefined ? entry.timeMs : this.parts.clock.nowMs(),
      );
    }
    this.#health.heard(id, entry);
    this.#fleet.hear(entry, nowMs);
    const number = this.#fleet.beacons.get(entry.name)?.number;
    if (number !== undefined) this.parts.peers.heard(number);
  }

  #followClock(entry: Changes | Lease): void {
    if (entry.name === this.parts.name && this.#announcer.wasMine(entry.epoch)) return;
    const behindMs = this.parts.clock.raise(entry.timeMs);
    if (behindMs === 0) return;
    this.#claimsFromFuture++;
    this.parts.complain(
      "clock",
      `the clock of ${entry.name} is ${(behindMs / 1000).toFixed(1)} s ahead of this beacon's, which follows it: routes stay right; was a host suspended, or the directory's server set to another time?`,
    );
  }

  /** Decodes an entry; one with a time that no clock can have shown yet is malformed. */
  #decode(bytes: Uint8Array, extra?: Uint8Array): Entry | undefined {
    const { clock } = this.parts;
    const entry = decodeEntry(bytes, extra);
    const isAhead =
      entry !== undefined &&
      (clock.isTooFarAhead(entry.epoch / EPOCHS_PER_MS) ||
        (entry.kind !== ASK && clock.isTooFarAhead(entry.timeMs)));
    return isAhead ? undefined : entry;
  }

  #applied(changes: Changes): void {
    this.#claimsHeard += changes.claims.nodeIds.length;
    this.#goneHeard += changes.gone.length;
    this.#lag.add((this.parts.clock.nowMs() - changes.timeMs) / 1000);
  }

  #heardOfSelf({ epoch }: Entry): void {
    if (this.#announcer.wasMine(epoch)) this.#reader.heardOwn();
    else if (!this.parts.isSilent?.()) this.#teller.heardRival(epoch);
  }

  // Who is there.

  async #load(store: Store, signal: AbortSignal): Promise<void> {
    for (; !signal.aborted; await this.parts.sleep(LOOK_MS, signal)) {
      try {
        await this.#health.measure(store);
        for (;;) {
          const beacon = this.#fleet.toLoad();
          if (beacon === undefined || signal.aborted) break;
          await this.#loader.load(beacon as Followed & { number: number }, store);
        }
      } catch (error) {
        if (!(error instanceof StoreError) || error.endsConnection) throw error;
        this.#failed(error);
      }
    }
  }

  /** Also while there is no connection. */
  async #tick(): Promise<void> {
    const { signal } = this.#stopping;
    const { sleep, monotonicMs } = this.parts;
    for (let lookMs = 0; !signal.aborted; await sleep(LOOK_MS, signal)) {
      try {
        this.#gather();
        if (this.#fleet.beacons.size > 0 || this.#condition.state !== "ok")
          this.#inCompanyMs = monotonicMs();
        if (monotonicMs() >= lookMs) {
          lookMs = monotonicMs() + CONTESTED_MS;
          this.#contested.look();
          this.#announcer.roundOld();
          if (this.#isAlone) this.parts.complain("alone", ALONE);
        }
        // Not each time: a fleet of a hundred comes all at once.
        if (this.#hasNewsOfPeers) this.#tellPeers();
        this.#number();
        for (const beacon of this.#fleet.beacons.values())
          this.#teller.speakBehind(this.#presence.overMs(beacon));
        this.#fleet.expire(monotonicMs(), (beacon) => this.#presence.deadlineMs(beacon));
      } catch (thrown) {
        if (thrown instanceof StoreError) this.#failed(thrown);
        else this.#broke(thrown);
      }
    }
  }

  /** Takes the nodes that came. */
  #gather(): void {
    if (this.parts.drainArrivals((nodeId) => this.#announcer.came(nodeId)))
      this.#announcer.restart();
  }

  /** Peers get their numbers when their names are resolved, and others when they move. */
  #number(): void {
    const { monotonicMs } = this.parts;
    for (const [beacon, number] of this.#numbers()) {
      if (number === beacon.number) continue;
      const had = beacon.number;
      if (had === undefined) {
        beacon.numbered(number!);
        continue;
      }
      beacon.number = number;
      this.#withdraw(had);
      this.#fleet.fallBehind(beacon, "moved", monotonicMs());
    }
  }

  /** Of several names for one place, the latest start has it; the others are outdated. */
  #numbers(): ReadonlyMap<Followed, number | undefined> {
    const numbers = new Map<Followed, number | undefined>();
    const latest = new Map<number, Followed>();
    for (const beacon of this.#fleet.beacons.values()) {
      const number = this.parts.peers.numberOf(beacon.name);
      numbers.set(beacon, number);
      if (number === undefined) continue;
      const other = latest.get(number);
      if (other !== undefined) numbers.set(other.epoch > beacon.epoch ? beacon : other, undefined);
      if (other === undefined || other.epoch <= beacon.epoch) latest.set(number, beacon);
    }
    return numbers;
  }

  #left({ name, number }: Followed, why: string): void {
    this.parts.info(`directory: beacon ${name} ${why}, its routes are withdrawn`);
    if (number !== undefined) this.#withdraw(number);
  }

  #withdraw(number: number): void {
    this.parts.peers.unfollow(number);
    this.#sweep(number).catch((error: unknown) => this.#broke(error));
  }

  #sweep(number: number): Promise<void> {
    this.#gather(); // what came is dated by claims that are still known
    return this.#routes.sweep(number, NO_MARK);
  }

  /** Relays go on, and so does everything else once the directory is started anew. */
  #broke(error: unknown): void {
    this.#condition.broke(error);
    this.parts.internalError(error);
    this.#announcer.restart();
  }

  #failed(error: StoreError, isToBeLogged = true): void {
    this.#condition.failed(error);
    if (!this.#hasToldPeers) this.#tellPeers();
    if (isToBeLogged)
      this.parts.complain(
        `directory_${error.failure}`,
        `${error.message}; routes stay as they are`,
      );
  }
}
