/** What a fault is, and how what it leaves behind is found. */
import type { Stats } from "../../../src/beacon.ts";
import type { LogLine } from "../../../test/e2e/support/program.ts";
import type { Random } from "../../../test/e2e/support/random.ts";
import type { ChaosBeacon } from "./beacons.ts";
import type { Concerned } from "./pairs.ts";
import type { LaneFault } from "./schedule.ts";
import type { Stage } from "./stage.ts";

export interface Fault extends LaneFault {
  /** The pairs that it may disturb while it lasts and until all is well. */
  readonly concerns: Concerned;
  /** After its end all is well within this time. */
  readonly backWithinMs: number;
  /** Names of faults that must be over, too, before what this one has touched can be well. */
  readonly heldUpBy?: readonly string[];
  /** Names of faults during which this one leaves no trace: it lasts longer by as much. */
  readonly hiddenBy?: readonly string[];
  begin(stage: Stage, random: Random): Promise<UnderWay>;
}

/** A fault that has begun. */
export interface UnderWay {
  /** Takes it away. */
  end(): Promise<void>;
  /** Whether what it touched is well again; asked after the end until it is. */
  isWell(): Promise<boolean>;
  /**
   * What names it in the log or the numbers of a beacon, once there is something; asked from its
   * end until it is well.
   */
  trace(): Promise<string | undefined>;
}

export const nothing = async (): Promise<void> => {};

/** Finds a line that the beacon logs from now on. */
export function logs(beacon: ChaosBeacon, pattern: RegExp): () => Promise<string | undefined> {
  const since = beacon.log();
  return async () => since(({ msg }: LogLine) => pattern.test(msg))?.msg;
}

/** Whether the beacon has logged such a line since now. */
export function hasLogged(beacon: ChaosBeacon, pattern: RegExp): () => Promise<boolean> {
  const find = logs(beacon, pattern);
  return async () => (await find()) !== undefined;
}

/**
 * Tells how much a number of a beacon that has shown its numbers before has risen since now, if it
 * has.
 */
export async function rises(
  beacon: ChaosBeacon,
  name: string,
  read: (stats: Stats) => number,
): Promise<() => Promise<string | undefined>> {
  const now = async () => {
    const stats = await beacon.stats();
    return stats === undefined ? undefined : read(stats);
  };
  const before = (await now()) ?? read(beacon.lastStats!);
  return async () => {
    const after = (await now()) ?? before;
    return after > before ? `${name} rose by ${after - before}` : undefined;
  };
}
