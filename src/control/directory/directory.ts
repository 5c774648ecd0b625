/**
 * The route directory: what keeps the routes of a fleet of any size in step. This beacon writes what changes among its nodes into the log of
 * a Redis or Valkey server, and reads there what changes among the others'; who is behind loads a snapshot. docs/DIRECTORY.md tells it all.
 *
 * While the server is away, everything goes on with the routes that are known.
 */

import { PEERS_MAX } from "../../shared/memory.ts";
import { NO_MARK } from "../../shared/routes.ts";
import { Announcer, EPOCHS_PER_MS } from "./announcer.ts";
import { Condition } from "./condition.ts";
import { Contested } from "./contested.ts";
import { ASK, type Changes, decodeEntry, type Entry, encodeEntry, LEASE, type Lease } from "./entries.ts";
import { doubleName, Fleet, type Followed } from "./fleet.ts";
import { FleetRoutes } from "./fleet-routes.ts";
import { Histogram } from "./histogram.ts";
import type { DirectoryParts } from "./parts.ts";
import { Presence } from "./presence.ts";
import { SnapshotLoader } from "./snapshot-loader.ts";
import { SnapshotWriter } from "./snapshot-writer.ts";
import type { DirectoryStats } from "./stats.ts";
import type { LogEntry, Store } from "./store.ts";
import { StoreError } from "./store-error.ts";

/**
 * Between two looks for changes to tell, and between two reads of the log: a move is known everywhere within some 50 ms, and a beacon reads
 * fifty times a second, however many write. Without a pause, forty beacons that write twenty times a second each cost the server 4.6 times
 * as much (Redis 7.0, 2026-11).
 */
const TELL_MS = 20;
const READ_MS = 20;
/** The log holds what was written in so long: who was away for longer needs snapshots. */
const LOG_MS = 60_000;
/** Leases are renewed after this share of them, less up to a tenth. */
const RENEWALS = 3;
/** The server's time is asked so often at first, for a good answer. */
const CLOCK_SAMPLES = 3;
/** Between two tries to connect, at random up to: doubled each time. */
const RETRY_MS_MIN = 200;
const RETRY_MS_MAX = 2000;
/** What the server does not take (full, not allowed) is tried again after so long. */
const REFUSED_MS = 1000;
/** Readings begin more often than that: each waits for two seconds at most. */
const STILL_MS = 3000;
/** The same is logged at most this often. */
const SAID_MS = 60_000;
/** Who ends does not wait longer for the server to take its leave. */
const LEAVE_MS_MAX = 1000;
/** A lease that was renewed so many leases ago is nobody's; after as many more, its field is removed. */
const DEAD_LEASES = 3;
/** Fields of the hash that are looked at. */
const LEASES_MAX = 4 * PEERS_MAX;
/** How far the clocks of servers that take each other's place may be apart, and much more. */
const EPOCH_AHEAD_MS = 30 * 86_400_000;
/** A pause of the main thread while much is read or loaded, in which it serves others. */
const WORK_MS = 0.5;
const PAUSE_MS = 1;
/** Between two looks at what is less pressing: each wakes the thread. */
const LOOK_MS = 100;
/** Between two looks at nodes that gossip claims. */
const CONTESTED_MS = 1000;

