/**
 * Beacons as each other's peers: whose nodes are reached through whom, and what becomes of it when
 * a beacon ends, lies or is told otherwise.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import { sum, sumByName } from "./support/beacon.ts";
import type { BurstSocket } from "./support/bursts.ts";
import type { Client } from "./support/client.ts";
import {
  announced,
  type BeaconProcess,
  expectNotFound,
  expectReached,
  freePort,
  Mesh,
  nameOf,
} from "./support/mesh.ts";
import { installed, type Program } from "./support/program.ts";
import { Random } from "./support/random.ts";
import { until, untilEqual } from "./support/wait.ts";
import {
  decode,
  deliver,
  deliverDest,
  discover,
  discoverEx,
  relay,
  sync,
  type WireAddress,
} from "./support/wire.ts";

const SYNC = 0x07;
/** What fits into one Sync: (65,507 - 7) / 4. */
const SYNC_NODES_MAX = 16_375;
const SENDER_ID = 900_000;
/** Times that no test waits for. */
const NO_GOSSIP = "--gossip-interval=1m";
const NO_TIMEOUT = "--peer-timeout=1h";

let ids = 1000;
const newId = () => ++ids;
const idsFrom = (first: number, count: number) =>
  Array.from({ length: count }, (_, i) => first + i);

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

/**
 * A command that runs another where the host names are those of this file.
 * @returns undefined where that cannot be had
 */
function withHosts(path: string): string[] | undefined {
  const script = 'mount --bind "$0" /etc/hosts && exec "$@"';
  const command = ["unshare", "--mount", "sh", "-c", script, path];
  const can =
    process.getuid?.() === 0 && installed("unshare") && Bun.spawnSync([...command, "true"]).success;
  return can ? command : undefined;
}

/** A place on 127.0.0.1 for a beacon that is not there yet. */
function place(): { at: WireAddress; name: string } {
  const port = freePort();
  return { at: { address: "127.0.0.1", port }, name: `127.0.0.1:${port}` };
}

/** The next relay that somebody who plays a peer gets; gossip is passed over. */
async function nextRelay(peer: Client): Promise<Uint8Array> {
  for (;;) {
    const { bytes } = await peer.next();
    if (bytes[0] !== SYNC) return bytes;
  }
}

/** The next gossip that somebody who plays a peer gets, and the nodes it names. */
async function nextGossip(peer: Client): Promise<{ bytes: Uint8Array; nodeIds: number[] }> {
  for (;;) {
    const { bytes } = await peer.next();
    if (bytes[0] !== SYNC) continue;
    const buffer = Buffer.from(bytes);
    const nodeIds = Array.from({ length: buffer.readUInt16BE(5) }, (_, i) =>
      buffer.readUInt32BE(7 + 4 * i),
    );
    return { bytes, nodeIds };
  }
}

/**
 * Sends a packet to a node through a beacon, and waits until it arrives, unchanged, at somebody who
 * plays a peer.
 */
async function expectReachedPeer(sender: Client, peer: Client, nodeId: number): Promise<void> {
  const packet = relay(SENDER_ID, nodeId, crypto.getRandomValues(new Uint8Array(20)));
  await sender.send(packet);
  expect(hex(await nextRelay(peer))).toBe(hex(packet));
}

/** Registers nodes, all from one socket. */
async function register(socket: BurstSocket, nodeIds: readonly number[]): Promise<void> {
  const WINDOW = 100;
  for (let at = 0; at < nodeIds.length; at += WINDOW) {
    const some = nodeIds.slice(at, at + WINDOW);
    socket.sendEach(some.map((id) => discover(id)));
    await socket.arrivals(some.length);
  }
}

interface Family {
  readonly family: string;
  /** Where three beacons listen, what their peers call them by, and where their nodes sit. */
  readonly listen: readonly [string, string, string];
  readonly peer: string;
  readonly nodes: readonly [string, string, string];
}

const [V4, V6] = ["127.0.0.1", "[::1]"];
const FAMILIES: readonly Family[] = [
  { family: "IPv4", listen: [V4, V4, V4], peer: V4, nodes: [V4, V4, V4] },
  { family: "IPv6", listen: [V6, V6, V6], peer: V6, nodes: ["::1", "::1", "::1"] },
  { family: "two dual-stack, one IPv4", listen: ["", V4, ""], peer: V4, nodes: ["::1", V4, "::1"] },
];

