/** Beacons that are each other's peers, each a process of its own, and who speaks with them. */

import { AF_INET6 } from "../../../ffi/abi.ts";
import { EADDRINUSE, SyscallError } from "../../../ffi/errno.ts";
import { hostPort } from "../../../ffi/host-port.ts";
import { UdpSocket } from "../../../ffi/socket.ts";
import type { PeerStats, Stats } from "../../../src/beacon.ts";
import type { NodeIdentity } from "../../support/pilot-node.ts";
import { sum, sumByName, UNLIMITED_FLAGS } from "./beacon.ts";
import { BridgedNode } from "./bridged.ts";
import { BurstSocket } from "./bursts.ts";
import { Client } from "./client.ts";
import { CLEAN_ENV, MAIN, type Program, Programs } from "./program.ts";
import { untilEqual } from "./wait.ts";
import { relay, type WireAddress } from "./wire.ts";

/**
 * Below the ports that the kernel gives to sockets that ask for any, so that nobody gets one
 * between our look and the beacon's.
 */
const PORTS_FROM = 16_384;
const PORTS_END = 32_768;
/**
 * Where this process begins to look: another one, which runs tests at the same time, begins
 * elsewhere.
 */
let nextPort = PORTS_FROM + Math.floor(Math.random() * (PORTS_END - PORTS_FROM));

/**
 * A UDP port that is free, in both families; each call names another one. Peers must know it before
 * the beacon is there.
 */
export function freePort(): number {
  for (;;) {
    const port = nextPort++;
    if (nextPort === PORTS_END) nextPort = PORTS_FROM;
    const socket = UdpSocket.open(AF_INET6);
    try {
      socket.setDualStack(true);
      socket.bind("::", port);
      return port;
    } catch (error) {
      if (!(error instanceof SyscallError && error.errno === EADDRINUSE)) throw error;
    } finally {
      socket.close();
    }
  }
}

/**
 * Two workers, so that what a worker learns must reach the other; gossip so often that no test
 * waits for it long; and no self-check, whose node and relays would be among those that are
 * counted.
 */
const FLAGS = [
  "--workers=2",
  "--max-nodes=1000",
  "--gossip-interval=200ms",
  "--self-check=off",
  "--http=127.0.0.1:0",
  "--log-format=json",
  ...UNLIMITED_FLAGS,
];

export class BeaconProcess {
  private constructor(
    readonly program: Program,
    private readonly http: string,
    /** Where its bridge is, if it has one. */
    readonly wss: string | undefined,
    /** Where nodes and peers on this host find it. */
    readonly at: WireAddress,
  ) {}

  /** Waits until it listens. */
  static async of(program: Program, host: string): Promise<BeaconProcess> {
    const { port, http, line } = await program.listening();
    if (http === undefined) throw new Error("a beacon without its numbers");
    return new BeaconProcess(program, http, line["wss"] as string | undefined, {
      address: host,
      port,
    });
  }

  /** What its peers call it. */
  get name(): string {
    return hostPort(this.at.address, this.at.port);
  }

  async stats(): Promise<Stats> {
    return (await (await fetch(new URL("api/stats", this.http))).json()) as Stats;
  }

  /** Peers as they are now, with the routes through each. */
  async routes(): Promise<Record<string, number>> {
    const { peers } = (await this.stats()).mesh;
    return Object.fromEntries(peers.map(({ address, routes }: PeerStats) => [address, routes]));
  }

  /**
   * Counts of relays, over all workers: taken from anybody, sent on to nodes and to peers, and what
   * nobody was found for.
   */
  async relays() {
    const stats = await this.stats();
    return {
      received: sum(stats, (w) => w.packetsReceived["relay"]!),
      local: sum(stats, (w) => w.relayForwarded["local"]!),
      peer: sum(stats, (w) => w.relayForwarded["peer"]!),
      notFound: sum(stats, (w) => w.relayNotFound),
    };
  }

  async notFound(): Promise<number> {
    return (await this.relays()).notFound;
  }

  /** Gossip that was turned away, by reason, without the reasons that stand at 0. */
  async rejected(): Promise<Record<string, number>> {
    return sumByName(await this.stats(), (w) => w.gossipRejected);
  }

  /** Gossip that the main thread rejected, by reason, without reasons that are 0. */
  async refused(): Promise<Record<string, number>> {
    const { gossipRefused } = (await this.stats()).mesh;
    return Object.fromEntries(Object.entries(gossipRefused).filter(([, count]) => count > 0));
  }

  /** Unlisted beacons whose gossip is accepted, and the routes through them. */
  async learned(): Promise<{ peers: number; routes: number }> {
    const { learnedPeers: peers, learnedRoutes: routes } = (await this.stats()).mesh;
    return { peers, routes };
  }

