/**
 * The self-check: whether a Relay to a node of this beacon arrives through its peers.
 *
 * The beacon has an own node, with a socket of its own, and gossip announces it to the peers. Once
 * a round the own node sends a Relay to itself through each peer, with a random nonce. The peer
 * passes the Relay to this beacon, and a worker delivers it. So the round trip covers the path of a
 * node's packet: gossip, routes, networks and the workers of both beacons.
 *
 * A check that is not back within the round is lost. A check that comes back from another source
 * than this beacon's port shows that another beacon claims the node. A peer that has not been seen
 * for two rounds may not know the node yet and is not checked.
 *
 * Any host can send to the own node's socket, at the cost of the main thread. After UNEXPECTED_MAX
 * datagrams that are no answer, the socket is closed; the next round opens it on another port.
 */
import { randomBytes, randomInt } from "node:crypto";
import { ENDPOINT_WORDS, endpointOf, socketAddressOf } from "../../../ffi/endpoint.ts";
import { isWildcard } from "../../config/units.ts";
import {
  FIRST_ID_AT,
  RELAY,
  RELAY_BYTES,
  RELAY_DELIVER,
  RELAY_DELIVER_BYTES,
  SECOND_ID_AT,
} from "../../protocol.ts";
import { CLOCK_S } from "../../shared/memory.ts";
import { ADDED, CONTENDED, NODE_LIMIT } from "../../shared/nodes.ts";
import { IS_SELF } from "../../shared/slots.ts";
import { addressText, withoutZone } from "../kit/addresses.ts";
import type { MeshContext } from "./context.ts";
import type { Peer } from "./peers.ts";
import type { PeerCheck } from "./stats.ts";

/** 128 bits cannot be guessed. */
const NONCE_BYTES = 16;
/** The own node's id is in the upper half: ids that are assigned in sequence hardly reach it. */
const OWN_ID_MIN = 2 ** 31;
const OWN_ID_END = 2 ** 32 - 1;
/** Gossip rounds until a peer knows the own node: it may miss one. */
const ROUNDS_TO_KNOW = 2;
/** Maximum number of datagrams a round that are no answer: some milliseconds of work. */
const UNEXPECTED_MAX = 1000;
/** Losses in a row that cause a warning: networks lose single packets. */
const LOSSES_TO_WARN = 3;

export type CheckedPeer = Readonly<Pick<Peer, "address" | "endpoint" | "seenSinceMs">>;

/** The path through a peer. */
interface Path {
  sent: number;
  lost: number;
  lostInARow: number;
  disagreed: number;
  lastRttMs: number | null;
  /** The check under way: its nonce in hex, and the time of sending. */
  pending: { readonly nonce: string; readonly sentMs: number } | undefined;
}

type SelfCheckDeps = Pick<MeshContext, "memory" | "nodes" | "address" | "warn">;
type OwnSocket = Bun.udp.Socket<"buffer">;

export class SelfCheck {
  readonly #paths = new Map<string, Path>(); // by the peer's address
  /** Source address of deliveries: this beacon, as the own node sees it. */
  readonly #deliverer: string;
  /** 0 without an own node. */
  #ownId = 0;
  #enteredMs = 0;
  #socket: OwnSocket | undefined;
  /** The own node's endpoint in the table. */
  #endpoint: Int32Array = new Int32Array(ENDPOINT_WORDS);
  readonly #found = new Int32Array(ENDPOINT_WORDS);
  #unexpected = 0;

  constructor(private readonly deps: SelfCheckDeps) {
    const { port } = deps.address;
    this.#deliverer = addressText(endpointOf(this.#ownHost, port));
  }

