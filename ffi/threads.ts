/** Threads of this process: their numbers and the CPU time that they have used. */
import { CPU_CLOCK_OF_THREAD, SYS_GETTID, TIMESPEC_BYTES } from "./abi.ts";
import { libc } from "./libc.ts";

/** Returns the thread's number: gettid(2), by syscall(2), as glibc has it since 2.30 only. */
export function threadId(): number {
  return Number(libc.syscall(SYS_GETTID));
}

/** Returns a thread's CPU seconds, by the clock of pthread_getcpuclockid(3), if it exists. */
export function threadCpuS(threadId: number): number | undefined {
  const timespec = new BigInt64Array(new ArrayBuffer(TIMESPEC_BYTES));
  if (libc.clock_gettime((~threadId << 3) | CPU_CLOCK_OF_THREAD, timespec) < 0) return undefined;
  return Number(timespec[0]) + Number(timespec[1]) / 1e9;
}
