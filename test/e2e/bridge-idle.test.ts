/**
 * Who says nothing to the WebSocket bridge, or nothing more. The bridge alone, by a clock that the
 * test sets.
 */
import { afterEach, beforeEach, describe, expect, type Mock, spyOn, test } from "bun:test";
import { AF_INET } from "../../ffi/abi.ts";
import { endpointOf } from "../../ffi/endpoint.ts";
import { ListeningSocket } from "../../ffi/listening-socket.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { Bridge } from "../../src/control/bridge/bridge.ts";
import { FunctionKeys } from "../../src/control/keys/keys.ts";
import { Guard } from "../../src/control/kit/guard.ts";
import { MAIN_THREAD_LOCK, SHARD_LOCK, SharedMemory, workerLock } from "../../src/shared/memory.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { silentLog } from "../support/log.ts";
import { PING, PONG, WebSocketClient } from "../support/websocket.ts";
import { BridgedNode, KnownNodes, textOf } from "./support/bridged.ts";
import { inTime, until, untilEqual } from "./support/wait.ts";

const NODE_ID = 7;
const S = 1000;
/**
 * What a node may take to answer at each of these steps is the test's own time, which the clock
 * counts too.
 */
const SLACK_S = 1;

let aheadMs = 0;
let clock: Mock<typeof performance.now>;
let bridge: Bridge;
let socket: UdpSocket;
let memory: SharedMemory;
let table: NodeTableOwner;
let known: KnownNodes;
let connections: WebSocketClient[];
/** Settles when the key source may answer. */
let gate: Promise<void>;

beforeEach(() => {
  const now = performance.now.bind(performance);
  aheadMs = 0;
  clock = spyOn(performance, "now").mockImplementation(() => now() + aheadMs);
  memory = new SharedMemory({ workers: 1, nodesMax: 100, routesMax: 100 });
  table = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
  socket = UdpSocket.open(AF_INET);
  socket.bind("127.0.0.1", 0);
  known = new KnownNodes();
  connections = [];
  gate = Promise.resolve();
  const keys = new FunctionKeys(
    async (nodeId) => {
      await gate;
      return known.keyOf(nodeId);
    },
    { keyMs: 1_000_000 },
  );
  bridge = new Bridge(
    {
      memory,
      nodes: table,
      fd: socket.fd,
      family: AF_INET,
      beaconId: 0,
      offload: false,
      keys: () => keys,
      log: silentLog,
      guard: new Guard(silentLog),
    },
    {
      maxPeers: 100,
      upgradeLimit: 0,
      failureLimit: 0,
      limitsShadow: false,
      trustedProxies: [],
      tls: undefined,
    },
  );
  bridge.start(ListeningSocket.open("127.0.0.1", 0), "127.0.0.1");
});
afterEach(async () => {
  clock.mockRestore();
  for (const connection of connections) connection.destroy();
  await bridge.stop();
  socket.close();
});

/** Lets time pass, and the bridge notice. */
function pass(seconds: number): void {
  aheadMs += seconds * S;
  bridge.tick(false);
}

async function open(): Promise<WebSocketClient> {
  const connection = await WebSocketClient.open(bridge.url!);
  connections.push(connection);
  return connection;
}

async function connect(nodeId = NODE_ID, answersPings = false): Promise<BridgedNode> {
  const node = await BridgedNode.connect(bridge.url!, known.identity(nodeId));
  connections.push(node.connection);
  node.connection.answersPings = answersPings;
  return node;
}

/** What the node has got of pings by now, behind which it gets a packet. */
async function pingsOf(node: BridgedNode): Promise<number> {
  const other = await connect(NODE_ID + 1000);
  other.relay(node.nodeId, new Uint8Array(1));
  await node.next();
  other.connection.destroy();
  await untilEqual("it has left", () => bridge.stats().peers, 1);
  return node.connection.pings;
}

