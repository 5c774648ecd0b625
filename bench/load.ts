/**
 * The load generator: a sender and a sink, on this project's own syscall layer, in one thread that never waits. It keeps
 * a bounded number of packets in flight, so it offers what the target can just take and nothing is lost on the way.
 */
import { AF_INET, SEGMENTS_MAX } from "../ffi/abi.ts";
import { endpointOf } from "../ffi/endpoint.ts";
import { kernel } from "../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch, SendBatch } from "../ffi/mmsg.ts";
import { UdpSocket } from "../ffi/socket.ts";
import { DISCOVER, DISCOVER_BYTES, RELAY, RELAY_BYTES, SYNC, SYNC_BYTES } from "../src/protocol.ts";

const BUFFER_BYTES = 4 << 20;
const SINK_BATCH = 64;
/** Packets on their way, where the buffers hold as many: some 3 MiB. */
const IN_FLIGHT_MAX = 1536;
/** What the kernel books for a packet in a buffer beside its bytes: about its own structures and rounding up. */
const OVERHEAD_BYTES = 1100;
/** How long nothing may arrive before what is in flight counts as lost. */
const LOST_AFTER_NS = 500e6;
const REGISTER_TRIES_MAX = 100;
/** A beacon sends its first gossip when it has gone through its table. */
const GOSSIP_NS_MAX = 10e9;
export const SENDER_ID = 0xfffe_0000;

/** What a load looks like. */
export interface Load {
  /** Bytes behind a Relay's header. */
  readonly payloadBytes: number;
  /** Destinations, taken in turn. */
  readonly nodes: number;
  /** Packets to one destination before the next one's turn; over 1, each burst leaves as one merged send. */
  readonly burst: number;
  /** Id of the first destination; 1 unless given. */
  readonly firstId?: number;
}

export interface LoadResult {
  readonly sent: number;
  readonly received: number;
  readonly lost: number;
  readonly elapsedNs: number;
}

export class LoadGenerator {
  readonly #sender = UdpSocket.open(AF_INET);
  readonly #sink = UdpSocket.open(AF_INET);
  readonly #send: SendBatch;
  readonly #receive: ReceiveBatch;
  readonly #messages: number;
  readonly #burst: number;
  readonly #nodes: number;
  readonly #packets: DataView;
  #port = 0;
  readonly #inFlightMax: number;
  #next = 0;

