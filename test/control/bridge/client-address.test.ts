import { describe, expect, test } from "bun:test";
import { isIP } from "node:net";
import fc from "fast-check";
import { endpointOf } from "../../../ffi/endpoint.ts";
import { TrustedProxies } from "../../../src/control/bridge/client-address.ts";

const PROXY = "10.0.0.1";
const PROXIES = new TrustedProxies(["10.0.0.0/8", "2001:db8::/32"]);

describe("the client is who connects", () => {
  test.each([null, "", "192.0.2.7", "192.0.2.7, 10.0.0.9", "garbage"])(
    "when no proxy is trusted, whatever the header says: %p",
    (header) => {
      for (const peer of ["192.0.2.1", PROXY, "127.0.0.1", "::1", "2001:db8::1"])
        expect(new TrustedProxies([]).clientOf(peer, header)).toBe(peer);
    },
  );

  test("when it is not trusted itself", () => {
    for (const peer of ["192.0.2.1", "11.0.0.1", "9.255.255.255", "::1", "2001:db9::1", "::a00:1"])
      expect(PROXIES.clientOf(peer, "192.0.2.7")).toBe(peer);
  });

  test.each([
    ...[
      null,
      "",
      " ",
      ",",
      "unknown",
      "_hidden",
      "192.0.2.7,",
      "192.0.2.7, ,",
      "192.0.2.7 192.0.2.8",
    ],
    ...[
      "192.0.2",
      "192.0.2.7.8",
      "192.0.2.256",
      "127.1",
      "0x7f.1",
      "2130706433",
      "017700000001",
      "192.0.2.07",
    ],
    ...[
      "fe80::1%eth0",
      "[fe80::1%eth0]:80",
      "::g",
      "[::1",
      "::1]",
      "[192.0.2.7",
      "192.0.2.7:",
      ":80",
    ],
    ...[
      "192.0.2.7:80:81",
      "192.0.2.7:-1",
      "192.0.2.7/32",
      "http://192.0.2.7",
      '"192.0.2.7"',
      "for=192.0.2.7",
    ],
    ...["example.com", "localhost", "192.0.2.7;192.0.2.8", "192.0.2.7\0", "\u0661.0.0.1"],
  ])("when it is trusted, and the last entry is no address: %p", (header) => {
    expect(PROXIES.clientOf(PROXY, header)).toBe(PROXY);
  });
});

describe("a trusted proxy's word counts", () => {
  test.each([
    ["192.0.2.7", "192.0.2.7"],
    ["  192.0.2.7\t", "192.0.2.7"],
    ["192.0.2.7:50123", "192.0.2.7"],
    ["[192.0.2.7]:50123", "192.0.2.7"],
    ["2001:db9::7", "2001:db9::7"],
    ["[2001:DB9::7]", "2001:db9::7"],
    ["[2001:db9::7]:50123", "2001:db9::7"],
    ["::ffff:192.0.2.7", "192.0.2.7"],
    ["203.0.113.1, 192.0.2.7", "192.0.2.7"],
    ["garbage,, , 192.0.2.7", "192.0.2.7"],
  ])("%p", (header, client) => expect(PROXIES.clientOf(PROXY, header)).toBe(client));

  test.each([
    ["192.0.2.7, 10.0.0.2", "192.0.2.7"],
    ["203.0.113.1, 192.0.2.7, 10.0.0.2,10.255.255.255 , 2001:db8:ffff::1", "192.0.2.7"],
    ["192.0.2.7, ::ffff:10.0.0.2", "192.0.2.7"],
    ["10.0.0.3, 192.0.2.7, 10.0.0.2", "192.0.2.7"],
    ["10.0.0.3, 10.0.0.2", "10.0.0.3"],
    ["garbage, 10.0.0.2", "10.0.0.2"],
    ["192.0.2.7, garbage, 10.0.0.2", "10.0.0.2"],
  ])("behind further trusted ones: %p", (header, client) =>
    expect(PROXIES.clientOf(PROXY, header)).toBe(client),
  );

  test("also where IPv4 is written as IPv6, on either side", () => {
    expect(PROXIES.clientOf("::ffff:10.0.0.1", "192.0.2.7")).toBe("192.0.2.7");
    const mapped = new TrustedProxies(["::ffff:10.0.0.1"]);
    expect(mapped.clientOf("10.0.0.1", "192.0.2.7")).toBe("192.0.2.7");
    expect(mapped.clientOf("10.0.0.2", "192.0.2.7")).toBe("10.0.0.2");
  });

  test("one address alone, all of a family, and none of the other", () => {
    expect(new TrustedProxies([PROXY]).clientOf(PROXY, "192.0.2.7, 10.0.0.2")).toBe("10.0.0.2");
    const all = new TrustedProxies(["0.0.0.0/0"]);
    expect(all.clientOf("203.0.113.1", "::1, 192.0.2.7")).toBe("::1");
    expect(all.clientOf("::1", "192.0.2.7")).toBe("::1");
  });
});

