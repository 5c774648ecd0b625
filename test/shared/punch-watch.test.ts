/**
 * The watch on punches: who is counted as direct and who as relayed, and what a full table, a dead
 * thread and made-up ids do to it.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  CLOCK_S,
  HASH_SECRET,
  PUNCH_FILTER_WORDS,
  PUNCH_PLACES,
  PUNCH_WATCH,
  PUNCH_WORDS,
  SharedMemory,
} from "../../src/shared/memory.ts";
import {
  IPV4_PAIR,
  IPV6_PAIR,
  MIXED_PAIR,
  PunchWatchOwner,
  SETTLE_S,
  WATCH_S,
} from "../../src/shared/punch-watch.ts";

const BEGIN_S = 1000;

function watchers() {
  const memory = new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 1 });
  memory.words[HASH_SECRET] = 0x7e57;
  memory.words[memory.rulesAt + PUNCH_WATCH] = 1;
  memory.words[CLOCK_S] = BEGIN_S;
  const worker = new PunchWatchOwner(memory);
  const main = new PunchWatchOwner(memory);
  /** As the packet path does. */
  const relay = (senderId: number, destId: number) => {
    if (worker.mayWatch(senderId, destId)) worker.relayed(senderId, destId);
  };
  const ended: [family: number, hasRelayed: boolean][] = [];
  /** Sets the clock and sweeps. @returns how many are watched */
  const at = (afterS: number) => {
    memory.words[CLOCK_S] = BEGIN_S + afterS;
    return main.sweep(BEGIN_S + afterS, (...outcome) => ended.push(outcome));
  };
  at(0);
  return { memory, worker, main, relay, at, ended };
}

describe("a pair", () => {
  test.each([
    ["never", [], false],
    ["while it punches", [0, SETTLE_S - 1], false],
    ["once it has settled", [SETTLE_S], true],
    ["in the last second", [WATCH_S - 1], true],
    ["afterwards", [WATCH_S], false],
  ] as const)("that relays %s", (_when, times, hasRelayed) => {
    const { worker, main, relay, memory, at, ended } = watchers();
    worker.watch(7, -5, MIXED_PAIR);
    for (const afterS of times) {
      memory.words[CLOCK_S] = BEGIN_S + afterS;
      relay(-5, 7);
    }
    expect([at(WATCH_S - 1), ended]).toEqual([1, []]);
    expect([at(WATCH_S), ended]).toEqual([0, [[MIXED_PAIR, hasRelayed]]]);
    expect(main.takeUnwatched()).toBe(0);
  });

  test("is told from others, even of the same exclusive or, whoever of the two relays", () => {
    const { worker, relay, at, ended } = watchers();
    worker.watch(0x1000_0001, 2, IPV4_PAIR);
    worker.watch(2, 3, IPV6_PAIR);
    at(10);
    relay(0x2000_0001, 2); // the same bit of the filter
    relay(0x1000_0001, 3);
    relay(3, 2);
    at(WATCH_S);
    expect(ended.sort()).toEqual([
      [IPV4_PAIR, false],
      [IPV6_PAIR, true],
    ]);
  });

  test("that punches again while it is watched stays one watch, from the first on; later it is another", () => {
    const { worker, at, relay, ended } = watchers();
    worker.watch(1, 2, IPV4_PAIR);
    at(30);
    worker.watch(2, 1, IPV4_PAIR);
    relay(1, 2);
    expect([at(WATCH_S), ended.length]).toEqual([0, 1]);
    worker.watch(1, 2, IPV4_PAIR);
    expect(at(2 * WATCH_S - 1)).toBe(1);
    at(2 * WATCH_S);
    expect(ended).toEqual([
      [IPV4_PAIR, true],
      [IPV4_PAIR, false],
    ]);
  });

  test("of a node with itself or nobody is none, nor is any while the watch is off", () => {
    const { memory, worker, main, at } = watchers();
    for (const [one, other] of [
      [1, 1],
      [0, 1],
      [1, 0],
    ] as const)
      worker.watch(one, other, IPV4_PAIR);
    memory.words[memory.rulesAt + PUNCH_WATCH] = 0;
    worker.watch(1, 2, IPV4_PAIR);
    expect([at(1), main.takeUnwatched(), worker.mayWatch(1, 2)]).toEqual([0, 0, false]);
  });

  test("that two threads enter at once counts once, as relayed if either place says so", () => {
    const { memory, worker, relay, at, ended } = watchers();
    worker.watch(1, 2, IPV4_PAIR);
    const { words, punchPlacesAt } = memory;
    const end = punchPlacesAt + PUNCH_PLACES * PUNCH_WORDS;
    let place = punchPlacesAt;
    while (place < end && words[place + 2] === 0) place += PUNCH_WORDS;
    at(10);
    relay(1, 2);
    words.copyWithin(place + PUNCH_WORDS, place, place + PUNCH_WORDS);
    words[place + PUNCH_WORDS + 3] = IPV4_PAIR; // the other thread's place, of which no Relay knew
    expect(at(11)).toBe(2);
    at(WATCH_S);
    expect(ended).toEqual([[IPV4_PAIR, true]]);
  });
});

