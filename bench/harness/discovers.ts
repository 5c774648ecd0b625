/**
 * A load of Discovers: a bounded number in flight, so that the target is never idle and nothing is
 * lost.
 */
import { UdpSocket } from "../../ffi/socket.ts";
import type { LoadResult } from "./load.ts";
import { LOOPBACK, type Place } from "./place.ts";
import { type Address, DISCOVERS_MAX, DiscoverBatch } from "./register.ts";

const BUFFER_BYTES = 4 << 20;
/** Discovers without an answer, over all sockets; the kernel books less than a KiB for each. */
const IN_FLIGHT_MAX = 1024;
/** How long nothing may arrive before what is in flight counts as lost. */
const LOST_AFTER_NS = 500e6;

/** Which nodes send Discovers. */
export interface DiscoverLoad {
  /**
   * again: each from the same socket every time. new: each just once, until all have. moving: each
   * from another socket than the time before, as a node whose NAT gives it a new port.
   */
  readonly kind: "again" | "new" | "moving";
  readonly nodes: number;
  /** Id of the first node; 1 unless given. */
  readonly firstId?: number;
  /** Sockets that nodes send from, 2 or more for those that move; 2 unless given. */
  readonly sockets?: number;
}

export class DiscoverGenerator {
  readonly #sockets: UdpSocket[] = [];
  readonly #sources: DiscoverBatch[] = [];
  readonly #kind: DiscoverLoad["kind"];
  readonly #nodes: number;
  readonly #firstId: number;
  /** Which node is next, and how often all were through. */
  #next = 0;
  #pass = 0;

  constructor({ kind, nodes, firstId = 1, sockets = 2 }: DiscoverLoad, place: Place = LOOPBACK) {
    if (kind === "moving" && sockets < 2)
      throw new RangeError("a node that moves needs two sockets");
    this.#kind = kind;
    this.#nodes = nodes;
    this.#firstId = firstId;
    for (let i = 0; i < sockets; i++) {
      const socket = UdpSocket.open(place.family);
      socket.bind(place.generatorHost, 0);
      socket.setBuffers(BUFFER_BYTES, BUFFER_BYTES);
      socket.enableOffload();
      this.#sockets.push(socket);
      this.#sources.push(new DiscoverBatch(socket));
    }
  }

  /** Loads this target from now on. */
  aim(target: Address): void {
    for (const source of this.#sources) source.aim(target);
  }

  /**
   * Loads the target for so long, and then until all is answered or lost.
   * @param discoversMax ends it earlier, as does the last of nodes that come just once
   */
  run(durationNs: number, discoversMax = Infinity): LoadResult {
    let sent = 0;
    let received = 0;
    const start = Bun.nanoseconds();
    let progress = start;
    let now = start;
    for (let more = true; more || received < sent; ) {
      more = now - start < durationNs && sent < discoversMax && this.#left() > 0;
      const room = Math.min(IN_FLIGHT_MAX - (sent - received), discoversMax - sent);
      if (more && room >= Math.min(DISCOVERS_MAX, discoversMax - sent)) sent += this.#offer(room);
      let arrived = 0;
      for (const source of this.#sources) arrived += source.drain();
      received += arrived;
      now = Bun.nanoseconds();
      if (arrived > 0) progress = now;
      else if (now - progress > LOST_AFTER_NS) break;
    }
    return { handled: received, sent, received, lost: sent - received, elapsedNs: now - start };
  }

  /** Nodes that are still to come, of those that come just once. */
  #left(): number {
    return this.#kind === "new" && this.#pass > 0 ? 0 : this.#nodes - this.#next;
  }

  #offer(most: number): number {
    const moved = this.#kind === "moving" ? this.#pass : 0;
    const stretch = Math.floor(this.#next / DISCOVERS_MAX);
    const source = this.#sources[(stretch + moved) % this.#sources.length]!;
    const untilStretchEnds = (stretch + 1) * DISCOVERS_MAX - this.#next;
    const taken = source.offer(
      this.#firstId + this.#next,
      Math.min(most, untilStretchEnds, this.#left()),
    );
    this.#next += taken;
    if (this.#next === this.#nodes) {
      this.#next = 0;
      this.#pass++;
    }
    return taken;
  }

  close(): void {
    for (const socket of this.#sockets) socket.close();
  }
}
