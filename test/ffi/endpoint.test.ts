import { describe, expect, test } from "bun:test";
import { isIP } from "node:net";
import fc from "fast-check";
import { AF_INET, AF_INET6 } from "../../ffi/abi.ts";
import {
  ENDPOINT_PORT_MASK,
  ENDPOINT_WORDS,
  endpointFromName,
  endpointOf,
  hasNoPort,
  isIPv4,
  isLoopback,
  NAME_WORDS,
  nameBytes,
  nameFromEndpoint,
  socketAddressOf,
} from "../../ffi/endpoint.ts";
import {
  endpointFromBytes,
  nameFromBytes,
  port,
  v4Bytes,
  v6Bytes,
} from "../support/arbitraries.ts";

/** Words around an endpoint or name that nothing may touch. */
const GUARD = 0x5a5a_5a5a;
const guarded = (words: number): Int32Array<ArrayBuffer> => new Int32Array(words + 4).fill(GUARD);
const AT = 2;

function expectGuards(words: Int32Array, from: number, to: number): void {
  expect([...words.subarray(0, from), ...words.subarray(to)].every((word) => word === GUARD)).toBe(
    true,
  );
}

const hextets = (bytes: Uint8Array): string =>
  Array.from({ length: 8 }, (_, i) => ((bytes[i * 2]! << 8) | bytes[i * 2 + 1]!).toString(16)).join(
    ":",
  );

describe("endpointOf and socketAddressOf", () => {
  test("are inverse for IPv4", () => {
    fc.assert(
      fc.property(v4Bytes, port, (bytes, portNumber) => {
        const address = bytes.join(".");
        const endpoint = endpointOf(address, portNumber);
        expect(endpoint).toEqual(endpointFromBytes(bytes, portNumber));
        expect(socketAddressOf(endpoint, 0)).toEqual({ address, port: portNumber, family: "IPv4" });
        expect(isIPv4(endpoint, 0)).toBe(true);
      }),
    );
  });

  test("are inverse for IPv6", () => {
    fc.assert(
      fc.property(v6Bytes, port, (bytes, portNumber) => {
        const endpoint = endpointOf(hextets(bytes), portNumber);
        expect(endpoint).toEqual(endpointFromBytes(bytes, portNumber));
        const shown = socketAddressOf(endpoint, 0);
        expect(isIP(shown.address)).toBe(6);
        expect(shown).toMatchObject({ port: portNumber, family: "IPv6" });
        expect(endpointOf(shown.address, shown.port)).toEqual(endpoint);
        expect(isIPv4(endpoint, 0)).toBe(false);
      }),
    );
  });

  test("an IPv4-mapped address is the IPv4 address", () => {
    fc.assert(
      fc.property(v4Bytes, port, (bytes, portNumber) => {
        const address = bytes.join(".");
        expect(endpointOf(`::ffff:${address}`, portNumber)).toEqual(
          endpointOf(address, portNumber),
        );
      }),
    );
  });

  test("what is near an IPv4-mapped address is IPv6", () => {
    for (const address of [
      "::",
      "::1",
      "::102:304",
      "::fffe:1.2.3.4",
      "::1:ffff:1.2.3.4",
      "1::ffff:1.2.3.4",
      "0:0:1::ffff:1.2.3.4",
    ]) {
      const endpoint = endpointOf(address, 1);
      expect(isIPv4(endpoint, 0)).toBe(false);
      expect(socketAddressOf(endpoint, 0).family).toBe("IPv6");
    }
  });

  test("show an endpoint in the midst of others, whatever flags it carries", () => {
    const endpoint = endpointOf("192.0.2.7", 9001);
    const words = guarded(ENDPOINT_WORDS);
    words.set(endpoint, AT);
    words[AT] = words[AT]! | 0xffff;
    expect(socketAddressOf(words, AT)).toEqual({
      address: "192.0.2.7",
      port: 9001,
      family: "IPv4",
    });
  });

  test.each(["", "localhost", "192.0.2.256", "1:2", "::g", "[::1]"])("refuse %j", (address) => {
    expect(() => endpointOf(address, 1)).toThrow();
  });
});

