import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { ENDPOINT_WORDS, endpointOf } from "../../ffi/endpoint.ts";
import { MAILBOX_MESSAGE_BYTES_MAX, Mailbox } from "../../src/shared/mailbox.ts";
import {
  MAIL,
  MAILBOX_HEAD,
  MAILBOX_RING,
  MAILBOX_TAIL,
  MAILBOX_WORDS,
  SharedMemory,
} from "../../src/shared/memory.ts";
import { ALL_PUT, bytesOf, fillMessage, fillSource, type MailWorkerData } from "../support/mail-worker.ts";

/** Words of a message in the ring, as the head of src/shared/mailbox.ts lays it out. */
const wordsOf = (bytes: number): number => 2 + ENDPOINT_WORDS + Math.ceil(bytes / 4);

const SOURCE = endpointOf("192.0.2.1", 9001);

/** How many words may have been put in ever: none, some, more than a ring has, and where the 32 bits of the count run over. */
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
function mailboxAt(count: number, workers = 2) {
  const memory = new SharedMemory({ workers, nodesMax: 1, routesMax: 1 });
  const worker = workers - 1;
  const at = memory.mailbox(worker);
  memory.words[at + MAILBOX_HEAD] = count;
  memory.words[at + MAILBOX_TAIL] = count;
  return { memory, worker, mailbox: new Mailbox(memory, worker) };
}

/** Messages of which a whole number fills a ring. */
const PART_WORDS = 16_384;
const PARTS = MAILBOX_WORDS / PART_WORDS;
const part = new Uint8Array(4 * (PART_WORDS - wordsOf(0))).fill(0x77);

/** Fills a mailbox until `left` words are left before its ring's end, and takes the first messages again. */
function fillUpTo(mailbox: Mailbox, left: number): void {
  for (let i = 1; i <= PARTS; i++) {
    const bytes = i === PARTS ? part.subarray(4 * left) : part;
    expect(mailbox.put(SOURCE, bytes)).toBe(true);
  }
  for (let i = 1; i < PARTS; i++) {
    expect(mailbox.peek()?.bytes).toBe(part.length);
    mailbox.drop();
  }
}

interface Message {
  readonly source: number[];
  readonly bytes: Uint8Array;
}

/** Takes the oldest message. */
function take(memory: SharedMemory, mailbox: Mailbox): Message | undefined {
  const mail = mailbox.peek();
  if (mail === undefined) return undefined;
  const source = [...memory.words.subarray(mail.sourceAt, mail.sourceAt + ENDPOINT_WORDS)];
  const bytes = memory.bytes.slice(mail.at, mail.at + mail.bytes);
  mailbox.drop();
  return { source, bytes };
}

function expectMessage(found: Message | undefined, source: Int32Array, bytes: Uint8Array): void {
  expect(found?.source).toEqual([...source]);
  expect(found?.bytes.length).toBe(bytes.length);
  expect(Buffer.compare(found!.bytes, bytes)).toBe(0);
}

