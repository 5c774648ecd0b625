/**
 * A kernel for many messages: PacketCalls without a socket, which looks at a receive batch's
 * structs once and then only fills in what a batch brings. For one loop with an IPv4 socket without
 * offload; it takes all that is sent.
 */
import { type Pointer, toArrayBuffer } from "bun:ffi";
import {
  IOV_BASE_WORD,
  IOV_LEN_WORD,
  IOVEC_WORDS,
  MMSGHDR_WORDS,
  MSG_FLAGS_WORD,
  MSG_IOV_WORD,
  MSG_LEN_WORD,
  MSG_NAME_WORD,
  MSG_NAMELEN_WORD,
  SOCKADDR_IN_BYTES,
} from "../../ffi/abi.ts";
import type { PacketCalls } from "../../ffi/libc.ts";

export class BulkKernel implements PacketCalls {
  sent = 0;
  #headers: Int32Array | undefined;
  #names: Uint8Array[] = [];
  #rooms: Uint8Array[] = [];

  /**
   * @param bring puts the messages of a batch in with `put`, from message 0 on, and says how many
   */
  constructor(private readonly bring: () => number) {}

  /** Makes this message m of the batch to come. */
  put(m: number, name: Uint8Array, bytes: Uint8Array): void {
    this.#names[m]!.set(name);
    this.#rooms[m]!.set(bytes);
    const header = m * MMSGHDR_WORDS;
    this.#headers![header + MSG_NAMELEN_WORD] = name.length;
    this.#headers![header + MSG_FLAGS_WORD] = 0;
    this.#headers![header + MSG_LEN_WORD] = bytes.length;
  }

  errno(): number {
    return 0;
  }

  sendmmsg(_fd: number, _headers: number, count: number): number {
    this.sent += count;
    return count;
  }

  recvmmsg(_fd: number, headers: number, count: number): number {
    if (this.#headers === undefined) this.#map(headers, count);
    return this.bring();
  }

  #map(address: number, count: number): void {
    const headers = new Int32Array(toArrayBuffer(address as Pointer, 0, count * MMSGHDR_WORDS * 4));
    const pointerAt = (words: Int32Array, at: number) =>
      ((words[at]! >>> 0) + (words[at + 1]! >>> 0) * 2 ** 32) as Pointer;
    for (let m = 0; m < count; m++) {
      const header = m * MMSGHDR_WORDS;
      const iovec = new Int32Array(
        toArrayBuffer(pointerAt(headers, header + MSG_IOV_WORD), 0, IOVEC_WORDS * 4),
      );
      this.#names.push(
        new Uint8Array(
          toArrayBuffer(pointerAt(headers, header + MSG_NAME_WORD), 0, SOCKADDR_IN_BYTES),
        ),
      );
      this.#rooms.push(
        new Uint8Array(toArrayBuffer(pointerAt(iovec, IOV_BASE_WORD), 0, iovec[IOV_LEN_WORD]!)),
      );
    }
    this.#headers = headers;
  }
}
