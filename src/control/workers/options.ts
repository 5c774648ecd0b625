/** The options of the workers. */
import { availableParallelism } from "node:os";
import { whole } from "../../config/kinds.ts";
import type { OptionGroups, ValuesOf } from "../../config/option.ts";

/** Bounds what is allocated for each worker; not a measured limit. */
const WORKERS_MAX = 64;

/** Default batch: from 32 to 256 CPU a packet is equal (2026-11); 64 stays in the L2 cache. */
export const BATCH_MAX_DEFAULT = 64;

export const workersOptions = {
  "Performance:": {
    workers: {
      flag: "workers",
      kind: whole(1, WORKERS_MAX),
      default: String(Math.min(availableParallelism(), WORKERS_MAX)),
      defaultNote: `one per CPU, at most ${WORKERS_MAX}`,
      help: "Threads that receive and relay.",
    },
    batchMax: {
      flag: "batch",
      kind: whole(1, 1024),
      default: String(BATCH_MAX_DEFAULT),
      help: "Most datagrams taken by one receive call.",
    },
  },
} satisfies OptionGroups;

export type WorkersConfig = ValuesOf<typeof workersOptions>;
