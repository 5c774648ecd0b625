/** A group of sockets on one port, to see which of them each datagram arrives at. */
import { AF_INET } from "../../ffi/abi.ts";
import { attachReusePortProgram, type Instruction } from "../../ffi/bpf.ts";
import { endpointOf } from "../../ffi/endpoint.ts";
import { EAGAIN } from "../../ffi/errno.ts";
import { type FixedMemory, kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch } from "../../ffi/mmsg.ts";
import { openReusePortGroup, type UdpSocket } from "../../ffi/socket.ts";
import { hex } from "./kernel.ts";

const BATCH = 16;
/** Rounds without a datagram, 1 ms each, until those that are missing are given up. */
const IDLE_ROUNDS_MAX = 4000;

export interface Arrival {
  /** Which socket of the group, by bind order. */
  readonly socket: number;
  readonly bytes: Uint8Array;
}

export class Group {
  readonly sockets: UdpSocket[];
  readonly endpoint: Int32Array;
  readonly #batches: { receive: ReceiveBatch; packets: FixedMemory }[];
  readonly #pause = new Int32Array(new SharedArrayBuffer(4));

  constructor(count: number) {
    this.sockets = openReusePortGroup(AF_INET, "127.0.0.1", 0, count, () => {});
    this.endpoint = endpointOf("127.0.0.1", this.sockets[0]!.localAddress().port);
    this.#batches = this.sockets.map(({ fd }) => {
      const packets = allocatePacketMemory(BATCH, 0);
      return { packets, receive: new ReceiveBatch(kernel, fd, AF_INET, BATCH, packets, false) };
    });
  }

  attach(program: readonly Instruction[]): void {
    attachReusePortProgram(this.sockets[0]!, program);
  }

  /** Takes `total` datagrams from all sockets. @throws Error when they do not come */
  take(total: number): Arrival[] {
    const arrivals: Arrival[] = [];
    for (let idle = 0; arrivals.length < total; idle++) {
      if (idle > IDLE_ROUNDS_MAX)
        throw new Error(`${arrivals.length} of ${total} datagrams arrived`);
      for (const [socket, { receive, packets }] of this.#batches.entries()) {
        const count = receive.receive(false);
        if (count < 0 && count !== -EAGAIN) throw new Error(`recvmmsg: errno ${-count}`);
        for (let m = 0; m < count; m++) {
          const at = receive.packetAt(m);
          const bytes = new Uint8Array(packets.buffer.slice(at, at + receive.length(m)));
          arrivals.push({ socket, bytes });
          idle = 0;
        }
      }
      if (arrivals.length < total) Atomics.wait(this.#pause, 0, 0, 1);
    }
    if (arrivals.length > total)
      throw new Error(`${arrivals.length} datagrams arrived, not ${total}`);
    return arrivals;
  }

  close(): void {
    for (const socket of this.sockets) socket.close();
  }
}

/** Arrivals as text that a failed comparison shows well: which socket, which bytes. */
export function show(arrivals: readonly Arrival[]): string[] {
  return arrivals.map(({ socket, bytes }) => `${hex(bytes)} at ${socket}`).sort();
}
