/**
 * A worker's mailbox: messages that the main thread has to see to, in a ring of bounded size. The worker puts in, the main thread
 * takes out, neither waits for the other. What finds no room is the sender's loss, as with a socket's buffer.
 *
 * A message in the ring is a head of MESSAGE_HEAD_WORDS words (its length in the ring in words, its bytes or SKIP, its source endpoint)
 * and its bytes, in one piece. Where the ring's end comes too soon for one, a SKIP fills the rest.
 */
import { ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import {
  MAIL,
  MAILBOX_BEGUN,
  MAILBOX_HEAD,
  MAILBOX_RING,
  MAILBOX_TAIL,
  MAILBOX_WORDS,
  type SharedMemory,
} from "./memory.ts";

const WORDS = 0;
const BYTES = 1;
const SOURCE = 2;
const MESSAGE_HEAD_WORDS = 2 + ENDPOINT_WORDS;
const SKIP = -1;
if ((MAILBOX_WORDS & (MAILBOX_WORDS - 1)) !== 0) throw new Error("MAILBOX_WORDS must be a power of two");

/** The largest message. */
export const MAILBOX_MESSAGE_BYTES_MAX = 65_536;
if (MESSAGE_HEAD_WORDS + MAILBOX_MESSAGE_BYTES_MAX / 4 > MAILBOX_WORDS)
  throw new Error("the mailbox is too small for the largest message");

/** What the main thread finds in a mailbox; valid until it takes the next one. */
export interface Mail {
  /** Where the message starts in the shared memory's bytes, and its length. */
  readonly at: number;
  readonly bytes: number;
  /** Index of its source endpoint in the shared memory's words. */
  readonly sourceAt: number;
}

export class Mailbox {
  readonly #words: Int32Array;
  readonly #head: number;
  readonly #begun: number;
  readonly #tail: number;
  readonly #ring: number;

  constructor(
    private readonly memory: SharedMemory,
    worker: number,
  ) {
    const at = memory.mailbox(worker);
    this.#words = memory.words;
    this.#head = at + MAILBOX_HEAD;
    this.#begun = at + MAILBOX_BEGUN;
    this.#tail = at + MAILBOX_TAIL;
    this.#ring = at + MAILBOX_RING;
  }

  /**
   * Puts a message in and wakes the main thread. Worker only.
   * @param source the endpoint it came from
   * @param message at most MAILBOX_MESSAGE_BYTES_MAX bytes
   * @returns false if there was no room
   */
  put(source: Int32Array, message: Uint8Array): boolean {
    const words = this.#words;
    const size = MESSAGE_HEAD_WORDS + ((message.length + 3) >>> 2);
    let head = words[this.#head]!;
    let free = MAILBOX_WORDS - ((head - Atomics.load(words, this.#tail)) | 0);
    // An empty ring is begun anew, so that no more of its memory is touched than was full at once.
    if (free === MAILBOX_WORDS) Atomics.store(words, this.#begun, head);
    const toEnd = MAILBOX_WORDS - this.#offset(head);
    if (toEnd < size) {
      if (free < toEnd + size) return false;
      const skip = this.#ring + this.#offset(head);
      words[skip + WORDS] = toEnd;
      if (toEnd > BYTES) words[skip + BYTES] = SKIP;
      head = (head + toEnd) | 0;
      free -= toEnd;
    }
    if (free < size) return false;
    const at = this.#ring + this.#offset(head);
    words[at + WORDS] = size;
    words[at + BYTES] = message.length;
    words.set(source, at + SOURCE);
    this.memory.bytes.set(message, (at + MESSAGE_HEAD_WORDS) * 4);
    Atomics.store(words, this.#head, (head + size) | 0);
    Atomics.add(words, MAIL, 1);
    Atomics.notify(words, MAIL);
    return true;
  }

  /** The oldest message, or undefined. It stays until `drop`. Main thread only. */
  peek(): Mail | undefined {
    const words = this.#words;
    const head = Atomics.load(words, this.#head);
    for (let tail = words[this.#tail]!; tail !== head; ) {
      const at = this.#ring + this.#offset(tail);
      const size = words[at + WORDS]!;
      if (size > BYTES && words[at + BYTES] !== SKIP) {
        return { at: (at + MESSAGE_HEAD_WORDS) * 4, bytes: words[at + BYTES]!, sourceAt: at + SOURCE };
      }
      tail = (tail + size) | 0;
      Atomics.store(words, this.#tail, tail);
    }
    return undefined;
  }

  /** Frees the room of the message that `peek` returned. Main thread only. */
  drop(): void {
    const words = this.#words;
    const tail = words[this.#tail]!;
    const size = words[this.#ring + this.#offset(tail) + WORDS]!;
    Atomics.store(words, this.#tail, (tail + size) | 0);
  }

  /** Where the ring has the word that is put in after `count` others. For the main thread only while the ring is not empty. */
  #offset(count: number): number {
    return (count - Atomics.load(this.#words, this.#begun)) & (MAILBOX_WORDS - 1);
  }
}
