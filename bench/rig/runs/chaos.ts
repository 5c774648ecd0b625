/** Three beacons under honest traffic while everything around them goes wrong, several things at once. */
import { randomInt } from "node:crypto";
import { BEACONS } from "../chaos/pairs.ts";
import { type ChaosOptions, type ChaosResult, expectations } from "../chaos/result.ts";
import type { Told } from "../chaos/stage-process.ts";
import { Namespace, scratchFolder } from "../namespace.ts";
import { type Report, showMs } from "../report.ts";
import type { Run } from "../run.ts";

export const MINUTES_DEFAULT = 10;
/** An act a minute, and growth is told from two. */
export const MINUTES_MIN = 2;
const SEED_END = 2 ** 31;
const TRACE_CHARS_MAX = 60;

const STAGE = new URL("../chaos/stage-process.ts", import.meta.url).pathname;

/** Lets it take place in a namespace of its own. @throws Error, with what that process said, if there is no result */
async function perform(options: ChaosOptions, say: (text: string) => void): Promise<ChaosResult> {
  const namespace = Namespace.create("chaos");
  let result: ChaosResult | undefined;
  let error = "its process ended";
  const child = Bun.spawn(namespace.exec(process.execPath, STAGE, JSON.stringify(options)), {
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
    ipc: (told: Told) => {
      if ("say" in told) say(told.say);
      else if ("result" in told) result = told.result;
      else error = told.error;
    },
  });
  await child.exited;
  namespace.remove();
  if (result === undefined) throw new Error(`the chaos came to no result: ${error}`);
  return result;
}

const percent = (delivered: number, sent: number): string =>
  sent === 0 ? "" : `${((100 * delivered) / sent).toFixed(2)} %`;

function show({ faults, pairs, growth }: ChaosResult, report: Report): void {
  report.table("Faults; delivery is that of pairs which no fault concerned, while this one lasted", [
    ["fault", "times", "sent", "delivered", "worst gap", "well after", "at most", "what names it"],
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
  ]);
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
    const result = await perform({ folder: scratchFolder(), seed, minutes, smoke }, (text) =>
      report.say(text),
    );
    for (const what of result.leftOut) report.say(`left out: ${what}`);
    show(result, report);
    for (const [what, holds] of expectations(result)) report.expect(what, holds);
    report.keep("chaos", result);
  },
};
