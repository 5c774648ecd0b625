/**
 * A node that connects through the bridge once more: its new connection takes the place of the one
 * before.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import type { WebSocketClient } from "../support/websocket.ts";
import { BridgeBeacon, type BridgedNode, textOf } from "./support/bridged.ts";
import { inTime, untilEqual } from "./support/wait.ts";
import { deliver, discover, relay } from "./support/wire.ts";

const REPLACED = { code: 1000, reason: "replaced" };

let ids = 1000;
const newId = () => ++ids;
const payloadOf = (number: number) => Buffer.from(String(number).padEnd(100));
const number = (bytes: Uint8Array) => parseInt(Buffer.from(bytes).toString("latin1", 5), 10);

let host: BridgeBeacon;
beforeAll(async () => {
  host = await BridgeBeacon.start();
});
afterEach(() => host.leave());
afterAll(() => host.close());

/** Relays a packet from a node to itself. @throws Error if it is not the next thing that it gets */
async function expectReachesItself(node: BridgedNode): Promise<void> {
  const payload = crypto.getRandomValues(new Uint8Array(20));
  node.relay(node.nodeId, payload);
  expect(await node.next()).toEqual(Buffer.from(deliver(node.nodeId, payload)));
}

describe("the new connection", () => {
  test("gets everything; the one before is closed, and gets nothing more", async () => {
    const sender = await host.client();
    const old = await host.bridged(newId());
    await expectReachesItself(old);
    const fresh = await host.bridged(old.nodeId);
    for (let i = 0; i < 100; i++) await sender.relay(1, old.nodeId, payloadOf(i));
    for (let i = 0; i < 100; i++) expect(number(await fresh.next())).toBe(i);
    expect(await old.connection.closed).toEqual(REPLACED);
    expect(old.connection.take()).toEqual([]);
    await expectReachesItself(fresh); // also once the other's socket is gone
    expect(host.stats).toMatchObject({ peers: 1, connections: 1 });
  });

  test("is the node's until it leaves, also where the node is known by UDP", async () => {
    const id = newId();
    const [udp, sender] = [await host.udp(id), await host.client()];
    const old = await host.bridged(id);
    const fresh = await host.bridged(id);
    expect(await old.connection.closed).toEqual(REPLACED);
    await sender.relay(1, id, payloadOf(1));
    expect(number(await fresh.next())).toBe(1);
    fresh.close();
    await host.untilPeers(0);
    await sender.relay(1, id, payloadOf(2));
    expect(number((await udp.next()).bytes)).toBe(2);
    expect(udp.pending).toBe(0);
  });

  test("that proves nothing replaces nobody", async () => {
    const node = await host.bridged(newId());
    const stranger = await host.open();
    const forger = host.nodes.identity(newId()).as(node.nodeId);
    stranger.text(forger.reply(await textOf(stranger)));
    expect(await stranger.closed).toEqual({ code: 1008, reason: "auth failed" });
    await expectReachesItself(node);
  });
});

