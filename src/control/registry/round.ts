/**
 * A round with the registry, which lists the beacons: one TCP connection with two requests, which
 * register this beacon and list all beacons. A round is limited in time.
 */
import { once } from "node:events";
import type { Socket } from "node:net";
import * as v from "valibot";
import { type HostPort, quoted } from "../../config/units.ts";
import { connectTo } from "../kit/names.ts";
import {
  CONNECT_MS,
  connectionClosed,
  FrameReader,
  frameOf,
  notConnected,
  notConnectedInTime,
  notDoneInTime,
  ofRegistry,
  type Question,
  RegistryError,
  readAnswer,
} from "./protocol.ts";

/** Timeout of connecting and both answers together. */
const ROUND_MS = 10_000;

const BEACON_ID_MAX = 2 ** 32 - 1;
/** The longest DNS name has 253 characters, a port has five digits. */
const ADDR_CHARS_MAX = 300;
/** Far more than a mesh has; limits the cost of one answer. */
const BEACONS_MAX = 10_000;

export interface ListedBeacon {
  /** 0 to 4294967295. */
  readonly id: number;
  /** "host:port", unchecked, at most 300 characters. */
  readonly addr: string;
}

export interface RegistryRound {
  /** Includes this beacon; an id may occur twice. */
  readonly beacons: readonly ListedBeacon[];
  /** Number of invalid entries, which `beacons` lacks. */
  readonly skipped: number;
  /** The first invalid entry for the log; "" for none. */
  readonly firstSkipped: string;
  /** "host:port" under which this beacon registered. */
  readonly advertised: string;
}

export interface RegistryOptions {
  readonly registry: HostPort;
  /** 0 to 4294967295. */
  readonly beaconId: number;
  /** "" sends none. No error message contains it. */
  readonly adminToken: string;
  /** Returns "host:port" of this beacon for this host's address on the connection. */
  advertise(localAddress: string): string;
  /** Timeout of the name lookup and the connection. Default: 5000. */
  readonly connectMs?: number;
  /** Timeout of the round. Default: 10000. */
  readonly roundMs?: number;
}

interface RoundQuestion<Answer> extends Question<Answer> {
  /** What to check if the registry refuses. */
  readonly ifRefused: string;
}

const listedBeacon = v.object({
  id: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(BEACON_ID_MAX)),
  addr: v.pipe(v.string(), v.maxLength(ADDR_CHARS_MAX)),
});

const LISTING: RoundQuestion<{ readonly beacons: readonly unknown[] }> = {
  request: { type: "beacon_list" },
  answer: v.object({
    type: v.literal("beacon_list_ok"),
    // Entries are checked one by one: one invalid entry must not hide the others.
    beacons: v.pipe(v.array(v.unknown()), v.maxLength(BEACONS_MAX)),
  }),
  expected: `{"type":"beacon_list_ok","beacons":[…]} with at most ${BEACONS_MAX} beacons`,
  ifRefused: "check the registry's log",
};

/** @param show makes the registry's text fit for the log */
function readList(
  entries: readonly unknown[],
  show: (text: string) => string,
): Omit<RegistryRound, "advertised"> {
  const beacons: ListedBeacon[] = [];
  let skipped = 0;
  let firstSkipped = "";
  for (const entry of entries) {
    const checked = v.safeParse(listedBeacon, entry, { abortEarly: true });
    if (checked.success) beacons.push(checked.output);
    else if (skipped++ === 0) firstSkipped = shownEntry(entry, show);
  }
  return { beacons, skipped, firstSkipped };
}

function shownEntry(entry: unknown, show: (text: string) => string): string {
  try {
    return show(JSON.stringify(entry));
  } catch {
    return "one that is nested too deeply"; // for JSON.stringify, not for the parser
  }
}

/** Returns the warning about skipped entries. */
export function skippedText({ beacons, skipped, firstSkipped }: RegistryRound): string {
  return (
    `lists ${beacons.length + skipped} beacons, of which ${skipped} are skipped, ` +
    `such as ${firstSkipped}: each needs an id from 0 to ${BEACON_ID_MAX} and an addr of ` +
    `at most ${ADDR_CHARS_MAX} characters; correct them at the registry`
  );
}

