import { afterEach, describe, expect, test } from "bun:test";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { ENDPOINT_WORDS } from "../../../ffi/endpoint.ts";
import { MailReader, type MailTaker } from "../../../src/control/workers/mail-reader.ts";
import {
  MAILBOX_MESSAGE_BYTES_MAX,
  type Mail,
  MailboxReader,
} from "../../../src/shared/mailbox.ts";
import { FRAMES, GOSSIP, SharedMemory } from "../../../src/shared/memory.ts";
import {
  ALL_PUT,
  bytesOf,
  fillLabel,
  fillMessage,
  type MailWorkerData,
} from "../../support/mail-worker.ts";

const WORKERS = 2;
const KINDS = [GOSSIP, FRAMES] as const;

/** What a test started. One that fails leaves it running. */
const readers: MailReader[] = [];
const threads: Worker[] = [];
afterEach(async () => {
  await Promise.all(readers.splice(0).map((reader) => reader.stop()));
  await Promise.all(threads.splice(0).map((thread) => thread.terminate()));
});

/** A memory, and its workers' side of it. */
function office() {
  const memory = new SharedMemory({ workers: WORKERS, nodesMax: 1, routesMax: 1 });
  const boxes = KINDS.map((kind) =>
    Array.from({ length: WORKERS }, (_, worker) => new MailboxReader(memory, kind, worker)),
  );
  const packets = new DataView(new ArrayBuffer(MAILBOX_MESSAGE_BYTES_MAX));
  const label = new Int32Array(ENDPOINT_WORDS);
  const put = (kind: number, worker: number, serial: number, bytes = 8): boolean => {
    fillLabel(serial, label);
    fillMessage(serial, new Uint8Array(packets.buffer, 0, bytes));
    return boxes[kind]![worker]!.put(label, packets, 0, bytes);
  };
  /** @throws Error if it is not as it was put in */
  const read = ({ at, bytes, labelAt }: Mail): number => {
    const serial = new DataView(memory.buffer, at).getInt32(0);
    const expected = new Uint8Array(bytes);
    fillMessage(serial, expected);
    fillLabel(serial, label);
    const isWhole =
      Buffer.compare(memory.bytes.subarray(at, at + bytes), expected) === 0 &&
      label.every((word, i) => memory.words[labelAt + i] === word);
    if (!isWhole) throw new Error(`message ${serial} is torn`);
    return serial;
  };
  const reading = (...takers: readonly MailTaker[]): MailReader => {
    const reader = new MailReader(memory);
    for (const taker of takers) reader.add(taker);
    readers.push(reader);
    return reader;
  };
  /** Serial numbers of what is left in a mailbox; to be asked once no reader is at it. */
  const left = (kind: number, worker: number): number[] => {
    const mailbox = new MailboxReader(memory, kind, worker);
    const serials: number[] = [];
    for (let mail = mailbox.take(); mail !== undefined; mail = mailbox.take())
      serials.push(read(mail));
    return serials;
  };
  return { memory, put, read, reading, left };
}

/** A promise for the moment at which `isReached` holds, asked at each call of `step`. */
function milestone(isReached: () => boolean) {
  const { promise, resolve } = Promise.withResolvers<void>();
  const step = (): void => {
    if (isReached()) resolve();
  };
  return { promise, step };
}

