import { expect, test } from "bun:test";
import { ARRIVALS_IDS, ARRIVALS_RING, SharedMemory } from "../../src/shared/memory.ts";
import { SLOT_WORDS } from "../../src/shared/slots.ts";

/** JavaScriptCore's. */
const BUFFER_BYTES_MAX = 2 ** 32;
/** The most that src/settings.ts lets in. */
const LARGEST = { workers: 64, nodesMax: 16_000_000, routesMax: 16_000_000 };
/** The head of what of the memory is there once it was made. */
const RESIDENT_BYTES_MAX = 64 << 20;

test("the memory of the largest shape can be had, and takes none until it is used", () => {
  Bun.gc(true); // the memory of the tests before, which would come back meanwhile
  const before = process.memoryUsage.rss();
  const memory = new SharedMemory(LARGEST);
  expect(memory.buffer.byteLength).toBeLessThanOrEqual(BUFFER_BYTES_MAX);
  expect(memory.keysBuffer.byteLength).toBeLessThanOrEqual(BUFFER_BYTES_MAX);
  expect(process.memoryUsage.rss() - before).toBeLessThan(RESIDENT_BYTES_MAX);
  // The last of what stands behind all else is within, on floats of its own.
  const lastSlot = memory.slotsAt + (memory.shards * memory.slotsPerShard - 1) * SLOT_WORDS;
  expect(memory.heard(lastSlot)).toBe(memory.floats.length - 1);
});

test("arrivals and times share nothing with what is beside them, or with each other", () => {
  const memory = new SharedMemory({ workers: 3, nodesMax: 10_000, routesMax: 100 });
  const slots = memory.shards * memory.slotsPerShard;
  const firstHeard = memory.heard(memory.slotsAt);
  expect(firstHeard * 2).toBeGreaterThanOrEqual(memory.routeSlotsAt + memory.routeSlots * 2);
  expect(memory.heard(memory.slotsAt + slots * SLOT_WORDS) - firstHeard).toBe(slots);
  expect(memory.heard(memory.slotsAt + SLOT_WORDS)).toBe(firstHeard + 1);
  const rows = [0, 1, 2, 3].map((row) => memory.arrivals(row));
  for (const [row, at] of rows.entries()) {
    expect(at % 16).toBe(0); // a cache line
    const end = at + ARRIVALS_IDS + ARRIVALS_RING;
    expect(end).toBe(rows[row + 1] ?? memory.groupWord(0, 0));
  }
});
