/** Failed system calls as errors that say which call, why, and what the caller can do. */
import { constants } from "node:os";
import { getSystemErrorMap } from "node:util";

export const {
  EPERM,
  EINTR,
  EIO,
  EPIPE,
  ECONNRESET,
  EBADF,
  EAGAIN,
  ENOMEM,
  EACCES,
  EFAULT,
  EINVAL,
  ENOTSOCK,
  EMSGSIZE,
  ENOPROTOOPT,
  EAFNOSUPPORT,
  EADDRINUSE,
  EADDRNOTAVAIL,
  ENETDOWN,
  ENETUNREACH,
  ENOBUFS,
  ENOTCONN,
  ECONNREFUSED,
  EHOSTUNREACH,
  EMFILE,
  ENFILE,
} = constants.errno as Record<string, number> & Record<ErrnoName, number>;

type ErrnoName =
  | "EPERM"
  | "EINTR"
  | "EIO"
  | "EPIPE"
  | "ECONNRESET"
  | "EBADF"
  | "EAGAIN"
  | "ENOMEM"
  | "EACCES"
  | "EFAULT"
  | "EINVAL"
  | "ENOTSOCK"
  | "EMSGSIZE"
  | "ENOPROTOOPT"
  | "EAFNOSUPPORT"
  | "EADDRINUSE"
  | "EADDRNOTAVAIL"
  | "ENETDOWN"
  | "ENETUNREACH"
  | "ENOBUFS"
  | "ENOTCONN"
  | "ECONNREFUSED"
  | "EHOSTUNREACH"
  | "EMFILE"
  | "ENFILE";

/** Returns an errno's name ("EADDRINUSE"), or "errno 1234" if this platform has none. */
export function errnoName(errno: number): string {
  return getSystemErrorMap().get(-errno)?.[0] ?? `errno ${errno}`;
}

const ADVICE: Partial<Record<ErrnoName, string>> = {
  EADDRINUSE: "another program has this port: stop it, or choose another port",
  EADDRNOTAVAIL: "this address is not on any interface of this host: choose a local address",
  EACCES: "not permitted: ports below 1024 need root or CAP_NET_BIND_SERVICE",
  EPERM:
    "not permitted: run as a user that may do this, or allow it in the container or security policy",
  EAFNOSUPPORT: "this kernel has no support for that address family: choose an IPv4 address",
  EMFILE: "too many open files in this process: raise its limit (ulimit -n, LimitNOFILE)",
  ENFILE: "too many open files on this host: raise fs.file-max",
  EINVAL: "the kernel refused the address or value",
  ENOMEM: "the kernel is out of memory",
  ENOBUFS: "the kernel is out of buffer memory",
  ENOPROTOOPT: "this kernel does not know that option: a newer kernel is needed",
};

/** A system call that failed. `code` is the errno's name, as Node's own system errors carry it. */
export class SyscallError extends Error {
  override readonly name = "SyscallError";
  readonly code: string;

  /**
   * @param call what was called and on what, e.g. "bind 127.0.0.1:53"
   * @param errno its positive errno
   */
  constructor(
    readonly call: string,
    readonly errno: number,
  ) {
    const code = errnoName(errno);
    const advice =
      ADVICE[code as ErrnoName] ?? getSystemErrorMap().get(-errno)?.[1] ?? "unknown error";
    super(`${call}: ${code} (${advice})`);
    this.code = code;
  }
}
