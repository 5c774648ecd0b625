/**
 * What peers announce becomes routes: a peer's new list of nodes replaces its old one. In slices
 * with pauses, so that lists of any size leave the processor to the workers.
 *
 * Lists are kept sorted, and a new one is walked beside the old one: what is only in the new one is
 * claimed, what is only in the old one is withdrawn, if no other peer has claimed it since. What is
 * in both is left alone, unless another peer has taken some of it: then this one takes it back, as
 * the last to claim it. So a list that is the same as ever costs no look into the route table.
 *
 * Learned peers come after all others: they claim no node of another peer's, and where the table is
 * full, their routes make room. What the directory tells of its beacons (src/control/directory) is
 * newer than an old list: a peer takes from them only what is new in its own.
 */
import { PEER_PLACES, PEERS_MAX } from "../../shared/memory.ts";
import { isLearned } from "../../shared/peers.ts";
import { NO_PEER, type RouteTable, TABLE_FULL } from "../../shared/routes.ts";

/** Routes changed in one go: some 0.3 ms. */
const SLICE_ROUTES = 2048;
const PAUSE_MS = 1;
/** Nodes of lists that are sorted in one go: of the largest, some 0.4 ms. */
const SLICE_NODES = 16_384;
const NO_NODES = new Int32Array(0);

interface Pending {
  readonly nodeIds: Int32Array;
  readonly done: (() => void)[];
}

export interface AnnouncementWatcher {
  /**
   * A peer is about to have a node's route.
   * @param isNew whether it did not announce the node before
   */
  readonly claims: (nodeId: number, isNew: boolean) => void;
  /** A peer had a node's route, and it was withdrawn. */
  readonly withdrew: (nodeId: number) => void;
}

export class Announcements {
  /** Nodes that found no room in the route table, over all lists. */
  refused = 0;
  readonly #lists: Int32Array[] = Array.from({ length: PEER_PLACES }, () => NO_NODES);
  /** By peer, at most one: what a peer says overrules what it said before. */
  readonly #pending = new Map<number, Pending>();
  /** The peers whose nodes the directory tells, by number. */
  readonly #released = new Set<number>();
  #applying = false;

  /**
   * @param nowMs what claims are stamped with, where others are, too
   * @param watcher is told of what changes
   */
  constructor(
    private readonly table: RouteTable,
    private readonly nowMs: () => number = () => 0,
    private readonly watcher: AnnouncementWatcher = { claims: () => {}, withdrew: () => {} },
  ) {}

  /** Routes that lead to a peer. */
  routes(peer: number): number {
    return this.table.routesOf(peer);
  }

  /** What a peer announced last, whether or not that is in force yet. */
  list(peer: number): Int32Array {
    return this.#pending.get(peer)?.nodeIds ?? this.#lists[peer]!;
  }

  /**
   * Replaces a peer's list; an empty one withdraws all of it.
   * @param nodeIds in any order, 0 and repetitions count for nothing; this object's own from now on
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

  /**
   * Leaves a peer's nodes, and the routes to them as they are, to the directory.
   * @returns settles when no list of it is under way
   */
  async release(peer: number): Promise<void> {
    this.#released.add(peer);
    await this.announce(peer, this.#lists[peer]!.slice());
    this.#lists[peer] = NO_NODES;
  }

  /** Whether a peer's nodes are left to the directory. */
  isReleased(peer: number): boolean {
    return this.#released.has(peer);
  }

  /** Ends that. */
  takeBack(peer: number): void {
    this.#released.delete(peer);
  }

  async #applyPending(): Promise<void> {
    this.#applying = true;
    let sorted = 0;
    for (const [peer, { nodeIds, done }] of this.#pending) {
      this.#pending.delete(peer);
      sorted += nodeIds.length;
      await this.#apply(peer, sortedSet(nodeIds));
      for (const settle of done) settle();
      if (sorted < SLICE_NODES) continue;
      sorted = 0;
      await Bun.sleep(PAUSE_MS);
    }
    this.#applying = false;
  }

  /** @param after sorted, as the list before it is */
  async #apply(peer: number, after: Int32Array): Promise<void> {
    const before = this.#lists[peer]!;
    const takeBack = this.table.routesOf(peer) < before.length;
    let changed = 0;
    // First what goes, so that a full table has room for what comes.
    for (const going of [true, false]) {
      for (let b = 0, a = 0; b < before.length || a < after.length; ) {
        const order = compare(before, b, after, a);
        const changes = going ? order < 0 : order > 0 || (order === 0 && takeBack);
        if (changes && going) this.#withdraw(before[b]!, peer);
        else if (changes) this.#claim(after[a]!, peer, order > 0);
        if (order <= 0) b++;
        if (order >= 0) a++;
        if (changes && ++changed % SLICE_ROUTES === 0) await Bun.sleep(PAUSE_MS);
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
    this.watcher.claims(nodeId, isNew);
    const nowMs = this.nowMs();
    let other = this.table.claim(nodeId, peer, nowMs);
    if (other === TABLE_FULL && !learned && this.#makeRoom())
      other = this.table.claim(nodeId, peer, nowMs);
    if (other === TABLE_FULL) this.refused++;
  }

  #withdraw(nodeId: number, peer: number): void {
    if (this.table.withdraw(nodeId, peer)) this.watcher.withdrew(nodeId);
  }

  /**
   * Withdraws the routes of one learned peer, at most some milliseconds' worth.
   * @returns false if none has any
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

/**
 * Which of two sorted lists has the lower id at its place: negative the first, positive the second,
 * 0 both. A list's end is last.
 */
function compare(first: Int32Array, i: number, second: Int32Array, j: number): number {
  if (i === first.length) return 1;
  if (j === second.length) return -1;
  return first[i]! < second[j]! ? -1 : first[i]! > second[j]! ? 1 : 0;
}

/** Sorts in place. @returns each id once, without 0 */
function sortedSet(nodeIds: Int32Array): Int32Array {
  nodeIds.sort();
  let length = 0;
  for (const nodeId of nodeIds) {
    if (nodeId !== 0 && (length === 0 || nodeId !== nodeIds[length - 1]))
      nodeIds[length++] = nodeId;
  }
  return nodeIds.subarray(0, length);
}
