/**
 * Limits of so many packets a second by source, whatever the number of sources: a bounded sketch in
 * shared memory instead of a table.
 *
 * A source is a hash. It names a line of eight cells, which is a cache line, and two cells in it. A
 * cell holds the time at which everything that was let in through it will have been paid for, at
 * the limit's rate: a packet moves it on by 1/rate, and is let in as long as that is not further
 * ahead of now than the burst (the generic cell rate algorithm of ITU-T I.371, as a virtual clock).
 * Sources that share a cell only ever make it too late, so of a source's two the earlier one
 * counts, and a packet moves each no further than to the source's new time (conservative update,
 * Estan and Varghese 2002). A source is limited too early only if both of its cells are ahead
 * because of others; never too late. No source has an entry, so a flood of sources evicts nobody.
 *
 * All threads read and write the cells, without locks or atomics: when two do so within the same
 * nanoseconds, one packet may go uncounted, in the source's favour.
 */
import { LIMITS, type Limit } from "./counters.ts";
import { SOURCE_LINE_FLOATS } from "./memory.ts";

export const RELAY_LIMIT = limitNumber("relay");
export const RELAY_ADDRESS_LIMIT = limitNumber("relay_address");
export const PUNCH_SOURCE_LIMIT = limitNumber("punch_source");
export const PUNCH_LIMIT = limitNumber("punch");
export const NEW_NODE_LIMIT = limitNumber("new_node");
export const ANSWER_LIMIT = limitNumber("answer");
export const ENDPOINT_HOLD = limitNumber("endpoint_hold");

/** Grants to verify: as many as the host can spare; no operator's limit. */
export const GRANT_RATE = LIMITS.length;

function limitNumber(limit: Limit): number {
  return LIMITS.indexOf(limit);
}

// Floats of a rate.
/** Nanoseconds from one packet to the next, 0 for no limit. */
const INTERVAL_NS = 0;
/** How far ahead of now a cell may be. */
const AHEAD_NS = 1;

/** Where limits have their rates and their cells, as SharedMemory has them for all threads. */
export interface LimitMemory {
  readonly floats: Float64Array;
  /** First float of a limit's rate. */
  rate(limit: number): number;
  /** First float of a limit's lines for sources, and their number, a power of two. */
  sources(limit: number): { readonly at: number; readonly lines: number };
}

/** One limit, for the thread that made it. */
export class RateLimit {
  protected readonly floats: Float64Array;
  protected readonly rate: number;
  readonly #cells: number;
  /** To be shifted out of a hash, so that what is left is a line. */
  readonly #lineShift: number;

  /** @param limit RELAY_LIMIT or another that is a rate */
  constructor(memory: LimitMemory, limit: number) {
    const { at, lines } = memory.sources(limit);
    this.floats = memory.floats;
    this.rate = memory.rate(limit);
    this.#cells = at;
    this.#lineShift = 32 - Math.log2(lines);
    if (!Number.isInteger(this.#lineShift))
      throw new Error("a limit's lines must be a power of two");
  }

  /** Whether there is a limit. */
  get isOn(): boolean {
    return this.floats[this.rate + INTERVAL_NS] !== 0;
  }

  /**
   * Lets in as many of some packets of one source as the limit allows.
   * @param source a hash, all of whose 32 bits count
   * @param nowNs a clock that all threads share
   * @returns how many
   */
  take(source: number, packets: number, nowNs: number): number {
    const floats = this.floats;
    const intervalNs = floats[this.rate + INTERVAL_NS]!;
    if (intervalNs === 0) return packets;
    const line = this.#lineOf(source);
    const one = line + (source & 7);
    const other = line + otherCellOf(source);
    const beginsNs = Math.max(Math.min(floats[one]!, floats[other]!), nowNs);
    const aheadNs = nowNs + floats[this.rate + AHEAD_NS]! - beginsNs;
    let taken = packets;
    if (aheadNs < packets * intervalNs) {
      taken = Math.floor(aheadNs / intervalNs);
      if (taken <= 0) return 0;
    }
    const endsNs = beginsNs + taken * intervalNs;
    if (floats[one]! < endsNs) floats[one] = endsNs;
    if (floats[other]! < endsNs) floats[other] = endsNs;
    return taken;
  }

  /** How many of some packets of a source `take` would let in. Changes nothing. */
  room(source: number, packets: number, nowNs: number): number {
    const floats = this.floats;
    const intervalNs = floats[this.rate + INTERVAL_NS]!;
    if (intervalNs === 0) return packets;
    const aheadNs = nowNs + floats[this.rate + AHEAD_NS]! - Math.max(this.#beginsNs(source), nowNs);
    if (aheadNs >= packets * intervalNs) return packets;
    return Math.max(0, Math.floor(aheadNs / intervalNs));
  }

  /** Packets a second, 0 for no limit. */
  get perSecond(): number {
    const intervalNs = this.floats[this.rate + INTERVAL_NS]!;
    return intervalNs === 0 ? 0 : Math.round(1e9 / intervalNs);
  }

  /** Used part of a source's burst, 0 to 1; at 1, packets are dropped. Changes nothing. */
  used(source: number, nowNs: number): number {
    const floats = this.floats;
    const intervalNs = floats[this.rate + INTERVAL_NS]!;
    if (intervalNs === 0) return 0;
    const usedNs = this.#beginsNs(source) - nowNs;
    // A packet that finds less than its own part of the burst left is dropped.
    const roomNs = floats[this.rate + AHEAD_NS]! - intervalNs;
    if (usedNs > roomNs) return 1;
    return roomNs <= 0 ? 0 : Math.max(0, usedNs / (roomNs + intervalNs));
  }

  /** When all that was let in of a source will have been paid for. */
  #beginsNs(source: number): number {
    const line = this.#lineOf(source);
    return Math.min(this.floats[line + (source & 7)]!, this.floats[line + otherCellOf(source)]!);
  }

  /** First cell of a source's line. */
  #lineOf(source: number): number {
    const line = this.#lineShift === 32 ? 0 : source >>> this.#lineShift;
    return this.#cells + line * SOURCE_LINE_FLOATS;
  }
}

/** A limit in the hands of the main thread, which alone changes the rate. */
export class RateLimitOwner extends RateLimit {
  /** A limit of this thread alone, open at first. @param lines that its sources share */
  static ofThisThread(lines: number): RateLimitOwner {
    const floats = new Float64Array((1 + lines) * SOURCE_LINE_FLOATS);
    return new RateLimitOwner(
      { floats, rate: () => 0, sources: () => ({ at: SOURCE_LINE_FLOATS, lines }) },
      0,
    );
  }

  /** @param perSecond 0 for no limit @param burst packets at once after a pause */
  set(perSecond: number, burst: number): void {
    // A whole number, as times are: sums of them are exact.
    const intervalNs = perSecond === 0 ? 0 : Math.max(1, Math.round(1e9 / perSecond));
    this.floats[this.rate + AHEAD_NS] = intervalNs * burst;
    this.floats[this.rate + INTERVAL_NS] = intervalNs;
  }
}

/** A source's second cell in its line, never its first. */
function otherCellOf(source: number): number {
  return (source + 1 + ((source >>> 3) % 7)) & 7;
}
