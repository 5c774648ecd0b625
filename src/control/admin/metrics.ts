/** The beacon's numbers in Prometheus' text format, made from Stats when asked for. */
import { Counter, Gauge, type Metric, Registry } from "prom-client";
import { DIRECTORY_COUNTERS, DIRECTORY_GAUGES, DIRECTORY_LAG } from "../directory/metrics.ts";
import type { PeerCheck } from "../mesh/self-check.ts";
import type { Counts, PacketStats, Stats, WorkerStats } from "./stats.ts";

/** One metric: a number, if there is one, or, with a label, a number for each value of the label. */
export interface Shown<From, Values = Counts | number | null> {
  readonly name: string;
  readonly help: string;
  readonly label?: string;
  readonly values: (from: From) => Values;
}

/** What is shown, each with the labels that tell it from the others. */
type Rows<From> = () => readonly (readonly [labels: Record<string, string | number>, from: From])[];

/** Receives the name of a metric that cannot be shown. */
type Failed = (metric: string, error: unknown) => void;

/** How often values were up to which bound. */
export interface Distribution {
  readonly bounds: readonly number[];
  /** Values up to each bound and above the one before; all others may follow. */
  readonly counts: readonly number[];
  readonly count: number;
  readonly sum: number;
}

/** A number of each peer's self-check, where there is one. */
function ofChecks({ mesh }: Stats, read: (check: PeerCheck) => number | null): Counts {
  const numbers = mesh.peers.flatMap(({ address, check }) => {
    const value = check && read(check);
    return value === null ? [] : [[address, value] as const];
  });
  return Object.fromEntries(numbers);
}

/** Counted by each worker, for the WebSocket bridge, and for grants; their label `worker` is "bridge" or "grants" then. */
const PACKET_COUNTERS: readonly Shown<PacketStats>[] = [
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
    name: "beacon_limited_total",
    help: "Packets, new nodes and answers dropped by a limit, and claims that moved no node, by limit.",
    label: "limit",
    values: (stats) => stats.limited,
  },
  {
    name: "beacon_limited_shadow_total",
    help: "What limits would have dropped while --limits-shadow was on, by limit.",
    label: "limit",
    values: (stats) => stats.limitedShadow,
  },
  {
    name: "beacon_switched_off_total",
    help: "Messages dropped because an operator switched off what they ask for, by breaker.",
    label: "breaker",
    values: (stats) => stats.switchedOff,
  },
  {
    name: "beacon_punch_total",
    help: "Punch requests, by outcome.",
    label: "outcome",
    values: (stats) => stats.punches,
  },
  {
    name: "beacon_punch_grants_total",
    help: "Punch requests while --require-punch-grant was on, by what became of them.",
    label: "outcome",
    values: (stats) => stats.punchGrants,
  },
  {
    name: "beacon_node_keys_refused_total",
    help: "Discovers with another key than the node's, which keeps its own.",
    values: (stats) => stats.keysRefused,
  },
  {
    name: "beacon_relay_forwarded_total",
    help: "Relayed packets that the kernel or a bridged node's connection took, by the tier of their destination.",
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
    name: "beacon_replies_sent_total",
    help: "Discover replies and punch commands that the kernel or a WebSocket connection took.",
    values: (stats) => stats.repliesSent,
  },
  {
    name: "beacon_reply_dropped_total",
    help: "Discover replies and punch commands that could not be sent, by reason.",
    label: "reason",
    values: (stats) => stats.replyDropped,
  },
  {
    name: "beacon_gossip_received_total",
    help: "Gossip messages of peers, and of strangers where their gossip is taken.",
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
    help: "Payload bytes of UDP datagrams and WebSocket frames received.",
    values: (stats) => stats.receivedBytes,
  },
  {
    name: "beacon_sent_bytes_total",
    help: "Payload bytes that the kernel or a WebSocket connection took.",
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
];

/** Counted for each worker. */
const WORKER_COUNTERS: readonly Shown<WorkerStats>[] = [
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
];

