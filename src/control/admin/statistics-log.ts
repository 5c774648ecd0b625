/** The statistics line of the log: what happened since the last one. */
import { LAST_UNKNOWN_TARGET } from "../../shared/memory.ts";
import type { AnyFeature, Host, Service } from "../feature.ts";
import type { Counts } from "../kit/metrics.ts";

/** Interval of the line, if anything happened. */
const INTERVAL_MS = 60_000;

export class StatisticsLog implements Service {
  #before: Counts = {};
  #timer: Timer | undefined;

  constructor(
    private readonly host: Pick<Host<unknown>, "memory" | "nodes" | "log" | "guard" | "beacon">,
  ) {}

  start(): void {
    this.#timer = setInterval(
      () => this.host.guard.run("the statistics line", () => this.log()),
      INTERVAL_MS,
    );
  }

  stop(): void {
    clearInterval(this.#timer);
    if (this.#timer !== undefined) this.log();
  }

  /** Logs one line with what happened since the last call; no line if nothing did. */
  log(): void {
    const now = this.host.beacon.summary();
    const since = Object.entries(now)
      .map(([name, count]) => [name, count - (this.#before[name] ?? 0)] as const)
      .filter(([, count]) => count !== 0);
    this.#before = now;
    if (since.length === 0) return;
    const happened = Object.fromEntries(since);
    const { nodes, log } = this.host;
    log.info(
      { nodes: nodes.size(), ...happened, ...this.#lastUnknownTarget(happened) },
      "statistics",
    );
  }

  /** One of the punch targets that no beacon knew, for an operator who looks for a reason. */
  #lastUnknownTarget(happened: Counts): { lastUnknownTarget?: number } {
    const { memory } = this.host;
    if (happened["punchTargetsUnknown"] === undefined) return {};
    for (let worker = 0; worker < memory.shape.workers; worker++) {
      const nodeId = memory.words[memory.workerWords(worker) + LAST_UNKNOWN_TARGET]! >>> 0;
      if (nodeId !== 0) return { lastUnknownTarget: nodeId };
    }
    return {};
  }
}

export const statistics = {
  name: "statistics",
  create: (host: Host<unknown>) => new StatisticsLog(host),
} satisfies AnyFeature;
