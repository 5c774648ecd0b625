/**
 * All that a schedule consists of, and how it goes on: beacons, their nodes, the server and the
 * connections to it.
 */
import { ASK, decodeEntry, LEASE } from "../../../../src/control/directory/entries.ts";
import { Beacon, INTERNAL_ERROR } from "./beacon.ts";
import type { Chance } from "./chance.ts";
import { SimulatedStore } from "./connection.ts";
import { Host } from "./host.ts";
import type { Plan } from "./plan.ts";
import { RealTables } from "./real-nodes.ts";
import { BEGAN_MS, LAG_MS_MAX, refusal, Server } from "./server.ts";
import { Timeline } from "./timeline.ts";
import { Watch } from "./watch.ts";

/**
 * Two Discovers of a node at two beacons are so far apart that their clocks tell which one was
 * later.
 */
const APART_MS = 150;
/** Connecting fails after so long where nobody answers. */
const CONNECT_MS = 5_000;
/** Clocks that differ by less are as equal as they get. */
const CLOCKS_APART_MS = 100;
const BAD_CLOCKS_APART_MS = 700;
const NOTE_CLOCKS_MS = 500;
/**
 * A beacon publishes a node that it saw, and reads what others published meanwhile, after so long
 * at the latest.
 */
const DATED_MS = 40_000;
const DAY_MS = 86_400_000;
/**
 * Memory of a server that has a limit: several times what a minute of the log takes in the calm.
 */
const BYTES_MAX = 150_000;
const BYTES_MAX_PER_BEACON = 40_000;
const JUNK_BYTES_MAX = 8_192;

/** A node, and where it was last heard. */
export interface Node {
  readonly id: number;
  last: { readonly beacon: Beacon; readonly atMs: number; isRemoved: boolean } | undefined;
  /**
   * Somebody who is no beacon claimed it; from so far ahead that beacons cannot agree when that
   * was.
   */
  isForged: boolean;
  isPoisoned: boolean;
  /**
   * Last seen by a beacon whose clock another's may contradict: only agreement on its place is
   * checked.
   */
  isUndated: boolean;
}

const bytesMaxOf = (beacons: number): number => BYTES_MAX + BYTES_MAX_PER_BEACON * beacons;

export class World {
  readonly timeline = new Timeline();
  readonly nodes: readonly Node[];
  readonly byId = new Map<number, Node>();
  readonly hosts: readonly Host[];
  /** Every process that there was. */
  readonly beacons: Beacon[] = [];
  readonly stores = new Set<SimulatedStore>();
  readonly counts = new Map<string, number>();
  readonly problems: string[] = [];
  server: Server;
  isServerUp = true;
  /** Whether a server that is down says so, or nothing. */
  isServerSilent = false;
  isCalm = false;
  hasMemoryLimit = false;
  readonly watch = new Watch(this);
  readonly realTables: RealTables | undefined;
  /** Nodes of all processes' that the thread of the real tables records. */
  readonly residents: number[] = [];
  /** A clock of the directory stepped: beacons may have dated claims by clocks that differ. */
  hasStepped = false;
  /** More names were written than beacons take. */
  isFlooded = false;
  /** Ids of nobody, for gossip that is wrong. */
  #gossiped = 0;

  constructor(
    readonly plan: Plan,
    readonly chance: Chance,
    nodeIds: readonly number[],
    readonly trace: (text: () => string) => void,
  ) {
    this.nodes = nodeIds.slice(0, plan.nodes).map((id) => {
      const node = { id, last: undefined, isForged: false, isPoisoned: false, isUndated: false };
      this.byId.set(id, node);
      return node;
    });
    this.hosts = Array.from({ length: plan.beacons }, (_, i) =>
      this.newHost(`b${i + 1}.example:9001`, i + 1),
    );
    this.realTables = plan.realNodes === undefined ? undefined : new RealTables();
    if (plan.realNodes === "with a thread") this.realTables?.startThread(chance.below(2 ** 31));
    this.server = this.emptied();
    this.server.idsAhead(plan.idsAheadMs);
  }

  get nowMs(): number {
    return this.timeline.nowMs;
  }

  /**
   * A clock stepped, or an entry says so: from now on it is noted which nodes were seen while
   * clocks differed.
   */
  stepped(): void {
    if (this.hasStepped) return;
    this.hasStepped = true;
    this.#noteClocks();
  }