  /**
   * A sample of /metrics, written as there: name, then labels in braces; summed over the workers.
   */
  async metric(sample: string): Promise<number | undefined> {
    const text = await (await fetch(new URL("metrics", this.http))).text();
    const [name, labels = ""] = sample.replace("}", "").split("{");
    const values = text.split("\n").flatMap((line) => {
      const [, found, foundLabels = "", value] = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
      return found === name && foundLabels.includes(labels) ? [Number(value)] : [];
    });
    return values.length === 0 ? undefined : values.reduce((all, value) => all + value);
  }

  /** What it has warned of so far, beside the small buffers of a host that was never tuned. */
  warnings(): string[] {
    return this.messages("warn").filter((text) => !/^(receive|send) buffer is/.test(text));
  }

  messages(level: string): string[] {
    return this.program.log().flatMap((line) => (line.level === level ? [line.msg] : []));
  }
}

/** Beacons and clients that are ended together. */
export class Mesh {
  readonly #programs = new Programs();
  readonly #clients: (Client | BurstSocket | BridgedNode)[] = [];

  /**
   * Starts a beacon and waits until it listens.
   * @param addr as for --addr; where that is every address, it is spoken to at 127.0.0.1
   * @param within a command that runs the command behind it in its own place
   */
  async beacon(
    addr: string,
    flags: readonly string[] = [],
    { env = {}, within = [] }: { env?: Record<string, string>; within?: readonly string[] } = {},
  ): Promise<BeaconProcess> {
    const command = [...within, process.execPath, MAIN, `--addr=${addr}`, ...FLAGS, ...flags];
    const program = this.#programs.spawn(command, { env: { ...CLEAN_ENV, ...env } });
    const host = addr.replace(/^\[?(.*?)\]?:\d+$/, "$1");
    return BeaconProcess.of(program, host === "" || host === "0.0.0.0" ? "127.0.0.1" : host);
  }

  /** A node of a beacon, on the beacon's address unless another is given, or anybody else. */
  async client(beacon: { readonly at: WireAddress }, host = beacon.at.address): Promise<Client> {
    const client = await Client.open(host, { address: host, port: beacon.at.port });
    this.#clients.push(client);
    return client;
  }

  /** A node behind the bridge of a beacon. */
  async bridged(
    { wss }: { readonly wss: string | undefined },
    identity: NodeIdentity,
  ): Promise<BridgedNode> {
    if (wss === undefined) throw new Error("a beacon without a bridge");
    const node = await BridgedNode.connect(wss, identity);
    this.#clients.push(node);
    return node;
  }

  /** Somebody who sends and takes bursts. */
  burst(beacon: { readonly at: WireAddress }, receiveMerged = false): BurstSocket {
    const socket = new BurstSocket(beacon.at.address, beacon.at, receiveMerged);
    this.#clients.push(socket);
    return socket;
  }

  spawn(...args: Parameters<Programs["spawn"]>): Program {
    return this.#programs.spawn(...args);
  }

  async close(): Promise<void> {
    for (const client of this.#clients.splice(0)) client.close();
    await this.#programs.kill();
  }
}

/** What --peers calls somebody who plays a peer. */
export function nameOf({ address: { address, port } }: { readonly address: WireAddress }): string {
  return hostPort(address, port);
}

/** Waits until a beacon knows all nodes that its peer has; for nodes that nobody else has. */
export async function announced(from: BeaconProcess, to: BeaconProcess): Promise<void> {
  const { nodes } = await from.stats();
  await untilEqual(
    `nodes of ${from.name} that ${to.name} knows`,
    async () => (await to.routes())[from.name],
    nodes,
  );
}

/** Sends a packet to a node through a beacon, and waits until it arrives. */
export async function expectReached(sender: Client, node: Client, nodeId: number): Promise<void> {
  const SENDER_ID = 4_000_000_000;
  const payload = crypto.getRandomValues(new Uint8Array(20));
  await sender.send(relay(SENDER_ID, nodeId, payload));
  const message = await node.message();
  if (message.type !== "deliver" || Buffer.compare(message.payload, payload) !== 0) {
    throw new Error(`not what was sent to ${nodeId}: ${JSON.stringify(message)}`);
  }
}

/** Sends a packet that nobody is found for through a beacon, and waits until that is counted. */
export async function expectNotFound(
  sender: Client,
  beacon: BeaconProcess,
  nodeId: number,
): Promise<void> {
  const before = await beacon.notFound();
  await sender.send(relay(1, nodeId, new Uint8Array(20)));
  await untilEqual(`relays to nobody at ${beacon.name}`, () => beacon.notFound(), before + 1);
}