describe("of the connection before", () => {
  test("no frame is handled that it sends afterwards", async () => {
    const [sink, sinkId] = [await host.client(), newId()];
    await sink.discover(sinkId);
    const old = await host.bridged(newId());
    old.connection.pause(); // it does not see yet that it is closed
    const fresh = await host.bridged(old.nodeId);
    const before = host.stats.frames.in;
    old.sendEach(Array.from({ length: 100 }, (_, i) => relay(old.nodeId, sinkId, payloadOf(i))));
    old.send(discover(old.nodeId));
    old.connection.resume();
    expect(await old.connection.closed).toEqual(REPLACED);
    expect(old.connection.take()).toEqual([]);
    fresh.relay(sinkId, payloadOf(777));
    expect(number((await sink.next()).bytes)).toBe(777);
    expect(sink.pending).toBe(0);
    expect(host.stats.frames.in).toBe(before + 1);
  });

  test("frames that are under way are handled up to one of them, and none behind it", async () => {
    const ROUNDS = 50;
    const BURST = 20;
    const MARK = 1_000_000;
    const [sink, sinkId] = [await host.client(), newId()];
    await sink.discover(sinkId);
    let old = await host.bridged(newId());
    for (let round = 0; round < ROUNDS; round++) {
      let sent = 0;
      const sendBurst = () =>
        old.sendEach(
          Array.from({ length: BURST }, () => relay(old.nodeId, sinkId, payloadOf(sent++))),
        );
      const connection = await host.open();
      const challenge = await textOf(connection);
      sendBurst();
      connection.text(host.nodes.identity(old.nodeId).reply(challenge));
      sendBurst();
      let isIn = false;
      const admitted = textOf(connection).then(() => {
        isIn = true;
        sendBurst();
        connection.binary(relay(old.nodeId, sinkId, payloadOf(MARK)));
        sendBurst();
      });
      while (!isIn) {
        sendBurst();
        await new Promise(setImmediate);
      }
      await admitted;
      const arrived: number[] = [];
      while (arrived.at(-1) !== MARK) arrived.push(number((await sink.next()).bytes));
      expect(arrived).toEqual([...arrived.slice(0, -1).keys(), MARK]);
      expect(await old.connection.closed).toEqual(REPLACED);
      connection.binary(relay(old.nodeId, sinkId, payloadOf(MARK + 1)));
      expect(number((await sink.next()).bytes)).toBe(MARK + 1);
      old = await host.bridged(old.nodeId);
    }
  });
});

describe("many times in a row", () => {
  const REPLACEMENTS = 100;
  const AT_ONCE = 10;
  const LAST = 1_000_000_000;

  /**
   * Sends to a node all the while; in the end each packet must have arrived, in order, on one
   * connection or the next.
   */
  async function expectAllArrive(
    nodeId: number,
    send: (packets: readonly Uint8Array[]) => unknown,
  ): Promise<void> {
    let node = await host.bridged(nodeId);
    let sent = 0;
    let isOver = false;
    const sending = (async () => {
      while (!isOver) {
        await send(Array.from({ length: AT_ONCE }, () => payloadOf(sent++)));
        await new Promise(setImmediate);
      }
      await send([payloadOf(LAST)]);
    })();
    const arrived: number[] = [];
    const take = ({ connection }: BridgedNode) =>
      arrived.push(...connection.take().map(({ payload }) => number(payload)));
    for (let i = 0; i < REPLACEMENTS; i++) {
      const before = node;
      node = await host.bridged(nodeId);
      expect(await before.connection.closed).toEqual(REPLACED);
      take(before);
    }
    isOver = true;
    await sending;
    while (arrived.at(-1) !== LAST) arrived.push(number(await node.next()));
    expect(arrived.length).toBe(sent + 1);
    expect(arrived).toEqual([...Array(sent).keys(), LAST]);
  }

  test("loses no packet that comes by UDP", async () => {
    const [sender, id] = [await host.client(), newId()];
    await expectAllArrive(id, async (packets) => {
      for (const packet of packets) await sender.relay(1, id, packet);
    });
  });

  test("loses no packet that comes from another bridged node", async () => {
    const [sender, id] = [await host.bridged(newId()), newId()];
    await expectAllArrive(id, (packets) =>
      sender.sendEach(packets.map((packet) => relay(sender.nodeId, id, packet))),
    );
  });
});

test("a node that comes and goes while another one sends to it: each packet is sent to it or counted", async () => {
  const [sender, id] = [await host.bridged(newId()), newId()];
  const counts = () => {
    const { frames, dropped, packets } = host.stats;
    return { in: frames.in, outOrCounted: frames.out + dropped["gone"]! + packets.relayNotFound };
  };
  const before = counts();
  let sent = 0;
  let isOver = false;
  const sending = (async () => {
    while (!isOver) {
      sender.sendEach(
        Array.from({ length: 10 }, () => relay(sender.nodeId, id, payloadOf(sent++))),
      );
      await new Promise(setImmediate);
    }
  })();
  for (let i = 0; i < 100; i++) {
    const node = await host.bridged(id);
    await node.next();
    node.connection[i % 2 === 0 ? "close" : "destroy"]();
    await host.untilPeers(1);
  }
  isOver = true;
  await sending;
  await expectReachesItself(sender);
  sent++;
  expect(counts()).toEqual({ in: before.in + sent, outOrCounted: before.outOrCounted + sent });
});

