/** Where a target is measured: which addresses it and the load generator have, and what lies between them. */
import { AF_INET, AF_INET6 } from "../../ffi/abi.ts";
import type { Family } from "../../ffi/endpoint.ts";

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

/** A host as it stands before ":port". */
export const inBrackets = (host: string): string => (host.includes(":") ? `[${host}]` : host);
