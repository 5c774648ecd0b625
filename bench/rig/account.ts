/** What became of a stream of numbered packets. Pure. */
import { quantile } from "../harness/statistics.ts";
import type { Arrivals } from "./node.ts";

export interface Account {
  readonly sent: number;
  /** How many numbers arrived, each counted once. */
  readonly delivered: number;
  /** Arrivals of a number that had arrived before. */
  readonly duplicates: number;
  /** Numbers that arrived after a higher one. */
  readonly overtaken: number;
  /** One way, sender's process to receiver's; NaN if nothing arrived. */
  readonly delayMs: { readonly min: number; readonly p50: number; readonly p99: number };
  /** Between the first arrival and the last. */
  readonly elapsedMs: number;
}

export function accountOf({ numbers, delaysUs, atUs }: Arrivals, sent: number): Account {
  const seen = new Set<number>();
  let highest = -1;
  let overtaken = 0;
  for (const number of numbers) {
    if (!seen.has(number) && number < highest) overtaken++;
    seen.add(number);
    highest = Math.max(highest, number);
  }
  const at = (q: number) => (delaysUs.length === 0 ? Number.NaN : quantile(delaysUs, q) / 1000);
  return {
    sent,
    delivered: seen.size,
    duplicates: numbers.length - seen.size,
    overtaken,
    delayMs: { min: at(0), p50: at(0.5), p99: at(0.99) },
    elapsedMs: numbers.length === 0 ? 0 : (atUs.at(-1)! - atUs[0]!) / 1000,
  };
}

/** The arrivals of a number and those above it. */
export function since({ numbers, delaysUs, atUs }: Arrivals, number: number): Arrivals {
  const kept = numbers.flatMap((each, i) => (each >= number ? [i] : []));
  return {
    numbers: kept.map((i) => numbers[i]!),
    delaysUs: kept.map((i) => delaysUs[i]!),
    atUs: kept.map((i) => atUs[i]!),
  };
}

/** The longest time without an arrival, in milliseconds, and the numbers on either side of it. */
export function longestGap({ numbers, atUs }: Arrivals): {
  ms: number;
  before: number;
  after: number;
} {
  let gap = { ms: 0, before: -1, after: -1 };
  for (let i = 1; i < atUs.length; i++) {
    const ms = (atUs[i]! - atUs[i - 1]!) / 1000;
    if (ms > gap.ms) gap = { ms, before: numbers[i - 1]!, after: numbers[i]! };
  }
  return gap;
}

/**
 * How far a count of independent events may lie from its mean: beyond five standard deviations is
 * one case in a million.
 */
export function isPlausibleCount(count: number, trials: number, probability: number): boolean {
  const deviation = Math.sqrt(trials * probability * (1 - probability));
  return Math.abs(count - trials * probability) <= 5 * deviation + 1;
}
