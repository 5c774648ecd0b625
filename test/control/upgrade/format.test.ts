import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ENDPOINT_WORDS, endpointOf } from "../../../ffi/endpoint.ts";
import { SLOTS_PER_SLICE } from "../../../src/control/nodes/scan.ts";
import { BODY_BYTES_MAX, FormatError } from "../../../src/control/upgrade/channel.ts";
import {
  breakersSchema,
  CELL_LIMITS,
  CellEntries,
  FORMAT,
  instancesSchema,
  NodeEntries,
  namesSchema,
  offerSchema,
  preparedSchema,
  readCells,
  readClaims,
  readJson,
  readNodes,
  readRemoved,
  readRoutes,
  writeClaims,
  writeRemoved,
  writeRoutes,
} from "../../../src/control/upgrade/format.ts";
import { LIMITS } from "../../../src/shared/counters.ts";
import { GRANT_RATE } from "../../../src/shared/limits.ts";
import { HAS_KEY, IS_BRIDGED, WANTS_DEST } from "../../../src/shared/slots.ts";

const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

/** An entry as a scan has it. */
function entryOf(address: string, port: number, flags: number, seenS: number): Int32Array {
  const endpoint = endpointOf(address, port);
  endpoint[0]! |= flags;
  return Int32Array.from([...endpoint, seenS]);
}

/** What is read, with copies of what is reused. */
function nodesIn(body: Uint8Array) {
  return [...readNodesCopied(body)];
}
function* readNodesCopied(body: Uint8Array) {
  for (const { endpoint, key, keyAt, ...rest } of readNodes(body)) {
    const keyBytes = key ? Buffer.from(key.buffer, key.byteOffset + keyAt, 32).toString("hex") : undefined;
    yield { ...rest, endpoint: Array.from(endpoint), key: keyBytes };
  }
}

describe("removed nodes", () => {
  test("are read as they were written, in as many messages as they need", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })), (ids) => {
        expect(Array.from(writeRemoved(ids), (body) => [...readRemoved(body)]).flat()).toEqual(ids);
      }),
    );
    const many = Array.from({ length: BODY_BYTES_MAX / 4 + 1 }, (_, i) => i + 1);
    const bodies = [...writeRemoved(many)];
    expect(bodies.map(({ length }) => length)).toEqual([BODY_BYTES_MAX, 4]);
    expect(bodies.flatMap((body) => [...readRemoved(body)])).toEqual(many);
    expect(() => readRemoved(new Uint8Array(6))).toThrow(FormatError);
  });
});

describe("nodes", () => {
  test("without a key have zeros in its place, behind one with a key in the same buffer", () => {
    const entries = new NodeEntries();
    entries.add(1, entryOf("192.0.2.1", 4000, HAS_KEY, 90), 100, new Uint8Array(32).fill(7));
    [...entries.take()];
    entries.add(2, entryOf("192.0.2.2", 4000, 0, 90), 100, undefined);
    const [body] = [...entries.take()];
    expect(Buffer.from(body!.subarray(32)).toString("hex")).toBe("00".repeat(32));
  });

  test("are read as they were written, each with its own flags, age and key", () => {
    const entries = new NodeEntries();
    const key = new Uint8Array(32).fill(7);
    entries.add(1, entryOf("192.0.2.1", 4000, WANTS_DEST | IS_BRIDGED, 90), 100, undefined);
    entries.add(-2, entryOf("2001:db8::1", 1, HAS_KEY, -5), 100, key);
    entries.add(3, entryOf("192.0.2.3", 65_535, 0, 101), 100, undefined); // heard since
    const [body] = [...entries.take()];
    expect(nodesIn(body!)).toEqual(
      [
        ...[[1, "192.0.2.1", 4000, WANTS_DEST, 10, undefined] as const],
        ...[[-2, "2001:db8::1", 1, 0, 105, "07".repeat(32)] as const],
        ...[[3, "192.0.2.3", 65_535, 0, 0, undefined] as const],
      ].map(([nodeId, address, port, flags, ageS, key]) => ({
        ...{ nodeId, flags, ageS, key, endpoint: Array.from(endpointOf(address, port)) },
      })),
    );
    expect([...entries.take()]).toEqual([]);
  });

  test("of two slices go into messages, none of which is too large", () => {
    const entries = new NodeEntries();
    const entry = entryOf("192.0.2.1", 4000, 0, 1);
    for (let id = 1; entries.hasRoomForSlice; id++) entries.add(id, entry, 1, undefined);
    for (let id = 0; id < SLOTS_PER_SLICE - 1; id++) entries.add(1_000_000 + id, entry, 1, undefined);
    const bodies = [...entries.take()];
    for (const body of bodies) expect(body.length).toBeLessThanOrEqual(BODY_BYTES_MAX);
    const ids = bodies.flatMap((body) => nodesIn(body).map(({ nodeId }) => nodeId));
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.length).toBeGreaterThanOrEqual(2 * SLOTS_PER_SLICE - 1);
  });

  test("that cannot be are refused", () => {
    const entries = new NodeEntries();
    entries.add(1, entryOf("192.0.2.1", 4000, 0, 1), 1, undefined);
    const whole = [...entries.take()][0]!.slice();
    expect(() => nodesIn(whole.subarray(0, 63))).toThrow(FormatError);
    const words = (change: (words: Int32Array) => void) => {
      const copy = whole.slice();
      change(new Int32Array(copy.buffer));
      return copy;
    };
    expect(() =>
      nodesIn(
        words((w) => {
          w[0] = 0;
        }),
      ),
    ).toThrow("no id");
    expect(() =>
      nodesIn(
        words((w) => {
          w[7] = -1;
        }),
      ),
    ).toThrow("below 0");
    expect(nodesIn(new Uint8Array(0))).toEqual([]);
  });
});

