/** One connection to a server: commands that are answered in bounded time, and an end that comes once, with a reason. */
import { errorOfReply, ofServer, type ServerName, type StoreError } from "./store-error.ts";

/** Connecting, with all that comes before the first command. */
const CONNECT_MS = 5_000;
/** Far more than a healthy server needs for any of our commands. */
export const ANSWER_MS = 5_000;

const WRONG_PROGRAM = "is this a Redis or Valkey server? check --directory";

export class Connection {
  /** How long the last command took. */
  roundTripMs = 0;
  #over: StoreError | undefined;

  private constructor(
    private readonly client: Bun.RedisClient,
    private readonly name: ServerName,
    private readonly onEnd: (reason: StoreError) => void,
  ) {
    // Later than the calls that are open: they know more of the reason than this (Bun 1.4.5).
    client.onclose = () => setImmediate(() => this.close(this.#closed()));
  }

  /**
   * @param url with user, password, and nothing behind host and port
   * @param onEnd is called once, when the connection is of no use any more; not when this rejects
   * @throws StoreError
   */
  static async open(
    url: string,
    tls: Bun.TLSOptions | undefined,
    name: ServerName,
    onEnd: (reason: StoreError) => void,
  ): Promise<Connection> {
    // Nothing is queued, and no connection comes back by itself: whoever holds it decides what is still to be said.
    const client = new Bun.RedisClient(url, {
      connectionTimeout: CONNECT_MS,
      autoReconnect: false,
      enableOfflineQueue: false,
      enableAutoPipelining: false,
      ...(tls ? { tls } : {}),
    });
    try {
      await client.connect();
    } catch {
      client.close();
      throw ofServer(name, "unreachable", "no connection");
    }
    return new Connection(client, name, onEnd);
  }

  /** Asks with texts. @throws StoreError */
  ask(command: string, args: readonly string[] = [], answerMs = ANSWER_MS): Promise<unknown> {
    return this.run(command, (client) => client.send(command, [...args]), answerMs);
  }

  /** @param command its name, for messages. @throws StoreError */
  async run<T>(
    command: string,
    send: (client: Bun.RedisClient) => Promise<T>,
    answerMs = ANSWER_MS,
  ): Promise<T> {
    if (this.#over) throw this.#over;
    const began = performance.now();
    const timer = setTimeout(() => {
      const message = `no answer to ${command} in ${answerMs} ms: is the server well, and the network in between?`;
      this.close(ofServer(this.name, "slow", message));
    }, answerMs);
    try {
      const reply = await send(this.client); // rejects when the client is closed
      this.roundTripMs = performance.now() - began;
      return reply;
    } catch (error) {
      const reason = this.#over ?? this.#errorOf(command, error as Error);
      if (reason.endsConnection) this.close(reason);
      throw reason;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The server answered something that is no answer to `command`: who knows what the next one belongs to. */
  misunderstood(command: string): StoreError {
    const reason = ofServer(this.name, "malformed", `answers ${command} wrongly: ${WRONG_PROGRAM}`);
    this.close(reason);
    return reason;
  }

  /** Safe more than once: the first reason stays. Open calls reject with it. */
  close(reason: StoreError): void {
    if (this.#over) return;
    this.#over = reason;
    this.client.close();
    this.onEnd(reason);
  }

  #closed(): StoreError {
    return ofServer(this.name, "unreachable", "the connection was closed: see the server's log");
  }

  #errorOf(command: string, error: Error & { code?: string }): StoreError {
    if (error.code === "ERR_REDIS_SERVER_ERROR") return errorOfReply(this.name, command, error.message);
    if (error.code === "ERR_REDIS_CONNECTION_CLOSED") return this.#closed();
    return ofServer(this.name, "malformed", `answers ${command} with garbage: ${WRONG_PROGRAM}`);
  }
}
