/**
 * What a fleet's beacons share, in a Redis or Valkey server: a log, a hash of the beacons, and the
 * parts of snapshots. All keys hold {prefix}, so that they lie on one node of a cluster:
 *
 *   {prefix}:log           stream; each entry has a field e, and perhaps a field x behind it, base64
 *   {prefix}:beacons       hash; a beacon's name to its last lease, base64
 *   {prefix}:nodes:<key>   a part of a snapshot, binary, with a time to live
 *   {prefix}:probe         never written; what a write comes to is tried on it
 */
import * as v from "valibot";
import { hostPort } from "../../../ffi/host-port.ts";
import type { HostPort } from "../../config/units.ts";
import { bytesOfBase64 } from "../keys/keys.ts";
import { Connection } from "./connection.ts";
import type { Login } from "./login.ts";
import { CLOSED_BY_US, ofServer, type ServerName, StoreError } from "./store-error.ts";
import { targetOf } from "./target.ts";

/** Entries of one reading. */
export const READ_COUNT = 256;
/** Timeout in ms of a read without entries; it also reveals a dead connection. */
const READ_WAIT_MS = 2_000;
/** Fields asked for at once. */
const SCAN_COUNT = 256;
/** Scans of a hash at least: one that shrank still has room for many fields. */
const SCANS_MIN = 16;
const SCANS_FACTOR = 4;

export interface LogEntry {
  /** "<ms>-<count>", as the server gave it. */
  readonly id: string;
  /** Content of the field `e`; undefined: not base64, or not ours. */
  readonly bytes: Uint8Array | undefined;
  /** Content of the field `x`; undefined: no such field, or not base64. */
  readonly extra: Uint8Array | undefined;
}

/** Stands before all entries. */
export const NO_ENTRY: LogEntry = { id: "0-0", bytes: undefined, extra: undefined };

export interface AppendOptions {
  /** Goes into the field `x`, which beacons of earlier versions ignore. */
  readonly extra?: Uint8Array | undefined;
  /** Drops most of the entries with lower ids; the id of NO_ENTRY drops none. */
  readonly trimTo: string;
}

/** Undefined: the user lacks the right to ask for it. */
export interface LogSize {
  readonly entries: number | undefined;
  readonly bytes: number | undefined;
}

/** Every call rejects with a StoreError, and with nothing else. */
export interface Store {
  /** "host:port" of the server in use. */
  readonly server: string;
  /** Settles (never rejects) with the reason once the connection is of no use any more. */
  readonly ended: Promise<StoreError>;
  /** Round trip of the last command, ms. */
  readonly roundTripMs: number;
  append(entry: Uint8Array, options: AppendOptions): Promise<void>;
  /** Drops all entries with lower ids, also while the server is full. */
  trim(id: string): Promise<void>;
  logSize(): Promise<LogSize>;
  /** The first entry, and the last one; NO_ENTRY if there is none. */
  first(): Promise<LogEntry>;
  last(): Promise<LogEntry>;
  /** Reads up to READ_COUNT entries after `after`; waits up to 2 s for the first. */
  read(after: string): Promise<readonly LogEntry[]>;
  /** Returns leases by name, at most `max`; calls `onTooMany` if there are more. */
  beacons(max: number, onTooMany?: () => void): Promise<ReadonlyMap<string, Uint8Array>>;
  setBeacon(name: string, lease: Uint8Array): Promise<void>;
  removeBeacon(name: string): Promise<void>;
  /** An immutable part of a snapshot. */
  putPart(key: string, bytes: Uint8Array, ttlMs: number): Promise<void>;
  /** Gives it so much more time. @returns false if it is gone */
  keepPart(key: string, ttlMs: number): Promise<boolean>;
  /** undefined: gone. @throws StoreError malformed if it is larger than maxBytes */
  getPart(key: string, maxBytes: number): Promise<Uint8Array | undefined>;
  /** The server's time, in ms since 1970, when it answered. */
  time(): Promise<number>;
  /** Open calls reject. Safe more than once. */
  close(): void;
}

