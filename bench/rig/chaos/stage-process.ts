/** The process that a chaos run takes place in, started inside a namespace by runs/chaos.ts. */
import { obey } from "../remote.ts";
import { lanesOf } from "./faults.ts";
import { growthOf } from "./growth.ts";
import { judgeFaults, judgePairs } from "./judge.ts";
import { Performance } from "./performance.ts";
import type { ChaosOptions, ChaosResult } from "./result.ts";
import { type Pace, scheduleOf } from "./schedule.ts";
import { Stage } from "./stage.ts";

/** An act a minute. */
const ACT: Omit<Pace, "acts"> = { actMs: 46_000, calmMs: 14_000, brisk: false };
const SMOKE: Pace = { acts: 1, actMs: 30_000, calmMs: 7_000, brisk: true };

async function run({ folder, seed, minutes, smoke }: ChaosOptions): Promise<ChaosResult> {
  const stage = await Stage.build(folder);
  const { subject, victim, bystander } = stage.beacons;
  const lanes = lanesOf(stage.clock !== undefined);
  const schedule = scheduleOf(lanes, smoke ? SMOKE : { acts: Math.round(minutes), ...ACT }, seed);
  const traffic = await stage.traffic;
  traffic.begin();
  const faults = lanes.flatMap((lane) => lane.faults);
  const performance = new Performance(stage, faults, console.log);
  const { happened, samples } = await performance.run(schedule);
  await traffic.stop();
  const ends = { subject: subject.ends, victim: victim.ends, bystander: bystander.ends };
  await stage.close();
  const growth = Object.fromEntries(
    (["subject", "bystander"] as const).flatMap((name) => {
      const found = growthOf(samples[name], schedule.calms);
      return found === undefined ? [] : [[name, found]];
    }),
  );
  return {
    seed,
    schedule,
    faults: judgeFaults(
      faults.map(({ name }) => name),
      traffic.deliveries,
      happened,
    ),
    pairs: judgePairs(traffic.deliveries, happened),
    happened,
    samples,
    ends,
    growth,
    leftOut: stage.clock === undefined ? ["clock jumps, which need a C compiler (cc)"] : [],
  };
}

obey(run);
