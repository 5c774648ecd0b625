/** The directory's numbers in Prometheus' words; none of them is shown by a beacon without one. */
import type { Counts, Distribution, MetricGroup, Shown } from "../kit/metrics.ts";
import {
  BEACON_STATES,
  DIRECTORY_STATES,
  type DirectoryBeaconStats,
  type DirectoryStats,
} from "./stats.ts";
import { STORE_FAILURES } from "./store-error.ts";

/** A number of each other beacon, where there is one. */
const byBeacon = (read: (beacon: DirectoryBeaconStats) => number | null) => ({
  label: "beacon",
  values: ({ beacons }: DirectoryStats): Counts => {
    const rows = beacons.map((beacon) => [beacon.name, read(beacon)] as const);
    return Object.fromEntries(
      rows.flatMap(([name, value]) => (value === null ? [] : [[name, value]])),
    );
  },
});

const COUNTERS: readonly Shown<DirectoryStats>[] = [
  {
    name: "beacon_directory_entries_total",
    help: "Entries of the directory's log: told by this beacon, and heard of all.",
    label: "direction",
    values: ({ entriesTold, entriesHeard }) => ({ told: entriesTold, heard: entriesHeard }),
  },
  {
    name: "beacon_directory_bytes_total",
    help: "Bytes of these entries, before they are encoded in base64.",
    label: "direction",
    values: ({ bytesTold, bytesHeard }) => ({ told: bytesTold, heard: bytesHeard }),
  },
  {
    name: "beacon_directory_claims_total",
    help: "Nodes that are said to be a beacon's: told by this one, and heard of others and applied.",
    label: "direction",
    values: ({ claimsTold, claimsHeard }) => ({ told: claimsTold, heard: claimsHeard }),
  },
  {
    name: "beacon_directory_gone_total",
    help: "Nodes that are said to be a beacon's no more: told by this one, and heard of others and applied.",
    label: "direction",
    values: ({ goneTold, goneHeard }) => ({ told: goneTold, heard: goneHeard }),
  },
  {
    name: "beacon_directory_malformed_total",
    help: "Entries and leases in the directory that no beacon of this version writes.",
    values: ({ entriesMalformed }) => entriesMalformed,
  },
  {
    name: "beacon_directory_stale_total",
    help: "Entries of an earlier start of their beacon, which count for nothing.",
    values: ({ entriesStale }) => entriesStale,
  },
  {
    name: "beacon_directory_ignored_total",
    help: "Entries of beacons beyond those that there is room for.",
    values: ({ beaconsIgnored }) => beaconsIgnored,
  },
  {
    name: "beacon_directory_snapshots_total",
    help: "Snapshots: written by this beacon, loaded of others, and those whose parts were missing or malformed.",
    label: "outcome",
    values: (stats) => ({
      written: stats.snapshotsWritten,
      loaded: stats.snapshotsLoaded,
      missing: stats.snapshotsMissing,
      malformed: stats.snapshotsMalformed,
    }),
  },
  {
    name: "beacon_directory_snapshot_bytes_total",
    help: "Bytes of the snapshots that were written, and loaded.",
    label: "outcome",
    values: (stats) => ({ written: stats.snapshotBytesWritten, loaded: stats.snapshotBytesLoaded }),
  },
  {
    name: "beacon_directory_resyncs_total",
    help: "Times that another beacon's snapshot was needed, by reason.",
    label: "reason",
    values: ({ resyncs }) => ({ ...resyncs }),
  },
  {
    name: "beacon_directory_nodes_lost_total",
    help: "Nodes of this beacon's that it gave up, as another one heard them later.",
    values: ({ nodesLost }) => nodesLost,
  },
  {
    name: "beacon_directory_nodes_claimed_again_total",
    help: "Nodes that another beacon claimed, and this one again, as it heard them later.",
    values: ({ nodesClaimedAgain }) => nodesClaimedAgain,
  },
  {
    name: "beacon_directory_claims_refused_total",
    help: "Other beacons' nodes for which there was no room among the routes.",
    values: ({ claimsRefused }) => claimsRefused,
  },
  {
    name: "beacon_directory_claims_from_future_total",
    help: "Entries dated over a second ahead of this beacon's clock, which followed.",
    values: ({ claimsFromFuture }) => claimsFromFuture,
  },
  {
    name: "beacon_directory_diverged_total",
    help: "Ranges of node ids in which routes differed from a beacon's claims, and were reloaded.",
    values: ({ diverged }) => diverged,
  },
  {
    name: "beacon_directory_clock_steps_total",
    help: "Steps of the clock of the directory's server by over 1.5 s.",
    values: ({ clockSteps }) => clockSteps,
  },
  {
    name: "beacon_directory_failures_total",
    help: "Connections to the directory's server that failed or ended, and what it refused, by reason.",
    label: "reason",
    values: ({ failures }) =>
      Object.fromEntries(STORE_FAILURES.map((reason) => [reason, failures[reason] ?? 0])),
  },
];

