/**
 * A connection to a server: answers each command in bounded time, and reports its end once, with a
 * reason.
 *
 * Bun's client stays because `@redis/client` 6.3.1 and `ioredis` 6.0.0 accept malformed replies:
 * `:seven` becomes the number 730592. They also cost the main thread 1.2 and 1.9 times the CPU time
 * per entry read (Bun 1.4.5: 0.44 µs, median of six rounds, 2026-12).
 */
import { hostPort } from "../../../ffi/host-port.ts";
import { whyNot } from "./knock.ts";
import type { Login } from "./login.ts";
import {
  errorOfReply,
  ofServer,
  type ServerName,
  type StoreError,
  WRONG_PROGRAM,
} from "./store-error.ts";
import type { Target } from "./target.ts";

/** Timeout for a server on another continent, with SYNs lost at 1 s and 3 s. */
const CONNECT_MS = 5_000;
/** How much of that is for finding out why there is no connection. */
const WHY_PART = 0.2;
/** Far more than a healthy server needs for any of our commands. */
const ANSWER_MS = 5_000;

export class Connection {
  /** How long the last command took. */
  roundTripMs = 0;
  #over: StoreError | undefined;
  readonly #answerMs: number;

  private constructor(
    private readonly client: Bun.RedisClient,
    private readonly name: ServerName,
    { answerMs = ANSWER_MS }: Login,
    private readonly onEnd: (reason: StoreError) => void,
  ) {
    this.#answerMs = answerMs;
    // Later than the calls that are open: they know more of the reason than this (Bun 1.4.5).
    client.onclose = () => setImmediate(() => this.close(this.#closed()));
  }

  /**
   * @param name of that server
   * @param onEnd is called once, when the connection is of no use any more; not when this rejects
   * @throws StoreError
   */
  static async open(
    server: Target,
    name: ServerName,
    login: Login,
    onEnd: (reason: StoreError) => void,
  ): Promise<Connection> {
    const { connectMs = CONNECT_MS, signal } = login;
    const deadline = performance.now() + connectMs;
    const timeoutMs = connectMs * (1 - WHY_PART);
    const client = clientOf(server, login, timeoutMs);
    try {
      await inTime(client.connect(), timeoutMs, signal);
      return new Connection(client, name, login, onEnd);
    } catch {
      client.close();
      throw await whyNot(server, name, login, deadline - performance.now());
    }
  }

  /** Asks with texts. @param waitMs time the server may wait @throws StoreError */
  ask(command: string, args: readonly string[] = [], waitMs = 0): Promise<unknown> {
    return this.run(command, (client) => client.send(command, [...args]), waitMs);
  }

  /** As `ask`, with whatever Bun's client can send. @param command its name, for messages */
  async run<T>(
    command: string,
    send: (client: Bun.RedisClient) => Promise<T>,
    waitMs = 0,
  ): Promise<T> {
    if (this.#over) throw this.#over;
    const answerMs = waitMs + this.#answerMs;
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

  /** Error for an answer that does not fit `command`; the connection is unusable then. */
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
    if (error.code === "ERR_REDIS_SERVER_ERROR")
      return errorOfReply(this.name, command, error.message);
    if (error.code === "ERR_REDIS_CONNECTION_CLOSED") return this.#closed();
    return ofServer(this.name, "malformed", `answers ${command} with garbage: ${WRONG_PROGRAM}`);
  }
}

/** Makes a client without queue or reconnection: the caller decides what to send again. */
function clientOf(server: Target, login: Login, timeoutMs: number): Bun.RedisClient {
  const { address, port, servername } = server;
  const { tls, ca, user, password } = login;
  const named = {
    ...(ca !== undefined && { ca }),
    ...(servername !== undefined && { serverName: servername }),
  };
  // Bun refuses an empty object (1.4.5)
  const tlsOptions = Object.keys(named).length === 0 ? true : named;
  const userInfo =
    password === "" ? "" : `${encodeURIComponent(user)}:${encodeURIComponent(password)}@`;
  return new Bun.RedisClient(
    `${tls ? "rediss" : "redis"}://${userInfo}${hostPort(address, port)}`,
    {
      connectionTimeout: timeoutMs,
      autoReconnect: false,
      enableOfflineQueue: false,
      // it would have each command wait, and so round trips look longer
      enableAutoPipelining: false,
      ...(tls ? { tls: tlsOptions } : {}),
    },
  );
}

/** Rejects after `ms` at the latest, or when the signal is given. */
async function inTime(promise: Promise<unknown>, ms: number, signal?: AbortSignal): Promise<void> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const giveUp = () => reject(new Error("late"));
  const timer = setTimeout(giveUp, ms);
  signal?.addEventListener("abort", giveUp);
  try {
    if (signal?.aborted) giveUp();
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", giveUp);
  }
}
