/** Lets a schedule's faults happen, and keeps what came of each. */
import { Random } from "../../../test/e2e/support/random.ts";
import type { Fault } from "./fault.ts";
import type { Sample } from "./growth.ts";
import type { Happened } from "./judge.ts";
import { BEACONS, type BeaconName, PAIRS } from "./pairs.ts";
import type { Planned, Schedule } from "./schedule.ts";
import type { Stage } from "./stage.ts";

const SAMPLE_MS = 1000;
const LOOK_MS = 50;

export interface Performed {
  readonly happened: readonly Happened[];
  readonly samples: Readonly<Record<BeaconName, readonly Sample[]>>;
}

export class Performance {
  readonly #happened: Happened[] = [];
  readonly #samples: Record<BeaconName, Sample[]> = { subject: [], victim: [], bystander: [] };
  /** Names of faults that go on now. */
  readonly #active = new Map<Planned, string>();
  readonly #faults: ReadonlyMap<string, Fault>;
  readonly #startMs = performance.now();
  /** Faults that have begun and are not over yet, with all that they touched. */
  #open = 0;

  /** @param say is told of each fault when it is over */
  constructor(
    private readonly stage: Stage,
    faults: readonly Fault[],
    private readonly say: (text: string) => void,
  ) {
    this.#faults = new Map(faults.map((fault) => [fault.name, fault]));
  }

  async run(schedule: Schedule): Promise<Performed> {
    const sampling = setInterval(() => this.#sample(), SAMPLE_MS);
    const lanes = Map.groupBy(schedule.planned, ({ lane }) => lane).values();
    await Promise.all(
      Array.from(lanes, async (lane) => {
        for (const planned of lane) await this.#attempt(planned);
      }),
    );
    await Bun.sleep(Math.max(schedule.endMs - this.#nowMs, schedule.calmMs));
    clearInterval(sampling);
    return { happened: this.#happened, samples: this.#samples };
  }

  get #nowMs(): number {
    return performance.now() - this.#startMs;
  }

  /**
   * What cannot be done to a beacon that has ended is left out; that it has is what counts then.
   */
  async #attempt(planned: Planned): Promise<void> {
    await Bun.sleep(Math.max(0, planned.atMs - this.#nowMs));
    this.#open++;
    try {
      await this.#let(planned);
    } catch (error) {
      if (BEACONS.every((name) => this.stage.beacons[name].ends.length === 0)) throw error;
      this.#active.delete(planned);
    }
    this.#open--;
  }

  /** Lets one fault happen, and waits until all is well or time is over. */
  async #let(planned: Planned): Promise<void> {
    const fault = this.#faults.get(planned.name)!;
    this.#active.set(planned, fault.name);
    const beganMs = this.#nowMs;
    const underWay = await fault.begin(this.stage, new Random(planned.word));
    for (let leftMs = planned.forMs; leftMs > 0; ) {
      const pauseMs = Math.min(leftMs, LOOK_MS);
      await Bun.sleep(pauseMs);
      if (!this.#goesOn(fault.hiddenBy)) leftMs -= pauseMs;
    }
    await underWay.end();
    this.#active.delete(planned);

    let endedMs = this.#nowMs;
    let trace: string | undefined;
    let wellAfterMs: number | undefined;
    while (this.#nowMs < endedMs + fault.backWithinMs) {
      if (wellAfterMs === undefined) {
        if (this.#goesOn(fault.heldUpBy)) endedMs = this.#nowMs;
        if (await underWay.isWell()) wellAfterMs = this.#nowMs - endedMs;
      }
      trace ??= await underWay.trace();
      if (wellAfterMs !== undefined && trace !== undefined) break;
      await Bun.sleep(LOOK_MS);
    }
    const concerned = PAIRS.flatMap((pair, i) => (fault.concerns(pair) ? [i] : []));
    const { name, backWithinMs } = fault;
    this.#happened.push({ name, beganMs, endedMs, concerned, backWithinMs, wellAfterMs, trace });
    const [atS, forS] = [beganMs / 1000, (endedMs - beganMs) / 1000];
    const well = wellAfterMs === undefined ? "NOT WELL" : `well after ${wellAfterMs.toFixed(0)} ms`;
    this.say(
      `${atS.toFixed(1)} s  ${name}, for ${forS.toFixed(1)} s; ${well}; ${trace ?? "NO TRACE"}`,
    );
  }

  #sample(): void {
    for (const name of BEACONS) {
      const usage = this.stage.beacons[name].usage();
      if (usage !== undefined)
        this.#samples[name].push({ atMs: this.#nowMs, faults: this.#open, ...usage });
    }
  }

  /** Whether one of these goes on now. */
  #goesOn(names: readonly string[] = []): boolean {
    const active = [...this.#active.values()];
    return names.some((name) => active.includes(name));
  }
}
