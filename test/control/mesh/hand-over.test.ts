/** Peers and routes in an upgrade: what is written is read, anything else is refused. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ENDPOINT_WORDS, endpointOf } from "../../../ffi/endpoint.ts";
import { BODY_BYTES_MAX, FormatError } from "../../../src/control/hand-over/channel.ts";
import { readJson } from "../../../src/control/hand-over/format.ts";
import {
  instancesSchema,
  namesSchema,
  readClaims,
  readRoutes,
  writeClaims,
  writeRoutes,
} from "../../../src/control/mesh/hand-over.ts";

const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

test("instances are read as they were written", () => {
  const instances = [["ff00", "192.0.2.1:9001", 1, 2]];
  expect(readJson(instancesSchema, text(instances))).toEqual(instances as never);
});

test.each([
  ["an instance that is no number", instancesSchema, text([["0x12", "a", 1, 2]])],
  ["an instance of the past", instancesSchema, text([["12", "a", 1, -2]])],
  [
    "too many names",
    namesSchema,
    text({ advertised: "", listed: Array(999).fill("a"), lastListed: [], hosts: [] }),
  ],
])("%s is refused", (_, schema, body) => {
  expect(() => readJson(schema as typeof namesSchema, body)).toThrow(FormatError);
});

describe("routes", () => {
  test("are read as they were written", () => {
    const endpoint = endpointOf("192.0.2.9", 9001);
    for (const ageMs of [undefined, 0, 12_345]) {
      for (const isLearned of [false, true]) {
        const peer = { endpoint, isLearned, ageMs, nodeIds: Int32Array.of(-1, 5, 7) };
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
      ageMs: 1,
      nodeIds,
    });
    expect(written.length).toBeLessThanOrEqual(BODY_BYTES_MAX);
  });
});

describe("claims", () => {
  const endpoint = endpointOf("2001:db8::7", 9001);

  test("are read as they were written, in as many messages as they need", () => {
    const anyClaims = fc.array(
      fc.tuple(
        fc.integer({ min: 1, max: 2 ** 31 - 1 }),
        fc.double({ min: 0, max: 1e15, noNaN: true }),
      ),
    );
    fc.assert(
      fc.property(anyClaims, fc.integer({ min: 1, max: 20_000 }), (claims, repeats) => {
        const many = Array.from(
          { length: claims.length && repeats },
          (_, i) => claims[i % claims.length]!,
        );
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
