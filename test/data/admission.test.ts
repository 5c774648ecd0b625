/**
 * What limits, holds, denied addresses and breakers let in, from the datagram to what leaves. Time
 * is played.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AF_INET, AF_INET6, SOL_UDP, UDP_GRO } from "../../ffi/abi.ts";
import { ENDPOINT_WORDS, endpointFromName, endpointOf, type Family } from "../../ffi/endpoint.ts";
import { EAGAIN } from "../../ffi/errno.ts";
import { type Config, validateConfig } from "../../src/config.ts";
import { Limits } from "../../src/control/limits/limits.ts";
import { packetStats } from "../../src/control/workers/packet-stats.ts";
import { FrameHandler } from "../../src/data/frames.ts";
import { RelayLoop } from "../../src/data/loop.ts";
import { RUNS_MAX } from "../../src/data/runs.ts";
import {
  DISCOVER,
  DISCOVER_EX,
  DISCOVER_REPLY,
  MESSAGE_NAMES,
  PUNCH_COMMAND,
  PUNCH_REQUEST,
  RELAY,
  SYNC,
} from "../../src/protocol.ts";
import { BREAKERS } from "../../src/shared/counters.ts";
import { dropsOf } from "../../src/shared/drops.ts";
import {
  BREAKER_BITS,
  CLOCK_S,
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  SharedMemory,
} from "../../src/shared/memory.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { PeerTableOwner } from "../../src/shared/peers-owner.ts";
import { UNLIMITED } from "../e2e/support/beacon.ts";
import { nameFromBytes } from "../support/arbitraries.ts";
import {
  controlMessage,
  cut,
  int32Bytes,
  type ReceivedMessage,
  ScriptedKernel,
  type SentDatagram,
} from "../support/kernel.ts";

const MS = 1e6;
const SECOND = 1e9;
const WORKERS = 2;
const BATCH = 8;

interface Counted {
  readonly limited?: Record<string, number>;
  readonly limitedShadow?: Record<string, number>;
  readonly switchedOff?: Record<string, number>;
  readonly nodesRefused?: Record<string, number>;
}

/** Two workers' loops over one memory, as a beacon with these options has them. */
class Beacon {
  readonly memory: SharedMemory;
  readonly limits: Limits;
  readonly nodes: NodeTableOwner;
  readonly clock = { ns: 1000 * SECOND, nowNs: () => this.clock.ns };
  readonly kernels = Array.from({ length: WORKERS }, () => new ScriptedKernel(EAGAIN));
  readonly loops: readonly RelayLoop[];

  constructor(options: Partial<Config> = {}, family: Family = AF_INET, nodesMax = 5000) {
    this.memory = new SharedMemory({ workers: WORKERS, nodesMax, routesMax: 10 });
    this.memory.words[CLOCK_S] = 1;
    this.memory.words[HASH_SECRET] = 0x7e57;
    this.limits = new Limits(this.memory);
    this.configure(options);
    this.nodes = new NodeTableOwner(this.memory, MAIN_THREAD_LOCK);
    this.loops = this.kernels.map(
      (kernel, worker) =>
        new RelayLoop(
          kernel,
          this.memory,
          { worker, fd: 5, family, beaconId: 0, batchMax: BATCH, offload: family === AF_INET },
          this.clock,
        ),
    );
  }

  configure(options: Partial<Config>): void {
    this.limits.configure(validateConfig({ ...UNLIMITED, ...options }), 0);
  }

  /** The handler of bridged nodes' frames. */
  frames(kernel: ScriptedKernel): FrameHandler {
    const { memory, nodes, clock } = this;
    const options = { fd: 5, family: AF_INET, beaconId: 0, offload: true } as const;
    return new FrameHandler(
      kernel,
      memory,
      nodes,
      options,
      { put: () => true, flush: () => {} },
      clock,
    );
  }

  /** Time goes by, for the limits and for the node table. */
  pass(ns: number): void {
    this.clock.ns += ns;
    this.memory.words[CLOCK_S] = Math.floor((this.clock.ns - 1000 * SECOND) / SECOND) + 1;
  }

  /** A batch of messages for a worker. @returns what it sends */
  step(messages: readonly ReceivedMessage[], worker = 0): SentDatagram[] {
    const kernel = this.kernels[worker]!;
    const before = kernel.sent.length;
    kernel.receives.push(messages);
    this.loops[worker]!.step();
    return kernel.sent.slice(before).flatMap(cut);
  }

  /** One message. */
  send(name: Uint8Array, bytes: Uint8Array, worker = 0): SentDatagram[] {
    return this.step([{ name, bytes }], worker);
  }

  register(nodeId: number, host: number): void {
    this.nodes.record(
      nodeId,
      endpointOf(`10.0.0.${host}`, 4000 + host),
      0,
      0,
      this.memory.words[CLOCK_S]!,
    );
  }

