/**
 * How often one worker lets gossip through to the main thread, to which each message is up to half
 * a millisecond's work: so many a second of each peer, and so many of all strangers together. The
 * generic cell rate algorithm, as in src/shared/limits.ts, with a cell for each place of a peer,
 * and another for what names the instance that the peer's signed gossip named: who fakes a peer's
 * address and does not hear it uses up the one, and not the other.
 */
import type { Clock } from "../../ffi/clock.ts";
import { PEER_PLACES } from "../shared/memory.ts";

/** Interval of a peer's gossip: three times the shortest gossip interval, 100 ms. */
const PEER_INTERVAL_NS = Math.round(1e9 / 30);
const PEER_BURST = 30;
/** Interval that admits LEARNED_PEERS_MAX unlisted beacons within ten seconds. */
const STRANGERS_INTERVAL_NS = 1e9 / 4;
const STRANGERS_BURST = 8;

export class GossipAllowance {
  /** Time by which admitted gossip is paid for: by peer, by known instance, and unlisted. */
  readonly #paidNs = new Float64Array(2 * PEER_PLACES + 1);

  constructor(private readonly clock: Clock) {}

  /**
   * Whether one more message is let through.
   * @param peer whom it came from, -1 for a stranger
   * @param namesInstance whether it names that peer's instance
   */
  take(peer: number, namesInstance: boolean): boolean {
    return peer < 0
      ? this.#take(2 * PEER_PLACES, STRANGERS_INTERVAL_NS, STRANGERS_BURST)
      : this.#take(namesInstance ? PEER_PLACES + peer : peer, PEER_INTERVAL_NS, PEER_BURST);
  }

  #take(place: number, intervalNs: number, burst: number): boolean {
    const nowNs = this.clock.nowNs();
    const paidNs = Math.max(this.#paidNs[place]!, nowNs) + intervalNs;
    if (paidNs - nowNs > burst * intervalNs) return false;
    this.#paidNs[place] = paidNs;
    return true;
  }
}
