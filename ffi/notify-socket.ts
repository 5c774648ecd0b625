/**
 * The receiving end of sd_notify(3): a Unix datagram socket with a name that the kernel chose in
 * the abstract namespace, unix(7). Any process of the network namespace may send there, so each
 * datagram comes with its sender's process id, which the kernel vouches for.
 */
import { ptr } from "bun:ffi";
import {
  AF_UNIX,
  CMSG_DATA_WORD,
  CMSG_HEADER_BYTES,
  CMSG_LEVEL_WORD,
  CMSG_TYPE_WORD,
  IOV_BASE_WORD,
  IOV_LEN_WORD,
  IOVEC_WORDS,
  MSG_CMSG_CLOEXEC,
  MSG_CONTROL_WORD,
  MSG_CONTROLLEN_WORD,
  MSG_DONTWAIT,
  MSG_FLAGS_WORD,
  MSG_IOV_WORD,
  MSG_IOVLEN_WORD,
  MSG_TRUNC,
  MSGHDR_BYTES,
  SCM_CREDENTIALS,
  SCM_RIGHTS,
  SO_PASSCRED,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOL_SOCKET,
  SUN_PATH_AT,
  SUN_PATH_BYTES,
} from "./abi.ts";
import { EAGAIN, SyscallError } from "./errno.ts";
import { allocateFixed, errno, type FixedMemory, libc } from "./libc.ts";

/** As systemd's own bound, NOTIFY_BUFFER_MAX; a longer one is cut, and dropped. */
const TEXT_BYTES_MAX = 4096;
/** Bytes for credentials and attached files (BARRIER=1 has one), which are closed. */
const CONTROL_BYTES = 1024;
const IOVEC_AT = 64;
const CONTROL_AT = 96;
const DATA_AT = CONTROL_AT + CONTROL_BYTES;

export interface Notification {
  readonly text: string;
  /** The sender's process; 0 if it is outside of this PID namespace. */
  readonly pid: number;
}

export class NotifySocket {
  readonly #memory: FixedMemory = allocateFixed(DATA_AT + TEXT_BYTES_MAX);
  readonly #words = new Int32Array(this.#memory.buffer);

  private constructor(
    private readonly fd: number,
    /** As NOTIFY_SOCKET has it: "@name". */
    readonly address: string,
  ) {}

  /** @throws SyscallError socket: EMFILE, ENFILE; bind: ENOSPC when no name is left */
  static bind(): NotifySocket {
    const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) throw new SyscallError("socket Unix", errno());
    const check = (call: string, result: number) => {
      if (result >= 0) return;
      const failure = errno();
      libc.close(fd);
      throw new SyscallError(call, failure);
    };
    const on = new Int32Array(new ArrayBuffer(4)).fill(1);
    check("setsockopt SO_PASSCRED", libc.setsockopt(fd, SOL_SOCKET, SO_PASSCRED, ptr(on), 4));
    const name = new Uint8Array(new ArrayBuffer(SUN_PATH_AT + SUN_PATH_BYTES));
    new DataView(name.buffer).setUint16(0, AF_UNIX, true);
    // the family alone: the kernel chooses
    check("bind Unix", libc.bind(fd, ptr(name), SUN_PATH_AT));
    const bytes = new Int32Array(new ArrayBuffer(4)).fill(name.length);
    check("getsockname", libc.getsockname(fd, ptr(name), ptr(bytes)));
    const chosen = name.subarray(SUN_PATH_AT + 1, bytes[0]);
    return new NotifySocket(fd, `@${new TextDecoder().decode(chosen)}`);
  }

  /** Returns the next notification, if any; never waits. Skips datagrams that are too long. */
  receive(): Notification | undefined {
    const words = this.#words;
    for (;;) {
      this.#prepare();
      const got = Number(libc.recvmsg(this.fd, ptr(words), MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
      if (got < 0) {
        const failure = errno();
        if (failure === EAGAIN) return undefined;
        throw new SyscallError("recvmsg", failure);
      }
      const pid = this.#takeControl();
      if ((words[MSG_FLAGS_WORD]! & MSG_TRUNC) !== 0) continue;
      const bytes = new Uint8Array(this.#memory.buffer, DATA_AT, got);
      return { text: new TextDecoder().decode(bytes), pid };
    }
  }

  /** Closes the files that came along. @returns the sender's process id */
  #takeControl(): number {
    const words = this.#words;
    const end = (CONTROL_AT + words[MSG_CONTROLLEN_WORD]!) / 4;
    let pid = 0;
    for (let at = CONTROL_AT / 4; at + CMSG_DATA_WORD <= end; ) {
      const bytes = words[at]!;
      if (bytes < CMSG_HEADER_BYTES) break;
      if (words[at + CMSG_LEVEL_WORD] === SOL_SOCKET) {
        if (words[at + CMSG_TYPE_WORD] === SCM_CREDENTIALS) pid = words[at + CMSG_DATA_WORD]!;
        if (words[at + CMSG_TYPE_WORD] === SCM_RIGHTS)
          for (let file = CMSG_DATA_WORD; file < bytes / 4; file++) libc.close(words[at + file]!);
      }
      at += Math.ceil(bytes / 8) * 2;
    }
    return pid;
  }

  #prepare(): void {
    const words = this.#words;
    const { addressLow, addressHigh } = this.#memory;
    const storePointer = (word: number, byte: number) => {
      words[word] = (addressLow + byte) | 0;
      words[word + 1] = addressHigh;
    };
    words.fill(0, 0, MSGHDR_BYTES / 4);
    storePointer(MSG_IOV_WORD, IOVEC_AT);
    words[MSG_IOVLEN_WORD] = 1;
    storePointer(MSG_CONTROL_WORD, CONTROL_AT);
    words[MSG_CONTROLLEN_WORD] = CONTROL_BYTES;
    words.fill(0, IOVEC_AT / 4, IOVEC_AT / 4 + IOVEC_WORDS);
    storePointer(IOVEC_AT / 4 + IOV_BASE_WORD, DATA_AT);
    words[IOVEC_AT / 4 + IOV_LEN_WORD] = TEXT_BYTES_MAX;
  }

  close(): void {
    libc.close(this.fd);
  }
}
