/** Relays from node to beacon to beacon to node, over relays through one beacon. */
import { type Load, LoadGenerator } from "../harness/load.ts";
import { LoadedTargets } from "../harness/loaded.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";
import { eachRound } from "../harness/rounds.ts";
import { compareSideBySide } from "../harness/side-by-side.ts";
import { quantile } from "../harness/statistics.ts";
import { freePort, startBeacon, statsOf, type TargetOptions } from "../harness/targets.ts";
import { pingSteadily } from "./latency.ts";

/** So a beacon learns within a second who has the nodes; more often would cost CPU time that counts here. */
const GOSSIP_FLAGS = ["--gossip-interval=1s", "--self-check=off"]; // which has a route of its own
const ROUTES_MS_MAX = 20_000;
const POLL_MS = 20;
/** One is loaded before the other for so long: both see the same moods of the machine. */
const SLICE_S = 0.25;
const QUANTILES = [0.5, 0.99];

const SCATTERED: Load = { payloadBytes: 200, nodes: 256 };
const BURSTS: Load = { payloadBytes: 1200, nodes: 64, burst: 48 };
const LOADS: readonly [title: string, load: Load, offload: boolean][] = [
  ["200 B, offload off", SCATTERED, false],
  ["bursts of 48 × 1200 B, offload on", BURSTS, true],
];

export async function measureTwoBeacons(options: BenchOptions, recorder: Recorder): Promise<void> {
  recorder.note("the two beacons of a relay share one core, so that their rate is about half of one's");
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
async function latency(
  { rounds, seconds, warmUpSeconds, batch }: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  const title = "two beacons, one packet at a time";
  recorder.title(title);
  const target = { offload: true, batch };
  const us = QUANTILES.map(() => [[], []] as [two: number[], one: number[]]);
  let lost = 0;
  const starts = [() => startTwo(SCATTERED, target), () => startOne(SCATTERED, target)];
  await eachRound(rounds, starts, async (relays, turn, round) => {
    const times = new Map(turn.map((relay) => [relay, [] as number[]]));
    for (const { generator } of turn) pingSteadily(generator, warmUpSeconds / 2); // compiled code, caches
    for (let s = 0; s < seconds; s += SLICE_S) {
      for (const relay of turn)
        times.get(relay)!.push(...pingSteadily(relay.generator, Math.min(SLICE_S, seconds)));
      await Bun.sleep(0); // signals and the time limit get their turn
    }
    const shown = relays.map((relay, i) => {
      const arrived = times.get(relay)!.filter((time) => time !== Infinity);
      lost += times.get(relay)!.length - arrived.length;
      for (const [q, values] of us.entries()) values[i]!.push(quantile(arrived, QUANTILES[q]!));
      return `p50 ${us[0]![i]!.at(-1)!.toFixed(1)}, p99 ${us[1]![i]!.at(-1)!.toFixed(1)} µs`;
    });
    recorder.progress(`round ${round + 1}  two beacons: ${shown[0]};  one beacon: ${shown[1]}`);
  });
  for (const [q, [two, one]] of us.entries()) {
    const name = `p${QUANTILES[q]! * 100}`;
    const figure = recorder.of(title, { group: "two beacons", latency: name });
    const ratios = two.map((value, round) => value / one[round]!);
    figure(`${name}, two beacons over one`, "×", ratios);
    figure(`${name}, two beacons`, "µs", two);
    figure(`${name}, one beacon`, "µs", one);
  }
  if (lost > 0) recorder.note(`${title}: ${lost} packets were lost`);
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

/** Nodes are known to the second beacon, and packets go to the first. @throws Error if that never learns of the nodes */
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
