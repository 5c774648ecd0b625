/**
 * Warnings of a beacon that is ready. Each names its remedy, or the log does.
 *
 * None of them makes the beacon unready: its known nodes are served, and a balancer that takes it out would move all of them, which heals
 * neither a full table nor an unreachable server.
 */
import type { Logger } from "pino";
import type { Config } from "../../config.ts";
import { REFUSAL_REASONS, REFUSED_AT } from "../../shared/counters.ts";
import type { SharedMemory } from "../../shared/memory.ts";
import type { Bridge } from "../bridge/bridge.ts";
import type { Directory } from "../directory/directory.ts";
import { ThrottledLog } from "../kit/throttled-log.ts";
import type { Mesh } from "../mesh/mesh.ts";
import { FullTable } from "../nodes/full-table.ts";
import type { StateKeeper } from "../nodes/state-keeper.ts";

const NODE_LIMIT = REFUSED_AT + REFUSAL_REASONS.indexOf("node_limit");
const SHARD_FULL = REFUSED_AT + REFUSAL_REASONS.indexOf("shard_full");

export interface WarningsDeps {
  readonly memory: SharedMemory;
  readonly mesh: Pick<Mesh, "remarks" | "routesRefused">;
  readonly directory: Pick<Directory, "remark" | "routesRefused"> | undefined;
  readonly state: Pick<StateKeeper, "problem"> | undefined;
  readonly bridge: Pick<Bridge, "isListening"> | undefined;
  readonly config: Pick<Config, "maxNodes" | "maxRoutes">;
  readonly log: Pick<Logger, "warn">;
}

export class Warnings {
  readonly #tables: readonly FullTable[];

  constructor(private readonly deps: WarningsDeps) {
    const { memory, mesh, directory, config, log } = deps;
    const { counters } = memory;
    const rows = [
      ...Array.from({ length: memory.shape.workers }, (_, worker) => memory.counterRow(worker)),
      ...[memory.bridgeRow, memory.grantsRow],
    ];
    const complaints = new ThrottledLog(log);
    this.#tables = [
      new FullTable(
        {
          name: "node table",
          entries: "registrations",
          option: `--max-nodes (${config.maxNodes})`,
          refused: () =>
            rows.reduce((sum, row) => sum + counters[row + NODE_LIMIT]! + counters[row + SHARD_FULL]!, 0),
        },
        complaints,
      ),
      new FullTable(
        {
          name: "route table",
          entries: "routes",
          option: `--max-routes (${config.maxRoutes})`,
          refused: () => mesh.routesRefused + (directory?.routesRefused ?? 0),
        },
        complaints,
      ),
    ];
  }

  /** To be called about every second. */
  tick(): void {
    for (const table of this.#tables) table.tick();
  }

  get list(): readonly string[] {
    const { mesh, directory, state, bridge } = this.deps;
    const some = [
      ...this.#tables.map(({ warning }) => warning),
      ...mesh.remarks,
      directory?.remark,
      state?.problem,
      bridge?.isListening === false
        ? "the WebSocket bridge takes no connections: no files left, or its port is lost; the log says which"
        : undefined,
    ];
    return some.filter((warning) => warning !== undefined);
  }
}
