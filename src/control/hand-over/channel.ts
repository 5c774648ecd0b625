/** The channel of a hand-over: messages over a pair of Unix sockets, with timeouts. */
import { isClosed, MESSAGE_BYTES_MAX, type UnixChannel } from "../../../ffi/unix-channel.ts";

/**
 * What a message is about; its number on the wire is its place here, so new ones go to the end.
 *
 * From the old process to the new one: `offer`, its sockets and what goes with them; `prepare`,
 * that every section was sent once; `sync`, which is answered when all before it is read; `go`,
 * that it has stopped receiving; `commit`, that it is no longer the service. From the new one:
 * `prepared`, `synced`, `serving`, and `refused`, with the reason.
 *
 * `section` is a message of a feature's section. Those of earlier versions have a kind of their
 * own, which is the section of that name in its version 1: nodes, names, instances, routes, cells,
 * breakers, claims, listeners, removed.
 */
export const KINDS = [
  "offer",
  "nodes",
  "names",
  "instances",
  "routes",
  "cells",
  "breakers",
  "prepare",
  "sync",
  "go",
  "commit",
  "prepared",
  "synced",
  "serving",
  "refused",
  "claims",
  "listeners",
  "removed",
  "section",
] as const;
export type Kind = (typeof KINDS)[number];

/** Its kind in the first byte, and zeros: so the body can be read as words and floats. */
const HEAD_BYTES = 8;
export const BODY_BYTES_MAX = MESSAGE_BYTES_MAX - HEAD_BYTES;

/** A raw descriptor cannot be waited for (Bun 1.4.5): it is looked at so often. */
const POLL_MS = 1;

/** Sections that have a kind of message of their own. */
export const SECTION_KINDS = [
  "nodes",
  "names",
  "instances",
  "routes",
  "cells",
  "breakers",
  "claims",
  "listeners",
  "removed",
] as const satisfies readonly Kind[];

export interface Message {
  readonly kind: Kind;
  /** Good until the next one is received. */
  readonly body: Uint8Array;
  readonly fds: readonly number[];
}

export interface Waiting {
  /** When to give up, on the clock of performance.now. */
  readonly untilMs?: number;
  readonly signal?: AbortSignal;
}

/** Nothing came in time. */
export class LateError extends Error {
  override readonly name = "LateError";
}

/** What came is not of the format; the message says how. */
export class FormatError extends Error {
  override readonly name = "FormatError";
}

export class Channel {
  readonly #message = new Uint8Array(MESSAGE_BYTES_MAX);

  constructor(private readonly end: UnixChannel) {}

  /**
   * Sends a message, once there is room.
   * @param body at most BODY_BYTES_MAX
   * @returns false if the other process has closed its end
   * @throws LateError, or the signal's reason
   */
  async send(
    kind: Kind,
    body: Uint8Array = new Uint8Array(0),
    fds: readonly number[] = [],
    waiting: Waiting = {},
  ): Promise<boolean> {
    if (body.length > BODY_BYTES_MAX)
      throw new RangeError(`a message of ${body.length} bytes is too large`);
    this.#message[0] = KINDS.indexOf(kind);
    this.#message.set(body, HEAD_BYTES);
    const message = this.#message.subarray(0, HEAD_BYTES + body.length);
    try {
      while (!this.end.send(message, fds)) await pause(waiting);
      return true;
    } catch (error) {
      if (isClosed(error)) return false;
      throw error;
    }
  }

  sendJson(
    kind: Kind,
    value: unknown,
    fds: readonly number[] = [],
    waiting: Waiting = {},
  ): Promise<boolean> {
    return this.send(kind, new TextEncoder().encode(JSON.stringify(value)), fds, waiting);
  }

  /**
   * Waits for the next message.
   * @returns undefined when the other process has closed its end, or is dead
   * @throws LateError, or the signal's reason; FormatError
   */
  async receive(waiting: Waiting = {}): Promise<Message | undefined> {
    for (;;) {
      const received = this.end.receive();
      if (received === "closed") return undefined;
      if (received === undefined) {
        await pause(waiting);
        continue;
      }
      const kind = KINDS[received.bytes[0]!];
      if (received.bytes.length < HEAD_BYTES || kind === undefined)
        throw new FormatError("a message is of no kind that is known");
      return { kind, body: received.bytes.subarray(HEAD_BYTES), fds: received.fds };
    }
  }

  close(): void {
    this.end.close();
  }
}

async function pause({ untilMs = Number.POSITIVE_INFINITY, signal }: Waiting): Promise<void> {
  signal?.throwIfAborted();
  if (performance.now() >= untilMs) throw new LateError("nothing came in time");
  await Bun.sleep(POLL_MS);
}
