/** The log. */
import type { Config } from "../../config.ts";
import type { AnyFeature, Host } from "../feature.ts";
import { droppedLogLines } from "./log.ts";

export const log = {
  name: "log",
  metrics: [
    {
      rows: (stats: { readonly logLinesDropped: number }) => [[{}, stats]],
      counters: [
        {
          name: "beacon_log_lines_dropped_total",
          help: "Log lines dropped because standard output did not take them.",
          values: ({ logLinesDropped }) => logLinesDropped,
        },
      ],
    },
  ],
  create({ log: logger, config }: Host<Pick<Config, "logLevel">>) {
    let level = config.logLevel;
    return {
      reconfigure({ logLevel }: Pick<Config, "logLevel">) {
        if (logLevel !== level) logger.level = logLevel; // else it stays as a library's user has it
        level = logLevel;
      },
      stats: () => ({ logLinesDropped: droppedLogLines() }),
    };
  },
} satisfies AnyFeature;
