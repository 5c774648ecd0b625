import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  ALL_RANGES,
  CLAIM_RANGES,
  ClaimSums,
  countRanges,
  differingRanges,
  isIn,
  rangeOf,
  SUM_WORDS,
} from "../../src/shared/claim-digest.ts";

const NOW_MS = 1_900_000_000_000;
const NONE = new ClaimSums().row();
const nodeId = fc.integer().filter((id) => id !== 0);
const claims = fc.array(fc.tuple(nodeId, fc.nat({ max: 2 * NOW_MS })), { maxLength: 50 });

const sumsOf = (all: readonly (readonly [number, number])[]): Int32Array => {
  const sums = new ClaimSums();
  for (const [id, ms] of all) sums.add(id, ms);
  return sums.row();
};

describe("sums of claims", () => {
  test("depend on the claims, and not on their order or on what was removed", () => {
    fc.assert(
      fc.property(claims, claims, (kept, removed) => {
        const sums = new ClaimSums(3);
        for (const [id, ms] of [...removed, ...kept]) sums.add(id, ms, 1);
        for (const [id, ms] of removed.toReversed()) sums.remove(id, ms, 1);
        expect(sums.row(1)).toEqual(sumsOf(kept.toReversed()));
        expect([sums.row(0), sums.row(2)]).toEqual([NONE, NONE]);
      }),
    );
  });

  test("differ in the range of a claim that is missing, or dated otherwise, and in no other", () => {
    fc.assert(
      fc.property(claims, nodeId, fc.nat({ max: NOW_MS }), (all, id, ms) => {
        const range = 1 << rangeOf(id);
        const [sums, more] = [sumsOf(all), sumsOf([...all, [id, ms]])];
        expect(differingRanges(sums, more, NONE)).toBe(range);
        expect(differingRanges(more, sums, sumsOf([[id, ms]]))).toBe(0);
        for (const byMs of [1 / 16, 1000, 2 ** 32 / 16, 2 ** 40])
          expect(differingRanges(more, sums, sumsOf([[id, ms + byMs]]))).toBe(range);
      }),
    );
  });

  test("differ for any two claims that have their node ids or dates exchanged", () => {
    const one = sumsOf([
      [1, 1000],
      [2, 2000],
    ]);
    const other = sumsOf([
      [1, 2000],
      [2, 1000],
    ]);
    expect(differingRanges(one, other, NONE)).not.toBe(0);
    expect(new Set(one).size).toBeGreaterThan(3); // both words of a sum are used
  });

  test("of 100,000 claims are all different: no two hashes are the same in both words", () => {
    const seen = new Set<string>();
    for (let id = 1; id <= 100_000; id++) {
      const sums = sumsOf([[id, NOW_MS]]);
      const at = SUM_WORDS * rangeOf(id);
      seen.add(`${rangeOf(id)} ${sums[at]} ${sums[at + 1]}`);
    }
    expect(seen.size).toBe(100_000);
  });
});

describe("ranges of node ids", () => {
  test("have about as many of ids that are numbered from 1 on, or that are at random", () => {
    for (const idOf of [(i: number) => i, (i: number) => Math.imul(i, 0x85eb_ca6b)]) {
      const counts = new Array<number>(CLAIM_RANGES).fill(0);
      for (let i = 1; i <= 32_000; i++) counts[rangeOf(idOf(i))]!++;
      expect(Math.min(...counts)).toBeGreaterThan(800);
      expect(Math.max(...counts)).toBeLessThan(1200);
    }
  });

  test("are counted, and known to have an id or not", () => {
    expect([0, 1, 0b1011, ALL_RANGES, 1 << 31].map(countRanges)).toEqual([
      0,
      1,
      3,
      CLAIM_RANGES,
      1,
    ]);
    for (const id of [1, -1, 77, 0x7fff_ffff]) {
      expect(isIn(1 << rangeOf(id), id)).toBe(true);
      expect(isIn(ALL_RANGES ^ (1 << rangeOf(id)), id)).toBe(false);
    }
  });
});
