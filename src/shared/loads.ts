/**
 * Loads of words that other threads write, where their order matters.
 *
 * An atomic load keeps what stands before it before it, and what stands behind it behind it. In
 * JavaScriptCore it is a locked addition of zero: 6 ns at the least, and the cache line is taken
 * away from all other readers. So the packet path has none where the processor keeps the order of
 * loads by itself, and the compiler is kept from merging two loads of a word into one by a store
 * between them into another array of the same type, which for all it knows is the same memory.
 */

/** Whether loads keep program order: on x86 (Intel SDM 3A, 8.2.2), not on arm64. */
export const LOADS_IN_ORDER = process.arch === "x64";

/** A word, loaded after all that stands before this and before all that stands behind it. */
export class OrderedWord {
  readonly #between = new Int32Array(new ArrayBuffer(4));

  constructor(private readonly words: Int32Array) {}

  load(at: number): number {
    if (!LOADS_IN_ORDER) return Atomics.load(this.words, at);
    const value = this.words[at]!;
    this.#between[0] = value;
    return value;
  }
}
