/** The sockets of a beacon: one for each worker, all on one address and port. */
import { AF_INET, AF_INET6 } from "../../../ffi/abi.ts";
import { isIPv4 } from "../../../ffi/endpoint.ts";
import { EAFNOSUPPORT, SyscallError } from "../../../ffi/errno.ts";
import { openReusePortGroup, UdpSocket } from "../../../ffi/socket.ts";
import type { HostPort } from "../../config/units.ts";

/** How long a worker sleeps in a receive before it looks whether it should stop. */
export const RECEIVE_TIMEOUT_MS = 100;
/** The same while workers are about to be parked: the kernel rounds it up to a tick, 1 to 10 ms. */
const QUICK_RECEIVE_TIMEOUT_MS = 1;
/** Timeout of a send: at 1 Gbit/s a full 4 MiB buffer drains in 34 ms. */
const SEND_TIMEOUT_MS = 50;

export interface SocketOptions {
  readonly count: number;
  readonly recvBufferBytes: number;
  readonly sendBufferBytes: number;
  readonly offload: boolean;
}

export interface BeaconSockets {
  readonly sockets: readonly UdpSocket[];
  /** What each socket was granted; see UdpSocket.setBuffers. */
  readonly recvBufferBytes: number;
  readonly sendBufferBytes: number;
  /** Whether the kernel merges and cuts datagrams for us; false if it can't or was not asked to. */
  readonly offload: boolean;
  /** Whether these sockets serve the endpoint's address family. */
  reaches(endpoint: Int32Array): boolean;
}

/**
 * Opens and binds them. No host, or ::, means every address, IPv6 and IPv4, or just IPv4 where the
 * kernel has no IPv6.
 * @throws SyscallError; nothing stays open then
 */
export function openSockets(listen: HostPort, options: SocketOptions): BeaconSockets {
  const everyAddress = listen.host === "" || listen.host === "::";
  if (!everyAddress) {
    return open(
      listen.host.includes(":") ? AF_INET6 : AF_INET,
      listen.host,
      listen.port,
      false,
      options,
    );
  }
  try {
    return open(AF_INET6, "::", listen.port, true, options);
  } catch (error) {
    const noIPv6 = error instanceof SyscallError && error.errno === EAFNOSUPPORT;
    if (!noIPv6 || listen.host !== "") throw error;
    return open(AF_INET, "0.0.0.0", listen.port, false, options);
  }
}

function open(
  family: typeof AF_INET | typeof AF_INET6,
  address: string,
  port: number,
  dualStack: boolean,
  options: SocketOptions,
): BeaconSockets {
  let granted = { receiveBytes: 0, sendBytes: 0 };
  let offload = options.offload;
  const sockets = openReusePortGroup(family, address, port, options.count, (socket) => {
    if (family === AF_INET6) socket.setDualStack(dualStack);
    granted = socket.setBuffers(options.recvBufferBytes, options.sendBufferBytes);
    socket.setTimeouts(RECEIVE_TIMEOUT_MS, SEND_TIMEOUT_MS);
    if (offload) offload = socket.enableOffload();
  });
  return beaconSockets(sockets, granted, offload, dualStack);
}

/**
 * Makes sockets out of the files that another beacon opened and handed over, in the order of their
 * group.
 * @param options offload: whether that beacon has it on
 * @throws SyscallError, Error if they are no UDP sockets
 */
export function adoptSockets(
  fds: readonly number[],
  options: Omit<SocketOptions, "count">,
): BeaconSockets {
  const sockets = fds.map((fd) => UdpSocket.adopt(fd));
  let granted = { receiveBytes: 0, sendBytes: 0 };
  for (const socket of sockets)
    granted = socket.setBuffers(options.recvBufferBytes, options.sendBufferBytes);
  return beaconSockets(sockets, granted, options.offload, sockets[0]!.isDualStack());
}

/**
 * Has workers look sooner, or as usual, whether they are to go on receiving. Who already waits in a
 * receive does so for the time that was set before. The sockets are the same for all processes that
 * have them.
 */
export function setReceiveTimeouts(sockets: readonly UdpSocket[], quick: boolean): void {
  for (const socket of sockets)
    socket.setTimeouts(quick ? QUICK_RECEIVE_TIMEOUT_MS : RECEIVE_TIMEOUT_MS, SEND_TIMEOUT_MS);
}

function beaconSockets(
  sockets: readonly UdpSocket[],
  { receiveBytes, sendBytes }: { receiveBytes: number; sendBytes: number },
  offload: boolean,
  dualStack: boolean,
): BeaconSockets {
  const { family } = sockets[0]!;
  return {
    sockets,
    recvBufferBytes: receiveBytes,
    sendBufferBytes: sendBytes,
    offload,
    reaches: (endpoint) => dualStack || isIPv4(endpoint, 0) === (family === AF_INET),
  };
}
