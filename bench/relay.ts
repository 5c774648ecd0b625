/** CPU time per relayed packet: the beacon against the reference in C, and against itself, on one core. */
import type { Stats } from "../src/beacon.ts";
import { type Load, LoadGenerator } from "./load.ts";
import type { BenchOptions } from "./main.ts";
import { printMachine, showBar, showSpread, spreadOf } from "./report.ts";
import { compileReference, cpuNs, pinGenerator, startBeacon, startReference } from "./targets.ts";

type Contender = "beacon" | "beacon, offload" | "C" | "C, offload";

interface Comparison {
  readonly title: string;
  readonly load: Load;
  readonly subject: Contender;
  readonly against: Contender;
  /** On the CPU time of `subject` over that of `against`, a packet. */
  readonly bar: { readonly atMost?: number; readonly atLeast?: number };
  /** Turn the ratio over: how many times cheaper `subject` is. */
  readonly inverse?: boolean;
}

/** Every packet to another node than the one before: nothing can be merged. */
const scattered = (payloadBytes: number): Load => ({ payloadBytes, nodes: 256, burst: 1 });
/** What a stream segment burst is: 48 packets for one node, then 48 for another. */
const bursts: Load = { payloadBytes: 1200, nodes: 64, burst: 48 };

const COMPARISONS: readonly Comparison[] = [
  {
    title: "200 B, offload off",
    load: scattered(200),
    subject: "beacon",
    against: "C",
    bar: { atMost: 1.1 },
  },
  {
    title: "1,200 B, offload off",
    load: scattered(1200),
    subject: "beacon",
    against: "C",
    bar: { atMost: 1.1 },
  },
  {
    title: "bursts of 48 × 1,200 B, offload on",
    load: bursts,
    subject: "beacon, offload",
    against: "C, offload",
    bar: { atMost: 1.15 },
  },
  {
    title: "bursts of 48 × 1,200 B: times cheaper with offload than without",
    load: bursts,
    subject: "beacon, offload",
    against: "beacon",
    bar: { atLeast: 5 },
    inverse: true,
  },
  {
    title: "1,200 B that cannot be merged: offload on over off",
    load: scattered(1200),
    subject: "beacon, offload",
    against: "beacon",
    bar: { atMost: 1.03 },
  },
];

interface Measured {
  readonly cpuNsPerPacket: number;
  readonly packetsPerS: number;
  /** Share of its core that the target used; at 1 it was the bottleneck. */
  readonly busy: number;
  /** Messages a receive call, of a beacon. */
  readonly batch: number | undefined;
  readonly lost: number;
}

export async function benchRelay({ rounds, seconds, batch }: BenchOptions): Promise<void> {
  printMachine();
  pinGenerator();
  const reference = compileReference();
  for (const { title, load, subject, against, bar, inverse } of COMPARISONS) {
    console.log(`\n${title}`);
    const ratios: number[] = [];
    for (let round = 0; round < rounds; round++) {
      // The order turns every round, so that neither always runs on a warmer machine.
      const order = round % 2 === 0 ? [subject, against] : [against, subject];
      const measured = new Map<Contender, Measured>();
      for (const contender of order) {
        measured.set(contender, await measure(contender, load, reference, seconds, batch));
      }
      const a = measured.get(subject)!;
      const b = measured.get(against)!;
      const ratio = a.cpuNsPerPacket / b.cpuNsPerPacket;
      ratios.push(inverse ? 1 / ratio : ratio);
      console.log(
        `  round ${round + 1}  ${show(subject, a)}  ${show(against, b)}  ratio ${ratios.at(-1)!.toFixed(3)}`,
      );
    }
    const spread = spreadOf(ratios);
    console.log(`  ratio ${showSpread(spread, 3)}; ${showBar(spread.median, bar)}`);
  }
}

async function measure(
  contender: Contender,
  load: Load,
  reference: string,
  seconds: number,
  batch: number,
): Promise<Measured> {
  const offload = contender.endsWith("offload");
  const target = contender.startsWith("C")
    ? await startReference(reference, { offload, batch })
    : await startBeacon({ offload, batch });
  const generator = new LoadGenerator(target.port, load);
  try {
    generator.register();
    generator.run((seconds / 2) * 1e9); // to warm up: compiled code, caches, page tables
    const statsBefore = await readBatches(target.http);
    const cpuBefore = cpuNs(target.pid);
    const { received, lost, elapsedNs } = generator.run(seconds * 1e9);
    const usedNs = cpuNs(target.pid) - cpuBefore;
    const statsAfter = await readBatches(target.http);
    return {
      cpuNsPerPacket: usedNs / received,
      packetsPerS: received / (elapsedNs / 1e9),
      busy: usedNs / elapsedNs,
      batch:
        statsBefore && statsAfter
          ? (statsAfter.messages - statsBefore.messages) / (statsAfter.calls - statsBefore.calls)
          : undefined,
      lost,
    };
  } finally {
    generator.close();
    await target.stop();
  }
}

async function readBatches(http: string): Promise<{ messages: number; calls: number } | undefined> {
  if (http === "") return undefined;
  const stats = (await (await fetch(new URL("api/stats", http))).json()) as Stats;
  return stats.workers[0]?.receiveBatch;
}

function show(name: Contender, m: Measured): string {
  const batch = m.batch === undefined ? "" : `, batch ${m.batch.toFixed(1)}`;
  const lost = m.lost === 0 ? "" : `, LOST ${m.lost}`;
  return (
    `${name}: ${m.cpuNsPerPacket.toFixed(0)} ns, ${(m.packetsPerS / 1000).toFixed(0)} k/s` +
    ` at ${(m.busy * 100).toFixed(0)} % of a core${batch}${lost};`
  );
}
