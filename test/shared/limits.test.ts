/**
 * Limits by source: what is let in, of one source and of many, and what a flood of others does to
 * it.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { LIMITS } from "../../src/shared/counters.ts";
import { nodeHash } from "../../src/shared/hash.ts";
import {
  ANSWER_LIMIT,
  ENDPOINT_HOLD,
  NEW_NODE_LIMIT,
  PUNCH_LIMIT,
  PUNCH_SOURCE_LIMIT,
  RateLimitOwner,
  RELAY_ADDRESS_LIMIT,
  RELAY_LIMIT,
} from "../../src/shared/limits.ts";
import { SharedMemory } from "../../src/shared/memory.ts";

const SECOND_NS = 1e9;
/** Any moment: hosts have been up for some time. */
const BEGIN_NS = 12_345 * SECOND_NS;

const sharedMemory = () => new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 1 });

function limitOf(limit: number, perSecond: number, burst: number): RateLimitOwner {
  const rate = new RateLimitOwner(sharedMemory(), limit);
  rate.set(perSecond, burst);
  return rate;
}

/** How many of single packets, one each `everyNs`, are let in. */
function letIn(
  rate: RateLimitOwner,
  source: number,
  fromNs: number,
  forNs: number,
  everyNs: number,
): number {
  let taken = 0;
  for (let atNs = 0; atNs < forNs; atNs += everyNs) taken += rate.take(source, 1, fromNs + atNs);
  return taken;
}

test("each limit has its name's place", () => {
  const numbers = [
    ...[RELAY_LIMIT, RELAY_ADDRESS_LIMIT, PUNCH_SOURCE_LIMIT, PUNCH_LIMIT],
    ...[NEW_NODE_LIMIT, ANSWER_LIMIT, ENDPOINT_HOLD],
  ];
  expect(numbers.map((limit) => LIMITS[limit]!)).toEqual([...LIMITS]);
});

describe("one source", () => {
  test("without a rate, everything is let in", () => {
    const rate = new RateLimitOwner(sharedMemory(), RELAY_LIMIT);
    expect(rate.take(1, 1_000_000, BEGIN_NS)).toBe(1_000_000);
    rate.set(1, 1);
    expect(rate.take(1, 2, BEGIN_NS)).toBe(1);
    rate.set(0, 0);
    expect(rate.take(1, 2, BEGIN_NS)).toBe(2);
  });

  test("has its burst at once, then its rate", () => {
    const rate = limitOf(RELAY_LIMIT, 4000, 4000);
    expect(rate.take(7, 5000, BEGIN_NS)).toBe(4000);
    expect(rate.take(7, 1, BEGIN_NS)).toBe(0);
    expect(rate.take(7, 1, BEGIN_NS + 249_999)).toBe(0);
    expect(rate.take(7, 3, BEGIN_NS + 500_000)).toBe(2);
    expect(letIn(rate, 7, BEGIN_NS + SECOND_NS, 10 * SECOND_NS, 100_000)).toBe(
      4000 - 2 + 10 * 4000 - 1,
    );
  });

  test("what it does not use is kept up to the burst, and no longer", () => {
    const rate = limitOf(ANSWER_LIMIT, 100, 10);
    expect(rate.take(7, 10, BEGIN_NS)).toBe(10);
    expect(rate.take(7, 10, BEGIN_NS + SECOND_NS / 20)).toBe(5);
    expect(rate.take(7, 100, BEGIN_NS + 1000 * SECOND_NS)).toBe(10);
  });

  test("what is refused costs nothing: who sends too much has the same as who sends just enough", () => {
    const much = limitOf(RELAY_LIMIT, 1000, 1000);
    expect(letIn(much, 1, BEGIN_NS, 10 * SECOND_NS, 10_000)).toBe(11_000 - 1);
    const enough = limitOf(RELAY_LIMIT, 1000, 1000);
    expect(letIn(enough, 1, BEGIN_NS, 10 * SECOND_NS, 1_000_000)).toBe(10_000);
  });

  test("shows how much of its burst it has used: nothing at first, all when the next packet is refused", () => {
    const rate = limitOf(RELAY_LIMIT, 100, 10);
    expect([rate.perSecond, rate.used(7, BEGIN_NS)]).toEqual([100, 0]);
    rate.take(7, 5, BEGIN_NS);
    expect(rate.used(7, BEGIN_NS)).toBe(0.5);
    expect(rate.used(7, BEGIN_NS + SECOND_NS / 100)).toBeCloseTo(0.4);
    rate.take(7, 5, BEGIN_NS);
    expect(rate.used(7, BEGIN_NS)).toBe(1);
    expect(rate.used(7, BEGIN_NS + SECOND_NS / 100)).toBe(0.9);
    expect(rate.take(7, 1, BEGIN_NS + SECOND_NS / 100)).toBe(1);
    expect(rate.used(8, BEGIN_NS)).toBe(0);
    expect(rate.used(7, BEGIN_NS + SECOND_NS)).toBe(0);
    rate.set(0, 0);
    expect([rate.perSecond, rate.used(7, BEGIN_NS)]).toEqual([0, 0]);
  });

  test("is asked for its room without using any of it", () => {
    const rate = limitOf(RELAY_LIMIT, 100, 10);
    const room = (packets: number, atNs = BEGIN_NS) => rate.room(7, packets, atNs);
    expect([room(1), room(10), room(11), room(1000)]).toEqual([1, 10, 10, 10]);
    rate.take(7, 8, BEGIN_NS);
    expect([room(1), room(2), room(3)]).toEqual([1, 2, 2]);
    expect(room(10, BEGIN_NS + SECOND_NS / 100)).toBe(3);
    rate.take(7, 2, BEGIN_NS);
    expect([room(1), room(1, BEGIN_NS + SECOND_NS / 100 - 1)]).toEqual([0, 0]);
    expect([room(2, BEGIN_NS + SECOND_NS / 100), rate.room(8, 20, BEGIN_NS)]).toEqual([1, 10]);
    rate.set(1000, 1); // the old rate's burst is still to be paid for
    expect(room(1)).toBe(0);
    rate.set(0, 0);
    expect(room(1000)).toBe(1000);
  });

  test("another rate holds from the next packet on", () => {
    const rate = limitOf(NEW_NODE_LIMIT, 10, 10);
    expect(rate.take(7, 100, BEGIN_NS)).toBe(10);
    rate.set(1000, 100);
    // a second of the old rate is still to be paid for, and that is above the new burst
    expect(rate.take(7, 100, BEGIN_NS)).toBe(0);
    expect(rate.take(7, 1000, BEGIN_NS + 2 * SECOND_NS)).toBe(100);
  });

  test("the rates of Infinity's neighbours: one a nanosecond is as good as none", () => {
    const rate = limitOf(RELAY_LIMIT, 1e9, 1e9);
    expect(rate.take(7, 65_000, BEGIN_NS)).toBe(65_000);
  });

  test("never gets more than burst and rate, whatever it sends and when", () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: 1, max: 100_000 }),
        fc.integer({ min: 1, max: 100_000 }),
        fc.array(
          fc.tuple(fc.integer({ min: 0, max: 100_000_000 }), fc.integer({ min: 1, max: 2000 })),
          {
            maxLength: 200,
          },
        ),
        (source, perSecond, burst, sends) => {
          const rate = limitOf(RELAY_LIMIT, perSecond, burst);
          const intervalNs = Math.max(1, Math.round(SECOND_NS / perSecond));
          let nowNs = BEGIN_NS;
          let taken = 0;
          for (const [pauseNs, packets] of sends) {
            nowNs += pauseNs;
            const got = rate.take(source, packets, nowNs);
            if (got < 0 || got > packets || !Number.isInteger(got)) return false;
            taken += got;
            if (taken > burst + (nowNs - BEGIN_NS) / intervalNs) return false;
          }
          return true;
        },
      ),
    );
  });
});

