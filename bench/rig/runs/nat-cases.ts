/** Who punches through what to whom, and the internet that it takes. */
import {
  ADDRESS_RESTRICTED,
  type Behaviour,
  FULL_CONE,
  type Nat,
  PORT_RESTRICTED,
  SYMMETRIC,
} from "../nat.ts";
import { type Circumstances, chained, FIREWALLED, OPEN } from "../nat-theory.ts";
import type { Box, Description, Host } from "../plan.ts";

/** Two hosts, and what they are behind. */
export interface Case {
  readonly title: string;
  readonly family: 4 | 6;
  /** Who asks, and who is asked for. */
  readonly ends: readonly [string, string];
  readonly behaviours: readonly [Behaviour, Behaviour];
  readonly circumstances?: Circumstances;
}

/** Something that a node can be behind. */
interface Kind {
  readonly title: string;
  readonly behaviour: Behaviour;
  /** From the host outwards; none is a host on the internet itself. */
  readonly boxes: readonly Box[];
}

const one = (title: string, nat: Nat, rest?: Partial<Box>): Kind => ({
  title,
  behaviour: nat,
  boxes: [{ nat, ...rest }],
});
const two = (title: string, inner: Nat, outer: Nat): Kind => ({
  title,
  behaviour: chained(inner, outer),
  boxes: [{ nat: inner }, { nat: outer }],
});

export const KINDS: readonly Kind[] = [
  { title: "open", behaviour: OPEN, boxes: [] },
  one("full cone", FULL_CONE),
  one("address-r.", ADDRESS_RESTRICTED),
  one("port-r.", PORT_RESTRICTED, { firewallIPv6: true }),
  one("symmetric", SYMMETRIC),
  two("double cone", FULL_CONE, ADDRESS_RESTRICTED),
  two("double sym.", PORT_RESTRICTED, SYMMETRIC),
];

/** IPv6 behind some of the same boxes. */
export const KINDS_IPV6 = [
  { title: "open", behaviour: OPEN, kind: 1 },
  { title: "firewall", behaviour: FIREWALLED, kind: 3 },
];

/** Each kind is built twice, so that two nodes behind the same kind are behind different boxes. */
const SIDES = ["a", "b"] as const;
const hostOf = (kind: number, side: string): string => `k${kind}${side}`;

const SAME_NAT: readonly { readonly title: string; readonly nat: Nat }[] = [
  { title: "full cone, hairpin", nat: { ...FULL_CONE, hairpin: true } },
  { title: "full cone, no hairpin", nat: FULL_CONE },
  { title: "address-restricted, hairpin", nat: { ...ADDRESS_RESTRICTED, hairpin: true } },
  { title: "port-restricted, hairpin", nat: { ...PORT_RESTRICTED, hairpin: true } },
  { title: "port-restricted, no hairpin", nat: PORT_RESTRICTED },
  { title: "symmetric", nat: SYMMETRIC },
];

/** Its mappings do not live long. */
export const FORGETFUL: Nat = { ...PORT_RESTRICTED, timeoutS: 2 };
export const ASKER = hostOf(1, "a");
export const SLEEPER = "sleeper";
export const ASKER_AND_SLEEPER: readonly [Behaviour, Behaviour] = [FULL_CONE, FORGETFUL];

export const NAT_INTERNET: Description = describe();

function describe(): Description {
  const boxes: Record<string, Box> = {
    forgetful: { nat: FORGETFUL },
    carrier: { nat: { ...PORT_RESTRICTED, hairpin: true } },
    home1: { nat: FULL_CONE, behind: "carrier" },
    home2: { nat: ADDRESS_RESTRICTED, behind: "carrier" },
  };
  const hosts: Record<string, Host> = {
    beacon: {},
    [SLEEPER]: { behind: "forgetful" },
    neighbour1: { behind: "home1" },
    neighbour2: { behind: "home2" },
  };
  for (const [i, { boxes: chain }] of KINDS.entries()) {
    for (const side of SIDES) {
      const name = hostOf(i, side);
      const place = (depth: number) => (depth < chain.length ? { behind: `${name}-${depth}` } : {});
      for (const [depth, box] of chain.entries())
        boxes[`${name}-${depth}`] = { ...box, ...place(depth + 1) };
      hosts[name] = place(0);
    }
  }
  for (const [i, { nat }] of SAME_NAT.entries()) {
    boxes[`same${i}`] = { nat };
    for (const side of SIDES) hosts[`same${i}${side}`] = { behind: `same${i}` };
  }
  return { boxes, hosts };
}

/** Every kind with every kind, row by row. */
export const MATRIX: readonly Case[] = KINDS.flatMap((asks, i) =>
  KINDS.map((asked, j) => ({
    title: `${asks.title} to ${asked.title}`,
    family: 4,
    ends: [hostOf(i, "a"), hostOf(j, "b")],
    behaviours: [asks.behaviour, asked.behaviour],
  })),
);

export const MATRIX_IPV6: readonly Case[] = KINDS_IPV6.flatMap((asks) =>
  KINDS_IPV6.map((asked) => ({
    title: `IPv6, ${asks.title} to ${asked.title}`,
    family: 6,
    ends: [hostOf(asks.kind, "a"), hostOf(asked.kind, "b")],
    behaviours: [asks.behaviour, asked.behaviour],
  })),
);

/** Two hosts behind one NAT, which speak by the external addresses that the beacon saw. */
export const NEIGHBOURS: readonly Case[] = [
  ...SAME_NAT.map(
    ({ title, nat }, i): Case => ({
      title,
      family: 4,
      ends: [`same${i}a`, `same${i}b`],
      behaviours: [nat, nat],
      circumstances: { sameNat: nat },
    }),
  ),
  {
    title: "two homes, one port-restricted carrier, hairpin",
    family: 4,
    ends: ["neighbour1", "neighbour2"],
    behaviours: [chained(FULL_CONE, PORT_RESTRICTED), chained(ADDRESS_RESTRICTED, PORT_RESTRICTED)],
    circumstances: { sameNat: { hairpin: true } },
  },
];
