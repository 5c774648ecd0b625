/** Minutes of everything: whether memory, rate, files and threads stay what they are. */
import { readdirSync } from "node:fs";
import { total } from "../../src/control/kit/metrics.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Figure, Recorder } from "../harness/results.ts";
import { type Spread, showNumber, spreadOf } from "../harness/statistics.ts";
import {
  compileReference,
  pinGenerator,
  startBeacon,
  startReference,
  statsOf,
  type Target,
} from "../harness/targets.ts";
import { residentBytes } from "../harness/usage.ts";
import { SoakLoad } from "./soak-load.ts";

export const MINUTES_DEFAULT = 5;
const SAMPLE_MS = 5000;
/** So many at least, in a run of less than two minutes too. */
const SAMPLES_MIN = 25;
/**
 * Silent nodes are forgotten after a tenth of the run, within these bounds; from then on as many go
 * as come.
 */
const NODE_TTL_S_MIN = 3;
const NODE_TTL_S_MAX = 30;
/**
 * What is left after the collector's rounds, which move some 15 MB to and fro: the least of the
 * last tenth over the least of the sixth. Half of five minutes is more than 10 million packets and
 * half a million nodes that come and go, so that a byte lost a packet would be 10 MB.
 */
const GROWTH_MB_MAX = 4;
/**
 * Rate at the end over that at the start, both over the reference's at that time: what is less is
 * more than noise.
 */
const RATE_MIN = 0.95;

interface Sample {
  readonly atS: number;
  readonly residentMb: number;
  readonly files: number;
  readonly threads: number;
  readonly nodes: number;
  readonly lost: number;
  readonly packets: number;
  readonly packetsPerS: number;
  readonly cpuNsPerPacket: number;
  readonly packetsPerSOverC: number;
}

export async function benchSoak(options: BenchOptions, recorder: Recorder): Promise<void> {
  const { minutes = MINUTES_DEFAULT, batch } = options;
  pinGenerator();
  const nodeTtlS = Math.min(NODE_TTL_S_MAX, Math.max(NODE_TTL_S_MIN, Math.round(minutes * 6)));
  const target = { offload: true, batch };
  const beacon = await startBeacon(target, [`--node-ttl=${nodeTtlS}s`]);
  const c = await startReference(compileReference(), target);
  const load = new SoakLoad(beacon, c);
  recorder.title(`${minutes} minutes of relays, Discovers, nodes that come and go, and garbage`);
  try {
    const samples = await soak(load, beacon, minutes * 60_000, nodeTtlS, recorder);
    const params = { group: "soak", minutes };
    report(samples, load, params, recorder);
    await reportGarbage(load, beacon, params, recorder);
  } finally {
    load.close();
    await beacon.stop();
    await c.stop();
  }
}

async function soak(
  load: SoakLoad,
  beacon: Target,
  durationMs: number,
  nodeTtlS: number,
  recorder: Recorder,
): Promise<Sample[]> {
  const samples: Sample[] = [];
  const sampleMs = Math.min(SAMPLE_MS, durationMs / SAMPLES_MIN);
  const start = performance.now();
  let refreshMs = start;
  for (let next = start + sampleMs; performance.now() < start + durationMs; ) {
    if (performance.now() >= refreshMs) {
      load.refresh();
      refreshMs += (nodeTtlS * 1000) / 3;
    }
    await load.cycle();
    if (performance.now() < next) continue;
    next += sampleMs;
    const sample = await take(load, beacon, (performance.now() - start) / 1000);
    samples.push(sample);
    recorder.progress(
      `${showNumber(sample.atS)} s  ${showNumber(sample.residentMb)} MB, ${sample.nodes} nodes, ` +
        `${showNumber(sample.packetsPerS / 1000)} k/s at full rate, ${showNumber(sample.cpuNsPerPacket)} ns a packet, ` +
        `${sample.files} files, ${sample.threads} threads${sample.lost === 0 ? "" : `, LOST ${sample.lost}`}`,
    );
  }
  return samples;
}

