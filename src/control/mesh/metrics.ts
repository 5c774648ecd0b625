/** The mesh's metrics. */
import type { Counts, MetricGroup } from "../kit/metrics.ts";
import type { MeshStats } from "./mesh.ts";
import type { PeerCheck } from "./self-check.ts";

interface Stats {
  readonly mesh: MeshStats;
}

/** A number of each peer's self-check, where there is one. */
function ofChecks({ mesh }: Stats, read: (check: PeerCheck) => number | null): Counts {
  const numbers = mesh.peers.flatMap(({ address, check }) => {
    const value = check && read(check);
    return value === null ? [] : [[address, value] as const];
  });
  return Object.fromEntries(numbers);
}

export const MESH: MetricGroup<Stats, Stats> = {
  rows: (stats) => [[{}, stats]],
  counters: [
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
  ],
  gauges: [
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
      values: ({ mesh }) =>
        Object.fromEntries(mesh.peers.map(({ address, routes }) => [address, routes])),
    },
    {
      name: "beacon_peer_gossip_age_seconds",
      help: "Time since a peer's last gossip; no sample if there was none.",
      label: "peer",
      values: ({ mesh }) =>
        Object.fromEntries(
          mesh.peers.flatMap(({ address, gossipAgeS }) =>
            gossipAgeS === null ? [] : [[address, gossipAgeS]],
          ),
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
      values: (stats) =>
        ofChecks(stats, ({ lastRttMs }) => (lastRttMs === null ? null : lastRttMs / 1000)),
    },
    {
      name: "beacon_registry_last_success_timestamp_seconds",
      help: "When a round with the registry last went well, in Unix seconds; 0 if none did.",
      values: ({ mesh }) => mesh.registryLastSuccessS ?? 0,
    },
  ],
};