describe("the two cells of a source", () => {
  const CELLS = 8;
  /**
   * Sources by their cells, "1,5" for one: of the overall limit, as all of its cells are one line.
   */
  function sourcesByCells(sources: number): Map<string, number[]> {
    const memory = sharedMemory();
    const { at, lines } = memory.sources(PUNCH_LIMIT);
    expect(lines).toBe(1);
    const rate = new RateLimitOwner(memory, PUNCH_LIMIT);
    rate.set(1, 1);
    const found = new Map<string, number[]>();
    for (let i = 0; i < sources; i++) {
      const source = nodeHash(i + 1, 0x7e57);
      const line = memory.floats.subarray(at, at + CELLS).fill(0);
      expect(rate.take(source, 1, BEGIN_NS)).toBe(1);
      const cells = Array.from(line.entries()).flatMap(([cell, timeNs]) =>
        timeNs > 0 ? [cell] : [],
      );
      const key = cells.join();
      found.set(key, [...(found.get(key) ?? []), source]);
    }
    return found;
  }

  test("are two of the line's eight, each pair as often as any other", () => {
    const PAIRS = (CELLS * (CELLS - 1)) / 2;
    const SOURCES = 200 * PAIRS;
    const found = sourcesByCells(SOURCES);
    expect([...found.keys()].every((cells) => cells.split(",").length === 2)).toBe(true);
    expect(found.size).toBe(PAIRS);
    for (const { length } of found.values()) expect(length).toBeWithin(140, 260);
  });

  test("count by the earlier one: a source that shares a cell with a busy one keeps its whole budget", () => {
    const found = sourcesByCells(1000);
    const [busy, neighbour] = [found.get("1,5")![0]!, found.get("5,6")![0]!];
    const rate = limitOf(PUNCH_LIMIT, 10, 10);
    expect(rate.take(busy, 20, BEGIN_NS)).toBe(10);
    expect([rate.room(neighbour, 20, BEGIN_NS), rate.used(neighbour, BEGIN_NS)]).toEqual([10, 0]);
    expect(rate.take(neighbour, 3, BEGIN_NS)).toBe(3);
    // The shared cell stays as far ahead as the busy source has brought it.
    expect([rate.room(busy, 20, BEGIN_NS), rate.room(neighbour, 20, BEGIN_NS)]).toEqual([0, 7]);
    expect(rate.used(busy, BEGIN_NS)).toBe(1);
    // And the busy one has used up nothing of the neighbour's other cell.
    expect(rate.take(neighbour, 20, BEGIN_NS)).toBe(7);
    expect(rate.take(neighbour, 20, BEGIN_NS)).toBe(0);
  });

  test("are both used up: two busy sources leave nothing to one whose cells are one of each", () => {
    const found = sourcesByCells(1000);
    const [one, two, both] = ["1,5", "5,6", "1,6"].map((cells) => found.get(cells)![0]!);
    const rate = limitOf(PUNCH_LIMIT, 10, 10);
    rate.take(one!, 10, BEGIN_NS);
    rate.take(two!, 10, BEGIN_NS);
    expect(rate.room(both!, 10, BEGIN_NS)).toBe(0);
  });
});

