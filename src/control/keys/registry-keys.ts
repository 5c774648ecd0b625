/**
 * The nodes' keys from the registry, which every node has told its own. Questions go one behind the
 * other on one connection that is kept, and the answers come in their order; an error names no
 * node, so the order is all there is to go by.
 *
 * What anybody can cause by asking for nodes is bounded: one question a node at once, few on their
 * way, a queue behind them, and what was answered is kept for a while.
 */
import type { Socket } from "node:net";
import * as v from "valibot";
import type { HostPort } from "../../config/units.ts";
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
  WRONG_PROGRAM,
} from "../registry/protocol.ts";
import {
  bytesOfBase64,
  type KeySource,
  KeySourceError,
  type KeySourceErrorCode,
  sourceClosed,
} from "./keys.ts";

const ANSWER_MS = 5_000;
const FOUND_MS = 60_000;
/** Short, as a node may come to its beacon right after it came to the registry. */
const UNKNOWN_MS = 5_000;
const IN_FLIGHT_MAX = 32;
const QUEUE_MAX = 16_384;
const KEPT_MAX = 65_536;

/** A key has 44; the bound is for what would be kept of a registry that stores anything else. */
const KEY_CHARS_MAX = 1_024;

const AWAITED = "whole answer to lookup";

export interface RegistryKeysOptions {
  /** Where the registry listens; the host may be a name. */
  readonly registry: HostPort;
  /** How long connecting may take, the look-up of a name included. Default: 5000. */
  readonly connectMs?: number;
  /** Timeout in ms for an answer after the one before. Default: 5000. */
  readonly answerMs?: number;
  /** How long a key is known without being asked for again. Default: 60000. */
  readonly foundMs?: number;
  /** The same for a node that the registry does not know. Default: 5000. */
  readonly unknownMs?: number;
  /** Questions that the registry is asked before it has answered the first. Default: 32. */
  readonly inFlightMax?: number;
  /** Nodes that wait until they can be asked for. Default: 16384. */
  readonly queueMax?: number;
  /** Limit of cached keys, and of cached unknown nodes. Default: 65536. */
  readonly keptMax?: number;
}

/** One node that is asked for, by however many. */
interface Lookup extends PromiseWithResolvers<Uint8Array | undefined> {
  readonly nodeId: number;
}

/** The registry as the source. */
export class RegistryKeys implements KeySource {
  /** Every node that is asked for, in the queue or on its way. */
  readonly #lookups = new Map<number, Lookup>();
  #queue: Lookup[] = [];
  #connection: LookupConnection | undefined;
  #isClosed = false;
  readonly #options: Required<RegistryKeysOptions>;
  readonly #found: RecentAnswers<Uint8Array>;
  /** Apart from the keys, so that nobody drives those out by asking for nodes that do not exist. */
  readonly #unknown: RecentAnswers<true>;

  /** @param nowMs any clock that never goes backwards */
  constructor(options: RegistryKeysOptions, nowMs: () => number = () => performance.now()) {
    const all = {
      connectMs: CONNECT_MS,
      answerMs: ANSWER_MS,
      foundMs: FOUND_MS,
      unknownMs: UNKNOWN_MS,
      inFlightMax: IN_FLIGHT_MAX,
      queueMax: QUEUE_MAX,
      keptMax: KEPT_MAX,
      ...options,
    };
    this.#options = all;
    this.#found = new RecentAnswers(all.foundMs, all.keptMax, nowMs);
    this.#unknown = new RecentAnswers(all.unknownMs, all.keptMax, nowMs);
  }

  get registry(): HostPort {
    return this.#options.registry;
  }

