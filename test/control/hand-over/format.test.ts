/** The messages of an upgrade: what is written is read, anything else is refused. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { FormatError } from "../../../src/control/hand-over/channel.ts";
import {
  FORMAT,
  frameSection,
  offerSchema,
  preparedSchema,
  readJson,
  readSection,
  wordsOf,
} from "../../../src/control/hand-over/format.ts";
import { readCells } from "../../../src/control/limits/cells.ts";
import { readClaims, readRoutes } from "../../../src/control/mesh/hand-over.ts";

const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

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
  });

  test.each([
    ["no JSON", offerSchema, new Uint8Array([0xff])],
    ["another format", offerSchema, text({ ...offer, format: FORMAT + 1 })],
    ["a secret that is no word", offerSchema, text({ ...offer, hashSecret: 2 ** 31 })],
    ["something missing", offerSchema, text({ ...offer, addr: undefined })],
  ])("%s is refused", (_, schema, body) => {
    expect(() => readJson(schema as typeof offerSchema, body)).toThrow(FormatError);
  });
});

test("a new process of an earlier version reads no sections but those with kinds of their own", () => {
  const earlier = text({ version: "1", cellLimits: 8, takesRemovals: true, takesListeners: true });
  expect(readJson(preparedSchema, earlier)).toEqual({ version: "1", takesSections: false });
});

test("a section is read as it was framed, and can be read as words", () => {
  fc.assert(
    fc.property(
      fc.string({ maxLength: 50, unit: "grapheme" }),
      fc.integer({ min: 0, max: 65_535 }),
      fc.uint8Array({ maxLength: 64 }),
      (name, version, body) => {
        const read = readSection(frameSection(name, version, body));
        expect({ ...read, body: [...read.body] }).toEqual({ name, version, body: [...body] });
        expect(read.body.byteOffset % 8).toBe(frameSection(name, version, body).byteOffset % 8);
      },
    ),
  );
});

test("whatever bytes come, they are read or refused", () => {
  const readers: ((body: Uint8Array) => unknown)[] = [
    (body) => wordsOf(body, 16, "nodes"),
    readRoutes,
    readClaims,
    readSection,
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
