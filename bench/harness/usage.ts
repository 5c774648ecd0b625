/** What a process uses: CPU time and memory. */
import { readdirSync, readFileSync } from "node:fs";
import { TIMESPEC_BYTES } from "../../ffi/abi.ts";
import { libc } from "../../ffi/libc.ts";

/** Bun's name for the threads that relay. They live as long as their process. */
const WORKER = "Worker";

/**
 * CPU time of a process, in nanoseconds, with that of its threads that have ended: a runtime's
 * helpers come and go.
 * @throws Error when there is no such process
 */
export function cpuNs(pid: number): number {
  const timespec = new BigInt64Array(new ArrayBuffer(TIMESPEC_BYTES));
  if (libc.clock_gettime(cpuClockOf(pid), timespec) < 0)
    throw new Error(`there is no process ${pid}`);
  return Number(timespec[0]! * 1_000_000_000n + timespec[1]!);
}

/**
 * The clock of a process's CPU time; what clock_getcpuclockid(3) makes of its id (CPUCLOCK_SCHED,
 * linux/posix-timers.h).
 */
const cpuClockOf = (pid: number): number => (~pid << 3) | 2;

/**
 * CPU time of a beacon's workers alone, in nanoseconds; of one that runs, up to its last tick
 * (proc_pid_schedstat).
 */
export function workersCpuNs(pid: number): number {
  let total = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const thread = `/proc/${pid}/task/${task}`;
    try {
      if (readFileSync(`${thread}/comm`, "utf8").trim() !== WORKER) continue;
      total += Number(readFileSync(`${thread}/schedstat`, "utf8").split(" ")[0]);
    } catch (error) {
      if (!isGone(error)) throw error; // a helper that ended just now
    }
  }
  return total;
}

const isGone = (error: unknown): boolean =>
  error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ESRCH");

/** CPU time of everything in a beacon but its workers: the control plane and the runtime. */
export function controlCpuNs(pid: number): number {
  return cpuNs(pid) - workersCpuNs(pid);
}

/** Resident memory of a process, in bytes. */
export function residentBytes(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(line?.[1]) * 1024;
}
