/**
 * A worker's mailbox: messages that the main thread has to see to, in a ring of bounded size. The
 * worker puts in, the main thread takes out, neither waits for the other. What finds no room is the
 * sender's loss, as with a socket's buffer.
 *
 * A message in the ring is a head of MESSAGE_HEAD_WORDS words (its length in the ring in words, its
 * bytes or SKIP, its label) and its bytes, in one piece. Where the ring's end comes too soon for
 * one, a SKIP fills the rest. The label is for those who put in and take out: whom the message came
 * from, or whom it is for.
 */
import { ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import {
  GRANTS,
  GRANTS_MAILBOX_WORDS,
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
const LABEL = 2;
const MESSAGE_HEAD_WORDS = 2 + ENDPOINT_WORDS;
const SKIP = -1;
for (const words of [MAILBOX_WORDS, GRANTS_MAILBOX_WORDS]) {
  if ((words & (words - 1)) !== 0) throw new Error("a mailbox's words must be a power of two");
}

/** The largest message of gossip and of frames. */
export const MAILBOX_MESSAGE_BYTES_MAX = 65_536;
if (MESSAGE_HEAD_WORDS + MAILBOX_MESSAGE_BYTES_MAX / 4 > MAILBOX_WORDS)
  throw new Error("the mailbox is too small for the largest message");

/** What the main thread finds in a mailbox. */
export interface Mail {
  /** Where the message starts in the shared memory's bytes, and its length. */
  readonly at: number;
  readonly bytes: number;
  /** Index of its label in the shared memory's words. */
  readonly labelAt: number;
}

/** The end at which a worker puts messages in. */
export class Mailbox {
  protected readonly words: Int32Array;
  protected readonly head: number;
  readonly #begun: number;
  protected readonly tail: number;
  protected readonly ring: number;
  readonly #ringWords: number;

  /** @param kind GOSSIP, FRAMES or GRANTS */
  constructor(memory: SharedMemory, kind: number, worker: number) {
    const at = memory.mailbox(kind, worker);
    this.words = memory.words;
    this.head = at + MAILBOX_HEAD;
    this.#begun = at + MAILBOX_BEGUN;
    this.tail = at + MAILBOX_TAIL;
    this.ring = at + MAILBOX_RING;
    this.#ringWords = kind === GRANTS ? GRANTS_MAILBOX_WORDS : MAILBOX_WORDS;
  }

  /**
   * Puts a message in and wakes the main thread.
   * @param label ENDPOINT_WORDS words
   * @param packets where the message is, from `from` on; whole words of it are read, so up to 3
   * bytes more than the message has
   * @param bytes at most MAILBOX_MESSAGE_BYTES_MAX
   * @returns false if there was no room
   */
  put(label: Int32Array, packets: DataView, from: number, bytes: number): boolean {
    const words = this.words;
    const messageWords = (bytes + 3) >>> 2;
    const size = MESSAGE_HEAD_WORDS + messageWords;
    let head = words[this.head]!;
    let free = this.#ringWords - ((head - Atomics.load(words, this.tail)) | 0);
    // An empty ring is begun anew, so that no more of its memory is touched than was full at once.
    if (free === this.#ringWords) Atomics.store(words, this.#begun, head);
    const toEnd = this.#ringWords - this.offset(head);
    if (toEnd < size) {
      if (free < toEnd + size) return false;
      const skip = this.ring + this.offset(head);
      words[skip + WORDS] = toEnd;
      if (toEnd > BYTES) words[skip + BYTES] = SKIP;
      head = (head + toEnd) | 0;
      free -= toEnd;
    }
    if (free < size) return false;
    const at = this.ring + this.offset(head);
    words[at + WORDS] = size;
    words[at + BYTES] = bytes;
    for (let word = 0; word < ENDPOINT_WORDS; word++) words[at + LABEL + word] = label[word]!;
    // Word by word: a copy by TypedArray.set would need a view of the message, an object for each
    // packet.
    const body = at + MESSAGE_HEAD_WORDS;
    for (let word = 0; word < messageWords; word++) {
      words[body + word] = packets.getInt32(from + 4 * word, true);
    }
    Atomics.store(words, this.head, (head + size) | 0);
    Atomics.add(words, MAIL, 1);
    Atomics.notify(words, MAIL);
    return true;
  }

  /** Word of the ring after `count` others; on the main thread only while it is not empty. */
  protected offset(count: number): number {
    return (count - Atomics.load(this.words, this.#begun)) & (this.#ringWords - 1);
  }
}

/** The end at which the main thread takes messages out. */
export class MailboxReader extends Mailbox {
  /** Words taken and perhaps not yet released. */
  #taken = Atomics.load(this.words, this.tail);

  /** Returns the oldest message not taken yet; it stays in place until `release`. */
  take(): Mail | undefined {
    const words = this.words;
    const head = Atomics.load(words, this.head);
    while (this.#taken !== head) {
      const at = this.ring + this.offset(this.#taken);
      const size = words[at + WORDS]!;
      this.#taken = (this.#taken + size) | 0;
      if (size > BYTES && words[at + BYTES] !== SKIP) {
        return {
          at: (at + MESSAGE_HEAD_WORDS) * 4,
          bytes: words[at + BYTES]!,
          labelAt: at + LABEL,
        };
      }
    }
    return undefined;
  }

  /** Frees the room of all messages taken. */
  release(): void {
    Atomics.store(this.words, this.tail, this.#taken);
  }
}
