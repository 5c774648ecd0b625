/** The options of the sockets. */
import { bindAddress, bytes, oneOf, onOff } from "../../config/kinds.ts";
import type { OptionGroups, ValuesOf } from "../../config/option.ts";

export const socketsOptions = {
  "Network:": {
    /** "host:port" for parseHostPort; an empty host is every address of both families. */
    addr: {
      flag: "addr",
      kind: bindAddress,
      default: ":9001",
      help: "UDP address to serve. :9001 is every address, IPv4 and IPv6; port 0 picks a free one.",
    },
    recvBufferBytes: {
      flag: "recv-buffer",
      kind: bytes("64KiB", "1GiB"),
      default: "4MiB",
      help: "Kernel receive buffer of each socket: bytes, or with KiB or MiB.",
    },
    sendBufferBytes: {
      flag: "send-buffer",
      kind: bytes("64KiB", "1GiB"),
      default: "4MiB",
      help: "Kernel send buffer of each socket.",
    },
  },
  "Performance:": {
    offload: {
      flag: "offload",
      kind: onOff,
      default: "on",
      help: "Let the kernel merge and split datagrams (UDP GRO and GSO).",
    },
    steering: {
      flag: "steering",
      kind: onOff,
      default: "on",
      help: "Steer a node's registrations to the worker that owns its entry.",
    },
    /** Whether packets leave from the address they were sent to; "auto": with several. */
    sourceAddress: {
      flag: "source-address",
      kind: oneOf(["on", "off", "auto"]),
      default: "auto",
      help: "Send from the address that a node sent to; auto: if this host has several.",
    },
  },
} satisfies OptionGroups;

export type SocketsConfig = ValuesOf<typeof socketsOptions>;
