/**
 * Who may come to the bridge's door: limits by the client's address on upgrades and on handshakes
 * that failed, and on connections that have proven nothing. Those are the ones that a stranger can
 * have as many of as it likes; nodes that have proven their ids need the room.
 *
 * Addresses of this host are not limited: a proxy on it that nobody named in --wss-trusted-proxy
 * would be one client, and all nodes behind it would be locked out together.
 */
import { randomInt } from "node:crypto";
import { type Clock, CoarseClock } from "../../../ffi/clock.ts";
import { isLoopback } from "../../../ffi/endpoint.ts";
import { addressHash } from "../../shared/hash.ts";
import { RateLimitOwner } from "../../shared/limits.ts";
import type { Connection } from "./connection.ts";

/** Nodes behind one carrier's address may all come back at once. */
const BURST_S = 10;
/** 1 MiB a limit, as those of the workers have. */
const SOURCE_LINES = 2 ** 14;

/**
 * The part of all connections that may have proven nothing: a handshake takes a round trip or two,
 * so with 10,000 connections still thousands of nodes a second get in, and whoever opens sockets
 * and says nothing leaves three quarters to nodes.
 */
const UNPROVEN_PART = 1 / 4;
/** And of those, the part that may come from one address. */
const SOURCE_PART = 1 / 4;
/** Age in ms at which a pending handshake may be evicted: a node replies in a round trip. */
const PATIENCE_MS = 2_000;

/** What can change while it runs. */
export interface DoorOptions {
  readonly maxPeers: number;
  /** A second from one address, 0 for any number. */
  readonly upgradeLimit: number;
  readonly failureLimit: number;
  /** Limits by address count what they would refuse, and refuse nothing. */
  readonly limitsShadow: boolean;
}

export class Door {
  /** Upgrades that would have been refused by address. */
  shadowed = 0;
  /** Unproven connections, oldest first, except those whose proof is being verified. */
  readonly #waiting = new Set<Connection>();
  /** All that have proven nothing, by the hash of their address, and together. */
  readonly #unproven = new Map<number, number>();
  #unprovenCount = 0;
  readonly #upgrades = RateLimitOwner.ofThisThread(SOURCE_LINES);
  readonly #failures = RateLimitOwner.ofThisThread(SOURCE_LINES);
  readonly #secret = randomInt(2 ** 32) | 0;
  #options!: DoorOptions;

  constructor(
    options: DoorOptions,
    private readonly clock: Clock = new CoarseClock(),
  ) {
    this.configure(options);
  }

  configure(options: DoorOptions): void {
    this.#options = options;
    this.#upgrades.set(options.upgradeLimit, options.upgradeLimit * BURST_S);
    this.#failures.set(options.failureLimit, options.failureLimit * BURST_S);
  }

  /** Returns whether the address is over its limit; counts an upgrade otherwise. */
  isLimited({ endpoint }: Connection): boolean {
    if (isLoopback(endpoint, 0)) return false;
    const source = this.#sourceOf(endpoint);
    const nowNs = this.clock.nowNs();
    const isAllowed =
      (this.#unproven.get(source) ?? 0) < Math.ceil(this.#unprovenMax * SOURCE_PART) &&
      this.#failures.room(source, 1, nowNs) === 1 &&
      this.#upgrades.take(source, 1, nowNs) === 1;
    if (isAllowed) return false;
    if (!this.#options.limitsShadow) return true;
    this.shadowed++;
    return false;
  }

  /** Whether as many connections have proven nothing as may. */
  get isCrowded(): boolean {
    return this.#unprovenCount >= this.#unprovenMax;
  }

  /** The connection that has to go if another one needs its place. */
  overdue(nowMs: number): Connection | undefined {
    const [oldest] = this.#waiting;
    return oldest && nowMs - oldest.openedMs > PATIENCE_MS ? oldest : undefined;
  }

  /** A connection was opened, and has yet to prove who it is. */
  opened(connection: Connection): void {
    this.#waiting.add(connection);
    this.#count(connection, 1);
  }

  /** It has replied, and its proof is being looked at. */
  replied(connection: Connection): void {
    this.#waiting.delete(connection);
  }

  /** It has proven who it is. */
  proven(connection: Connection): void {
    this.#waiting.delete(connection);
    this.#count(connection, -1);
  }

  /** It did not do as it should. */
  failed({ endpoint }: Connection): void {
    if (!isLoopback(endpoint, 0))
      this.#failures.take(this.#sourceOf(endpoint), 1, this.clock.nowNs());
  }

  /** It has yet to go. */
  dismissed(connection: Connection): void {
    if (connection.nodeId === 0) this.#waiting.add(connection);
  }

  /** It is gone. */
  gone(connection: Connection): void {
    this.#waiting.delete(connection);
    if (connection.nodeId === 0) this.#count(connection, -1);
  }

  get #unprovenMax(): number {
    return Math.ceil(this.#options.maxPeers * UNPROVEN_PART);
  }

  #sourceOf(endpoint: Int32Array): number {
    return addressHash(endpoint, 0, this.#secret);
  }

  #count({ endpoint }: Connection, change: 1 | -1): void {
    const source = this.#sourceOf(endpoint);
    const count = (this.#unproven.get(source) ?? 0) + change;
    if (count === 0) this.#unproven.delete(source);
    else this.#unproven.set(source, count);
    this.#unprovenCount += change;
  }
}
