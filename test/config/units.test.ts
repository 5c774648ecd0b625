import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  ConfigError,
  parseAddressPrefix,
  parseBytes,
  parseDurationMs,
  parseHostNamePort,
  parseHostPort,
  shown,
} from "../../src/config/units.ts";

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

  test.each([
    "",
    "m",
    "10 m",
    "-1s",
    "+1s",
    "1d",
    "1M",
    "10m5",
    "1e3s",
    "1..5s",
    ".s",
    "10m\n",
    "٣s",
  ])("refuses %j", (text) =>
    expect(refusal(() => parseDurationMs(text))).toContain("must be a duration in h, m, s or ms"),
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
    // A pattern that backtracks would need minutes here, and the runner's time limit would end the
    // test.
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

  test.each([
    "",
    "K",
    "4k",
    "4KB",
    "4MB",
    "4 MiB",
    "4.5MiB",
    "-4K",
    "4KiBK",
    "4iB",
    "0x10",
    "4M\n",
  ])("refuses %j", (text) =>
    expect(refusal(() => parseBytes(text))).toContain("must be a whole number of bytes"),
  );

  test("a suffix multiplies by its power of 1024", () => {
    fc.assert(
      fc.property(
        fc.nat(1_000_000),
        fc.constantFrom("", "K", "M", "G"),
        fc.boolean(),
        (n, letter, iB) => {
          const power = ["", "K", "M", "G"].indexOf(letter);
          expect(parseBytes(`${n}${letter}${iB && letter !== "" ? "iB" : ""}`)).toBe(
            n * 1024 ** power,
          );
        },
      ),
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
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => void refusal(() => parseHostPort(text))),
    );
  });
});

