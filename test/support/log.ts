/** Loggers of tests. */
import { createLogger, type LoggerOptions } from "../../src/control/log/log.ts";

export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

export const silentLog = createLogger({ level: "silent", format: "json" });

/** Returns a logger, and the lines that it has written. */
export function recordedLog(level: LoggerOptions["level"] = "info") {
  const lines: LogLine[] = [];
  const destination = { write: (line: string) => lines.push(JSON.parse(line)) };
  return { log: createLogger({ level, format: "json", destination }), lines };
}
