/** What a beacon costs while nothing happens. */
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";
import { startBeacon } from "../harness/targets.ts";
import { cpuNs } from "../harness/usage.ts";

/** After its start, a beacon still compiles code and collects garbage for a moment. */
const SETTLE_MS = 2000;
const WORKERS = 2;

export async function benchIdle(options: BenchOptions, recorder: Recorder): Promise<void> {
  const { rounds, seconds, batch, smoke } = options;
  recorder.title(`idle with ${WORKERS} workers`);
  const target = await startBeacon({ offload: true, batch, workers: WORKERS });
  try {
    await Bun.sleep(smoke ? 100 : SETTLE_MS);
    const percent: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const start = Bun.nanoseconds();
      const before = cpuNs(target.pid);
      await Bun.sleep(seconds * 1000);
      percent.push(((cpuNs(target.pid) - before) / (Bun.nanoseconds() - start)) * 100);
    }
    const figure = recorder.of("idle", { group: "idle", workers: WORKERS });
    figure("CPU time", "% of a core", percent, { bar: { atMost: 1 } });
  } finally {
    await target.stop();
  }
}
