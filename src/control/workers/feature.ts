/** The worker threads, which receive and relay, and their mail to the main thread. */
import { WORKER_ENTRY } from "../../thread-entries.ts";
import type { AnyFeature, Host, Service } from "../feature.ts";
import { added } from "../kit/metrics.ts";
import { Readings } from "../kit/readings.ts";
import { limits } from "../limits/feature.ts";
import { nodes } from "../nodes/feature.ts";
import { sockets } from "../sockets/feature.ts";
import { setReceiveTimeouts } from "../sockets/sockets.ts";
import { MailReader } from "./mail-reader.ts";
import { type Stats, stats, WORKER, WORKERS } from "./metrics.ts";
import { type WorkersConfig, workersOptions } from "./options.ts";
import { packetStats, packetSummary } from "./packet-stats.ts";
import { Supervisor } from "./supervisor.ts";

type WorkersHost = Host<WorkersConfig & { readonly beaconId: number }>;

export class Workers implements Service {
  readonly mail: MailReader;
  readonly supervisor: Supervisor;
  readonly #readings: Readings;

  constructor(private readonly host: WorkersHost) {
    const { memory, nodes, log, config, predecessor } = host;
    const { all, offload } = host.use(sockets);
    this.mail = new MailReader(memory);
    this.#readings = new Readings(log);
    this.supervisor = new Supervisor(
      WORKER_ENTRY,
      memory,
      nodes,
      all,
      { beaconId: config.beaconId, batchMax: config.batchMax, offload },
      {
        restarted: (worker, error) =>
          log.error({ worker, err: error }, "worker died and was replaced"),
        delayed: (worker, error) =>
          log.error(
            { worker, err: error },
            "worker died and is replaced once files can be opened: raise LimitNOFILE or ulimit -n",
          ),
        failed: (worker, error) => {
          log.error({ worker, err: error }, "worker died and is not replaced again");
          host.fail(new Error(`worker ${worker} keeps dying: ${error.message}`, { cause: error }));
        },
      },
    );
    this.supervisor.sharesSockets = predecessor !== undefined;
  }

  async start(): Promise<void> {
    const { predecessor } = this.host;
    await this.supervisor.start(predecessor !== undefined);
    if (predecessor) {
      await predecessor.waitForTurn();
      this.host.use(limits).tick();
      this.host.use(nodes).tick(); // sets the clock that the workers go by
      setReceiveTimeouts(this.host.use(sockets).all, false);
      this.supervisor.unpark();
    }
    this.mail.start();
  }

  tick(): void {
    this.supervisor.tick();
  }

  async stop(): Promise<void> {
    await this.mail.stop();
    await this.supervisor.stop();
  }

  stats(): Stats {
    const { memory } = this.host;
    return {
      workers: this.host.use(sockets).all.map((socket, worker) => ({
        worker,
        alive: this.supervisor.isAlive(worker),
        restarts: this.supervisor.restarts[worker]!,
        socketReceiveDrops: this.#readings.read("drops at sockets", () => socket.receiveDrops()),
        cpuS: this.supervisor.cpuS(worker),
        ...packetStats(memory, memory.counterRow(worker)),
      })),
    };
  }

  notReady(): string | undefined {
    const dead = this.host
      .use(sockets)
      .all.flatMap((_, worker) => (this.supervisor.isAlive(worker) ? [] : [worker]));
    return dead.length === 0 ? undefined : `being replaced: worker ${dead.join(", ")}`;
  }
}

export const workers = {
  name: "workers",
  options: workersOptions,
  stats,
  metrics: [WORKER, WORKERS],
  summary: ({ workers }: Stats) =>
    added(
      workers.map((row) => ({ ...packetSummary(row), socketDrops: row.socketReceiveDrops ?? 0 })),
    ),
  create: (host: WorkersHost) => new Workers(host),
} satisfies AnyFeature;
