/** Bytes and text, changed here and there. */
import type { Choices } from "./choices.ts";

/**
 * At most `max` changes: bits flipped, bytes set, cut out, doubled, swapped, the end cut off or
 * prolonged.
 */
export function mutateBytes(
  choices: Choices,
  bytes: Uint8Array<ArrayBuffer>,
  max: number,
): Uint8Array<ArrayBuffer> {
  let changed = bytes;
  for (let left = choices.below(max + 1); left > 0; left--) changed = changeBytes(choices, changed);
  return changed;
}

function changeBytes(choices: Choices, bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const at = bytes.length === 0 ? 0 : choices.below(bytes.length);
  switch (choices.below(7)) {
    case 0: {
      const flipped = bytes.slice();
      if (at < flipped.length) flipped[at]! ^= 1 << choices.below(8);
      return flipped;
    }
    case 1: {
      const set = bytes.slice();
      if (at < set.length) set[at] = choices.pick([0, 0xff, 0x7f, 0x80, choices.byte()]);
      return set;
    }
    case 2: {
      const set = bytes.slice();
      const value = choices.number();
      for (let i = 0; i < 4 && at + i < set.length; i++) set[at + i] = value >>> (8 * i);
      return set;
    }
    case 3:
      return bytes.slice(0, at);
    case 4:
      return joined(bytes, choices.bytes(choices.below(16)));
    case 5:
      return joined(bytes.subarray(0, at), bytes.subarray(at + 1 + choices.below(8)));
    default: {
      const piece = bytes.subarray(at, at + 1 + choices.below(32));
      return joined(bytes.subarray(0, at), piece, bytes.subarray(at));
    }
  }
}

function joined(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** What parsers of text stumble over, if over anything. */
const SNAGS = [
  ...["", " ", "\n", "\r\n", "\t", "\0", "\x7f", "\x1b[2J", "\u0085", "\u2028", "\u202e", "\ufeff"],
  ...[
    "\ud800",
    "\udfff",
    "\u{1f980}",
    "\u0661",
    "é",
    "%",
    "%00",
    "%eth0",
    "/",
    "//",
    "..",
    "-",
    "--",
    "=",
  ],
  ...[
    '"',
    "'",
    "\\",
    "\\u0000",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    ";",
    "null",
    "true",
    "NaN",
    "Infinity",
  ],
  ...[
    "0",
    "-0",
    "00",
    "1e9",
    "1.5",
    "0x10",
    "4294967295",
    "4294967296",
    "99999999999999999999",
    "1e400",
  ],
  ...[
    "::",
    "::1",
    "::ffff:",
    "/0",
    "/32",
    "/128",
    "/129",
    "127.1",
    "*",
    "off",
    "auto",
    "__proto__",
  ],
];

/**
 * At most `max` changes: characters put in, cut out, doubled, and words that parsers stumble over.
 */
export function mutateText(choices: Choices, text: string, max: number): string {
  let changed = text;
  for (let left = choices.below(max + 1); left > 0; left--) {
    const at = changed.length === 0 ? 0 : choices.below(changed.length);
    const behind = at + 1 + choices.below(4);
    const middle = [
      () => "",
      () => choices.pick(SNAGS),
      () => changed.slice(at, behind).repeat(1 + choices.below(8)),
      () => String.fromCharCode(choices.below(128)),
      () => String.fromCharCode(choices.below(65_536)),
      () => changed.slice(at, behind) + choices.pick(SNAGS),
    ][choices.below(6)]!;
    changed = changed.slice(0, at) + middle() + changed.slice(behind);
  }
  return changed;
}

/** A value as JSON can hold it, of few levels. */
export function jsonValue(choices: Choices, levels = 3): unknown {
  switch (choices.below(levels > 0 ? 8 : 6)) {
    case 0:
      return choices.pick(SNAGS);
    case 1:
      return choices.number();
    case 2:
      return choices.pick([0, -0, -1, 1.5, 1e21, 5e-324, -(2 ** 31), 2 ** 53]);
    case 3:
      return choices.oneIn(2);
    case 4:
      return null;
    case 5:
      return choices.pick(SNAGS).repeat(choices.below(600));
    case 6:
      return choices.some(4, () => jsonValue(choices, levels - 1));
    default:
      return Object.fromEntries(
        choices.some(4, () => [choices.pick(SNAGS), jsonValue(choices, levels - 1)] as const),
      );
  }
}