describe("a node that is connected", () => {
  test("and silent is pinged after 30 s, and again after 60, and closed after 90", async () => {
    const node = await connect();
    pass(29 - SLACK_S);
    expect(await pingsOf(node)).toBe(0);
    pass(1 + SLACK_S);
    expect(await pingsOf(node)).toBe(1);
    for (let i = 0; i < 29 - SLACK_S; i++) pass(1);
    expect(await pingsOf(node)).toBe(1);
    pass(1 + SLACK_S);
    expect(await pingsOf(node)).toBe(2);
    pass(29 - SLACK_S);
    expect(bridge.stats()).toMatchObject({ peers: 1, connections: 1, idleDisconnects: 0 });
    expect(table.find(NODE_ID)).not.toBe(-1);
    pass(1 + SLACK_S);
    expect(await node.connection.closed).toEqual({ code: 1001, reason: "idle" });
    expect(bridge.stats()).toMatchObject({ peers: 0, connections: 0, idleDisconnects: 1 });
    expect(table.find(NODE_ID)).toBe(-1);
  });

  test("and answers pings stays, and is pinged every 30 s", async () => {
    const node = await connect(NODE_ID, true);
    for (let round = 1; round <= 10; round++) {
      pass(30 + SLACK_S);
      await until("a ping", () => node.connection.pings === round);
      expect(await pingsOf(node)).toBe(round);
    }
    expect(bridge.stats()).toMatchObject({ peers: 1, idleDisconnects: 0 });
  });

  test("and says something is not pinged before it was silent for 30 s", async () => {
    const node = await connect();
    for (let round = 1; round <= 4; round++) {
      pass(20);
      node.relay(NODE_ID, new Uint8Array(1));
      await node.next();
    }
    pass(29 - SLACK_S);
    expect(await pingsOf(node)).toBe(0);
    pass(1 + SLACK_S);
    expect(await pingsOf(node)).toBe(1);
  });

  const signs: Record<string, (node: BridgedNode) => unknown> = {
    "a packet": (node) => node.relay(node.nodeId, new Uint8Array(1)),
    "a frame that means nothing": (node) => node.send(Uint8Array.of(0xff)),
    "an empty frame": (node) => node.send(new Uint8Array()),
    "a text": (node) => node.connection.text("still here"),
    "a pong that nobody asked for": ({ connection }) => connection.send(PONG, new Uint8Array()),
  };
  test.each(Object.entries(signs))("stays by %s now and then", async (_, send) => {
    const node = await connect();
    for (let round = 1; round <= 4; round++) {
      pass(80);
      send(node);
      // which is no sign of life, but answered in its turn
      node.connection.send(PING, new Uint8Array());
      await until("a pong", () => node.connection.pongs.length === round);
    }
    pass(1); // by now it would be closed
    expect(bridge.stats()).toMatchObject({ peers: 1, idleDisconnects: 0 });
  });

  test("does not stay by what it is sent", async () => {
    const [node, other] = [await connect(), await connect(NODE_ID + 1)];
    for (let i = 0; i < 10; i++) {
      pass(8.5);
      other.relay(NODE_ID, new Uint8Array(1));
      await node.next();
    }
    expect(bridge.stats().peers).toBe(2);
    pass(5 + SLACK_S);
    expect(await node.connection.closed).toEqual({ code: 1001, reason: "idle" });
    expect(bridge.stats()).toMatchObject({ peers: 1, idleDisconnects: 1 });
  });

  test("and idle is closed though it has stopped reading, and others stay", async () => {
    const [stuck, other] = [await connect(), await connect(NODE_ID + 1, true)];
    stuck.connection.pause();
    await until("more waits for it than it may", () => {
      for (let i = 0; i < 8; i++) other.relay(NODE_ID, new Uint8Array(60_000));
      const { dropped, bufferedBytes } = bridge.stats();
      return dropped["slow_reader"]! > 10 && bufferedBytes > 0;
    });
    for (let i = 0; i < 3; i++) {
      pass(30 + SLACK_S);
      await until("a ping of the other", () => other.connection.pings === Math.min(i + 1, 3));
      other.relay(other.nodeId, new Uint8Array(1));
      await other.next();
    }
    expect(bridge.stats()).toMatchObject({
      peers: 1,
      connections: 1,
      idleDisconnects: 1,
      bufferedBytes: 0,
    });
    stuck.connection.resume();
    await inTime("its connection ends", stuck.connection.closed);
  });

  test("and idle keeps the endpoint that it has by UDP", async () => {
    table.record(NODE_ID, endpointOf("127.0.0.1", 9), 0, 0, 1);
    const node = await connect();
    pass(90 + SLACK_S);
    await node.connection.closed;
    const entries = [...table.entries()].map(({ nodeId, isBridged }) => ({ nodeId, isBridged }));
    expect(entries).toEqual([{ nodeId: NODE_ID, isBridged: false }]);
  });
});

