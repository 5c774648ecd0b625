/** How a beacon is, in few words, the same wherever a person reads it. */
import type { Stats } from "../features.ts";

export interface Condition {
  readonly text: string;
  readonly tone: "good" | "warning" | "bad";
}

type Of = Pick<Stats, "healthy" | "breakers"> & Partial<Pick<Stats, "notReady" | "warnings">>;

export function conditionOf(stats: Of): Condition {
  const { healthy, notReady } = stats;
  if (!healthy) return { text: notReady ? `unhealthy: ${notReady}` : "unhealthy", tone: "bad" };
  if (notReady) return { text: `not ready: ${notReady}`, tone: "bad" };
  const { length } = warningsOf(stats);
  if (length === 0) return { text: "healthy", tone: "good" };
  return { text: `healthy, ${length} ${length === 1 ? "warning" : "warnings"}`, tone: "warning" };
}

/** Warnings though the beacon is healthy, a sentence each. Older beacons send none. */
export function warningsOf({ breakers, warnings }: Of): readonly string[] {
  const off = Object.keys(breakers).filter((name) => breakers[name] === "off");
  return [...(warnings ?? []), ...(off.length === 0 ? [] : [`switched off: ${off.join(", ")}`])];
}
