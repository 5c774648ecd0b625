/**
 * The libc functions that the beacon calls, bound once per thread.
 *
 * "libc.so.6" names glibc; musl's dynamic linker answers to every name that starts with "libc." by
 * itself (ldso/dynlink.c, load_library), so one name serves both.
 */
import { dlopen, type Pointer, ptr, read } from "bun:ffi";
import { CLOCK_MONOTONIC, TIMESPEC_BYTES } from "./abi.ts";

const { symbols: libc } = dlopen("libc.so.6", {
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  socketpair: { args: ["i32", "i32", "i32", "ptr"], returns: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
  getsockopt: { args: ["i32", "i32", "i32", "ptr", "ptr"], returns: "i32" },
  bind: { args: ["i32", "ptr", "u32"], returns: "i32" },
  listen: { args: ["i32", "i32"], returns: "i32" },
  getsockname: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  recvmmsg: { args: ["i32", "ptr", "u32", "i32", "ptr"], returns: "i32" },
  sendmmsg: { args: ["i32", "ptr", "u32", "i32"], returns: "i32" },
  sendmsg: { args: ["i32", "ptr", "i32"], returns: "i64" },
  recvmsg: { args: ["i32", "ptr", "i32"], returns: "i64" },
  sendto: { args: ["i32", "ptr", "usize", "i32", "ptr", "u32"], returns: "i64" },
  shutdown: { args: ["i32", "i32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  dup3: { args: ["i32", "i32", "i32"], returns: "i32" },
  epoll_ctl: { args: ["i32", "i32", "i32", "ptr"], returns: "i32" },
  poll: { args: ["ptr", "u64", "i32"], returns: "i32" },
  prctl: { args: ["i32", "u64"], returns: "i32" },
  waitid: { args: ["i32", "u32", "ptr", "i32"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
  clock_gettime: { args: ["i32", "ptr"], returns: "i32" },
  syscall: { args: ["i64"], returns: "i64" },
  __errno_location: { args: [], returns: "ptr" },
});

/** Returns errno: of this thread, right after a failed call, before the next one. */
export function errno(): number {
  return read.i32(libc.__errno_location() as Pointer, 0);
}

/** CLOCK_MONOTONIC in µs, as in other processes; process.hrtime starts with the process. */
export function monotonicUs(): number {
  const timespec = new BigInt64Array(new ArrayBuffer(TIMESPEC_BYTES));
  libc.clock_gettime(CLOCK_MONOTONIC, timespec); // fails for unknown clocks only
  return Number(timespec[0]! * 1_000_000n + timespec[1]! / 1000n);
}

/**
 * The calls of the packet path, as a seam: tests put a scripted kernel here to play short sends,
 * EINTR, EIO and the like. Addresses are plain numbers; user space on x86-64 and arm64 stays below
 * 2^53.
 */
export interface PacketCalls {
  /** recvmmsg(2). Returns the number of messages, or -1. */
  recvmmsg(fd: number, headers: number, count: number, flags: number): number;
  /** sendmmsg(2). Returns the number of messages the kernel took, or -1 when it took none. */
  sendmmsg(fd: number, headers: number, count: number, flags: number): number;
  /** errno of the last of these calls, straight after it returned -1. */
  errno(): number;
}

export const kernel: PacketCalls = {
  recvmmsg(fd, headers, count, flags) {
    return libc.recvmmsg(fd, headers as Pointer, count, flags, null);
  },
  sendmmsg(fd, headers, count, flags) {
    return libc.sendmmsg(fd, headers as Pointer, count, flags);
  },
  errno,
};

/** Memory whose address the kernel is given: fixed for life, as long as `buffer` is referenced. */
export interface FixedMemory {
  readonly buffer: ArrayBuffer;
  readonly address: number;
  /** Low and high 32 bits of `address`, as they are stored in a struct's pointer field. */
  readonly addressLow: number;
  readonly addressHigh: number;
}

const FOUR_GIB = 2 ** 32;

/**
 * Zeroed memory for structs and packets. It never crosses a 4 GiB line, so every address inside
 * shares one high word and the packet path writes a pointer as one 32-bit store.
 *
 * The explicit ArrayBuffer matters: a small typed array made without one lives in the garbage
 * collector's heap and may move.
 */
export function allocateFixed(bytes: number): FixedMemory {
  // kept until we return, so that the next try gets another place
  const crossing: ArrayBuffer[] = [];
  for (let attempt = 0; attempt < 8; attempt++) {
    const buffer = new ArrayBuffer(bytes);
    const address = ptr(buffer) as number;
    const addressHigh = Math.floor(address / FOUR_GIB);
    if (Math.floor((address + bytes - 1) / FOUR_GIB) === addressHigh) {
      return { buffer, address, addressLow: (address - addressHigh * FOUR_GIB) | 0, addressHigh };
    }
    crossing.push(buffer);
  }
  throw new Error(`no ${bytes} bytes of memory within one 4 GiB range after 8 tries`);
}

export { libc };
