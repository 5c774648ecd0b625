/** Honest traffic while a beacon is attacked, in each of many ways: what is still delivered, and how late. */
import type { Attack, Effort, Verdict } from "../hostile/attack.ts";
import { ATTACKS } from "../hostile/attacks.ts";
import { type Growth, grown, growthBetween, showGrowth } from "../hostile/growth.ts";
import type { Service } from "../hostile/honest.ts";
import { FULL, type Scale, SMOKE } from "../hostile/scale.ts";
import { Theatre } from "../hostile/stage.ts";
import type { Report } from "../report.ts";
import type { Run, RunOptions } from "../run.ts";

const DELIVERED_MIN = 0.95;
/** The 99th percentile under attack, over that of the quiet before it. */
const LATE_MAX = 3;
/** What an attack needs to begin. */
const BEGINNING_MS = 100;

interface Outcome {
  readonly attack: string;
  readonly does: string;
  readonly limited: boolean;
  readonly effort: Effort;
  readonly attackedS: number;
  readonly quiet: readonly Service[];
  readonly attacked: readonly Service[];
  readonly growth: Growth;
  readonly verdicts: readonly Verdict[];
}

async function tryOut(theatre: Theatre, attack: Attack, scale: Scale, limited: boolean): Promise<Outcome> {
  const stage = await theatre.set(attack, limited);
  const { traffic, scene } = stage;
  await traffic.flow(scale.warmUpMs);
  const quiet = await traffic.flow(scale.quietMs);
  const [before, victimBefore] = [await stage.scrape(), await theatre.bystander.received()];
  const since = performance.now();
  await theatre.attacker.attack(attack.name, scene);
  await Bun.sleep(BEGINNING_MS);
  const [attacked, welcome] = await Promise.all([
    traffic.flow(attack.outlastsHold ? scale.beyondHoldMs : scale.attackMs),
    attack.newcomer === undefined ? undefined : stage.welcomes(attack.newcomer),
  ]);
  const growth = growthBetween(before, await stage.scrape()); // which must be had while it goes on
  const effort = await theatre.attacker.stop();
  const attackedS = (performance.now() - since) / 1000;
  const victimAfter = await theatre.bystander.received();
  const victim = {
    packets: victimAfter.packets - victimBefore.packets,
    bytes: victimAfter.bytes - victimBefore.bytes,
  };
  await stage.clear();
  const verdicts = [
    { what: `${effort.count} ${effort.of} of the attacker`, holds: effort.count > 0 },
    ...attacked.map(({ kind, sent, delivered }) => ({
      what: `${kind}: ${delivered} of ${sent} delivered`,
      holds: delivered >= sent * DELIVERED_MIN,
    })),
    ...(attack.limits ?? []).map((limit) => {
      const count = grown(growth, "beacon_limited_total", `"${limit}"`);
      return { what: `the limit ${limit} dropped ${count}`, holds: count > 0 };
    }),
    ...(attack.counts ?? []).map((counter) => {
      const count = grown(growth, counter);
      return { what: `${counter} grew by ${count}`, holds: count > 0 };
    }),
    ...(welcome === undefined ? [] : [{ what: `a newcomer ${attack.newcomer}: ${welcome}`, holds: welcome }]),
    ...(attack.judge?.({ effort, victim, growth, attackedS }) ?? []),
  ];
  const { name, does } = attack;
  return { attack: name, does, limited, effort, attackedS, quiet, attacked, growth, verdicts };
}

/** How much later honest packets are under attack, by kind: the ratio of the 99th percentiles. */
const lateness = ({ quiet, attacked }: Outcome): number[] =>
  attacked.map(({ p99Ms }, i) => p99Ms / quiet[i]!.p99Ms);

function rowsOf(outcome: Outcome): string[][] {
  const { attack, limited, effort, attackedS, quiet, attacked, verdicts } = outcome;
  const ratios = lateness(outcome);
  const share = ({ sent, delivered }: Service) => `${((100 * delivered) / sent).toFixed(1)} %`;
  const ms = (value: number) => value.toFixed(2);
  return attacked.map((service, i) => {
    const calm = quiet[i]!;
    const isFirst = i === 0;
    return [
      isFirst ? attack + (limited ? "" : ", no limits") : "",
      isFirst ? `${Math.round(effort.count / attackedS)} ${effort.of}/s` : "",
      service.kind,
      `${share(calm)} → ${share(service)}`,
      `${ms(calm.p50Ms)} → ${ms(service.p50Ms)}`,
      `${ms(calm.p99Ms)} → ${ms(service.p99Ms)}`,
      `${ratios[i]!.toFixed(1)} ×`,
      !isFirst ? "" : verdicts.every(({ holds }) => holds) ? "holds" : "FAILS",
    ];
  });
}

function print(report: Report, outcomes: readonly Outcome[]): void {
  report.table("Honest traffic before an attack → under it; delays one way, in ms", [
    ["attack", "rate", "honest", "delivered", "p50", "p99", "p99 ratio", "verdict"],
    ...outcomes.flatMap(rowsOf),
  ]);
  report.table("What the beacon counted meanwhile", [
    ["attack", "counted"],
    ...outcomes.map(({ attack, limited, growth }) => [
      attack + (limited ? "" : ", no limits"),
      showGrowth(growth),
    ]),
  ]);
}

async function run(report: Report, { smoke }: RunOptions): Promise<void> {
  const scale = smoke ? SMOKE : FULL;
  const theatre = await Theatre.build(scale);
  const attacks = ATTACKS.filter(({ inSmoke = true }) => !smoke || inSmoke);
  const outcomes: Outcome[] = [];
  for (const attack of attacks) {
    for (const limited of smoke ? [true] : [true, false]) {
      const outcome = await tryOut(theatre, attack, scale, limited);
      outcomes.push(outcome);
      const { attacked, verdicts } = outcome;
      report.say(
        `${attack.name}${limited ? "" : ", no limits"}: ${attacked.map(({ delivered, sent }) => `${delivered}/${sent}`)} ` +
          `${lateness(outcome).map((ratio) => `${ratio.toFixed(1)} ×`)}; ${verdicts.map(({ what }) => what).join("; ")}`,
      );
    }
  }
  print(report, outcomes);
  for (const outcome of outcomes.filter(({ limited }) => limited)) {
    for (const { what, holds } of outcome.verdicts) report.expect(`${outcome.attack}: ${what}`, holds);
    if (smoke) continue; // how late packets are within so short a time, is the machine's mood
    for (const ratio of lateness(outcome)) {
      report.expect(`${outcome.attack}: a p99 of ${ratio.toFixed(1)} ×`, ratio <= LATE_MAX);
    }
  }
  report.keep("outcomes", outcomes);
}

export const HOSTILE_RUN: Run = {
  name: "hostile",
  description: "honest traffic while the beacon is attacked, in each of many ways",
  needs: ["openssl"],
  run,
};
