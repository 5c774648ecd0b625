/** Thread that writes lines to a descriptor (output.ts); a write may block for long. */
import { writeSync } from "node:fs";
import { isMainThread, workerData } from "node:worker_threads";
import { FAILS, GONE, LineRing, WRITES } from "./line-ring.ts";

/** Data that the main thread gives this one. */
export interface OutputThreadData {
  readonly buffer: SharedArrayBuffer;
  readonly fd: number;
}

/** Bytes of a write: a quarter of a pipe, so that a slow reader shows progress. */
const WRITE_BYTES_MAX = 16 * 1024;
/** Retry interval for a descriptor that another process made non-blocking. */
const FULL_WAIT_MS = 10;

/**
 * Writes what comes next in the ring.
 * @param buffer room for what is written at a time
 * @param writeSome returns how many bytes it took, or throws as writeSync does
 */
export function writeNext(
  ring: LineRing,
  buffer: Uint8Array,
  writeSome: (bytes: Uint8Array) => number,
  sleep: (ms: number) => void,
): void {
  let rest = buffer.subarray(0, ring.peek(buffer));
  while (rest.length > 0) {
    try {
      const written = writeSome(rest);
      rest = rest.subarray(written);
      ring.condition = WRITES;
      ring.take(written);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EAGAIN" || code === "EINTR") {
        sleep(FULL_WAIT_MS);
        continue;
      }
      ring.lose(rest);
      ring.condition = code === "EPIPE" || code === "EBADF" ? GONE : FAILS;
      ring.take(rest.length);
      return;
    }
  }
}

if (!isMainThread) {
  const { buffer, fd } = workerData as OutputThreadData;
  const ring = new LineRing(buffer);
  const room = new Uint8Array(WRITE_BYTES_MAX);
  for (;;) {
    ring.wait();
    writeNext(
      ring,
      room,
      (bytes) => writeSync(fd, bytes),
      (ms) => Bun.sleepSync(ms),
    );
  }
}
