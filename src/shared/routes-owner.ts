/**
 * The route table in the hands of the main thread, which alone writes. Where the later claim is to
 * win, whatever the order in which claims come (src/control/directory), it keeps when each was made
 * beside the table.
 */
import { ClaimSums } from "./claim-digest.ts";
import { HASH_SECRET, PEER_PLACES, ROUTE_REMOVALS, ROUTE_WORDS, routeSlotsFor } from "./memory.ts";
import { type Area, PROBES_MAX, removeSlot } from "./open-addressing.ts";
import { NO_PEER, PEER, type RouteMemory, RouteTable } from "./routes.ts";

/** In place of a peer's number: there is no room for another route. */
export const TABLE_FULL = -2;

/** Mark of claims without one, and in `sweep` of no route; marks are bytes. */
export const UNMARKED = 0;
export const NO_MARK = -1;

/** Data of each slot's claim, by the slot's index; absent while the last claim counts. */
interface Claims {
  /** When it was made. */
  readonly timesMs: Float64Array;
  /** What its claimer marked it with, a byte. */
  readonly marks: Uint8Array;
  /** Of all claims, a row a peer. */
  readonly sums: ClaimSums;
}

/** Memory of a table that one thread alone uses. */
export function privateRouteMemory(routesMax: number, secret: number): RouteMemory {
  const routeSlots = routeSlotsFor(routesMax);
  const [routesAt, routeSlotsAt] = [16, 32];
  const words = new Int32Array(
    new SharedArrayBuffer(4 * (routeSlotsAt + routeSlots * ROUTE_WORDS)),
  );
  words[HASH_SECRET] = secret;
  return { words, routesAt, routeSlots, routeSlotsAt, shape: { routesMax } };
}

export class RouteTableOwner extends RouteTable {
  readonly #area: Area;
  readonly #routesMax: number;
  readonly #routesOf = new Int32Array(PEER_PLACES);
  #routes = 0;
  #claims: Claims | undefined;

  constructor(memory: RouteMemory) {
    super(memory);
    const { words, first, end } = this;
    this.#routesMax = memory.shape.routesMax;
    this.#area = {
      ...{ words, first, end },
      slotWords: ROUTE_WORDS,
      removals: memory.routesAt + ROUTE_REMOVALS,
      homeOf: (id) => this.home(id),
      copy: (slot, vacant) => {
        if (this.#claims) copyClaim(this.#claims, this.#indexOf(slot), this.#indexOf(vacant));
        Atomics.store(words, vacant + PEER, words[slot + PEER]!);
        Atomics.store(words, vacant, words[slot]!);
      },
    };
  }

