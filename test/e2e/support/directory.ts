/** Beacons of this process that share a directory, their nodes, and who sends to them. */
import { Beacon, type Config } from "../../../src/beacon.ts";
import type { DirectoryBeaconStats, DirectoryStats } from "../../../src/control/directory/stats.ts";
import { type LogLine, recordedLog } from "../../support/log.ts";
import { sum, UNLIMITED } from "./beacon.ts";
import { BridgedNode, KnownNodes } from "./bridged.ts";
import { Client } from "./client.ts";
import { until } from "./wait.ts";
import { decode, deliver, relay, type WireAddress } from "./wire.ts";

/** Who sends what a test sends: nobody's id. */
const SENDER_ID = 4_000_000_000;
const PAYLOAD_BYTES = 20;
/** Of a packet that is sent behind others: when it has arrived, so have they. */
const MARK = new Uint8Array(PAYLOAD_BYTES + 1);
/** The shortest there may be. */
export const LEASE_MS = 3000;
const AGAIN_MS = 20;
const TRAFFIC_TICK_MS = 10;
const DELIVER = 0x06;

let ids = 1_000_000;
export const newId = (): number => ++ids;
let beaconIds = 0;

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

/** A node, by UDP or behind the bridge. */
export interface FleetNode {
  readonly id: number;
  /**
   * What it gets next, but for answers and gossip.
   * @throws Error if nothing comes, or not from its beacon
   */
  next(): Promise<Uint8Array>;
  /** What arrived and was not looked at. */
  take(): Uint8Array[];
}

export class UdpNode implements FleetNode {
  constructor(
    readonly id: number,
    readonly client: Client,
  ) {}

  /** Says at its beacon where it is. */
  async discover(): Promise<void> {
    await this.client.discover(this.id);
  }

  async next(): Promise<Uint8Array> {
    const { bytes, from } = await this.client.next();
    if (!Bun.deepEquals(from, this.client.beacon)) throw new Error(`from ${JSON.stringify(from)}`);
    return bytes;
  }

  take(): Uint8Array[] {
    return this.client.take().map(({ bytes }) => bytes);
  }
}

export class WsNode implements FleetNode {
  constructor(private readonly node: BridgedNode) {}

  get id(): number {
    return this.node.nodeId;
  }

  get connection() {
    return this.node.connection;
  }

  next(): Promise<Uint8Array> {
    return this.node.next();
  }

  take(): Uint8Array[] {
    return this.node.connection.take().map(({ payload }) => payload);
  }
}

export class FleetBeacon {
  #sender: Client | undefined;
  readonly #open: { close(): void }[] = [];
  /** Where nodes and peers find it; also once it is closed. */
  readonly at: WireAddress;

  private constructor(
    readonly beacon: Beacon,
    readonly log: readonly LogLine[],
    private readonly known: KnownNodes,
  ) {
    const { address, port } = beacon.address;
    this.at = { address, port };
  }

  static async start(known: KnownNodes, options: Partial<Config>): Promise<FleetBeacon> {
    const { log, lines } = recordedLog();
    const beacon = new Beacon(
      {
        addr: "127.0.0.1:0",
        http: "127.0.0.1:0",
        workers: 1,
        maxNodes: 1000,
        maxRoutes: 10_000,
        selfCheck: false,
        beaconId: ++beaconIds,
        directoryLeaseMs: LEASE_MS,
        ...UNLIMITED,
        ...options,
      },
      log,
      known.keyOf,
    );
    await beacon.listen();
    return new FleetBeacon(beacon, lines, known);
  }

  get name(): string {
    return `${this.at.address}:${this.at.port}`;
  }

  get directory(): DirectoryStats {
    return this.beacon.stats().directory!;
  }

  get nodes(): number {
    return this.beacon.stats().nodes;
  }

  /** What the directory told of another beacon. */
  told(other: { readonly name: string }): DirectoryBeaconStats | undefined {
    return this.directory.beacons.find(({ name }) => name === other.name);
  }

  /** Routes to another beacon; undefined while it is no peer. */
  routes(other: { readonly name: string }): number | undefined {
    return this.beacon.stats().mesh.peers.find(({ address }) => address === other.name)?.routes;
  }