describe("what it hands out", () => {
  test("is what lies in the mailboxes of all workers, of each kind to its taker, a mailbox a turn", async () => {
    const { put, read, reading } = office();
    const log: string[] = [];
    const all = milestone(() => log.length === 16);
    const taker = (kind: number, name: string): MailTaker => ({
      kind,
      turnMax: 10,
      receive: (mail) => {
        log.push(`${name} ${read(mail)}`);
        all.step();
      },
      turnDone: () => {
        log.push(`${name} done`);
        all.step();
      },
    });
    for (let i = 0; i < 3; i++) {
      for (const kind of KINDS) {
        for (let worker = 0; worker < WORKERS; worker++)
          put(kind, worker, 100 * kind + 10 * worker + i);
      }
    }
    reading(taker(FRAMES, "frame"), taker(GOSSIP, "gossip")).start();
    await all.promise;
    expect(log).toEqual([
      ...["frame 100", "frame 101", "frame 102", "frame done"],
      ...["frame 110", "frame 111", "frame 112", "frame done"],
      ...["gossip 0", "gossip 1", "gossip 2", "gossip done"],
      ...["gossip 10", "gossip 11", "gossip 12", "gossip done"],
    ]);
  });

  test("comes as soon as it is put in, each message once, though it was started twice", async () => {
    const { put, read, reading } = office();
    const got: number[] = [];
    let received = Promise.withResolvers<void>();
    const receive = (mail: Mail): void => {
      got.push(read(mail));
      received.resolve();
    };
    const takers = KINDS.map((kind): MailTaker => ({ kind, turnMax: 4, receive }));
    const reader = reading(...takers);
    reader.start();
    reader.start();
    const expected: number[] = [];
    for (let serial = 1; serial <= 200; serial++) {
      received = Promise.withResolvers();
      put(KINDS[serial & 1]!, (serial >> 1) & 1, serial, 4 + serial);
      expected.push(serial);
      await received.promise; // if it were not woken, this would be the end
      expect(got).toEqual(expected);
    }
  });

  test("is not what it has no taker for: that stays", async () => {
    const { put, read, reading, left } = office();
    const got: number[] = [];
    const both = milestone(() => got.length === 2);
    const receive = (mail: Mail): void => {
      got.push(read(mail));
      both.step();
    };
    const reader = reading({ kind: GOSSIP, turnMax: 4, receive });
    for (const kind of KINDS) put(kind, 0, 1 + kind);
    reader.start();
    put(FRAMES, 1, 3);
    put(GOSSIP, 1, 4);
    await both.promise;
    await reader.stop();
    expect(got).toEqual([1, 4]);
    expect([left(FRAMES, 0), left(FRAMES, 1), left(GOSSIP, 0), left(GOSSIP, 1)]).toEqual([
      [2],
      [3],
      [],
      [],
    ]);
  });
});

describe("turns", () => {
  test.each([
    ["gossip", GOSSIP, FRAMES],
    ["frames", FRAMES, GOSSIP],
  ] as const)(
    "a flood of %s keeps neither another worker's waiting, nor what is of the other kind",
    async (_, flood, other) => {
      const { put, read, reading } = office();
      const TURN = 5;
      const log: string[] = [];
      const all = milestone(() => log.length === 1000 + 3);
      const taker = (kind: number): MailTaker => ({
        kind,
        turnMax: TURN,
        receive: (mail) => {
          const serial = read(mail);
          log.push(kind === flood && serial < 1000 ? "flood" : `${kind} ${serial}`);
          all.step();
        },
      });
      for (let serial = 0; serial < 1000; serial++) put(flood, 0, serial);
      put(flood, 1, 1001);
      for (let worker = 0; worker < WORKERS; worker++) put(other, worker, 2000 + worker);
      reading(taker(flood), taker(other)).start();
      await all.promise;
      expect(log.slice(0, 2 * TURN + 3)).toEqual([
        ...Array<string>(TURN).fill("flood"),
        `${flood} 1001`,
        `${other} 2000`,
        `${other} 2001`,
        ...Array<string>(TURN).fill("flood"),
      ]);
    },
  );

  test("a flood without an end leaves time for timers, sockets and the other kind", async () => {
    const { put, read, reading } = office();
    const TURN = 5;
    let serial = 0;
    let flooded = 0;
    const frame = Promise.withResolvers<number>();
    const reader = reading(
      {
        kind: GOSSIP,
        turnMax: TURN,
        receive: (mail) => {
          read(mail);
          flooded++;
          put(GOSSIP, 0, serial++); // there is always one more
          put(GOSSIP, 1, serial++);
        },
      },
      { kind: FRAMES, turnMax: TURN, receive: (mail) => frame.resolve(read(mail)) },
    );
    put(GOSSIP, 0, serial++);
    reader.start();
    await new Promise((resolve) => setTimeout(resolve, 1));
    const before = flooded;
    expect(before).toBeGreaterThan(0);
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: () => new Response("served"),
    });
    expect(await (await fetch(server.url)).text()).toBe("served");
    await server.stop(true);
    put(FRAMES, 1, 77);
    expect(await frame.promise).toBe(77);
    await reader.stop();
    expect(flooded).toBeGreaterThan(before);
    expect(serial).toBe(1 + 2 * flooded);
  });

  test.each(["told of its end", "not told"])(
    "the room of what a turn took is freed when it is done, and no sooner: a taker that is %s",
    async (told) => {
      const { put, read, reading } = office();
      const TURN = 3;
      let serial = 0;
      const tryPut = (): boolean =>
        put(GOSSIP, 0, serial, MAILBOX_MESSAGE_BYTES_MAX) && ++serial > 0;
      while (tryPut());
      const log: string[] = [];
      const mails: Mail[] = [];
      let atEnd: number[] = [];
      let freed = 0;
      const ended = Promise.withResolvers<void>();
      const taker: MailTaker = {
        kind: GOSSIP,
        turnMax: TURN,
        receive: (mail) => {
          mails.push(mail);
          if (mails.length <= TURN) log.push(tryPut() ? "there is room" : "full");
          if (mails.length !== TURN + 1) return;
          while (tryPut()) freed++; // in the second turn
          ended.resolve(reader.stop());
        },
      };
      const turnDone = (): void => {
        if (mails.length !== TURN) return;
        log.push(tryPut() ? "there is room" : "still full");
        atEnd = mails.map(read);
      };
      const reader = reading(told === "not told" ? taker : { ...taker, turnDone });
      reader.start();
      await ended.promise;
      expect(log.slice(0, TURN)).toEqual(["full", "full", "full"]);
      expect(freed).toBe(TURN);
      if (told === "not told") return;
      expect(log.slice(TURN)).toEqual(["still full"]);
      expect(atEnd).toEqual([0, 1, 2]);
    },
  );

  test("end with turnDone only where there was something to take", async () => {
    const { put, reading } = office();
    let [turns, taken] = [0, 0];
    const rest = milestone(() => turns === 4);
    const taker: MailTaker = {
      kind: FRAMES,
      turnMax: 3,
      receive: () => void taken++,
      turnDone: () => {
        turns++;
        rest.step();
      },
    };
    const reader = reading(taker);
    for (let serial = 0; serial < 9; serial++) put(FRAMES, 0, serial); // three full turns
    put(FRAMES, 1, 9);
    reader.start();
    await rest.promise;
    await reader.stop();
    expect([taken, turns]).toEqual([10, 4]);
  });
});