  /**
   * Ends the round and starts another one: counts missing checks as lost, and checks each peer.
   * Without peers, removes the own node.
   * @param roundMs length of the round
   */
  async round(peers: readonly CheckedPeer[], roundMs: number): Promise<void> {
    this.#settle(roundMs);
    this.#unexpected = 0;
    const addresses = new Set(peers.map(({ address }) => address));
    for (const address of this.#paths.keys())
      if (!addresses.has(address)) this.#paths.delete(address);
    if (peers.length === 0) this.leave();
    else if (!(await this.#enter())) return;
    const nowMs = performance.now();
    for (const peer of peers) {
      const sinceMs = Math.max(peer.seenSinceMs ?? Infinity, this.#enteredMs);
      if (nowMs - sinceMs >= ROUNDS_TO_KNOW * roundMs) this.#ask(peer);
    }
  }

  /** Keeps the own node in the table. Runs about once a second. */
  tick(): void {
    if (this.#ownId !== 0) this.#record();
  }

  /** Removes the own node. Must not be called during a round. */
  leave(): void {
    if (this.ownNodes > 0) this.deps.nodes.remove(this.#ownId);
    this.#ownId = 0;
    this.#close();
  }

  /** Returns the results of a peer; null if it was not checked. */
  statsOf(address: string): PeerCheck | null {
    const path = this.#paths.get(address);
    if (path === undefined || path.sent === 0) return null;
    const { sent, lost, disagreed, lastRttMs } = path;
    return { sent, lost, disagreed, lastRttMs };
  }

  /** Number of own nodes in the table: 0 or 1. */
  get ownNodes(): number {
    return this.#ownId !== 0 && this.#slot() === "own" ? 1 : 0;
  }

  /** Warnings, a phrase a peer. */
  get remarks(): readonly string[] {
    return Array.from(this.#paths).flatMap(([address, { lostInARow }]) =>
      lostInARow < LOSSES_TO_WARN
        ? []
        : [`peer ${address}: self-check lost ${lostInARow} in a row`],
    );
  }

  // The own node.

  /** The address of this host that workers and the own node reach each other at. */
  get #ownHost(): string {
    const { address } = this.deps.address;
    return isWildcard(address) ? "127.0.0.1" : withoutZone(address);
  }

  /** @returns whether the own node is in the table */
  async #enter(): Promise<boolean> {
    try {
      this.#socket ??= await this.#open();
    } catch (error) {
      const { code = "failed" } = error as { code?: string };
      const message = `no self-check: cannot open its socket (${code}); the next round retries`;
      this.deps.warn("self_check_failed", { code }, message);
      return false;
    }
    return this.#record();
  }

  #open(): Promise<OwnSocket> {
    return Bun.udpSocket({
      hostname: withoutZone(this.deps.address.address),
      port: 0,
      binaryType: "buffer",
      socket: {
        data: (socket, bytes, port, address) => {
          if (socket === this.#socket) this.#receive(bytes, address, port);
        },
        error: () => {}, // ICMP: no beacon listens at a peer's port; the check counts as lost
      },
    });
  }

  /** Adds or refreshes the own node. @returns false, logged, if there is no room or lock */
  #record(): boolean {
    const { memory, nodes } = this.deps;
    if (this.#ownId === 0 || this.#slot() === "taken") this.#ownId = this.#freeId();
    if (this.#socket !== undefined) this.#endpoint = endpointOf(this.#ownHost, this.#socket.port);
    const result = nodes.record(this.#ownId, this.#endpoint, 0, IS_SELF, memory.words[CLOCK_S]!);
    if (result === ADDED) this.#enteredMs = performance.now();
    if (result < NODE_LIMIT) return true;
    if (result === CONTENDED) return false; // the next tick retries
    this.deps.warn(
      "self_check_failed",
      {},
      "no self-check: the node table has no room for one more node; raise --max-nodes",
    );
    return false;
  }

  /** Whether the own node's id is in the table, and whether another node claims it. */
  #slot(): "own" | "absent" | "taken" {
    const { nodes } = this.deps;
    const slot = nodes.find(this.#ownId);
    if (slot < 0 || nodes.slots.read(slot, this.#ownId, this.#found, 0) < 0) return "absent";
    const isOwn =
      (this.#found[0]! & IS_SELF) !== 0 && addressText(this.#found) === addressText(this.#endpoint);
    return isOwn ? "own" : "taken";
  }

  #freeId(): number {
    for (;;) {
      const id = randomInt(OWN_ID_MIN, OWN_ID_END);
      if (this.deps.nodes.find(id) < 0) return id;
    }
  }

  #close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  // Checks.

  /** Counts missing checks as lost, except in a round that ends early. */
  #settle(roundMs: number): void {
    const nowMs = performance.now();
    for (const path of this.#paths.values()) {
      if (path.pending === undefined || nowMs - path.pending.sentMs < roundMs / 2) continue;
      path.pending = undefined;
      path.lost++;
      path.lostInARow++;
    }
  }

  #ask({ address, endpoint }: CheckedPeer): void {
    let path = this.#paths.get(address);
    if (path === undefined) {
      path = { sent: 0, lost: 0, lostInARow: 0, disagreed: 0, lastRttMs: null, pending: undefined };
      this.#paths.set(address, path);
    }
    if (path.pending !== undefined) return;
    const nonce = randomBytes(NONCE_BYTES);
    const message = Buffer.alloc(RELAY_BYTES + NONCE_BYTES);
    message[0] = RELAY;
    message.writeUInt32BE(this.#ownId, FIRST_ID_AT);
    message.writeUInt32BE(this.#ownId, SECOND_ID_AT);
    nonce.copy(message, RELAY_BYTES);
    // Before sending: the check may be back before `send` returns.
    path.pending = { nonce: nonce.toString("hex"), sentMs: performance.now() };
    if (this.#send(message, endpoint)) path.sent++;
    else path.pending = undefined;
  }

  /** @returns false if the kernel refused it: no route, or a full buffer */
  #send(message: Uint8Array, endpoint: Int32Array): boolean {
    const { address, port } = socketAddressOf(endpoint, 0);
    // The first error may be that of an earlier packet to another peer.
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
      if (++this.#unexpected > UNEXPECTED_MAX) this.#flooded();
      return;
    }
    const [peer, path, sentMs] = found;
    const rttMs = performance.now() - sentMs;
    path.pending = undefined;
    path.lostInARow = 0;
    const source = addressText(endpointOf(withoutZone(address), port));
    if (source === this.#deliverer) {
      path.lastRttMs = rttMs;
      return;
    }
    path.disagreed++;
    this.deps.warn(
      "self_check_disagreed",
      { peer, source },
      `the self-check through ${peer} came back from ${source}, not from this beacon: another ` +
        "beacon claims its node",
    );
  }

  /** Returns the check that a datagram answers: its peer, path and time of sending. */
  #answered(bytes: Uint8Array): [peer: string, path: Path, sentMs: number] | undefined {
    if (bytes.length !== RELAY_DELIVER_BYTES + NONCE_BYTES || bytes[0] !== RELAY_DELIVER)
      return undefined;
    const nonce = Buffer.from(bytes).toString("hex", RELAY_DELIVER_BYTES);
    for (const [peer, path] of this.#paths) {
      if (path.pending?.nonce === nonce) return [peer, path, path.pending.sentMs];
    }
    return undefined;
  }

  /** Checks under way count neither as lost nor as back. */
  #flooded(): void {
    const message = "no self-check until its next round: its port is flooded";
    this.deps.warn("self_check_flooded", {}, message);
    for (const path of this.#paths.values()) path.pending = undefined;
    this.#close();
  }
}
