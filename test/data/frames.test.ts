import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AF_INET, AF_INET6, UDP_PAYLOAD_MAX } from "../../ffi/abi.ts";
import { ENDPOINT_WORDS, endpointOf, type Family } from "../../ffi/endpoint.ts";
import {
  EACCES,
  EAGAIN,
  EINTR,
  EIO,
  EMSGSIZE,
  ENETUNREACH,
  ENOBUFS,
  EPERM,
  errnoName,
} from "../../ffi/errno.ts";
import { kernel, type PacketCalls } from "../../ffi/libc.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { FRAME_BYTES_MAX, FrameHandler, type FrameTaker } from "../../src/data/frames.ts";
import { RUNS_MAX } from "../../src/data/runs.ts";
import {
  DISCOVER,
  DISCOVER_EX,
  DISCOVER_REPLY,
  MESSAGE_NAMES,
  PUNCH_COMMAND,
  PUNCH_REQUEST,
  RELAY,
  RELAY_DELIVER,
  RELAY_DELIVER_DEST,
  SYNC,
} from "../../src/protocol.ts";
import {
  COUNTER_ROW,
  DISCOVERS,
  DROP_REASONS,
  type DropReason,
  GOSSIP_RECEIVED,
  GOSSIP_REJECTED_AT,
  GOSSIP_REJECTIONS,
  MALFORMED_AT,
  MALFORMED_REASONS,
  PUNCHES_BRIDGED,
  PUNCHES_SENT,
  PUNCHES_TARGET_UNKNOWN,
  RECEIVED_AT,
  REFUSAL_REASONS,
  REFUSED_AT,
  RELAY_DROPPED_AT,
  RELAY_NOT_FOUND,
  RELAYED_LOCAL,
  RELAYED_TO_PEER,
  REPLY_DROPPED_AT,
  SEGMENTS_SENT,
  SENT_BYTES,
} from "../../src/shared/counters.ts";
import { MailboxReader } from "../../src/shared/mailbox.ts";
import {
  CLOCK_S,
  FRAMES,
  GOSSIP,
  HASH_SECRET,
  LAST_REJECTED_SOURCE,
  LAST_REJECTION,
  MAIN_THREAD_LOCK,
  OFFLOAD_ERRNO,
  SharedMemory,
  STRANGERS_BELIEVED,
} from "../../src/shared/memory.ts";
import { ADDED } from "../../src/shared/nodes.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { PeerTableOwner } from "../../src/shared/peers-owner.ts";
import { RouteTableOwner } from "../../src/shared/routes-owner.ts";
import { WANTS_DEST } from "../../src/shared/slots.ts";
import { Random } from "../e2e/support/random.ts";
import { cut, hex, ScriptedKernel, type SendStep } from "../support/kernel.ts";
import { LOOPBACK, Peer } from "../support/peer.ts";

const WORKERS = 2;

interface Frame {
  readonly nodeId: number;
  readonly bytes: Uint8Array;
}

/**
 * What connections would get. Frames are read when they are flushed, and no sooner: until then they
 * have to stay as they are.
 */
class Connections implements FrameTaker {
  readonly got: Frame[] = [];
  flushes = 0;
  hasRoom = true;
  readonly #pending: { nodeId: number; packets: DataView; from: number; bytes: number }[] = [];

  put(label: Int32Array, packets: DataView, from: number, bytes: number): boolean {
    if (this.hasRoom) this.#pending.push({ nodeId: label[0]! >>> 0, packets, from, bytes });
    return this.hasRoom;
  }

  flush(): void {
    this.flushes++;
    for (const { nodeId, packets, from, bytes } of this.#pending.splice(0))
      this.got.push({
        nodeId,
        bytes: new Uint8Array(packets.buffer, packets.byteOffset + from, bytes).slice(),
      });
  }
}

/**
 * Counts by name, without those that stand at 0; not how many bytes, segments and batches there
 * were.
 */
function namedCounts(memory: SharedMemory): Record<string, number> {
  const lists: [string, number, readonly string[]][] = [
    ["received", RECEIVED_AT, MESSAGE_NAMES],
    ["malformed", MALFORMED_AT, MALFORMED_REASONS],
    ["relay dropped", RELAY_DROPPED_AT, DROP_REASONS],
    ["reply dropped", REPLY_DROPPED_AT, DROP_REASONS],
    ["refused", REFUSED_AT, REFUSAL_REASONS],
    ["gossip rejected", GOSSIP_REJECTED_AT, GOSSIP_REJECTIONS],
  ];
  const columns = new Map<string, number>([
    ...lists.flatMap(([what, at, names]) =>
      names.map((one, i) => [`${what}: ${one}`, at + i] as [string, number]),
    ),
    ["relayed: local", RELAYED_LOCAL],
    ["relayed: peer", RELAYED_TO_PEER],
    ["not found", RELAY_NOT_FOUND],
    ["discovers", DISCOVERS],
    ["punches: sent", PUNCHES_SENT],
    ["punches: unknown", PUNCHES_TARGET_UNKNOWN],
    ["punches: bridged", PUNCHES_BRIDGED],
    ["gossip", GOSSIP_RECEIVED],
  ]);
  const counts = [...columns].map(
    ([name, column]) => [name, memory.counters[memory.bridgeRow + column]!] as const,
  );
  return Object.fromEntries(counts.filter(([, count]) => count !== 0));
}

interface BenchOptions {
  readonly offload?: boolean;
  readonly nodesMax?: number;
  readonly beaconId?: number;
  readonly family?: Family;
  readonly fd?: number;
}

/**
 * A handler of frames, and what is in its memory: nodes heard by UDP, nodes of the bridge, peers.
 */
class Bench<Calls extends PacketCalls> {
  readonly memory: SharedMemory;
  readonly nodes: NodeTableOwner;
  readonly peers: PeerTableOwner;
  readonly routes: RouteTableOwner;
  readonly connections = new Connections();
  readonly handler: FrameHandler;

  constructor(
    readonly calls: Calls,
    { offload = true, nodesMax = 100, beaconId = 0, family = AF_INET, fd = 5 }: BenchOptions = {},
  ) {
    this.memory = new SharedMemory({ workers: WORKERS, nodesMax, routesMax: 100 });
    this.memory.words[CLOCK_S] = 1;
    this.memory.words[HASH_SECRET] = 0x7e57;
    this.nodes = new NodeTableOwner(this.memory, MAIN_THREAD_LOCK);
    this.peers = new PeerTableOwner(this.memory);
    this.routes = new RouteTableOwner(this.memory);
    this.handler = new FrameHandler(
      calls,
      this.memory,
      this.nodes,
      { fd, family, beaconId, offload },
      this.connections,
    );
  }

