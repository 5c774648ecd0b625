import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type Area,
  PROBES_MAX,
  removeSlot,
  searchSlots,
} from "../../src/shared/open-addressing.ts";

const SLOTS = 16;
/** Words before and behind the area, which nobody may touch. */
const MARGIN = 8;
const UNTOUCHED = 0x5a5a_5a5a;
/** The one word outside the area that removals write. */
const REMOVALS = 0;

/**
 * An area of slots whose second word belongs to the id, and which are homes by what the test says.
 */
class Table {
  readonly words: Int32Array;
  readonly area: Area;
  /** Called in the midst of removals, wherever a reader may look. */
  meanwhile: () => void = () => {};

  constructor(
    readonly homeOf: (id: number) => number,
    readonly slots = SLOTS,
    readonly slotWords = 2,
  ) {
    const first = MARGIN;
    const end = first + slots * slotWords;
    const words = new Int32Array(new SharedArrayBuffer((end + MARGIN) * 4));
    words.fill(UNTOUCHED, 0, first).fill(UNTOUCHED, end);
    words[REMOVALS] = 0;
    this.words = words;
    this.area = {
      words,
      first,
      end,
      slotWords,
      removals: REMOVALS,
      homeOf: (id) => {
        this.meanwhile();
        return this.#home(id);
      },
      copy: (slot, vacant) => {
        this.meanwhile();
        for (let word = slotWords - 1; word >= 0; word--)
          words[vacant + word] = words[slot + word]!;
        this.meanwhile();
      },
    };
  }

  #home(id: number): number {
    return this.area.first + this.homeOf(id) * this.slotWords;
  }

  get removals(): number {
    return this.words[REMOVALS]!;
  }

  search(id: number, gaps = 0): number {
    const { first, end } = this.area;
    return searchSlots(this.words, first, end, this.slotWords, this.#home(id), id, gaps);
  }

  /** The slot that holds the id, or -1. */
  find(id: number, gaps = 0): number {
    const slot = this.search(id, gaps);
    return slot >= 0 && this.words[slot] === id ? slot : -1;
  }

  /** Puts an id, which is not there, where its search ends. @returns whether there was room */
  add(id: number, value: number): boolean {
    const slot = this.search(id);
    if (slot < 0) return false;
    expect(this.words[slot]).toBe(0);
    this.words[slot] = id;
    if (this.slotWords > 1) this.words[slot + 1] = value;
    return true;
  }

  remove(id: number): void {
    removeSlot(this.area, this.find(id));
  }

  /** The ids in the slots, by slot. */
  get ids(): number[] {
    const { first } = this.area;
    return Array.from({ length: this.slots }, (_, i) => this.words[first + i * this.slotWords]!);
  }

  expectMargins(): void {
    const { first, end } = this.area;
    expect(this.words.subarray(REMOVALS + 1, first).every((word) => word === UNTOUCHED)).toBe(true);
    expect(this.words.subarray(end).every((word) => word === UNTOUCHED)).toBe(true);
  }
}

