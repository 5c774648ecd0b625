/**
 * Every option of the beacon, declared once: its flag, its property, its range, its default and its
 * help. The environment variable (BEACON_MAX_NODES) and the config-file key ("max-nodes") follow
 * from the flag.
 */
import { availableParallelism } from "node:os";
import { pathFromStart } from "./start-folder.ts";
import {
  ConfigError,
  parseAddressPrefix,
  parseBytes,
  parseDirectory,
  parseDurationMs,
  parseHostNamePort,
  parseHostPort,
  shown,
  withReason,
} from "./units.ts";

const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const LOG_FORMATS = ["text", "json"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

const AUTO_ALWAYS = ["auto", "always"] as const;
/** "auto" is "on": configurations from before it was the default name it. */
const ON_OFF_AUTO = ["on", "off", "auto"] as const;

export interface Config {
  /** "host:port" for parseHostPort; an empty host is every address of both families. */
  readonly addr: string;
  /** This beacon's number among its peers, an unsigned 32-bit integer. */
  readonly beaconId: number;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  /** "host:port" of the health and metrics server. */
  readonly http: string | "off";
  /** Nobody asked for this http address: warn instead of failing when it is taken. */
  readonly httpIsDefault: boolean;
  readonly workers: number;
  readonly maxNodes: number;
  /** A node that has not been heard for this long is forgotten. */
  readonly nodeTtlMs: number;
  /** Let the kernel merge and split datagrams (UDP GRO and GSO). */
  readonly offload: boolean;
  /** Steer what writes a node's entry to the worker that owns it. */
  readonly steering: boolean;
  /**
   * Whether packets leave from the address that their destination sent to; "auto" is "on" where the
   * host has several.
   */
  readonly sourceAddress: (typeof ON_OFF_AUTO)[number];
  /** Datagrams per receive call. */
  readonly batchMax: number;
  readonly recvBufferBytes: number;
  readonly sendBufferBytes: number;
  /** The other beacons, each "host:port" for parseHostNamePort; no text stands twice. */
  readonly peers: readonly string[];
  readonly gossipIntervalMs: number;
  /**
   * The routes of a peer that has not been heard for this long are withdrawn; longer than the
   * gossip interval.
   */
  readonly peerTimeoutMs: number;
  /** Look each gossip interval whether this beacon is reached through its peers. */
  readonly selfCheck: boolean;
  /** Most nodes known through peers. */
  readonly maxRoutes: number;
  /** Most nodes that count of one peer's gossip. */
  readonly maxPeerRoutes: number;
  /**
   * Whether gossip is taken from peers alone; "auto" is "on" where peers or a directory are
   * configured, and no registry is.
   */
  readonly gossipStrict: (typeof ON_OFF_AUTO)[number];
  /** A path. */
  readonly gossipKeyFile: string | "off";
  /** "host:port" for parseHostNamePort. */
  readonly registry: string | "off";
  /** Time between two rounds with the registry, less or more a tenth. */
  readonly registryIntervalMs: number;
  /** A secret; "" is none. */
  readonly registryAdminToken: string;
  /**
   * A path. "off" in every config that was checked: what the file held is the registryAdminToken
   * then.
   */
  readonly registryAdminTokenFile: string | "off";
  /** "host:port" for parseHostNamePort, as others reach this beacon. */
  readonly advertiseAddr: string | "auto";
  /** "redis://…" or "rediss://…" for parseDirectory. */
  readonly directory: string | "off";
  /** A path; "off" unless the directory is rediss. */
  readonly directoryCaFile: string | "off";
  /** A path. */
  readonly directoryAuthFile: string | "off";
  /** What the names of all the directory's keys begin with, in braces. */
  readonly directoryPrefix: string;
  /** How long routes are kept beyond their lease while the directory is away. */
  readonly directoryGraceMs: number;
  /** The routes of a beacon that the directory has not heard for this long are withdrawn. */
  readonly directoryLeaseMs: number;
  /** "host:port" of the WebSocket bridge. */
  readonly wss: string | "off";
  /** A path; "off" where wssTlsKey is. */
  readonly wssTlsCert: string | "off";
  /** A path; "off" where wssTlsCert is. */
  readonly wssTlsKey: string | "off";
  /** Most connections of the bridge at once. */
  readonly wssMaxPeers: number;
  /**
   * The proxies whose X-Forwarded-For is believed, each for parseAddressPrefix; no text stands
   * twice.
   */
  readonly wssTrustedProxies: readonly string[];
  /** A path. "off" leaves the nodes' keys to the registry, or to a source that code hands over. */
  readonly wssKeys: string | "off";
  /** Upgrades a second from one client's address, 0 for any number. */
  readonly wssUpgradeLimit: number;
  /**
   * Failed handshakes a second from one client's address before it has to wait, 0 for any number.
   */
  readonly wssFailureLimit: number;
  /**
   * Relays a second from one source, which is an address and a port or a bridged node; 0 for any
   * number.
   */
  readonly relayLimit: number;
  /** Relays a second from one address, whatever the ports; 0 for any number. */
  readonly relayAddressLimit: number;
  /** Punch requests a second from one address, 0 for any number. */
  readonly punchSourceLimit: number;
  /** Punch requests a second in all, 0 for any number; "auto" grows with the nodes. */
  readonly punchLimit: number | "auto";
  /**
   * Whose punch requests are not limited: each for parseAddressPrefix, or "*" for everybody's; no
   * text stands twice.
   */
  readonly punchAllow: readonly string[];
  /**
   * A node that was refreshed within this time keeps its endpoint, whatever others claim; 0 lets
   * everybody move it.
   */
  readonly endpointHoldMs: number;
  /** New nodes a second from one address, 0 for any number. */
  readonly newNodeLimit: number;
  /** Answers a second to one address, 0 for any number. */
  readonly answerLimit: number;
  /** Limits count what they would drop, and drop nothing. */
  readonly limitsShadow: boolean;
  /** A punch request needs the target's signature. */
  readonly requirePunchGrant: boolean;
  /**
   * Where nodes may not be, beside addresses that are nobody's: each for parseAddressPrefix; no
   * text stands twice.
   */
  readonly denyEndpoint: readonly string[];
  /** Watch whether nodes that were told of each other go on relaying. */
  readonly punchWatch: boolean;
  /** A path. "off": nothing can be changed through HTTP. */
  readonly adminTokenFile: string | "off";
  /** Whether reading the admin API needs the token: "auto" exempts this host's own programs. */
  readonly adminAuth: (typeof AUTO_ALWAYS)[number];
  /** How long a beacon that is asked to stop goes on relaying. */
  readonly drainMs: number;
  /** A path. */
  readonly stateFile: string | "off";
  /** How often the state file is saved. */
  readonly stateIntervalMs: number;
}

/** Bounds what is allocated for each worker; not a measured limit. */
const WORKERS_MAX = 64;

/**
 * Messages per receive call, unless the operator says otherwise. From 32 to 256 the CPU time a
 * packet is the same within the noise (bench relay --batch, 2026-11, 2 cores); a batch of 64 keeps
 * packet heads and structs in the L2 cache.
 */
export const BATCH_MAX_DEFAULT = 64;

/**
 * Every beacon tells every other about its nodes, so a mesh is small; a longer list is something
 * else.
 */
const PEERS_MAX = 128;

/** Every upgrade's address is compared with each of them. */
const PROXIES_MAX = 128;

/**
 * Most of a limit that is a number a second: far above what a machine can do, so as good as none,
 * and still measured.
 */
const RATE_MAX = 1_000_000_000;

/**
 * As many fit into the shared memory, where workers look through all of them
 * (src/shared/prefixes.ts).
 */
export const PREFIXES_MAX = 128;

const TOKEN_CHARS_MAX = 1024;

export type Property = Exclude<keyof Config, "httpIsDefault">;

/**
 * How one sort of value is read from text and, however it came, checked. Both throw only the
 * reason.
 */
export interface Kind<T> {
  parse(text: string): unknown;
  /**
   * What a JSON value means that is not a string. Without this it means what its text would (5 is
   * "5", true is "on"), which is wrong for a kind that takes any text.
   */
  fromJson?(value: unknown): unknown;
  check(value: unknown): T;
}

interface SettingOf<P extends Property> {
  readonly flag: string;
  readonly property: P;
  readonly kind: Kind<Config[P]>;
  readonly value: string;
  /** As an operator would write it. Absent only where another flag sets the same property. */
  readonly default?: string;
  readonly defaultNote?: string;
  readonly help: string;
  /** May change while the beacon runs. */
  readonly reloadable?: true;
  /** Its value appears in no message. */
  readonly secret?: true;
  /** What of a value that is refused appears in no message. */
  readonly secretPart?: RegExp;
}
export type Setting = { [P in Property]: SettingOf<P> }[Property];

function ranged(min: number, max: number, reason: string): (value: unknown) => number {
  return (value) => {
    if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max)
      throw new ConfigError(reason);
    return value + 0; // -0 is 0
  };
}

