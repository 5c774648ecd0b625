import { afterEach, describe, expect, test } from "bun:test";
import pino from "pino";
import { AF_INET } from "../../../ffi/abi.ts";
import { ENDPOINT_WORDS, endpointOf } from "../../../ffi/endpoint.ts";
import { kernel } from "../../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch } from "../../../ffi/mmsg.ts";
import { UdpSocket } from "../../../ffi/socket.ts";
import {
  type HostAddress,
  hasSeveral,
  hostAddresses,
  SourceAddresses,
} from "../../../src/control/sockets/source-addresses.ts";
import { SharedMemory } from "../../../src/shared/memory.ts";
import { Peer } from "../../support/peer.ts";

const at = (text: string, link = "eth0"): HostAddress => ({
  text,
  endpoint: endpointOf(text, 0),
  link,
});
const LO = [at("127.0.0.1", "lo"), at("::1", "lo")];

describe("a host has several addresses", () => {
  const CASES: readonly [boolean, string, readonly HostAddress[]][] = [
    [false, "with loopback alone", LO],
    [false, "with one of each family", [...LO, at("192.0.2.1"), at("2001:db8::1"), at("fe80::1")]],
    [
      false,
      "with a link-local one on each interface",
      [at("fe80::1", "eth0"), at("fe80::2", "eth1")],
    ],
    [
      false,
      "with the same one on two interfaces",
      [at("192.0.2.1", "eth0"), at("192.0.2.1", "eth1")],
    ],
    [true, "with two of IPv4", [...LO, at("192.0.2.1"), at("192.0.2.2")]],
    [true, "with a virtual one on lo", [...LO, at("192.0.2.1"), at("198.51.100.1", "lo")]],
    [true, "with two of IPv6", [at("2001:db8::1"), at("2001:db8::2")]],
    [true, "with two link-local ones on an interface", [at("fe80::1"), at("fe80::2")]],
  ];
  for (const [several, name, addresses] of CASES)
    test(`${several ? "" : "not "}${name}`, () => expect(hasSeveral(addresses)).toBe(several));
});

test("addresses of interfaces are listed with their scope", () => {
  const base = { netmask: "", mac: "", internal: false };
  const listed = hostAddresses({
    eth0: [
      { ...base, address: "192.0.2.1", family: "IPv4", cidr: null },
      { ...base, address: "fe80::1", family: "IPv6", scopeid: 4, cidr: null },
      { ...base, address: "2001:db8::1", family: "IPv6", scopeid: 0, cidr: null },
    ],
  });
  expect(listed.map(({ text, link, endpoint }) => [text, link, endpoint[5]])).toEqual([
    ["192.0.2.1", "eth0", 0],
    ["fe80::1", "eth0", 4],
    ["2001:db8::1", "eth0", 0],
  ]);
});

describe("sources follow the destination", () => {
  const sockets: UdpSocket[] = [];
  afterEach(() => sockets.splice(0).forEach((socket) => void socket.close()));
  const log = pino({ level: "silent" });
  const TWO = [at("192.0.2.1"), at("192.0.2.2")];

  function sources(host: string, mode: "on" | "off" | "auto", list: () => readonly HostAddress[]) {
    const socket = UdpSocket.open(AF_INET);
    sockets.push(socket);
    socket.bind(host, 0);
    const memory = new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 1 });
    return new SourceAddresses(memory, [socket], mode, log, list);
  }

  test("on hosts with several addresses, with on anywhere, with off nowhere", () => {
    expect(sources("0.0.0.0", "auto", () => TWO).isOn).toBe(true);
    expect(sources("0.0.0.0", "auto", () => LO).isOn).toBe(false);
    expect(sources("0.0.0.0", "on", () => LO).isOn).toBe(true);
    expect(sources("0.0.0.0", "off", () => TWO).isOn).toBe(false);
  });

  test("on hosts that do not list their addresses", () => {
    const fails = () => {
      throw new Error("no netlink");
    };
    expect(sources("0.0.0.0", "auto", fails).isOn).toBe(true);
  });

  test("not from a socket that is bound to one address", () => {
    expect(sources("127.0.0.1", "on", () => TWO).isOn).toBe(false);
  });

  test("off is in force on sockets of another process that had it on", () => {
    const peer = new Peer(AF_INET, "0.0.0.0", (socket) => socket.receiveLocalAddresses(true));
    try {
      const memory = new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 1 });
      new SourceAddresses(memory, [peer.socket], "off", log, () => TWO);
      peer.send(Uint8Array.of(1), endpointOf("127.0.0.1", peer.port));
      const packets = allocatePacketMemory(1, 0);
      const batch = new ReceiveBatch(kernel, peer.socket.fd, AF_INET, 1, packets, true);
      expect(batch.receive(true)).toBe(1);
      expect(batch.readLocalAddress(0, new Int32Array(ENDPOINT_WORDS))).toBe(false);
    } finally {
      peer.close();
    }
  });

  test("an address of another process is adopted if this host has it", () => {
    const here = sources("0.0.0.0", "auto", () => TWO);
    expect(here.adopt(endpointOf("192.0.2.2", 0))).toBe(1);
    expect(here.adopt(endpointOf("192.0.2.9", 0))).toBe(0);
    expect(sources("0.0.0.0", "on", () => []).adopt(endpointOf("192.0.2.9", 0))).toBe(1);
    expect(sources("0.0.0.0", "off", () => TWO).adopt(endpointOf("192.0.2.2", 0))).toBe(0);
  });
});