describe("stopping", () => {
  /** A taker that notes what it gets. */
  function noting(kind: number, read: (mail: Mail) => number, turnMax = 4) {
    const got: number[] = [];
    const taker: MailTaker = { kind, turnMax, receive: (mail) => void got.push(read(mail)) };
    return { got, taker };
  }

  test("while it waits ends it, and what comes later stays where it is", async () => {
    const { put, read, reading, left } = office();
    const { got, taker } = noting(GOSSIP, read);
    const reader = reading(taker);
    reader.start(); // nothing is there: it waits
    await reader.stop(); // if it were not woken, this would be the end
    put(GOSSIP, 0, 5);
    await new Promise(setImmediate);
    expect(got).toEqual([]);
    expect(left(GOSSIP, 0)).toEqual([5]);
  });

  test("while it waits again, after some work, ends it too", async () => {
    const { put, read, reading, left } = office();
    const { got, taker } = noting(GOSSIP, read);
    const reader = reading(taker);
    reader.start();
    put(GOSSIP, 0, 5);
    while (got.length === 0) await new Promise(setImmediate);
    // by now there is nothing to do
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
    await reader.stop();
    put(GOSSIP, 1, 6);
    await new Promise(setImmediate);
    expect(got).toEqual([5]);
    expect(left(GOSSIP, 1)).toEqual([6]);
  });

  test("in the midst of a turn lets this round end, and leaves the rest", async () => {
    const { put, read, reading, left } = office();
    const TURN = 4;
    const { got: frames, taker: framesTaker } = noting(FRAMES, read, TURN);
    const got: number[] = [];
    const ended = Promise.withResolvers<void>();
    const reader = reading(
      {
        kind: GOSSIP,
        turnMax: TURN,
        receive: (mail) => {
          got.push(read(mail));
          if (got.length === TURN + 2) ended.resolve(reader.stop());
        },
      },
      framesTaker,
    );
    for (let serial = 0; serial < 20; serial++) {
      put(GOSSIP, 0, serial);
      put(FRAMES, 1, serial);
    }
    reader.start();
    await ended.promise;
    await new Promise(setImmediate);
    const upTo = (end: number, from = 0) => Array.from({ length: end - from }, (_, i) => from + i);
    expect(got).toEqual(upTo(2 * TURN));
    expect(frames).toEqual(upTo(2 * TURN));
    expect(left(GOSSIP, 0)).toEqual(upTo(20, 2 * TURN));
    expect(left(FRAMES, 1)).toEqual(upTo(20, 2 * TURN));
  });

  test("between two turns ends it there", async () => {
    const { put, read, reading, left } = office();
    const { got, taker } = noting(GOSSIP, read);
    for (let serial = 0; serial < 20; serial++) put(GOSSIP, 0, serial);
    const reader = reading(taker);
    reader.start(); // the first turn is done at once
    expect(got).toEqual([0, 1, 2, 3]);
    await reader.stop();
    expect(got).toEqual([0, 1, 2, 3]);
    expect(left(GOSSIP, 0)).toHaveLength(16);
  });

  test("twice is once; before the start, it is the end of it", async () => {
    const { put, read, reading, left } = office();
    const { got, taker } = noting(GOSSIP, read);
    const reader = reading(taker);
    await Promise.all([reader.stop(), reader.stop()]);
    put(GOSSIP, 0, 1);
    reader.start();
    await reader.stop();
    expect(got).toEqual([]);
    expect(left(GOSSIP, 0)).toEqual([1]);
  });
});

