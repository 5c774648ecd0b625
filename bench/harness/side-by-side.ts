/**
 * Contenders side by side: each round all of them are started and loaded in turn, and compared by
 * CPU time a packet.
 */
import type { Loaded } from "./loaded.ts";
import type { BenchOptions } from "./options.ts";
import type { Figure, Recorder } from "./results.ts";
import { eachRound } from "./rounds.ts";
import type { Bar } from "./statistics.ts";

/** Short against the moods of a shared machine, long against the turn itself. */
const SLICE_NS = 100e6;

/** CPU time a packet of `subject` over that of `against`, both names of contenders. */
export interface Ratio {
  readonly name: string;
  readonly subject: string;
  readonly against: string;
  readonly bar?: Bar;
  /** Of the workers alone, where they are counted by themselves. */
  readonly ofWorkers?: boolean;
  /** Turn the ratio over: how many times cheaper `subject` is. */
  readonly inverse?: boolean;
}

export interface Comparison {
  readonly title: string;
  readonly params: NonNullable<Figure["params"]>;
  /** What is counted, one of it: "packet". */
  readonly unit: string;
  readonly contenders: readonly { readonly name: string; start(): Promise<Loaded> }[];
  readonly ratios: readonly Ratio[];
}

/**
 * Measures a comparison and records its figures.
 * @returns packets that each contender lost, in the order given
 */
export async function compareSideBySide(
  { title, params, unit, contenders, ratios }: Comparison,
  { rounds, seconds, warmUpSeconds }: Pick<BenchOptions, "rounds" | "seconds" | "warmUpSeconds">,
  recorder: Recorder,
): Promise<number[]> {
  const cpu = contenders.map((): number[] => []);
  const workers = contenders.map((): number[] => []);
  const rate = contenders.map((): number[] => []);
  const lost = contenders.map(() => 0);
  const starts = contenders.map(({ start }) => start);
  await eachRound(rounds, starts, async (loaded, turn, round) => {
    for (const one of turn) one.warmUp(warmUpSeconds);
    for (const one of turn) await one.begin();
    for (let elapsedNs = 0; elapsedNs < seconds * 1e9; elapsedNs += SLICE_NS) {
      for (const one of turn) one.slice(SLICE_NS);
      await Bun.sleep(0); // signals and the time limit get their turn
    }
    const shown: string[] = [];
    for (const [i, one] of loaded.entries()) {
      cpu[i]!.push(one.cpuNsPerPacket);
      if (one.workersNsPerPacket !== undefined) workers[i]!.push(one.workersNsPerPacket);
      rate[i]!.push(one.packetsPerS);
      lost[i]! += one.lost;
      shown.push(await one.show());
    }
    recorder.progress(`round ${round + 1}  ${shown.join(";  ")}`);
  });
  const figure = recorder.of(title, params);
  for (const { name, subject, against, bar, ofWorkers = false, inverse = false } of ratios) {
    const cpuOf = (name: string) =>
      (ofWorkers ? workers : cpu)[contenders.findIndex((contender) => contender.name === name)]!;
    const values = cpuOf(subject).map((ns, round) => {
      const ratio = ns / cpuOf(against)[round]!;
      return inverse ? 1 / ratio : ratio;
    });
    figure(name, "×", values, { better: inverse ? "more" : "less", ...(bar && { bar }) });
  }
  for (const [i, { name }] of contenders.entries()) {
    figure(`CPU a ${unit}, ${name}`, "ns", cpu[i]!);
    if (workers[i]!.length > 0)
      figure(`CPU a ${unit} of workers alone, ${name}`, "ns", workers[i]!);
    figure(`${unit}s a second, ${name}`, "/s", rate[i]!, { better: "more" });
    if (lost[i]! > 0) recorder.note(`${title}: ${lost[i]} ${unit}s were lost, ${name}`);
  }
  return lost;
}
