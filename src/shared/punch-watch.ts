/**
 * Which punches led nowhere: of each pair of nodes that were told of each other, whether it relays
 * through this beacon all the same.
 *
 * Whoever tells both ends of a punch enters the pair into a table of bounded size, for WATCH_S. A
 * Relay between the two after SETTLE_S marks it: before that, daemons relay while they punch. The
 * main thread counts who is due and frees the places (`sweep`). A pair that says nothing more
 * through this beacon counts as direct, whether it found a way or gave up; and whoever fakes a
 * node's Relays makes it look relayed, as a sender's id has no proof.
 *
 * A pair belongs into a set of four places, a cache line, by a keyed hash. A place is claimed by
 * whoever first puts the clock, negated, into it; nobody waits for anybody, and a claim that its
 * thread never ended, as it died, is freed like any other.
 *
 * Relays have a filter to ask before the table: 2^16 bits twice, of which a pair has the one that
 * the exclusive or of its ids names, so a Relay that is none of theirs costs one load nearly
 * always, and at worst one cache line of the table. The two halves of a filter's word are two
 * epochs: bits are set in the present one, and the main thread clears the one before when the next
 * begins, so that a bit lives for as long as its pair is watched, at least.
 */
import { nodeHash } from "./hash.ts";
import {
  CLOCK_S,
  HASH_SECRET,
  PUNCH_EPOCH,
  PUNCH_FILTER_WORDS,
  PUNCH_LAST_S,
  PUNCH_PLACES,
  PUNCH_UNWATCHED,
  PUNCH_WATCH,
  PUNCH_WORDS,
  type SharedMemory,
} from "./memory.ts";

/** How long a pair is watched. */
export const WATCH_S = 60;
/** Seconds of relays before a punch counts as failed: daemons try two or three. */
export const SETTLE_S = 5;

/** Address families of a pair's two endpoints. */
export const PUNCH_FAMILIES = ["ipv4", "ipv6", "mixed"] as const;
export const IPV4_PAIR = 0;
export const IPV6_PAIR = 1;
export const MIXED_PAIR = 2;

const SET_PLACES = 4;
const SET_WORDS = SET_PLACES * PUNCH_WORDS;
/** What is left of a hash is a set. */
const SET_SHIFT = 32 - Math.log2(PUNCH_PLACES / SET_PLACES);

// Words of a place. The two ids, the lower one first, as signed numbers.
const LOW_ID = 0;
const HIGH_ID = 1;
/** Clock second in which the watch began; 0 vacant, negative while being written. */
const SINCE_S = 2;
/** Address family, and whether the pair relayed. */
const STATE = 3;
const HAS_RELAYED = 4;
const FAMILY = 3;

/** Bits of one epoch in a word of the filter. */
const EPOCH_BITS = 16;
const FILTER_MASK = PUNCH_FILTER_WORDS * EPOCH_BITS - 1;
/** A bit, in either epoch. */
const EITHER = 1 | (1 << EPOCH_BITS);
/** Seconds that an entry may be late: the clock advances, a thread may be preempted. */
const LATE_S = 2;

export class PunchWatch {
  protected readonly words: Int32Array;
  readonly #secret: number;
  readonly #isOn: number;
  protected readonly at: number;
  protected readonly filter: number;
  protected readonly places: number;

  constructor(memory: SharedMemory) {
    this.words = memory.words;
    this.#secret = memory.words[HASH_SECRET]!;
    this.#isOn = memory.rulesAt + PUNCH_WATCH;
    this.at = memory.punchesAt;
    this.filter = memory.punchFilterAt;
    this.places = memory.punchPlacesAt;
  }

  /** Whether a Relay may be of a watched pair; asked before `relayed`. */
  mayWatch(senderId: number, destId: number): boolean {
    const bit = (senderId ^ destId) & FILTER_MASK;
    return ((this.words[this.filter + (bit >>> 4)]! >>> (bit & 15)) & EITHER) !== 0;
  }

  /** Notes that one of two nodes relays to the other. */
  relayed(senderId: number, destId: number): void {
    const words = this.words;
    const low = Math.min(senderId, destId);
    const high = Math.max(senderId, destId);
    const set = this.#setOf(low, high);
    for (let place = set; place < set + SET_WORDS; place += PUNCH_WORDS) {
      if (words[place + LOW_ID] !== low || words[place + HIGH_ID] !== high) continue;
      const sinceS = words[place + SINCE_S]!;
      const ageS = words[CLOCK_S]! - sinceS;
      const state = words[place + STATE]!;
      if (sinceS <= 0 || ageS < SETTLE_S || ageS >= WATCH_S || (state & HAS_RELAYED) !== 0)
        continue;
      words[place + STATE] = state | HAS_RELAYED;
    }
  }

