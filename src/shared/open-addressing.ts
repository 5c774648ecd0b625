/**
 * Open addressing with linear probing (Knuth, TAOCP 6.4): an id is found in the slot that its hash
 * names, or in one of the next, before the first vacant one. Slots of one search lie side by side,
 * so finding costs about one cache miss.
 *
 * A slot is `slotWords` words, the first of which is the id, 0 while vacant. An area is `slots` of
 * them from word `first` on; a search that reaches its end goes on at its beginning.
 *
 * Removing an id closes the gap: ids behind it that would no longer be found move up (algorithm R).
 * Tombstones in place of gaps were tried: after some turnovers of a full table every vacant slot is
 * one, and a search for an absent id walks hundreds.
 */

/** Longest search. At half load a chain of 100 slots is one in many millions. */
export const PROBES_MAX = 512;

/** Retries of a search that a removal may have spoilt. */
export const FINDS_MAX = 16;

/**
 * @param home the slot that the id's hash names
 * @param gaps vacant slots to pass. For a reader 1 while a removal goes on: there may be one gap
 * then, between an id and its home,
 * and for long, if the thread that removes is taken off its core
 * @returns the slot that holds the id, or else the vacant one that ends the search for it, or -1
 * for neither
 */
export function searchSlots(
  words: Int32Array,
  first: number,
  end: number,
  slotWords: number,
  home: number,
  id: number,
  gaps: number,
): number {
  let slot = home;
  let passed = 0;
  for (let probe = 0; probe < PROBES_MAX; probe++) {
    const found = words[slot]!;
    if (found === id || (found === 0 && passed++ === gaps)) return slot;
    slot += slotWords;
    if (slot === end) slot = first;
  }
  return -1;
}

/** An area whose ids can be removed. */
export interface Area {
  readonly words: Int32Array;
  readonly first: number;
  readonly end: number;
  readonly slotWords: number;
  /** Word that is odd during a removal and changes with each: a search may have missed. */
  readonly removals: number;
  homeOf(id: number): number;
  /** Makes a vacant slot hold what `slot` holds, its id last. */
  copy(slot: number, vacant: number): void;
}

/** Removes the id in a slot. Readers may go on meanwhile; other writers may not. */
export function removeSlot(area: Area, removed: number): void {
  const { words, first, end, slotWords } = area;
  Atomics.add(words, area.removals, 1);
  let gap = removed;
  Atomics.store(words, gap, 0);
  for (let slot = next(gap); words[slot] !== 0 && slot !== removed; slot = next(slot)) {
    const home = area.homeOf(words[slot]!);
    if (distance(home, slot) < distance(gap, slot)) continue; // found without passing the gap
    area.copy(slot, gap); // for a moment the id is in both, never in none
    Atomics.store(words, slot, 0);
    gap = slot;
  }
  Atomics.add(words, area.removals, 1);

  function next(slot: number): number {
    return slot + slotWords === end ? first : slot + slotWords;
  }
  /** How far a search walks from one slot to another. */
  function distance(from: number, to: number): number {
    return to >= from ? to - from : to - from + (end - first);
  }
}
