import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import {
  ARRIVALS_READABLE,
  ArrivalNotes,
  Arrivals,
  type Drained,
} from "../../src/shared/arrivals.ts";
import {
  ARRIVALS_HEAD,
  ARRIVALS_NOTED,
  ARRIVALS_RING,
  MAIN_THREAD_LOCK,
  SHARD_LOCK,
  SharedMemory,
  workerLock,
} from "../../src/shared/memory.ts";
import { HEARD_SINCE, NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { again } from "../support/again.ts";
import {
  type ArrivalWorkerData,
  type ArrivalWorkerResult,
  GO,
  SEEN,
  WORKER_BITS,
} from "../support/arrival-worker.ts";

const WORKERS = 2;
const holders = [MAIN_THREAD_LOCK, workerLock(0), workerLock(1)];
/**
 * How many were noted ever: none, some, all that fit, and where the 32 bits of the count run over.
 */
const counts = [0, 5, ARRIVALS_RING - 1, ARRIVALS_RING, 2 ** 31 - 3, -3];

function arrivalsAt(count = 0) {
  const memory = new SharedMemory({ workers: WORKERS, nodesMax: 1000, routesMax: 1 });
  for (let row = 0; row <= WORKERS; row++)
    memory.words[memory.arrivals(row) + ARRIVALS_HEAD] = count;
  const notes = holders.map((holder) => new ArrivalNotes(memory, holder));
  return { memory, notes, arrivals: new Arrivals(memory) };
}

function drain(arrivals: Arrivals, max = Infinity): Drained & { ids: number[] } {
  const ids: number[] = [];
  const drained = arrivals.drain((id) => ids.push(id), max);
  expect(ids.length).toBeLessThanOrEqual(max);
  return { ids, ...drained };
}

const fill = (notes: ArrivalNotes, from: number, count: number): void => {
  for (let id = from; id < from + count; id++) notes.note(id);
};
const range = (from: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => from + i);

describe("Arrivals", () => {
  test.each(counts)("are visited once, each thread's in their order, after %d others", (count) => {
    const { notes, arrivals } = arrivalsAt(count);
    expect(drain(arrivals)).toEqual({ ids: [], lost: false, more: false });
    for (const id of [7, -1, 7]) notes[1]!.note(id);
    notes[0]!.note(-0x8000_0000);
    notes[2]!.note(0x7fff_ffff);
    const { ids, ...drained } = drain(arrivals);
    expect(ids.toSorted()).toEqual([-1, -0x8000_0000, 7, 7, 0x7fff_ffff].toSorted());
    expect(ids.filter((id) => Math.abs(id) < 10)).toEqual([7, -1, 7]);
    expect(drained).toEqual({ lost: false, more: false });
    expect(drain(arrivals)).toEqual({ ids: [], lost: false, more: false });
  });

  test("of a time before are not visited", () => {
    const { memory, notes } = arrivalsAt();
    notes[1]!.note(7);
    expect(drain(new Arrivals(memory)).ids).toEqual([]);
  });

  test("as many as are asked for, and all that the ring can be read of, for as many rounds as one likes", () => {
    const { notes, arrivals } = arrivalsAt(-ARRIVALS_RING);
    for (let round = 0; round < 3; round++) {
      fill(notes[1]!, 1, ARRIVALS_READABLE);
      expect(drain(arrivals, 0)).toEqual({ ids: [], lost: false, more: true });
      expect(drain(arrivals, 10)).toEqual({ ids: range(1, 10), lost: false, more: true });
      const rest = { ids: range(11, ARRIVALS_READABLE - 10), lost: false, more: false };
      expect(Bun.deepEquals(drain(arrivals), rest)).toBe(true);
    }
  });

  test.each(counts)(
    "one more is told as lost, once, and what comes after is visited, after %d others",
    (count) => {
      const { notes, arrivals } = arrivalsAt(count);
      for (const more of [1, ARRIVALS_RING, 3 * ARRIVALS_RING]) {
        fill(notes[1]!, 1, ARRIVALS_READABLE + more);
        notes[2]!.note(5);
        expect(drain(arrivals)).toEqual({ ids: [5], lost: true, more: false });
        notes[1]!.note(6);
        expect(drain(arrivals)).toEqual({ ids: [6], lost: false, more: false });
      }
    },
  );

  test("any number more is told as lost", () => {
    const { memory, arrivals } = arrivalsAt(5);
    const head = memory.arrivals(1) + ARRIVALS_HEAD;
    for (const more of [2 ** 30, 2 ** 31, 2 ** 32 - 1]) {
      memory.words[head]! += more;
      expect(drain(arrivals)).toEqual({ ids: [], lost: true, more: false });
    }
  });

  test("those written over while they are visited are told as lost, and none is taken for another", () => {
    const { notes, arrivals } = arrivalsAt();
    fill(notes[1]!, 1, 10);
    const ids: number[] = [];
    const drained = arrivals.drain((id) => {
      ids.push(id);
      if (id === 3) fill(notes[1]!, 1000, ARRIVALS_RING);
    }, Infinity);
    expect(drained).toEqual({ lost: true, more: false });
    expect(ids).toEqual([1, 2, 3]);
  });

  test("a thread that has none left is told as lost by `lose`, and goes on", () => {
    const { notes, arrivals } = arrivalsAt();
    notes[0]!.note(1);
    notes[0]!.lose();
    notes[0]!.note(2);
    expect(drain(arrivals)).toEqual({ ids: [], lost: true, more: false });
    notes[0]!.note(3);
    expect(drain(arrivals)).toEqual({ ids: [3], lost: false, more: false });
  });

  test("no thread waits for good behind one that always has more", () => {
    const { notes, arrivals } = arrivalsAt();
    for (const [i, one] of notes.entries()) one.note(-1 - i);
    const seen: number[] = [];
    for (let round = 0; round <= WORKERS; round++) {
      fill(notes[1]!, 1, 10);
      seen.push(...drain(arrivals, 10).ids.filter((id) => id < 0));
    }
    expect(seen.toSorted()).toEqual([-1, -2, -3].toSorted());
  });

  test("any sequence of notes and drains leaves none out that is not told as lost", () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant("note" as const),
        thread: fc.nat(WORKERS),
        count: fc.oneof(fc.nat(5), fc.nat(ARRIVALS_RING), fc.constant(ARRIVALS_RING)),
      }),
      fc.record({
        kind: fc.constant("drain" as const),
        max: fc.oneof(fc.nat(5), fc.constant(Infinity)),
      }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), fc.constantFrom(...counts), (steps, count) => {
        const { notes, arrivals } = arrivalsAt(count);
        /**
         * What each thread noted and nobody visited, as ranges of the serial numbers that are the
         * ids.
         */
        const pending = holders.map(() => ({ from: 1, end: 1 }));
        for (const action of steps) {
          if (action.kind === "note") {
            const { thread, count: more } = action;
            const one = pending[thread]!;
            for (let i = 0; i < more; i++) notes[thread]!.note((one.end++ << WORKER_BITS) | thread);
            continue;
          }
          const { ids, lost, more } = drain(arrivals, action.max);
          for (const id of ids) {
            const { from } = pending[id & 3]!;
            if (id >> WORKER_BITS !== from)
              throw new Error(`${id >> WORKER_BITS} of ${id & 3}, not ${from}`);
            pending[id & 3]!.from++;
          }
          const over = pending.filter(({ from, end }) => end - from > ARRIVALS_READABLE);
          if (action.max === Infinity) {
            expect(lost).toBe(over.length > 0);
            for (const one of over) one.from = one.end;
          } else if (lost) {
            // Which ones is known where only one can be meant.
            expect(over.length).toBeGreaterThan(0);
            return;
          }
          expect(more).toBe(pending.some(({ from, end }) => from !== end));
        }
      }),
      { numRuns: 100 },
    );
  });
});

