/**
 * Bounds on the connections of the admin API: how many there are, in all and from one address, and
 * how long the server waits for a client.
 *
 * A connection is *waiting* while the next move is the client's: to send a request, or to read the
 * rest of an answer. Where there is no room, the one that has waited longest makes some. So a
 * scraper gets in however many idle connections there are.
 */
import type { Socket } from "node:net";
import { endpointOf, isLoopback } from "../../../ffi/endpoint.ts";
import { partOfFiles } from "../kit/files-left.ts";

/** Part of the process's files that HTTP may take, and bounds on that. */
const FILES_PART = 1 / 8;
const CONNECTIONS_MIN = 8;
const CONNECTIONS_MAX = 256;
/** Part of the connections that one address may have, unless it is this host's. */
const ADDRESS_PART = 1 / 4;

/** For a whole request, from the connection or from its first byte. */
export const REQUEST_MS_MAX = 10_000;
/** Between two requests; Prometheus scrapes every 15 s by default. */
export const KEEP_ALIVE_MS = 30_000;
/** For the next part of an answer to leave. */
export const READ_MS_MAX = 30_000;

/** The event that the server waits for; "nothing" while it makes an answer. */
type WaitsFor = "request" | "next" | "reader" | "nothing";

const PATIENCE_MS = { request: REQUEST_MS_MAX, next: KEEP_ALIVE_MS, reader: READ_MS_MAX };

export interface Connection {
  readonly socket: Socket;
  /** Of the client, an IP literal. */
  readonly address: string;
  /** Answers that are owed: more than one only where requests come before the answers. */
  owed: number;
  waitsFor: WaitsFor;
  sinceMs: number;
  /** Bytes that waited for the client to read when that was last looked at. */
  unread: number;
}

export class Connections {
  readonly #all = new Set<Connection>();
  readonly #max: number;

  /**
   * @param filesMax files that the process may have open, Infinity if that is not known
   * @param nowMs a clock that never jumps
   */
  constructor(
    filesMax: number,
    private readonly nowMs: () => number = () => performance.now(),
  ) {
    this.#max = connectionsMax(filesMax);
  }

  get count(): number {
    return this.#all.size;
  }

  /** Whether an answer is owed, or a client has connected and sent no request yet. */
  get areBusy(): boolean {
    for (const { waitsFor } of this.#all) if (waitsFor !== "next") return true;
    return false;
  }

  /** Whether an answer is owed to one of them. */
  get areOwed(): boolean {
    for (const { owed } of this.#all) if (owed > 0) return true;
    return false;
  }

  /** Admits a connection, if need be in place of another; undefined if there is no room. */
  admit(socket: Socket): Connection | undefined {
    const address = socket.remoteAddress;
    if (address === undefined) return undefined; // it has left already
    const same = isLoopback(endpointOf(address, 0), 0)
      ? []
      : [...this.#all].filter((other) => other.address === address);
    if (same.length >= Math.ceil(this.#max * ADDRESS_PART) && !this.#makeRoom(same))
      return undefined;
    if (this.#all.size >= this.#max && !this.#makeRoom(this.#all)) return undefined;
    const sinceMs = this.nowMs();
    const connection: Connection = {
      socket,
      address,
      owed: 0,
      waitsFor: "request",
      sinceMs,
      unread: 0,
    };
    this.#all.add(connection);
    socket.once("close", () => this.#all.delete(connection));
    return connection;
  }

  /** From now on the server waits for that. */
  waits(connection: Connection, waitsFor: WaitsFor): void {
    connection.waitsFor = waitsFor;
    connection.sinceMs = this.nowMs();
  }

  /**
   * To be called about every second: closes those whose client is late.
   * @param filesAreShort then only CONNECTIONS_MIN stay, as far as the others wait
   */
  tick(filesAreShort: boolean): void {
    const nowMs = this.nowMs();
    for (const connection of this.#all) {
      const { waitsFor, socket } = connection;
      if (socket.writableLength < connection.unread) connection.sinceMs = nowMs;
      connection.unread = socket.writableLength;
      if (waitsFor !== "nothing" && nowMs - connection.sinceMs > PATIENCE_MS[waitsFor])
        this.#remove(connection);
    }
    while (filesAreShort && this.#all.size > CONNECTIONS_MIN)
      if (!this.#makeRoom(this.#all)) return;
  }

  closeAll(): void {
    for (const connection of this.#all) this.#remove(connection);
  }

  /** Closes the one that has waited longest. @returns whether there was one */
  #makeRoom(among: Iterable<Connection>): boolean {
    let longest: Connection | undefined;
    for (const connection of among) {
      if (connection.waitsFor === "nothing") continue;
      if (longest === undefined || connection.sinceMs < longest.sinceMs) longest = connection;
    }
    if (longest === undefined) return false;
    this.#remove(longest);
    return true;
  }

  #remove(connection: Connection): void {
    this.#all.delete(connection);
    connection.socket.destroy();
  }
}

/** How many connections HTTP may have in a process that may open so many files. */
export function connectionsMax(filesMax: number): number {
  return Math.max(CONNECTIONS_MIN, partOfFiles(filesMax, FILES_PART, CONNECTIONS_MAX));
}
