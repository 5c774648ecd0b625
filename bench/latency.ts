/** Time through an idle relay: one packet at a time, the beacon against the reference in C. */
import { LoadGenerator } from "./load.ts";
import type { BenchOptions } from "./options.ts";
import { printMachine, quantile, showBar, showSpread, spreadOf } from "./report.ts";
import { compileReference, pinGenerator, startBeacon, startReference } from "./targets.ts";

const PACKETS_PER_S = 2000;
const WARM_UP = 0.25;
const BAR = { atMost: 1.5 };

export async function benchLatency({ rounds, seconds, batch }: BenchOptions): Promise<void> {
  printMachine();
  pinGenerator();
  const reference = compileReference();
  console.log(
    `\none 200 B packet at a time, ${PACKETS_PER_S}/s, offload on, microseconds there and out again`,
  );
  const ratios: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? (["beacon", "C"] as const) : (["C", "beacon"] as const);
    const p50 = { beacon: 0, C: 0 };
    const shown: string[] = [];
    for (const name of order) {
      const target =
        name === "C"
          ? await startReference(reference, { offload: true, batch })
          : await startBeacon({ offload: true, batch });
      const generator = new LoadGenerator({ payloadBytes: 200, nodes: 1, burst: 1 });
      generator.aim(target.port);
      try {
        generator.register();
        ping(generator, seconds * WARM_UP);
        const timesNs = ping(generator, seconds);
        const lost = timesNs.filter((time) => time < 0).length;
        const us = timesNs.filter((time) => time >= 0).map((time) => time / 1000);
        p50[name] = quantile(us, 0.5);
        shown.push(
          `${name}: p50 ${p50[name].toFixed(1)}, p99 ${quantile(us, 0.99).toFixed(1)}` +
            `, p99.9 ${quantile(us, 0.999).toFixed(1)}${lost === 0 ? "" : `, LOST ${lost}`};`,
        );
      } finally {
        generator.close();
        await target.stop();
      }
    }
    ratios.push(p50.beacon / p50.C);
    console.log(`  round ${round + 1}  ${shown.join("  ")}  ratio of p50 ${ratios.at(-1)!.toFixed(3)}`);
  }
  const spread = spreadOf(ratios);
  console.log(`  ratio of p50 ${showSpread(spread, 3)}; ${showBar(spread.median, BAR)}`);
}

/** Relays one packet at a time. @returns nanoseconds of each, -1 for a lost one */
export function ping(generator: LoadGenerator, seconds: number): number[] {
  const times: number[] = [];
  const start = Bun.nanoseconds();
  for (let i = 0; i < seconds * PACKETS_PER_S; i++) {
    const dueNs = start + (i * 1e9) / PACKETS_PER_S;
    while (Bun.nanoseconds() < dueNs); // a timer would be late by more than what is measured
    times.push(generator.ping());
  }
  return times;
}
