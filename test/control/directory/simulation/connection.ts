/**
 * A beacon's connection to the server: calls take time, take effect or not, and are answered or
 * not.
 */
import {
  type AppendOptions,
  type LogEntry,
  type LogSize,
  NO_ENTRY,
  type Store,
} from "../../../../src/control/directory/store.ts";
import type { StoreError } from "../../../../src/control/directory/store-error.ts";
import type { Chance } from "./chance.ts";
import { refusal, type Server } from "./server.ts";
import type { Owner, Timeline } from "./timeline.ts";

/** As with the real ones. */
const ANSWER_MS = 5_000;
const READ_WAIT_MS = 2_000;

/** How long calls take. */
export interface Delays {
  /** One way, at most. */
  readonly usualMs: number;
  /** Of so many calls, one takes up to a second. */
  readonly slowOf: number;
  /**
   * For there and back, when the server is asked for its time: at least, at most. Half of that is
   * how wrong a beacon's clock may be.
   */
  readonly timeMs: readonly [number, number];
}

export interface ConnectionParts {
  readonly timeline: Timeline;
  readonly chance: Chance;
  readonly delays: Delays;
  /** The process. */
  readonly owner: Owner;
  readonly server: Server;
  readonly monotonicMs: () => number;
  /**
   * How much of the way there and back is the way there when the time is asked for; undefined: now
   * this, now that.
   */
  readonly thereShare: number | undefined;
  /** Added to the server's time. */
  readonly timeAheadMs: number;
  /** A call is open, or no longer. */
  readonly opened: (calls: number) => void;
}

interface Call {
  readonly sentMs: number;
  readonly limitMs: number;
  readonly fail: (error: StoreError) => void;
  /** Its effect, until it has it; what happens then. */
  execute: (() => void) | undefined;
}

/** Calls of one line take effect in their order, and are answered in it. */
class Line {
  arrivesMs = 0;
  answersMs = 0;
}

export class SimulatedStore implements Store {
  readonly server = "server";
  readonly ended: Promise<StoreError>;
  roundTripMs = 0;
  #end!: (reason: StoreError) => void;
  #over: StoreError | undefined;
  /** What no longer arrives. */
  #isDeaf = false;
  #isMute = false;
  readonly #calls = new Set<Call>();
  /** Ids of entries that readings of this connection lack; how many are to follow. */
  readonly #dropped = new Set<string>();
  #toDrop = 0;
  readonly #commands = new Line();
  readonly #reader = new Line();

  constructor(private readonly parts: ConnectionParts) {
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  get isOver(): boolean {
    return this.#over !== undefined;
  }

  get owner(): Owner {
    return this.parts.owner;
  }

  get of(): Server {
    return this.parts.server;
  }

  append(entry: Uint8Array, { extra, trimTo }: AppendOptions): Promise<void> {
    const [bytes, extraBytes] = [entry.slice(), extra?.slice()];
    return this.#write((server) => server.append(bytes, extraBytes, trimTo));
  }

  trim(id: string): Promise<void> {
    return this.#ask((server) => server.trimTo(id));
  }

  logSize(): Promise<LogSize> {
    return this.#ask((server) => server.logSize());
  }

  first(): Promise<LogEntry> {
    return this.#ask((server) => server.entriesBehind(NO_ENTRY.id)[0] ?? NO_ENTRY);
  }

  last(): Promise<LogEntry> {
    return this.#ask((server) => server.last());
  }

  read(after: string): Promise<readonly LogEntry[]> {
    return this.#call<readonly LogEntry[]>(
      this.#reader,
      (answer, fail) => this.#executeRead(after, answer, fail),
      READ_WAIT_MS + ANSWER_MS,
    );
  }