test("beside worker threads: wakes for whatever they put in, and all of it comes whole and in order", async () => {
  const COUNT = 5000;
  const BYTES_MAX = 20_000;
  const { memory, reading } = office();
  const expected = new Uint8Array(BYTES_MAX);
  const label = new Int32Array(ENDPOINT_WORDS);
  /** The next serial number of each thread: they begin a million apart, from a million on. */
  const next = new Map<number, number>();
  let wrong = 0;
  let taken = 0;
  const all = milestone(() => taken === KINDS.length * WORKERS * COUNT);
  const pending: Mail[] = [];
  const check = ({ at, bytes, labelAt }: Mail, kind: number): void => {
    const serial = new DataView(memory.buffer, at).getInt32(0);
    const thread = Math.floor(serial / 1_000_000);
    const whole = expected.subarray(0, bytesOf(serial, BYTES_MAX));
    fillMessage(serial, whole);
    fillLabel(serial, label);
    const isWhole =
      Buffer.compare(memory.bytes.subarray(at, at + bytes), whole) === 0 &&
      label.every((word, i) => memory.words[labelAt + i] === word);
    if (!isWhole || serial !== next.get(thread) || KINDS[(thread - 1) & 1] !== kind) wrong++;
    next.set(thread, serial + 1);
  };
  const takers = KINDS.map(
    (kind): MailTaker => ({
      kind,
      turnMax: 50,
      receive: (mail) => void pending.push(mail),
      turnDone: () => {
        // Whole to the last, though the threads go on putting in.
        for (const mail of pending) check(mail, kind);
        taken += pending.length;
        pending.length = 0;
        all.step();
      },
    }),
  );
  const reader = reading(...takers);
  reader.start(); // it waits
  const results: Promise<unknown[]>[] = [];
  for (const [i, worker] of [0, 0, 1, 1].entries()) {
    const first = (1 + i) * 1_000_000;
    next.set(1 + i, first);
    const thread = new Worker(new URL("../../support/mail-worker.ts", import.meta.url), {
      workerData: {
        shape: memory.shape,
        buffer: memory.buffer,
        kind: KINDS[i & 1]!,
        worker,
        first,
        count: COUNT,
        bytesMax: BYTES_MAX,
      } satisfies MailWorkerData,
    });
    threads.push(thread);
    results.push(once(thread, "message"));
    await once(thread, "online");
  }
  await all.promise; // if it were not woken, this would be the end
  expect(await Promise.all(results)).toEqual([0, 1, 2, 3].map(() => [ALL_PUT]));
  await reader.stop();
  expect(wrong).toBe(0);
  expect([...next.values()]).toEqual([1, 2, 3, 4].map((thread) => thread * 1_000_000 + COUNT));
}, 120_000);
