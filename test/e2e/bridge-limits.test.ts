/** Strangers who connect more often than they may: they wait, and nodes do not. */
import { afterEach, describe, expect, test } from "bun:test";
import { type Closing, UpgradeRefused, type WebSocketClient } from "../support/websocket.ts";
import { BridgeBeacon, type BridgedNode, textOf } from "./support/bridged.ts";
import { until, untilEqual } from "./support/wait.ts";

const BURST_S = 10;
const [STRANGER, OTHER] = ["203.0.113.66", "203.0.113.7"];

let host: BridgeBeacon;
afterEach(() => host.close());

let ids = 1000;
const newId = () => ++ids;

/** A beacon behind a proxy on this host, for which the tests speak. */
async function start(options: Parameters<typeof BridgeBeacon.start>[0]): Promise<void> {
  host = await BridgeBeacon.start({ wssTrustedProxies: ["127.0.0.1"], ...options });
}

const through = (address: string) => ({ headers: { "x-forwarded-for": address } });

/** Opens connections from an address until one is refused. */
async function openAll(
  address: string,
): Promise<{ open: WebSocketClient[]; refusal: UpgradeRefused }> {
  const open: WebSocketClient[] = [];
  for (;;) {
    try {
      open.push(await host.open(through(address)));
    } catch (refusal) {
      if (refusal instanceof UpgradeRefused) return { open, refusal };
      throw refusal;
    }
  }
}

async function refusalOf(address: string): Promise<UpgradeRefused> {
  const { open, refusal } = await openAll(address);
  expect(open).toHaveLength(0);
  return refusal;
}

/** Connects and says what is no reply. */
async function fail(address: string): Promise<Closing> {
  const connection = await host.open(through(address));
  connection.text("garbage");
  return connection.closed;
}

async function expectReachesItself(node: BridgedNode): Promise<void> {
  node.relay(node.nodeId, Uint8Array.of(7));
  expect(await node.message()).toMatchObject({ type: "deliver", senderId: node.nodeId });
}

describe("upgrades", () => {
  test("over the limit of their address are answered with 429; other addresses and open connections go on", async () => {
    await start({ wssUpgradeLimit: 1 });
    const node = await host.bridged(newId(), through(STRANGER));
    const { open, refusal } = await openAll(STRANGER);
    expect(open.length).toBeGreaterThanOrEqual(BURST_S - 1);
    expect(refusal.status).toBe(429);
    expect(refusal.headers["retry-after"]).toMatch(/^\d+$/);
    expect(host.stats.upgrades).toMatchObject({ ok: 1 + open.length, limited: 1 });
    await expectReachesItself(node);
    await host.bridged(newId(), through(OTHER));
    host.beacon.reconfigure({ ...host.beacon.config, wssUpgradeLimit: 0 });
    await host.bridged(newId(), through(STRANGER));
  });

  test("in shadow are let in, and counted", async () => {
    await start({ wssUpgradeLimit: 1, wssFailureLimit: 1, limitsShadow: true });
    for (let i = 0; i < 3 * BURST_S; i++)
      expect(await fail(STRANGER)).toMatchObject({ code: 1008 });
    expect(host.stats.upgrades).toMatchObject({ ok: 3 * BURST_S, limited: 0 });
    expect(host.stats.upgradesShadowed).toBeGreaterThan(0);
  });

  test("of a proxy on this host that nobody named are not limited", async () => {
    await start({ wssUpgradeLimit: 1, wssFailureLimit: 1, wssTrustedProxies: [] });
    for (let i = 0; i < 3 * BURST_S; i++)
      expect(await fail(STRANGER)).toMatchObject({ code: 1008 });
    await host.bridged(newId(), through(OTHER));
    expect(host.stats.upgrades).toMatchObject({ ok: 3 * BURST_S + 1, limited: 0 });
  });
});

describe("handshakes that fail", () => {
  test("cost their address its upgrades once there were too many; nodes that prove themselves cost nothing", async () => {
    await start({ wssFailureLimit: 1 });
    for (let i = 0; i < 2 * BURST_S; i++) (await host.bridged(newId(), through(OTHER))).close();
    for (let i = 0; i < BURST_S; i++) expect(await fail(STRANGER)).toMatchObject({ code: 1008 });
    expect(await refusalOf(STRANGER)).toMatchObject({ status: 429 });
    await host.bridged(newId(), through(OTHER));
    // It lasts no longer than the limit says.
    await until("the stranger is let in again", () =>
      host.open(through(STRANGER)).then(
        () => true,
        () => false,
      ),
    );
  });

  test("are those of who leaves without a word, too", async () => {
    await start({ wssFailureLimit: 1 });
    for (let i = 0; i < BURST_S; i++) {
      (await host.open(through(STRANGER))).destroy();
      await untilEqual("it has left", () => host.stats.auth["left"], i + 1);
    }
    expect(await refusalOf(STRANGER)).toMatchObject({ status: 429 });
  });

  test("are not those for which the key source is to blame", async () => {
    host = await BridgeBeacon.start(
      { wssTrustedProxies: ["127.0.0.1"], wssFailureLimit: 1 },
      { keyOf: () => Promise.reject(new Error("down")) },
    );
    const identity = host.nodes.identity(newId());
    for (let i = 0; i < 2 * BURST_S; i++) {
      const connection = await host.open(through(STRANGER));
      connection.text(identity.reply(await textOf(connection)));
      expect(await connection.closed).toMatchObject({ code: 1013 });
    }
    expect(host.stats.upgrades).toMatchObject({ ok: 2 * BURST_S, limited: 0 });
  });
});

describe("connections that prove nothing", () => {
  const PEERS_MAX = 64;
  const [UNPROVEN_MAX, OF_ONE_ADDRESS_MAX] = [16, 4];

  test("of one address are few, and keep no node of another one out", async () => {
    await start({ wssMaxPeers: PEERS_MAX });
    const { open, refusal } = await openAll(STRANGER);
    expect(open).toHaveLength(OF_ONE_ADDRESS_MAX);
    expect(refusal.status).toBe(429);
    await host.bridged(newId(), through(OTHER));
    open[0]!.destroy();
    await untilEqual("it has left", () => host.stats.auth["left"], 1);
    await host.bridged(newId(), through(STRANGER));
  });

  test("of many addresses leave most room to nodes, and make some for them when they take too long", async () => {
    await start({ wssMaxPeers: PEERS_MAX, wssTrustedProxies: [] });
    const node = await host.bridged(newId());
    const { open, refusal } = await openAll("of no proxy");
    expect(open).toHaveLength(UNPROVEN_MAX);
    expect(refusal).toMatchObject({ status: 503, body: "too many others are connecting\n" });
    await expectReachesItself(node);
    // They owe a reply; after two seconds each of them stands aside for another one.
    const late = await until("another node is let in", () =>
      host.bridged(newId()).catch((error) => {
        if (error instanceof UpgradeRefused) return undefined;
        throw error;
      }),
    );
    await expectReachesItself(late);
    for (let i = 1; i < UNPROVEN_MAX; i++) await host.bridged(newId());
    expect(host.stats.auth).toMatchObject({ ok: 1 + UNPROVEN_MAX, late: 1 });
    expect(host.stats.peers).toBe(1 + UNPROVEN_MAX);
  });
});
