import { describe, expect, test } from "bun:test";
import { FULL_CONE, SYMMETRIC } from "../../bench/rig/nat.ts";
import { boxesOf, INTERNET, plan } from "../../bench/rig/plan.ts";

const nat = FULL_CONE;

test("an address for everybody, in the network it is connected to", () => {
  const { internet, seats } = plan({
    boxes: { home: { nat, behind: "carrier" }, carrier: { nat: SYMMETRIC } },
    hosts: {
      beacon: {},
      one: { behind: "home" },
      two: { behind: "home" },
      three: { behind: "carrier" },
    },
  });
  expect(internet).toEqual({ ipv4: "203.0.113.1", ipv6: "2001:db8::1", prefixIPv6: "2001:db8::" });
  expect(seats.map(({ name, behind, ipv4, ipv6 }) => [name, behind, ipv4, ipv6])).toEqual([
    ["carrier", INTERNET, "203.0.113.2", "2001:db8::2"],
    ["home", "carrier", "10.0.2.2", "2001:db8:2::2"],
    ["beacon", INTERNET, "203.0.113.3", "2001:db8::3"],
    ["one", "home", "10.0.1.2", "2001:db8:1::2"],
    ["two", "home", "10.0.1.3", "2001:db8:1::3"],
    ["three", "carrier", "10.0.2.3", "2001:db8:2::3"],
  ]);
  expect(seats.map(({ lan }) => lan?.ipv4)).toEqual([
    "10.0.2.1",
    "10.0.1.1",
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
  expect(boxesOf(seats, "one")).toEqual(["home", "carrier"]);
  expect(boxesOf(seats, "beacon")).toEqual([]);
});

describe("what cannot be", () => {
  test.each([
    [
      "an unknown box",
      { hosts: { one: { behind: "nowhere" } } },
      /one is behind nowhere, which is no box/,
    ],
    [
      "a host with hosts behind it",
      { hosts: { one: {}, two: { behind: "one" } } },
      /which is no box/,
    ],
    [
      "a circle",
      { boxes: { a: { nat, behind: "b" }, b: { nat, behind: "a" } }, hosts: {} },
      /a circle/,
    ],
    ["a name for two", { boxes: { a: { nat } }, hosts: { a: {} } }, /two places are called a/],
    ["the internet's name", { hosts: { internet: {} } }, /two places are called internet/],
    [
      "more than a network has room for",
      { hosts: Object.fromEntries(Array.from({ length: 254 }, (_, i) => [`h${i}`, {}])) },
      /more than 253 places behind internet/,
    ],
  ])("%s", (_, description, message) => {
    expect(() => plan(description)).toThrow(message);
  });
});
