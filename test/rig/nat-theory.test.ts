import { describe, expect, test } from "bun:test";
import {
  ADDRESS_RESTRICTED,
  type Behaviour,
  type Dependence,
  FULL_CONE,
  PORT_RESTRICTED,
  SYMMETRIC,
} from "../../bench/rig/nat.ts";
import { chained, FIREWALLED, OPEN, predict } from "../../bench/rig/nat-theory.ts";

const DEPENDENCES: readonly Dependence[] = [
  "endpoint-independent",
  "address-dependent",
  "address-and-port-dependent",
];
const ALL: readonly Behaviour[] = DEPENDENCES.flatMap((mapping) =>
  DEPENDENCES.map((filtering) => ({ mapping, filtering })),
);

describe("what is known of the four classic kinds", () => {
  const kinds = [FULL_CONE, ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC];

  test("all get through, but symmetric ones to port-restricted ones and to each other", () => {
    const outcomes = kinds.map((one) => kinds.map((other) => predict(one, other)));
    expect(outcomes).toEqual([
      ["direct", "direct", "direct", "direct"],
      ["direct", "direct", "direct", "direct"],
      ["direct", "direct", "direct", "relay"],
      ["direct", "direct", "relay", "relay"],
    ]);
  });

  test("a host without NAT is reached by all, a firewall without NAT as behind a port-restricted NAT", () => {
    for (const kind of kinds) {
      expect(predict(OPEN, kind)).toBe("direct");
      expect(predict(FIREWALLED, kind)).toBe(predict(PORT_RESTRICTED, kind));
    }
  });
});

describe("for all mappings and filters", () => {
  test("it does not matter who asks", () => {
    for (const one of ALL)
      for (const other of ALL) expect(predict(one, other)).toBe(predict(other, one));
  });

  test("a stricter filter never helps", () => {
    for (const one of ALL) {
      for (const other of ALL) {
        if (predict(one, other) === "direct") continue;
        for (const filtering of DEPENDENCES.slice(DEPENDENCES.indexOf(other.filtering))) {
          expect(predict(one, { ...other, filtering })).toBe("relay");
        }
      }
    }
  });

  test("one NAT for both takes hairpin, and an expired mapping helps nobody", () => {
    for (const one of ALL) {
      for (const other of ALL) {
        expect(predict(one, other, { sameNat: { hairpin: false } })).toBe("relay");
        expect(predict(one, other, { sameNat: { hairpin: true } })).toBe(predict(one, other));
        expect(predict(one, other, { targetExpired: true })).toBe("unreachable");
      }
    }
  });
});

test("boxes behind each other are as strict as the strictest in each respect", () => {
  expect(chained()).toEqual(OPEN);
  expect(chained(FULL_CONE, PORT_RESTRICTED)).toEqual(chained(PORT_RESTRICTED, FULL_CONE));
  expect(chained(ADDRESS_RESTRICTED, FULL_CONE).filtering).toBe("address-dependent");
  expect(chained(FULL_CONE, SYMMETRIC)).toEqual({
    mapping: "address-and-port-dependent",
    filtering: "address-and-port-dependent",
  });
});