  /** What was counted by limits, without what stands at 0. */
  get counted(): Counted {
    const rows = Array.from({ length: WORKERS + 1 }, (_, row) =>
      packetStats(this.memory, this.memory.counterRow(row)),
    );
    const kinds = ["limited", "limitedShadow", "switchedOff", "nodesRefused"] as const;
    const sums = kinds.map((kind) => {
      const names = Object.keys(rows[0]![kind]);
      const counts = names.map(
        (name) => [name, rows.reduce((sum, row) => sum + row[kind][name]!, 0)] as const,
      );
      return [kind, Object.fromEntries(counts.filter(([, count]) => count > 0))] as const;
    });
    return Object.fromEntries(sums.filter(([, counts]) => Object.keys(counts).length > 0));
  }

  endpointOf(nodeId: number): string | undefined {
    const entry = [...this.nodes.entries()].find((node) => node.nodeId === nodeId);
    return entry && String(entry.endpoint);
  }
}

/** struct sockaddr_in of 10.0.0.`host`. */
function name(host: number, port = 4000 + host): Uint8Array {
  return new Uint8Array([
    AF_INET,
    0,
    port >> 8,
    port & 0xff,
    10,
    0,
    0,
    host,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
  ]);
}
const nameOf4 = (address: readonly number[], port = 4000) =>
  new Uint8Array(nameFromBytes(AF_INET, Uint8Array.from(address), port).buffer, 0, 16);
const nameOf6 = (address: readonly number[], port = 4000) =>
  new Uint8Array(nameFromBytes(AF_INET6, Uint8Array.from(address), port).buffer, 0, 28);
const ipv6 = (subnet: number, host: number) => [
  0x20,
  1,
  0xd,
  0xb8,
  0,
  0,
  subnet >> 8,
  subnet & 0xff,
  0,
  0,
  0,
  0,
  0,
  0,
  host >> 8,
  host & 0xff,
];

const u32 = (value: number): number[] => [
  value >>> 24,
  (value >>> 16) & 0xff,
  (value >>> 8) & 0xff,
  value & 0xff,
];
const message = (type: number, ids: readonly number[], tail: readonly number[] = []) =>
  new Uint8Array([type, ...ids.flatMap(u32), ...tail]);
const relay = (to: number, serial = 0) => message(RELAY, [99, to], u32(serial));
/** Relays of one size, as they arrive merged. */
const merged = (host: number, packets: readonly Uint8Array[]): ReceivedMessage => ({
  name: name(host),
  bytes: new Uint8Array(Buffer.concat(packets)),
  control: controlMessage(SOL_UDP, UDP_GRO, int32Bytes(packets[0]!.length)),
});
const times = <T>(count: number, make: (i: number) => T) =>
  Array.from({ length: count }, (_, i) => make(i));