describe("routes", () => {
  test("are read as they were written", () => {
    const endpoint = endpointOf("192.0.2.9", 9001);
    for (const heardAgeMs of [undefined, 0, 12_345]) {
      for (const isLearned of [false, true]) {
        const peer = { endpoint, isLearned, heardAgeMs, nodeIds: Int32Array.of(-1, 5, 7) };
        expect(readRoutes(writeRoutes(peer))).toEqual(peer);
      }
    }
  });

  test("without a peer, or cut in a word, are refused", () => {
    expect(() => readRoutes(new Uint8Array(ENDPOINT_WORDS * 4))).toThrow(FormatError);
    expect(() => readRoutes(new Uint8Array(33))).toThrow(FormatError);
  });

  test("beyond what a message holds are left out", () => {
    const nodeIds = new Int32Array(100_000).fill(1);
    const written = writeRoutes({
      endpoint: endpointOf("192.0.2.9", 1),
      isLearned: false,
      heardAgeMs: 1,
      nodeIds,
    });
    expect(written.length).toBeLessThanOrEqual(BODY_BYTES_MAX);
  });
});

describe("cells", () => {
  const read = (body: Uint8Array) => {
    const cells: number[][] = [];
    readCells(body, (...cell) => cells.push(cell));
    return cells;
  };

  test("are read as they were written, up to a full message", () => {
    const entries = new CellEntries();
    const written: number[][] = [];
    for (let cell = 0; !entries.isFull; cell++) {
      const place = cell % CELL_LIMITS.length;
      entries.add(place, cell, 1e15 + cell);
      written.push([CELL_LIMITS[place]!, cell, 1e15 + cell]);
    }
    const body = entries.take();
    expect(body.length).toBeLessThanOrEqual(BODY_BYTES_MAX);
    expect(read(body)).toEqual(written);
  });

  test("are of every limit, under the numbers that earlier versions gave them", () => {
    const names = [...LIMITS, "grants"];
    expect(GRANT_RATE).toBe(LIMITS.length);
    expect(CELL_LIMITS.map((limit) => names[limit]!)).toEqual([
      ...["relay", "punch_source", "punch", "new_node", "answer", "endpoint_hold", "grants"],
      "relay_address",
    ]);
    expect([...CELL_LIMITS].sort((one, other) => one - other)).toEqual(names.map((_, limit) => limit));
  });

  test("are those that the new process knows: one of an earlier version reports none, and knows seven", () => {
    expect(readJson(preparedSchema, text({ version: "1" }))).toEqual({
      ...{ version: "1", cellLimits: 7, takesRemovals: false, takesListeners: false },
    });
    expect(readJson(preparedSchema, text({ version: "1", cellLimits: 8 })).cellLimits).toBe(8);
    expect(() => readJson(preparedSchema, text({ version: "1", cellLimits: -1 }))).toThrow(FormatError);
  });

  test("of no limit, of no time, or cut short, are refused", () => {
    const entries = new CellEntries();
    for (const [limit, time] of [
      [CELL_LIMITS.length, 1],
      [0, Number.NaN],
      [0, Number.POSITIVE_INFINITY],
    ] as const) {
      entries.add(limit, 0, time);
      expect(() => read(entries.take())).toThrow(FormatError);
    }
    expect(() => read(new Uint8Array(15))).toThrow(FormatError);
  });
});