function whole(min: number, max: number): Kind<number> {
  return {
    parse: (text) => (/^\d+$/.test(text) ? Number(text) : text),
    check: ranged(min, max, `must be a whole number from ${min} to ${max}`),
  };
}

function duration(min: string, max: string): Kind<number> {
  const check = ranged(parseDurationMs(min), parseDurationMs(max), `must be from ${min} to ${max}`);
  // as in Go, 0 needs no unit
  return { parse: (text) => (text === "0" ? 0 : parseDurationMs(text)), check };
}

function bytes(min: string, max: string): Kind<number> {
  return {
    parse: parseBytes,
    check: ranged(parseBytes(min), parseBytes(max), `must be from ${min} to ${max}`),
  };
}

function oneOf<T extends string>(names: readonly T[]): Kind<T> {
  const check = (value: unknown) => {
    const name = names.find((each) => each === value);
    if (name === undefined) throw new ConfigError(`must be one of ${names.join(", ")}`);
    return name;
  };
  return { parse: (text) => text, check };
}

const onOff: Kind<boolean> = {
  parse: (text) => (text === "on" ? true : text === "off" ? false : text),
  check: (value) => {
    if (typeof value !== "boolean")
      throw new ConfigError("must be on or off (in JSON and in code, true or false)");
    return value;
  },
};

