/**
 * A fleet of nodes on WebSockets, in a process of its own so that its load runs beside another. It
 * is told what to do in messages (Command), one after the other, and answers each with a Result.
 *
 * Frames are made once and counted by their bytes: what is measured is the server.
 */

import { RELAY, RELAY_BYTES, RELAY_DELIVER_BYTES } from "../../src/protocol.ts";
import { NodeIdentity } from "../../test/support/pilot-node.ts";
import { BINARY, clientFrame, TEXT } from "../../test/support/websocket.ts";
import { LoadGenerator } from "../harness/load.ts";
import { obey } from "../rig/remote.ts";

/** First id of the nodes here, above those of a LoadGenerator. */
export const FIRST_ID = 1_000_000;
/** The one key of all nodes here. */
export const IDENTITY = NodeIdentity.create(0, new Uint8Array(32).fill(7));

/**
 * echo: every frame comes back to where it came from. pairs: node i relays to its neighbour. toUdp:
 * to nodes on a UDP socket. fromUdp: from a UDP socket to the nodes here.
 */
export type Way = "echo" | "pairs" | "toUdp" | "fromUdp";

export type Command =
  | {
      readonly do: "connect";
      readonly url: string;
      readonly count: number;
      readonly proves: boolean;
    }
  | {
      readonly do: "prepare";
      readonly way: Way;
      readonly payloadBytes: number;
      readonly port: number;
    }
  | { readonly do: "run"; readonly ms: number };

export interface Result {
  /** Frames, or packets, that went through the server. */
  readonly received: number;
  readonly lost: number;
  readonly elapsedMs: number;
}

/** Connections that are being opened at once. */
const OPENING_MAX = 200;
/** Frames on their way. */
const IN_FLIGHT_MAX = 1536;
/** Frames written at a time, as a node's burst. */
const BURST = 8;
const LOST_AFTER_MS = 500;
const SINK_NODES = 64;

class Node {
  /** What arrived, in bytes, once it is let in. */
  receivedBytes = 0;
  readonly opened: Promise<void>;
  #head = "";
  #isOpen = false;
  #socket!: Bun.Socket;
  /** What the kernel did not take of the last write. */
  #rest: Uint8Array | undefined;
  readonly #open: () => void;

