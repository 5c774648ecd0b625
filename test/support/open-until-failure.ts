/** Opens sockets until the system refuses one, and prints that error as JSON. */
import { AF_INET } from "../../ffi/abi.ts";
import { SyscallError } from "../../ffi/errno.ts";
import { UdpSocket } from "../../ffi/socket.ts";

const OPEN_MAX = 10_000;

try {
  for (let i = 0; i < OPEN_MAX; i++) UdpSocket.open(AF_INET);
} catch (error) {
  if (!(error instanceof SyscallError)) throw error;
  const { call, code, message } = error;
  console.log(JSON.stringify({ call, code, message }));
}
