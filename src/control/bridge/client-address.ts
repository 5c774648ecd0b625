/** Who is at the other end of a connection: the proxy, or whom it speaks for. */
import { ConfigError, parseAddressPrefix } from "../../config/units.ts";

/** Proxies in a row that are looked behind. */
const HOPS_MAX = 16;
/** The end of a longer header is looked at: proxies append to it. */
const HEADER_CHARS_MAX = 1024;

export class TrustedProxies {
  readonly #prefixes: readonly ReturnType<typeof parseAddressPrefix>[];

  /** @param prefixes addresses or prefixes, as the configuration has them */
  constructor(prefixes: readonly string[]) {
    this.#prefixes = prefixes.map(parseAddressPrefix);
  }

  /**
   * The client's address: the last one in the chain of proxies that is not trusted, since what
   * stands before it may be made up.
   * @param peer the address that the connection comes from
   * @param forwardedFor the header X-Forwarded-For (client, proxy, proxy …), or null
   */
  clientOf(peer: string, forwardedFor: string | null): string {
    let client = peer;
    const hops = (forwardedFor ?? "").slice(-HEADER_CHARS_MAX).split(",").slice(-HOPS_MAX);
    while (this.#isTrusted(client)) {
      const before = addressIn(hops.pop() ?? "");
      if (before === undefined) break;
      client = before;
    }
    return client;
  }

  #isTrusted(text: string): boolean {
    const address = this.#prefixes.length === 0 ? undefined : parseAddress(text);
    if (address === undefined) return false;
    return this.#prefixes.some(
      ([prefix, bits]) =>
        prefix.kind() === address.kind() &&
        address.match(prefix as typeof address & typeof prefix, bits),
    );
  }
}

/** The address of one entry, which some proxies write with a port. */
function addressIn(entry: string): string | undefined {
  const text = entry.trim();
  const [, bracketed, withPort] = /^(?:\[(.*)\](?::\d+)?|([\d.]+):\d+)$/.exec(text) ?? [];
  return parseAddress(bracketed ?? withPort ?? text)?.toString();
}

/** Parses an address in full, IPv4-mapped as IPv4; undefined for anything else. */
function parseAddress(text: string): ReturnType<typeof parseAddressPrefix>[0] | undefined {
  if (text.includes("/")) return undefined;
  try {
    return parseAddressPrefix(text)[0];
  } catch (error) {
    if (error instanceof ConfigError) return undefined;
    throw error;
  }
}
