/** Link conditions in the words of tc-netem(8). */
import type { Conditions } from "./link.ts";

/**
 * Packets that may wait: some 100 Mbit of them, a second at that rate. With the default, 1,000, a
 * burst would lose what should be late.
 */
const LIMIT_PACKETS = 10_000;
/**
 * The commands that bring an interface's outgoing packets under these conditions.
 *
 * netem sends each packet when its time has come, so jitter alone makes packets overtake each
 * other. Behind a plain queue in place of its own they keep their order (the manual page, under
 * "delay").
 * @throws RangeError for conditions that contradict each other
 */
export function netemCommands(link: string, conditions: Conditions): string[][] {
  const {
    delayMs = 0,
    jitterMs = 0,
    lossPercent,
    duplicatePercent,
    reorder,
    rateKbitPerS,
  } = conditions;
  checkConditions(conditions);
  const words = ["limit", String(LIMIT_PACKETS)];
  if (delayMs > 0) words.push("delay", `${delayMs}ms`);
  if (jitterMs > 0) words.push(`${jitterMs}ms`);
  if (lossPercent !== undefined) words.push("loss", `${lossPercent}%`);
  if (duplicatePercent !== undefined) words.push("duplicate", `${duplicatePercent}%`);
  if (rateKbitPerS !== undefined) words.push("rate", `${rateKbitPerS}kbit`);
  const add = ["tc", "qdisc", "add", "dev", link];
  const netem = [...add, "root", "handle", "1:", "netem", ...words];
  const inOrder = [...add, "parent", "1:1", "pfifo", "limit", String(LIMIT_PACKETS)];
  return jitterMs > 0 && !reorder ? [netem, inOrder] : [netem];
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