describe("nodes that a table adds", () => {
  const ENDPOINT = new Int32Array(ENDPOINT_WORDS).fill(1);
  function noted() {
    const { memory, arrivals } = arrivalsAt();
    memory.words[memory.rulesAt + ARRIVALS_NOTED] = 1;
    const [main, worker] = holders.map((holder) => new NodeTableOwner(memory, holder)) as [
      NodeTableOwner,
      NodeTableOwner,
    ];
    return { memory, arrivals, main, worker };
  }

  test("are noted by whoever adds them, and no others", () => {
    const { arrivals, main, worker } = noted();
    worker.record(7, ENDPOINT, 0, 0, 1);
    main.record(8, ENDPOINT, 0, 0, 1);
    main.bridge(9, 1);
    expect(drain(arrivals).ids.toSorted()).toEqual([7, 8, 9]);
    main.record(7, ENDPOINT, 0, 0, 1);
    worker.record(8, new Int32Array(ENDPOINT_WORDS).fill(2), 0, 0, 1);
    main.bridge(7, 1);
    worker.record(9, ENDPOINT, 0, 0, 1);
    main.unbridge(9);
    expect(drain(arrivals).ids).toEqual([]);
    main.remove(7);
    worker.record(-7, ENDPOINT, 0, 0, 1);
    worker.record(7, ENDPOINT, 0, 0, 1);
    expect(drain(arrivals).ids).toEqual([-7, 7]);
  });

  test("count as lost when a thread died that may have added one", () => {
    const { memory, arrivals, main } = noted();
    expect(main.breakLocks(workerLock(1))).toBe(0);
    expect(drain(arrivals).lost).toBe(false);
    memory.words[memory.shardWords(1) + SHARD_LOCK] = workerLock(1);
    expect(main.breakLocks(workerLock(1))).toBe(1);
    expect(drain(arrivals).lost).toBe(true);
    expect(drain(arrivals).lost).toBe(false);
  });
});

