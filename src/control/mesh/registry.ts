/**
 * The registry, where beacons find each other. A round is one TCP connection and two questions: "I
 * am beacon 7, at this address", then "which beacons are there?". It is bounded in time.
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
} from "./registry-protocol.ts";

/** For connecting and both answers: a registry that needs longer is of no use to whoever waits. */
const ROUND_MS = 10_000;

const BEACON_ID_MAX = 2 ** 32 - 1;
/** The longest name DNS allows is 253, and a port has five digits; what is longer leads nowhere. */
const ADDR_CHARS_MAX = 300;
/** Far more than a mesh has; a bound on what one answer can cost whoever goes through the list. */
const BEACONS_MAX = 10_000;

export interface ListedBeacon {
  /** 0 to 4294967295. */
  readonly id: number;
  /**
   * "host:port" as the registry lists it, at most 300 characters; nobody has looked whether it is
   * one.
   */
  readonly addr: string;
}

export interface RegistryRound {
  /** As listed: this beacon is among them, and an id may come twice. */
  readonly beacons: readonly ListedBeacon[];
  /** Number of listed entries that are no beacon; they are not among `beacons`. */
  readonly skipped: number;
  /** The first skipped entry, for the log; "" if there is none. */
  readonly firstSkipped: string;
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
  /**
   * Tells "host:port" of this beacon from the address that this host has on the connection, without
   * brackets.
   */
  advertise(localAddress: string): string;
  /** How long connecting may take, the look-up of a name included. Default: 5000. */
  readonly connectMs?: number;
  /** How long the whole round may take. Default: 10000. */
  readonly roundMs?: number;
}

interface RoundQuestion<Answer> extends Question<Answer> {
  /** What to look at when the registry refuses. */
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
    // Each entry is checked on its own: one bad entry must not hide the other beacons.
    beacons: v.pipe(v.array(v.unknown()), v.maxLength(BEACONS_MAX)),
  }),
  expected: `{"type":"beacon_list_ok","beacons":[…]} with at most ${BEACONS_MAX} beacons`,
  ifRefused: "see the registry's log",
};

/**
 * Separates the beacons of a list from entries that are none.
 * @param show makes the registry's text fit for the log
 */
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
    return "one that is nested too deeply"; // the parser has a stack of its own, this has not
  }
}

/** A sentence for the log that names the first entry that was skipped. */
export function skippedText({ beacons, skipped, firstSkipped }: RegistryRound): string {
  return (
    `lists ${beacons.length + skipped} beacons, of which ${skipped} are skipped, such as ${firstSkipped}: each needs ` +
    `an id from 0 to ${BEACON_ID_MAX} and an addr of at most ${ADDR_CHARS_MAX} characters; correct them at the registry`
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

/**
 * The questions and answers on one connection. Its errors hold only the reason, not which registry.
 */
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
    // by the registry, as soon as it was open
    if (localAddress === undefined) throw connectionClosed(this.awaited);
    const advertised = this.options.advertise(localAddress);
    await this.#ask(registration(this.options, advertised));
    const { beacons } = await this.#ask(LISTING);
    return { ...readList(beacons, (text) => this.#heard(text)), advertised };
  }

  async #ask<Answer>(question: RoundQuestion<Answer>): Promise<Answer> {
    const { type } = question.request;
    this.awaited = `whole answer to ${type}`;
    this.socket.write(frameOf(question.request));
    const read = readAnswer(await this.#nextFrame(), question);
    if ("answer" in read) return read.answer;
    const reason = this.#heard(read.refusal);
    throw new RegistryError("refused", `refuses ${type} with ${reason}: ${question.ifRefused}`);
  }

  /** @throws RegistryError "closed" or "too_big" */
  async #nextFrame(): Promise<Uint8Array> {
    let frame: Uint8Array | undefined;
    try {
      frame = (await this.#frames.next()).value;
    } catch (error) {
      if (error instanceof RegistryError) throw error;
      throw connectionClosed(this.awaited, error as NodeJS.ErrnoException);
    }
    if (!frame) throw connectionClosed(this.awaited);
    return frame;
  }

  /**
   * Text of the registry, for a message. A registry may repeat the token that it refuses; that is
   * for no log.
   */
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

/**
 * Registers this beacon and asks for the list of all, on a connection of its own that is closed
 * afterwards.
 * @param signal ends the round early; it then rejects with the signal's reason
 * @throws RegistryError whatever the registry or the network does; an error of `advertise` comes
 * through as it is
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
  // whoever waits for the socket is told; after that nobody needs to be
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