  constructor(
    readonly id: number,
    private readonly proves: boolean,
  ) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.opened = promise;
    this.#open = resolve;
  }

  async connect(url: URL): Promise<void> {
    this.#socket = await Bun.connect({
      hostname: url.hostname,
      port: Number(url.port),
      socket: {
        data: (_, chunk) => this.#data(chunk),
        drain: () => this.#drain(),
        close: () => {
          throw new Error(`the server closed the connection of node ${this.id}: ${this.#head}`);
        },
      },
    });
    this.#socket.write(
      `GET ${url.pathname} HTTP/1.1\r\nHost: ${url.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n" +
        "Sec-WebSocket-Protocol: pilot.v1\r\n\r\n",
    );
    await this.opened;
  }

  /** @returns false if the last write is still on its way */
  write(bytes: Uint8Array): boolean {
    if (this.#rest) return false;
    const taken = this.#socket.write(bytes);
    if (taken < bytes.length) this.#rest = bytes.subarray(Math.max(0, taken));
    return true;
  }

  #drain(): void {
    const rest = this.#rest;
    this.#rest = undefined;
    if (rest) this.write(rest);
  }

  #data(chunk: Uint8Array): void {
    if (this.#isOpen) {
      this.receivedBytes += chunk.length;
      return;
    }
    const before = this.#head;
    this.#head += new TextDecoder("latin1").decode(chunk);
    const challenge = /\{"type":"auth_challenge"[^}]*\}/;
    const text = challenge.exec(this.#head)?.[0];
    if (this.proves && text !== undefined && !challenge.test(before)) {
      this.#socket.write(clientFrame(TEXT, Buffer.from(IDENTITY.as(this.id).reply(text))));
    }
    if (this.#head.includes(this.proves ? '{"type":"auth_ok"}' : "\r\n\r\n")) {
      this.#isOpen = true;
      this.#open();
    }
  }
}

class Fleet {
  readonly #nodes: Node[] = [];
  #way: Way = "echo";
  #bursts: readonly Uint8Array[] = [];
  #frameBytes = 0;
  #generator: LoadGenerator | undefined;
  #next = 0;

  async connect(url: URL, count: number, proves: boolean): Promise<void> {
    for (let done = 0; done < count; done += OPENING_MAX) {
      const opening = Array.from(
        { length: Math.min(OPENING_MAX, count - done) },
        (_, i) => new Node(FIRST_ID + done + i, proves),
      );
      await Promise.all(opening.map((node) => node.connect(url)));
      this.#nodes.push(...opening);
    }
  }

  prepare(way: Way, payloadBytes: number, port: number): void {
    this.#way = way;
    this.#generator?.close();
    this.#generator = undefined;
    const nodes = this.#nodes.length;
    if (way === "toUdp" || way === "fromUdp") {
      this.#generator = new LoadGenerator({
        payloadBytes,
        burst: BURST,
        ...(way === "toUdp" ? { nodes: SINK_NODES } : { nodes, firstId: FIRST_ID }),
      });
      this.#generator.aim({ host: "127.0.0.1", port });
      if (way === "toUdp") this.#generator.register();
    }
    this.#bursts = this.#nodes.map(({ id }, i) => {
      const packet = Buffer.alloc(RELAY_BYTES + payloadBytes);
      packet[0] = RELAY;
      packet.writeUInt32BE(id, 1);
      packet.writeUInt32BE(way === "pairs" ? FIRST_ID + (i ^ 1) : 1 + (i % SINK_NODES), 5);
      return Buffer.concat(Array.from({ length: BURST }, () => clientFrame(BINARY, packet)));
    });
    const deliveredBytes = payloadBytes + (way === "echo" ? RELAY_BYTES : RELAY_DELIVER_BYTES);
    this.#frameBytes = deliveredBytes + (deliveredBytes < 126 ? 2 : 4);
  }

  /** Loads the server for so long, and then until all is through or lost. */
  async run(ms: number): Promise<Result> {
    const start = performance.now();
    const receivedBefore = this.#received();
    let sent = 0;
    let received = 0;
    let progressMs = start;
    let nowMs = start;
    while (nowMs - start < ms || received < sent) {
      while (nowMs - start < ms && sent - received + BURST <= IN_FLIGHT_MAX) {
        const offered = this.#offer();
        if (offered === 0) break;
        sent += offered;
      }
      await new Promise(setImmediate);
      const before = received;
      received = this.#received() - receivedBefore;
      nowMs = performance.now();
      if (received > before) progressMs = nowMs;
      else if (nowMs - progressMs > LOST_AFTER_MS) break;
    }
    return { received, lost: sent - received, elapsedMs: nowMs - start };
  }

  #offer(): number {
    if (this.#way === "fromUdp") return this.#generator!.offer();
    const i = this.#next;
    this.#next = (i + 1) % this.#nodes.length;
    return this.#nodes[i]!.write(this.#bursts[i]!) ? BURST : 0;
  }

  #sunk = 0;

  #received(): number {
    if (this.#way === "toUdp") {
      this.#sunk += this.#generator!.drain();
      return this.#sunk;
    }
    return this.#nodes.reduce((sum, node) => sum + node.receivedBytes, 0) / this.#frameBytes;
  }
}

const NOTHING: Result = { received: 0, lost: 0, elapsedMs: 0 };

if (process.send) {
  const fleet = new Fleet();
  obey<Command>(async (command): Promise<Result> => {
    if (command.do === "connect")
      await fleet.connect(new URL(command.url), command.count, command.proves);
    else if (command.do === "prepare")
      fleet.prepare(command.way, command.payloadBytes, command.port);
    else return fleet.run(command.ms);
    return NOTHING;
  });
}
