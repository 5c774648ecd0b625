/**
 * Serves requests as `Bun.serve` does, from a listening socket that outlives it, with bounds on
 * connections and requests, and with answers to clients that have shut down their side.
 *
 * `Bun.serve` has none of that (Bun 1.4.5): it opens its own socket, tells nothing of connections
 * without a request, and closes a connection whose client has shut down its side before the answer
 * is made.
 */
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { createServer, type Server as NetServer, type Socket } from "node:net";
import type { ListeningSocket } from "../../../ffi/listening-socket.ts";
import { isStreamed, text } from "../kit/answers.ts";
import { type Connection, Connections, KEEP_ALIVE_MS } from "./connections.ts";

/** The largest body that means anything is 13 bytes. */
const BODY_BYTES_MAX = 1024;
const HEADER_BYTES_MAX = 16 << 10;
/** Requests that a client may send before it has the first one's answer. */
const PIPELINED_MAX = 100;
/** For answers under way when the server stops. */
const STOP_MS_MAX = 500;
const STOP_POLL_MS = 10;

/** A request, and the parts of its path that its route names. */
export type RoutedRequest = Request & { readonly params: Readonly<Record<string, string>> };

/** @param address the client's, an IP literal */
export type Handler = (request: RoutedRequest, address: string) => Response | Promise<Response>;

/** Handlers by path; a part with a colon matches any. HEAD is answered as GET. */
export interface Routes {
  readonly get: Readonly<Record<string, Handler>>;
  readonly post: Readonly<Record<string, Handler>>;
}

export interface ListenerOptions {
  readonly routes: Routes;
  /** Files that the process may have open, Infinity if that is not known. */
  readonly filesMax: number;
  /** Answers requests that no route takes. */
  refuse(request: Request): Response;
  /** Answers where a handler throws. */
  fail(error: unknown): Response;
}

export class HttpListener {
  readonly #connections: Connections;
  readonly #http = createHttpServer({ maxHeaderSize: HEADER_BYTES_MAX });
  readonly #bySocket = new WeakMap<Socket, Connection>();
  /** Settles when a connection's last owed answer has left; they are made in order. */
  readonly #turns = new WeakMap<Connection, Promise<void>>();
  #server: NetServer | undefined;
  #isSuspended = false;

  /** @throws SyscallError fcntl: EMFILE */
  constructor(
    private readonly socket: ListeningSocket,
    private readonly options: ListenerOptions,
  ) {
    this.#connections = new Connections(options.filesMax);
    // Node's name for it, which has no type: a client that has shut down its side gets its answer.
    Object.assign(this.#http, { httpAllowHalfOpen: true });
    this.#http.keepAliveTimeout = KEEP_ALIVE_MS; // what it tells clients
    this.#http.on("request", (request, response) => this.#received(request, response));
    this.#http.on("clientError", (error: NodeJS.ErrnoException, socket) =>
      refuse(socket as Socket, error),
    );
    this.#listen();
  }

  /** Accepts no more connections, and closes each after its next answer. */
  suspend(): void {
    this.#isSuspended = true;
    this.#server?.close();
    this.#server = undefined;
  }

  /** Accepts connections again, at the latest with a `tick`. */
  resume(): void {
    this.#isSuspended = false;
    this.tick(false);
  }

  /** Whether an answer is owed, or a client has connected and asked for nothing yet. */
  get isBusy(): boolean {
    return this.#connections.areBusy;
  }

  /** Called once a second. @param filesAreShort whether too few are left for connections */
  tick(filesAreShort: boolean): void {
    this.#connections.tick(filesAreShort);
    if (this.#server !== undefined || this.#isSuspended) return;
    try {
      this.#listen();
    } catch {} // no file left: another time
  }

  /** Ends all connections, once answers that are nearly there have left. */
  async stop(): Promise<void> {
    this.suspend();
    const untilMs = performance.now() + STOP_MS_MAX;
    while (this.#connections.areOwed && performance.now() < untilMs) await Bun.sleep(STOP_POLL_MS);
    this.#connections.closeAll();
  }

  #listen(): void {
    this.socket.listen();
    const fd = this.socket.duplicate();
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
      this.#accept(socket),
    );
    server.on("error", () => {
      if (this.#server === server) this.#server = undefined; // tried again with the next tick
    });
    server.listen({ fd });
    this.#server = server;
  }

  #accept(socket: Socket): void {
    socket.on("error", () => {}); // whatever it is, "close" follows
    const connection = this.#connections.admit(socket);
    if (connection === undefined) {
      socket.destroy();
      return;
    }
    this.#bySocket.set(socket, connection);
    this.#http.emit("connection", socket);
  }

