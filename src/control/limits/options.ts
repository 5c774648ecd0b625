/** The options of the limits. */
import { addressPrefix, duration, listOf, onOff, orWord, rate } from "../../config/kinds.ts";
import type { OptionGroups, ValuesOf } from "../../config/option.ts";

/** Prefixes that fit into shared memory; workers compare each (src/shared/prefixes.ts). */
export const PREFIXES_MAX = 128;

export const limitsOptions = {
  "Limits (0 for none):": {
    relayLimit: {
      flag: "relay-limit",
      kind: rate,
      default: "4000",
      help: "Relays a second from one source: an address and port, or a bridged node.",
      reloadable: true,
    },
    relayAddressLimit: {
      flag: "relay-address-limit",
      kind: rate,
      default: "20000",
      help: "Relays a second from one address, over all its ports.",
      reloadable: true,
    },
    punchSourceLimit: {
      flag: "punch-source-limit",
      kind: rate,
      default: "1",
      help: "Punch requests a second from one address.",
      reloadable: true,
    },
    punchLimit: {
      flag: "punch-limit",
      kind: orWord("auto", rate),
      default: "auto",
      help: "Punch requests a second in all; auto: a thirtieth of the nodes, at least 100.",
      reloadable: true,
    },
    punchAllow: {
      flag: "punch-allow",
      kind: listOf(orWord("*", addressPrefix), PREFIXES_MAX, "IP addresses or prefixes"),
      default: "",
      defaultNote: "none",
      help: "Whose punch requests are not limited, as 192.0.2.1,10.0.0.0/8, or * for everybody's.",
      reloadable: true,
    },
    endpointHoldMs: {
      flag: "endpoint-hold",
      kind: duration("0s", "1h"),
      default: "30s",
      help: "A node heard within this time cannot be moved to another address.",
      reloadable: true,
    },
    newNodeLimit: {
      flag: "new-node-limit",
      kind: rate,
      default: "100",
      help: "New nodes a second from one address.",
      reloadable: true,
    },
    answerLimit: {
      flag: "answer-limit",
      kind: rate,
      default: "1000",
      help: "Answers a second to one address.",
      reloadable: true,
    },
    limitsShadow: {
      flag: "limits-shadow",
      kind: onOff,
      default: "off",
      help: "Count what the limits would drop, and drop nothing.",
      reloadable: true,
    },
    denyEndpoint: {
      flag: "deny-endpoint",
      kind: listOf(addressPrefix, PREFIXES_MAX, "IP addresses or prefixes"),
      default: "",
      defaultNote: "none",
      help: "Where no node may be, as 127.0.0.0/8,10.0.0.0/8; nodes there are not recorded.",
      reloadable: true,
    },
  },
} satisfies OptionGroups;

export type LimitsConfig = ValuesOf<typeof limitsOptions>;