export class Directory {
  readonly #announcer: Announcer;
  readonly #routes: FleetRoutes;
  readonly #fleet: Fleet;
  readonly #contested: Contested;
  readonly #writer: SnapshotWriter;
  readonly #loader: SnapshotLoader;
  readonly #lag = new Histogram();
  readonly #stopping = new AbortController();
  readonly #stopAsked: Promise<unknown>;
  readonly #condition: Condition;
  readonly #presence: Presence;
  #running: Promise<void> | undefined;
  /** Whether another process goes on in this one's place. */
  #isReplaced = false;
  #wasSilent = false;
  #hasToldPeers = false;
  #saidJoinedMs = Number.NEGATIVE_INFINITY;
  #store: Store | undefined;
  /** Why the connection ended, as long as that is not logged. */
  #lost: string | undefined;
  /** Where in the log this beacon is. */
  #readUntil: string | undefined;
  /** Entries that this beacon wrote since it began to read there, and those of them that it has read. */
  #ownWritten = 0;
  #ownHeard = 0;
  /** When this beacon is to begin anew; undefined: it is not. */
  #anewAtMs: number | undefined;
  #begunMs = Number.NEGATIVE_INFINITY;
  #renewAtMs = 0;
  #renewedEpoch = 0;
  /** Another process that has this beacon's name began later: it is the one; when it was heard. */
  #rivalHeardMs: number | undefined;
  #entriesTold = 0;
  #bytesTold = 0;
  #entriesHeard = 0;
  #bytesHeard = 0;
  #claimsHeard = 0;
  #goneHeard = 0;
  #malformed = 0;

