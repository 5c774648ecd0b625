/** Link conditions in the words of tc-netem(8). */
import type { Conditions } from "./link.ts";

/** Packets that wait at once: what 100 Mbit/s hold in a second. The default of 1,000 would drop a burst that is only late. */
const LIMIT_PACKETS = 10_000;
/** Of packets, with this share sent at once, ahead of those that are delayed: netem's own way of reordering. */
const REORDER_PERCENT = 25;

/** @throws RangeError for conditions that contradict each other */
export function netemArguments(conditions: Conditions): string[] {
  const { delayMs = 0, jitterMs = 0, lossPercent, duplicatePercent, reorder, rateKbitPerS } = conditions;
  checkConditions(conditions);
  const words = ["limit", String(LIMIT_PACKETS)];
  if (delayMs > 0) words.push("delay", `${delayMs}ms`);
  if (jitterMs > 0) words.push(`${jitterMs}ms`);
  if (lossPercent !== undefined) words.push("loss", `${lossPercent}%`);
  if (duplicatePercent !== undefined) words.push("duplicate", `${duplicatePercent}%`);
  if (reorder) words.push("reorder", `${REORDER_PERCENT}%`);
  if (rateKbitPerS !== undefined) words.push("rate", `${rateKbitPerS}kbit`);
  return words;
}

/** What holds for both implementations. */
export function checkConditions({
  delayMs = 0,
  jitterMs = 0,
  reorder,
  lossPercent = 0,
  duplicatePercent = 0,
}: Conditions): void {
  if (jitterMs > delayMs) throw new RangeError("a delay strays no further than it is long");
  if (reorder && jitterMs === 0)
    throw new RangeError("packets overtake each other by their jitter: give some");
  for (const percent of [lossPercent, duplicatePercent]) {
    if (!(percent >= 0 && percent < 100)) throw new RangeError(`${percent} percent of packets`);
  }
}