describe("relays of a source", () => {
  test("are let in up to the limit, and then at its rate; another port is another source", () => {
    const beacon = new Beacon({ relayLimit: 10 });
    beacon.register(1, 1);
    for (const i of times(10, (i) => i)) expect(beacon.send(name(2), relay(1, i))).toHaveLength(1);
    expect(beacon.send(name(2), relay(1))).toEqual([]);
    expect(beacon.send(name(2, 9999), relay(1))).toHaveLength(1);
    beacon.pass(100 * MS);
    expect(beacon.send(name(2), relay(1))).toHaveLength(1);
    expect(beacon.send(name(2), relay(1))).toEqual([]);
    expect(beacon.counted).toEqual({ limited: { relay: 2 } });
  });

  test("are one budget for all workers", () => {
    const beacon = new Beacon({ relayLimit: 10 });
    beacon.register(1, 1);
    const sent = times(20, (i) => beacon.send(name(2), relay(1), i % WORKERS).length);
    expect(sent).toEqual([...times(10, () => 1), ...times(10, () => 0)]);
    expect(beacon.counted).toEqual({ limited: { relay: 10 } });
  });

  test("to nobody count too", () => {
    const beacon = new Beacon({ relayLimit: 10 });
    beacon.register(1, 1);
    for (let i = 0; i < 10; i++) beacon.send(name(2), relay(404));
    expect(beacon.send(name(2), relay(1))).toEqual([]);
  });

  test("that arrive merged are let in as far as the limit goes, in their order", () => {
    const beacon = new Beacon({ relayLimit: 10 });
    beacon.register(1, 1);
    const sent = beacon.step([
      merged(
        2,
        times(16, (i) => relay(1, i)),
      ),
    ]);
    expect(sent.map(({ bytes }) => bytes.at(-1)!)).toEqual(times(10, (i) => i));
    expect(beacon.counted).toEqual({ limited: { relay: 6 } });
    beacon.pass(SECOND / 5);
    const more = beacon.step([
      merged(
        2,
        times(3, (i) => relay(1, 50 + i)),
      ),
    ]);
    expect(more.map(({ bytes }) => bytes.at(-1)!)).toEqual([50, 51]);
    expect(beacon.counted).toEqual({ limited: { relay: 7 } });
  });

  test("that arrive merged for many nodes are asked for once, however often the batch is sent in parts", () => {
    const PACKETS = 60;
    const MESSAGES = 8;
    expect(PACKETS * MESSAGES).toBeGreaterThan(RUNS_MAX);
    const beacon = new Beacon({ relayLimit: PACKETS * MESSAGES });
    for (let id = 1; id <= PACKETS * MESSAGES; id++)
      beacon.nodes.record(id, endpointOf("10.0.1.1", id), 0, 0, 1);
    const messages = times(MESSAGES, (m) =>
      merged(
        2,
        times(PACKETS, (i) => relay(1 + m * PACKETS + i)),
      ),
    );
    expect(beacon.step(messages)).toHaveLength(PACKETS * MESSAGES);
    expect(beacon.counted).toEqual({});
    expect(beacon.send(name(2), relay(1))).toEqual([]);
  });

  test("of a learned peer are limited as anybody's", () => {
    const beacon = new Beacon({ relayLimit: 10 });
    beacon.register(1, 1);
    const peer = new Int32Array(ENDPOINT_WORDS);
    endpointFromName(AF_INET, new Int32Array(name(7).slice().buffer), 0, peer, 0);
    new PeerTableOwner(beacon.memory).addLearned(peer, 0);
    const relays = times(30, (i) => relay(1, i));
    expect(beacon.step([merged(7, relays)])).toHaveLength(10);
    expect(beacon.counted).toEqual({ limited: { relay: 20 } });
  });

  test("of a peer beacon are all let in", () => {
    const beacon = new Beacon({ relayLimit: 10 });
    beacon.register(1, 1);
    const peer = new Int32Array(ENDPOINT_WORDS);
    endpointFromName(AF_INET, new Int32Array(name(7).slice().buffer), 0, peer, 0);
    new PeerTableOwner(beacon.memory).add(peer, 0);
    expect(
      beacon.step([
        merged(
          7,
          times(30, (i) => relay(1, i)),
        ),
      ]),
    ).toHaveLength(30);
    expect(beacon.send(name(7), relay(1))).toHaveLength(1);
    expect(beacon.counted).toEqual({});
  });

  test("in shadow are counted and let in", () => {
    const beacon = new Beacon({ relayLimit: 10, limitsShadow: true });
    beacon.register(1, 1);
    expect(
      beacon.step([
        merged(
          2,
          times(16, (i) => relay(1, i)),
        ),
      ]),
    ).toHaveLength(16);
    expect(beacon.send(name(2), relay(1))).toHaveLength(1);
    expect(beacon.counted).toEqual({ limitedShadow: { relay: 7 } });
  });

  test("are limited by the configuration of the moment", () => {
    const beacon = new Beacon({ relayLimit: 10 });
    beacon.register(1, 1);
    expect(
      beacon.step([
        merged(
          2,
          times(16, (i) => relay(1, i)),
        ),
      ]),
    ).toHaveLength(10);
    beacon.configure({ relayLimit: 0 });
    expect(
      beacon.step([
        merged(
          2,
          times(16, (i) => relay(1, i)),
        ),
      ]),
    ).toHaveLength(16);
  });

  test("of a bridged node count by the id that it has proven, wherever it comes from", () => {
    const beacon = new Beacon({ relayLimit: 10 });
    beacon.register(1, 1);
    const kernel = new ScriptedKernel(EAGAIN);
    const frames = beacon.frames(kernel);
    const from = (nodeId: number, host: number) =>
      frames.handle(nodeId, endpointOf(`192.0.2.${host}`, 1000), message(RELAY, [nodeId, 1], [7]));
    for (let i = 0; i < 12; i++) from(50, i);
    from(51, 1);
    frames.flush();
    expect(kernel.datagrams).toHaveLength(11);
    expect(beacon.counted).toEqual({ limited: { relay: 2 } });
  });
});

