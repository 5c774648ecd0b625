/** Writes that never wait: poll(2) first. */

import { ptr } from "bun:ffi";
import { writeSync } from "node:fs";
import { POLLOUT } from "./abi.ts";
import { libc } from "./libc.ts";

/** A pipe that poll(2) calls writable takes as many bytes without a wait: PIPE_BUF. */
export const TRY_WRITE_BYTES_MAX = 4096;

/** Writes a short text to a file, pipe or terminal; drops it if the write would block. */
export function tryWrite(fd: number, text: string): void {
  const bytes = Buffer.from(text).subarray(0, TRY_WRITE_BYTES_MAX);
  // struct pollfd { int fd; short events; short revents }
  const pollfd = new Int32Array(new ArrayBuffer(8));
  pollfd[0] = fd;
  pollfd[1] = POLLOUT;
  if (libc.poll(ptr(pollfd), 1n, 0) !== 1 || pollfd[1] >>> 16 !== POLLOUT) return;
  try {
    writeSync(fd, bytes);
  } catch {} // its reader has gone
}
