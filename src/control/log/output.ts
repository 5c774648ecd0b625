/**
 * Lines to a file descriptor that may block: standard output as a pipe that is full, a terminal
 * after Ctrl-S, a file on a network file system. A thread of its own writes them; the main thread
 * puts them into a bounded queue, and drops them when it is full.
 *
 * Why a thread, and no non-blocking writes (2026-11):
 * - O_NONBLOCK belongs to the open file description, which the shell and other processes share:
 *   they would get EAGAIN.
 * - Opening /proc/self/fd/1 again gives a description of its own, but not for sockets (journald),
 *   and not for the pipe of a container
 *   whose user is not root (EACCES).
 * - poll(2) promises room for some bytes of a pipe or terminal, until another process takes that
 *   room.
 * - Nothing of this helps with a file whose file system hangs.
 * It costs 4 MiB and no time at start, as the thread comes up beside the main thread. The runtime
 * ends it wherever it blocks.
 */
import { Worker } from "node:worker_threads";
import { OUTPUT_ENTRY } from "../../thread-entries.ts";
import { GONE, LineRing, RING_BYTES, WRITES } from "./line-ring.ts";
import type { OutputThreadData } from "./output-thread.ts";

/** Retry interval for the line that reports dropped lines. */
const NOTICE_MS = 200;
/** At exit: longest wait for a reader that takes nothing, and in all. */
const FLUSH_STALLED_MS_MAX = 1000;
const FLUSH_MS_MAX = 5000;

export class Output {
  readonly #ring = new LineRing(new SharedArrayBuffer(LineRing.bufferBytes));
  #thread: Worker | undefined;
  /** Lines that did not fit, and those of all dropped lines that were reported. */
  #refused = 0;
  #reported = 0;
  #noticeTimer: Timer | undefined;

  /** @param noticeOf makes the line that reports so many dropped lines, with its newline */
  constructor(
    private readonly fd: number,
    private readonly noticeOf: (lines: number) => string,
  ) {}

  /** Writes a line with its newline. Never waits or throws; drops it without room. */
  write(line: string): void {
    this.#thread ??= this.#start();
    this.#report();
    if (this.#ring.condition !== GONE && this.#ring.put(Buffer.from(line))) return;
    this.#refused++;
    this.#reportLater();
  }

  /** Lines that were dropped so far, as the descriptor did not take them. */
  get dropped(): number {
    return this.#refused + this.#ring.lostLines;
  }

  #start(): Worker {
    const workerData: OutputThreadData = { buffer: this.#ring.buffer, fd: this.fd };
    const thread = new Worker(OUTPUT_ENTRY, { workerData });
    thread.unref();
    const end = () => {
      this.#ring.condition = GONE;
    };
    thread.on("error", end);
    thread.on("exit", end);
    process.once("exit", () => this.#flush());
    return thread;
  }

  /** Reports lines that were dropped, once lines are written again. */
  #report(): void {
    const lines = this.dropped - this.#reported;
    if (lines === 0 || this.#ring.condition !== WRITES || this.#ring.usedBytes > RING_BYTES / 2)
      return;
    if (this.#ring.put(Buffer.from(this.noticeOf(lines)))) this.#reported += lines;
  }

  /** Reports them, though no line follows. */
  #reportLater(): void {
    if (this.#noticeTimer || this.#ring.condition === GONE) return;
    this.#noticeTimer = setInterval(() => {
      this.#report();
      if (this.dropped > this.#reported && this.#ring.condition !== GONE) return;
      clearInterval(this.#noticeTimer);
      this.#noticeTimer = undefined;
    }, NOTICE_MS);
    this.#noticeTimer.unref();
  }

  /** At exit: waits until the lines are out, for as long as they are being read. */
  #flush(): void {
    this.#report();
    let usedBytes = this.#ring.usedBytes;
    for (let waitedMs = 0, stalledMs = 0; usedBytes > 0; ) {
      if (stalledMs++ >= FLUSH_STALLED_MS_MAX || waitedMs++ >= FLUSH_MS_MAX) return;
      Bun.sleepSync(1);
      if (this.#ring.usedBytes === usedBytes) continue;
      usedBytes = this.#ring.usedBytes;
      stalledMs = 0;
    }
  }
}
