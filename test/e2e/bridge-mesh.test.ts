/**
 * Nodes behind the WebSocket bridge in a mesh: their peers reach them, and they reach the nodes of
 * peers.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BridgeBeacon, type BridgedNode, KnownNodes } from "./support/bridged.ts";
import { Client } from "./support/client.ts";
import { announced, type BeaconProcess, freePort, Mesh, nameOf } from "./support/mesh.ts";
import { Random } from "./support/random.ts";
import { until, untilEqual } from "./support/wait.ts";
import { decodeSync, deliver, deliverDest, discoverEx, relay, sync } from "./support/wire.ts";

const SYNC = 0x07;
const DATAGRAM_BYTES_MAX = 65_507;
const RELAY_HEAD = 9;
/**
 * An address of this host that no other connection comes from, so that the TCP port of each UDP
 * port is free.
 */
const PEER_HOST = "127.77.0.1";

let ids = 1000;
const newId = () => ++ids;
const random = new Random(11);
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

describe("two beacons with bridges", () => {
  const folder = mkdtempSync(join(tmpdir(), "beacon-bridge-mesh-"));
  const keys = join(folder, "keys.json");
  const known = new KnownNodes();
  const bridgedIds = Array.from({ length: 20 }, newId);
  const mesh = new Mesh();
  let here: BeaconProcess;
  let there: BeaconProcess;
  beforeAll(async () => {
    writeFileSync(keys, known.file(bridgedIds));
    const names = [`127.0.0.1:${freePort()}`, `127.0.0.1:${freePort()}`] as const;
    const start = (name: string, peer: string) =>
      mesh.beacon(name, [`--peers=${peer}`, "--wss=127.0.0.1:0", `--wss-keys=${keys}`]);
    [here, there] = await Promise.all([start(names[0], names[1]), start(names[1], names[0])]);
  });
  afterAll(async () => {
    await mesh.close();
    rmSync(folder, { recursive: true });
  });

  interface Node {
    readonly id: number;
    send(message: Uint8Array): unknown;
    next(): Promise<Uint8Array>;
  }

  async function udpNode(beacon: BeaconProcess, wantsDest = false): Promise<Node> {
    const [client, id] = [await mesh.client(beacon), newId()];
    await (wantsDest ? client.discoverEx(id) : client.discover(id));
    const next = async () => {
      const { bytes, from } = await client.next();
      expect(from).toEqual(beacon.at); // its own beacon's public port
      return bytes;
    };
    return { id, send: (message) => client.send(message), next };
  }

  async function bridgedNode(
    beacon: BeaconProcess,
  ): Promise<Node & { readonly node: BridgedNode }> {
    const id = bridgedIds.pop()!;
    const node = await mesh.bridged(beacon, known.identity(id));
    return { id, node, send: (message) => node.send(message), next: () => node.next() };
  }

  const bothKnow = async () => {
    await announced(here, there);
    await announced(there, here);
  };

  async function expectNext(
    from: Node,
    to: Node,
    payload: Uint8Array,
    wantsDest = false,
  ): Promise<void> {
    await from.send(relay(from.id, to.id, payload));
    const expected = wantsDest ? deliverDest(from.id, to.id, payload) : deliver(from.id, payload);
    expect(hex(await to.next())).toBe(hex(expected));
  }

  test("everybody reaches everybody, with payloads of every size", async () => {
    const nodes = [
      await bridgedNode(here),
      await udpNode(here),
      await bridgedNode(there),
      await udpNode(there),
    ];
    await bothKnow();
    for (const size of [0, 1, 1200, DATAGRAM_BYTES_MAX - RELAY_HEAD]) {
      for (const from of nodes) {
        for (const to of nodes) if (from !== to) await expectNext(from, to, random.bytes(size));
      }
    }
  });

  test("a node of the peer that asked with DiscoverEx gets 0x09 from bridged nodes, and keeps getting it", async () => {
    const [near, far] = [await bridgedNode(here), await bridgedNode(there)];
    const node = await udpNode(there, true);
    await bothKnow();
    for (let i = 0; i < 3; i++) {
      await expectNext(near, node, random.bytes(100), true);
      await expectNext(far, node, random.bytes(100), true);
      await node.send(discoverEx(node.id));
      await node.next();
    }
    await expectNext(node, near, random.bytes(100));
    await expectNext(node, far, random.bytes(100));
  });

  test("a burst keeps its order on its way, and is whole", async () => {
    const [near, far] = [await bridgedNode(here), await bridgedNode(there)];
    await bothKnow();
    for (let round = 0; round < 20; round++) {
      const payloads = Array.from({ length: 40 }, () => random.bytes(random.below(1500)));
      near.node.sendEach(payloads.map((payload) => relay(near.id, far.id, payload)));
      const arrived = await far.node.arrivals(payloads.length);
      expect(arrived.map(hex)).toEqual(payloads.map((payload) => hex(deliver(near.id, payload))));
    }
  });

  test("one that leaves is withdrawn: what the peer's nodes send to it is not found", async () => {
    const sender = await udpNode(there);
    for (const leave of ["close", "destroy"] as const) {
      const before = (await here.stats()).nodes;
      const leaver = await bridgedNode(here);
      await announced(here, there);
      await expectNext(sender, leaver, random.bytes(100));
      leaver.node.connection[leave]();
      await untilEqual("nodes", async () => (await here.stats()).nodes, before);
      await untilEqual("nodes announced", async () => (await there.routes())[here.name], before);
      const notFound = await there.notFound();
      await sender.send(relay(sender.id, leaver.id, random.bytes(9)));
      await untilEqual("relays to nobody", () => there.notFound(), notFound + 1);
    }
  });
});

