/** The statistics line of the log: what happened since the last one. */
import type { Logger } from "pino";
import { LAST_UNKNOWN_TARGET, type SharedMemory } from "../shared/memory.ts";
import { type Stats, total, type WorkerStats } from "./stats.ts";

const SUMS: Readonly<Record<string, (worker: WorkerStats) => number>> = {
  received: (worker) => total(worker.packetsReceived),
  relayed: (worker) => total(worker.relayForwarded),
  notFound: (worker) => worker.relayNotFound,
  dropped: (worker) => total(worker.relayDropped) + total(worker.replyDropped),
  discovers: (worker) => worker.discovers,
  refused: (worker) => total(worker.nodesRefused),
  punches: (worker) => worker.punches["sent"]!,
  punchTargetsUnknown: (worker) => worker.punches["target_unknown"]!,
  gossip: (worker) => worker.gossipReceived,
  gossipRejected: (worker) => total(worker.gossipRejected),
  malformed: (worker) => total(worker.malformed),
  socketDrops: (worker) => worker.socketReceiveDrops,
};

export class StatisticsLog {
  #before: Readonly<Record<string, number>> = {};

  constructor(
    private readonly logger: Logger,
    private readonly memory: SharedMemory,
  ) {}

  /** One line with what happened since the last call; no line if nothing did. */
  log(stats: Stats): void {
    const now = Object.fromEntries(
      Object.entries(SUMS).map(([name, count]) => [
        name,
        stats.workers.reduce((sum, worker) => sum + count(worker), 0),
      ]),
    );
    const since = Object.entries(now)
      .map(([name, count]) => [name, count - (this.#before[name] ?? 0)] as const)
      .filter(([, count]) => count !== 0);
    this.#before = now;
    if (since.length === 0) return;
    const happened = Object.fromEntries(since);
    this.logger.info({ nodes: stats.nodes, ...happened, ...this.#lastUnknownTarget(happened) }, "statistics");
  }

  /** One of the punch targets that nobody knew, for an operator who looks for a reason. */
  #lastUnknownTarget(happened: Readonly<Record<string, number>>): { lastUnknownTarget?: number } {
    if (happened["punchTargetsUnknown"] === undefined) return {};
    for (let worker = 0; worker < this.memory.shape.workers; worker++) {
      const nodeId = this.memory.words[this.memory.workerWords(worker) + LAST_UNKNOWN_TARGET]! >>> 0;
      if (nodeId !== 0) return { lastUnknownTarget: nodeId };
    }
    return {};
  }
}
