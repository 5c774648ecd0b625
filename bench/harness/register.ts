/** Makes nodes known to a target, many at a time, and none lost. */
import { AF_INET } from "../../ffi/abi.ts";
import { endpointOf } from "../../ffi/endpoint.ts";
import { kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch, SendBatch } from "../../ffi/mmsg.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { DISCOVER, DISCOVER_BYTES } from "../../src/protocol.ts";

/** Discovers sent before their answers are awaited; a socket's default buffer holds the answers. */
const WINDOW = 128;
/** Where a Discover starts behind the one before. */
const STRIDE_BYTES = 8;
/** How long answers may take before the Discovers are sent again, as daemons do. */
const RETRY_NS = 200e6;
const TRIES_MAX = 50;

/** Where a target is. */
export interface Address {
  /** An IP literal. */
  readonly host: string;
  readonly port: number;
}

/** Sends Discovers and takes their answers, at one socket. */
export class Registrar {
  readonly #receive: ReceiveBatch;
  readonly #send: SendBatch;
  readonly #view: DataView;

  constructor(socket: UdpSocket, target: Address) {
    const memory = allocatePacketMemory(WINDOW, WINDOW * STRIDE_BYTES);
    this.#receive = new ReceiveBatch(kernel, socket.fd, socket.family, WINDOW, memory, true);
    this.#send = new SendBatch(kernel, socket.fd, socket.family, WINDOW, memory);
    this.#view = new DataView(memory.buffer);
    const endpoint = endpointOf(target.host, target.port);
    for (let i = 0; i < WINDOW; i++) {
      const at = this.#receive.extraAt + i * STRIDE_BYTES;
      this.#view.setUint8(at, DISCOVER);
      this.#send.setDestination(i, endpoint, 0);
      this.#send.setPiece(i, 0, at, DISCOVER_BYTES);
      this.#send.finish(i, 1, 0);
    }
  }

  /**
   * Registers the nodes `firstId` to `firstId + count - 1`.
   * @param turn lets a target that runs in this thread do its part
   * @returns Discovers that had to be repeated
   * @throws Error when the target stops answering
   */
  register(firstId: number, count: number, turn?: () => void): number {
    let again = 0;
    for (let done = 0; done < count; ) {
      const window = Math.min(WINDOW, count - done);
      for (let i = 0; i < window; i++) {
        this.#view.setUint32(this.#receive.extraAt + i * STRIDE_BYTES + 1, firstId + done + i);
      }
      again += this.#window(window, turn);
      done += window;
    }
    return again;
  }

  #window(window: number, turn: (() => void) | undefined): number {
    for (let attempt = 0; attempt < TRIES_MAX; attempt++) {
      for (let sent = 0; sent < window; ) sent += Math.max(0, this.#send.send(sent, window, true));
      // An answer names no node: after a loss the whole window is asked again, and all of it is counted anew.
      const until = Bun.nanoseconds() + RETRY_NS;
      for (let answers = 0; Bun.nanoseconds() < until; ) {
        turn?.();
        answers += packetsIn(this.#receive, this.#receive.receive(false));
        if (answers >= window) return attempt * window;
      }
    }
    throw new Error("the target stopped answering Discovers");
  }
}

/** Sockets that many nodes are registered from: half a million at one address would be no fleet. */
export const SOCKETS = 64;

/** Registers nodes 1 to `count` from SOCKETS sockets. @returns Discovers that had to be repeated */
export function registerFromMany(target: Address, count: number): number {
  let again = 0;
  for (let i = 0; i < SOCKETS; i++) {
    const from = Math.floor((count * i) / SOCKETS);
    const socket = UdpSocket.open(AF_INET);
    socket.bind("127.0.0.1", 0);
    again += new Registrar(socket, target).register(1 + from, Math.floor((count * (i + 1)) / SOCKETS) - from);
    socket.close();
  }
  return again;
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
