/**
 * Learned peers: unlisted beacons whose gossip is accepted, where --gossip-strict is off. They are
 * sent no gossip, and are removed after a timeout.
 */
import type { MeshContext, OtherRoutes } from "./context.ts";

export interface LearnedPeer {
  readonly number: number;
  readonly endpoint: Int32Array;
  /** Time of its last gossip, on the clock of performance.now. */
  lastSeenMs: number;
}

export class LearnedPeers {
  readonly #peers = new Map<string, LearnedPeer>(); // by "ip:port"

  constructor(private readonly mesh: MeshContext) {}

  all(): Iterable<LearnedPeer> {
    return this.#peers.values();
  }

  get size(): number {
    return this.#peers.size;
  }

  /** Number of nodes that are reached through learned peers. */
  get routes(): number {
    const { announcements } = this.mesh;
    return this.#peers.values().reduce((sum, { number }) => sum + announcements.routes(number), 0);
  }

  /**
   * Adds an unlisted beacon that sent gossip, or updates it.
   * @returns its number, or undefined if there is no room for another one
   */
  see(address: string, endpoint: Int32Array): number | undefined {
    const { table, log } = this.mesh;
    let peer = this.#peers.get(address);
    if (peer === undefined) {
      const number = table.addLearned(endpoint, 0);
      if (number < 0) return undefined;
      peer = { number, endpoint, lastSeenMs: 0 };
      this.#peers.set(address, peer);
      log.info({ event: "peer_learned", peer: address }, "peer learned");
    } else table.setLocal(peer.number, endpoint, 0);
    peer.lastSeenMs = performance.now();
    return peer.number;
  }

  /** Removes those that sent no gossip for `timeoutMs`. */
  expire(timeoutMs: number): void {
    const nowMs = performance.now();
    this.remove(({ lastSeenMs }) => nowMs - lastSeenMs > timeoutMs);
  }

  remove(isUnwanted: (peer: LearnedPeer) => boolean): void {
    for (const [address, peer] of this.#peers) {
      if (!isUnwanted(peer)) continue;
      this.#peers.delete(address);
      this.mesh.log.info({ event: "learned_peer_removed", peer: address }, "learned peer removed");
      void forgetPeer(peer.number, this.mesh);
    }
  }
}

/** Frees a peer's number. No other peer may get the number before the promise settles. */
export async function forgetPeer(
  number: number,
  { table, announcements }: Pick<MeshContext, "table" | "announcements">,
  others?: OtherRoutes,
): Promise<void> {
  table.disown(number);
  await announcements.withdraw(number);
  await others?.forget(number);
  table.remove(number);
}
