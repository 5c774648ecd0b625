/** What a chaos run found. */
import type { Growth, Sample } from "./growth.ts";
import type { FaultVerdict, Happened, PairVerdict } from "./judge.ts";
import { BEACONS, type BeaconName } from "./pairs.ts";
import type { Schedule } from "./schedule.ts";

export interface ChaosOptions {
  readonly folder: string;
  readonly seed: number;
  readonly minutes: number;
  readonly smoke: boolean;
}

export interface ChaosResult {
  readonly seed: number;
  readonly schedule: Schedule;
  readonly faults: readonly FaultVerdict[];
  readonly pairs: readonly PairVerdict[];
  readonly happened: readonly Happened[];
  readonly samples: Readonly<Record<BeaconName, readonly Sample[]>>;
  /** How beacons ended that nobody had ended. */
  readonly ends: Readonly<Record<BeaconName, readonly string[]>>;
  /** Of the beacons that ran all the time; none in a run with less than two calms. */
  readonly growth: Readonly<Partial<Record<BeaconName, Growth>>>;
  /** What was left out since the machine lacks something. */
  readonly leftOut: readonly string[];
}

/** Outside of the faults that concern a pair, so much of what it sends must arrive. */
const DELIVERY_MIN = 0.99;
/**
 * Files and threads may differ by what comes and goes: the connection to the registry for keys, a
 * helper of the runtime.
 */
const FILES_GROWTH_MAX = 2;
const THREADS_GROWTH_MAX = 2;
/**
 * The collector moves some 15 MB to and fro; each worker that died leaves its share of the
 * runtime's heap for the next.
 */
const GROWTH_MB_MAX = 25;

/** Expectations, in words, and whether they hold. */
export function expectations(result: ChaosResult): [what: string, holds: boolean][] {
  const all: [string, boolean][] = [];
  for (const { name, times, untraced, unwell } of result.faults) {
    all.push([`${name}: it happened`, times > 0]);
    all.push([`${name}: no trace of it, ${untraced} of ${times} times`, untraced === 0]);
    all.push([`${name}: not well in time, ${unwell} of ${times} times`, unwell === 0]);
  }
  for (const { title, seconds, silentSeconds, sent, delivered } of result.pairs) {
    all.push([`pair ${title}: some seconds that no fault concerned`, seconds > 0]);
    all.push([
      `pair ${title}: ${silentSeconds} of ${seconds} seconds without a packet`,
      silentSeconds === 0,
    ]);
    all.push([
      `pair ${title}: ${delivered} of ${sent} delivered`,
      delivered >= DELIVERY_MIN * sent,
    ]);
  }
  for (const name of BEACONS) {
    for (const end of result.ends[name]) all.push([`the ${name} ended by itself: ${end}`, false]);
    const growth = result.growth[name];
    if (growth === undefined) continue;
    for (const [of, max] of [
      ["files", FILES_GROWTH_MAX],
      ["threads", THREADS_GROWTH_MAX],
      ["residentMb", GROWTH_MB_MAX],
    ] as const) {
      const [first, last] = [growth.first[of], growth.last[of]];
      all.push([
        `the ${name}: ${of} from ${first.toFixed(1)} to ${last.toFixed(1)}`,
        last - first <= max,
      ]);
    }
  }
  return all;
}