function registration(options: RegistryOptions, advertised: string): RoundQuestion<unknown> {
  const { beaconId, adminToken } = options;
  const token = adminToken === "" ? {} : { admin_token: adminToken };
  return {
    request: { type: "beacon_register", beacon_id: beaconId, addr: advertised, ...token },
    answer: v.object({ type: v.literal("beacon_register_ok"), beacon_id: v.literal(beaconId) }),
    expected: `{"type":"beacon_register_ok","beacon_id":${beaconId}}`,
    ifRefused: "is --registry-admin-token what the registry asks for?",
  };
}

/** Requests and answers on one connection. Its errors lack the registry's name. */
class Conversation {
  /** What the registry must do next. */
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
    // Closed by the registry at once.
    if (localAddress === undefined) throw connectionClosed(this.awaited);
    const advertised = this.options.advertise(localAddress);
    await this.#ask(registration(this.options, advertised));
    const { beacons } = await this.#ask(LISTING);
    return { ...readList(beacons, (text) => this.#quote(text)), advertised };
  }

  async #ask<Answer>(question: RoundQuestion<Answer>): Promise<Answer> {
    const { type } = question.request;
    this.awaited = `whole answer to ${type}`;
    this.socket.write(frameOf(question.request));
    const read = readAnswer(await this.#nextFrame(), question);
    if ("answer" in read) return read.answer;
    const reason = this.#quote(read.refusal);
    throw new RegistryError("refused", `refuses ${type} with ${reason}: ${question.ifRefused}`);
  }

  /** @throws RegistryError "closed" or "too_big" */
  async #nextFrame(): Promise<Uint8Array> {
    let frame: Uint8Array | undefined;
    try {
      frame = (await this.#frames.next()).value;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined || error instanceof RegistryError)
        throw error;
      throw connectionClosed(this.awaited, error as NodeJS.ErrnoException);
    }
    if (!frame) throw connectionClosed(this.awaited);
    return frame;
  }

  /** Quotes text of the registry, except where it repeats the token. */
  #quote(text: string): string {
    const { adminToken } = this.options;
    const shown = quoted(text);
    const repeats = adminToken !== "" && (text.includes(adminToken) || shown.includes(adminToken));
    return repeats ? "a text that repeats the token" : shown;
  }
}

async function* framesFrom(socket: Socket): AsyncGenerator<Uint8Array, undefined> {
  const reader = new FrameReader();
  for await (const chunk of socket as AsyncIterable<Uint8Array>) yield* reader.push(chunk);
}

/**
 * Registers this beacon and lists all beacons, on a connection of its own.
 * @param signal ends the round, which then rejects with the signal's reason
 * @throws RegistryError for any failure of the registry or the network
 */
export async function registryRound(
  options: RegistryOptions,
  signal?: AbortSignal,
): Promise<RegistryRound> {
  const { registry, connectMs = CONNECT_MS, roundMs = ROUND_MS } = options;
  signal?.throwIfAborted();
  const socket = connectTo(registry);
  const conversation = new Conversation(socket, options);
  const { promise: ended, reject: end } = Promise.withResolvers<never>();
  const connectTimer = setTimeout(() => end(notConnectedInTime(connectMs)), connectMs);
  const roundTimer = setTimeout(() => end(notDoneInTime(conversation.awaited, roundMs)), roundMs);
  const abort = () => end(signal?.reason);
  signal?.addEventListener("abort", abort);
  socket.once("connect", () => clearTimeout(connectTimer));
  // `once` and the iterator report errors; without a listener a late one ends the process.
  socket.on("error", () => {});
  try {
    return await Promise.race([ended, conversation.round()]);
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    throw new RegistryError(error.code, ofRegistry(registry, error.message));
  } finally {
    clearTimeout(connectTimer);
    clearTimeout(roundTimer);
    signal?.removeEventListener("abort", abort);
    socket.destroy();
  }
}