  /** Keeps the dates of claims from now on; earlier ones count as made at 0. */
  keepClaims(): void {
    this.#claims ??= {
      timesMs: new Float64Array(this.slots),
      marks: new Uint8Array(this.slots),
      sums: new ClaimSums(PEER_PLACES),
    };
  }

  /**
   * Routes a node to a peer, whoever had it before.
   * @param nodeId not 0
   * @param timeMs when the claim was made, on whatever clock all claims go by
   * @param mark for `sweep`
   * @returns the number of the peer that had it, NO_PEER, or TABLE_FULL if there is no room for
   * another route
   */
  claim(nodeId: number, peer: number, timeMs = 0, mark = UNMARKED): number {
    const id = nodeId | 0;
    const words = this.words;
    const slot = this.search(id, 0);
    const isNew = slot >= 0 && words[slot] === 0;
    if (slot < 0 || (isNew && this.room <= 0)) return TABLE_FULL;
    if (this.#claims) {
      const { timesMs, marks, sums } = this.#claims;
      const index = this.#indexOf(slot);
      if (!isNew) sums.remove(id, timesMs[index]!, words[slot + PEER]!);
      sums.add(id, timeMs, peer);
      timesMs[index] = timeMs;
      marks[index] = mark;
    }
    this.#routesOf[peer]!++;
    if (!isNew) {
      const other = Atomics.exchange(words, slot + PEER, peer);
      this.#routesOf[other]!--;
      return other;
    }
    this.#routes++;
    Atomics.store(words, slot + PEER, peer);
    Atomics.store(words, slot, id);
    return NO_PEER;
  }

  /** As `find`, without what readers need beside a writer. */
  holder(nodeId: number): number {
    const slot = this.#slotOf(nodeId);
    return slot < 0 ? NO_PEER : this.words[slot + PEER]!;
  }

  /** When the claim of a node's route was made, -1 if it has none. */
  claimedMs(nodeId: number): number {
    const slot = this.#slotOf(nodeId);
    return slot < 0 ? -1 : (this.#claims?.timesMs[this.#indexOf(slot)] ?? 0);
  }

  /** What the claim of a node's route was marked with, UNMARKED if it has none. */
  markOf(nodeId: number): number {
    const slot = this.#slotOf(nodeId);
    return slot < 0 ? UNMARKED : (this.#claims?.marks[this.#indexOf(slot)] ?? UNMARKED);
  }

  /** Removes a node's route if it leads to this peer. @returns whether it did */
  withdraw(nodeId: number, peer: number): boolean {
    const slot = this.#slotOf(nodeId);
    if (slot < 0 || this.words[slot + PEER] !== peer) return false;
    this.#removeAt(slot, peer);
    return true;
  }

  #removeAt(slot: number, peer: number): void {
    if (this.#claims) {
      const { timesMs, sums } = this.#claims;
      sums.remove(this.words[slot]!, timesMs[this.#indexOf(slot)]!, peer);
    }
    removeSlot(this.#area, slot);
    this.#routes--;
    this.#routesOf[peer]!--;
  }

  /** Steps of a sweep. */
  get sweepSteps(): number {
    return this.slots + PROBES_MAX;
  }

  /**
   * A part of a sweep over the whole table: withdraws those routes of a peer that do not have this
   * mark. All parts, in order, miss none of them, whatever is claimed and withdrawn in between: as
   * node-scan.ts has it, removals move a route only to lower slots, or from the first PROBES_MAX to
   * the last, so the sweep goes backwards and looks at the last ones again.
   * @param mark NO_MARK to withdraw all
   * @param from step, from 0 on
   * @param end step behind the last
   * @param isToGo the others stay
   * @param withdrawn is called for each node, once its route is gone; it may claim it
   */
  sweep(
    peer: number,
    mark: number,
    from: number,
    end: number,
    isToGo: (nodeId: number) => boolean = () => true,
    withdrawn: (nodeId: number) => void = () => {},
  ): void {
    const words = this.words;
    for (let step = from; step < end; step++) {
      const index = this.#indexAt(step);
      const slot = this.#slotAt(index);
      if (words[slot] === 0 || words[slot + PEER] !== peer) continue;
      if (mark !== NO_MARK && this.#claims?.marks[index] === mark) continue;
      const nodeId = words[slot]!;
      if (!isToGo(nodeId)) continue;
      this.#removeAt(slot, peer);
      withdrawn(nodeId);
    }
  }

  /** Visits each route of a part of the table, some of them twice. */
  visit(
    from: number,
    end: number,
    visit: (nodeId: number, peer: number, claimedMs: number) => void,
  ): void {
    const words = this.words;
    for (let step = from; step < end; step++) {
      const index = this.#indexAt(step);
      const slot = this.#slotAt(index);
      const nodeId = words[slot]!;
      if (nodeId !== 0) visit(nodeId, words[slot + PEER]!, this.#claims?.timesMs[index] ?? 0);
    }
  }

  /** Routes in the table. */
  get size(): number {
    return this.#routes;
  }

  /** Routes that lead to a peer. */
  routesOf(peer: number): number {
    return this.#routesOf[peer]!;
  }

  /** Routes that there is room for. */
  get room(): number {
    return this.#routesMax - this.#routes;
  }

  /** The sums of a peer's claims (claim-digest.ts), which change with them; claims are kept. */
  sumsOf(peer: number): Int32Array {
    return this.#claims!.sums.row(peer);
  }

  /** Bytes that a route takes when the table is full, with what is kept of its claim. */
  get bytesPerRoute(): number {
    const claim = this.#claims ? 8 + 1 : 0;
    return (this.slots * (ROUTE_WORDS * 4 + claim)) / this.#routesMax;
  }

  /** The index that a sweep looks at in one of its steps. */
  #indexAt(step: number): number {
    const last = this.slots - 1 - step;
    return last < 0 ? last + this.slots : last;
  }

  #slotAt(index: number): number {
    return this.first + index * ROUTE_WORDS;
  }

  #indexOf(slot: number): number {
    return (slot - this.first) / ROUTE_WORDS;
  }

  /** @returns the slot of a node's route, negative if it has none */
  #slotOf(nodeId: number): number {
    const slot = this.search(nodeId | 0, 0);
    return slot >= 0 && nodeId !== 0 && this.words[slot] !== 0 ? slot : -1;
  }
}

function copyClaim({ timesMs, marks }: Claims, from: number, to: number): void {
  timesMs[to] = timesMs[from]!;
  marks[to] = marks[from]!;
}
