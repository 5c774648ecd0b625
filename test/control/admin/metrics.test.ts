/**
 * The directory's metrics, of made-up numbers; what a beacon's others come to, the tests of its
 * HTTP see.
 */
import { expect, test } from "bun:test";
import { createMetrics } from "../../../src/control/admin/metrics.ts";
import { metrics, type Stats } from "../../../src/features.ts";
import { directoryStats, statsWith } from "../../cli/support/stats.ts";

/** The samples of a scrape that begin so. */
async function samples(directory: ReturnType<typeof directoryStats> | null, prefix: string) {
  const text = await createMetrics(metrics, () => statsWith({ directory })).metrics();
  return text.split("\n").filter((line) => line.startsWith(prefix));
}

test("a beacon without a directory has no numbers of one", async () => {
  expect(await samples(null, "beacon_directory_")).toEqual([]);
  expect(await samples(null, "beacon_nodes ")).toEqual(["beacon_nodes 0"]);
});

test("each number of the directory is in a metric", async () => {
  expect(await samples(directoryStats(), "beacon_directory_")).toEqual([
    'beacon_directory_entries_total{direction="told"} 10',
    'beacon_directory_entries_total{direction="heard"} 30',
    'beacon_directory_bytes_total{direction="told"} 1000',
    'beacon_directory_bytes_total{direction="heard"} 3000',
    'beacon_directory_claims_total{direction="told"} 20',
    'beacon_directory_claims_total{direction="heard"} 40',
    'beacon_directory_gone_total{direction="told"} 5',
    'beacon_directory_gone_total{direction="heard"} 6',
    "beacon_directory_malformed_total 1",
    "beacon_directory_stale_total 2",
    "beacon_directory_ignored_total 4",
    'beacon_directory_snapshots_total{outcome="written"} 7',
    'beacon_directory_snapshots_total{outcome="loaded"} 8',
    'beacon_directory_snapshots_total{outcome="missing"} 9',
    'beacon_directory_snapshots_total{outcome="malformed"} 11',
    'beacon_directory_snapshot_bytes_total{outcome="written"} 700',
    'beacon_directory_snapshot_bytes_total{outcome="loaded"} 800',
    'beacon_directory_resyncs_total{reason="new"} 1',
    'beacon_directory_resyncs_total{reason="restarted"} 2',
    'beacon_directory_resyncs_total{reason="gap"} 3',
    'beacon_directory_resyncs_total{reason="diverged"} 4',
    'beacon_directory_resyncs_total{reason="too_far_behind"} 5',
    'beacon_directory_resyncs_total{reason="moved"} 6',
    'beacon_directory_resyncs_total{reason="refused"} 16',
    "beacon_directory_nodes_lost_total 12",
    "beacon_directory_nodes_claimed_again_total 13",
    "beacon_directory_claims_refused_total 14",
    "beacon_directory_claims_from_future_total 15",
    "beacon_directory_diverged_total 17",
    "beacon_directory_clock_steps_total 18",
    'beacon_directory_failures_total{reason="unreachable"} 16',
    'beacon_directory_failures_total{reason="slow"} 0',
    'beacon_directory_failures_total{reason="denied"} 0',
    'beacon_directory_failures_total{reason="read_only"} 0',
    'beacon_directory_failures_total{reason="full"} 0',
    'beacon_directory_failures_total{reason="refused"} 0',
    'beacon_directory_failures_total{reason="malformed"} 0',
    'beacon_directory_state{state="ok"} 1',
    'beacon_directory_state{state="connecting"} 0',
    'beacon_directory_state{state="duplicate"} 0',
    'beacon_directory_state{state="internal_error"} 0',
    'beacon_directory_state{state="unreachable"} 0',
    'beacon_directory_state{state="slow"} 0',
    'beacon_directory_state{state="denied"} 0',
    'beacon_directory_state{state="read_only"} 0',
    'beacon_directory_state{state="full"} 0',
    'beacon_directory_state{state="refused"} 0',
    'beacon_directory_state{state="malformed"} 0',
    "beacon_directory_alone 0",
    'beacon_directory_beacons{state="following"} 1',
    'beacon_directory_beacons{state="behind"} 1',
    'beacon_directory_beacons{state="no_address"} 0',
    'beacon_directory_beacon_behind{beacon="b:9001"} 0',
    'beacon_directory_beacon_behind{beacon="c:9001"} 1',
    'beacon_directory_beacon_age_seconds{beacon="b:9001"} 1.5',
    'beacon_directory_beacon_age_seconds{beacon="c:9001"} 7',
    'beacon_directory_routes{beacon="b:9001"} 1234',
    'beacon_directory_routes{beacon="c:9001"} 0',
    'beacon_directory_beacon_nodes{beacon="b:9001"} 1240',
    "beacon_directory_log_entries 1500",
    "beacon_directory_log_bytes 400000",
    "beacon_directory_log_oldest_seconds 61",
    "beacon_directory_untold 3",
    'beacon_directory_snapshot_seconds{outcome="written"} 0.25',
    'beacon_directory_snapshot_seconds{outcome="loaded"} 0.5',
    "beacon_directory_round_trip_seconds 0.0004",
    "beacon_directory_route_bytes 34",
    'beacon_directory_lag_seconds_bucket{le="0.01"} 0',
    'beacon_directory_lag_seconds_bucket{le="0.02"} 5',
    'beacon_directory_lag_seconds_bucket{le="0.05"} 10',
    'beacon_directory_lag_seconds_bucket{le="0.1"} 10',
    'beacon_directory_lag_seconds_bucket{le="+Inf"} 10',
    "beacon_directory_lag_seconds_sum 0.3",
    "beacon_directory_lag_seconds_count 10",
  ]);
});

