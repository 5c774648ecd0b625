/**
 * Why a server does not let us in. Bun's client says of all that can go wrong before the first
 * command that the connection was closed (1.4.5): a server that is not there, a certificate, a
 * password. So then the server is asked once more, without it: a connection, HELLO as Bun sends it,
 * and the first line of what comes.
 */
import type { Socket } from "node:net";
import { connectTo } from "../kit/names.ts";
import type { Login } from "./login.ts";
import {
  CLOSED_BY_US,
  errorOfReply,
  heard,
  ofServer,
  type ServerName,
  type StoreError,
  WRONG_PROGRAM,
} from "./store-error.ts";
import type { Target } from "./target.ts";

/** Longer than any error's text; the rest is of no interest. */
const LINE_BYTES_MAX = 512;
/** What the first byte of a TLS alert is. */
const TLS_ALERT = 0x15;

/** @param ms how long that may take. Never rejects. */
export async function whyNot(
  { address: host, port, servername }: Target,
  name: ServerName,
  login: Login,
  ms: number,
): Promise<StoreError> {
  const { promise, resolve } = Promise.withResolvers<StoreError>();
  const unreachable = (message: string) => resolve(ofServer(name, "unreachable", message));
  const { signal } = login;
  const giveUp = () => unreachable(CLOSED_BY_US);
  let socket: Socket | undefined;
  let isOpen = false;
  const timer = setTimeout(() => {
    if (!isOpen) unreachable("no connection in time: is a firewall in between? check --directory");
    else
      resolve(
        ofServer(name, "slow", `accepts the connection and does not answer: ${ifSilent(login)}`),
      );
  }, ms);
  signal?.addEventListener("abort", giveUp);
  if (signal?.aborted) giveUp();
  try {
    // Throws where the CA cannot be used, which who read it has looked at.
    socket = connectTo({ host, port }, login.tls ? { ca: login.ca, servername } : undefined);
    const line = new FirstLine((bytes) => resolve(errorOfLine(name, login, bytes)));
    socket.on("connect", () => {
      isOpen = true;
    });
    socket.on(login.tls ? "secureConnect" : "connect", () => socket?.write(helloOf(login)));
    socket.on("data", (chunk: Uint8Array) => line.push(chunk));
    socket.on("error", (error: NodeJS.ErrnoException) =>
      unreachable(reasonOf(error, login, isOpen)),
    );
    socket.on("close", () => unreachable(closed(login)));
    return await promise;
  } catch {
    return ofServer(name, "unreachable", "no connection: check --directory-ca-file");
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", giveUp);
    socket?.destroy();
  }
}

class FirstLine {
  #bytes = Buffer.alloc(0);

  constructor(private readonly tell: (line: Buffer) => void) {}

  push(chunk: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk.subarray(0, LINE_BYTES_MAX)]);
    const end = this.#bytes.indexOf("\r\n");
    if (end >= 0) this.tell(this.#bytes.subarray(0, end));
    else if (this.#bytes.length >= LINE_BYTES_MAX || this.#bytes[0] === TLS_ALERT)
      this.tell(this.#bytes);
  }
}

function helloOf({ user, password }: Login): string {
  const words = ["HELLO", "3", ...(password === "" ? [] : ["AUTH", user || "default", password])];
  const bulk = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`);
  return `*${words.length}\r\n${bulk.join("")}`;
}

function errorOfLine(name: ServerName, login: Login, line: Buffer): StoreError {
  const text = line.toString();
  if (text.startsWith("-")) return errorOfReply(name, "HELLO", text.slice(1));
  if (line[0] === TLS_ALERT) return ofServer(name, "refused", ifOther(login));
  // The answer to HELLO: it would let us in now.
  if (/^[%*]\d/.test(text)) return ofServer(name, "unreachable", closed(login));
  return ofServer(name, "malformed", `answers HELLO with ${heard(name, text)}: ${WRONG_PROGRAM}`);
}

function reasonOf(
  { code = "failed" }: NodeJS.ErrnoException,
  login: Login,
  isOpen: boolean,
): string {
  // Bun says so, too, when this host has no route to that address (1.4.5).
  if (code === "ECONNREFUSED")
    return `connection refused (${code}): is it running, and is there a way to it? check --directory`;
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID")
    return `its certificate is for other names (${code}): name it in --directory as its certificate does`;
  if (code.includes("CERTIFICATE_REQUIRED"))
    return `wants a certificate of ours (${code}), which is not supported: set its tls-auth-clients to no`;
  if (/CERT|ISSUER|SIGNATURE|CHAIN|ERR_BORINGSSL/.test(code))
    return `its certificate is not trusted (${code}): name a file with its CA's in --directory-ca-file`;
  if (isOpen) return closed(login, code);
  return `cannot be reached (${code}): check --directory, and the network and firewalls in between`;
}

function closed(login: Login, code?: string): string {
  const why = code === undefined ? "" : ` (${code})`;
  return `closed the connection${why} in place of an answer: see the server's log, and ${ifOther(login)}`;
}

/** The kernel accepts connections of a server that is stopped, or busy with a long command. */
function ifSilent(login: Login): string {
  return `is it stopped, or busy? see its log and its load; or ${ifOther(login)}`;
}

/** TLS on one side alone shows in as many ways as there are servers, silence among them. */
function ifOther({ tls }: Login): string {
  return tls
    ? "does it speak TLS on that port? without it is redis:// in --directory"
    : "does it want TLS? that is rediss:// in --directory";
}
