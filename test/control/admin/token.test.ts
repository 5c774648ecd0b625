/** Who may change the beacon through HTTP. */
import { beforeEach, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Admin, AdminToken } from "../../../src/control/admin/token.ts";
import { temporaryFolder } from "../../support/folder.ts";
import { silentLog } from "../../support/log.ts";

const TOKEN = "correct-horse-battery-staple";
const RIGHT = `Bearer ${TOKEN}`;
const BURST = 10;

const folder = temporaryFolder();
const path = join(folder, "token");
writeFileSync(path, `  ${TOKEN}\n`, { mode: 0o600 });

let nowNs: number;
let admin: Admin;
beforeEach(() => {
  nowNs = 5e9;
  admin = new Admin(silentLog, { nowNs: () => nowNs });
  admin.token = AdminToken.read(path);
});

test("without a token nobody may, whatever is said", () => {
  admin.token = undefined;
  for (const said of [null, "", RIGHT]) expect(admin.permission(said, "192.0.2.1")).toBe("none");
});

test("who says it may, any number of times; who does not may not", () => {
  for (let i = 0; i < 10 * BURST; i++) expect(admin.permission(RIGHT, "192.0.2.1")).toBe("granted");
  for (const wrong of [null, "", "Bearer", TOKEN, `${RIGHT}x`]) {
    expect(admin.permission(wrong, "192.0.2.1")).toBe("wrong");
  }
});

test("ten wrong ones, and the address has to wait, a second for each more; other addresses, and the right one, need not", () => {
  const guess = (address: string) => admin.permission("Bearer guess", address);
  for (let i = 0; i < BURST; i++) expect(guess("192.0.2.1")).toBe("wrong");
  expect(guess("192.0.2.1")).toBe("limited");
  expect(guess("192.0.2.2")).toBe("wrong");
  expect(admin.permission(RIGHT, "192.0.2.1")).toBe("granted");
  nowNs += 1e9;
  expect(guess("192.0.2.1")).toBe("wrong");
  expect(guess("192.0.2.1")).toBe("limited");
});

test("who gives none guesses nothing, and need not wait", () => {
  for (let i = 0; i < 10 * BURST; i++) expect(admin.permission(null, "192.0.2.1")).toBe("wrong");
  expect(admin.permission("Bearer guess", "192.0.2.1")).toBe("wrong");
});

test("of IPv6, a network of 64 bits is one address", () => {
  for (let i = 0; i < BURST; i++) admin.permission("Bearer guess", `2001:db8::${i + 1}`);
  expect(admin.permission("Bearer guess", "2001:db8::ffff")).toBe("limited");
  expect(admin.permission("Bearer guess", "2001:db8:0:1::1")).toBe("wrong");
});
