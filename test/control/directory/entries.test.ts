import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  ASK,
  type Ask,
  ageOf,
  CHANGES,
  CHANGES_MAX,
  type Changes,
  claimedAt,
  decodeEntry,
  encodeEntry,
  encodeExtra,
  LEASE,
  type Lease,
  NAME_BYTES_MAX,
  PARTS_MAX,
  type SnapshotName,
  stepped,
  TIME_STEP_MS,
} from "../../../src/control/directory/entries.ts";
import { ALL_RANGES, CLAIM_RANGES, SUM_WORDS } from "../../../src/shared/claim-digest.ts";
import { entry } from "./arbitraries.ts";

const SUMS = CLAIM_RANGES * SUM_WORDS;

const NAME = "b1.example:9001";
const NOW_MS = 1_900_000_000_000;

const changesOf = (fields: Partial<Changes> = {}): Changes => ({
  ...{ kind: CHANGES, epoch: 7, name: NAME, seq: 3, timeMs: NOW_MS },
  claims: { nodeIds: Int32Array.of(1, -1), timesMs: Float64Array.of(NOW_MS, NOW_MS - 1000) },
  gone: Int32Array.of(2),
  ...fields,
});
const named = (seq: number, parts: number, ranges = ALL_RANGES): SnapshotName => ({
  seq,
  parts,
  ranges,
});
const leaseOf = (fields: Partial<Lease> = {}): Lease => ({
  ...{
    kind: LEASE,
    epoch: 7,
    name: NAME,
    seq: 3,
    timeMs: NOW_MS,
    beaconId: 4,
    nodes: 5,
    leaseMs: 10_000,
  },
  ...{ isLeaving: false, snapshot: named(2, 1), ranged: undefined, sums: undefined },
  ...fields,
});
/** Where what stands behind the name begins. */
const BODY_AT = 1 + 1 + 8 + 2 + NAME.length;

/** The entry's bytes, changed. */
function changed(bytes: Uint8Array, change: (view: DataView) => void): Uint8Array {
  const copy = bytes.slice();
  change(new DataView(copy.buffer));
  return copy;
}

