/** Punches: whether pairs of nodes connect directly, and punch requests with grants. */
import * as v from "valibot";
import { kernel } from "../../../ffi/libc.ts";
import { Introductions } from "../../data/introductions.ts";
import { GRANTS_REQUIRED, PUNCH_WATCH } from "../../shared/memory.ts";
import type { AnyFeature, Host } from "../feature.ts";
import { keys } from "../keys/feature.ts";
import type { Counts } from "../kit/metrics.ts";
import type { StatsOf } from "../kit/schema.ts";
import { sockets } from "../sockets/feature.ts";
import { workers } from "../workers/feature.ts";
import {
  PACKET_METRICS,
  packetSchema,
  packetStats,
  packetSummary,
} from "../workers/packet-stats.ts";
import { PunchGrants } from "./grants.ts";
import { type PunchConfig, punchOptions } from "./options.ts";
import { PunchOutcomes, punchedPairs } from "./outcomes.ts";

const stats = {
  punchedPairs: v.strictObject(punchedPairs),
  /** Outcomes of punch requests verified on the main thread; null if never required. */
  grants: v.nullable(packetSchema),
};
type PunchStats = StatsOf<typeof stats>;

export const punch = {
  name: "punch",
  options: punchOptions,
  stats,
  metrics: [
    {
      rows: ({ grants }: PunchStats) => (grants ? [[{ worker: "grants" }, grants]] : []),
      rowLabels: ["worker"],
      counters: PACKET_METRICS,
    },
    {
      rows: ({ punchedPairs: { direct, relayed } }: PunchStats) => [
        [{ outcome: "direct" }, direct],
        [{ outcome: "relayed" }, relayed],
      ],
      rowLabels: ["outcome"],
      counters: [
        {
          name: "beacon_punched_pairs_total",
          help: "Pairs of nodes told of each other, by the family of their addresses, and by whether they went on relaying through this beacon.",
          label: "family",
          values: (pairs: Counts) => pairs,
        },
      ],
    },
    {
      rows: (stats: PunchStats) => [[{}, stats.punchedPairs]],
      counters: [
        {
          name: "beacon_punched_pairs_unwatched_total",
          help: "Pairs of nodes told of each other of which it is not known what became: there was no room.",
          values: ({ unwatched }) => unwatched,
        },
      ],
      gauges: [
        {
          name: "beacon_punched_pairs_watched",
          help: "Pairs of nodes told of each other within the last minute.",
          values: ({ watching }) => watching,
        },
      ],
    },
  ],
  summary: ({ grants }: PunchStats) => (grants ? packetSummary(grants) : {}),
  create(host: Host<PunchConfig>) {
    const { memory, nodes, log, config } = host;
    const { fd, family } = host.use(sockets).all[0]!;
    const source = host.use(keys);
    const outcomes = new PunchOutcomes(memory);
    const introductions = new Introductions(kernel, memory, nodes, { fd, family });
    const grants = new PunchGrants({
      memory,
      nodes,
      introductions,
      log,
      guard: host.guard,
      keys: () => source.source,
    });
    host.use(workers).mail.add(grants.mail);
    let wereRequired = false;
    const apply = ({ requirePunchGrant, punchWatch }: PunchConfig) => {
      wereRequired ||= requirePunchGrant;
      Atomics.store(memory.words, memory.rulesAt + GRANTS_REQUIRED, Number(requirePunchGrant));
      Atomics.store(memory.words, memory.rulesAt + PUNCH_WATCH, Number(punchWatch));
    };
    apply(config);
    return {
      tick: () => outcomes.tick(),
      reconfigure: apply,
      stop: () => grants.stop(),
      stats: (): PunchStats => ({
        punchedPairs: outcomes.stats(),
        grants: wereRequired ? packetStats(memory, memory.grantsRow) : null,
      }),
    };
  },
} satisfies AnyFeature;
