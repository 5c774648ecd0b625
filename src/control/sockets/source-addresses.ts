/**
 * Source addresses: has packets leave from the address of this host that their destination sent to.
 *
 * The kernel chooses the source of what a wildcard socket sends, by the route. Where a host has
 * several addresses, that may be another one than a node sent its Discover to, and then the node's
 * NAT drops the packet. So on such a host the sockets tell the local address of each datagram
 * (IP_PKTINFO), endpoints carry it (src/shared/local-addresses.ts), and packets are sent from it.
 *
 * It costs 4 to 7 % of a relayed packet's CPU time, 2 % in merged bursts (2026-11, Linux 6.18), and
 * on a host with one address a family the kernel's choice is always right. So it is switched on
 * once the host has a second one, and then stays on. The host's addresses are asked for, not
 * watched: a look costs 50 µs where there are few, and the pause between two looks grows with what
 * the last one cost.
 *
 * A datagram socket of a network namespace also receives what a local route gives to no address
 * (`ip route add local`, as with anycast prefixes). Such addresses are not listed: there,
 * --source-address on is needed.
 */
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";
import type { Logger } from "pino";
import { endpointOf, isLinkLocal, isLoopback } from "../../../ffi/endpoint.ts";
import { SyscallError } from "../../../ffi/errno.ts";
import type { UdpSocket } from "../../../ffi/socket.ts";
import { isWildcard } from "../../config/units.ts";
import { LocalAddresses } from "../../shared/local-addresses.ts";
import type { SharedMemory } from "../../shared/memory.ts";
import type { SocketsConfig } from "./options.ts";

/** Minimum interval in ms of looks at the host's addresses, and its multiple of their cost. */
const LOOK_MS = 1000;
const PAUSE_PER_COST = 1000;

/** An address of this host, as an endpoint with port 0, and its interface. */
export interface HostAddress {
  readonly text: string;
  readonly endpoint: Int32Array;
  readonly link: string;
}

/** Addresses of the interfaces that are up. @throws Error without netlink sockets */
export function hostAddresses(
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]> = networkInterfaces(),
): readonly HostAddress[] {
  return Object.entries(interfaces).flatMap(([link, entries = []]) =>
    entries.map((entry) => {
      const text = entry.address.replace(/%.*$/, "");
      const endpoint = endpointOf(text, 0);
      if (entry.family === "IPv6" && isLinkLocal(endpoint, 0)) endpoint[5] = entry.scopeid;
      return { text, endpoint, link };
    }),
  );
}

/** Whether the kernel may choose another source address: it has two of one kind. */
export function hasSeveral(addresses: readonly HostAddress[]): boolean {
  const kinds = new Map<string, string>();
  for (const { text, endpoint, link } of addresses) {
    if (isLoopback(endpoint, 0)) continue;
    const kind = isLinkLocal(endpoint, 0)
      ? `link-local on ${link}`
      : text.includes(":")
        ? "IPv6"
        : "IPv4";
    const known = kinds.get(kind);
    if (known !== undefined && known !== text) return true;
    kinds.set(kind, text);
  }
  return false;
}

export class SourceAddresses {
  readonly #locals: LocalAddresses;
  readonly #mode: SocketsConfig["sourceAddress"];
  #isOn = false;
  #hasFailed = false;
  #isFullSaid = false;
  #nextLookMs = 0;
  /** The host's addresses as they were a moment ago, for a state file with many. */
  #listed: readonly HostAddress[] = [];
  #listedMs = Number.NEGATIVE_INFINITY;

  /** @param sockets those of the public port, before the first packet is read */
  constructor(
    memory: SharedMemory,
    private readonly sockets: readonly UdpSocket[],
    mode: SocketsConfig["sourceAddress"],
    private readonly log: Logger,
    private readonly list: () => readonly HostAddress[] = hostAddresses,
  ) {
    this.#locals = new LocalAddresses(memory);
    // A socket that is bound to one address sends from that one.
    this.#mode = isWildcard(sockets[0]!.localAddress().address) ? mode : "off";
    this.tick();
    if (!this.#isOn) this.#switchOff();
  }

  /** Sockets of another process may have it on. Where the kernel has no such option, it is off. */
  #switchOff(): void {
    try {
      for (const socket of this.sockets) socket.receiveLocalAddresses(false);
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
    }
  }

  /** Whether packets leave from the address that their destination sent to. */
  get isOn(): boolean {
    return this.#isOn;
  }

  /** To be called about every second: looks whether the host has several addresses by now. */
  tick(): void {
    if (this.#isOn) this.#warnIfFull();
    if (this.#isOn || this.#hasFailed || this.#mode === "off") return;
    const nowMs = performance.now();
    if (nowMs < this.#nextLookMs) return;
    if (this.#mode === "on" || this.#hasSeveral()) this.#switchOn();
    this.#nextLookMs = nowMs + Math.max(LOOK_MS, (performance.now() - nowMs) * PAUSE_PER_COST);
  }

  /**
   * The number of a local address that another process of this beacon, or an earlier one, used.
   * @param address as an endpoint
   * @returns 0, the kernel's choice, if this host does not have that address now
   */
  adopt(address: Int32Array): number {
    if (!this.#isOn) return 0;
    if (this.#mode !== "on" && !this.#isHere(address)) return 0;
    return this.#locals.numberOf(address);
  }

  /** A host that does not list its addresses may have several. */
  #hasSeveral(): boolean {
    try {
      return hasSeveral(this.list());
    } catch {
      return true;
    }
  }

  #isHere(address: Int32Array): boolean {
    try {
      const nowMs = performance.now();
      if (nowMs - this.#listedMs > LOOK_MS) {
        this.#listedMs = nowMs;
        this.#listed = this.list();
      }
      return this.#listed.some(({ endpoint }) =>
        endpoint.every((word, i) => i === 0 || word === address[i]),
      );
    } catch {
      return false;
    }
  }

  #switchOn(): void {
    try {
      for (const socket of this.sockets) socket.receiveLocalAddresses(true);
      this.#isOn = true;
      this.log.debug(
        { event: "source_addresses_on" },
        "packets leave from the address they answer",
      );
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      this.#hasFailed = true;
      this.log.warn(
        { event: "source_addresses_failed", error: error.message },
        `the kernel chooses the source address of every packet (${error.message}): nodes that use ` +
          "another address of this host may get no answer; bind one address with --addr",
      );
    }
  }

  #warnIfFull(): void {
    if (this.#isFullSaid || !this.#locals.isFull) return;
    this.#isFullSaid = true;
    this.log.warn(
      { event: "source_addresses_full" },
      "more than 255 addresses of this host were used: for further ones the kernel chooses the source " +
        "address; bind fewer addresses or restart",
    );
  }
}
