/**
 * Arrivals: the ids of nodes that were added to the node table, for the main thread, which would
 * otherwise have to look through all of it for them. Each thread that adds has a ring of its own;
 * it never waits and never looks whether the main thread is behind. What it writes over before that
 * is lost, and the main thread can tell: then it has to look through the table after all.
 *
 * A hint, not a log: a node may be gone again by the time its id is drained, or be there several
 * times.
 */
import {
  ARRIVALS_HEAD,
  ARRIVALS_IDS,
  ARRIVALS_RING,
  MAIN_THREAD_LOCK,
  type SharedMemory,
} from "./memory.ts";

const MASK = ARRIVALS_RING - 1;
if ((ARRIVALS_RING & MASK) !== 0) throw new Error("a ring's ids must be a power of two");
/**
 * Ids behind a ring's head that are whole. Where the next one is to be stood the oldest, and
 * processors other than x86 may show that store a little before the head that precedes it; so none
 * of a cache line is read.
 */
export const ARRIVALS_READABLE = ARRIVALS_RING - 16;

/** What one thread notes. */
export class ArrivalNotes {
  readonly #words: Int32Array;
  readonly #head: number;
  readonly #ids: number;

  /** @param holder the thread's number in the shard locks: MAIN_THREAD_LOCK or workerLock(i) */
  constructor(memory: SharedMemory, holder: number) {
    const at = memory.arrivals(holder - MAIN_THREAD_LOCK);
    this.#words = memory.words;
    this.#head = at + ARRIVALS_HEAD;
    this.#ids = at + ARRIVALS_IDS;
  }

  /** Notes that a node was added, once it can be found. */
  note(nodeId: number): void {
    const words = this.#words;
    const head = words[this.#head]!;
    words[this.#ids + (head & MASK)] = nodeId;
    Atomics.store(words, this.#head, (head + 1) | 0);
  }

  /** Notes that unnoted nodes may exist, as if ids were lost. */
  lose(): void {
    Atomics.add(this.#words, this.#head, ARRIVALS_RING);
  }
}

/** What a drain came to. */
export interface Drained {
  /** Ids were lost: only a scan of the whole table sees all added nodes. */
  readonly lost: boolean;
  /** There are ids that were not visited. */
  readonly more: boolean;
}

/** Arrivals of all threads, for one reader on the main thread; from now on. */
export class Arrivals {
  readonly #words: Int32Array;
  readonly #rows: readonly number[];
  /** Ids of each row that were visited or lost, since it began. */
  readonly #tails: Int32Array;
  #firstRow = 0;

  constructor(memory: SharedMemory) {
    this.#words = memory.words;
    this.#rows = Array.from({ length: memory.shape.workers + 1 }, (_, row) => memory.arrivals(row));
    this.#tails = Int32Array.from(this.#rows, (_, row) => this.#head(row));
  }

  /** Visits ids, signed, in each thread's order. @param max how many at most */
  drain(visit: (nodeId: number) => void, max: number): Drained {
    const rows = this.#rows.length;
    let lost = false;
    let left = max;
    for (let i = 0; i < rows && left > 0; i++) {
      const visited = this.#drainRow((this.#firstRow + i) % rows, visit, left);
      if (visited < 0) lost = true;
      else left -= visited;
    }
    // so that none waits for good behind one that always has more than `max`
    this.#firstRow = (this.#firstRow + 1) % rows;
    return { lost, more: this.#tails.some((tail, row) => tail !== this.#head(row)) };
  }

  /**
   * @returns how many were visited, or -1 if some were lost: then the others of the row are passed
   * over, as all are in the table
   */
  #drainRow(row: number, visit: (nodeId: number) => void, max: number): number {
    const tails = this.#tails;
    const ids = this.#rows[row]! + ARRIVALS_IDS;
    let head = this.#head(row);
    for (let visited = 0; ; visited++) {
      const tail = tails[row]!;
      if (tail === head || visited === max) return visited;
      const nodeId = Atomics.load(this.#words, ids + (tail & MASK));
      head = this.#head(row); // after the id: was it written over meanwhile?
      if ((head - tail) >>> 0 > ARRIVALS_READABLE) {
        tails[row] = head;
        return -1;
      }
      tails[row] = tail + 1;
      visit(nodeId);
    }
  }

  #head(row: number): number {
    return Atomics.load(this.#words, this.#rows[row]! + ARRIVALS_HEAD);
  }
}
