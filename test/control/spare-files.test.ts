import { expect, test } from "bun:test";
import { SpareFiles } from "../../src/control/spare-files.ts";
import { openFds } from "../support/fds.ts";

test("spare files are held, let go, and held again", () => {
  const before = openFds();
  const spare = new SpareFiles(5);
  expect(spare.release(1)).toBe(false);
  spare.hold();
  spare.hold();
  expect(openFds()).toBe(before + 5);
  expect(spare.release(6)).toBe(false);
  expect(openFds()).toBe(before + 5);
  expect(spare.release(3)).toBe(true);
  expect(openFds()).toBe(before);
  spare.hold();
  expect(openFds()).toBe(before + 5);
  spare.close();
  expect(openFds()).toBe(before);
});