  constructor(load: Load) {
    const { payloadBytes, nodes, burst, firstId = 1 } = load;
    if (burst > SEGMENTS_MAX) throw new RangeError(`a burst is at most ${SEGMENTS_MAX} packets`);
    this.#nodes = nodes;
    this.#burst = burst;
    const packetBytes = RELAY_BYTES + payloadBytes;
    const memory = allocatePacketMemory(SINK_BATCH, nodes * packetBytes + DISCOVER_BYTES);
    this.#packets = new DataView(memory.buffer);
    let granted = BUFFER_BYTES;
    for (const socket of [this.#sender, this.#sink]) {
      socket.bind("127.0.0.1", 0);
      granted = socket.setBuffers(BUFFER_BYTES, BUFFER_BYTES).receiveBytes;
    }
    // The kernel's own accounts allow twice what it grants. The target was granted the same.
    const fits = Math.floor((2 * granted) / (packetBytes + OVERHEAD_BYTES));
    this.#inFlightMax = Math.min(IN_FLIGHT_MAX, Math.max(fits, burst));
    // One send call: whole bursts, and every node's turn as often as any other's.
    const messagesMax = Math.min(burst > 1 ? 8 : 256, Math.floor(this.#inFlightMax / burst));
    this.#messages = Math.min(nodes, messagesMax);
    this.#sink.enableOffload();
    this.#receive = new ReceiveBatch(kernel, this.#sink.fd, AF_INET, SINK_BATCH, memory, true);
    this.#send = new SendBatch(kernel, this.#sender.fd, AF_INET, nodes, memory);
    for (let node = 0; node < nodes; node++) {
      const at = this.#receive.extraAt + node * packetBytes;
      this.#packets.setUint8(at, RELAY);
      this.#packets.setUint32(at + 1, SENDER_ID);
      this.#packets.setUint32(at + 5, firstId + node);
      for (let i = 0; i < burst; i++) this.#send.setPiece(node, i, at, packetBytes);
      this.#send.finish(node, burst, packetBytes);
    }
  }

  /** Port of the sink, on 127.0.0.1: where nodes are, or the peer that has them. */
  get sinkPort(): number {
    return this.#sink.localAddress().port;
  }

  /** Loads this target from now on. @param port on 127.0.0.1 */
  aim(port: number): void {
    this.#port = port;
    const target = endpointOf("127.0.0.1", port);
    for (let node = 0; node < this.#nodes; node++) this.#send.setDestination(node, target, 0);
  }

  /**
   * Makes all nodes known to the target, at the sink.
   * @param turn lets a target that runs in this thread do its part
   * @throws Error when a node stays unanswered
   */
  register(turn?: () => void): void {
    const view = new DataView(new ArrayBuffer(DISCOVER_BYTES));
    view.setUint8(0, DISCOVER);
    for (let node = 0; node < this.#nodes; node++) {
      view.setUint32(1, 1 + node);
      let answered = false;
      for (let attempt = 0; attempt < REGISTER_TRIES_MAX && !answered; attempt++) {
        sendOnce(this.#sink, new Uint8Array(view.buffer), this.#port);
        turn?.();
        const until = Bun.nanoseconds() + LOST_AFTER_NS;
        while (!answered && Bun.nanoseconds() < until) answered = this.drain() > 0;
      }
      if (!answered) throw new Error(`the target did not answer the Discover of node ${node}`);
    }
  }

  /**
   * Announces all nodes to the target, as the gossip of a peer at the sink, and waits until it relays to one of them.
   * @throws Error when it does not, or never said anything to its peer itself
   */
  announce(): void {
    const until = Bun.nanoseconds() + GOSSIP_NS_MAX;
    while (this.drain() === 0) {
      if (Bun.nanoseconds() > until) throw new Error("the target sends its peer no gossip");
    }
    const message = new DataView(new ArrayBuffer(SYNC_BYTES + 4 * this.#nodes));
    message.setUint8(0, SYNC);
    message.setUint16(5, this.#nodes);
    for (let node = 0; node < this.#nodes; node++) message.setUint32(SYNC_BYTES + 4 * node, 1 + node);
    for (let attempt = 0; attempt < REGISTER_TRIES_MAX; attempt++) {
      sendOnce(this.#sink, new Uint8Array(message.buffer), this.#port);
      Bun.sleepSync(10);
      if (this.ping() >= 0) return;
    }
    throw new Error("the target does not relay to its peer");
  }

  /** Loads the target for so long, and then until all packets are through or lost. */
  run(durationNs: number): LoadResult {
    let sent = 0;
    let received = 0;
    const start = Bun.nanoseconds();
    let progress = start;
    let now = start;
    const perCall = this.#messages * this.#burst;
    while (now - start < durationNs || received < sent) {
      if (now - start < durationNs && sent - received + perCall <= this.#inFlightMax) sent += this.offer();
      const arrived = this.drain();
      received += arrived;
      now = Bun.nanoseconds();
      if (arrived > 0) progress = now;
      else if (now - progress > LOST_AFTER_NS) break;
    }
    return { sent, received, lost: sent - received, elapsedNs: now - start };
  }

  /** Sends one call's worth of packets, without waiting. @returns how many the kernel took */
  offer(): number {
    const taken = this.#send.send(this.#next, this.#next + this.#messages, false);
    this.#next += this.#messages;
    if (this.#next + this.#messages > this.#nodes) this.#next = 0;
    return taken > 0 ? taken * this.#burst : 0;
  }

  /** Relays one packet and waits for it. @returns the nanoseconds it took, or -1 if it was lost */
  ping(): number {
    const start = Bun.nanoseconds();
    this.#send.send(0, 1, true);
    for (;;) {
      const arrived = this.drain();
      const elapsed = Bun.nanoseconds() - start;
      if (arrived > 0) return elapsed;
      if (elapsed > LOST_AFTER_NS) return -1;
    }
  }

  close(): void {
    this.#sender.close();
    this.#sink.close();
  }

  /** Takes what has arrived, without waiting. @returns packets */
  drain(): number {
    const messages = this.#receive.receive(false);
    let packets = 0;
    for (let m = 0; m < messages; m++) {
      const segmentBytes = this.#receive.segmentBytes(m);
      packets += segmentBytes > 0 ? Math.ceil(this.#receive.length(m) / segmentBytes) : 1;
    }
    return packets;
  }
}

/** Sends one datagram to a port of 127.0.0.1, for what is not part of a load. */
export function sendOnce(socket: UdpSocket, bytes: Uint8Array, port: number): void {
  const memory = allocatePacketMemory(0, bytes.length);
  new Uint8Array(memory.buffer).set(bytes);
  const batch = new SendBatch(kernel, socket.fd, AF_INET, 1, memory);
  batch.setDestination(0, endpointOf("127.0.0.1", port), 0);
  batch.setPiece(0, 0, 0, bytes.length);
  batch.finish(0, 1, 0);
  batch.send(0, 1, true);
}
