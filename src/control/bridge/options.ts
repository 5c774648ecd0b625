/** The options of the bridge. */
import {
  addressPrefix,
  bindAddress,
  listOf,
  orWord,
  path,
  rate,
  whole,
} from "../../config/kinds.ts";
import type { OptionGroups, ValuesOf } from "../../config/option.ts";

/** Every upgrade's address is compared with each of them. */
const PROXIES_MAX = 128;

export const bridgeOptions = {
  "WebSocket bridge:": {
    wss: {
      flag: "wss",
      kind: orWord("off", bindAddress),
      default: "off",
      help:
        "Address to serve nodes whose network blocks UDP, over WebSocket. " +
        "Needs --wss-keys or --registry.",
    },
    wssTlsCert: {
      flag: "wss-tls-cert",
      kind: orWord("off", path),
      default: "off",
      help: "PEM file with the certificate and those that lead to its root. Needs --wss-tls-key.",
      reloadable: true,
    },
    wssTlsKey: {
      flag: "wss-tls-key",
      kind: orWord("off", path),
      default: "off",
      help: "PEM file with the certificate's private key.",
      reloadable: true,
    },
    wssMaxPeers: {
      flag: "wss-max-peers",
      kind: whole(1, 1_000_000),
      default: "10000",
      help: "Most connections at once; above it an upgrade gets 503.",
      reloadable: true,
    },
    wssTrustedProxies: {
      flag: "wss-trusted-proxy",
      kind: listOf(addressPrefix, PROXIES_MAX, "IP addresses or prefixes"),
      default: "",
      defaultNote: "none",
      help: "Proxies whose X-Forwarded-For is believed, as 192.0.2.1,10.0.0.0/8 (in JSON, an array).",
      reloadable: true,
    },
    wssUpgradeLimit: {
      flag: "wss-upgrade-limit",
      kind: rate,
      default: "100",
      help: "Upgrades a second from one address, 0 for any number; above it, 429.",
      reloadable: true,
    },
    wssFailureLimit: {
      flag: "wss-failure-limit",
      kind: rate,
      default: "10",
      help: "Failed handshakes a second from one address; above it, its upgrades get 429.",
      reloadable: true,
    },
  },
} satisfies OptionGroups;

export type BridgeConfig = ValuesOf<typeof bridgeOptions>;
