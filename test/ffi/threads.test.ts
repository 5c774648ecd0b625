import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { threadCpuS, threadId } from "../../ffi/threads.ts";
import { repeatWhile } from "../support/patience.ts";

test("a thread's number is one that the kernel lists for this process", () => {
  expect(readdirSync("/proc/self/task")).toContain(String(threadId()));
});

test("its CPU time grows while it works, and not beyond the process's", () => {
  const before = threadCpuS(threadId())!;
  repeatWhile(() => threadCpuS(threadId())! < before + 0.02, "its CPU time grows by 20 ms");
  const { user, system } = process.cpuUsage();
  expect(threadCpuS(threadId())!).toBeLessThan((user + system) / 1e6 + 0.02);
});

test("a thread that is not there has none", () => {
  expect(threadCpuS(2 ** 22)).toBeUndefined(); // above the kernel's largest number, PID_MAX_LIMIT
});