  /** Whether the directory tells the nodes of these, and of no others. */
  follows(others: readonly { readonly name: string }[]): boolean {
    const names = this.directory.beacons
      .filter(({ state }) => state === "following")
      .map(({ name }) => name);
    return Bun.deepEquals(names.sort(), others.map(({ name }) => name).sort());
  }

  /** What it has warned of, beside the small buffers of a host that was never tuned. */
  warnings(pattern = /./): string[] {
    return this.log.flatMap(({ level, msg }) =>
      level !== "info" && !/^(receive|send) buffer is/.test(msg) && pattern.test(msg) ? [msg] : [],
    );
  }

  messages(pattern: RegExp): string[] {
    return this.log.flatMap(({ msg }) => (pattern.test(msg) ? [msg] : []));
  }

  async readyz(): Promise<string> {
    const answer = await fetch(new URL("readyz", this.beacon.httpUrl));
    if (answer.status !== 200) throw new Error(`readyz: ${answer.status}`);
    return (await answer.text()).trim();
  }

  /** Somebody who is no node. */
  async sender(): Promise<Client> {
    this.#sender ??= await this.client();
    return this.#sender;
  }

  async client(): Promise<Client> {
    const client = await Client.open("127.0.0.1", this.at);
    this.#open.push(client);
    return client;
  }

  /** A node that registers here by UDP. */
  async udp(id = newId()): Promise<UdpNode> {
    const node = new UdpNode(id, await this.client());
    await node.discover();
    return node;
  }

  /** A node that connects to the bridge here. */
  async bridged(id = newId()): Promise<WsNode> {
    const node = await BridgedNode.connect(this.beacon.wssUrl!, this.known.identity(id));
    this.#open.push({ close: () => node.connection.destroy() });
    return new WsNode(node);
  }

  /** Ends who speaks with it, and itself. Safe more than once. */
  async close(): Promise<void> {
    for (const one of this.#open.splice(0)) one.close();
    await this.beacon.close();
  }
}

/** Beacons that share what `directory` names, and are ended together. */
export class Fleet {
  readonly known = new KnownNodes();
  readonly beacons: FleetBeacon[] = [];
  readonly #more: { close(): unknown }[] = [];

  constructor(private readonly options: Partial<Config>) {}

  async start(options: Partial<Config> = {}): Promise<FleetBeacon> {
    const beacon = await FleetBeacon.start(this.known, { ...this.options, ...options });
    this.beacons.push(beacon);
    return beacon;
  }

  /** So many, which follow each other. */
  async startAll(count: number, options: Partial<Config> = {}): Promise<FleetBeacon[]> {
    const beacons: FleetBeacon[] = [];
    for (let i = 0; i < count; i++) beacons.push(await this.start(options));
    await this.untilWhole();
    return beacons;
  }

  /** Waits until all follow each other. */
  async untilWhole(timeoutMs?: number): Promise<void> {
    const states = () => this.beacons.map(({ name, directory }) => ({ name, ...directory }));
    const isWhole = () =>
      this.beacons.every((one) => one.follows(this.beacons.filter((other) => other !== one)));
    try {
      await until("all beacons follow each other", isWhole, timeoutMs);
    } catch (error) {
      const shown = states().map(({ name, state, beacons }) => ({ name, state, beacons }));
      throw new Error(`${(error as Error).message}: ${JSON.stringify(shown)}`);
    }
  }

  /** Is closed together with the beacons, after them. */
  with<T extends { close(): unknown }>(one: T): T {
    this.#more.push(one);
    return one;
  }

