/** How many nodes a beacon knows, and how long. Time passes for real here. */

import { afterEach, describe, expect, test } from "bun:test";
import { Beacon } from "../../src/beacon.ts";
import { sum, sumByName, UNLIMITED } from "./support/beacon.ts";
import { BurstSocket } from "./support/bursts.ts";
import { type Client, Clients } from "./support/client.ts";
import { until, untilEqual } from "./support/wait.ts";
import { discover } from "./support/wire.ts";

const NODES_MAX = 1000;

let beacon: Beacon;
const clients = new Clients(() => beacon.address);
afterEach(async () => {
  clients.close();
  await beacon.close();
});

async function start(options: ConstructorParameters<typeof Beacon>[0]): Promise<void> {
  beacon = new Beacon({ addr: "127.0.0.1:0", ...UNLIMITED, ...options });
  await beacon.listen();
}

const refused = () => sumByName(beacon.stats(), (w) => w.nodesRefused);
const nodes = () => beacon.stats().nodes;

/** Registers ids `first` to `first + count - 1`, all from one socket. */
async function register(first: number, count: number): Promise<void> {
  const WINDOW = 100;
  const socket = new BurstSocket("127.0.0.1", { address: "127.0.0.1", port: beacon.address.port });
  try {
    for (let at = 0; at < count; at += WINDOW) {
      const window = Math.min(WINDOW, count - at);
      socket.sendEach(Array.from({ length: window }, (_, i) => discover(first + at + i)));
      await socket.arrivals(window);
    }
  } finally {
    socket.close();
  }
}

describe.each([1, 2])("%i workers", (workers) => {
  test("one node more than the limit is refused without a word; those known go on", async () => {
    await start({ workers, maxNodes: NODES_MAX });
    await register(1, NODES_MAX);
    expect(nodes()).toBe(NODES_MAX);
    const client = await clients.open();
    await client.send(discover(NODES_MAX + 1));
    await untilEqual("refused", refused, { node_limit: 1 });
    // The refused one still learns its address, if it asks as nobody, and that is all it gets.
    expect(await client.discover(0)).toEqual({ type: "discoverReply", ...client.address });
    expect(client.pending).toBe(0);
    await client.relay(1, NODES_MAX + 1, new Uint8Array(1));
    await untilEqual("not found", () => sum(beacon.stats(), (w) => w.relayNotFound), 1);
    // A known one is refreshed, and moved.
    expect(await client.discover(1)).toEqual({ type: "discoverReply", ...client.address });
    await client.relay(9, 1, new Uint8Array([5]));
    expect(await client.message()).toEqual({
      type: "deliver",
      senderId: 9,
      payload: new Uint8Array([5]),
    });
    expect(nodes()).toBe(NODES_MAX);
    expect(refused()).toEqual({ node_limit: 1 });
  });

  test("a punch request from one more than the limit is served, and its refusal counted", async () => {
    await start({ workers, maxNodes: NODES_MAX });
    await register(1, NODES_MAX);
    const [known, stranger] = [await clients.open(), await clients.open()];
    await known.discover(1);
    await stranger.punch(NODES_MAX + 1, 1);
    expect(await stranger.message()).toEqual({ type: "punchCommand", ...known.address });
    expect(await known.message()).toEqual({ type: "punchCommand", ...stranger.address });
    expect(refused()).toEqual({ node_limit: 1 });
    expect(nodes()).toBe(NODES_MAX);
  });
});

describe("time to live", () => {
  test("nodes that went silent make room for new ones", async () => {
    await start({ workers: 2, maxNodes: NODES_MAX, nodeTtlMs: 1000 });
    await register(1, NODES_MAX);
    await until("all expire", () => nodes() === 0);
    const client = await clients.open();
    await client.relay(1, 7, new Uint8Array(1));
    await untilEqual("not found", () => sum(beacon.stats(), (w) => w.relayNotFound), 1);
    await register(5001, NODES_MAX);
    expect(await client.discover(5001)).toEqual({ type: "discoverReply", ...client.address });
    await client.relay(1, 5001, new Uint8Array(1));
    expect(await client.message()).toEqual({
      type: "deliver",
      senderId: 1,
      payload: new Uint8Array(1),
    });
  });

  test("Discover and PunchRequest keep a node, relaying from and to it does not", async () => {
    const TTL_MS = 3000;
    /**
     * The clock ticks in seconds, and a machine that stands still this long makes the test prove
     * nothing.
     */
    const GAP_MS_MAX = 1000;
    const REFRESH_MS = 50;
    await start({ workers: 2, maxNodes: NODES_MAX, nodeTtlMs: TTL_MS });
    const [discovers, punches, relays] = [
      await clients.open(),
      await clients.open(),
      await clients.open(),
    ];
    let gapMs = 0;
    // A machine that stood still proves nothing: then it is done once more.
    for (let attempt = 0; attempt < 10; attempt++) {
      gapMs = 0;
      let last = performance.now();
      for (const [client, id] of [
        [discovers, 1],
        [punches, 2],
        [relays, 3],
      ] as const) {
        await client.discover(id);
      }
      expect(nodes()).toBe(3);
      await until("the relaying node expires", async () => {
        await discovers.send(discover(1));
        await punches.punch(2, 4_000_000);
        await relays.relay(3, 1, new Uint8Array(1));
        await discovers.relay(1, 3, new Uint8Array(1));
        for (const client of [discovers, punches, relays]) client.take();
        await Bun.sleep(REFRESH_MS);
        gapMs = Math.max(gapMs, performance.now() - last);
        last = performance.now();
        return nodes() < 3;
      });
      if (gapMs < GAP_MS_MAX) break;
    }
    expect(gapMs).toBeLessThan(GAP_MS_MAX);
    expect(nodes()).toBe(2);
    const sender = await clients.open();
    for (const [client, id] of [
      [discovers, 1],
      [punches, 2],
    ] as const) {
      await sender.relay(9, id, new Uint8Array([id]));
      expect(await deliveredFrom(client, 9)).toEqual(new Uint8Array([id]));
    }
    const before = sum(beacon.stats(), (w) => w.relayNotFound);
    await sender.relay(9, 3, new Uint8Array(1));
    await untilEqual("not found", () => sum(beacon.stats(), (w) => w.relayNotFound), before + 1);
  });
});

/** Reads on until a packet of `senderId` comes. @throws Error if none does */
async function deliveredFrom(client: Client, senderId: number): Promise<Uint8Array> {
  for (;;) {
    const message = await client.message();
    if (message.type === "deliver" && message.senderId === senderId) return message.payload;
  }
}
