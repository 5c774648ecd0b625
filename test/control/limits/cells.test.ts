/** Used-up limits that go over to another process: which cells are sent, and where they are put. */
import { describe, expect, test } from "bun:test";
import { BODY_BYTES_MAX, FormatError } from "../../../src/control/hand-over/channel.ts";
import {
  adoptCell,
  CELL_LIMITS,
  CellEntries,
  cellBodies,
  readCells,
} from "../../../src/control/limits/cells.ts";
import { LIMITS } from "../../../src/shared/counters.ts";
import { nodeHash } from "../../../src/shared/hash.ts";
import {
  ENDPOINT_HOLD,
  GRANT_RATE,
  RateLimitOwner,
  RELAY_LIMIT,
} from "../../../src/shared/limits.ts";
import { SharedMemory } from "../../../src/shared/memory.ts";

const NOW_NS = 12_345e9;
const SOURCE = 0x7e57;
/** More than a message holds the cells of. */
const SOURCES_MANY = Math.ceil(BODY_BYTES_MAX / 16) + 1;
/** Those that count sources, as the endpoint hold does not. */
const COUNTING = CELL_LIMITS.filter((limit) => limit !== ENDPOINT_HOLD);
const sharedMemory = () => new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 1 });

/** A limit of 10 a second, and 10 at once. */
function limitOf(memory: SharedMemory, limit: number): RateLimitOwner {
  const rate = new RateLimitOwner(memory, limit);
  rate.set(10, 10);
  return rate;
}

function handOver(from: SharedMemory, to: SharedMemory): void {
  for (const body of cellBodies(from, NOW_NS, new CellEntries())) {
    expect(body.length).toBeLessThanOrEqual(BODY_BYTES_MAX);
    readCells(body, (limit, cell, timeNs) => adoptCell(to, limit, cell, timeNs, NOW_NS));
  }
}

describe("what a source has used", () => {
  test.each(COUNTING)("of limit %i is used in the new process, too", (limit) => {
    const [from, to] = [sharedMemory(), sharedMemory()];
    limitOf(from, limit).take(SOURCE, 7, NOW_NS);
    handOver(from, to);
    expect(limitOf(to, limit).room(SOURCE, 10, NOW_NS)).toBe(3);
    for (const other of COUNTING.filter((each) => each !== limit))
      expect(limitOf(to, other).used(SOURCE, NOW_NS)).toBe(0);
  });

  test("goes over for many sources, in as many messages as it takes", () => {
    const [from, to] = [sharedMemory(), sharedMemory()];
    const rate = limitOf(from, RELAY_LIMIT);
    const sources = Array.from({ length: SOURCES_MANY }, (_, i) => nodeHash(i + 1, SOURCE));
    for (const source of sources) rate.take(source, 7, NOW_NS);
    handOver(from, to);
    const next = limitOf(to, RELAY_LIMIT);
    for (const source of sources) expect(next.used(source, NOW_NS)).toBe(rate.used(source, NOW_NS));
  });

  test("is not adopted in a cell or for a time that cannot be", () => {
    const memory = sharedMemory();
    const { lines } = memory.sources(RELAY_LIMIT);
    const before = memory.floats.slice();
    adoptCell(memory, RELAY_LIMIT, lines * 8, NOW_NS + 1, NOW_NS);
    adoptCell(memory, RELAY_LIMIT, 0, NOW_NS + 3601e9, NOW_NS);
    expect(memory.floats).toEqual(before);
  });
});

describe("cells", () => {
  const read = (body: Uint8Array) => {
    const cells: number[][] = [];
    readCells(body, (...cell) => cells.push(cell));
    return cells;
  };

  test("are read as they were written, up to a full message", () => {
    const entries = new CellEntries();
    const written: number[][] = [];
    for (let cell = 0; !entries.isFull; cell++) {
      const place = cell % CELL_LIMITS.length;
      entries.add(place, cell, 1e15 + cell);
      written.push([CELL_LIMITS[place]!, cell, 1e15 + cell]);
    }
    const body = entries.take();
    expect(body.length).toBeLessThanOrEqual(BODY_BYTES_MAX);
    expect(read(body)).toEqual(written);
  });

  test("are of every limit, under the numbers that earlier versions gave them", () => {
    const names = [...LIMITS, "grants"];
    expect(GRANT_RATE).toBe(LIMITS.length);
    expect(CELL_LIMITS.map((limit) => names[limit]!)).toEqual([
      ...["relay", "punch_source", "punch", "new_node", "answer", "endpoint_hold", "grants"],
      "relay_address",
    ]);
    expect([...CELL_LIMITS].sort((one, other) => one - other)).toEqual(
      names.map((_, limit) => limit),
    );
  });

  test("of a limit of a later version are skipped", () => {
    const entries = new CellEntries();
    entries.add(CELL_LIMITS.length, 0, 1);
    entries.add(0, 5, 7);
    expect(read(entries.take())).toEqual([[CELL_LIMITS[0]!, 5, 7]]);
  });

  test("of no time, or cut short, are refused", () => {
    const entries = new CellEntries();
    for (const [limit, time] of [
      [0, Number.NaN],
      [0, Number.POSITIVE_INFINITY],
    ] as const) {
      entries.add(limit, 0, time);
      expect(() => read(entries.take())).toThrow(FormatError);
    }
    expect(() => read(new Uint8Array(15))).toThrow(FormatError);
  });
});
