import { expect, test } from "bun:test";
import fc from "fast-check";
import { LineRing, RING_BYTES } from "../../../src/control/log/line-ring.ts";

const make = () => new LineRing(new SharedArrayBuffer(LineRing.bufferBytes));

test("returns all lines in order, through many turns of the ring, and refuses those without room", () => {
  const room = new Uint8Array(RING_BYTES);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 1, max: Math.floor(RING_BYTES / 3) }))),
      (steps) => {
        const ring = make();
        const waiting: number[] = [];
        let next = 1;
        for (const [isPut, length] of steps) {
          const used = waiting.reduce((sum, one) => sum + one, 0);
          expect(ring.usedBytes).toBe(used);
          if (isPut) {
            const line = new Uint8Array(length).fill((next % 9) + 1);
            line[length - 1] = 10;
            const fits = used + length <= RING_BYTES;
            expect(ring.put(line)).toBe(fits);
            if (!fits) continue;
            waiting.push(length);
            next++;
          } else if (waiting.length > 0) {
            expect(ring.peek(room)).toBe(used);
            const first = waiting.shift()!;
            expect(room.indexOf(10)).toBe(first - 1);
            if (first > 1) expect(room[0]).toBe(((next - waiting.length - 1) % 9) + 1);
            ring.take(first);
          }
        }
      },
    ),
    { numRuns: 50 },
  );
});

test("positions go on past 2^32 bytes", () => {
  const ring = make();
  const words = new Int32Array(ring.buffer, 0, 2);
  words.fill(-2); // both positions, as unsigned 32-bit numbers
  const room = new Uint8Array(16);
  expect(ring.put(Buffer.from("abcd\n"))).toBe(true);
  expect([ring.usedBytes, ring.peek(room), Buffer.from(room.subarray(0, 5)).toString()]).toEqual([
    5,
    5,
    "abcd\n",
  ]);
  ring.take(5);
  expect(ring.usedBytes).toBe(0);
});

test("a line longer than the whole ring is refused", () => {
  expect(make().put(new Uint8Array(RING_BYTES + 1))).toBe(false);
});