describe("Mailbox", () => {
  test("an empty one has no message, whatever was in it before", () => {
    for (const count of counts) expect(mailboxAt(count).mailbox.peek()).toBeUndefined();
  });

  test("a message stays until it is dropped, and comes with its source", () => {
    const { memory, mailbox } = mailboxAt(0);
    const bytes = new Uint8Array([7, 1, 2, 3, 4]);
    expect(mailbox.put(SOURCE, bytes)).toBe(true);
    expect(mailbox.peek()).toEqual(mailbox.peek()!);
    expectMessage(take(memory, mailbox), SOURCE, bytes);
    expect(mailbox.peek()).toBeUndefined();
  });

  test("messages of every size come back as they were, in order", () => {
    const { memory, mailbox } = mailboxAt(0);
    const OFFSETS = 7;
    const all = new Uint8Array(MAILBOX_MESSAGE_BYTES_MAX + OFFSETS).map((_, i) => i * 31 + (i >>> 8));
    const source = new Int32Array(ENDPOINT_WORDS);
    for (let bytes = 0; bytes <= MAILBOX_MESSAGE_BYTES_MAX; bytes++) {
      const from = bytes % OFFSETS;
      const message = all.subarray(from, from + bytes);
      fillSource(bytes, source);
      expect(mailbox.put(source, message)).toBe(true);
      const mail = mailbox.peek()!;
      expect(mail.bytes).toBe(bytes);
      expect(Buffer.compare(memory.bytes.subarray(mail.at, mail.at + mail.bytes), message)).toBe(0);
      expect([...memory.words.subarray(mail.sourceAt, mail.sourceAt + ENDPOINT_WORDS)]).toEqual([...source]);
      mailbox.drop();
    }
  });

  test("the largest message fits into an empty one, whatever was in it before", () => {
    const bytes = new Uint8Array(MAILBOX_MESSAGE_BYTES_MAX).fill(9);
    for (const count of counts) {
      const { memory, mailbox } = mailboxAt(count);
      expect(mailbox.put(SOURCE, bytes)).toBe(true);
      expectMessage(take(memory, mailbox), SOURCE, bytes);
      expect(mailbox.peek()).toBeUndefined();
    }
  });

  test("takes as many as there is room for to the last word, and then none, not even an empty one", () => {
    for (const count of [0, MAILBOX_WORDS - 1, 2 ** 31 - 100]) {
      const { memory, mailbox } = mailboxAt(count);
      for (let i = 0; i < PARTS; i++) expect(mailbox.put(SOURCE, part.fill(i))).toBe(true);
      const before = memory.words.slice();
      expect(mailbox.put(SOURCE, part)).toBe(false);
      expect(mailbox.put(SOURCE, new Uint8Array())).toBe(false);
      expect(Bun.deepEquals(memory.words.slice(), before)).toBe(true);
      for (let i = 0; i < PARTS; i++) expectMessage(take(memory, mailbox), SOURCE, part.fill(i));
      expect(mailbox.peek()).toBeUndefined();
      expect(mailbox.put(SOURCE, part)).toBe(true);
    }
  });

  test("an emptied one has room for as much as a new one", () => {
    const { memory, mailbox } = mailboxAt(0);
    for (const messages of [1, PARTS, 2, PARTS, PARTS - 1, PARTS]) {
      for (let i = 0; i < messages; i++) expect(mailbox.put(SOURCE, part)).toBe(true);
      for (let i = 0; i < messages; i++) expect(take(memory, mailbox)?.bytes.length).toBe(part.length);
      expect(mailbox.peek()).toBeUndefined();
    }
  });

  test("a message for which the ring's end comes too soon begins at its beginning", () => {
    const sizes = [0, 1, 4, 40, 5000];
    for (const left of [0, 1, 2, 3, 7, 8, 9, 10, 18, 30]) {
      for (const count of [0, 2 ** 31 - MAILBOX_WORDS]) {
        const { memory, mailbox } = mailboxAt(count);
        fillUpTo(mailbox, left);
        for (const bytes of sizes) expect(mailbox.put(SOURCE, new Uint8Array(bytes).fill(bytes))).toBe(true);
        expect(take(memory, mailbox)?.bytes.length).toBe(part.length - 4 * left);
        for (const bytes of sizes)
          expectMessage(take(memory, mailbox), SOURCE, new Uint8Array(bytes).fill(bytes));
        expect(mailbox.peek()).toBeUndefined();
      }
    }
  });

  test("a message that would have to begin at the ring's beginning and finds no room there changes nothing", () => {
    const largest = new Uint8Array(MAILBOX_MESSAGE_BYTES_MAX);
    for (let free = 0; free < 10; free++) {
      const { memory, mailbox } = mailboxAt(0);
      fillUpTo(mailbox, 0); // all but its last part is free again
      for (let i = 1; i < PARTS; i++)
        expect(mailbox.put(SOURCE, i === 1 ? part.subarray(4 * free) : part)).toBe(true);
      const before = memory.words.slice();
      expect(mailbox.put(SOURCE, largest)).toBe(false);
      expect(Bun.deepEquals(memory.words.slice(), before)).toBe(true);
    }
  });

  test("tells the main thread of each message, and of none that found no room", () => {
    const { memory, mailbox } = mailboxAt(0);
    const bytes = new Uint8Array(MAILBOX_MESSAGE_BYTES_MAX);
    let put = 0;
    while (mailbox.put(SOURCE, bytes)) expect(memory.words[MAIL]).toBe(++put);
    expect(put).toBeGreaterThanOrEqual(15);
    expect(memory.words[MAIL]).toBe(put);
  });

  test("those of several workers know nothing of each other, and touch nothing else", () => {
    // With as many words left before the ring's end as the head of a message has, and fewer.
    for (const left of [1, 2, 3, 8, 9, 30]) {
      const memory = new SharedMemory({ workers: 3, nodesMax: 1, routesMax: 1 });
      const mailboxes = [0, 1, 2].map((worker) => new Mailbox(memory, worker));
      const [own, next] = [memory.mailbox(1), memory.mailbox(2)];
      const before = memory.words.slice();
      fillUpTo(mailboxes[1]!, left);
      while (mailboxes[1]!.put(SOURCE, part.fill(255)));
      for (const other of [0, 2]) expect(mailboxes[other]!.peek()).toBeUndefined();
      const after = memory.words.slice();
      after[MAIL] = before[MAIL]!;
      expect(Bun.deepEquals(after.subarray(0, own), before.subarray(0, own))).toBe(true);
      expect(Bun.deepEquals(after.subarray(next), before.subarray(next))).toBe(true);
    }
  });

  test("one that is emptied each time touches no more of its memory than two messages take", () => {
    const { memory, worker, mailbox } = mailboxAt(0);
    const bytes = 10_000;
    for (let i = 0; i < 1000; i++) {
      expect(mailbox.put(SOURCE, new Uint8Array(bytes).fill(1))).toBe(true);
      take(memory, mailbox);
    }
    const ring = memory.mailbox(worker) + MAILBOX_RING;
    const touched = memory.words.subarray(ring, ring + MAILBOX_WORDS).findLastIndex((word) => word !== 0);
    expect(touched * 4).toBeLessThan(2 * (bytes + 100));
  });

  test("a worker that dies in the midst of a message leaves a whole mailbox, and the next one goes on", () => {
    const bytesOfLost = 1000;
    // In an empty one, and where the message would have begun the ring anew.
    for (const left of [undefined, 1, 2, 8, 30]) {
      const { memory, worker, mailbox } = mailboxAt(-100);
      if (left !== undefined) fillUpTo(mailbox, left);
      const waiting = left === undefined ? [] : [part.length - 4 * left];
      const head = memory.mailbox(worker) + MAILBOX_HEAD;
      const before = memory.words[head]!;
      mailbox.put(SOURCE, new Uint8Array(bytesOfLost).fill(2));
      memory.words[head] = before; // all was written but the one word that makes it a message
      expect(mailbox.peek()?.bytes).toBe(waiting[0]);
      const next = new Mailbox(memory, worker);
      expect(next.put(SOURCE, new Uint8Array(3).fill(3))).toBe(true);
      for (const bytes of waiting) expect(take(memory, mailbox)?.bytes.length).toBe(bytes);
      expectMessage(take(memory, mailbox), SOURCE, new Uint8Array(3).fill(3));
      expect(mailbox.peek()).toBeUndefined();
    }
  });
});

