/** Puts what the operator allows where the workers read it. */

import { parseAddressPrefix } from "../../config/units.ts";
import {
  ANSWER_LIMIT,
  NEW_NODE_LIMIT,
  PUNCH_LIMIT,
  PUNCH_SOURCE_LIMIT,
  RateLimitOwner,
  RELAY_ADDRESS_LIMIT,
  RELAY_LIMIT,
} from "../../shared/limits.ts";
import {
  DENIED_ENDPOINTS,
  ENDPOINT_HOLD_S,
  LIMITS_SHADOW,
  NO_HOSTS,
  PUNCH_ALLOWED,
  type SharedMemory,
} from "../../shared/memory.ts";
import { type Prefix, PrefixListOwner } from "../../shared/prefixes.ts";
import type { LimitsConfig } from "./options.ts";

/** Addresses of no host: this network, multicast, broadcast (RFC 6890, 5771, 4291). */
const NEVER_ENDPOINTS = ["0.0.0.0/8", "224.0.0.0/4", "255.255.255.255", "::", "ff00::/8"];

/**
 * What may come at once after a pause, in seconds of the limit: streams come in bursts; thousands
 * of nodes behind one carrier's NAT may all come back within a heartbeat; and who starts wants to
 * reach several peers.
 */
const RELAY_BURST_S = 1;
const NEW_NODE_BURST_S = 10;
const PUNCH_SOURCE_BURST_S = 10;
const PUNCH_BURST_S = 1;
const ANSWER_BURST_S = 1;

/** The overall punch limit grows so that each node can make one request in this time. */
const PUNCH_EVERY_S = 30;
/** And is never below that: a small fleet may begin all at once. */
const PUNCH_LIMIT_MIN = 100;

export class Limits {
  readonly #punch: RateLimitOwner;
  readonly #denied: PrefixListOwner;
  readonly #noHosts: PrefixListOwner;
  #config: LimitsConfig | undefined;

  constructor(private readonly memory: SharedMemory) {
    this.#punch = new RateLimitOwner(memory, PUNCH_LIMIT);
    this.#denied = new PrefixListOwner(memory, DENIED_ENDPOINTS);
    this.#noHosts = new PrefixListOwner(memory, NO_HOSTS);
    this.#noHosts.set(NEVER_ENDPOINTS.map(prefixOf));
  }

  /** @param nodes how many there are */
  configure(config: LimitsConfig, nodes: number): void {
    const { memory } = this;
    const set = (limit: number, perSecond: number, burstS: number) =>
      new RateLimitOwner(memory, limit).set(perSecond, perSecond * burstS);
    set(RELAY_LIMIT, config.relayLimit, RELAY_BURST_S);
    set(RELAY_ADDRESS_LIMIT, config.relayAddressLimit, RELAY_BURST_S);
    set(PUNCH_SOURCE_LIMIT, config.punchSourceLimit, PUNCH_SOURCE_BURST_S);
    set(NEW_NODE_LIMIT, config.newNodeLimit, NEW_NODE_BURST_S);
    set(ANSWER_LIMIT, config.answerLimit, ANSWER_BURST_S);
    this.#denied.set([...NEVER_ENDPOINTS, ...config.denyEndpoint].map(prefixOf));
    new PrefixListOwner(memory, PUNCH_ALLOWED).set(config.punchAllow.map(prefixOf));
    Atomics.store(
      memory.words,
      memory.rulesAt + ENDPOINT_HOLD_S,
      Math.ceil(config.endpointHoldMs / 1000),
    );
    Atomics.store(memory.words, memory.rulesAt + LIMITS_SHADOW, Number(config.limitsShadow));
    this.#config = config;
    this.tick(nodes);
  }

  /** To be called about every second: what grows with the nodes, grows. */
  tick(nodes: number): void {
    if (this.#config === undefined) return;
    const { punchLimit } = this.#config;
    const perSecond =
      punchLimit === "auto"
        ? Math.max(PUNCH_LIMIT_MIN, Math.ceil(nodes / PUNCH_EVERY_S))
        : punchLimit;
    this.#punch.set(perSecond, perSecond * PUNCH_BURST_S);
  }

  /** Whether no host is there, whatever the operator says. */
  isNoHost(endpoint: Int32Array): boolean {
    return this.#noHosts.has(endpoint, 0);
  }

  /** Whether no node may be there. */
  isDenied(endpoint: Int32Array): boolean {
    return this.#denied.has(endpoint, 0);
  }
}

/** @param text for parseAddressPrefix, or "*" @throws ConfigError, as parseAddressPrefix */
export function prefixOf(text: string): Prefix {
  if (text === "*") return { bytes: new Uint8Array(16), bits: 0 };
  const [address, bits] = parseAddressPrefix(text);
  const isIPv6 = address.kind() === "ipv6";
  const mapped = "toIPv4MappedAddress" in address ? address.toIPv4MappedAddress() : address;
  return { bytes: Uint8Array.from(mapped.toByteArray()), bits: isIPv6 ? bits : bits + 96 };
}
