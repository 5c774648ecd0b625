/**
 * What each step of the route directory costs its server and a beacon's main thread, one by one:
 * what a fleet of any size comes to is computed from that (bench/report/directory-model.ts). The
 * real store, entries, snapshots and routes; the beacon's side is this process.
 */
import { FleetClock } from "../../src/control/directory/clock.ts";
import {
  CHANGES,
  decodeEntry,
  encodeEntry,
  encodeExtra,
  LEASE,
  type Lease,
} from "../../src/control/directory/entries.ts";
import { FleetRoutes } from "../../src/control/directory/fleet-routes.ts";
import {
  decodePart,
  encodePart,
  PART_BYTES_MAX,
  PART_NODES_MAX,
} from "../../src/control/directory/snapshots.ts";
import { connectStore, NO_ENTRY, type Store } from "../../src/control/directory/store.ts";
import { WaitingClaims } from "../../src/control/directory/waiting-claims.ts";
import { ClaimSums, differingRanges } from "../../src/shared/claim-digest.ts";
import {
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  PEER_PLACES,
  SharedMemory,
} from "../../src/shared/memory.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { RouteTableOwner } from "../../src/shared/routes-owner.ts";
import { DirectoryServer } from "../harness/directory-server.ts";
import type { FleetShape } from "../harness/fleet.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";
import { cpuNs } from "../harness/usage.ts";

const ENTRIES = 20_000;
const ENTRIES_SMOKE = 500;
/** Changes of an entry: two sizes, whose difference is what a change costs. */
const FEW = 2;
const MANY = 202;
const PARTS = 64;
const PARTS_SMOKE = 2;
const NAME = "b1.example:9001";

/** Figures by the names that the model knows them by. */
export const UNITS = {
  write: "an entry written",
  read: "a read of one entry",
  entry: "an entry of 2 changes, of many read at once",
  change: "a change more in an entry",
  snapshotWritten: "a node in a snapshot written",
  snapshotLoaded: "a node in a snapshot loaded",
} as const;
export const SIDES = { server: "server", beacon: "beacon's main thread" } as const;
export const UNITS_GROUP = "directory units";

/**
 * The cost of comparing sums is stated for this fleet: each beacon applies these moves and reads
 * all leases.
 */
const SUMS_NODES = 100_000;
const SUMS_MOVES_PER_S = 200;
/**
 * Most sums that one move changes in one beacon: claim, waiting claim and withdrawal, each added or
 * removed once.
 */
const UPDATES_PER_MOVE = 4;
/** `--directory-lease` is 10 s, and a beacon renews three times in it. */
const RENEWALS_PER_S = 3 / 10;
const SUMS_BAR_PERCENT = 0.3;

interface Use {
  readonly server: number;
  readonly beacon: number;
}

export async function measureUnits(
  { beacons }: FleetShape,
  options: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  const { smoke, rounds } = options;
  measureSums(beacons, options, recorder);
  const [entries, parts] = smoke ? [ENTRIES_SMOKE, PARTS_SMOKE] : [ENTRIES, PARTS];
  const server = await DirectoryServer.prepare();
  await server.start();
  try {
    const bench = new Units(server, await connect(server, "units"));
    const measured: Record<keyof typeof UNITS, Use[]> = {
      ...{ write: [], read: [], entry: [], change: [] },
      ...{ snapshotWritten: [], snapshotLoaded: [] },
    };
    await bench.entries(entries / 4, MANY); // compiled code
    await bench.snapshots(1);
    for (let round = 0; round < rounds; round++) {
      const few = await bench.entries(entries, FEW);
      const many = await bench.entries(entries, MANY);
      const change = (of: keyof Use) => (many.atOnce[of] - few.atOnce[of]) / (MANY - FEW);
      measured.write.push(few.written);
      measured.read.push(few.oneByOne);
      measured.entry.push(few.atOnce);
      measured.change.push({ server: change("server"), beacon: change("beacon") });
      const { written, loaded } = await bench.snapshots(parts);
      measured.snapshotWritten.push(written);
      measured.snapshotLoaded.push(loaded);
    }
    for (const [unit, name] of Object.entries(UNITS) as [keyof typeof UNITS, string][]) {
      for (const side of ["server", "beacon"] as const)
        recorder.of(`CPU time, ${SIDES[side]}`, { group: UNITS_GROUP, unit, side })(
          name,
          "ns",
          measured[unit].map((use) => use[side]),
        );
    }
    bench.close();
  } finally {
    await server.stop();
  }
}

