/**
 * Builds an internet of network namespaces from its description. Each network is a bridge in its
 * router's namespace; who is connected to it has an interface of the name WAN. It goes away with
 * this process.
 */
import { existsSync } from "node:fs";
import { type Cable, layCables } from "./link.ts";
import { Namespace, switchOn } from "./namespace.ts";
import { FIREWALL_IPV6, LAN, type Nat, natRules, natSysctl, WAN } from "./nat.ts";
import {
  type Box,
  boxesOf,
  type Description,
  INTERNET,
  type Lan,
  plan,
  type Seat,
} from "./plan.ts";

/** Where br_netfilter is loaded, bridged frames would meet the rules of routed packets. */
const PLAIN_BRIDGE = {
  "net.bridge.bridge-nf-call-iptables": 0,
  "net.bridge.bridge-nf-call-ip6tables": 0,
};
const HAS_BRIDGE_FILTER = existsSync("/proc/sys/net/bridge");
const FORWARDING = {
  "net.ipv4.ip_forward": 1,
  "net.ipv6.conf.all.forwarding": 1,
  // What goes out where it came in, as with hairpin, is meant to.
  "net.ipv4.conf.all.send_redirects": 0,
  "net.ipv4.conf.default.send_redirects": 0,
  ...(HAS_BRIDGE_FILTER ? PLAIN_BRIDGE : {}),
};
/** For an external address that a box moves to; beyond those that the plan gives out one by one. */
const SPARE_ADDRESS = 254;

/** A host or a box, as it stands. */
export interface Site {
  readonly namespace: Namespace;
  readonly ipv4: string;
  readonly ipv6: string;
}

export class Internet {
  readonly #namespaces = new Map<string, Namespace>();
  readonly #sites = new Map<string, Site>();
  readonly #boxes: Readonly<Record<string, Box>>;

  private constructor({ boxes = {} }: Description) {
    this.#boxes = boxes;
  }

  static async build(description: Description): Promise<Internet> {
    const internet = new Internet(description);
    const { internet: lan, seats } = plan(description);
    const names = [INTERNET, ...seats.map(({ name }) => name)];
    for (const [i, namespace] of Namespace.createAll(names).entries()) {
      internet.#namespaces.set(names[i]!, namespace);
    }
    await layCables(seats.map((seat, i) => internet.#cableOf(seat, i)));
    for (const { name, ipv4, ipv6 } of seats) {
      internet.#sites.set(name, { namespace: internet.#namespaces.get(name)!, ipv4, ipv6 });
    }
    internet.#configure(INTERNET, undefined, lan, seats);
    for (const seat of seats) internet.#configure(seat.name, seat, seat.lan, seats);
    return internet;
  }

  /** A host or a box. @throws Error if there is none of this name */
  site(name: string): Site {
    const site = this.#sites.get(name);
    if (site === undefined) throw new Error(`nothing here is called ${name}`);
    return site;
  }

  /** Lets a NAT forget all mappings, as when it is switched off and on. */
  forgetMappings(box: string): void {
    const { namespace, ipv4 } = this.site(box);
    namespace.run(["nft", "-f", "-"], natRules(this.#natOf(box), ipv4));
    namespace.run(["conntrack", "-F"]);
  }

  /** Gives a NAT another external address, as providers do. */
  renumber(box: string): void {
    const { namespace, ipv4 } = this.site(box);
    const moved = ipv4.replace(/\d+$/, String(SPARE_ADDRESS));
    namespace.ip(
      // first: the second address of a network goes with the first
      `address del ${ipv4}/24 dev ${WAN}`,
      `address add ${moved}/24 dev ${WAN}`,
      `route replace default via ${gatewayOf(ipv4)}`,
    );
    namespace.run(["nft", "-f", "-"], natRules(this.#natOf(box), moved));
    namespace.run(["conntrack", "-F"]);
    this.#sites.set(box, { ...this.site(box), ipv4: moved });
  }

  /** Lets nothing pass between two hosts, whatever else they speak with. @returns what heals it */
  cut(one: string, other: string): () => void {
    const [a, b] = [this.site(one), this.site(other)];
    for (const [here, there] of [[a, b] as const, [b, a] as const]) {
      const rules = `
table inet cut {
  chain arriving {
    type filter hook prerouting priority raw;
    ip saddr ${there.ipv4} drop
    ip6 saddr ${there.ipv6} drop
  }
}
`;
      here.namespace.run(["nft", "-f", "-"], rules);
    }
    return () => {
      for (const { namespace } of [a, b]) namespace.run(["nft", "delete", "table", "inet", "cut"]);
    };
  }

  #cableOf({ name, behind, link }: Seat, i: number): Cable {
    return {
      one: { namespace: this.#namespaces.get(name)!, link: WAN },
      other: { namespace: this.#namespaces.get(behind)!, link: portOf(i) },
      conditions: link,
    };
  }

  /** Everything in one place, with as few programs as can be: interfaces, routes, rules. */
  #configure(
    name: string,
    seat: Seat | undefined,
    lan: Lan | undefined,
    seats: readonly Seat[],
  ): void {
    const namespace = this.#namespaces.get(name)!;
    const lines = ["link set lo up"];
    if (lan !== undefined) {
      // A switch that floods: it needs no time to learn who wants to hear neighbour solicitations.
      lines.push(`link add ${LAN} type bridge mcast_snooping 0`);
      lines.push(...switchOn({ link: LAN, addresses: [`${lan.ipv4}/24`, `${lan.ipv6}/64`] }));
      for (const [i, { behind }] of seats.entries()) {
        if (behind === name) lines.push(`link set ${portOf(i)} master ${LAN} up`);
      }
    }
    if (seat !== undefined) {
      lines.push(...switchOn({ link: WAN, addresses: [`${seat.ipv4}/24`, `${seat.ipv6}/64`] }));
      lines.push(
        `route add default via ${gatewayOf(seat.ipv4)}`,
        `route add default via ${gatewayOf(seat.ipv6)}`,
      );
    }
    lines.push(...routesOf(name, seats));
    namespace.ip(...lines);
    const nat = this.#boxes[name]?.nat;
    if (lan !== undefined)
      namespace.sysctl({ ...FORWARDING, ...(nat === undefined ? {} : natSysctl(nat)) });
    if (nat === undefined || seat === undefined) return;
    const firewall = this.#boxes[name]?.firewallIPv6 ? FIREWALL_IPV6 : "";
    namespace.run(["nft", "-f", "-"], natRules(nat, seat.ipv4) + firewall);
  }

  #natOf(box: string): Nat {
    const nat = this.#boxes[box]?.nat;
    if (nat === undefined) throw new Error(`${box} is no box`);
    return nat;
  }
}

/** The interface, in the network that it is connected to, of the i-th place. */
const portOf = (i: number): string => `port${i}`;

/** The router of an address's network: number 1. */
const gatewayOf = (address: string): string => address.replace(/[^.:]+$/, "1");

/**
 * IPv6 has no NAT, so a router must know the way to each network that is somewhere behind one that
 * is connected to it.
 */
function routesOf(router: string, seats: readonly Seat[]): string[] {
  return seats.flatMap(({ name, lan }) => {
    if (lan === undefined) return [];
    const way = [name, ...boxesOf(seats, name), INTERNET];
    const next = way[way.indexOf(router) - 1];
    const via = seats.find((seat) => seat.name === next);
    return via === undefined ? [] : [`route add ${lan.prefixIPv6}/64 via ${via.ipv6}`];
  });
}
