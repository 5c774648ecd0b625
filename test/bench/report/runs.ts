/** Runs made up for tests, and files to keep them in. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Figure, Machine, Run } from "../../../bench/harness/results.ts";

export const MACHINE: Machine = {
  cpus: 4,
  cpu: "Example 9000",
  memoryGib: 16,
  kernel: "6.18.0",
  bun: "1.4.5",
  commit: "abc1234",
};

export function madeUpRun(figures: readonly Figure[], changed: Partial<Run> = {}): Run {
  return {
    format: 1,
    bench: "relay",
    command: "bun run bench relay",
    startedAt: "2026-11-25T01:45:15.224Z",
    elapsedS: 90,
    smoke: false,
    machine: MACHINE,
    notes: [],
    figures: [...figures],
    ...changed,
  };
}

/** "beacon over C" unless told otherwise. */
export function ratio(
  title: string,
  values: readonly number[],
  changed: Partial<Figure> = {},
): Figure {
  return {
    case: title,
    name: "beacon over C",
    unit: "×",
    better: "less",
    values: [...values],
    ...changed,
  };
}

/** Calls with a folder that is gone afterwards. */
export async function inFolder<T>(use: (folder: string) => T | Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "bench-report-"));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What the command line of the benches prints, and its exit code. */
export async function bench(
  ...args: string[]
): Promise<{ code: number; out: string; err: string }> {
  const main = join(import.meta.dir, "../../../bench/main.ts");
  const child = Bun.spawn([process.execPath, main, ...args], { stdout: "pipe", stderr: "pipe" });
  const [out, err, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, out, err };
}
