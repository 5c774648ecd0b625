/**
 * A WebSocket client that does as a test says, right or wrong: its frames are built and taken apart
 * here (RFC 6455, section 5), and it stops reading when told to.
 */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { inTime, PATIENCE_MS } from "../e2e/support/wait.ts";

export const TEXT = 0x1;
export const BINARY = 0x2;
export const CONTINUATION = 0x0;
export const PING = 0x9;
export const CLOSE = 0x8;
export const PONG = 0xa;
const FIN = 0x80;
const MASKED = 0x80;

export interface Frame {
  readonly opcode: number;
  readonly payload: Buffer;
}

/** How a connection ended: by a close frame, or, with code 1006, without one. */
export interface Closing {
  readonly code: number;
  readonly reason: string;
}

export interface UpgradeOptions {
  /** Subprotocols offered; null for no header. */
  readonly protocol?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
  readonly path?: string;
  readonly method?: string;
  /** PEM of the certificate to trust, for wss. */
  readonly ca?: string;
  /** Address and port to connect from. */
  readonly localAddress?: string;
  readonly localPort?: number;
}

/** An answer other than 101. */
export class UpgradeRefused extends Error {
  constructor(
    readonly status: number,
    readonly body: string,
    /** With the names in lower case. */
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(`upgrade refused with ${status}: ${body}`);
  }
}

/** A frame as a client sends it: masked. */
export function clientFrame(opcode: number, payload: Uint8Array, isFinal = true): Buffer {
  const { length } = payload;
  const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const frame = Buffer.alloc(2 + extended + 4 + length);
  frame[0] = (isFinal ? FIN : 0) | opcode;
  frame[1] = MASKED | (extended === 0 ? length : extended === 2 ? 126 : 127);
  if (extended === 2) frame.writeUInt16BE(length, 2);
  if (extended === 8) frame.writeBigUInt64BE(BigInt(length), 2);
  const maskAt = 2 + extended;
  const mask = randomBytes(4);
  mask.copy(frame, maskAt);
  for (let i = 0; i < length; i++) frame[maskAt + 4 + i] = payload[i]! ^ mask[i & 3]!;
  return frame;
}

/** Takes the first frame off `bytes`, as a server sends it. */
function serverFrame(bytes: Buffer): { frame: Frame; rest: Buffer } | undefined {
  if (bytes.length < 2) return undefined;
  const short = bytes[1]! & 0x7f;
  const extended = short < 126 ? 0 : short === 126 ? 2 : 8;
  const headBytes = 2 + extended;
  if (bytes.length < headBytes) return undefined;
  const length =
    extended === 0
      ? short
      : extended === 2
        ? bytes.readUInt16BE(2)
        : Number(bytes.readBigUInt64BE(2));
  if (bytes.length < headBytes + length) return undefined;
  const payload = Buffer.from(bytes.subarray(headBytes, headBytes + length));
  return { frame: { opcode: bytes[0]! & 0x0f, payload }, rest: bytes.subarray(headBytes + length) };
}

export class WebSocketClient {
  /** Settles when the connection has ended. */
  readonly closed: Promise<Closing>;
  /** The subprotocol that the server chose. */
  readonly protocol: string | undefined;
  /** The extensions that the server chose. */
  readonly extensions: string | undefined;
  /** Whether pings are answered. */
  answersPings = true;
  /** Whether a close frame is answered, and the connection ended. */
  answersClose = true;
  pings = 0;
  /** What pongs carried, in the order they came. */
  readonly pongs: string[] = [];
  readonly #frames: Frame[] = [];
  #bytes: Buffer;
  #closing: Closing = { code: 1006, reason: "" };
  #ended = false;
  #wake: (() => void) | undefined;

