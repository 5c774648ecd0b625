import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { PARTS_MAX, TIME_STEP_MS } from "../../../src/control/directory/entries.ts";
import {
  decodePart,
  encodePart,
  PART_BYTES_MAX,
  PART_NODES_MAX,
  type PartHead,
  partKey,
} from "../../../src/control/directory/snapshots.ts";
import { ALL_RANGES } from "../../../src/shared/claim-digest.ts";
import { nodeId } from "../../support/arbitraries.ts";
import { time, whole } from "./arbitraries.ts";

const NOW_MS = 1_900_000_000_000;
const HEAD: PartHead = { epoch: 7, seq: 3, parts: 2, part: 1, timeMs: NOW_MS };
const CLAIMS = { nodeIds: Int32Array.of(5, -6), timesMs: Float64Array.of(NOW_MS, NOW_MS - 1000) };

function changed(bytes: Uint8Array, change: (view: DataView) => void): Uint8Array {
  const copy = bytes.slice();
  change(new DataView(copy.buffer));
  return copy;
}

describe("a part of a snapshot", () => {
  test("is read as it was written", () => {
    const claims = fc.array(fc.tuple(nodeId, fc.nat({ max: 0x7fff_ffff })), { maxLength: 60 });
    fc.assert(
      fc.property(whole, whole, time, claims, (epoch, seq, timeMs, claimed) => {
        const head = { epoch, seq, parts: 3, part: 2, timeMs };
        const nodeIds = Int32Array.from(claimed, ([id]) => id);
        const timesMs = Float64Array.from(claimed, ([, steps]) => timeMs - steps * TIME_STEP_MS);
        const part = decodePart(encodePart(head, { nodeIds, timesMs }), head)!;
        expect(part.timeMs).toBe(timeMs);
        expect(Int32Array.from({ length: part.nodes }, (_, i) => part.nodeId(i))).toEqual(nodeIds);
        expect(Float64Array.from({ length: part.nodes }, (_, i) => part.claimedMs(i))).toEqual(
          timesMs,
        );
      }),
    );
  });

  test("is as large as it may be, and no larger", () => {
    const nodeIds = Int32Array.from({ length: PART_NODES_MAX + 1 }, (_, i) => i + 1);
    const timesMs = new Float64Array(PART_NODES_MAX + 1).fill(NOW_MS);
    const most = {
      nodeIds: nodeIds.subarray(0, PART_NODES_MAX),
      timesMs: timesMs.subarray(0, PART_NODES_MAX),
    };
    const bytes = encodePart(HEAD, most);
    expect(bytes.length).toBe(PART_BYTES_MAX);
    expect(decodePart(bytes, HEAD)?.nodes).toBe(PART_NODES_MAX);
    expect(decodePart(encodePart(HEAD, { nodeIds, timesMs }), HEAD)).toBeUndefined();
  });

  test("is the one that was asked for, or none", () => {
    const bytes = encodePart(HEAD, CLAIMS);
    expect(decodePart(bytes, HEAD)?.nodes).toBe(2);
    for (const other of [{ epoch: 8 }, { seq: 4 }, { parts: 3 }, { part: 0 }])
      expect(decodePart(bytes, { ...HEAD, ...other })).toBeUndefined();
    const tooMany = { ...HEAD, parts: PARTS_MAX + 1 };
    expect(decodePart(encodePart(tooMany, CLAIMS), tooMany)).toBeUndefined();
  });

  test("cut short anywhere, prolonged, of another version, with another count or a time that is none, is none", () => {
    const bytes = encodePart(HEAD, CLAIMS);
    for (let length = 0; length < bytes.length; length++)
      expect(decodePart(bytes.subarray(0, length), HEAD)).toBeUndefined();
    expect(decodePart(Buffer.concat([bytes, Buffer.of(0)]), HEAD)).toBeUndefined();
    expect(
      decodePart(
        changed(bytes, (view) => view.setUint8(0, 2)),
        HEAD,
      ),
    ).toBeUndefined();
    for (const nodes of [0, 1, 3, 0x7fff_ffff])
      expect(
        decodePart(
          changed(bytes, (view) => view.setUint32(29, nodes)),
          HEAD,
        ),
      ).toBeUndefined();
    for (const ms of [-1, Number.NaN, Number.POSITIVE_INFINITY, Number.MAX_VALUE])
      expect(
        decodePart(
          changed(bytes, (view) => view.setFloat64(21, ms)),
          HEAD,
        ),
      ).toBeUndefined();
  });

  test("what strangers write is read or not, and never more than that", () => {
    const change = fc.tuple(fc.nat(60), fc.nat(255));
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 100 }),
      fc.array(change, { maxLength: 3 }).map((changes) => {
        const part = encodePart(HEAD, CLAIMS);
        for (const [at, value] of changes) part[at % part.length] = value;
        return part;
      }),
    );
    fc.assert(
      fc.property(bytes, (some) => {
        const part = decodePart(some, HEAD);
        for (let i = 0; i < (part?.nodes ?? 0); i++) {
          expect(Number.isInteger(part!.nodeId(i))).toBe(true);
          expect(part!.claimedMs(i)).toBeLessThanOrEqual(part!.timeMs);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("has a key of its own", () => {
    const named = (seq: number, ranges = ALL_RANGES) => ({ seq, parts: 2, ranges });
    const keys = [
      partKey("b:1", 7, named(3), 1),
      partKey("b:1", 8, named(3), 1),
      partKey("b:1", 7, named(4), 1),
      partKey("b:1", 7, named(3), 0),
      partKey("b:1", 7, named(3, -2), 1),
    ];
    expect([keys[0], keys[4]]).toEqual(["b:1:7:3:1", "b:1:7:3.fffffffe:1"]);
    expect(new Set(keys).size).toBe(5);
  });
});