describe("parseHostNamePort", () => {
  const label63 = "a".repeat(63);
  const name253 = `${`${label63}.`.repeat(3)}${"b".repeat(61)}`;

  test.each([
    ["beacon.example:9001", "beacon.example", 9001],
    ["localhost:1", "localhost", 1],
    ["B2:65535", "B2", 65_535],
    ["b-2.x--y.example:9", "b-2.x--y.example", 9],
    ["_beacon._udp.my_host:9", "_beacon._udp.my_host", 9],
    ["4.3.2.1.in-addr.arpa:9", "4.3.2.1.in-addr.arpa", 9],
    ["2001.example:9", "2001.example", 9],
    ["0xcafe.0xyz:9", "0xcafe.0xyz", 9],
    ["xn--bcher-kva.example:9", "xn--bcher-kva.example", 9],
    [`${label63}:9`, label63, 9],
    [`${name253}:9`, name253, 9],
    ["192.0.2.1:9001", "192.0.2.1", 9001],
    ["[2001:db8::1]:9001", "2001:db8::1", 9001],
    ["[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1", 1],
  ])("%s", (text, host, port) => expect(parseHostNamePort(text)).toEqual({ host, port }));

  test.each([
    ["", "must be host:port"],
    ["beacon.example", "must be host:port"],
    ["9001", "must be host:port"],
    [":9001", "must be host:port"],
    ["beacon:", "must be host:port"],
    ["beacon:-1", "must be host:port"],
    ["beacon:http", "must be host:port"],
    ["beacon:9001\n", "must be host:port"],
    ["beacon:0", "from 1 to 65535"],
    ["beacon:65536", "from 1 to 65535"],
    [`beacon:${"9".repeat(400)}`, "from 1 to 65535"],
    ["::1:9001", "in brackets"],
    ["fe80::1%eth0", "in brackets"],
    ["http://beacon:9001", "in brackets"],
    ["127.1:9", "use an IP address in full"],
    ["010.0.0.1:9", "use an IP address in full"],
    ["256.0.0.1:9", "use an IP address in full"],
    ["1.2.3.4.5:9", "use an IP address in full"],
    ["2130706433:9", "use an IP address in full"],
    ["0x7f.0.0.0x1:9", "use an IP address in full"],
    ["beacon.0X:9", "use an IP address in full"],
    ["-beacon:9", "use a host name"],
    ["beacon-:9", "use a host name"],
    ["a.-b:9", "use a host name"],
    ["a..b:9", "use a host name"],
    [".a:9", "use a host name"],
    ["a.:9", "use a host name"],
    [" a:9", "use a host name"],
    ["a b:9", "use a host name"],
    ["a/b:9", "use a host name"],
    ["user@b:9", "use a host name"],
    ["a\0:9", "use a host name"],
    ["a\n:9", "use a host name"],
    ["bücher.example:9", "use a host name"],
    ["\u017f:9", "use a host name"], // upper case S to a pattern that ignores case the Unicode way
    ["fe80%eth0:9", "use a host name"],
    [`${label63}a:9`, "use a host name"],
    [`${name253}b:9`, "use a host name"],
    ["[beacon]:9", "use an IPv6 address in the brackets"],
    ["[127.0.0.1]:9", "use an IPv6 address in the brackets"],
    ["[]:9", "use an IPv6 address in the brackets"],
    ["[fe80::1%eth0]:9", "zone"],
  ])("refuses %j", (text, reason) =>
    expect(refusal(() => parseHostNamePort(text))).toContain(reason),
  );

  test("reads back every name, address and port", () => {
    const domain = fc.domain().filter((name) => name.length <= 253); // fast-check makes some of 255
    const port = fc.integer({ min: 1, max: 65_535 });
    fc.assert(
      fc.property(fc.oneof(domain, fc.ipV4()), port, (host, n) =>
        expect(parseHostNamePort(`${host}:${n}`)).toEqual({ host, port: n }),
      ),
    );
    fc.assert(
      fc.property(fc.ipV6(), port, (host, n) =>
        expect(parseHostNamePort(`[${host}]:${n}`)).toEqual({ host, port: n }),
      ),
    );
  });

  test("takes every address that parseHostPort takes, if it says where to", () => {
    const host = fc.oneof(
      fc.constant(""),
      fc.ipV4(),
      fc.ipV4Extended(),
      fc.ipV6().map((address) => `[${address}]`),
    );
    fc.assert(
      fc.property(host, fc.integer({ min: 0, max: 65_536 }), (name, n) => {
        const open = name === "" || n === 0;
        const taken = refusal(() => parseHostPort(`${name}:${n}`)) === undefined;
        expect(refusal(() => parseHostNamePort(`${name}:${n}`)) === undefined).toBe(taken && !open);
      }),
    );
  });

  test("refuses or returns, whatever the text, and soon", () => {
    const text = fc.oneof(fc.string(), fc.string({ unit: "binary" }));
    fc.assert(fc.property(text, (host) => void refusal(() => parseHostNamePort(`${host}:9`))));
    expect(refusal(() => parseHostNamePort(`${"a-".repeat(1_000_000)}:9`))).toContain(
      "use a host name",
    );
    expect(refusal(() => parseHostNamePort(`${"a.".repeat(1_000_000)}:9`))).toContain(
      "use a host name",
    );
  });
});

