/** The log. */
import type { AnyFeature, Host } from "../feature.ts";
import { number, type StatsOf } from "../kit/schema.ts";
import { droppedLogLines } from "./log.ts";
import { type LogConfig, logOptions } from "./options.ts";

const stats = { logLinesDropped: number };

export const log = {
  name: "log",
  options: logOptions,
  stats,
  metrics: [
    {
      rows: (values: StatsOf<typeof stats>) => [[{}, values]],
      counters: [
        {
          name: "beacon_log_lines_dropped_total",
          help: "Log lines dropped because standard output did not take them.",
          values: ({ logLinesDropped }) => logLinesDropped,
        },
      ],
    },
  ],
  create({ log: logger, config }: Host<LogConfig>) {
    let level = config.logLevel;
    return {
      reconfigure({ logLevel }: LogConfig) {
        if (logLevel !== level) logger.level = logLevel; // else it stays as a library's user has it
        level = logLevel;
      },
      stats: () => ({ logLinesDropped: droppedLogLines() }),
    };
  },
} satisfies AnyFeature;
