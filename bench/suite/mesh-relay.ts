/** Relays from node to beacon to beacon to node, over relays through one beacon. */
import { type Load, LoadGenerator } from "../harness/load.ts";
import { LoadedTargets } from "../harness/loaded.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";
import { compareSideBySide } from "../harness/side-by-side.ts";
import { freePort, startBeacon, statsOf, type TargetOptions } from "../harness/targets.ts";
import { Latencies, pingInTurn } from "./latency.ts";

/**
 * So a beacon learns within a second who has the nodes; more often would cost CPU time that counts
 * here.
 */
const GOSSIP_FLAGS = ["--gossip-interval=1s", "--self-check=off"]; // which has a route of its own
const ROUTES_MS_MAX = 20_000;
const POLL_MS = 20;
const SCATTERED: Load = { payloadBytes: 200, nodes: 256 };
const BURSTS: Load = { payloadBytes: 1200, nodes: 64, burst: 48 };
const LOADS: readonly [title: string, load: Load, offload: boolean][] = [
  ["200 B, offload off", SCATTERED, false],
  ["bursts of 48 × 1200 B, offload on", BURSTS, true],
];

export async function measureTwoBeacons(options: BenchOptions, recorder: Recorder): Promise<void> {
  recorder.note(
    "the two beacons of a relay share one core, so that their rate is about half of one's",
  );
  for (const [title, load, offload] of options.smoke ? LOADS.slice(-1) : LOADS) {
    const target = { offload, batch: options.batch };
    const params = { group: "two beacons", payloadBytes: load.payloadBytes, offload };
    const contenders = [
      { name: "two beacons", start: () => startTwo(load, target) },
      { name: "one beacon", start: () => startOne(load, target) },
    ];
    const comparison = {
      ...{ title: `two beacons, ${title}`, params, unit: "packet", contenders },
      ratios: [{ name: "two beacons over one", subject: "two beacons", against: "one beacon" }],
    };
    recorder.title(comparison.title);
    const [lost = 0] = await compareSideBySide(comparison, options, recorder);
    const figure = recorder.of(comparison.title, params);
    figure("lost on the way through two", "packets", [lost], { bar: { atMost: 0 } });
  }
  await latency(options, recorder);
}

/** Microseconds of one packet at a time. */
async function latency(options: BenchOptions, recorder: Recorder): Promise<void> {
  const target = { offload: true, batch: options.batch };
  const names = ["two beacons", "one beacon"];
  const latencies = new Latencies({ names, over: "two beacons over one", quantiles: [0.5, 0.99] });
  const starts = [() => startTwo(SCATTERED, target), () => startOne(SCATTERED, target)];
  await pingInTurn(starts, latencies, options, recorder);
  latencies.report("two beacons, one packet at a time", { group: "two beacons" }, recorder);
}

async function startOne(load: Load, options: TargetOptions): Promise<LoadedTargets<LoadGenerator>> {
  const relay = new LoadedTargets(
    "one beacon",
    [await startBeacon(options, GOSSIP_FLAGS)],
    new LoadGenerator(load),
  );
  relay.generator.aim(relay.targets[0]!);
  relay.generator.register();
  return relay;
}

/**
 * Nodes are known to the second beacon, and packets go to the first.
 * @throws Error if that never learns of the nodes
 */
async function startTwo(load: Load, options: TargetOptions): Promise<LoadedTargets<LoadGenerator>> {
  const secondPort = freePort();
  const first = await startBeacon(options, [
    ...GOSSIP_FLAGS,
    "--beacon-id=1",
    `--peers=127.0.0.1:${secondPort}`,
  ]);
  const second = await startBeacon(options, [
    ...GOSSIP_FLAGS,
    "--beacon-id=2",
    `--addr=127.0.0.1:${secondPort}`,
    `--peers=127.0.0.1:${first.port}`,
  ]);
  const relay = new LoadedTargets("two beacons", [first, second], new LoadGenerator(load));
  relay.generator.aim(second);
  relay.generator.register();
  relay.generator.aim(first);
  const deadline = performance.now() + ROUTES_MS_MAX;
  while ((await statsOf(first)).mesh.peers[0]?.routes !== load.nodes) {
    if (performance.now() > deadline) {
      await relay.stop();
      throw new Error("the first beacon never learned which nodes the second has");
    }
    await Bun.sleep(POLL_MS);
  }
  return relay;
}