describe.each(FAMILIES)("three beacons, $family", ({ listen, peer, nodes: hosts }) => {
  const mesh = new Mesh();
  let beacons: readonly BeaconProcess[] = [];
  const random = new Random(3);

  beforeAll(async () => {
    const ports = listen.map(() => freePort());
    beacons = await Promise.all(
      listen.map((host, i) => {
        const others = ports.filter((port) => port !== ports[i]).map((port) => `${peer}:${port}`);
        return mesh.beacon(`${host}:${ports[i]}`, [`--peers=${others}`]);
      }),
    );
  });
  afterAll(() => mesh.close());

  async function everybodyKnows(): Promise<void> {
    for (const from of beacons) {
      for (const to of beacons) if (to !== from) await announced(from, to);
    }
  }

  /** A node on each beacon, which all know. */
  async function nodes(wantsDest = false) {
    const all = await Promise.all(
      beacons.map(async (beacon, i) => {
        const client = await mesh.client({ at: { address: hosts[i]!, port: beacon.at.port } });
        const id = newId();
        await (wantsDest ? client.discoverEx(id) : client.discover(id));
        return { client, id };
      }),
    );
    await everybodyKnows();
    return all;
  }

  test.each([false, true])(
    "every node reaches every node and is answered (DiscoverEx: %p)",
    async (wantsDest) => {
      const all = await nodes(wantsDest);
      const send = async (from: (typeof all)[0], to: (typeof all)[0]) => {
        const payload = random.bytes(300);
        await from.client.relay(from.id, to.id, payload);
        const expected = wantsDest
          ? deliverDest(from.id, to.id, payload)
          : deliver(from.id, payload);
        const { bytes, from: source } = await to.client.next();
        expect(hex(bytes)).toBe(hex(expected));
        expect(source).toEqual(to.client.beacon); // its own beacon, which it knows
      };
      for (const a of all) {
        for (const b of all) {
          await send(a, b);
          await send(b, a);
        }
      }
      expect(all.map(({ client }) => client.pending)).toEqual([0, 0, 0]);
    },
  );

  test("payloads of every size, none to 60 KB", async () => {
    const [a, b] = (await nodes()) as [
      { client: Client; id: number },
      { client: Client; id: number },
    ];
    for (const size of [0, 1, 8, 100, 1200, 1452, 1453, 9000, 30_000, 60_000]) {
      for (const [from, to] of [
        [a, b],
        [b, a],
      ] as const) {
        const payload = random.bytes(size);
        await from.client.relay(from.id, to.id, payload);
        expect(hex((await to.client.next()).bytes)).toBe(hex(deliver(from.id, payload)));
      }
    }
  });

  test("packets keep their order", async () => {
    const ROUNDS = 20;
    // each node gets twice that a round, which fits into a buffer that was never tuned
    const BURST = 15;
    const all = await nodes();
    const expected = new Map<string, number>();
    const sent = new Map<string, number>();
    for (let round = 0; round < ROUNDS; round++) {
      for (let i = 0; i < BURST; i++) {
        for (const from of all) {
          for (const to of all) {
            if (from === to) continue;
            const pair = `${from.id} ${to.id}`;
            const seq = sent.get(pair) ?? 0;
            sent.set(pair, seq + 1);
            const payload = new Uint8Array(4 + random.below(1000));
            new DataView(payload.buffer).setUint32(0, seq);
            await from.client.relay(from.id, to.id, payload);
          }
        }
      }
      for (const to of all) {
        for (let i = 0; i < (all.length - 1) * BURST; i++) {
          const message = await to.client.message();
          if (message.type !== "deliver") throw new Error(`a ${message.type} came`);
          const pair = `${message.senderId} ${to.id}`;
          const seq = Buffer.from(message.payload).readUInt32BE();
          if (seq !== (expected.get(pair) ?? 0))
            throw new Error(`${pair}: ${seq}, not ${expected.get(pair)}`);
          expected.set(pair, seq + 1);
        }
      }
    }
    expect(expected).toEqual(sent);
  });

  test("a burst stays merged on all of its way", async () => {
    const [near, far] = beacons as [BeaconProcess, BeaconProcess];
    const receiver = mesh.burst(far, true);
    const id = newId();
    await register(receiver, [id]);
    await announced(far, near);
    const segments = async (beacon: BeaconProcess) => {
      const stats = await beacon.stats();
      return {
        received: sum(stats, (w) => w.offloadSegments["received"]!),
        sent: sum(stats, (w) => w.offloadSegments["sent"]!),
      };
    };
    const before = [await segments(near), await segments(far)];
    const sender = mesh.burst(near);
    const payloads = Array.from({ length: 48 }, () => random.bytes(1200));
    sender.send(payloads.map((payload) => relay(SENDER_ID, id, payload)));
    const arrived = await receiver.arrivals(payloads.length);
    expect(arrived.map(({ bytes }) => hex(bytes))).toEqual(
      payloads.map((p) => hex(deliver(SENDER_ID, p))),
    );
    expect(new Set(arrived.map(({ together }) => together))).toEqual(new Set([payloads.length]));
    for (const [i, beacon] of [near, far].entries()) {
      const { received, sent } = before[i]!;
      await untilEqual("merged packets", () => segments(beacon), {
        received: received + payloads.length,
        sent: sent + payloads.length,
      });
    }
  });

  test("a merged message for nodes of several beacons", async () => {
    const receivers = beacons.map((beacon, i) => {
      const socket = mesh.burst(beacon);
      return { socket, id: newId(), wantsDest: i === 1 };
    });
    for (const { socket, id, wantsDest } of receivers) {
      socket.sendEach([wantsDest ? discoverEx(id) : discover(id)]);
      await socket.arrivals(1);
    }
    await everybodyKnows();
    const sender = mesh.burst(beacons[0]!);
    const expected: string[][] = receivers.map(() => []);
    const packets = Array.from({ length: 60 }, (_, i) => {
      const { id, wantsDest } = receivers[i % 3]!;
      const payload = random.bytes(700);
      expected[i % 3]!.push(
        hex(wantsDest ? deliverDest(SENDER_ID, id, payload) : deliver(SENDER_ID, payload)),
      );
      return relay(SENDER_ID, id, payload);
    });
    sender.send(packets);
    for (const [i, { socket }] of receivers.entries()) {
      const arrived = await socket.arrivals(20);
      expect(arrived.map(({ bytes }) => hex(bytes))).toEqual(expected[i]!);
    }
  });

  test("nothing was dropped, turned away or warned of; the numbers tell of the peers", async () => {
    for (const beacon of beacons) {
      const stats = await beacon.stats();
      // comes while it starts
      const { unknown_peer: _, ...gossipRejected } = sumByName(stats, (w) => w.gossipRejected);
      expect({
        malformed: sumByName(stats, (w) => w.malformed),
        relayDropped: sumByName(stats, (w) => w.relayDropped),
        replyDropped: sumByName(stats, (w) => w.replyDropped),
        gossipRejected,
        notFound: sum(stats, (w) => w.relayNotFound),
        restarts: sum(stats, (w) => w.restarts),
        sendErrors: stats.mesh.gossipSendErrors,
        truncated: stats.mesh.gossipTruncated,
        refused: stats.mesh.routesRefused,
      }).toEqual({
        malformed: {},
        relayDropped: {},
        replyDropped: {},
        gossipRejected: {},
        notFound: 0,
        restarts: 0,
        sendErrors: 0,
        truncated: 0,
        refused: 0,
      });
      expect(beacon.warnings()).toEqual([]);
      const others = beacons.filter((other) => other !== beacon);
      expect(stats.mesh.peers.map(({ address }) => address).sort()).toEqual(
        others.map(({ name }) => name).sort(),
      );
      for (const { gossipAgeS } of stats.mesh.peers) expect(gossipAgeS).toBeNumber();
      expect(await beacon.metric("beacon_peers")).toBe(others.length);
      for (const other of others) {
        expect(await beacon.metric(`beacon_peer_routes{peer="${other.name}"}`)).toBe(
          (await other.stats()).nodes,
        );
      }
      expect(await beacon.metric('beacon_relay_forwarded_total{tier="peer"}')).toBe(
        (await beacon.relays()).peer,
      );
      expect(await beacon.metric("beacon_gossip_sent_total")).toBeGreaterThan(0);
      expect(await beacon.metric("beacon_gossip_received_total")).toBeGreaterThan(0);
      expect(await beacon.metric('beacon_gossip_rejected_total{reason="own_id"}')).toBe(0);
      expect(await beacon.metric("beacon_gossip_truncated_total")).toBe(0);
    }
  });
});

