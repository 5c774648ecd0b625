/**
 * Steps the clock of a directory's server and steps it back, while nodes move between beacons.
 * Then all moves end. Afterwards counts the nodes that a beacon does not find, and measures
 * whether beacons still claim nodes from each other.
 */
import { ClockFleet, NO_COMPILER } from "../harness/clock-fleet.ts";
import { DIRECTORY_PROGRAMS } from "../harness/directory-server.ts";
import { type FleetShape, nodesOf } from "../harness/fleet.ts";
import type { LogSample } from "../harness/log-watch.ts";
import type { Lookups } from "../harness/lookups.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";

const SHAPE: FleetShape = { beacons: 3, nodesEach: 300 };
const MOVES_PER_S = 200;

interface Step {
  readonly title: string;
  readonly offsetS: number;
  readonly seconds: number;
  /** The clock does not step back. */
  readonly stays?: boolean;
}

const STEPS: readonly Step[] = [
  { title: "no step", offsetS: 0, seconds: 10 },
  { title: "+1 h for 10 s", offsetS: 3600, seconds: 10 },
  { title: "+5 s for 10 s", offsetS: 5, seconds: 10 },
  { title: "-5 s for 10 s", offsetS: -5, seconds: 10 },
  { title: "+300 s for 10 s", offsetS: 300, seconds: 10 },
  { title: "-300 s for 10 s", offsetS: -300, seconds: 10 },
  { title: "+1 day for 2 s", offsetS: 86_400, seconds: 2 },
  { title: "+300 s and stays", offsetS: 300, seconds: 10, stays: true },
  { title: "-300 s and stays", offsetS: -300, seconds: 10, stays: true },
];
const STEPS_SMOKE = STEPS.slice(0, 2);

/** Moves before the step and after the step back; then calm, whose last part is measured. */
const TIMES = { beforeS: 5, stepS: Infinity, afterS: 10, calmS: 30, measuredS: 10, sampleMs: 1000 };
const TIMES_SMOKE = {
  beforeS: 0.5,
  stepS: 0.5,
  afterS: 0.5,
  calmS: 0.5,
  measuredS: 0.5,
  sampleMs: 100,
};
/** A calm fleet writes one lease every three seconds for each beacon. */
const CALM_ENTRIES_PER_S_BAR = 2;
const ROUNDS_SHARE = 1 / 6;

interface Measured {
  readonly lookups: Lookups;
  readonly moved: number;
  /** Nodes that beacons claimed again, from start to end. */
  readonly again: number;
  readonly againPerS: number;
  readonly entriesPerS: number;
  readonly fromFuture: number;
  readonly log: LogSample;
}

export async function benchDirectoryClock(
  options: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  if (Bun.which("cc") === null) return recorder.note(`${NO_COMPILER}: nothing was measured`);
  const steps = options.smoke ? STEPS_SMOKE : STEPS;
  const programs = DIRECTORY_PROGRAMS.filter((program) => Bun.which(program) !== null);
  for (const program of DIRECTORY_PROGRAMS)
    if (!programs.includes(program)) recorder.note(`${program} is not installed: left out`);
  for (const step of steps) {
    const cases = programs
      .map((program) => ({ program, title: titleOf(program, step) }))
      .filter(({ title }) => title.includes(options.only));
    const rounds: Measured[][] = cases.map(() => []);
    for (let round = 0; round < Math.ceil(options.rounds * ROUNDS_SHARE); round++) {
      const measured = await Promise.all(
        cases.map(({ program }) => measure(step, program, options)),
      );
      for (const [i, one] of measured.entries()) rounds[i]!.push(one);
    }
    for (const [i, { program, title }] of cases.entries())
      report(title, program, step, rounds[i]!, recorder);
  }
}

const titleOf = (program: string, { title }: Step): string =>
  `${program}'s clock ${title}, ${MOVES_PER_S} moves a second`;

async function measure(
  { offsetS, seconds, stays = false }: Step,
  program: string,
  { batch, smoke }: BenchOptions,
): Promise<Measured> {
  const { beforeS, stepS, afterS, calmS, measuredS, sampleMs } = smoke ? TIMES_SMOKE : TIMES;
  const fleet = await ClockFleet.start(SHAPE, batch, program);
  try {
    fleet.log.start(sampleMs);
    const forS = Math.min(seconds, stepS);
    const moving = fleet.moves.run(beforeS + forS + afterS, MOVES_PER_S, true);
    await Bun.sleep(beforeS * 1000);
    await fleet.step(offsetS, forS, stays);
    await moving;
    await fleet.calm(calmS - measuredS);
    const [began, before] = [
      await fleet.log.sample(),
      await fleet.count((one) => one.nodesClaimedAgain),
    ];
    await fleet.calm(measuredS);
    const [log, again] = [
      await fleet.log.sample(),
      await fleet.count((one) => one.nodesClaimedAgain),
    ];
    const tookS = (log.atMs - began.atMs) / 1000;
    const fromFuture = await fleet.count((one) => one.claimsFromFuture);
    const lookups = await fleet.lookUp();
    return {
      ...{ lookups, log, again, fromFuture, moved: fleet.moves.moved },
      againPerS: (again - before) / tookS,
      entriesPerS: (log.added - began.added) / tookS,
    };
  } finally {
    await fleet.stop();
  }
}

function report(
  title: string,
  program: string,
  step: Step,
  rounds: readonly Measured[],
  recorder: Recorder,
): void {
  recorder.title(title);
  const params = {
    group: "directory clock",
    program,
    offsetS: step.offsetS,
    stays: step.stays ?? false,
    ...SHAPE,
  };
  const record = recorder.of(title, params);
  const figure = (name: string, unit: string, of: (one: Measured) => number, atMost?: number) =>
    record(name, unit, rounds.map(of), atMost === undefined ? {} : { bar: { atMost } });
  const nodes = `nodes with a wrong lookup, of ${nodesOf(SHAPE)}`;
  figure(nodes, "nodes", ({ lookups }) => lookups.nodesWrong, 0);
  figure("wrong lookups", "%", ({ lookups }) => (lookups.wrong / lookups.asked) * 100, 0);
  figure("claimed again in the calm, all beacons", "nodes/s", ({ againPerS }) => againPerS, 0);
  figure("claimed again from start to end, all beacons", "nodes", ({ again }) => again);
  figure("claims from the future, all beacons", "claims", ({ fromFuture }) => fromFuture);
  const calm = "entries in the calm, all beacons";
  figure(calm, "entries/s", ({ entriesPerS }) => entriesPerS, CALM_ENTRIES_PER_S_BAR);
  figure("age of the log's oldest entry", "s", ({ log }) => log.oldestS);
  figure("entries in the log", "entries", ({ log }) => log.length);
  figure("last id of the log, ahead of the clock", "s", ({ log }) => log.idsAheadS);
}
