import { expect, test } from "bun:test";
import { ADDRESS_RESTRICTED, FULL_CONE, natRules, PORT_RESTRICTED, SYMMETRIC } from "../../bench/rig/nat.ts";

const rulesOf = (nat: Parameters<typeof natRules>[0]) => natRules(nat, "203.0.113.9");
const INWARD = /iifname wan .*dnat/;

test("only looser filters let newcomers in", () => {
  expect(rulesOf(FULL_CONE)).toMatch(INWARD);
  expect(rulesOf(ADDRESS_RESTRICTED)).toMatch(/iifname wan .*@contacted dnat/);
  expect(rulesOf(PORT_RESTRICTED)).not.toMatch(INWARD);
  expect(rulesOf(SYMMETRIC)).not.toMatch(INWARD);
});

test("random ports are for symmetric NATs", () => {
  expect(rulesOf(SYMMETRIC)).toContain("snat to 203.0.113.9:1024-65535 fully-random");
  expect(rulesOf(FULL_CONE)).not.toContain("random");
});

test("a symmetric NAT with hairpin or a looser filter is none that can be built", () => {
  expect(() => rulesOf({ ...SYMMETRIC, hairpin: true })).toThrow(RangeError);
  expect(() => rulesOf({ ...SYMMETRIC, filtering: "endpoint-independent" })).toThrow(RangeError);
});