describe("many sources", () => {
  test("do not share: hardly one of a thousand meets another in both of its cells", () => {
    const rate = limitOf(RELAY_LIMIT, 4000, 4000);
    const sources = Array.from({ length: 1000 }, (_, i) => nodeHash(i + 1, 0x7e57));
    const whole = sources.filter((source) => rate.take(source, 3900, BEGIN_NS) === 3900);
    expect(whole.length).toBeGreaterThanOrEqual(998);
  });

  test("but those of the overall limit do", () => {
    const rate = limitOf(PUNCH_LIMIT, 100, 100);
    let taken = 0;
    for (let source = 0; source < 1000; source++)
      taken += rate.take(nodeHash(source, 1), 1, BEGIN_NS);
    expect(taken).toBeWithin(100, 1000); // the line's cells; Admission asks for one
    expect(
      Array.from({ length: 200 }, () => rate.take(0, 1, BEGIN_NS + 10 * SECOND_NS)).filter(Boolean),
    ).toHaveLength(100);
  });

  /**
   * A flood of packets, each from a source that was made up for it, beside honest sources that keep
   * just below the limit and others that send twice as much. Time is played.
   */
  function flood(
    limit: number,
    perSecond: number,
    burst: number,
    floodPerSecond: number,
    seconds: number,
  ) {
    const rate = limitOf(limit, perSecond, burst);
    const HONEST = 100;
    const sources = Array.from({ length: 2 * HONEST }, (_, i) => nodeHash(i + 1, 0x0def_aced));
    const share = (i: number) => (i < HONEST ? 0.95 : 2);
    const stepNs = SECOND_NS / 1000;
    const owed = sources.map(() => 0);
    const sent = sources.map(() => 0);
    const got = sources.map(() => 0);
    let random = 0x9e37_79b9;
    let floodIn = 0;
    for (let step = 0; step < seconds * 1000; step++) {
      const nowNs = BEGIN_NS + step * stepNs;
      for (let i = 0; i < floodPerSecond / 1000; i++) {
        random = (Math.imul(random, 1_664_525) + 1_013_904_223) | 0;
        floodIn += rate.take(nodeHash(random, 0x5eed), 1, nowNs);
      }
      for (const [i, source] of sources.entries()) {
        owed[i]! += (share(i) * perSecond) / 1000;
        for (; owed[i]! >= 1; owed[i]!--) {
          sent[i]!++;
          got[i]! += rate.take(source, 1, nowNs);
        }
      }
    }
    const allowed = burst + perSecond * seconds;
    return {
      honestShares: got.slice(0, HONEST).map((count, i) => count / sent[i]!),
      greedyShares: got.slice(HONEST).map((count) => count / allowed),
      floodShare: floodIn / (floodPerSecond * seconds),
    };
  }

  test.each([
    ["relays", RELAY_LIMIT, 4000, 4000, 300_000, 4],
    ["answers", ANSWER_LIMIT, 1000, 1000, 300_000, 4],
    ["new nodes", NEW_NODE_LIMIT, 100, 1000, 100_000, 15],
    ["punches of a source", PUNCH_SOURCE_LIMIT, 1, 10, 50_000, 60],
  ])(
    "%s: a flood of made-up sources leaves each its budget within a tenth",
    (_, limit, perSecond, burst, floodPerSecond, seconds) => {
      const { honestShares, greedyShares } = flood(
        limit,
        perSecond,
        burst,
        floodPerSecond,
        seconds,
      );
      expect(Math.min(...honestShares)).toBeGreaterThanOrEqual(0.9);
      expect(Math.min(...greedyShares)).toBeGreaterThanOrEqual(0.9);
      expect(Math.max(...greedyShares)).toBeLessThanOrEqual(1.1);
    },
  );
});
