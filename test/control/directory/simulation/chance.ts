/** What chance decides in a schedule; the same for the same seed. */
import { Random } from "../../../e2e/support/random.ts";

export class Chance {
  readonly #random: Random;

  constructor(seed: number) {
    // Neighbours begin far from each other; the lowest bit would not count.
    this.#random = new Random(Math.imul(seed ^ (seed >>> 15), 0x9e37_79b1) << 1);
    for (let i = 0; i < 4; i++) this.#random.word();
  }

  /** From 0 on, below 1. */
  unit(): number {
    return this.#random.word() / 2 ** 32;
  }

  /** 0 to end - 1. */
  below(end: number): number {
    return this.#random.below(end);
  }

  between(from: number, end: number): number {
    return from + this.unit() * (end - from);
  }

  /** As often a tenth of something as ten times as much. */
  scale(from: number, end: number): number {
    return from * (end / from) ** this.unit();
  }

  is(probability: number): boolean {
    return this.unit() < probability;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  bytes(length: number): Uint8Array {
    return this.#random.bytes(length);
  }
}
