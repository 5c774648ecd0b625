/** Numbers and words for people. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { hostPort } from "../../ffi/host-port.ts";
import { duration, jsonLine, percent, printable, short, table, whole } from "../../src/cli/text.ts";

const HOSTILE = "\x1b[2J\x9b1m\x7f\n\r\u2028\u202e\u{e0001}x";

test("nothing of a foreign text moves a cursor, breaks a line or turns the writing", () => {
  expect(printable(HOSTILE)).toBe("?[2J?1m??????x");
  expect(printable("plain, ä, 漢")).toBe("plain, ä, 漢");
});

test("JSON stays what it is, and harmless", () => {
  const line = jsonLine({ text: HOSTILE });
  expect(JSON.parse(line)).toEqual({ text: HOSTILE });
  expect(printable(line)).toBe(line);
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      expect(JSON.parse(jsonLine(text))).toBe(text);
      expect(printable(jsonLine(text))).toBe(jsonLine(text));
    }),
    { numRuns: 30 },
  );
});

test("numbers are short", () => {
  const cases: [number, string][] = [
    [0, "0"],
    [0.25, "0.3"],
    [7, "7"],
    [999, "999"],
    [1000, "1.0k"],
    [12_345, "12.3k"],
    [123_456, "123k"],
    [999_999, "1.0M"],
    [4.5e6, "4.5M"],
    [3e9, "3.0G"],
  ];
  for (const [value, text] of cases) expect(short(value)).toBe(text);
  expect(whole(1_234_567.4)).toBe("1,234,567");
  expect([0, 0.004, 0.5, 1.25].map(percent)).toEqual(["0%", "0.4%", "50%", "125%"]);
  expect([7.9, 65, 3700, 90_000].map(duration)).toEqual(["7s", "1m 5s", "1h 1m", "1d 1h"]);
});

test("addresses and tables", () => {
  expect(hostPort("::1", 9)).toBe("[::1]:9");
  expect(hostPort("192.0.2.1", 9)).toBe("192.0.2.1:9");
  expect(
    table(
      ["name", "count"],
      [
        ["a", "1"],
        ["longer", "23"],
      ],
      [0],
    ),
  ).toEqual(["name    count", "a           1", "longer     23"]);
});
