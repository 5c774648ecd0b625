/** From the figures of a run to the points of a chart. */
import type { Figure, Run } from "../harness/results.ts";
import { type Spread, showNumber, spreadOf } from "../harness/statistics.ts";

export interface Point extends Spread {
  readonly x: number;
}

export function groupOf(run: Run, group: string): Figure[] {
  return run.figures.filter((figure) => figure.params?.["group"] === group);
}

/**
 * The figures of one name, each at what its case varies.
 * @param along the parameter that is the x axis
 * @param scale of the values, 1e-6 for millions
 * @returns from left to right
 */
export function pointsOf(figures: readonly Figure[], name: string, along: string, scale = 1): Point[] {
  return figures
    .filter((figure) => figure.name === name && typeof figure.params?.[along] === "number")
    .map((figure) => {
      const { median, min, max } = spreadOf(figure.values);
      return {
        x: figure.params![along] as number,
        median: median * scale,
        min: min * scale,
        max: max * scale,
      };
    })
    .sort((a, b) => a.x - b.x);
}

/** "1,020 to 1,400", or one number where both would read the same. */
export function showRange(values: readonly number[], show: (value: number) => string = showNumber): string {
  const [least, most] = [show(Math.min(...values)), show(Math.max(...values))];
  return least === most ? least : `${least} to ${most}`;
}

/** Medians of `points` over those of `against`, where both have one. */
export function ratiosOf(points: readonly Point[], against: readonly Point[]): number[] {
  return points.flatMap(({ x, median }) => {
    const other = against.find((point) => point.x === x);
    return other ? [median / other.median] : [];
  });
}

/** How many times the last point is the first. */
export function growthOf(points: readonly Point[]): number {
  return points.at(-1)!.median / points[0]!.median;
}
