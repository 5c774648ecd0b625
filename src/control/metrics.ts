/** The beacon's numbers in Prometheus' text format, made from Stats when asked for. */
import { Counter, Gauge, type Metric, Registry } from "prom-client";
import type { Counts, Stats, WorkerStats } from "./stats.ts";

/** What a worker counts, as metrics; `values` yields the labels beside `worker`, and the count. */
interface WorkerCounter {
  readonly name: string;
  readonly help: string;
  readonly label?: string;
  readonly values: (stats: WorkerStats) => Counts | number;
}

const WORKER_COUNTERS: readonly WorkerCounter[] = [
  {
    name: "beacon_packets_received_total",
    help: "Beacon messages received, by type.",
    label: "type",
    values: (stats) => stats.packetsReceived,
  },
  {
    name: "beacon_malformed_total",
    help: "Datagrams dropped because they are no message for a beacon, by reason.",
    label: "reason",
    values: (stats) => stats.malformed,
  },
  {
    name: "beacon_discover_total",
    help: "Discover messages handled.",
    values: (stats) => stats.discovers,
  },
  {
    name: "beacon_nodes_refused_total",
    help: "Discovers and punch requests that found no place in the node table, by reason.",
    label: "reason",
    values: (stats) => stats.nodesRefused,
  },
  {
    name: "beacon_punch_total",
    help: "Punch requests, by outcome.",
    label: "outcome",
    values: (stats) => stats.punches,
  },
  {
    name: "beacon_relay_forwarded_total",
    help: "Relayed packets that the kernel took, by the tier of their destination.",
    label: "tier",
    values: (stats) => stats.relayForwarded,
  },
  {
    name: "beacon_relay_not_found_total",
    help: "Relay packets dropped because nobody knows their destination.",
    values: (stats) => stats.relayNotFound,
  },
  {
    name: "beacon_relay_dropped_total",
    help: "Relay packets to a known destination that could not be sent, by reason.",
    label: "reason",
    values: (stats) => stats.relayDropped,
  },
  {
    name: "beacon_reply_dropped_total",
    help: "Discover replies and punch commands that could not be sent, by reason.",
    label: "reason",
    values: (stats) => stats.replyDropped,
  },
  {
    name: "beacon_gossip_received_total",
    help: "Gossip messages of peers.",
    values: (stats) => stats.gossipReceived,
  },
  {
    name: "beacon_gossip_rejected_total",
    help: "Gossip messages that changed nothing, by reason.",
    label: "reason",
    values: (stats) => stats.gossipRejected,
  },
  {
    name: "beacon_received_bytes_total",
    help: "UDP payload bytes received.",
    values: (stats) => stats.receivedBytes,
  },
  {
    name: "beacon_sent_bytes_total",
    help: "UDP payload bytes that the kernel took.",
    values: (stats) => stats.sentBytes,
  },
  {
    name: "beacon_offload_segments_total",
    help: "Packets that arrived or left merged with others of their flow.",
    label: "direction",
    values: (stats) => ({ ...stats.offloadSegments }),
  },
  {
    name: "beacon_receive_errors_total",
    help: "Receive calls that failed and were tried again.",
    values: (stats) => stats.receiveErrors,
  },
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
];

/**
 * A histogram whose buckets are counted elsewhere. prom-client's own can only observe values one by one, so this is a metric of
 * the registry's own kind: a name, and a `get` that yields the samples.
 */
function readyMadeHistogram(name: string, help: string, read: () => Stats): Metric {
  const get = async () => {
    const values = read().workers.flatMap(({ worker, receiveBatch }) => {
      const sample = (suffix: string, value: number, labels = {}) => ({
        metricName: `${name}_${suffix}`,
        labels: { ...labels, worker },
        value,
      });
      let below = 0;
      const buckets = receiveBatch.bounds.map((le, i) => {
        below += receiveBatch.buckets[i]!;
        return sample("bucket", below, { le });
      });
      return [
        ...buckets,
        sample("bucket", receiveBatch.calls, { le: "+Inf" }),
        sample("sum", receiveBatch.messages),
        sample("count", receiveBatch.calls),
      ];
    });
    return { name, help, type: "histogram", values, aggregator: "sum" };
  };
  return { name, get } as unknown as Metric;
}

