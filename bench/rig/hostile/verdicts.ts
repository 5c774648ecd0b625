/** Verdicts on an attack, from its counts. Pure functions. */
import type { Attack, Evidence, Verdict } from "./attack.ts";
import { grown } from "./growth.ts";
import type { Service } from "./honest.ts";

const DELIVERED_MIN = 0.95;
/**
 * Of an attacker's packets that its kernel took: the rest may be lost in queues of this host, which
 * nobody counts.
 */
const ARRIVED_MIN = 0.5;

/** @param isWelcome whether a newcomer got what it came for; undefined if there was none */
export function judge(
  attack: Attack,
  evidence: Evidence,
  attacked: readonly Service[],
  isWelcome: boolean | undefined,
): Verdict[] {
  const counters = [
    ...(attack.limits ?? []).map((limit) => `beacon_limited_total{limit="${limit}"}`),
    ...(attack.counts ?? []),
  ];
  const { newcomer } = attack;
  return [
    ...happened(attack, evidence, attacked),
    ...attacked.map(({ kind, sent, delivered }) => ({
      what: `${kind}: ${delivered} of ${sent} delivered`,
      holds: sent > 0 && delivered >= sent * DELIVERED_MIN,
    })),
    ...counters.map((counter) => {
      const count = grown(evidence.growth, counter);
      return { what: `${counter} grew by ${count}`, holds: count > 0 };
    }),
    ...(attack.judge?.(evidence) ?? []),
    ...(isWelcome === undefined
      ? []
      : [{ what: `a newcomer ${newcomer}${isWelcome ? "" : ", or tries to"}`, holds: isWelcome }]),
  ];
}

/**
 * That there was an attack at all: its connections were opened; its packets came to the beacon, by
 * the beacon's own count and beyond the honest ones. Without this, nothing else says anything,
 * whatever an attack is excused for.
 */
function happened(
  attack: Attack,
  { effort, arrived }: Evidence,
  attacked: readonly Service[],
): Verdict[] {
  const { of, count } = effort;
  const honest = attacked.reduce((sum, { sent }) => sum + sent, 0);
  const hostile = Math.max(0, arrived - honest);
  return [
    { what: `${count} ${of} of the attacker`, holds: count > 0, isNeeded: true },
    ...(of === "packets" && attack.missesBeacon !== true
      ? [
          {
            what: `${hostile} packets came to the beacon beside honest ones`,
            holds: hostile > 0 && hostile >= count * ARRIVED_MIN,
            isNeeded: true as const,
          },
        ]
      : []),
  ];
}
