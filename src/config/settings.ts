/**
 * Every option of the beacon, declared once: its flag, its property, its range, its default and its help. The
 * environment variable (BEACON_MAX_NODES) and the config-file key ("max-nodes") follow from the flag.
 */
import { availableParallelism } from "node:os";
import { ConfigError, parseBytes, parseDurationMs, parseHostPort, withReason } from "./units.ts";

const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const LOG_FORMATS = ["text", "json"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

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
  /** Datagrams per receive call. */
  readonly batchMax: number;
  readonly recvBufferBytes: number;
  readonly sendBufferBytes: number;
}

/** Bounds what is allocated for each worker; not a measured limit. */
const WORKERS_MAX = 64;

/**
 * Messages per receive call, unless the operator says otherwise. From 32 to 256 the CPU time a packet is the same within
 * the noise (bench relay --batch, 2026-11, 2 cores); a batch of 64 keeps packet heads and structs in the L2 cache.
 */
export const BATCH_MAX_DEFAULT = 64;

export type Property = Exclude<keyof Config, "httpIsDefault">;

/** How one sort of value is read from text and, however it came, checked. Both throw only the reason. */
export interface Kind<T> {
  parse(text: string): unknown;
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
}
export type Setting = { [P in Property]: SettingOf<P> }[Property];

function ranged(min: number, max: number, reason: string): (value: unknown) => number {
  return (value) => {
    if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max)
      throw new ConfigError(reason);
    return value;
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
  return { parse: parseDurationMs, check };
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

const address: Kind<string> = {
  parse: (text) => text,
  check: (value) => {
    parseHostPort(typeof value === "string" ? value : "");
    return value as string;
  },
};

const addressOrOff: Kind<string> = {
  parse: address.parse,
  check: (value) =>
    value === "off"
      ? value
      : withReason(
          () => address.check(value),
          (reason) => `${reason}; or off`,
        ),
};

/** Every option, in the order and under the headings of the help text. */
export const settingGroups: readonly { readonly title: string; readonly settings: readonly Setting[] }[] = [
  {
    title: "Network:",
    settings: [
      {
        flag: "addr",
        property: "addr",
        kind: address,
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
    ],
  },
  {
    title: "Monitoring:",
    settings: [
      {
        flag: "http",
        property: "http",
        kind: addressOrOff,
        value: "<address|off>",
        default: "127.0.0.1:9002",
        help: "Address of the health and metrics server.",
      },
      {
        flag: "health",
        property: "http",
        kind: addressOrOff,
        value: "<address|off>",
        help: "The same as --http.",
      },
      {
        flag: "log-level",
        property: "logLevel",
        kind: oneOf(LOG_LEVELS),
        value: "<level>",
        default: "info",
        help: `Least severe level to log: ${LOG_LEVELS.join(", ")}.`,
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
