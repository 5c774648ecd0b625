import { expect, test } from "bun:test";
import { SpareFiles } from "../../../src/control/kit/spare-files.ts";
import { openedSince, openFds } from "../../support/fds.ts";

test("spare files are held, let go, and held again", () => {
  const before = openFds();
  const spare = new SpareFiles(5);
  expect(spare.release(1)).toBe(false);
  spare.hold();
  spare.hold();
  expect(openedSince(before)).toHaveLength(5);
  expect(spare.release(6)).toBe(false);
  expect(openedSince(before)).toHaveLength(5);
  expect(spare.release(3)).toBe(true);
  expect(openedSince(before)).toEqual([]);
  spare.hold();
  expect(openedSince(before)).toHaveLength(5);
  spare.close();
  expect(openedSince(before)).toEqual([]);
});
