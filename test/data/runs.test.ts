import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { SEGMENTS_MAX, UDP_PAYLOAD_MAX } from "../../ffi/abi.ts";
import { NO_SLOT, REPLY, RUNS_MAX, Runs, TO_NODE } from "../../src/data/runs.ts";

const CAPACITY = 64;

interface Packet {
  readonly slot: number;
  readonly version: number;
  readonly bytes: number;
}

/** Which packets lie in which run, by their place in the input. */
type Members = number[][];

/**
 * Puts packets into runs as the packet handler does: into the newest run of the destination, or a
 * newer one.
 */
function merge(
  runs: Runs,
  packets: readonly Packet[],
  mergeBytesMax: (slot: number) => number,
): Members {
  const members: Members = [];
  for (const [i, { slot, version, bytes }] of packets.entries()) {
    const newest = runs.newest(slot, version);
    const place = newest < 0 ? -1 : runs.join(newest, bytes);
    if (place >= 0) {
      expect(place).toBe(members[newest]!.length);
      members[newest]!.push(i);
    } else {
      expect(runs.start(TO_NODE, slot, version, 0, bytes, mergeBytesMax(slot))).toBe(
        members.length,
      );
      members.push([i]);
    }
  }
  expect(runs.count).toBe(members.length);
  return members;
}

const UNLIMITED = (): number => UDP_PAYLOAD_MAX;
const slots = fc.integer({ min: 0, max: 5 }).map((i) => 4096 + i * 16);
const sizes = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(100, 1200) },
  { weight: 2, arbitrary: fc.integer({ min: 0, max: 1500 }) },
  { weight: 1, arbitrary: fc.constantFrom(0, 1, 20_000, UDP_PAYLOAD_MAX) },
);
const packetLists = fc.array(fc.record({ slot: slots, version: fc.nat(1), bytes: sizes }), {
  maxLength: CAPACITY,
});

/** What holds of any outcome. */
function expectRules(runs: Runs, packets: readonly Packet[], members: Members): void {
  for (const [run, places] of members.entries()) {
    const list = places.map((place) => packets[place]!);
    const first = list[0]!;
    // One destination, as one version of its entry says it.
    for (const { slot, version } of list)
      expect([slot, version]).toEqual([first.slot, first.version]);
    // udp(7), UDP_SEGMENT: one size, only the last may be shorter; no empty segment in company.
    for (const { bytes } of list.slice(0, -1)) expect(bytes).toBe(first.bytes);
    expect(list.at(-1)!.bytes).toBeLessThanOrEqual(first.bytes);
    if (list.length > 1) for (const { bytes } of list) expect(bytes).toBeGreaterThan(0);
    expect(list.length).toBeLessThanOrEqual(SEGMENTS_MAX);
    const total = list.reduce((sum, { bytes }) => sum + bytes, 0);
    expect(total).toBeLessThanOrEqual(UDP_PAYLOAD_MAX);
    expect(runs.packets[run]).toBe(list.length);
    expect(runs.bytes[run]).toBe(total);
    expect(runs.segmentBytes[run]).toBe(first.bytes);
    expect(runs.slot[run]).toBe(first.slot);
    expect(runs.version[run]).toBe(first.version);
  }
  // Each packet is in one run, and what one destination gets keeps its order.
  const order = members.flat();
  expect(order.toSorted((a, b) => a - b)).toEqual(packets.map((_, i) => i));
  const last = new Map<number, number>();
  for (const place of order) {
    const { slot } = packets[place]!;
    if (place < (last.get(slot) ?? -1))
      throw new Error(`packet ${place} leaves after ${last.get(slot)}`);
    last.set(slot, place);
  }
}

