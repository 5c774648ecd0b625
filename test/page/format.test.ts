/** How the page writes numbers. */
import { expect, test } from "bun:test";
import { bytes, cores, count, duration, share, short, words } from "../../src/page/format.ts";

test.each([
  [0, "0"],
  [0.44, "0.4"],
  [9.96, "10"],
  [1234.5, "1,235"],
  [9999.4, "9,999"],
  [10_000, "10.0k"],
  [99_949, "99.9k"],
  [99_951, "100k"],
  [999_499, "999k"],
  [999_500, "1.00M"],
  [1.234e9, "1.23G"],
  [5e15, "5000T"],
])("%d is shown as %s", (value, text) => {
  expect(short(value)).toBe(text);
});

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1000, "1.00 kB"],
  [12_345_678, "12.3 MB"],
])("%d bytes are %s", (value, text) => {
  expect(bytes(value)).toBe(text.replace(" ", "\u00a0"));
});

test.each([
  [0, "0 s"],
  [-1, "0 s"],
  [59.9, "59 s"],
  [61, "1 min 1 s"],
  [3661, "1 h 1 min"],
  [90_000, "1 d 1 h"],
])("%d seconds are %s", (value, text) => {
  expect(duration(value)).toBe(text);
});

test("shares, cores, counts and names", () => {
  expect([0, 0.004, 0.5, 1].map(share)).toEqual(["0%", "<1%", "50%", "100%"]);
  expect([0.0371, 1.254, 33.33].map(cores)).toEqual(["0.037", "1.25", "33.3"]);
  expect(count(1_234_567)).toBe("1,234,567");
  expect(["not_found", "wantsDest", "ipv4"].map(words)).toEqual([
    "not found",
    "wants dest",
    "ipv4",
  ]);
});
