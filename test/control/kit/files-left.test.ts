/** Whether there are files for more connections. */
import { afterEach, describe, expect, test } from "bun:test";
import { FilesLeft, filesAdvice, filesNeeded } from "../../../src/control/kit/files-left.ts";
import { openedSince, openFds } from "../../support/fds.ts";

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

test("of few files, a sixteenth is spare, and they are short below a sixteenth", () => {
  const before = openFds();
  files = new FilesLeft(256, () => open);
  const spare = () => openedSince(before).length;
  for (const [left, areShort] of [
    [16, false],
    [15, true],
    [47, true],
    [48, false],
  ] as const) {
    open = 256 - left;
    expect([left, files.areShort(), spare()]).toEqual([left, areShort, areShort ? 0 : 16]);
  }
});

describe("advice where no file can be opened", () => {
  test("names the limit of the process, and what it needs", () => {
    expect(filesNeeded(2)).toBe(72);
    expect(filesAdvice("EMFILE", 2, 40)).toBe(
      "EMFILE: this process has all 40 files open that it may (RLIMIT_NOFILE): " +
        "raise LimitNOFILE or ulimit -n to 72 or more",
    );
  });

  test("names the host's limit if that is reached, and is none for other errors", () => {
    expect(filesAdvice("ENFILE", 2, 40)).toContain("raise fs.file-max with sysctl");
    expect(filesAdvice("EADDRINUSE", 2, 40)).toBeUndefined();
  });

  test("never names fewer than there are", () => {
    expect(filesAdvice("EMFILE", 2, 5000)).toContain("to 10000 or more");
  });
});
