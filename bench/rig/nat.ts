/**
 * NATs as RFC 4787 describes them, made of the kernel's own nftables.
 *
 * A _mapping_ is what an inside endpoint looks like outside. It is endpoint-independent where all
 * destinations see the same external port, and address-and-port-dependent where each sees another
 * one. _Filtering_ says from whom a mapping lets packets in: from anybody (endpoint-independent),
 * from addresses that the inside endpoint has sent to (address-dependent), or from addresses and
 * ports that it has sent to (address-and-port-dependent). The older names: full cone,
 * address-restricted, port-restricted, symmetric.
 *
 * How Linux does that. Its source NAT keeps the source port where it can: with one inside host a
 * port, that is an endpoint-independent mapping, and connection tracking, which only lets in what
 * answers, is address-and-port-dependent filtering. Looser filters are rules on top that send a
 * newcomer's packet to whom the external port belongs, which rules on the way out have noted. With
 * random ports the same source NAT is symmetric.
 *
 * One trap: a packet that reaches the NAT itself, because nobody inside is meant, makes an entry in
 * connection tracking. When the inside host sends to where it came from a moment later, the two
 * collide, and the mapping gets another port. Such packets are dropped before their entry is
 * confirmed.
 */

export type Dependence =
  | "endpoint-independent"
  | "address-dependent"
  | "address-and-port-dependent";

export interface Behaviour {
  readonly mapping: Dependence;
  readonly filtering: Dependence;
}

export interface Nat extends Behaviour {
  /** nftables has no rules for address-dependent mapping. */
  readonly mapping: Exclude<Dependence, "address-dependent">;
  /**
   * Whether inside hosts reach each other by their external endpoints (RFC 4787, section 6). Not
   * for symmetric NATs.
   */
  readonly hairpin: boolean;
  /** How long a mapping lives that nobody uses. */
  readonly timeoutS: number;
}

/** RFC 4787, REQ-5: at least two minutes. */
const TIMEOUT_S = 120;
const nat = (mapping: Nat["mapping"], filtering: Dependence): Nat => ({
  ...{ mapping, filtering, hairpin: false, timeoutS: TIMEOUT_S },
});
export const FULL_CONE = nat("endpoint-independent", "endpoint-independent");
export const ADDRESS_RESTRICTED = nat("endpoint-independent", "address-dependent");
export const PORT_RESTRICTED = nat("endpoint-independent", "address-and-port-dependent");
export const SYMMETRIC = nat("address-and-port-dependent", "address-and-port-dependent");

/** The interfaces of a box: towards the internet, and towards the hosts behind it. */
export const WAN = "wan";
export const LAN = "lan";

/**
 * Kernel parameters that a NAT wants in its namespace (nf_conntrack-sysctl of the kernel's
 * documentation).
 */
export function natSysctl({ timeoutS }: Nat): Record<string, number> {
  return {
    "net.netfilter.nf_conntrack_udp_timeout": timeoutS,
    "net.netfilter.nf_conntrack_udp_timeout_stream": timeoutS,
  };
}

/**
 * The rules of a NAT, for nft(8). They replace those that were there.
 * @param external its address outside
 */
export function natRules(nat: Nat, external: string): string {
  const cone = nat.mapping === "endpoint-independent";
  if (!cone && (nat.hairpin || nat.filtering !== "address-and-port-dependent")) {
    throw new RangeError(
      "a NAT with a port for each destination filters by address and port, without hairpin",
    );
  }
  const ports = cone ? "" : ":1024-65535 fully-random";
  return `
table ip rig
delete table ip rig
table ip rig {
  # The inside address that an external port belongs to; the port is the same on both sides.
  map owner { type inet_service : ipv4_addr; flags dynamic,timeout; timeout ${nat.timeoutS}s; size 65535; }
  # Which ports have sent to which addresses, and to which ports of the NAT's own address.
  set contacted { type inet_service . ipv4_addr; flags dynamic,timeout; timeout ${nat.timeoutS}s; size 65535; }
  set contacted_inside { type inet_service . inet_service; flags dynamic,timeout; timeout ${nat.timeoutS}s; size 65535; }

  # Every packet on its way out is noted, while its source is still the inside one.
  chain note {
    type filter hook postrouting priority srcnat - 10;
    oifname ${WAN} meta l4proto udp update @owner { udp sport : ip saddr } update @contacted { udp sport . ip daddr }
  }
  # So is one to the NAT's own address. If its target has not sent to where it comes from, it goes no further.
  chain note_inside {
    type filter hook prerouting priority dstnat - 10;
    iifname ${LAN} ip daddr ${external} meta l4proto udp update @owner { udp sport : ip saddr } update @contacted { udp sport . ip daddr } update @contacted_inside { udp sport . udp dport }
    ${
      {
        "endpoint-independent": "",
        "address-dependent": `iifname ${LAN} ip daddr ${external} meta l4proto udp ct state new udp dport . ip daddr != @contacted drop`,
        "address-and-port-dependent": `iifname ${LAN} ip daddr ${external} meta l4proto udp ct state new udp dport . udp sport != @contacted_inside drop`,
      }[nat.filtering]
    }
  }
  chain inward {
    type nat hook prerouting priority dstnat;
    ${
      {
        "endpoint-independent": `iifname ${WAN} meta l4proto udp dnat to udp dport map @owner`,
        "address-dependent": `iifname ${WAN} meta l4proto udp udp dport . ip saddr @contacted dnat to udp dport map @owner`,
        "address-and-port-dependent": "",
      }[nat.filtering]
    }
    ${nat.hairpin ? `iifname ${LAN} ip daddr ${external} meta l4proto udp dnat to udp dport map @owner` : ""}
  }
  chain outward {
    type nat hook postrouting priority srcnat;
    oifname ${WAN} meta l4proto udp snat to ${external}${ports}
    oifname ${WAN} meta l4proto != udp snat to ${external}
    iifname ${LAN} oifname ${LAN} ct status dnat snat to ${external}
  }
  chain through {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname ${LAN} oifname ${WAN} accept
    ct status dnat accept
  }
  # The trap above.
  chain itself {
    type filter hook input priority filter;
    meta l4proto udp drop
  }
}
`;
}

/** A firewall for IPv6, where there is no NAT: it lets in what answers (RFC 6092, section 3). */
export const FIREWALL_IPV6 = `
table ip6 rig {
  chain through {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname ${LAN} accept
  }
}
`;
