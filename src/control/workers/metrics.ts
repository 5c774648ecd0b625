/** The workers' metrics. */
import * as v from "valibot";
import type { MetricGroup } from "../kit/metrics.ts";
import { list, number, optional, type StatsOf } from "../kit/schema.ts";
import { PACKET_METRICS, packetSchema, RECEIVE_BATCH } from "./packet-stats.ts";

/** One worker's counts; a worker that was replaced goes on counting. */
const worker = v.strictObject({
  worker: number,
  alive: v.boolean(),
  restarts: number,
  /** Datagrams dropped at this worker's socket, mostly for a full buffer; null if unknown. */
  socketReceiveDrops: optional,
  /** CPU seconds of its thread; null if unknown. Restarts with a replaced worker. */
  cpuS: optional,
  ...packetSchema.entries,
});
export type WorkerStats = v.InferOutput<typeof worker>;

export const stats = { workers: list(worker) };
export type Stats = StatsOf<typeof stats>;

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