describe("relays of an address", () => {
  const mergedOf = (at: Uint8Array, count: number): ReceivedMessage => ({
    ...merged(
      2,
      times(count, (i) => relay(1, i)),
    ),
    name: at,
  });
  const PORTS = times(12, (i) => 5000 + i);

  test("are limited together, over all its ports", () => {
    const beacon = new Beacon({ relayAddressLimit: 10 });
    beacon.register(1, 1);
    const sent = PORTS.map((port, i) => beacon.send(name(2, port), relay(1), i % WORKERS).length);
    expect(sent).toEqual([...times(10, () => 1), 0, 0]);
    expect(beacon.send(name(3), relay(1))).toHaveLength(1);
    beacon.pass(100 * MS);
    expect(beacon.send(name(2, 9999), relay(1))).toHaveLength(1);
    expect(beacon.send(name(2, 9998), relay(1))).toHaveLength(0);
    expect(beacon.counted).toEqual({ limited: { relay_address: 3 } });
    const drops = dropsOf(beacon.memory, 1);
    expect(drops.map(({ reason }) => reason)).toEqual(times(WORKERS, () => "relay_address_limit"));
    expect(drops.reduce((sum, { count }) => sum + count, 0)).toBe(3);
  });

  test("are those of a /64 over IPv6", () => {
    const beacon = new Beacon({ relayAddressLimit: 10 }, AF_INET6);
    beacon.nodes.record(1, endpointOf("2001:db8:9::1", 4001), 0, 0, 1);
    const relays = (subnet: number) =>
      times(12, (i) => beacon.send(nameOf6(ipv6(subnet, i), 4000 + i), relay(1)).length);
    expect(relays(1)).toEqual([...times(10, () => 1), 0, 0]);
    expect(relays(2)).toEqual([...times(10, () => 1), 0, 0]);
  });

  test("cost the address nothing where the source's own limit refuses them", () => {
    const beacon = new Beacon({ relayLimit: 10, relayAddressLimit: 20 });
    beacon.register(1, 1);
    expect(beacon.step([mergedOf(name(2, 5001), 60)])).toHaveLength(10);
    for (let i = 0; i < 60; i++) beacon.send(name(2, 5001), relay(1));
    expect(beacon.step([mergedOf(name(2, 5002), 10)])).toHaveLength(10);
    expect(beacon.counted).toEqual({ limited: { relay: 110 } });
  });

  test("cost their source nothing where the address's limit refuses them", () => {
    const beacon = new Beacon({ relayLimit: 10, relayAddressLimit: 16 });
    beacon.register(1, 1);
    beacon.step([mergedOf(name(2, 5001), 10)]);
    expect(beacon.step([mergedOf(name(2, 5002), 10)])).toHaveLength(6);
    for (let i = 0; i < 60; i++) expect(beacon.send(name(2, 5002), relay(1))).toEqual([]);
    expect(beacon.counted).toEqual({ limited: { relay_address: 64 } });
    // By then the address may send 6 more; and the source, which has used 6 of its 10, 8 more.
    beacon.pass(400 * MS);
    expect(beacon.step([mergedOf(name(2, 5002), 10)])).toHaveLength(6);
  });

  test("that arrive merged count for the limit that admits the fewest", () => {
    const beacon = new Beacon({ relayLimit: 10, relayAddressLimit: 12 });
    beacon.register(1, 1);
    expect(beacon.step([mergedOf(name(2, 5001), 16)])).toHaveLength(10);
    expect(beacon.counted).toEqual({ limited: { relay: 6 } });
    expect(beacon.step([mergedOf(name(2, 5002), 16)])).toHaveLength(2);
    expect(beacon.counted).toEqual({ limited: { relay: 6, relay_address: 14 } });
    const reasons = dropsOf(beacon.memory, 1).map(({ reason, count }) => [reason, count]);
    expect(reasons.toSorted()).toEqual([
      ["relay_address_limit", 14],
      ["relay_limit", 6],
    ]);
  });

  test("in shadow are counted and let in", () => {
    const beacon = new Beacon({ relayAddressLimit: 10, limitsShadow: true });
    beacon.register(1, 1);
    for (const port of PORTS) expect(beacon.send(name(2, port), relay(1))).toHaveLength(1);
    expect(beacon.counted).toEqual({ limitedShadow: { relay_address: 2 } });
  });

  test("of a peer beacon are all let in, and cost the nodes at its address nothing", () => {
    const beacon = new Beacon({ relayLimit: 10, relayAddressLimit: 10 });
    beacon.register(1, 1);
    const peer = new Int32Array(ENDPOINT_WORDS);
    endpointFromName(AF_INET, new Int32Array(name(7).slice().buffer), 0, peer, 0);
    new PeerTableOwner(beacon.memory).add(peer, 0);
    expect(beacon.step([mergedOf(name(7), 30)])).toHaveLength(30);
    expect(beacon.step([mergedOf(name(7, 9999), 10)])).toHaveLength(10);
    expect(beacon.counted).toEqual({});
  });

  test("of bridged nodes are none: many may be behind one proxy", () => {
    const beacon = new Beacon({ relayAddressLimit: 2 });
    beacon.register(1, 1);
    const kernel = new ScriptedKernel(EAGAIN);
    const frames = beacon.frames(kernel);
    for (let id = 50; id < 60; id++)
      frames.handle(id, endpointOf("192.0.2.1", 1000), message(RELAY, [id, 1], [7]));
    frames.flush();
    expect(kernel.datagrams).toHaveLength(10);
    expect(beacon.counted).toEqual({});
  });

  /**
   * Has each of some ports of one address send so many Relays a second, for 3 s.
   * @returns how many a second are let in
   */
  function letInPerSecond(ports: number, perSecond: number): number {
    const { relayLimit, relayAddressLimit } = validateConfig({});
    const beacon = new Beacon({ relayLimit, relayAddressLimit });
    beacon.register(1, 1);
    const SECONDS = 3;
    let sent = 0;
    // The first second is the burst.
    for (let second = 0; second <= SECONDS; second++) {
      for (let tenth = 0; tenth < 10; tenth++) {
        beacon.pass(SECOND / 10);
        for (let port = 0; port < ports; port++) {
          const now = beacon.step([mergedOf(name(2, 5000 + port), perSecond / 10)]).length;
          if (second > 0) sent += now;
        }
      }
    }
    return sent / SECONDS;
  }

  test("of a carrier's NAT with 300 nodes that relay 60 a second each are all let in, at the default", () => {
    expect(letInPerSecond(300, 60)).toBe(300 * 60);
  });

  test("of a host with ten ports are no more than the default, however many it sends", () => {
    const { relayAddressLimit } = validateConfig({});
    expect(letInPerSecond(10, 4000)).toBeWithin(relayAddressLimit * 0.99, relayAddressLimit * 1.01);
  });
});

