/** What processes use, by this process itself and one that ends its threads. */
import { describe, expect, test } from "bun:test";
import { controlCpuNs, cpuNs, residentBytes, workersCpuNs } from "../../bench/harness/usage.ts";

const BUSY_MS = 50;

function busy(): void {
  const until = performance.now() + BUSY_MS;
  while (performance.now() < until);
}

describe("CPU time", () => {
  test("is what the kernel says otherwise, within its ticks", () => {
    const before = cpuNs(process.pid);
    const { user, system } = process.cpuUsage();
    busy();
    const after = process.cpuUsage({ user, system });
    const used = (cpuNs(process.pid) - before) / 1e6;
    expect(used).toBeGreaterThan(0);
    expect(Math.abs(used - (after.user + after.system) / 1000)).toBeLessThan(20);
  });

  test("never falls when a thread ends, and has workers apart", async () => {
    const script = URL.createObjectURL(
      new Blob([
        `const until = performance.now() + ${BUSY_MS};
      while (performance.now() < until);
      postMessage(0);
      setInterval(() => {}, 1000); // and stay: a thread with nothing to do ends`,
      ]),
    );
    const worker = new Worker(script);
    await new Promise((resolve) => worker.addEventListener("message", resolve));
    const before = cpuNs(process.pid);
    expect(workersCpuNs(process.pid)).toBeGreaterThan(0);
    expect(controlCpuNs(process.pid)).toBeLessThan(before);
    worker.terminate();
    await new Promise((resolve) => worker.addEventListener("close", resolve));
    expect(cpuNs(process.pid)).toBeGreaterThanOrEqual(before);
  });

  test("of nobody is an error", async () => {
    const child = Bun.spawn(["true"]);
    await child.exited;
    expect(() => cpuNs(child.pid)).toThrow(`no process ${child.pid}`);
  });
});

test("resident memory is what Bun says it is, roughly", () => {
  expect(residentBytes(process.pid) / process.memoryUsage.rss()).toBeCloseTo(1, 0);
});
