/** UDP sockets: open, bind, options, close. A failed call is a SyscallError that names it. */

import {
  AF_INET,
  AF_INET6,
  IP_PKTINFO,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_RECVPKTINFO,
  IPV6_V6ONLY,
  SHUT_RD,
  SK_MEMINFO_DROPS,
  SK_MEMINFO_VARS,
  SO_DOMAIN,
  SO_MEMINFO,
  SO_RCVBUF,
  SO_RCVTIMEO,
  SO_REUSEPORT,
  SO_SNDBUF,
  SO_SNDTIMEO,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOL_SOCKET,
  SOL_UDP,
  TIMEVAL_BYTES,
  UDP_GRO,
  UDP_SEGMENT,
} from "./abi.ts";
import {
  ENDPOINT_WORDS,
  endpointFromName,
  endpointOf,
  type Family,
  NAME_WORDS,
  nameBytes,
  nameFromEndpoint,
  type SocketAddress,
  socketAddressOf,
} from "./endpoint.ts";
import { ENOPROTOOPT, ENOTCONN, SyscallError } from "./errno.ts";
import { hostPort } from "./host-port.ts";
import { errno, libc } from "./libc.ts";

/** One UDP socket. Its fd may be used by other threads; only this object closes it. */
export class UdpSocket {
  #open = true;

  private constructor(
    readonly fd: number,
    readonly family: Family,
  ) {}

