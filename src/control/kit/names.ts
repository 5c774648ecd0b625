/**
 * Host names become addresses without a thread of the runtime: /etc/hosts first, then DNS, spoken
 * by c-ares (`node:dns` Resolver).
 *
 * getaddrinfo(3) keeps a thread of Bun's pool busy for as long as a name server is silent. The pool
 * has one thread a core, Workers share it, and files and TLS need it too. Measured with Bun 1.4.5
 * on two cores, 24 names and a silent name server: a file read beside `dns.lookup` took 120 s,
 * beside the Resolver 3 ms. `Bun.dns.lookup` with its c-ares backend needs no thread either, but
 * reads resolv.conf once a process and takes 30 s to fail. Therefore the rest of the program never
 * hands a name to the runtime: it connects with `connectTo`, or to an address.
 *
 * The differences from getaddrinfo: no other source of nsswitch.conf (mDNS, LDAP), and time-outs of
 * our own.
 */
import { Resolver } from "node:dns/promises";
import { readFileSync } from "node:fs";
import { connect, isIP, type LookupFunction, type Socket } from "node:net";
import { hostname, networkInterfaces } from "node:os";
import { connect as connectTls } from "node:tls";
import type { HostPort } from "../../config/units.ts";

/** For a whole look-up: all search domains with a first name server that is dead. */
const LOOKUP_MS_MAX = 5_000;
/** For one question to one name server; the second try waits twice as long. */
const QUESTION_MS = 1_000;
const QUESTION_TRIES = 2;
/** For the addresses of the other family once those of one are known. */
const OTHER_FAMILY_MS = 1_000;
/** As glibc before 2.26; each candidate costs two questions. */
const SEARCH_DOMAINS_MAX = 6;
/** Answers that a name has no address; every other error leaves that open. */
const NO_ADDRESS = ["ENOTFOUND", "ENODATA"];

type Family = 4 | 6;

export interface Found {
  /** At least one, each once, in the order to try them. */
  readonly addresses: readonly string[];
  /** The family without an answer: the name may have addresses of it too. */
  readonly unanswered?: Family;
}

/** @throws NameError */
export type Lookup = (host: string, signal?: AbortSignal) => Promise<Found>;

/** A name without an address. */
export class NameError extends Error {
  override readonly name = "NameError";

  /** @param code of c-ares, such as ENOTFOUND, ETIMEOUT or ECONNREFUSED */
  constructor(
    readonly host: string,
    readonly code: string,
  ) {
    super(`no address for ${host} (${code})`);
  }
}

/** Where names are looked up; tests have their own. */
export interface NameSources {
  readonly hostsFile: string;
  readonly resolvFile: string;
  /** "address:port"; undefined: those of resolv.conf. */
  readonly servers?: readonly string[];
}

const SYSTEM: NameSources = { hostsFile: "/etc/hosts", resolvFile: "/etc/resolv.conf" };

/**
 * Looks a name up. Both files are read each time, so that changes count at once.
 * @param signal ends it early
 * @throws NameError
 */
export async function lookupName(
  host: string,
  signal?: AbortSignal,
  sources = SYSTEM,
): Promise<Found> {
  if (isIP(host) !== 0) return { addresses: [host] };
  const listed = addressesInHosts(textOf(sources.hostsFile), host);
  if (listed.length > 0) return { addresses: inOrder(listed) };
  // RFC 6761
  if (/(^|\.)localhost$/i.test(host)) return { addresses: inOrder(["127.0.0.1", "::1"]) };
  return new DnsLookup(host, sources, signal).run();
}

/** One name and the questions that it takes. */
class DnsLookup {
  readonly #resolver = new Resolver({ timeout: QUESTION_MS, tries: QUESTION_TRIES });
  #endedBy: string | undefined;

  constructor(
    private readonly host: string,
    private readonly sources: NameSources,
    private readonly signal: AbortSignal | undefined,
  ) {
    if (sources.servers !== undefined) this.#resolver.setServers(sources.servers);
  }

