/**
 * A registry that does as a test says: what a registry should, something wrong, nothing, or all of
 * it slowly. What it was asked stays on record.
 *
 *   const registry = await ScriptedRegistry.listen();
 *   registry.registered.set(8, "203.0.113.8:9001");
 *   registry.behaviour = on("beacon_list", refuse("not today"));
 *   …
 *   await registry.close();
 */
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";

export interface RegistryRequest {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** What is done about one request. */
export type Behaviour = (request: RegistryRequest, connection: ScriptedConnection) => unknown;

const HEADER_BYTES = 4;

/**
 * A frame: the length, u32 big-endian, and the JSON. The length is a lie if `announcedBytes` says
 * so.
 */
export function frame(json: string | Uint8Array, announcedBytes?: number): Uint8Array {
  const body = Buffer.from(json);
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(announcedBytes ?? body.length);
  return Buffer.concat([header, body]);
}

/** One beacon's connection, as the registry sees it. */
export class ScriptedConnection {
  constructor(
    readonly registry: ScriptedRegistry,
    private readonly socket: Socket,
  ) {}

  /** Sends a message as a frame. */
  answer(message: unknown): void {
    this.send(frame(JSON.stringify(message)));
  }

  /** Sends bytes as they are. */
  send(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  /** Sends bytes one by one, each after a pause; stops when the connection does. */
  async drip(bytes: Uint8Array, pauseMs: number): Promise<void> {
    this.socket.setNoDelay(true);
    for (let at = 0; at < bytes.length && !this.socket.destroyed; at++) {
      this.socket.write(bytes.subarray(at, at + 1));
      await Bun.sleep(pauseMs);
    }
  }

  /** Closes the connection once all is sent. */
  end(): void {
    this.socket.end();
  }

  /** Breaks the connection off, with a reset. */
  reset(): void {
    this.socket.resetAndDestroy();
  }
}

export class ScriptedRegistry {
  /** Asked anew for each request, so it may be changed at any time. */
  behaviour: Behaviour = correct;
  /** What is done about a new connection, before anything is asked on it. */
  welcome: (connection: ScriptedConnection) => unknown = () => {};
  /** Every request of every connection, in the order they came. */
  readonly requests: RegistryRequest[] = [];
  /** Who is listed, address by id; a test may add and remove beacons here. */
  readonly registered = new Map<number, string>();
  /** The nodes' public keys, in base64, by node id; a test may add and remove nodes here. */
  readonly keys = new Map<number, string>();
  /** Connections accepted so far. */
  connections = 0;
  readonly port: number;
  readonly #open = new Set<Socket>();

  private constructor(private readonly server: Server) {
    this.port = (server.address() as AddressInfo).port;
    server.on("connection", (socket) => this.#accept(socket));
  }

  /** @param port of 127.0.0.1; 0 lets the kernel pick one */
  static async listen(port = 0): Promise<ScriptedRegistry> {
    const server = createServer();
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    return new ScriptedRegistry(server);
  }

  /** Connections that are open now. */
  get openConnections(): number {
    return this.#open.size;
  }

  /** What a registry should answer. A beacon that registers is listed from then on. */
  correctAnswer(request: RegistryRequest): object {
    const { type, beacon_id, addr, node_id } = request;
    if (type === "beacon_register") {
      this.registered.set(Number(beacon_id), String(addr));
      return { type: "beacon_register_ok", beacon_id };
    }
    if (type === "beacon_list") {
      const beacons = [...this.registered].map(([id, listed]) => ({ id, addr: listed }));
      return { type: "beacon_list_ok", beacons };
    }
    if (type === "lookup") {
      const key = this.keys.get(Number(node_id));
      if (key === undefined) return { type: "error", error: `node ${node_id} not found` };
      return {
        type: "lookup_ok",
        node_id,
        address: "0:0000.0000.0001",
        public: true,
        public_key: key,
      };
    }
    return { type: "error", error: `unknown type: ${type}` };
  }

  /** Ends all connections; returns when the port is free again. */
  async close(): Promise<void> {
    const closed = once(this.server, "close");
    this.server.close();
    for (const socket of this.#open) socket.destroy();
    await closed;
  }

  #accept(socket: Socket): void {
    this.connections++;
    this.#open.add(socket);
    socket.on("close", () => this.#open.delete(socket));
    socket.on("error", () => {}); // a beacon may leave at any time
    const connection = new ScriptedConnection(this, socket);
    let pending = Buffer.alloc(0);
    socket.on("data", (chunk: Uint8Array) => {
      pending = Buffer.concat([pending, chunk]);
      for (;;) {
        const end =
          pending.length < HEADER_BYTES ? Infinity : HEADER_BYTES + pending.readUInt32BE();
        if (pending.length < end) return;
        const request: RegistryRequest = JSON.parse(pending.toString("utf8", HEADER_BYTES, end));
        pending = pending.subarray(end);
        this.requests.push(request);
        this.behaviour(request, connection);
      }
    });
    this.welcome(connection);
  }
}

/** As a registry should. */
export const correct: Behaviour = (request, connection) =>
  connection.answer(connection.registry.correctAnswer(request));

/** One behaviour for requests of a type, and the correct one for all others. */
export const on =
  (type: string, behaviour: Behaviour): Behaviour =>
  (request, connection) =>
    (request.type === type ? behaviour : correct)(request, connection);

/** Reads and never answers. */
export const silent: Behaviour = () => {};

/** Closes the connection in place of an answer. */
export const close: Behaviour = (_, connection) => connection.end();

/** Resets the connection in place of an answer. */
export const reset: Behaviour = (_, connection) => connection.reset();

/** An error in place of an answer. */
export const refuse = (error: string): Behaviour => say({ type: "error", error });

/** This message, whatever was asked. */
export const say =
  (message: unknown): Behaviour =>
  (_, connection) =>
    connection.answer(message);

/** These bytes, whatever was asked, and no more. */
export const sayBytes =
  (bytes: Uint8Array): Behaviour =>
  (_, connection) =>
    connection.send(bytes);

/** The correct answer cut to this many bytes, the header counted; then the connection is closed. */
export const cutAfter =
  (bytes: number): Behaviour =>
  (request, connection) => {
    const answer = frame(JSON.stringify(connection.registry.correctAnswer(request)));
    connection.send(answer.subarray(0, bytes));
    connection.end();
  };

/** The correct answer byte by byte. */
export const drip =
  (pauseMs: number): Behaviour =>
  (request, connection) =>
    connection.drip(frame(JSON.stringify(connection.registry.correctAnswer(request))), pauseMs);

/** Registers only who brings this token. */
export const requireToken = (token: string): Behaviour =>
  on("beacon_register", (request, connection) =>
    (request["admin_token"] === token ? correct : refuse("unauthorized"))(request, connection),
  );
