/**
 * What is let in: the operator's limits and breakers, as one thread asks for them. What is refused
 * is counted here, by reason; in shadow, what would be, and it is let in.
 */
import type { Clock } from "../../ffi/clock.ts";
import { BROKEN_AT, LIMITED_AT, SHADOWED_AT } from "../shared/counters.ts";
import { addressHash, endpointHash, nodeHash } from "../shared/hash.ts";
import {
  ANSWER_LIMIT,
  ENDPOINT_HOLD,
  GRANT_RATE,
  NEW_NODE_LIMIT,
  PUNCH_LIMIT,
  PUNCH_SOURCE_LIMIT,
  RateLimit,
  RELAY_ADDRESS_LIMIT,
  RELAY_LIMIT,
} from "../shared/limits.ts";
import {
  BREAKER_BITS,
  DENIED_ENDPOINTS,
  ENDPOINT_HOLD_S,
  LIMITS_SHADOW,
  PUNCH_ALLOWED,
  type SharedMemory,
} from "../shared/memory.ts";
import { PrefixList } from "../shared/prefixes.ts";

/** What can be switched off: offsets into BREAKERS. */
export const DISCOVER_BREAKER = 0;
export const PUNCH_BREAKER = 1;
export const RELAY_BREAKER = 2;

/** All share the one line of the overall limit. */
const EVERYBODY = 0;

export class Admission {
  readonly #words: Int32Array;
  readonly #rules: number;
  readonly #counters: Float64Array;
  readonly #secret: number;
  readonly #relays: RateLimit;
  readonly #relaysOfAddress: RateLimit;
  readonly #punchesOfSource: RateLimit;
  readonly #punches: RateLimit;
  readonly #grants: RateLimit;
  readonly #newNodes: RateLimit;
  readonly #answers: RateLimit;
  readonly #punchAllowed: PrefixList;
  readonly #denied: PrefixList;
  /** The time of this batch, 0 before it was asked for. */
  #nowNs = 0;
  /** The limit that admitted the fewest of the Relays that were last asked for. */
  #relayLimit = RELAY_LIMIT;

  /** @param row this thread's first column in `counters` */
  constructor(
    memory: SharedMemory,
    private readonly row: number,
    private readonly clock: Clock,
  ) {
    this.#words = memory.words;
    this.#rules = memory.rulesAt;
    this.#counters = memory.counters;
    this.#secret = memory.sourceSecret;
    this.#relays = new RateLimit(memory, RELAY_LIMIT);
    this.#relaysOfAddress = new RateLimit(memory, RELAY_ADDRESS_LIMIT);
    this.#punchesOfSource = new RateLimit(memory, PUNCH_SOURCE_LIMIT);
    this.#punches = new RateLimit(memory, PUNCH_LIMIT);
    this.#grants = new RateLimit(memory, GRANT_RATE);
    this.#newNodes = new RateLimit(memory, NEW_NODE_LIMIT);
    this.#answers = new RateLimit(memory, ANSWER_LIMIT);
    this.#punchAllowed = new PrefixList(memory, PUNCH_ALLOWED);
    this.#denied = new PrefixList(memory, DENIED_ENDPOINTS);
  }

  /** Another batch begins, and with it another time. */
  nextBatch(): void {
    this.#nowNs = 0;
  }

  /** Whether a breaker lets nothing through, which is counted. */
  isBroken(breaker: number): boolean {
    if (((this.#words[this.#rules + BREAKER_BITS]! >>> breaker) & 1) === 0) return false;
    this.#counters[this.row + BROKEN_AT + breaker]!++;
    return true;
  }

  /** Whether no node may be at an endpoint. */
  isDenied(endpoint: Int32Array): boolean {
    return this.#denied.has(endpoint, 0);
  }

  get limitsRelays(): boolean {
    return this.#relays.isOn || this.#relaysOfAddress.isOn;
  }

  /**
   * Returns how many of some Relays of one source the limits admit, all of them in shadow. The
   * caller counts each Relay that it drops (`relayLimited`).
   *
   * The source's own limit is asked first and charged last, so that what one limit refuses costs
   * nothing of the other. A proven node has no address here: it may be that of a proxy for many.
   * @param provenId the node that the source is, 0 if it is an endpoint
   */
  relays(provenId: number, source: Int32Array, packets: number): number {
    const nowNs = this.#now();
    const isProven = provenId !== 0;
    const secret = this.#secret;
    const hash = isProven ? nodeHash(provenId, secret) : endpointHash(source, 0, secret);
    const room = this.#relays.room(hash, packets, nowNs);
    let taken = room;
    if (room > 0) {
      if (!isProven)
        taken = this.#relaysOfAddress.take(addressHash(source, 0, secret), room, nowNs);
      this.#relays.take(hash, taken, nowNs);
    }
    if (taken === packets) return packets;
    this.#relayLimit = taken < room ? RELAY_ADDRESS_LIMIT : RELAY_LIMIT;
    return this.#isShadowed(this.#relayLimit, packets - taken) ? packets : taken;
  }

  /** Counts a dropped Relay. @returns RELAY_LIMIT or RELAY_ADDRESS_LIMIT, which refused it */
  relayLimited(): number {
    this.#counters[this.row + LIMITED_AT + this.#relayLimit]!++;
    return this.#relayLimit;
  }

  /** Whether a PunchRequest is let in. */
  punch(source: Int32Array): boolean {
    return (
      this.#punchAllowed.has(source, 0) ||
      (this.#takesOne(
        this.#punchesOfSource,
        PUNCH_SOURCE_LIMIT,
        addressHash(source, 0, this.#secret),
      ) &&
        this.#takesOne(this.#punches, PUNCH_LIMIT, EVERYBODY))
    );
  }

  /** Whether to verify one more grant. The caller counts refusals: no operator set this. */
  grant(): boolean {
    return this.#grants.take(EVERYBODY, 1, this.#now()) === 1;
  }

  get limitsNewNodes(): boolean {
    return this.#newNodes.isOn;
  }

  /** Whether one more new node from there is let in. */
  newNode(source: Int32Array): boolean {
    return this.#takesOne(this.#newNodes, NEW_NODE_LIMIT, addressHash(source, 0, this.#secret));
  }

  /** Whether one more answer may go there. */
  answer(to: Int32Array): boolean {
    return this.#takesOne(this.#answers, ANSWER_LIMIT, addressHash(to, 0, this.#secret));
  }

  /** Seconds for which a node's endpoint is held after its last refresh. */
  get endpointHoldS(): number {
    return this.#words[this.#rules + ENDPOINT_HOLD_S]!;
  }

  /** A node's endpoint was held. @returns whether it is to be moved all the same */
  heldShadowed(): boolean {
    if (this.#isShadowed(ENDPOINT_HOLD, 1)) return true;
    this.#counters[this.row + LIMITED_AT + ENDPOINT_HOLD]!++;
    return false;
  }

  #takesOne(rate: RateLimit, limit: number, hash: number): boolean {
    if (rate.take(hash, 1, this.#now()) === 1 || this.#isShadowed(limit, 1)) return true;
    this.#counters[this.row + LIMITED_AT + limit]!++;
    return false;
  }

  #isShadowed(limit: number, packets: number): boolean {
    if (this.#words[this.#rules + LIMITS_SHADOW] === 0) return false;
    this.#counters[this.row + SHADOWED_AT + limit]! += packets;
    return true;
  }

  #now(): number {
    if (this.#nowNs === 0) this.#nowNs = this.clock.nowNs();
    return this.#nowNs;
  }
}
