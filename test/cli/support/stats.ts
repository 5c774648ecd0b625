/** Numbers of a beacon that never ran. */
import type { DirectoryStats, PacketStats, Stats, WorkerStats } from "../../../src/beacon.ts";

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
    internalErrors: {},
    healthy: true,
    notReady: null,
    warnings: [],
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
    logLinesDropped: 0,
    stateSavedS: null,
    workers: [workerStats(0), workerStats(1)],
    bridge: null,
    grants: null,
    ...some,
  };
}

/**
 * A directory that is well, with two other beacons, one of which is behind; half of the changes
 * came within 20 ms, all within 50.
 */
export function directoryStats(some: Partial<DirectoryStats> = {}): DirectoryStats {
  return {
    state: "ok",
    server: "192.0.2.10:6379",
    stateS: 60,
    beacons: [
      { name: "b:9001", beaconId: 6, nodes: 1240, routes: 1234, state: "following", ageS: 1.5 },
      { name: "c:9001", beaconId: null, nodes: null, routes: 0, state: "behind", ageS: 7 },
    ],
    roundTripS: 0.0004,
    logEntries: 1500,
    logBytes: 400_000,
    logOldestS: 61,
    clockSteps: 18,
    entriesTold: 10,
    bytesTold: 1000,
    claimsTold: 20,
    goneTold: 5,
    untold: 3,
    entriesHeard: 30,
    bytesHeard: 3000,
    claimsHeard: 40,
    goneHeard: 6,
    entriesMalformed: 1,
    entriesStale: 2,
    beaconsIgnored: 4,
    snapshotsWritten: 7,
    snapshotBytesWritten: 700,
    snapshotsLoaded: 8,
    snapshotBytesLoaded: 800,
    snapshotsMissing: 9,
    snapshotsMalformed: 11,
    lastSnapshotWrittenS: 0.25,
    lastSnapshotLoadedS: 0.5,
    resyncs: {
      new: 1,
      restarted: 2,
      gap: 3,
      diverged: 4,
      too_far_behind: 5,
      moved: 6,
      refused: 16,
    },
    lag: { bounds: [0.01, 0.02, 0.05, 0.1], counts: [0, 5, 5, 0, 0], sum: 0.3 },
    nodesLost: 12,
    nodesClaimedAgain: 13,
    claimsRefused: 14,
    claimsFromFuture: 15,
    diverged: 17,
    isAlone: false,
    bytesPerRoute: 34,
    failures: { unreachable: 16 },
    ...some,
  };
}