describe("an entry of the log", () => {
  test("is read as it was written, whatever it says", () => {
    fc.assert(
      fc.property(entry, (one) => {
        expect(decodeEntry(encodeEntry(one), encodeExtra(one))).toEqual(one);
      }),
    );
  });

  test("is read by an earlier version, which does not know extensions, as that wrote it", () => {
    const sums = new Int32Array(SUMS).fill(7);
    const bytes = encodeEntry(leaseOf({ ranged: named(2, 1, 5), sums }));
    expect(Buffer.from(bytes).toString("hex")).toBe(
      Buffer.from(encodeEntry(leaseOf())).toString("hex"),
    );
    expect(decodeEntry(bytes)).toEqual(leaseOf());
  });

  test("is the bytes that the format names", () => {
    const bytes = encodeEntry(changesOf({ epoch: 1, name: "b:1", seq: 2, timeMs: 16 }));
    expect(Buffer.from(bytes).toString("hex")).toBe(
      [
        ...["01", "01", "3ff0000000000000", "0003", "623a31"],
        ...["4000000000000000", "4030000000000000", "0002", "0001"],
        // claims of the future have age 0
        ...["00000001", "00000000", "ffffffff", "00000000", "00000002"],
      ].join(""),
    );
    expect(
      Buffer.from(
        encodeEntry({
          kind: ASK,
          epoch: 1,
          name: "b",
          of: { epoch: 2, name: "c" },
          ranges: ALL_RANGES,
        }),
      ).toString("hex"),
    ).toBe("01033ff00000000000000001624000000000000000000163");
  });

  test("cut short anywhere, or prolonged, is none", () => {
    for (const one of [
      changesOf(),
      leaseOf(),
      { kind: ASK, epoch: 1, name: "b", of: { epoch: 2, name: "c" }, ranges: ALL_RANGES } as const,
    ]) {
      const bytes = encodeEntry(one);
      for (let length = 0; length < bytes.length; length++)
        expect(decodeEntry(bytes.subarray(0, length))).toBeUndefined();
      expect(decodeEntry(Buffer.concat([bytes, Buffer.of(0)]))).toBeUndefined();
      expect(decodeEntry(bytes)).toBeDefined();
    }
  });

  test("of another version or kind is none", () => {
    const bytes = encodeEntry(leaseOf());
    for (const [at, value] of [
      [0, 0],
      [0, 2],
      [1, 0],
      [1, 4],
      [1, 255],
    ] as const)
      expect(decodeEntry(changed(bytes, (view) => view.setUint8(at, value)))).toBeUndefined();
  });

  test("with numbers that are none, are no whole ones, or are beyond those, is none", () => {
    const bytes = encodeEntry(leaseOf());
    for (const value of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53])
      for (const at of [2, BODY_AT]) // epoch, seq
        expect(decodeEntry(changed(bytes, (view) => view.setFloat64(at, value)))).toBeUndefined();
    for (const value of [-1, 0.01, Number.NaN, Number.POSITIVE_INFINITY, Number.MAX_VALUE])
      expect(
        decodeEntry(changed(bytes, (view) => view.setFloat64(BODY_AT + 8, value))),
      ).toBeUndefined();
    expect(
      decodeEntry(changed(bytes, (view) => view.setFloat64(BODY_AT + 8, 0.0625))),
    ).toBeDefined();
  });

  test("is of a beacon whose name is readable, and no longer than names are", () => {
    const bytes = encodeEntry(leaseOf());
    for (const byte of [0, 0x0a, 0x20, 0x7f, 0x80, 0xff])
      expect(decodeEntry(changed(bytes, (view) => view.setUint8(12, byte)))).toBeUndefined();
    const longest = "n".repeat(NAME_BYTES_MAX);
    expect(decodeEntry(encodeEntry(leaseOf({ name: longest })))?.name).toBe(longest);
    expect(() => encodeEntry(leaseOf({ name: `${longest}n` }))).toThrow(RangeError);
    const tooLong = Buffer.concat([
      bytes.subarray(0, 10),
      Buffer.of(1, 6),
      Buffer.alloc(262, "n"),
      bytes.subarray(BODY_AT),
    ]);
    expect(decodeEntry(tooLong)).toBeUndefined();
    const nameless = Buffer.concat([
      bytes.subarray(0, 10),
      Buffer.of(0, 0),
      bytes.subarray(BODY_AT),
    ]);
    expect(decodeEntry(nameless)).toBeUndefined();
  });

  test("has at most so many claims and gone nodes together, and none of them is node 0", () => {
    const ids = Int32Array.from({ length: CHANGES_MAX }, (_, i) => i + 1);
    const full = changesOf({
      claims: { nodeIds: ids, timesMs: new Float64Array(CHANGES_MAX).fill(NOW_MS) },
      gone: ids.slice(0, 0),
    });
    expect(decodeEntry(encodeEntry(full))).toEqual(full);
    expect(decodeEntry(encodeEntry({ ...full, gone: Int32Array.of(5) }))).toBeUndefined();
    expect(decodeEntry(encodeEntry(changesOf({ gone: Int32Array.of(0) })))).toBeUndefined();
    const claims = { nodeIds: Int32Array.of(0), timesMs: Float64Array.of(NOW_MS) };
    expect(decodeEntry(encodeEntry(changesOf({ claims })))).toBeUndefined();
  });

  test("names no snapshot of more parts than there may be", () => {
    const most = leaseOf({ snapshot: named(1, PARTS_MAX) });
    expect(decodeEntry(encodeEntry(most))).toEqual(most);
    expect(
      decodeEntry(encodeEntry(leaseOf({ snapshot: named(1, PARTS_MAX + 1) }))),
    ).toBeUndefined();
  });

  test("claims what is ahead of its time as made then, and old nodes with the second in which they were heard", () => {
    const days = (count: number) => NOW_MS - count * 86_400_000;
    const timesMs = Float64Array.of(
      NOW_MS + 5000,
      days(1) - 0.0625,
      days(2) + 999.9375,
      days(20_000),
    );
    const claims = { nodeIds: Int32Array.of(1, 2, 3, 4), timesMs };
    const read = decodeEntry(encodeEntry(changesOf({ claims }))) as Changes;
    expect([...read.claims.timesMs]).toEqual([NOW_MS, days(1) - 0.0625, days(2), days(20_000)]);
    expect(ageOf(NOW_MS - 0.04, NOW_MS)).toBe(1); // to the next step
    expect(claimedAt(1000, 0xffff_ffff)).toBe(0); // before 1970
  });

  test("keeps the second of every claim, however old that is", () => {
    const steps = fc.integer({ min: 0, max: 60 * 365 * 86_400 * 16_000 });
    fc.assert(
      fc.property(steps, fc.integer({ min: 0, max: 16_000 }), (age, more) => {
        const timeMs = NOW_MS + more * TIME_STEP_MS;
        const claimedMs = timeMs - age * TIME_STEP_MS;
        const read = claimedAt(timeMs, ageOf(claimedMs, timeMs));
        expect(Math.floor(read / 1000)).toBe(Math.floor(claimedMs / 1000));
        expect(read).toBeLessThanOrEqual(claimedMs);
      }),
    );
  });

  test("what strangers write is read or not, and never more than that", () => {
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), mutated()), (bytes) => {
        const read = decodeEntry(bytes);
        if (read === undefined) return;
        expect(read.name).toMatch(/^[!-~]{1,261}$/);
        expect(decodeEntry(encodeEntry(read))).toEqual(read);
        if (read.kind !== CHANGES) return;
        expect(read.claims.nodeIds.includes(0) || read.gone.includes(0)).toBe(false);
        expect(read.claims.nodeIds.length + read.gone.length).toBeLessThanOrEqual(CHANGES_MAX);
        expect(read.claims.timesMs.every((ms) => stepped(ms) === ms && ms <= read.timeMs)).toBe(
          true,
        );
      }),
      { numRuns: 1000 },
    );
  });
});

