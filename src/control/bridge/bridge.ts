/**
 * The WebSocket bridge: nodes whose network blocks UDP reach the beacon over one long-lived
 * connection, and send and get beacon messages as frames on it.
 *
 * A node that has proven its id is marked in the node table. Workers hand packets for it over in
 * their mailboxes (`mail`), and what it sends itself is handled here by the code that handles
 * datagrams (src/data/frames.ts).
 */
import type { Logger } from "pino";
import * as v from "valibot";
import { type Family, socketAddressOf } from "../../../ffi/endpoint.ts";
import { kernel } from "../../../ffi/libc.ts";
import type { ListeningSocket } from "../../../ffi/listening-socket.ts";
import { FrameHandler } from "../../data/frames.ts";
import { dropOffset, RELAY_DROPPED_AT } from "../../shared/counters.ts";
import type { Mail } from "../../shared/mailbox.ts";
import { CLOCK_S, FRAMES, type SharedMemory } from "../../shared/memory.ts";
import { CONTENDED, LOCK_RETRY_MS, NODE_LIMIT } from "../../shared/nodes.ts";
import type { NodeTableOwner } from "../../shared/nodes-owner.ts";
import { type KeySource, KeySourceError } from "../keys/keys.ts";
import type { Guard } from "../kit/guard.ts";
import { counts, number, type StatsOf } from "../kit/schema.ts";
import { ThrottledLog } from "../kit/throttled-log.ts";
import type { MailTaker } from "../workers/mail-reader.ts";
import type { BridgeSocket, Connection } from "./connection.ts";
import { Door, type DoorOptions } from "./door.ts";
import {
  AUTH_OK,
  Challenge,
  HANDSHAKE_REFUSALS,
  NONCE_MS,
  REPLY_BYTES_MAX,
  REPLY_MS,
} from "./handshake.ts";
import { Outbox } from "./outbox.ts";
import { BridgeServer, type Refusal, type ServerOptions } from "./server.ts";

/** A node that says nothing for so long, not even that it got a ping, is gone. */
const IDLE_MS_MAX = 90_000;
/** A silent node is pinged so often: two pings may get lost. */
const PING_MS = 30_000;
/** How long the other end may take to close a connection that was closed here. */
const CLOSING_MS_MAX = 5_000;
/** Connections that are to end one after the other do so in turns, so far apart. */
const TURN_MS = 50;
/** Frames taken from a worker's mailbox before others have their turn. */
const MAIL_TURN_MAX = 512;

/** Close codes (RFC 6455, 7.4.1). */
const CLOSE_NORMAL = 1000;
const CLOSE_GOING_AWAY = 1001;
const CLOSE_POLICY = 1008;
const CLOSE_SERVICE_RESTART = 1012;
const CLOSE_TRY_AGAIN_LATER = 1013;

/** Outcomes of a handshake: success, refusal, client gone, no key, no room, switched off. */
const AUTH_OUTCOMES = [
  "ok",
  ...HANDSHAKE_REFUSALS,
  "left",
  "key_source",
  "no_room",
  "switched_off",
] as const;
type AuthOutcome = (typeof AUTH_OUTCOMES)[number];

export const bridgeStats = {
  /** Whether it can be connected to. */
  listening: v.boolean(),
  /** Nodes connected. */
  peers: number,
  /** Connections, with those whose node has not proven its id yet. */
  connections: number,
  upgrades: counts,
  /** Upgrades that limits would have refused, in shadow. */
  upgradesShadowed: number,
  auth: counts,
  /** Beacon messages from nodes and to them. */
  frames: v.object({ in: number, out: number }),
  dropped: counts,
  idleDisconnects: number,
  /** Connections ended because more waited for all nodes than may, and some of it for theirs. */
  slowDisconnects: number,
  /** Bytes that wait for nodes to read them. */
  bufferedBytes: number,
};
export type BridgeStats = StatsOf<typeof bridgeStats>;

/** What the bridge is made of. */
export interface BridgeParts {
  readonly memory: SharedMemory;
  readonly nodes: NodeTableOwner;
  /** One of the public port's, from which frames to UDP nodes and peers leave. */
  readonly fd: number;
  readonly family: Family;
  readonly beaconId: number;
  readonly offload: boolean;
  /** The source of the nodes' public keys. */
  readonly keys: () => KeySource;
  readonly log: Logger;
  readonly guard: Pick<Guard, "report">;
}

/** What can change while it runs. */
export interface BridgeOptions extends ServerOptions, DoorOptions {}

