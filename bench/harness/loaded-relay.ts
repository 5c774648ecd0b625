/**
 * One relay of a round, the beacon or the reference in C: its process, the load on it, and what
 * that costs.
 */
import type { Stats } from "../../src/beacon.ts";
import { type Load, LoadGenerator } from "./load.ts";
import { LoadedTargets } from "./loaded.ts";
import { untilFollowing } from "./other-fleet.ts";
import { LOOPBACK, type Place } from "./place.ts";
import {
  beaconSources,
  startBeacon,
  startReference,
  startWatcher,
  statsOf,
  type Target,
} from "./targets.ts";
import { workersCpuNs } from "./usage.ts";

/** What is measured, and how it is set up. */
export interface Contender {
  /** Told apart by this from the others of its case. */
  readonly name: string;
  readonly program: "beacon" | "C";
  readonly load: Load;
  readonly offload: boolean;
  /** 1 unless given. */
  readonly workers?: number;
  /** The loopback interface unless given. */
  readonly place?: Place;
  /** The nodes are those of a peer beacon, at the sink. */
  readonly toPeer?: boolean;
  /** Root of the checkout that a beacon is run from; this one's unless given. */
  readonly root?: string;
  /** Further flags of the beacon. */
  readonly flags?: readonly string[];
  /** It has no limits; others have them on, and far away. */
  readonly unlimited?: boolean;
  /** As TargetOptions.env. */
  readonly env?: Readonly<Record<string, string>>;
  /** It is watched meanwhile, as by operators: see watcher.ts. */
  readonly watched?: boolean;
  /** It shares the directory of other beacons, whose routes it has: see other-fleet.ts. */
  readonly inDirectory?: boolean;
  /** What its workers use is counted by itself, too. */
  readonly countsWorkers?: boolean;
}

/**
 * The sink counts packets: no gossip shall reach it in the middle of a measurement. And it speaks
 * just once.
 */
const QUIET = ["--gossip-interval=1m", "--peer-timeout=1h"];
const NODES_MAX_DEFAULT = 500_000;
const REFERENCE_SLOTS_LOG2_MIN = 20;

/** From one request of a watcher to the next: more than operators and Prometheus make. */
const WATCHER_PAUSE_MS = 1000;

export class LoadedRelay extends LoadedTargets<LoadGenerator> {
  #batchesBefore: Batches | undefined;
  #watcher: Bun.Subprocess | undefined;
  #workersNs = 0;
  readonly #countsWorkers: boolean;

  private constructor(
    { name, countsWorkers = false }: Contender,
    readonly target: Target,
    generator: LoadGenerator,
  ) {
    super(name, [target], generator);
    this.#countsWorkers = countsWorkers;
  }

  /**
   * Starts the program and makes all nodes of the load known to it.
   * @param reference the compiled reference relay
   */
  static async start(contender: Contender, reference: string, batch: number): Promise<LoadedRelay> {
    const { load, offload, place = LOOPBACK, toPeer = false } = contender;
    const generator = new LoadGenerator(load, place);
    const target = await LoadedRelay.#startTarget(contender, reference, batch, generator.sinkPort);
    const relay = new LoadedRelay(contender, target, generator);
    try {
      generator.aim(target);
      if (toPeer) generator.announce();
      else generator.register();
      if (contender.inDirectory) await untilFollowing(target);
      if (contender.watched) relay.#watcher = await startWatcher(target, WATCHER_PAUSE_MS);
    } catch (error) {
      await relay.stop();
      throw new Error(
        `${contender.name}${offload ? ", offload" : ""}: ${error instanceof Error ? error.message : error}`,
      );
    }
    return relay;
  }

  static #startTarget(
    contender: Contender,
    reference: string,
    batch: number,
    sinkPort: number,
  ): Promise<Target> {
    const { program, load, offload, toPeer = false, root, flags = [] } = contender;
    const { workers = 1, place = LOOPBACK, unlimited = false, env = {} } = contender;
    const options = { offload, batch, workers, place, unlimited, env };
    if (program === "C") {
      const slotsLog2 = Math.ceil(Math.log2(2 * load.nodes));
      return startReference(reference, options, Math.max(slotsLog2, REFERENCE_SLOTS_LOG2_MIN));
    }
    const peers = toPeer ? [`--peers=127.0.0.1:${sinkPort}`, ...QUIET] : [];
    const nodesMax = Math.max(load.nodes, NODES_MAX_DEFAULT);
    return startBeacon(
      options,
      [...peers, `--max-nodes=${nodesMax}`, ...flags],
      beaconSources(root),
    );
  }

  override async stop(): Promise<void> {
    this.#watcher?.kill();
    await this.#watcher?.exited;
    await super.stop();
  }

  override slice(ns: number): void {
    const before = this.#countsWorkers ? workersCpuNs(this.target.pid) : 0;
    super.slice(ns);
    if (this.#countsWorkers) this.#workersNs += workersCpuNs(this.target.pid) - before;
  }

  get workersNsPerPacket(): number | undefined {
    return this.#countsWorkers ? this.#workersNs / this.handled : undefined;
  }

  override async begin(): Promise<void> {
    this.#batchesBefore = await readBatches(this.target.http);
  }

  /** With messages a receive call, which is what tells whether the beacon was the bottleneck. */
  override async show(): Promise<string> {
    const shown = await super.show();
    const [before, after] = [this.#batchesBefore, await readBatches(this.target.http)];
    if (before === undefined || after === undefined) return shown;
    const batch = (after.messages - before.messages) / (after.calls - before.calls);
    return `${shown}, batch ${batch.toFixed(1)}`;
  }
}

type Batches = Stats["workers"][number]["receiveBatch"];

/** @param http "" for a target that serves none */
async function readBatches(http: string): Promise<Batches | undefined> {
  if (http === "") return undefined;
  const stats = await statsOf({ http });
  return stats.workers[0]?.receiveBatch;
}
