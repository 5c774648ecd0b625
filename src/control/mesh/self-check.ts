/**
 * A beacon's look at itself through its peers: does a Relay to one of its nodes find the way from
 * there?
 *
 * The beacon has one node of its own, on a socket of its own, of which gossip tells the peers as of
 * any other. Once a round that node sends a Relay to itself through each peer, with a random text
 * that nobody guesses. The peer passes it on to this beacon, and one of its workers delivers it. So
 * the round trip covers what a node's packet goes through: gossip, routes, networks and both
 * beacons' workers.
 *
 * What is not back within the round is lost. What comes from anywhere else than this beacon's own
 * port says that somebody else believes to have the node. A peer that cannot know the node yet, as
 * it was not heard for two rounds, is not asked.
 *
 * The node's socket is as open as the beacon's port, and what comes there costs the main thread:
 * after so many datagrams that are no answer it is closed, and opened on another port in the next
 * round.
 */
import { randomBytes, randomInt } from "node:crypto";
import {
  ENDPOINT_WORDS,
  endpointOf,
  type SocketAddress,
  socketAddressOf,
} from "../../../ffi/endpoint.ts";
import { isWildcard } from "../../config/units.ts";
import {
  FIRST_ID_AT,
  RELAY,
  RELAY_BYTES,
  RELAY_DELIVER,
  RELAY_DELIVER_BYTES,
  SECOND_ID_AT,
} from "../../protocol.ts";
import { CLOCK_S, type SharedMemory } from "../../shared/memory.ts";
import { ADDED, CONTENDED, NODE_LIMIT, type NodeTable } from "../../shared/nodes.ts";
import { IS_SELF } from "../../shared/slots.ts";
import { addressText, withoutZone } from "../kit/addresses.ts";

/** Too many to guess. */
const NONCE_BYTES = 16;
/**
 * The own node's id is in the upper half of all, as ids that are given one after the other hardly
 * get there.
 */
const OWN_ID_MIN = 2 ** 31;
const OWN_ID_END = 2 ** 32 - 1;
/** Rounds of gossip that a peer needs to know of the own node: it may have missed one. */
const ROUNDS_TO_KNOW = 2;
/**
 * Datagrams that are no answers, of one round, until the socket is closed: far more than go astray,
 * and some milliseconds of work.
 */
const STRANGE_MAX = 1000;
/** Losses in a row that are worth a word: one packet may get lost. */
const LOSSES_WORTH_A_WORD = 3;

/** A peer as the check sees it. */
export interface CheckedPeer {
  /** "ip:port" */
  readonly address: string;
  readonly endpoint: Int32Array;
  /** Since when it has been heard, on the clock of performance.now; undefined while it is not. */
  readonly heardSinceMs: number | undefined;
}

export interface PeerCheck {
  readonly sent: number;
  /** Not back within their round. */
  readonly lost: number;
  /** Back from another address than this beacon's own. */
  readonly disagreed: number;
  /** Round trip of the last one that came back as it should, in milliseconds; null if none did. */
  readonly lastRttMs: number | null;
}

/** What is known of the way through a peer. */
interface Way {
  sent: number;
  lost: number;
  lostInARow: number;
  disagreed: number;
  lastRttMs: number | null;
  /** The check that is not back: its nonce, in hex, and when it left. */
  pending: { readonly nonce: string; readonly sentMs: number } | undefined;
}

export interface SelfCheckParts {
  readonly memory: SharedMemory;
  /** The main thread's. */
  readonly nodes: NodeTable;
  /** Where the beacon listens. */
  readonly address: SocketAddress;
  /** A warning, which is not repeated too often. @param about one word of what it is about */
  complain(about: string, message: string): void;
}

type OwnSocket = Bun.udp.Socket<"buffer">;

export class SelfCheck {
  readonly #ways = new Map<string, Way>(); // by the peer's address
  /** Where deliveries come from: this beacon, as the own node is told of it. */
  readonly #deliverer: string;
  /** 0 while there is no own node. */
  #ownId = 0;
  #enteredMs = 0;
  #socket: OwnSocket | undefined;
  /** Where the own node was recorded. */
  #endpoint: Int32Array = new Int32Array(ENDPOINT_WORDS);
  readonly #found = new Int32Array(ENDPOINT_WORDS);
  #strange = 0;

