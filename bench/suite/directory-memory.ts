/**
 * Memory of a directory's server while nodes move: with a steady clock, and with a clock that
 * steps again and again. Also fills a server with little memory, and measures whether the fleet
 * recovers once the moves end.
 */
import { linearRegression } from "simple-statistics";
import { ClockFleet, NO_COMPILER } from "../harness/clock-fleet.ts";
import { DIRECTORY_PROGRAMS } from "../harness/directory-server.ts";
import { type FleetShape, isSettled, showUnsettled } from "../harness/fleet.ts";
import type { LogSample } from "../harness/log-watch.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";

export const MEMORY_MINUTES_DEFAULT = 4;
const SHAPE: FleetShape = { beacons: 3, nodesEach: 300 };
const MOVES_PER_S = 500;
const SAMPLE_MS = 5000;
const SAMPLE_MS_SMOKE = 250;

/** Steps of the server's clock, in turn. */
const STEPS = [
  { offsetS: 3600, seconds: 10 },
  { offsetS: -5, seconds: 10 },
  { offsetS: 300, seconds: 10 },
  { offsetS: -300, seconds: 10 },
  { offsetS: 86_400, seconds: 2 },
  { offsetS: 5, seconds: 10 },
] as const;
/** Steps in one run. The clock is off for a third of the run at most. */
const STEPS_IN_RUN = 12;

/** Limit for flat: growth along the line that fits the samples of the second half. */
const GROWTH_PERCENT_BAR = 5;
/** The log holds 60 s of entries, and at most one node of the stream more. */
const OLDEST_S_BAR = 75;

/** Memory left for the log: some 20 s of moves fill it. */
const ROOM_BYTES = 400_000;
const ROOM_BYTES_SMOKE = 20_000;
/** Step of the clock before the server fills. */
const AHEAD = { offsetS: 3600, seconds: 5 };
const FULL_MS_MAX = 180_000;
/** Moves after the server is full, seconds. */
const FULL_S = 10;
const RECOVERED_S_MAX = 180;
const SMOKE_S = 2;

export async function benchDirectoryMemory(
  options: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  if (Bun.which("cc") === null) return recorder.note(`${NO_COMPILER}: nothing was measured`);
  const { minutes = MEMORY_MINUTES_DEFAULT, only } = options;
  for (const program of DIRECTORY_PROGRAMS) {
    if (Bun.which(program) === null) {
      recorder.note(`${program} is not installed: left out`);
      continue;
    }
    const moving = `${program} under ${MOVES_PER_S} moves a second`;
    const clocks = [
      [`${moving}, its clock steady`, false],
      [`${moving}, its clock stepping`, true],
    ] as const;
    const cases = clocks.filter(([title]) => title.includes(only));
    const measured = await Promise.all(
      cases.map(([, isStepping]) => measureMemory(program, isStepping, minutes, options)),
    );
    for (const [i, [title]] of cases.entries())
      reportMemory(title, program, measured[i]!, recorder);
    const full = `${program} full after its clock was an hour ahead, ${MOVES_PER_S} moves a second`;
    if (full.includes(only)) await measureFull(full, program, options, recorder);
  }
}

async function measureMemory(
  program: string,
  isStepping: boolean,
  minutes: number,
  { batch, smoke }: BenchOptions,
): Promise<readonly LogSample[]> {
  const fleet = await ClockFleet.start(SHAPE, batch, program);
  try {
    const seconds = minutes * 60;
    fleet.log.start(smoke ? SAMPLE_MS_SMOKE : SAMPLE_MS);
    const moving = fleet.moves.run(seconds, MOVES_PER_S, true);
    if (isStepping) await step(fleet, seconds);
    await moving;
    return fleet.log.samples;
  } finally {
    await fleet.stop();
  }
}

async function step(fleet: ClockFleet, seconds: number): Promise<void> {
  const everyS = seconds / STEPS_IN_RUN;
  for (let i = 0; i < STEPS_IN_RUN; i++) {
    const { offsetS, seconds: forS } = STEPS[i % STEPS.length]!;
    const stepS = Math.min(forS, everyS / 3);
    await Bun.sleep((everyS - stepS) * 1000);
    await fleet.step(offsetS, stepS);
  }
}

