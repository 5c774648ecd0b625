import { afterAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AF_INET } from "../../ffi/abi.ts";
import { attachReusePortProgram, bpf, type Instruction, SOCKET_BY_FLOW } from "../../ffi/bpf.ts";
import { SyscallError } from "../../ffi/errno.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { interpret } from "../support/bpf.ts";
import { Group, show } from "../support/group.ts";
import { Peer } from "../support/peer.ts";

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const word = (value: number): Uint8Array =>
  new Uint8Array([value >>> 24, value >>> 16, value >>> 8, value]);

/** What a program makes of one word of payload. */
function run(steps: readonly Instruction[], payload: number): number {
  return interpret([bpf.loadWord(0), ...steps, bpf.returnA()], word(payload));
}

describe("each instruction", () => {
  test("calculates what it says, unsigned and modulo 2^32", () => {
    fc.assert(
      fc.property(u32, u32, fc.integer({ min: 0, max: 31 }), (a, k, shift) => {
        expect(run([bpf.multiply(k)], a)).toBe(Number((BigInt(a) * BigInt(k)) % 2n ** 32n));
        expect(run([bpf.xor(k)], a)).toBe(Number(BigInt(a) ^ BigInt(k)));
        expect(run([bpf.shiftRight(shift)], a)).toBe(Math.floor(a / 2 ** shift));
        expect(run([bpf.copyToX(), bpf.multiply(k), bpf.xorX()], a)).toBe(
          Number(((BigInt(a) * BigInt(k)) % 2n ** 32n) ^ BigInt(a)),
        );
      }),
    );
  });

  test("takes its operand as signed or unsigned", () => {
    expect(bpf.xor(-1)).toEqual(bpf.xor(0xffff_ffff));
    expect(run([bpf.xor(-1)], 0)).toBe(0xffff_ffff);
  });

  test("loads length, bytes and big-endian words; 0 comes of a load beyond the end", () => {
    const datagram = new Uint8Array([1, 2, 3, 4, 5]);
    expect(interpret([bpf.loadLength(), bpf.returnA()], datagram)).toBe(5);
    expect(interpret([bpf.loadByte(4), bpf.returnA()], datagram)).toBe(5);
    expect(interpret([bpf.loadWord(1), bpf.returnA()], datagram)).toBe(0x0203_0405);
    expect(interpret([bpf.loadByte(5), bpf.return(7)], datagram)).toBe(0);
    expect(interpret([bpf.loadWord(2), bpf.return(7)], datagram)).toBe(0);
  });

  test("jumps", () => {
    const skips = (jump: Instruction, a: number): number =>
      interpret([bpf.loadWord(0), jump, bpf.return(0), bpf.return(1), bpf.return(2)], word(a));
    fc.assert(
      fc.property(u32, u32, (a, k) => {
        expect(skips(bpf.jumpIfEqual(k, 1, 2), a)).toBe(a === k ? 1 : 2);
        expect(skips(bpf.jumpIfEqual(a, 1, 2), a)).toBe(1);
        expect(skips(bpf.jumpIfAtLeast(k, 1, 2), a)).toBe(a >= k ? 1 : 2);
        expect(skips(bpf.jumpIfAtLeast(a, 1, 2), a)).toBe(1);
        expect(skips(bpf.jump(2), a)).toBe(2);
      }),
    );
  });
});