describe("parseAddressPrefix", () => {
  const read = (text: string) => {
    const [address, bits] = parseAddressPrefix(text);
    return [address.kind(), address.toString(), bits];
  };

  test.each([
    ["192.0.2.1", "ipv4", "192.0.2.1", 32],
    ["192.0.2.1/32", "ipv4", "192.0.2.1", 32],
    ["10.0.0.0/8", "ipv4", "10.0.0.0", 8],
    ["10.128.0.0/9", "ipv4", "10.128.0.0", 9],
    ["192.0.2.254/31", "ipv4", "192.0.2.254", 31],
    ["0.0.0.0/0", "ipv4", "0.0.0.0", 0],
    ["255.255.255.255", "ipv4", "255.255.255.255", 32],
    ["2001:db8::1", "ipv6", "2001:db8::1", 128],
    ["2001:DB8:0:0:0:0:0:1/128", "ipv6", "2001:db8::1", 128],
    ["2001:db8::/32", "ipv6", "2001:db8::", 32],
    ["2001:db8:8000::/33", "ipv6", "2001:db8:8000::", 33],
    ["::", "ipv6", "::", 128],
    ["::/0", "ipv6", "::", 0],
    ["64:ff9b::192.0.2.1", "ipv6", "64:ff9b::c000:201", 128],
    ["1:0::2:3:192.0.2.1", "ipv6", "1::2:3:c000:201", 128],
  ])("%s", (text, kind, address, bits) => expect(read(text)).toEqual([kind, address, bits]));

  test.each([
    ["::ffff:192.0.2.1", "192.0.2.1", 32],
    ["::ffff:c000:201", "192.0.2.1", 32],
    ["0:0:0:0:0:FFFF:192.0.2.1/128", "192.0.2.1", 32],
    ["::ffff:10.0.0.0/104", "10.0.0.0", 8],
    ["::ffff:0:0/96", "0.0.0.0", 0],
  ])("%s is IPv4", (text, address, bits) => expect(read(text)).toEqual(["ipv4", address, bits]));

  test.each([
    ["::192.0.2.1", "::c000:201"],
    ["::fffe:192.0.2.1", "::fffe:c000:201"],
    ["::ffff:0:192.0.2.1", "::ffff:0:c000:201"],
    ["::1:ffff:192.0.2.1", "::1:ffff:c000:201"],
  ])("%s is not", (text, address) => expect(read(text)).toEqual(["ipv6", address, 128]));

  test.each([
    ["10.1.2.3/8", "10.0.0.0/8"],
    ["10.0.0.1/31", "10.0.0.0/31"],
    ["10.128.0.0/8", "10.0.0.0/8"],
    ["128.0.0.0/0", "0.0.0.0/0"],
    ["2001:db8::1/32", "2001:db8::/32"],
    ["2001:db8:8000::/32", "2001:db8::/32"],
    ["8000::/0", "::/0"],
    ["::ffff:10.1.2.3/104", "10.0.0.0/8"],
    ["::ffff:10.1.2.3/96", "0.0.0.0/0"],
  ])("refuses %s, and names %s", (text, right) => {
    expect(refusal(() => parseAddressPrefix(text))).toBe(
      `has bits set behind the prefix; use ${right}`,
    );
    expect(refusal(() => parseAddressPrefix(right))).toBeUndefined();
  });

  test.each([
    ["10.0.0.0/33", "from 0 to 32 bits"],
    [`0.0.0.0/${"9".repeat(400)}`, "from 0 to 32 bits"],
    ["2001:db8::/129", "from 0 to 128 bits"],
    ["::ffff:10.0.0.0/95", "from 96 to 128 bits"],
    ["::ffff:10.0.0.0/8", "from 96 to 128 bits"],
    ["::ffff:10.0.0.0/129", "from 96 to 128 bits"],
    ["fe80::1%eth0", "zone"],
    ["fe80::%eth0/10", "zone"],
    ["fe80::1%", "zone"],
    ["", "must be an IP address in full"],
    ["/", "must be an IP address in full"],
    ["/8", "must be an IP address in full"],
    ["10.0.0.0/", "must be an IP address in full"],
    ["10.0.0.0/08", "must be an IP address in full"],
    ["10.0.0.0/-1", "must be an IP address in full"],
    ["10.0.0.0/+8", "must be an IP address in full"],
    ["10.0.0.0/8.0", "must be an IP address in full"],
    ["10.0.0.0/1e1", "must be an IP address in full"],
    ["10.0.0.0/0x8", "must be an IP address in full"],
    ["10.0.0.0/255.0.0.0", "must be an IP address in full"],
    ["10.0.0.0/8/8", "must be an IP address in full"],
    ["10.0.0.0 /8", "must be an IP address in full"],
    ["10.0.0.0/8\n", "must be an IP address in full"],
    ["10.0.0.1\n", "must be an IP address in full"],
    [" 10.0.0.1", "must be an IP address in full"],
    ["10/8", "must be an IP address in full"],
    ["127.1", "must be an IP address in full"],
    ["010.0.0.1", "must be an IP address in full"],
    ["0x7f.0.0.1", "must be an IP address in full"],
    ["2130706433", "must be an IP address in full"],
    ["256.0.0.1", "must be an IP address in full"],
    ["10.0.0.1:80", "must be an IP address in full"],
    ["[::1]", "must be an IP address in full"],
    ["::1::", "must be an IP address in full"],
    ["::ffff:127.1", "must be an IP address in full"],
    ["::ffff:010.0.0.1", "must be an IP address in full"],
    ["::1]/[::1", "must be an IP address in full"],
    ["localhost", "must be an IP address in full"],
  ])("refuses %j", (text, reason) =>
    expect(refusal(() => parseAddressPrefix(text))).toContain(reason),
  );

  test("an address alone is itself with all of its bits", () => {
    fc.assert(fc.property(fc.ipV4(), (text) => expect(read(text)).toEqual(["ipv4", text, 32])));
  });

  test("an IPv6 address is the same however it is written", () => {
    const groups = fc.array(fc.nat(0xffff), { minLength: 8, maxLength: 8 });
    const zeros = fc
      .tuple(fc.nat(8), fc.nat(8))
      .map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);
    fc.assert(
      fc.property(groups, zeros, fc.boolean(), (any, [from, to], isDotted) => {
        const parts = any.map((group, i) => (i >= from && i < to ? 0 : group));
        const hex = parts.map((group) => group.toString(16));
        const bytes = parts.slice(6).flatMap((group) => [group >> 8, group & 0xff]);
        const end = isDotted ? [bytes.join(".")] : hex.slice(6);
        const written = [...hex.slice(0, 6), ...end];
        if (from < to && to <= 6)
          written.splice(from, to - from, ...(from === 0 ? ["", ""] : [""]));
        const [address, bits] = parseAddressPrefix(written.join(":"));
        const isMapped = parts.slice(0, 5).every((part) => part === 0) && parts[5] === 0xffff;
        expect(address.toByteArray()).toEqual(
          isMapped ? bytes : parts.flatMap((group) => [group >> 8, group & 0xff]),
        );
        expect(bits).toBe(isMapped ? 32 : 128);
      }),
      {
        examples: [
          [[0, 0, 0, 0, 0, 0, 0xc000, 0x201], [0, 6], true],
          [[0, 0, 0, 0, 0, 0xffff, 0xc000, 0x201], [0, 5], true],
          [[1, 0, 0, 0, 2, 3, 0xc000, 0x201], [2, 4], true],
        ],
      },
    );
  });

  test("takes exactly the prefixes with nothing behind them, and names them to the others", () => {
    const v4 = fc.tuple(fc.ipV4(), fc.nat(32));
    const v6 = fc.tuple(fc.ipV6(), fc.nat(128));
    fc.assert(
      fc.property(fc.oneof(v4, v6), ([text, bits]) => {
        const message = refusal(() => parseAddressPrefix(`${text}/${bits}`));
        const right = message === undefined ? `${text}/${bits}` : message.split("use ")[1]!;
        const [prefix, prefixBits] = parseAddressPrefix(right);
        const [address] = parseAddressPrefix(text);
        expect(prefixBits).toBe(bits);
        expect(address.match([prefix, prefixBits])).toBe(true);
        expect(message === undefined).toBe(address.toString() === prefix.toString());
      }),
      { examples: [[["10.0.0.0", 8]], [["10.1.0.0", 8]], [["2001:db8::", 32]]] },
    );
  });

  test("refuses or returns, whatever the text", () => {
    const part = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.ipV4Extended(),
      fc.ipV6(),
      fc.nat(130).map(String),
    );
    const text = fc.array(part, { maxLength: 3 }).map((parts) => parts.join("/"));
    fc.assert(fc.property(text, (any) => void refusal(() => parseAddressPrefix(any))));
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
