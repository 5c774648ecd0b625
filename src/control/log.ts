/**
 * The logger of the main thread: text for people or one JSON object a line for machines. Without pino's
 * transports, which start a thread from a file and find none inside a compiled binary; and synchronous, so that
 * the last lines before an exit are not lost.
 */
import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import { type Logger, pino } from "pino";
import { prettyFactory } from "pino-pretty";
import type { LogFormat, LogLevel } from "../config.ts";

/** Takes whole lines, each with its newline. */
export interface LineWriter {
  write(line: string): unknown;
}

export interface LoggerOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** Default: standard output. */
  readonly destination?: LineWriter;
}

const STDOUT_FD = 1;

/** How long a line may hold up the main thread when the reader of a non-blocking pipe does not keep up. */
const STALL_MS_MAX = 100;

/** A pino logger. When stdout loses its reader, or the disk under it fills, lines are lost and nothing else. */
export function createLogger(options: LoggerOptions): Logger {
  const { level, format } = options;
  const lines = options.destination ?? createLineWriter(writeToStdout);
  const colorize = options.destination === undefined && isatty(STDOUT_FD) && !process.env["NO_COLOR"];
  return pino(
    {
      level,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    format === "json" ? lines : prettyLines(lines, colorize),
  );
}

/**
 * Writes each line at once and whole through `writeSome`, which returns how many bytes it took or throws as
 * writeSync does. Not pino.destination: after an error that keeps the lines without a bound, and on EAGAIN it
 * sleeps until the reader comes back, with no end.
 */
export function createLineWriter(writeSome: (bytes: Uint8Array) => number): LineWriter {
  let readerGone = false;
  let stalled = false;
  return {
    write(line) {
      if (readerGone) return;
      let rest: Uint8Array = Buffer.from(line);
      let waitsLeft = stalled ? 0 : STALL_MS_MAX;
      while (rest.length > 0) {
        try {
          rest = rest.subarray(writeSome(rest));
          stalled = false;
        } catch (error) {
          const { code } = error as NodeJS.ErrnoException;
          // EAGAIN: someone made the pipe non-blocking; Bun does when process.stdout is used (1.4.5).
          if (code === "EAGAIN" && waitsLeft-- > 0) {
            Bun.sleepSync(1);
            continue;
          }
          stalled = code === "EAGAIN"; // the next lines try once and do not wait
          readerGone = code === "EPIPE";
          return;
        }
      }
    },
  };
}

function writeToStdout(bytes: Uint8Array): number {
  return writeSync(STDOUT_FD, bytes);
}

/** pino-pretty as a function, not as its stream: that hands lines on later, after the process may have gone. */
function prettyLines(lines: LineWriter, colorize: boolean): LineWriter {
  const pretty = prettyFactory({
    colorize,
    singleLine: true,
    ignore: "pid,hostname",
    translateTime: "SYS:yyyy-mm-dd HH:MM:ss.l",
  });
  return { write: (line: string) => lines.write(pretty(line)) };
}
