/**
 * Three beacons under honest traffic while everything around them goes wrong, several things at
 * once.
 */
import { randomInt } from "node:crypto";
import { BEACONS } from "../chaos/pairs.ts";
import { type ChaosOptions, type ChaosResult, expectations } from "../chaos/result.ts";
import { Namespace, scratchFolder } from "../namespace.ts";
import { RemoteProcess } from "../remote.ts";
import { type Report, showMs } from "../report.ts";
import type { Run } from "../run.ts";

export const MINUTES_DEFAULT = 10;
/** An act a minute, and growth is told from two. */
export const MINUTES_MIN = 2;
const SEED_END = 2 ** 31;
const TRACE_CHARS_MAX = 60;

/** setTimeout's longest. */
const FOR_LIFE_MS = 2 ** 31 - 1;

/** Runs the chaos in a namespace of its own. @throws Error of that process if there is no result */
async function perform(options: ChaosOptions): Promise<ChaosResult> {
  const namespace = Namespace.create("chaos");
  const stage = new RemoteProcess<ChaosOptions>(namespace, "chaos/stage-process.ts");
  try {
    return (await stage.tell(options, FOR_LIFE_MS)) as ChaosResult;
  } finally {
    namespace.remove();
  }
}

const percent = (delivered: number, sent: number): string =>
  sent === 0 ? "" : `${((100 * delivered) / sent).toFixed(2)} %`;

function show({ faults, pairs, growth }: ChaosResult, report: Report): void {
  report.table(
    "Faults; delivery is that of pairs which no fault concerned, while this one lasted",
    [
      [
        "fault",
        "times",
        "sent",
        "delivered",
        "worst gap",
        "well after",
        "at most",
        "what names it",
      ],
      ...faults.map(({ name, times, sent, delivered, gapMs, backAfterMs, trace }) => [
        name,
        String(times),
        String(sent),
        percent(delivered, sent),
        sent === 0 ? "" : showMs(gapMs),
        backAfterMs === undefined ? "" : showMs(backAfterMs.median),
        backAfterMs === undefined ? "" : showMs(backAfterMs.max),
        trace.slice(0, TRACE_CHARS_MAX),
      ]),
    ],
  );
  report.table("Pairs; in seconds that no fault concerned them, and in all", [
    ["pair", "seconds", "sent", "delivered", "worst gap", "sent in all", "delivered"],
    ...pairs.map((pair) => [
      pair.title,
      String(pair.seconds),
      String(pair.sent),
      percent(pair.delivered, pair.sent),
      showMs(pair.gapMs),
      String(pair.sentInAll),
      percent(pair.deliveredInAll, pair.sentInAll),
    ]),
  ]);
  if (Object.keys(growth).length === 0) return;
  report.table("What beacons use, in the first calms and in the last", [
    ["beacon", "files", "threads", "resident"],
    ...BEACONS.flatMap((name) => {
      const found = growth[name];
      if (found === undefined) return [];
      const { first, last } = found;
      return [
        [
          name,
          `${first.files} → ${last.files}`,
          `${first.threads} → ${last.threads}`,
          `${first.residentMb.toFixed(1)} → ${last.residentMb.toFixed(1)} MB`,
        ],
      ];
    }),
  ]);
}

export const CHAOS_RUN: Run = {
  name: "chaos",
  description: "beacons under traffic while everything around them goes wrong",
  needs: ["nft", "mount", "prlimit"],
  async run(report, { smoke, minutes = MINUTES_DEFAULT, seed = randomInt(SEED_END) }) {
    report.say(`seed ${seed}: --seed ${seed} repeats this schedule`);
    const result = await perform({ folder: scratchFolder(), seed, minutes, smoke });
    for (const what of result.leftOut) report.say(`left out: ${what}`);
    show(result, report);
    for (const [what, holds] of expectations(result)) report.expect(what, holds);
    report.keep("chaos", result);
  },
};
