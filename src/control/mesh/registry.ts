/**
 * The registry, where beacons find each other. A round is one TCP connection and two questions: "I am beacon 7, at this
 * address", then "which beacons are there?". Either way a message is a frame: its length in bytes as a u32, big-endian,
 * then that many bytes of JSON in UTF-8.
 *
 * What the registry sends is not trusted. It is bounded in bytes and in time, and its shape is checked before any of it
 * is used.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import * as v from "valibot";
import { hostPort } from "../../../ffi/socket.ts";
import { type HostPort, quoted } from "../../config/units.ts";

/** Long enough for a registry on another continent and a SYN that is sent three times (after 1 s and 3 s). */
const CONNECT_MS = 5_000;
/** For connecting and both answers: a registry that needs longer is of no use to whoever waits. */
const ROUND_MS = 10_000;

const HEADER_BYTES = 4;
/** The registry's own limit for one message. */
export const FRAME_BYTES_MAX = 1_048_576;

const BEACON_ID_MAX = 2 ** 32 - 1;
/** The longest name DNS allows is 253, and a port has five digits; what is longer leads nowhere. */
const ADDR_CHARS_MAX = 300;
/** Far more than a mesh has; a bound on what one answer can cost whoever goes through the list. */
const BEACONS_MAX = 10_000;

export interface ListedBeacon {
  /** 0 to 4294967295. */
  readonly id: number;
  /** "host:port" as the registry lists it, at most 300 characters; nobody has looked whether it is one. */
  readonly addr: string;
}

export interface RegistryRound {
  /** As listed: this beacon is among them, and an id may come twice. */
  readonly beacons: readonly ListedBeacon[];
  /** "host:port" under which this beacon registered. */
  readonly advertised: string;
}

export interface RegistryOptions {
  /** Where the registry listens; the host may be a name. */
  readonly registry: HostPort;
  /** 0 to 4294967295. */
  readonly beaconId: number;
  /** Sent along when registering; "" sends none. It is in no error's message. */
  readonly adminToken: string;
  /** Tells "host:port" of this beacon from the address that this host has on the connection, without brackets. */
  advertise(localAddress: string): string;
  /** How long connecting may take, the look-up of a name included. Default: 5000. */
  readonly connectMs?: number;
  /** How long the whole round may take. Default: 10000. */
  readonly roundMs?: number;
}

/** Why a round failed, in one word that a metric can carry. */
export type RegistryErrorCode = "unreachable" | "timeout" | "closed" | "refused" | "invalid" | "too_big";

/** A round that failed. The message is one line: which registry, what happened, and what to look at. */
export class RegistryError extends Error {
  override readonly name = "RegistryError";

  constructor(
    readonly code: RegistryErrorCode,
    message: string,
  ) {
    super(message);
  }
}

const WRONG_PROGRAM = "is this a registry? check --registry";

/** Cuts a stream of bytes into frames. It holds one frame at most, whatever the stream announces. */
export class FrameReader {
  /** What is being filled: a header, or the JSON that a header announced. */
  #part = new Uint8Array(HEADER_BYTES);
  #filled = 0;
  #inHeader = true;

