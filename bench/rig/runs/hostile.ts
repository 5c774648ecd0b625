/**
 * Honest traffic while a beacon is attacked, in each of many ways: what is still delivered, and how
 * late.
 */
import { spreadOf } from "../../harness/statistics.ts";
import type { Attack, Effort, Verdict } from "../hostile/attack.ts";
import { ATTACKS } from "../hostile/attacks.ts";
import {
  addGrowths,
  arrivedBetween,
  type Growth,
  growthBetween,
  showGrowth,
} from "../hostile/growth.ts";
import type { Service } from "../hostile/honest.ts";
import { FULL, type Scale, SMOKE } from "../hostile/scale.ts";
import { type Stage, Theatre } from "../hostile/stage.ts";
import { judge } from "../hostile/verdicts.ts";
import type { Report } from "../report.ts";
import type { Run, RunOptions } from "../run.ts";

/** The 99th percentile under attack, over that of the quiet right before it. */
const LATE_MAX = 3;
/** What an attack needs to begin. */
const BEGINNING_MS = 100;

/** Quiet, and then the attack. */
interface Round {
  readonly quiet: readonly Service[];
  readonly attacked: readonly Service[];
  readonly effort: Effort;
  readonly attackedS: number;
  readonly growth: Growth;
  readonly verdicts: readonly Verdict[];
}

interface Outcome {
  readonly attack: string;
  readonly does: string;
  /** Whether the beacon's limits were in force. */
  readonly limited: boolean;
  /** Why no bar is held, if none is. */
  readonly excuse: string | undefined;
  readonly rounds: readonly Round[];
}

async function tryOut(
  theatre: Theatre,
  attack: Attack,
  scale: Scale,
  limited: boolean,
): Promise<Outcome> {
  const stage = await theatre.set(attack, limited);
  if (scale.warmUpMs > 0) await stage.traffic.flow(scale.warmUpMs);
  const rounds: Round[] = [];
  const count = attack.isLong || !limited ? 1 : scale.rounds;
  while (rounds.length < count) rounds.push(await oneRound(theatre, stage, attack, scale));
  await stage.clear();
  const { name, does, excuse = limited ? undefined : "no limits" } = attack;
  return { attack: name, does, limited, excuse, rounds };
}

async function oneRound(
  theatre: Theatre,
  stage: Stage,
  attack: Attack,
  scale: Scale,
): Promise<Round> {
  const { attacker, bystander } = theatre;
  const quiet = await stage.traffic.flow(scale.quietMs);
  const [before, bystanderBefore] = [await stage.scrape(), await bystander.received()];
  const sinceMs = performance.now();
  await attacker.attack(attack.name, stage.scene);
  await Bun.sleep(BEGINNING_MS);
  const forMs = attack.isLong ? scale.longMs : scale.attackMs;
  const [attacked, isWelcome] = await Promise.all([
    stage.traffic.flow(forMs),
    // In the middle: a table is full by then, or a limit's burst spent.
    attack.newcomer && Bun.sleep(forMs / 2).then(() => stage.welcomes(attack.newcomer!)),
  ]);
  const after = await stage.scrape(); // an operator can look while it goes on
  const effort = await attacker.stop();
  const attackedS = (performance.now() - sinceMs) / 1000;
  const { packets, bytes } = await bystander.received();
  const victim = {
    packets: packets - bystanderBefore.packets,
    bytes: bytes - bystanderBefore.bytes,
  };
  const [growth, arrived] = [growthBetween(before, after), arrivedBetween(before, after)];
  const verdicts = judge(
    attack,
    { effort, victim, growth, arrived, attackedS },
    attacked,
    isWelcome,
  );
  return { quiet, attacked, effort, attackedS, growth, verdicts };
}

const median = (values: readonly number[]): number => spreadOf(values).median;

/**
 * How much later the honest packets of the i-th kind are under attack: the ratio of the 99th
 * percentiles, of the median round.
 */
const lateness = ({ rounds }: Outcome, i: number): number =>
  median(rounds.map(({ quiet, attacked }) => attacked[i]!.p99Ms / quiet[i]!.p99Ms));

const verdictsOf = ({ rounds }: Outcome): Verdict[] => rounds.flatMap(({ verdicts }) => verdicts);
const titleOf = ({ attack, limited }: Outcome): string => attack + (limited ? "" : " (no limits)");