  /**
   * Watches two nodes that were told of each other, unless they are watched already, or the
   * operator does not want it. Where there is no room, that is counted.
   * @param oneId signed, as the other; 0 is nobody
   * @param family IPV4_PAIR, IPV6_PAIR or MIXED_PAIR
   */
  watch(oneId: number, otherId: number, family: number): void {
    const words = this.words;
    if (words[this.#isOn] === 0 || oneId === 0 || otherId === 0 || oneId === otherId) return;
    const low = Math.min(oneId, otherId);
    const high = Math.max(oneId, otherId);
    const set = this.#setOf(low, high);
    const nowS = words[CLOCK_S]!;
    words[this.at + PUNCH_LAST_S] = nowS;
    if (this.#isWatched(set, low, high)) return;
    for (let place = set; place < set + SET_WORDS; place += PUNCH_WORDS) {
      if (words[place + SINCE_S] !== 0) continue;
      if (Atomics.compareExchange(words, place + SINCE_S, 0, -nowS) !== 0) continue;
      words[place + LOW_ID] = low;
      words[place + HIGH_ID] = high;
      words[place + STATE] = family;
      Atomics.store(words, place + SINCE_S, nowS);
      const bit = (low ^ high) & FILTER_MASK;
      const epochBit = (1 << (bit & 15)) << (EPOCH_BITS * words[this.at + PUNCH_EPOCH]!);
      Atomics.or(words, this.filter + (bit >>> 4), epochBit);
      return;
    }
    Atomics.add(words, this.at + PUNCH_UNWATCHED, 1);
  }

  #isWatched(set: number, low: number, high: number): boolean {
    const words = this.words;
    for (let place = set; place < set + SET_WORDS; place += PUNCH_WORDS) {
      const isPair = words[place + LOW_ID] === low && words[place + HIGH_ID] === high;
      if (isPair && words[place + SINCE_S]! > 0) return true;
    }
    return false;
  }

  /** First word of the set of a pair. */
  #setOf(low: number, high: number): number {
    const hash = nodeHash(high, nodeHash(low, this.#secret));
    return this.places + (hash >>> SET_SHIFT) * SET_WORDS;
  }
}

/** The watch in the hands of the main thread, which counts who is due and frees the places. */
export class PunchWatchOwner extends PunchWatch {
  /** When the next epoch of the filter begins. */
  #nextEpochS = 0;
  /** When a sweep last found nobody. */
  #emptyS = 0;

  /**
   * Takes out the pairs that were watched for WATCH_S. To be called about every second, with the
   * clock's time.
   * @param ended is told of each, with its family
   * @returns how many are watched
   */
  sweep(nowS: number, ended: (family: number, hasRelayed: boolean) => void): number {
    const words = this.words;
    if (nowS >= this.#nextEpochS) this.#beginEpoch(nowS);
    if (words[this.at + PUNCH_LAST_S]! + LATE_S < this.#emptyS) return 0;
    let watched = 0;
    const end = this.places + PUNCH_PLACES * PUNCH_WORDS;
    for (let place = this.places; place < end; place += PUNCH_WORDS) {
      const sinceS = words[place + SINCE_S]!;
      if (sinceS === 0) continue;
      if (nowS - Math.abs(sinceS) < WATCH_S) {
        watched++;
        continue;
      }
      const state = words[place + STATE]!;
      const hasRelayed = (state & HAS_RELAYED) !== 0;
      if (sinceS > 0 && !this.#isThereAgain(place, hasRelayed)) ended(state & FAMILY, hasRelayed);
      Atomics.store(words, place + SINCE_S, 0);
    }
    if (watched === 0) this.#emptyS = nowS;
    return watched;
  }

  /** Pairs for which there was no room since the last call. */
  takeUnwatched(): number {
    return Atomics.exchange(this.words, this.at + PUNCH_UNWATCHED, 0);
  }

  /** Both ends may be entered at once: the last entry left counts for both. */
  #isThereAgain(place: number, hasRelayed: boolean): boolean {
    const words = this.words;
    const set = place - ((place - this.places) % SET_WORDS);
    for (let other = set; other < set + SET_WORDS; other += PUNCH_WORDS) {
      if (other === place || words[other + SINCE_S]! <= 0) continue;
      if (words[other + LOW_ID] !== words[place + LOW_ID]) continue;
      if (words[other + HIGH_ID] !== words[place + HIGH_ID]) continue;
      if (hasRelayed) words[other + STATE]! |= HAS_RELAYED;
      return true;
    }
    return false;
  }

  /** Clears the bits of the epoch before the present one, and has new bits set there. */
  #beginEpoch(nowS: number): void {
    const words = this.words;
    const epoch = 1 - words[this.at + PUNCH_EPOCH]!;
    const kept = ~(((1 << EPOCH_BITS) - 1) << (EPOCH_BITS * epoch));
    for (let i = 0; i < PUNCH_FILTER_WORDS; i++) Atomics.and(words, this.filter + i, kept);
    Atomics.store(words, this.at + PUNCH_EPOCH, epoch);
    this.#nextEpochS = nowS + WATCH_S;
  }
}
