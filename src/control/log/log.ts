/**
 * The logger of the main thread: text for people or one JSON object a line for machines. Lines go
 * to a thread that writes them (output.ts). Not pino's transports: they find no file inside a
 * compiled binary, and keep lines without a bound.
 */
import { isatty } from "node:tty";
import { type Logger, pino } from "pino";
import { prettyFactory } from "pino-pretty";
import type { LogFormat, LogLevel } from "./options.ts";
import { Output } from "./output.ts";

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

/** Standard output, once a logger writes there: all loggers of this process share its thread. */
let standardOutput: Output | undefined;

/** Log lines of this process that were dropped, as standard output did not take them. */
export function droppedLogLines(): number {
  return standardOutput?.dropped ?? 0;
}

/** A pino logger. A stalled reader or a full disk loses lines, and nothing else. */
export function createLogger(options: LoggerOptions): Logger {
  const { level, format } = options;
  const colorize =
    options.destination === undefined && isatty(STDOUT_FD) && !process.env["NO_COLOR"];
  const shown = (lines: LineWriter) => (format === "json" ? lines : prettyLines(lines, colorize));
  const loggerTo = (lines: LineWriter) =>
    pino(
      {
        level,
        timestamp: pino.stdTimeFunctions.isoTime,
        formatters: { level: (label) => ({ level: label }) },
      },
      shown(lines),
    );
  if (options.destination) return loggerTo(options.destination);
  let notice = "";
  const reporter = loggerTo({ write: (line) => (notice = line) });
  reporter.level = "warn";
  standardOutput ??= new Output(STDOUT_FD, (dropped) => {
    reporter.warn(
      { dropped },
      `${dropped} log lines were dropped: standard output did not take them`,
    );
    return notice;
  });
  return loggerTo(standardOutput);
}

/** pino-pretty as a function: its stream delivers lines late, after the process ended. */
function prettyLines(lines: LineWriter, colorize: boolean): LineWriter {
  const pretty = prettyFactory({
    colorize,
    singleLine: true,
    ignore: "pid,hostname",
    translateTime: "SYS:yyyy-mm-dd HH:MM:ss.l",
  });
  return { write: (line: string) => lines.write(pretty(line)) };
}
