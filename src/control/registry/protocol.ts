/**
 * Protocol of the registry, and its errors: frames over TCP, a request and then its answer. A frame
 * is a big-endian u32 length and that many bytes of JSON in UTF-8.
 *
 * The registry is not trusted: answers are limited in bytes, and checked by schema before use.
 */
import * as v from "valibot";
import { hostPort } from "../../../ffi/host-port.ts";
import type { HostPort } from "../../config/units.ts";
import { NameError } from "../kit/names.ts";

/** Timeout of a connection: covers another continent, and SYNs that repeat after 1 s and 3 s. */
export const CONNECT_MS = 5_000;

const HEADER_BYTES = 4;
/** The registry's own limit for one message. */
export const FRAME_BYTES_MAX = 1_048_576;

/** Kind of a registry failure, for metrics. */
export type RegistryErrorCode =
  | "unreachable"
  | "timeout"
  | "closed"
  | "refused"
  | "invalid"
  | "too_big";

/** A failure of the registry. The message is one line with a remedy. */
export class RegistryError extends Error {
  override readonly name = "RegistryError";

  constructor(
    readonly code: RegistryErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** Adds the registry's name, which the errors of this file lack, to a message. */
export function ofRegistry({ host, port }: HostPort, message: string): string {
  return `registry ${hostPort(host, port)}: ${message}`;
}

export const WRONG_PROGRAM = "is this a registry? check --registry";

/** Cuts a stream of bytes into frames. Holds one frame at most. */
export class FrameReader {
  /** The header or JSON that is incomplete. */
  #part = new Uint8Array(HEADER_BYTES);
  #filled = 0;
  #inHeader = true;

  /**
   * Yields the JSON of each frame that ends in `chunk`. Parses on demand: bytes after the last
   * expected frame are not read.
   * @throws RegistryError "too_big", from the header of a frame
   */
  *push(chunk: Uint8Array): Generator<Uint8Array, undefined> {
    for (let at = 0; at < chunk.length; ) {
      const piece = chunk.subarray(at, at + this.#part.length - this.#filled);
      this.#part.set(piece, this.#filled);
      this.#filled += piece.length;
      at += piece.length;
      if (this.#inHeader && this.#isFull())
        this.#fillNext(new Uint8Array(announcedBytes(this.#part)), false);
      if (!this.#inHeader && this.#isFull()) {
        const json = this.#part;
        this.#fillNext(new Uint8Array(HEADER_BYTES), true);
        yield json;
      }
    }
  }

  #isFull(): boolean {
    return this.#filled === this.#part.length;
  }

  #fillNext(part: Uint8Array<ArrayBuffer>, inHeader: boolean): void {
    this.#part = part;
    this.#filled = 0;
    this.#inHeader = inHeader;
  }
}

function announcedBytes(header: Uint8Array): number {
  const bytes = new DataView(header.buffer).getUint32(0);
  if (bytes <= FRAME_BYTES_MAX) return bytes;
  throw new RegistryError(
    "too_big",
    `announces a message of ${bytes} bytes, ${FRAME_BYTES_MAX} are the limit: ${WRONG_PROGRAM}`,
  );
}

/** Encodes a message as a frame. */
export function frameOf(message: object): Buffer {
  const json = Buffer.from(JSON.stringify(message));
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(json.length);
  return Buffer.concat([header, json]);
}

/** A request, and the answers that are accepted. */
export interface Question<Answer> {
  readonly request: { readonly type: string; readonly [field: string]: unknown };
  /** Schema of the fields that are used. */
  readonly answer: v.GenericSchema<unknown, Answer>;
  /** Text that shows what `answer` accepts. */
  readonly expected: string;
}

const refusal = v.object({ type: v.literal("error"), error: v.string() });

/** Returns the registry's answer, or its reason for refusing. @throws RegistryError "invalid" */
export function readAnswer<Answer>(
  json: Uint8Array,
  { request: { type }, answer: schema, expected }: Question<Answer>,
): { readonly answer: Answer } | { readonly refusal: string } {
  const answer = parseAnswer(json, type);
  const refused = v.safeParse(refusal, answer);
  if (refused.success) return { refusal: refused.output.error };
  const checked = v.safeParse(schema, answer, { abortEarly: true });
  if (checked.success) return { answer: checked.output };
  // The path has names of the schema and indexes only; the library's message quotes the answer.
  const place = v.getDotPath(checked.issues[0]) ?? "the top";
  throw new RegistryError(
    "invalid",
    `answers ${type} wrongly, at ${place}, where ${expected} was expected: ${WRONG_PROGRAM}`,
  );
}

/** @throws RegistryError "invalid"; without the parser's message, which quotes the answer */
function parseAnswer(json: Uint8Array, type: string): unknown {
  const invalid = (what: string) =>
    new RegistryError("invalid", `answers ${type} with what is not ${what}: ${WRONG_PROGRAM}`);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(json);
  } catch {
    throw invalid("UTF-8");
  }
  try {
    return JSON.parse(text);
  } catch {
    throw invalid("JSON"); // or is nested too deeply for the parser
  }
}

/** Returns the error for a connection that the socket reports as failed. */
export function notConnected(error: NodeJS.ErrnoException): RegistryError {
  const { code = "failed" } = error;
  if (error instanceof NameError)
    return new RegistryError(
      "unreachable",
      `no such host (${code}): check --registry, and this host's DNS`,
    );
  // Bun reports this code without a route to the address, too (1.4.5).
  if (code === "ECONNREFUSED") {
    return new RegistryError(
      "unreachable",
      `connection refused (${code}): check that the registry runs, the route to it, and --registry`,
    );
  }
  return new RegistryError(
    code === "ETIMEDOUT" ? "timeout" : "unreachable",
    `cannot be reached (${code}): check --registry, and the network and firewalls in between`,
  );
}

/** @param awaited what the registry had to do next */
export function connectionClosed(awaited: string, error?: NodeJS.ErrnoException): RegistryError {
  const why = error ? ` (${error.code})` : "";
  return new RegistryError(
    "closed",
    `closed the connection${why} in place of a ${awaited}: ` +
      "check the registry's log, and check --registry",
  );
}

export function notConnectedInTime(ms: number): RegistryError {
  return late("connection", ms, "is a firewall in between? check --registry");
}

/** @param awaited what the registry had to do next */
export function notDoneInTime(awaited: string, ms: number): RegistryError {
  return late(awaited, ms, `is the registry well? and ${WRONG_PROGRAM}`);
}

function late(awaited: string, ms: number, advice: string): RegistryError {
  return new RegistryError("timeout", `gave no ${awaited} in ${ms} ms: ${advice}`);
}
