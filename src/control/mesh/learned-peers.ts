/**
 * Learned peers: strangers whose gossip is believed, where --gossip-strict is off. Nobody named
 * them, so nothing is gossiped to them, and they are forgotten once they are silent.
 */
import type { Logger } from "pino";
import type { PeerTable } from "../../shared/peers.ts";
import type { Announcements } from "./announcements.ts";
import type { OtherRoutes } from "./mesh.ts";

export interface LearnedPeer {
  readonly number: number;
  readonly endpoint: Int32Array;
  /** When it was last heard, on the clock of performance.now. */
  heardMs: number;
}

export class LearnedPeers {
  readonly #peers = new Map<string, LearnedPeer>(); // by "ip:port"

  constructor(
    private readonly table: PeerTable,
    private readonly announcements: Announcements,
    private readonly log: Logger,
  ) {}

  /** All of them; the list changes when others are learned, or forgotten. */
  get peers(): Iterable<LearnedPeer> {
    return this.#peers.values();
  }

  get size(): number {
    return this.#peers.size;
  }

  /** Nodes that are reached through them. */
  get routes(): number {
    return this.#peers
      .values()
      .reduce((sum, { number }) => sum + this.announcements.routes(number), 0);
  }

  /**
   * A stranger was heard.
   * @returns its number, or undefined if there is no place for another one
   */
  hear(address: string, endpoint: Int32Array): number | undefined {
    let peer = this.#peers.get(address);
    if (peer === undefined) {
      const number = this.table.addLearned(endpoint, 0);
      if (number < 0) return undefined;
      peer = { number, endpoint, heardMs: 0 };
      this.#peers.set(address, peer);
      this.log.info({ peer: address }, "peer learned");
    } else this.table.setLocal(peer.number, endpoint, 0);
    peer.heardMs = performance.now();
    return peer.number;
  }

  /** Forgets those that have been silent for so long. */
  expire(silentMs: number): void {
    const nowMs = performance.now();
    this.#forget(({ heardMs }) => nowMs - heardMs > silentMs);
  }

  /** Forgets those at endpoints that `isUnwanted` names. */
  forget(isUnwanted: (endpoint: Int32Array) => boolean): void {
    this.#forget(({ endpoint }) => isUnwanted(endpoint));
  }

  #forget(isGone: (peer: LearnedPeer) => boolean): void {
    for (const [address, peer] of this.#peers) {
      if (!isGone(peer)) continue;
      this.#peers.delete(address);
      this.log.info({ peer: address }, "learned peer forgotten");
      void forgetPeer(peer.number, this.table, this.announcements);
    }
  }
}

/** Ends what a peer's number stands for. Only when that is settled may another peer have it. */
export async function forgetPeer(
  number: number,
  table: PeerTable,
  announcements: Announcements,
  others?: OtherRoutes,
): Promise<void> {
  table.disown(number);
  await announcements.withdraw(number);
  await others?.forget(number);
  table.remove(number);
}
