/** CPU time per relayed packet: the beacon against the reference in C, and against itself. */
import { directoryProgram, NO_DIRECTORY_PROGRAM } from "../harness/directory-server.ts";
import { LoadedRelay } from "../harness/loaded-relay.ts";
import type { BenchOptions } from "../harness/options.ts";
import { OtherFleet } from "../harness/other-fleet.ts";
import { overVeth, vethObstacle } from "../harness/place.ts";
import type { Recorder } from "../harness/results.ts";
import { compareSideBySide } from "../harness/side-by-side.ts";
import { compileReference, pinGenerator } from "../harness/targets.ts";
import { type Case, relayCases, withOther } from "./relay-cases.ts";

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
  if (one.movesPerS !== undefined)
    return measureInDirectory(one, one.movesPerS, reference, options, recorder);
  if (one.veth === undefined) return measure(one, reference, options, recorder);
  const missing = vethObstacle();
  if (missing !== undefined) return recorder.note(`${one.title}: left out, it needs ${missing}`);
  await overVeth(one.veth.gro, async (place) => {
    const contenders = one.contenders.map((contender) => ({ ...contender, place }));
    await measure({ ...one, contenders }, reference, options, recorder);
  });
}

async function measureInDirectory(
  one: Case,
  movesPerS: number,
  reference: string,
  options: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  if (directoryProgram() === undefined)
    return recorder.note(`${one.title}: left out, ${NO_DIRECTORY_PROGRAM}`);
  const others = await OtherFleet.start(movesPerS, options);
  try {
    const contenders = one.contenders.map(({ flags = [], ...contender }) => ({
      ...contender,
      flags: [...flags, "--self-check=off", ...(contender.inDirectory ? others.flags : [])],
    }));
    await measure({ ...one, contenders }, reference, options, recorder);
  } finally {
    await others.stop();
  }
}

async function measure(
  { contenders, ...one }: Case,
  reference: string,
  options: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  const starts = contenders.map((contender) => ({
    name: contender.name,
    start: () => LoadedRelay.start(contender, reference, options.batch),
  }));
  const rounds = one.coarse ? Math.ceil(options.rounds / 2) : options.rounds;
  await compareSideBySide(
    { ...one, unit: "packet", contenders: starts },
    { ...options, rounds },
    recorder,
  );
}
