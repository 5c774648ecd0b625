import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  ADDRESS_MESSAGE_BYTES_MAX,
  DELIVER_AT,
  DISCOVER,
  DISCOVER_EX,
  DISCOVER_REPLY,
  MESSAGE_NAMES,
  PUNCH_COMMAND,
  PUNCH_REQUEST,
  punchGrantText,
  RELAY,
  RELAY_BYTES,
  RELAY_DELIVER,
  RELAY_DELIVER_BYTES,
  RELAY_DELIVER_DEST,
  rewriteToDeliver,
  rewriteToDeliverDest,
  SYNC,
  writeAddressMessage,
} from "../src/protocol.ts";
import { endpointFromBytes, port, v4Bytes, v6Bytes } from "./support/arbitraries.ts";

const GUARD = 0xa5;
const type = fc.constantFrom<typeof DISCOVER_REPLY | typeof PUNCH_COMMAND>(
  DISCOVER_REPLY,
  PUNCH_COMMAND,
);

/** What a node reads out of a DiscoverReply or PunchCommand. */
function decode(bytes: Uint8Array): { type: number; ip: number[]; port: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const ipLength = view.getUint8(1);
  expect([4, 16]).toContain(ipLength);
  expect(bytes.length).toBe(2 + ipLength + 2);
  return {
    type: view.getUint8(0),
    ip: [...bytes.subarray(2, 2 + ipLength)],
    port: view.getUint16(2 + ipLength),
  };
}

test("the message types are those on the wire", () => {
  expect([DISCOVER, DISCOVER_REPLY, PUNCH_REQUEST, PUNCH_COMMAND, RELAY, RELAY_DELIVER]).toEqual([
    1, 2, 3, 4, 5, 6,
  ]);
  expect([SYNC, DISCOVER_EX, RELAY_DELIVER_DEST]).toEqual([7, 8, 9]);
  expect(MESSAGE_NAMES[RELAY_DELIVER_DEST]).toBe("relay_deliver_dest");
  expect(MESSAGE_NAMES).toHaveLength(10);
});

describe("writeAddressMessage", () => {
  test.each([
    ["IPv4", v4Bytes, 8],
    ["IPv6", v6Bytes, 20],
  ] as const)("writes what a node reads, %s", (_family, address, length) => {
    fc.assert(
      fc.property(
        type,
        address,
        port,
        fc.nat(0xffff),
        fc.nat(10),
        fc.nat(3),
        (kind, ip, portNumber, flags, to, at) => {
          const words = new Int32Array(at + 6 + 1).fill(-1);
          words.set(endpointFromBytes(ip, portNumber, 7), at);
          words[at] = words[at]! | flags; // the free half of the first word does not leak
          const bytes = new Uint8Array(to + ADDRESS_MESSAGE_BYTES_MAX + 4).fill(GUARD);
          expect(writeAddressMessage(kind, words, at, bytes, to)).toBe(length);
          expect(decode(bytes.subarray(to, to + length))).toEqual({
            type: kind,
            ip: [...ip],
            port: portNumber,
          });
          expect(bytes.subarray(0, to).every((byte) => byte === GUARD)).toBe(true);
          expect(bytes.subarray(to + length).every((byte) => byte === GUARD)).toBe(true);
        },
      ),
    );
    expect(length).toBeLessThanOrEqual(ADDRESS_MESSAGE_BYTES_MAX);
  });

  test("byte by byte", () => {
    const bytes = new Uint8Array(8);
    writeAddressMessage(
      DISCOVER_REPLY,
      endpointFromBytes(new Uint8Array([203, 0, 113, 5]), 9001),
      0,
      bytes,
      0,
    );
    expect([...bytes]).toEqual([0x02, 4, 203, 0, 113, 5, 0x23, 0x29]);
  });
});

describe("punchGrantText", () => {
  const id = fc.integer({ min: 0, max: 2 ** 32 - 1 });
  const expiry = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

  test("is ASCII, its numbers decimal", () => {
    expect(punchGrantText(7, 4_294_967_295, 1_790_000_000)).toBe(
      "punch-grant:7:4294967295:1790000000",
    );
  });

  test("says of whatever ids and time exactly what they are, and no two pairs have one text", () => {
    fc.assert(
      fc.property(id, id, expiry, (requester, target, expiryS) => {
        const text = punchGrantText(requester, target, expiryS);
        const parts = /^punch-grant:(0|[1-9]\d*):(0|[1-9]\d*):(0|[1-9]\d*)$/.exec(text);
        expect(parts?.slice(1).map(Number)).toEqual([requester, target, expiryS]);
      }),
    );
  });
});

describe("a Relay rewritten in place", () => {
  const relay = fc.record({
    before: fc.uint8Array({ maxLength: 8 }),
    sender: fc.uint8Array({ minLength: 4, maxLength: 4 }),
    dest: fc.uint8Array({ minLength: 4, maxLength: 4 }),
    payload: fc.uint8Array({ maxLength: 64 }),
    after: fc.uint8Array({ maxLength: 8 }),
  });

  test("becomes a RelayDeliver, and nothing around it changes", () => {
    fc.assert(
      fc.property(relay, ({ before, sender, dest, payload, after }) => {
        const bytes = new Uint8Array([...before, RELAY, ...sender, ...dest, ...payload, ...after]);
        const at = before.length;
        rewriteToDeliver(new DataView(bytes.buffer), at);
        const end = at + RELAY_BYTES + payload.length;
        expect([...bytes.subarray(at + DELIVER_AT, end)]).toEqual([
          RELAY_DELIVER,
          ...sender,
          ...payload,
        ]);
        expect(bytes.subarray(0, at)).toEqual(before);
        expect(bytes.subarray(end)).toEqual(after);
      }),
    );
    expect(RELAY_BYTES - DELIVER_AT).toBe(RELAY_DELIVER_BYTES);
  });

  test("becomes a RelayDeliverDest, and nothing around it changes", () => {
    fc.assert(
      fc.property(relay, ({ before, sender, dest, payload, after }) => {
        const bytes = new Uint8Array([...before, RELAY, ...sender, ...dest, ...payload, ...after]);
        rewriteToDeliverDest(new DataView(bytes.buffer), before.length);
        expect([...bytes]).toEqual([
          ...before,
          RELAY_DELIVER_DEST,
          ...sender,
          ...dest,
          ...payload,
          ...after,
        ]);
      }),
    );
  });
});
