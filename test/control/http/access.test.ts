/** Whose requests are this host's own. */
import { expect, test } from "bun:test";
import { isOwn } from "../../../src/control/http/access.ts";

const from = (address: string, headers: Record<string, string>) =>
  isOwn({ headers: new Headers(headers) }, address);

test.each([
  "127.0.0.1:9002",
  "127.0.0.1",
  "127.9.9.9:1",
  "[::1]:9002",
  "[::1]",
  "localhost",
  "localhost:9002",
])("from loopback, for %s", (host) => {
  expect(from("127.0.0.1", { host })).toBe(true);
  expect(from("::1", { host })).toBe(true);
  expect(from("::ffff:127.0.0.1", { host })).toBe(true);
});

test.each(["192.0.2.1", "10.0.0.1", "fe80::1", "::ffff:192.0.2.1", "2001:db8::1", "", "localhost"])(
  "not from %j",
  (address) => {
    expect(from(address, { host: "127.0.0.1:9002" })).toBe(false);
  },
);

test.each([
  "beacon.example:9002",
  "127.0.0.1.example",
  "localhost.example",
  "192.0.2.1",
  "[2001:db8::1]:9002",
  "",
  "a:b:c",
])("not for another name, %j, that leads here", (host) => {
  expect(from("127.0.0.1", { host })).toBe(false);
});

test.each(["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])(
  "not through a proxy that sets %s",
  (name) => {
    expect(from("127.0.0.1", { host: "127.0.0.1:9002", [name]: "x" })).toBe(false);
  },
);
