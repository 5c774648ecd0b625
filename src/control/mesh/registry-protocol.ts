/**
 * How one talks with the registry: over TCP, in frames, a question and then its answer. A frame is
 * the length in bytes as a u32, big-endian, then that many bytes of JSON in UTF-8. And what can go
 * wrong with it, in words.
 *
 * What the registry sends is not trusted. It is bounded in bytes, and its shape is checked before
 * any of it is used.
 */
import * as v from "valibot";
import { hostPort } from "../../../ffi/socket.ts";
import type { HostPort } from "../../config/units.ts";
import { NameError } from "../kit/names.ts";

/**
 * Long enough for a registry on another continent and a SYN that is sent three times (after 1 s and
 * 3 s).
 */
export const CONNECT_MS = 5_000;

const HEADER_BYTES = 4;
/** The registry's own limit for one message. */
export const FRAME_BYTES_MAX = 1_048_576;

/** How a registry fails, in one word that a metric can carry. */
export type RegistryErrorCode =
  | "unreachable"
  | "timeout"
  | "closed"
  | "refused"
  | "invalid"
  | "too_big";

/**
 * A registry that fails. The message is one line: which registry, what happened, and what to look
 * at.
 */
export class RegistryError extends Error {
  override readonly name = "RegistryError";

  constructor(
    readonly code: RegistryErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** What went wrong with which registry: the errors of this file say only the first. */
export function ofRegistry({ host, port }: HostPort, message: string): string {
  return `registry ${hostPort(host, port)}: ${message}`;
}

export const WRONG_PROGRAM = "is this a registry? check --registry";

/**
 * Cuts a stream of bytes into frames. It holds one frame at most, whatever the stream announces.
 */
export class FrameReader {
  /** What is being filled: a header, or the JSON that a header announced. */
  #part = new Uint8Array(HEADER_BYTES);
  #filled = 0;
  #inHeader = true;

  /**
   * The JSON of each frame that ends in `chunk`. A frame is looked for when it is asked for, so
   * that bytes behind the last one that is wanted can do no harm.
   * @throws RegistryError "too_big", once the four bytes are there that announce it
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

/** A message as it is sent. */
export function frameOf(message: object): Buffer {
  const json = Buffer.from(JSON.stringify(message));
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(json.length);
  return Buffer.concat([header, json]);
}

/** A question, and which answer to it is right. */
export interface Question<Answer> {
  readonly request: { readonly type: string; readonly [field: string]: unknown };
  /** Takes what is used of the answer, and only that. */
  readonly answer: v.GenericSchema<unknown, Answer>;
  /** What `answer` takes, in words. */
  readonly expected: string;
}

const refusal = v.object({ type: v.literal("error"), error: v.string() });

/**
 * What the registry answered, or with which words it refuses to.
 * @throws RegistryError "invalid"
 */
export function readAnswer<Answer>(
  json: Uint8Array,
  { request: { type }, answer: schema, expected }: Question<Answer>,
): { readonly answer: Answer } | { readonly refusal: string } {
  const answer = parseAnswer(json, type);
  const refused = v.safeParse(refusal, answer);
  if (refused.success) return { refusal: refused.output.error };
  const checked = v.safeParse(schema, answer, { abortEarly: true });
  if (checked.success) return { answer: checked.output };
  // The place is made of our own names and of indexes; a message of the library would quote what
  // was sent.
  const place = v.getDotPath(checked.issues[0]) ?? "the top";
  throw new RegistryError(
    "invalid",
    `answers ${type} wrongly, at ${place}, where ${expected} was expected: ${WRONG_PROGRAM}`,
  );
}

/** @throws RegistryError "invalid"; without the parser's own words, which quote what was sent */
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

/** There is no connection, for the reason that the socket gives. */
export function notConnected(error: NodeJS.ErrnoException): RegistryError {
  const { code = "failed" } = error;
  if (error instanceof NameError)
    return new RegistryError(
      "unreachable",
      `no such host (${code}): check --registry, and this host's DNS`,
    );
  // Bun says so, too, when this host has no route to that address (1.4.5).
  if (code === "ECONNREFUSED") {
    return new RegistryError(
      "unreachable",
      `connection refused (${code}): is the registry running, and is there a way to it? check --registry`,
    );
  }
  return new RegistryError(
    code === "ETIMEDOUT" ? "timeout" : "unreachable",
    `cannot be reached (${code}): check --registry, and the network and firewalls in between`,
  );
}

/**
 * The registry ended a connection that was open.
 * @param awaited what it had to do next
 */
export function connectionClosed(awaited: string, error?: NodeJS.ErrnoException): RegistryError {
  const why = error ? ` (${error.code})` : "";
  return new RegistryError(
    "closed",
    `closed the connection${why} in place of a ${awaited}: see the registry's log, and check --registry`,
  );
}

/** There is no connection after `ms`. */
export function notConnectedInTime(ms: number): RegistryError {
  return late("connection", ms, "is a firewall in between? check --registry");
}

/**
 * The registry did not do within `ms` what it had to do next.
 * @param awaited what that is
 */
export function notDoneInTime(awaited: string, ms: number): RegistryError {
  return late(awaited, ms, `is the registry well? and ${WRONG_PROGRAM}`);
}

function late(awaited: string, ms: number, advice: string): RegistryError {
  return new RegistryError("timeout", `gave no ${awaited} in ${ms} ms: ${advice}`);
}
