/** Whether there are files for more connections. */
import { afterEach, expect, test } from "bun:test";
import { FilesLeft } from "../../src/control/files-left.ts";
import { openedSince, openFds } from "../support/fds.ts";

const FILES_MAX = 1024;
const [SPARE, LEFT_MIN, LEFT_AGAIN] = [64, 64, 192];

let open = 100;
let files: FilesLeft;
afterEach(() => files.close());

test("they are short below a bound, until many more than that are left; what is spare is let go meanwhile", () => {
  const before = openFds();
  files = new FilesLeft(FILES_MAX, () => open);
  const spare = () => openedSince(before).length;
  for (const [left, areShort] of [
    [900, false],
    [LEFT_MIN, false],
    [LEFT_MIN - 1, true],
    [LEFT_MIN, true],
    [LEFT_AGAIN - 1, true],
    [LEFT_AGAIN, false],
    [LEFT_MIN, false],
    [0, true],
    [Number.NEGATIVE_INFINITY, true],
    [900, false],
  ] as const) {
    open = FILES_MAX - left;
    expect([left, files.areShort()]).toEqual([left, areShort]);
    expect([left, spare()]).toEqual([left, areShort ? 0 : SPARE]);
  }
  files.close();
  expect(spare()).toBe(0);
});

test("where nobody knows how many there may be, they are never short, and none is spare", () => {
  const before = openFds();
  files = new FilesLeft(Number.POSITIVE_INFINITY, () => 1_000_000);
  expect(files.areShort()).toBe(false);
  expect(openedSince(before)).toEqual([]);
});
