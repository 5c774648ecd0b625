/**
 * Lists of address prefixes, written by the main thread and read by every worker without a lock. A
 * new list is put beside the one in force, and comes in force with one store.
 */
import { PREFIX_LIST_MAX, PREFIX_WORDS, type SharedMemory } from "./memory.ts";

/** An address, IPv4 as ::ffff:a.b.c.d, and how many of its 128 bits count. */
export interface Prefix {
  /** 16 bytes; those behind the prefix are 0. */
  readonly bytes: Uint8Array;
  /** 0 to 128. */
  readonly bits: number;
}

/** The head says which copy is in force, in its upper half, and how many prefixes that has. */
const COPY_SHIFT = 16;
const COUNT_MASK = 0xffff;
const ADDRESS_WORDS = PREFIX_WORDS / 2;

export class PrefixList {
  protected readonly words: Int32Array;
  protected readonly head: number;
  protected readonly copies: readonly [number, number];

  /** @param list DENIED_ENDPOINTS or another */
  constructor(memory: SharedMemory, list: number) {
    this.words = memory.words;
    this.head = memory.prefixList(list);
    this.copies = [memory.prefixes(list, 0), memory.prefixes(list, 1)];
  }

  /** Whether the endpoint at `endpoint[at]` has an address in the list. */
  has(endpoint: Int32Array, at: number): boolean {
    const words = this.words;
    const head = words[this.head]!;
    let prefix = head >>> COPY_SHIFT === 0 ? this.copies[0] : this.copies[1];
    for (let left = head & COUNT_MASK; left > 0; left--) {
      if (isWithin(endpoint, at, words, prefix)) return true;
      prefix += PREFIX_WORDS;
    }
    return false;
  }
}

/** A list in the hands of the main thread, which alone writes. */
export class PrefixListOwner extends PrefixList {
  /** Replaces the list. @throws RangeError for more than PREFIX_LIST_MAX */
  set(prefixes: readonly Prefix[]): void {
    if (prefixes.length > PREFIX_LIST_MAX)
      throw new RangeError(`at most ${PREFIX_LIST_MAX} prefixes`);
    const words = this.words;
    const copy = words[this.head]! >>> COPY_SHIFT === 0 ? 1 : 0;
    for (const [i, prefix] of prefixes.entries())
      words.set(prefixWords(prefix), this.copies[copy] + i * PREFIX_WORDS);
    Atomics.store(words, this.head, (copy << COPY_SHIFT) | prefixes.length);
  }
}

/** Whether `endpoint[at]` is in the prefix at `words[prefix]` (prefixWords). */
export function isWithin(
  endpoint: Int32Array,
  at: number,
  words: Int32Array,
  prefix: number,
): boolean {
  let differs = 0;
  for (let word = 0; word < ADDRESS_WORDS; word++) {
    differs |=
      (endpoint[at + 1 + word]! & words[prefix + ADDRESS_WORDS + word]!) ^ words[prefix + word]!;
  }
  return differs === 0;
}

/** A prefix in PREFIX_WORDS words: its address, and a mask of the bits that count. */
export function prefixWords({ bytes, bits }: Prefix): Int32Array {
  const mask = Array.from(
    { length: 16 },
    (_, byte) => 0xff00 >> Math.min(Math.max(bits - 8 * byte, 0), 8),
  );
  return Int32Array.from([...wordsOf(bytes), ...wordsOf(Uint8Array.from(mask))]);
}

/** As an endpoint has them: the bytes in their order. */
function wordsOf(bytes: Uint8Array): Int32Array {
  return new Int32Array(Uint8Array.from(bytes).buffer);
}
