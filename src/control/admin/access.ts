/**
 * Access to the admin API without the token: programs of this host, and no web page of another
 * origin.
 *
 * A connection from loopback can carry the request of another host or origin. The Host header
 * exposes DNS rebinding, Sec-Fetch-Site and Origin expose pages of other origins, forwarding
 * headers expose most proxies. A proxy on this host that adds none of them, such as nginx's bare
 * `proxy_pass`, cannot be told from a local program; `--admin-auth always` is for such hosts.
 */
import { isIP } from "node:net";
import { endpointOf, isLoopback } from "../../../ffi/endpoint.ts";

/** Headers that proxies add: RFC 7239, RFC 9110, and those in use before. */
const PROXY_HEADER =
  /^(?:forwarded|via|x-forwarded-.+|x-real-ip|x-client-ip|x-cluster-client-ip|true-client-ip|cf-connecting-ip)$/;

type Headers = Pick<globalThis.Headers, "get" | "keys">;

/** Whether a program of this host asks for itself. @param address client's IP literal */
export function isOwn({ headers }: { readonly headers: Headers }, address: string): boolean {
  return (
    isLoopbackAddress(address) &&
    namesThisHost(headers.get("host") ?? "") &&
    hasOwnOrigin(headers) &&
    !Array.from(headers.keys()).some((name) => PROXY_HEADER.test(name))
  );
}

/**
 * Whether a browser sends a request for a page of another origin. Browsers set Sec-Fetch-Site where
 * the server's URL is HTTPS or loopback, and Origin on all that is not a plain GET or HEAD of the
 * same origin. Other programs set neither. No token makes up for it: a proxy may add the token to
 * whatever an operator's browser sends.
 */
export function isCrossOrigin({ headers }: { readonly headers: Headers }): boolean {
  const site = headers.get("sec-fetch-site");
  return site === null ? !hasOwnOrigin(headers) : site !== "same-origin" && site !== "none";
}

/** Whether Origin is absent, or the origin that Host names. */
function hasOwnOrigin(headers: Headers): boolean {
  const origin = headers.get("origin");
  if (origin === null) return true;
  const from = URL.parse(origin); // null for "null": a sandboxed page, or a file
  const to = from && URL.parse(`${from.protocol}//${headers.get("host")}`);
  return to !== null && to.host === from?.host;
}

function isLoopbackAddress(address: string): boolean {
  return isIP(address) !== 0 && isLoopback(endpointOf(address, 0), 0);
}

/**
 * @param host the Host header: a name or an IP literal, IPv6 in brackets, with or without a port
 */
function namesThisHost(host: string): boolean {
  const [, literal, name = ""] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d+)?$/.exec(host) ?? [];
  return literal === undefined
    ? /^localhost\.?$/i.test(name) || isLoopbackAddress(name)
    : isLoopbackAddress(literal);
}