describe("several connections of one node that prove who they are at the same time", () => {
  let held: BridgeBeacon;
  let asked = 0;
  let gate = Promise.withResolvers<void>();
  beforeAll(async () => {
    held = await BridgeBeacon.start(
      {},
      {
        keyOf: async (nodeId) => {
          asked++;
          await gate.promise;
          return held.nodes.keyOf(nodeId);
        },
      },
    );
  });
  afterEach(() => held.leave());
  afterAll(() => held.close());

  /** Connections that have replied and wait for the node's key. */
  async function verifying(nodeId: number, count: number): Promise<WebSocketClient[]> {
    asked = 0;
    gate = Promise.withResolvers();
    const connections: WebSocketClient[] = [];
    for (let i = 0; i < count; i++) {
      const connection = await held.open();
      connection.text(held.nodes.identity(nodeId).reply(await textOf(connection)));
      connections.push(connection);
    }
    await untilEqual("questions for the key", () => asked, count);
    return connections;
  }

  /** The one that a packet for the node arrives at. */
  async function reached(
    nodeId: number,
    connections: readonly WebSocketClient[],
  ): Promise<WebSocketClient> {
    const sender = await held.client();
    await sender.relay(1, nodeId, payloadOf(1));
    return inTime(
      "a packet arrives",
      Promise.any(
        connections.map(async (connection) => {
          const { payload } = await connection.next();
          expect(number(payload)).toBe(1);
          return connection;
        }),
      ),
    );
  }

  test.each([2, 10])("%i: all are let in, and one stays", async (count) => {
    const id = newId();
    const before = held.stats.auth["ok"]!;
    const connections = await verifying(id, count);
    expect(held.stats).toMatchObject({ peers: 0, connections: count });
    gate.resolve();
    for (const connection of connections)
      expect(await textOf(connection)).toBe('{"type":"auth_ok"}');
    await untilEqual("connections", () => held.stats.connections, 1);
    expect(held.stats.auth["ok"]).toBe(before + count);
    expect(held.stats.peers).toBe(1);
    const stayed = await reached(id, connections);
    const others = connections.filter((connection) => connection !== stayed);
    expect(await Promise.all(others.map(({ closed }) => closed))).toEqual(
      Array(count - 1).fill(REPLACED),
    );
    expect(await reached(id, [stayed])).toBe(stayed);
  });

  test("of those that leave meanwhile, none comes in", async () => {
    const id = newId();
    const [gone, stays] = (await verifying(id, 2)) as [WebSocketClient, WebSocketClient];
    const before = held.stats.auth["left"]!;
    gone.destroy();
    await untilEqual("connections", () => held.stats.connections, 1);
    gate.resolve();
    expect(await textOf(stays)).toBe('{"type":"auth_ok"}');
    expect(await reached(id, [stays])).toBe(stays);
    expect(held.stats.auth["left"]).toBe(before + 1);
  });

  test("one that is there meanwhile goes on until it is replaced", async () => {
    const id = newId();
    gate.resolve();
    const old = await held.bridged(id);
    const [connection] = (await verifying(id, 1)) as [WebSocketClient];
    expect(await reached(id, [old.connection])).toBe(old.connection);
    gate.resolve();
    expect(await textOf(connection)).toBe('{"type":"auth_ok"}');
    expect(await old.connection.closed).toEqual(REPLACED);
    expect(await reached(id, [connection])).toBe(connection);
  });
});
