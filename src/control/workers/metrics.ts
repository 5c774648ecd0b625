/** The workers' metrics. */
import type { MetricGroup } from "../kit/metrics.ts";
import type { WorkerStats } from "./feature.ts";
import { PACKET_METRICS, RECEIVE_BATCH } from "./packet-stats.ts";

interface Stats {
  readonly workers: readonly WorkerStats[];
}

/** Of each worker. */
export const WORKER: MetricGroup<Stats, WorkerStats> = {
  rows: ({ workers }) => workers.map((stats) => [{ worker: stats.worker }, stats] as const),
  rowLabels: ["worker"],
  counters: [
    ...PACKET_METRICS,
    {
      name: "beacon_socket_receive_drops_total",
      help: "Datagrams that the kernel dropped at the beacon's sockets, mostly because a buffer was full.",
      values: (stats) => stats.socketReceiveDrops,
    },
    {
      name: "beacon_worker_restarts_total",
      help: "Worker threads that died and were replaced.",
      values: (stats) => stats.restarts,
    },
    {
      name: "beacon_worker_cpu_seconds_total",
      help: "CPU time of the worker's thread: of a second, the share that its loop is busy. Starts anew with a worker that was replaced.",
      values: (stats) => stats.cpuS,
    },
  ],
  histograms: [RECEIVE_BATCH],
};

/** Of all together. */
export const WORKERS: MetricGroup<Stats, Stats> = {
  rows: (stats) => [[{}, stats]],
  gauges: [
    {
      name: "beacon_workers",
      help: "Worker threads alive.",
      values: ({ workers }) => workers.filter(({ alive }) => alive).length,
    },
  ],
};
