/**
 * A node as daemons are, with one UDP socket, or a connection to the beacon's bridge in its place:
 * it registers, punches, answers whoever reaches it directly, relays, and keeps an account of what
 * it gets.
 */
import { monotonicUs } from "../../ffi/libc.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import {
  decode,
  discover,
  punchRequest,
  relay,
  type WireAddress,
} from "../../test/e2e/support/wire.ts";
import { type Door, type Line, lineTo } from "./line.ts";

/** First byte of what nodes send each other directly. A beacon's messages are all below 0x10. */
const HELLO = 0x20;
const ANSWER = 0x21;
/** Between the datagrams of one side's punching, and how many: for so long it tries. */
const PUNCH_EVERY_MS = 40;
const PUNCHES_MAX = 40;
/** Datagrams to the beacon may be lost: between two tries, and how many. */
const RETRY_EVERY_MS = 250;
const TRIES_MAX = 12;
/**
 * As much as a beacon's own: what a node's process is too slow for, on a busy machine, is no loss
 * of the beacon's.
 */
const BUFFER_BYTES = 4 << 20;
/** How fine a timer is: what a stream owes, it sends at the next tick. */
const TICK_MS = 1;
/**
 * In a numbered relay, behind the header: number u32, then the time it left, microseconds of
 * CLOCK_MONOTONIC, f64.
 */
const STAMP_BYTES = 12;

export interface NodeOptions {
  readonly id: number;
  readonly host: string;
  /** 0 for any. */
  readonly port: number;
  readonly beacon: WireAddress;
  /**
   * For a node without UDP: it comes to the beacon's bridge, and `host` and `port` mean nothing.
   */
  readonly door?: Door;
}

/** What became of punching, for one end. */
export interface Punched {
  /** Whether a PunchCommand came. */
  readonly commanded: boolean;
  /** The peer's address from where it answered, or undefined if no datagram went there and back. */
  readonly direct: WireAddress | undefined;
}

export interface Stream {
  readonly to: number;
  /** Of each packet, header and stamp excluded. */
  readonly paddingBytes: number;
  readonly everyMs: number;
  /** Unless it is ended before. */
  readonly forMs: number;
  /** The first packet's number; 0 unless given. */
  readonly from?: number;
}

/** What was relayed from one sender, in the order of arrival. */
export interface Arrivals {
  readonly numbers: readonly number[];
  /** From the sender's send call to the receiver's handler. */
  readonly delaysUs: readonly number[];
  /** CLOCK_MONOTONIC. */
  readonly atUs: readonly number[];
}

