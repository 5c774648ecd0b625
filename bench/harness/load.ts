/**
 * The load generator: senders and a sink, on this project's own syscall layer, in one thread that
 * never waits. It keeps a bounded number of packets in flight, so it offers what the target can
 * just take and nothing is lost on the way; or it sends at a given rate, whatever the target does,
 * and times each packet.
 */
import {
  IOV_LEN_WORD,
  MMSGHDR_WORDS,
  MSG_IOV_WORD,
  MSG_TRUNC,
  SEGMENTS_MAX,
} from "../../ffi/abi.ts";
import { endpointOf } from "../../ffi/endpoint.ts";
import type { FixedMemory, PacketCalls } from "../../ffi/libc.ts";
import { kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch, SendBatch } from "../../ffi/mmsg.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import {
  FIRST_ID_AT,
  RELAY,
  RELAY_BYTES,
  RELAY_DELIVER_BYTES,
  SECOND_ID_AT,
  SYNC,
  SYNC_BYTES,
} from "../../src/protocol.ts";
import { LOOPBACK, type Place } from "./place.ts";
import { type Address, packetsIn, register } from "./register.ts";

const BUFFER_BYTES = 4 << 20;
const SINK_BATCH = 64;
/** Packets on their way, where the buffers hold as many: some 3 MiB. */
const IN_FLIGHT_MAX = 1536;
/**
 * The same for packets that IP cuts into fragments: what is being put together again has 4 MiB
 * (net.ipv4.ipfrag_high_thresh).
 */
const FRAGMENTED_IN_FLIGHT_MAX = 256;
/** More than this, and Ethernet's MTU makes it fragments. */
const WHOLE_BYTES_MAX = 1472;
/**
 * What the kernel books for a packet in a buffer beside its bytes: about its own structures and
 * rounding up.
 */
const OVERHEAD_BYTES = 1100;
/** Messages a send call, where each is a packet, and where each is a burst. */
const MESSAGES_MAX = 256;
const BURSTS_MAX = 8;
/** How long nothing may arrive before what is in flight counts as lost. */
const LOST_AFTER_NS = 500e6;
const ANNOUNCE_TRIES_MAX = 100;
/** A beacon sends its first gossip when it has gone through its table. */
const GOSSIP_NS_MAX = 10e9;
const SENDER_ID = 0xfffe_0000;
/** Ids that nobody has, from here on. */
const UNKNOWN_FROM = 0x8000_0000;
const UNKNOWN_IDS = 1 << 20;
/** A packet's due time in its payload, nanoseconds as a float. */
export const STAMP_BYTES = 8;

/** What stands before each payload, with the destination as 32 bits in it. */
export interface PacketHeader {
  /** As it is in every packet, but for the destination. */
  readonly bytes: Uint8Array;
  readonly destinationAt: number;
  /** The first destination, and how much more each next one is. */
  readonly first: number;
  readonly step: number;
}

/** A Relay to the nodes from this id on. */
function relayHeader(firstId: number): PacketHeader {
  const bytes = new Uint8Array(RELAY_BYTES);
  bytes[0] = RELAY;
  new DataView(bytes.buffer).setUint32(FIRST_ID_AT, SENDER_ID);
  return { bytes, destinationAt: SECOND_ID_AT, first: firstId, step: 1 };
}

/** What a load looks like. */
export interface Load {
  /** Bytes behind a Relay's header. */
  readonly payloadBytes: number;
  /** Destinations, taken in turn. */
  readonly nodes: number;
  /**
   * Packets to one destination before the next one's turn; over 1, each burst leaves as one merged
   * send. 1 unless given.
   */
  readonly burst?: number;
  /** Id of the first destination; 1 unless given. */
  readonly firstId?: number;
  /** Sockets that the packets come from, a send call each in turn; 1 unless given. */
  readonly senders?: number;
  /** Share of messages, 0 to 0.9, to nodes that nobody knows, each time another; 0 unless given. */
  readonly unknown?: number;
  /** For `pace`: packets are read when they come out, not just counted. */
  readonly timed?: boolean;
  /**
   * For another relay than a beacon, and then all destinations are known; a Relay's unless given.
   */
  readonly header?: PacketHeader;
  /**
   * Packets on their way at most, for a target with small buffers; unless given, as many as a
   * beacon's hold.
   */
  readonly inFlightMax?: number;
}

