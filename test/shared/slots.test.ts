import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ENDPOINT_PORT_MASK, ENDPOINT_WORDS, endpointOf } from "../../ffi/endpoint.ts";
import {
  IS_BRIDGED,
  IS_PEER,
  SLOT_ID,
  SLOT_SEEN_S,
  SLOT_WORDS,
  Slots,
  WANTS_DEST,
} from "../../src/shared/slots.ts";
import { anyEndpoint, nodeId } from "../support/arbitraries.ts";

const HOME = endpointOf("192.0.2.1", 9001);
const AWAY = endpointOf("2001:db8::1", 4000);
const COUNT = 4;

// Words of a slot, as the head of src/shared/slots.ts lays it out.
const VERSION = 1;
const COPIES = [4, 10] as const;

function fresh(): { words: Int32Array; slots: Slots } {
  const words = new Int32Array(new SharedArrayBuffer(COUNT * SLOT_WORDS * 4));
  return { words, slots: new Slots(words) };
}

/** A slot that is `id`'s, with an endpoint. */
function taken(id: number, endpoint: Int32Array, flags = 0) {
  const all = fresh();
  const slot = SLOT_WORDS;
  all.slots.publish(slot, endpoint, 0, flags);
  all.words[slot + SLOT_ID] = id;
  return { ...all, slot };
}

/** An endpoint's words with flags in the free half of the first. */
function withFlags(endpoint: Int32Array, flags: number): number[] {
  return [(endpoint[0]! & ENDPOINT_PORT_MASK) | flags, ...endpoint.subarray(1)];
}

describe("a slot", () => {
  test("gives back what was published, for whose slot it is", () => {
    const { slots, slot } = taken(7, HOME, WANTS_DEST);
    const out = new Int32Array(ENDPOINT_WORDS + 4).fill(99);
    const version = slots.read(slot, 7, out, 2);
    expect(version).toBe(slots.version(slot));
    expect([...out]).toEqual([99, 99, ...withFlags(HOME, WANTS_DEST), 99, 99]);
  });

  test("gives nothing for anybody else, and nothing once it is vacant", () => {
    const { words, slots, slot } = taken(7, HOME);
    const out = new Int32Array(ENDPOINT_WORDS);
    expect(slots.read(slot, 8, out, 0)).toBe(-1);
    expect(slots.read(slot + SLOT_WORDS, 7, out, 0)).toBe(-1);
    words[slot + SLOT_ID] = 0;
    expect(slots.read(slot, 7, out, 0)).toBe(-1);
  });

  test("takes an id unsigned for the same as signed", () => {
    const { slots, slot } = taken(-1, HOME);
    expect(slots.read(slot, 0xffff_ffff, new Int32Array(ENDPOINT_WORDS), 0)).toBe(
      slots.version(slot),
    );
  });

  test("takes an endpoint from the midst of an array, and flags only from the caller", () => {
    const { words, slots } = fresh();
    const list = new Int32Array(20).fill(-1);
    list.set(HOME, 5);
    list[5] = list[5]! | WANTS_DEST;
    slots.publish(0, list, 5, IS_PEER);
    words[SLOT_ID] = 1;
    const out = new Int32Array(ENDPOINT_WORDS);
    expect(slots.read(0, 1, out, 0)).toBeGreaterThan(0);
    expect([...out]).toEqual(withFlags(HOME, IS_PEER));
  });

  test("is whole though a writer died before it put the other copy in force", () => {
    const { words, slots, slot } = taken(7, HOME);
    const before = slots.version(slot);
    const other = slot + COPIES[(before + 1) & 1]!;
    for (let written = 1; written <= ENDPOINT_WORDS; written++) {
      words.set(AWAY.subarray(0, written), other);
      const out = new Int32Array(ENDPOINT_WORDS);
      expect(slots.read(slot, 7, out, 0)).toBe(before);
      expect([...out]).toEqual([...HOME]);
    }
  });

  test("a version stays positive, so that it is never taken for a failed read", () => {
    const { words, slots, slot } = taken(7, HOME);
    words[slot + VERSION] = 0x7fff_fffd;
    const versions: number[] = [];
    for (const endpoint of [AWAY, HOME, AWAY, HOME]) {
      slots.publish(slot, endpoint, 0, 0);
      const out = new Int32Array(ENDPOINT_WORDS);
      versions.push(slots.read(slot, 7, out, 0));
      expect([...out]).toEqual([...endpoint]);
    }
    expect(versions).toEqual([0x7fff_fffe, 0x7fff_ffff, 0, 1]);
  });

  test("its flags fit beside a port, and beside each other", () => {
    const flags = [WANTS_DEST, IS_PEER, IS_BRIDGED];
    let all = 0;
    for (const flag of flags) {
      expect(flag & ENDPOINT_PORT_MASK).toBe(0);
      expect(flag & all).toBe(0);
      expect(flag).not.toBe(0);
      all |= flag;
    }
  });

  test("other flags are put in force by another version, with the endpoint and all else as it was", () => {
    const { words, slots, slot } = taken(7, HOME, WANTS_DEST);
    words[slot + SLOT_SEEN_S] = 70;
    slots.limitMerge(slot, 1199);
    const out = new Int32Array(ENDPOINT_WORDS);
    for (const flags of [WANTS_DEST | IS_BRIDGED, IS_BRIDGED, 0, WANTS_DEST]) {
      const before = slots.version(slot);
      slots.setFlags(slot, flags);
      expect(slots.flags(slot)).toBe(flags);
      expect(slots.read(slot, 7, out, 0)).toBe(before + 1);
      expect([...out]).toEqual(withFlags(HOME, flags));
      expect([words[slot + SLOT_ID], words[slot + SLOT_SEEN_S], slots.mergeLimit(slot)]).toEqual([
        7, 70, 1199,
      ]);
    }
  });

  test("whoever reads while other flags are put in force finds the old ones, or the new", () => {
    const { words, slots, slot } = taken(7, HOME, WANTS_DEST);
    const before = slots.version(slot);
    // All is written but the one word that puts it in force.
    slots.setFlags(slot, IS_BRIDGED);
    words[slot + VERSION] = before;
    const out = new Int32Array(ENDPOINT_WORDS);
    expect(slots.read(slot, 7, out, 0)).toBe(before);
    expect([...out]).toEqual(withFlags(HOME, WANTS_DEST));
    expect(slots.flags(slot)).toBe(WANTS_DEST);
  });
});

