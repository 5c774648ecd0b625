/** Numbers of a beacon that never ran. */
import type { PacketStats, Stats, WorkerStats } from "../../../src/beacon.ts";

const PACKETS: PacketStats = {
  packetsReceived: { discover: 0, relay: 0 },
  malformed: { short: 0 },
  discovers: 0,
  nodesRefused: {},
  limited: { relay: 0 },
  limitedShadow: {},
  switchedOff: {},
  punches: { sent: 0, target_unknown: 0 },
  punchGrants: {},
  keysRefused: 0,
  relayForwarded: { local: 0, peer: 0, bridged: 0 },
  relayNotFound: 0,
  relayDropped: {},
  repliesSent: 0,
  replyDropped: {},
  gossipReceived: 0,
  gossipRejected: {},
  receivedBytes: 0,
  sentBytes: 0,
  receiveBatch: { bounds: [1], buckets: [0], calls: 0, messages: 0 },
  offloadSegments: { received: 0, sent: 0 },
  receiveErrors: 0,
};

export function workerStats(worker: number, some: Partial<WorkerStats> = {}): WorkerStats {
  return { ...PACKETS, worker, alive: true, restarts: 0, socketReceiveDrops: 0, cpuS: 0, ...some };
}

export function statsWith(some: Partial<Stats> = {}): Stats {
  return {
    version: "1.2.3",
    beaconId: 5,
    address: { family: "IPv4", address: "192.0.2.1", port: 9001 },
    uptimeS: 100,
    healthy: true,
    nodes: 0,
    nodesMax: 1000,
    residentBytes: 0,
    cpuS: 0,
    mesh: {
      peers: [],
      learnedPeers: 0,
      learnedRoutes: 0,
      routesMax: 0,
      routesRefused: 0,
      routesIgnored: 0,
      gossipRefused: {},
      gossipSent: 0,
      gossipSendErrors: 0,
      gossipTruncated: 0,
      registryRounds: {},
      registryLastSuccessS: null,
    },
    directory: null,
    punchedPairs: { direct: {}, relayed: {}, unwatched: 0, watching: 0 },
    breakers: { discover: "on", relay: "on" },
    stateSavedS: null,
    workers: [workerStats(0), workerStats(1)],
    bridge: null,
    grants: null,
    ...some,
  };
}