export interface StoreOptions extends Login {
  /** At least one. */
  readonly servers: readonly HostPort[];
  readonly database: number;
  readonly prefix: string;
  /** How long `read` waits for its first entry. Default: 2000. */
  readonly readWaitMs?: number;
}

/**
 * Tries the servers in turn, and takes the first that is a primary and lets us in.
 * @param first the index to begin with, any whole number: one more than that of a server that
 * failed tries it last
 * @throws StoreError whose message has every server's reason, in the order of their names, and what
 * to do; it is of the first that was
 * reached, as who is not there tells less: the same one wherever the round began
 */
export async function connectStore(options: StoreOptions, first = 0): Promise<Store> {
  const { servers } = options;
  const reasons: StoreError[] = [];
  for (let i = 0; i < servers.length && (i === 0 || !options.signal?.aborted); i++) {
    const server = (first + i) % servers.length;
    try {
      return await RedisStore.open(options, servers[server]!);
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      reasons[server] = error;
    }
  }
  const asked = reasons.filter(() => true); // those that there was time for
  const { failure } = asked.find((one) => one.failure !== "unreachable") ?? asked[0]!;
  throw new StoreError(failure, asked.map(({ message }) => message).join("; "));
}

const number = v.pipe(v.number(), v.integer(), v.minValue(0));
const entryId = v.pipe(v.string(), v.regex(/^\d{1,20}-\d{1,20}$/));
/** Counted before any of them is looked at. */
const entries = v.pipe(
  v.array(v.unknown()),
  v.maxLength(READ_COUNT),
  v.array(v.tuple([entryId, v.array(v.string())])),
);
const scan = v.tuple([v.string(), v.array(v.string())]);
const clock = v.tuple([v.pipe(v.string(), v.digits()), v.pipe(v.string(), v.digits())]);
/** What HELLO tells of a server. */
const hello = v.object({ mode: v.optional(v.string()), role: v.optional(v.string()) });

class RedisStore implements Store {
  readonly ended: Promise<StoreError>;
  /** One connection for commands, one that waits for entries: answers come in order. */
  readonly #commands: Connection;
  readonly #reader: Connection;
  readonly #prefix: string;
  readonly #readWaitMs: number;

