/**
 * A TCP socket that listens, apart from the server that accepts from it.
 *
 * Closing a listening socket resets every connection that it has accepted for no server yet. So the
 * socket is opened once and outlives its servers: each gets a duplicate, and what arrives between
 * two servers, or two processes, waits in the kernel's queue.
 */
import {
  AF_INET,
  AF_INET6,
  F_DUPFD_CLOEXEC,
  IPPROTO_IPV6,
  IPPROTO_TCP,
  IPV6_V6ONLY,
  SHUT_RD,
  SO_ACCEPTCONN,
  SO_DOMAIN,
  SO_REUSEADDR,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
  TCP_DEFER_ACCEPT,
} from "./abi.ts";
import {
  ENDPOINT_WORDS,
  endpointFromName,
  endpointOf,
  type Family,
  NAME_WORDS,
  nameBytes,
  nameFromEndpoint,
  socketAddressOf,
} from "./endpoint.ts";
import { EAFNOSUPPORT, SyscallError } from "./errno.ts";
import { hostPort } from "./host-port.ts";
import { errno, libc } from "./libc.ts";

/** Connections that wait to be accepted; the kernel caps it at net.core.somaxconn. */
const BACKLOG = 512;
/** Retransmissions of the SYN-ACK for which the kernel keeps a client that has sent nothing. */
const DEFERRALS = 1;

export interface ListenOptions {
  /** Whether the kernel holds clients back until they send something, for about a second. */
  readonly deferred?: boolean;
}

export class ListeningSocket {
  #isOpen = true;

  private constructor(
    /** The file; only this object closes it. */
    readonly fd: number,
    private readonly family: Family,
  ) {}

  /**
   * @param host an IP literal; "" and "::" are every address of both families, "" of IPv4 alone
   * where
   *   there is no IPv6
   * @throws SyscallError socket, bind or listen: EADDRINUSE, EADDRNOTAVAIL, EACCES, EMFILE, ENFILE
   */
  static open(host: string, port: number, options: ListenOptions = {}): ListeningSocket {
    const isEvery = host === "" || host === "::";
    if (!isEvery) return open(host.includes(":") ? AF_INET6 : AF_INET, host, port, false, options);
    try {
      return open(AF_INET6, "::", port, true, options);
    } catch (error) {
      const isWithoutIPv6 = error instanceof SyscallError && error.errno === EAFNOSUPPORT;
      if (!isWithoutIPv6 || host !== "") throw error;
      return open(AF_INET, "0.0.0.0", port, false, options);
    }

    function open(
      family: Family,
      address: string,
      boundPort: number,
      isDualStack: boolean,
      { deferred }: ListenOptions,
    ): ListeningSocket {
      const fd = libc.socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      if (fd < 0) throw new SyscallError("socket", errno());
      const socket = new ListeningSocket(fd, family);
      try {
        setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1); // connections of an earlier process may linger
        if (family === AF_INET6) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, isDualStack ? 0 : 1);
        if (deferred) setOption(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, DEFERRALS);
        const name = new Int32Array(new ArrayBuffer(NAME_WORDS * 4));
        nameFromEndpoint(family, endpointOf(address, boundPort), 0, name, 0);
        if (libc.bind(fd, name, nameBytes(family)) < 0)
          throw new SyscallError(`bind ${hostPort(address, boundPort)}`, errno());
        socket.listen();
        return socket;
      } catch (error) {
        socket.close();
        throw error;
      }
    }
  }

  /** Adopts another process's file; closes it and returns undefined if no socket listens there. */
  static adopt(fd: number): ListeningSocket | undefined {
    const family = option(fd, SO_DOMAIN);
    if ((family === AF_INET || family === AF_INET6) && option(fd, SO_ACCEPTCONN) === 1)
      return new ListeningSocket(fd, family);
    libc.close(fd);
    return undefined;
  }

  /** Whether a file is a socket that listens. */
  static is(fd: number): boolean {
    return option(fd, SO_ACCEPTCONN) === 1;
  }

  /** False once it is closed. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** The port that it is bound to. @throws SyscallError getsockname */
  get port(): number {
    const name = new Int32Array(new ArrayBuffer(NAME_WORDS * 4));
    const length = new Int32Array(new ArrayBuffer(4));
    length[0] = NAME_WORDS * 4;
    if (libc.getsockname(this.fd, name, length) < 0) throw new SyscallError("getsockname", errno());
    const endpoint = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
    endpointFromName(this.family, name, 0, endpoint, 0);
    return socketAddressOf(endpoint, 0).port;
  }

  /** Listens again, if another process had it stop. @throws SyscallError listen: EADDRINUSE */
  listen(): void {
    if (libc.listen(this.fd, BACKLOG) < 0) throw new SyscallError("listen", errno());
  }

  /** Stops listening in all processes that share it. Queued connections are reset. */
  stopListening(): void {
    libc.shutdown(this.fd, SHUT_RD);
  }

  /** Another file of the same socket, for a server to close. @throws SyscallError fcntl: EMFILE */
  duplicate(): number {
    const fd = libc.fcntl(this.fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) throw new SyscallError("fcntl F_DUPFD_CLOEXEC", errno());
    return fd;
  }

  /** Gives up this process's hold on it; a second call does nothing. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    libc.close(this.fd);
  }
}

function setOption(fd: number, level: number, name: number, value: number): void {
  const word = new Int32Array(new ArrayBuffer(4));
  word[0] = value;
  if (libc.setsockopt(fd, level, name, word, 4) < 0) throw new SyscallError("setsockopt", errno());
}

/** @returns undefined for a file that has no such option */
function option(fd: number, name: number): number | undefined {
  const word = new Int32Array(new ArrayBuffer(4));
  const length = new Int32Array(new ArrayBuffer(4));
  length[0] = 4;
  return libc.getsockopt(fd, SOL_SOCKET, name, word, length) < 0 ? undefined : word[0]!;
}