/** @param read yields the numbers to show; called for each metric of a scrape */
export function createMetrics(read: () => Stats): Registry {
  const registry = new Registry();
  const registers = [registry];
  for (const { name, help, label, values } of WORKER_COUNTERS) {
    new Counter({
      name,
      help,
      labelNames: label === undefined ? ["worker"] : ["worker", label],
      registers,
      collect() {
        this.reset();
        for (const stats of read().workers) {
          const counts = values(stats);
          if (typeof counts === "number") this.inc({ worker: stats.worker }, counts);
          else {
            for (const [value, count] of Object.entries(counts)) {
              this.inc({ worker: stats.worker, [label!]: value }, count);
            }
          }
        }
      },
    });
  }
  registry.registerMetric(
    readyMadeHistogram(
      "beacon_receive_batch_size",
      "Messages that one receive call brought; a merged message counts once.",
      read,
    ),
  );
  const gauge = (name: string, help: string, value: (stats: Stats) => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value(read()));
      },
    });
  gauge("beacon_nodes", "Nodes in the table.", (stats) => stats.nodes);
  gauge("beacon_nodes_limit", "Nodes that the table takes.", (stats) => stats.nodesMax);
  gauge("beacon_workers", "Worker threads alive.", (stats) => stats.workers.filter((w) => w.alive).length);
  gauge("beacon_healthy", "1 while /healthz answers 200.", (stats) => Number(stats.healthy));
  gauge("beacon_start_time_seconds", "When the beacon started, in Unix seconds.", (stats) =>
    Math.round(Date.now() / 1000 - stats.uptimeS),
  );
  gauge("process_resident_memory_bytes", "Resident memory.", (stats) => stats.residentBytes);
  const counter = (name: string, help: string, value: (stats: Stats) => number) =>
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(value(read()));
      },
    });
  counter("process_cpu_seconds_total", "User and system CPU time spent.", (stats) => stats.cpuS);
  counter("beacon_gossip_sent_total", "Gossip messages that the kernel took.", ({ mesh }) => mesh.gossipSent);
  counter(
    "beacon_gossip_send_errors_total",
    "Gossip messages that the kernel did not take.",
    ({ mesh }) => mesh.gossipSendErrors,
  );
  counter(
    "beacon_gossip_truncated_total",
    "Rounds of gossip in which not all nodes fitted into the message.",
    ({ mesh }) => mesh.gossipTruncated,
  );
  counter(
    "beacon_peer_routes_refused_total",
    "Nodes announced by peers for which there was no room among the routes.",
    ({ mesh }) => mesh.routesRefused,
  );
  gauge(
    "beacon_peers",
    "Peer beacons: configured or listed by the registry.",
    ({ mesh }) => mesh.peers.length,
  );
  gauge("beacon_peer_routes_limit", "Routes that the table takes.", ({ mesh }) => mesh.routesMax);
  const byLabel = (
    kind: typeof Counter | typeof Gauge,
    name: string,
    help: string,
    label: string,
    values: (stats: Stats) => Counts,
  ) =>
    new kind({
      name,
      help,
      labelNames: [label],
      registers,
      collect() {
        this.reset();
        for (const [value, count] of Object.entries(values(read()))) this.inc({ [label]: value }, count);
      },
    });
  byLabel(Gauge, "beacon_peer_routes", "Nodes that are reached through a peer.", "peer", ({ mesh }) =>
    Object.fromEntries(mesh.peers.map(({ address, routes }) => [address, routes])),
  );
  byLabel(
    Gauge,
    "beacon_peer_gossip_age_seconds",
    "Time since a peer's last gossip; no sample if there was none.",
    "peer",
    ({ mesh }) =>
      Object.fromEntries(
        mesh.peers.flatMap(({ address, gossipAgeS }) => (gossipAgeS === null ? [] : [[address, gossipAgeS]])),
      ),
  );
  byLabel(
    Counter,
    "beacon_registry_rounds_total",
    "Rounds with the registry, by outcome; ok is the good one.",
    "outcome",
    ({ mesh }) => mesh.registryRounds,
  );
  gauge(
    "beacon_registry_last_success_timestamp_seconds",
    "When a round with the registry last went well, in Unix seconds; 0 if none did.",
    ({ mesh }) => mesh.registryLastSuccessS ?? 0,
  );
  gauge(
    "beacon_state_saved_timestamp_seconds",
    "When the node table was last saved, in Unix seconds; 0 if it was not.",
    (stats) => stats.stateSavedS ?? 0,
  );
  new Gauge({
    name: "beacon_build_info",
    help: "Version of the beacon and of the runtime; always 1.",
    labelNames: ["version", "bun"],
    registers,
    collect() {
      this.set({ version: read().version, bun: Bun.version }, 1);
    },
  });
  return registry;
}
