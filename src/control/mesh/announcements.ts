/**
 * Announcements become routes: a peer's new list of nodes replaces its old one, in slices with
 * pauses, so that long lists leave the processor to the workers.
 *
 * Lists are sorted, and a new list is merged with the old one. Nodes of the new list alone are
 * claimed. Nodes of the old list alone are withdrawn, unless another peer has claimed them since.
 * Nodes of both lists cost no lookup in the route table, unless another peer has claimed some of
 * them: then the announcing peer claims them again.
 *
 * A learned peer claims no node of another peer, and gives up its routes when the table is full.
 * Claims of the directory (src/control/directory) are newer than an old list: a peer overrides them
 * only with nodes that are new in its list.
 */
import { PEER_PLACES, PEERS_MAX } from "../../shared/memory.ts";
import { isLearned } from "../../shared/peers.ts";
import { NO_PEER } from "../../shared/routes.ts";
import { type RouteTableOwner, TABLE_FULL } from "../../shared/routes-owner.ts";
import { Pacing, type Pause } from "../kit/pacing.ts";
import type { OtherRoutes } from "./context.ts";

/** Routes changed between two looks at the clock: some hundredths of a millisecond. */
const ROUTES_PER_LOOK = 256;
const NO_NODES = new Int32Array(0);

interface Pending {
  readonly nodeIds: Int32Array;
  readonly done: (() => void)[];
}

export class Announcements {
  /** Announced nodes for which the route table had no room. */
  refused = 0;
  readonly #lists: Int32Array[] = Array.from({ length: PEER_PLACES }, () => NO_NODES);
  /** The last list of each peer that is not in force yet. */
  readonly #pending = new Map<number, Pending>();
  /** Numbers of the peers whose nodes come from the directory. */
  readonly #released = new Set<number>();
  #applying = false;

  others: OtherRoutes | undefined;

  /** @param nowMs the clock for the time of claims */
  constructor(
    private readonly table: RouteTableOwner,
    private readonly nowMs: () => number = () => 0,
  ) {}

  /** Returns the number of routes to a peer. */
  routes(peer: number): number {
    return this.table.routesOf(peer);
  }

  /** Returns the last list of a peer, which may not be in force yet. */
  list(peer: number): Int32Array {
    return this.#pending.get(peer)?.nodeIds ?? this.#lists[peer]!;
  }

  /**
   * Replaces a peer's list.
   * @param nodeIds in any order; 0 and duplicates are ignored. The caller must not use it again
   * @returns settles when this list, or a later one of the peer, is in force
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

  /** Leaves a peer's nodes to the directory. @returns once no list of it is pending */
  async release(peer: number): Promise<void> {
    this.#released.add(peer);
    await this.announce(peer, this.#lists[peer]!.slice());
    this.#lists[peer] = NO_NODES;
  }

  isReleased(peer: number): boolean {
    return this.#released.has(peer);
  }

  /** Ends a release. */
  takeBack(peer: number): void {
    this.#released.delete(peer);
  }

  async #applyPending(): Promise<void> {
    this.#applying = true;
    const pause = new Pacing().pause();
    for (const [peer, { nodeIds, done }] of this.#pending) {
      this.#pending.delete(peer);
      await this.#apply(peer, sortedSet(nodeIds), pause);
      for (const settle of done) settle();
      await pause();
    }
    this.#applying = false;
  }

  /** @param after sorted, without duplicates */
  async #apply(peer: number, after: Int32Array, pause: Pause): Promise<void> {
    const before = this.#lists[peer]!;
    const reclaim = this.table.routesOf(peer) < before.length;
    let changed = 0;
    // Withdraw first, so that a full table has room for the claims.
    for (const withdraws of [true, false]) {
      for (let b = 0, a = 0; b < before.length || a < after.length; ) {
        const order = compare(before, b, after, a);
        const changes = withdraws ? order < 0 : order > 0 || (order === 0 && reclaim);
        if (changes && withdraws) this.#withdraw(before[b]!, peer);
        else if (changes) this.#claim(after[a]!, peer, order > 0);
        if (order <= 0) b++;
        if (order >= 0) a++;
        if (changes && ++changed % ROUTES_PER_LOOK === 0) await pause();
      }
    }
    this.#lists[peer] = after;
  }

  #claim(nodeId: number, peer: number, isNew: boolean): void {
    const learned = isLearned(peer);
    if (learned || !isNew) {
      const holder = this.table.find(nodeId);
      if (learned ? holder !== NO_PEER && !isLearned(holder) : this.#released.has(holder)) return;
    }
    this.others?.claimedByGossip(nodeId, isNew);
    const nowMs = this.nowMs();
    let other = this.table.claim(nodeId, peer, nowMs);
    if (other === TABLE_FULL && !learned && this.#makeRoom())
      other = this.table.claim(nodeId, peer, nowMs);
    if (other === TABLE_FULL) this.refused++;
  }

  #withdraw(nodeId: number, peer: number): void {
    if (this.table.withdraw(nodeId, peer)) this.others?.withdrawnByGossip(nodeId);
  }

  /**
   * Withdraws the routes of one learned peer, which takes a few milliseconds at most.
   * @returns false if no learned peer has a route
   */
  #makeRoom(): boolean {
    for (let peer = PEERS_MAX; peer < PEER_PLACES; peer++) {
      if (this.table.routesOf(peer) === 0) continue;
      for (const nodeId of this.#lists[peer]!) this.#withdraw(nodeId, peer);
      return true;
    }
    return false;
  }
}

/** Compares elements of two sorted lists; the end of a list is greater than any id. */
function compare(first: Int32Array, i: number, second: Int32Array, j: number): number {
  if (i === first.length) return 1;
  if (j === second.length) return -1;
  return first[i]! < second[j]! ? -1 : first[i]! > second[j]! ? 1 : 0;
}

/** Sorts in place. @returns the ids without 0 and duplicates */
function sortedSet(nodeIds: Int32Array): Int32Array {
  nodeIds.sort();
  let length = 0;
  for (const nodeId of nodeIds) {
    if (nodeId !== 0 && (length === 0 || nodeId !== nodeIds[length - 1]))
      nodeIds[length++] = nodeId;
  }
  return nodeIds.subarray(0, length);
}
