/**
 * Who may read the admin API: this host's own programs, and elsewhere whoever bears the admin token.
 *
 * A request of this host's own may be another's all the same: one that a proxy passes on, or one that a web page has an operator's browser
 * make by a name of its own that leads to this host (DNS rebinding). The headers tell.
 */
import { isIP } from "node:net";
import { endpointOf, isLoopback } from "../../../ffi/endpoint.ts";

/** Headers by which a proxy says that it passes something on: RFC 7239, and what came before it. */
const PROXY_HEADERS = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/**
 * Whether a request comes from a program of this host, for itself.
 * @param address of the client, an IP literal
 */
export function isOwn({ headers }: Pick<Request, "headers">, address: string): boolean {
  return (
    isLoopbackAddress(address) &&
    namesThisHost(headers.get("host") ?? "") &&
    !PROXY_HEADERS.some((name) => headers.has(name))
  );
}

function isLoopbackAddress(address: string): boolean {
  return isIP(address) !== 0 && isLoopback(endpointOf(address, 0), 0);
}

/** @param host the Host header: a name or an IP literal, IPv6 in brackets, with or without a port */
function namesThisHost(host: string): boolean {
  const [, literal, name] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d+)?$/.exec(host) ?? [];
  return literal === undefined
    ? name === "localhost" || isLoopbackAddress(name ?? "")
    : isLoopbackAddress(literal);
}
