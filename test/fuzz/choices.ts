/**
 * What a case is made of: a string of bytes, each of which decides something. So a case can be
 * kept, changed, made smaller and told to others without knowing what it is about.
 */
export class Choices {
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;

  /**
   * Starts another case. Where its bytes end, zeros follow: every choice falls on the first and
   * simplest.
   */
  load(bytes: Uint8Array): this {
    this.#bytes = bytes;
    this.#at = 0;
    return this;
  }

  /** 0 to 255. */
  byte(): number {
    return this.#at < this.#bytes.length ? this.#bytes[this.#at++]! : 0;
  }

  /** An unsigned 32-bit number. */
  word(): number {
    return (this.byte() | (this.byte() << 8) | (this.byte() << 16) | (this.byte() << 24)) >>> 0;
  }

  /** 0 to end - 1. */
  below(end: number): number {
    if (end <= 256) return this.byte() % end;
    if (end <= 65_536) return (this.byte() | (this.byte() << 8)) % end;
    return this.word() % end;
  }

  /** True once in about `times` (2 to 256) cases; never where the bytes have ended. */
  oneIn(times: number): boolean {
    return this.byte() % times === times - 1;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** A 32-bit number, often one at which something changes. */
  number(): number {
    const edge = EDGES[this.byte() % (2 * EDGES.length)];
    return edge === undefined ? this.word() : (edge + (this.byte() % 3) - 1) >>> 0;
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.byte();
    return bytes;
  }

  /** As many of what `one` makes as chance has it, `max` at most. */
  some<T>(max: number, one: () => T): T[] {
    const list: T[] = [];
    for (let left = this.below(max + 1); left > 0; left--) list.push(one());
    return list;
  }
}

const EDGES = [
  ...[0, 1, 4, 5, 9, 64, 127, 128, 255, 256, 1200, 16_375, 32_767, 32_768, 65_507, 65_535, 65_536],
  ...[2 ** 20, 2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1],
];
