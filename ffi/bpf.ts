/**
 * Classic BPF programs that pick the socket of an SO_REUSEPORT group for each datagram (socket(7),
 * SO_ATTACH_REUSEPORT_CBPF). Offset 0 is the first byte of the UDP payload; loads are big-endian; a
 * load beyond the end of the datagram ends the program with 0. Loading needs no privilege.
 */
import { ptr } from "bun:ffi";
import {
  SO_ATTACH_REUSEPORT_CBPF,
  SOCK_FILTER_BYTES,
  SOCK_FPROG_BYTES,
  SOL_SOCKET,
} from "./abi.ts";
import { SyscallError } from "./errno.ts";
import { errno, libc } from "./libc.ts";
import type { UdpSocket } from "./socket.ts";

/** One instruction, as struct sock_filter has it; `k` is an unsigned 32-bit number. */
export interface Instruction {
  readonly code: number;
  /** How many instructions a jump skips when its test holds, and when not. */
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

// <linux/bpf_common.h>: class | size | mode, class | operation | source
const instruction = (code: number, k: number, jt = 0, jf = 0): Instruction => ({
  code,
  jt,
  jf,
  k: k >>> 0,
});

/** The instructions that a steering program needs; A is the accumulator, X the index register. */
export const bpf = {
  /** A = length of the datagram */
  loadLength: () => instruction(0x80, 0),
  /** A = byte at k */
  loadByte: (k: number) => instruction(0x30, k),
  /** A = big-endian u32 at k */
  loadWord: (k: number) => instruction(0x20, k),
  /** A = A * k, A ^ k, A ^ X, A >> k, all modulo 2^32 and unsigned */
  multiply: (k: number) => instruction(0x24, k),
  xor: (k: number) => instruction(0xa4, k),
  xorX: () => instruction(0xac, 0),
  shiftRight: (k: number) => instruction(0x74, k),
  /** X = A */
  copyToX: () => instruction(0x07, 0),
  jump: (skip: number) => instruction(0x05, skip),
  jumpIfEqual: (k: number, skipTrue: number, skipFalse: number) =>
    instruction(0x15, k, skipTrue, skipFalse),
  jumpIfAtLeast: (k: number, skipTrue: number, skipFalse: number) =>
    instruction(0x35, k, skipTrue, skipFalse),
  /** Return k, or A: the socket's index. An index beyond the group falls back to the flow hash. */
  return: (k: number) => instruction(0x06, k),
  returnA: () => instruction(0x16, 0),
} as const;

/** An index that no group has: the kernel falls back to its hash of the flow. */
export const SOCKET_BY_FLOW = 0xffff_ffff;

/**
 * Gives the group that `socket` belongs to its program; it stays until the last socket is closed.
 * @throws SyscallError setsockopt: EINVAL for a bad program or a socket without SO_REUSEPORT, EPERM
 * or ENOMEM
 */
export function attachReusePortProgram(socket: UdpSocket, program: readonly Instruction[]): void {
  const filters = new DataView(new ArrayBuffer(program.length * SOCK_FILTER_BYTES));
  for (const [i, { code, jt, jf, k }] of program.entries()) {
    const at = i * SOCK_FILTER_BYTES;
    filters.setUint16(at, code, true);
    filters.setUint8(at + 2, jt);
    filters.setUint8(at + 3, jf);
    filters.setUint32(at + 4, k, true);
  }
  const fprog = new DataView(new ArrayBuffer(SOCK_FPROG_BYTES));
  fprog.setUint16(0, program.length, true);
  fprog.setBigUint64(8, BigInt(ptr(filters.buffer)), true);
  const bytes = new Uint8Array(fprog.buffer);
  if (
    libc.setsockopt(socket.fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, bytes, SOCK_FPROG_BYTES) < 0
  ) {
    throw new SyscallError("setsockopt SO_ATTACH_REUSEPORT_CBPF", errno());
  }
}
