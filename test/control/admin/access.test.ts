/** Requests of this host's own programs, and of web pages of other origins. */
import { expect, test } from "bun:test";
import { isCrossOrigin, isOwn } from "../../../src/control/admin/access.ts";

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
  "LOCALHOST:9002",
  "LocalHost",
  "localhost.",
  "localhost.:9002",
  "[::ffff:127.0.0.1]:9002",
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
  "localhost..",
  ".localhost",
  "notlocalhost",
  "0.0.0.0:9002",
  "127.0.0.1, beacon.example",
  "192.0.2.1",
  "[2001:db8::1]:9002",
  "",
  "a:b:c",
])("not for another name, %j, that leads here", (host) => {
  expect(from("127.0.0.1", { host })).toBe(false);
});

test.each([
  "X-Forwarded-For",
  "X-Forwarded-Host",
  "X-Forwarded-Proto",
  "X-Forwarded-Server",
  "Forwarded",
  "X-Real-IP",
  "X-Client-IP",
  "True-Client-IP",
  "CF-Connecting-IP",
  "Via",
])("not through a proxy that sets %s", (name) => {
  expect(from("127.0.0.1", { host: "127.0.0.1:9002", [name]: "x" })).toBe(false);
});

const HOST = "127.0.0.1:9002";

test("not for a page whose origin is not this host, though a proxy names this host", () => {
  expect(from("127.0.0.1", { host: HOST, origin: "https://ops.example" })).toBe(false);
  expect(from("127.0.0.1", { host: HOST, origin: "null" })).toBe(false);
  expect(from("127.0.0.1", { host: HOST, origin: `http://${HOST}` })).toBe(true);
});

test.each<[Record<string, string>, boolean]>([
  [{}, false],
  [{ "sec-fetch-site": "same-origin" }, false],
  [{ "sec-fetch-site": "none" }, false],
  [{ "sec-fetch-site": "same-site" }, true],
  [{ "sec-fetch-site": "cross-site" }, true],
  [{ "sec-fetch-site": "none, cross-site" }, true],
  [{ "sec-fetch-site": "" }, true],
  [{ origin: `http://${HOST}` }, false],
  [{ origin: `https://${HOST}` }, false],
  [{ host: "ops.example", origin: "https://ops.example" }, false],
  [{ host: "ops.example:443", origin: "https://ops.example" }, false],
  [{ host: "OPS.example", origin: "https://ops.example" }, false],
  [{ origin: "http://127.0.0.1:3000" }, true],
  [{ origin: "http://localhost:9002" }, true],
  [{ origin: "https://evil.example" }, true],
  [{ origin: "null" }, true],
  [{ origin: "" }, true],
  [{ host: "", origin: `http://${HOST}` }, true],
  // A proxy that puts its own Host in place of the browser's: the browser still tells the truth.
  [{ "sec-fetch-site": "same-origin", origin: "https://ops.example" }, false],
  [{ "sec-fetch-site": "cross-site", origin: `http://${HOST}` }, true],
])("a page of another origin: %j: %p", (headers, expected) => {
  expect(isCrossOrigin({ headers: new Headers({ host: HOST, ...headers }) })).toBe(expected);
});
