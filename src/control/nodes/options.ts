/** The options of the nodes. */
import { duration, orWord, path, whole } from "../../config/kinds.ts";
import type { OptionGroups, ValuesOf } from "../../config/option.ts";

export const nodesOptions = {
  "Nodes:": {
    maxNodes: {
      flag: "max-nodes",
      kind: whole(1, 16_000_000),
      default: "500000",
      help: "Most nodes known at once; their memory is taken at start.",
    },
    nodeTtlMs: {
      flag: "node-ttl",
      kind: duration("1s", "24h"),
      default: "10m",
      help: "Forget a node not heard for this long, such as 90s or 1h30m.",
    },
  },
  "Process:": {
    stateFile: {
      flag: "state-file",
      kind: orWord("off", path),
      default: "off",
      help: "Keep the node table in this file across restarts.",
    },
    stateIntervalMs: {
      flag: "state-interval",
      kind: duration("1s", "1h"),
      default: "60s",
      help: "How often that file is saved; a crash loses what came since.",
    },
  },
} satisfies OptionGroups;

export type NodesConfig = ValuesOf<typeof nodesOptions>;
