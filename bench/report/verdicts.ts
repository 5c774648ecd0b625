/** What two runs of a bench say of each other, figure by figure. */
import type { Figure, Run } from "../harness/results.ts";
import { meets, spreadOf } from "../harness/statistics.ts";
import { leastP, rankTest } from "./rank-test.ts";

/** Chance may say "beyond the noise" so often. */
export const P_MAX = 0.05;

/**
 * - `worse`, `better`; `moved` where neither is better: beyond the noise, all figures of its table
 *   considered
 * - with a question mark: p < 0.05 when looked at alone, but among so many figures that may be
 *   chance
 * - `noise`: nothing that chance does not do
 * - `few rounds`: not even rounds that do not overlap would have p < 0.05
 * - `no rounds`: its values are samples over time; each depends on the one before, so that a rank
 *   test says nothing
 */
export type Verdict = Direction | `${Direction}?` | "noise" | "few rounds" | "no rounds";
type Direction = "worse" | "better" | "moved";

export interface Comparison {
  readonly a: Figure;
  readonly b: Figure;
  /** Of the medians; Infinity where the first is 0 and the second is not. */
  readonly changePercent: number;
  /** None where the verdict is about the rounds. */
  readonly p?: number;
  readonly verdict: Verdict;
}

export interface Matched {
  readonly pairs: readonly (readonly [Figure, Figure])[];
  /** Figures without a counterpart of the same case, name and unit. */
  readonly onlyA: readonly Figure[];
  readonly onlyB: readonly Figure[];
}

export const RATIO = "×";
export const titleOf = (figure: Figure) => `${figure.case}: ${figure.name}`;

/** Whether its values are samples over time, as in a soak, and not rounds. */
export const isSeries = (figure: Figure) => figure.params?.["series"] === true;

export const groupOf = (run: Run, group: string): Figure[] =>
  run.figures.filter((figure) => figure.params?.["group"] === group);

/** Pairs the figures of two runs, in the order of the second. */
export function match(a: Run, b: Run): Matched {
  const keyOf = (figure: Figure) => JSON.stringify([figure.case, figure.name, figure.unit]);
  const inA = new Map(a.figures.map((figure) => [keyOf(figure), figure]));
  const pairs: [Figure, Figure][] = [];
  const onlyB: Figure[] = [];
  for (const figure of b.figures) {
    const before = inA.get(keyOf(figure));
    if (before === undefined) onlyB.push(figure);
    else pairs.push([before, figure]);
    inA.delete(keyOf(figure));
  }
  return { pairs, onlyA: [...inA.values()], onlyB };
}

/**
 * Compares each pair, and judges them as one table: of the figures called beyond the noise, at most
 * 5 % are so by chance, by the procedure of Benjamini and Hochberg. Not Holm's, which keeps even
 * one false call from the whole table: a table of 40 figures would then want more rounds of every
 * figure than a bench has time for. What passes alone but not in the table keeps a question mark.
 */
export function judge(pairs: Matched["pairs"]): Comparison[] {
  const ps = pairs.map(([a, b]) =>
    reasonForNone(a, b) === undefined ? rankTest(a.values, b.values) : NaN,
  );
  const limit = limitOf(ps.filter((p) => !Number.isNaN(p)));
  return pairs.map(([a, b], i) => {
    const p = ps[i]!;
    const [before, after] = [spreadOf(a.values).median, spreadOf(b.values).median];
    const changePercent = before === after ? 0 : ((after - before) / Math.abs(before)) * 100;
    const none = reasonForNone(a, b);
    if (none !== undefined) return { a, b, changePercent, verdict: none };
    if (p >= P_MAX) return { a, b, changePercent, p, verdict: "noise" };
    const direction = directionOf(b.better, changePercent);
    return { a, b, changePercent, p, verdict: p <= limit ? direction : `${direction}?` };
  });
}

function reasonForNone(a: Figure, b: Figure): "few rounds" | "no rounds" | undefined {
  if (isSeries(a) || isSeries(b)) return "no rounds";
  return leastP(a.values.length, b.values.length) < P_MAX ? undefined : "few rounds";
}

/** The p up to which figures are beyond the noise. */
function limitOf(ps: readonly number[]): number {
  const sorted = ps.toSorted((p, q) => p - q);
  const passing = sorted.findLastIndex((p, i) => p <= ((i + 1) / sorted.length) * P_MAX);
  return sorted[passing] ?? 0;
}

/**
 * Rounds of both runs that one figure, the only one of `figures` that changed, needs to be beyond
 * the noise.
 */
export function roundsNeeded(figures: number): number {
  let rounds = 1;
  while (leastP(rounds, rounds) > P_MAX / Math.max(1, figures)) rounds++;
  return rounds;
}

/**
 * The ranks can differ where the medians do not; then nothing got better or worse that the medians
 * would show.
 */
function directionOf(better: Figure["better"], changePercent: number): Direction {
  if (better === "neither" || changePercent === 0) return "moved";
  return changePercent < 0 === (better === "less") ? "better" : "worse";
}

/** None where the figure has no bar. */
export function meetsBar({ values, bar }: Figure): boolean | undefined {
  return bar && meets(values, bar);
}

/** What became of a bar: nothing worth a word, or what. */
export function barNews({ a, b }: Pick<Comparison, "a" | "b">): string | undefined {
  if (b.bar === undefined) return a.bar === undefined ? undefined : "no bar any more";
  // The bar of the second run for both: a bar that moved says nothing about the code.
  const [was, is] = [meetsBar({ ...a, bar: b.bar }), meetsBar(b)];
  if (was === is) return undefined;
  return is ? "newly met" : "newly MISSED";
}