  async close(): Promise<void> {
    await Promise.all(this.beacons.splice(0).map((beacon) => beacon.close()));
    for (const one of this.#more.splice(0)) await one.close();
  }
}

/** Sends a packet to a node through a beacon, and it arrives. */
export async function expectReached(via: FleetBeacon, node: FleetNode): Promise<void> {
  const payload = crypto.getRandomValues(new Uint8Array(PAYLOAD_BYTES));
  await (await via.sender()).send(relay(SENDER_ID, node.id, payload));
  const arrived = await node.next();
  if (hex(arrived) !== hex(deliver(SENDER_ID, payload)))
    throw new Error(
      `not what was sent to ${node.id} through ${via.name}: ${JSON.stringify(decode(arrived))}`,
    );
}

/** Sends packets to a node through a beacon until one arrives. */
export async function untilReached(via: FleetBeacon, node: FleetNode): Promise<void> {
  const sender = await via.sender();
  const payload = crypto.getRandomValues(new Uint8Array(PAYLOAD_BYTES));
  const expected = hex(deliver(SENDER_ID, payload));
  await until(`node ${node.id} is reached through ${via.name}`, async () => {
    await sender.send(relay(SENDER_ID, node.id, payload));
    await Bun.sleep(AGAIN_MS);
    return node.take().some((bytes) => hex(bytes) === expected);
  });
  // Those behind the first arrive before one that is sent now.
  const mark = crypto.getRandomValues(new Uint8Array(PAYLOAD_BYTES));
  await sender.send(relay(SENDER_ID, node.id, mark));
  const marked = hex(deliver(SENDER_ID, mark));
  await until(`node ${node.id} has what was sent last`, () =>
    node.take().some((bytes) => hex(bytes) === marked),
  );
}

/** Sends packets to a node through a beacon until nobody is found: routes go in slices. */
export async function untilNotFound(via: FleetBeacon, nodeId: number): Promise<void> {
  const sender = await via.sender();
  const notFound = () => sum(via.beacon.stats(), (worker) => worker.relayNotFound);
  const before = notFound();
  await until(`nobody has node ${nodeId}, says ${via.name}`, async () => {
    await sender.send(relay(SENDER_ID, nodeId, new Uint8Array(PAYLOAD_BYTES)));
    await Bun.sleep(AGAIN_MS);
    return notFound() > before;
  });
}

/**
 * Relays that go on all the time from one beacon to a node of another's, and how many of them
 * arrive.
 */
export class Traffic {
  readonly #timer: Timer;
  #dueMs = performance.now();
  #sent = 0;
  #arrived = 0;
  #marks = 0;

  /** @param perSecond packets, at most 1000 */
  private constructor(
    private readonly sender: Client,
    private readonly node: UdpNode,
    private readonly perSecond: number,
  ) {
    this.#timer = setInterval(() => this.#go(), TRAFFIC_TICK_MS);
  }

  static async start(via: FleetBeacon, node: UdpNode, perSecond: number): Promise<Traffic> {
    return new Traffic(await via.client(), node, perSecond);
  }

  /** Packets so far. */
  get sent(): number {
    return this.#sent;
  }

  /** Ends it. Safe more than once. */
  stop(): void {
    clearInterval(this.#timer);
  }

  /** The packets of one that has ended, when a packet behind them has arrived. */
  async settled(): Promise<{ readonly sent: number; readonly arrived: number }> {
    const mark = relay(SENDER_ID, this.node.id, MARK);
    await until(`a packet that was sent last arrives at node ${this.node.id}`, async () => {
      await this.sender.send(mark);
      await Bun.sleep(AGAIN_MS);
      this.#count();
      return this.#marks > 0;
    });
    return { sent: this.#sent, arrived: this.#arrived };
  }

  #go(): void {
    const nowMs = performance.now();
    // After a pause of this thread not all at once: buffers are small.
    this.#dueMs = Math.max(this.#dueMs, nowMs - 2 * TRAFFIC_TICK_MS);
    for (; this.#dueMs < nowMs; this.#dueMs += 1000 / this.perSecond) {
      void this.sender.send(relay(SENDER_ID, this.node.id, new Uint8Array(PAYLOAD_BYTES)));
      this.#sent++;
    }
    this.#count();
  }

  #count(): void {
    const delivered = this.node.take().filter((bytes) => bytes[0] === DELIVER);
    const marks = delivered.filter(
      ({ length }) => length === deliver(SENDER_ID, MARK).length,
    ).length;
    this.#marks += marks;
    this.#arrived += delivered.length - marks;
  }
}