describe("an area of slots", () => {
  test("has an id in its home, or in the next vacant slot, beyond the end too", () => {
    const table = new Table(() => SLOTS - 2);
    for (const id of [5, 6, 7, 8]) expect(table.add(id, 0)).toBe(true);
    expect(table.ids).toEqual([7, 8, ...Array<number>(SLOTS - 4).fill(0), 5, 6]);
    table.expectMargins();
  });

  test("a removal closes the gap, across the end too, and lets those stay that are found anyway", () => {
    // 1 to 4 begin in the last slot, 5 in the third.
    const table = new Table((id) => (id === 5 ? 2 : SLOTS - 1));
    for (const id of [1, 2, 3, 5, 4]) table.add(id, id * 10);
    const rest = Array<number>(SLOTS - 5).fill(0);
    expect(table.ids).toEqual([2, 3, 5, 4, ...rest, 1]);
    table.remove(1);
    expect(table.ids).toEqual([3, 4, 5, 0, ...rest, 2]);
    table.remove(3);
    expect(table.ids).toEqual([4, 0, 5, 0, ...rest, 2]);
    for (const id of [2, 4, 5]) expect(table.words[table.find(id) + 1]).toBe(id * 10);
    table.expectMargins();
  });

  test("a removal counts twice: once while it goes on, once when it is done", () => {
    const table = new Table(() => 3);
    for (const id of [1, 2, 3]) table.add(id, 0);
    let meanwhile = new Set<number>();
    table.meanwhile = () => meanwhile.add(table.removals);
    table.remove(1);
    expect([...meanwhile]).toEqual([1]);
    expect(table.removals).toBe(2);
    table.words[REMOVALS] = 0x7fff_fffe; // then it wraps, and is still odd only meanwhile
    meanwhile = new Set();
    table.remove(2);
    expect([...meanwhile]).toEqual([0x7fff_ffff]);
    expect(table.removals).toBe(-0x8000_0000);
  });

  test("a full one is searched to its end, and what is in it can be removed", () => {
    const table = new Table((id) => id % SLOTS);
    for (let id = 1; id <= SLOTS; id++) expect(table.add(id, 0)).toBe(true);
    expect(table.search(100)).toBe(-1);
    expect(table.add(100, 0)).toBe(false);
    for (let id = 1; id <= SLOTS; id++) expect(table.find(id)).toBeGreaterThanOrEqual(0);
    for (let id = 1; id <= SLOTS; id++) table.remove(id);
    expect(table.ids.every((id) => id === 0)).toBe(true);
  });

  test("a full one of a single chain closes every gap", () => {
    for (const home of [0, 7, SLOTS - 1]) {
      const table = new Table(() => home);
      for (let id = 1; id <= SLOTS; id++) table.add(id, 0);
      table.remove(4);
      expect(table.ids.filter((id) => id === 0)).toHaveLength(1);
      for (let id = 1; id <= SLOTS; id++) expect(table.find(id) >= 0).toBe(id !== 4);
    }
  });

  test("a search looks at PROBES_MAX slots and no more", () => {
    const table = new Table(() => 0, PROBES_MAX + 10, 1);
    const { first } = table.area;
    for (let id = 1; id <= PROBES_MAX; id++) expect(table.add(id, 0)).toBe(true);
    expect(table.add(PROBES_MAX + 1, 0)).toBe(false);
    expect(table.search(1 - PROBES_MAX)).toBe(-1);
    expect(table.search(PROBES_MAX)).toBe(first + PROBES_MAX - 1);
    table.words[first + PROBES_MAX] = PROBES_MAX + 1;
    expect(table.find(PROBES_MAX + 1)).toBe(-1);
  });

  test("a search passes as many vacant slots as it is told to", () => {
    const table = new Table(() => 0);
    const { first, slotWords } = table.area;
    for (const [slot, id] of [1, 2, 3, 4, 5].entries()) table.words[first + slot * slotWords] = id;
    table.words[first + slotWords] = 0;
    table.words[first + 3 * slotWords] = 0;
    expect([0, 1, 2].map((gaps) => table.search(5, gaps))).toEqual([
      first + slotWords,
      first + 3 * slotWords,
      first + 4 * slotWords,
    ]);
    expect(table.search(3, 1)).toBe(first + 2 * slotWords);
  });
});

describe("slots against a map", () => {
  const ids = [-0x8000_0000, -3, -2, -1, 1, 2, 3, 4, 5, 6, 0x7fff_ffff];
  const homes = fc.oneof(
    fc.array(fc.nat(SLOTS - 1), { minLength: ids.length, maxLength: ids.length }),
    // Few homes beside the end: long chains that pass it.
    fc.array(fc.constantFrom(SLOTS - 3, SLOTS - 2, SLOTS - 1, 0, 1), {
      minLength: ids.length,
      maxLength: ids.length,
    }),
  );
  const step = fc.record({ id: fc.constantFrom(...ids), value: fc.integer() });

  test("any sequence of adding and removing; and in the midst of a removal nobody else is lost", () => {
    fc.assert(
      fc.property(
        homes,
        fc.constantFrom(1, 2, 3, 16),
        // Also an area that gets full.
        fc.constantFrom(SLOTS, ids.length - 2),
        fc.array(step, { maxLength: 60 }),
        (homeOfIds, slotWords, slots, steps) => {
          const table = new Table((id) => homeOfIds[ids.indexOf(id)]! % slots, slots, slotWords);
          const model = new Map<number, number>();
          let removals = 0;
          for (const { id, value } of steps) {
            if (model.delete(id)) {
              table.meanwhile = () => {
                expect(table.removals & 1).toBe(1);
                for (const [other, kept] of model) {
                  const slot = table.find(other, 1);
                  expect(slot).toBeGreaterThanOrEqual(0);
                  if (slotWords > 1) expect(table.words[slot + 1]).toBe(kept);
                }
              };
              table.remove(id);
              removals += 2;
            } else {
              expect(table.add(id, value)).toBe(model.size < slots);
              if (model.size < slots) model.set(id, value);
            }
            expect(table.removals).toBe(removals);
            expect(table.ids.filter((found) => found !== 0).sort()).toEqual(
              [...model.keys()].sort(),
            );
            for (const other of ids) {
              const slot = table.find(other);
              expect(slot >= 0).toBe(model.has(other));
              if (slot >= 0 && slotWords > 1) expect(table.words[slot + 1]).toBe(model.get(other)!);
            }
            table.expectMargins();
          }
        },
      ),
      { numRuns: 200 },
    );
  });
});
