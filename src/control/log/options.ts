/** The options of the log. */
import { oneOf } from "../../config/kinds.ts";
import type { OptionGroups, ValuesOf } from "../../config/option.ts";

const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const LOG_FORMATS = ["text", "json"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

export const logOptions = {
  "Monitoring:": {
    logLevel: {
      flag: "log-level",
      kind: oneOf(LOG_LEVELS),
      form: "level",
      default: "info",
      help: `Least severe level to log: ${LOG_LEVELS.join(", ")}.`,
      reloadable: true,
    },
    logFormat: {
      flag: "log-format",
      kind: oneOf(LOG_FORMATS),
      default: "text",
      help: "For people or for machines.",
    },
  },
} satisfies OptionGroups;

export type LogConfig = ValuesOf<typeof logOptions>;