async function take(load: SoakLoad, beacon: Target, atS: number): Promise<Sample> {
  const { relays, reference } = load.take();
  return {
    atS,
    residentMb: residentBytes(beacon.pid) / 1e6,
    files: readdirSync(`/proc/${beacon.pid}/fd`).length,
    threads: readdirSync(`/proc/${beacon.pid}/task`).length,
    nodes: (await statsOf(beacon)).nodes,
    lost: relays.lost,
    packets: relays.packets,
    packetsPerS: relays.packetsPerS,
    cpuNsPerPacket: relays.cpuNsPerPacket,
    packetsPerSOverC: relays.packetsPerS / reference.packetsPerS,
  };
}

/** What the samples of a tenth of the run say, the first tenth being 0. */
function inTenth(samples: readonly Sample[], tenth: number, of: keyof Sample): Spread {
  const from = Math.floor((samples.length * tenth) / 10);
  const to = Math.ceil((samples.length * (tenth + 1)) / 10);
  return spreadOf(samples.slice(from, to).map((sample) => sample[of]));
}

function report(
  samples: readonly Sample[],
  load: SoakLoad,
  params: NonNullable<Figure["params"]>,
  recorder: Recorder,
): void {
  const figure = recorder.of("soak", params);
  const spread = (tenth: number, of: keyof Sample) => inTenth(samples, tenth, of);
  const memoryGrowth = spread(9, "residentMb").min - spread(5, "residentMb").min;
  const rate = spread(9, "packetsPerSOverC").median / spread(1, "packetsPerSOverC").median;
  const lost = samples.reduce((sum, sample) => sum + sample.lost, 0);
  const packets = samples.reduce((sum, sample) => sum + sample.packets, 0);
  recorder.progress(
    `${packets} packets relayed, ${load.discovers} Discovers, ${load.garbageSent} datagrams of garbage`,
  );
  const growth = "growth of resident memory in the second half";
  figure(growth, "MB", [memoryGrowth], { bar: { atMost: GROWTH_MB_MAX } });
  figure("relays and Discovers lost", "packets", [lost + load.discoversLost], {
    bar: { atMost: 0 },
  });
  const rateName = "rate in the last tenth over the second, beside C's";
  figure(rateName, "×", [rate], { better: "more", bar: { atLeast: RATE_MIN } });
  for (const [name, of] of [
    ["growth of open files", "files"],
    ["growth of threads", "threads"],
  ] as const)
    figure(name, of, [spread(9, of).median - spread(1, of).median], { bar: { atMost: 0 } });
  const series = recorder.of("soak", { ...params, series: true });
  for (const [name, of, unit] of SERIES) {
    const values = samples.map((sample) => sample[of]);
    series(`${name} of each sample`, unit, values, { better: "neither" });
  }
}

/** Figures with a value a sample, for charts. */
const SERIES: readonly [name: string, of: keyof Sample, unit: string][] = [
  ["time", "atS", "s"],
  ["resident memory", "residentMb", "MB"],
  ["nodes", "nodes", "nodes"],
  ["packets a second at full rate", "packetsPerS", "/s"],
  ["packets a second over C's", "packetsPerSOverC", "×"],
  ["CPU a packet", "cpuNsPerPacket", "ns"],
  ["lost", "lost", "packets"],
  ["open files", "files", "files"],
  ["threads", "threads", "threads"],
];

/**
 * What was sent to no avail must stand in the beacon's numbers, and nothing may have overflowed.
 */
async function reportGarbage(
  load: SoakLoad,
  beacon: Target,
  params: NonNullable<Figure["params"]>,
  recorder: Recorder,
): Promise<void> {
  const { workers } = await statsOf(beacon);
  const counted = workers.reduce(
    (all, { malformed, gossipRejected }) => all + total(malformed) + total(gossipRejected),
    0,
  );
  const drops = workers.reduce((all, worker) => all + (worker.socketReceiveDrops ?? 0), 0);
  const uncounted = [load.garbageSent - counted];
  recorder.of("soak", params)("garbage that no counter shows", "packets", uncounted, {
    bar: { atMost: 0 },
  });
  if (drops > 0) recorder.note(`the kernel dropped ${drops} datagrams at the beacon's socket`);
}