describe("JSON", () => {
  const offer = {
    ...{
      format: FORMAT,
      version: "1",
      addr: ":9001",
      hashSecret: -5,
      offload: true,
      steering: true,
      maySave: true,
    },
  };

  test("is taken if it is as it should be, and with what a later version adds", () => {
    expect(readJson(offerSchema, text({ ...offer, more: 1 }))).toEqual(offer as never);
    expect(readJson(breakersSchema, text({ relay: "off" }))).toEqual({ relay: "off" });
    const instances = [["ff00", "192.0.2.1:9001", 1, 2]];
    expect(readJson(instancesSchema, text(instances))).toEqual(instances as never);
  });

  test.each([
    ["no JSON", offerSchema, new Uint8Array([0xff])],
    ["another format", offerSchema, text({ ...offer, format: FORMAT + 1 })],
    ["a secret that is no word", offerSchema, text({ ...offer, hashSecret: 2 ** 31 })],
    ["something missing", offerSchema, text({ ...offer, addr: undefined })],
    ["a breaker that is neither", breakersSchema, text({ relay: "maybe" })],
    ["an instance that is no number", instancesSchema, text([["0x12", "a", 1, 2]])],
    ["an instance of the past", instancesSchema, text([["12", "a", 1, -2]])],
    [
      "too many names",
      namesSchema,
      text({ advertised: "", listed: Array(999).fill("a"), lastListed: [], hosts: [] }),
    ],
  ])("%s is refused", (_, schema, body) => {
    expect(() => readJson(schema as typeof offerSchema, body)).toThrow(FormatError);
  });
});

test("whatever bytes come, they are read or refused", () => {
  const readers: ((body: Uint8Array) => unknown)[] = [
    nodesIn,
    readRoutes,
    (body) => readCells(body, () => {}),
    (body) => readJson(offerSchema, body),
  ];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      for (const reader of readers) {
        try {
          reader(bytes);
        } catch (error) {
          if (!(error instanceof FormatError)) throw error;
        }
      }
    }),
  );
});

describe("claims", () => {
  const endpoint = endpointOf("2001:db8::7", 9001);

  test("are read as they were written, in as many messages as they need", () => {
    const anyClaims = fc.array(
      fc.tuple(fc.integer({ min: 1, max: 2 ** 31 - 1 }), fc.double({ min: 0, max: 1e15, noNaN: true })),
    );
    fc.assert(
      fc.property(anyClaims, fc.integer({ min: 1, max: 20_000 }), (claims, repeats) => {
        const many = Array.from({ length: claims.length && repeats }, (_, i) => claims[i % claims.length]!);
        const written = {
          endpoint,
          nodeIds: Int32Array.from(many, ([id]) => id),
          timesMs: Float64Array.from(many, ([, ms]) => ms),
        };
        const ids: number[] = [];
        const times: number[] = [];
        for (const body of writeClaims(written)) {
          expect(body.length).toBeLessThanOrEqual(BODY_BYTES_MAX);
          const read = readClaims(body);
          expect(read.endpoint).toEqual(endpoint);
          ids.push(...read.nodeIds);
          times.push(...read.timesMs);
        }
        expect(ids).toEqual([...written.nodeIds]);
        expect(times).toEqual([...written.timesMs]);
      }),
      { numRuns: 30 },
    );
  });

  test("that cannot be are refused", () => {
    const of = (id: number, ms: number) =>
      [...writeClaims({ endpoint, nodeIds: Int32Array.of(id), timesMs: Float64Array.of(ms) })][0]!;
    expect(readClaims(of(-1, 0)).nodeIds).toEqual(Int32Array.of(-1));
    expect(() => readClaims(of(0, 5))).toThrow(FormatError);
    expect(() => readClaims(of(1, -1))).toThrow(FormatError);
    expect(() => readClaims(of(1, Number.NaN))).toThrow(FormatError);
    expect(() => readClaims(of(1, 5).subarray(1))).toThrow(FormatError);
    expect(() => readClaims(new Uint8Array(23))).toThrow(FormatError);
  });
});