describe("Mailbox against a list", () => {
  /** What lies in the ring: messages, and what had to be left free before its end. */
  interface Piece {
    readonly words: number;
    readonly serial: number | undefined;
    readonly bytes: number;
  }

  const size = fc.oneof(
    fc.nat(12),
    fc.nat(2000),
    fc.nat(MAILBOX_MESSAGE_BYTES_MAX),
    fc.constant(MAILBOX_MESSAGE_BYTES_MAX),
  );
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("put" as const), bytes: size }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("fill" as const), bytes: size }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("take" as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("peek" as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("drain" as const) }) },
  );

  test("any sequence of putting in and taking out, wherever the ring stands", () => {
    const room = new Uint8Array(MAILBOX_MESSAGE_BYTES_MAX);
    const source = new Int32Array(ENDPOINT_WORDS);
    const { memory, worker, mailbox } = mailboxAt(0);
    fc.assert(
      fc.property(
        fc.oneof(fc.constantFrom(...counts), fc.integer()),
        fc.array(step, { minLength: 1, maxLength: 40 }),
        (count, steps) => {
          memory.words[memory.mailbox(worker) + MAILBOX_HEAD] = count;
          memory.words[memory.mailbox(worker) + MAILBOX_TAIL] = count;
          const ring: Piece[] = [];
          let at = 0;
          let serial = 0;

          const put = (bytes: number): boolean => {
            const words = wordsOf(bytes);
            if (ring.length === 0) at = 0;
            const skipped = at + words > MAILBOX_WORDS ? MAILBOX_WORDS - at : 0;
            const used = ring.reduce((sum, piece) => sum + piece.words, 0);
            const fits = used + skipped + words <= MAILBOX_WORDS;
            fillSource(++serial, source);
            expect(mailbox.put(source, room.subarray(0, bytes).fill(serial))).toBe(fits);
            if (!fits) return false;
            if (skipped > 0) ring.push({ words: skipped, serial: undefined, bytes: 0 });
            ring.push({ words, serial, bytes });
            at = (at + skipped + words) % MAILBOX_WORDS;
            return true;
          };
          const peek = (): Piece | undefined => {
            if (ring[0] !== undefined && ring[0].serial === undefined) ring.shift(); // it frees what was skipped
            const mail = mailbox.peek();
            const expected = ring[0];
            expect(mail?.bytes).toBe(expected?.bytes);
            if (mail === undefined || expected === undefined) return undefined;
            fillSource(expected.serial!, source);
            expect([...memory.words.subarray(mail.sourceAt, mail.sourceAt + ENDPOINT_WORDS)]).toEqual([
              ...source,
            ]);
            const found = memory.bytes.subarray(mail.at, mail.at + mail.bytes);
            expect(Buffer.compare(found, room.subarray(0, mail.bytes).fill(expected.serial!))).toBe(0);
            return expected;
          };
          const takeOne = (): boolean => {
            if (peek() === undefined) return false;
            mailbox.drop();
            ring.shift();
            return true;
          };

          for (const action of steps) {
            switch (action.kind) {
              case "put":
                put(action.bytes);
                break;
              case "fill":
                // With no small ones, thousands of which would only take long.
                while (put(Math.max(action.bytes, 40_000)));
                break;
              case "take":
                takeOne();
                break;
              case "peek":
                peek();
                break;
              case "drain":
                while (takeOne());
            }
          }
          while (takeOne());
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe("Mailbox across threads", () => {
  const BYTES_MAX = 20_000;

  function start(memory: SharedMemory, data: Omit<MailWorkerData, "shape" | "buffer" | "bytesMax">): Worker {
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
  const expectedSource = new Int32Array(ENDPOINT_WORDS);

  /** Takes a message apart. @returns its serial number. @throws Error if it is not whole */
  function takeSerial(memory: SharedMemory, mailbox: Mailbox): number | undefined {
    const mail = mailbox.peek();
    if (mail === undefined) return undefined;
    const bytes = memory.bytes.subarray(mail.at, mail.at + mail.bytes);
    const serial = new DataView(memory.buffer, mail.at).getInt32(0);
    const whole = expected.subarray(0, bytesOf(serial, BYTES_MAX));
    fillMessage(serial, whole);
    fillSource(serial, expectedSource);
    const sourceIsWhole = expectedSource.every((word, i) => memory.words[mail.sourceAt + i] === word);
    if (Buffer.compare(bytes, whole) !== 0 || !sourceIsWhole) throw new Error(`message ${serial} is torn`);
    mailbox.drop();
    return serial;
  }

  test("two workers' messages all come, whole and in order, and whoever waits for mail is woken", async () => {
    const COUNT = 20_000;
    const { memory } = mailboxAt(-50_000, 2);
    const mailboxes = [0, 1].map((worker) => new Mailbox(memory, worker));
    const next = [1, 1_000_001];
    const results: Promise<unknown[]>[] = [];
    for (const worker of [0, 1]) {
      const thread = start(memory, { worker, first: next[worker]!, count: COUNT });
      results.push(once(thread, "message"));
      await once(thread, "online");
    }
    let taken = 0;
    while (taken < 2 * COUNT) {
      const mail = Atomics.load(memory.words, MAIL);
      const before = taken;
      for (const [worker, mailbox] of mailboxes.entries()) {
        for (let turn = 0; turn < 64; turn++, taken++) {
          const serial = takeSerial(memory, mailbox);
          if (serial === undefined) break;
          expect(serial).toBe(next[worker]!++);
        }
      }
      // Without a time limit: if a worker did not wake it, this would be the end.
      if (taken === before) await Atomics.waitAsync(memory.words, MAIL, mail).value;
    }
    expect(await Promise.all(results)).toEqual([[ALL_PUT], [ALL_PUT]]);
    expect(memory.words[MAIL]).toBe(2 * COUNT);
    for (const mailbox of mailboxes) expect(mailbox.peek()).toBeUndefined();
  }, 30_000);

  test("a worker that is killed leaves whole messages, and its successor goes on behind them", async () => {
    const DEATHS = 20;
    const TURN = 64;
    const { memory, worker, mailbox } = mailboxAt(2 ** 31 - 1000);
    let next = 0;
    const takeSome = (): number => {
      for (let taken = 0; taken < TURN; taken++) {
        const serial = takeSerial(memory, mailbox);
        if (serial === undefined) return taken;
        expect(serial).toBe(next++);
      }
      return TURN;
    };
    for (let death = 0; death < DEATHS; death++) {
      const first = death * 1_000_000;
      next = first;
      const thread = start(memory, { worker, first, count: 1e9 });
      const exit = once(thread, "exit");
      // Wherever it is by the time that so many have been taken.
      while (next <= first + death * 11) {
        const mail = Atomics.load(memory.words, MAIL);
        if (takeSome() === 0) await Atomics.waitAsync(memory.words, MAIL, mail).value;
      }
      await thread.terminate();
      await exit;
      while (takeSome() > 0);
    }
  }, 30_000);
});