  private constructor(
    readonly socket: Socket,
    head: string,
    rest: Buffer,
  ) {
    this.protocol = /^sec-websocket-protocol: *(.*)$/im.exec(head)?.[1];
    this.extensions = /^sec-websocket-extensions: *(.*)$/im.exec(head)?.[1];
    this.#bytes = rest;
    const { promise, resolve } = Promise.withResolvers<Closing>();
    this.closed = promise;
    socket.on("data", (chunk: Buffer) => {
      this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
      this.#takeFrames();
    });
    socket.on("error", () => {}); // "close" follows
    socket.on("close", () => {
      this.#ended = true;
      this.#wake?.();
      resolve(this.#closing);
    });
    this.#takeFrames();
  }

  /**
   * @param url ws: or wss:
   * @throws UpgradeRefused
   */
  static async open(url: URL | string, options: UpgradeOptions = {}): Promise<WebSocketClient> {
    const { hostname, port, pathname, protocol: scheme, host } = new URL(url);
    const address = {
      host: hostname.replace(/^\[(.*)\]$/, "$1"),
      port: Number(port),
      ...(options.localAddress ? { localAddress: options.localAddress } : {}),
      ...(options.localPort ? { localPort: options.localPort } : {}),
    };
    const isTls = scheme === "wss:";
    const socket = isTls ? connectTls({ ...address, ca: options.ca }) : connectTcp(address);
    try {
      await once(socket, isTls ? "secureConnect" : "connect");
      const { protocol = "pilot.v1", headers = {}, path = pathname, method = "GET" } = options;
      const lines = {
        host,
        upgrade: "websocket",
        connection: "Upgrade",
        "sec-websocket-key": randomBytes(16).toString("base64"),
        "sec-websocket-version": "13",
        ...(protocol === null ? {} : { "sec-websocket-protocol": protocol }),
        ...headers,
      };
      const head = Object.entries(lines).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(`${method} ${path} HTTP/1.1\r\n${head.join("")}\r\n`);
      const [answer, rest] = await answerOf(socket);
      const status = Number(answer.split(" ")[1]);
      if (status !== 101) throw new UpgradeRefused(status, rest.toString(), headersIn(answer));
      return new WebSocketClient(socket, answer, rest);
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  send(opcode: number, payload: Uint8Array, isFinal = true): void {
    this.sendBytes(clientFrame(opcode, payload, isFinal));
  }

  text(text: string): void {
    this.send(TEXT, Buffer.from(text));
  }

  binary(payload: Uint8Array): void {
    this.send(BINARY, payload);
  }

  /** Sends bytes as they are. */
  sendBytes(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  /** Frames that arrived and were not taken yet, without control frames. */
  get pending(): number {
    return this.#frames.length;
  }

  /** The next text or binary frame. @throws Error if none comes, or the connection ends */
  async next(timeoutMs = PATIENCE_MS): Promise<Frame> {
    const deadline = performance.now() + timeoutMs;
    while (this.#frames.length === 0) {
      if (this.#ended) throw new Error(`the connection ended: ${JSON.stringify(this.#closing)}`);
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) throw new Error(`no frame arrived in ${timeoutMs} ms`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.#frames.shift()!;
  }

  /** Takes what has arrived. */
  take(): Frame[] {
    return this.#frames.splice(0);
  }

  /** Reads no more, until `resume`. */
  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  /** Closes as a client should. */
  close(code = 1000): void {
    const payload = Buffer.alloc(2);
    payload.writeUInt16BE(code);
    this.send(CLOSE, payload);
    this.socket.end();
  }

  /** Ends the connection without a word. */
  destroy(): void {
    this.socket.destroy();
  }

  #takeFrames(): void {
    for (;;) {
      const found = serverFrame(this.#bytes);
      if (found === undefined) break;
      this.#bytes = found.rest;
      this.#take(found.frame);
    }
    this.#wake?.();
  }

  #take(frame: Frame): void {
    const { opcode, payload } = frame;
    if (opcode === CLOSE) {
      this.#closing =
        payload.length < 2
          ? { code: 1005, reason: "" }
          : { code: payload.readUInt16BE(), reason: payload.toString("utf8", 2) };
      if (this.answersClose) this.socket.end(clientFrame(CLOSE, payload.subarray(0, 2)));
    } else if (opcode === PING) {
      this.pings++;
      if (this.answersPings) this.send(PONG, payload);
    } else if (opcode === PONG) {
      this.pongs.push(payload.toString());
    } else {
      this.#frames.push(frame);
    }
  }
}

function headersIn(head: string): Record<string, string> {
  const lines = head.matchAll(/^([^:\r\n]+): *(.*?)\r?$/gm);
  return Object.fromEntries([...lines].map(([, name, value]) => [name!.toLowerCase(), value!]));
}

/** Whatever bytes are sent to a server, and all that it answers until it closes the connection. */
export async function exchange(url: URL | string, bytes: string | Uint8Array): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connectTcp({ host: hostname, port: Number(port) });
  let answer = "";
  socket.on("data", (chunk: Buffer) => {
    answer += chunk.toString("latin1");
  });
  socket.on("error", () => {}); // a reset, when the server closes before it has read all
  socket.write(bytes);
  try {
    await inTime(
      "the server closes the connection",
      new Promise((resolve) => socket.on("close", resolve)),
    );
  } catch (error) {
    throw new Error(`${(error as Error).message}; it said ${JSON.stringify(answer)}`);
  } finally {
    socket.destroy();
  }
  return answer;
}

/**
 * Whatever bytes are sent to a server, and its first answer; status 0 if it closed the connection
 * instead.
 */
export async function firstAnswer(
  url: URL | string,
  bytes: string | Uint8Array,
): Promise<{ status: number; head: string; body: string }> {
  const { hostname, port } = new URL(url);
  const socket = connectTcp({ host: hostname, port: Number(port) });
  socket.on("error", () => {});
  socket.write(bytes);
  try {
    const [head, rest] = await inTime("the server answers", answerOf(socket));
    return { status: Number(head.split(" ")[1]), head, body: rest.toString() };
  } catch (error) {
    if (/did not happen/.test((error as Error).message)) throw error;
    return { status: 0, head: "", body: "" };
  } finally {
    socket.destroy();
  }
}

/** A self-signed certificate with its key, made by openssl. */
export interface Certificate {
  readonly certPath: string;
  readonly keyPath: string;
  /** In PEM, for those who shall trust it. */
  readonly cert: string;
}

/**
 * @param key how openssl genpkey is asked for the key
 * @param hosts addresses and names that it is for
 */
export function makeCertificate(
  folder: string,
  name: string,
  key: readonly string[] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
  hosts: readonly string[] = ["127.0.0.1", "::1"],
): Certificate {
  const [certPath, keyPath] = [join(folder, `${name}.crt`), join(folder, `${name}.key`)];
  openssl("genpkey", ...key, "-out", keyPath);
  const names = `subjectAltName=${hosts.map((host) => `${isIP(host) === 0 ? "DNS" : "IP"}:${host}`).join(",")}`;
  openssl(
    ...["req", "-x509", "-days", "2", "-key", keyPath, "-out", certPath],
    ...["-subj", `/CN=${name}`, "-addext", names],
  );
  return { certPath, keyPath, cert: readFileSync(certPath, "utf8") };
}

/** Runs openssl. @throws Error if it fails */
export function openssl(...args: readonly string[]): void {
  const { success, stderr } = Bun.spawnSync(["openssl", ...args], {
    stdout: "ignore",
    stderr: "pipe",
  });
  if (!success) throw new Error(`openssl ${args.join(" ")}: ${stderr}`);
}

/** The head of a server's answer, and what came behind it; the body, if it is no upgrade. */
async function answerOf(socket: Socket): Promise<[head: string, rest: Buffer]> {
  let bytes = Buffer.alloc(0);
  for (;;) {
    const end = bytes.indexOf("\r\n\r\n");
    if (end >= 0) {
      const head = bytes.toString("latin1", 0, end);
      const rest = bytes.subarray(end + 4);
      const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0);
      if (rest.length >= length) return [head, rest];
    }
    const [chunk] = await Promise.race([
      once(socket, "data"),
      once(socket, "close").then(() => {
        throw new Error(
          `the server closed the connection after ${JSON.stringify(bytes.toString())}`,
        );
      }),
    ]);
    bytes = Buffer.concat([bytes, chunk as Buffer]);
  }
}
