/**
 * Local addresses in control messages: where a datagram was sent to, and where one is sent from.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  AF_INET,
  AF_INET6,
  IP_PKTINFO,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_PKTINFO,
  SEGMENTS_MAX,
  SOL_SOCKET,
  SOL_UDP,
  UDP_GRO,
} from "../../ffi/abi.ts";
import { ENDPOINT_WORDS, endpointOf, type Family, setLocalNumber } from "../../ffi/endpoint.ts";
import { EAGAIN } from "../../ffi/errno.ts";
import { allocatePacketMemory, groSegmentBytes, localAddress, SendBatch } from "../../ffi/mmsg.ts";
import { controlMessage, hex, int32Bytes, ScriptedKernel } from "../support/kernel.ts";

const gro = controlMessage(SOL_UDP, UDP_GRO, int32Bytes(1200));
const address4 = (host: string): Uint8Array =>
  new Uint8Array(endpointOf(host, 0).buffer).slice(16, 20);
const address6 = (host: string): Uint8Array =>
  new Uint8Array(endpointOf(host, 0).buffer).slice(4, 20);
const info4 = (local: string, header = local, link = 3) =>
  controlMessage(
    IPPROTO_IP,
    IP_PKTINFO,
    Uint8Array.of(...int32Bytes(link), ...address4(local), ...address4(header)),
  );
const info6 = (local: string, link = 3) =>
  controlMessage(
    IPPROTO_IPV6,
    IPV6_PKTINFO,
    Uint8Array.of(...address6(local), ...int32Bytes(link)),
  );

/** Looks through a list of control messages. */
function look(list: readonly Uint8Array[], controlBytes?: number): number[] | undefined {
  const bytes = Buffer.concat(list);
  const words = new Int32Array(Math.ceil(bytes.length / 4) + 16);
  new Uint8Array(words.buffer).set(bytes);
  const address = new Int32Array(ENDPOINT_WORDS).fill(-1);
  const family = list.some((one) => one[8] === IPPROTO_IPV6) ? AF_INET6 : AF_INET;
  const found = localAddress(family, words, 0, controlBytes ?? bytes.length, address);
  return found ? [...address] : undefined;
}

describe("the local address of a received message", () => {
  test("is the local one of in_pktinfo, not the header's, as after a broadcast", () => {
    expect(look([info4("192.0.2.1", "192.0.2.255")])).toEqual([...endpointOf("192.0.2.1", 0)]);
  });

  test("is found in front of and behind other messages", () => {
    for (const host of ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"]) {
      const info = host === "192.0.2.1" ? info4(host) : info6(host);
      for (const list of [[info], [gro, info], [info, gro]])
        expect(look(list)).toEqual([...endpointOf(host, 0)]);
    }
  });

  test("has its interface if it is link-local, and no other has", () => {
    const linkLocal = endpointOf("fe80::1", 0);
    linkLocal[5] = 7;
    expect(look([info6("fe80::1", 7)])).toEqual([...linkLocal]);
    expect(look([info6("2001:db8::1", 7)])![5]).toBe(0);
  });

  test("is not found in lists without one, or that are broken", () => {
    expect(look([])).toBeUndefined();
    expect(look([gro])).toBeUndefined();
    for (let bytes = 0; bytes < 28; bytes++)
      expect(look([info4("192.0.2.1")], bytes)).toBeUndefined();
    for (let bytes = 0; bytes < 36; bytes++)
      expect(look([info6("2001:db8::1")], bytes)).toBeUndefined();
    const broken = fc.oneof(fc.integer({ max: 15 }), fc.integer({ min: 1000, max: 2 ** 31 - 1 }));
    fc.assert(
      fc.property(broken, (lengthBytes) => {
        const bad = controlMessage(SOL_SOCKET, 1, new Uint8Array(8), lengthBytes);
        expect(look([bad, info4("192.0.2.1")])).toBeUndefined();
      }),
    );
  });

  test("does not hide the segment size", () => {
    const bytes = Buffer.concat([info6("2001:db8::1"), gro]);
    const words = new Int32Array(bytes.length / 4);
    new Uint8Array(words.buffer).set(bytes);
    expect(groSegmentBytes(words, 0, bytes.length)).toBe(1200);
  });
});

describe("the source of a sent message", () => {
  const LOCAL = endpointOf("192.0.2.1", 0);
  const LOCAL6 = endpointOf("fe80::1", 0);
  LOCAL6[5] = 7;
  /** Number n is at word 8 n. */
  const words = new Int32Array(3 * 8);
  words.set(LOCAL, 8);
  words.set(LOCAL6, 16);
  const locals = { words, at: (number: number) => 8 * number };

  function batchOf(family: Family, list?: typeof locals) {
    const calls = new ScriptedKernel(EAGAIN);
    const packets = allocatePacketMemory(1, 0);
    return { calls, batch: new SendBatch(calls, 5, family, 2, packets, list), packets };
  }

  /** An endpoint that talks to local address `number`. */
  function endpoint(host: string, number: number): Int32Array {
    const words = endpointOf(host, 9);
    setLocalNumber(words, 0, number);
    return words;
  }

  const CASES: readonly [Family, string, number, string][] = [
    [AF_INET, "10.0.0.1", 0, ""],
    [AF_INET, "10.0.0.1", 1, hex(Uint8Array.of(0, 0, 0, 0, ...address4("192.0.2.1"), 0, 0, 0, 0))],
    [AF_INET6, "10.0.0.1", 1, hex(Uint8Array.of(...address6("192.0.2.1"), 0, 0, 0, 0))],
    [AF_INET6, "fe80::2", 2, hex(Uint8Array.of(...address6("fe80::1"), ...int32Bytes(7)))],
  ];
  for (const [family, host, number, source] of CASES) {
    for (const pieces of [1, 2, SEGMENTS_MAX]) {
      test(`to ${host} from number ${number}, family ${family}, in ${pieces} pieces`, () => {
        const { calls, batch } = batchOf(family, locals);
        // The message before had the opposite: nothing of it may stay.
        batch.setDestination(0, endpoint(host, number === 0 ? 1 : 0), 0);
        batch.finish(0, pieces === 1 ? 2 : 1, 10);
        batch.setDestination(0, endpoint(host, number), 0);
        for (let i = 0; i < pieces; i++) batch.setPiece(0, i, 10 * i, 10);
        batch.finish(0, pieces, 10);
        batch.send(0, 1, false);
        batch.narrow(0, 0);
        batch.send(0, 1, false);
        expect(calls.sent).toMatchObject([
          { segmentBytes: pieces > 1 ? 10 : 0, source },
          { segmentBytes: 0, source },
        ]);
      });
    }
  }

  test("is the kernel's choice where numbers mean nothing", () => {
    const { calls, batch } = batchOf(AF_INET6);
    batch.setDestination(0, endpoint("10.0.0.1", 1), 0);
    batch.setPiece(0, 0, 0, 10);
    batch.finish(0, 1, 10);
    batch.send(0, 1, false);
    expect(calls.sent).toMatchObject([{ source: "" }]);
  });
});
