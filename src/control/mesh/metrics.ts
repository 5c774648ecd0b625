/** The mesh's metrics: of the mesh, and of each peer. */
import type { MetricGroup } from "../kit/metrics.ts";
import type { MeshStats, PeerStats, Stats } from "./stats.ts";

export const MESH: MetricGroup<Stats, MeshStats> = {
  rows: ({ mesh }) => [[{}, mesh]],
  counters: [
    {
      name: "beacon_gossip_sent_total",
      help: "Gossip messages sent.",
      values: ({ gossipSent }) => gossipSent,
    },
    {
      name: "beacon_gossip_send_errors_total",
      help: "Gossip messages that the kernel refused.",
      values: ({ gossipSendErrors }) => gossipSendErrors,
    },
    {
      name: "beacon_gossip_truncated_total",
      help: "Gossip rounds whose message did not hold all nodes.",
      values: ({ gossipTruncated }) => gossipTruncated,
    },
    {
      name: "beacon_peer_routes_refused_total",
      help: "Nodes announced by peers for which the route table had no room.",
      values: ({ routesRefused }) => routesRefused,
    },
    {
      name: "beacon_peer_routes_ignored_total",
      help: "Nodes announced by peers beyond --max-peer-routes.",
      values: ({ routesIgnored }) => routesIgnored,
    },
    {
      name: "beacon_gossip_refused_total",
      help: "Gossip messages rejected by the main thread, by reason.",
      label: "reason",
      values: ({ gossipRefused }) => gossipRefused,
    },
    {
      name: "beacon_registry_rounds_total",
      help: "Rounds with the registry by outcome; ok is success.",
      label: "outcome",
      values: ({ registryRounds }) => registryRounds,
    },
  ],
  gauges: [
    {
      name: "beacon_peers",
      help: "Peer beacons: from --peers, the registry and the directory.",
      values: ({ peers }) => peers.length,
    },
    {
      name: "beacon_learned_peers",
      help: "Unlisted beacons whose gossip is accepted.",
      values: ({ learnedPeers }) => learnedPeers,
    },
    {
      name: "beacon_learned_peer_routes",
      help: "Routes through learned peers.",
      values: ({ learnedRoutes }) => learnedRoutes,
    },
    {
      name: "beacon_peer_routes_limit",
      help: "Capacity of the route table.",
      values: ({ routesMax }) => routesMax,
    },
    {
      name: "beacon_registry_last_success_timestamp_seconds",
      help: "Time of the last successful round with the registry in Unix seconds; 0 for none.",
      values: ({ registryLastSuccessS }) => registryLastSuccessS ?? 0,
    },
  ],
};

export const PEERS: MetricGroup<Stats, PeerStats> = {
  rows: ({ mesh }) => mesh.peers.map((peer) => [{ peer: peer.address }, peer]),
  rowLabels: ["peer"],
  counters: [
    {
      name: "beacon_peer_check_sent_total",
      help: "Self-check packets sent through a peer.",
      values: ({ check }) => check?.sent ?? null,
    },
    {
      name: "beacon_peer_check_lost_total",
      help: "Self-check packets through a peer that were not back within their round.",
      values: ({ check }) => check?.lost ?? null,
    },
    {
      name: "beacon_peer_check_disagreements_total",
      help: "Self-check packets through a peer that another beacon delivered.",
      values: ({ check }) => check?.disagreed ?? null,
    },
  ],
  gauges: [
    {
      name: "beacon_peer_routes",
      help: "Routes through a peer.",
      values: ({ routes }) => routes,
    },
    {
      name: "beacon_peer_gossip_age_seconds",
      help: "Time since a peer's last gossip; no sample without any.",
      values: ({ gossipAgeS }) => gossipAgeS,
    },
    {
      name: "beacon_peer_in_directory",
      help: "1 for a peer whose nodes come from the directory.",
      values: ({ isInDirectory }) => (isInDirectory ? 1 : null),
    },
    {
      name: "beacon_peer_check_rtt_seconds",
      help: "Round trip of the last self-check through a peer; no sample without any.",
      values: ({ check }) => (check?.lastRttMs == null ? null : check.lastRttMs / 1000),
    },
  ],
};