export interface LoadResult {
  /** Packets that the target got and was done with: relayed, or dropped as for nobody. */
  readonly handled: number;
  /** Packets for known nodes, and how many of them came out again. */
  readonly sent: number;
  readonly received: number;
  readonly lost: number;
  readonly elapsedNs: number;
}

/**
 * For a sink that only counts: with buffers of no bytes and MSG_TRUNC, recvmmsg(2) tells how long a
 * message was and copies nothing of it. Copying bursts would cost the generator as much as the
 * target, which then had to wait for it.
 */
const COUNTING_KERNEL: PacketCalls = {
  ...kernel,
  recvmmsg: (fd, headers, count, flags) => kernel.recvmmsg(fd, headers, count, flags | MSG_TRUNC),
};

function takeNoBytes(batch: ReceiveBatch): void {
  const { words, headers, address } = batch.layout;
  for (let m = 0; m < SINK_BATCH; m++) {
    const iovecLow = words[headers + m * MMSGHDR_WORDS + MSG_IOV_WORD]!;
    const iovec = ((iovecLow - (address | 0)) >>> 0) / 4;
    words[iovec + IOV_LEN_WORD] = 0;
  }
}

export class LoadGenerator {
  readonly #senders: UdpSocket[] = [];
  readonly #sends: SendBatch[] = [];
  readonly #sink: UdpSocket;
  readonly #receive: ReceiveBatch;
  readonly #packets: DataView;
  readonly #packetBytes: number;
  readonly #messages: number;
  readonly #burst: number;
  readonly #nodes: number;
  readonly #firstId: number;
  readonly #destinationAt: number;
  readonly #firstDestination: number;
  readonly #destinationStep: number;
  readonly #destinationsEnd: number;
  readonly #unknown: number;
  readonly #inFlightMax: number;
  /** Whether each message of the next send call is for a known node. */
  readonly #isKnown: Uint8Array;
  #target: Address = { host: "", port: 0 };
  #turn = 0;
  #nextDestination: number;
  #nextUnknown = 0;
  /** How many messages are due to be for unknown nodes; a fraction. */
  #unknownDue = 0;
  /** Packets to unknown nodes that were sent. */
  #unknownSent = 0;

