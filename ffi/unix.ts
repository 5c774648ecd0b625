/** Datagrams to Unix sockets: unix(7). Every failed call is a SyscallError that names the call. */
import {
  AF_UNIX,
  MSG_DONTWAIT,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SUN_PATH_AT,
  SUN_PATH_BYTES,
} from "./abi.ts";
import { SyscallError } from "./errno.ts";
import { errno, libc } from "./libc.ts";

/** Longest path or abstract name: either shares sun_path with one NUL. */
export const UNIX_ADDRESS_BYTES_MAX = SUN_PATH_BYTES - 1;

/**
 * Sends `bytes` as one datagram, from a socket of its own without a name. Never waits.
 * @param address a path, or "@name" for an abstract name
 * @throws RangeError for an address that fits in no sockaddr: empty, too long, or with a NUL in it
 * @throws SyscallError socket: EMFILE, ENFILE; sendto: ENOENT without such a socket, ECONNREFUSED
 * without a holder, EACCES, EAGAIN when the receiver's queue is full, EMSGSIZE, EPROTOTYPE when it is
 * no datagram socket
 */
export function sendUnixDatagram(address: string, bytes: Uint8Array): void {
  const name = unixName(address);
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new SyscallError("socket Unix", errno());
  try {
    const sent = libc.sendto(fd, bytes, bytes.length, MSG_DONTWAIT, name, name.length);
    if (sent < 0n) {
      const failure = errno();
      throw new SyscallError(`sendto ${address}`, failure);
    }
  } finally {
    libc.close(fd);
  }
}

/** Returns `address` as a sockaddr_un; an abstract name ends where the sockaddr ends. */
function unixName(address: string): Uint8Array {
  const isAbstract = address.startsWith("@");
  const text = Buffer.from(isAbstract ? address.slice(1) : address);
  if (text.length === 0 || text.length > UNIX_ADDRESS_BYTES_MAX || text.includes(0)) {
    throw new RangeError(
      `${JSON.stringify(address)}: must have 1 to ${UNIX_ADDRESS_BYTES_MAX} bytes and no NUL`,
    );
  }
  const name = new Uint8Array(new ArrayBuffer(SUN_PATH_AT + 1 + text.length));
  new DataView(name.buffer).setUint16(0, AF_UNIX, true);
  name.set(text, isAbstract ? SUN_PATH_AT + 1 : SUN_PATH_AT);
  return name;
}