describe("with a mesh of its own each", () => {
  let mesh = new Mesh();
  const folder = temporaryFolder();
  afterEach(async () => {
    await mesh.close();
    mesh = new Mesh();
  });

  /** Two beacons that are peers. */
  async function two(flags: readonly string[] = []): Promise<[BeaconProcess, BeaconProcess]> {
    const [a, b] = [place(), place()];
    return Promise.all([
      mesh.beacon(a.name, [`--peers=${b.name}`, ...flags]),
      mesh.beacon(b.name, [`--peers=${a.name}`, ...flags]),
    ]);
  }

  /** Somebody who plays a peer of a beacon that is not there yet. */
  const player = (at: { readonly at: WireAddress }) => mesh.client(at);

  describe("names", () => {
    test("a peer is found by its host name; one that has no address is warned of, and the rest works", async () => {
      const [placeA, placeB] = [place(), place()];
      const nobody = "nobody.invalid";
      const a = await mesh.beacon(placeA.name, [
        `--peers=${nobody}:9001,localhost:${placeB.at.port}`,
      ]);
      const b = await mesh.beacon(placeB.name, [`--peers=localhost:${placeA.at.port}`]);
      const [nodeA, nodeB] = [await mesh.client(a), await mesh.client(b)];
      await nodeA.discover(1);
      await nodeB.discover(2);
      await announced(a, b);
      await announced(b, a);
      await expectReached(nodeA, nodeB, 2);
      await expectReached(nodeB, nodeA, 1);
      const warning = await until("it is warned of", () =>
        a.warnings().find((text) => text.includes(nobody)),
      );
      expect(warning).toContain("check the name");
      expect(a.warnings().filter((text) => text.includes(nobody))).toHaveLength(1);
      expect(Object.keys(await a.routes())).toEqual([b.name]);
    });

    // Resolvers put the nearer address first, which is 127.0.0.1 here; the beacons are at the other
    // one.
    const SECOND = "127.0.0.9";
    const hosts = join(folder, "hosts");
    writeFileSync(hosts, `127.0.0.1 localhost\n127.0.0.1 twofold\n${SECOND} twofold\n`);
    const within = withHosts(hosts);
    test.skipIf(within === undefined)(
      `a name with two addresses, of which the first leads nowhere${within ? "" : " (needs root, unshare and mount)"}`,
      async () => {
        const [portA, portB] = [freePort(), freePort()];
        const [a, b] = await Promise.all([
          mesh.beacon(`${SECOND}:${portA}`, [`--peers=twofold:${portB}`], { within: within! }),
          mesh.beacon(`${SECOND}:${portB}`, [`--peers=twofold:${portA}`], { within: within! }),
        ]);
        const [nodeA, nodeB] = [await mesh.client(a), await mesh.client(b)];
        await nodeA.discover(1);
        await nodeB.discover(2);
        await announced(a, b);
        await announced(b, a);
        await expectReached(nodeA, nodeB, 2);
        await expectReached(nodeB, nodeA, 1);
        expect(Object.keys(await a.routes()).sort()).toEqual([`127.0.0.1:${portB}`, b.name]);
      },
    );
  });

  describe("a beacon that ends", () => {
    /** Two beacons, a node on the second, and somebody who reaches it through the first. */
    async function reached(flags: readonly string[]) {
      const [a, b] = await two(flags);
      const [sender, node] = [await mesh.client(a), await mesh.client(b)];
      const id = newId();
      await node.discover(id);
      await announced(b, a);
      await expectReached(sender, node, id);
      return { a, b, sender, node, id };
    }

    /** The second beacon once more, at its old address, and the node registers again. */
    async function again(
      b: BeaconProcess,
      a: BeaconProcess,
      flags: readonly string[],
      node: Client,
      id: number,
    ) {
      const restarted = await mesh.beacon(b.name, [`--peers=${a.name}`, ...flags]);
      await node.discover(id);
      await announced(restarted, a);
    }

    test("SIGKILL: its routes are withdrawn when it was silent for long enough; restarted, they are back", async () => {
      const flags = ["--peer-timeout=1500ms"];
      const { a, b, sender, node, id } = await reached(flags);
      b.program.signal("SIGKILL");
      await b.program.exited();
      await untilEqual("routes", () => a.routes(), { [b.name]: 0 });
      expect(a.warnings()).toContain("peer went silent, its routes are withdrawn");
      await expectNotFound(sender, a, id);
      expect((await a.stats()).mesh.peers).toEqual([
        { address: b.name, routes: 0, gossipAgeS: null, isInDirectory: false, check: null },
      ]);
      await again(b, a, flags, node, id);
      await expectReached(sender, node, id);
    });

    test("SIGTERM: it takes its leave, and its routes with it; restarted, they are back", async () => {
      const flags = [NO_TIMEOUT];
      const { a, b, sender, node, id } = await reached(flags);
      b.program.signal("SIGTERM");
      await untilEqual("routes", () => a.routes(), { [b.name]: 0 });
      await expectNotFound(sender, a, id);
      expect(await b.program.exited()).toBe(0);
      await again(b, a, flags, node, id);
      await expectReached(sender, node, id);
      expect(a.warnings()).toEqual([]);
    });
  });

  describe("no packet travels for ever", () => {
    const PACKETS = 100;

    test("two beacons that each believe the other has a node: one hop, and it ends", async () => {
      const flags = [NO_GOSSIP, NO_TIMEOUT, "--node-ttl=2s"];
      const [a, b] = await two(flags);
      const [nodeA, nodeB] = [await mesh.client(a), await mesh.client(b)];
      const id = newId();
      // Reloading makes a beacon gossip at once; the next time would be in a minute, when the node
      // is long forgotten.
      await until("each says that it has the node", async () => {
        await nodeA.discover(id);
        await nodeB.discover(id);
        for (const { program } of [a, b]) program.signal("SIGHUP");
        return (await a.routes())[b.name] === 1 && (await b.routes())[a.name] === 1;
      });
      for (const beacon of [a, b])
        await until("it has forgotten the node", async () => (await beacon.stats()).nodes === 0);
      expect([await a.routes(), await b.routes()]).toEqual([{ [b.name]: 1 }, { [a.name]: 1 }]);

      // Half of them one by one, half of them merged.
      const sendTo = async (beacon: BeaconProcess) => {
        const packets = Array.from({ length: PACKETS / 2 }, () =>
          relay(SENDER_ID, id, new Uint8Array(500)),
        );
        const sender = mesh.burst(beacon);
        sender.sendEach(packets);
        sender.send(packets);
      };
      await sendTo(a);
      const afterA = { received: PACKETS, local: 0, peer: PACKETS, notFound: 0 };
      await untilEqual("relays at the first", () => a.relays(), afterA);
      const afterB = { received: PACKETS, local: 0, peer: 0, notFound: PACKETS };
      await untilEqual("relays at the second", () => b.relays(), afterB);
      await sendTo(b);
      const both = { received: 2 * PACKETS, local: 0, peer: PACKETS, notFound: PACKETS };
      for (const beacon of [a, b])
        await untilEqual(`relays at ${beacon.name}`, () => beacon.relays(), both);
      // Whatever were still on its way would be ahead of these.
      await nodeA.discover(0);
      await nodeB.discover(0);
      expect([await a.relays(), await b.relays()]).toEqual([both, both]);
      expect([nodeA.pending, nodeB.pending]).toEqual([0, 0]);
    });

    test("what a peer sends us is for our nodes: not sent on, neither back nor to another peer", async () => {
      const at = place();
      const [boomerang, other] = [await player(at), await player(at)];
      const a = await mesh.beacon(at.name, [
        NO_GOSSIP,
        NO_TIMEOUT,
        `--peers=${nameOf(boomerang)},${nameOf(other)}`,
      ]);
      const sender = await mesh.client(a);
      const [claimed, others, own] = [newId(), newId(), newId()];
      await boomerang.send(sync(1, [claimed]));
      await other.send(sync(2, [others]));
      await untilEqual("routes", () => a.routes(), { [nameOf(boomerang)]: 1, [nameOf(other)]: 1 });
      await sender.discover(own);

      for (let i = 0; i < 3; i++) {
        const packet = relay(SENDER_ID, claimed, new Uint8Array([i]));
        await sender.send(packet);
        const bounced = await nextRelay(boomerang);
        expect(hex(bounced)).toBe(hex(packet));
        await boomerang.send(bounced);
        await boomerang.send(relay(SENDER_ID, others, new Uint8Array([i])));
      }
      await untilEqual("relays", () => a.relays(), { received: 9, local: 0, peer: 3, notFound: 6 });
      await expectReachedPeer(sender, boomerang, claimed);
      await expectReachedPeer(sender, other, others); // the first that either gets
      await expectReached(boomerang, sender, own);
    });

    test("nor when relays of peers and of nodes for one destination come in one batch", async () => {
      const EACH = 20;
      const at = place();
      const peer = mesh.burst(at);
      const owner = mesh.burst(at);
      // One worker, held meanwhile, so that it finds all of them at once.
      const a = await mesh.beacon(at.name, [
        ...[NO_GOSSIP, NO_TIMEOUT, "--workers=1"],
        `--peers=${nameOf(peer)},${nameOf(owner)}`,
      ]);
      const id = newId();
      owner.sendEach([sync(1, [id])]);
      await until("it is announced", async () => (await a.routes())[nameOf(owner)] === 1);
      const sender = mesh.burst(a);
      const packet = (seq: number) => relay(SENDER_ID, id, new Uint8Array(200).fill(seq));
      const fromPeer = (count: number) => Array.from({ length: count }, () => packet(0xff));
      a.program.signal("SIGSTOP");
      let seq = 0;
      for (let i = 0; i < EACH; i++) {
        if (i % 2 === 0) peer.sendEach([packet(0xff)]);
        else peer.send(fromPeer(3));
        if (i % 3 === 0) sender.sendEach([packet(seq++), packet(seq++)]);
        else sender.send([packet(seq++), packet(seq++)]);
      }
      a.program.signal("SIGCONT");
      const got: number[] = [];
      while (got.length < seq) {
        for (const { bytes } of await owner.arrivals(1))
          if (bytes[0] !== SYNC) got.push(bytes.at(-1)!);
      }
      expect(got).toEqual(idsFrom(0, seq));
      const bounced = (EACH / 2) * (1 + 3);
      const relays = { received: seq + bounced, local: 0, peer: seq, notFound: bounced };
      await untilEqual("relays", () => a.relays(), relays);
      expect(owner.take().filter(({ bytes }) => bytes[0] !== SYNC)).toEqual([]);
    });
  });

  describe("a node in two places", () => {
    test("that moves to another beacon: the one where it is spoken to wins, until it is forgotten there", async () => {
      const [placeA, placeB] = [place(), place()];
      const a = await mesh.beacon(placeA.name, [`--peers=${placeB.name}`, "--node-ttl=3s"]);
      const b = await mesh.beacon(placeB.name, [`--peers=${placeA.name}`]);
      const [sender, before, after] = [
        await mesh.client(a),
        await mesh.client(a),
        await mesh.client(b),
      ];
      const id = newId();
      await after.discover(id);
      await announced(b, a);
      await before.discover(id); // as if just before it moved
      await expectReached(sender, before, id);
      await until("the first forgets it", async () => (await a.stats()).nodes === 0);
      await expectReached(sender, after, id);
      await before.discover(id);
      await expectReached(sender, before, id);
      expect(after.pending).toBe(0);
    });

    test("that two peers claim: the last one has it, and the first one's withdrawal does not take it away", async () => {
      const at = place();
      const [first, last] = [await player(at), await player(at)];
      const a = await mesh.beacon(at.name, [
        NO_GOSSIP,
        NO_TIMEOUT,
        `--peers=${nameOf(first)},${nameOf(last)}`,
      ]);
      const sender = await mesh.client(a);
      const [claimed, another] = [newId(), newId()];
      const routes = async (ofFirst: number, ofLast: number) => {
        const expected = { [nameOf(first)]: ofFirst, [nameOf(last)]: ofLast };
        await untilEqual("routes", () => a.routes(), expected);
      };
      // both say 0, as beacons do that were given no id
      await first.send(sync(0, [claimed, another]));
      await routes(2, 0);
      await expectReachedPeer(sender, first, claimed);
      await last.send(sync(0, [claimed]));
      await routes(1, 1);
      await expectReachedPeer(sender, last, claimed);
      await first.send(sync(0, []));
      await routes(0, 1);
      await expectReachedPeer(sender, last, claimed);
      await first.send(sync(0, [claimed]));
      await routes(1, 0);
      await expectReachedPeer(sender, first, claimed);
      await last.send(sync(0, [another]));
      await routes(1, 1);
      await expectReachedPeer(sender, first, claimed);
      await first.send(sync(0, []));
      await routes(0, 1);
      await expectNotFound(sender, a, claimed);
      await expectReachedPeer(sender, last, another);
    });
  });

  describe("rejected gossip", () => {
    /** So often are rejections looked at, generously. */
    const REPORT_S = 2;

    const rejectedIn = (beacon: BeaconProcess, reasons: Record<string, number>) =>
      untilEqual("gossip turned away", () => beacon.rejected(), reasons);

    test("of unlisted beacons changes nothing, is counted, and one source is in the log", async () => {
      const at = place();
      const peer = await player(at);
      const a = await mesh.beacon(at.name, [NO_GOSSIP, NO_TIMEOUT, `--peers=${nameOf(peer)}`]);
      const [unlisted, other] = [await mesh.client(a), await mesh.client(a)];
      const [known, claimed] = [newId(), newId()];
      await peer.send(sync(5, [known]));
      await untilEqual("routes", () => a.routes(), { [nameOf(peer)]: 1 });

      await unlisted.send(sync(5, [claimed]));
      await unlisted.send(sync(5, [])); // withdraws nothing, though it carries the peer's id
      await rejectedIn(a, { unknown_peer: 2 });
      const about = () => a.warnings().filter((text) => text.startsWith("gossip from "));
      await until("it is warned of", () => about().length > 0);
      expect(about()[0]).toContain(nameOf(unlisted));
      expect(about()[0]).toContain("--peers");

      await other.send(sync(5, [claimed]));
      await rejectedIn(a, { unknown_peer: 3 });
      const { uptimeS } = await a.stats();
      await until(
        "it has been looked at",
        async () => (await a.stats()).uptimeS > uptimeS + REPORT_S,
      );
      expect(about()).toHaveLength(1); // one warning a minute with the same reason
      expect(await a.metric('beacon_gossip_rejected_total{reason="unknown_peer"}')).toBe(3);
      expect(await a.routes()).toEqual({ [nameOf(peer)]: 1 });
      await expectNotFound(unlisted, a, claimed);
      await expectReachedPeer(unlisted, peer, known);
      expect(unlisted.pending + other.pending).toBe(0);
    });

    test("with this beacon's own id keeps the peer's routes", async () => {
      const at = place();
      const peer = await player(at);
      const flags = ["--beacon-id=77", NO_GOSSIP, NO_TIMEOUT, `--peers=${nameOf(peer)}`];
      const a = await mesh.beacon(at.name, flags);
      const sender = await mesh.client(a);
      const [known, claimed] = [newId(), newId()];
      await peer.send(sync(78, [known]));
      await untilEqual("routes", () => a.routes(), { [nameOf(peer)]: 1 });
      await peer.send(sync(77, [claimed]));
      await peer.send(sync(77, []));
      await rejectedIn(a, { own_id: 2 });
      const warning = await until("it is warned of", () =>
        a.warnings().find((text) => /own id/.test(text)),
      );
      expect(warning).toContain(nameOf(peer));
      expect(warning).toContain("--beacon-id");
      expect(await a.routes()).toEqual({ [nameOf(peer)]: 1 });
      await expectNotFound(sender, a, claimed);
      await expectReachedPeer(sender, peer, known);
    });

    test("for which there is no room: as many routes as were allowed, and the rest is counted", async () => {
      const at = place();
      const peer = await player(at);
      const flags = ["--max-routes=3", NO_GOSSIP, NO_TIMEOUT, `--peers=${nameOf(peer)}`];
      const a = await mesh.beacon(at.name, flags);
      const sender = await mesh.client(a);
      await peer.send(sync(1, [31, 32, 33, 34, 35]));
      await untilEqual("routes refused", async () => (await a.stats()).mesh.routesRefused, 2);
      expect(await a.routes()).toEqual({ [nameOf(peer)]: 3 });
      for (const id of [31, 32, 33]) await expectReachedPeer(sender, peer, id);
      for (const id of [34, 35]) await expectNotFound(sender, a, id);
      await peer.send(sync(1, [34, 35]));
      await untilEqual("routes", () => a.routes(), { [nameOf(peer)]: 2 });
      for (const id of [34, 35]) await expectReachedPeer(sender, peer, id);
      // What goes makes room for what comes, in either order.
      for (const list of [
        [36, 37, 38],
        [31, 32],
      ]) {
        await peer.send(sync(1, list));
        await untilEqual("routes", () => a.routes(), { [nameOf(peer)]: list.length });
        for (const id of list) await expectReachedPeer(sender, peer, id);
      }
      expect((await a.stats()).mesh.routesRefused).toBe(2);
    });

    test("a flood of it: the last word counts, and relaying goes on", async () => {
      const FLOOD = 200;
      const at = place();
      const peer = mesh.burst(at);
      const a = await mesh.beacon(at.name, [NO_GOSSIP, NO_TIMEOUT, `--peers=${nameOf(peer)}`]);
      const [sender, node] = [await mesh.client(a), await mesh.client(a)];
      const [own, last] = [newId(), newId()];
      await node.discover(own);
      const lists = [idsFrom(1_000_000, SYNC_NODES_MAX), idsFrom(1_010_000, SYNC_NODES_MAX)].map(
        (l) => sync(1, l),
      );
      for (let i = 0; i < FLOOD; i++) {
        peer.sendEach([lists[i % 2]!]);
        if (i % 20 === 0) await expectReached(sender, node, own);
      }
      // What finds no room is lost; who gossips says it again.
      await until("the last list is in force", async () => {
        peer.sendEach([sync(1, [last])]);
        return (await a.routes())[nameOf(peer)] === 1;
      });
      await expectNotFound(sender, a, 1_010_000);
      await sender.relay(SENDER_ID, last, new Uint8Array(9));
      await until("its node is reached", () => peer.take().some(({ bytes }) => bytes[0] === 0x05));
      await expectReached(sender, node, own);
    });
  });

  describe("gossip that is sent", () => {
    test("at start, then every interval, with the nodes of the moment", async () => {
      const at = place();
      const peer = await player(at);
      const flags = [`--peers=${nameOf(peer)}`, "--beacon-id=4294967294", NO_TIMEOUT];
      const first = await mesh.beacon(at.name, [...flags, NO_GOSSIP]);
      expect(hex((await nextGossip(peer)).bytes)).toBe(hex(sync(4_294_967_294, [])));
      await first.program.kill();

      const a = await mesh.beacon(at.name, [...flags, "--node-ttl=2s"]);
      const node = await mesh.client(a);
      await nextGossip(peer);
      await node.discover(7);
      await until(
        "the node is named",
        async () => hex((await nextGossip(peer)).bytes) === hex(sync(4_294_967_294, [7])),
      );
      await until("it no longer is", async () => (await nextGossip(peer)).nodeIds.length === 0);
      const before = await a.metric("beacon_gossip_sent_total");
      for (let i = 0; i < 3; i++) await nextGossip(peer);
      expect(await a.metric("beacon_gossip_sent_total")).toBeGreaterThan(before!);
    });

    test("of more nodes than a datagram takes: those seen last", async () => {
      const OLD = 1000;
      const NEW = 16_000;
      const AGE_S = 2; // ages are whole seconds
      const [placeA, placeB] = [place(), place()];
      const peer = await player(placeA);
      const peers = `--peers=${nameOf(peer)},${placeB.name}`;
      const [a, b] = await Promise.all([
        mesh.beacon(placeA.name, [peers, "--max-nodes=20000"]),
        mesh.beacon(placeB.name, [`--peers=${placeA.name}`]),
      ]);
      const nodes = mesh.burst(a);
      const [oldIds, newIds] = [idsFrom(1, OLD), idsFrom(1 + OLD, NEW)];
      await register(nodes, oldIds);
      const { uptimeS } = await a.stats();
      await until("they are older", async () => (await a.stats()).uptimeS > uptimeS + AGE_S);
      await register(nodes, newIds);
      expect((await a.stats()).nodes).toBe(OLD + NEW);
      const told = await until("all new ones are named", async () => {
        const { bytes, nodeIds } = await nextGossip(peer);
        if (bytes.length !== 7 + 4 * SYNC_NODES_MAX) return undefined;
        const named = new Set(nodeIds);
        return newIds.every((id) => named.has(id)) && named;
      });
      expect(told.size).toBe(SYNC_NODES_MAX);
      expect([...told].filter((id) => id <= OLD)).toHaveLength(SYNC_NODES_MAX - NEW);
      await untilEqual("routes of the other beacon", () => b.routes(), {
        [a.name]: SYNC_NODES_MAX,
      });
      const sender = await mesh.client(b);
      await sender.relay(SENDER_ID, OLD + NEW, new Uint8Array([1]));
      const [arrived] = await nodes.arrivals(1);
      expect(hex(arrived!.bytes)).toBe(hex(deliver(SENDER_ID, new Uint8Array([1]))));
      expect(await a.metric("beacon_gossip_truncated_total")).toBeGreaterThan(0);
      const warnings = a.warnings().filter((text) => text.includes("gossip"));
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toContain(`${SYNC_NODES_MAX}`);
    });
  });

  describe("SIGHUP", () => {
    test("a peer is added, one is removed with its routes, a mistake changes nothing", async () => {
      const path = join(folder, "beacon.json");
      const configure = (config: object) => writeFileSync(path, JSON.stringify(config));
      const places = [place(), place(), place()];
      const [placeA, placeB, placeC] = places as [
        (typeof places)[0],
        (typeof places)[0],
        (typeof places)[0],
      ];
      configure({ peers: [placeB.name] });
      const [a, b, c] = await Promise.all([
        mesh.beacon(placeA.name, [`--config=${path}`]),
        mesh.beacon(placeB.name, [`--peers=${placeA.name}`]),
        mesh.beacon(placeC.name, [`--peers=${placeA.name}`]),
      ]);
      const [sender, nodeB, nodeC] = [
        await mesh.client(a),
        await mesh.client(b),
        await mesh.client(c),
      ];
      await sender.discover(1);
      await nodeB.discover(2);
      await nodeC.discover(3);
      await announced(b, a);
      await announced(a, b);
      await expectReached(sender, nodeB, 2);
      await expectNotFound(sender, a, 3);
      const reload = async (peers: Record<string, number>) => {
        a.program.signal("SIGHUP");
        await untilEqual("routes", () => a.routes(), peers);
      };

      configure({ peers: [b.name, c.name] });
      await reload({ [b.name]: 1, [c.name]: 1 });
      await announced(a, c);
      await expectReached(sender, nodeC, 3);
      await expectReached(nodeC, sender, 1);

      configure({ peers: [c.name] });
      await reload({ [c.name]: 1 });
      await expectNotFound(sender, a, 2);
      await expectReached(sender, nodeC, 3);
      await until(
        "what it goes on to say is turned away",
        async () => (await a.rejected())["unknown_peer"],
      );

      configure({ peers: ["no port"] });
      a.program.signal("SIGHUP");
      const mistake = await until("it is told of the mistake", () => a.messages("error")[0]);
      expect(mistake).toContain("no port");
      expect(await a.routes()).toEqual({ [c.name]: 1 });
      await expectReached(sender, nodeC, 3);

      configure({ peers: [b.name] });
      await reload({ [b.name]: 1 });
      await expectReached(sender, nodeB, 2);
      await expectNotFound(sender, a, 3);
    });
  });
});

