/** CPU time per relayed packet: the beacon against the reference in C, and against itself. */
import { LoadedRelay } from "../harness/loaded-relay.ts";
import type { BenchOptions } from "../harness/options.ts";
import { overVeth, vethObstacle } from "../harness/place.ts";
import type { Recorder } from "../harness/results.ts";
import { eachRound } from "../harness/rounds.ts";
import { compileReference, pinGenerator } from "../harness/targets.ts";
import { type Case, relayCases, withOther } from "./relay-cases.ts";

/**
 * What is compared runs beside each other and is loaded in turn, in slices this long: short against the moods of a shared
 * machine, long against the turn itself.
 */
const SLICE_NS = 100e6;

export async function benchRelay(options: BenchOptions, recorder: Recorder): Promise<void> {
  pinGenerator();
  const reference = compileReference();
  const { smoke, only, against } = options;
  const cases = relayCases(smoke)
    .filter(({ title }) => title.includes(only))
    .map((one) => (against === undefined ? one : withOther(against, one)));
  if (against !== undefined) recorder.note(`"other" is the checkout in ${against}`);
  for (const [i, one] of cases.entries()) {
    recorder.title(`${one.title} (${i + 1} of ${cases.length})`);
    await measureWhereItBelongs(one, reference, options, recorder);
  }
}

async function measureWhereItBelongs(
  one: Case,
  reference: string,
  options: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  if (one.veth === undefined) return measure(one, reference, options, recorder);
  const missing = vethObstacle();
  if (missing !== undefined) return recorder.note(`${one.title}: left out, it needs ${missing}`);
  await overVeth(one.veth.gro, async (place) => {
    const contenders = one.contenders.map((contender) => ({ ...contender, place }));
    await measure({ ...one, contenders }, reference, options, recorder);
  });
}

async function measure(
  { title, params, contenders, ratios }: Case,
  reference: string,
  { rounds, seconds, batch }: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  const cpu = contenders.map((): number[] => []);
  const rate = contenders.map((): number[] => []);
  let lost = 0;
  const starts = contenders.map((contender) => () => LoadedRelay.start(contender, reference, batch));
  await eachRound(rounds, starts, async (relays, turn, round) => {
    for (const relay of turn) relay.warmUp(seconds / 2);
    for (const relay of turn) await relay.begin();
    for (let elapsedNs = 0; elapsedNs < seconds * 1e9; elapsedNs += SLICE_NS) {
      for (const relay of turn) relay.slice(SLICE_NS);
    }
    const shown: string[] = [];
    for (const [i, relay] of relays.entries()) {
      cpu[i]!.push(relay.cpuNsPerPacket);
      rate[i]!.push(relay.packetsPerS);
      lost += relay.lost;
      shown.push(await relay.show());
    }
    recorder.progress(`round ${round + 1}  ${shown.join(";  ")}`);
  });
  const cpuOf = (name: string) => cpu[contenders.findIndex((contender) => contender.name === name)]!;
  for (const { name, subject, against, bar, inverse } of ratios) {
    const values = cpuOf(subject).map((ns, round) => {
      const ratio = ns / cpuOf(against)[round]!;
      return inverse ? 1 / ratio : ratio;
    });
    recorder.figure({
      case: title,
      name,
      unit: "×",
      better: inverse ? "more" : "less",
      values,
      ...(bar && { bar }),
      params,
    });
  }
  for (const [i, { name }] of contenders.entries()) {
    recorder.figure({
      case: title,
      name: `CPU a packet, ${name}`,
      unit: "ns",
      better: "less",
      values: cpu[i]!,
      params,
    });
    recorder.figure({
      case: title,
      name: `packets a second, ${name}`,
      unit: "/s",
      better: "more",
      values: rate[i]!,
      params,
    });
  }
  if (lost > 0) recorder.note(`${title}: ${lost} packets were lost`);
}