const GAUGES: readonly Shown<DirectoryStats>[] = [
  {
    name: "beacon_directory_state",
    help: "1 for the state that the directory is in; ok is the good one.",
    label: "state",
    values: ({ state }) =>
      Object.fromEntries(DIRECTORY_STATES.map((one) => [one, Number(one === state)])),
  },
  {
    name: "beacon_directory_alone",
    help: "1 if no other beacon is in the directory, though peers are known; else 0.",
    values: ({ isAlone }) => Number(isAlone),
  },
  {
    name: "beacon_directory_beacons",
    help: "Other beacons in the directory, by whether their routes are in step.",
    label: "state",
    values: ({ beacons }) =>
      Object.fromEntries(
        BEACON_STATES.map((one) => [one, beacons.filter(({ state }) => state === one).length]),
      ),
  },
  {
    name: "beacon_directory_beacon_behind",
    help: "1 for a beacon whose routes are not in step: they wait for a snapshot, or it has no address.",
    ...byBeacon(({ state }) => Number(state !== "following")),
  },
  {
    name: "beacon_directory_beacon_age_seconds",
    help: "Time since the last entry of a beacon.",
    ...byBeacon(({ ageS }) => ageS),
  },
  {
    name: "beacon_directory_routes",
    help: "Nodes that are reached through a beacon of the directory.",
    ...byBeacon(({ routes }) => routes),
  },
  {
    name: "beacon_directory_beacon_nodes",
    help: "Nodes of a beacon by its own count, as of its last lease.",
    ...byBeacon(({ nodes }) => nodes),
  },
  {
    name: "beacon_directory_log_entries",
    help: "Entries in the directory's log, measured once a minute.",
    values: ({ logEntries }) => logEntries,
  },
  {
    name: "beacon_directory_log_bytes",
    help: "Memory of the directory's log on the server, measured once a minute.",
    values: ({ logBytes }) => logBytes,
  },
  {
    name: "beacon_directory_log_oldest_seconds",
    help: "Age of the oldest entry in the directory's log, measured once a minute.",
    values: ({ logOldestS }) => logOldestS,
  },
  {
    name: "beacon_directory_untold",
    help: "Nodes that came or went and that the directory is not told of yet.",
    values: ({ untold }) => untold,
  },
  {
    name: "beacon_directory_snapshot_seconds",
    help: "How long the last snapshot took that was written, and loaded; 0 if there was none.",
    label: "outcome",
    values: (stats) => ({ written: stats.lastSnapshotWrittenS, loaded: stats.lastSnapshotLoadedS }),
  },
  {
    name: "beacon_directory_round_trip_seconds",
    help: "Round trip of the last command to the directory's server; no sample while there is none.",
    values: ({ roundTripS }) => roundTripS,
  },
  {
    name: "beacon_directory_route_bytes",
    help: "Bytes of memory that a route takes when the table is full.",
    values: ({ bytesPerRoute }) => bytesPerRoute,
  },
];

const LAG: Shown<DirectoryStats, Distribution> = {
  name: "beacon_directory_lag_seconds",
  help: "Time from when another beacon wrote changes until they were applied here.",
  values: ({ lag }) => ({ ...lag, count: lag.counts.reduce((all, count) => all + count, 0) }),
};

interface Stats {
  /** null without a directory. */
  readonly directory: DirectoryStats | null;
}

export const DIRECTORY: MetricGroup<Stats, DirectoryStats> = {
  rows: ({ directory }) => (directory ? [[{}, directory]] : []),
  counters: COUNTERS,
  gauges: GAUGES,
  histograms: [LAG],
};