  constructor(private readonly parts: DirectoryParts) {
    const { name, beaconId, table, own, clock, random, monotonicMs, complain } = parts;
    this.#condition = new Condition(monotonicMs, parts.leaseMs);
    this.#presence = new Presence(parts);
    const { signal } = this.#stopping;
    this.#stopAsked = new Promise((resolve) => signal.addEventListener("abort", resolve));
    const pause = this.#pause();
    this.#announcer = new Announcer({ name, table, own, clock, random });
    this.#routes = new FleetRoutes({
      ...{ table, own, clock, name, pause },
      claimedMs: (nodeId) => this.#announcer.claimedMs(nodeId),
      beaconAt: (number) => this.#beaconAt(number),
      claimAgain: (nodeId) => this.#announcer.changed(nodeId),
      outlived: (number) => this.#fleet.outlived(number, monotonicMs()),
    });
    this.#writer = new SnapshotWriter({ name, own, announcer: this.#announcer, clock, monotonicMs });
    this.#fleet = new Fleet({
      ...{ name, beaconId, routes: this.#routes, random, complain },
      heardOfSelf: (entry) => this.#heardOfSelf(entry),
      asked: () => this.#writer.ask(),
      missed: () => this.#missed(),
      applied: (changes) => this.#applied(changes),
      changed: () => this.#tellPeers(),
      left: (beacon, why) => this.#left(beacon, why),
    });
    this.#contested = new Contested({
      table,
      own,
      clock,
      claimAgain: (nodeId) => this.#announcer.changed(nodeId),
    });
    this.#loader = new SnapshotLoader({
      ...{ fleet: this.#fleet, routes: this.#routes, pause, monotonicMs },
      follow: (number) => parts.peers.follow(number),
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

  /** Gossip of a peer without the directory names a node that it did not name before. */
  claimedByGossip(nodeId: number): void {
    this.#contested.claimed(nodeId);
  }

  /** Withdraws all routes to a peer, whose number may be another's after that. */
  forget(number: number): Promise<void> {
    for (const beacon of this.#fleet.beacons.values()) {
      if (beacon.number !== number) continue;
      beacon.number = undefined;
      this.#fleet.fallBehind(beacon, "moved", this.parts.monotonicMs());
    }
    return this.#routes.sweep(number, NO_MARK);
  }

  /** Beacons whose routes another process handed over: they are good until it is told otherwise. */
  adopt(names: readonly string[]): void {
    for (const name of names) this.#fleet.adopt(name, this.parts.monotonicMs());
  }

  /** What an operator should know; undefined while all is well. */
  get remark(): string | undefined {
    return this.#condition.remark;
  }

  /** Why a node that is in the fleet may have no route here. */
  get hints(): readonly string[] {
    const behind = [...this.#fleet.beacons.values()].filter(({ kept }) => kept !== undefined).length;
    return [
      ...(this.remark === undefined ? [] : [this.remark]),
      ...(behind > 0 ? [`the routes to ${behind} beacons of the directory are not in step`] : []),
      ...(this.#routes.refused > 0 ? ["the directory names more nodes than --max-routes holds"] : []),
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
    const [announcer, routes, fleet, writer, loader] = [
      this.#announcer,
      this.#routes,
      this.#fleet,
      this.#writer,
      this.#loader,
    ];
    return {
      state: this.#condition.state,
      server: this.#store?.server ?? null,
      stateS: this.#condition.seconds,
      beacons: Array.from(fleet.beacons.values(), ({ name, number, lease, kept, heardMs }) => ({
        name,
        beaconId: lease?.beaconId ?? null,
        routes: number === undefined ? 0 : table.routesOf(number),
        state: number === undefined ? "no_address" : kept === undefined ? "following" : "behind",
        ageS: (nowMs - heardMs) / 1000,
      })),
      roundTripS: this.#store ? this.#store.roundTripMs / 1000 : null,
      entriesTold: this.#entriesTold,
      bytesTold: this.#bytesTold,
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
      claimsFromFuture: routes.fromFuture,
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
        const error = asStoreError(thrown);
        // Why a connection was closed is better told by the server when it is asked for another one.
        const isOnlyLost = store !== undefined && error.failure === "unreachable";
        this.#lost = isOnlyLost ? error.message : undefined;
        this.#failed(error, !isOnlyLost);
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
      this.#condition.entered(this.#rivalry);
      if (this.#lost !== undefined) this.parts.complain("directory_lost", `${this.#lost}; it is back`);
      this.#lost = undefined;
      this.#sayJoined(store);
      let reason: unknown; // the first: closing the connection ends the others
      const loops = [
        this.#tell(store, over.signal),
        this.#load(store, over.signal),
        this.#read(store, over.signal),
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
    this.parts.info(`directory: ${server} tells the routes of ${this.#fleet.beacons.size} other beacons`);
  }

  /** Tells what there is to tell, and takes leave. If the server does not take it, the others find out when the lease ends. */
  async #finish(store: Store, telling: Promise<void>): Promise<void> {
    const { name, sleep } = this.parts;
    const inTime = async (done: Promise<unknown>) => {
      const over = new AbortController();
      await Promise.race([done.catch(() => {}), sleep(LEAVE_MS_MAX, over.signal)]);
      over.abort(); // so that nothing is left that keeps the process
    };
    await inTime(telling);
    if (this.#isReplaced || this.#rivalHeardMs !== undefined) return;
    await inTime(this.#append(store, this.#lease(true)).then(() => store.removeBeacon(name)));
  }

  /** Finds out where in the log to begin, what time it is, and who is there. */
  async #join(store: Store): Promise<void> {
    const { clock } = this.parts;
    clock.forgetSamples();
    this.#ownHeard = 0;
    this.#ownWritten = 0;
    for (let i = 0; i < CLOCK_SAMPLES; i++) await this.#askTime(store);
    clock.adjust();
    const lastId = await store.lastId();
    const goesOn = this.#readUntil !== undefined && (await store.reachesBack(this.#readUntil));
    if (!goesOn) {
      if (this.#readUntil !== undefined) this.#loseLog();
      this.#readUntil = lastId;
      await this.#findBeacons(store);
    }
    if (!this.#hasToldPeers) this.#tellPeers();
    this.#announcer.start();
    this.#renewAtMs = 0;
  }

  /** Who is there. Not where the log goes on: it tells in its order, and of earlier starts, too. */
  async #findBeacons(store: Store): Promise<void> {
    const { clock, monotonicMs } = this.parts;
    const pause = this.#pause();
    for (const [name, bytes] of await store.beacons(LEASES_MAX, () => this.#tooManyLeases())) {
      await pause();
      const lease = this.#decode(bytes);
      if (lease?.kind !== LEASE || lease.name !== name) {
        this.#malformed++;
        continue;
      }
      if (name === this.parts.name) this.#announcer.outbid(lease.epoch);
      const ageMs = Math.abs(clock.nowMs() - lease.timeMs); // what is ahead is of a clock gone wrong
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
    this.parts.peers.setFleet([...this.#fleet.beacons.keys()]);
  }

  async #askTime(store: Store): Promise<void> {
    const { serverMs, roundTripMs } = await store.time();
    this.parts.clock.sample(serverMs, roundTripMs);
  }

  // What others say.

  async #read(store: Store, signal: AbortSignal): Promise<void> {
    const { sleep, monotonicMs } = this.parts;
    const pause = this.#pause();
    for (let beganMs = monotonicMs(), beforeMs = beganMs; !signal.aborted; beforeMs = beganMs) {
      beganMs = monotonicMs();
      const lacksOwn = this.#ownHeard < this.#ownWritten;
      const entries = await store.read(this.#readUntil!);
      if (entries.length === 0 && lacksOwn) await this.#readAnew(store);
      // This process stood still meanwhile, and what was dropped from the log it never reads.
      if (beganMs - beforeMs > STILL_MS && !(await store.reachesBack(this.#readUntil!))) this.#loseLog();
      for (const entry of entries) {
        this.#hear(entry);
        this.#readUntil = entry.id;
        await pause();
        if (signal.aborted) return;
      }
      if (entries.length > 0) await sleep(READ_MS, signal);
    }
  }

  /** The log has nothing behind where this beacon is, although it wrote there: it may have been emptied, or be another one whose ids are lower. */
  async #readAnew(store: Store): Promise<void> {
    this.#ownHeard = 0;
    this.#ownWritten = 0;
    const lastId = await store.lastId();
    if (compareIds(this.#readUntil!, lastId) <= 0) return; // what it wrote was dropped, or was read before it was known to be written
    this.#readUntil = lastId;
    this.#loseLog();
  }

  /** Entries may be missing. */
  #loseLog(): void {
    this.#fleet.logLost(this.parts.monotonicMs());
    this.#missed();
  }

  #hear({ bytes }: LogEntry): void {
    this.#entriesHeard++;
    this.#bytesHeard += bytes?.length ?? 0;
    const entry = bytes && this.#decode(bytes);
    if (entry === undefined) {
      this.#malformed++;
      this.parts.complain(
        "malformed",
        "the directory's log holds what no beacon of this version writes: see who else writes there, or give this fleet its own --directory-prefix",
      );
      return;
    }
    const nowMs = this.parts.monotonicMs();
    if (entry.kind !== ASK) this.#presence.goesOn(entry.timeMs);
    this.#fleet.hear(entry, nowMs);
    const number = this.#fleet.beacons.get(entry.name)?.number;
    if (number !== undefined) this.parts.peers.heard(number);
  }

  /** What is of no start that can have been: no start of the beacon's own could be later. */
  #decode(bytes: Uint8Array): Entry | undefined {
    const entry = decodeEntry(bytes);
    const latest = (this.parts.clock.nowMs() + EPOCH_AHEAD_MS) * EPOCHS_PER_MS;
    return entry === undefined || entry.epoch > latest ? undefined : entry;
  }

  #applied(changes: Changes): void {
    this.#claimsHeard += changes.claims.nodeIds.length;
    this.#goneHeard += changes.gone.length;
    this.#lag.add((this.parts.clock.nowMs() - changes.timeMs) / 1000);
  }

  #heardOfSelf({ epoch }: Entry): void {
    if (this.#announcer.wasMine(epoch)) this.#ownHeard++;
    if (this.#announcer.wasMine(epoch) || this.parts.isSilent?.()) return;
    this.parts.complain("double_name", doubleName(this.parts.name));
    if (epoch < this.#announcer.epoch) return; // that one finds out
    this.#announcer.outbid(epoch);
    this.#rivalHeardMs = this.parts.monotonicMs();
    this.#condition.entered(this.#rivalry);
  }

  /**
   * Another beacon may have claimed a node of this one's, and given it up again, and this one not know that the others dropped its claim:
   * it begins anew, with all that it has. Once, though many miss that something was missed.
   */
  #missed(): void {
    this.#anewAtMs ??= Math.max(this.parts.monotonicMs(), this.#begunMs + this.parts.leaseMs);
  }

  // What this beacon says.

  async #tell(store: Store, signal: AbortSignal): Promise<void> {
    const { sleep, monotonicMs } = this.parts;
    let writing: Promise<void> | undefined;
    let failed: unknown;
    for (; !signal.aborted && failed === undefined; await sleep(TELL_MS, signal)) {
      try {
        for (const { name, epoch } of this.#fleet.toAsk(monotonicMs()))
          await this.#append(store, {
            kind: ASK,
            name: this.parts.name,
            epoch: this.#announcer.epoch,
            of: { name, epoch },
          });
        if (!this.#maySpeak()) continue;
        if (this.#anewAtMs !== undefined && monotonicMs() >= this.#anewAtMs) this.#beginAnew();
        this.#gather();
        for (;;) {
          const changes = this.#announcer.next();
          if (changes === undefined) break;
          await this.#append(store, changes);
          this.#announcer.told(changes);
          if (signal.aborted) return;
        }
        if (writing === undefined && this.#writer.isAsked)
          writing = this.#writer
            .answer(store, signal)
            .catch((error: unknown) => this.#refused(error, (why) => (failed = why)))
            .finally(() => {
              writing = undefined;
              this.#renewAtMs = 0; // which tells of the snapshot
            });
        if (monotonicMs() >= this.#renewAtMs || this.#renewedEpoch !== this.#announcer.epoch)
          await this.#renew(store);
      } catch (error) {
        this.#refused(error, (why) => (failed = why));
        await sleep(REFUSED_MS, signal);
      }
    }
    await writing;
    if (failed !== undefined) throw failed;
  }

  /** What one call is refused, the next may not be. */
  #refused(error: unknown, end: (error: unknown) => void): void {
    if (!(error instanceof StoreError) || error.endsConnection) {
      end(error);
      return;
    }
    this.#failed(error);
  }

  async #append(store: Store, entry: Entry): Promise<void> {
    const bytes = encodeEntry(entry);
    await store.append(bytes, this.parts.clock.nowMs() - LOG_MS);
    this.#ownWritten++;
    this.#entriesTold++;
    this.#bytesTold += bytes.length;
    this.#condition.went(this.#rivalry);
  }

  async #renew(store: Store): Promise<void> {
    const { leaseMs, monotonicMs, random, name } = this.parts;
    this.#renewAtMs = monotonicMs() + (leaseMs / RENEWALS) * (1 - random() / 10);
    await this.#askTime(store);
    this.parts.clock.adjust();
    this.#renewedEpoch = this.#announcer.epoch;
    const lease = this.#lease(false);
    await this.#append(store, lease);
    await store.setBeacon(name, encodeEntry(lease));
  }

  #lease(isLeaving: boolean): Lease {
    const { name, beaconId, leaseMs, own, clock } = this.parts;
    const { epoch, seq } = this.#announcer;
    return {
      ...{
        kind: LEASE,
        name,
        epoch,
        seq,
        timeMs: clock.nowMs(),
        beaconId,
        nodes: own.size(),
        leaseMs,
        isLeaving,
      },
      snapshot: this.#writer.last,
    };
  }

  /** Whether no other process speaks in this beacon's name; if one did until now, this one begins anew. */
  #maySpeak(): boolean {
    const { isSilent, monotonicMs, leaseMs } = this.parts;
    if (isSilent?.()) {
      this.#wasSilent = true;
      return false;
    }
    const hasRival = this.#rivalHeardMs !== undefined;
    if (!hasRival && !this.#wasSilent) return true;
    // While the log is not read nobody is heard.
    const rivalMs = Math.max(this.#rivalHeardMs ?? 0, this.#presence.patientUntilMs);
    if (hasRival && !this.#wasSilent && monotonicMs() - rivalMs <= leaseMs) return false;
    this.#beginAnew();
    this.#condition.entered(this.#rivalry);
    return true;
  }

  /** Whoever follows this beacon loads a snapshot of it. */
  #beginAnew(): void {
    this.#announcer.restart();
    this.#anewAtMs = undefined;
    this.#begunMs = this.parts.monotonicMs();
    this.#renewAtMs = 0;
    this.#rivalHeardMs = undefined;
    this.#wasSilent = false;
  }

  // Who is there.

  async #load(store: Store, signal: AbortSignal): Promise<void> {
    for (; !signal.aborted; await this.parts.sleep(LOOK_MS, signal)) {
      for (;;) {
        const beacon = this.#fleet.toLoad();
        if (beacon === undefined || signal.aborted) break;
        try {
          await this.#loader.load(beacon as Followed & { number: number }, store);
        } catch (error) {
          if (!(error instanceof StoreError) || error.endsConnection) throw error;
          this.#failed(error);
          break;
        }
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
        if (monotonicMs() >= lookMs) {
          lookMs = monotonicMs() + CONTESTED_MS;
          this.#contested.look();
        }
        this.#number();
        this.#fleet.expire(monotonicMs(), (beacon) => this.#presence.deadlineMs(beacon));
      } catch (thrown) {
        this.#failed(asStoreError(thrown));
      }
    }
  }

  /** Takes the nodes that came. */
  #gather(): void {
    if (this.parts.drainArrivals((nodeId) => this.#announcer.changed(nodeId))) this.#announcer.restart();
  }

  /** Peers get their numbers when their names are resolved, and others when they move. */
  #number(): void {
    const { peers, monotonicMs } = this.parts;
    for (const [beacon, number] of this.#numbers()) {
      if (number === beacon.number) continue;
      const had = beacon.number;
      beacon.number = number;
      if (had === undefined) continue;
      peers.unfollow(had);
      void this.#routes.sweep(had, NO_MARK);
      this.#fleet.fallBehind(beacon, "moved", monotonicMs());
    }
  }

  /** Of several names for one place, that of the latest start has it: the others are the beacon's old ones, or wrong. */
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
    if (number === undefined) return;
    this.parts.peers.unfollow(number);
    void this.#routes.sweep(number, NO_MARK);
  }

  #beaconAt(number: number): Followed | undefined {
    for (const beacon of this.#fleet.beacons.values()) if (beacon.number === number) return beacon;
    return undefined;
  }

  #failed(error: StoreError, isToBeLogged = true): void {
    this.#condition.failed(error);
    if (!this.#hasToldPeers) this.#tellPeers();
    if (isToBeLogged)
      this.parts.complain(`directory_${error.failure}`, `${error.message}; routes stay as they are`);
  }

  /** Why this beacon must not speak; undefined if it may. */
  get #rivalry(): string | undefined {
    return this.#rivalHeardMs === undefined ? undefined : doubleName(this.parts.name);
  }

  #pause(): () => Promise<void> {
    const { monotonicMs, sleep } = this.parts;
    let restedMs = monotonicMs();
    return async () => {
      if (monotonicMs() - restedMs < WORK_MS) return;
      await sleep(PAUSE_MS);
      restedMs = monotonicMs();
    };
  }
}

/** What is no failure of the server's is a mistake of this program's: relays go on, and so does everything else after a new start. */
function asStoreError(thrown: unknown): StoreError {
  if (thrown instanceof StoreError) return thrown;
  const { stack, message } = thrown instanceof Error ? thrown : new Error(String(thrown));
  return new StoreError("malformed", `directory: an unexpected error, please report it: ${stack ?? message}`);
}

/** Orders ids of the log: "milliseconds-number". */
function compareIds(one: string, other: string): number {
  const [oneMs = 0, oneNumber = 0] = one.split("-").map(Number);
  const [otherMs = 0, otherNumber = 0] = other.split("-").map(Number);
  return oneMs - otherMs || oneNumber - otherNumber;
}
