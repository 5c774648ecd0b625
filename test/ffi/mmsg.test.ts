import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  AF_INET,
  AF_INET6,
  MESSAGES_MAX,
  MSG_DONTWAIT,
  MSG_TRUNC,
  MSG_WAITFORONE,
  SEGMENTS_MAX,
  SOL_SOCKET,
  SOL_UDP,
  UDP_GRO,
  UDP_SEGMENT,
} from "../../ffi/abi.ts";
import { type Family, nameBytes } from "../../ffi/endpoint.ts";
import { EAGAIN, EINTR, EIO } from "../../ffi/errno.ts";
import { type FixedMemory, kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, groSegmentBytes, ReceiveBatch, SendBatch } from "../../ffi/mmsg.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { anyEndpoint, endpointFromBytes, nameFromBytes } from "../support/arbitraries.ts";
import {
  controlMessage,
  hex,
  int32Bytes,
  type ReceivedMessage,
  ScriptedKernel,
} from "../support/kernel.ts";
import { LOOPBACK, PATIENCE_MS, Peer } from "../support/peer.ts";

const bytesOf = (words: Int32Array): Uint8Array =>
  new Uint8Array(words.buffer as ArrayBuffer, words.byteOffset, words.byteLength);

describe("groSegmentBytes", () => {
  const foreign = fc
    .tuple(
      fc.constantFrom(SOL_SOCKET, SOL_UDP, 0, 41),
      fc.integer({ min: 0, max: 200 }),
      fc.uint8Array({ maxLength: 20 }),
    )
    .filter(([level, type]) => level !== SOL_UDP || type !== UDP_GRO)
    .map(([level, type, data]) => controlMessage(level, type, data));
  const foreigns = fc.array(foreign, { maxLength: 4 });
  const gro = (bytes: number): Uint8Array => controlMessage(SOL_UDP, UDP_GRO, int32Bytes(bytes));
  const segmentBytes = fc.integer({ min: 1, max: 65_535 });

  /** Looks through a list that lies somewhere in words that say something else. */
  function look(list: readonly Uint8Array[], controlBytes?: number): number {
    const bytes = Buffer.concat(list);
    const at = 4;
    const words = new Int32Array(at + Math.ceil(bytes.length / 4) + 32);
    // Behind the list stands a control message that is none of its business.
    const behind = gro(4321);
    const memory = bytesOf(words);
    memory.set(behind, 0);
    memory.set(bytes, at * 4);
    if (bytes.length % 8 === 0) memory.set(behind, at * 4 + bytes.length);
    return groSegmentBytes(words, at, controlBytes ?? bytes.length);
  }

  test("finds the size, whatever stands before and behind", () => {
    fc.assert(
      fc.property(foreigns, segmentBytes, foreigns, (before, size, after) => {
        expect(look([...before, gro(size), ...after])).toBe(size);
      }),
    );
  });

  test("finds nothing where nothing is", () => {
    expect(look([], 0)).toBe(0);
    fc.assert(fc.property(foreigns, (list) => expect(look(list)).toBe(0)));
  });

  test("does not take what lies behind the part that the kernel filled in", () => {
    fc.assert(
      fc.property(foreigns, segmentBytes, fc.nat(19), (before, size, part) => {
        const bytes = Buffer.concat(before).length;
        expect(look([...before, gro(size)], bytes + part)).toBe(0);
      }),
    );
  });

  test("takes a last message whose padding is missing", () => {
    expect(look([gro(1200)], 20)).toBe(1200);
  });

  test("gives up at a message with a broken length", () => {
    const broken = fc.oneof(
      fc.integer({ min: -(2 ** 31), max: 15 }),
      fc.integer({ min: 1000, max: 2 ** 31 - 1 }),
    );
    fc.assert(
      fc.property(foreigns, broken, segmentBytes, foreigns, (before, lengthBytes, size, after) => {
        const bad = controlMessage(SOL_SOCKET, 1, new Uint8Array(8), lengthBytes);
        expect(look([...before, bad, gro(size), ...after])).toBe(0);
        const badGro = controlMessage(SOL_UDP, UDP_GRO, int32Bytes(size), lengthBytes);
        expect(look([...before, badGro, ...after])).toBe(0);
      }),
    );
  });

  test("wants a whole int", () => {
    for (const data of [0, 1, 2, 3]) {
      expect(look([controlMessage(SOL_UDP, UDP_GRO, new Uint8Array(data).fill(1)), gro(9)])).toBe(
        0,
      );
    }
  });

  test("agrees with the macros of cmsg(3) on any bytes at all", () => {
    /** CMSG_FIRSTHDR, CMSG_NXTHDR and CMSG_DATA over bytes. */
    const byTheBook = (bytes: Uint8Array): number => {
      const view = new DataView(bytes.buffer);
      let offset = 0;
      while (bytes.length - offset >= 16) {
        // as musl declares it; no kernel writes 2 GiB and more
        const length = view.getInt32(offset, true);
        if (length < 16 || length > bytes.length - offset) return 0;
        if (
          view.getInt32(offset + 8, true) === SOL_UDP &&
          view.getInt32(offset + 12, true) === UDP_GRO
        ) {
          return length >= 20 ? view.getInt32(offset + 16, true) : 0;
        }
        offset += (length + 7) & ~7;
      }
      return 0;
    };
    const lengths = fc.oneof(fc.integer({ min: 0, max: 48 }), fc.integer({ min: -4, max: 1000 }));
    const messages = fc.array(
      fc
        .tuple(
          fc.constantFrom(SOL_UDP, SOL_SOCKET),
          fc.constantFrom(UDP_GRO, UDP_SEGMENT),
          fc.uint8Array({ maxLength: 12 }),
          lengths,
        )
        .map((message) => controlMessage(...message)),
      { maxLength: 4 },
    );
    fc.assert(
      fc.property(messages, fc.nat(64), (list, cutBytes) => {
        const bytes = new Uint8Array(Buffer.concat(list));
        const taken = bytes.slice(0, Math.max(0, bytes.length - cutBytes));
        expect(look(list, taken.length)).toBe(byTheBook(taken));
      }),
      { numRuns: 2000 },
    );
  });
});

