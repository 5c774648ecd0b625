/** Warnings of a table without room. */
import { expect, test } from "bun:test";
import { ThrottledLog } from "../../../src/control/kit/throttled-log.ts";
import { FullTable } from "../../../src/control/nodes/full-table.ts";

function bench() {
  const logged: string[] = [];
  let [refused, nowMs] = [7, 0];
  const complaints = new ThrottledLog(
    { warn: (_: object, text: string) => void logged.push(text) } as never,
    () => nowMs,
  );
  const table = new FullTable(
    {
      name: "node table",
      entries: "registrations",
      option: "--max-nodes (10)",
      refused: () => refused,
    },
    complaints,
  );
  return {
    table,
    logged,
    /** A second in which so many entries are refused. */
    second: (count: number) => {
      refused += count;
      nowMs += 1000;
      table.tick();
    },
  };
}
const warning = (count: number) =>
  `node table full: ${count} registrations refused within the last minute; raise --max-nodes (10), then restart or upgrade`;

test("nothing refused since it began is no warning, whatever was refused before", () => {
  const { table, logged, second } = bench();
  for (let i = 0; i < 200; i++) second(0);
  expect([table.warning, logged]).toEqual([undefined, []]);
});

test("the warning counts the last minute, and ends with it", () => {
  const { table, second } = bench();
  second(5);
  expect(table.warning).toBe(warning(5));
  for (let i = 0; i < 59; i++) second(i < 10 ? 1 : 0);
  expect(table.warning).toBe(warning(15));
  for (let i = 0; i < 2; i++) second(0);
  expect(table.warning).toBe(warning(10));
  for (let i = 0; i < 60; i++) second(0);
  expect(table.warning).toBeUndefined();
});

test("the log has a line at once, and one a minute while it goes on", () => {
  const { logged, second } = bench();
  for (let i = 0; i < 120; i++) second(10);
  second(0);
  expect(logged).toEqual([warning(10), warning(610)]);
});