describe("attachReusePortProgram", () => {
  const SOCKETS = 4;
  const group = new Group(SOCKETS);
  const peer = new Peer();
  afterAll(() => {
    group.close();
    peer.close();
  });

  /** Sends every datagram from one port and takes them all. */
  function arrivals(datagrams: readonly Uint8Array[]): string[] {
    for (const datagram of datagrams) peer.send(datagram, group.endpoint);
    return show(group.take(datagrams.length));
  }

  test("a returned number is the socket's place in bind order", () => {
    for (let socket = 0; socket < SOCKETS; socket++) {
      group.attach([bpf.return(socket)]);
      expect(arrivals([word(socket)])).toEqual(show([{ socket, bytes: word(socket) }]));
    }
  });

  test("offset 0 is the first byte of the payload, and a load beyond the end means socket 0", () => {
    group.attach([bpf.loadByte(0), bpf.returnA()]);
    for (let socket = 0; socket < SOCKETS; socket++) {
      const bytes = new Uint8Array([socket]);
      expect(arrivals([bytes])).toEqual(show([{ socket, bytes }]));
    }
    group.attach([bpf.loadByte(1), bpf.return(3)]);
    const bytes = new Uint8Array([9]);
    expect(arrivals([bytes])).toEqual(show([{ socket: 0, bytes }]));
  });

  test("SOCKET_BY_FLOW spreads by source and keeps a flow together", () => {
    group.attach([bpf.return(SOCKET_BY_FLOW)]);
    const sources = Array.from({ length: 32 }, () => new Peer());
    const used = new Set<number>();
    for (const [i, source] of sources.entries()) {
      const datagrams = [word(i), word(i), word(i)];
      for (const datagram of datagrams) source.send(datagram, group.endpoint);
      const sockets = new Set(group.take(datagrams.length).map(({ socket }) => socket));
      expect(sockets.size).toBe(1);
      for (const socket of sockets) used.add(socket);
      source.close();
    }
    // All of 32 flows at one of 4 sockets is one case in 4^31.
    expect(used.size).toBeGreaterThan(1);
  });

  test("the kernel does what the interpreter does", () => {
    const step = fc.oneof(
      u32.map(bpf.multiply),
      u32.map(bpf.xor),
      fc.integer({ min: 0, max: 31 }).map(bpf.shiftRight),
      fc.constant(bpf.copyToX()),
      fc.constant(bpf.xorX()),
      fc.tuple(u32, fc.nat(1), fc.nat(1)).map((jump) => bpf.jumpIfAtLeast(...jump)),
      fc.tuple(u32, fc.nat(1), fc.nat(1)).map((jump) => bpf.jumpIfEqual(...jump)),
      fc.constant(bpf.jump(1)),
      fc.integer({ min: 0, max: 8 }).map(bpf.loadByte),
      fc.integer({ min: 0, max: 8 }).map(bpf.loadWord),
      fc.constant(bpf.loadLength()),
    );
    const programs = fc
      .array(step, { maxLength: 12 })
      // Two instructions that a last jump may land on; then the upper bits pick one of the 4
      // sockets.
      .map((steps) => [
        bpf.loadWord(0),
        ...steps,
        bpf.multiply(0x9e37_79b1),
        bpf.shiftRight(30),
        bpf.returnA(),
      ])
      // Where a jump skips both, A may be no socket: by flow then, and nothing to compare.
      .map((program) => [
        ...program.slice(0, -1),
        bpf.jumpIfAtLeast(SOCKETS, 0, 1),
        bpf.return(0),
        bpf.returnA(),
      ]);
    const datagrams = fc.array(fc.uint8Array({ maxLength: 12 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(programs, datagrams, (program, sent) => {
        group.attach(program);
        expect(arrivals(sent)).toEqual(
          show(sent.map((bytes) => ({ socket: interpret(program, bytes), bytes }))),
        );
      }),
      { numRuns: 100 },
    );
  });

  test("a program that the kernel refuses, or a socket of no group, is an error", () => {
    const failure = (socket: UdpSocket, program: readonly Instruction[]): unknown => {
      try {
        attachReusePortProgram(socket, program);
      } catch (error) {
        return error;
      }
      return undefined;
    };
    const refused = { code: "EINVAL", call: "setsockopt SO_ATTACH_REUSEPORT_CBPF" };
    for (const program of [[bpf.loadLength()], [bpf.jump(9), bpf.return(0)]]) {
      expect(failure(group.sockets[0]!, program)).toBeInstanceOf(SyscallError);
      expect(failure(group.sockets[0]!, program)).toMatchObject(refused);
    }
    const alone = UdpSocket.open(AF_INET);
    alone.bind("127.0.0.1", 0);
    expect(failure(alone, [bpf.return(0)])).toMatchObject(refused);
    alone.close();
  });
});
