import { describe, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import fc from "fast-check";
import {
  CLOCK_DIFFERENCE_MS_MAX,
  INSTANCES_MAX,
  Instances,
  readSignature,
  sign,
} from "../../../src/control/mesh/gossip-signature.ts";

const [KEY, OTHER_KEY] = [
  "first key of at least 32 characters",
  "other key of at least 32 characters",
];
const TRAILER_BYTES = 8 + 8 + 32;
const NOW_MS = 1_800_000_000_000;

/** A Sync with room for a signature behind it. */
function syncWithRoom(beaconId: number, nodeIds: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(7 + 4 * nodeIds.length + TRAILER_BYTES);
  bytes[0] = 7;
  bytes.writeUInt32BE(beaconId, 1);
  bytes.writeUInt16BE(nodeIds.length, 5);
  for (const [i, id] of nodeIds.entries()) bytes.writeUInt32BE(id, 7 + 4 * i);
  return new Uint8Array(bytes);
}

const anyId = fc.nat(0xffff_ffff);
const anyKey = fc.string({
  unit: fc.constantFrom(..."abcXYZ019 -~"),
  minLength: 32,
  maxLength: 80,
});
const anySigned = fc.record({
  beaconId: anyId,
  nodeIds: fc.array(anyId, { maxLength: 60 }),
  key: anyKey,
  instance: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  timeMs: fc.nat(Number.MAX_SAFE_INTEGER),
});

describe("a signature", () => {
  test("is what the head of the source says", () => {
    const message = syncWithRoom(9, [1, 2]);
    expect(sign(message, KEY, { instance: 0x0102_0304_0506_0708n, timeMs: NOW_MS })).toBe(
      message.length,
    );
    const signed = Buffer.from(message.subarray(0, 7 + 8 + 16));
    expect(signed.subarray(15).toString("hex")).toBe(
      `0102030405060708${NOW_MS.toString(16).padStart(16, "0")}`,
    );
    const hmac = createHmac("sha256", Buffer.from(KEY, "ascii")).update(signed).digest("hex");
    expect(Buffer.from(message.subarray(7 + 8 + 16)).toString("hex")).toBe(hmac);
  });

  test("reads as it was written, with the key first or second, whatever lies behind it", () => {
    fc.assert(
      fc.property(anySigned, anyKey, fc.uint8Array({ maxLength: 9 }), (told, otherKey, rest) => {
        const message = syncWithRoom(told.beaconId, told.nodeIds);
        sign(message, told.key, told);
        const arrived = new Uint8Array([...message, ...rest]);
        for (const keys of [[told.key], [told.key, otherKey], [otherKey, told.key]])
          expect(readSignature(arrived, keys)).toEqual({
            instance: told.instance,
            timeMs: told.timeMs,
          });
      }),
    );
  });

  test("is of memory that threads share, too", () => {
    const message = new Uint8Array(new SharedArrayBuffer(200), 13, 7 + 4 + TRAILER_BYTES);
    message.set(syncWithRoom(1, [5]));
    sign(message, KEY, { instance: 3n, timeMs: NOW_MS });
    expect(readSignature(message, [KEY])).toEqual({ instance: 3n, timeMs: NOW_MS });
  });

  test("does not hold once any bit of the message is another, or the key is", () => {
    fc.assert(
      fc.property(anySigned, fc.nat(), fc.nat(7), (told, at, bit) => {
        const message = syncWithRoom(told.beaconId, told.nodeIds);
        sign(message, told.key, told);
        expect(readSignature(message, [`${told.key}.`])).toBe("forged");
        message[at % message.length]! ^= 1 << bit;
        // Another count has the trailer elsewhere; the worker lets through none that the message
        // does not hold.
        expect(["forged", "unsigned"]).toContain(readSignature(message, [told.key]) as string);
      }),
    );
  });

  test("that is cut short is none", () => {
    const message = syncWithRoom(1, [5, 6]);
    sign(message, KEY, { instance: 3n, timeMs: NOW_MS });
    for (let bytes = 15; bytes < message.length; bytes++)
      expect(readSignature(message.subarray(0, bytes), [KEY])).toBe("unsigned");
    expect(readSignature(message, [OTHER_KEY])).toBe("forged");
  });
});

describe("instances", () => {
  const start = (number: bigint) => number << 16n;
  const [OWN, A, B] = [start(1n), start(2n), start(3n)];
  const LIVE_MS = 90_000;
  const named = new Set(["peer", "other peer"]);

  /** @param atMs since the first arrival, on both clocks */
  function heardBy(instances: Instances) {
    return (instance: bigint, timeMs: number, source: string, atMs: number) =>
      instances.accept(
        { instance, timeMs: NOW_MS + timeMs },
        source,
        { wallMs: NOW_MS + atMs, steadyMs: atMs },
        LIVE_MS,
      );
  }
  const instances = () => heardBy(new Instances(OWN, (source) => named.has(source)));

  test("a message counts once, and none that is older than the last", () => {
    const hear = instances();
    expect(hear(A, 0, "peer", 0)).toBeUndefined();
    expect(hear(A, 0, "peer", 1)).toBe("duplicate");
    expect(hear(A, 0, "other peer", 1)).toBe("duplicate");
    expect(hear(A, 10, "peer", 10)).toBeUndefined();
    expect(hear(A, 0, "peer", 11)).toBe("replayed");
    expect(hear(A, 9, "stranger", 11)).toBe("replayed");
    expect(hear(B, 0, "other peer", 12)).toBeUndefined(); // another's time is its own
  });

  test("one that lives is at one address; once it was silent for long enough, at another", () => {
    const hear = instances();
    expect(hear(A, 0, "peer", 0)).toBeUndefined();
    expect(hear(A, LIVE_MS, "other peer", LIVE_MS)).toBe("replayed");
    expect(hear(A, LIVE_MS + 1, "other peer", LIVE_MS + 1)).toBeUndefined();
    expect(hear(A, LIVE_MS + 2, "peer", LIVE_MS + 2)).toBe("replayed");
  });

  test("who replays faster than the message itself comes, from an address that nobody named, gains nothing", () => {
    const hear = instances();
    expect(hear(A, 0, "stranger", 0)).toBeUndefined();
    expect(hear(A, 0, "peer", 1)).toBeUndefined();
    expect(hear(A, 10, "stranger", 10)).toBe("replayed");
    expect(hear(A, 10, "peer", 11)).toBeUndefined();
    expect(hear(A, 9, "peer", 12)).toBe("replayed");
  });

  test("this beacon's own is nobody else's", () => {
    expect(instances()(OWN, 0, "peer", 0)).toBe("replayed");
  });

  test("clocks may differ by a minute, and no more", () => {
    const hear = instances();
    const far = CLOCK_DIFFERENCE_MS_MAX + 1;
    expect(hear(A, far, "peer", 0)).toBe("clock");
    expect(hear(A, -far, "peer", 0)).toBe("clock");
    expect(hear(B, 1 - far, "peer", 0)).toBeUndefined();
    expect(hear(B, far - 1, "peer", 0)).toBeUndefined();
    expect(hear(B, 0, "peer", 0)).toBe("replayed");
  });

  test("are remembered while they could be replayed or live, and are bounded", () => {
    const all = new Instances(OWN, (source) => named.has(source));
    const hear = heardBy(all);
    for (let i = 0; i < INSTANCES_MAX; i++)
      expect(hear(start(100n + BigInt(i)), i, "peer", i)).toBeUndefined();
    expect(hear(A, INSTANCES_MAX, "peer", INSTANCES_MAX)).toBe("too_many_instances");
    expect(all.size).toBe(INSTANCES_MAX);
    expect(hear(start(100n), 5000, "peer", 5000)).toBeUndefined(); // those that are known go on
    // ten have been silent for long enough
    expect(hear(A, LIVE_MS + 10, "peer", LIVE_MS + 10)).toBeUndefined();
    expect(all.size).toBeLessThan(INSTANCES_MAX);
  });

  const HOUR_MS = 3_600_000;

  test("a later instance of a start has times of its own, and ends the ones before it", () => {
    const hear = instances();
    expect(hear(A, 50_000, "peer", 0)).toBeUndefined();
    expect(hear(A + 1n, 10, "peer", 10)).toBeUndefined(); // its clock stepped back
    expect(hear(A + 1n, 10, "peer", 11)).toBe("duplicate");
    expect(hear(A, 50_000, "peer", 50_000)).toBe("replayed");
    expect(hear(A, 50_001, "peer", 50_000)).toBe("replayed"); // one that was never received
    expect(hear(A + 1n, 50_002, "peer", 50_002)).toBeUndefined();
    // it lives at another address
    expect(hear(A + 2n, 50_003, "other peer", 50_003)).toBe("replayed");
    expect(hear(A + 2n, 50_003, "peer", 50_004)).toBeUndefined();
    expect(hear(B + 1n, 50_003, "other peer", 50_004)).toBeUndefined();
    expect(hear(OWN + 1n, 50_003, "peer", 50_004)).toBe("replayed");
  });

  test("a message from the future is not accepted when its time has come", () => {
    const hear = instances();
    expect(hear(A, HOUR_MS, "peer", 0)).toBe("clock");
    expect(hear(B, 0, "other peer", 0)).toBeUndefined();
    expect(hear(B, HOUR_MS, "other peer", 1)).toBe("clock");
    expect(hear(B + 1n, 2, "other peer", 2)).toBeUndefined();
    expect(hear(A, HOUR_MS, "peer", HOUR_MS)).toBe("duplicate");
    expect(hear(A, HOUR_MS - 1, "peer", HOUR_MS)).toBe("replayed");
    expect(hear(B, HOUR_MS, "other peer", HOUR_MS)).toBe("replayed");
    // the clock was set, and it moved
    expect(hear(A, HOUR_MS + 1, "other peer", HOUR_MS)).toBeUndefined();
  });

  test("messages from the future take at most half of the room, and are remembered until they are too old", () => {
    const all = new Instances(OWN, (source) => named.has(source));
    const hear = heardBy(all);
    for (let i = 0; i < INSTANCES_MAX; i++)
      expect(hear(start(100n + BigInt(i)), HOUR_MS, "peer", 0)).toBe("clock");
    expect(all.size).toBe(INSTANCES_MAX / 2);
    for (let i = 0; i < INSTANCES_MAX / 2; i++)
      expect(hear(start(5000n + BigInt(i)), 0, "peer", 0)).toBeUndefined();
    expect(hear(A, LIVE_MS + 1, "peer", LIVE_MS + 1)).toBeUndefined(); // in place of what was heard
    expect(hear(start(100n), HOUR_MS, "peer", HOUR_MS)).toBe("duplicate");
  });

  test("whatever comes, no instance's accepted times ever go back, and nothing is accepted twice from named addresses", () => {
    const arrivals = fc.array(
      fc.record({
        instance: fc.constantFrom(A, A + 1n, B),
        timeMs: fc.integer({ min: -70_000, max: 200_000 }),
        source: fc.constantFrom<string[]>("peer", "other peer"),
        pauseMs: fc.nat(40_000),
      }),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(arrivals, (all) => {
        const hear = instances();
        const last = new Map<bigint, { timeMs: number; source: string; atMs: number }>();
        let atMs = 0;
        for (const { instance, timeMs, source, pauseMs } of all) {
          atMs += pauseMs;
          if (hear(instance, timeMs, source, atMs) !== undefined) continue;
          const before = last.get(instance);
          expect(Math.abs(timeMs - atMs)).toBeLessThanOrEqual(CLOCK_DIFFERENCE_MS_MAX);
          if (before !== undefined) {
            expect(timeMs).toBeGreaterThan(before.timeMs);
            if (atMs - before.atMs <= LIVE_MS) expect(source).toBe(before.source);
          }
          last.set(instance, { timeMs, source, atMs });
        }
      }),
    );
  });
});
