/**
 * Nodes behind the WebSocket bridge: what they send and get, who they are to others, and what they
 * may not do.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import type { PacketStats } from "../../src/beacon.ts";
import {
  BINARY,
  CONTINUATION,
  PING,
  TEXT,
  type UpgradeOptions,
  UpgradeRefused,
  WebSocketClient,
} from "../support/websocket.ts";
import { BridgeBeacon, type BridgedNode } from "./support/bridged.ts";
import type { Client } from "./support/client.ts";
import { Random } from "./support/random.ts";
import { untilEqual } from "./support/wait.ts";
import {
  deliver,
  deliverDest,
  discover,
  discoverEx,
  punchRequest,
  relay,
  sync,
} from "./support/wire.ts";

/** The largest datagram, and the largest frame. */
const DATAGRAM_BYTES_MAX = 65_507;
const FRAME_BYTES_MAX = 65_536;
/**
 * What stands before the payload of what is sent, of what arrives, and of what arrives for
 * DiscoverEx.
 */
const [RELAY_HEAD, DELIVER_HEAD, DELIVER_DEST_HEAD] = [9, 5, 9];

let ids = 1000;
const newId = () => ++ids;
const random = new Random(7);
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

let host: BridgeBeacon;
beforeAll(async () => {
  host = await BridgeBeacon.start({ http: "127.0.0.1:0" });
});
afterEach(() => host.leave());
afterAll(() => host.close());

/** One way to reach a node, and for it to send. */
interface Way {
  readonly id: number;
  relay(to: number, payload: Uint8Array): unknown;
  /** The next packet. @throws Error if none comes */
  next(): Promise<Uint8Array>;
  /** Packets that arrived and were not taken yet. */
  readonly pending: number;
}

class UdpWay implements Way {
  constructor(
    readonly id: number,
    readonly client: Client,
  ) {}

  static async register(id = newId()): Promise<UdpWay> {
    return new UdpWay(id, await host.udp(id));
  }

  relay(to: number, payload: Uint8Array): Promise<void> {
    return this.client.relay(this.id, to, payload);
  }

  /** @throws Error also for one that does not come from the beacon's public port */
  async next(): Promise<Uint8Array> {
    const { bytes, from } = await this.client.next();
    expect(from).toEqual(host.at);
    return bytes;
  }

  get pending(): number {
    return this.client.pending;
  }
}

class BridgeWay implements Way {
  constructor(
    readonly id: number,
    readonly node: BridgedNode,
  ) {}

  static async connect(id = newId(), options: UpgradeOptions = {}): Promise<BridgeWay> {
    return new BridgeWay(id, await host.bridged(id, options));
  }

  relay(to: number, payload: Uint8Array): void {
    this.node.relay(to, payload);
  }

  next(): Promise<Uint8Array> {
    return this.node.next();
  }

  get pending(): number {
    return this.node.connection.pending;
  }
}

const ways = { UDP: () => UdpWay.register(), WebSocket: () => BridgeWay.connect() };

/** Sends a packet to a node; it must be the next thing that arrives on that way. */
async function expectNext(from: Way, to: Way, payload = random.bytes(40)): Promise<void> {
  await from.relay(to.id, payload);
  expect(hex(await to.next())).toBe(hex(deliver(from.id, payload)));
}

/** Sends a packet to a node that nobody knows, and waits until that is counted. */
async function expectNotFound(from: Way, nodeId: number): Promise<void> {
  const notFound = () => host.count((stats) => stats.relayNotFound);
  const before = notFound();
  await from.relay(nodeId, random.bytes(40));
  await untilEqual("relays to nobody", notFound, before + 1);
}

/** A payload that tells its place in a row. */
function numbered(place: number, bytes: number): Uint8Array {
  const payload = random.bytes(Math.max(4, bytes));
  new DataView(payload.buffer).setUint32(0, place);
  return payload;
}