/**
 * Packet memory that tests have handed out: a batch knows addresses in it, and does not keep it
 * alive.
 */
const kept: FixedMemory[] = [];

/** A receive batch on a scripted kernel. */
function scripted(messages: number, family: Family = AF_INET, offload = true) {
  const calls = new ScriptedKernel(EAGAIN);
  const packets = allocatePacketMemory(messages, 0);
  kept.push(packets);
  const batch = new ReceiveBatch(calls, 5, family, messages, packets, offload);
  const bytes = (m: number): Uint8Array =>
    new Uint8Array(packets.buffer, batch.packetAt(m), batch.length(m)).slice();
  return { calls, batch, bytes };
}

describe("ReceiveBatch on a scripted kernel", () => {
  test("takes 1 to MESSAGES_MAX messages", () => {
    const packets = allocatePacketMemory(1, 0);
    for (const messages of [0, -1, MESSAGES_MAX + 1]) {
      expect(() => new ReceiveBatch(kernel, 0, AF_INET, messages, packets, true)).toThrow(
        RangeError,
      );
      expect(() => new SendBatch(kernel, 0, AF_INET, messages, packets)).toThrow(RangeError);
    }
  });

  test.each([AF_INET, AF_INET6] as const)(
    "shows each message as the kernel filled it in, family %d",
    (family) => {
      const { calls, batch, bytes } = scripted(4, family);
      const address = new Uint8Array(family === AF_INET ? 4 : 16).map((_, i) => i + 1);
      const name = nameFromBytes(family, address, 9001, 3);
      const nameRoom = nameBytes(family);
      calls.receives.push([
        { bytes: new Uint8Array([1, 2, 3]), name: bytesOf(name).slice(0, nameRoom) },
        {
          bytes: new Uint8Array(2500).fill(7),
          name: bytesOf(name).slice(0, nameRoom),
          control: controlMessage(SOL_UDP, UDP_GRO, int32Bytes(1200)),
        },
        {
          bytes: new Uint8Array(70_000).fill(8),
          name: bytesOf(name).slice(0, nameRoom),
          flags: MSG_TRUNC,
        },
        { bytes: new Uint8Array() },
      ]);
      expect(batch.receive(true)).toBe(4);
      expect([0, 1, 2, 3].map((m) => batch.length(m))).toEqual([3, 2500, 65_600, 0]);
      expect([0, 1, 2, 3].map((m) => batch.segmentBytes(m))).toEqual([0, 1200, 0, 0]);
      expect([0, 1, 2, 3].map((m) => batch.truncated(m))).toEqual([false, false, true, false]);
      expect([0, 1, 2, 3].map((m) => batch.hasSender(m))).toEqual([true, true, true, false]);
      expect(bytes(0)).toEqual(new Uint8Array([1, 2, 3]));
      expect(bytes(1)).toEqual(new Uint8Array(2500).fill(7));
      expect(bytes(2)).toEqual(new Uint8Array(65_600).fill(8));
      for (const m of [0, 1, 2]) {
        const at = batch.nameAt(m);
        expect(batch.names.slice(at, at + nameRoom / 4)).toEqual(name.slice(0, nameRoom / 4));
      }
    },
  );

  test("waits for one message or for none", () => {
    const { calls, batch } = scripted(2);
    batch.receive(true);
    batch.receive(false);
    expect(calls.receiveCalls.map(({ flags }) => flags)).toEqual([MSG_WAITFORONE, MSG_DONTWAIT]);
  });

  test("gives back the errno", () => {
    const { calls, batch } = scripted(2);
    calls.receives.push(-EINTR, [], -EIO);
    expect(batch.receive(true)).toBe(-EINTR);
    expect(batch.receive(true)).toBe(0);
    expect(batch.receive(true)).toBe(-EIO);
    expect(batch.receive(true)).toBe(-EAGAIN);
  });

  test("offers no room for control messages without offload", () => {
    const { calls, batch } = scripted(2, AF_INET, false);
    calls.receives.push([
      { bytes: new Uint8Array(9), control: controlMessage(SOL_UDP, UDP_GRO, int32Bytes(3)) },
    ]);
    expect(batch.receive(true)).toBe(1);
    expect(batch.segmentBytes(0)).toBe(0);
    expect(calls.receiveCalls[0]?.controlBytes).toEqual([0, 0]);
  });

  test("offers full room to every message of every call, whatever the calls before it brought", () => {
    const messages = 4;
    const message: fc.Arbitrary<ReceivedMessage> = fc.record({
      bytes: fc.uint8Array({ maxLength: 40 }),
      control: fc.constantFrom(new Uint8Array(), controlMessage(SOL_UDP, UDP_GRO, int32Bytes(10))),
      name: fc.constantFrom(new Uint8Array(), new Uint8Array(16)),
    });
    const step = fc.oneof(
      fc.constantFrom(-EAGAIN, -EINTR),
      fc.array(message, { maxLength: messages }),
    );
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) => {
        const { calls, batch, bytes } = scripted(messages);
        calls.receives.push(...steps);
        for (const expected of steps) {
          const count = batch.receive(true);
          const rooms = calls.receiveCalls.at(-1)!;
          expect(rooms.nameBytes).toEqual(new Array(messages).fill(nameBytes(AF_INET)));
          expect(new Set(rooms.controlBytes).size).toBe(1);
          expect(rooms.controlBytes[0]).toBeGreaterThanOrEqual(24);
          if (typeof expected === "number") {
            expect(count).toBe(expected);
            continue;
          }
          expect(count).toBe(expected.length);
          for (const [m, { bytes: sent, control }] of expected.entries()) {
            expect(bytes(m)).toEqual(sent);
            expect(batch.segmentBytes(m)).toBe(control?.length === 0 ? 0 : 10);
          }
        }
      }),
    );
  });

  test("tells a test where its structs lie", () => {
    const { batch } = scripted(2);
    const { words, headers, controls, address } = batch.layout;
    expect(words).toBe(batch.names);
    expect(controls).toBeGreaterThan(headers);
    expect(address % 4).toBe(0);
  });
});