/** What a peer in Python tells of a datagram that it got. */
interface Received {
  readonly from: readonly [string, number];
  readonly hex: string;
  readonly sync?: { readonly beacon_id: number; readonly ids: readonly number[] };
  readonly relay?: { readonly sender: number; readonly dest: number; readonly payload: string };
}

class PythonPeer {
  #read = 1; // the first line says where it is

  private constructor(
    private readonly program: Program,
    private readonly beacon: WireAddress,
    readonly name: string,
  ) {}

  static async start(mesh: Mesh, { at }: { readonly at: WireAddress }): Promise<PythonPeer> {
    const script = join(import.meta.dir, "support/go_peer.py");
    const program = mesh.spawn(["python3", script, at.address], { stdin: "pipe" });
    const port = await program.line(
      "its port",
      (line) => (JSON.parse(line) as { port?: number }).port,
    );
    return new PythonPeer(program, at, `${at.address}:${port}`);
  }

  sync(
    beacon_id: number,
    ids: readonly number[],
    lies: { count?: number; rest?: string } = {},
  ): Promise<void> {
    return this.#order({ sync: { beacon_id, ids, ...lies } });
  }

  relay(sender: number, dest: number, payload: Uint8Array): Promise<void> {
    return this.#order({ relay: { sender, dest, payload: hex(payload) } });
  }

