/** What an internet looks like, in a few words, and the addresses that follow from it. */
import type { Conditions } from "./link.ts";
import type { Nat } from "./nat.ts";

interface Place {
  /** The box it is connected to; the internet unless given. */
  readonly behind?: string;
  /** The conditions of its cable to there; perfect unless given. */
  readonly link?: Conditions;
}

export interface Host extends Place {}

/** A router with hosts and boxes behind it. IPv6 passes without NAT. */
export interface Box extends Place {
  readonly nat: Nat;
  /** Whether IPv6 comes in only as an answer. */
  readonly firewallIPv6?: boolean;
}

/** Names are of lower-case letters, digits and dashes; boxes and hosts share them. */
export interface Description {
  readonly boxes?: Readonly<Record<string, Box>>;
  readonly hosts: Readonly<Record<string, Host>>;
}

/** The network that a box, or the internet, offers to those behind it. Always /24 and /64. */
export interface Lan {
  /** The router's own addresses in it. */
  readonly ipv4: string;
  readonly ipv6: string;
  readonly prefixIPv6: string;
}

/** Where a host or a box is on the network it is connected to. */
export interface Seat {
  readonly name: string;
  readonly behind: string;
  readonly link: Conditions | undefined;
  readonly ipv4: string;
  readonly ipv6: string;
  /** For a box. */
  readonly lan: Lan | undefined;
}

export interface Plan {
  readonly internet: Lan;
  /** Outer boxes before those behind them. */
  readonly seats: readonly Seat[];
}

/** The name of the innermost network, which all others are behind. */
export const INTERNET = "internet";
/** An address of a /24 beside the router's and the broadcast's. */
const SEATS_MAX = 253;
const BOXES_MAX = 255;

/**
 * Gives everybody an address: on the internet 203.0.113.0/24 (RFC 5737) and 2001:db8::/64 (RFC
 * 3849), behind the n-th box
 * 10.0.n.0/24 and 2001:db8:n::/64. The router of each is number 1.
 * @throws Error for a name that is taken twice or unknown, boxes behind each other in a circle, or
 * too many places
 */
export function plan({ boxes = {}, hosts }: Description): Plan {
  const lans = new Map<string, Lan>([[INTERNET, lanOf("203.0.113", "2001:db8")]]);
  if (Object.keys(boxes).length > BOXES_MAX) throw new Error(`more than ${BOXES_MAX} boxes`);
  for (const [i, name] of Object.keys(boxes).entries()) {
    lans.set(name, lanOf(`10.0.${i + 1}`, `2001:db8:${(i + 1).toString(16)}`));
  }
  const taken = new Map<string, number>();
  const seat = (name: string, { behind = INTERNET, link }: Place): Seat => {
    const lan = lans.get(behind);
    if (lan === undefined) throw new Error(`${name} is behind ${behind}, which is no box`);
    const number = 2 + (taken.get(behind) ?? 0);
    taken.set(behind, number - 1);
    if (number - 1 > SEATS_MAX) throw new Error(`more than ${SEATS_MAX} places behind ${behind}`);
    const ipv4 = lan.ipv4.replace(/\d+$/, String(number));
    return {
      name,
      behind,
      link,
      ipv4,
      ipv6: `${lan.prefixIPv6}${number.toString(16)}`,
      lan: lans.get(name),
    };
  };
  for (const name of [INTERNET, ...Object.keys(boxes)]) {
    if (name in hosts) throw new Error(`two places are called ${name}`);
  }
  return {
    internet: lans.get(INTERNET)!,
    seats: [
      ...outerFirst(boxes).map((name) => seat(name, boxes[name]!)),
      ...Object.entries(hosts).map(([name, host]) => seat(name, host)),
    ],
  };
}

function lanOf(prefixIPv4: string, prefixIPv6: string): Lan {
  return { ipv4: `${prefixIPv4}.1`, ipv6: `${prefixIPv6}::1`, prefixIPv6: `${prefixIPv6}::` };
}

/** The boxes between a place and the internet, the innermost first. */
export function boxesOf(seats: readonly Seat[], name: string): string[] {
  const behind = seats.find((seat) => seat.name === name)?.behind ?? INTERNET;
  return behind === INTERNET ? [] : [behind, ...boxesOf(seats, behind)];
}

function outerFirst(boxes: Readonly<Record<string, Box>>): string[] {
  const depth = (name: string, seen: readonly string[] = []): number => {
    if (seen.includes(name)) throw new Error(`${[...seen, name].join(" behind ")}: a circle`);
    const behind = boxes[name]?.behind;
    return behind === undefined ? 0 : 1 + depth(behind, [...seen, name]);
  };
  return Object.keys(boxes).sort((a, b) => depth(a) - depth(b));
}