  /**
   * The JSON of each frame that ends in `chunk`. A frame is looked for when it is asked for, so that bytes behind the
   * last one that is wanted can do no harm.
   * @throws RegistryError "too_big", once the four bytes are there that announce it
   */
  *push(chunk: Uint8Array): Generator<Uint8Array, undefined> {
    for (let at = 0; at < chunk.length; ) {
      const piece = chunk.subarray(at, at + this.#part.length - this.#filled);
      this.#part.set(piece, this.#filled);
      this.#filled += piece.length;
      at += piece.length;
      if (this.#inHeader && this.#isFull()) this.#fillNext(new Uint8Array(announcedBytes(this.#part)), false);
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

function frameOf(message: object): Buffer {
  const json = Buffer.from(JSON.stringify(message));
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(json.length);
  return Buffer.concat([header, json]);
}

interface Question<Answer> {
  readonly request: { readonly type: string; readonly [field: string]: unknown };
  /** Takes what is used of the answer, and only that. */
  readonly answer: v.GenericSchema<unknown, Answer>;
  /** What `answer` takes, in words. */
  readonly expected: string;
  /** What to look at when the registry refuses. */
  readonly ifRefused: string;
}

const refusal = v.object({ type: v.literal("error"), error: v.string() });

const listedBeacon = v.object({
  id: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(BEACON_ID_MAX)),
  addr: v.pipe(v.string(), v.maxLength(ADDR_CHARS_MAX)),
});

const LISTING: Question<{ readonly beacons: readonly ListedBeacon[] }> = {
  request: { type: "beacon_list" },
  answer: v.object({
    type: v.literal("beacon_list_ok"),
    // Counted before any of them is looked at.
    beacons: v.pipe(v.array(v.unknown()), v.maxLength(BEACONS_MAX), v.array(listedBeacon)),
  }),
  expected:
    `{"type":"beacon_list_ok","beacons":[…]} with at most ${BEACONS_MAX} beacons, each with ` +
    `an id from 0 to ${BEACON_ID_MAX} and an addr of at most ${ADDR_CHARS_MAX} characters`,
  ifRefused: "see the registry's log",
};

function registration(options: RegistryOptions, advertised: string): Question<unknown> {
  const { beaconId, adminToken } = options;
  const token = adminToken === "" ? {} : { admin_token: adminToken };
  return {
    request: { type: "beacon_register", beacon_id: beaconId, addr: advertised, ...token },
    answer: v.object({ type: v.literal("beacon_register_ok"), beacon_id: v.literal(beaconId) }),
    expected: `{"type":"beacon_register_ok","beacon_id":${beaconId}}`,
    ifRefused: "is --registry-admin-token what the registry asks for?",
  };
}

/** The questions and answers on one connection. Its errors hold only the reason, not which registry. */
class Conversation {
  /** What the registry has to do next. */
  awaited = "connection";
  readonly #frames: AsyncGenerator<Uint8Array, undefined>;

  constructor(
    private readonly socket: Socket,
    private readonly options: RegistryOptions,
  ) {
    this.#frames = framesFrom(socket);
  }

  async round(): Promise<RegistryRound> {
    try {
      await once(this.socket, "connect");
    } catch (error) {
      throw notConnected(error as NodeJS.ErrnoException);
    }
    const { localAddress } = this.socket;
    if (localAddress === undefined) throw this.#closed(""); // by the registry, as soon as it was open
    const advertised = this.options.advertise(localAddress);
    await this.#ask(registration(this.options, advertised));
    const { beacons } = await this.#ask(LISTING);
    return { beacons, advertised };
  }

  async #ask<Answer>(question: Question<Answer>): Promise<Answer> {
    const { type } = question.request;
    this.awaited = `whole answer to ${type}`;
    this.socket.write(frameOf(question.request));
    const answer = parseAnswer(await this.#nextFrame(), type);
    const refused = v.safeParse(refusal, answer);
    if (refused.success) {
      const reason = this.#heard(refused.output.error);
      throw new RegistryError("refused", `refuses ${type} with ${reason}: ${question.ifRefused}`);
    }
    const checked = v.safeParse(question.answer, answer, { abortEarly: true });
    if (checked.success) return checked.output;
    // The place is made of our own names and of indexes; a message of the library would quote what was sent.
    const place = v.getDotPath(checked.issues[0]) ?? "the top";
    throw new RegistryError(
      "invalid",
      `answers ${type} wrongly, at ${place}, where ${question.expected} was expected: ${WRONG_PROGRAM}`,
    );
  }

  /** @throws RegistryError "closed" or "too_big" */
  async #nextFrame(): Promise<Uint8Array> {
    let frame: Uint8Array | undefined;
    try {
      frame = (await this.#frames.next()).value;
    } catch (error) {
      if (error instanceof RegistryError) throw error;
      throw this.#closed(` (${(error as NodeJS.ErrnoException).code})`);
    }
    if (!frame) throw this.#closed("");
    return frame;
  }

  #closed(why: string): RegistryError {
    return new RegistryError(
      "closed",
      `closed the connection${why} in place of a ${this.awaited}: see the registry's log, and check --registry`,
    );
  }

  /** Text of the registry, for a message. A registry may repeat the token that it refuses; that is for no log. */
  #heard(text: string): string {
    const { adminToken } = this.options;
    const shown = quoted(text);
    const tells = adminToken !== "" && (text.includes(adminToken) || shown.includes(adminToken));
    return tells ? "a text that repeats the token" : shown;
  }
}

async function* framesFrom(socket: Socket): AsyncGenerator<Uint8Array, undefined> {
  const reader = new FrameReader();
  for await (const chunk of socket as AsyncIterable<Uint8Array>) yield* reader.push(chunk);
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

function notConnected({ code = "failed", syscall }: NodeJS.ErrnoException): RegistryError {
  if (syscall === "getaddrinfo")
    return new RegistryError("unreachable", `no such host (${code}): check --registry, and this host's DNS`);
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
 * Registers this beacon and asks for the list of all, on a connection of its own that is closed afterwards.
 * @param signal ends the round early; it then rejects with the signal's reason
 * @throws RegistryError whatever the registry or the network does; an error of `advertise` comes through as it is
 */
export async function registryRound(options: RegistryOptions, signal?: AbortSignal): Promise<RegistryRound> {
  const { registry, connectMs = CONNECT_MS, roundMs = ROUND_MS } = options;
  signal?.throwIfAborted();
  const socket = connect(registry);
  const conversation = new Conversation(socket, options);
  const { promise: ended, reject: end } = Promise.withResolvers<never>();
  const endAfter = (ms: number, advice: string) =>
    setTimeout(
      () => end(new RegistryError("timeout", `gave no ${conversation.awaited} in ${ms} ms: ${advice}`)),
      ms,
    );
  const connectTimer = endAfter(connectMs, "is a firewall in between? check --registry");
  const roundTimer = endAfter(roundMs, `is the registry well? and ${WRONG_PROGRAM}`);
  const abort = () => end(signal?.reason);
  signal?.addEventListener("abort", abort);
  socket.once("connect", () => clearTimeout(connectTimer));
  socket.on("error", () => {}); // whoever waits for the socket is told; after that nobody needs to be
  try {
    return await Promise.race([ended, conversation.round()]);
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    const where = hostPort(registry.host, registry.port);
    throw new RegistryError(error.code, `registry ${where}: ${error.message}`);
  } finally {
    clearTimeout(connectTimer);
    clearTimeout(roundTimer);
    signal?.removeEventListener("abort", abort);
    socket.destroy();
  }
}
