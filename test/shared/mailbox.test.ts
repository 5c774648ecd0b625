import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { ENDPOINT_WORDS, endpointOf } from "../../ffi/endpoint.ts";
import { MAILBOX_MESSAGE_BYTES_MAX, type Mail, MailboxReader } from "../../src/shared/mailbox.ts";
import {
  FRAMES,
  GOSSIP,
  MAIL,
  MAILBOX_HEAD,
  MAILBOX_RING,
  MAILBOX_TAIL,
  MAILBOX_WORDS,
  SharedMemory,
} from "../../src/shared/memory.ts";
import {
  ALL_PUT,
  bytesOf,
  fillLabel,
  fillMessage,
  type MailWorkerData,
} from "../support/mail-worker.ts";
import { patience, repeatWhile } from "../support/patience.ts";

/** Words of a message in the ring, as the head of src/shared/mailbox.ts lays it out. */
const wordsOf = (bytes: number): number => 2 + ENDPOINT_WORDS + Math.ceil(bytes / 4);

const LABEL = endpointOf("192.0.2.1", 9001);

/**
 * How many words may have been put in ever: none, some, more than a ring has, and where the 32 bits
 * of the count run over.
 */
const counts = [
  0,
  1,
  12_345,
  MAILBOX_WORDS - 1,
  MAILBOX_WORDS,
  2 ** 31 - 1,
  2 ** 31 - 100,
  2 ** 31,
  -1,
  -100,
];

/** An empty mailbox into which `count` words were put before, of the last of some workers. */
function mailboxAt(count: number, workers = 2, kind = GOSSIP) {
  const memory = new SharedMemory({ workers, nodesMax: 1, routesMax: 1 });
  const worker = workers - 1;
  return { memory, kind, worker, mailbox: emptyAt(count, memory, kind, worker) };
}

function emptyAt(count: number, memory: SharedMemory, kind: number, worker: number): MailboxReader {
  const at = memory.mailbox(kind, worker);
  memory.words[at + MAILBOX_HEAD] = count;
  memory.words[at + MAILBOX_TAIL] = count;
  return new MailboxReader(memory, kind, worker);
}

/**
 * Where the messages are put together that are put in: not to be found in what a mailbox holds
 * behind them.
 */
const packets = new Uint8Array(8 + MAILBOX_MESSAGE_BYTES_MAX + 8);
const packetsView = new DataView(packets.buffer);

/** Puts a message in that lies at byte `from` of the packets. */
function put(mailbox: MailboxReader, message: Uint8Array, label = LABEL, from = 0): boolean {
  packets.set(message, from);
  return mailbox.put(label, packetsView, from, message.length);
}

/** Messages of which a whole number fills a ring. */
const PART_WORDS = 16_384;
const PARTS = MAILBOX_WORDS / PART_WORDS;
const part = new Uint8Array(4 * (PART_WORDS - wordsOf(0))).fill(0x77);

/**
 * Fills a mailbox until `left` words are left before its ring's end, and takes the first messages
 * again.
 */
function fillUpTo(mailbox: MailboxReader, left: number): void {
  for (let i = 1; i <= PARTS; i++) {
    const bytes = i === PARTS ? part.subarray(4 * left) : part;
    expect(put(mailbox, bytes)).toBe(true);
  }
  for (let i = 1; i < PARTS; i++) expect(mailbox.take()?.bytes).toBe(part.length);
  mailbox.release();
}

/** Puts messages into a mailbox until there is no room. */
function fill(mailbox: MailboxReader): void {
  part.fill(255);
  repeatWhile(() => put(mailbox, part), "the mailbox is full");
}

interface Message {
  readonly label: number[];
  readonly bytes: Uint8Array;
}

function read(memory: SharedMemory, { at, bytes, labelAt }: Mail): Message {
  const label = [...memory.words.subarray(labelAt, labelAt + ENDPOINT_WORDS)];
  return { label, bytes: memory.bytes.slice(at, at + bytes) };
}