describe("punch requests", () => {
  const punch = (requester: number, target: number) => message(PUNCH_REQUEST, [requester, target]);

  test("of one address, whatever its port, are let in ten at once, and then at the rate", () => {
    const beacon = new Beacon({ punchSourceLimit: 1 });
    beacon.register(1, 1);
    const sent = times(12, (i) => beacon.send(name(2, 100 + i), punch(2, 1)).length);
    expect(sent).toEqual([...times(10, () => 2), 0, 0]);
    expect(beacon.send(name(3), punch(3, 1))).toHaveLength(2);
    beacon.pass(SECOND);
    expect(beacon.send(name(2), punch(2, 1))).toHaveLength(2);
    expect(beacon.send(name(2), punch(2, 1))).toHaveLength(0);
    expect(beacon.counted).toEqual({ limited: { punch_source: 3 } });
  });

  test("of hosts in one /64 are one source", () => {
    const beacon = new Beacon({ punchSourceLimit: 1 }, AF_INET6);
    const sources = times(20, (i) => nameOf6(ipv6(1, i)));
    for (const source of sources) beacon.send(source, punch(0, 1));
    expect(beacon.counted).toEqual({ limited: { punch_source: 10 } });
    beacon.send(nameOf6(ipv6(2, 1)), punch(0, 1));
    expect(beacon.counted).toEqual({ limited: { punch_source: 10 } });
  });

  test("of all together are limited, and what a source's own limit refuses costs the others nothing", () => {
    const beacon = new Beacon({ punchLimit: 20, punchSourceLimit: 1 });
    beacon.register(1, 1);
    for (let i = 0; i < 100; i++) beacon.send(name(2), punch(2, 1));
    const sent = times(12, (i) => beacon.send(name(10 + i), punch(10 + i, 1)).length);
    expect(sent).toEqual([...times(10, () => 2), 0, 0]);
    expect(beacon.counted).toEqual({ limited: { punch_source: 90, punch: 2 } });
  });

  test("the overall limit grows with the nodes unless it is given", () => {
    const allowed = (nodes: number, punchLimit: Config["punchLimit"]) => {
      const beacon = new Beacon({ punchLimit });
      beacon.limits.tick(nodes);
      beacon.register(1, 1);
      return times(9000, (i) => beacon.send(name(2, 1 + i), punch(0, 1)).length / 2).reduce(
        (sum, one) => sum + one,
      );
    };
    expect(allowed(10, "auto")).toBe(100);
    expect(allowed(170_000, "auto")).toBe(5667);
    expect(allowed(170_000, 7)).toBe(7);
  });

  test("of allowed addresses are not limited", () => {
    const beacon = new Beacon({
      punchSourceLimit: 1,
      punchLimit: 1,
      punchAllow: ["10.0.0.2", "10.0.0.8/29"],
    });
    beacon.register(1, 1);
    for (let i = 0; i < 50; i++) {
      expect(beacon.send(name(2), punch(2, 1))).toHaveLength(2);
      expect(beacon.send(name(8 + (i % 8)), punch(2, 1))).toHaveLength(2);
    }
    expect(beacon.send(name(16), punch(2, 1))).toHaveLength(2);
    expect(beacon.send(name(7), punch(2, 1))).toHaveLength(0);
    beacon.configure({ punchSourceLimit: 1, punchLimit: 1, punchAllow: ["*"] });
    expect(beacon.send(name(7), punch(2, 1))).toHaveLength(2);
  });

  test("over the limit record nothing", () => {
    const beacon = new Beacon({ punchLimit: 1 });
    beacon.send(name(2), punch(2, 1));
    beacon.send(name(3), punch(3, 1));
    expect(beacon.nodes.size()).toBe(1);
  });
});