describe("Slots against a list", () => {
  const anyFlags = fc
    .subarray([WANTS_DEST, IS_PEER, IS_BRIDGED])
    .map((flags) => flags.reduce((all, flag) => all | flag, 0));
  const step = fc.oneof(
    fc.record({
      kind: fc.constant("publish" as const),
      slot: fc.nat(COUNT - 1),
      endpoint: anyEndpoint,
      flags: anyFlags,
    }),
    fc.record({ kind: fc.constant("flags" as const), slot: fc.nat(COUNT - 1), flags: anyFlags }),
    fc.record({ kind: fc.constant("own" as const), slot: fc.nat(COUNT - 1), id: nodeId }),
    fc.record({
      kind: fc.constant("limit" as const),
      slot: fc.nat(COUNT - 1),
      bytes: fc.nat(65_507),
    }),
  );

  test("any sequence of writes leaves each slot with its own", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { words, slots } = fresh();
        const model = Array.from({ length: COUNT }, () => ({
          id: 0,
          version: 0,
          limit: 0,
          endpoint: Array<number>(ENDPOINT_WORDS).fill(0),
        }));
        for (const action of steps) {
          const at = action.slot * SLOT_WORDS;
          const expected = model[action.slot]!;
          switch (action.kind) {
            case "publish":
              slots.publish(at, action.endpoint, 0, action.flags);
              expected.endpoint = withFlags(action.endpoint, action.flags);
              expected.version++;
              break;
            case "flags":
              slots.setFlags(at, action.flags);
              expected.endpoint[0] = (expected.endpoint[0]! & ENDPOINT_PORT_MASK) | action.flags;
              expected.version++;
              break;
            case "own":
              words[at + SLOT_ID] = expected.id = action.id;
              break;
            case "limit":
              slots.limitMerge(at, action.bytes);
              expected.limit = action.bytes;
          }
          for (const [i, { id, version, limit, endpoint }] of model.entries()) {
            const slot = i * SLOT_WORDS;
            const out = new Int32Array(ENDPOINT_WORDS);
            expect(slots.version(slot)).toBe(version);
            expect(slots.mergeLimit(slot)).toBe(limit);
            expect(slots.read(slot, id, out, 0)).toBe(version);
            expect([...out]).toEqual(endpoint);
            const inForce = slots.endpointAt(slot);
            expect([...words.subarray(inForce, inForce + ENDPOINT_WORDS)]).toEqual(endpoint);
            expect(slots.flags(slot)).toBe(endpoint[0]! & ~ENDPOINT_PORT_MASK);
            expect(words[slot + SLOT_SEEN_S]).toBe(0);
          }
        }
      }),
    );
  });
});