/** A text that `verify` does not refuse. */
function address(verify: (text: string) => unknown): Kind<string> {
  const check = (value: unknown) => {
    verify(typeof value === "string" ? value : "");
    return value as string;
  };
  return { parse: (text) => text, check };
}

const keyPrefix: Kind<string> = {
  parse: (text) => text,
  check: (value) => {
    if (typeof value !== "string" || !/^[\w.:-]{1,64}$/.test(value))
      throw new ConfigError("must be 1 to 64 of the characters A-Z a-z 0-9 . _ : -");
    return value;
  },
};

const bindAddress = address(parseHostPort);
const hostAddress = address(parseHostNamePort);
const directoryAddress = address(parseDirectory);
const addressPrefix = address(parseAddressPrefix);

/** What `kind` takes, or the word. */
function orWord<T, Word extends string>(word: Word, kind: Kind<T>): Kind<T | Word> {
  const check = (value: unknown) =>
    value === word
      ? word
      : withReason(
          () => kind.check(value),
          (reason) => `${reason}; or ${word}`,
        );
  return { ...kind, check };
}

/** A number a second, 0 for no limit. */
const rate = whole(0, RATE_MAX);

const path: Kind<string> = {
  parse: (text) => text,
  fromJson: (value) => (value === false ? "off" : value),
  check: (value) => {
    if (typeof value !== "string" || value === "" || value.includes("\0"))
      throw new ConfigError("must be the path of a file");
    return pathFromStart(value);
  },
};

/** The reason is all that is ever said of a token that is refused. */
export const token: Kind<string> = {
  parse: (text) => text,
  fromJson: (value) => value,
  check: (value) => {
    if (typeof value !== "string" || value.length > TOKEN_CHARS_MAX || !/^[!-~]*$/.test(value))
      throw new ConfigError(
        `must be a string of printable ASCII without spaces, at most ${TOKEN_CHARS_MAX} characters`,
      );
    return value;
  },
};

/** At most `max` of what `kind` takes, each once. `what` names them. */
function listOf(kind: Kind<string>, max: number, what: string): Kind<readonly string[]> {
  const check = (value: unknown) => {
    if (!Array.isArray(value) || value.length > max)
      throw new ConfigError(
        `must be a list of at most ${max} ${what} with commas between (in JSON and in code, an array)`,
      );
    const entries = Array.from(value, (entry: unknown) => {
      const text = typeof entry === "string" ? entry : "";
      return withReason(
        () => kind.check(text),
        (reason) => `${shown(text)}: ${reason}`,
      );
    });
    return Object.freeze([...new Set(entries)]);
  };
  return {
    parse: (text) => (text.trim() === "" ? [] : text.split(",").map((entry) => entry.trim())),
    fromJson: (value) => value,
    check,
  };
}

