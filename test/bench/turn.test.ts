/** TURN messages: against the test vectors of RFC 5769, and as RFC 8656 draws them. */
import { describe, expect, test } from "bun:test";
import {
  channelHeader,
  decodeStun,
  encodeStun,
  encodeXorAddress,
} from "../../bench/harness/turn.ts";

/** The sample IPv4 response of RFC 5769, 2.2. */
const RESPONSE = Buffer.from(
  "0101003c2112a442b7e7a701bc34d686fa87dfae" +
    "8022000b7465737420766563746f7220" +
    "002000080001a147e112a643" +
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7" +
    "80280004c07d4c96",
  "hex",
);
const SOFTWARE = 0x8022;
const XOR_MAPPED_ADDRESS = 0x0020;

describe("STUN messages", () => {
  test("the sample response is read", () => {
    const { type, transaction, attributes } = decodeStun(RESPONSE)!;
    expect(type).toBe(0x0101);
    expect(Buffer.from(transaction).toString("hex")).toBe("b7e7a701bc34d686fa87dfae");
    expect(new TextDecoder().decode(attributes.get(SOFTWARE))).toBe("test vector");
    expect(attributes.size).toBe(4);
  });

  test("192.0.2.1:32853 is written as the sample response has it", () => {
    const { attributes } = decodeStun(RESPONSE)!;
    expect([...encodeXorAddress({ host: "192.0.2.1", port: 32853 })]).toEqual([
      ...attributes.get(XOR_MAPPED_ADDRESS)!,
    ]);
  });

  test("an Allocate for UDP is what RFC 8656 says: the number of UDP in a REQUESTED-TRANSPORT", () => {
    const transaction = new Uint8Array(12).fill(0xaa);
    const attributes = new Map([[0x0019, Uint8Array.of(17, 0, 0, 0)]]);
    const bytes = Buffer.from(encodeStun({ type: 0x0003, transaction, attributes }));
    expect(bytes.toString("hex")).toBe(`000300082112a442${"aa".repeat(12)}0019000411000000`);
  });

  test("what is cut short, longer or without the cookie is none", () => {
    expect(decodeStun(RESPONSE.subarray(0, 40))).toBeUndefined();
    expect(decodeStun(Buffer.concat([RESPONSE, Buffer.alloc(4)]))).toBeUndefined();
    expect(decodeStun(RESPONSE.with(4, 0))).toBeUndefined();
  });

  test("an attribute that is longer than its message makes it none", () => {
    const bytes = Buffer.from(RESPONSE);
    bytes.writeUInt16BE(200, 22);
    expect(decodeStun(bytes)).toBeUndefined();
  });
});

test("data in a channel: the channel, its length, and the next channel by one step", () => {
  const { bytes, destinationAt, first, step } = channelHeader(200);
  const header = (channel: number) => {
    const view = new DataView(bytes.slice().buffer);
    view.setUint32(destinationAt, first + channel * step);
    return [view.getUint16(0), view.getUint16(2)];
  };
  expect(bytes).toHaveLength(4);
  expect([header(0), header(1), header(63)]).toEqual([
    [0x4000, 200],
    [0x4001, 200],
    [0x403f, 200],
  ]);
});
