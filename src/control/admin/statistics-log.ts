/** The statistics line of the log: what happened since the last one. */
import type { Logger } from "pino";
import { LAST_UNKNOWN_TARGET, type SharedMemory } from "../../shared/memory.ts";
import { type PacketStats, type Stats, total } from "./stats.ts";

const SUMS: Readonly<Record<string, (row: PacketStats) => number>> = {
  received: (row) => total(row.packetsReceived),
  relayed: (row) => total(row.relayForwarded),
  notFound: (row) => row.relayNotFound,
  dropped: (row) => total(row.relayDropped) + total(row.replyDropped),
  discovers: (row) => row.discovers,
  refused: (row) => total(row.nodesRefused),
  limited: (row) => total(row.limited),
  limitedShadow: (row) => total(row.limitedShadow),
  switchedOff: (row) => total(row.switchedOff),
  punches: (row) => row.punches["sent"]!,
  punchGrantsRefused: (row) => total(row.punchGrants) - row.punchGrants["ok"]!,
  punchTargetsUnknown: (row) => row.punches["target_unknown"]!,
  gossip: (row) => row.gossipReceived,
  gossipRejected: (row) => total(row.gossipRejected),
  malformed: (row) => total(row.malformed),
};

export class StatisticsLog {
  #before: Readonly<Record<string, number>> = {};

  constructor(
    private readonly logger: Logger,
    private readonly memory: SharedMemory,
  ) {}

  /** One line with what happened since the last call; no line if nothing did. */
  log(stats: Stats): void {
    const { workers, bridge, grants } = stats;
    const rows = [...workers, ...(bridge ? [bridge.packets] : []), ...(grants ? [grants] : [])];
    const sum = <T>(of: readonly T[], count: (one: T) => number) =>
      of.reduce((all, one) => all + count(one), 0);
    const now = {
      ...Object.fromEntries(Object.entries(SUMS).map(([name, count]) => [name, sum(rows, count)])),
      gossipRefused: total(stats.mesh.gossipRefused),
      socketDrops: sum(workers, (worker) => worker.socketReceiveDrops ?? 0),
      bridgeRefused: bridge ? total(bridge.auth) - bridge.auth["ok"]! : 0,
    };
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
