/** The page's memory of the last ten minutes. */
import { expect, test } from "bun:test";
import { History, WINDOW_S } from "../../src/page/history.ts";

test("what is older than the window is forgotten, in all columns", () => {
  const history = new History(["a", "b"]);
  for (let s = 0; s <= 2 * WINDOW_S; s++) history.add(s, { a: s, b: -s });
  expect(history.times).toEqual(Array.from({ length: WINDOW_S + 1 }, (_, i) => WINDOW_S + i));
  expect(history.column("a")).toEqual(history.times);
  expect(history.column("b")).toEqual(history.times.map((s) => -s));
});

test("it is bounded, however fast it is filled and whatever the clock does", () => {
  const history = new History(["a"]);
  for (let i = 0; i < 5 * WINDOW_S; i++) history.add(1000 - i, { a: i });
  expect(history.times.length).toBe(2 * WINDOW_S);
  expect(history.column("a").at(-1)).toBe(5 * WINDOW_S - 1);
  expect(history.times.every((s, i, all) => i === 0 || s > all[i - 1]!)).toBe(true);
});

test("a gap is where nothing is known, and none comes before the first values", () => {
  const history = new History(["a"]);
  history.gap(1);
  expect(history.times).toEqual([]);
  history.add(2, { a: 1 });
  history.gap(3);
  history.add(4, { a: 2 });
  expect([history.times, history.column("a")]).toEqual([
    [2, 3, 4],
    [1, null, 2],
  ]);
});
