/** Memory with an empty table and with a full one: nodes registered from 64 sockets, none lost. */
import type { Stats } from "../../src/beacon.ts";
import type { BenchOptions } from "../harness/options.ts";
import { registerFromMany } from "../harness/register.ts";
import type { Recorder } from "../harness/results.ts";
import { residentBytes, startBeacon } from "../harness/targets.ts";

/** The middle one is the default limit, and has a bar. */
const NODES = [100_000, 500_000, 1_000_000];
const NODES_SMOKE = [20_000];
const WORKERS = 2;
const RESIDENT_MB_MAX = 250;

export async function benchMemory({ smoke, batch }: BenchOptions, recorder: Recorder): Promise<void> {
  for (const nodes of smoke ? NODES_SMOKE : NODES) {
    const title = `${nodes} nodes`;
    recorder.title(title);
    const target = await startBeacon({ offload: true, batch }, [
      `--max-nodes=${nodes}`,
      `--workers=${WORKERS}`,
    ]);
    try {
      const emptyBytes = residentBytes(target.pid);
      const again = registerFromMany(target, nodes);
      const stats = (await (await fetch(new URL("api/stats", target.http))).json()) as Stats;
      const fullBytes = residentBytes(target.pid);
      recorder.progress(`${stats.nodes} in the table, ${again} Discovers sent again`);
      const figure = { case: title, better: "less" as const, params: { group: "memory", nodes } };
      recorder.figure({
        ...figure,
        name: "lost",
        unit: "nodes",
        values: [nodes - stats.nodes],
        bar: { atMost: 0 },
      });
      recorder.figure({ ...figure, name: "resident, empty", unit: "MB", values: [emptyBytes / 1e6] });
      recorder.figure({
        ...{ ...figure, name: "resident, full", unit: "MB", values: [fullBytes / 1e6] },
        ...(nodes === 500_000 && { bar: { atMost: RESIDENT_MB_MAX } }),
      });
      recorder.figure({
        ...figure,
        name: "a node",
        unit: "bytes",
        values: [(fullBytes - emptyBytes) / nodes],
      });
    } finally {
      await target.stop();
    }
  }
}