  #noteClocks(): void {
    const sinceMs = this.nowMs - DATED_MS;
    if (!this.areClocksEqual)
      for (const node of this.nodes)
        node.isUndated ||= node.last !== undefined && node.last.atMs > sinceMs;
    this.timeline.after(NOTE_CLOCKS_MS, undefined, () => this.#noteClocks());
  }

  /** Whether all beacons would date a claim alike, as far as that is possible. */
  get areClocksEqual(): boolean {
    const times = this.live().map(({ clock }) => clock.nowMs());
    const apartMs = this.plan.hasBadClocks ? BAD_CLOCKS_APART_MS : CLOCKS_APART_MS;
    return Math.max(...times) - Math.min(...times) < apartMs;
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by);
  }

  problem(text: string): void {
    this.trace(() => `PROBLEM ${text}`);
    this.problems.push(text);
  }

  /** Those that run and are not about to end. */
  live(): Beacon[] {
    return this.beacons.filter((beacon) => !beacon.isOver && beacon.hasStopped === undefined);
  }

  awake(): Beacon[] {
    return this.beacons.filter((beacon) => beacon.isAwake);
  }

  newHost(name: string, beaconId: number, timeAheadMs = 0): Host {
    const { chance } = this;
    return new Host({
      ...{ name, beaconId, timeAheadMs },
      bootedMs: chance.scale(1, 1e10),
      drift: chance.between(-5e-5, 5e-5),
      wallMs: chance.between(-3, 3) * DAY_MS,
      thereShare: chance.pick([0, 0.5, 1]),
    });
  }

  clockError(): number {
    return this.chance.between(-this.plan.clockMs, this.plan.clockMs);
  }

  /**
   * @param restored nodes that the process begins with, and when they were heard, on the same host
   */
  start(host: Host, restored: ReadonlyMap<number, number> = new Map(), from?: Beacon): Beacon {
    const { plan, chance, timeline, trace } = this;
    const realTable = this.realTables?.take();
    const beacon = new Beacon({
      realTable,
      contended: () => this.count("node shard locked"),
      ...{ host, timeline, chance },
      leaseMs: plan.leaseMs,
      graceMs: plan.graceMs,
      keptNodesMax: plan.keptNodesMax,
      resolveMs: plan.resolveMs,
      sleepsLonger: () => (this.isCalm ? 12 : plan.sleepsLonger),
      isBusy: plan.isBusy,
      connect: (one, _, signal) => this.#connect(one, signal),
      speaksUp: (one, nodeId) => this.discover(this.byId.get(nodeId), one),
      gossip: (one, number) => this.#gossip(one, number),
      info: (one, message) => this.#informed(one, message),
      lost: (arrivals) => this.count("arrivals lost", arrivals),
      complained: (one, about, message) => this.#complained(one, about, message),
    });
    beacon.serial = this.beacons.push(beacon);
    this.residents.push(...beacon.nodes.residents);
    beacon.isDouble = this.live().some((other) => other !== beacon && other.name === beacon.name);
    for (const [id, heardMs] of restored) {
      beacon.nodes.restore(id, heardMs);
      const node = this.byId.get(id);
      // What was written before the node was last seen does not tell of that.
      const isLast =
        from !== undefined && node?.last?.beacon === from && from.nodes.heardMs(id) <= heardMs;
      if (isLast) node.last = { ...node.last!, beacon };
    }
    trace(() => `${beacon} starts with ${restored.size} nodes`);
    if (host.isSuspended) beacon.pause();
    timeline.happen(beacon, () => beacon.directory.start());
    this.realTables?.began();
    return beacon;
  }

  wakeUp(host: Host): void {
    if (!host.isSuspended) return;
    this.trace(() => `${host.name} is no longer suspended`);
    host.resume(this.nowMs);
    for (const beacon of this.beacons) if (beacon.parts.host === host) beacon.resume();
  }

  /**
   * From now on the server has a limit of memory, and other entries in its log have taken all of
   * it.
   */
  fill(): void {
    const { server, chance } = this;
    const limit = bytesMaxOf(this.plan.beacons);
    this.trace(() => `the server is filled up to ${limit} bytes`);
    this.hasMemoryLimit = true;
    server.maxBytes = limit;
    while (!server.isOutOfMemory) server.append(new Uint8Array(1 + chance.below(JUNK_BYTES_MAX)));
  }

  /** A limit leaves room for the processes that there are. */
  fitLimit(): void {
    if (this.hasMemoryLimit)
      this.server.maxBytes = Math.max(this.server.maxBytes, bytesMaxOf(this.live().length));
  }

  crash(beacon: Beacon): void {
    this.trace(() => `${beacon} crashes`);
    this.tally(beacon);
    beacon.crash();
    for (const store of this.stores) if (store.owner === beacon) this.cut(store);
  }

  /** @returns whether the node could be heard there now */
  discover(node: Node | undefined, beacon: Beacon): boolean {
    if (node === undefined || !beacon.isAwake || !this.#canTell(node, beacon)) return false;
    const isMove = node.last !== undefined && node.last.beacon !== beacon && !node.last.isRemoved;
    this.trace(() => `node ${node.id} is heard by ${beacon}`);
    this.count(isMove ? "moves" : beacon.nodes.heard.has(node.id) ? "refreshes" : "arrivals");
    node.last = { beacon, atMs: this.nowMs, isRemoved: false };
    node.isUndated = this.hasStepped && !this.areClocksEqual;
    beacon.nodes.hear(node.id, beacon.monotonicMs());
    return true;
  }

  /** A node expires or is disconnected. */
  remove(node: Node, beacon: Beacon): boolean {
    if (!beacon.isAwake || !beacon.nodes.heard.has(node.id)) return false;
    this.trace(() => `node ${node.id} is removed from ${beacon}`);
    if (!beacon.nodes.remove(node.id)) return false;
    if (node.last?.beacon === beacon) node.last.isRemoved = true;
    return true;
  }

  cut(store: SimulatedStore): void {
    if (store.isOver) return;
    const isLate = this.chance.is(0.5);
    this.trace(
      () =>
        `the connection of ${store.owner} is cut${isLate ? " after its calls took effect" : ""}`,
    );
    this.count(isLate ? "cut after the effect" : "cut before the effect");
    store.cut(isLate, this.chance.unit() * 40);
    this.stores.delete(store);
  }

  /** The server has another state from now on: connections to the one before end. */
  replaceServer(server: Server, cutWithinMs: number): void {
    const before = this.server;
    this.server = server;
    for (const store of this.stores)
      if (store.of === before)
        this.timeline.after(this.chance.unit() * cutWithinMs, undefined, () => this.cut(store));
  }

  fallenBack(): Server {
    return this.server.replica(this.chance.unit() * LAG_MS_MAX, this.clockError());
  }

  /** The server that comes after this one holds nothing. */
  emptied(): Server {
    const server = new Server(this.timeline, this.clockError(), (where, bytes) => {
      if (where === "log") this.watch.wrote(bytes);
      this.trace(() => `${where}: ${written(where, bytes)}`);
    });
    server.nodeBytes = this.plan.streamNodeBytes;
    if (this.hasMemoryLimit) server.maxBytes = this.server.maxBytes;
    return server;
  }

  /** What a beacon saw counts for the schedule. */
  tally(beacon: Beacon): void {
    if (beacon.isOver) return;
    const stats = beacon.directory.stats();
    for (const [reason, count] of Object.entries(stats.resyncs))
      this.count(`resync: ${reason}`, count);
    for (const [reason, count] of Object.entries(stats.failures))
      this.count(`failure: ${reason}`, count);
    this.count("snapshots written", stats.snapshotsWritten);
    this.count("snapshots loaded", stats.snapshotsLoaded);
    this.count("snapshots missing", stats.snapshotsMissing);
    this.count("snapshots malformed", stats.snapshotsMalformed);
    this.count("entries told", stats.entriesTold);
    this.count("entries heard", stats.entriesHeard);
    this.count("entries malformed", stats.entriesMalformed);
    this.count("entries stale", stats.entriesStale);
    this.count("claims heard", stats.claimsHeard);
    this.count("nodes lost", stats.nodesLost);
    this.count("nodes claimed again", stats.nodesClaimedAgain);
    this.count("claims from the future", stats.claimsFromFuture);
    this.count("beacons ignored", stats.beaconsIgnored);
  }

  #informed(beacon: Beacon, message: string): void {
    this.trace(() => `${beacon}: ${message}`);
    if (!message.includes("was not heard")) return;
    this.count("dropped");
    // Of one that it only found in the hash nothing is lost.
    const { table, peers } = beacon;
    const number = peers.names
      .map((name) => (message.includes(name) ? peers.numberOf(name) : undefined))
      .find((one) => one !== undefined);
    let routes = 0;
    table.visit(0, table.sweepSteps, (nodeId, peer) => {
      if (peer === number && this.byId.has(nodeId)) routes++;
    });
    if (this.plan.isServersOnly && routes > 0)
      this.problem(`${beacon} drops who is well: ${message}`);
  }

  #complained(beacon: Beacon, about: string, message: string): void {
    this.trace(() => `${beacon} complains (${about}): ${message}`);
    if (about === INTERNAL_ERROR) this.problem(`${beacon}: ${message}`);
  }

  #canTell(node: Node, beacon: Beacon): boolean {
    const { last } = node;
    if (this.plan.hasBadClocks && beacon.nodes.heard.has(node.id)) return false;
    if (last === undefined || last.beacon === beacon) return true;
    if (!this.plan.hasBadClocks) return this.nowMs - last.atMs >= APART_MS;
    // It has the very claim that the last beacon makes.
    const heardMs = last.beacon.nodes.heardMs(node.id);
    const claimedMs = heardMs < 0 ? -1 : last.beacon.clock.timeOf(heardMs);
    const number = beacon.peers.numberOf(last.beacon.name);
    return (
      last.beacon.isAwake &&
      number !== undefined &&
      beacon.table.find(node.id) === number &&
      beacon.table.claimedMs(node.id) === claimedMs
    );
  }

  #connect(beacon: Beacon, signal: AbortSignal): Promise<SimulatedStore> {
    const { timeline, chance, plan } = this;
    const isReachable = () => this.isServerUp && beacon.cutOffUntilMs <= this.nowMs;
    const isSilent = !isReachable() && (this.isServerSilent || chance.is(0.3));
    const { promise, resolve, reject } = Promise.withResolvers<SimulatedStore>();
    signal.addEventListener("abort", () => reject(refusal("unreachable", "this beacon ends")));
    timeline.after(isSilent ? CONNECT_MS : chance.unit() * 3 * plan.delays.usualMs, beacon, () => {
      if (signal.aborted) return;
      if (isSilent || !isReachable()) {
        reject(refusal("unreachable", "no connection"));
        return;
      }
      const { server } = this;
      const store = new SimulatedStore({
        ...{
          timeline,
          chance,
          owner: beacon,
          server,
          delays: plan.delays,
          monotonicMs: beacon.monotonicMs,
        },
        thereShare: plan.hasBadClocks ? beacon.parts.host.thereShare : undefined,
        timeAheadMs: beacon.parts.host.timeAheadMs,
        opened: (calls) => {
          beacon.open += calls;
        },
      });
      this.stores.add(store);
      void store.ended.then(() => this.stores.delete(store));
      this.count("connections");
      resolve(store);
    });
    return promise;
  }

  #gossip(beacon: Beacon, number: number): void {
    for (let i = this.chance.below(3); i > 0; i--) {
      this.count("gossiped routes");
      beacon.table.claim(-1 - (this.#gossiped++ % 40), number, beacon.clock.nowMs());
    }
  }
}

/** For the trace. */
function written(where: string, bytes: Uint8Array | undefined): string {
  const entry = bytes && where === "log" ? decodeEntry(bytes) : undefined;
  if (entry === undefined) return `${bytes?.length ?? "no"} bytes`;
  const said = `${entry.name} ${entry.epoch}`;
  if (entry.kind === ASK) return `${said} asks for ${entry.of.name} ${entry.of.epoch}`;
  if (entry.kind === LEASE)
    return `${said} lease ${entry.seq}, snapshot ${entry.snapshot?.seq ?? "none"}${entry.isLeaving ? ", leaves" : ""}`;
  const { nodeIds, timesMs } = entry.claims;
  const claims = Array.from(nodeIds, (id, i) => `${id}@${(timesMs[i]! - BEGAN_MS).toFixed(2)}`);
  return `${said} changes ${entry.seq}: ${claims.join(" ")}, gone ${entry.gone.join(" ")}`;
}
