/** All that may reach a beacon in a day, within a tenth of a second, again and again. */
import { DiscoverGenerator } from "../harness/discovers.ts";
import { GarbageSender } from "../harness/garbage.ts";
import { LoadGenerator } from "../harness/load.ts";
import type { Target } from "../harness/targets.ts";
import { cpuNs } from "../harness/usage.ts";

/**
 * Relays take 40 of these at full rate, the reference 20, and Discovers a few: about half of what
 * the core can do.
 */
const CYCLE_MS = 100;
const RELAYS_NS = 20e6;
const DISCOVERS_NS_MAX = 20e6;
/**
 * Nodes that send a Discover in each cycle, out of those that stay, and others that come and are
 * silent from then on.
 */
const STAYING = 500;
const COMING = 500;
const GARBAGE = 20;
/** Ids from here on: the bursts' nodes, those that stay, and those that come. */
const BURSTS_FROM = 1_000;
const STAYING_FROM = 10_000;
const STAYING_NODES = 10_000;
const COMING_FROM = 0x0100_0000;
const COMING_NODES_MAX = 0x3000_0000;

/** What a load got through since it was last asked. */
export class Tally {
  packets = 0;
  lost = 0;
  #elapsedNs = 0;
  #cpuNs = 0;

  /** Lets a target be loaded, and counts what that does. */
  add(
    { pid }: Target,
    load: { run(ns: number): { handled: number; lost: number; elapsedNs: number } },
  ): void {
    const before = cpuNs(pid);
    const { handled, lost, elapsedNs } = load.run(RELAYS_NS);
    this.#cpuNs += cpuNs(pid) - before;
    this.#elapsedNs += elapsedNs;
    this.packets += handled;
    this.lost += lost;
  }

  get packetsPerS(): number {
    return (this.packets / this.#elapsedNs) * 1e9;
  }

  get cpuNsPerPacket(): number {
    return this.#cpuNs / this.packets;
  }
}

/**
 * The load on the beacon, and beside it one that is always the same, on the reference: what changes
 * there is the machine's doing.
 */
export class SoakLoad {
  readonly #scattered = new LoadGenerator({
    payloadBytes: 200,
    nodes: 256,
    senders: 4,
    unknown: 0.1,
  });
  readonly #bursts = new LoadGenerator({
    payloadBytes: 1200,
    nodes: 64,
    burst: 32,
    firstId: BURSTS_FROM,
  });
  readonly #staying = new DiscoverGenerator({
    kind: "again",
    nodes: STAYING_NODES,
    firstId: STAYING_FROM,
  });
  readonly #coming = new DiscoverGenerator({
    kind: "new",
    nodes: COMING_NODES_MAX,
    firstId: COMING_FROM,
  });
  readonly #garbage = new GarbageSender();
  readonly #beside = new LoadGenerator({ payloadBytes: 200, nodes: 256 });
  #relays = new Tally();
  #reference = new Tally();
  /** Discovers sent, and left unanswered. */
  discovers = 0;
  discoversLost = 0;
  garbageSent = 0;

  constructor(
    private readonly beacon: Target,
    private readonly c: Target,
  ) {
    for (const load of [this.#scattered, this.#bursts, this.#staying, this.#coming])
      load.aim(beacon);
    this.#beside.aim(c);
    this.#beside.register();
  }

  /** Nodes that packets are for say that they are there, as they must while time goes by. */
  refresh(): void {
    this.#scattered.register();
    this.#bursts.register();
  }

  async cycle(): Promise<void> {
    const end = performance.now() + CYCLE_MS;
    this.#relays.add(this.beacon, this.#scattered);
    this.#relays.add(this.beacon, this.#bursts);
    this.#reference.add(this.c, this.#beside);
    for (const { sent, lost } of [
      this.#staying.run(DISCOVERS_NS_MAX, STAYING),
      this.#coming.run(DISCOVERS_NS_MAX, COMING),
    ]) {
      this.discovers += sent;
      this.discoversLost += lost;
    }
    this.#garbage.send(this.beacon, GARBAGE);
    this.garbageSent += GARBAGE;
    await Bun.sleep(Math.max(0, end - performance.now()));
  }

  /** What was relayed since the last call. */
  take(): { readonly relays: Tally; readonly reference: Tally } {
    const taken = { relays: this.#relays, reference: this.#reference };
    this.#relays = new Tally();
    this.#reference = new Tally();
    return taken;
  }

  close(): void {
    const all = [
      this.#scattered,
      this.#bursts,
      this.#staying,
      this.#coming,
      this.#garbage,
      this.#beside,
    ];
    for (const load of all) load.close();
  }
}