describe("Runs", () => {
  test("keep UDP_SEGMENT's rules and each destination's order, batch after batch", () => {
    fc.assert(
      fc.property(fc.array(packetLists, { maxLength: 4 }), (batches) => {
        const runs = new Runs(CAPACITY);
        for (const packets of batches) {
          expectRules(runs, packets, merge(runs, packets, UNLIMITED));
          runs.clear();
          expect(runs.count).toBe(0);
        }
      }),
      { numRuns: 200 },
    );
  });

  test("merge as much as a plain search over all runs would, when slots do not share a map entry", () => {
    fc.assert(
      fc.property(
        packetLists,
        fc.constantFrom(0, 150, 1199, 1200, UDP_PAYLOAD_MAX),
        (packets, limit) => {
          const expected: Members = [];
          for (const [i, packet] of packets.entries()) {
            const run = expected.findLast((places) => packets[places[0]!]!.slot === packet.slot);
            const list = run?.map((place) => packets[place]!) ?? [];
            const [first] = list;
            const total = list.reduce((sum, { bytes }) => sum + bytes, packet.bytes);
            const joins =
              first !== undefined &&
              first.version === packet.version &&
              first.bytes <= limit &&
              packet.bytes > 0 &&
              packet.bytes <= first.bytes &&
              list.every(({ bytes }) => bytes === first.bytes) &&
              list.length < SEGMENTS_MAX &&
              total <= UDP_PAYLOAD_MAX;
            if (joins) run!.push(i);
            else expected.push([i]);
          }
          expect(merge(new Runs(CAPACITY), packets, () => limit)).toEqual(expected);
        },
      ),
      { numRuns: 200 },
    );
  });

  test("take up to 64 packets and up to the largest UDP payload", () => {
    const lengths = (bytes: number, count: number): number[] => {
      const packets = Array.from({ length: count }, () => ({ slot: 16, version: 1, bytes }));
      return merge(new Runs(CAPACITY), packets, UNLIMITED).map((places) => places.length);
    };
    expect(lengths(1, 130)).toEqual([64, 64, 2]);
    expect(lengths(1023, 64)).toEqual([64]);
    expect(lengths(1024, 64)).toEqual([63, 1]); // 64 × 1,024 = 65,536
    expect(lengths(UDP_PAYLOAD_MAX, 2)).toEqual([1, 1]);
  });

  test("a shorter packet ends its run", () => {
    const packets = [100, 100, 99, 99, 100].map((bytes) => ({ slot: 16, version: 1, bytes }));
    expect(merge(new Runs(CAPACITY), packets, UNLIMITED)).toEqual([[0, 1, 2], [3], [4]]);
  });

  test("a new version starts a new run, and packets do not go back to the old one", () => {
    const packets = [1, 1, 2, 2, 1].map((version) => ({ slot: 16, version, bytes: 50 }));
    expect(merge(new Runs(CAPACITY), packets, UNLIMITED)).toEqual([[0, 1], [2, 3], [4]]);
  });

  /**
   * Slots that all share slot 16's two entries of the map, by the same hash as in src/data/runs.ts.
   */
  const pairOf = (slot: number): number => Math.imul(slot, 0x9e37_79b1) >>> 23;
  const rivals = Array.from({ length: 20_000 }, (_, i) => 16 * (1 + i)).filter(
    (slot) => pairOf(slot) === pairOf(16),
  );
  const inTurn = (slots: readonly number[]) =>
    Array.from({ length: CAPACITY }, (_, i) => ({
      slot: slots[i % slots.length]!,
      version: 1,
      bytes: 10,
    }));

  test("two slots that meet in the map are both merged", () => {
    expect(rivals.length).toBeGreaterThan(4);
    for (const rival of rivals.slice(1)) {
      const lone = merge(new Runs(CAPACITY), inTurn([16]), UNLIMITED).length;
      expect(merge(new Runs(CAPACITY), inTurn([16, rival]), UNLIMITED).length).toBeLessThanOrEqual(
        lone + 1,
      );
    }
  });

  test("more slots than that push each other out, merge less, and keep order", () => {
    expect(merge(new Runs(CAPACITY), inTurn(rivals.slice(0, 4)), UNLIMITED).length).toBeGreaterThan(
      4,
    );
    const packets = fc.record({
      slot: fc.constantFrom(...rivals),
      version: fc.nat(1),
      bytes: sizes,
    });
    fc.assert(
      fc.property(fc.array(packets, { maxLength: CAPACITY }), (list) => {
        const runs = new Runs(CAPACITY);
        expectRules(runs, list, merge(runs, list, UNLIMITED));
      }),
    );
  });

  test("a slot that was pushed out finds none of its older runs, batch after batch", () => {
    const few = fc.record({
      slot: fc.constantFrom(...rivals.slice(0, 3)),
      version: fc.constant(1),
      bytes: fc.constantFrom(50, 100, 150),
    });
    fc.assert(
      fc.property(
        fc.array(fc.array(few, { maxLength: 16 }), { minLength: 1, maxLength: 4 }),
        (batches) => {
          const runs = new Runs(CAPACITY);
          for (const packets of batches) {
            expectRules(runs, packets, merge(runs, packets, UNLIMITED));
            runs.clear();
          }
        },
      ),
      { numRuns: 1000 },
    );
  });

  test("are 1 to RUNS_MAX", () => {
    for (const capacity of [0, -1, RUNS_MAX + 1])
      expect(() => new Runs(capacity)).toThrow(RangeError);
    const runs = new Runs(RUNS_MAX);
    for (let run = 0; run < RUNS_MAX; run++) {
      expect(runs.start(TO_NODE, run * 16, 1, 0, 100, UDP_PAYLOAD_MAX)).toBe(run);
      expect(runs.newest(run * 16, 1)).toBe(run);
    }
  });

  test("forget every run of the batch before", () => {
    const runs = new Runs(CAPACITY);
    const start = (slot: number): number => runs.start(TO_NODE, slot, 1, 0, 100, UDP_PAYLOAD_MAX);
    const destinations = [16, 32, 48, 64];
    destinations.forEach(start);
    expect(destinations.map((slot) => runs.newest(slot, 1))).toEqual([0, 1, 2, 3]);
    runs.clear();
    expect(destinations.map((slot) => runs.newest(slot, 1))).toEqual([-1, -1, -1, -1]);
    // Run by run the old places are taken again, by others and then by the same.
    start(48);
    expect(destinations.map((slot) => runs.newest(slot, 1))).toEqual([-1, -1, 0, -1]);
    start(32);
    expect(destinations.map((slot) => runs.newest(slot, 1))).toEqual([-1, 1, 0, -1]);
    start(80);
    expect(destinations.map((slot) => runs.newest(slot, 1))).toEqual([-1, 1, 0, -1]);
  });

  test("replies have no slot and nothing joins them", () => {
    const runs = new Runs(CAPACITY);
    const run = runs.start(REPLY, NO_SLOT, -1, 0, 8, 0);
    expect([runs.kind[run], runs.slot[run], runs.joinBytesMax[run]]).toEqual([REPLY, NO_SLOT, 0]);
    expect(runs.join(run, 8)).toBe(-1);
    expect(runs.packets[run]).toBe(1);
  });

  test("keep the node's flags", () => {
    const runs = new Runs(CAPACITY);
    expect(runs.flags[runs.start(TO_NODE, 16, 1, 1, 100, 0)]).toBe(1);
    expect(runs.flags[runs.start(TO_NODE, 32, 1, 0, 100, 0)]).toBe(0);
  });
});
