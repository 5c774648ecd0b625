/**
 * Messages, and files with them, between two processes of this host: one end of a pair of Unix
 * sockets each, unix(7). Messages arrive whole and in order (SOCK_SEQPACKET), so nothing has to say
 * where one ends. No call waits.
 */
import { ptr } from "bun:ffi";
import {
  AF_UNIX,
  CMSG_ALIGN_BYTES,
  CMSG_DATA_WORD,
  CMSG_HEADER_BYTES,
  CMSG_LEN_WORD,
  CMSG_LEVEL_WORD,
  CMSG_TYPE_WORD,
  IOV_BASE_WORD,
  IOV_LEN_WORD,
  IOVEC_WORDS,
  MSG_CMSG_CLOEXEC,
  MSG_CONTROL_WORD,
  MSG_CONTROLLEN_WORD,
  MSG_CTRUNC,
  MSG_DONTWAIT,
  MSG_FLAGS_WORD,
  MSG_IOV_WORD,
  MSG_IOVLEN_WORD,
  MSG_NOSIGNAL,
  MSG_TRUNC,
  MSGHDR_BYTES,
  SCM_RIGHTS,
  SOCK_CLOEXEC,
  SOCK_SEQPACKET,
  SOL_SOCKET,
} from "./abi.ts";
import { EAGAIN, ECONNRESET, EPIPE, SyscallError } from "./errno.ts";
import { allocateFixed, errno, type FixedMemory, libc } from "./libc.ts";

/** The largest message; the kernel's usual send buffer, 208 KiB, holds more than one. */
export const MESSAGE_BYTES_MAX = 96 << 10;
/** The most files with one message; the kernel takes 253 (SCM_MAX_FD). */
export const MESSAGE_FILES_MAX = 128;

const CONTROL_BYTES_MAX = CMSG_HEADER_BYTES + MESSAGE_FILES_MAX * 4;
const IOVEC_AT = Math.ceil(MSGHDR_BYTES / 8) * 8;
const CONTROL_AT = IOVEC_AT + IOVEC_WORDS * 4;
const DATA_AT = Math.ceil((CONTROL_AT + CONTROL_BYTES_MAX) / 8) * 8;

/** A message that came. */
export interface ReceivedMessage {
  /** Good until the next one is received. */
  readonly bytes: Uint8Array;
  /** The receiver's from now on, closed at exec. */
  readonly fds: readonly number[];
}

/** One end of a pair. */
export class UnixChannel {
  /** A msghdr, its iovec, its control message, and the data. */
  readonly #memory: FixedMemory = allocateFixed(DATA_AT + MESSAGE_BYTES_MAX);
  readonly #words = new Int32Array(this.#memory.buffer, 0, DATA_AT / 4);
  readonly #data = new Uint8Array(this.#memory.buffer, DATA_AT);
  #isOpen = true;

  /** @param fd of a Unix socket of SOCK_SEQPACKET, this object's own from now on */
  constructor(readonly fd: number) {
    const words = this.#words;
    this.#storePointer(MSG_IOV_WORD, IOVEC_AT);
    words[MSG_IOVLEN_WORD] = 1;
    this.#storePointer(IOVEC_AT / 4 + IOV_BASE_WORD, DATA_AT);
  }