function rowsOf(outcome: Outcome): string[][] {
  const { rounds } = outcome;
  const { effort } = rounds[0]!;
  const perS = median(rounds.map(({ effort, attackedS }) => effort.count / attackedS));
  const show = (
    when: "quiet" | "attacked",
    i: number,
    what: (service: Service) => number,
    digits: number,
  ) => median(rounds.map((round) => what(round[when][i]!))).toFixed(digits);
  const share = ({ sent, delivered }: Service) => (100 * delivered) / sent;
  const both = (i: number, what: (service: Service) => number, digits: number) =>
    `${show("quiet", i, what, digits)} → ${show("attacked", i, what, digits)}`;
  return rounds[0]!.attacked.map(({ kind }, i) => [
    i === 0 ? titleOf(outcome) : "",
    i === 0 ? `${perS.toFixed(0)} ${effort.of}/s` : "",
    kind,
    `${both(i, share, 1)} %`,
    both(i, ({ p50Ms }) => p50Ms, 2),
    both(i, ({ p99Ms }) => p99Ms, 2),
    `${lateness(outcome, i).toFixed(1)} ×`,
    i > 0 ? "" : showVerdict(outcome),
  ]);
}

function showVerdict(outcome: Outcome): string {
  if (verdictsOf(outcome).every(({ holds }) => holds)) return "holds";
  return outcome.excuse === undefined ? "FAILS" : `does not hold: ${outcome.excuse}`;
}

function print(report: Report, outcomes: readonly Outcome[]): void {
  report.table(
    "Honest traffic before an attack → under it, medians of rounds; delays one way, in ms",
    [
      ["attack", "rate", "honest", "delivered", "p50", "p99", "p99 ratio", "verdict"],
      ...outcomes.flatMap(rowsOf),
    ],
  );
  report.table("What the attacker does, and what the beacon counts", [
    ["attack", "does", "counted"],
    ...outcomes.map((outcome) => [
      titleOf(outcome),
      outcome.does,
      showGrowth(addGrowths(outcome.rounds.map(({ growth }) => growth))),
    ]),
  ]);
}

/**
 * The bars; where there is an excuse, only that the attack took place.
 * @param smoke says nothing of how late packets are: that is the machine's mood then
 */
function hold(report: Report, outcome: Outcome, smoke: boolean): void {
  const isExcused = outcome.excuse !== undefined;
  for (const { what, holds, isNeeded } of verdictsOf(outcome)) {
    if (isNeeded || !isExcused) report.expect(`${titleOf(outcome)}: ${what}`, holds);
  }
  if (smoke || isExcused) return;
  for (const [i, { kind }] of outcome.rounds[0]!.attacked.entries()) {
    const ratio = lateness(outcome, i);
    report.expect(
      `${outcome.attack}: ${kind} has a p99 of ${ratio.toFixed(1)} ×`,
      ratio <= LATE_MAX,
    );
  }
}

async function run(report: Report, { smoke, only }: RunOptions): Promise<void> {
  const scale = smoke ? SMOKE : FULL;
  const theatre = await Theatre.build(scale);
  const attacks = ATTACKS.filter(
    ({ name, inSmoke = true }) => name.includes(only) && (!smoke || inSmoke || only !== ""),
  );
  const outcomes: Outcome[] = [];
  for (const attack of attacks) {
    // What limits are there for is tried without them, too: it shows that the attack is one.
    for (const limited of smoke || attack.limits === undefined ? [true] : [true, false]) {
      const outcome = await tryOut(theatre, attack, scale, limited);
      outcomes.push(outcome);
      const found = verdictsOf(outcome).map(({ what, holds }) => (holds ? what : `NOT: ${what}`));
      report.say(`${titleOf(outcome)}: ${found.join("; ")}`);
    }
  }
  print(report, outcomes);
  for (const outcome of outcomes) hold(report, outcome, smoke);
  report.keep("outcomes", outcomes);
}

export const HOSTILE_RUN: Run = {
  name: "hostile",
  description: "honest traffic while the beacon is attacked, in each of many ways",
  needs: ["openssl"],
  hasParts: true,
  run,
};
