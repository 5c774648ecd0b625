/** The node table: expiry, the list of nodes, and the file that keeps them across restarts. */
import { REFUSAL_REASONS, REFUSED_AT } from "../../shared/counters.ts";
import { CLOCK_S, type SharedMemory } from "../../shared/memory.ts";
import type { AnyFeature, Host, Service } from "../feature.ts";
import { number, optional, type StatsOf } from "../kit/schema.ts";
import { ThrottledLog } from "../kit/throttled-log.ts";
import { limits } from "../limits/feature.ts";
import { sockets } from "../sockets/feature.ts";
import { Reaper } from "./expiry.ts";
import { FullTable } from "./full-table.ts";
import { NodeSections } from "./hand-over.ts";
import { NodeList } from "./list.ts";
import { type NodesConfig, nodesOptions } from "./options.ts";
import { ENTRY_SEEN_S } from "./scan.ts";
import { StateKeeper } from "./state-keeper.ts";
import { checkStatePath } from "./state-path.ts";
import { ThreadFiles } from "./thread-files.ts";

type NodesHost = Host<NodesConfig>;

const stats = {
  nodes: number,
  nodesMax: number,
  /** When the state file was last saved, in Unix seconds; null if it was not. */
  stateSavedS: optional,
};

export class Nodes implements Service {
  readonly list: NodeList;
  /** Entries of the table that are no nodes. */
  hidden: () => number = () => 0;
  readonly reaper: Reaper;
  readonly handOver = new NodeSections(this);
  readonly #beganMs = performance.now();
  #removedBefore: ((nodeId: number) => void) | undefined;
  readonly #full: FullTable;

  constructor(
    readonly host: NodesHost,
    readonly state: StateKeeper | undefined,
  ) {
    const { memory, nodes, config, log } = host;
    this.reaper = new Reaper(memory, nodes, config.nodeTtlMs);
    this.list = new NodeList(memory, nodes);
    this.#full = new FullTable(
      {
        name: "node table",
        entries: "registrations",
        option: `--max-nodes (${config.maxNodes})`,
        refused: () => refusedNodes(memory),
      },
      new ThrottledLog(log),
    );
  }

  /** Whether a node may be at an endpoint. */
  accepts(endpoint: Int32Array): boolean {
    const { host } = this;
    return host.use(sockets).reaches(endpoint) && !host.use(limits).isDenied(endpoint);
  }

  /** The number of a local address, 0 if packets cannot leave from it. */
  localNumber(address: Int32Array): number {
    return this.host.use(sockets).sources.adopt(address);
  }

  translateLocal(endpoint: Int32Array): void {
    this.host.use(sockets).translateLocal(endpoint);
  }

  /** Seconds since the node of an entry of scanNodes was last seen. */
  ageS(entry: Int32Array): number {
    return Math.max(0, this.host.memory.words[CLOCK_S]! - entry[ENTRY_SEEN_S]!);
  }

  /** Sets the clock that nodes are dated by. @returns its second */
  setClock(): number {
    const nowS = 1 + Math.floor((performance.now() - this.#beganMs) / 1000);
    Atomics.store(this.host.memory.words, CLOCK_S, nowS);
    return nowS;
  }

  async restore(isWhole: boolean): Promise<void> {
    const { predecessor } = this.host;
    if (predecessor) this.state?.adopt(predecessor.maySave);
    // What the old process had no time to send may be in the file.
    if (isWhole) return;
    await this.state?.load({
      accepts: (endpoint) => this.accepts(endpoint),
      localNumber: (address) => this.localNumber(address),
    });
  }

  start(): void {
    const { noRoom } = this.handOver;
    if (noRoom > 0)
      this.host.log.warn(`${noRoom} nodes of the old process found no room: see --max-nodes`);
    this.state?.start();
  }

  tick(): void {
    this.reaper.tick(performance.now() - this.#beganMs);
    this.#full.tick();
  }

  /** Holds removals: the successor would keep such a node, and owns the state file now. */
  async hold(): Promise<void> {
    this.reaper.isPaused = true;
    const { nodes } = this.host;
    this.#removedBefore = nodes.removed;
    nodes.removed = (nodeId) => {
      this.#removedBefore?.(nodeId);
      this.handOver.wasRemoved(nodeId);
    };
    this.handOver.begin();
    await this.state?.hold();
  }

  resume(): void {
    this.reaper.isPaused = false;
    this.host.nodes.removed = this.#removedBefore;
    this.handOver.end();
    this.state?.release();
  }

  async stop(): Promise<void> {
    await this.state?.stop();
  }

  stats(): StatsOf<typeof stats> {
    const { nodes, config } = this.host;
    return {
      nodes: nodes.size() - this.hidden(),
      nodesMax: config.maxNodes,
      stateSavedS: this.state?.savedS ?? null,
    };
  }

  warnings(): readonly string[] {
    return [this.#full.warning, this.state?.problem].filter((warning) => warning !== undefined);
  }
}

function refusedNodes(memory: SharedMemory): number {
  const workers = Array.from({ length: memory.shape.workers }, (_, worker) =>
    memory.counterRow(worker),
  );
  const columns = (["node_limit", "shard_full"] as const).map(
    (reason) => REFUSED_AT + REFUSAL_REASONS.indexOf(reason),
  );
  return [...workers, memory.bridgeRow, memory.grantsRow]
    .flatMap((row) => columns.map((column) => memory.counters[row + column]!))
    .reduce((sum, count) => sum + count, 0);
}

/** Checks the path, and starts the thread that makes the file's calls. */
async function openState(host: NodesHost): Promise<StateKeeper | undefined> {
  const { config, memory, nodes, log, guard, signal, portPatienceMs } = host;
  const { stateFile, stateIntervalMs, nodeTtlMs } = config;
  if (stateFile === "off") return undefined;
  const files = new ThreadFiles();
  const giveUp = () => files.giveUp();
  signal.addEventListener("abort", giveUp);
  if (portPatienceMs > 0) files.hurry(); // the old process waits
  try {
    const warning = await StateKeeper.check(stateFile, files, log);
    if (warning !== undefined) log.warn(warning);
  } catch (error) {
    files.end();
    throw error;
  }
  return new StateKeeper(stateFile, stateIntervalMs, memory, nodes, nodeTtlMs, files, log, guard);
}

export const nodes = {
  name: "nodes",
  options: nodesOptions,
  checkStart: async ({ stateFile }: NodesConfig) =>
    stateFile === "off" ? undefined : checkStatePath(stateFile),
  stats,
  metrics: [
    {
      rows: (values: StatsOf<typeof stats>) => [[{}, values]],
      gauges: [
        { name: "beacon_nodes", help: "Nodes in the table.", values: (stats) => stats.nodes },
        {
          name: "beacon_nodes_limit",
          help: "Nodes that the table takes.",
          values: (stats) => stats.nodesMax,
        },
        {
          name: "beacon_state_saved_timestamp_seconds",
          help: "When the node table was last saved, in Unix seconds; 0 if it was not.",
          values: (stats) => stats.stateSavedS ?? 0,
        },
      ],
    },
  ],
  create: async (host: NodesHost) => new Nodes(host, await openState(host)),
} satisfies AnyFeature;
