/** Addresses of beacons and nodes as text, in one form each. */
import { ENDPOINT_WORDS, socketAddressOf } from "../../../ffi/endpoint.ts";
import { hostPort } from "../../../ffi/host-port.ts";

export const withoutZone = (address: string): string => address.replace(/%.*$/, "");

/** "ip:port" of the endpoint at `words[at]`, in its one form. */
export function addressText(words: Int32Array, at = 0): string {
  const { address, port } = socketAddressOf(words.slice(at, at + ENDPOINT_WORDS), 0);
  return hostPort(address, port);
}