function reportMemory(
  title: string,
  program: string,
  samples: readonly LogSample[],
  recorder: Recorder,
): void {
  recorder.title(title);
  const params = { group: "directory memory", program, movesPerS: MOVES_PER_S, ...SHAPE };
  const figure = recorder.of(title, params);
  const half = samples.slice(Math.floor(samples.length / 2));
  const mb = ({ memoryBytes }: LogSample) => memoryBytes / 1e6;
  const length = ({ length }: LogSample) => length;
  figure("memory used, growth over the second half", "%", [growthOf(half, mb)], {
    bar: { atMost: GROWTH_PERCENT_BAR },
  });
  // Entries a second depend on the machine's load: a beacon that is late puts more nodes into one
  // entry.
  figure("length of the log, growth over the second half", "%", [growthOf(half, length)]);
  const oldest = Math.max(...half.map(({ oldestS }) => oldestS));
  figure("greatest age of the log's oldest entry, second half", "s", [oldest], {
    bar: { atMost: OLDEST_S_BAR },
  });
  figure("memory used of each sample", "MB", samples.map(mb));
  figure("length of the log of each sample", "entries", samples.map(length));
}

/** Growth along the line that fits the samples, in per cent of their mean. */
function growthOf(samples: readonly LogSample[], read: (sample: LogSample) => number): number {
  const points = samples.map((sample) => [sample.atMs, read(sample)]);
  const mean = points.reduce((sum, [, value]) => sum + value!, 0) / points.length;
  return ((linearRegression(points).m * (samples.at(-1)!.atMs - samples[0]!.atMs)) / mean) * 100;
}

async function measureFull(
  title: string,
  program: string,
  { batch, smoke }: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  recorder.title(title);
  const fleet = await ClockFleet.start(SHAPE, batch, program);
  try {
    // Ids of the log are ahead of the clock then: a time does not tell which entries are old.
    const stepS = smoke ? SMOKE_S : AHEAD.seconds;
    await Promise.all([
      fleet.moves.run(stepS, MOVES_PER_S, true),
      fleet.step(AHEAD.offsetS, stepS),
    ]);
    const { memoryBytes } = await fleet.server.use();
    const room = smoke ? ROOM_BYTES_SMOKE : ROOM_BYTES;
    await fleet.server.command("CONFIG", "SET", "maxmemory-policy", "noeviction");
    await fleet.server.command("CONFIG", "SET", "maxmemory", String(memoryBytes + room));
    const began = performance.now();
    const isFull = async () =>
      (await fleet.stats()).some(({ directory }) => directory!.state === "full");
    while (!(await isFull())) {
      if (performance.now() - began > FULL_MS_MAX) throw new Error("the server was never full");
      await fleet.moves.run(1, MOVES_PER_S, true);
    }
    const fullS = (performance.now() - began) / 1000;
    await fleet.moves.run(smoke ? SMOKE_S : FULL_S, MOVES_PER_S, true);
    const calmed = performance.now();
    const isWell = async () => (await fleet.stats()).every((stats) => isSettled(stats, SHAPE));
    const limitS = smoke ? SMOKE_S : RECOVERED_S_MAX;
    let tookS = 0;
    for (; !(await isWell()) && tookS < limitS; tookS = (performance.now() - calmed) / 1000)
      await fleet.calm(0.5);
    const recovered = await isWell();
    if (!recovered)
      recorder.note(`${title}: ${(await fleet.stats()).map(showUnsettled).join("; ")}`);
    const lookups = await fleet.lookUp();
    const params = { group: "directory full", program, movesPerS: MOVES_PER_S, ...SHAPE };
    const figure = recorder.of(title, params);
    figure("until full", "s", [fullS], { better: "more" });
    figure("recovered by itself", "fleets", [Number(recovered)], {
      better: "more",
      bar: { atLeast: 1 },
    });
    figure("from the last move until recovered, or given up", "s", [tookS]);
    figure("nodes with a wrong lookup then", "nodes", [lookups.nodesWrong], { bar: { atMost: 0 } });
  } finally {
    await fleet.stop();
  }
}
