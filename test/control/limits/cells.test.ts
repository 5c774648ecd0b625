/** Used-up limits that go over to another process: which cells are sent, and where they are put. */
import { describe, expect, test } from "bun:test";
import { adoptCell, cellBodies } from "../../../src/control/limits/cells.ts";
import { BODY_BYTES_MAX } from "../../../src/control/upgrade/channel.ts";
import { CELL_LIMITS, CellEntries, readCells } from "../../../src/control/upgrade/format.ts";
import { nodeHash } from "../../../src/shared/hash.ts";
import { ENDPOINT_HOLD, RateLimit, RELAY_ADDRESS_LIMIT, RELAY_LIMIT } from "../../../src/shared/limits.ts";
import { SharedMemory } from "../../../src/shared/memory.ts";

const NOW_NS = 12_345e9;
const SOURCE = 0x7e57;
/** More than a message holds the cells of. */
const SOURCES_MANY = Math.ceil(BODY_BYTES_MAX / 16) + 1;
/** Those that count sources, as the endpoint hold does not. */
const COUNTING = CELL_LIMITS.filter((limit) => limit !== ENDPOINT_HOLD);
const sharedMemory = () => new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 1 });

/** A limit of 10 a second, and 10 at once. */
function limitOf(memory: SharedMemory, limit: number): RateLimit {
  const rate = new RateLimit(memory, limit);
  rate.set(10, 10);
  return rate;
}

function handOver(from: SharedMemory, to: SharedMemory, cellLimits = CELL_LIMITS.length): void {
  for (const body of cellBodies(from, cellLimits, NOW_NS, new CellEntries())) {
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

  test("of a limit that the new process does not know is not sent to it", () => {
    const from = sharedMemory();
    for (const limit of [RELAY_LIMIT, RELAY_ADDRESS_LIMIT]) limitOf(from, limit).take(SOURCE, 7, NOW_NS);
    const limits: number[] = [];
    for (const body of cellBodies(from, 7, NOW_NS, new CellEntries()))
      readCells(body, (limit) => limits.push(limit));
    expect(new Set(limits)).toEqual(new Set([RELAY_LIMIT]));
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
