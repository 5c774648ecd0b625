import { expect, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isExposed } from "../../src/config/file.ts";
import { temporaryFolder } from "../support/folder.ts";

const folder = temporaryFolder();

test("a file is exposed where others than its owner have a right, unless it is a credential of systemd", () => {
  const path = join(folder, "secret");
  writeFileSync(path, "secret");
  for (const [mode, exposed] of [
    [0o600, false],
    [0o440, true],
    [0o604, true],
  ] as const) {
    chmodSync(path, mode);
    expect([mode, isExposed(path, {})]).toEqual([mode, exposed]);
    expect(isExposed(path, { CREDENTIALS_DIRECTORY: folder })).toBe(false);
  }
  expect(isExposed(path, { CREDENTIALS_DIRECTORY: join(folder, "sec") })).toBe(true);
  expect(isExposed(join(folder, "none"), {})).toBe(false);
});