  constructor(load: Load, place: Place = LOOPBACK) {
    const { payloadBytes, nodes, burst = 1, firstId = 1, senders = 1, unknown = 0 } = load;
    const { header = relayHeader(firstId), inFlightMax, timed = false } = load;
    if (burst > SEGMENTS_MAX) throw new RangeError(`a burst is at most ${SEGMENTS_MAX} packets`);
    if (unknown < 0 || unknown > 0.9) throw new RangeError("unknown must be 0 to 0.9");
    if (unknown > 0 && load.header) throw new RangeError("unknown nodes are those of Relays");
    this.#nodes = nodes;
    this.#burst = burst;
    this.#firstId = firstId;
    this.#destinationAt = header.destinationAt;
    this.#firstDestination = this.#nextDestination = header.first;
    this.#destinationStep = header.step;
    this.#destinationsEnd = header.first + nodes * header.step;
    this.#unknown = unknown;
    this.#packetBytes = header.bytes.length + payloadBytes;
    this.#sink = openSocket(place);
    for (let i = 0; i < senders; i++) this.#senders.push(openSocket(place));
    this.#sink.enableOffload();
    const { receiveBytes } = this.#sink.setBuffers(BUFFER_BYTES, BUFFER_BYTES);
    // The kernel's own accounts allow twice what it grants. The target was granted the same.
    const fits = Math.floor((2 * receiveBytes) / (this.#packetBytes + OVERHEAD_BYTES));
    const atMost = this.#packetBytes > WHOLE_BYTES_MAX ? FRAGMENTED_IN_FLIGHT_MAX : IN_FLIGHT_MAX;
    this.#inFlightMax = Math.min(inFlightMax ?? atMost, Math.max(fits, burst));
    this.#messages = Math.min(
      burst > 1 ? BURSTS_MAX : MESSAGES_MAX,
      Math.floor(this.#inFlightMax / burst),
    );
    this.#isKnown = new Uint8Array(this.#messages);
    const memory = allocatePacketMemory(SINK_BATCH, this.#messages * this.#packetBytes);
    this.#packets = new DataView(memory.buffer);
    const calls = timed ? kernel : COUNTING_KERNEL;
    this.#receive = new ReceiveBatch(calls, this.#sink.fd, place.family, SINK_BATCH, memory, true);
    if (!timed) takeNoBytes(this.#receive);
    for (const sender of this.#senders) this.#sends.push(this.#sendBatch(sender, memory));
    const packets = new Uint8Array(memory.buffer);
    for (let m = 0; m < this.#messages; m++) packets.set(header.bytes, this.#packetAt(m));
  }

  /** All senders send the same packets; the kernel has copied them when the call returns. */
  #sendBatch(sender: UdpSocket, memory: FixedMemory): SendBatch {
    const send = new SendBatch(kernel, sender.fd, sender.family, this.#messages, memory);
    for (let m = 0; m < this.#messages; m++) {
      for (let i = 0; i < this.#burst; i++)
        send.setPiece(m, i, this.#packetAt(m), this.#packetBytes);
      send.finish(m, this.#burst, this.#packetBytes);
    }
    return send;
  }

  #packetAt(m: number): number {
    return this.#receive.extraAt + m * this.#packetBytes;
  }

  /** Port of the sink: where nodes are, or the peer that has them. */
  get sinkPort(): number {
    return this.#sink.localAddress().port;
  }

  /** Where the first of the packets' sockets is open, for who must make itself known from there. */
  get sender(): UdpSocket {
    return this.#senders[0]!;
  }

  /** Loads this target from now on. */
  aim(target: Address): void {
    this.#target = target;
    const endpoint = endpointOf(target.host, target.port);
    for (const send of this.#sends) {
      for (let m = 0; m < this.#messages; m++) send.setDestination(m, endpoint, 0);
    }
  }

  /**
   * Makes all nodes known to the target, at the sink.
   * @param turn lets a target that runs in this thread do its part
   * @throws Error when the target stops answering
   */
  register(turn?: () => void): void {
    register(this.#sink, this.#target, this.#firstId, this.#nodes, turn);
  }

  /**
   * Announces all nodes to the target, as the gossip of a peer at the sink, and waits until it
   * relays to one of them.
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
    for (let node = 0; node < this.#nodes; node++)
      message.setUint32(SYNC_BYTES + 4 * node, this.#firstId + node);
    for (let attempt = 0; attempt < ANNOUNCE_TRIES_MAX; attempt++) {
      sendOnce(this.#sink, new Uint8Array(message.buffer), this.#target);
      Bun.sleepSync(10);
      if (this.ping() >= 0) return;
    }
    throw new Error("the target does not relay to its peer");
  }

  /**
   * Loads the target with all that it takes for so long, and then until all packets are through or
   * lost.
   */
  run(durationNs: number): LoadResult {
    const knownShare = 1 - this.#unknown;
    const sentMax = (this.#inFlightMax - this.#messages * this.#burst) * knownShare;
    const unknownBefore = this.#unknownSent;
    let sent = 0;
    let received = 0;
    const start = Bun.nanoseconds();
    let progress = start;
    let now = start;
    while (now - start < durationNs || received < sent) {
      if (now - start < durationNs && sent - received <= sentMax) sent += this.offer();
      const arrived = this.drain();
      received += arrived;
      now = Bun.nanoseconds();
      if (arrived > 0) progress = now;
      else if (now - progress > LOST_AFTER_NS) break;
    }
    const handled = received + this.#unknownSent - unknownBefore;
    return { handled, sent, received, lost: sent - received, elapsedNs: now - start };
  }

  /**
   * Sends `ratePerS` packets a second for so long, whether the target keeps up or not, and times
   * each from when it was due: a packet that had to wait for its turn here has waited, too. Only
   * without bursts and unknown nodes, and with payloads of at least STAMP_BYTES.
   * @param latenciesNs takes as many as it has room for
   */
  pace(ratePerS: number, durationNs: number, latenciesNs: Float64Array): LoadResult {
    const total = Math.floor((ratePerS * durationNs) / 1e9);
    let sent = 0;
    let received = 0;
    const start = Bun.nanoseconds();
    let progress = start;
    let now = start;
    while (received < sent || sent < total) {
      const due = Math.min(total, Math.floor(((now - start) * ratePerS) / 1e9)) - sent;
      if (due > 0) sent += this.#offerStamped(Math.min(due, this.#messages), start, sent, ratePerS);
      const arrived = this.#drainTimed(latenciesNs, received);
      received += arrived;
      now = Bun.nanoseconds();
      if (arrived > 0 || due > 0) progress = now;
      else if (received < sent && now - progress > LOST_AFTER_NS) break;
    }
    return { handled: received, sent, received, lost: sent - received, elapsedNs: now - start };
  }

  /**
   * Sends one call's worth of packets, without waiting.
   * @returns packets to known nodes that the kernel took
   */
  offer(): number {
    this.#address(this.#messages);
    const taken = this.#nextSender().send(0, this.#messages, false);
    let known = 0;
    for (let m = 0; m < taken; m++) known += this.#isKnown[m]!;
    this.#unknownSent += (Math.max(taken, 0) - known) * this.#burst;
    return known * this.#burst;
  }

  #offerStamped(messages: number, start: number, sent: number, ratePerS: number): number {
    this.#address(messages);
    for (let m = 0; m < messages; m++) {
      this.#packets.setFloat64(
        this.#packetAt(m) + RELAY_BYTES,
        start + ((sent + m) * 1e9) / ratePerS,
      );
    }
    return Math.max(0, this.#nextSender().send(0, messages, false));
  }

  /** Writes the destinations of the next messages. */
  #address(messages: number): void {
    for (let m = 0; m < messages; m++) {
      this.#unknownDue += this.#unknown;
      const isKnown = this.#unknownDue < 1;
      this.#isKnown[m] = isKnown ? 1 : 0;
      if (!isKnown) this.#unknownDue--;
      this.#packets.setUint32(
        this.#packetAt(m) + this.#destinationAt,
        isKnown ? this.#nextKnown() : this.#nextUnknownId(),
      );
    }
  }

  #nextKnown(): number {
    const destination = this.#nextDestination;
    this.#nextDestination += this.#destinationStep;
    if (this.#nextDestination === this.#destinationsEnd)
      this.#nextDestination = this.#firstDestination;
    return destination;
  }

  #nextUnknownId(): number {
    this.#nextUnknown = (this.#nextUnknown + 1) % UNKNOWN_IDS;
    return UNKNOWN_FROM + this.#nextUnknown;
  }

  #nextSender(): SendBatch {
    const send = this.#sends[this.#turn]!;
    this.#turn = (this.#turn + 1) % this.#sends.length;
    return send;
  }

  /** Relays one packet and waits for it. @returns the nanoseconds it took, or -1 if it was lost */
  ping(): number {
    this.#packets.setUint32(this.#packetAt(0) + this.#destinationAt, this.#firstDestination);
    const start = Bun.nanoseconds();
    this.#sends[0]!.send(0, 1, true);
    for (;;) {
      const arrived = this.drain();
      const elapsed = Bun.nanoseconds() - start;
      if (arrived > 0) return elapsed;
      if (elapsed > LOST_AFTER_NS) return -1;
    }
  }

  /** Takes what has arrived, without waiting. @returns packets */
  drain(): number {
    return packetsIn(this.#receive, this.#receive.receive(false));
  }

  /**
   * The same, and notes how long each packet took.
   * @param at where in `latenciesNs` the next one goes
   */
  #drainTimed(latenciesNs: Float64Array, at: number): number {
    const receive = this.#receive;
    const messages = receive.receive(false);
    const now = Bun.nanoseconds();
    let packets = 0;
    for (let m = 0; m < messages; m++) {
      const bytes = receive.length(m);
      const segmentBytes = receive.segmentBytes(m) || bytes;
      for (let offset = 0; offset < bytes; offset += segmentBytes) {
        const stamp = this.#packets.getFloat64(receive.packetAt(m) + offset + RELAY_DELIVER_BYTES);
        latenciesNs[at + packets++] = now - stamp; // beyond its end this does nothing
      }
    }
    return packets;
  }

  close(): void {
    for (const socket of [this.#sink, ...this.#senders]) socket.close();
  }
}

function openSocket({ family, generatorHost }: Place): UdpSocket {
  const socket = UdpSocket.open(family);
  socket.bind(generatorHost, 0);
  socket.setBuffers(BUFFER_BYTES, BUFFER_BYTES);
  return socket;
}

/** Sends one datagram, for what is not part of a load. */
export function sendOnce(socket: UdpSocket, bytes: Uint8Array, target: Address): void {
  const memory = allocatePacketMemory(0, bytes.length);
  new Uint8Array(memory.buffer).set(bytes);
  const batch = new SendBatch(kernel, socket.fd, socket.family, 1, memory);
  batch.setDestination(0, endpointOf(target.host, target.port), 0);
  batch.setPiece(0, 0, 0, bytes.length);
  batch.finish(0, 1, 0);
  batch.send(0, 1, true);
}