/** A send batch of 3 messages on a scripted kernel, over packet memory of counting bytes. */
function scriptedSend() {
  const calls = new ScriptedKernel(EAGAIN);
  const packets = allocatePacketMemory(1, 0);
  kept.push(packets);
  const memory = new Uint8Array(packets.buffer);
  for (let i = 0; i < 4096; i++) memory[i] = i;
  return { calls, batch: new SendBatch(calls, 5, AF_INET6, 3, packets), memory };
}

describe("SendBatch on a scripted kernel", () => {
  const pieces = fc.array(
    fc.record({ at: fc.nat(1000), bytes: fc.integer({ min: 1, max: 1500 }) }),
    {
      minLength: 1,
      maxLength: SEGMENTS_MAX,
    },
  );

  test("hands over what was put in: names, pieces in order, segment size", () => {
    fc.assert(
      fc.property(fc.tuple(anyEndpoint, pieces), fc.tuple(anyEndpoint, pieces), (...messages) => {
        const { calls, batch, memory } = scriptedSend();
        for (const [m, [endpoint, list]] of messages.entries()) {
          batch.setDestination(m, endpoint, 0);
          for (const [i, { at, bytes }] of list.entries()) {
            batch.setPiece(m, i, at, bytes);
            expect(batch.pieceBytes(m, i)).toBe(bytes);
          }
          batch.finish(m, list.length, list[0]!.bytes);
        }
        expect(batch.send(0, 2, true)).toBe(2);
        expect(calls.sent).toHaveLength(2);
        for (const [m, [endpoint, list]] of messages.entries()) {
          const sent = calls.sent[m]!;
          const address = bytesOf(endpoint).slice(4, 20);
          const view = new DataView(bytesOf(endpoint).buffer as ArrayBuffer);
          const name = nameFromBytes(
            AF_INET6,
            address,
            view.getUint16(2),
            view.getUint32(20, true),
          );
          expect(sent.name).toBe(hex(bytesOf(name).slice(0, nameBytes(AF_INET6))));
          expect(sent.pieces).toEqual(list.map(({ at, bytes }) => memory.slice(at, at + bytes)));
          expect(sent.segmentBytes).toBe(list.length > 1 ? list[0]!.bytes : 0);
        }
      }),
      { numRuns: 50 },
    );
  });

  test("sends a part, waits or not, and says how much went", () => {
    const { calls, batch } = scriptedSend();
    for (let m = 0; m < 3; m++) {
      batch.setDestination(m, endpointFromBytes(new Uint8Array([127, 0, 0, 1]), m + 1), 0);
      batch.setPiece(m, 0, m * 100, 10 + m);
      batch.finish(m, 1, 10 + m);
    }
    calls.sends.push(
      () => 2,
      () => -EAGAIN,
      () => 0,
    );
    expect(batch.send(0, 3, true)).toBe(2);
    expect(batch.send(2, 3, false)).toBe(-EAGAIN);
    expect(batch.send(2, 3, false)).toBe(0);
    expect(batch.send(1, 3, true)).toBe(2);
    expect(calls.sendCalls).toEqual([
      { wait: true, offered: 3 },
      { wait: false, offered: 1 },
      { wait: false, offered: 1 },
      { wait: true, offered: 2 },
    ]);
    expect(calls.datagrams.map(({ bytes }) => bytes.length)).toEqual([10, 11, 11, 12]);
  });

  test("narrows a merged message to any of its pieces, and a used message serves again", () => {
    const { calls, batch, memory } = scriptedSend();
    const endpoint = endpointFromBytes(new Uint8Array([127, 0, 0, 1]), 1);
    batch.setDestination(1, endpoint, 0);
    for (let i = 0; i < SEGMENTS_MAX; i++) batch.setPiece(1, i, i * 10, 10);
    batch.finish(1, SEGMENTS_MAX, 10);
    for (const i of [SEGMENTS_MAX - 1, 0, 7]) {
      batch.narrow(1, i);
      expect(batch.send(1, 2, true)).toBe(1);
      expect(calls.sent.pop()).toMatchObject({
        pieces: [memory.slice(i * 10, i * 10 + 10)],
        segmentBytes: 0,
      });
    }
    batch.finish(1, 2, 10);
    batch.send(1, 2, true);
    expect(calls.sent.pop()).toMatchObject({
      pieces: [memory.slice(0, 10), memory.slice(10, 20)],
      segmentBytes: 10,
    });
    batch.finish(1, 1, 10);
    batch.send(1, 2, true);
    expect(calls.sent.pop()).toMatchObject({ pieces: [memory.slice(0, 10)], segmentBytes: 0 });
  });
});

