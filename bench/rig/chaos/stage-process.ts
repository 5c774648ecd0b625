/** The process that a chaos run takes place in. Started inside a namespace by runs/chaos.ts, and told what to do in its arguments. */
import { lanesOf } from "./faults.ts";
import { growthOf } from "./growth.ts";
import { judgeFaults, judgePairs } from "./judge.ts";
import { Performance } from "./performance.ts";
import type { ChaosOptions, ChaosResult } from "./result.ts";
import { type Pace, scheduleOf } from "./schedule.ts";
import { Stage } from "./stage.ts";

/** What this process tells its parent: lines while it goes on, and at last a result or why there is none. */
export type Told = { readonly say: string } | { readonly result: ChaosResult } | { readonly error: string };

/** An act a minute. */
const ACT: Omit<Pace, "acts"> = { actMs: 46_000, calmMs: 14_000, brisk: false };
const SMOKE: Pace = { acts: 1, actMs: 30_000, calmMs: 7_000, brisk: true };

const tell = (told: Told) => process.send!(told);

async function run({ folder, seed, minutes, smoke }: ChaosOptions): Promise<ChaosResult> {
  const stage = await Stage.build(folder);
  const { subject, victim, bystander } = stage.beacons;
  const lanes = lanesOf(stage.clock !== undefined);
  const schedule = scheduleOf(lanes, smoke ? SMOKE : { acts: Math.round(minutes), ...ACT }, seed);
  const traffic = await stage.traffic;
  traffic.begin();
  const faults = lanes.flatMap((lane) => lane.faults);
  const performance = new Performance(stage, faults, (say) => tell({ say }));
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

try {
  const result = await run(JSON.parse(process.argv[2]!) as ChaosOptions);
  tell({ result });
} catch (error) {
  tell({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
}
process.disconnect?.();
process.exit();