export class Bridge {
  /** Takes packets that workers have for nodes of the bridge. */
  readonly mail: MailTaker = {
    kind: FRAMES,
    turnMax: MAIL_TURN_MAX,
    receive: (mail) => this.#receive(mail),
    turnDone: () => this.#outbox.flush(),
  };
  /** Once `start` was called. */
  #server: BridgeServer | undefined;
  readonly #door: Door;
  readonly #connections = new Set<Connection>();
  /** Open ones, by node id, signed. */
  readonly #nodes = new Map<number, Connection>();
  /** Nodes that left and whose mark in the table could not be taken away yet. */
  readonly #leaving = new Set<number>();
  readonly #outbox: Outbox;
  readonly #frames: FrameHandler;
  #flushing = false;
  #isOff = false;
  #options: BridgeOptions;
  readonly #auth = Object.fromEntries(AUTH_OUTCOMES.map((outcome) => [outcome, 0]));
  #framesIn = 0;
  /** Frames for nodes that had just left, and frames of nodes that are text. */
  #dropped = { gone: 0, text: 0 };
  #idleDisconnects = 0;
  readonly #complaints: ThrottledLog;

  constructor(
    private readonly parts: BridgeParts,
    options: BridgeOptions,
  ) {
    const { memory, nodes } = parts;
    this.#complaints = new ThrottledLog(parts.log);
    this.#options = options;
    this.#door = new Door(options);
    this.#outbox = new Outbox(memory);
    this.#frames = new FrameHandler(kernel, memory, nodes, parts, {
      put: (label, packets, from, bytes) =>
        this.#put(label[0]!, new Uint8Array(packets.buffer, packets.byteOffset + from, bytes)),
      flush: () => this.#outbox.flush(),
    });
  }

  /**
   * Accepts connections.
   * @param socket where nodes connect
   * @param host as configured; "" is every address
   */
  start(socket: ListeningSocket, host: string): void {
    const { log } = this.parts;
    const refusal = (connection: Connection) => this.#refusal(connection);
    this.#server = new BridgeServer(socket, host, this.#options, log, refusal, {
      open: (opened) => this.#open(opened),
      message: ({ data }, message) => this.#message(data, message),
      pong: ({ data }) => this.#heard(data),
      drain: ({ data }) => this.#outbox.update(data),
      close: ({ data }) => this.#gone(data),
    });
  }

  get isListening(): boolean {
    return this.#server?.isListening ?? false;
  }

  /** Undefined before `start`. */
  get url(): URL | undefined {
    return this.#server?.url;
  }

  /** Goes on with other options; connections stay. */
  reconfigure(options: BridgeOptions): void {
    this.#options = options;
    this.#door.configure(options);
    this.#server?.reconfigure(options);
  }

  /** Whether an operator switched it off. */
  get isOff(): boolean {
    return this.#isOff;
  }

  /** Off: connections end, and no other one is let in until it is on again. */
  switch(on: boolean): void {
    this.#isOff = !on;
    if (on) return;
    this.#flush();
    for (const connection of this.#connections) {
      if (isUnproven(connection)) this.#auth["switched_off"]!++;
      this.#close(connection, CLOSE_TRY_AGAIN_LATER, "switched off");
    }
  }

  /** Ends a node's connection; it may come again. @returns whether there was one */
  disconnect(nodeId: number): boolean {
    const connection = this.#nodes.get(nodeId | 0);
    if (connection === undefined) return false;
    this.#flush(); // what it has said counts
    this.#close(connection, CLOSE_TRY_AGAIN_LATER, "disconnected");
    return true;
  }

  /** Gives up its port until `resume`, so that another process may have it; connections stay. */
  suspend(): void {
    this.#server?.suspend();
  }

  resume(): void {
    this.#server?.resume();
  }

  /**
   * Sends its nodes away, to come back at once to whoever listens then: not all of them together,
   * but spread over some time.
   * @param signal ends it before
   */
  async sendAway(forMs: number, signal: AbortSignal): Promise<void> {
    this.#flush();
    const startMs = performance.now();
    const count = this.#connections.size;
    let closed = 0;
    for (const connection of [...this.#connections]) {
      while (!signal.aborted && closed > (count * (performance.now() - startMs)) / forMs)
        await Bun.sleep(TURN_MS);
      if (signal.aborted) return;
      this.#close(connection, CLOSE_SERVICE_RESTART, "service restart");
      closed++;
    }
  }

  /** Lets no more nodes in. */
  drain(): void {
    if (this.#server) this.#server.isClosing = true;
  }

  /** Closes all connections, and the server. */
  async stop(): Promise<void> {
    this.drain();
    this.#flush();
    for (const connection of this.#connections) {
      this.#close(connection, CLOSE_GOING_AWAY, "going away");
    }
    // The close frames are written by now, or wait behind what their nodes do not read.
    await this.#server?.stop();
  }

  /**
   * To be called about every second: pings silent nodes, and ends connections that are late or
   * gone.
   * @param filesAreShort whether there are too few for more connections
   */
  tick(filesAreShort: boolean): void {
    const nowMs = performance.now();
    this.#server?.tick(filesAreShort);
    for (const connection of this.#connections) this.#check(connection, nowMs);
    for (const nodeId of this.#leaving) this.#leave(nodeId);
  }

  stats(): BridgeStats {
    const { memory } = this.parts;
    const count = (row: number, column: number) => memory.counters[row + column]!;
    const bridgeFull = dropOffset("bridge_full");
    let mailboxFull = 0;
    for (let worker = 0; worker < memory.shape.workers; worker++) {
      mailboxFull += count(memory.counterRow(worker), RELAY_DROPPED_AT + bridgeFull);
    }
    return {
      listening: this.isListening,
      peers: this.#nodes.size,
      connections: this.#connections.size,
      upgrades: this.#server?.upgrades ?? {},
      upgradesShadowed: this.#door.shadowed,
      auth: { ...this.#auth },
      frames: { in: this.#framesIn, out: this.#outbox.sent },
      dropped: {
        gone: this.#dropped.gone + this.#outbox.gone,
        text: this.#dropped.text,
        slow_reader: this.#outbox.dropped,
        mailbox_full: mailboxFull,
        forged_sender: count(memory.bridgeRow, RELAY_DROPPED_AT + dropOffset("forged_sender")),
      },
      idleDisconnects: this.#idleDisconnects,
      slowDisconnects: this.#outbox.disconnects,
      bufferedBytes: this.#outbox.bufferedBytes,
    };
  }

  // Connections.

  /** Why a connection is not let in, or undefined if it is. */
  #refusal(connection: Connection): Refusal | undefined {
    if (this.#isOff) return "switched_off";
    if (this.#door.isLimited(connection)) {
      const { address } = socketAddressOf(connection.endpoint, 0);
      this.#complain(
        "limited",
        `${address} connects or fails too often and has to wait; if it is a proxy, see --wss-trusted-proxy`,
      );
      return "limited";
    }
    if (this.#connections.size >= this.#options.maxPeers)
      return this.#makesRoom() ? undefined : "full";
    if (this.#door.isCrowded) return this.#makesRoom() ? undefined : "crowded";
    return undefined;
  }

  /** Ends a connection that has owed its reply for too long, if there is one. */
  #makesRoom(): boolean {
    const overdue = this.#door.overdue(performance.now());
    if (overdue === undefined) return false;
    if (overdue.state === "challenged") this.#end(overdue, "late");
    overdue.socket.terminate(); // it is gone when this returns
    return true;
  }

  #open(socket: BridgeSocket): void {
    const connection = socket.data;
    connection.socket = socket;
    connection.openedMs = connection.heardMs = connection.pingedMs = performance.now();
    this.#connections.add(connection);
    this.#door.opened(connection);
    connection.challenge = new Challenge(connection.openedMs, Math.floor(Date.now() / 1000));
    socket.sendText(connection.challenge.text);
  }

  #message(connection: Connection, message: string | Buffer): void {
    this.#heard(connection);
    switch (connection.state) {
      case "open":
        if (typeof message !== "string") this.#frame(connection, message);
        else if (isReply(message)) this.#end(connection, "used");
        else this.#dropped.text++;
        return;
      case "challenged":
        if (typeof message === "string") void this.#verify(connection, message);
        else this.#end(connection, "malformed");
        return;
      case "verifying":
        this.#end(connection, "used");
        return;
      case "closing":
    }
  }

  async #verify(connection: Connection, reply: string): Promise<void> {
    connection.state = "verifying";
    this.#door.replied(connection);
    const keys = this.parts.keys();
    try {
      const proof = await connection.challenge!.verify(
        reply,
        (nodeId) => keys.keyOf(nodeId),
        () => performance.now(),
      );
      connection.challenge = undefined;
      if (connection.state !== "verifying") return; // it left, or said more than it should
      if (proof.refusal) this.#end(connection, proof.refusal);
      else this.#admit(connection, proof.nodeId | 0);
    } catch (error) {
      if (connection.state !== "verifying") return; // nobody waits for it
      // One node's handshake must not end the beacon.
      if (error instanceof KeySourceError)
        this.#complain(
          "key_source",
          `nodes cannot be let in, as their keys cannot be had: ${error.message}`,
        );
      else this.parts.guard.report("a node's handshake", error);
      this.#end(connection, "key_source");
    }
  }

  #admit(connection: Connection, nodeId: number): void {
    const { memory, nodes } = this.parts;
    this.#flush(); // what came before belongs to the node's connection of before
    const before = this.#nodes.get(nodeId);
    const result = nodes.bridge(nodeId, memory.words[CLOCK_S]!);
    if (result === CONTENDED) {
      // The check of late handshakes ends the retries.
      setTimeout(
        () => connection.state === "verifying" && this.#admit(connection, nodeId),
        LOCK_RETRY_MS,
      );
      return;
    }
    if (result >= NODE_LIMIT) {
      this.#complain("no_room", "nodes cannot be let in: the node table is full; see --max-nodes");
      this.#end(connection, "no_room");
      return;
    }
    this.#leaving.delete(nodeId);
    this.#nodes.set(nodeId, connection);
    connection.nodeId = nodeId;
    connection.state = "open";
    this.#door.proven(connection);
    if (before) this.#close(before, CLOSE_NORMAL, "replaced");
    this.#auth["ok"]!++;
    connection.socket.sendText(AUTH_OK);
  }

  /** Ends a handshake that failed, or a connection that begins another one. */
  #end(connection: Connection, outcome: AuthOutcome): void {
    this.#auth[outcome]!++;
    if (outcome === "key_source" || outcome === "no_room") {
      this.#close(connection, CLOSE_TRY_AGAIN_LATER, "try again later");
    } else {
      this.#door.failed(connection);
      this.#close(connection, CLOSE_POLICY, "auth failed");
    }
  }

  #heard(connection: Connection): void {
    connection.heardMs = performance.now();
  }

  /** From now on nothing that comes from it counts, and nothing is sent to it. */
  #close(connection: Connection, code: number, reason: string): void {
    this.#leaveAs(connection);
    if (connection.state === "closing") return;
    connection.state = "closing";
    connection.closingMs = performance.now();
    this.#door.dismissed(connection);
    connection.socket.close(code, reason);
  }

  /** Its socket is closed. */
  #gone(connection: Connection): void {
    if (isUnproven(connection)) {
      this.#auth["left"]!++;
      this.#door.failed(connection);
    }
    this.#door.gone(connection);
    this.#leaveAs(connection);
    connection.state = "closing";
    connection.isGone = true;
    this.#connections.delete(connection);
    this.#outbox.update(connection);
  }

  /** If it is its node's connection, it is not any more. */
  #leaveAs(connection: Connection): void {
    const { nodeId } = connection;
    if (this.#nodes.get(nodeId) !== connection) return;
    this.#nodes.delete(nodeId);
    this.#leave(nodeId);
  }

  #leave(nodeId: number): void {
    if (this.parts.nodes.unbridge(nodeId)) this.#leaving.delete(nodeId);
    else this.#leaving.add(nodeId);
  }

  #check(connection: Connection, nowMs: number): void {
    switch (connection.state) {
      case "challenged":
        if (nowMs - connection.openedMs > REPLY_MS) this.#end(connection, "late");
        return;
      case "verifying":
        if (nowMs - connection.openedMs > NONCE_MS) this.#end(connection, "late");
        return;
      case "open":
        if (nowMs - connection.heardMs > IDLE_MS_MAX) {
          this.#idleDisconnects++;
          this.#close(connection, CLOSE_GOING_AWAY, "idle");
        } else if (nowMs - Math.max(connection.heardMs, connection.pingedMs) > PING_MS) {
          connection.pingedMs = nowMs;
          connection.socket.ping();
        }
        return;
      case "closing":
        if (nowMs - connection.closingMs > CLOSING_MS_MAX) connection.socket.terminate();
    }
  }

  // Frames.

  #frame(connection: Connection, frame: Uint8Array): void {
    this.#framesIn++;
    this.#frames.handle(connection.nodeId, connection.endpoint, frame);
    if (this.#flushing) return;
    this.#flushing = true;
    setImmediate(() => this.#flush()); // once all that has arrived is read
  }

  #flush(): void {
    this.#flushing = false;
    this.#frames.flush();
  }

  #receive({ at, bytes, labelAt }: Mail): void {
    const { memory } = this.parts;
    this.#put(memory.words[labelAt]!, memory.bytes.subarray(at, at + bytes));
  }

  /** @returns true: it was taken, or counted as dropped */
  #put(nodeId: number, frame: Uint8Array): boolean {
    const connection = this.#nodes.get(nodeId);
    if (connection) this.#outbox.put(connection, frame);
    else this.#dropped.gone++;
    return true;
  }

  #complain(of: AuthOutcome | Refusal, message: string): void {
    this.#complaints.warn(of, message);
  }
}

/** Whether its handshake goes on. */
function isUnproven({ state }: Connection): boolean {
  return state === "challenged" || state === "verifying";
}

/** Whether a text is another reply to the challenge; other texts mean nothing. */
function isReply(message: string): boolean {
  return message.length <= REPLY_BYTES_MAX && message.includes('"auth_reply"');
}
