/**
 * Where a target is measured: which addresses it and the load generator have, and what lies between
 * them.
 */
import { AF_INET, AF_INET6 } from "../../ffi/abi.ts";
import type { Family } from "../../ffi/endpoint.ts";
import { connect, Namespace, removeLeftovers, rootLink } from "../rig/namespace.ts";

export interface Place {
  /** Of the load generator's sockets, and of the reference relay's. */
  readonly family: Family;
  /** What the beacon is told to listen on, an IP literal. */
  readonly listenHost: string;
  /** Where the load generator reaches it. */
  readonly targetHost: string;
  /** What the load generator binds to. */
  readonly generatorHost: string;
  /** What a command is put behind to run there. */
  readonly within: readonly string[];
}

const onThisHost = (family: Family, host: string, listenHost = host): Place => ({
  family,
  listenHost,
  targetHost: host,
  generatorHost: host,
  within: [],
});

export const LOOPBACK = onThisHost(AF_INET, "127.0.0.1");
export const LOOPBACK_IPV6 = onThisHost(AF_INET6, "::1");
/** IPv4 packets at a socket that serves both families. */
export const LOOPBACK_DUAL_STACK = onThisHost(AF_INET, "127.0.0.1", "::");

/** Addresses for benchmarks, which are nobody's on the internet (RFC 2544, appendix C.2.2). */
const VETH_TARGET = "198.18.7.1";
const VETH_GENERATOR = "198.18.7.2";

/**
 * How long packets wait to be merged, as behind a network card that spares interrupts; without it
 * veth takes each one alone (Documentation/networking/napi.rst of Linux).
 */
const COALESCING = { gro_flush_timeout: 20_000, napi_defer_hard_irqs: 2 };

/** What a veth pair needs that this machine or this user lacks, or undefined. */
export function vethObstacle(): string | undefined {
  if (process.getuid?.() !== 0) return "root";
  return ["ip", "ethtool"].find((command) => Bun.which(command) === null);
}

/**
 * A network namespace at the other end of a veth pair, with an MTU of 1,500 bytes, for as long as
 * `use` runs.
 * @param gro whether packets are merged as they come in at the target, as a network card's driver
 * does
 */
export async function overVeth<T>(gro: boolean, use: (place: Place) => Promise<T>): Promise<T> {
  removeLeftovers();
  const namespace = Namespace.create("bench");
  try {
    const here = rootLink();
    connect(
      { namespace, link: "eth0", addresses: [`${VETH_TARGET}/30`] },
      { link: here, addresses: [`${VETH_GENERATOR}/30`] },
    );
    namespace.run(["ethtool", "-K", "eth0", "gro", gro ? "on" : "off"]);
    if (gro) {
      // else veth thinks that merging was done by the sender
      Bun.spawnSync(["ethtool", "-K", here, "tso", "off"]);
      for (const [setting, value] of Object.entries(COALESCING)) {
        namespace.run(["tee", `/sys/class/net/eth0/${setting}`], String(value));
      }
    }
    return await use({
      family: AF_INET,
      listenHost: VETH_TARGET,
      targetHost: VETH_TARGET,
      generatorHost: VETH_GENERATOR,
      within: namespace.exec(),
    });
  } finally {
    namespace.remove();
  }
}

/** A host as it stands before ":port". */
export const inBrackets = (host: string): string => (host.includes(":") ? `[${host}]` : host);