describe("packets", () => {
  test.each([
    { from: "UDP", to: "WebSocket", payloadMax: DATAGRAM_BYTES_MAX - RELAY_HEAD },
    { from: "WebSocket", to: "UDP", payloadMax: DATAGRAM_BYTES_MAX - DELIVER_HEAD },
    { from: "WebSocket", to: "WebSocket", payloadMax: FRAME_BYTES_MAX - RELAY_HEAD },
  ] as const)(
    "$from to $to: every byte of payloads of 0 to $payloadMax",
    async ({ from, to, payloadMax }) => {
      const [sender, receiver] = [await ways[from](), await ways[to]()];
      for (const size of [0, 1, 2, 3, 4, 1200, 1453, 9000, payloadMax - 1, payloadMax])
        await expectNext(sender, receiver, random.bytes(size));
      expect([sender.pending, receiver.pending]).toEqual([0, 0]);
    },
  );

  test("WebSocket to itself", async () => {
    const node = await BridgeWay.connect();
    for (const size of [0, 1, 1200, FRAME_BYTES_MAX - RELAY_HEAD])
      await expectNext(node, node, random.bytes(size));
    expect(node.pending).toBe(0);
  });

  test("one byte more than a datagram holds is counted as too big, and the next one arrives", async () => {
    const [node, receiver] = [await BridgeWay.connect(), await UdpWay.register()];
    const tooBig = () => host.stats.packets.relayDropped["too_big"]!;
    const before = tooBig();
    node.relay(receiver.id, random.bytes(DATAGRAM_BYTES_MAX - DELIVER_HEAD + 1));
    await expectNext(node, receiver);
    expect(tooBig()).toBe(before + 1);
  });

  test("ids up to 4294967295", async () => {
    const bridged = [0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    const nodes = await Promise.all(bridged.map((id) => BridgeWay.connect(id)));
    const udp = await UdpWay.register(0xffff_fffe);
    for (const node of nodes) {
      for (const other of [...nodes, udp]) {
        await expectNext(node, other);
        await expectNext(other, node);
      }
    }
  });

  test("what asked with DiscoverEx by UDP gets 0x09 from bridged senders; a bridged node gets 0x06 always", async () => {
    const sender = await BridgeWay.connect();
    const both = newId();
    const udp = await host.client();
    await udp.discoverEx(both);
    const expectDest = async (size: number) => {
      const payload = random.bytes(size);
      sender.relay(both, payload);
      expect(hex((await udp.next()).bytes)).toBe(hex(deliverDest(sender.id, both, payload)));
    };
    for (const size of [0, 1, 1200, DATAGRAM_BYTES_MAX - DELIVER_DEST_HEAD]) await expectDest(size);

    const bridged = await BridgeWay.connect(both);
    await expectNext(sender, bridged);
    bridged.node.send(discoverEx(both));
    expect((await bridged.node.message()).type).toBe("discoverReply");
    await udp.discoverEx(both);
    await expectNext(sender, bridged);
    await expectNext(await UdpWay.register(), bridged);

    bridged.node.close();
    await host.untilPeers(1);
    await expectDest(100); // it asked for that by UDP
    expect(udp.pending).toBe(0);
  });

  test("to a node that nobody knows, and to node 0: counted", async () => {
    const node = await BridgeWay.connect();
    await expectNotFound(node, newId());
    await expectNotFound(node, 0);
    await expectNext(node, node);
  });
});

describe("order", () => {
  const PACKETS = 10_000;
  const WINDOW = 250;

  /** The places of packets that arrived. */
  const places = (packets: readonly Uint8Array[]) =>
    packets.map((bytes) => Buffer.from(bytes).readUInt32BE(DELIVER_HEAD));
  const row = (from: number) => Array.from({ length: WINDOW }, (_, i) => from + i);

  test(`${PACKETS} packets from UDP to WebSocket keep it`, async () => {
    const sender = host.burst();
    const { id, node } = await BridgeWay.connect();
    for (let at = 0; at < PACKETS; at += WINDOW) {
      sender.sendEach(row(at).map((place) => relay(1, id, numbered(place, random.below(1000)))));
      expect(places(await node.arrivals(WINDOW))).toEqual(row(at));
    }
  });

  test(`${PACKETS} packets from WebSocket to UDP keep it`, async () => {
    const { id: from, node } = await BridgeWay.connect();
    const [receiver, id] = [host.burst(), newId()];
    receiver.sendEach([discover(id)]);
    await receiver.arrivals(1);
    for (let at = 0; at < PACKETS; at += WINDOW) {
      node.sendEach(row(at).map((place) => relay(from, id, numbered(place, random.below(1000)))));
      const arrived = await receiver.arrivals(WINDOW);
      expect(places(arrived.map(({ bytes }) => bytes))).toEqual(row(at));
    }
  });

  test(`${PACKETS} packets from WebSocket to WebSocket keep it`, async () => {
    const [{ id: from, node: sender }, { id, node: receiver }] = [
      await BridgeWay.connect(),
      await BridgeWay.connect(),
    ];
    for (let at = 0; at < PACKETS; at += WINDOW) {
      sender.sendEach(row(at).map((place) => relay(from, id, numbered(place, random.below(1000)))));
      expect(places(await receiver.arrivals(WINDOW))).toEqual(row(at));
    }
  });
});

describe("bursts", () => {
  const BURST = 48;
  const burst = (bytes: () => number) => Array.from({ length: BURST }, () => random.bytes(bytes()));

  test("of a bridged node leave merged, and arrive whole", async () => {
    const { id: from, node } = await BridgeWay.connect();
    const [receiver, id] = [host.burst(true), newId()];
    receiver.sendEach([discover(id)]);
    await receiver.arrivals(1);
    const merged = () => host.stats.packets.offloadSegments["sent"]!;
    const before = merged();
    const payloads = burst(() => 1200);
    node.sendEach(payloads.map((payload) => relay(from, id, payload)));
    const arrived = await receiver.arrivals(BURST);
    expect(arrived.map(({ bytes }) => hex(bytes))).toEqual(
      payloads.map((payload) => hex(deliver(from, payload))),
    );
    expect(arrived.some(({ together }) => together > 1)).toBe(true);
    expect(merged()).toBeGreaterThan(before);
  });

  test("of a bridged node, of all sizes and for nodes of every sort: each gets its own, in order", async () => {
    const { id: from, node } = await BridgeWay.connect();
    const udp = await UdpWay.register();
    const ex = { id: newId(), client: await host.client() };
    await ex.client.discoverEx(ex.id);
    const bridged = await BridgeWay.connect();
    const payloads = burst(() => random.below(2000));
    const [toUdp, toEx, toBridged] = [0, 1, 2].map((third) =>
      payloads.filter((_, i) => i % 3 === third),
    );
    const receivers = [udp.id, ex.id, bridged.id];
    node.sendEach(payloads.map((payload, i) => relay(from, receivers[i % 3]!, payload)));
    for (const payload of toUdp!) expect(hex(await udp.next())).toBe(hex(deliver(from, payload)));
    for (const payload of toEx!)
      expect(hex((await ex.client.next()).bytes)).toBe(hex(deliverDest(from, ex.id, payload)));
    for (const payload of toBridged!)
      expect(hex(await bridged.next())).toBe(hex(deliver(from, payload)));
  });

  test("of several bridged nodes at once, of large packets, arrive whole", async () => {
    const nodes = await Promise.all(Array.from({ length: 8 }, () => BridgeWay.connect()));
    const payloads = nodes.map(() => Array.from({ length: 8 }, () => random.bytes(60_000)));
    for (const [i, { id, node }] of nodes.entries())
      node.sendEach(payloads[i]!.map((payload) => relay(id, id, payload)));
    for (const [i, { id, node }] of nodes.entries()) {
      const arrived = await node.arrivals(8);
      expect(arrived.map(hex)).toEqual(payloads[i]!.map((payload) => hex(deliver(id, payload))));
    }
  });

  test("that arrive merged by UDP become a frame a packet", async () => {
    const sender = host.burst();
    const { id, node } = await BridgeWay.connect();
    const payloads = burst(() => 1200);
    sender.send(payloads.map((payload) => relay(1, id, payload)));
    const arrived = await node.arrivals(BURST);
    expect(arrived.map(hex)).toEqual(payloads.map((payload) => hex(deliver(1, payload))));
  });
});

describe("a node known by UDP that connects", () => {
  /** Both ways to a node, and two others that send to it. */
  async function both() {
    const udp = await UdpWay.register();
    const bridged = await BridgeWay.connect(udp.id);
    return { udp, bridged, others: [await UdpWay.register(), await BridgeWay.connect()] as const };
  }

  test("gets everything on its connection, while its Discovers by UDP are answered by UDP", async () => {
    const { udp, bridged, others } = await both();
    for (let round = 0; round < 3; round++) {
      for (const other of others) await expectNext(other, bridged);
      await expectNext(bridged, bridged);
      expect(await udp.client.discover(udp.id)).toEqual({
        type: "discoverReply",
        ...udp.client.address,
      });
    }
    for (const other of others) await expectNext(other, bridged);
    await expectNext(udp, bridged); // in its own name, by UDP
    expect(udp.pending).toBe(0);
  });

  const leaves = {
    "closes it": (node: BridgedNode) => node.close(),
    "breaks it off": (node: BridgedNode) => node.connection.destroy(),
    "sends too large a frame": (node: BridgedNode) =>
      node.send(new Uint8Array(FRAME_BYTES_MAX + 1)),
  };
  describe.each(Object.keys(leaves) as (keyof typeof leaves)[])("and then %s", (how) => {
    test("is reached by UDP again", async () => {
      const { udp, bridged, others } = await both();
      await expectNext(others[0], bridged);
      leaves[how](bridged.node);
      await host.untilPeers(1);
      for (const other of others) await expectNext(other, udp);
    });

    test("is reached where it was last heard by UDP", async () => {
      const { udp, bridged, others } = await both();
      const moved = new UdpWay(udp.id, await host.client());
      await moved.client.discover(udp.id);
      for (const other of others) await expectNext(other, bridged);
      leaves[how](bridged.node);
      await host.untilPeers(1);
      for (const other of others) await expectNext(other, moved);
      expect(udp.pending).toBe(0);
    });
  });

  test("may come and go", async () => {
    const udp = await UdpWay.register();
    const other = await UdpWay.register();
    for (let round = 0; round < 20; round++) {
      const bridged = await BridgeWay.connect(udp.id);
      await expectNext(other, bridged);
      bridged.node.close();
      await host.untilPeers(0);
      await expectNext(other, udp);
    }
  });
});

describe("a node that was never heard by UDP", () => {
  test("is found as long as it is connected", async () => {
    const [sender, bridgedSender] = [await UdpWay.register(), await BridgeWay.connect()];
    const id = newId();
    await expectNotFound(sender, id);
    for (const leave of ["close", "destroy"] as const) {
      const node = await BridgeWay.connect(id);
      await expectNext(sender, node);
      await expectNext(bridgedSender, node);
      node.node.connection[leave]();
      await host.untilPeers(1);
      await expectNotFound(sender, id);
      await expectNotFound(bridgedSender, id);
    }
  });

  test("and sends a Discover by UDP while it is connected, is reached there afterwards", async () => {
    const sender = await UdpWay.register();
    const bridged = await BridgeWay.connect();
    const udp = await UdpWay.register(bridged.id);
    await expectNext(sender, bridged);
    bridged.node.close();
    await host.untilPeers(0);
    await expectNext(sender, udp);
  });

  test("counts as one node of the table, under whatever it is known", async () => {
    const metric = async () => {
      const text = await (await fetch(new URL("metrics", host.beacon.httpUrl))).text();
      return Number(/^beacon_nodes (\d+)$/m.exec(text)?.[1]);
    };
    const nodes = () => host.beacon.stats().nodes;
    const before = nodes();
    const expectMore = async (more: number) => {
      expect(nodes()).toBe(before + more);
      expect(await metric()).toBe(before + more);
    };
    const first = await BridgeWay.connect();
    await expectMore(1);
    const udp = await UdpWay.register();
    await expectMore(2);
    const second = await BridgeWay.connect(udp.id); // by both ways: the same node
    await expectMore(2);
    await UdpWay.register(first.id);
    await expectMore(2);
    const third = await BridgeWay.connect();
    await BridgeWay.connect(third.id); // in place of the one before
    await expectMore(3);
    for (const { node } of [first, second, third]) node.connection.destroy();
    await host.untilPeers(1);
    await expectMore(3);
    await host.leave();
    await expectMore(2); // those that were heard by UDP
  });
});

describe("Discover over the socket", () => {
  test("is answered with the address of the connection, whoever it asks for", async () => {
    const { id, node } = await BridgeWay.connect();
    const other = await UdpWay.register();
    const nobody = newId();
    const before = host.beacon.stats().nodes;
    const own = {
      type: "discoverReply",
      address: "127.0.0.1",
      port: node.connection.socket.localPort!,
    } as const;
    for (const message of [id, other.id, nobody, 0].flatMap((asked) => [
      discover(asked),
      discoverEx(asked),
    ])) {
      node.send(message);
      expect(await node.message()).toEqual(own);
    }
    node.send(discover(id, random.bytes(1000))); // what stands behind it means nothing, as by UDP
    expect(await node.message()).toEqual(own);
    await expectNext(new BridgeWay(id, node), other); // which is still where it was
    await expectNotFound(other, nobody);
    expect(host.beacon.stats().nodes).toBe(before);
  });

  test("gives a bridged node no UDP endpoint", async () => {
    const bridged = await BridgeWay.connect();
    const sender = await UdpWay.register();
    bridged.node.send(discover(bridged.id));
    await bridged.next();
    bridged.node.close();
    await host.untilPeers(0);
    await expectNotFound(sender, bridged.id);
  });
});

describe("punching", () => {
  const punches = () => {
    const total = (outcome: string) => host.count((stats) => stats.punches[outcome]!);
    return {
      sent: total("sent"),
      target_unknown: total("target_unknown"),
      bridged: total("bridged"),
    };
  };
  /** Waits until so many more punches have come out so; no others have. */
  async function untilMore(
    before: ReturnType<typeof punches>,
    more: Partial<typeof before>,
  ): Promise<void> {
    const sums = Object.entries(before).map(([outcome, count]) => [
      outcome,
      count + (more[outcome as keyof typeof before] ?? 0),
    ]);
    await untilEqual("punches", punches, Object.fromEntries(sums));
  }

  test("to a bridged node: nothing is sent to either, whether it is known by UDP or not", async () => {
    const requester = await UdpWay.register();
    const [bridged, alsoUdp] = [await BridgeWay.connect(), await UdpWay.register()];
    const both = await BridgeWay.connect(alsoUdp.id);
    const before = punches();
    for (const target of [bridged, both]) await requester.client.punch(requester.id, target.id);
    await untilMore(before, { bridged: 2 });
    for (const target of [bridged, both]) {
      await expectNext(requester, target);
      await expectNext(target, requester);
    }
    expect(alsoUdp.pending).toBe(0);
    await alsoUdp.client.discover(0);
  });

  test("from a bridged node, to whomever: nothing is sent to either", async () => {
    const requester = await BridgeWay.connect();
    const targets = [await UdpWay.register(), await BridgeWay.connect(), requester];
    const before = punches();
    for (const { id } of [...targets, { id: newId() }])
      requester.node.send(punchRequest(requester.id, id));
    requester.node.send(punchRequest(targets[0]!.id, targets[1]!.id)); // in another's name
    await untilMore(before, { bridged: 5 });
    for (const target of targets) await expectNext(requester, target);
  });

  test("to one that left: unknown, or, where it is known by UDP, told as anybody", async () => {
    const requester = await UdpWay.register();
    const [bridged, alsoUdp] = [await BridgeWay.connect(), await UdpWay.register()];
    const both = await BridgeWay.connect(alsoUdp.id);
    bridged.node.close();
    both.node.close();
    await host.untilPeers(0);
    const before = punches();
    await requester.client.punch(requester.id, bridged.id);
    await untilMore(before, { target_unknown: 1 });
    await requester.client.punch(requester.id, alsoUdp.id);
    expect(await requester.client.message()).toEqual({
      type: "punchCommand",
      ...alsoUdp.client.address,
    });
    expect(await alsoUdp.client.message()).toEqual({
      type: "punchCommand",
      ...requester.client.address,
    });
    await untilMore(before, { target_unknown: 1, sent: 1 });
  });
});

describe("what a bridged node may not send is counted, and nothing else happens", () => {
  const OTHER = newId();
  const short = (message: Uint8Array) => message.subarray(0, message.length - 1);
  const empty = new Uint8Array();
  const cases: readonly [
    what: string,
    frame: Uint8Array,
    counter: string,
    type: string | undefined,
  ][] = [
    [
      "a Relay of another node",
      relay(OTHER, OTHER, random.bytes(9)),
      "relayDropped.forged_sender",
      "relay",
    ],
    ["a Relay of nobody", relay(0, OTHER, random.bytes(9)), "relayDropped.forged_sender", "relay"],
    ["gossip", sync(5, [OTHER, 1, 2]), "gossipRejected.unknown_peer", "sync"],
    ["gossip without an id", sync(0, []), "gossipRejected.unknown_peer", "sync"],
    ["gossip cut short", sync(5, []).subarray(0, 6), "gossipRejected.short", "sync"],
    ["a Relay cut short", short(relay(1, OTHER, empty)), "malformed.short", "relay"],
    ["a Discover cut short", short(discover(OTHER)), "malformed.short", "discover"],
    ["a DiscoverEx cut short", short(discoverEx(OTHER)), "malformed.short", "discover_ex"],
    ["a PunchRequest cut short", short(punchRequest(1, OTHER)), "malformed.short", "punch_request"],
    ["one byte", Uint8Array.of(5), "malformed.short", "relay"],
    ["type 0", Uint8Array.of(0, 0, 0, 0, 1), "malformed.unknown_type", "unknown"],
    ["type 10", Uint8Array.of(10, 0, 0, 0, 1), "malformed.unknown_type", "unknown"],
    [
      "type 255",
      random.bytes(FRAME_BYTES_MAX).fill(255, 0, 1),
      "malformed.unknown_type",
      "unknown",
    ],
    [
      "a DiscoverReply",
      Uint8Array.of(2, 4, 127, 0, 0, 1, 0, 9),
      "malformed.not_for_beacon",
      "discover_reply",
    ],
    [
      "a PunchCommand",
      Uint8Array.of(4, 4, 127, 0, 0, 1, 0, 9),
      "malformed.not_for_beacon",
      "punch_command",
    ],
    ["a RelayDeliver", deliver(1, random.bytes(9)), "malformed.not_for_beacon", "relay_deliver"],
    [
      "a RelayDeliverDest",
      deliverDest(1, OTHER, empty),
      "malformed.not_for_beacon",
      "relay_deliver_dest",
    ],
    ["an empty frame", empty, "malformed.empty", undefined],
  ];

  /** Every count of the bridge, by its path. */
  function counts(stats: PacketStats): Record<string, number> {
    const flat: Record<string, number> = {};
    const add = (value: unknown, path: string) => {
      if (typeof value === "number") flat[path] = value;
      else
        for (const [name, inner] of Object.entries(value as object))
          add(inner, path ? `${path}.${name}` : name);
    };
    add(stats, "");
    return flat;
  }

  test.each([...cases])("%s", async (_, frame, counter, type) => {
    const node = await BridgeWay.connect();
    const other = await UdpWay.register(OTHER);
    const nodes = host.beacon.stats().nodes;
    const before = counts(host.stats.packets);
    node.node.send(frame);
    await expectNext(node, other);
    await expectNext(node, node);
    expect([node.pending, other.pending]).toEqual([0, 0]);
    const more = Object.entries(counts(host.stats.packets)).map(([path, count]) => [
      path,
      count - before[path]!,
    ]);
    const RELAY_BYTES = 40 + RELAY_HEAD;
    const DELIVER_BYTES = 40 + DELIVER_HEAD;
    const received: Record<string, number> = { "packetsReceived.relay": 2 };
    if (type !== undefined) received[`packetsReceived.${type}`] = 1 + (type === "relay" ? 2 : 0);
    expect(Object.fromEntries(more.filter(([, count]) => count !== 0))).toEqual({
      ...received,
      [counter]: 1,
      "relayForwarded.local": 1,
      "relayForwarded.bridged": 1,
      receivedBytes: frame.length + 2 * RELAY_BYTES,
      sentBytes: 2 * DELIVER_BYTES,
    });
    expect(host.beacon.stats().nodes).toBe(nodes);
  });
});

describe("frames", () => {
  test("that are text are ignored and counted; only a second reply ends the connection", async () => {
    const node = await BridgeWay.connect();
    const { text: before } = host.stats.dropped;
    const texts = [
      "",
      "hello",
      '{"type":"ping"}',
      '{"type":"auth_ok"}',
      "x".repeat(FRAME_BYTES_MAX),
    ];
    for (const text of texts) node.node.connection.text(text);
    node.node.connection.send(TEXT, relay(node.id, node.id, new Uint8Array(9)));
    await expectNext(node, node);
    expect(host.stats.dropped["text"]).toBe(before! + texts.length + 1);

    const used = host.stats.auth["used"]!;
    node.node.connection.text('{"type":"auth_reply"}');
    expect(await node.node.connection.closed).toEqual({ code: 1008, reason: "auth failed" });
    expect(host.stats.auth["used"]).toBe(used + 1);
    expect(host.stats.peers).toBe(0);
  });

  test("that are pings are answered with what they carry", async () => {
    const node = await BridgeWay.connect();
    const { connection } = node.node;
    const carried = ["", "a", "x".repeat(125)];
    for (const text of carried) connection.send(PING, Buffer.from(text));
    await expectNext(node, node);
    expect(connection.pongs).toEqual(carried);
  });

  test("in fragments are one message, also with a ping between them", async () => {
    const [node, receiver] = [await BridgeWay.connect(), await UdpWay.register()];
    const { connection } = node.node;
    for (const cuts of [[1], [9], [0, 0], [5, 6, 7, 1000], [1200]]) {
      const payload = random.bytes(1200);
      const message = relay(node.id, receiver.id, payload);
      const ends = [...cuts, message.length];
      for (const [i, end] of ends.entries()) {
        const opcode = i === 0 ? BINARY : CONTINUATION;
        connection.send(opcode, message.subarray(ends[i - 1] ?? 0, end), end === message.length);
        if (end !== message.length) connection.send(PING, Buffer.from("between"));
      }
      expect(hex(await receiver.next())).toBe(hex(deliver(node.id, payload)));
    }
    await expectNext(node, node);
    expect(connection.pongs).toEqual(Array(9).fill("between"));
  });

  test("that arrive byte by byte are what they are", async () => {
    const [node, receiver] = [await BridgeWay.connect(), await UdpWay.register()];
    const { socket } = node.node.connection;
    socket.setNoDelay(true);
    const sent: Buffer[] = [];
    node.node.connection.sendBytes = (bytes) => sent.push(Buffer.from(bytes));
    const payload = random.bytes(30);
    node.relay(receiver.id, payload);
    for (const byte of Buffer.concat(sent)) {
      socket.write(Uint8Array.of(byte));
      await new Promise(setImmediate);
    }
    expect(hex(await receiver.next())).toBe(hex(deliver(node.id, payload)));
  });

  test.each([
    ["one frame", [FRAME_BYTES_MAX + 1]],
    ["fragments", [FRAME_BYTES_MAX, 1]],
  ] as const)("larger than 64 KiB, in %s, end the connection", async (_, sizes) => {
    const node = await BridgeWay.connect();
    for (const [i, size] of sizes.entries())
      node.node.connection.send(
        i === 0 ? BINARY : CONTINUATION,
        new Uint8Array(size),
        i === sizes.length - 1,
      );
    await node.node.connection.closed;
    await host.untilPeers(0);
  });
});

/** What an upgrade that is refused gets. */
async function refusalOf(url: URL): Promise<UpgradeRefused> {
  try {
    (await WebSocketClient.open(url)).destroy();
  } catch (error) {
    if (error instanceof UpgradeRefused) return error;
    throw error;
  }
  throw new Error("it was let in");
}

describe("--wss-max-peers", () => {
  const PEERS_MAX = 10;
  let small: BridgeBeacon;
  beforeAll(async () => {
    small = await BridgeBeacon.start({ wssMaxPeers: PEERS_MAX });
  });
  afterEach(() => small.leave());
  afterAll(() => small.close());

  /** As many nodes as there is room for, one after the other. */
  async function fill(): Promise<BridgedNode[]> {
    const nodes: BridgedNode[] = [];
    while (nodes.length < PEERS_MAX) nodes.push(await small.bridged(newId()));
    return nodes;
  }

  test("one more is refused for now, and let in once another has left", async () => {
    const nodes = await fill();
    const before = small.stats.upgrades["full"]!;
    const refusal = await refusalOf(small.url);
    expect(refusal.status).toBe(503);
    expect(refusal.headers["retry-after"]).toMatch(/^\d+$/);
    expect(small.stats.upgrades["full"]).toBe(before + 1);
    expect((await fetch(healthOf(small.url))).status).toBe(200);
    for (const leave of ["close", "destroy"] as const) {
      nodes.pop()!.connection[leave]();
      await small.untilPeers(PEERS_MAX - 1);
      nodes.unshift(await small.bridged(newId()));
      expect((await refusalOf(small.url)).status).toBe(503);
    }
  });

  test("of many at once that prove nothing, a quarter of the room is let in; nodes get the rest", async () => {
    const UNPROVEN_MAX = Math.ceil(PEERS_MAX / 4);
    const before = small.stats.upgrades["crowded"]!;
    const opened = await Promise.allSettled(
      Array.from({ length: 5 * PEERS_MAX }, () => WebSocketClient.open(small.url)),
    );
    const inside = opened.flatMap((result) =>
      result.status === "fulfilled" ? [result.value] : [],
    );
    expect(inside).toHaveLength(UNPROVEN_MAX);
    expect(small.stats).toMatchObject({ connections: UNPROVEN_MAX, peers: 0 });
    expect(small.stats.upgrades["crowded"]).toBe(before + 5 * PEERS_MAX - UNPROVEN_MAX);
    for (const connection of inside) connection.destroy();
    await untilEqual("connections", () => small.stats.connections, 0);
    expect(await fill()).toHaveLength(PEERS_MAX);
  });

  test("changes while it runs; who is there stays", async () => {
    const nodes = await fill();
    const { config } = small.beacon;
    small.beacon.reconfigure({ ...config, wssMaxPeers: PEERS_MAX + 1 });
    nodes.push(await small.bridged(newId()));
    expect((await refusalOf(small.url)).status).toBe(503);
    small.beacon.reconfigure({ ...config, wssMaxPeers: 1 });
    for (const node of nodes) {
      node.relay(node.nodeId, new Uint8Array(1));
      await node.next();
    }
    expect((await refusalOf(small.url)).status).toBe(503);
    small.beacon.reconfigure(config);
  });
});

const healthOf = (url: URL) => new URL("/health", url.href.replace(/^ws/, "http"));

test("with a full node table: 1013, for now; a node that is in the table comes in", async () => {
  const full = await BridgeBeacon.start({ maxNodes: 2 });
  const [known, unknown] = [newId(), newId()];
  try {
    await full.udp(known);
    await full.udp(newId());
    const connection = await WebSocketClient.open(full.url);
    const challenge = (await connection.next()).payload.toString();
    connection.text(full.nodes.identity(unknown).reply(challenge));
    expect(await connection.closed).toEqual({ code: 1013, reason: "try again later" });
    expect(full.stats.auth["no_room"]).toBe(1);
    const node = await full.bridged(known);
    node.relay(known, new Uint8Array(1));
    await node.next();
  } finally {
    await full.close();
  }
});