const COUNTERS: readonly Shown<Stats>[] = [
  {
    name: "process_cpu_seconds_total",
    help: "User and system CPU time spent.",
    values: (stats) => stats.cpuS,
  },
  {
    name: "beacon_log_lines_dropped_total",
    help: "Log lines dropped because standard output did not take them.",
    values: (stats) => stats.logLinesDropped,
  },
  {
    name: "beacon_gossip_sent_total",
    help: "Gossip messages that the kernel took.",
    values: ({ mesh }) => mesh.gossipSent,
  },
  {
    name: "beacon_gossip_send_errors_total",
    help: "Gossip messages that the kernel did not take.",
    values: ({ mesh }) => mesh.gossipSendErrors,
  },
  {
    name: "beacon_gossip_truncated_total",
    help: "Rounds of gossip in which not all nodes fitted into the message.",
    values: ({ mesh }) => mesh.gossipTruncated,
  },
  {
    name: "beacon_peer_routes_refused_total",
    help: "Nodes announced by peers for which there was no room among the routes.",
    values: ({ mesh }) => mesh.routesRefused,
  },
  {
    name: "beacon_peer_routes_ignored_total",
    help: "Nodes in peers' gossip beyond those that --max-peer-routes lets count.",
    values: ({ mesh }) => mesh.routesIgnored,
  },
  {
    name: "beacon_gossip_refused_total",
    help: "Gossip that was received and is not believed, by reason.",
    label: "reason",
    values: ({ mesh }) => mesh.gossipRefused,
  },
  {
    name: "beacon_peer_check_sent_total",
    help: "Packets that this beacon sent to itself through a peer.",
    label: "peer",
    values: (stats) => ofChecks(stats, ({ sent }) => sent),
  },
  {
    name: "beacon_peer_check_lost_total",
    help: "Packets to itself through a peer that were not back within their round.",
    label: "peer",
    values: (stats) => ofChecks(stats, ({ lost }) => lost),
  },
  {
    name: "beacon_peer_check_disagreements_total",
    help: "Packets to itself through a peer that somebody else delivered, who believes to have the node.",
    label: "peer",
    values: (stats) => ofChecks(stats, ({ disagreed }) => disagreed),
  },
  {
    name: "beacon_registry_rounds_total",
    help: "Rounds with the registry, by outcome; ok is the good one.",
    label: "outcome",
    values: ({ mesh }) => mesh.registryRounds,
  },
  {
    name: "beacon_punched_pairs_unwatched_total",
    help: "Pairs of nodes told of each other of which it is not known what became: there was no room.",
    values: ({ punchedPairs }) => punchedPairs.unwatched,
  },
  {
    name: "beacon_wss_upgrades_total",
    help: "Requests for a WebSocket, by outcome.",
    label: "outcome",
    values: ({ bridge }) => bridge?.upgrades ?? {},
  },
  {
    name: "beacon_wss_limited_shadow_total",
    help: "Upgrades that limits by address would have refused while --limits-shadow was on.",
    values: ({ bridge }) => bridge?.upgradesShadowed ?? 0,
  },
  {
    name: "beacon_wss_auth_total",
    help: "Handshakes of nodes that ended, by outcome.",
    label: "outcome",
    values: ({ bridge }) => bridge?.auth ?? {},
  },
  {
    name: "beacon_wss_frames_total",
    help: "Beacon messages over WebSockets: in, from nodes, and out, to nodes.",
    label: "direction",
    values: ({ bridge }) => ({ ...bridge?.frames }),
  },
  {
    name: "beacon_wss_dropped_total",
    help: "Frames from or for nodes of the WebSocket bridge that were dropped, by reason.",
    label: "reason",
    values: ({ bridge }) => bridge?.dropped ?? {},
  },
  {
    name: "beacon_wss_idle_disconnects_total",
    help: "Nodes of the WebSocket bridge that were disconnected because they were silent.",
    values: ({ bridge }) => bridge?.idleDisconnects ?? 0,
  },
  {
    name: "beacon_wss_slow_disconnects_total",
    help: "Nodes of the WebSocket bridge that were disconnected because too much waited for all of them.",
    values: ({ bridge }) => bridge?.slowDisconnects ?? 0,
  },
];

const RECEIVE_BATCH: Shown<WorkerStats, Distribution> = {
  name: "beacon_receive_batch_size",
  help: "Messages that one receive call brought; a merged message counts once.",
  values: ({ receiveBatch: { bounds, buckets, calls, messages } }) => ({
    bounds,
    counts: buckets,
    count: calls,
    sum: messages,
  }),
};

