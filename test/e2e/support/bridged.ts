/** Nodes behind the WebSocket bridge. */

import type { Logger } from "pino";
import {
  Beacon,
  type BridgeStats,
  type Config,
  type KeyFunction,
  type PacketStats,
} from "../../../src/beacon.ts";
import { base64, NodeIdentity, type ReplyForm } from "../../support/pilot-node.ts";
import {
  BINARY,
  clientFrame,
  TEXT,
  type UpgradeOptions,
  WebSocketClient,
} from "../../support/websocket.ts";
import { UNLIMITED } from "./beacon.ts";
import { BurstSocket } from "./bursts.ts";
import { Client } from "./client.ts";
import { untilEqual } from "./wait.ts";
import { decode, type Message, relay } from "./wire.ts";

/** Nodes and their keys; each is made when it is first asked for. */
export class KnownNodes {
  readonly #identities = new Map<number, NodeIdentity>();

  identity(nodeId: number): NodeIdentity {
    const identity = this.#identities.get(nodeId) ?? NodeIdentity.create(nodeId);
    this.#identities.set(nodeId, identity);
    return identity;
  }

  /** For a beacon in this process: knows those that were asked for. */
  readonly keyOf: KeyFunction = (nodeId) => this.#identities.get(nodeId)?.publicKey;

  /** A key file with these nodes. */
  file(nodeIds: Iterable<number> = this.#identities.keys()): string {
    const keys = Array.from(nodeIds, (nodeId) => [nodeId, base64(this.identity(nodeId).publicKey)]);
    return JSON.stringify(Object.fromEntries(keys));
  }
}

export class BridgedNode {
  private constructor(
    readonly identity: NodeIdentity,
    readonly connection: WebSocketClient,
  ) {}

  /** Connects and proves who it is. @throws Error if the bridge does not want it */
  static async connect(
    url: URL | string,
    identity: NodeIdentity,
    { form, ...options }: UpgradeOptions & { readonly form?: ReplyForm } = {},
  ): Promise<BridgedNode> {
    const connection = await WebSocketClient.open(url, options);
    try {
      const challenge = await textOf(connection);
      connection.text(identity.reply(challenge, form ? { form } : {}));
      const answer = await textOf(connection);
      if (answer !== '{"type":"auth_ok"}') throw new Error(`the bridge says ${answer}`);
      return new BridgedNode(identity, connection);
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }

  get nodeId(): number {
    return this.identity.nodeId;
  }

  send(message: Uint8Array): void {
    this.connection.binary(message);
  }

  relay(to: number, payload: Uint8Array): void {
    this.send(relay(this.nodeId, to, payload));
  }

  /** Sends each message as a frame, all at once. */
  sendEach(messages: readonly Uint8Array[]): void {
    this.connection.sendBytes(
      Buffer.concat(messages.map((message) => clientFrame(BINARY, message))),
    );
  }

  /** The next frame. @throws Error if none comes, or it is text */
  async next(): Promise<Uint8Array> {
    const { opcode, payload } = await this.connection.next();
    if (opcode !== BINARY) throw new Error(`a frame of type ${opcode}`);
    return payload;
  }

  /** The next frame, decoded. @throws Error if none comes or it is no message of a beacon */
  async message(): Promise<Message> {
    return decode(await this.next());
  }

  /** Waits for so many frames and takes them. @throws Error if they do not come, or one is text */
  async arrivals(count: number): Promise<Uint8Array[]> {
    const frames: Uint8Array[] = [];
    while (frames.length < count) frames.push(await this.next());
    return frames;
  }

  close(): void {
    this.connection.close();
  }
}

/** A beacon in this process that has a bridge, and who speaks with it; they end together. */
export class BridgeBeacon {
  readonly #connections: WebSocketClient[] = [];
  readonly #sockets: (Client | BurstSocket)[] = [];

  private constructor(
    readonly beacon: Beacon,
    readonly nodes: KnownNodes,
  ) {}

  /** @param keyOf knows the nodes' keys; null leaves that to the options */
  static async start(
    options: Partial<Config> = {},
    { log, keyOf, nodes = new KnownNodes() }: BridgeBeaconExtras = {},
  ): Promise<BridgeBeacon> {
    const small = {
      addr: "127.0.0.1:0",
      wss: "127.0.0.1:0",
      workers: 2,
      maxNodes: 1000,
      ...UNLIMITED,
    };
    const beacon = new Beacon(
      { ...small, ...options },
      log,
      keyOf === null ? undefined : (keyOf ?? nodes.keyOf),
    );
    await beacon.listen();
    return new BridgeBeacon(beacon, nodes);
  }

  /** Where UDP is spoken. */
  get at(): { readonly address: string; readonly port: number } {
    const { address, port } = this.beacon.address;
    return { address, port };
  }

  get url(): URL {
    return this.beacon.wssUrl!;
  }

  get stats(): BridgeStats & { readonly packets: PacketStats } {
    return this.beacon.stats().bridge!;
  }

  /** Sum of a count over the workers and the bridge. */
  count(value: (stats: PacketStats) => number): number {
    const { workers, bridge } = this.beacon.stats();
    return [...workers, bridge!.packets].reduce((all, stats) => all + value(stats), 0);
  }

  async bridged(
    nodeId: number,
    options: UpgradeOptions & { readonly form?: ReplyForm } = {},
  ): Promise<BridgedNode> {
    const node = await BridgedNode.connect(this.url, this.nodes.identity(nodeId), options);
    this.#connections.push(node.connection);
    return node;
  }

  /** A connection that has proven nothing yet. */
  async open(options: UpgradeOptions = {}): Promise<WebSocketClient> {
    const connection = await WebSocketClient.open(this.url, options);
    this.#connections.push(connection);
    return connection;
  }

  async client(host = this.at.address): Promise<Client> {
    const client = await Client.open(host, { address: host, port: this.at.port });
    this.#sockets.push(client);
    return client;
  }

  /** A node that registers by UDP. */
  async udp(nodeId: number): Promise<Client> {
    const client = await this.client();
    await client.discover(nodeId);
    return client;
  }

  burst(receiveMerged = false): BurstSocket {
    const socket = new BurstSocket(this.at.address, this.at, receiveMerged);
    this.#sockets.push(socket);
    return socket;
  }

  /** Waits until so many nodes are connected. */
  async untilPeers(count: number): Promise<void> {
    await untilEqual("nodes connected", () => this.stats.peers, count);
  }

  /** Ends everybody but the beacon; returns when it has seen that. */
  async leave(): Promise<void> {
    this.#endOthers();
    await untilEqual("connections", () => this.stats.connections, 0);
  }

  async close(): Promise<void> {
    this.#endOthers();
    await this.beacon.close();
  }

  #endOthers(): void {
    for (const connection of this.#connections.splice(0)) connection.destroy();
    for (const socket of this.#sockets.splice(0)) socket.close();
  }
}

interface BridgeBeaconExtras {
  readonly log?: Logger;
  readonly keyOf?: KeyFunction | null;
  readonly nodes?: KnownNodes;
}

/** The next frame of a handshake. @throws Error if it is no text */
export async function textOf(connection: WebSocketClient): Promise<string> {
  const { opcode, payload } = await connection.next();
  if (opcode !== TEXT) throw new Error(`a frame of type ${opcode}`);
  return payload.toString();
}
