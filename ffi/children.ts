/** Child processes, orphans among them: prctl(2), waitid(2). */
import { ptr } from "bun:ffi";
import {
  CLD_EXITED,
  P_ALL,
  P_PID,
  PR_SET_CHILD_SUBREAPER,
  SIGINFO_BYTES,
  SIGINFO_CODE_WORD,
  SIGINFO_PID_WORD,
  SIGINFO_STATUS_WORD,
  WEXITED,
  WNOHANG,
  WNOWAIT,
} from "./abi.ts";
import { SyscallError } from "./errno.ts";
import { errno, libc } from "./libc.ts";

/** How a process ended: one of the two. */
export interface ProcessEnd {
  readonly pid: number;
  readonly code: number | undefined;
  readonly signal: number | undefined;
}

/** Makes this process the parent of its descendants whose own parents end. @throws SyscallError */
export function becomeSubreaper(): void {
  if (libc.prctl(PR_SET_CHILD_SUBREAPER, 1n) < 0) throw new SyscallError("prctl", errno());
}

const info = new Int32Array(new ArrayBuffer(SIGINFO_BYTES));

/** Returns a child that has ended and is not reaped yet, if any; leaves it to `reap`. */
export function endedChild(): number | undefined {
  info[SIGINFO_PID_WORD] = 0; // which the call leaves as it is if there is none
  if (libc.waitid(P_ALL, 0, ptr(info), WEXITED | WNOHANG | WNOWAIT) < 0) return undefined; // ECHILD
  return info[SIGINFO_PID_WORD] || undefined;
}

/** Takes the exit status of a child that has ended, and with it the last of the process. */
export function reap(pid: number): ProcessEnd | undefined {
  info[SIGINFO_PID_WORD] = 0;
  if (libc.waitid(P_PID, pid, ptr(info), WEXITED | WNOHANG) < 0 || info[SIGINFO_PID_WORD] !== pid)
    return undefined;
  const status = info[SIGINFO_STATUS_WORD]!;
  const exited = info[SIGINFO_CODE_WORD] === CLD_EXITED;
  return { pid, code: exited ? status : undefined, signal: exited ? undefined : status };
}
