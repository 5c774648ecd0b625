/**
 * The small languages that options are written in: durations, sizes, addresses and prefixes. Each
 * parser throws a ConfigError that holds only the reason; whoever knows where the text came from
 * puts that before it.
 */
import { isIPv4, isIPv6 } from "node:net";
import ipaddr from "ipaddr.js";

/** A bad setting. The message is one line: where it stands, its value, what is accepted. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** Long enough for a path or address, short enough for one line of a terminal. */
const SHOWN_CHARS_MAX = 100;

/** As DNS has it (RFC 1123), with the underscore that some networks use all the same. */
const HOST_NAME_CHARS_MAX = 253;
const HOST_NAME_LABEL = /^[a-z\d_](?:[a-z\d_-]{0,61}[a-z\d_])?$/i;

const ZONE_REFUSED = "an IPv6 zone is not supported; leave out the % and its name";

const unitMs = new Map([
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1_000],
  ["ms", 1],
]);

const unitBytes = new Map([
  ["", 1],
  ["K", 1024],
  ["KiB", 1024],
  ["M", 1024 ** 2],
  ["MiB", 1024 ** 2],
  ["G", 1024 ** 3],
  ["GiB", 1024 ** 3],
]);

/** Makes foreign text fit for a message: plain words as they are, others quoted; cut at 100. */
export function shown(text: string): string {
  return /^[\w.,:;/%@+=*~[\]-]+$/.test(text) ? cut(text) : quoted(text);
}

/**
 * Text as a JSON string, cut to 100 characters, with everything escaped that moves a cursor or
 * breaks a line: JSON leaves DEL, C1 controls, bidirectional marks and U+2028 as they are.
 */
export function quoted(text: string): string {
  const json = JSON.stringify(text.slice(0, 2 * SHOWN_CHARS_MAX));
  return cut(
    json.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (char) => `\\u{${char.codePointAt(0)!.toString(16)}}`),
  );
}

function cut(text: string): string {
  return text.length > SHOWN_CHARS_MAX ? `${text.slice(0, SHOWN_CHARS_MAX - 1)}…` : text;
}

/**
 * A duration written as Go writes them ("10m", "1h30m", "1.5s", "500ms"), in whole milliseconds.
 * Units are h, m, s and ms; a sign, a space or a number without a unit is refused.
 */
export function parseDurationMs(text: string): number {
  if (/^[\d.]+$/.test(text)) throw new ConfigError("needs a unit, such as 10m, 90s or 500ms");
  if (!/^(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ms|h|m|s))+$/.test(text))
    throw new ConfigError("must be a duration in h, m, s or ms, such as 10m, 1h30m or 500ms");
  let totalMs = 0;
  for (const [, amount, unit] of text.matchAll(/([\d.]+)(ms|h|m|s)/g))
    totalMs += Number(amount) * unitMs.get(unit!)!;
  return Math.round(totalMs);
}

/** A size in bytes: a whole number, alone or with K, KiB, M, MiB, G or GiB (all powers of 1024). */
export function parseBytes(text: string): number {
  const match = /^(\d+)([KMG](?:iB)?|)$/.exec(text);
  if (match === null)
    throw new ConfigError(
      "must be a whole number of bytes, or one with KiB, MiB or GiB, such as 4MiB",
    );
  return Number(match[1]) * unitBytes.get(match[2]!)!;
}

/** Runs `read`; when it refuses with a ConfigError, `tell` turns its reason into the message. */
export function withReason<T>(read: () => T, tell: (reason: string) => string): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof ConfigError ? new ConfigError(tell(error.message)) : error;
  }
}

export interface HostPort {
  /** An address without brackets, or a name; "" is every address of both families. */
  readonly host: string;
  /** 0 to 65535; 0 lets the kernel pick one. */
  readonly port: number;
}

/** Splits ":9001", "0.0.0.0:9001" or "[::1]:9001". @throws ConfigError for names and zones */
export function parseHostPort(text: string): HostPort {
  const address = splitHostPort(
    text,
    0,
    "must be address:port, such as :9001, 0.0.0.0:9001 or [::1]:9001",
  );
  if (!address.bracketed && address.host !== "" && !isIPv4(address.host))
    throw new ConfigError(
      "use an IP address in full, such as 127.0.0.1; names and short forms are not taken",
    );
  return { host: address.host, port: address.port };
}

/** Whether who listens there does so at every address of this host. */
export const isWildcard = (host: string): boolean => ["", "0.0.0.0", "::"].includes(host);

/**
 * Splits "beacon.example:9001", "192.0.2.1:9001" or "[2001:db8::1]:9001": somebody to send to, so
 * neither the host nor the port may be left open. Throws a ConfigError, also for zones and for the
 * short forms of IPv4 addresses.
 */
export function parseHostNamePort(text: string): HostPort {
  const form =
    "must be host:port, such as beacon.example:9001, 192.0.2.1:9001 or [2001:db8::1]:9001";
  const { host, port, bracketed } = splitHostPort(text, 1, form);
  if (host === "") throw new ConfigError(form);
  if (bracketed || isIPv4(host)) return { host, port };
  const labels = host.split(".");
  if (host.length > HOST_NAME_CHARS_MAX || !labels.every((label) => HOST_NAME_LABEL.test(label)))
    throw new ConfigError(
      "use a host name of letters, digits, dots and inner hyphens, or an IP address",
    );
  // No top-level domain is a number, but resolvers read 127.1, 010.0.0.1 and 0x7f.1 as addresses.
  if (/^(?:\d+|0x[\da-f]*)$/i.test(labels.at(-1)!))
    throw new ConfigError(
      "use an IP address in full, such as 192.0.2.1; short forms are not taken",
    );
  return { host, port };
}

