/** Memory with an empty table and with a full one: nodes registered from 64 sockets, none lost. */
import { DiscoverGenerator } from "../harness/discovers.ts";
import type { BenchOptions } from "../harness/options.ts";
import { registerFromMany } from "../harness/register.ts";
import type { Recorder } from "../harness/results.ts";
import { pinGenerator, startBeacon, statsOf, type Target } from "../harness/targets.ts";
import { residentBytes } from "../harness/usage.ts";

/** The middle one is the default limit, and has a bar. */
const NODES = [100_000, 500_000, 1_000_000];
const NODES_SMOKE = [20_000];
const WORKERS = 2;
const RESIDENT_MB_MAX = 250;
/**
 * These are registered again and again first, so that what compiled code and the runtime take is
 * not put down to the nodes.
 */
const WARM_UP_NODES = 1_000;

/** Of one beacon. */
interface Measured {
  readonly emptyMb: number;
  readonly fullMb: number;
  readonly bytesANode: number;
  readonly lost: number;
}

export async function benchMemory(options: BenchOptions, recorder: Recorder): Promise<void> {
  pinGenerator();
  for (const nodes of options.smoke ? NODES_SMOKE : NODES) {
    const title = `${nodes} nodes`;
    if (!title.includes(options.only)) continue;
    recorder.title(title);
    const rounds: Measured[] = [];
    for (let round = 0; round < options.rounds; round++) {
      rounds.push(await measure(nodes, options));
      const { emptyMb, fullMb, bytesANode } = rounds.at(-1)!;
      recorder.progress(
        `round ${round + 1}  ${emptyMb.toFixed(0)} MB empty, ${fullMb.toFixed(0)} MB full, ` +
          `${bytesANode.toFixed(0)} bytes a node`,
      );
    }
    const figure = recorder.of(title, { group: "memory", nodes });
    const values = (of: keyof Measured) => rounds.map((one) => one[of]);
    const bar = { bar: { atMost: RESIDENT_MB_MAX } };
    figure("resident, empty", "MB", values("emptyMb"));
    figure("resident, full", "MB", values("fullMb"), nodes === 500_000 ? bar : {});
    figure("a node", "bytes", values("bytesANode"));
    figure("lost", "nodes", values("lost"), { bar: { atMost: 0 } });
  }
}

async function measure(nodes: number, { batch, seconds }: BenchOptions): Promise<Measured> {
  const flags = [`--max-nodes=${nodes}`, `--workers=${WORKERS}`];
  const beacon = await startBeacon({ offload: true, batch }, flags);
  try {
    const emptyBytes = residentBytes(beacon.pid);
    warmUp(beacon, seconds);
    const warmBytes = residentBytes(beacon.pid);
    registerFromMany(beacon, nodes);
    const { nodes: found } = await statsOf(beacon);
    const fullBytes = residentBytes(beacon.pid);
    return {
      emptyMb: emptyBytes / 1e6,
      fullMb: fullBytes / 1e6,
      bytesANode: (fullBytes - warmBytes) / (nodes - WARM_UP_NODES),
      lost: nodes - found,
    };
  } finally {
    await beacon.stop();
  }
}

function warmUp(beacon: Target, seconds: number): void {
  const generator = new DiscoverGenerator({ kind: "again", nodes: WARM_UP_NODES });
  generator.aim(beacon);
  generator.run(seconds * 1e9);
  generator.close();
}
