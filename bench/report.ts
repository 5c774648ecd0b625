/** Figures over rounds, and how they are printed. */
import { cpus, release } from "node:os";

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** @param values at least one */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}

/** The value below which the share `q` (0 to 1) of the values lies. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
}

/** "1.02 (0.98 to 1.07)" */
export function showSpread({ median, min, max }: Spread, digits: number): string {
  return `${median.toFixed(digits)} (${min.toFixed(digits)} to ${max.toFixed(digits)})`;
}

/** A bar and whether a figure meets it. */
export function showBar(value: number, bar: { readonly atMost?: number; readonly atLeast?: number }): string {
  const met = value <= (bar.atMost ?? Infinity) && value >= (bar.atLeast ?? -Infinity);
  const text = bar.atMost === undefined ? `at least ${bar.atLeast}` : `at most ${bar.atMost}`;
  return `bar: ${text}, ${met ? "met" : "MISSED"}`;
}

/** Prints what the figures were measured on. */
export function printMachine(): void {
  const commit = Bun.spawnSync(["git", "describe", "--always", "--dirty"], { stderr: "ignore" });
  const { model } = cpus()[0] ?? { model: "unknown processor" };
  console.log(
    `${cpus().length} × ${model}, Linux ${release()}, Bun ${Bun.version}, commit ${commit.stdout.toString().trim() || "unknown"}`,
  );
}