const PUNCHED_PAIRS: Shown<Counts> = {
  name: "beacon_punched_pairs_total",
  help: "Pairs of nodes told of each other, by the family of their addresses, and by whether they went on relaying through this beacon.",
  label: "family",
  values: (pairs) => pairs,
};

const GAUGES: readonly Shown<Stats>[] = [
  { name: "beacon_nodes", help: "Nodes in the table.", values: (stats) => stats.nodes },
  { name: "beacon_nodes_limit", help: "Nodes that the table takes.", values: (stats) => stats.nodesMax },
  {
    name: "beacon_workers",
    help: "Worker threads alive.",
    values: ({ workers }) => workers.filter(({ alive }) => alive).length,
  },
  {
    name: "beacon_healthy",
    help: "1 while /healthz answers 200.",
    values: (stats) => Number(stats.healthy),
  },
  {
    name: "beacon_start_time_seconds",
    help: "When the beacon started, in Unix seconds.",
    values: (stats) => Math.round(Date.now() / 1000 - stats.uptimeS),
  },
  {
    name: "process_resident_memory_bytes",
    help: "Resident memory.",
    values: (stats) => stats.residentBytes,
  },
  {
    name: "beacon_breaker_off",
    help: "1 for what an operator has switched off, 0 for what is on.",
    label: "breaker",
    values: ({ breakers }) =>
      Object.fromEntries(Object.entries(breakers).map(([name, state]) => [name, Number(state === "off")])),
  },
  {
    name: "beacon_peers",
    help: "Peer beacons: configured or listed by the registry.",
    values: ({ mesh }) => mesh.peers.length,
  },
  {
    name: "beacon_learned_peers",
    help: "Strangers whose gossip is believed.",
    values: ({ mesh }) => mesh.learnedPeers,
  },
  {
    name: "beacon_learned_peer_routes",
    help: "Nodes that are reached through learned peers.",
    values: ({ mesh }) => mesh.learnedRoutes,
  },
  {
    name: "beacon_peer_routes_limit",
    help: "Routes that the table takes.",
    values: ({ mesh }) => mesh.routesMax,
  },
  {
    name: "beacon_peer_routes",
    help: "Nodes that are reached through a peer.",
    label: "peer",
    values: ({ mesh }) => Object.fromEntries(mesh.peers.map(({ address, routes }) => [address, routes])),
  },
  {
    name: "beacon_peer_gossip_age_seconds",
    help: "Time since a peer's last gossip; no sample if there was none.",
    label: "peer",
    values: ({ mesh }) =>
      Object.fromEntries(
        mesh.peers.flatMap(({ address, gossipAgeS }) => (gossipAgeS === null ? [] : [[address, gossipAgeS]])),
      ),
  },
  {
    name: "beacon_peer_in_directory",
    help: "1 for a peer whose nodes the directory tells, and not gossip.",
    label: "peer",
    values: ({ mesh }) =>
      Object.fromEntries(
        mesh.peers.flatMap(({ address, isInDirectory }) => (isInDirectory ? [[address, 1]] : [])),
      ),
  },
  {
    name: "beacon_peer_check_rtt_seconds",
    help: "Round trip of the last packet to itself through a peer; no sample if none came back.",
    label: "peer",
    values: (stats) => ofChecks(stats, ({ lastRttMs }) => (lastRttMs === null ? null : lastRttMs / 1000)),
  },
  {
    name: "beacon_registry_last_success_timestamp_seconds",
    help: "When a round with the registry last went well, in Unix seconds; 0 if none did.",
    values: ({ mesh }) => mesh.registryLastSuccessS ?? 0,
  },
  {
    name: "beacon_punched_pairs_watched",
    help: "Pairs of nodes told of each other within the last minute.",
    values: ({ punchedPairs }) => punchedPairs.watching,
  },
  {
    name: "beacon_wss_listening",
    help: "1 while the WebSocket bridge takes connections; 0 without one, and while files or its port cannot be had.",
    values: ({ bridge }) => Number(bridge?.listening ?? false),
  },
  {
    name: "beacon_wss_peers",
    help: "Nodes connected through the WebSocket bridge.",
    values: ({ bridge }) => bridge?.peers ?? 0,
  },
  {
    name: "beacon_wss_buffered_bytes",
    help: "Bytes that wait for nodes of the WebSocket bridge to read them.",
    values: ({ bridge }) => bridge?.bufferedBytes ?? 0,
  },
  {
    name: "beacon_state_saved_timestamp_seconds",
    help: "When the node table was last saved, in Unix seconds; 0 if it was not.",
    values: (stats) => stats.stateSavedS ?? 0,
  },
];