describe("a handshake", () => {
  const AUTH_FAILED = { code: 1008, reason: "auth failed" };

  test("without a reply is over after 10 s", async () => {
    const connection = await open();
    await textOf(connection);
    pass(9 - SLACK_S);
    expect(bridge.stats().connections).toBe(1);
    pass(1 + 2 * SLACK_S);
    expect(await connection.closed).toEqual(AUTH_FAILED);
    expect(bridge.stats()).toMatchObject({ connections: 0, idleDisconnects: 0 });
    expect(bridge.stats().auth).toMatchObject({ late: 1, left: 0 });
  });

  test("is not prolonged by pings and pongs", async () => {
    const connection = await open();
    await textOf(connection);
    pass(9 - SLACK_S);
    connection.send(PING, Buffer.from("wait"));
    await until("the pong", () => connection.pongs.length === 1);
    connection.send(PONG, new Uint8Array());
    pass(1 + 2 * SLACK_S);
    expect(await connection.closed).toEqual(AUTH_FAILED);
  });

  test("whose key does not come is over after 30 s", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    gate = promise;
    const connection = await open();
    connection.text(known.identity(NODE_ID).reply(await textOf(connection)));
    connection.send(PING, Buffer.from("read"));
    await until("the reply is read", () => connection.pongs.length === 1);
    pass(29 - SLACK_S);
    expect(bridge.stats().connections).toBe(1);
    pass(1 + 2 * SLACK_S);
    expect(await connection.closed).toEqual(AUTH_FAILED);
    expect(bridge.stats().auth).toMatchObject({ late: 1, left: 0, ok: 0 });
    resolve(); // too late for anything
    const node = await connect();
    node.relay(NODE_ID, new Uint8Array(1));
    await node.next();
    expect(bridge.stats()).toMatchObject({ peers: 1, connections: 1 });
    expect(bridge.stats().auth).toMatchObject({ late: 1, ok: 1 });
  });

  test("whose key comes after 29 s is well", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    gate = promise;
    const connection = await open();
    connection.text(known.identity(NODE_ID).reply(await textOf(connection)));
    connection.send(PING, Buffer.from("read"));
    await until("the reply is read", () => connection.pongs.length === 1);
    pass(29 - SLACK_S);
    resolve();
    expect(await textOf(connection)).toBe('{"type":"auth_ok"}');
  });
});

describe("a shard that a worker has locked", () => {
  test("delays the admission of its nodes until the lock is free", async () => {
    const lock = memory.shardWords(0) + SHARD_LOCK;
    memory.words[lock] = workerLock(0);
    let isAdmitted = false;
    const connecting = connect().then((node) => {
      isAdmitted = true;
      return node;
    });
    const tried = spyOn(table, "bridge");
    await until("an admission is retried", () => tried.mock.calls.length > 2);
    expect(isAdmitted).toBe(false);
    table.breakLocks(workerLock(0));
    await inTime("it is admitted", connecting);
    expect(bridge.stats()).toMatchObject({ peers: 1, auth: { ok: 1, no_room: 0 } });
  });

  test("delays the removal of a node that left until the lock is free", async () => {
    const node = await connect();
    memory.words[memory.shardWords(0) + SHARD_LOCK] = workerLock(0);
    node.connection.destroy();
    await untilEqual("it has left", () => bridge.stats().peers, 0);
    expect(table.find(NODE_ID)).not.toBe(-1);
    table.breakLocks(workerLock(0));
    pass(1);
    expect(table.find(NODE_ID)).toBe(-1);
  });
});