describe("a beacon and somebody who plays its peer", () => {
  let host: BridgeBeacon;
  let peer: Client;
  beforeAll(async () => {
    peer = await Client.open(PEER_HOST, { address: "127.0.0.1", port: 9 });
    host = await BridgeBeacon.start({
      beaconId: 5,
      peers: [nameOf(peer)],
      gossipIntervalMs: 100,
      selfCheck: false,
    });
  });
  afterEach(() => host.leave());
  afterAll(async () => {
    await host.close();
    peer.close();
  });

  /** The next gossip that names just these nodes. */
  async function untilNamed(nodeIds: readonly number[]): Promise<void> {
    const wanted = [...nodeIds].sort();
    let named: readonly number[] = [];
    await until(`gossip of ${wanted}`, () => {
      for (const { bytes } of peer.take())
        if (bytes[0] === SYNC) named = decodeSync(bytes).nodeIds.sort();
      return Bun.deepEquals(named, wanted);
    });
  }

  /** The next Relay that the peer gets, which must come from the beacon's public port. */
  async function nextRelay(): Promise<Uint8Array> {
    const { bytes, from } = await until("a Relay to the peer", async () => {
      const datagram = await peer.next();
      return datagram.bytes[0] !== SYNC && datagram;
    });
    expect(from).toEqual(host.at);
    return bytes;
  }

  /** Announces these nodes, in place of those before, and waits until the beacon knows. */
  async function announce(...nodeIds: number[]): Promise<void> {
    for (const list of [[], nodeIds]) {
      await peer.send(sync(6, list), host.at);
      await untilEqual("routes", () => host.beacon.stats().mesh.peers[0]!.routes, list.length);
    }
  }

  test("gossip names the nodes of the bridge, as long as they are connected", async () => {
    await untilNamed([]);
    const nodes = [await host.bridged(newId()), await host.bridged(newId())] as const;
    await untilNamed(nodes.map(({ nodeId }) => nodeId));
    const again = await host.bridged(nodes[0].nodeId);
    await nodes[0].connection.closed;
    await untilNamed(nodes.map(({ nodeId }) => nodeId));
    nodes[1].close();
    await untilNamed([again.nodeId]);
    again.connection.destroy();
    await untilNamed([]);
  });

  test("one that is known by UDP is named as long as it is known there", async () => {
    const node = await host.bridged(newId());
    await host.udp(node.nodeId);
    node.close();
    await host.untilPeers(0);
    await untilNamed([node.nodeId]);
    await host.bridged(node.nodeId);
    await untilNamed([node.nodeId]);
  });

  test("a frame for the peer's node leaves as it is, from the public port", async () => {
    const node = await host.bridged(newId());
    const far = newId();
    await announce(far);
    for (const size of [0, 1, 1200, DATAGRAM_BYTES_MAX - RELAY_HEAD]) {
      const packet = relay(node.nodeId, far, random.bytes(size));
      node.send(packet);
      expect(hex(await nextRelay())).toBe(hex(packet));
    }
  });

  test("frames of several nodes for several nodes of the peer arrive whole, each node's in order", async () => {
    const nodes = [await host.bridged(newId()), await host.bridged(newId())];
    const far = [newId(), newId(), newId()];
    await announce(...far);
    const sent = nodes.map(({ nodeId }) =>
      Array.from({ length: 60 }, (_, i) =>
        relay(nodeId, far[i % 3]!, random.bytes(i < 30 ? 700 : random.below(1400))),
      ),
    );
    for (const [i, node] of nodes.entries()) node.sendEach(sent[i]!);
    const arrived: string[] = [];
    while (arrived.length < 120) arrived.push(hex(await nextRelay()));
    for (const [i, { nodeId }] of nodes.entries()) {
      const own = arrived.filter((packet) => parseInt(packet.slice(2, 10), 16) === nodeId);
      expect(own).toEqual(sent[i]!.map(hex));
    }
  });

  test("the peer's packets reach a bridged node, and end here when it has left", async () => {
    const node = await host.bridged(newId());
    const payload = random.bytes(50);
    const packet = relay(77, node.nodeId, payload);
    await peer.send(packet, host.at);
    expect(hex(await node.next())).toBe(hex(deliver(77, payload)));
    await announce(node.nodeId); // the peer says that it has it, too
    node.close();
    await host.untilPeers(0);
    const notFound = () => host.count((stats) => stats.relayNotFound);
    const before = notFound();
    await peer.send(packet, host.at);
    await untilEqual("relays to nobody", notFound, before + 1);
  });

  test("who is connected here is reached here, then who is known by UDP, then the peer's", async () => {
    const id = newId();
    const [sender, bridgedSender] = [await host.client(), await host.bridged(newId())];
    const send = async (payload: Uint8Array) => {
      await sender.relay(bridgedSender.nodeId, id, payload);
      bridgedSender.relay(id, payload);
    };
    /** Both packets arrive there and nowhere else. */
    const expectBoth = async (next: () => Promise<Uint8Array>, asItIs = false) => {
      const payload = random.bytes(30);
      await send(payload);
      const expected = asItIs
        ? relay(bridgedSender.nodeId, id, payload)
        : deliver(bridgedSender.nodeId, payload);
      for (let i = 0; i < 2; i++) expect(hex(await next())).toBe(hex(expected));
    };
    await announce(id);
    await expectBoth(nextRelay, true);
    const udp = await host.udp(id);
    await expectBoth(async () => (await udp.next()).bytes);
    const bridged = await host.bridged(id);
    await expectBoth(() => bridged.next());
    expect(udp.pending).toBe(0);
    bridged.close();
    await host.untilPeers(1);
    await expectBoth(async () => (await udp.next()).bytes);

    const onlyBridged = await host.bridged(newId());
    await announce(onlyBridged.nodeId);
    const payload = random.bytes(30);
    bridgedSender.relay(onlyBridged.nodeId, payload);
    expect(hex(await onlyBridged.next())).toBe(hex(deliver(bridgedSender.nodeId, payload)));
    onlyBridged.close();
    await host.untilPeers(1);
    const packet = relay(bridgedSender.nodeId, onlyBridged.nodeId, payload);
    bridgedSender.send(packet);
    expect(hex(await nextRelay())).toBe(hex(packet));
  });

  test("a node whose connection comes from a peer's address and port is no peer", async () => {
    const far = newId();
    await announce(far);
    const { address, port } = peer.address;
    const node = await host.bridged(newId(), { localAddress: address, localPort: port });
    node.send(sync(6, [1, 2, 3]));
    const packet = relay(node.nodeId, far, random.bytes(50));
    node.send(packet); // which a peer's would not be: it would not go to a peer again
    expect(hex(await nextRelay())).toBe(hex(packet));
    expect(host.stats.packets.gossipReceived).toBe(0);
    expect(host.beacon.stats().mesh.peers[0]!.routes).toBe(1);
  });

  test("gossip over a socket is not the peer's, whatever it says", async () => {
    const { routes } = host.beacon.stats().mesh.peers[0]!;
    const node = await host.bridged(newId());
    node.send(sync(6, [1, 2, 3, 4, 5]));
    node.relay(node.nodeId, new Uint8Array(1));
    await node.next();
    expect(host.beacon.stats().mesh.peers[0]!.routes).toBe(routes);
    expect(host.stats.packets.gossipReceived).toBe(0);
  });

  test("a beacon that closes withdraws them", async () => {
    const [gone, its] = [
      await Client.open("127.0.0.1", { address: "127.0.0.1", port: 9 }),
      newId(),
    ];
    const other = await BridgeBeacon.start({ peers: [nameOf(gone)], gossipIntervalMs: 100 });
    const named = () => gone.take().map(({ bytes }) => decodeSync(bytes).nodeIds);
    const node = await other.bridged(its);
    await until("gossip of the node", () => named().at(-1)?.includes(its));
    const closing = other.close();
    await node.connection.closed;
    await closing;
    await until("the last gossip", () => named().at(-1)?.length === 0);
    gone.close();
  });
});
