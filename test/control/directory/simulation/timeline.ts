/** Virtual time: what happens, in its order, and each time all that follows from it at once. */
import { drainMicrotasks } from "bun:jsc";

/**
 * Whoever something happens to: while it stands still, that waits; once it is over, nothing happens
 * to it any more.
 */
export interface Owner {
  readonly isOver: boolean;
  readonly isPaused: boolean;
  readonly waiting: (() => void)[];
}

export interface Happening {
  readonly atMs: number;
  readonly order: number;
  /** undefined: it was called off. */
  run: (() => void) | undefined;
  readonly owner: Owner | undefined;
}

export class Timeline {
  nowMs = 0;
  /** What has happened so far. */
  happened = 0;
  /** A binary heap, the next first. */
  readonly #heap: Happening[] = [];
  #order = 0;

  after(ms: number, owner: Owner | undefined, run: () => void): Happening {
    const happening = { atMs: this.nowMs + Math.max(0, ms), order: this.#order++, run, owner };
    const heap = this.#heap;
    let at = heap.length;
    heap.push(happening);
    for (let up = (at - 1) >> 1; at > 0 && isBefore(happening, heap[up]!); up = (at - 1) >> 1) {
      heap[at] = heap[up]!;
      at = up;
    }
    heap[at] = happening;
    return happening;
  }

  /** Lets time pass. */
  run(untilMs: number): void {
    drainMicrotasks();
    for (
      let next = this.#heap[0];
      next !== undefined && next.atMs <= untilMs;
      next = this.#heap[0]
    ) {
      this.#shift();
      this.nowMs = next.atMs;
      if (next.run !== undefined) this.happen(next.owner, next.run);
    }
    this.nowMs = untilMs;
  }

  /** Now, unless its owner stands still. */
  happen(owner: Owner | undefined, run: () => void): void {
    if (owner?.isOver) return;
    if (owner?.isPaused) {
      owner.waiting.push(run);
      return;
    }
    this.happened++;
    run();
    drainMicrotasks();
  }

  #shift(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    const end = heap.length;
    if (end === 0) return;
    let at = 0;
    for (let down = 1; down < end; down = 2 * at + 1) {
      if (down + 1 < end && isBefore(heap[down + 1]!, heap[down]!)) down++;
      if (!isBefore(heap[down]!, last)) break;
      heap[at] = heap[down]!;
      at = down;
    }
    heap[at] = last;
  }
}

function isBefore(one: Happening, other: Happening): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}
