/**
 * The fleet's clock: milliseconds since 1970, by which beacons date claims. No wall clock moves it
 * once the fleet runs.
 *
 * Every beacon counts on by its CLOCK_MONOTONIC. Each entry carries its writer's time, and a reader
 * whose clock is behind that raises it. So no clock goes back, none is behind what it has read, and
 * all go with the fastest (50 ppm of drift are 4 s a day). A small raise counts from its moment on,
 * so that dates that were published stay as they are. A jump, and the first raise of a process,
 * count for all moments: a jump raises all clocks, by whatever error, and two moments at two
 * beacons compare as they were.
 */
import { stepped } from "./entries.ts";

/** Limit of an entry's time ahead of this clock; all clocks would follow a later one. */
export const AHEAD_MS_MAX = 30 * 86_400_000;
/** A raise by less is not worth another offset: it is how much the network's delay varies. */
const RAISE_MS = 0.25;
/** Offsets that are kept: several minutes of drift. */
const OFFSETS_MAX = 64;
/** A larger raise is logged and counted: only a suspended host drifts so far. */
const JUMP_MS = 1000;

/** Time less CLOCK_MONOTONIC, from a moment on. */
interface Offset {
  fromMs: number;
  ms: number;
}

export class FleetClock {
  #offsets: Offset[];
  #hasBegun = false;
  /** Whether another beacon's time was compared since `begin`. */
  #isCompared = false;

  /** @param monotonicMs CLOCK_MONOTONIC @param wallMs host's time, a guess until `begin` */
  constructor(
    private readonly monotonicMs: () => number,
    wallMs: number,
  ) {
    this.#offsets = [{ fromMs: Number.NEGATIVE_INFINITY, ms: wallMs - monotonicMs() }];
  }

  /** Whether the fleet's time is known. */
  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  /** Sets the time, before any is compared. */
  begin(timeMs: number): void {
    this.#hasBegun = true;
    this.#offsets = [{ fromMs: Number.NEGATIVE_INFINITY, ms: timeMs - this.monotonicMs() }];
  }

  /** Another beacon's clock showed this time. @returns ms that this one jumped, or 0 */
  raise(timeMs: number): number {
    const fromMs = this.monotonicMs();
    const behindMs = timeMs - fromMs - this.#offsets.at(-1)!.ms;
    const isFirst = this.#hasBegun && !this.#isCompared; // `begin` knew no better
    this.#isCompared ||= isFirst;
    if (behindMs > JUMP_MS || (isFirst && behindMs > 0)) {
      for (const offset of this.#offsets) offset.ms += behindMs;
      return behindMs > JUMP_MS ? behindMs : 0;
    }
    if (behindMs < RAISE_MS) return 0;
    this.#offsets.push({ fromMs, ms: timeMs - fromMs });
    if (this.#offsets.length > OFFSETS_MAX) this.#offsets.shift();
    return 0;
  }

  /** Whether no clock can have shown this time yet. */
  isTooFarAhead(timeMs: number): boolean {
    return timeMs > this.nowMs() + AHEAD_MS_MAX;
  }

  nowMs(): number {
    return this.timeOf(this.monotonicMs());
  }

  /** The time at a moment, by what is known now. */
  timeOf(monotonicMs: number): number {
    const offsets = this.#offsets;
    let i = offsets.length - 1;
    while (i > 0 && offsets[i]!.fromMs > monotonicMs) i--;
    return stepped(monotonicMs + offsets[i]!.ms);
  }

  /** The moment that has this time. */
  momentOf(timeMs: number): number {
    return timeMs - this.#offsets.at(-1)!.ms;
  }
}