describe("a node's endpoint", () => {
  const claims = {
    "a Discover": (id: number) => message(DISCOVER, [id]),
    "a DiscoverEx": (id: number) => message(DISCOVER_EX, [id]),
    "a PunchRequest": (id: number) => message(PUNCH_REQUEST, [id, 404]),
  };

  describe.each(Object.entries(claims))("claimed by %s of another address", (_, claim) => {
    test("stays while the node was heard within the hold, and what claims it gets its own address", () => {
      const beacon = new Beacon({ endpointHoldMs: 30_000 });
      beacon.send(name(1), message(DISCOVER, [5]));
      const before = beacon.endpointOf(5);
      for (let s = 0; s < 29; s++) {
        beacon.pass(SECOND);
        const answers = beacon.send(name(66), claim(5));
        const isDiscover = claim(5)[0] !== PUNCH_REQUEST;
        expect(answers.map(({ bytes }) => [...bytes])).toEqual(
          isDiscover ? [[DISCOVER_REPLY, 4, 10, 0, 0, 66, 4066 >> 8, 4066 & 0xff]] : [],
        );
      }
      expect(beacon.endpointOf(5)).toBe(before!);
      expect(beacon.counted).toEqual({ limited: { endpoint_hold: 29 } });
      // Claims refresh nothing: it is silent for as long as it sends nothing itself.
      beacon.pass(2 * SECOND);
      beacon.send(name(66), claim(5));
      expect(beacon.endpointOf(5)).not.toBe(before!);
    });

    test("stays for ever if the node is heard often enough", () => {
      const beacon = new Beacon({ endpointHoldMs: 30_000 });
      beacon.send(name(1), message(DISCOVER, [5]));
      const before = beacon.endpointOf(5);
      for (let s = 0; s < 600; s++) {
        beacon.pass(SECOND);
        beacon.send(name(66), claim(5));
        if (s % 25 === 24) beacon.send(name(1), message(DISCOVER, [5]));
      }
      expect(beacon.endpointOf(5)).toBe(before!);
    });

    test("moves at once without a hold, and in shadow, where it is counted", () => {
      for (const options of [{}, { endpointHoldMs: 30_000, limitsShadow: true }]) {
        const beacon = new Beacon(options);
        beacon.send(name(1), message(DISCOVER, [5]));
        const before = beacon.endpointOf(5);
        beacon.send(name(66), claim(5));
        expect(beacon.endpointOf(5)).not.toBe(before!);
        expect(beacon.counted).toEqual(
          "limitsShadow" in options ? { limitedShadow: { endpoint_hold: 1 } } : {},
        );
      }
    });

    test("stays for as long as the node is connected through the bridge, where it has proven who it is", () => {
      const beacon = new Beacon({ endpointHoldMs: 30_000 });
      beacon.nodes.bridge(5, 1);
      beacon.pass(1000 * SECOND);
      beacon.send(name(66), claim(5));
      expect(beacon.counted).toEqual({ limited: { endpoint_hold: 1 } });
      beacon.nodes.unbridge(5);
      expect(beacon.endpointOf(5)).toBeUndefined();
    });
  });
});

describe("new nodes of an address", () => {
  test("are recorded ten seconds' worth at once, and then at the rate; the others are answered all the same", () => {
    const beacon = new Beacon({ newNodeLimit: 5 });
    const answers = times(
      60,
      (i) => beacon.send(name(2, 100 + i), message(DISCOVER, [1 + i])).length,
    );
    expect(answers).toEqual(times(60, () => 1));
    expect(beacon.nodes.size()).toBe(50);
    expect(beacon.counted).toEqual({ limited: { new_node: 10 } });
    beacon.pass(SECOND);
    for (let i = 0; i < 10; i++) beacon.send(name(2), message(PUNCH_REQUEST, [100 + i, 404]));
    expect(beacon.nodes.size()).toBe(55);
    // Who is known is refreshed freely, and who comes from elsewhere gets in.
    for (let i = 0; i < 50; i++) beacon.send(name(2, 100 + i), message(DISCOVER, [1 + i]));
    beacon.send(name(3), message(DISCOVER, [500]));
    expect(beacon.nodes.size()).toBe(56);
    expect(beacon.counted).toEqual({ limited: { new_node: 15 } });
  });

  test("of a carrier's NAT with thousands of nodes get in within two heartbeats, at the default", () => {
    const beacon = new Beacon({ newNodeLimit: validateConfig({}).newNodeLimit });
    const NODES = 4900;
    const HEARTBEAT_MS = 30_000;
    for (let beat = 0; beat < 2; beat++) {
      for (let i = 0; i < NODES; i++) {
        beacon.send(name(2, 1 + i), message(DISCOVER, [1 + i]));
        beacon.pass((HEARTBEAT_MS / NODES) * MS);
      }
    }
    expect(beacon.nodes.size()).toBe(NODES);
  });

  test("of one host fill an eighth of the table at most, at the defaults, however many it makes up", () => {
    const { newNodeLimit, maxNodes, nodeTtlMs } = validateConfig({});
    const beacon = new Beacon({ newNodeLimit }, AF_INET, maxNodes / 4);
    const { nodes, memory } = beacon;
    const ttlS = nodeTtlMs / 1000;
    let id = 0;
    let mostNodes = 0;
    // Half as many again as the limit admits, until the first ones have expired.
    for (let second = 0; second < ttlS + 60; second++) {
      for (let sent = 0; sent < 1.5 * newNodeLimit; sent += BATCH)
        beacon.step(
          times(BATCH, (i) => ({
            name: name(2, 1024 + sent + i),
            bytes: message(DISCOVER, [++id]),
          })),
        );
      beacon.pass(SECOND);
      for (let shard = 0; second % 5 === 0 && shard < WORKERS; shard++)
        nodes.expire(shard, 0, nodes.slotsPerShard, memory.words[CLOCK_S]! - ttlS);
      mostNodes = Math.max(mostNodes, nodes.size());
    }
    expect(mostNodes).toBeWithin(newNodeLimit * ttlS, maxNodes / 8);
    expect(nodes.size()).toBeWithin(newNodeLimit * (ttlS - 1), newNodeLimit * (ttlS + 7));
  });
});