  /** Hands in a frame of a node, as its connection does: in places that are used again at once. */
  frame(nodeId: number, bytes: Uint8Array, source: Int32Array = CLIENT): void {
    const [copy, sourceCopy] = [bytes.slice(), source.slice()];
    this.handler.handle(nodeId | 0, sourceCopy, copy);
    copy.fill(0xee);
    sourceCopy.fill(-1);
  }

  flush(): void {
    this.handler.flush();
  }

  /** What connections got since this was asked last. */
  got(): Frame[] {
    return this.connections.got.splice(0);
  }

  get counts(): Record<string, number> {
    return namedCounts(this.memory);
  }

  count(column: number): number {
    return this.memory.counters[this.memory.bridgeRow + column]!;
  }

  sum(at: number, columns: number): number {
    return Array.from({ length: columns }, (_, i) => this.count(at + i)).reduce(
      (sum, count) => sum + count,
      0,
    );
  }

  /** Everything that frames must not change: all but the bridge's own counters, drops and words. */
  untouched(): Int32Array {
    const { memory } = this;
    const words = memory.words.slice();
    const row = memory.counters.subarray(memory.bridgeRow, memory.bridgeRow + COUNTER_ROW);
    const rowAt = row.byteOffset / 4;
    words.fill(0, rowAt, rowAt + row.byteLength / 4);
    words.fill(0, memory.dropRow(memory.bridgeRow), memory.dropRow(memory.grantsRow));
    words.fill(0, memory.bridgeWords, memory.bridgeWords + 16);
    return words;
  }
}

const u32 = (value: number): number[] => [
  value >>> 24,
  (value >>> 16) & 0xff,
  (value >>> 8) & 0xff,
  value & 0xff,
];
const message = (
  type: number,
  ids: readonly number[],
  tail: Uint8Array | number[] = [],
): Uint8Array => new Uint8Array([type, ...ids.flatMap(u32), ...tail]);
/** A Relay of `bytes` bytes in all, whose payload tells it from others. */
const relay = (sender: number, dest: number, serial = 0, bytes = 29): Uint8Array =>
  message(RELAY, [sender, dest], payload(serial, bytes - 9));
function payload(serial: number, bytes: number): Uint8Array {
  const tail = new Uint8Array(bytes).fill(serial);
  tail.set(u32(serial).slice(0, bytes));
  return tail;
}
/** What becomes of a Relay on the way to its destination. */
const deliver = (relayed: Uint8Array): Uint8Array =>
  new Uint8Array([RELAY_DELIVER, ...relayed.subarray(1, 5), ...relayed.subarray(9)]);
const deliverDest = (relayed: Uint8Array): Uint8Array =>
  new Uint8Array([RELAY_DELIVER_DEST, ...relayed.subarray(1)]);

const nodeEndpoint = (host: number): Int32Array => endpointOf(`10.0.0.${host}`, 4000 + host);
/** struct sockaddr_in of that. */
function nodeName(host: number): string {
  const port = 4000 + host;
  return hex(
    new Uint8Array([AF_INET, 0, port >> 8, port & 0xff, 10, 0, 0, host, 0, 0, 0, 0, 0, 0, 0, 0]),
  );
}

/** Where the connections come from. */
const CLIENT = endpointOf("198.51.100.7", 51_234);
const CLIENT_ADDRESS = [4, 198, 51, 100, 7, 51_234 >> 8, 51_234 & 0xff];

// Nodes: two behind the bridge, two heard by UDP, one at a peer, and one that nobody knows.
const OWN = 0xffff_fff9;
const OTHER = 9;
const NODE = 1;
const WANTS_DEST_NODE = 2;
const REMOTE = 11;
const NOBODY = 404;
/** The last number of the peer's address. */
const PEER = 77;

function scripted(options: BenchOptions = {}): Bench<ScriptedKernel> {
  const bench = new Bench(new ScriptedKernel(EAGAIN), options);
  fill(bench);
  return bench;
}

function fill(bench: Bench<PacketCalls>): void {
  expect(bench.nodes.record(NODE, nodeEndpoint(NODE), 0, 0, 1)).toBe(ADDED);
  expect(bench.nodes.record(WANTS_DEST_NODE, nodeEndpoint(WANTS_DEST_NODE), 0, WANTS_DEST, 1)).toBe(
    ADDED,
  );
  for (const id of [OWN, OTHER]) expect(bench.nodes.bridge(id, 1)).toBe(ADDED);
  expect(bench.peers.add(nodeEndpoint(PEER), 0)).toBe(0);
  bench.routes.claim(REMOTE, 0);
}

const sent = (bench: Bench<ScriptedKernel>) =>
  bench.calls.datagrams.map(({ name, bytes }) => ({ name, bytes: hex(bytes) }));
const to = (host: number, bytes: Uint8Array) => ({ name: nodeName(host), bytes: hex(bytes) });
const from = (nodeId: number, bytes: Uint8Array): Frame => ({ nodeId, bytes });

const all: SendStep = (messages) => messages.length;
const fail =
  (errno: number): SendStep =>
  () =>
    -errno;
/** Takes all but what is too large, as the kernel does. */
const withinLimits: SendStep = (messages) => {
  const isTooBig = (one: (typeof messages)[number]) =>
    cut(one).some(({ bytes }) => bytes.length > UDP_PAYLOAD_MAX);
  const first = messages.findIndex(isTooBig);
  return first === 0 ? -EMSGSIZE : first < 0 ? messages.length : first;
};

/** A kernel that takes all but what is too large. */
class LimitedKernel extends ScriptedKernel {
  constructor() {
    super(EAGAIN);
  }

  override sendmmsg(fd: number, headers: number, count: number, flags: number): number {
    this.sends.push(withinLimits);
    return super.sendmmsg(fd, headers, count, flags);
  }
}

/** A kernel that now takes all, now some, now nothing, and remembers only how much it took. */
class WhimsicalKernel extends ScriptedKernel {
  packets = 0;
  waits = 0;

  constructor(private readonly random: Random) {
    super(EAGAIN);
  }

