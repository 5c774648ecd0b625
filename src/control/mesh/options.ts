/** The options of the mesh. */
import {
  duration,
  hostAddress,
  listOf,
  oneOf,
  onOff,
  orWord,
  path,
  token,
  whole,
} from "../../config/kinds.ts";
import type { NameOf, OptionGroups, ValuesOf } from "../../config/option.ts";
import { ConfigError } from "../../config/units.ts";
import type { NodesConfig } from "../nodes/options.ts";

/** Limit of peers: every beacon gossips to every other, so a mesh is small. */
const PEERS_MAX = 128;

export const meshOptions = {
  "Mesh:": {
    beaconId: {
      flag: "beacon-id",
      kind: whole(0, 0xffff_ffff),
      form: "number",
      default: "0",
      help: "This beacon's number among its peers, 32 bits.",
    },
    /** The other beacons, each "host:port" for parseHostNamePort; no text stands twice. */
    peers: {
      flag: "peers",
      kind: listOf(hostAddress, PEERS_MAX, "host:port"),
      default: "",
      defaultNote: "none",
      help: "Other beacons, as host:port,host:port (in JSON, an array).",
      reloadable: true,
    },
    gossipIntervalMs: {
      flag: "gossip-interval",
      kind: duration("100ms", "1m"),
      default: "10s",
      help: "How often peers are told this beacon's nodes.",
      reloadable: true,
    },
    peerTimeoutMs: {
      flag: "peer-timeout",
      kind: duration("1s", "1h"),
      default: "90s",
      help: "Withdraw the routes of a peer silent for this long.",
      reloadable: true,
    },
    selfCheck: {
      flag: "self-check",
      kind: onOff,
      default: "on",
      help: "Send a packet through each peer to this beacon itself, every gossip interval.",
      reloadable: true,
    },
    maxRoutes: {
      flag: "max-routes",
      kind: whole(1, 16_000_000),
      default: "1000000",
      help: "Most nodes known through peers.",
    },
    maxPeerRoutes: {
      flag: "max-peer-routes",
      kind: whole(1, 16_375),
      default: "16375",
      help: "Most nodes that count of one peer's gossip.",
      reloadable: true,
    },
    /** Whether only peers' gossip is accepted; "auto": with peers or a directory, no registry. */
    gossipStrict: {
      flag: "gossip-strict",
      kind: oneOf(["on", "off", "auto"]),
      default: "on",
      help: "Reject gossip of unlisted beacons; sources can be forged without --gossip-key-file.",
      reloadable: true,
    },
    gossipKeyFile: {
      flag: "gossip-key-file",
      kind: orWord("off", path),
      default: "off",
      help: "File with the key that signs gossip, and on a second line one that is accepted, too.",
      reloadable: true,
    },
    /** "host:port" for parseHostNamePort. */
    registry: {
      flag: "registry",
      kind: orWord("off", hostAddress),
      default: "off",
      help: "Registry that lists the beacons. Needs --beacon-id.",
      reloadable: true,
    },
    /** Time between two rounds with the registry, less or more a tenth. */
    registryIntervalMs: {
      flag: "registry-interval",
      kind: duration("100ms", "1h"),
      default: "30s",
      help: "How often the registry is asked for the beacons, and told of this one.",
      reloadable: true,
    },
    /** A secret; "" is none. */
    registryAdminToken: {
      flag: "registry-admin-token",
      kind: token,
      default: "",
      defaultNote: "none",
      help: "Token for the registry; flags show in the process list.",
      reloadable: true,
      secret: true,
    },
    registryAdminTokenFile: {
      flag: "registry-admin-token-file",
      kind: orWord("off", path),
      default: "off",
      help: "File that holds the token instead.",
      reloadable: true,
    },
    /** "host:port" for parseHostNamePort, as others reach this beacon. */
    advertiseAddr: {
      flag: "advertise-addr",
      kind: orWord("auto", hostAddress),
      default: "auto",
      help: "Address under which the registry lists this beacon.",
      reloadable: true,
    },
  },
} satisfies OptionGroups;

export type MeshConfig = ValuesOf<typeof meshOptions>;
/** The options that the mesh reads. */
export type MeshReads = MeshConfig &
  Pick<NodesConfig, "nodeTtlMs"> & { readonly directory: string };

export function checkMesh(config: MeshConfig, nameOf: NameOf<MeshConfig>): void {
  if (config.registry !== "off" && config.beaconId === 0)
    throw new ConfigError(
      `${nameOf("registry")} needs ${nameOf("beaconId")}: a number other than 0, its own for each beacon`,
    );
  if (config.peerTimeoutMs <= config.gossipIntervalMs)
    throw new ConfigError(
      `${nameOf("peerTimeoutMs")}: must be longer than ${nameOf("gossipIntervalMs")}, ${config.gossipIntervalMs}ms`,
    );
  if (config.registryAdminToken !== "" && config.registryAdminTokenFile !== "off")
    throw new ConfigError(
      `${nameOf("registryAdminTokenFile")}: ${nameOf("registryAdminToken")} sets the same; give one of them`,
    );
}
