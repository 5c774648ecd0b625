/**
 * Whether two samples differ: the rank-sum test of Mann, Whitney and Wilcoxon.
 *
 * Ranks, because the load of a shared machine gives rounds far outliers and no normal distribution.
 * Exact, because six rounds are too few for the normal approximation, and because a random
 * permutation test (as in simple-statistics) gives another result each time. A figure with 60
 * rounds in each run takes 0.25 s.
 */
/**
 * Twice the rank of each value among all, so that ties, which share the mean of their ranks, stay
 * whole numbers.
 * @returns in the order of the values
 */
function doubledRanks(values: readonly number[]): number[] {
  const order = values.map((_, i) => i).sort((i, j) => values[i]! - values[j]!);
  const ranks = new Array<number>(values.length);
  for (let from = 0, to = 0; from < order.length; from = to) {
    while (to < order.length && values[order[to]!] === values[order[from]!]) to++;
    for (let at = from; at < to; at++) ranks[order[at]!] = from + 1 + to;
  }
  return ranks;
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);

/** In how many ways `count` of the ranks can be chosen, by the sum that they have. */
function waysBySum(ranks: readonly number[], count: number): Float64Array {
  const sums = sum(ranks) + 1;
  const ways = Array.from({ length: count + 1 }, () => new Float64Array(sums));
  ways[0]![0] = 1;
  for (const rank of ranks) {
    for (let chosen = count; chosen > 0; chosen--) {
      for (let total = rank; total < sums; total++)
        ways[chosen]![total]! += ways[chosen - 1]![total - rank]!;
    }
  }
  return ways[count]!;
}

/**
 * How often chance alone would set two samples at least so far apart, in either direction, if both
 * came from the same distribution.
 * @param a at least one value, and `b` too
 * @returns 0 to 1
 */
export function rankTest(a: readonly number[], b: readonly number[]): number {
  const ranks = doubledRanks([...a, ...b]);
  const mean = a.length * (ranks.length + 1);
  const distance = Math.abs(sum(ranks.slice(0, a.length)) - mean);
  if (distance === 0) return 1;
  const ways = waysBySum(ranks, a.length);
  let [all, asFar] = [0, 0];
  for (const [total, count] of ways.entries()) {
    all += count;
    if (Math.abs(total - mean) >= distance) asFar += count;
  }
  return asFar / all;
}

/** The least that `rankTest` can say of so many values against so many: they do not overlap. */
export function leastP(aCount: number, bCount: number): number {
  let waysToChoose = 1;
  for (let i = 1; i <= aCount; i++) waysToChoose = (waysToChoose * (bCount + i)) / i;
  return Math.min(1, 2 / waysToChoose);
}