  override sendmmsg(fd: number, headers: number, count: number, flags: number): number {
    const errnos = [EAGAIN, EPERM, EINTR, ENETUNREACH];
    const whim = this.random.below(12);
    const step: SendStep = (messages) =>
      whim < errnos.length
        ? -errnos[whim]!
        : whim < 6
          ? 1 + this.random.below(messages.length)
          : messages.length;
    this.sends.push(step);
    const taken = super.sendmmsg(fd, headers, count, flags);
    for (const { pieces } of this.sent.splice(0)) this.packets += pieces.length;
    for (const { wait } of this.sendCalls.splice(0)) if (wait) this.waits++;
    return taken;
  }
}

describe.each([AF_INET, AF_INET6] as const)("on a real socket of family %d", (family) => {
  let socket: UdpSocket;
  let bench: Bench<PacketCalls>;
  const [alice, bob, carol] = [new Peer(family), new Peer(family), new Peer(family)];

  beforeAll(() => {
    socket = UdpSocket.open(family);
    socket.bind(LOOPBACK[family], 0);
    bench = new Bench(kernel, { family, fd: socket.fd });
    bench.nodes.record(NODE, alice.endpoint, 0, 0, 1);
    bench.nodes.record(WANTS_DEST_NODE, bob.endpoint, 0, WANTS_DEST, 1);
    for (const id of [OWN, OTHER]) bench.nodes.bridge(id, 1);
    bench.peers.add(carol.endpoint, 0);
    bench.routes.claim(REMOTE, 0);
  });
  afterAll(() => {
    for (const open of [socket, alice, bob, carol]) open.close();
  });

  test("a burst of relays to all of them arrives whole and in order, from the beacon's address", () => {
    const BURST = 40;
    const bytes = 1001;
    for (let serial = 0; serial < BURST; serial++) {
      for (const dest of [NODE, OTHER, WANTS_DEST_NODE, REMOTE])
        bench.frame(OWN, relay(OWN, dest, serial, bytes));
    }
    bench.flush();
    for (let serial = 0; serial < BURST; serial++) {
      expect(alice.receive()).toEqual({
        bytes: deliver(relay(OWN, NODE, serial, bytes)),
        from: socket.localAddress(),
      });
      expect(bob.receive()?.bytes).toEqual(deliverDest(relay(OWN, WANTS_DEST_NODE, serial, bytes)));
      expect(carol.receive()?.bytes).toEqual(relay(OWN, REMOTE, serial, bytes));
    }
    expect(bench.got()).toEqual(
      Array.from({ length: BURST }, (_, serial) =>
        from(OTHER, deliver(relay(OWN, OTHER, serial, bytes))),
      ),
    );
    expect(bench.counts).toEqual({
      "received: relay": 4 * BURST,
      "relayed: local": 2 * BURST,
      "relayed: peer": BURST,
    });
  });

  test("a frame that is no datagram's size is too big, and costs no other frame anything", () => {
    bench.memory.counters.fill(0);
    const largest = relay(OWN, NODE, 2, UDP_PAYLOAD_MAX + 4);
    bench.frame(OWN, relay(OWN, NODE, 1));
    bench.frame(OWN, relay(OWN, NODE, 2, FRAME_BYTES_MAX));
    bench.frame(OWN, relay(OWN, REMOTE, 3, FRAME_BYTES_MAX));
    bench.frame(OWN, largest);
    bench.frame(OWN, relay(OWN, REMOTE, 4));
    bench.flush();
    expect(alice.receive()?.bytes).toEqual(deliver(relay(OWN, NODE, 1)));
    expect(alice.receive()?.bytes).toEqual(deliver(largest));
    expect(carol.receive()?.bytes).toEqual(relay(OWN, REMOTE, 4));
    expect(bench.counts).toEqual({
      "received: relay": 5,
      "relayed: local": 2,
      "relayed: peer": 1,
      "relay dropped: too_big": 2,
    });
  });
});

describe("Relay", () => {
  test.each(["on", "off"])("goes to wherever its destination is, offload %s", (offload) => {
    const bench = scripted({ offload: offload === "on" });
    const before = bench.untouched();
    const destinations = [NODE, OTHER, WANTS_DEST_NODE, OWN, REMOTE, NOBODY];
    const packets = destinations.map((dest, i) => relay(OWN, dest, i));
    for (const packet of packets) bench.frame(OWN, packet);
    expect(bench.calls.sent).toEqual([]);
    expect(bench.got()).toEqual([]);
    bench.flush();
    expect(sent(bench)).toEqual([
      to(NODE, deliver(packets[0]!)),
      to(WANTS_DEST_NODE, deliverDest(packets[2]!)),
      to(PEER, packets[4]!),
    ]);
    expect(bench.got()).toEqual([
      from(OTHER, deliver(packets[1]!)),
      from(OWN, deliver(packets[3]!)),
    ]);
    expect(bench.counts).toEqual({
      "received: relay": 6,
      "relayed: local": 2,
      "relayed: peer": 1,
      "not found": 1,
    });
    expect(bench.untouched()).toEqual(before);
  });

  test("for a node of the bridge that was heard by UDP, too, comes as RelayDeliver, whatever it asked for there", () => {
    const bench = scripted();
    bench.nodes.bridge(WANTS_DEST_NODE, 1);
    bench.frame(OWN, relay(OWN, WANTS_DEST_NODE, 5));
    bench.nodes.unbridge(WANTS_DEST_NODE);
    bench.frame(OWN, relay(OWN, WANTS_DEST_NODE, 6));
    bench.flush();
    expect(bench.got()).toEqual([from(WANTS_DEST_NODE, deliver(relay(OWN, WANTS_DEST_NODE, 5)))]);
    expect(sent(bench)).toEqual([to(WANTS_DEST_NODE, deliverDest(relay(OWN, WANTS_DEST_NODE, 6)))]);
  });

  test.each([NODE, OTHER, OWN, REMOTE, NOBODY])(
    "in the name of another than the proven node goes nowhere, to node %d",
    (dest) => {
      const bench = scripted();
      const before = bench.untouched();
      const forged = [0, OTHER, NODE, NOBODY, OWN ^ 1, OWN ^ 0x8000_0000, OWN ^ 0x0001_0000];
      for (const sender of forged) bench.frame(OWN, relay(sender, dest));
      bench.flush();
      expect(bench.calls.sent).toEqual([]);
      expect(bench.got()).toEqual([]);
      expect(bench.counts).toEqual({
        "received: relay": forged.length,
        "relay dropped: forged_sender": forged.length,
      });
      expect(bench.untouched()).toEqual(before);
    },
  );

  test("in the midst of a burst, a forged one is left out, and so is one of a node that is another's there", () => {
    const bench = scripted();
    bench.frame(OWN, relay(OWN, NODE, 1));
    bench.frame(OWN, relay(OTHER, NODE, 2));
    bench.frame(OTHER, relay(OTHER, NODE, 3));
    bench.frame(OTHER, relay(OWN, NODE, 4));
    bench.frame(OWN, relay(OWN, NODE, 5));
    bench.flush();
    expect(sent(bench)).toEqual([
      to(NODE, deliver(relay(OWN, NODE, 1))),
      to(NODE, deliver(relay(OTHER, NODE, 3))),
      to(NODE, deliver(relay(OWN, NODE, 5))),
    ]);
    expect(bench.calls.sent).toHaveLength(1);
    expect(bench.counts["relay dropped: forged_sender"]).toBe(2);
  });

  test("comes from no peer, though its connection has a peer's address: it is forwarded", () => {
    const bench = scripted();
    for (const serial of [1, 2]) bench.frame(OWN, relay(OWN, REMOTE, serial), nodeEndpoint(PEER));
    bench.flush();
    expect(sent(bench)).toEqual([1, 2].map((serial) => to(PEER, relay(OWN, REMOTE, serial))));
    expect(bench.counts).toEqual({ "received: relay": 2, "relayed: peer": 2 });
  });

  test("of every size comes whole to a node of the bridge, from no payload to the largest frame", () => {
    const bench = scripted();
    const sizes = [
      ...Array.from({ length: 1500 }, (_, i) => 9 + i),
      ...Array.from({ length: 120 }, (_, i) => 1600 + 523 * i),
      ...Array.from({ length: 8 }, (_, i) => FRAME_BYTES_MAX - 7 + i),
    ];
    const packets = sizes.map((size, serial) => relay(OWN, OTHER, serial, size));
    for (const packet of packets) bench.frame(OWN, packet);
    bench.flush();
    const got = bench.got();
    expect(got.map(({ bytes }) => bytes.length)).toEqual(sizes.map((size) => size - 4));
    for (const [i, { bytes }] of got.entries())
      expect(Buffer.compare(bytes, deliver(packets[i]!))).toBe(0);
    expect(bench.counts).toEqual({ "received: relay": sizes.length });
  });

  test("for which the connections have no room is dropped and counted, and others go on", () => {
    const bench = scripted();
    bench.connections.hasRoom = false;
    for (const dest of [OTHER, NODE, OWN]) bench.frame(OWN, relay(OWN, dest));
    bench.connections.hasRoom = true;
    bench.frame(OWN, relay(OWN, OTHER, 7));
    bench.flush();
    expect(bench.got()).toEqual([from(OTHER, deliver(relay(OWN, OTHER, 7)))]);
    expect(bench.counts).toEqual({
      "received: relay": 4,
      "relayed: local": 1,
      "relay dropped: bridge_full": 2,
    });
  });
});

describe("merging", () => {
  test("frames of one size to one destination leave as one message, whoever they are of", () => {
    const bench = scripted();
    const local: Uint8Array[] = [];
    const remote: Uint8Array[] = [];
    for (let i = 0; i < 10; i++) {
      const sender = i % 2 === 0 ? OWN : OTHER;
      local.push(relay(sender, NODE, i));
      remote.push(relay(sender, REMOTE, 100 + i));
      bench.frame(sender, local.at(-1)!);
      bench.frame(sender, remote.at(-1)!);
    }
    bench.flush();
    expect(bench.calls.sent.map(({ name, pieces }) => [name, pieces.length])).toEqual([
      [nodeName(NODE), 10],
      [nodeName(PEER), 10],
    ]);
    expect(sent(bench)).toEqual([
      ...local.map((packet) => to(NODE, deliver(packet))),
      ...remote.map((packet) => to(PEER, packet)),
    ]);
    expect(bench.count(SEGMENTS_SENT)).toBe(20);
    expect(bench.count(SENT_BYTES)).toBe(10 * 25 + 10 * 29);
  });

  test("none of it without offload, nor where it was found not to work", () => {
    const without = scripted({ offload: false });
    for (let i = 0; i < 3; i++) without.frame(OWN, relay(OWN, NODE, i));
    without.flush();
    expect(without.calls.sent.map(({ segmentBytes }) => segmentBytes)).toEqual([0, 0, 0]);
    const bench = scripted();
    for (let i = 0; i < 3; i++) bench.frame(OWN, relay(OWN, NODE, i));
    bench.calls.sends.push(fail(EIO));
    bench.flush();
    for (let i = 3; i < 6; i++) bench.frame(OWN, relay(OWN, NODE, i));
    bench.flush();
    expect(sent(bench)).toEqual(
      [0, 1, 2, 3, 4, 5].map((i) => to(NODE, deliver(relay(OWN, NODE, i)))),
    );
    expect(bench.calls.sent.every(({ segmentBytes }) => segmentBytes === 0)).toBe(true);
    expect(bench.memory.words[OFFLOAD_ERRNO]).toBe(EIO);
    const { calls, memory, nodes, connections } = bench;
    const options = { fd: 5, family: AF_INET, beaconId: 0, offload: true } as const;
    const next = new FrameHandler(calls, memory, nodes, options, connections);
    for (let i = 0; i < 3; i++) next.handle(OWN | 0, CLIENT, relay(OWN, NODE, i));
    next.flush();
    expect(calls.sent.slice(6).map(({ pieces }) => pieces.length)).toEqual([1, 1, 1]);
  });

  test("a flush ends it, and another one sends nothing", () => {
    const bench = scripted();
    for (const serial of [1, 2]) {
      bench.frame(OWN, relay(OWN, NODE, serial));
      bench.flush();
    }
    bench.flush();
    expect(bench.calls.sendCalls).toHaveLength(2);
    expect(sent(bench)).toEqual(
      [1, 2].map((serial) => to(NODE, deliver(relay(OWN, NODE, serial)))),
    );
  });
});

describe("Discover", () => {
  const types = [
    ["Discover", DISCOVER],
    ["DiscoverEx", DISCOVER_EX],
  ] as const;

  test.each(types)(
    "%s is answered with the connection's address, whatever id it names, and recorded nowhere",
    (_, type) => {
      const bench = scripted();
      const before = bench.untouched();
      const ids = [OWN, OTHER, NODE, WANTS_DEST_NODE, REMOTE, NOBODY, 0, 0x7fff_ffff];
      for (const id of ids) bench.frame(OWN, message(type, [id]));
      bench.frame(
        OTHER,
        message(type, [OWN], [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        endpointOf("203.0.113.9", 443),
      );
      bench.flush();
      expect(bench.got()).toEqual([
        ...ids.map(() => from(OWN, new Uint8Array([DISCOVER_REPLY, ...CLIENT_ADDRESS]))),
        from(OTHER, new Uint8Array([DISCOVER_REPLY, 4, 203, 0, 113, 9, 1, 187])),
      ]);
      expect(bench.calls.sent).toEqual([]);
      const kind = type === DISCOVER ? "received: discover" : "received: discover_ex";
      expect(bench.counts).toEqual({ [kind]: ids.length + 1, discovers: ids.length + 1 });
      expect(bench.untouched()).toEqual(before);
    },
  );

  test("of a connection by IPv6 is answered with 16 bytes of address, without harm to the frames around it", () => {
    const bench = scripted();
    const source = endpointOf("2001:db8::1", 0x1234);
    const reply = new Uint8Array([
      ...[DISCOVER_REPLY, 16, 0x20, 0x01, 0x0d, 0xb8, ...Array<number>(11).fill(0), 1, 0x12, 0x34],
    ]);
    const expected: Frame[] = [];
    for (let serial = 0; serial < 20; serial++) {
      bench.frame(OWN, relay(OWN, OTHER, serial, 9 + serial), source);
      bench.frame(OWN, message(DISCOVER, [OWN]), source);
      expected.push(from(OTHER, deliver(relay(OWN, OTHER, serial, 9 + serial))), from(OWN, reply));
    }
    bench.flush();
    expect(bench.got()).toEqual(expected);
  });

  test("for whose answer the connections have no room: that is counted as a reply dropped", () => {
    const bench = scripted();
    bench.connections.hasRoom = false;
    bench.frame(OWN, message(DISCOVER, [OWN]));
    bench.flush();
    expect(bench.counts).toEqual({
      "received: discover": 1,
      discovers: 1,
      "reply dropped: bridge_full": 1,
    });
  });

  test("or PunchRequest, of a connection whose port is not known, is malformed, and a Relay is not", () => {
    const bench = scripted();
    const nowhere = endpointOf("198.51.100.7", 0);
    bench.frame(OWN, message(DISCOVER, [OWN]), nowhere);
    bench.frame(OWN, message(PUNCH_REQUEST, [OWN, NODE]), nowhere);
    bench.frame(OWN, relay(OWN, NODE), nowhere);
    bench.flush();
    expect(bench.got()).toEqual([]);
    expect(bench.counts).toEqual({
      "received: discover": 1,
      "received: punch_request": 1,
      "received: relay": 1,
      "malformed: no_source_port": 2,
      "relayed: local": 1,
    });
  });
});

test("PunchRequest, whoever is named in it, is counted; nobody is told, and nobody recorded", () => {
  const bench = scripted();
  const before = bench.untouched();
  const ids = [OWN, OTHER, NODE, WANTS_DEST_NODE, REMOTE, NOBODY, 0];
  for (const requester of ids) {
    for (const target of ids) bench.frame(OWN, message(PUNCH_REQUEST, [requester, target]));
  }
  bench.flush();
  expect(bench.calls.sent).toEqual([]);
  expect(bench.got()).toEqual([]);
  const count = ids.length ** 2;
  expect(bench.counts).toEqual({ "received: punch_request": count, "punches: bridged": count });
  expect(bench.untouched()).toEqual(before);
});

describe("Sync", () => {
  const BEACON_ID = 7;
  const sync = (beaconId: number, nodeIds: readonly number[], count = nodeIds.length): Uint8Array =>
    new Uint8Array([SYNC, ...u32(beaconId), ...u32(count).slice(2), ...nodeIds.flatMap(u32)]);

  test.each([
    ["", "unknown_peer", sync(8, [OWN, NODE])],
    [" without nodes", "unknown_peer", sync(8, [])],
    [" of a wrong count", "unknown_peer", sync(8, [], 5)],
    [" of the own id", "unknown_peer", sync(BEACON_ID, [1])],
    [" cut short", "short", sync(8, []).subarray(0, 6)],
    [" of a type alone", "short", sync(8, []).subarray(0, 1)],
  ] as const)(
    "a gossip%s is rejected as %s, even of a connection with a peer's address",
    (_, reason, bytes) => {
      const bench = scripted({ beaconId: BEACON_ID });
      // a proven node is no stranger
      bench.memory.words[bench.memory.rulesAt + STRANGERS_BELIEVED] = 1;
      const before = bench.untouched();
      const sources = [CLIENT, nodeEndpoint(PEER)];
      for (const source of sources) {
        bench.frame(OWN, bytes, source);
        const at = bench.memory.bridgeWords;
        const { words } = bench.memory;
        expect(words[at + LAST_REJECTION]).toBe(1 + GOSSIP_REJECTIONS.indexOf(reason));
        expect(
          words.slice(at + LAST_REJECTED_SOURCE, at + LAST_REJECTED_SOURCE + ENDPOINT_WORDS),
        ).toEqual(new Int32Array(source));
      }
      bench.flush();
      expect(bench.counts).toEqual({ "received: sync": 2, [`gossip rejected: ${reason}`]: 2 });
      expect(bench.calls.sent).toEqual([]);
      expect(bench.got()).toEqual([]);
      for (const kind of [GOSSIP, FRAMES]) {
        for (let worker = 0; worker < WORKERS; worker++)
          expect(new MailboxReader(bench.memory, kind, worker).take()).toBeUndefined();
      }
      expect(bench.untouched()).toEqual(before);
    },
  );
});

describe("what is no message for a beacon is malformed", () => {
  test.each<[string, Uint8Array, Record<string, number>]>([
    ["empty", new Uint8Array(), { "malformed: empty": 1 }],
    ["of type 0", message(0, [1, 2]), { "received: unknown": 1, "malformed: unknown_type": 1 }],
    [
      "of the first unknown type",
      message(10, [1, 2]),
      { "received: unknown": 1, "malformed: unknown_type": 1 },
    ],
    [
      "of the last",
      new Uint8Array([255]),
      { "received: unknown": 1, "malformed: unknown_type": 1 },
    ],
    [
      "a reply",
      message(DISCOVER_REPLY, [1, 2]),
      { "received: discover_reply": 1, "malformed: not_for_beacon": 1 },
    ],
    [
      "a punch command",
      message(PUNCH_COMMAND, [1, 2]),
      { "received: punch_command": 1, "malformed: not_for_beacon": 1 },
    ],
    [
      "a delivery",
      message(RELAY_DELIVER, [OWN, NODE]),
      { "received: relay_deliver": 1, "malformed: not_for_beacon": 1 },
    ],
    [
      "a delivery with a destination",
      message(RELAY_DELIVER_DEST, [OWN, NODE]),
      { "received: relay_deliver_dest": 1, "malformed: not_for_beacon": 1 },
    ],
  ])("%s", (_, bytes, counts) => {
    const bench = scripted();
    const before = bench.untouched();
    bench.frame(OWN, bytes);
    bench.flush();
    expect(bench.counts).toEqual(counts);
    expect(bench.calls.sent).toEqual([]);
    expect(bench.got()).toEqual([]);
    expect(bench.untouched()).toEqual(before);
  });

  test("cut short, whatever longer frame was in its place before", () => {
    const whole = [
      message(DISCOVER, [OWN]),
      message(DISCOVER_EX, [OWN]),
      message(PUNCH_REQUEST, [OWN, NODE]),
      relay(OWN, NODE, 0, 9),
    ];
    const bench = scripted();
    let frames = 0;
    for (const bytes of whole) {
      for (let length = 1; length < bytes.length; length++) {
        bench.frame(OWN, bytes);
        bench.flush();
        bench.frame(OWN, bytes.subarray(0, length));
        bench.flush();
        frames++;
      }
    }
    expect(bench.counts["malformed: short"]).toBe(frames);
    expect(frames).toBe(4 + 4 + 8 + 8);
    expect(bench.counts["relayed: local"]).toBe(8);
  });
});

describe("what the kernel refuses", () => {
  /** Two merged relays to one node, one each to another and to a peer. */
  function mixed(bench: Bench<ScriptedKernel>, serial = 0): void {
    for (const [i, dest] of [NODE, WANTS_DEST_NODE, NODE, REMOTE].entries())
      bench.frame(OWN, relay(OWN, dest, serial + i));
  }

  test.each<[string, number, DropReason]>(
    (
      [
        [EAGAIN, "buffer_full"],
        [ENOBUFS, "buffer_full"],
        [EPERM, "denied"],
        [EACCES, "denied"],
        [ENETUNREACH, "unreachable"],
      ] as const
    ).map(([errno, reason]) => [errnoName(errno), errno, reason]),
  )("by %s is dropped, once, and counted as the bridge's", (_, errno, reason) => {
    const bench = scripted();
    const before = bench.untouched();
    mixed(bench);
    bench.calls.sends.push(fail(errno), all);
    bench.flush();
    expect(sent(bench)).toEqual([
      to(WANTS_DEST_NODE, deliverDest(relay(OWN, WANTS_DEST_NODE, 1))),
      to(PEER, relay(OWN, REMOTE, 3)),
    ]);
    expect(bench.counts).toEqual({
      "received: relay": 4,
      "relayed: local": 1,
      "relayed: peer": 1,
      [`relay dropped: ${reason}`]: 2,
    });
    expect(bench.count(SENT_BYTES)).toBe(2 * 29);
    expect(bench.count(SEGMENTS_SENT)).toBe(0);
    expect(bench.untouched()).toEqual(before);
  });

  test("because its buffer is full is not waited for, in any flush: the main thread has other things to do", () => {
    const bench = scripted();
    for (let flush = 0; flush < 5; flush++) {
      mixed(bench, 4 * flush);
      bench.calls.sends.push(fail(EAGAIN), fail(EINTR), fail(EAGAIN), all);
      bench.flush();
    }
    expect(bench.calls.sendCalls).toHaveLength(20);
    expect(bench.calls.sendCalls.every(({ wait }) => !wait)).toBe(true);
    expect(bench.counts).toEqual({
      "received: relay": 20,
      "relayed: peer": 5,
      "relay dropped: buffer_full": 15,
    });
  });

  test("as too large is counted so; frames of that size reach nodes of the bridge, and others UDP nodes", () => {
    for (const offload of [true, false]) {
      const bench = scripted({ offload });
      const fits = UDP_PAYLOAD_MAX + 4; // a RelayDeliver is four bytes shorter
      for (const [i, size] of [fits, fits + 1, 100, FRAME_BYTES_MAX, fits, 100].entries()) {
        bench.frame(OWN, relay(OWN, NODE, i, size));
        bench.frame(OWN, relay(OWN, OTHER, i, size));
      }
      for (const size of [UDP_PAYLOAD_MAX + 1, UDP_PAYLOAD_MAX])
        bench.frame(OWN, relay(OWN, REMOTE, 9, size));
      for (let i = 0; i < 50; i++) bench.calls.sends.push(withinLimits);
      bench.flush();
      const lengths = bench.calls.datagrams.map(({ name, bytes }) => [name, bytes.length]);
      expect(lengths).toEqual([
        [nodeName(NODE), UDP_PAYLOAD_MAX],
        [nodeName(NODE), 96],
        [nodeName(NODE), UDP_PAYLOAD_MAX],
        [nodeName(NODE), 96],
        [nodeName(PEER), UDP_PAYLOAD_MAX],
      ]);
      expect(bench.got().map(({ bytes }) => bytes.length)).toEqual([
        fits - 4,
        fits - 3,
        96,
        FRAME_BYTES_MAX - 4,
        fits - 4,
        96,
      ]);
      expect(bench.counts).toEqual({
        "received: relay": 14,
        "relayed: local": 4,
        "relayed: peer": 1,
        "relay dropped: too_big": 3,
      });
      // nothing was learnt of merging
      expect(bench.nodes.slots.mergeLimit(bench.nodes.find(NODE))).toBe(0);
    }
  });
});

describe("more than there is room for", () => {
  test.each([FRAME_BYTES_MAX - 64, 10_000, 1200, 9])(
    "frames of %d bytes before a flush: all go on, in order",
    (bytes) => {
      const bench = scripted();
      const room = 16 * FRAME_BYTES_MAX;
      const count = Math.ceil((3.5 * room) / Math.max(bytes, 32));
      const destinations = [NODE, OTHER, REMOTE, OWN, WANTS_DEST_NODE];
      for (let serial = 0; serial < count; serial++) {
        const dest = destinations[serial % 5]!;
        bench.frame(OWN, relay(OWN, dest, serial, bytes));
      }
      expect(bench.connections.flushes).toBeGreaterThanOrEqual(3); // it did not wait for the flush
      bench.flush();
      const expected = (dest: number, of: (packet: Uint8Array) => Uint8Array) =>
        Array.from({ length: count }, (_, serial) => serial)
          .filter((serial) => destinations[serial % 5] === dest)
          .map((serial) => of(relay(OWN, dest, serial, bytes)));
      const isSame = (found: readonly Uint8Array[], wanted: readonly Uint8Array[]) => {
        expect(found.length).toBe(wanted.length);
        for (const [i, one] of found.entries())
          if (Buffer.compare(one, wanted[i]!) !== 0) expect(one).toEqual(wanted[i]!);
      };
      const { datagrams } = bench.calls;
      const left = (host: number) =>
        datagrams.filter(({ name }) => name === nodeName(host)).map((datagram) => datagram.bytes);
      const got = bench.got();
      const gotBy = (nodeId: number) =>
        got.filter((frame) => frame.nodeId === nodeId).map((frame) => frame.bytes);
      isSame(left(NODE), expected(NODE, deliver));
      isSame(left(WANTS_DEST_NODE), expected(WANTS_DEST_NODE, deliverDest));
      isSame(
        left(PEER),
        expected(REMOTE, (packet) => packet),
      );
      isSame(gotBy(OTHER), expected(OTHER, deliver));
      isSame(gotBy(OWN), expected(OWN, deliver));
      expect(bench.sum(RELAY_DROPPED_AT, DROP_REASONS.length)).toBe(0);
    },
    120_000,
  );

  test.each(["on", "off"])(
    "destinations before a flush: all get theirs, in order, offload %s",
    (offload) => {
      const NODES = 2 * RUNS_MAX + 100;
      const ROUNDS = 3;
      const bench = scripted({ offload: offload === "on", nodesMax: 2 * NODES });
      const first = 1000;
      const endpointOfNode = (i: number) => endpointOf(`10.1.${i >> 8}.${i & 0xff}`, 5000);
      for (let i = 0; i < NODES; i++) bench.nodes.record(first + i, endpointOfNode(i), 0, 0, 1);
      const expected = new Map<string, string[]>();
      for (let round = 0; round < ROUNDS; round++) {
        for (let i = 0; i < NODES; i++) {
          const packet = relay(OWN, first + i, round);
          bench.frame(OWN, packet);
          bench.frame(OWN, relay(OWN, OTHER, i));
          const key = hex(new Uint8Array([10, 1, i >> 8, i & 0xff]));
          expected.set(key, [...(expected.get(key) ?? []), hex(deliver(packet))]);
        }
      }
      bench.flush();
      const found = new Map<string, string[]>();
      for (const { name, bytes } of bench.calls.datagrams) {
        const key = name.slice(8, 16);
        found.set(key, [...(found.get(key) ?? []), hex(bytes)]);
      }
      expect(found).toEqual(expected);
      for (const { offered } of bench.calls.sendCalls)
        expect(offered).toBeLessThanOrEqual(RUNS_MAX);
      expect(bench.calls.sendCalls.length).toBeGreaterThan(2);
      expect(bench.got().map(({ bytes }) => hex(bytes))).toEqual(
        Array.from({ length: ROUNDS * NODES }, (_, i) =>
          hex(deliver(relay(OWN, OTHER, i % NODES))),
        ),
      );
      expect(bench.counts).toEqual({
        "received: relay": 2 * ROUNDS * NODES,
        "relayed: local": ROUNDS * NODES,
      });
    },
  );
});

describe("any frames at all", () => {
  const nodes = [OWN, OTHER] as const;
  const dest = fc.constantFrom(NODE, NODE, WANTS_DEST_NODE, OWN, OTHER, REMOTE, NOBODY, 0);
  const size = fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(9, 29, 29, 30, 1200) },
    { weight: 2, arbitrary: fc.integer({ min: 9, max: 2000 }) },
    { weight: 1, arbitrary: fc.integer({ min: UDP_PAYLOAD_MAX - 2, max: FRAME_BYTES_MAX }) },
  );
  const step = fc.oneof(
    {
      weight: 20,
      arbitrary: fc.record({
        kind: fc.constant("relay" as const),
        node: fc.constantFrom(...nodes),
        sender: fc.constantFrom(...nodes, OWN),
        dest,
        size,
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant("discover" as const),
        node: fc.constantFrom(...nodes),
        type: fc.constantFrom(DISCOVER, DISCOVER_EX),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("flush" as const) }) },
    // What others do meanwhile: a node comes to the bridge or leaves it, or is heard from
    // elsewhere.
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant("bridge" as const), comes: fc.boolean() }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant("move" as const),
        host: fc.integer({ min: 30, max: 33 }),
      }),
    },
  );

  test("each goes where it should, in order for each destination", () => {
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 1, maxLength: 120 }),
        fc.boolean(),
        (steps, offload) => {
          const bench = new Bench(new LimitedKernel(), { offload });
          fill(bench);
          const out: { name: string; bytes: string }[] = [];
          const got: { nodeId: number; bytes: string }[] = [];
          const counts = { forged: 0, notFound: 0, tooBig: 0, local: 0, peer: 0 };
          let [isBridged, host] = [false, NODE];
          const send = (to: number, bytes: Uint8Array, kind: "local" | "peer"): void => {
            if (bytes.length > UDP_PAYLOAD_MAX) {
              counts.tooBig++;
              return;
            }
            counts[kind]++;
            out.push({ name: nodeName(to), bytes: hex(bytes) });
          };
          const relayed = (to: number, packet: Uint8Array): void => {
            if (to === OWN || to === OTHER || (to === NODE && isBridged))
              got.push({ nodeId: to, bytes: hex(deliver(packet)) });
            else if (to === NODE) send(host, deliver(packet), "local");
            else if (to === WANTS_DEST_NODE) send(to, deliverDest(packet), "local");
            else if (to === REMOTE) send(PEER, packet, "peer");
            else counts.notFound++;
          };
          for (const [serial, action] of steps.entries()) {
            switch (action.kind) {
              case "relay": {
                const packet = relay(action.sender, action.dest, serial, action.size);
                bench.frame(action.node, packet);
                if (action.sender !== action.node) counts.forged++;
                else relayed(action.dest, packet);
                break;
              }
              case "discover":
                bench.frame(action.node, message(action.type, [serial]));
                got.push({
                  nodeId: action.node,
                  bytes: hex(new Uint8Array([DISCOVER_REPLY, ...CLIENT_ADDRESS])),
                });
                break;
              case "flush":
                bench.flush();
                break;
              case "bridge":
                bench.flush();
                isBridged = action.comes;
                if (isBridged) bench.nodes.bridge(NODE, 1);
                else bench.nodes.unbridge(NODE);
                break;
              case "move":
                bench.flush();
                host = action.host;
                bench.nodes.record(NODE, nodeEndpoint(host), 0, 0, 1);
            }
          }
          bench.flush();
          // Destinations keep their order, whatever lies between them; the node is one, wherever it
          // is heard from.
          const others = [nodeName(PEER), nodeName(WANTS_DEST_NODE)];
          const byDestination = (list: typeof out) => [
            ...others.map((name) => list.filter((one) => one.name === name)),
            list.filter(({ name }) => !others.includes(name)),
          ];
          expect(byDestination(sent(bench))).toEqual(byDestination(out));
          expect(bench.got().map(({ nodeId, bytes }) => ({ nodeId, bytes: hex(bytes) }))).toEqual(
            got,
          );
          expect({
            forged: bench.counts["relay dropped: forged_sender"] ?? 0,
            notFound: bench.count(RELAY_NOT_FOUND),
            tooBig: bench.counts["relay dropped: too_big"] ?? 0,
            local: bench.count(RELAYED_LOCAL),
            peer: bench.count(RELAYED_TO_PEER),
          }).toEqual(counts);
        },
      ),
      { numRuns: 150 },
    );
  });

  test("half a million random ones: none throws, each is counted once by what came of it, nothing else changes", () => {
    const COUNT = 500_000;
    const random = new Random(20_270_131);
    const kernelOfWhims = new WhimsicalKernel(random);
    const bench = new Bench(kernelOfWhims, { beaconId: 7 });
    fill(bench);
    const before = bench.untouched();
    const room = new Uint8Array(2000);
    const view = new DataView(room.buffer);
    const ids = [OWN, OTHER, NODE, NODE, WANTS_DEST_NODE, REMOTE, NOBODY, 0];
    const anyId = () => (random.below(8) === 0 ? random.word() : ids[random.below(ids.length)]!);
    const types = [RELAY, RELAY, RELAY, RELAY, DISCOVER, DISCOVER_EX, PUNCH_REQUEST, SYNC];
    const sources = [
      CLIENT,
      nodeEndpoint(PEER),
      endpointOf("2001:db8::7", 443),
      endpointOf("192.0.2.1", 0),
    ];

    /** @returns a frame's bytes in `room` */
    const write = (node: number): number => {
      view.setUint8(0, types[random.below(types.length)]!);
      view.setUint32(1, random.below(8) === 0 ? anyId() : node);
      view.setUint32(5, anyId());
      const bytes = 9 + (random.below(2) === 0 ? 20 : random.below(1500));
      switch (random.below(12)) {
        case 0: // cut short
          return random.below(12);
        case 1: // some bytes changed, one of them perhaps the type
          for (let i = random.below(4); i >= 0; i--) room[random.below(bytes)] = random.word();
          return bytes;
        case 2: // noise
          for (let i = 0; i < bytes; i++) room[i] = random.word();
          return bytes;
        default:
          return bytes;
      }
    };

    let relaysGot = 0;
    let repliesGot = 0;
    const take = (): void => {
      for (const { nodeId, bytes } of bench.got()) {
        if (bytes[0] === RELAY_DELIVER) relaysGot++;
        else if (bytes[0] === DISCOVER_REPLY) repliesGot++;
        else throw new Error(`node ${nodeId} got a message of type ${bytes[0]}`);
      }
    };
    for (let i = 0; i < COUNT; i++) {
      const node = nodes[random.below(2)]!;
      const bytes = write(node);
      bench.connections.hasRoom = random.below(10) !== 0;
      bench.handler.handle(node | 0, sources[random.below(64)] ?? CLIENT, room.subarray(0, bytes));
      if (random.below(100) === 0) bench.flush();
      if (i % 1000 === 0) take();
    }
    bench.flush();
    take();

    const received = bench.sum(RECEIVED_AT, MESSAGE_NAMES.length);
    expect(received + bench.counts["malformed: empty"]!).toBe(COUNT);
    const outcomes = {
      malformed: bench.sum(MALFORMED_AT, MALFORMED_REASONS.length),
      local: bench.count(RELAYED_LOCAL),
      peer: bench.count(RELAYED_TO_PEER),
      toBridge: relaysGot,
      notFound: bench.count(RELAY_NOT_FOUND),
      dropped: bench.sum(RELAY_DROPPED_AT, DROP_REASONS.length),
      discovers: bench.count(DISCOVERS),
      punches: bench.count(PUNCHES_BRIDGED),
      gossip: bench.sum(GOSSIP_REJECTED_AT, GOSSIP_REJECTIONS.length),
    };
    expect(Object.values(outcomes).reduce((sum, count) => sum + count, 0)).toBe(COUNT);
    // else this tests little
    for (const count of Object.values(outcomes)) expect(count).toBeGreaterThan(COUNT / 200);
    expect(repliesGot + bench.counts["reply dropped: bridge_full"]!).toBe(outcomes.discovers);
    expect(bench.sum(REPLY_DROPPED_AT, DROP_REASONS.length)).toBe(
      bench.counts["reply dropped: bridge_full"]!,
    );
    for (const reason of ["forged_sender", "bridge_full", "buffer_full", "denied"])
      expect(bench.counts[`relay dropped: ${reason}`]).toBeGreaterThan(100);
    expect(kernelOfWhims.packets).toBe(outcomes.local + outcomes.peer);
    expect(kernelOfWhims.waits).toBe(0);
    for (const column of [PUNCHES_SENT, PUNCHES_TARGET_UNKNOWN, GOSSIP_RECEIVED])
      expect(bench.count(column)).toBe(0);
    expect(bench.sum(REFUSED_AT, REFUSAL_REASONS.length)).toBe(0);
    expect(bench.untouched()).toEqual(before);
  }, 120_000);
});