export class Node {
  readonly #arrivals = new Map<number, { numbers: number[]; delaysUs: number[]; atUs: number[] }>();
  readonly #punched: { commanded: boolean; direct: WireAddress | undefined } = {
    commanded: false,
    direct: undefined,
  };
  /** Datagrams still to be sent to each address that this node has punched at. */
  readonly #punches = new Map<string, number>();
  #seen: WireAddress | undefined;
  #streaming = false;
  #closed = false;

  private constructor(
    private readonly options: NodeOptions,
    private readonly line: Line,
  ) {}

  /** @throws Error if the address cannot be had, or the bridge lets nobody in */
  static async open(options: NodeOptions): Promise<Node> {
    let node: Node | undefined;
    if (options.door !== undefined) {
      const take = (bytes: Uint8Array) => {
        if (node !== undefined) node.#takeFromBeacon(bytes);
      };
      node = new Node(options, await lineTo(options.door, options.id, take));
      return node;
    }
    const socket = await Bun.udpSocket({
      hostname: options.host,
      port: options.port,
      binaryType: "buffer",
      socket: {
        data(_, bytes, port, address) {
          if (node !== undefined) node.#take(bytes, { address, port });
        },
        error() {}, // an ICMP answer: what does not arrive is seen by who waits for it
      },
    });
    UdpSocket.adopt((socket as unknown as { fd: number }).fd).setBuffers(
      BUFFER_BYTES,
      BUFFER_BYTES,
    );
    node = new Node(options, {
      send: (bytes, to) => void socket.send(bytes, to.port, to.address),
      close: () => socket.close(),
    });
    return node;
  }

  /**
   * Asks the beacon for this node's address, and so registers it.
   * @returns the address, or undefined if no answer came
   */
  async discover(): Promise<WireAddress | undefined> {
    this.#seen = undefined;
    for (let n = 0; n < TRIES_MAX && this.#seen === undefined; n++) {
      this.#send(discover(this.options.id), this.options.beacon);
      await this.#within(RETRY_EVERY_MS, () => this.#seen !== undefined);
    }
    return this.#seen;
  }

  /** Registers once, and does not wait. */
  refresh(): void {
    this.#send(discover(this.options.id), this.options.beacon);
  }

  /** Asks the beacon to bring this node together with another one, and does not wait. */
  requestPunch(peer: number): void {
    this.#send(punchRequest(this.options.id, peer), this.options.beacon);
  }

  /** Registers again and again. */
  async refreshFor(forMs: number, everyMs: number): Promise<void> {
    for (const until = performance.now() + forMs; performance.now() < until; ) {
      this.refresh();
      await Bun.sleep(Math.min(everyMs, until - performance.now()));
    }
  }

  /**
   * Waits until a datagram has gone to the peer and back, or the time is over. With `peer`, asks
   * for it, more than once.
   */
  async punch(withinMs: number, peer?: number): Promise<Punched> {
    const deadline = performance.now() + withinMs;
    const done = () => this.#punched.direct !== undefined;
    while (!done() && performance.now() < deadline) {
      if (peer !== undefined) this.requestPunch(peer);
      await this.#within(Math.min(RETRY_EVERY_MS, deadline - performance.now()), done);
    }
    return { ...this.#punched };
  }

  /** Relays numbered packets at a steady pace. @returns how many it sent */
  async stream({ to, paddingBytes, everyMs, forMs, from = 0 }: Stream): Promise<number> {
    const payload = Buffer.alloc(STAMP_BYTES + paddingBytes);
    const count = Math.max(1, Math.round(forMs / everyMs));
    this.#streaming = true;
    const startMs = performance.now();
    for (let sent = 0; ; await Bun.sleep(TICK_MS)) {
      const due = Math.min(count, 1 + Math.floor((performance.now() - startMs) / everyMs));
      for (; sent < due; sent++) {
        payload.writeUInt32BE(from + sent, 0);
        payload.writeDoubleBE(monotonicUs(), 4);
        this.#send(relay(this.options.id, to, payload), this.options.beacon);
      }
      if (sent === count || !this.#streaming) return sent;
    }
  }

  endStream(): void {
    this.#streaming = false;
  }

  arrivals(from: number): Arrivals {
    return this.#arrivals.get(from) ?? { numbers: [], delaysUs: [], atUs: [] };
  }

  /**
   * Waits until so many packets of a sender have arrived, or the time is over.
   * @returns how many have
   */
  async arrived(from: number, count: number, withinMs: number): Promise<number> {
    await this.#within(withinMs, () => this.arrivals(from).numbers.length >= count);
    return this.arrivals(from).numbers.length;
  }

  close(): void {
    this.#closed = true;
    this.endStream();
    this.line.close();
  }

  #take(bytes: Buffer, from: WireAddress): void {
    if (bytes[0] === HELLO) {
      this.#send(Uint8Array.of(ANSWER), from);
      // its datagrams come through here; ours may go back that way only
      void this.#punchAt(from, false);
    } else if (bytes[0] === ANSWER) {
      this.#punched.direct = from;
    } else {
      this.#takeFromBeacon(bytes);
    }
  }

  #takeFromBeacon(bytes: Uint8Array): void {
    const message = decode(bytes);
    if (message.type === "discoverReply") {
      this.#seen = { address: message.address, port: message.port };
    } else if (message.type === "punchCommand") {
      this.#punched.commanded = true;
      void this.#punchAt({ address: message.address, port: message.port }, true);
    } else if (message.type === "deliver") {
      this.#account(message.senderId, message.payload);
    }
  }

  /** Sends a few datagrams to an address. @param again also if that was done before */
  async #punchAt(target: WireAddress, again: boolean): Promise<void> {
    const name = `${target.address} ${target.port}`;
    const left = this.#punches.get(name);
    if (left !== undefined && !again) return;
    this.#punches.set(name, PUNCHES_MAX);
    if (left !== undefined && left > 0) return; // still at it
    for (let left = PUNCHES_MAX; left > 0; left = this.#punches.get(name)! - 1) {
      this.#punches.set(name, left);
      if (this.#punched.direct !== undefined || this.#closed) break;
      this.#send(Uint8Array.of(HELLO), target);
      await Bun.sleep(PUNCH_EVERY_MS);
    }
    this.#punches.set(name, 0);
  }

  #account(sender: number, payload: Uint8Array): void {
    const stamp = Buffer.from(payload.buffer, payload.byteOffset, payload.length);
    const account = this.#arrivals.get(sender) ?? { numbers: [], delaysUs: [], atUs: [] };
    this.#arrivals.set(sender, account);
    const nowUs = monotonicUs();
    account.numbers.push(stamp.readUInt32BE(0));
    account.delaysUs.push(nowUs - stamp.readDoubleBE(4));
    account.atUs.push(nowUs);
  }

  /** What cannot be sent is lost, as on the way. */
  #send(bytes: Uint8Array, to: WireAddress): void {
    if (this.#closed) return;
    try {
      this.line.send(bytes, to);
    } catch {} // no route, for the moment
  }

  async #within(ms: number, done: () => boolean): Promise<void> {
    for (const until = performance.now() + ms; !done() && performance.now() < until; )
      await Bun.sleep(2);
  }
}

/**
 * Learns its address as daemons do before they have an id: with id 0, from a socket thrown away
 * afterwards.
 */
export async function discoverNameless(
  options: Omit<NodeOptions, "id" | "port">,
): Promise<WireAddress | undefined> {
  const node = await Node.open({ ...options, id: 0, port: 0 });
  try {
    return await node.discover();
  } finally {
    node.close();
  }
}
