/** The options of the process. */
import { duration } from "../../config/kinds.ts";
import type { OptionGroups, ValuesOf } from "../../config/option.ts";

export const processOptions = {
  "Process:": {
    drainMs: {
      flag: "drain",
      kind: duration("0s", "1h"),
      default: "0s",
      help: "Go on relaying for this long after a stop signal.",
      reloadable: true,
    },
  },
} satisfies OptionGroups;

export type ProcessConfig = ValuesOf<typeof processOptions>;
