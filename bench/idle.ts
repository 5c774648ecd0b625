/** What a beacon costs while nothing happens. */
import type { BenchOptions } from "./options.ts";
import { printMachine, showBar } from "./report.ts";
import { cpuNs, startBeacon } from "./targets.ts";

/** After its start, a beacon still compiles code and collects garbage for a moment. */
const SETTLE_MS = 2000;

export async function benchIdle({ seconds, batch, smoke }: BenchOptions): Promise<void> {
  printMachine();
  const target = await startBeacon({ offload: true, batch }, ["--workers=2"]);
  try {
    await Bun.sleep(smoke ? 100 : SETTLE_MS);
    const start = Bun.nanoseconds();
    const before = cpuNs(target.pid);
    await Bun.sleep(seconds * 5 * 1000);
    const percent = ((cpuNs(target.pid) - before) / (Bun.nanoseconds() - start)) * 100;
    console.log(
      `  idle with 2 workers: ${percent.toFixed(2)} % of one core; ${showBar(percent, { atMost: 1 })}`,
    );
  } finally {
    await target.stop();
  }
}
