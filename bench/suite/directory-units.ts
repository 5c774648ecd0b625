/**
 * What each step of the route directory costs its server and a beacon's main thread, one by one: what a fleet of any size comes to is computed
 * from that (bench/report/directory-model.ts). The real store, entries, snapshots and routes; the beacon's side is this process.
 */
import { FleetClock } from "../../src/control/directory/clock.ts";
import { CHANGES, decodeEntry, encodeEntry } from "../../src/control/directory/entries.ts";
import { FleetRoutes } from "../../src/control/directory/fleet-routes.ts";
import {
  decodePart,
  encodePart,
  PART_BYTES_MAX,
  PART_NODES_MAX,
} from "../../src/control/directory/snapshots.ts";
import { connectStore, NO_ENTRY, type Store } from "../../src/control/directory/store.ts";
import { WaitingClaims } from "../../src/control/directory/waiting-claims.ts";
import { HASH_SECRET, MAIN_THREAD_LOCK, SharedMemory } from "../../src/shared/memory.ts";
import { NodeTable } from "../../src/shared/nodes.ts";
import { RouteTable } from "../../src/shared/routes.ts";
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

interface Use {
  readonly server: number;
  readonly beacon: number;
}

export async function measureUnits(_: FleetShape, options: BenchOptions, recorder: Recorder): Promise<void> {
  const { smoke, rounds } = options;
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
        recorder.figure({
          ...{ case: `CPU time, ${SIDES[side]}`, name, unit: "ns", better: "less" },
          values: measured[unit].map((use) => use[side]),
          params: { group: UNITS_GROUP, unit, side },
        });
    }
    bench.close();
  } finally {
    await server.stop();
  }
}

const connect = (server: DirectoryServer, prefix: string) =>
  connectStore({
    ...{ servers: [{ host: "127.0.0.1", port: server.port }], tls: false, ca: undefined },
    ...{ user: "", password: "", database: 0, prefix },
  });

class Units {
  readonly #routes: FleetRoutes;
  readonly #clock = new FleetClock(() => performance.now(), Date.now());
  readonly #claimer = { name: NAME, number: 1, mark: 1, waiting: new WaitingClaims() };
  #time = 0;

  constructor(
    private readonly server: DirectoryServer,
    private readonly store: Store,
  ) {
    const memory = new SharedMemory({ workers: 1, nodesMax: 100_000, routesMax: 1_000_000 });
    memory.words[HASH_SECRET] = 0x5ec2_e701;
    const nodes = new NodeTable(memory, MAIN_THREAD_LOCK);
    const table = new RouteTable(memory);
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
  async entries(count: number, changes: number): Promise<{ written: Use; oneByOne: Use; atOnce: Use }> {
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
    for (let i = 0; i < nodeIds.length; i++) this.#routes.claim(nodeIds[i]!, this.#claimer, timesMs[i]!);
  }
}

/** Ids all over, among some 900,000. */
const idOf = (i: number): number => (Math.imul(i % 900_000, 0x9e37_79b1) | 1) & 0x7fff_ffff;