  raw(bytes: Uint8Array): Promise<void> {
    return this.#order({ raw: hex(bytes) });
  }

  #order(order: object): Promise<void> {
    const { address, port } = this.beacon;
    return this.program.write(JSON.stringify({ to: [address, port], ...order }));
  }

  /** Passes over what it got until `wanted`. @throws Error if that does not come */
  async got(what: string, wanted: (received: Received) => unknown): Promise<Received> {
    try {
      return await until(what, () => {
        while (this.#read < this.program.lines.length) {
          const received = JSON.parse(this.program.lines[this.#read++]!) as Received;
          if (wanted(received)) return received;
        }
        return undefined;
      });
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${this.program.stderr}`);
    }
  }
}

describe.skipIf(!installed("python3"))(
  `a peer in Python${installed("python3") ? "" : " (needs python3)"}`,
  () => {
    const BEACON_ID = 0xfedc_ba98;
    const mesh = new Mesh();
    let a: BeaconProcess;
    let other: BeaconProcess;
    let python: PythonPeer;
    let sender: Client;
    const random = new Random(9);

    beforeAll(async () => {
      const [at, otherAt] = [place(), place()];
      python = await PythonPeer.start(mesh, at);
      [a, other] = await Promise.all([
        mesh.beacon(at.name, [
          `--beacon-id=${BEACON_ID}`,
          NO_TIMEOUT,
          `--peers=${python.name},${otherAt.name}`,
        ]),
        mesh.beacon(otherAt.name, [`--peers=${at.name}`]),
      ]);
      sender = await mesh.client(a);
    });
    afterAll(() => mesh.close());

    const routes = (count: number) =>
      untilEqual("routes", async () => (await a.routes())[python.name], count);

    // So that each list is of another length than the one before, and can be seen to be in force.
    beforeEach(async () => {
      await python.sync(7, []);
      await routes(0);
    });

    /** Sends a packet to a node through the beacon, and waits until Python has it. */
    async function expectAtPython(id: number, payload = random.bytes(50)): Promise<void> {
      await sender.relay(SENDER_ID, id, payload);
      const { hex: bytes, relay: told } = await python.got(
        `a relay to ${id}`,
        (received) => received.relay,
      );
      expect(told).toEqual({ sender: SENDER_ID, dest: id, payload: hex(payload) });
      expect(bytes).toBe(hex(relay(SENDER_ID, id, payload)));
    }

    test("announces, replaces and withdraws its nodes", async () => {
      await python.sync(7, [300, 301, 0xffff_ffff, 0x8000_0000]);
      await routes(4);
      for (const id of [300, 301, 0xffff_ffff, 0x8000_0000]) await expectAtPython(id);
      await python.sync(7, [301, 302]);
      await routes(2);
      await expectNotFound(sender, a, 300);
      await expectNotFound(sender, a, 0xffff_ffff);
      for (const id of [301, 302]) await expectAtPython(id);
      await python.sync(8, [301]); // another id, but its address is what counts
      await routes(1);
      await expectNotFound(sender, a, 302);
      await python.sync(7, []);
      await routes(0);
      await expectNotFound(sender, a, 301);
    });

    test("a node twice in a list is one, id 0 is none", async () => {
      await python.sync(7, [310, 0, 310, 311, 310]);
      await routes(2);
      await expectAtPython(310);
      await expectNotFound(sender, a, 0);
    });

    test("says more than it sends: the whole message is ignored", async () => {
      await python.sync(7, [320, 321]);
      await routes(2);
      const before = await a.rejected();
      await python.sync(7, [322, 323], { count: 3 });
      await python.sync(7, [322, 323], { count: 65_535 });
      await python.sync(7, [], { count: 1 });
      await python.sync(7, [322], { count: 2, rest: "000001" }); // one byte too few
      await python.raw(sync(7, []).subarray(0, 6));
      await python.raw(sync(7, []).subarray(0, 1));
      await untilEqual("gossip turned away", () => a.rejected(), { ...before, count: 4, short: 2 });
      expect((await a.routes())[python.name]).toBe(2);
      await expectNotFound(sender, a, 322);
      await expectAtPython(320);
    });

    test("says less than it sends: the rest is ignored", async () => {
      await python.sync(7, [330, 331, 332], { count: 2 });
      await routes(2);
      await expectNotFound(sender, a, 332);
      await python.sync(7, [333], { rest: "0000014f0102" });
      await routes(1);
      await expectAtPython(333);
      await expectNotFound(sender, a, 0x14f);
      await python.sync(7, [333, 334], { count: 0 });
      await routes(0);
      await expectNotFound(sender, a, 333);
    });

    test("as many nodes as one datagram takes, and then one", async () => {
      const many = idsFrom(2_000_000, SYNC_NODES_MAX);
      await python.sync(7, many);
      await routes(SYNC_NODES_MAX);
      for (const at of [0, 1, 8000, SYNC_NODES_MAX - 1]) await expectAtPython(many[at]!);
      await python.sync(7, [many[5]!]);
      await routes(1);
      await expectAtPython(many[5]!);
      await expectNotFound(sender, a, many[4]!);
    });

    test("is told of this beacon's nodes, and not of those that this beacon was told of", async () => {
      const [node, plain, learned] = [
        await mesh.client(a),
        await mesh.client(a),
        await mesh.client(other),
      ];
      await node.discoverEx(100);
      await plain.discover(0xf000_0001);
      await learned.discover(200);
      await python.sync(7, [340]);
      await routes(1);
      await announced(other, a);
      await expectReached(sender, learned, 200);
      const own = [100, 0xf000_0001];
      const {
        sync: told,
        hex: bytes,
        from,
      } = await python.got(
        "gossip with both nodes",
        ({ sync }) => sync?.ids.includes(own[0]!) && sync.ids.includes(own[1]!),
      );
      expect([...told!.ids].sort((x, y) => x - y)).toEqual(own);
      expect(bytes).toBe(hex(sync(BEACON_ID, told!.ids)));
      expect(from).toEqual([a.at.address, a.at.port]);
      // Nor later, when all that it has learned has had its time.
      const next = await python.got("the next gossip", (received) => received.sync);
      expect(next.sync!.ids.toSorted((x, y) => x - y)).toEqual(own);
    });

    test("relays to this beacon's nodes, and gets what is for its own", async () => {
      const [node, plain] = [await mesh.client(a), await mesh.client(a)];
      const [wantsDest, id, far] = [newId(), newId(), 350];
      await node.discoverEx(wantsDest);
      await plain.discover(id);
      await python.sync(7, [far]);
      await routes(1);
      for (const size of [0, 1, 1200, 60_000]) {
        const payload = random.bytes(size);
        await python.relay(far, wantsDest, payload);
        expect(hex((await node.next()).bytes)).toBe(hex(deliverDest(far, wantsDest, payload)));
        await python.relay(far, id, payload);
        expect(decode((await plain.next()).bytes)).toEqual({
          type: "deliver",
          senderId: far,
          payload,
        });
        await expectAtPython(far, payload);
      }
      // A node of its own comes before one that it was told of.
      await python.sync(7, [far, id]);
      await routes(2);
      await expectReached(sender, plain, id);
    });
  },
);