describe("a header that is too long", () => {
  test("counts by its end", () => {
    const tail = "192.0.2.7, 10.0.0.2";
    for (const length of [1000, 5000, 1_000_000])
      expect(PROXIES.clientOf(PROXY, `${"203.0.113.1, ".repeat(length / 13)}${tail}`)).toBe(
        "192.0.2.7",
      );
    expect(PROXIES.clientOf(PROXY, `${"x".repeat(5000)},${tail}`)).toBe("192.0.2.7");
  });

  test("is followed through sixteen proxies and no further", () => {
    const chain = (proxies: number) =>
      ["192.0.2.7", ...Array.from({ length: proxies }, (_, i) => `10.1.0.${i}`)].join(", ");
    expect(PROXIES.clientOf(PROXY, chain(15))).toBe("192.0.2.7");
    expect(PROXIES.clientOf(PROXY, chain(16))).toBe("10.1.0.0");
    expect(PROXIES.clientOf(PROXY, chain(17))).toBe("10.1.0.1");
  });
});

describe("whatever a header says", () => {
  const header = fc.oneof(
    fc.string({ unit: "binary", maxLength: 200 }),
    fc
      .array(fc.oneof(fc.ipV4(), fc.ipV6(), fc.ipV4Extended(), fc.string()), { maxLength: 30 })
      .map(String),
    fc.string({ unit: fc.constantFrom(..."0123456789abcdef.:[]%, "), maxLength: 100 }),
  );
  const peer = fc.oneof(
    fc.ipV4(),
    fc.ipV6(),
    fc.nat(255).map((byte) => `10.0.0.${byte}`),
  );
  const prefixes = fc.constantFrom([], ["10.0.0.0/8"], ["0.0.0.0/0", "::/0"], ["::1", PROXY]);

  test("the client has an address that a packet could have", () => {
    fc.assert(
      fc.property(prefixes, peer, fc.option(header), (trusted, from, forwardedFor) => {
        const client = new TrustedProxies(trusted).clientOf(from, forwardedFor);
        expect(isIP(client)).not.toBe(0);
        expect(() => endpointOf(client, 1)).not.toThrow();
      }),
      { numRuns: 1000 },
    );
  });

  test("who is not trusted decides nothing but its own address", () => {
    fc.assert(
      fc.property(header, fc.nat(255), (forged, byte) => {
        const client = `192.0.2.${byte}`;
        expect(PROXIES.clientOf(client, forged)).toBe(client);
        expect(PROXIES.clientOf(PROXY, `${forged}, ${client}`)).toBe(client);
        expect(PROXIES.clientOf(PROXY, `${forged},${client}, 10.0.0.2`)).toBe(client);
      }),
    );
  });

  test("it is the last one that is not trusted, or the first of all", () => {
    const hop = fc.record({ isTrusted: fc.boolean(), byte: fc.nat(255) });
    fc.assert(
      fc.property(fc.array(hop, { minLength: 1, maxLength: 15 }), (hops) => {
        const chain = hops.map(({ isTrusted, byte }) =>
          isTrusted ? `10.0.0.${byte}` : `192.0.2.${byte}`,
        );
        const last = hops.findLastIndex(({ isTrusted }) => !isTrusted);
        expect(PROXIES.clientOf(PROXY, chain.join(", "))).toBe(chain[Math.max(0, last)]!);
      }),
    );
  });
});