  constructor(private readonly parts: SelfCheckParts) {
    const { port } = parts.address;
    this.#deliverer = addressText(endpointOf(this.#ownHost, port));
  }

  /**
   * Ends a round and begins another one: what is not back is lost, and each peer is asked anew.
   * Without peers there is no own node.
   * @param roundMs how long it is to be
   */
  async round(peers: readonly CheckedPeer[], roundMs: number): Promise<void> {
    this.#settle(roundMs);
    this.#strange = 0;
    const addresses = new Set(peers.map(({ address }) => address));
    for (const address of this.#ways.keys())
      if (!addresses.has(address)) this.#ways.delete(address);
    if (peers.length === 0) this.leave();
    else if (!(await this.#enter())) return;
    const nowMs = performance.now();
    for (const peer of peers) {
      const sinceMs = Math.max(peer.heardSinceMs ?? Infinity, this.#enteredMs);
      if (nowMs - sinceMs >= ROUNDS_TO_KNOW * roundMs) this.#ask(peer);
    }
  }

  /** To be called about every second: the own node stays in the table. */
  tick(): void {
    if (this.#ownId !== 0) this.#record();
  }

  /** Nothing is under way any more, and the own node is gone. Not to be called within a round. */
  leave(): void {
    if (this.#ownId !== 0 && this.#slot() === "own") this.parts.nodes.remove(this.#ownId);
    this.#ownId = 0;
    this.#close();
  }

  /** What was found of a peer; null if it was not asked. */
  statsOf(address: string): PeerCheck | null {
    const way = this.#ways.get(address);
    if (way === undefined || way.sent === 0) return null;
    const { sent, lost, disagreed, lastRttMs } = way;
    return { sent, lost, disagreed, lastRttMs };
  }

  /** Nodes in the table that are none: 0 or 1. */
  get ownNodes(): number {
    return this.#ownId !== 0 && this.#slot() === "own" ? 1 : 0;
  }

  /** What an operator should know, a phrase a peer. */
  get remarks(): readonly string[] {
    return Array.from(this.#ways).flatMap(([address, { lostInARow }]) =>
      lostInARow < LOSSES_WORTH_A_WORD
        ? []
        : [`peer ${address}: self-check lost ${lostInARow} in a row`],
    );
  }

  // The own node.

  /**
   * The address of this host at which a worker reaches the own node, and at which the own node sees
   * the beacon.
   */
  get #ownHost(): string {
    const { address } = this.parts.address;
    return isWildcard(address) ? "127.0.0.1" : withoutZone(address);
  }

  /** @returns whether there is an own node now */
  async #enter(): Promise<boolean> {
    if (this.#socket === undefined) {
      try {
        this.#socket = await this.#open();
      } catch (error) {
        const { code = "failed" } = error as { code?: string };
        this.parts.complain(
          "self-check",
          `no self-check, its socket cannot be had (${code}); it is tried again`,
        );
        return false;
      }
    }
    return this.#record();
  }

  #open(): Promise<OwnSocket> {
    return Bun.udpSocket({
      hostname: withoutZone(this.parts.address.address),
      port: 0,
      binaryType: "buffer",
      socket: {
        data: (socket, bytes, port, address) => {
          if (socket === this.#socket) this.#receive(bytes, address, port);
        },
        error: () => {}, // a peer's host said that nobody listens there: what is lost is counted
      },
    });
  }

  /**
   * Puts the own node into the table, or keeps it there.
   * @returns false if there is no room, which is logged, or the shard is locked
   */
  #record(): boolean {
    const { memory, nodes } = this.parts;
    if (this.#ownId === 0 || this.#slot() === "taken") this.#ownId = this.#freeId();
    if (this.#socket !== undefined) this.#endpoint = endpointOf(this.#ownHost, this.#socket.port);
    const result = nodes.record(this.#ownId, this.#endpoint, 0, IS_SELF, memory.words[CLOCK_S]!);
    if (result === ADDED) this.#enteredMs = performance.now();
    if (result < NODE_LIMIT) return true;
    if (result === CONTENDED) return false; // the next tick retries
    this.parts.complain(
      "self-check",
      "no self-check: there is no room for one more node, raise --max-nodes",
    );
    return false;
  }

  /**
   * Whether the own node's id is in the table: as the own node, not at all, or as somebody who
   * claims it.
   */
  #slot(): "own" | "absent" | "taken" {
    const { nodes } = this.parts;
    const slot = nodes.find(this.#ownId);
    if (slot < 0 || nodes.slots.read(slot, this.#ownId, this.#found, 0) < 0) return "absent";
    const isOwn =
      (this.#found[0]! & IS_SELF) !== 0 && addressText(this.#found) === addressText(this.#endpoint);
    return isOwn ? "own" : "taken";
  }

  #freeId(): number {
    for (;;) {
      const id = randomInt(OWN_ID_MIN, OWN_ID_END);
      if (this.parts.nodes.find(id) < 0) return id;
    }
  }

  #close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  // Checks.

  /** What left a round ago and is not back is lost. A round that was begun early ends nothing. */
  #settle(roundMs: number): void {
    const nowMs = performance.now();
    for (const way of this.#ways.values()) {
      if (way.pending === undefined || nowMs - way.pending.sentMs < roundMs / 2) continue;
      way.pending = undefined;
      way.lost++;
      way.lostInARow++;
    }
  }

  #ask({ address, endpoint }: CheckedPeer): void {
    let way = this.#ways.get(address);
    if (way === undefined) {
      way = { sent: 0, lost: 0, lostInARow: 0, disagreed: 0, lastRttMs: null, pending: undefined };
      this.#ways.set(address, way);
    }
    if (way.pending !== undefined) return;
    const nonce = randomBytes(NONCE_BYTES);
    const message = Buffer.alloc(RELAY_BYTES + NONCE_BYTES);
    message[0] = RELAY;
    message.writeUInt32BE(this.#ownId, FIRST_ID_AT);
    message.writeUInt32BE(this.#ownId, SECOND_ID_AT);
    nonce.copy(message, RELAY_BYTES);
    // Before it leaves, as it may be back before `send` returns.
    way.pending = { nonce: nonce.toString("hex"), sentMs: performance.now() };
    if (this.#send(message, endpoint)) way.sent++;
    else way.pending = undefined;
  }

  /** @returns false if the kernel did not take it: it knows no way to there, or is out of room */
  #send(message: Uint8Array, endpoint: Int32Array): boolean {
    const { address, port } = socketAddressOf(endpoint, 0);
    // The first failure may be of what was sent before, to somebody else.
    for (let attempt = 0; attempt < 2; attempt++) {
      try {
        return this.#socket?.send(message, port, address) ?? false;
      } catch {}
    }
    return false;
  }

  #receive(bytes: Uint8Array, address: string, port: number): void {
    const found = this.#answered(bytes);
    if (found === undefined) {
      if (++this.#strange > STRANGE_MAX) this.#flooded();
      return;
    }
    const [peer, way, sentMs] = found;
    const rttMs = performance.now() - sentMs;
    way.pending = undefined;
    way.lostInARow = 0;
    const source = addressText(endpointOf(withoutZone(address), port));
    if (source === this.#deliverer) {
      way.lastRttMs = rttMs;
      return;
    }
    way.disagreed++;
    this.parts.complain(
      "disagreement",
      `the self-check through ${peer} came back from ${source}, not from this beacon: somebody else believes to have its node`,
    );
  }

  /** Whose check a datagram is the answer to, and when that left. */
  #answered(bytes: Uint8Array): [peer: string, way: Way, sentMs: number] | undefined {
    if (bytes.length !== RELAY_DELIVER_BYTES + NONCE_BYTES || bytes[0] !== RELAY_DELIVER)
      return undefined;
    const nonce = Buffer.from(bytes).toString("hex", RELAY_DELIVER_BYTES);
    for (const [peer, way] of this.#ways) {
      if (way.pending?.nonce === nonce) return [peer, way, way.pending.sentMs];
    }
    return undefined;
  }

  /** What is under way then is neither lost nor back. */
  #flooded(): void {
    this.parts.complain(
      "self-check",
      "no self-check until its next round: too much else comes to its port",
    );
    for (const way of this.#ways.values()) way.pending = undefined;
    this.#close();
  }
}