describe("an extension", () => {
  const lease = leaseOf({
    ranged: named(2, 3, 0b101),
    sums: Int32Array.from({ length: SUMS }, (_, i) => -i),
  });
  const ask: Ask = { kind: ASK, epoch: 1, name: "b", ranges: 6, of: { epoch: 2, name: "c" } };

  test("is the bytes that the format names", () => {
    const hexOf = (one: Parameters<typeof encodeExtra>[0]) =>
      Buffer.from(encodeExtra(one)!).toString("hex");
    expect(hexOf(ask)).toBe("0100000006");
    expect(hexOf(leaseOf())).toBe(`01${"00".repeat(14)}`);
    expect(hexOf(lease).slice(0, 46)).toBe("01000000050003400000000000000000000000ffffffff");
    expect(encodeExtra(lease)).toHaveLength(1 + 4 + 2 + 8 + 4 * SUMS);
    expect(encodeExtra(changesOf())).toBeUndefined();
    expect(encodeExtra({ ...ask, ranges: ALL_RANGES })).toBeUndefined();
  });

  test("of another version is ignored", () => {
    for (const version of [0, 2, 255])
      for (const one of [lease, ask]) {
        const extra = changed(encodeExtra(one)!, (view) => view.setUint8(0, version));
        expect(decodeEntry(encodeEntry(one), extra)).toEqual(decodeEntry(encodeEntry(one)));
      }
  });

  test("that is cut short or prolonged, or that names no range, makes the entry malformed", () => {
    for (const one of [lease, ask]) {
      const [bytes, extra] = [encodeEntry(one), encodeExtra(one)!];
      for (let length = 1; length < extra.length; length++)
        if (one === ask || length !== 1 + 4 + 2 + 8)
          // a lease without sums
          expect(decodeEntry(bytes, extra.subarray(0, length))).toBeUndefined();
      expect(decodeEntry(bytes, Buffer.concat([extra, Buffer.of(0)]))).toBeUndefined();
      expect(
        decodeEntry(
          bytes,
          changed(extra, (view) => view.setUint32(1, 0)),
        ),
      ).toBeUndefined();
    }
    expect(decodeEntry(encodeEntry(changesOf()), Buffer.of(1))).toBeUndefined();
    const parts = changed(encodeExtra(lease)!, (view) => view.setUint16(5, PARTS_MAX + 1));
    expect(decodeEntry(encodeEntry(lease), parts)).toBeUndefined();
  });
});

/** Entries with some bytes changed. */
function mutated(): fc.Arbitrary<Uint8Array> {
  const change = fc.tuple(fc.nat(200), fc.nat(255));
  return fc.tuple(entry, fc.array(change, { maxLength: 3 })).map(([one, changes]) => {
    const bytes = encodeEntry(one).slice();
    for (const [at, value] of changes) bytes[at % bytes.length] = value;
    return bytes;
  });
}
