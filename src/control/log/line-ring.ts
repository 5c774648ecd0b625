/**
 * A bounded queue of text lines in shared memory, from the main thread to the thread that writes
 * them. The main thread never waits: a line that does not fit is refused. The reader sleeps while
 * the queue is empty.
 */

/** Bytes that wait at most: some 5000 lines. A power of two, as positions wrap at 2^32. */
export const RING_BYTES = 2 ** 20;

/** Positions of the writer and the reader: bytes put and taken so far, modulo 2^32. */
const HEAD = 0;
const TAIL = 1;
/** How the last write went: WRITES, FAILS or GONE. */
const CONDITION = 2;
/** Lines that the reader took and could not write. */
const LOST = 3;
const WORDS = 4;

/** Lines are written, or none was yet. */
export const WRITES = 0;
/** The last write failed: the disk is full, for example. The next line is tried again. */
export const FAILS = 1;
/** Nothing reads any more, for good: the pipe is broken, or the file is closed. */
export const GONE = 2;
export type Condition = typeof WRITES | typeof FAILS | typeof GONE;

const NEWLINE = 10;

export class LineRing {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;

  static readonly bufferBytes: number = WORDS * 4 + RING_BYTES;

  /** @param buffer of `bufferBytes`, zeros at first */
  constructor(readonly buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer, 0, WORDS);
    this.#bytes = new Uint8Array(buffer, WORDS * 4);
  }

  /** Bytes that were put and not taken yet. */
  get usedBytes(): number {
    return (Atomics.load(this.#words, HEAD) - Atomics.load(this.#words, TAIL)) >>> 0;
  }

  get condition(): Condition {
    return Atomics.load(this.#words, CONDITION) as Condition;
  }

  set condition(condition: Condition) {
    Atomics.store(this.#words, CONDITION, condition);
  }

  get lostLines(): number {
    return Atomics.load(this.#words, LOST) >>> 0;
  }

  /** @returns false if there is no room, and nothing was put. Main thread only. */
  put(lines: Uint8Array): boolean {
    if (lines.length > RING_BYTES - this.usedBytes) return false;
    const head = Atomics.load(this.#words, HEAD);
    const at = (head >>> 0) % RING_BYTES;
    const untilEnd = Math.min(lines.length, RING_BYTES - at);
    this.#bytes.set(lines.subarray(0, untilEnd), at);
    this.#bytes.set(lines.subarray(untilEnd), 0);
    Atomics.store(this.#words, HEAD, head + lines.length);
    Atomics.notify(this.#words, HEAD);
    return true;
  }

  // The reader's side.

  /** Sleeps until there is something. */
  wait(): void {
    for (;;) {
      const head = Atomics.load(this.#words, HEAD);
      if (head !== Atomics.load(this.#words, TAIL)) return;
      Atomics.wait(this.#words, HEAD, head);
    }
  }

  /** Copies whole lines, or a part of a longer one, to `out`. @returns how many bytes */
  peek(out: Uint8Array): number {
    const length = Math.min(this.usedBytes, out.length);
    const at = (Atomics.load(this.#words, TAIL) >>> 0) % RING_BYTES;
    const untilEnd = Math.min(length, RING_BYTES - at);
    out.set(this.#bytes.subarray(at, at + untilEnd));
    out.set(this.#bytes.subarray(0, length - untilEnd), untilEnd);
    const whole = out.subarray(0, length).lastIndexOf(NEWLINE) + 1;
    return whole > 0 ? whole : length;
  }

  /** Frees the room of so many bytes. */
  take(bytes: number): void {
    Atomics.store(this.#words, TAIL, Atomics.load(this.#words, TAIL) + bytes);
  }

  /** Counts the lines that end in `bytes` as lost. */
  lose(bytes: Uint8Array): void {
    let lines = 0;
    for (const byte of bytes) if (byte === NEWLINE) lines++;
    Atomics.add(this.#words, LOST, lines);
  }
}
