/**
 * Time from exec to the first relayed packet: from the sources, as a binary, and the reference in
 * C.
 */
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { buildBinary } from "../../build.ts";
import { LoadGenerator } from "../harness/load.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";
import { eachRound } from "../harness/rounds.ts";
import {
  beaconSources,
  compileReference,
  pinGenerator,
  startBeacon,
  startReference,
  statsOf,
  type Target,
  temporaryFolder,
} from "../harness/targets.ts";

/** In the state file; all at one address, which makes no difference to it. */
const STATE_NODES = 500_000;
const STATE_NODES_SMOKE = 5_000;
const SAVE_FLAGS = ["--node-ttl=24h"];
/**
 * From exec until a packet went through, the median; a restart that takes less is a short gap in a
 * stream.
 */
const EMPTY_MS_MAX = 500;

interface Contender {
  readonly name: string;
  start(): Promise<Target>;
}

export async function benchStart(options: BenchOptions, recorder: Recorder): Promise<void> {
  pinGenerator();
  const { batch, smoke } = options;
  const reference = compileReference();
  const folder = temporaryFolder();
  const binary = join(folder, "beacon");
  if (!buildBinary(binary)) throw new Error("the binary could not be built");
  recorder.note(
    "a start counts from the spawning of taskset, which pins the program, to the arrival of the first packet relayed; " +
      "the files are in the page cache",
  );

  const target = { offload: true, batch };
  const sources = { name: "beacon, sources", program: beaconSources() };
  const compiled = { name: "beacon, binary", program: [binary] };
  const beacon = ({ name, program }: typeof sources, flags: () => string[]): Contender => ({
    name,
    start: () => startBeacon(target, flags(), program),
  });
  const empty = [
    beacon(sources, () => []),
    beacon(compiled, () => []),
    { name: "C", start: () => startReference(reference, target) },
  ];
  if ("an empty table".includes(options.only)) {
    recorder.title("an empty table");
    const generator = new LoadGenerator({ payloadBytes: 200, nodes: 1 });
    const reach = () => generator.register();
    await measure("an empty table", { nodes: 0 }, empty, generator, reach, options, recorder);
    generator.close();
  }

  const nodes = smoke ? STATE_NODES_SMOKE : STATE_NODES;
  const title = `a state file of ${nodes} nodes`;
  if (!title.includes(options.only)) return;
  recorder.title(title);
  const generator = new LoadGenerator({ payloadBytes: 200, nodes });
  const saved = join(folder, "saved");
  await saveNodes(generator, saved, batch);
  /** A file of its own for each, which it saves to at its end. */
  let copies = 0;
  const ownCopy = () => {
    const own = join(folder, `nodes-${copies++ % 2}`);
    copyFileSync(saved, own);
    return [`--state-file=${own}`, ...SAVE_FLAGS];
  };
  const restored = [beacon(sources, ownCopy), beacon(compiled, ownCopy)];
  await measure(title, { nodes }, restored, generator, () => {}, options, recorder);
  generator.close();
}

/** Leaves a state file with all nodes of the generator. */
async function saveNodes(generator: LoadGenerator, path: string, batch: number): Promise<void> {
  const target = await startBeacon({ offload: true, batch }, [
    `--state-file=${path}`,
    ...SAVE_FLAGS,
  ]);
  generator.aim(target);
  generator.register();
  await target.stop();
}

/** @param reach what must be done before a packet can be relayed */
async function measure(
  title: string,
  { nodes }: { readonly nodes: number },
  contenders: readonly Contender[],
  generator: LoadGenerator,
  reach: () => void,
  { rounds }: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  const ms = contenders.map((): number[] => []);
  const starts = contenders.map(({ name, start }, i) => async () => {
    const before = performance.now();
    const target = await start();
    generator.aim(target);
    reach();
    const arrived = generator.ping() >= 0;
    ms[i]!.push(performance.now() - before);
    if (!arrived) throw new Error(`${title}: the first packet through ${name} was lost`);
    if (nodes > 0) await mustHave(nodes, target);
    await target.stop(); // the next one starts on an idle core
    return target;
  });
  await eachRound(rounds, starts, async (_, __, round) => {
    const shown = contenders.map(({ name }, i) => `${name}: ${ms[i]!.at(-1)!.toFixed(1)} ms`);
    recorder.progress(`round ${round + 1}  ${shown.join(";  ")}`);
  });
  for (const [i, { name }] of contenders.entries()) {
    const figure = recorder.of(title, { group: "start", program: name, nodes });
    const bar = { bar: { atMost: EMPTY_MS_MAX } };
    figure(`first packet, ${name}`, "ms", ms[i]!, nodes === 0 && name !== "C" ? bar : {});
  }
  const [fromSources = [], fromBinary = []] = ms;
  const ratios = fromBinary.map((value, round) => value / fromSources[round]!);
  recorder.of(title, { group: "start", nodes })("binary over sources", "×", ratios);
}

/** @throws Error if the target restored fewer nodes: then it was fast for a bad reason */
async function mustHave(nodes: number, target: Target): Promise<void> {
  const found = (await statsOf(target)).nodes;
  if (found < nodes) throw new Error(`the state file had ${nodes} nodes, the beacon has ${found}`);
}
