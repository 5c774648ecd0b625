/**
 * Nodes that say again that they are there, at the beacon where they are or at another; and how
 * soon relays find those that moved.
 */
import { type FleetShape, firstNodeOf, nodesOf } from "./fleet.ts";
import type { FleetNodes } from "./fleet-nodes.ts";

const TICK_MS = 1;
/**
 * A move that is looked at: from a third beacon, its node is sent a relay so often, until one comes
 * through the new beacon.
 */
const RELAY_EVERY_NS = 2e6;
/** And for so long after that: what is lost late is lost, too. */
const RELAY_ON_NS = 50e6;
const FOUND_NS_MAX = 2e9;

/**
 * A node that moved stays for so long, as nodes do: beacons on a busy host may receive the
 * Discovers of two moves in either order, and then no beacon can tell where the node is.
 */
const STAY_NS = 1e9;
/** Nodes tried for one move; the last is taken in any case, as all may have moved a moment ago. */
const TRIES = 100;

export interface MoveSample {
  /** false: it stayed where it was, and shows how long a relay takes by itself. */
  readonly moved: boolean;
  readonly number: number;
  readonly node: number;
  readonly to: number;
  readonly via: number;
  readonly movedNs: number;
  /**
   * When the first relay came through the new beacon, since the move; undefined if none did in
   * time.
   */
  foundNs: number | undefined;
  sent: number;
  arrived: number;
  nextNs: number;
}

export class Moves {
  readonly samples: MoveSample[] = [];
  moved = 0;
  /** By node, from 0 on: the beacon where it is. */
  readonly #owners: Uint8Array;
  /** By node: when it moved last. */
  readonly #movedNs: Float64Array;
  #open: MoveSample[] = [];

  constructor(
    private readonly nodes: FleetNodes,
    private readonly shape: FleetShape,
  ) {
    this.#owners = new Uint8Array(nodesOf(shape));
    this.#movedNs = new Float64Array(nodesOf(shape)).fill(Number.NEGATIVE_INFINITY);
    for (let beacon = 0; beacon < shape.beacons; beacon++) {
      const first = firstNodeOf(shape, beacon) - 1;
      this.#owners.fill(beacon, first, first + shape.nodesEach);
    }
  }

  /** Beacon at which a node is. @param node from 0 on */
  ownerOf(node: number): number {
    return this.#owners[node]!;
  }

  /**
   * So many Discovers a second for so long, each of a node at random.
   * @param moving whether each goes to another beacon than the node was at
   * @param samplesPerS of these that are looked at
   */
  async run(seconds: number, perS: number, moving: boolean, samplesPerS = 0): Promise<void> {
    const start = Bun.nanoseconds();
    let done = 0;
    let sampled = 0;
    for (
      let now = start;
      now - start < seconds * 1e9 || this.#open.length > 0;
      now = Bun.nanoseconds()
    ) {
      const elapsedS = Math.min((now - start) / 1e9, seconds);
      for (const due = Math.floor(elapsedS * perS); done < due; done++) {
        this.#discover(moving, sampled < Math.floor(elapsedS * samplesPerS) && ++sampled > 0);
      }
      this.#probe(now);
      this.nodes.flush();
      await Bun.sleep(TICK_MS);
      this.nodes.drain((beacon, sample) => this.#arrived(beacon, sample));
    }
  }

  /** @param isSample whether it is looked at */
  #discover(moved: boolean, isSample: boolean): void {
    const { beacons } = this.shape;
    const now = Bun.nanoseconds();
    let node: number;
    let tries = 0;
    do node = Math.floor(Math.random() * this.#owners.length);
    while (
      this.#open.some((one) => one.node === node) ||
      (moved && now - this.#movedNs[node]! < STAY_NS && ++tries < TRIES)
    );
    const from = this.#owners[node]!;
    const to = moved ? another(beacons, from) : from;
    this.#owners[node] = to;
    if (moved) {
      this.moved++;
      this.#movedNs[node] = now;
    }
    this.nodes.discover(to, 1 + node);
    if (!isSample) return;
    this.nodes.flush();
    const via = another(beacons, to, moved ? from : to);
    const movedNs = Bun.nanoseconds();
    const number = this.samples.length;
    const one = {
      number,
      moved,
      node,
      to,
      via,
      movedNs,
      foundNs: undefined,
      sent: 0,
      arrived: 0,
      nextNs: movedNs,
    };
    this.samples.push(one);
    this.#open.push(one);
  }

  #probe(now: number): void {
    for (const one of this.#open) {
      if (now < one.nextNs) continue;
      one.nextNs += RELAY_EVERY_NS;
      one.sent++;
      this.nodes.relay(one.via, 1 + one.node, one.number, one.sent);
    }
    this.#open = this.#open.filter(({ movedNs, foundNs }) =>
      foundNs === undefined ? now - movedNs < FOUND_NS_MAX : now - movedNs < foundNs + RELAY_ON_NS,
    );
  }

  #arrived(beacon: number, sample: number): void {
    const one = this.samples[sample];
    if (one === undefined) return;
    one.arrived++;
    if (beacon === one.to) one.foundNs ??= Bun.nanoseconds() - one.movedNs;
  }
}

/** Another beacon than these two; of a fleet of two, than the first. */
function another(beacons: number, one: number, other = one): number {
  for (;;) {
    const beacon = Math.floor(Math.random() * beacons);
    if (beacon !== one && (beacon !== other || beacons === 2)) return beacon;
  }
}
