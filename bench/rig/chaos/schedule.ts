/**
 * When which fault happens, drawn from a seed. Pure.
 *
 * A run is a row of acts, each with a calm after it in which nothing happens and everything must be
 * well. Within an act, faults come in lanes: those of one lane one after the other, those of
 * different lanes whenever it falls, so that several happen at once.
 */
import { Random } from "../../../test/e2e/support/random.ts";

/** In milliseconds; the least is what a brisk run takes. */
export type Span = readonly [least: number, most: number];

export interface LaneFault {
  readonly name: string;
  /** How long it lasts once it has begun. */
  readonly forMs: Span;
}

export interface Lane {
  /** Each is had once before any is had again, in a new order every time. */
  readonly faults: readonly LaneFault[];
  /** Before each of them. */
  readonly pauseMs: Span;
}

export interface Planned {
  readonly name: string;
  /** The lane's number. */
  readonly lane: number;
  /** From the start of the run. One that is late delays those behind it in its lane. */
  readonly atMs: number;
  readonly forMs: number;
  /** For whatever the fault has to choose: an unsigned 32-bit number. */
  readonly word: number;
}

export interface Pace {
  readonly acts: number;
  /** At most; an act that is brisk ends with its last fault. */
  readonly actMs: number;
  readonly calmMs: number;
  /**
   * Each fault happens once and lasts as little as can be, after a pause within `BRISK_PAUSE_MS`.
   */
  readonly brisk: boolean;
}

export interface Schedule {
  /** In the order of their beginnings. */
  readonly planned: readonly Planned[];
  /** Start and end of each calm, if nothing is late. */
  readonly calms: readonly (readonly [fromMs: number, toMs: number])[];
  readonly calmMs: number;
  readonly endMs: number;
}

/** Not one number: else the first of all lanes would come at once. */
const BRISK_PAUSE_MS: Span = [200, 600];
/**
 * What parts the seeds of lanes: a large odd number, so that they share no bits with seeds that are
 * small.
 */
const LANE_SEEDS = 0x9e37_79b1;

export function scheduleOf(lanes: readonly Lane[], pace: Pace, seed: number): Schedule {
  const draws = lanes.map(
    (lane, i) => new LaneDraw(lane, i, pace.brisk, seed + Math.imul(i + 1, LANE_SEEDS)),
  );
  const planned: Planned[] = [];
  const calms: [number, number][] = [];
  let startMs = 0;
  for (let act = 0; act < pace.acts; act++) {
    const drawn = draws.flatMap((draw) => draw.act(startMs, startMs + pace.actMs));
    planned.push(...drawn);
    const lastMs = Math.max(startMs, ...drawn.map(({ atMs, forMs }) => atMs + forMs));
    const actEndMs = pace.brisk ? lastMs : startMs + pace.actMs;
    startMs = actEndMs + pace.calmMs;
    calms.push([actEndMs, startMs]);
  }
  planned.sort((a, b) => a.atMs - b.atMs);
  return { planned, calms, calmMs: pace.calmMs, endMs: startMs };
}

/** What comes in one lane, act by act. */
class LaneDraw {
  readonly #random: Random;
  /** Those of this round that have not been had yet. */
  #left: LaneFault[] = [];
  #rounds = 0;

  constructor(
    private readonly lane: Lane,
    private readonly number: number,
    private readonly brisk: boolean,
    seed: number,
  ) {
    this.#random = new Random(seed);
    // the first numbers of xorshift are as alike as their seeds
    for (let i = 0; i < 8; i++) this.#random.word();
  }

  act(fromMs: number, toMs: number): Planned[] {
    const planned: Planned[] = [];
    for (let atMs = fromMs; ; ) {
      const fault = this.#next();
      if (fault === undefined) return planned;
      atMs += this.#within(this.brisk ? BRISK_PAUSE_MS : this.lane.pauseMs);
      const forMs = this.brisk ? fault.forMs[0] : this.#within(fault.forMs);
      if (atMs + forMs > toMs) {
        this.#left.unshift(fault); // the first of the next act
        return planned;
      }
      planned.push({ name: fault.name, lane: this.number, atMs, forMs, word: this.#random.word() });
      atMs += forMs;
    }
  }

  #next(): LaneFault | undefined {
    if (this.#left.length === 0 && !(this.brisk && this.#rounds > 0)) {
      this.#left = this.#shuffled(this.lane.faults);
      this.#rounds++;
    }
    return this.#left.shift();
  }

  #within([least, most]: Span): number {
    return least + this.#random.below(most - least + 1);
  }

  /** Fisher and Yates's. */
  #shuffled(faults: readonly LaneFault[]): LaneFault[] {
    const all = [...faults];
    for (let i = all.length - 1; i > 0; i--) {
      const j = this.#random.below(i + 1);
      [all[i], all[j]] = [all[j]!, all[i]!];
    }
    return all;
  }
}