  /** The head of a request is there. */
  #received(request: IncomingMessage, response: ServerResponse): void {
    const connection = this.#bySocket.get(request.socket)!;
    if (connection.waitsFor === "next") this.#connections.waits(connection, "request");
    if (++connection.owed > PIPELINED_MAX) {
      connection.socket.destroy();
      return;
    }
    const before = this.#turns.get(connection) ?? Promise.resolve();
    this.#turns.set(
      connection,
      before.then(() => this.#serve(connection, request, response)),
    );
  }

  async #serve(
    connection: Connection,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const waits = (waitsFor: Connection["waitsFor"]) =>
      this.#connections.waits(connection, waitsFor);
    try {
      const body = await bodyOf(request);
      if (connection.socket.destroyed) return;
      waits("nothing");
      const answer =
        body === undefined
          ? text(413, `a body may have ${BODY_BYTES_MAX} bytes`)
          : await this.#answer(request, body, connection.address);
      if (body === undefined || this.#isSuspended) response.setHeader("connection", "close");
      await send(answer, request.method === "HEAD", response, waits);
    } catch {
      connection.socket.destroy(); // its client has left, or sends what cannot be read to its end
    } finally {
      connection.owed--;
      waits(connection.owed > 0 ? "request" : "next");
    }
  }

  async #answer(message: IncomingMessage, body: Buffer, address: string): Promise<Response> {
    const { routes } = this.options;
    const request = requestOf(message, body);
    if (request === undefined)
      return text(400, "this request cannot be read", { connection: "close" });
    const handlers = { GET: routes.get, HEAD: routes.get, POST: routes.post }[request.method] ?? {};
    const path = new URL(request.url).pathname;
    for (const [pattern, handler] of Object.entries(handlers)) {
      const params = paramsOf(pattern, path);
      if (params === undefined) continue;
      try {
        return await handler(Object.assign(request, { params }), address);
      } catch (error) {
        return this.options.fail(error);
      }
    }
    return this.options.refuse(request);
  }
}

/** Answers what is no request, and ends the connection. */
function refuse(socket: Socket, { code }: NodeJS.ErrnoException): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  if (socket.writableEnded) return; // of the bytes behind it, each part is wrong again
  const status =
    code === "HPE_HEADER_OVERFLOW" ? "431 Request Header Fields Too Large" : "400 Bad Request";
  socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
}

/** @returns undefined if it is too large; rejects if it does not come to its end */
async function bodyOf(request: IncomingMessage): Promise<Buffer | undefined> {
  if (Number(request.headers["content-length"] ?? 0) > BODY_BYTES_MAX) return undefined;
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/**
 * @returns undefined if it is none that can be answered: without a host, or for a path that is none
 */
function requestOf(message: IncomingMessage, body: Buffer): Request | undefined {
  const { method = "", url: target = "", headers, httpVersion, rawHeaders } = message;
  if (headers.host === undefined && httpVersion === "1.1") return undefined;
  try {
    const sent = new Headers();
    for (let i = 0; i + 1 < rawHeaders.length; i += 2)
      sent.append(rawHeaders[i]!, rawHeaders[i + 1]!);
    // The host is the client's to write and means nothing for the path.
    const url = target.startsWith("/") ? `http://beacon${target}` : target;
    const hasBody = body.length > 0 && method !== "GET" && method !== "HEAD";
    return new Request(url, {
      method,
      headers: sent,
      ...(hasBody && { body: Uint8Array.from(body) }),
    });
  } catch {
    return undefined;
  }
}

/** Values of the path's parts that begin with a colon; undefined if the path does not match. */
function paramsOf(pattern: string, path: string): Record<string, string> | undefined {
  const parts = path.split("/");
  const wanted = pattern.split("/");
  if (parts.length !== wanted.length) return undefined;
  const params: Record<string, string> = {};
  for (const [i, part] of wanted.entries()) {
    const found = parts[i]!;
    if (!part.startsWith(":")) {
      if (part !== found) return undefined;
    } else {
      if (found === "") return undefined;
      params[part.slice(1)] = decoded(found);
    }
  }
  return params;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Writes an answer; returns once the kernel has it. @param waits gets what is waited for */
async function send(
  answer: Response,
  isHead: boolean,
  response: ServerResponse,
  waits: (waitsFor: "reader" | "nothing") => void,
): Promise<void> {
  response.statusCode = answer.status;
  for (const [name, value] of answer.headers) response.setHeader(name, value);
  let content: Buffer | undefined;
  if (isStreamed(answer)) {
    if (isHead) await answer.body!.cancel();
    else await sendLines(answer.body!, response, waits);
  } else if (answer.status !== 304) {
    content = Buffer.from(await answer.arrayBuffer());
    response.setHeader("content-length", content.length);
  }
  waits("reader");
  response.end(isHead ? undefined : content);
  await next(response, "finish");
}

async function sendLines(
  lines: ReadableStream<Uint8Array>,
  response: ServerResponse,
  waits: (waitsFor: "reader" | "nothing") => void,
): Promise<void> {
  const reader = lines.getReader();
  const left = () => void reader.cancel().catch(() => {});
  response.once("close", left);
  for (;;) {
    const { done, value } = await reader.read();
    if (done || response.destroyed) break;
    if (response.write(value)) continue;
    waits("reader");
    await next(response, "drain");
    waits("nothing");
  }
  response.off("close", left);
}

/** Returns when that has happened, or the connection is closed. */
async function next(response: ServerResponse, event: "finish" | "drain"): Promise<void> {
  const { socket } = response;
  if (response.writableFinished || !socket || socket.destroyed) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      response.off(event, done);
      socket.off("close", done);
      resolve();
    };
    response.once(event, done);
    socket.once("close", done);
  });
}
