/**
 * What peers announce becomes routes: a peer's new list of nodes replaces its old one. Route by route, in slices with pauses, so that
 * lists of any size leave the processor to the workers.
 *
 * A claim carries the generation of the list that it comes from. So a node that another peer has claimed since is left alone when
 * this one no longer names it.
 */
import { PEERS_MAX } from "../../shared/memory.ts";
import {
  claimOf,
  NO_CLAIM,
  nextGeneration,
  peerOfClaim,
  type RouteTable,
  TABLE_FULL,
} from "../../shared/routes.ts";

/** Nodes handled in one go: some 0.3 ms. */
const SLICE_NODES = 4096;
const PAUSE_MS = 1;
const NO_NODES = new Int32Array(0);

interface Pending {
  readonly nodeIds: Int32Array;
  readonly done: (() => void)[];
}

export class Announcements {
  /** Nodes that found no room in the route table, over all lists. */
  refused = 0;
  readonly #routes = new Int32Array(PEERS_MAX);
  readonly #generations = new Int32Array(PEERS_MAX).fill(1);
  readonly #lists: Int32Array[] = Array.from({ length: PEERS_MAX }, () => NO_NODES);
  /** By peer, at most one: what a peer says overrules what it said before. */
  readonly #pending = new Map<number, Pending>();
  #applying = false;

  constructor(private readonly table: RouteTable) {}

  /** Routes that lead to a peer. */
  routes(peer: number): number {
    return this.#routes[peer]!;
  }

  /**
   * Replaces a peer's list; an empty one withdraws all of it.
   * @param nodeIds not changed by anybody from now on
   * @returns settles when it, or a later one of this peer, is in force
   */
  announce(peer: number, nodeIds: Int32Array): Promise<void> {
    const done = this.#pending.get(peer)?.done ?? [];
    this.#pending.set(peer, { nodeIds, done });
    const announced = new Promise<void>((resolve) => done.push(resolve));
    if (!this.#applying) void this.#applyPending();
    return announced;
  }

  withdraw(peer: number): Promise<void> {
    return this.announce(peer, NO_NODES);
  }

  async #applyPending(): Promise<void> {
    this.#applying = true;
    for (const [peer, { nodeIds, done }] of this.#pending) {
      this.#pending.delete(peer);
      await this.#apply(peer, nodeIds);
      for (const settle of done) settle();
    }
    this.#applying = false;
  }

  async #apply(peer: number, nodeIds: Int32Array): Promise<void> {
    const { table } = this;
    const routes = this.#routes;
    const oldGeneration = this.#generations[peer]!;
    const oldClaim = claimOf(peer, oldGeneration);
    const claim = claimOf(peer, nextGeneration(oldGeneration));
    let left = routes[peer]!;
    await inSlices(nodeIds, (nodeId) => {
      if (nodeId === 0) return;
      const replaced = table.claim(nodeId, claim);
      if (replaced === TABLE_FULL) this.refused++;
      else if (replaced === oldClaim) left--;
      else if (replaced !== claim) {
        routes[peer]!++;
        if (replaced !== NO_CLAIM) routes[peerOfClaim(replaced)]!--;
      }
    });
    // Whatever is left of the old list is not on the new one.
    if (left > 0) {
      await inSlices(this.#lists[peer]!, (nodeId) => {
        if (nodeId !== 0 && table.withdraw(nodeId, oldClaim)) routes[peer]!--;
      });
    }
    this.#generations[peer] = nextGeneration(oldGeneration);
    this.#lists[peer] = nodeIds;
  }
}

async function inSlices(nodeIds: Int32Array, visit: (nodeId: number) => void): Promise<void> {
  for (let from = 0; from < nodeIds.length; from += SLICE_NODES) {
    if (from > 0) await Bun.sleep(PAUSE_MS);
    const end = Math.min(from + SLICE_NODES, nodeIds.length);
    for (let i = from; i < end; i++) visit(nodeIds[i]!);
  }
}