/** What keeping and comparing sums of claims costs a beacon, by itself: no server takes part. */
function measureSums(beacons: number, { smoke, rounds }: BenchOptions, recorder: Recorder): void {
  const nodes = smoke ? SUMS_NODES / 100 : SUMS_NODES;
  const [updates, leases, shares]: [number[], number[], number[]] = [[], [], []];
  updateNs(nodes); // compiled code
  leaseNs(nodes / 10);
  for (let round = 0; round < rounds; round++) {
    const [update, lease] = [updateNs(nodes), leaseNs(nodes / 10)];
    updates.push(update);
    leases.push(lease);
    const perS = SUMS_MOVES_PER_S * UPDATES_PER_MOVE * update + beacons * RENEWALS_PER_S * lease;
    shares.push((100 * perS) / 1e9);
  }
  const params = {
    group: "directory sums",
    beacons,
    nodes: SUMS_NODES,
    movesPerS: SUMS_MOVES_PER_S,
  };
  const figure = recorder.of("sums of claims, beacon's main thread", params);
  figure("a claim added or removed", "ns", updates);
  figure("a lease's sums written, read and compared", "ns", leases);
  const share = `${SUMS_NODES} nodes, ${SUMS_MOVES_PER_S} moves a second`;
  figure(share, "% of a core", shares, { bar: { atMost: SUMS_BAR_PERCENT } });
}

/** CPU time of one update of a sum: each claim of these nodes moves to the next peer. */
function updateNs(nodes: number): number {
  const sums = new ClaimSums(PEER_PLACES);
  const began = cpuNs(process.pid);
  for (let i = 0; i < nodes; i++) {
    const [peer, next] = [i % PEER_PLACES, (i + 1) % PEER_PLACES];
    sums.remove(idOf(i), 1000 * i, peer);
    sums.add(idOf(i), 1000 * (i + 1), next);
  }
  return (cpuNs(process.pid) - began) / (2 * nodes);
}

/** CPU time that a lease takes with sums, less that of one without. */
function leaseNs(count: number): number {
  const [some, others] = [new ClaimSums(), new ClaimSums()];
  for (let i = 0; i < SUMS_NODES / 10; i++) some.add(idOf(i), 1000 * i);
  const through = (sums: Int32Array | undefined): number => {
    const began = cpuNs(process.pid);
    for (let seq = 1; seq <= count; seq++) {
      const lease: Lease = {
        ...{
          kind: LEASE,
          name: NAME,
          epoch: 1,
          seq,
          timeMs: 0,
          beaconId: 1,
          nodes: 1,
          leaseMs: 10_000,
        },
        ...{ isLeaving: false, snapshot: undefined, ranged: undefined, sums },
      };
      const read = decodeEntry(encodeEntry(lease), encodeExtra(lease));
      if (read?.kind !== LEASE) throw new Error("not what was written");
      if (read.sums !== undefined && differingRanges(read.sums, some.row(), others.row()) !== 0)
        throw new Error("equal claims have other sums");
    }
    return (cpuNs(process.pid) - began) / count;
  };
  return through(some.row()) - through(undefined);
}

const connect = (server: DirectoryServer, prefix: string) =>
  connectStore({
    ...{ servers: [{ host: "127.0.0.1", port: server.port }], tls: false, ca: undefined },
    ...{ user: "", password: "", database: 0, prefix },
  });