  beacons(max: number, onTooMany = () => {}): Promise<ReadonlyMap<string, Uint8Array>> {
    return this.#ask((server) => {
      if (server.hash.size > max) onTooMany();
      return new Map([...server.hash].slice(0, max));
    });
  }

  setBeacon(name: string, lease: Uint8Array): Promise<void> {
    const bytes = lease.slice();
    return this.#write((server) => server.setField(name, bytes));
  }

  removeBeacon(name: string): Promise<void> {
    return this.#ask((server) => server.setField(name, undefined));
  }

  putPart(key: string, bytes: Uint8Array, ttlMs: number): Promise<void> {
    const copy = bytes.slice();
    return this.#write((server) => server.setPart(key, copy, ttlMs));
  }

  keepPart(key: string, ttlMs: number): Promise<boolean> {
    return this.#ask((server) => {
      const part = server.part(key);
      if (part !== undefined) server.setPart(key, part.bytes, ttlMs);
      return part !== undefined;
    });
  }

  getPart(key: string, maxBytes: number): Promise<Uint8Array | undefined> {
    return this.#ask((server) => {
      const bytes = server.part(key)?.bytes;
      if (bytes !== undefined && bytes.length > maxBytes)
        throw refusal("malformed", "a part is too large", false);
      return bytes?.length === 0 ? undefined : bytes?.slice();
    });
  }

  time(): Promise<number> {
    const { server, delays, timeAheadMs } = this.parts;
    return this.#call<number>(
      new Line(),
      (answer) => answer(Math.floor((server.nowMs + timeAheadMs) * 1000) / 1000),
      ANSWER_MS,
      delays.timeMs,
    );
  }

  close(): void {
    this.#close(refusal("unreachable", "closed by this beacon"));
  }

  /** This reader, and no other, does not get the next entries. */
  drop(entries: number): void {
    this.#toDrop += entries;
  }

  /** Calls no longer arrive, or no longer their answers, and nobody is told. */
  lose(calls: boolean, answers: boolean): void {
    this.#isMute ||= calls;
    this.#isDeaf ||= answers;
    for (const call of this.#calls) this.#limit(call);
  }

  /**
   * It ends; the beacon sees that after a while.
   * @param isLate what is under way takes effect before
   */
  cut(isLate: boolean, seenAfterMs: number): void {
    const { timeline, owner } = this.parts;
    if (isLate && !this.#isMute)
      for (const call of [...this.#calls]) {
        const { execute } = call;
        call.execute = undefined;
        execute?.();
      }
    this.#isMute = true;
    this.#isDeaf = true;
    timeline.after(seenAfterMs, owner, () =>
      this.#close(refusal("unreachable", "the connection was closed")),
    );
  }

  #close(reason: StoreError): void {
    if (this.#over !== undefined) return;
    this.#over = reason;
    this.#end(reason);
    for (const call of [...this.#calls]) call.fail(reason);
  }

  #ask<T>(execute: (server: Server) => T): Promise<T> {
    return this.#call<T>(this.#commands, (answer, fail) => {
      try {
        answer(execute(this.parts.server));
      } catch (error) {
        fail(error as StoreError);
      }
    });
  }

  #write(execute: (server: Server) => void): Promise<void> {
    return this.#ask((server) => {
      server.mustTakeWrites();
      execute(server);
    });
  }

  #executeRead(
    after: string,
    answer: (entries: readonly LogEntry[]) => void,
    fail: (error: StoreError) => void,
  ): void {
    const { server, timeline } = this.parts;
    const entries = this.#entriesBehind(after);
    if (entries.length > 0) {
      answer(entries);
      return;
    }
    const wake = () => {
      timer.run = undefined;
      server.readers.delete(wake);
      if (server.isReplica) fail(refusal("read_only", "is a replica now"));
      else answer(this.#entriesBehind(after));
    };
    const timer = timeline.after(READ_WAIT_MS, undefined, wake);
    server.readers.add(wake);
  }

  #entriesBehind(after: string): readonly LogEntry[] {
    const entries = this.parts.server.entriesBehind(after);
    for (const { id } of entries) {
      if (this.#toDrop === 0) break;
      if (this.#dropped.has(id)) continue;
      this.#dropped.add(id);
      this.#toDrop--;
    }
    return this.#dropped.size === 0 ? entries : entries.filter(({ id }) => !this.#dropped.has(id));
  }

  /** @param bothWaysMs at most; undefined: as long as it takes */
  #call<T>(
    line: Line,
    execute: (answer: (value: T) => void, fail: (error: StoreError) => void) => void,
    limitMs = ANSWER_MS,
    bothWaysMs?: readonly [number, number],
  ): Promise<T> {
    const { timeline, chance, owner, opened, monotonicMs, thereShare } = this.parts;
    if (this.#over !== undefined) return Promise.reject(this.#over);
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const beganMs = monotonicMs();
    const settle = (run: () => void) => {
      if (!this.#calls.delete(call)) return;
      opened(-1);
      run();
    };
    const total = bothWaysMs && chance.between(...bothWaysMs);
    const thereMs = total === undefined ? this.#delay() : total * (thereShare ?? chance.unit());
    const call: Call = {
      sentMs: timeline.nowMs,
      limitMs,
      fail: (error) => settle(() => reject(error)),
      execute: () =>
        execute(
          (value) => answered(() => resolve(value)),
          (error) => answered(() => this.#fail(error, reject)),
        ),
    };
    const answered = (then: () => void) => {
      line.answersMs = Math.max(
        line.answersMs,
        timeline.nowMs + (total === undefined ? this.#delay() : total - thereMs),
      );
      timeline.after(line.answersMs - timeline.nowMs, owner, () => {
        if (this.#isDeaf) return;
        settle(() => {
          this.roundTripMs = monotonicMs() - beganMs;
          then();
        });
      });
    };
    opened(1);
    this.#calls.add(call);
    line.arrivesMs = Math.max(line.arrivesMs, timeline.nowMs + thereMs);
    timeline.after(line.arrivesMs - timeline.nowMs, undefined, () => {
      const { execute: effect } = call;
      call.execute = undefined;
      if (!this.#isMute) effect?.();
    });
    if (this.#isMute || this.#isDeaf) this.#limit(call);
    return promise;
  }

  #fail(error: StoreError, reject: (error: StoreError) => void): void {
    reject(error);
    if (error.endsConnection) this.#close(error);
  }

  /** Nothing is waited for forever. Where answers come it is not needed. */
  #limit(call: Call): void {
    const { timeline, owner } = this.parts;
    timeline.after(call.sentMs + call.limitMs - timeline.nowMs, owner, () => {
      if (this.#calls.has(call)) this.#close(refusal("slow", "does not answer"));
    });
  }

  #delay(): number {
    const { chance, delays } = this.parts;
    const slowMs = delays.slowOf > 0 && chance.below(delays.slowOf) === 0 ? chance.unit() * 500 : 0;
    return slowMs + chance.unit() * delays.usualMs;
  }
}
