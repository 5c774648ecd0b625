/**
 * Sums of claims that do not depend on their order: two beacons that hold the same claims of a
 * third have the same sums. Node ids fall into ranges, each with a sum of its own, so that a
 * difference names the part of the ids that it lies in.
 *
 * A sum has 64 bits: two words, each the sum, modulo 2^32, of a hash of every claim's node id and
 * date.
 */
import { wordsHash } from "./hash.ts";

/** A range of 100,000 nodes then has some 3,000, and all sums of a beacon take 256 bytes. */
export const CLAIM_RANGES = 32;
/** A set of ranges is a word, bit i for range i. */
export const ALL_RANGES = -1;
export const SUM_WORDS = 2;
/** Odd, as bits of the low end have to reach the high end: ids may be numbered from 1 on. */
const SPREAD = 0x9e37_79b1;
const RANGE_SHIFT = 27;
if (1 << (32 - RANGE_SHIFT) !== CLAIM_RANGES)
  throw new Error("a range's number must have as many bits as there are ranges");
/** Keys of the two hashes, at random. */
const KEYS = [0x3c6e_f372, 0x510e_527f] as const;

/** The range of a node id, 0 to CLAIM_RANGES - 1. */
export const rangeOf = (nodeId: number): number => Math.imul(nodeId, SPREAD) >>> RANGE_SHIFT;

/** Whether a set of ranges has a node id. */
export const isIn = (ranges: number, nodeId: number): boolean =>
  ((ranges >>> rangeOf(nodeId)) & 1) === 1;

/** A date and its words: integer conversion beyond 32 bits takes several times longer. */
const date = new Float64Array(1);
const bits = new Int32Array(date.buffer);

export class ClaimSums {
  readonly #words: Int32Array;

  /** @param rows how many beacons' claims are summed, each by itself */
  constructor(rows = 1) {
    this.#words = new Int32Array(rows * CLAIM_RANGES * SUM_WORDS);
  }

  add(nodeId: number, claimedMs: number, row = 0): void {
    date[0] = claimedMs;
    const at = (row * CLAIM_RANGES + rangeOf(nodeId)) * SUM_WORDS;
    this.#words[at]! += wordsHash(nodeId, bits[0]!, bits[1]!, KEYS[0]);
    this.#words[at + 1]! += wordsHash(nodeId, bits[0]!, bits[1]!, KEYS[1]);
  }

  remove(nodeId: number, claimedMs: number, row = 0): void {
    date[0] = claimedMs;
    const at = (row * CLAIM_RANGES + rangeOf(nodeId)) * SUM_WORDS;
    this.#words[at]! -= wordsHash(nodeId, bits[0]!, bits[1]!, KEYS[0]);
    this.#words[at + 1]! -= wordsHash(nodeId, bits[0]!, bits[1]!, KEYS[1]);
  }

  /** The sums of a row: CLAIM_RANGES times SUM_WORDS words, which change with it. */
  row(row = 0): Int32Array {
    const words = CLAIM_RANGES * SUM_WORDS;
    return this.#words.subarray(row * words, (row + 1) * words);
  }
}

/** The ranges in which the sums of some claims and of others do not add up to the expected ones. */
export function differingRanges(
  expected: Int32Array,
  some: Int32Array,
  others: Int32Array,
): number {
  let ranges = 0;
  for (let i = 0; i < CLAIM_RANGES * SUM_WORDS; i++)
    if (((some[i]! + others[i]!) | 0) !== expected[i]!) ranges |= 1 << (i >> 1);
  return ranges;
}

/** How many ranges a set has. */
export function countRanges(ranges: number): number {
  let count = 0;
  for (let left = ranges; left !== 0; left &= left - 1) count++;
  return count;
}