class Units {
  readonly #routes: FleetRoutes;
  readonly #clock = new FleetClock(() => performance.now(), Date.now());
  readonly #claimer = {
    name: NAME,
    number: 1,
    mark: 1,
    incomplete: 0,
    waiting: new WaitingClaims(),
  };
  #time = 0;

  constructor(
    private readonly server: DirectoryServer,
    private readonly store: Store,
  ) {
    const memory = new SharedMemory({ workers: 1, nodesMax: 100_000, routesMax: 1_000_000 });
    memory.words[HASH_SECRET] = 0x5ec2_e701;
    const nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
    const table = new RouteTableOwner(memory);
    table.keepClaims();
    this.#routes = new FleetRoutes({
      ...{ table, name: "b0.example:9001" },
      own: {
        size: () => 0,
        heardMs: (nodeId) => nodes.heardMs(nodeId),
        giveUp: () => false,
        scan: async () => true,
      },
      ownMs: (nodeId) => nodes.heardMs(nodeId),
      publishedMs: () => -1,
      claimerAt: (number) => (number === this.#claimer.number ? this.#claimer : undefined),
      waiters: () => [],
      claimAgain: () => {},
      tooManyWait: () => {},
      pause: async () => {},
    });
  }

  close(): void {
    this.store.close();
  }

  /** Per entry. */
  async entries(
    count: number,
    changes: number,
  ): Promise<{ written: Use; oneByOne: Use; atOnce: Use }> {
    const { id: first } = await this.store.last();
    const written = await this.#use(count, async () => {
      for (let seq = 1; seq <= count; seq++) await this.#append(seq, changes);
    });
    const atOnce = await this.#use(count, async () => {
      for (let at = first, read = 0; read < count; ) {
        const entries = await this.store.read(at);
        for (const { id, bytes } of entries) {
          this.#apply(bytes!);
          at = id;
        }
        read += entries.length;
      }
    });
    const { id: last } = await this.store.last();
    const reads = Math.ceil(count / 10);
    const oneByOne = await this.#use(reads, async () => {
      let at = last;
      for (let read = 0; read < reads; read++) {
        await this.#append(read, FEW);
        const [entry] = await this.store.read(at);
        this.#apply(entry!.bytes!);
        at = entry!.id;
      }
    });
    await this.store.trim((await this.store.last()).id);
    const less = (of: keyof Use) => oneByOne[of] - written[of];
    return { written, atOnce, oneByOne: { server: less("server"), beacon: less("beacon") } };
  }

  #append(seq: number, changes: number): Promise<void> {
    return this.store.append(this.#entry(seq, changes), { trimTo: NO_ENTRY.id });
  }

  /** Per node. */
  async snapshots(parts: number): Promise<{ written: Use; loaded: Use }> {
    const head = { epoch: 1, seq: 1, parts, timeMs: this.#clock.nowMs() };
    const nodeIds = new Int32Array(PART_NODES_MAX);
    const timesMs = new Float64Array(PART_NODES_MAX).fill(head.timeMs - 5);
    const written = await this.#use(parts * PART_NODES_MAX, async () => {
      for (let part = 0; part < parts; part++) {
        for (let i = 0; i < PART_NODES_MAX; i++) nodeIds[i] = idOf(part * PART_NODES_MAX + i);
        await this.store.putPart(
          `${NAME}:${part}`,
          encodePart({ ...head, part }, { nodeIds, timesMs }),
          60_000,
        );
      }
    });
    const loaded = await this.#use(parts * PART_NODES_MAX, async () => {
      for (let part = 0; part < parts; part++) {
        const bytes = await this.store.getPart(`${NAME}:${part}`, PART_BYTES_MAX);
        const decoded = decodePart(bytes!, { ...head, part })!;
        for (let i = 0; i < decoded.nodes; i++)
          this.#routes.claim(decoded.nodeId(i), this.#claimer, decoded.claimedMs(i));
      }
    });
    return { written, loaded };
  }

  /** CPU time for each of so many, ns. */
  async #use(count: number, act: () => Promise<void>): Promise<Use> {
    const before = { server: cpuNs(this.server.pid), beacon: cpuNs(process.pid) };
    await act();
    return {
      server: (cpuNs(this.server.pid) - before.server) / count,
      beacon: (cpuNs(process.pid) - before.beacon) / count,
    };
  }

  /** Half of what changes comes, and half is gone. */
  #entry(seq: number, changes: number): Uint8Array {
    const ids = Array.from({ length: changes / 2 }, () => idOf(this.#time++));
    const timeMs = this.#clock.nowMs();
    return encodeEntry({
      ...{ kind: CHANGES, name: NAME, epoch: 1, seq, timeMs },
      claims: { nodeIds: Int32Array.from(ids), timesMs: Float64Array.from(ids, () => timeMs) },
      gone: Int32Array.from(ids, (id) => id ^ 0x2000_0000),
    });
  }

  #apply(bytes: Uint8Array): void {
    const entry = decodeEntry(bytes);
    if (entry?.kind !== CHANGES) throw new Error("not what was written");
    const { nodeIds, timesMs } = entry.claims;
    for (const nodeId of entry.gone) this.#routes.withdraw(nodeId, this.#claimer);
    for (let i = 0; i < nodeIds.length; i++)
      this.#routes.claim(nodeIds[i]!, this.#claimer, timesMs[i]!);
  }
}

/** Ids all over, among some 900,000. */
const idOf = (i: number): number => (Math.imul(i % 900_000, 0x9e37_79b1) | 1) & 0x7fff_ffff;
