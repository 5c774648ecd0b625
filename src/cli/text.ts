/** Formats numbers and words for people, and removes control characters of others. */

/** What moves a cursor, changes colours, breaks a line or turns the direction of writing. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Text from outside as one piece of a line. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, "?");
}

/** A value as one line of JSON without terminal controls, which JSON leaves in place. */
export function jsonLine(value: unknown): string {
  return JSON.stringify(value).replace(
    UNPRINTABLE,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}${low(char)}`,
  );
}

/** The second half of a character beyond 16 bits, as JSON writes it. */
function low(char: string): string {
  return char.length === 1 ? "" : `\\u${char.charCodeAt(1).toString(16)}`;
}

/** 12,345 */
export function whole(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

const STEPS = [
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
] as const;

/** At most five characters and a unit: 0, 0.5, 123, 12.3k, 4.5M. */
export function short(value: number): string {
  for (const [step, unit] of STEPS) {
    // What rounds up to the next step is written with its unit: 999,950 is 1.0M.
    if (value >= step * 0.99995)
      return `${(value / step).toFixed(value < 100 * step ? 1 : 0)}${unit}`;
  }
  return value > 0 && value < 10 && !Number.isInteger(value)
    ? value.toFixed(1)
    : String(Math.round(value));
}

/** @param share 0 to 1 */
export function percent(share: number): string {
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)}%`;
}

/** The two largest units that say something: 3d 4h, 2m 5s, 7s. */
export function duration(seconds: number): string {
  const s = Math.floor(seconds);
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`;
  if (s < 86_400) return `${Math.floor(s / 3600)}h ${Math.floor((s % 3600) / 60)}m`;
  return `${Math.floor(s / 86_400)}d ${Math.floor((s % 86_400) / 3600)}h`;
}

/** Names with their rates, those at 0 left out: "local 12.3k/s, peer 5/s". */
export function rateList(rates: Readonly<Record<string, number>>, none: string): string {
  const some = Object.entries(rates).filter(([, rate]) => rate > 0);
  return some.length === 0
    ? none
    : some.map(([name, rate]) => `${name} ${short(rate)}/s`).join(", ");
}

/** Names with their counts, those at 0 left out, the largest first. */
export function countList(counts: Readonly<Record<string, number>>, none: string): string {
  const some = Object.entries(counts).filter(([, count]) => count > 0);
  some.sort(([, a], [, b]) => b - a);
  return some.length === 0
    ? none
    : some.map(([name, count]) => `${name} ${whole(count)}`).join(", ");
}

/** Rows under a head, columns as wide as they need, all but those of `left` to the right. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  left: readonly number[] = [],
): string[] {
  const widths = head.map((name, i) =>
    Math.max(name.length, ...rows.map((row) => row[i]?.length ?? 0)),
  );
  return [head, ...rows].map((row) =>
    row
      .map((cell, i) => (left.includes(i) ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join("  ")
      .trimEnd(),
  );
}