  private constructor(
    private readonly name: ServerName,
    { prefix, readWaitMs = READ_WAIT_MS }: StoreOptions,
    connections: readonly [Connection, Connection],
    ended: Promise<StoreError>,
  ) {
    this.#prefix = `{${prefix}}`;
    this.#readWaitMs = readWaitMs;
    [this.#commands, this.#reader] = connections;
    this.ended = ended.then((reason) => {
      for (const connection of connections) connection.close(reason);
      return reason;
    });
  }

  /** @throws StoreError */
  static async open(options: StoreOptions, server: HostPort): Promise<RedisStore> {
    const name = { server: hostPort(server.host, server.port), secret: options.password };
    const { promise: ended, resolve: end } = Promise.withResolvers<StoreError>();
    const opened: Connection[] = [];
    const giveUp = () => {
      for (const connection of opened)
        connection.close(ofServer(name, "unreachable", CLOSED_BY_US));
    };
    options.signal?.addEventListener("abort", giveUp);
    try {
      const target = await targetOf(server, name, options);
      const commands = await Connection.open(target, name, options, end);
      opened.push(commands);
      await enter(commands, name, options);
      const reader = await Connection.open(target, name, options, end);
      opened.push(reader);
      await enter(reader, name, options);
      const store = new RedisStore(name, options, [commands, reader], ended);
      await store.#tryToWrite();
      return store;
    } catch (error) {
      for (const connection of opened) connection.close(error as StoreError);
      throw error;
    } finally {
      options.signal?.removeEventListener("abort", giveUp);
    }
  }

  get server(): string {
    return this.name.server;
  }

  get roundTripMs(): number {
    return this.#commands.roundTripMs;
  }

  async append(entry: Uint8Array, { extra, trimTo }: AppendOptions): Promise<void> {
    const fields = ["e", base64(entry), ...(extra === undefined ? [] : ["x", base64(extra)])];
    await this.#ask(entryId, "XADD", [this.#key("log"), "MINID", "~", trimTo, "*", ...fields]);
  }

  async trim(id: string): Promise<void> {
    await this.#ask(number, "XTRIM", [this.#key("log"), "MINID", "=", id]);
  }

  async logSize(): Promise<LogSize> {
    const entries = await this.#askIfAllowed("XLEN", [this.#key("log")]);
    return { entries, bytes: await this.#askIfAllowed("MEMORY", ["USAGE", this.#key("log")]) };
  }

  first(): Promise<LogEntry> {
    return this.#entry("XRANGE", "-", "+");
  }

  last(): Promise<LogEntry> {
    return this.#entry("XREVRANGE", "+", "-");
  }

  async read(after: string): Promise<readonly LogEntry[]> {
    const key = this.#key("log");
    const args = ["COUNT", `${READ_COUNT}`, "BLOCK", `${this.#readWaitMs}`, "STREAMS", key, after];
    const reply = await this.#reader.ask("XREAD", args, this.#readWaitMs);
    if (reply === null) return [];
    const logs = checked(this.#reader, "XREAD", v.object({ [key]: entries }), reply);
    return entriesOf(logs[key]!);
  }

  async beacons(max: number, onTooMany = () => {}): Promise<ReadonlyMap<string, Uint8Array>> {
    const found = new Map<string, Uint8Array>();
    let cursor = "0";
    // The same field may come more than once, and a server could go on for ever.
    for (let left = SCANS_MIN + Math.ceil((SCANS_FACTOR * max) / SCAN_COUNT); left > 0; left--) {
      const args = [this.#key("beacons"), cursor, "COUNT", `${SCAN_COUNT}`];
      const [next, fields] = await this.#ask(scan, "HSCAN", args);
      for (let i = 0; i + 1 < fields.length; i += 2) {
        const lease = bytesOfBase64(fields[i + 1]!);
        if (lease === undefined) continue;
        if (found.size === max && !found.has(fields[i]!)) {
          onTooMany();
          return found;
        }
        found.set(fields[i]!, lease);
      }
      if (next === "0") return found;
      cursor = next;
    }
    onTooMany();
    return found;
  }

  async setBeacon(name: string, lease: Uint8Array): Promise<void> {
    await this.#ask(number, "HSET", [this.#key("beacons"), name, base64(lease)]);
  }

  async removeBeacon(name: string): Promise<void> {
    await this.#ask(number, "HDEL", [this.#key("beacons"), name]);
  }

  async putPart(key: string, bytes: Uint8Array, ttlMs: number): Promise<void> {
    const send = (client: Bun.RedisClient) => client.set(this.#partKey(key), bytes, "PX", ttlMs);
    checked(this.#commands, "SET", v.literal("OK"), await this.#commands.run("SET", send));
  }

  async keepPart(key: string, ttlMs: number): Promise<boolean> {
    return (await this.#ask(v.picklist([0, 1]), "PEXPIRE", [this.#partKey(key), `${ttlMs}`])) === 1;
  }

  async getPart(key: string, maxBytes: number): Promise<Uint8Array | undefined> {
    const length = await this.#ask(number, "STRLEN", [this.#partKey(key)]);
    if (length > maxBytes) {
      const message = `a snapshot's part has ${length} bytes, ${maxBytes} are the limit: who else writes to ${this.#prefix}?`;
      throw ofServer(this.name, "malformed", message, false);
    }
    if (length === 0) return undefined;
    const reply = await this.#commands.run("GET", (client) => client.getBuffer(this.#partKey(key)));
    const part = v.nullable(v.pipe(v.instance(Uint8Array), v.maxLength(maxBytes)));
    const bytes = checked(this.#commands, "GET", part, reply);
    // in place of a Buffer
    return bytes ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length) : undefined;
  }

  async time(): Promise<number> {
    const [seconds, micros] = await this.#ask(clock, "TIME", []);
    return 1000 * Number(seconds) + Number(micros) / 1000;
  }

  close(): void {
    this.#commands.close(ofServer(this.name, "unreachable", CLOSED_BY_US));
  }

  /**
   * What a write comes to, with a command that writes nothing where there is no such key: it fails
   * as one that writes would, and where the server is too old for it. One that takes no writes for
   * now is good to read from.
   */
  async #tryToWrite(): Promise<void> {
    const args = [this.#key("probe"), "NOMKSTREAM", "MINID", "~", "0-0", "*", "e", ""];
    try {
      await this.#commands.ask("XADD", args);
    } catch (error) {
      if ((error as StoreError).failure !== "full") throw error;
    }
  }

  async #entry(command: "XRANGE" | "XREVRANGE", from: string, to: string): Promise<LogEntry> {
    const found = await this.#ask(entries, command, [this.#key("log"), from, to, "COUNT", "1"]);
    return entriesOf(found).at(0) ?? NO_ENTRY;
  }

  async #ask<T>(
    schema: v.GenericSchema<unknown, T>,
    command: string,
    args: readonly string[],
  ): Promise<T> {
    return checked(this.#commands, command, schema, await this.#commands.ask(command, args));
  }

  /** Asks for an optional number: undefined if the server refuses, 0 without a log. */
  async #askIfAllowed(command: string, args: string[]): Promise<number | undefined> {
    const send = (client: Bun.RedisClient) =>
      client.send(command, args).catch((error: { code?: string }) => {
        if (error.code === "ERR_REDIS_SERVER_ERROR") return undefined;
        throw error;
      });
    const reply = (await this.#commands.run(command, send)) as unknown;
    if (reply === undefined) return undefined;
    return checked(this.#commands, command, v.nullable(number), reply) ?? 0;
  }

  #key(name: string): string {
    return `${this.#prefix}:${name}`;
  }

  #partKey(key: string): string {
    return this.#key(`nodes:${key}`);
  }
}

/** Checks that the server can be written to; selects the database. @throws StoreError */
async function enter(
  connection: Connection,
  name: ServerName,
  { database }: Pick<StoreOptions, "database">,
): Promise<void> {
  // Of ROLE the answer is the same, but rights can forbid it; nobody can be forbidden this.
  const { mode, role } = checked(connection, "HELLO", hello, await connection.ask("HELLO"));
  if (mode === "sentinel")
    throw ofServer(
      name,
      "refused",
      "is a Sentinel: name the servers themselves in --directory, with commas between; the primary among them is found",
    );
  if (role === "replica" || role === "slave")
    throw ofServer(name, "read_only", "is a replica: name the primary, too, in --directory");
  if (database !== 0) await connection.ask("SELECT", [`${database}`]);
}

/** @throws StoreError "malformed"; the connection has ended then */
function checked<T>(
  connection: Connection,
  command: string,
  schema: v.GenericSchema<unknown, T>,
  reply: unknown,
): T {
  const result = v.safeParse(schema, reply, { abortEarly: true });
  if (result.success) return result.output;
  throw connection.misunderstood(command);
}

function entriesOf(list: v.InferOutput<typeof entries>): LogEntry[] {
  return list.map(([id, [first, e, second, x]]) => ({
    id,
    bytes: first === "e" && e !== undefined ? bytesOfBase64(e) : undefined,
    extra: second === "x" && x !== undefined ? bytesOfBase64(x) : undefined,
  }));
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}
