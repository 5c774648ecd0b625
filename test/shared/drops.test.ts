import { beforeEach, expect, test } from "bun:test";
import { COUNTER_ROW, DROP_REASONS } from "../../src/shared/counters.ts";
import { DropLog, dropsOf, NODE_DROP_REASONS, nodeDrop } from "../../src/shared/drops.ts";
import {
  CLOCK_S,
  DROP_SET_ENTRIES,
  DROP_SETS,
  HASH_SECRET,
  SharedMemory,
} from "../../src/shared/memory.ts";

const NOT_FOUND = nodeDrop("not_found");
const LIMITED = nodeDrop("relay_limit");

let memory: SharedMemory;
let log: DropLog;

beforeEach(() => {
  memory = new SharedMemory({ workers: 2, nodesMax: 100, routesMax: 100 });
  memory.words[HASH_SECRET] = 0x5ec2_e701;
  memory.words[CLOCK_S] = 5;
  log = new DropLog(memory, memory.counterRow(0));
});

test("each reason has a number, and the kernel's are those of the counters", () => {
  expect(new Set(NODE_DROP_REASONS).size).toBe(NODE_DROP_REASONS.length);
  expect(NODE_DROP_REASONS.length).toBeLessThan(128); // its byte has a sign
  for (const [i, reason] of DROP_REASONS.entries()) expect(nodeDrop(reason)).toBe(i);
});

test("the same again is one entry, whatever comes between", () => {
  log.note(42, 7, NOT_FOUND);
  log.note(42, 8, NOT_FOUND);
  memory.words[CLOCK_S] = 6;
  log.note(42, 7, NOT_FOUND);
  expect(dropsOf(memory, 42)).toEqual([
    { to: 42, from: 7, reason: "not_found", atS: 6, count: 2 },
    { to: 42, from: 8, reason: "not_found", atS: 5, count: 1 },
  ]);
  log.note(42, 7, LIMITED);
  expect(dropsOf(memory, 42)).toHaveLength(3);
});

test("a full set loses the entry that was renewed longest ago", () => {
  const note = (from: number) => {
    memory.words[CLOCK_S]!++;
    log.note(42, from, NOT_FOUND);
  };
  for (let from = 1; from <= DROP_SET_ENTRIES; from++) note(from);
  note(1);
  note(99);
  expect(dropsOf(memory, 42).map(({ from }) => from)).toEqual([99, 1, 4, 3]);
});

test("a node is found as destination and as sender, in every thread's row, with ids unsigned", () => {
  const HIGH = 2 ** 32 - 1;
  log.note(HIGH | 0, 7, NOT_FOUND);
  new DropLog(memory, memory.counterRow(1)).note(7, HIGH | 0, LIMITED);
  new DropLog(memory, memory.bridgeRow).note(HIGH, 0, LIMITED);
  new DropLog(memory, memory.grantsRow).note(HIGH, 0, NOT_FOUND);
  expect(dropsOf(memory, HIGH).map(({ to, from, reason }) => [to, from, reason])).toEqual([
    [HIGH, 7, "not_found"],
    [7, HIGH, "relay_limit"],
    [HIGH, 0, "relay_limit"],
    [HIGH, 0, "not_found"],
  ]);
  expect(dropsOf(memory, 8)).toEqual([]);
});

test("a count stops at what its bits hold, and the reason stays", () => {
  log.note(42, 7, NOT_FOUND);
  const countAt = memory.words.indexOf((NOT_FOUND << 24) | 1);
  memory.words[countAt] = (NOT_FOUND << 24) | (2 ** 24 - 2);
  for (let i = 0; i < 3; i++) log.note(42, 7, NOT_FOUND);
  expect(dropsOf(memory, 42)).toEqual([
    { to: 42, from: 7, reason: "not_found", atS: 5, count: 2 ** 24 - 1 },
  ]);
});

test("a flood of made-up ids fills its own row and nothing else", () => {
  const row = memory.dropRow(memory.counterRow(0));
  const rowEnd = memory.dropRow(memory.counterRow(1));
  expect(rowEnd - row).toBe(DROP_SETS * DROP_SET_ENTRIES * 4);
  expect(memory.dropRow(memory.grantsRow) + rowEnd - row).toBe(memory.dropsEnd);
  expect(memory.counterRow(1)).toBe(COUNTER_ROW);
  const before = memory.words.slice();
  for (let i = 1; i <= 100_000; i++) log.note(Math.imul(i, 0x9e37_79b1), i, NOT_FOUND);
  const sets = new Set<number>();
  for (let word = 0; word < memory.words.length; word++) {
    if (memory.words[word] === before[word]) continue;
    if (word < row || word >= rowEnd) throw new Error(`word ${word} has changed`);
    sets.add(Math.floor((word - row) / 16));
  }
  expect(sets.size).toBe(DROP_SETS);
});
