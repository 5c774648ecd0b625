/** Figures over rounds, and how they are shown. */
import { median as medianOf, quantile as quantileOf } from "simple-statistics";

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** What a figure's median should be. */
export interface Bar {
  readonly atMost?: number | undefined;
  readonly atLeast?: number | undefined;
}

/** @param values at least one */
export function spreadOf(values: readonly number[]): Spread {
  return { median: medianOf([...values]), min: Math.min(...values), max: Math.max(...values) };
}

/** The value below which the share `q` (0 to 1) of the values lies. */
export function quantile(values: readonly number[], q: number): number {
  return quantileOf([...values], q);
}

/** Three figures that count and no more digits: "1.02", "345", "1,234,567", "0.0123". */
export function showNumber(value: number): string {
  const digits =
    Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 0.1 ? 2 : 4;
  return value.toLocaleString("en-US", {
    maximumFractionDigits: digits,
    minimumFractionDigits: Math.min(digits, 2),
  });
}

/** A ratio needs its thousandths: a per cent is what is fought for. */
export function showValue(value: number, unit: string): string {
  return unit === "×" ? value.toFixed(3) : showNumber(value);
}

/** "1.020 × (0.980 to 1.070)" */
export function showSpread({ median, min, max }: Spread, unit: string): string {
  const [middle, least, most] = [median, min, max].map((value) => showValue(value, unit));
  return `${middle} ${unit}${min === max ? "" : ` (${least} to ${most})`}`;
}

export function meets(values: readonly number[], bar: Bar): boolean {
  const { median } = spreadOf(values);
  return median <= (bar.atMost ?? Infinity) && median >= (bar.atLeast ?? -Infinity);
}

/** "at most 1.03"; empty without a bar. */
export function showLimits({ atMost, atLeast }: Bar = {}): string {
  const limits = [
    atMost !== undefined && `at most ${atMost}`,
    atLeast !== undefined && `at least ${atLeast}`,
  ];
  return limits.filter(Boolean).join(", ");
}

/** A bar and whether the median of a figure meets it. */
export const showBar = (values: readonly number[], bar: Bar): string =>
  `bar: ${showLimits(bar)}, ${meets(values, bar) ? "met" : "MISSED"}`;