  async run(): Promise<Found> {
    const timer = setTimeout(() => this.#end("ETIMEOUT"), LOOKUP_MS_MAX);
    const abort = () => this.#end("ECANCELLED");
    this.signal?.addEventListener("abort", abort);
    if (this.signal?.aborted) abort();
    try {
      return await this.#search();
    } finally {
      clearTimeout(timer);
      this.signal?.removeEventListener("abort", abort);
    }
  }

  async #search(): Promise<Found> {
    let code = "ENOTFOUND";
    for (const name of candidates(this.host, textOf(this.sources.resolvFile))) {
      if (this.#endedBy !== undefined) break;
      const found = await this.#ask(name);
      if (typeof found !== "string") return found;
      // As glibc: a server that fails for one domain may know the next; one that is silent is not
      // asked again.
      if (!NO_ADDRESS.includes(found) && found !== "ESERVFAIL") {
        code = found;
        break;
      }
      if (code === "ENOTFOUND") code = found;
    }
    throw new NameError(this.host, this.#endedBy ?? code);
  }

  /** @returns the addresses, or the code of why there are none */
  async #ask(name: string): Promise<Found | string> {
    const questions = [this.#answer(name, 4), this.#answer(name, 6)];
    const first = await Promise.race(questions);
    const timer =
      first.addresses.length > 0
        ? setTimeout(() => this.#resolver.cancel(), OTHER_FAMILY_MS)
        : undefined;
    const answers = await Promise.all(questions);
    clearTimeout(timer);
    const addresses = answers.flatMap((one) => one.addresses);
    const open = answers.find(({ code }) => code !== undefined && !NO_ADDRESS.includes(code));
    if (addresses.length === 0) return open?.code ?? first.code!;
    return { addresses: inOrder(addresses), ...(open && { unanswered: open.family }) };
  }

  async #answer(name: string, family: Family) {
    try {
      const asked = family === 4 ? this.#resolver.resolve4(name) : this.#resolver.resolve6(name);
      return { family, addresses: await asked, code: undefined };
    } catch (error) {
      const { code = "EBADRESP" } = error as NodeJS.ErrnoException;
      return { family, addresses: [], code };
    }
  }

  #end(code: string): void {
    this.#endedBy ??= code;
    this.#resolver.cancel();
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return ""; // neither file has to be there
  }
}

/** Addresses of a name in /etc/hosts (hosts(5)), except those with a zone. */
function addressesInHosts(text: string, host: string): string[] {
  const wanted = host.toLowerCase();
  return text.split("\n").flatMap((line) => {
    const [address = "", ...names] = line.replace(/#.*/, "").trim().split(/\s+/);
    const isGood = isIP(address) !== 0 && !address.includes("%");
    return isGood && names.some((name) => name.toLowerCase() === wanted) ? [address] : [];
  });
}

/** The names to ask for, in order, as the text of resolv.conf(5) has it. */
function candidates(host: string, text: string): readonly string[] {
  let [, ...domains] = hostname().split("."); // without a search list, the domain of this host
  domains = domains.length > 0 ? [domains.join(".")] : [];
  let dots = 1;
  for (const line of text.split("\n")) {
    const [keyword, ...values] = line.trim().split(/\s+/);
    // The last of these lines counts.
    if (keyword === "search") domains = values;
    else if (keyword === "domain") domains = values.slice(0, 1);
    else if (keyword === "options")
      for (const value of values) dots = Number(/^ndots:(\d+)$/.exec(value)?.[1] ?? dots);
  }
  const searched = domains
    .map((domain) => domain.replace(/\.$/, ""))
    .filter((domain) => domain !== "")
    .slice(0, SEARCH_DOMAINS_MAX)
    .map((domain) => `${host}.${domain}`);
  return host.split(".").length > dots ? [host, ...searched] : [...searched, host];
}

/**
 * Addresses in the order to try them: IPv6 first where this host has an IPv6 address of the same
 * scope, else last. RFC 6724 comes to the same, but for hosts that have an address and no route.
 */
function inOrder(addresses: readonly string[]): string[] {
  const own = new Set(ownIPv6().map(scopeOf));
  const rank = (address: string) => (isIP(address) === 4 ? 1 : own.has(scopeOf(address)) ? 0 : 2);
  return [...new Set(addresses)].sort((a, b) => rank(a) - rank(b)); // stable
}

function ownIPv6(): string[] {
  try {
    const all = Object.values(networkInterfaces()).flatMap((entries = []) => entries);
    return all.filter(({ address }) => isIP(address) === 6).map(({ address }) => address);
  } catch {
    return []; // a sandbox without netlink sockets
  }
}

function scopeOf(address: string): string {
  if (address === "::1") return "loopback";
  if (/^fe[89ab]/i.test(address)) return "link";
  return /^f[cd]/i.test(address) ? "local" : "global";
}

export interface TlsClientOptions {
  /** PEM of those whose certificates are trusted; undefined: the system's. */
  readonly ca?: string | undefined;
  /** The name that the certificate has to be for, where `host` is an address. Default: the host. */
  readonly servername?: string | undefined;
}

/** Opens a TCP connection, with TLS if `tls`; tries a name's addresses in turn. */
export function connectTo(
  { host, port }: HostPort,
  tls?: TlsClientOptions,
  lookup: Lookup = lookupName,
): Socket {
  const ended = new AbortController();
  const lookedUp: LookupFunction = (name, { all }, callback) => {
    lookup(name, ended.signal).then(
      ({ addresses }) => {
        const found = addresses.map((address) => ({ address, family: isIP(address) }));
        if (all) callback(null, found);
        else callback(null, found[0]!.address, found[0]!.family);
      },
      (error) => callback(error, []),
    );
  };
  const where = { host, port, lookup: lookedUp, autoSelectFamily: true };
  const socket = tls === undefined ? connect(where) : connectTls({ ...where, ...defined(tls) });
  socket.once("close", () => ended.abort());
  return socket;
}

function defined({ ca, servername }: TlsClientOptions): { ca?: string; servername?: string } {
  return { ...(ca !== undefined && { ca }), ...(servername !== undefined && { servername }) };
}
