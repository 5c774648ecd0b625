/**
 * How often one worker lets gossip through to the main thread, to which each message is up to half a millisecond's work: so many a
 * second of each peer, and so many of all strangers together. The generic cell rate algorithm, as in src/shared/limits.ts, with a cell
 * for each place of a peer.
 */
import type { Clock } from "../../ffi/clock.ts";
import { PEER_PLACES } from "../shared/memory.ts";

/** Three times what a peer says at the shortest of gossip intervals, 100 ms; and a second's worth at once. */
const PEER_INTERVAL_NS = Math.round(1e9 / 30);
const PEER_BURST = 30;
/** LEARNED_PEERS_MAX strangers that gossip every ten seconds are all heard, and learned, within the first ten. */
const STRANGERS_INTERVAL_NS = 1e9 / 4;
const STRANGERS_BURST = 8;

export class GossipAllowance {
  /** When what was let through will have been paid for; the last is the strangers'. */
  readonly #paidNs = new Float64Array(PEER_PLACES + 1);

  constructor(private readonly clock: Clock) {}

  /** Whether one more message is let through. @param peer whom it came from, -1 for a stranger */
  take(peer: number): boolean {
    return peer < 0
      ? this.#take(PEER_PLACES, STRANGERS_INTERVAL_NS, STRANGERS_BURST)
      : this.#take(peer, PEER_INTERVAL_NS, PEER_BURST);
  }

  #take(place: number, intervalNs: number, burst: number): boolean {
    const nowNs = this.clock.nowNs();
    const paidNs = Math.max(this.#paidNs[place]!, nowNs) + intervalNs;
    if (paidNs - nowNs > burst * intervalNs) return false;
    this.#paidNs[place] = paidNs;
    return true;
  }
}