  /**
   * @throws SyscallError socket: EAFNOSUPPORT where the kernel has no IPv6, EMFILE, ENFILE, EPERM
   */
  static open(family: Family): UdpSocket {
    const fd = libc.socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
      const failure = errno();
      throw new SyscallError(`socket ${familyName(family)}`, failure);
    }
    return new UdpSocket(fd, family);
  }

  /**
   * Makes a socket out of a file that another process opened and handed over.
   * @throws SyscallError getsockopt: ENOTSOCK, EBADF
   * @throws Error if it is none of IPv4 or IPv6
   */
  static adopt(fd: number): UdpSocket {
    const family = new UdpSocket(fd, AF_INET).#getOption(SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN");
    if (family !== AF_INET && family !== AF_INET6)
      throw new Error(`file ${fd} is no socket for UDP`);
    return new UdpSocket(fd, family);
  }

  /**
   * Binds to an IP literal of the socket's family; port 0 lets the kernel choose.
   * @throws SyscallError bind: EADDRINUSE, EADDRNOTAVAIL, EACCES, EINVAL
   */
  bind(address: string, port: number): void {
    const name = new Int32Array(new ArrayBuffer(NAME_WORDS * 4));
    nameFromEndpoint(this.family, endpointOf(address, port), 0, name, 0);
    if (libc.bind(this.fd, name, nameBytes(this.family)) < 0) {
      const failure = errno();
      throw new SyscallError(`bind ${hostPort(address, port)}`, failure);
    }
  }

  /** Where the socket is bound. @throws SyscallError getsockname */
  localAddress(): SocketAddress {
    const name = new Int32Array(new ArrayBuffer(NAME_WORDS * 4));
    const length = new Int32Array(new ArrayBuffer(4));
    length[0] = NAME_WORDS * 4;
    if (libc.getsockname(this.fd, name, length) < 0) throw new SyscallError("getsockname", errno());
    const endpoint = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
    endpointFromName(this.family, name, 0, endpoint, 0);
    return socketAddressOf(endpoint, 0);
  }

  /** Lets an IPv6 socket bound to :: take IPv4 too, as ::ffff:a.b.c.d. @throws SyscallError */
  setDualStack(on: boolean): void {
    this.#setOption(IPPROTO_IPV6, IPV6_V6ONLY, on ? 0 : 1, "IPV6_V6ONLY");
  }

  /** Whether an IPv6 socket takes IPv4, too. @throws SyscallError getsockopt */
  isDualStack(): boolean {
    return (
      this.family === AF_INET6 && this.#getOption(IPPROTO_IPV6, IPV6_V6ONLY, "IPV6_V6ONLY") === 0
    );
  }

  /**
   * Has the kernel tell with each datagram which local address it was sent to (IP_PKTINFO,
   * IPV6_RECVPKTINFO; on an IPv6 socket IPv4 datagrams come with IPV6_PKTINFO, too), or not to.
   * @throws SyscallError setsockopt
   */
  receiveLocalAddresses(on: boolean): void {
    if (this.family === AF_INET) this.#setOption(IPPROTO_IP, IP_PKTINFO, Number(on), "IP_PKTINFO");
    else this.#setOption(IPPROTO_IPV6, IPV6_RECVPKTINFO, Number(on), "IPV6_RECVPKTINFO");
  }

  /** Lets other such sockets of this user share the port. @throws SyscallError setsockopt */
  setReusePort(): void {
    this.#setOption(SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT");
  }

  /**
   * Asks for buffer space; the kernel caps it without an error at net.core.rmem_max and wmem_max.
   * @returns the bytes granted. The kernel books twice that for its own overhead (socket(7)), which
   * is left out.
   * @throws SyscallError setsockopt or getsockopt
   */
  setBuffers(receiveBytes: number, sendBytes: number): { receiveBytes: number; sendBytes: number } {
    this.#setOption(SOL_SOCKET, SO_RCVBUF, receiveBytes, "SO_RCVBUF");
    this.#setOption(SOL_SOCKET, SO_SNDBUF, sendBytes, "SO_SNDBUF");
    return {
      receiveBytes: this.#getOption(SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF") / 2,
      sendBytes: this.#getOption(SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF") / 2,
    };
  }

  /** Time after which a receive or a send fails with EAGAIN. @throws SyscallError setsockopt */
  setTimeouts(receiveMs: number, sendMs: number): void {
    this.#setTimeout(SO_RCVTIMEO, receiveMs, "SO_RCVTIMEO");
    this.#setTimeout(SO_SNDTIMEO, sendMs, "SO_SNDTIMEO");
  }

  #setTimeout(option: number, timeoutMs: number, optionName: string): void {
    const timeval = new BigInt64Array(new ArrayBuffer(TIMEVAL_BYTES));
    timeval[0] = BigInt(Math.floor(timeoutMs / 1000));
    timeval[1] = BigInt(Math.floor((timeoutMs % 1000) * 1000));
    this.#setOptionValue(SOL_SOCKET, option, timeval, optionName);
  }

  /**
   * Lets the kernel hand over datagrams of one flow merged (UDP_GRO, Linux 5.0) and says whether it
   * also takes them merged (UDP_SEGMENT, Linux 4.18).
   * @returns false where the kernel has not both; then nothing is changed
   * @throws SyscallError for any other failure
   */
  enableOffload(): boolean {
    try {
      this.#getOption(SOL_UDP, UDP_SEGMENT, "UDP_SEGMENT");
      this.#setOption(SOL_UDP, UDP_GRO, 1, "UDP_GRO");
      return true;
    } catch (error) {
      if (error instanceof SyscallError && error.errno === ENOPROTOOPT) return false;
      throw error;
    }
  }

  /**
   * Datagrams that the kernel dropped at this socket since it was opened: full buffer, bad
   * checksum. A u32 that wraps. @throws SyscallError getsockopt
   */
  receiveDrops(): number {
    const info = new Uint32Array(new ArrayBuffer(SK_MEMINFO_VARS * 4));
    const length = new Int32Array(new ArrayBuffer(4));
    length[0] = info.byteLength;
    if (libc.getsockopt(this.fd, SOL_SOCKET, SO_MEMINFO, info, length) < 0) {
      throw new SyscallError("getsockopt SO_MEMINFO", errno());
    }
    return info[SK_MEMINFO_DROPS]!;
  }

  /**
   * Wakes a thread that is blocked in a receive on this socket; that receive and all later ones
   * return empty. Linux does this for an unconnected UDP socket too, though it answers ENOTCONN
   * (inet_shutdown).
   * @throws SyscallError shutdown
   */
  stopReceiving(): void {
    if (libc.shutdown(this.fd, SHUT_RD) < 0) {
      const failure = errno();
      if (failure !== ENOTCONN) throw new SyscallError("shutdown", failure);
    }
  }

  /** Closes the socket; a second call does nothing. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    // the only failures are EBADF, which #open rules out, and EINTR, which closes all the same
    libc.close(this.fd);
  }

  #setOption(level: number, option: number, value: number, optionName: string): void {
    const word = new Int32Array(new ArrayBuffer(4));
    word[0] = value;
    this.#setOptionValue(level, option, word, optionName);
  }

  #setOptionValue(
    level: number,
    option: number,
    value: Int32Array | BigInt64Array,
    optionName: string,
  ): void {
    if (libc.setsockopt(this.fd, level, option, value, value.byteLength) < 0) {
      const failure = errno();
      throw new SyscallError(`setsockopt ${optionName}`, failure);
    }
  }

  #getOption(level: number, option: number, optionName: string): number {
    const word = new Int32Array(new ArrayBuffer(4));
    const length = new Int32Array(new ArrayBuffer(4));
    length[0] = 4;
    if (libc.getsockopt(this.fd, level, option, word, length) < 0) {
      const failure = errno();
      throw new SyscallError(`getsockopt ${optionName}`, failure);
    }
    return word[0]!;
  }
}

/**
 * Opens `count` sockets on one address and port, among which the kernel spreads what arrives
 * (SO_REUSEPORT, socket(7)). Their order is that of the group.
 *
 * The first one is bound without SO_REUSEPORT: else a second server started by the same user on the
 * same port would join this group without an error and take half its traffic.
 *
 * @param prepare is called on each socket before it is bound
 * @throws SyscallError; nothing stays open then
 */
export function openReusePortGroup(
  family: Family,
  address: string,
  port: number,
  count: number,
  prepare: (socket: UdpSocket) => void,
): UdpSocket[] {
  const sockets: UdpSocket[] = [];
  try {
    for (let i = 0; i < count; i++) {
      const socket = UdpSocket.open(family);
      sockets.push(socket);
      prepare(socket);
      if (i === 0) {
        socket.bind(address, port);
        if (count > 1) socket.setReusePort();
      } else {
        socket.setReusePort();
        socket.bind(address, sockets[0]!.localAddress().port);
      }
    }
    return sockets;
  } catch (error) {
    for (const socket of sockets) socket.close();
    throw error;
  }
}

function familyName(family: Family): string {
  return family === AF_INET ? "IPv4" : "IPv6";
}