/** Takes the oldest message out. */
function take(memory: SharedMemory, mailbox: MailboxReader): Message | undefined {
  const mail = mailbox.take();
  const message = mail && read(memory, mail);
  mailbox.release();
  return message;
}

function expectMessage(found: Message | undefined, label: Int32Array, bytes: Uint8Array): void {
  expect(found?.label).toEqual([...label]);
  expect(found?.bytes.length).toBe(bytes.length);
  expect(Buffer.compare(found!.bytes, bytes)).toBe(0);
}

describe("MailboxReader", () => {
  test("an empty one has no message, whatever was in it before", () => {
    for (const count of counts) {
      const { mailbox } = mailboxAt(count);
      expect(mailbox.take()).toBeUndefined();
      mailbox.release();
      expect(mailbox.take()).toBeUndefined();
    }
  });

  test("a message is taken once, comes with its label, and stays where it is until it is released", () => {
    const { memory, mailbox } = mailboxAt(0);
    const bytes = new Uint8Array([7, 1, 2, 3, 4]);
    expect(put(mailbox, bytes)).toBe(true);
    const mail = mailbox.take()!;
    expect(mailbox.take()).toBeUndefined();
    expectMessage(read(memory, mail), LABEL, bytes);
    fill(mailbox);
    expectMessage(read(memory, mail), LABEL, bytes);
    mailbox.release();
    expectMessage(take(memory, mailbox), LABEL, part);
  });

  test("those taken keep their room until they are released, and those not yet taken keep theirs then", () => {
    for (const count of [0, MAILBOX_WORDS - 1, 2 ** 31 - 100]) {
      const { memory, mailbox } = mailboxAt(count);
      let number = 0;
      const putOne = () => put(mailbox, part.fill(number)) && ++number > 0;
      const expectNumber = (mail: Mail | undefined, of: number) =>
        expectMessage(mail && read(memory, mail), LABEL, part.fill(of));
      expect(repeatWhile(putOne, "the mailbox is full")).toBe(PARTS);
      let taken = 0;
      for (const turn of [1, 5, PARTS - 1, PARTS]) {
        const mails = Array.from({ length: turn }, () => mailbox.take()!);
        expect(putOne()).toBe(false);
        for (const [i, mail] of mails.entries()) expectNumber(mail, (taken + i) & 0xff);
        mailbox.release();
        for (let i = 0; i < turn; i++) expect(putOne()).toBe(true);
        expect(putOne()).toBe(false);
        mailbox.release(); // nothing was taken since
        expect(putOne()).toBe(false);
        taken += turn;
      }
      for (; taken < number; taken++) expectNumber(mailbox.take(), taken & 0xff);
      expect(mailbox.take()).toBeUndefined();
    }
  });

  test("what was taken and not released comes again to whoever goes on in the reader's place", () => {
    const { memory, kind, worker, mailbox } = mailboxAt(-100);
    for (let i = 0; i < 5; i++) put(mailbox, part.fill(i));
    take(memory, mailbox);
    take(memory, mailbox);
    mailbox.take();
    const next = new MailboxReader(memory, kind, worker);
    for (let i = 2; i < 5; i++) expectMessage(take(memory, next), LABEL, part.fill(i));
    expect(next.take()).toBeUndefined();
  });

  test("messages of every size come back as they were, in order", () => {
    const { memory, mailbox } = mailboxAt(0);
    const OFFSETS = 7;
    const all = new Uint8Array(MAILBOX_MESSAGE_BYTES_MAX + OFFSETS + 3).map(
      (_, i) => i * 31 + (i >>> 8),
    );
    const view = new DataView(all.buffer);
    const label = new Int32Array(ENDPOINT_WORDS);
    for (let bytes = 0; bytes <= MAILBOX_MESSAGE_BYTES_MAX; bytes++) {
      const from = bytes % OFFSETS;
      const message = all.subarray(from, from + bytes);
      fillLabel(bytes, label);
      expect(mailbox.put(label, view, from, bytes)).toBe(true);
      const mail = mailbox.take()!;
      expect(mail.bytes).toBe(bytes);
      expect(Buffer.compare(memory.bytes.subarray(mail.at, mail.at + mail.bytes), message)).toBe(0);
      expect([...memory.words.subarray(mail.labelAt, mail.labelAt + ENDPOINT_WORDS)]).toEqual([
        ...label,
      ]);
      mailbox.release();
    }
  });

  test("small messages come back whole from every byte of a word on, and of a view into other memory", () => {
    const { memory, mailbox } = mailboxAt(0);
    const around = new Uint8Array(64).map((_, i) => 200 + i);
    for (const offset of [0, 1, 4, 5]) {
      const view = new DataView(around.buffer, offset);
      for (let from = 0; from < 8; from++) {
        for (let bytes = 0; bytes <= 12; bytes++) {
          expect(mailbox.put(LABEL, view, from, bytes)).toBe(true);
          const start = offset + from;
          expectMessage(take(memory, mailbox), LABEL, around.subarray(start, start + bytes));
        }
      }
    }
  });

  test("no byte is read but those of the words that a message fills", () => {
    const { mailbox } = mailboxAt(0);
    const view = new DataView(new ArrayBuffer(20));
    for (let bytes = 0; bytes <= 16; bytes++) {
      const words = Math.ceil(bytes / 4) * 4;
      // beyond the view's end it would throw
      expect(mailbox.put(LABEL, view, 20 - words, bytes)).toBe(true);
    }
  });

  test("the largest message fits into an empty one, whatever was in it before", () => {
    const bytes = new Uint8Array(MAILBOX_MESSAGE_BYTES_MAX).fill(9);
    for (const count of counts) {
      const { memory, mailbox } = mailboxAt(count);
      expect(put(mailbox, bytes)).toBe(true);
      expectMessage(take(memory, mailbox), LABEL, bytes);
      expect(mailbox.take()).toBeUndefined();
    }
  });

  test("takes as many as there is room for to the last word, and then none, not even an empty one", () => {
    for (const count of [0, MAILBOX_WORDS - 1, 2 ** 31 - 100]) {
      const { memory, mailbox } = mailboxAt(count);
      for (let i = 0; i < PARTS; i++) expect(put(mailbox, part.fill(i))).toBe(true);
      const before = memory.words.slice();
      expect(put(mailbox, part)).toBe(false);
      expect(put(mailbox, new Uint8Array())).toBe(false);
      expect(Bun.deepEquals(memory.words.slice(), before)).toBe(true);
      for (let i = 0; i < PARTS; i++) expectMessage(take(memory, mailbox), LABEL, part.fill(i));
      expect(mailbox.take()).toBeUndefined();
      expect(put(mailbox, part)).toBe(true);
    }
  });

  test("an emptied one has room for as much as a new one", () => {
    const { memory, mailbox } = mailboxAt(0);
    for (const messages of [1, PARTS, 2, PARTS, PARTS - 1, PARTS]) {
      for (let i = 0; i < messages; i++) expect(put(mailbox, part)).toBe(true);
      for (let i = 0; i < messages; i++)
        expect(take(memory, mailbox)?.bytes.length).toBe(part.length);
      expect(mailbox.take()).toBeUndefined();
    }
  });

  test("a message for which the ring's end comes too soon begins at its beginning", () => {
    const sizes = [0, 1, 4, 40, 5000];
    for (const left of [0, 1, 2, 3, 7, 8, 9, 10, 18, 30]) {
      for (const count of [0, 2 ** 31 - MAILBOX_WORDS]) {
        const { memory, mailbox } = mailboxAt(count);
        fillUpTo(mailbox, left);
        for (const bytes of sizes)
          expect(put(mailbox, new Uint8Array(bytes).fill(bytes))).toBe(true);
        expect(take(memory, mailbox)?.bytes.length).toBe(part.length - 4 * left);
        for (const bytes of sizes)
          expectMessage(take(memory, mailbox), LABEL, new Uint8Array(bytes).fill(bytes));
        expect(mailbox.take()).toBeUndefined();
      }
    }
  });

  test("a message that would have to begin at the ring's beginning and finds no room there changes nothing", () => {
    const largest = new Uint8Array(MAILBOX_MESSAGE_BYTES_MAX);
    for (let free = 0; free < 10; free++) {
      const { memory, mailbox } = mailboxAt(0);
      fillUpTo(mailbox, 0); // all but its last part is free again
      for (let i = 1; i < PARTS; i++)
        expect(put(mailbox, i === 1 ? part.subarray(4 * free) : part)).toBe(true);
      const before = memory.words.slice();
      expect(put(mailbox, largest)).toBe(false);
      expect(Bun.deepEquals(memory.words.slice(), before)).toBe(true);
    }
  });

  test("tells the main thread of each message, and of none that found no room", () => {
    const { memory, mailbox } = mailboxAt(0);
    const bytes = new Uint8Array(MAILBOX_MESSAGE_BYTES_MAX);
    const messages = repeatWhile(() => put(mailbox, bytes), "the mailbox is full");
    expect(messages).toBeGreaterThanOrEqual(15);
    expect(memory.words[MAIL]).toBe(messages);
  });

  test("those of several workers and kinds know nothing of each other, and touch nothing else", () => {
    // With as many words left before the ring's end as the head of a message has, and fewer.
    for (const left of [1, 2, 3, 8, 9, 30]) {
      for (const kind of [GOSSIP, FRAMES]) {
        const memory = new SharedMemory({ workers: 3, nodesMax: 1, routesMax: 1 });
        const mailboxes = [0, 1, 2].map((worker) =>
          [GOSSIP, FRAMES].map((of) => new MailboxReader(memory, of, worker)),
        );
        const own = memory.mailbox(kind, 1);
        const end = own + MAILBOX_RING + MAILBOX_WORDS;
        const before = memory.words.slice();
        const mailbox = mailboxes[1]![kind]!;
        fillUpTo(mailbox, left);
        fill(mailbox);
        for (const other of mailboxes.flat())
          if (other !== mailbox) expect(other.take()).toBeUndefined();
        const after = memory.words.slice();
        after[MAIL] = before[MAIL]!;
        expect(Bun.deepEquals(after.subarray(0, own), before.subarray(0, own))).toBe(true);
        expect(Bun.deepEquals(after.subarray(end), before.subarray(end))).toBe(true);
        expect(mailbox.take()?.bytes).toBe(part.length - 4 * left);
      }
    }
  });

  test("one that is emptied each time touches no more of its memory than two messages take", () => {
    const { memory, kind, worker, mailbox } = mailboxAt(0);
    const bytes = 10_000;
    for (let i = 0; i < 1000; i++) {
      expect(put(mailbox, new Uint8Array(bytes).fill(1))).toBe(true);
      take(memory, mailbox);
    }
    const ring = memory.mailbox(kind, worker) + MAILBOX_RING;
    const touched = memory.words
      .subarray(ring, ring + MAILBOX_WORDS)
      .findLastIndex((word) => word !== 0);
    expect(touched * 4).toBeLessThan(2 * (bytes + 100));
  });

  test("a worker that dies in the midst of a message leaves a whole mailbox, and the next one goes on", () => {
    const bytesOfLost = 1000;
    // In an empty one, and where the message would have begun the ring anew.
    for (const left of [undefined, 1, 2, 8, 30]) {
      const { memory, kind, worker, mailbox } = mailboxAt(-100);
      if (left !== undefined) fillUpTo(mailbox, left);
      const waiting = left === undefined ? [] : [part.length - 4 * left];
      const head = memory.mailbox(kind, worker) + MAILBOX_HEAD;
      const before = memory.words[head]!;
      put(mailbox, new Uint8Array(bytesOfLost).fill(2));
      memory.words[head] = before; // all was written but the one word that makes it a message
      for (const bytes of waiting) expect(mailbox.take()?.bytes).toBe(bytes);
      expect(mailbox.take()).toBeUndefined();
      const next = new MailboxReader(memory, kind, worker);
      expect(put(next, new Uint8Array(3).fill(3))).toBe(true);
      expectMessage(take(memory, mailbox), LABEL, new Uint8Array(3).fill(3));
      expect(mailbox.take()).toBeUndefined();
    }
  });
});

