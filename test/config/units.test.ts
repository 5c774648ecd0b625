import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ConfigError, parseBytes, parseDurationMs, parseHostPort, shown } from "../../src/config/units.ts";

/** Every parser either returns or throws a ConfigError; this tells which. */
function refusal(read: () => unknown): string | undefined {
  try {
    read();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).message;
  }
  return undefined;
}

describe("parseDurationMs", () => {
  test.each([
    ["10m", 600_000],
    ["90s", 90_000],
    ["1h30m", 5_400_000],
    ["500ms", 500],
    ["1.5h", 5_400_000],
    [".5s", 500],
    ["1.s", 1_000],
    ["1m1ms", 60_001],
    ["1h1m1s1ms", 3_661_001],
  ])("%s", (text, ms) => expect(parseDurationMs(text)).toBe(ms));

  test.each(["", "m", "10 m", "-1s", "+1s", "1d", "1M", "10m5", "1e3s", "1..5s", ".s", "10m\n", "٣s"])(
    "refuses %j",
    (text) => expect(refusal(() => parseDurationMs(text))).toContain("must be a duration in h, m, s or ms"),
  );

  test("says which part is missing from a plain number", () => {
    for (const text of ["10", "0", "1.5"])
      expect(refusal(() => parseDurationMs(text))).toBe("needs a unit, such as 10m, 90s or 500ms");
  });

  test("reads back whatever is composed of h, m, s and ms", () => {
    const part = fc.nat(10_000);
    fc.assert(
      fc.property(part, part, part, part, (h, m, s, ms) => {
        expect(parseDurationMs(`${h}h${m}m${s}s${ms}ms`)).toBe(((h * 60 + m) * 60 + s) * 1000 + ms);
      }),
    );
  });

  test("takes linear time on a long line of digits", () => {
    // A pattern that backtracks would need minutes here, and the runner's time limit would end the test.
    expect(refusal(() => parseDurationMs(`1${"1".repeat(1_000_000)}x`))).toBeDefined();
  });
});

describe("parseBytes", () => {
  test.each([
    ["4096", 4096],
    ["4K", 4096],
    ["4KiB", 4096],
    ["4M", 4_194_304],
    ["4MiB", 4_194_304],
    ["1GiB", 1_073_741_824],
  ])("%s", (text, bytes) => expect(parseBytes(text)).toBe(bytes));

  test.each(["", "K", "4k", "4KB", "4MB", "4 MiB", "4.5MiB", "-4K", "4KiBK", "4iB", "0x10", "4M\n"])(
    "refuses %j",
    (text) => expect(refusal(() => parseBytes(text))).toContain("must be a whole number of bytes"),
  );

  test("a suffix multiplies by its power of 1024", () => {
    fc.assert(
      fc.property(fc.nat(1_000_000), fc.constantFrom("", "K", "M", "G"), fc.boolean(), (n, letter, iB) => {
        const power = ["", "K", "M", "G"].indexOf(letter);
        expect(parseBytes(`${n}${letter}${iB && letter !== "" ? "iB" : ""}`)).toBe(n * 1024 ** power);
      }),
    );
  });
});

describe("parseHostPort", () => {
  test.each([
    [":9001", "", 9001],
    [":0", "", 0],
    [":65535", "", 65_535],
    ["0.0.0.0:9001", "0.0.0.0", 9001],
    ["[::]:9001", "::", 9001],
    ["[::1]:0", "::1", 0],
    ["[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1", 1],
  ])("%s", (text, host, port) => expect(parseHostPort(text)).toEqual({ host, port }));

  test.each([
    ["", "must be address:port"],
    ["9001", "must be address:port"],
    ["127.0.0.1", "must be address:port"],
    ["[::1]", "must be address:port"],
    [":", "must be address:port"],
    [":-1", "must be address:port"],
    [":http", "must be address:port"],
    [":9001\n", "must be address:port"],
    [":65536", "from 0 to 65535"],
    [`:${"9".repeat(400)}`, "from 0 to 65535"],
    ["::1:9001", "in brackets"],
    ["fe80::1", "in brackets"],
    ["localhost:9001", "use an IP address"],
    ["127.1:9001", "use an IP address"],
    ["010.0.0.1:9001", "use an IP address"],
    ["0x7f.0.0.1:9001", "use an IP address"],
    ["2130706433:9001", "use an IP address"],
    [" 127.0.0.1:9001", "use an IP address"],
    ["[127.0.0.1]:9001", "use an IPv6 address in the brackets"],
    ["[]:9001", "use an IPv6 address in the brackets"],
    ["[::1::]:9001", "use an IPv6 address in the brackets"],
    ["[fe80::1%eth0]:9001", "zone"],
    ["[fe80::1%]:9001", "zone"],
  ])("refuses %j", (text, reason) => expect(refusal(() => parseHostPort(text))).toContain(reason));

  test("reads back every IPv4 and IPv6 address and port", () => {
    const port = fc.integer({ min: 0, max: 65_535 });
    fc.assert(
      fc.property(fc.ipV4(), port, (host, n) =>
        expect(parseHostPort(`${host}:${n}`)).toEqual({ host, port: n }),
      ),
    );
    fc.assert(
      fc.property(fc.ipV6(), port, (host, n) =>
        expect(parseHostPort(`[${host}]:${n}`)).toEqual({ host, port: n }),
      ),
    );
  });

  test("refuses or returns, whatever the text", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => void refusal(() => parseHostPort(text))));
  });
});

describe("shown", () => {
  test.each([
    ["10m", "10m"],
    ["[::1]:9001", "[::1]:9001"],
    ["/etc/beacon.json", "/etc/beacon.json"],
    ["", '""'],
    ["two words", '"two words"'],
    ["a\nb", '"a\\nb"'],
    ["\x1b[31m", '"\\u001b[31m"'],
    ["\u2028\u202e\x85\x7f", '"\\u{2028}\\u{202e}\\u{85}\\u{7f}"'],
    ["ü", '"ü"'],
  ])("%j", (text, expected) => expect(shown(text)).toBe(expected));

  test("is at most 100 characters, all of them visible", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 500, size: "max" }), (text) => {
        expect(shown(text).length).toBeLessThanOrEqual(100);
        expect(shown(text)).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
      }),
    );
  });
});