test("the filter lets a pair pass for as long as it is watched, whenever its epochs change, nobody else, and forgets", () => {
  for (let begin = 0; begin < 2 * WATCH_S; begin += 7) {
    const { memory, worker, at } = watchers();
    for (let second = 0; second <= begin; second++) at(second);
    worker.watch(1, -2, IPV6_PAIR);
    for (let second = begin; second < begin + WATCH_S; second++) {
      at(second);
      expect([begin, second, worker.mayWatch(-2, 1)]).toEqual([begin, second, true]);
    }
    const filter = memory.words.subarray(
      memory.punchFilterAt,
      memory.punchFilterAt + PUNCH_FILTER_WORDS,
    );
    expect(filter.filter((word) => word !== 0)).toHaveLength(1);
    for (let second = begin + WATCH_S; second < begin + 3 * WATCH_S; second++) at(second);
    expect(filter.filter((word) => word !== 0)).toHaveLength(0);
  }
});

test("pairs without end take no more than the table has; those without room are counted, and there is room again", () => {
  const { worker, main, at, ended } = watchers();
  const PAIRS = 3 * PUNCH_PLACES;
  for (let i = 0; i < PAIRS; i++) worker.watch(i + 1, -1 - i, IPV4_PAIR);
  const watching = at(1);
  expect(watching).toBeWithin(PUNCH_PLACES * 0.9, PUNCH_PLACES + 1);
  expect(watching + main.takeUnwatched()).toBe(PAIRS);
  expect(main.takeUnwatched()).toBe(0);
  expect(at(WATCH_S)).toBe(0);
  expect(ended).toHaveLength(watching);
  worker.watch(1, 2, IPV4_PAIR);
  expect([at(WATCH_S + 1), main.takeUnwatched()]).toEqual([1, 0]);
});

test("pairs are counted late rather than never, where the main thread was away", () => {
  const { worker, at, ended } = watchers();
  for (let second = 1; second < 10; second++) at(second);
  worker.watch(1, 2, IPV4_PAIR);
  expect([at(10 * WATCH_S), ended]).toEqual([0, [[IPV4_PAIR, false]]]);
});

test("a place that a dead thread claimed and never filled counts as nothing, and is freed", () => {
  const { memory, worker, at, ended } = watchers();
  worker.watch(1, 2, IPV4_PAIR);
  const { words, punchPlacesAt } = memory;
  const end = punchPlacesAt + PUNCH_PLACES * PUNCH_WORDS;
  for (let place = punchPlacesAt; place < end; place += PUNCH_WORDS)
    words[place + 2] = -words[place + 2]! || 0;
  worker.watch(1, 2, IPV4_PAIR);
  expect(at(1)).toBe(2);
  expect(at(WATCH_S)).toBe(0);
  expect(ended).toEqual([[IPV4_PAIR, false]]);
});

test("whatever nodes do, the counts are those of a plain map", () => {
  const node = fc.constantFrom(1, 2, 3, -1, 0x7fff_ffff, -0x8000_0000);
  const step = fc.record({
    kind: fc.constantFrom("watch", "relay"),
    one: node,
    other: node,
    waitS: fc.nat(9),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { worker, relay, at, ended } = watchers();
      const model = new Map<string, { sinceS: number; relayed: boolean }>();
      const expected = { direct: 0, relayed: 0 };
      let nowS = 0;
      const pass = (seconds: number) => {
        for (let i = 0; i < seconds; i++) {
          nowS++;
          const watching = at(nowS);
          for (const [key, { sinceS, relayed }] of model) {
            if (nowS - sinceS < WATCH_S) continue;
            expected[relayed ? "relayed" : "direct"]++;
            model.delete(key);
          }
          expect(watching).toBe(model.size);
        }
      };
      for (const { kind, one, other, waitS } of steps) {
        pass(waitS);
        const key = [one, other].sort((a, b) => a - b).join();
        const watched = model.get(key);
        if (kind === "watch") {
          worker.watch(one, other, IPV4_PAIR);
          if (!watched && one !== other) model.set(key, { sinceS: nowS, relayed: false });
        } else {
          relay(one, other);
          if (watched && nowS - watched.sinceS >= SETTLE_S) watched.relayed = true;
        }
      }
      pass(WATCH_S);
      expect(ended.filter(([, relayed]) => relayed)).toHaveLength(expected.relayed);
      expect(ended.filter(([, relayed]) => !relayed)).toHaveLength(expected.direct);
    }),
    { numRuns: 50 },
  );
});