/** The port of Redis and of Valkey. */
const DIRECTORY_PORT = 6379;
/** Limit of servers: each is tried, and costs a timeout while it is down. */
const DIRECTORY_SERVERS_MAX = 16;
/** More than any server is set up with; by default it has 16. */
const DIRECTORY_DATABASE_MAX = 65_535;

export interface DirectoryAddress {
  /** At least one, each once. */
  readonly servers: readonly HostPort[];
  readonly tls: boolean;
  readonly database: number;
}

/**
 * Splits "redis://host[:port][,host[:port]…][/database]", or rediss:// for TLS; hosts as in
 * parseHostNamePort. Throws a ConfigError, also for a user or a password, which does not belong
 * where all can see it.
 */
export function parseDirectory(text: string): DirectoryAddress {
  if (text.includes("@"))
    throw new ConfigError(
      "leave out user and password, which show in the process list; name a file with them in --directory-auth-file",
    );
  const [, scheme, hosts = "", digits = "0"] =
    /^(rediss?):\/\/([^/]*)(?:\/(\d*))?$/.exec(text) ?? [];
  if (scheme === undefined || hosts === "")
    throw new ConfigError(
      "must be redis://host:port, such as redis://192.0.2.1:6379 or rediss://r1.example,r2.example/3",
    );
  const database = Number(digits);
  if (database > DIRECTORY_DATABASE_MAX)
    throw new ConfigError(
      `the database must be a whole number from 0 to ${DIRECTORY_DATABASE_MAX}`,
    );
  const entries = [...new Set(hosts.split(",").map(withDirectoryPort))];
  if (entries.length > DIRECTORY_SERVERS_MAX)
    throw new ConfigError(`must name at most ${DIRECTORY_SERVERS_MAX} servers`);
  const servers = entries.map((entry) =>
    withReason(
      () => parseHostNamePort(entry),
      (reason) => `${shown(entry)}: ${reason}`,
    ),
  );
  return { servers, tls: scheme === "rediss", database };
}

function withDirectoryPort(entry: string): string {
  return /^(?:\[[^\]]*\]|[^:]+)$/.test(entry) ? `${entry}:${DIRECTORY_PORT}` : entry;
}

/** Shared part of parseHostPort and parseHostNamePort. `form` is the reason of a refusal. */
function splitHostPort(
  text: string,
  portMin: number,
  form: string,
): HostPort & { bracketed: boolean } {
  const match = /^(?:\[([^\]]*)\]|([^:]*)):(\d+)$/.exec(text);
  if (match === null)
    throw new ConfigError(
      /^[^[]*:.*:/s.test(text) ? "an IPv6 address goes in brackets, such as [::1]:9001" : form,
    );
  const [, bracketed, bare = "", digits] = match;
  if (bracketed?.includes("%")) throw new ConfigError(ZONE_REFUSED);
  if (bracketed !== undefined && !isIPv6(bracketed))
    throw new ConfigError("use an IPv6 address in the brackets, such as [::1]:9001");
  const port = Number(digits);
  if (port < portMin || port > 65_535)
    throw new ConfigError(`the port must be a whole number from ${portMin} to 65535`);
  return { host: bracketed ?? bare, port, bracketed: bracketed !== undefined };
}

/**
 * Reads an IP address or a prefix, such as 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32, as its address
 * and number of bits. An address alone has them all; an IPv4-mapped one (::ffff:192.0.2.1) becomes
 * IPv4. Throws a ConfigError, also for zones, for the short forms of IPv4 addresses, and for bits
 * set behind the prefix.
 */
export function parseAddressPrefix(text: string): readonly [ipaddr.IPv4 | ipaddr.IPv6, number] {
  const [, written = "", digits] = /^([^/]*)(?:\/(0|[1-9]\d*))?$/.exec(text) ?? [];
  if (written.includes("%")) throw new ConfigError(ZONE_REFUSED);
  if (!isIPv4(written) && !isIPv6(written))
    throw new ConfigError(
      "must be an IP address in full or address/bits, such as 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32",
    );
  const [address, mappedBits] = parseAddress(written);
  const bitsMax = mappedBits + 8 * address.toByteArray().length;
  const bits = Number(digits ?? bitsMax);
  if (bits < mappedBits || bits > bitsMax)
    throw new ConfigError(`the prefix must have from ${mappedBits} to ${bitsMax} bits`);
  const prefixBits = bits - mappedBits;
  const network = networkOf(address, prefixBits).toString();
  if (network !== address.toString())
    throw new ConfigError(`has bits set behind the prefix; use ${network}/${prefixBits}`);
  return [address, prefixBits];
}

/** The address, IPv4 if it is IPv4-mapped, and how many bits such a mapping puts before it. */
function parseAddress(text: string): [ipaddr.IPv4 | ipaddr.IPv6, number] {
  if (isIPv4(text)) return [ipaddr.IPv4.parse(text), 0];
  // ipaddr.js reads ::192.0.2.1 as ::ffff:192.0.2.1, but 0::192.0.2.1 as what it is.
  const address = ipaddr.IPv6.parse(text.replace(/^::(?=[\d.]+$)/, "0::"));
  return address.isIPv4MappedAddress() ? [address.toIPv4Address(), 96] : [address, 0];
}

function networkOf(address: ipaddr.IPv4 | ipaddr.IPv6, bits: number): ipaddr.IPv4 | ipaddr.IPv6 {
  const kept = (i: number) => Math.min(Math.max(bits - 8 * i, 0), 8);
  return ipaddr.fromByteArray(address.toByteArray().map((byte, i) => byte & (0xff00 >> kept(i))));
}