describe.each([
  ["IPv4", AF_INET],
  ["IPv6", AF_INET6],
] as const)("over %s on the loopback interface", (_name, family) => {
  const SIZES = [...new Array<number>(20).fill(1200), 700];
  const total = SIZES.reduce((sum, bytes) => sum + bytes, 0);

  /**
   * A sender with one merged message of SIZES for `to`, of bytes that do not repeat soon. `payload`
   * lies in the packet memory and keeps it alive.
   */
  function merged(to: Int32Array): { socket: UdpSocket; batch: SendBatch; payload: Uint8Array } {
    const socket = UdpSocket.open(family);
    socket.setTimeouts(PATIENCE_MS, PATIENCE_MS);
    socket.bind(LOOPBACK[family], 0);
    const packets = allocatePacketMemory(1, 0);
    const payload = new Uint8Array(packets.buffer, 0, total);
    for (let i = 0; i < total; i++) payload[i] = i * 31 + (i >> 8);
    const batch = new SendBatch(kernel, socket.fd, family, 2, packets);
    batch.setDestination(0, to, 0);
    let at = 0;
    for (const [i, bytes] of SIZES.entries()) {
      batch.setPiece(0, i, at, bytes);
      at += bytes;
    }
    batch.finish(0, SIZES.length, SIZES[0]!);
    return { socket, batch, payload };
  }

  test("a merged message arrives as its datagrams", () => {
    const receiver = new Peer(family);
    const { socket, batch, payload } = merged(receiver.endpoint);
    expect(batch.send(0, 1, true)).toBe(1);
    let at = 0;
    for (const bytes of SIZES) {
      expect(receiver.receive()?.bytes).toEqual(payload.slice(at, at + bytes));
      at += bytes;
    }
    socket.close();
    receiver.close();
  });

  test("and at a socket with UDP_GRO merged, with the size of its segments", () => {
    const receiver = new Peer(family, LOOPBACK[family], (socket) =>
      expect(socket.enableOffload()).toBe(true),
    );
    const packets = allocatePacketMemory(8, 0);
    const receive = new ReceiveBatch(kernel, receiver.socket.fd, family, 8, packets, true);
    const { socket, batch, payload } = merged(receiver.endpoint);
    // A plain datagram behind it, which must not inherit the segment size.
    batch.setDestination(1, receiver.endpoint, 0);
    batch.setPiece(1, 0, 0, 333);
    batch.finish(1, 1, 333);
    expect(batch.send(0, 2, true)).toBe(2);
    const messages: { bytes: Uint8Array; segmentBytes: number }[] = [];
    for (let bytes = 0; bytes < total + 333; ) {
      const count = receive.receive(true);
      expect(count).toBeGreaterThan(0);
      for (let m = 0; m < count; m++) {
        const at = receive.packetAt(m);
        messages.push({
          bytes: new Uint8Array(packets.buffer.slice(at, at + receive.length(m))),
          segmentBytes: receive.segmentBytes(m),
        });
        expect(receive.hasSender(m)).toBe(true);
        expect(receive.truncated(m)).toBe(false);
        bytes += receive.length(m);
      }
    }
    expect(messages).toEqual([
      { bytes: payload, segmentBytes: 1200 },
      { bytes: payload.slice(0, 333), segmentBytes: 0 },
    ]);
    socket.close();
    receiver.close();
  });

  test("what the socket does not have to send is an errno, and the message behind it can still go", () => {
    const receiver = new Peer(family);
    const { socket, batch, payload } = merged(
      endpointFromBytes(new Uint8Array(family === AF_INET ? 4 : 16), 0),
    );
    batch.setDestination(1, receiver.endpoint, 0);
    batch.setPiece(1, 0, 5, 3);
    batch.finish(1, 1, 3);
    expect(batch.send(0, 2, true)).toBeLessThan(0); // port 0
    expect(batch.send(1, 2, true)).toBe(1);
    expect(receiver.receive()?.bytes).toEqual(payload.slice(5, 8));
    socket.close();
    receiver.close();
  });
});
