/**
 * Honest nodes that relay at a steady pace, come back when their connection is gone, and keep an
 * account of what arrives.
 */
import { BridgedNode } from "../../../test/e2e/support/bridged.ts";
import { Client } from "../../../test/e2e/support/client.ts";
import { decode, discover, relay } from "../../../test/e2e/support/wire.ts";
import type { NodeIdentity } from "../../../test/support/pilot-node.ts";
import { BINARY } from "../../../test/support/websocket.ts";
import type { ChaosBeacon } from "./beacons.ts";
import type { Deliveries } from "./judge.ts";
import type { Pair, Seat } from "./pairs.ts";

/** Of each pair: 25 a second, so that a second without any is no chance. */
const EVERY_MS = 40;
const PADDING_BYTES = 96;
const TICK_MS = 10;
/**
 * Far more often than daemons (30 s to 60 s), as all here goes faster: a beacon that was started
 * anew knows its nodes by then.
 */
const REFRESH_MS = 1000;
/** How long a node waits until it connects again. */
const AGAIN_MS = 300;
/** For what is under way when the last packet was sent. */
const LATE_MS = 1000;

/** A node, however it is connected. What it cannot send is lost. */
interface ChaosNode {
  readonly id: number;
  refresh(): void;
  send(message: Uint8Array): void;
  /** Takes the beacon messages that have arrived. */
  take(): Uint8Array[];
  close(): void;
}

class UdpNode implements ChaosNode {
  private constructor(
    readonly id: number,
    private readonly client: Client,
  ) {}

  static async open(id: number, beacon: ChaosBeacon): Promise<UdpNode> {
    return new UdpNode(id, await Client.open("127.0.0.1", beacon.udp));
  }

  refresh(): void {
    this.send(discover(this.id));
  }

  send(message: Uint8Array): void {
    void this.client.send(message).catch(() => {}); // its buffer is full, or nobody listens
  }

  take(): Uint8Array[] {
    return this.client.take().map(({ bytes }) => bytes);
  }

  close(): void {
    this.client.close();
  }
}

/** A bridged node that connects again whenever its connection is gone. */
export class StubbornNode implements ChaosNode {
  #node: BridgedNode | undefined;
  #isClosed = false;

  /** @param localAddress where it connects from */
  constructor(
    private readonly identity: NodeIdentity,
    private readonly url: URL,
    private readonly localAddress: string,
  ) {
    void this.#stay();
  }

  get id(): number {
    return this.identity.nodeId;
  }

  get isConnected(): boolean {
    return this.#node !== undefined;
  }

  refresh(): void {}

  send(message: Uint8Array): void {
    this.#node?.send(message);
  }

  take(): Uint8Array[] {
    const frames = this.#node?.connection.take() ?? [];
    return frames.filter(({ opcode }) => opcode === BINARY).map(({ payload }) => payload);
  }

  /** Ends its connection without a word; it comes back. */
  drop(): void {
    this.#node?.connection.destroy();
    this.#node = undefined;
  }

  close(): void {
    this.#isClosed = true;
    this.drop();
  }

  async #stay(): Promise<void> {
    while (!this.#isClosed) {
      try {
        const node = await BridgedNode.connect(this.url, this.identity, {
          localAddress: this.localAddress,
        });
        if (this.#isClosed) return node.connection.destroy();
        this.#node = node;
        await node.connection.closed;
      } catch {} // it is told to come again, or nobody answers
      this.#node = undefined;
      await Bun.sleep(AGAIN_MS);
    }
  }
}

interface Line {
  readonly from: ChaosNode;
  readonly to: ChaosNode;
  readonly account: {
    readonly title: string;
    readonly sentMs: number[];
    readonly arrivedMs: number[];
  };
}

/** How nodes are made: ids from 1 on. */
export interface NodeMaker {
  readonly beacon: (seat: Seat) => ChaosBeacon;
  /** A node's key, known to whom the beacon asks. */
  readonly identity: (nodeId: number) => NodeIdentity;
  /** Where it connects from, so that no two nodes share the limits of one address. */
  readonly addressOf: (nodeId: number) => string;
}

export class Traffic {
  readonly #lines: Line[] = [];
  #beganMs = 0;
  #timers: Timer[] = [];

  static async open(pairs: readonly Pair[], maker: NodeMaker): Promise<Traffic> {
    const traffic = new Traffic();
    let nextId = 1;
    const node = async (seat: Seat): Promise<ChaosNode> => {
      const id = nextId++;
      const beacon = maker.beacon(seat);
      if (seat.by === "udp") return UdpNode.open(id, beacon);
      return new StubbornNode(maker.identity(id), beacon.wss, maker.addressOf(id));
    };
    for (const { title, from, to } of pairs) {
      const account = { title, sentMs: [], arrivedMs: [] };
      traffic.#lines.push({ from: await node(from), to: await node(to), account });
    }
    return traffic;
  }

  get nodes(): readonly ChaosNode[] {
    return this.#lines.flatMap(({ from, to }) => [from, to]);
  }

  get bridged(): readonly StubbornNode[] {
    return this.nodes.filter((node) => node instanceof StubbornNode);
  }

  /** What became of each pair's packets that were sent since `begin`. */
  get deliveries(): readonly Deliveries[] {
    return this.#lines.map(({ account: { title, sentMs, arrivedMs } }) => {
      const first = sentMs.findIndex((ms) => ms >= this.#beganMs);
      const sinceThen = (ms: number) => ms - this.#beganMs;
      return {
        title,
        sentMs: sentMs.slice(first).map(sinceThen),
        arrivedMs: arrivedMs.slice(first).map(sinceThen),
      };
    });
  }

  /** Whether all pairs have got a packet. */
  get flows(): boolean {
    return this.#lines.every(({ account }) => account.arrivedMs.some((ms) => !Number.isNaN(ms)));
  }

  /** Registers the nodes, again and again, and relays. */
  start(): void {
    const refresh = () => this.nodes.forEach((node) => void node.refresh());
    refresh();
    this.#timers = [setInterval(() => this.#tick(), TICK_MS), setInterval(refresh, REFRESH_MS)];
  }

  /** What was relayed so far does not count. */
  begin(): void {
    this.#beganMs = performance.now();
  }

  /** Relays no more, and waits for what is under way. */
  async stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await Bun.sleep(LATE_MS);
    this.#takeAll();
    for (const node of this.nodes) node.close();
  }

  #tick(): void {
    const nowMs = performance.now();
    for (const { from, to, account } of this.#lines) {
      // What a timer was late for is not made up for: a burst is no steady pace.
      const lastMs = account.sentMs.at(-1) ?? Number.NEGATIVE_INFINITY;
      if (nowMs - lastMs < EVERY_MS) continue;
      const payload = Buffer.alloc(4 + PADDING_BYTES);
      payload.writeUInt32BE(account.sentMs.length);
      account.sentMs.push(nowMs);
      account.arrivedMs.push(Number.NaN);
      from.send(relay(from.id, to.id, payload));
    }
    this.#takeAll();
  }

  #takeAll(): void {
    const nowMs = performance.now();
    for (const { from, to, account } of this.#lines) {
      for (const bytes of to.take()) {
        const message = decode(bytes);
        if (message.type !== "deliver" || message.senderId !== from.id) continue;
        const number = Buffer.from(message.payload).readUInt32BE();
        if (Number.isNaN(account.arrivedMs[number])) account.arrivedMs[number] = nowMs;
      }
      from.take(); // answers to its Discovers
    }
  }
}