  async keyOf(nodeId: number): Promise<Uint8Array | undefined> {
    if (this.#isClosed) throw sourceClosed();
    const found = this.#found.get(nodeId);
    if (found) return found;
    if (this.#unknown.get(nodeId)) return undefined;
    const lookup = this.#lookups.get(nodeId) ?? this.#queued(nodeId);
    return lookup.promise;
  }

  close(): void {
    this.#isClosed = true;
    this.#connection?.close();
    this.#connection = undefined;
    this.#rejectAll(sourceClosed());
  }

  #queued(nodeId: number): Lookup {
    const { queueMax } = this.#options;
    if (this.#queue.length >= queueMax)
      throw this.#error("busy", `${queueMax} nodes wait to be looked up already: is it well?`);
    const lookup = { nodeId, ...Promise.withResolvers<Uint8Array | undefined>() };
    this.#lookups.set(nodeId, lookup);
    this.#queue.push(lookup);
    this.#askNext();
    return lookup;
  }

  /** Asks for as many of the queue as may be on their way. */
  #askNext(): void {
    if (this.#queue.length === 0) return;
    this.#connection ??= new LookupConnection(this.#options, {
      opened: () => this.#askNext(),
      answered: (lookup, record) => this.#answered(lookup, record),
      ended: (connection, error) => this.#ended(connection, error),
    });
    while (this.#queue.length > 0 && this.#connection.hasRoom())
      this.#connection.ask(this.#queue.shift()!);
  }

  #answered(lookup: Lookup, record: NodeRecord | undefined): void {
    const { nodeId } = lookup;
    const key = record && keyIn(record);
    if (record && !key) {
      const reason = `has no key in standard base64 for node ${nodeId}: that node has to register again`;
      this.#reject(lookup, this.#error("invalid", reason));
    } else {
      if (key) this.#found.add(nodeId, key);
      else this.#unknown.add(nodeId, true);
      this.#lookups.delete(nodeId);
      lookup.resolve(key);
    }
    this.#askNext();
  }

  #ended(
    { wasOpened, wasIdle, unanswered }: LookupConnection,
    { code, message }: RegistryError,
  ): void {
    this.#connection = undefined;
    const error = this.#error(code, message);
    if (!wasOpened) {
      this.#rejectAll(error); // a registry that cannot be had keeps nobody waiting
    } else if (wasIdle && code === "closed") {
      // It may have been closed for idleness while these were on their way to it. They are the
      // first to be asked on the next connection, which is not idle before it has answered them: so
      // none is asked a third time.
      this.#queue.unshift(...unanswered);
    } else {
      for (const lookup of unanswered) this.#reject(lookup, error);
    }
    this.#askNext();
  }

  #rejectAll(error: KeySourceError): void {
    this.#queue = [];
    for (const lookup of this.#lookups.values()) this.#reject(lookup, error);
  }

  #reject(lookup: Lookup, error: KeySourceError): void {
    this.#lookups.delete(lookup.nodeId);
    lookup.reject(error);
  }

  #error(code: KeySourceErrorCode, message: string): KeySourceError {
    return new KeySourceError(code, ofRegistry(this.#options.registry, message));
  }
}

/** What the registry knows of a node, as far as it matters here. */
interface NodeRecord {
  readonly public_key?: unknown;
}

function lookupOf(nodeId: number): Question<NodeRecord> {
  return {
    request: { type: "lookup", node_id: nodeId },
    answer: v.object({
      type: v.literal("lookup_ok"),
      node_id: v.literal(nodeId),
      // a wrong one is this node's matter, not the connection's
      public_key: v.optional(v.unknown()),
    }),
    expected: `{"type":"lookup_ok","node_id":${nodeId},"public_key":"<base64>"}`,
  };
}

function keyIn({ public_key: text }: NodeRecord): Uint8Array | undefined {
  return typeof text === "string" && text.length <= KEY_CHARS_MAX ? bytesOfBase64(text) : undefined;
}

interface ConnectionOwner {
  /** It may be asked. */
  opened(): void;
  /** @param record undefined for a node that the registry does not know */
  answered(lookup: Lookup, record: NodeRecord | undefined): void;
  /** It is of no use any more, not even for what is unanswered. */
  ended(connection: LookupConnection, error: RegistryError): void;
}

/** One connection and the questions on it. The first thing that goes wrong ends it. */
class LookupConnection {
  wasOpened = false;
  /** There was a time without questions. */
  wasIdle = false;
  /** In the order in which they were asked. */
  readonly unanswered: Lookup[] = [];
  readonly #socket: Socket;
  readonly #reader = new FrameReader();
  /** Runs while there is something to wait for, and keeps the process alive as long. */
  #timer: Timer;
  #isClosed = false;

