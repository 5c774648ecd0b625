/** Makes nodes known to a target, many at a time, and none lost. */
import { AF_INET } from "../../ffi/abi.ts";
import { endpointOf } from "../../ffi/endpoint.ts";
import { kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch, SendBatch } from "../../ffi/mmsg.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { DISCOVER, DISCOVER_BYTES, FIRST_ID_AT } from "../../src/protocol.ts";

/** Discovers of one call; a socket's default buffer holds their answers. */
export const DISCOVERS_MAX = 128;
/** Distance between the starts of two Discovers. */
const STRIDE_BYTES = 8;
/** Time for answers before the Discovers are sent again, as daemons do. */
const RETRY_NS = 200e6;
const TRIES_MAX = 50;

/** Address of a target. */
export interface Address {
  /** An IP literal. */
  readonly host: string;
  readonly port: number;
}

/** Sends Discovers and counts their answers, at one socket. */
export class DiscoverBatch {
  readonly #receive: ReceiveBatch;
  readonly #send: SendBatch;
  readonly #view: DataView;

  constructor({ fd, family }: UdpSocket) {
    const memory = allocatePacketMemory(DISCOVERS_MAX, DISCOVERS_MAX * STRIDE_BYTES);
    this.#receive = new ReceiveBatch(kernel, fd, family, DISCOVERS_MAX, memory, true);
    this.#send = new SendBatch(kernel, fd, family, DISCOVERS_MAX, memory);
    this.#view = new DataView(memory.buffer);
    for (let m = 0; m < DISCOVERS_MAX; m++) {
      this.#view.setUint8(this.#packetAt(m), DISCOVER);
      this.#send.setPiece(m, 0, this.#packetAt(m), DISCOVER_BYTES);
      this.#send.finish(m, 1, 0);
    }
  }

  #packetAt(m: number): number {
    return this.#receive.extraAt + m * STRIDE_BYTES;
  }

  aim({ host, port }: Address): void {
    const endpoint = endpointOf(host, port);
    for (let m = 0; m < DISCOVERS_MAX; m++) this.#send.setDestination(m, endpoint, 0);
  }

  /** Sends Discovers of the nodes from `id` on. @returns number that the kernel accepted */
  offer(id: number, count: number, waits = false): number {
    for (let m = 0; m < count; m++) this.#view.setUint32(this.#packetAt(m) + FIRST_ID_AT, id + m);
    return Math.max(0, this.#send.send(0, count, waits));
  }

  /** Receives the answers that have arrived, without waiting. @returns their number */
  drain(): number {
    return packetsIn(this.#receive, this.#receive.receive(false));
  }
}

/**
 * Registers the nodes `firstId` to `firstId + count - 1` at a socket.
 * @param turn lets a target that runs in this thread do its part
 * @throws Error when the target stops answering
 */
export function register(
  socket: UdpSocket,
  target: Address,
  firstId: number,
  count: number,
  turn = () => {},
): void {
  const batch = new DiscoverBatch(socket);
  batch.aim(target);
  for (let done = 0; done < count; done += DISCOVERS_MAX)
    registerWindow(batch, firstId + done, Math.min(DISCOVERS_MAX, count - done), turn);
}

function registerWindow(
  batch: DiscoverBatch,
  firstId: number,
  count: number,
  turn: () => void,
): void {
  for (let attempt = 0; attempt < TRIES_MAX; attempt++) {
    for (let sent = 0; sent < count; ) sent += batch.offer(firstId + sent, count - sent, true);
    // An answer names no node: after a loss, all Discovers are repeated and all answers counted
    // anew.
    const until = Bun.nanoseconds() + RETRY_NS;
    for (let answers = 0; Bun.nanoseconds() < until; ) {
      turn();
      answers += batch.drain();
      if (answers >= count) return;
    }
  }
  throw new Error("the target stopped answering Discovers");
}

/** Sockets that many nodes are registered from: half a million at one address would be no fleet. */
const SOCKETS = 64;

/** Registers nodes 1 to `count` from SOCKETS sockets. */
export function registerFromMany(target: Address, count: number): void {
  for (let i = 0; i < SOCKETS; i++) {
    const [from, to] = [i, i + 1].map((part) => Math.floor((count * part) / SOCKETS)) as [
      number,
      number,
    ];
    const socket = UdpSocket.open(AF_INET);
    socket.bind("127.0.0.1", 0);
    register(socket, target, 1 + from, to - from);
    socket.close();
  }
}

/** Packets in the first `messages` messages of a batch; none for an errno. */
export function packetsIn(batch: ReceiveBatch, messages: number): number {
  let packets = 0;
  for (let m = 0; m < messages; m++) {
    const segmentBytes = batch.segmentBytes(m);
    packets += segmentBytes > 0 ? Math.ceil(batch.length(m) / segmentBytes) : 1;
  }
  return packets;
}