test("there is no round trip while there is no server", async () => {
  const without = directoryStats({ state: "unreachable", server: null, roundTripS: null });
  expect(await samples(without, "beacon_directory_round_trip_seconds")).toEqual([]);
});

test("a log whose size is not known has no sample", async () => {
  const unknown = directoryStats({ logEntries: null, logBytes: null, logOldestS: null });
  expect(await samples(unknown, "beacon_directory_log_")).toEqual([]);
});

test("what a beacon is named cannot break a scrape", async () => {
  const beacons = [
    { name: '"}\\', beaconId: 1, nodes: 1, routes: 1, state: "following", ageS: 0 } as const,
    { name: "__proto__", beaconId: 2, nodes: 2, routes: 2, state: "following", ageS: 0 } as const,
  ];
  expect(await samples(directoryStats({ beacons }), "beacon_directory_routes")).toEqual([
    'beacon_directory_routes{beacon="\\"}\\\\"} 1',
    'beacon_directory_routes{beacon="__proto__"} 2',
  ]);
});

test("peers of the directory are told from those that gossip", async () => {
  const peer = { routes: 0, gossipAgeS: null, check: null };
  const { mesh } = statsWith();
  const peers = [
    { ...peer, address: "192.0.2.1:9001", isInDirectory: true },
    { ...peer, address: "192.0.2.2:9001", isInDirectory: false },
  ];
  const text = await createMetrics(metrics, () =>
    statsWith({ mesh: { ...mesh, peers } }),
  ).metrics();
  expect(text.match(/^beacon_peer_in_directory.*$/gm)).toEqual([
    'beacon_peer_in_directory{peer="192.0.2.1:9001"} 1',
  ]);
});

test("a metric that cannot be shown is missing, and the others are there", async () => {
  const failed: string[] = [];
  const broken = { ...statsWith({}), breakers: undefined } as unknown as Stats;
  const text = await createMetrics(
    metrics,
    () => broken,
    (metric) => failed.push(metric),
  ).metrics();
  expect(failed).toEqual(["beacon_breaker_off"]);
  expect(text).not.toMatch(/^beacon_breaker_off\b/m);
  expect(text).toMatch(/^beacon_nodes 0$/m);
});