/**
 * A histogram whose buckets are counted elsewhere. prom-client's own can only observe values one by one, so this is a metric of
 * the registry's own kind: a name, and a `get` that yields the samples.
 */
function readyMadeHistogram<From>(
  { name, help, values: distributionOf }: Shown<From, Distribution>,
  rows: Rows<From>,
  failed: Failed,
): Metric {
  const samples = () =>
    rows().flatMap(([rowLabels, from]) => {
      const { bounds, counts, count, sum } = distributionOf(from);
      const sample = (suffix: string, value: number, labels = {}) => ({
        metricName: `${name}_${suffix}`,
        labels: { ...labels, ...rowLabels },
        value,
      });
      let below = 0;
      const buckets = bounds.map((le, i) => {
        below += counts[i]!;
        return sample("bucket", below, { le });
      });
      return [
        ...buckets,
        sample("bucket", count, { le: "+Inf" }),
        sample("sum", sum),
        sample("count", count),
      ];
    });
  const get = async () => {
    let values: ReturnType<typeof samples> = [];
    try {
      values = samples();
    } catch (error) {
      failed(name, error);
    }
    return { name, help, type: "histogram", values, aggregator: "sum" };
  };
  return { name, get } as unknown as Metric;
}

/**
 * @param read yields the numbers to show; called for each metric of a scrape
 * @param failed receives the name of a metric that cannot be shown; the scrape goes on without it
 */
export function createMetrics(
  read: () => Stats,
  failed: Failed = (_, error) => {
    throw error;
  },
): Registry {
  const registry = new Registry();
  const registers = [registry];
  const show = <From>(
    kind: typeof Counter | typeof Gauge,
    { name, help, label, values }: Shown<From>,
    rows: Rows<From>,
    rowLabels: readonly string[] = [],
  ) => {
    const clear = (metric: Counter | Gauge) => {
      metric.reset();
      if (labelNames.length === 0) metric.remove({}); // the 0 that a reset leaves
    };
    const labelNames = label === undefined ? rowLabels : [...rowLabels, label];
    return new kind({
      ...{ name, help, labelNames, registers },
      collect() {
        clear(this);
        try {
          for (const [labels, from] of rows()) {
            const counts = values(from);
            if (typeof counts === "number") this.inc(labels, counts);
            else if (counts !== null) {
              for (const [value, count] of Object.entries(counts))
                this.inc({ ...labels, [label!]: value }, count);
            }
          }
        } catch (error) {
          clear(this);
          failed(name, error);
        }
      },
    });
  };
  const workers = () => read().workers.map((stats) => [{ worker: stats.worker }, stats] as const);
  const bridge = () => {
    const stats = read().bridge;
    return stats ? [[{ worker: "bridge" }, stats.packets] as const] : [];
  };
  const grants = () => {
    const stats = read().grants;
    return stats ? [[{ worker: "grants" }, stats] as const] : [];
  };
  const directory = () => {
    const stats = read().directory;
    return stats ? [[{}, stats] as const] : [];
  };
  const whole = () => [[{}, read()] as const];
  for (const metric of PACKET_COUNTERS)
    show(Counter, metric, () => [...workers(), ...bridge(), ...grants()], ["worker"]);
  for (const metric of WORKER_COUNTERS) show(Counter, metric, workers, ["worker"]);
  for (const metric of COUNTERS) show(Counter, metric, whole);
  const outcomes = () => {
    const { direct, relayed } = read().punchedPairs;
    return [[{ outcome: "direct" }, direct] as const, [{ outcome: "relayed" }, relayed] as const];
  };
  show(Counter, PUNCHED_PAIRS, outcomes, ["outcome"]);
  for (const metric of GAUGES) show(Gauge, metric, whole);
  registry.registerMetric(readyMadeHistogram(RECEIVE_BATCH, workers, failed));
  for (const metric of DIRECTORY_COUNTERS) show(Counter, metric, directory);
  for (const metric of DIRECTORY_GAUGES) show(Gauge, metric, directory);
  registry.registerMetric(readyMadeHistogram(DIRECTORY_LAG, directory, failed));
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