describe("answers to an address", () => {
  test("are as many as its limit lets go, whatever the port and the message", () => {
    const beacon = new Beacon({ answerLimit: 20 });
    beacon.register(1, 1);
    let answers = 0;
    for (let i = 0; i < 20; i++) {
      answers += beacon.send(name(2, 100 + i), message(DISCOVER, [0])).length;
      answers += beacon.send(name(2, 100 + i), message(DISCOVER_EX, [7])).length;
    }
    expect(answers).toBe(20);
    // To each end of a punch as its own limit lets.
    expect(
      beacon.send(name(2), message(PUNCH_REQUEST, [0, 1])).map((sent) => sent.name.slice(8, 16)),
    ).toEqual(["0a000001"]);
    expect(beacon.counted).toEqual({ limited: { answer: 21 } });
    expect(beacon.send(name(3), message(DISCOVER, [0]))).toHaveLength(1);
    expect(beacon.nodes.size()).toBe(2); // recorded without an answer
  });
});

describe("an address at which no node may be", () => {
  const NOBODYS = [
    [0, 0, 0, 0],
    [0, 1, 2, 3],
    [224, 0, 0, 1],
    [239, 255, 255, 250],
    [255, 255, 255, 255],
  ];
  const NOBODYS6 = [times(16, () => 0), [0xff, 2, ...times(13, () => 0), 1]];

  test.each([
    ...NOBODYS.map((address) => [address.join("."), AF_INET, nameOf4(address)] as const),
    ...NOBODYS6.map((address, i) => [["::", "ff02::1"][i]!, AF_INET6, nameOf6(address)] as const),
    ...NOBODYS.map((address) => {
      const mapped = nameOf6([...times(10, () => 0), 0xff, 0xff, ...address]);
      return [`::ffff:${address.join(".")}`, AF_INET6, mapped] as const;
    }),
  ])("%s is never recorded, answered or punched at", (_, family, source) => {
    const beacon = new Beacon({}, family);
    beacon.nodes.record(1, endpointOf("10.0.0.1", 4001), 0, 0, 1);
    expect(beacon.send(source, message(DISCOVER, [5]))).toEqual([]);
    expect(beacon.send(source, message(DISCOVER, [0]))).toEqual([]);
    expect(beacon.send(source, message(PUNCH_REQUEST, [5, 1]))).toEqual([]);
    expect(beacon.nodes.size()).toBe(1);
    expect(beacon.counted).toEqual({ nodesRefused: { denied_endpoint: 3 } });
  });

  test("is what the operator says, too, from then on; who is known there goes silent", () => {
    const beacon = new Beacon();
    beacon.send(name(1), message(DISCOVER, [1]));
    beacon.configure({ denyEndpoint: ["10.0.0.0/30", "192.168.0.0/16"] });
    expect(beacon.send(name(1), message(DISCOVER, [1]))).toEqual([]);
    expect(beacon.send(name(3), message(DISCOVER, [3]))).toEqual([]);
    expect(beacon.send(name(4), message(DISCOVER, [4]))).toHaveLength(1);
    expect(beacon.send(nameOf4([192, 168, 255, 1]), message(DISCOVER, [5]))).toEqual([]);
    expect(beacon.send(nameOf4([192, 167, 255, 1]), message(DISCOVER, [6]))).toHaveLength(1);
    expect(beacon.limits.isDenied(endpointOf("192.168.1.1", 1))).toBe(true);
    expect(beacon.limits.isDenied(endpointOf("192.169.1.1", 1))).toBe(false);
    beacon.configure({});
    expect(beacon.send(name(3), message(DISCOVER, [3]))).toHaveLength(1);
  });

  test("may still send relays, which bring nothing there", () => {
    const beacon = new Beacon({ denyEndpoint: ["10.0.0.2"] });
    beacon.register(1, 1);
    expect(beacon.send(name(2), relay(1))).toHaveLength(1);
  });
});

