/** Every bench runs, with tiny parameters: what it prints is not looked at, only that it prints. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { installed, Programs, ROOT } from "./support/program.ts";

const BENCH_MS_MAX = 90_000;
setDefaultTimeout(BENCH_MS_MAX);

const programs = new Programs();
afterEach(() => programs.kill());

async function smoke(name: string): Promise<string> {
  const program = programs.spawn([process.execPath, join(ROOT, "bench/main.ts"), name, "--smoke"]);
  const code = await program.exited(BENCH_MS_MAX);
  expect({ code, stderr: program.stderr }).toEqual({ code: 0, stderr: "" });
  const output = program.lines.join("\n");
  expect(output).toMatch(/ × .+, Linux .+, Bun .+, commit /); // what it ran on
  return output;
}

const needed = ["cc", "taskset"].filter((command) => !installed(command));
const needs = needed.length === 0 ? "" : ` (needs ${needed.join(" and ")})`;

test.skipIf(needs !== "")(`relay${needs}`, async () => {
  const output = await smoke("relay");
  expect(output).toMatch(/ ns/);
  expect(output).toMatch(/bar: at (most|least) [\d.]+, (met|MISSED)/);
});

test.skipIf(needs !== "")(`latency${needs}`, async () => {
  const output = await smoke("latency");
  expect(output).toMatch(/p50 [\d.]+/);
  expect(output).toMatch(/bar: at most [\d.]+, (met|MISSED)/);
});

test.skipIf(!installed("taskset"))("memory", async () => {
  const output = await smoke("memory");
  expect(output).toMatch(/20000 nodes .*20000 in the table, 0 lost; bar: at most 0, met/);
  expect(output).toMatch(/resident \d+ MiB empty, \d+ MiB full/);
});

test.skipIf(needs !== "")(`mesh${needs}`, async () => {
  const output = await smoke("mesh");
  expect(output).toMatch(/1 s with 5000 local nodes and 32750 routes through 2 addresses of peers/);
  expect(output).toMatch(/beacon: \d+ relays, \d+ lost, ms: p50 [\d.]+/);
  expect(output).toMatch(/% of a core; bar: at most 2, (met|MISSED)/);
});

test.skipIf(!installed("taskset"))("idle", async () => {
  expect(await smoke("idle")).toMatch(/idle with 2 workers: [\d.]+ % of one core/);
});

test("allocation, which meets its bar", async () => {
  const output = await smoke("allocation");
  const bars = output.match(/bar: at most \d+, \w+/g) ?? [];
  expect(bars.length).toBeGreaterThanOrEqual(3);
  expect(bars.filter((bar) => !bar.endsWith(", met"))).toEqual([]);
});

test("an unknown name is an error", async () => {
  const program = programs.spawn([process.execPath, join(ROOT, "bench/main.ts"), "nothing"]);
  expect(await program.exited()).not.toBe(0);
});
