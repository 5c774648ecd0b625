/**
 * What sources have used of the limits, in an upgrade: 16 bytes a cell, which are the number of the
 * limit in CELL_LIMITS, of the cell among its, and its time in ns on CLOCK_MONOTONIC, a float. The
 * successor has the same secret of hashes, so cells mean the same to it.
 */
import { CoarseClock } from "../../../ffi/clock.ts";
import {
  ANSWER_LIMIT,
  ENDPOINT_HOLD,
  GRANT_RATE,
  type LimitMemory,
  NEW_NODE_LIMIT,
  PUNCH_LIMIT,
  PUNCH_SOURCE_LIMIT,
  RELAY_ADDRESS_LIMIT,
  RELAY_LIMIT,
} from "../../shared/limits.ts";
import { SOURCE_LINE_FLOATS } from "../../shared/memory.ts";
import type { SendSection } from "../feature.ts";
import { BODY_BYTES_MAX, FormatError } from "../hand-over/channel.ts";
import { Pacing } from "../kit/pacing.ts";

const CELL_BYTES = 16;
/** Limits with cells. A limit's position is its number in messages: append new ones. */
export const CELL_LIMITS: readonly number[] = [
  RELAY_LIMIT,
  PUNCH_SOURCE_LIMIT,
  PUNCH_LIMIT,
  NEW_NODE_LIMIT,
  ANSWER_LIMIT,
  ENDPOINT_HOLD,
  GRANT_RATE,
  RELAY_ADDRESS_LIMIT,
];
const CELLS_MAX = Math.floor(BODY_BYTES_MAX / CELL_BYTES);

/** Cells of limits, collected for one message. */
export class CellEntries {
  readonly #view = new DataView(new ArrayBuffer(CELLS_MAX * CELL_BYTES));
  #used = 0;

  get isFull(): boolean {
    return this.#used === CELLS_MAX * CELL_BYTES;
  }

  /** @param place the limit's, in CELL_LIMITS */
  add(place: number, cell: number, timeNs: number): void {
    this.#view.setUint32(this.#used, place, true);
    this.#view.setUint32(this.#used + 4, cell, true);
    this.#view.setFloat64(this.#used + 8, timeNs, true);
    this.#used += CELL_BYTES;
  }

  /** The message's body, good until the next `add`; what is added then starts anew. */
  take(): Uint8Array {
    const bytes = new Uint8Array(this.#view.buffer, 0, this.#used);
    this.#used = 0;
    return bytes;
  }
}

/** Calls `visit` for each cell, with the limit's number in memory. @throws FormatError */
export function readCells(
  body: Uint8Array,
  visit: (limit: number, cell: number, timeNs: number) => void,
): void {
  if (body.length % CELL_BYTES !== 0) throw new FormatError("cells are cut short");
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  for (let at = 0; at < body.length; at += CELL_BYTES) {
    const limit = CELL_LIMITS[view.getUint32(at, true)];
    const timeNs = view.getFloat64(at + 8, true);
    if (!Number.isFinite(timeNs)) throw new FormatError("a cell has no time");
    if (limit === undefined) continue; // a limit of a later version
    visit(limit, view.getUint32(at + 4, true), timeNs);
  }
}

/** Limit of a cell's time ahead: no burst is longer than some seconds. */
const AHEAD_NS_MAX = 3600e9;

/** Yields bodies with the cells ahead of now, each valid until the next one. */
export function* cellBodies(
  memory: LimitMemory,
  nowNs: number,
  entries: CellEntries,
): Generator<Uint8Array> {
  const { floats } = memory;
  for (const [place, limit] of CELL_LIMITS.entries()) {
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

/** Sends all cells that are ahead of now. */
export async function writeCells(memory: LimitMemory, send: SendSection): Promise<void> {
  const nowNs = new CoarseClock().nowNs();
  const pause = new Pacing().pause();
  for (const body of cellBodies(memory, nowNs, new CellEntries())) {
    if (body.length > 0) await send("cells", body);
    await pause();
  }
}

/** Puts cells in their place. @throws FormatError */
export function adoptCells(memory: LimitMemory, body: Uint8Array): void {
  const nowNs = new CoarseClock().nowNs();
  readCells(body, (limit, cell, timeNs) => adoptCell(memory, limit, cell, timeNs, nowNs));
}
