/** What sources have used of the limits, to be taken over by another process with the same secret of hashes. */
import type { LimitMemory } from "../../shared/limits.ts";
import { SOURCE_LINE_FLOATS } from "../../shared/memory.ts";
import { CELL_LIMITS, type CellEntries } from "../upgrade/format.ts";

/** No limit lets a cell be further ahead than its burst, and none has one of more than some seconds. */
const AHEAD_NS_MAX = 3600e9;

/**
 * Yields message bodies with the cells that are ahead of now: one body or more a limit, the last of them
 * possibly empty. A body is good until the next one.
 * @param cellLimits how many of CELL_LIMITS the receiver knows
 */
export function* cellBodies(
  memory: LimitMemory,
  cellLimits: number,
  nowNs: number,
  entries: CellEntries,
): Generator<Uint8Array> {
  const { floats } = memory;
  for (const [place, limit] of CELL_LIMITS.slice(0, cellLimits).entries()) {
    const { at, lines } = memory.sources(limit);
    for (let cell = 0; cell < lines * SOURCE_LINE_FLOATS; cell++) {
      const timeNs = floats[at + cell]!;
      if (timeNs <= nowNs) continue;
      if (entries.isFull) yield entries.take();
      entries.add(place, cell, timeNs);
    }
    yield entries.take();
  }
}

/** Puts a cell in its place, unless there is none or its time cannot be. */
export function adoptCell(
  memory: LimitMemory,
  limit: number,
  cell: number,
  timeNs: number,
  nowNs: number,
): void {
  if (timeNs > nowNs + AHEAD_NS_MAX) return;
  const { at, lines } = memory.sources(limit);
  if (cell < lines * SOURCE_LINE_FLOATS)
    memory.floats[at + cell] = Math.max(memory.floats[at + cell]!, timeNs);
}
