/** How numbers are written on the page: the same everywhere, whatever the reader's language. */

/** For what is not known. */
export const UNKNOWN = "–";

const UNITS = ["", "k", "M", "G", "T"];
/** Up to here numbers are written in full. */
const FULL_MAX = 10_000;

const full = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const precise = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** Every digit: 1,234,567. */
export function count(value: number): string {
  return full.format(value);
}

/** Three digits that matter: 0.4, 8.5, 1,234, 12.3k, 1.23M. */
export function short(value: number): string {
  if (value < 10) return precise.format(value);
  return value < FULL_MAX ? full.format(value) : scaled(value, "");
}

/** 12 B, 12.3 kB, 1.23 MB; never broken between number and unit. */
export function bytes(value: number): string {
  return value < 1000 ? `${full.format(value)}\u00a0B` : `${scaled(value, "\u00a0")}B`;
}

/** 0.037, 1.25, 33.3. */
export function cores(value: number): string {
  return value.toFixed(value < 1 ? 3 : value < 10 ? 2 : 1);
}

/** 0 to 1 as percent. */
export function share(value: number): string {
  return value > 0 && value < 0.01 ? "<1%" : `${Math.round(value * 100)}%`;
}

/** The two units that matter: 3 d 4 h, 5 min 7 s. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  const [d, h, min] = [Math.floor(s / 86_400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d > 0) return `${d} d ${h} h`;
  if (h > 0) return `${h} h ${min} min`;
  return min > 0 ? `${min} min ${s % 60} s` : `${s} s`;
}

/** snake_case and camelCase, as counters are named, in words. */
export function words(name: string): string {
  return name
    .replace(/_/g, " ")
    .replace(/([a-z])([A-Z])/g, (_, a: string, b: string) => `${a} ${b.toLowerCase()}`);
}

function scaled(value: number, gap: string): string {
  let unit = 0;
  let left = value;
  // 999,500 is 1.00M and not 1000k.
  while (left >= 999.5 && unit < UNITS.length - 1) {
    left /= 1000;
    unit++;
  }
  const digits = left < 9.995 ? 2 : left < 99.95 ? 1 : 0;
  return `${left.toFixed(digits)}${gap}${UNITS[unit]}`;
}