describe("of real threads", () => {
  /**
   * Starts all, and lets them begin once they are there.
   * @returns what they will say, and whether all have
   */
  async function start(
    memory: SharedMemory,
    words: Int32Array<SharedArrayBuffer>,
    data: Pick<ArrivalWorkerData, "task" | "nodes" | "count" | "aheadMax">,
  ): Promise<{ ended: boolean; results: Promise<ArrivalWorkerResult[]> }> {
    const results: Promise<ArrivalWorkerResult>[] = [];
    const { shape, buffer } = memory;
    for (let worker = 0; worker < WORKERS; worker++) {
      const thread = new Worker(new URL("../support/arrival-worker.ts", import.meta.url), {
        workerData: {
          shape,
          buffer,
          worker,
          words: words.buffer,
          ...data,
        } satisfies ArrivalWorkerData,
      });
      results.push(once(thread, "message").then(([message]) => message as ArrivalWorkerResult));
      await once(thread, "online");
    }
    const state = { ended: false, results: Promise.all(results) };
    void state.results.then(() => {
      state.ended = true;
    });
    Atomics.store(words, GO, 1);
    return state;
  }

  const threadWords = () => new Int32Array(new SharedArrayBuffer(4 * (SEEN + WORKERS)));
  const othersTurn = () => new Promise(setImmediate);

  /**
   * Drains until the threads are done. What is visited must have been noted, in its order, with
   * none missing but after a loss.
   * @returns how often ids were lost
   */
  async function drainAll(count: number, aheadMax: number): Promise<number> {
    const { memory, arrivals } = arrivalsAt(-1000);
    const words = threadWords();
    const last = Array.from({ length: WORKERS }, () => 0);
    const mayMiss = last.map(() => false);
    let losses = 0;
    const visit = (id: number): void => {
      const [worker, serial] = [id & ((1 << WORKER_BITS) - 1), id >>> WORKER_BITS];
      const lastSerial = last[worker];
      if (lastSerial === undefined || serial <= lastSerial || serial > count)
        throw new Error(`${id} was not noted after ${last}`);
      if (serial !== lastSerial + 1 && !mayMiss[worker])
        throw new Error(`thread ${worker}: from ${lastSerial} to ${serial}, and nothing was lost`);
      last[worker] = serial;
      mayMiss[worker] = false;
    };
    const threads = await start(memory, words, { task: "note", nodes: 0, count, aheadMax });
    for (let ended = false; ; ) {
      const { lost, more } = arrivals.drain(visit, 1000);
      if (lost) losses++;
      if (lost) mayMiss.fill(true);
      for (const [worker, serial] of last.entries()) Atomics.store(words, SEEN + worker, serial);
      if (ended && !more) break;
      await othersTurn();
      ended = threads.ended;
    }
    for (const [worker, serial] of last.entries()) if (!mayMiss[worker]) expect(serial).toBe(count);
    return losses;
  }

  test("nothing is lost or invented while no more is noted than a ring can be read of", async () => {
    expect(await drainAll(300_000, ARRIVALS_READABLE)).toBe(0);
  }, 120_000);

  test("nothing is invented, and each loss is told, while nobody waits for the reader", async () => {
    expect(await drainAll(3_000_000, Infinity)).toBeGreaterThan(0);
  }, 120_000);

  test("each node is noted as often as it was added, while others are removed", async () => {
    const NODES = 300;
    const { memory, arrivals } = arrivalsAt();
    memory.words[memory.rulesAt + ARRIVALS_NOTED] = 1;
    const table = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
    const visits = new Int32Array(1 + NODES);
    const removals = new Int32Array(1 + NODES);
    table.removed = (id) => removals[id]!++;
    let removed = 0;
    const words = threadWords();
    const threads = await start(memory, words, {
      task: "add",
      nodes: NODES,
      count: 20_000,
      aheadMax: 0,
    });
    let next = 0;
    for (let ended = false; ; ) {
      const { lost, more } = arrivals.drain((id) => visits[id]!++, 100);
      expect(lost).toBe(false);
      if (ended && !more) break;
      for (let i = 0; i < 100; i++) {
        next = (next % NODES) + 1;
        const heardMs = table.heardMs(next);
        if (heardMs < 0) continue;
        if (!(heardMs > 0)) throw new Error(`node ${next} is there, and was heard at ${heardMs}`);
        // Nobody else removes; but it may have been heard again by now.
        const remove = (ms: number) => again(() => table.removeUnlessHeardSince(next, ms), -1);
        expect(remove(heardMs - 1)).toBe(HEARD_SINCE);
        const result = remove(heardMs);
        expect([1, HEARD_SINCE]).toContain(result);
        if (result === 1) removed++;
      }
      await othersTurn();
      ended = threads.ended;
    }
    const added = new Int32Array(1 + NODES);
    for (const result of await threads.results)
      for (const [id, times] of result.entries()) added[id]! += times;
    expect(visits).toEqual(added);
    const left = Int32Array.from(added, (times, id) => times - removals[id]!);
    expect(left).toEqual(Int32Array.from(left, (_, id) => Number(table.find(id) >= 0)));
    expect(removed).toBe(removals.reduce((sum, times) => sum + times, 0));
  }, 120_000);
});