/** Every option, in the order and under the headings of the help text. */
export const settingGroups: readonly {
  readonly title: string;
  readonly settings: readonly Setting[];
}[] = [
  {
    title: "Network:",
    settings: [
      {
        flag: "addr",
        property: "addr",
        kind: bindAddress,
        value: "<address>",
        default: ":9001",
        help: "UDP address to serve. :9001 is every address, IPv4 and IPv6; port 0 picks a free one.",
      },
      {
        flag: "beacon-id",
        property: "beaconId",
        kind: whole(0, 0xffff_ffff),
        value: "<number>",
        default: "0",
        help: "This beacon's number among its peers, 32 bits.",
      },
      {
        flag: "recv-buffer",
        property: "recvBufferBytes",
        kind: bytes("64KiB", "1GiB"),
        value: "<size>",
        default: "4MiB",
        help: "Kernel receive buffer of each socket: bytes, or with KiB or MiB.",
      },
      {
        flag: "send-buffer",
        property: "sendBufferBytes",
        kind: bytes("64KiB", "1GiB"),
        value: "<size>",
        default: "4MiB",
        help: "Kernel send buffer of each socket.",
      },
    ],
  },
  {
    title: "Mesh:",
    settings: [
      {
        flag: "peers",
        property: "peers",
        kind: listOf(hostAddress, PEERS_MAX, "host:port"),
        value: "<list>",
        default: "",
        defaultNote: "none",
        help: "Other beacons, as host:port,host:port (in JSON, an array).",
        reloadable: true,
      },
      {
        flag: "gossip-interval",
        property: "gossipIntervalMs",
        kind: duration("100ms", "1m"),
        value: "<duration>",
        default: "10s",
        help: "How often peers are told this beacon's nodes.",
        reloadable: true,
      },
      {
        flag: "peer-timeout",
        property: "peerTimeoutMs",
        kind: duration("1s", "1h"),
        value: "<duration>",
        default: "90s",
        help: "Withdraw the routes of a peer silent for this long.",
        reloadable: true,
      },
      {
        flag: "self-check",
        property: "selfCheck",
        kind: onOff,
        value: "<on|off>",
        default: "on",
        help: "Send a packet through each peer to this beacon itself, every gossip interval.",
        reloadable: true,
      },
      {
        flag: "max-routes",
        property: "maxRoutes",
        kind: whole(1, 16_000_000),
        value: "<count>",
        default: "1000000",
        help: "Most nodes known through peers.",
      },
      {
        flag: "max-peer-routes",
        property: "maxPeerRoutes",
        kind: whole(1, 16_375),
        value: "<count>",
        default: "16375",
        help: "Most nodes that count of one peer's gossip.",
        reloadable: true,
      },
      {
        flag: "gossip-strict",
        property: "gossipStrict",
        kind: oneOf(ON_OFF_AUTO),
        value: "<on|off|auto>",
        default: "on",
        help: "Reject gossip of unlisted beacons; sources can be forged without --gossip-key-file.",
        reloadable: true,
      },
      {
        flag: "gossip-key-file",
        property: "gossipKeyFile",
        kind: orWord("off", path),
        value: "<path|off>",
        default: "off",
        help: "File with the key that signs gossip, and on a second line one that is accepted, too.",
        reloadable: true,
      },
      {
        flag: "registry",
        property: "registry",
        kind: orWord("off", hostAddress),
        value: "<host:port|off>",
        default: "off",
        help: "Registry that lists the beacons. Needs --beacon-id.",
        reloadable: true,
      },
      {
        flag: "registry-interval",
        property: "registryIntervalMs",
        kind: duration("100ms", "1h"),
        value: "<duration>",
        default: "30s",
        help: "How often the registry is asked for the beacons, and told of this one.",
        reloadable: true,
      },
      {
        flag: "registry-admin-token",
        property: "registryAdminToken",
        kind: token,
        value: "<token>",
        default: "",
        defaultNote: "none",
        help: "Token for the registry; flags show in the process list.",
        reloadable: true,
        secret: true,
      },
      {
        flag: "registry-admin-token-file",
        property: "registryAdminTokenFile",
        kind: orWord("off", path),
        value: "<path|off>",
        default: "off",
        help: "File that holds the token instead.",
        reloadable: true,
      },
      {
        flag: "advertise-addr",
        property: "advertiseAddr",
        kind: orWord("auto", hostAddress),
        value: "<host:port|auto>",
        default: "auto",
        help: "Address under which the registry lists this beacon.",
        reloadable: true,
      },
    ],
  },
  {
    title: "Directory:",
    settings: [
      {
        flag: "directory",
        property: "directory",
        kind: orWord("off", directoryAddress),
        value: "<url|off>",
        default: "off",
        help:
          "Redis or Valkey that the fleet shares its routes in: redis://host:port, or rediss:// for TLS; " +
          "several with commas between. Needs --beacon-id.",
        // up to where user and password end, or all that is left where that was cut off
        secretPart: /(?<=^"?)(?!").*(?:@|…$)/s,
      },
      {
        flag: "directory-ca-file",
        property: "directoryCaFile",
        kind: orWord("off", path),
        value: "<path|off>",
        default: "off",
        help: "PEM file with the certificates to trust in place of the system's. Needs rediss://.",
      },
      {
        flag: "directory-auth-file",
        property: "directoryAuthFile",
        kind: orWord("off", path),
        value: "<path|off>",
        default: "off",
        help: "File with the password, or with the user on its first line and the password on its second.",
      },
      {
        flag: "directory-prefix",
        property: "directoryPrefix",
        kind: keyPrefix,
        value: "<text>",
        default: "pilot-beacon",
        help: "What the names of all keys begin with, in braces: one for each fleet.",
      },
      {
        flag: "directory-grace",
        property: "directoryGraceMs",
        kind: duration("0s", "24h"),
        value: "<duration>",
        default: "5m",
        help: "While the directory is away, keep routes this much longer than their lease.",
      },
      {
        flag: "directory-lease",
        property: "directoryLeaseMs",
        kind: duration("3s", "5m"),
        value: "<duration>",
        default: "10s",
        help: "Withdraw the routes of a beacon that the directory has not heard for this long.",
      },
    ],
  },
  {
    title: "WebSocket bridge:",
    settings: [
      {
        flag: "wss",
        property: "wss",
        kind: orWord("off", bindAddress),
        value: "<address|off>",
        default: "off",
        help:
          "Address to serve nodes whose network blocks UDP, over WebSocket. " +
          "Needs --wss-keys or --registry.",
      },
      {
        flag: "wss-tls-cert",
        property: "wssTlsCert",
        kind: orWord("off", path),
        value: "<path|off>",
        default: "off",
        help: "PEM file with the certificate and those that lead to its root. Needs --wss-tls-key.",
        reloadable: true,
      },
      {
        flag: "wss-tls-key",
        property: "wssTlsKey",
        kind: orWord("off", path),
        value: "<path|off>",
        default: "off",
        help: "PEM file with the certificate's private key.",
        reloadable: true,
      },
      {
        flag: "wss-max-peers",
        property: "wssMaxPeers",
        kind: whole(1, 1_000_000),
        value: "<count>",
        default: "10000",
        help: "Most connections at once; above it an upgrade gets 503.",
        reloadable: true,
      },
      {
        flag: "wss-trusted-proxy",
        property: "wssTrustedProxies",
        kind: listOf(addressPrefix, PROXIES_MAX, "IP addresses or prefixes"),
        value: "<list>",
        default: "",
        defaultNote: "none",
        help: "Proxies whose X-Forwarded-For is believed, as 192.0.2.1,10.0.0.0/8 (in JSON, an array).",
        reloadable: true,
      },
      {
        flag: "wss-keys",
        property: "wssKeys",
        kind: orWord("off", path),
        value: "<path|off>",
        default: "off",
        help: "JSON file with the nodes' public keys; without it the registry is asked.",
        reloadable: true,
      },
      {
        flag: "wss-upgrade-limit",
        property: "wssUpgradeLimit",
        kind: rate,
        value: "<count>",
        default: "100",
        help: "Upgrades a second from one address, 0 for any number; above it, 429.",
        reloadable: true,
      },
      {
        flag: "wss-failure-limit",
        property: "wssFailureLimit",
        kind: rate,
        value: "<count>",
        default: "10",
        help: "Failed handshakes a second from one address; above it, its upgrades get 429.",
        reloadable: true,
      },
    ],
  },
  {
    title: "Limits (0 for none):",
    settings: [
      {
        flag: "relay-limit",
        property: "relayLimit",
        kind: rate,
        value: "<count>",
        default: "4000",
        help: "Relays a second from one source: an address and port, or a bridged node.",
        reloadable: true,
      },
      {
        flag: "relay-address-limit",
        property: "relayAddressLimit",
        kind: rate,
        value: "<count>",
        default: "20000",
        help: "Relays a second from one address, over all its ports.",
        reloadable: true,
      },
      {
        flag: "punch-source-limit",
        property: "punchSourceLimit",
        kind: rate,
        value: "<count>",
        default: "1",
        help: "Punch requests a second from one address.",
        reloadable: true,
      },
      {
        flag: "punch-limit",
        property: "punchLimit",
        kind: orWord("auto", rate),
        value: "<count|auto>",
        default: "auto",
        help: "Punch requests a second in all; auto: a thirtieth of the nodes, at least 100.",
        reloadable: true,
      },
      {
        flag: "punch-allow",
        property: "punchAllow",
        kind: listOf(orWord("*", addressPrefix), PREFIXES_MAX, "IP addresses or prefixes"),
        value: "<list>",
        default: "",
        defaultNote: "none",
        help: "Whose punch requests are not limited, as 192.0.2.1,10.0.0.0/8, or * for everybody's.",
        reloadable: true,
      },
      {
        flag: "endpoint-hold",
        property: "endpointHoldMs",
        kind: duration("0s", "1h"),
        value: "<duration>",
        default: "30s",
        help: "A node heard within this time cannot be moved to another address.",
        reloadable: true,
      },
      {
        flag: "new-node-limit",
        property: "newNodeLimit",
        kind: rate,
        value: "<count>",
        default: "100",
        help: "New nodes a second from one address.",
        reloadable: true,
      },
      {
        flag: "answer-limit",
        property: "answerLimit",
        kind: rate,
        value: "<count>",
        default: "1000",
        help: "Answers a second to one address.",
        reloadable: true,
      },
      {
        flag: "limits-shadow",
        property: "limitsShadow",
        kind: onOff,
        value: "<on|off>",
        default: "off",
        help: "Count what the limits would drop, and drop nothing.",
        reloadable: true,
      },
      {
        flag: "deny-endpoint",
        property: "denyEndpoint",
        kind: listOf(addressPrefix, PREFIXES_MAX, "IP addresses or prefixes"),
        value: "<list>",
        default: "",
        defaultNote: "none",
        help: "Where no node may be, as 127.0.0.0/8,10.0.0.0/8; nodes there are not recorded.",
        reloadable: true,
      },
      {
        flag: "require-punch-grant",
        property: "requirePunchGrant",
        kind: onOff,
        value: "<on|off>",
        default: "off",
        help: "Punch requests need their target's signature.",
        reloadable: true,
      },
    ],
  },
  {
    title: "Nodes:",
    settings: [
      {
        flag: "max-nodes",
        property: "maxNodes",
        kind: whole(1, 16_000_000),
        value: "<count>",
        default: "500000",
        help: "Most nodes known at once; their memory is taken at start.",
      },
      {
        flag: "node-ttl",
        property: "nodeTtlMs",
        kind: duration("1s", "24h"),
        value: "<duration>",
        default: "10m",
        help: "Forget a node not heard for this long, such as 90s or 1h30m.",
      },
    ],
  },
  {
    title: "Performance:",
    settings: [
      {
        flag: "workers",
        property: "workers",
        kind: whole(1, WORKERS_MAX),
        value: "<count>",
        default: String(Math.min(availableParallelism(), WORKERS_MAX)),
        defaultNote: `one per CPU, at most ${WORKERS_MAX}`,
        help: "Threads that receive and relay.",
      },
      {
        flag: "batch",
        property: "batchMax",
        kind: whole(1, 1024),
        value: "<count>",
        default: String(BATCH_MAX_DEFAULT),
        help: "Most datagrams taken by one receive call.",
      },
      {
        flag: "offload",
        property: "offload",
        kind: onOff,
        value: "<on|off>",
        default: "on",
        help: "Let the kernel merge and split datagrams (UDP GRO and GSO).",
      },
      {
        flag: "steering",
        property: "steering",
        kind: onOff,
        value: "<on|off>",
        default: "on",
        help: "Steer a node's registrations to the worker that owns its entry.",
      },
      {
        flag: "source-address",
        property: "sourceAddress",
        kind: oneOf(ON_OFF_AUTO),
        value: "<on|off|auto>",
        default: "auto",
        help: "Send from the address that a node sent to; auto: if this host has several.",
      },
    ],
  },
  {
    title: "Process:",
    settings: [
      {
        flag: "drain",
        property: "drainMs",
        kind: duration("0s", "1h"),
        value: "<duration>",
        default: "0s",
        help: "Go on relaying for this long after a stop signal.",
        reloadable: true,
      },
      {
        flag: "state-file",
        property: "stateFile",
        kind: orWord("off", path),
        value: "<path|off>",
        default: "off",
        help: "Keep the node table in this file across restarts.",
      },
      {
        flag: "state-interval",
        property: "stateIntervalMs",
        kind: duration("1s", "1h"),
        value: "<duration>",
        default: "60s",
        help: "How often that file is saved; a crash loses what came since.",
      },
    ],
  },
  {
    title: "Monitoring:",
    settings: [
      {
        flag: "http",
        property: "http",
        kind: orWord("off", bindAddress),
        value: "<address|off>",
        default: "127.0.0.1:9002",
        help: "Address of the health and metrics server.",
      },
      {
        flag: "health",
        property: "http",
        kind: orWord("off", bindAddress),
        value: "<address|off>",
        help: "The same as --http.",
      },
      {
        flag: "admin-token-file",
        property: "adminTokenFile",
        kind: orWord("off", path),
        value: "<path|off>",
        default: "off",
        help: "File with the token that lets its bearer change things through HTTP.",
        reloadable: true,
      },
      {
        flag: "admin-auth",
        property: "adminAuth",
        kind: oneOf(AUTO_ALWAYS),
        value: "<auto|always>",
        default: "auto",
        help: "Ask readers of the admin API for the token; auto: not this host's own programs.",
        reloadable: true,
      },
      {
        flag: "punch-watch",
        property: "punchWatch",
        kind: onOff,
        value: "<on|off>",
        default: "on",
        help: "Count of the pairs that punched which of them go on relaying.",
        reloadable: true,
      },
      {
        flag: "log-level",
        property: "logLevel",
        kind: oneOf(LOG_LEVELS),
        value: "<level>",
        default: "info",
        help: `Least severe level to log: ${LOG_LEVELS.join(", ")}.`,
        reloadable: true,
      },
      {
        flag: "log-format",
        property: "logFormat",
        kind: oneOf(LOG_FORMATS),
        value: "<text|json>",
        default: "text",
        help: "For people or for machines.",
      },
    ],
  },
];

export const settings: readonly Setting[] = settingGroups.flatMap((group) => group.settings);

/** The environment variable of a flag: BEACON_MAX_NODES of "max-nodes". */
export function envName(flag: string): string {
  return `BEACON_${flag.toUpperCase().replaceAll("-", "_")}`;
}

/** The flag of a property as it is typed, for messages: "--max-nodes". */
export function flagOf(property: Property): string {
  return `--${settings.find((setting) => setting.property === property)!.flag}`;
}

/** What may stand in a message in the place of `text`, the value of this flag. */
export function masked(flag: string, text: string): string {
  const { secret, secretPart } = settings.find((setting) => setting.flag === flag) ?? {};
  if (secret) return "***";
  return secretPart ? text.replace(secretPart, "***") : text;
}

/** The config for people to read: a secret that is set is "***". */
export function maskedConfig(config: Config): Record<string, unknown> {
  const secrets = settings.filter(({ property, secret }) => secret && config[property] !== "");
  return { ...config, ...Object.fromEntries(secrets.map(({ property }) => [property, "***"])) };
}
