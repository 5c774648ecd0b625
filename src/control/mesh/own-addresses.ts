/** The addresses of this host: those of this beacon, and those that packets leave from. */
import {
  ENDPOINT_WORDS,
  endpointOf,
  isIPv4,
  isLinkLocal,
  isLoopback,
} from "../../../ffi/endpoint.ts";
import { hostPort } from "../../../ffi/host-port.ts";
import { ConfigError, isWildcard, parseHostNamePort } from "../../config/units.ts";
import { addressText, withoutZone } from "../kit/addresses.ts";
import { type HostAddress, hostAddresses } from "../sockets/source-addresses.ts";
import type { MeshContext } from "./context.ts";
import type { PeerNames } from "./peer-names.ts";

export class OwnAddresses {
  constructor(
    private readonly mesh: MeshContext,
    private readonly names: PeerNames,
  ) {}

  /** Returns every "ip:port" of this beacon that this host lists. */
  all(): ReadonlySet<string> {
    const { address, port } = this.mesh.address;
    const hosts = isWildcard(address) ? this.#ofHost().map(({ text }) => text) : [address];
    return new Set(hosts.map((host) => addressText(endpointOf(withoutZone(host), port))));
  }

  /** Returns the addresses of this host that packets to an endpoint may leave from. */
  sourcesTo(endpoint: Int32Array): readonly HostAddress[] {
    return this.#ofHost().filter(
      ({ endpoint: own }) =>
        isIPv4(own, 0) === isIPv4(endpoint, 0) &&
        isLoopback(own, 0) === isLoopback(endpoint, 0) &&
        isLinkLocal(own, 0) === isLinkLocal(endpoint, 0),
    );
  }

  /**
   * Returns the number of the advertised local address if packets to an endpoint can leave from
   * it: the registry and the directory name this beacon by that address. Else 0, the kernel's
   * choice.
   */
  advertisedTo(endpoint: Int32Array): number {
    if (!this.mesh.sources.isOn) return 0;
    const advertised = this.#advertised();
    const source = this.sourcesTo(endpoint).find((own) =>
      advertised.some((one) => isSameAddress(one, own.endpoint)),
    );
    return source ? this.mesh.locals.numberOf(source.endpoint) : 0;
  }

  /** Returns "host:port" for the registry where the operator set no `--advertise-addr`. */
  toRegister(localAddress: string): string {
    const { address, port } = this.mesh.address;
    return hostPort(isWildcard(address) ? localAddress : address, port);
  }

  #advertised(): readonly Int32Array[] {
    try {
      const { host } = parseHostNamePort(this.names.advertised);
      return this.names.addresses(host).map((address) => endpointOf(address, 0));
    } catch (error) {
      if (error instanceof ConfigError) return []; // unknown yet, or another process's mistake
      throw error;
    }
  }

  #ofHost(): readonly HostAddress[] {
    try {
      return hostAddresses();
    } catch {
      // A sandbox without netlink sockets. A beacon that lists itself in --peers then gossips with
      // itself, and rejects that gossip.
      this.mesh.warn(
        "own_addresses_unknown",
        {},
        "this host does not list its addresses: leave this beacon's own address out of --peers",
      );
      return [];
    }
  }
}

/** Compares without port and scope id. */
const isSameAddress = (one: Int32Array, other: Int32Array): boolean =>
  one.every((word, i) => i === 0 || i === ENDPOINT_WORDS - 1 || word === other[i]);