describe("a breaker", () => {
  const messages = {
    discover: [message(DISCOVER, [0]), message(DISCOVER_EX, [7])],
    punch: [message(PUNCH_REQUEST, [0, 1]), message(PUNCH_REQUEST, [8, 1])],
    relay: [relay(1), relay(404)],
  };

  test.each(BREAKERS)(
    "of %s lets none of these through while it is off, and all others",
    (breaker) => {
      const beacon = new Beacon();
      beacon.register(1, 1);
      beacon.memory.words[beacon.memory.rulesAt + BREAKER_BITS] = 1 << BREAKERS.indexOf(breaker);
      for (const one of messages[breaker]) expect(beacon.send(name(2), one)).toEqual([]);
      expect(beacon.counted).toEqual({ switchedOff: { [breaker]: 2 } });
      for (const other of BREAKERS.filter((each) => each !== breaker)) {
        expect(beacon.send(name(2), messages[other][0]!).length).toBeGreaterThan(0);
      }
      beacon.memory.words[beacon.memory.rulesAt + BREAKER_BITS] = 0;
      expect(beacon.send(name(2), messages[breaker][0]!).length).toBeGreaterThan(0);
    },
  );
});

describe("a datagram with a made-up source", () => {
  const [HEADERS, HEADERS_6] = [20 + 8, 40 + 8];
  const GROWTH_MAX = 1.3;

  /**
   * The bytes on the wire that go to a sockaddr, IP and UDP headers included; punch commands aside.
   */
  function wireBytesTo(victim: Uint8Array, sent: readonly SentDatagram[], headers: number): number {
    const to = sent.filter(
      ({ name: at, bytes }) =>
        at === Buffer.from(victim).toString("hex") && bytes[0] !== PUNCH_COMMAND,
    );
    return to.reduce((sum, { bytes }) => sum + headers + bytes.length, 0);
  }

  describe.each([
    ["IPv4", AF_INET, name(66), HEADERS],
    [
      "IPv4, on a dual-stack socket",
      AF_INET6,
      nameOf6([...times(10, () => 0), 0xff, 0xff, 10, 0, 0, 66]),
      HEADERS,
    ],
    ["IPv6", AF_INET6, nameOf6(ipv6(1, 66)), HEADERS_6],
  ] as const)("over %s", (_, family, victim, headers) => {
    const node =
      family === AF_INET ? endpointOf("10.0.0.1", 4001) : endpointOf("2001:db8:1::1", 4001);
    const beacon = new Beacon({}, family);
    beacon.nodes.record(1, node, 0, 0, 1);
    /** The whole type space, and bytes behind the fixed part that may mean something. */
    const datagram = fc.oneof(
      fc
        .tuple(fc.integer({ min: 0, max: 255 }), fc.uint8Array({ maxLength: 64 }))
        .map(([type, tail]) => new Uint8Array([type, ...tail])),
      fc
        .tuple(
          fc.integer({ min: 0, max: MESSAGE_NAMES.length }),
          fc.constantFrom(0, 1, 5, 404),
          fc.constantFrom(0, 1, 5, 404),
          fc.uint8Array({ maxLength: 40 }),
        )
        .map(([type, first, second, tail]) => message(type, [first, second], [...tail])),
    );

    test("makes the beacon send its victim 1.3 times its size at most, whatever it says", () => {
      fc.assert(
        fc.property(datagram, (bytes) => {
          const sent = beacon.send(victim, bytes);
          return wireBytesTo(victim, sent, headers) <= GROWTH_MAX * (headers + bytes.length);
        }),
        { numRuns: 2000 },
      );
    });

    test("and of each type the shortest that is answered is the worst", () => {
      const growth = times(256, (type) => {
        const sizes = times(40, (size) =>
          new Uint8Array([type, ...u32(7), ...u32(9999), ...times(40, () => 0)]).subarray(
            0,
            1 + size,
          ),
        );
        return Math.max(
          ...sizes.map(
            (bytes) =>
              wireBytesTo(victim, beacon.send(victim, bytes), headers) / (headers + bytes.length),
          ),
        );
      });
      const answered = growth.flatMap((factor, type) => (factor > 0 ? [type] : []));
      expect(answered).toEqual([DISCOVER, DISCOVER_EX]);
      const replyBytes = headers === HEADERS ? 8 : 20;
      expect(Math.max(...growth)).toBeCloseTo((headers + replyBytes) / (headers + 5));
      expect(Math.max(...growth)).toBeLessThanOrEqual(GROWTH_MAX);
    });

    test("of any type brings its victim no more than the answer limit, over all ports", () => {
      const ANSWERS = 25;
      beacon.configure({ answerLimit: ANSWERS });
      const types = [DISCOVER, DISCOVER_EX, PUNCH_REQUEST, RELAY, SYNC, 0, 2, 4, 6, 9, 200];
      let arrived = 0;
      for (let i = 0; i < 500; i++) {
        const source = victim.slice();
        source[2] = i >> 8;
        source[3] = 1 + (i & 0x7f);
        const sent = beacon.send(source, message(types[i % types.length]!, [5, 1]));
        arrived += sent.filter(({ name: at }) => at === Buffer.from(source).toString("hex")).length;
      }
      expect(arrived).toBeWithin(1, ANSWERS + 1);
    });
  });
});
