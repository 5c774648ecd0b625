/** A node, or another client, with an ordinary UDP socket; and a stream of relays between two. */

import { PATIENCE_MS } from "./wait.ts";
import {
  decode,
  discover,
  discoverEx,
  type Message,
  punchRequest,
  relay,
  type WireAddress,
} from "./wire.ts";

export interface Datagram {
  readonly bytes: Uint8Array;
  readonly from: WireAddress;
}

const FULL_RETRIES_MAX = 1000;

export class Client {
  readonly #arrived: Datagram[] = [];
  #wake: (() => void) | undefined;

  private constructor(
    private readonly socket: Bun.udp.Socket<"buffer">,
    readonly beacon: WireAddress,
  ) {}

  /** @param beacon where everything goes, unless told otherwise */
  static async open(host: string, beacon: WireAddress): Promise<Client> {
    let client: Client | undefined;
    const socket = await Bun.udpSocket({
      hostname: host,
      port: 0,
      binaryType: "buffer",
      socket: {
        data(_, bytes, port, address) {
          if (client === undefined) return;
          client.#arrived.push({ bytes: new Uint8Array(bytes), from: { address, port } });
          client.#wake?.();
        },
        // an ICMP answer, when nobody listens any more; whoever waits for a datagram finds out
        error() {},
      },
    });
    client = new Client(socket, beacon);
    return client;
  }

  /** Where this client's datagrams come from. */
  get address(): WireAddress {
    return { address: this.socket.address.address, port: this.socket.port };
  }

  get fd(): number {
    return (this.socket as unknown as { fd: number }).fd;
  }

  /** Datagrams that arrived and were not taken yet. */
  get pending(): number {
    return this.#arrived.length;
  }

  /** Sends one datagram; when the socket's buffer is full, as soon as it has room. */
  async send(bytes: Uint8Array, to: WireAddress = this.beacon): Promise<void> {
    for (let attempt = 0; !this.socket.send(bytes, to.port, to.address); attempt++) {
      if (attempt === FULL_RETRIES_MAX) throw new Error("the socket's send buffer stays full");
      await Bun.sleep(1);
    }
  }

  /** The next datagram. @throws Error if none comes */
  async next(timeoutMs = PATIENCE_MS): Promise<Datagram> {
    const deadline = performance.now() + timeoutMs;
    while (this.#arrived.length === 0) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) throw new Error(`nothing arrived in ${timeoutMs} ms`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          this.#wake = undefined;
          resolve();
        };
      });
    }
    return this.#arrived.shift()!;
  }

  /** The next datagram, decoded. @throws Error if none comes or it is no message of a beacon */
  async message(): Promise<Message> {
    return decode((await this.next()).bytes);
  }

  /** Takes what has arrived. */
  take(): Datagram[] {
    return this.#arrived.splice(0);
  }

  /** Sends a Discover and returns the answer. */
  async discover(nodeId: number, rest?: Uint8Array): Promise<Message> {
    await this.send(discover(nodeId, rest));
    return this.message();
  }

  async discoverEx(nodeId: number, rest?: Uint8Array): Promise<Message> {
    await this.send(discoverEx(nodeId, rest));
    return this.message();
  }

  async punch(requesterId: number, targetId: number): Promise<void> {
    await this.send(punchRequest(requesterId, targetId));
  }

  async relay(from: number, to: number, payload: Uint8Array): Promise<void> {
    await this.send(relay(from, to, payload));
  }

  close(): void {
    this.socket.close();
  }
}

/** Clients that are closed together. */
export class Clients {
  readonly #open: Client[] = [];

  constructor(private readonly beacon: () => { readonly port: number }) {}

  /** @param host 127.0.0.1 or ::1; also where the beacon is then spoken to */
  async open(host = "127.0.0.1"): Promise<Client> {
    const client = await Client.open(host, { address: host, port: this.beacon().port });
    this.#open.push(client);
    return client;
  }

  close(): void {
    for (const client of this.#open.splice(0)) client.close();
  }
}

/**
 * Relays on their way at once. Two streams fit into the smallest receive buffer that Linux gives
 * (208 KiB, some 270 small packets): on a busy machine no process receives for longer than any
 * other number would last.
 */
const ON_THE_WAY_MAX = 64;

/**
 * Relays from one node to another, numbered, until told to stop.
 * @param to the client of the other node, which keeps what arrives meanwhile
 */
export function stream(
  from: Client,
  fromId: number,
  toId: number,
  to: Client,
): () => Promise<number> {
  const before = to.pending;
  let running = true;
  const sending = (async () => {
    let sent = 0;
    for (; running; await Bun.sleep(1)) {
      for (let burst = 0; burst < 3 && sent - (to.pending - before) < ON_THE_WAY_MAX; burst++) {
        const number = Buffer.alloc(4);
        number.writeUInt32BE(sent++);
        await from.relay(fromId, toId, number);
      }
    }
    return sent;
  })();
  return () => {
    running = false;
    return sending;
  };
}

/** The numbers of the relays that arrived, in order. */
export function numbersOf(client: Client): number[] {
  return client.take().flatMap(({ bytes }) => {
    const message = decode(bytes);
    return message.type === "deliver" ? [Buffer.from(message.payload).readUInt32BE(0)] : [];
  });
}