  constructor(
    private readonly options: Required<RegistryKeysOptions>,
    private readonly owner: ConnectionOwner,
  ) {
    const { registry, connectMs } = options;
    this.#timer = setTimeout(() => this.#end(notConnectedInTime(connectMs)), connectMs);
    this.#socket = connectTo(registry);
    this.#socket.unref();
    this.#socket.on("connect", () => this.#opened());
    this.#socket.on("data", (chunk: Uint8Array) => this.#read(chunk));
    this.#socket.on("error", (error) =>
      this.#end(this.wasOpened ? connectionClosed(AWAITED, error) : notConnected(error)),
    );
    this.#socket.on("close", () => this.#end(connectionClosed(AWAITED)));
  }

  hasRoom(): boolean {
    return this.wasOpened && this.unanswered.length < this.options.inFlightMax;
  }

  ask(lookup: Lookup): void {
    this.unanswered.push(lookup);
    this.#socket.write(frameOf(lookupOf(lookup.nodeId).request));
    if (this.unanswered.length === 1) this.#awaitAnswer();
  }

  /** Ends it without a word to its owner. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#socket.destroy();
  }

  #end(error: RegistryError): void {
    if (this.#isClosed) return;
    this.close();
    this.owner.ended(this, error);
  }

  #opened(): void {
    clearTimeout(this.#timer);
    this.wasOpened = true;
    this.owner.opened();
  }

  #awaitAnswer(): void {
    const { answerMs } = this.options;
    this.#timer = setTimeout(() => this.#end(notDoneInTime(AWAITED, answerMs)), answerMs);
  }

  #read(chunk: Uint8Array): void {
    try {
      for (const json of this.#reader.push(chunk)) this.#take(json);
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error;
      this.#end(error);
    }
  }

  /** @throws RegistryError "invalid" */
  #take(json: Uint8Array): void {
    const [lookup] = this.unanswered;
    if (!lookup) throw new RegistryError("invalid", `answers what nobody asked: ${WRONG_PROGRAM}`);
    const read = readAnswer(json, lookupOf(lookup.nodeId));
    clearTimeout(this.#timer);
    this.unanswered.shift();
    if (this.unanswered.length > 0) this.#awaitAnswer();
    this.owner.answered(lookup, "answer" in read ? read.answer : undefined);
    if (this.unanswered.length === 0) this.wasIdle = true;
  }
}

/** What was learnt a short while ago, by id. When it is full, the oldest goes. */
export class RecentAnswers<Value> {
  readonly #entries = new Map<number, { readonly value: Value; readonly untilMs: number }>();
  /** Ids in a ring, oldest at #oldest: a Map finds its first entry slowly after deletions. */
  readonly #order: number[] = [];
  #oldest = 0;

  /** @param lifeMs for which an answer is kept @param sizeMax how many are kept at once */
  constructor(
    private readonly lifeMs: number,
    private readonly sizeMax: number,
    private readonly nowMs: () => number,
  ) {}

  /** Answers that are kept now. */
  get size(): number {
    return this.#entries.size;
  }

  get(id: number): Value | undefined {
    this.#forgetExpired();
    return this.#entries.get(id)?.value;
  }

  /** @param id one that has no answer here */
  add(id: number, value: Value): void {
    if (this.size === this.sizeMax) this.#forgetOldest();
    this.#order[(this.#oldest + this.size) % this.sizeMax] = id;
    this.#entries.set(id, { value, untilMs: this.nowMs() + this.lifeMs });
  }

  #forgetExpired(): void {
    const now = this.nowMs();
    while (this.size > 0 && this.#entries.get(this.#order[this.#oldest]!)!.untilMs <= now)
      this.#forgetOldest();
  }

  #forgetOldest(): void {
    this.#entries.delete(this.#order[this.#oldest]!);
    this.#oldest = (this.#oldest + 1) % this.sizeMax;
  }
}