describe("endpointFromName and nameFromEndpoint", () => {
  test("are inverse for sockaddr_in", () => {
    fc.assert(
      fc.property(v4Bytes, port, (bytes, portNumber) => {
        const name = nameFromBytes(AF_INET, bytes, portNumber);
        const endpoint = guarded(ENDPOINT_WORDS);
        endpointFromName(AF_INET, name, 0, endpoint, AT);
        expect(endpoint.slice(AT, AT + ENDPOINT_WORDS)).toEqual(
          endpointFromBytes(bytes, portNumber),
        );
        expectGuards(endpoint, AT, AT + ENDPOINT_WORDS);
        const back = guarded(NAME_WORDS);
        nameFromEndpoint(AF_INET, endpoint, AT, back, AT);
        expect(back.slice(AT, AT + 2)).toEqual(name.slice(0, 2));
        expectGuards(back, AT, AT + nameBytes(AF_INET) / 4);
      }),
    );
  });

  test("are inverse for sockaddr_in6, scope and all", () => {
    fc.assert(
      fc.property(v6Bytes, port, fc.nat(0xffff_ffff), (bytes, portNumber, scope) => {
        const name = nameFromBytes(AF_INET6, bytes, portNumber, scope);
        name[1] = 0x1234_5678; // a flow label, which an endpoint does not keep
        const endpoint = guarded(ENDPOINT_WORDS);
        endpointFromName(AF_INET6, name, 0, endpoint, AT);
        expect(endpoint.slice(AT, AT + ENDPOINT_WORDS)).toEqual(
          endpointFromBytes(bytes, portNumber, scope),
        );
        expectGuards(endpoint, AT, AT + ENDPOINT_WORDS);
        const back = guarded(NAME_WORDS);
        nameFromEndpoint(AF_INET6, endpoint, AT, back, AT);
        name[1] = 0;
        expect(back.slice(AT, AT + nameBytes(AF_INET6) / 4)).toEqual(
          name.slice(0, nameBytes(AF_INET6) / 4),
        );
        expectGuards(back, AT, AT + nameBytes(AF_INET6) / 4);
      }),
    );
  });

  test("an IPv4 source has one endpoint, on an IPv4 and on a dual-stack socket", () => {
    fc.assert(
      fc.property(v4Bytes, port, (bytes, portNumber) => {
        const plain = new Int32Array(ENDPOINT_WORDS);
        endpointFromName(AF_INET, nameFromBytes(AF_INET, bytes, portNumber), 0, plain, 0);
        const mapped = new Int32Array(ENDPOINT_WORDS);
        const mappedBytes = new Uint8Array([...new Array(10).fill(0), 0xff, 0xff, ...bytes]);
        endpointFromName(AF_INET6, nameFromBytes(AF_INET6, mappedBytes, portNumber), 0, mapped, 0);
        expect(mapped).toEqual(plain);
      }),
    );
  });

  test("flags in the free half of word 0 do not reach the sockaddr", () => {
    fc.assert(
      fc.property(v4Bytes, port, fc.nat(0xffff), (bytes, portNumber, flags) => {
        const endpoint = endpointFromBytes(bytes, portNumber);
        endpoint[0] = endpoint[0]! | flags;
        for (const family of [AF_INET, AF_INET6] as const) {
          const name = new Int32Array(NAME_WORDS);
          nameFromEndpoint(family, endpoint, 0, name, 0);
          expect(name[0]! & 0xffff).toBe(family);
          const read = new Int32Array(ENDPOINT_WORDS);
          endpointFromName(family, name, 0, read, 0);
          expect(read).toEqual(endpointFromBytes(bytes, portNumber));
        }
      }),
    );
  });
});

test("hasNoPort looks at the port alone", () => {
  fc.assert(
    fc.property(v4Bytes, port, fc.nat(0xffff), (bytes, portNumber, flags) => {
      const endpoint = endpointFromBytes(bytes, portNumber);
      endpoint[0] = endpoint[0]! | flags;
      expect(hasNoPort(endpoint, 0)).toBe(portNumber === 0);
    }),
  );
  expect(ENDPOINT_PORT_MASK >>> 0).toBe(0xffff_0000);
});

describe("loopback", () => {
  test.each([
    ...["127.0.0.1", "127.255.255.255", "::ffff:127.0.0.1", "::1"].map(
      (address) => [address, true] as const,
    ),
    ...[
      "126.255.255.255",
      "128.0.0.0",
      "0.0.0.127",
      "1.0.0.127",
      "::",
      "::2",
      "::1:0:1",
      "1::1",
    ].map((address) => [address, false] as const),
  ])("%s: %p", (address, expected) => {
    expect(isLoopback(endpointOf(address, 1), 0)).toBe(expected);
  });
});
