/** What sources have used of the limits, to be taken over by another process with the same secret of hashes. */
import type { LimitMemory } from "../../shared/limits.ts";
import { SOURCE_LINE_FLOATS } from "../../shared/memory.ts";
import { CELL_LIMITS } from "./format.ts";

/** No limit lets a cell be further ahead than its burst, and none has one of more than some seconds. */
const AHEAD_NS_MAX = 3600e9;

/** Calls `visit` for each cell of a limit that is ahead of now; others say nothing. */
export function eachCell(
  memory: LimitMemory,
  limit: number,
  nowNs: number,
  visit: (cell: number, timeNs: number) => void,
): void {
  const { at, lines } = memory.sources(limit);
  const { floats } = memory;
  for (let cell = 0; cell < lines * SOURCE_LINE_FLOATS; cell++) {
    const timeNs = floats[at + cell]!;
    if (timeNs > nowNs) visit(cell, timeNs);
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
  if (limit >= CELL_LIMITS || timeNs > nowNs + AHEAD_NS_MAX) return;
  const { at, lines } = memory.sources(limit);
  if (cell < lines * SOURCE_LINE_FLOATS)
    memory.floats[at + cell] = Math.max(memory.floats[at + cell]!, timeNs);
}