  /** Both ends, closed at exec unless handed on. @throws SyscallError EMFILE, ENFILE */
  static pair(): [UnixChannel, UnixChannel] {
    const fds = new Int32Array(new ArrayBuffer(8));
    if (libc.socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ptr(fds)) < 0) {
      throw new SyscallError("socketpair", errno());
    }
    return [new UnixChannel(fds[0]!), new UnixChannel(fds[1]!)];
  }

  /**
   * @param bytes 1 to MESSAGE_BYTES_MAX
   * @param fds that the other end gets as well; they stay open here
   * @returns false if there is no room for it now
   * @throws SyscallError sendmsg: EPIPE or ECONNRESET when the other end is closed
   */
  send(bytes: Uint8Array, fds: readonly number[] = []): boolean {
    if (bytes.length === 0 || bytes.length > MESSAGE_BYTES_MAX)
      throw new RangeError("no size for a message");
    if (fds.length > MESSAGE_FILES_MAX)
      throw new RangeError(`more than ${MESSAGE_FILES_MAX} files`);
    const words = this.#words;
    this.#data.set(bytes);
    this.#prepare(bytes.length, fds.length);
    const control = CONTROL_AT / 4;
    words[control + CMSG_LEN_WORD] = CMSG_HEADER_BYTES + fds.length * 4;
    words[control + CMSG_LEN_WORD + 1] = 0;
    words[control + CMSG_LEVEL_WORD] = SOL_SOCKET;
    words[control + CMSG_TYPE_WORD] = SCM_RIGHTS;
    words.set(fds, control + CMSG_DATA_WORD);
    if (libc.sendmsg(this.fd, ptr(this.#words), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0n) return true;
    const failure = errno();
    if (failure === EAGAIN) return false;
    throw new SyscallError("sendmsg", failure);
  }

  /**
   * @returns undefined if there is none now, "closed" if there never will be
   * @throws SyscallError recvmsg: ENOTSOCK, EBADF
   * @throws Error for a message that no end of this program sends: larger, or with more files
   */
  receive(): ReceivedMessage | "closed" | undefined {
    const words = this.#words;
    this.#prepare(MESSAGE_BYTES_MAX, MESSAGE_FILES_MAX);
    const got = Number(libc.recvmsg(this.fd, ptr(this.#words), MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
    if (got < 0) {
      const failure = errno();
      if (failure === EAGAIN) return undefined;
      // The other end was closed with messages unread. What it had sent before is still there
      // behind this.
      if (failure === ECONNRESET) return this.receive();
      throw new SyscallError("recvmsg", failure);
    }
    const fds = this.#receivedFiles();
    if (got === 0) return "closed";
    if ((words[MSG_FLAGS_WORD]! & (MSG_TRUNC | MSG_CTRUNC)) !== 0) {
      for (const fd of fds) libc.close(fd);
      throw new Error(
        "a message on the channel was cut short: it is too large, or no more files can be opened",
      );
    }
    return { bytes: this.#data.subarray(0, got), fds };
  }

  /** Closes this end; a second call does nothing. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    libc.close(this.fd);
  }

  #prepare(bytes: number, files: number): void {
    const words = this.#words;
    words[IOVEC_AT / 4 + IOV_LEN_WORD] = bytes;
    const align = CMSG_ALIGN_BYTES - 1;
    const controlBytes = files === 0 ? 0 : (CMSG_HEADER_BYTES + files * 4 + align) & ~align;
    if (files === 0) words.fill(0, MSG_CONTROL_WORD, MSG_CONTROL_WORD + 2);
    else this.#storePointer(MSG_CONTROL_WORD, CONTROL_AT);
    words[MSG_CONTROLLEN_WORD] = controlBytes;
    words[MSG_FLAGS_WORD] = 0;
  }

  #receivedFiles(): number[] {
    const words = this.#words;
    const control = CONTROL_AT / 4;
    if (words[MSG_CONTROLLEN_WORD]! < CMSG_HEADER_BYTES) return [];
    if (
      words[control + CMSG_LEVEL_WORD] !== SOL_SOCKET ||
      words[control + CMSG_TYPE_WORD] !== SCM_RIGHTS
    )
      return [];
    const count = (words[control + CMSG_LEN_WORD]! - CMSG_HEADER_BYTES) / 4;
    return Array.from(words.subarray(control + CMSG_DATA_WORD, control + CMSG_DATA_WORD + count));
  }

  #storePointer(word: number, byte: number): void {
    const { addressLow, addressHigh } = this.#memory;
    this.#words[word] = (addressLow + byte) | 0;
    this.#words[word + 1] = addressHigh;
  }
}

/** Whether an error says that the other end of a channel is closed. */
export function isClosed(error: unknown): boolean {
  return error instanceof SyscallError && (error.errno === EPIPE || error.errno === ECONNRESET);
}
