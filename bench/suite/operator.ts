/**
 * What relays notice of operators who look: a beacon with 500,000 nodes, relays at a steady rate,
 * and every call of the admin API again and again, against the same minutes without; and how much
 * memory the answers take.
 */
import { LoadedRelay } from "../harness/loaded-relay.ts";
import type { BenchOptions } from "../harness/options.ts";
import { registerFromMany } from "../harness/register.ts";
import type { Recorder } from "../harness/results.ts";
import { quantile } from "../harness/statistics.ts";
import { compileReference, pinGenerator, startWatcher, statsOf } from "../harness/targets.ts";
import { residentBytes } from "../harness/usage.ts";

const NODES = 500_000;
const NODES_SMOKE = 20_000;
const LOAD = { payloadBytes: 200, nodes: 256, timed: true };
/** Some 5 % of what one core relays. */
const PACKETS_PER_S = 20_000;
/**
 * Watched and not in turn: both see the same moods of the machine. A page of 500,000 nodes takes as
 * long.
 */
const SLICE_NS = 2e9;
/** Between two requests: the beacon is never without one for long. */
const PAUSE_MS = 20;
const SETTLE_MS = 100;

export async function benchOperator(options: BenchOptions, recorder: Recorder): Promise<void> {
  pinGenerator();
  const nodes = options.smoke ? NODES_SMOKE : NODES;
  const title = `${nodes} nodes, every call of the API in turn`;
  recorder.title(title);
  const rounds = [];
  for (let round = 0; round < options.rounds; round++) {
    rounds.push(await measure(nodes, options));
    const { p99Us, p99WatchedUs, grownMb, lost } = rounds.at(-1)!;
    recorder.progress(
      `round ${round + 1}  p99 ${p99Us.toFixed(0)} µs alone, ${p99WatchedUs.toFixed(0)} µs watched; ` +
        `memory ${grownMb.toFixed(1)} MB more${lost === 0 ? "" : `, LOST ${lost}`}`,
    );
  }
  const figure = recorder.of(title, { group: "operator", nodes });
  figure(
    "p99, watched over alone",
    "×",
    rounds.map(({ p99Us, p99WatchedUs }) => p99WatchedUs / p99Us),
  );
  figure(
    "p99, alone",
    "µs",
    rounds.map(({ p99Us }) => p99Us),
  );
  figure(
    "p99, watched",
    "µs",
    rounds.map(({ p99WatchedUs }) => p99WatchedUs),
  );
  figure(
    "memory that watching took",
    "MB",
    rounds.map(({ grownMb }) => grownMb),
  );
  figure(
    "lost",
    "packets",
    rounds.map(({ lost }) => lost),
  );
}

async function measure(nodes: number, { batch, seconds, smoke }: BenchOptions) {
  const contender = { name: "beacon", program: "beacon", load: LOAD, offload: true } as const;
  const relay = await LoadedRelay.start(
    { ...contender, flags: [`--max-nodes=${nodes}`] },
    compileReference(),
    batch,
  );
  try {
    const { target, generator } = relay;
    registerFromMany(target, nodes);
    generator.register(); // its nodes are among them, and are to be at its sockets
    const sliceNs = smoke ? seconds * 1e9 : SLICE_NS;
    const room = new Float64Array(Math.ceil((PACKETS_PER_S * sliceNs) / 1e9) + 1);
    const latencies = { alone: [] as number[], watched: [] as number[] };
    let lost = 0;
    const slice = (us: number[]) => {
      const result = generator.pace(PACKETS_PER_S, sliceNs, room);
      lost += result.lost;
      for (let i = 0; i < result.received; i++) us.push(room[i]! / 1000);
    };
    const watcher = await startWatcher(target, PAUSE_MS);
    await Bun.sleep(smoke ? 0 : 3000); // compiled code
    const before = residentBytes(target.pid);
    for (let ns = 0; ns < Math.max(seconds * 1e9, sliceNs); ns += sliceNs) {
      watcher.kill("SIGSTOP");
      await Bun.sleep(SETTLE_MS);
      slice(latencies.alone);
      watcher.kill("SIGCONT");
      await Bun.sleep(SETTLE_MS);
      slice(latencies.watched);
    }
    if (watcher.exitCode !== null)
      throw new Error("the watcher ended early: what it said is above");
    watcher.kill("SIGCONT");
    watcher.kill();
    const grownMb = (residentBytes(target.pid) - before) / 1e6;
    if ((await statsOf(target)).nodes < nodes) throw new Error("not all nodes were registered");
    return {
      p99Us: quantile(latencies.alone, 0.99),
      p99WatchedUs: quantile(latencies.watched, 0.99),
      grownMb,
      lost,
    };
  } finally {
    await relay.stop();
  }
}