describe("MailboxReader against a list", () => {
  /** What lies in the ring: messages, and what had to be left free before its end. */
  interface Piece {
    readonly words: number;
    readonly serial: number | undefined;
    readonly bytes: number;
    /** Once it is taken. */
    mail?: Mail;
  }

  const size = fc.oneof(
    fc.nat(12),
    fc.nat(2000),
    fc.nat(MAILBOX_MESSAGE_BYTES_MAX),
    fc.constant(MAILBOX_MESSAGE_BYTES_MAX),
  );
  const step = fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant("put" as const), bytes: size, from: fc.nat(7) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("fill" as const), bytes: size }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("take" as const) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("release" as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("drain" as const) }) },
  );

  test("any sequence of putting in, taking and releasing, wherever the ring stands", () => {
    const room = new Uint8Array(MAILBOX_MESSAGE_BYTES_MAX);
    const label = new Int32Array(ENDPOINT_WORDS);
    const { memory, kind, worker } = mailboxAt(0);
    fc.assert(
      fc.property(
        fc.oneof(fc.constantFrom(...counts), fc.integer()),
        fc.array(step, { minLength: 1, maxLength: 40 }),
        (count, steps) => {
          const mailbox = emptyAt(count, memory, kind, worker);
          const ring: Piece[] = [];
          /** How many pieces, from the first on, are taken. */
          let taken = 0;
          let at = 0;
          let serial = 0;

          const putOne = (bytes: number, from = 0): boolean => {
            const words = wordsOf(bytes);
            if (ring.length === 0) at = 0;
            const skipped = at + words > MAILBOX_WORDS ? MAILBOX_WORDS - at : 0;
            const used = ring.reduce((sum, piece) => sum + piece.words, 0);
            const fits = used + skipped + words <= MAILBOX_WORDS;
            fillLabel(++serial, label);
            expect(put(mailbox, room.subarray(0, bytes).fill(serial), label, from)).toBe(fits);
            if (!fits) return false;
            if (skipped > 0) ring.push({ words: skipped, serial: undefined, bytes: 0 });
            ring.push({ words, serial, bytes });
            at = (at + skipped + words) % MAILBOX_WORDS;
            return true;
          };
          const takeOne = (): boolean => {
            if (ring[taken] !== undefined && ring[taken]!.serial === undefined) taken++;
            const mail = mailbox.take();
            const expected = ring[taken];
            expect(mail?.bytes).toBe(expected?.bytes);
            if (mail === undefined || expected === undefined) return false;
            expected.mail = mail;
            taken++;
            return true;
          };
          /** What was taken is there to the last, whatever was put in since. */
          const release = (): void => {
            for (const { mail, serial: of, bytes } of ring.splice(0, taken)) {
              if (mail === undefined) continue;
              fillLabel(of!, label);
              expectMessage(read(memory, mail), label, room.subarray(0, bytes).fill(of!));
            }
            taken = 0;
            mailbox.release();
          };

          for (const action of steps) {
            switch (action.kind) {
              case "put":
                putOne(action.bytes, action.from);
                break;
              case "fill":
                // With no small ones, thousands of which would only take long.
                repeatWhile(() => putOne(Math.max(action.bytes, 40_000)), "the mailbox is full");
                break;
              case "take":
                takeOne();
                break;
              case "release":
                release();
                break;
              case "drain":
                repeatWhile(takeOne, "the mailbox is empty");
                release();
            }
          }
          repeatWhile(takeOne, "the mailbox is empty");
          release();
          expect(ring).toEqual([]);
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe("MailboxReader across threads", () => {
  const BYTES_MAX = 20_000;

  function start(
    memory: SharedMemory,
    data: Omit<MailWorkerData, "shape" | "buffer" | "bytesMax">,
  ): Worker {
    return new Worker(new URL("../support/mail-worker.ts", import.meta.url), {
      workerData: {
        shape: memory.shape,
        buffer: memory.buffer,
        bytesMax: BYTES_MAX,
        ...data,
      } satisfies MailWorkerData,
    });
  }

  const expected = new Uint8Array(BYTES_MAX);
  const expectedLabel = new Int32Array(ENDPOINT_WORDS);

  /** A message's serial number. @throws Error if it is not whole */
  function serialOf(memory: SharedMemory, mail: Mail): number {
    const bytes = memory.bytes.subarray(mail.at, mail.at + mail.bytes);
    const serial = new DataView(memory.buffer, mail.at).getInt32(0);
    const whole = expected.subarray(0, bytesOf(serial, BYTES_MAX));
    fillMessage(serial, whole);
    fillLabel(serial, expectedLabel);
    const labelIsWhole = expectedLabel.every((word, i) => memory.words[mail.labelAt + i] === word);
    if (Buffer.compare(bytes, whole) !== 0 || !labelIsWhole)
      throw new Error(`message ${serial} is torn`);
    return serial;
  }

  const TURN = 64;

  /**
   * Takes some messages and reads them only then, as the worker puts in others.
   * @returns their serial numbers
   */
  function takeTurn(memory: SharedMemory, mailbox: MailboxReader): number[] {
    const mails: Mail[] = [];
    while (mails.length < TURN) {
      const mail = mailbox.take();
      if (mail === undefined) break;
      mails.push(mail);
    }
    const serials = mails.map((mail) => serialOf(memory, mail));
    mailbox.release();
    return serials;
  }

  test("two workers' messages of two kinds all come, whole and in order, and whoever waits for mail is woken", async () => {
    const COUNT = 10_000;
    const { memory } = mailboxAt(-50_000, 2);
    const sources = [0, 1].flatMap((worker) =>
      [GOSSIP, FRAMES].map((kind) => ({
        worker,
        kind,
        mailbox: new MailboxReader(memory, kind, worker),
        next: (2 * worker + kind) * 1_000_000,
      })),
    );
    const results: Promise<unknown[]>[] = [];
    // As many threads as mailboxes: each has one writer.
    for (const { worker, kind, next } of sources) {
      const thread = start(memory, { kind, worker, first: next, count: COUNT });
      results.push(once(thread, "message"));
      await once(thread, "online");
    }
    let taken = 0;
    const check = patience("all messages are taken");
    while (taken < sources.length * COUNT) {
      check();
      const mail = Atomics.load(memory.words, MAIL);
      const before = taken;
      for (const source of sources) {
        const serials = takeTurn(memory, source.mailbox);
        expect(serials).toEqual(serials.map((_, i) => source.next + i));
        source.next += serials.length;
        taken += serials.length;
      }
      // Without a time limit: if a worker did not wake it, this would be the end.
      if (taken === before) await Atomics.waitAsync(memory.words, MAIL, mail).value;
    }
    expect(await Promise.all(results)).toEqual(sources.map(() => [ALL_PUT]));
    expect(memory.words[MAIL]).toBe(sources.length * COUNT);
    for (const { mailbox } of sources) expect(mailbox.take()).toBeUndefined();
  }, 120_000);

  test("a worker that is killed leaves whole messages, and its successor goes on behind them", async () => {
    const DEATHS = 20;
    const { memory, kind, worker, mailbox } = mailboxAt(2 ** 31 - 1000);
    let next = 0;
    const takeSome = (): number => {
      const serials = takeTurn(memory, mailbox);
      expect(serials).toEqual(serials.map((_, i) => next + i));
      next += serials.length;
      return serials.length;
    };
    for (let death = 0; death < DEATHS; death++) {
      const first = death * 1_000_000;
      next = first;
      const thread = start(memory, { kind, worker, first, count: 1e9 });
      const exit = once(thread, "exit");
      // Wherever it is by the time that so many have been taken.
      const check = patience("the worker's messages come");
      while (next <= first + death * 11) {
        check();
        const mail = Atomics.load(memory.words, MAIL);
        if (takeSome() === 0) await Atomics.waitAsync(memory.words, MAIL, mail).value;
      }
      await thread.terminate();
      await exit;
      repeatWhile(() => takeSome() > 0, "the mailbox is empty");
    }
  }, 120_000);
});
