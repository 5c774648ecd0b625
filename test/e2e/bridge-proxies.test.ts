/** Whom a proxy speaks for: the address that nodes behind it are known by. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { UpgradeOptions } from "../support/websocket.ts";
import { BridgeBeacon, BridgedNode } from "./support/bridged.ts";
import { discover, type WireAddress } from "./support/wire.ts";

let ids = 1000;
const newId = () => ++ids;

describe("X-Forwarded-For", () => {
  const CLIENT = "203.0.113.9";
  let proxied: BridgeBeacon;
  const others: BridgeBeacon[] = [];
  beforeAll(async () => {
    proxied = await BridgeBeacon.start();
  });
  afterAll(async () => {
    for (const beacon of [proxied, ...others]) await beacon.close();
  });

  /** What a node is told of its address. */
  async function addressSeen(beacon: BridgeBeacon, options: UpgradeOptions): Promise<WireAddress> {
    const id = newId();
    const node = await beacon.bridged(id, options);
    node.send(discover(id));
    const message = await node.message();
    if (message.type !== "discoverReply") throw new Error(`a ${message.type}`);
    expect(message.port).toBe(node.connection.socket.localPort!);
    node.connection.destroy();
    return message;
  }

  const HOPS_MAX = 16;
  const hops = (count: number) =>
    Array.from({ length: count }, (_, i) => `10.0.0.${i + 1}`).join(", ");
  type Case = readonly [trusted: readonly string[], forwardedFor: string | undefined, seen: string];
  const cases: readonly Case[] = [
    // Nobody is trusted who is not named.
    [[], CLIENT, "127.0.0.1"],
    [["127.0.0.2", "10.0.0.0/8", "::1"], CLIENT, "127.0.0.1"],
    // One proxy.
    [["127.0.0.1"], undefined, "127.0.0.1"],
    [["127.0.0.1"], CLIENT, CLIENT],
    [["127.0.0.0/8"], CLIENT, CLIENT],
    [["0.0.0.0/0"], CLIENT, CLIENT],
    [["::ffff:127.0.0.1"], CLIENT, CLIENT],
    [["127.0.0.1"], ` ${CLIENT} `, CLIENT],
    [["127.0.0.1"], `${CLIENT}:4711`, CLIENT],
    [["127.0.0.1"], "2001:DB8:0:0::1", "2001:db8::1"],
    [["127.0.0.1"], "[2001:db8::1]", "2001:db8::1"],
    [["127.0.0.1"], "[2001:db8::1]:443", "2001:db8::1"],
    [["127.0.0.1"], `::ffff:${CLIENT}`, CLIENT],
    // A chain: what stands before the first that is not trusted may be made up.
    [["127.0.0.1"], `198.51.100.1, ${CLIENT}`, CLIENT],
    [["127.0.0.1", "10.0.0.0/8"], `198.51.100.1, ${CLIENT}, 10.1.2.3`, CLIENT],
    [["127.0.0.1", "10.0.0.0/8"], `${CLIENT},10.1.2.3,10.9.9.9`, CLIENT],
    [["127.0.0.1", "10.0.0.0/8"], `${CLIENT}, ::ffff:10.1.2.3`, CLIENT],
    [["127.0.0.1", "2001:db8::/32"], `${CLIENT}, 2001:db8::7`, CLIENT],
    [["127.0.0.1", "10.0.0.0/8"], "10.9.9.9, 10.1.2.3", "10.9.9.9"],
    [["127.0.0.1"], `${CLIENT}, 10.1.2.3`, "10.1.2.3"],
    [["0.0.0.0/0"], `198.51.100.1, ${hops(HOPS_MAX - 1)}`, "198.51.100.1"],
    [["0.0.0.0/0"], `198.51.100.1, ${hops(HOPS_MAX)}`, "10.0.0.1"],
    // Garbage: the last that is known for sure.
    ...[
      "",
      ",",
      "unknown",
      "_hidden",
      "127.1",
      "0x7f.0.0.1",
      "203.0.113.999",
      "1.2.3",
      "[::1",
      "::1%lo",
      "\u00e4",
    ].map((text) => [["127.0.0.1"], text, "127.0.0.1"] as const),
    [["127.0.0.1"], `${CLIENT}, unknown`, "127.0.0.1"],
    [["127.0.0.1"], `unknown, ${CLIENT}`, CLIENT],
    [["127.0.0.1", "10.0.0.0/8"], `${CLIENT}, unknown, 10.1.2.3`, "10.1.2.3"],
    [["127.0.0.1"], `${"x, ".repeat(2000)}${CLIENT}`, CLIENT],
    [["127.0.0.1"], "1".repeat(5000), "127.0.0.1"],
  ];

  const named = cases.map(
    (one) => [one[0].join() || "nobody", (one[1] ?? "none").slice(0, 80), ...one] as const,
  );
  test.each(named)("trusting %s: %s", async (_, __, wssTrustedProxies, forwardedFor, seen) => {
    proxied.beacon.reconfigure({ ...proxied.beacon.config, wssTrustedProxies });
    const headers: Record<string, string> =
      forwardedFor === undefined ? {} : { "X-Forwarded-For": forwardedFor };
    expect((await addressSeen(proxied, { headers })).address).toBe(seen);
  });

  test("in two lines, as two proxies may write it", async () => {
    proxied.beacon.reconfigure({
      ...proxied.beacon.config,
      wssTrustedProxies: ["127.0.0.1", "10.0.0.0/8"],
    });
    const headers = { "X-Forwarded-For": `198.51.100.1, ${CLIENT}`, "x-forwarded-for": "10.1.2.3" };
    expect((await addressSeen(proxied, { headers })).address).toBe(CLIENT);
  });

  test("of a proxy that is trusted and of one that is not, at the same time", async () => {
    proxied.beacon.reconfigure({ ...proxied.beacon.config, wssTrustedProxies: ["127.0.0.3"] });
    const headers = { "x-forwarded-for": CLIENT };
    const seen = await Promise.all(
      ["127.0.0.2", "127.0.0.3", "127.0.0.4"].map((localAddress) =>
        addressSeen(proxied, { headers, localAddress }),
      ),
    );
    expect(seen.map(({ address }) => address)).toEqual(["127.0.0.2", CLIENT, "127.0.0.4"]);
  });

  test.each([
    ["[::1]:0", "::1", ["::1"]],
    ["[::1]:0", "::1", ["::/0"]],
    ["[::]:0", "127.0.0.1", ["127.0.0.1"]],
    ["[::]:0", "127.0.0.1", ["::ffff:127.0.0.0/104"]],
    [":0", "127.0.0.1", ["127.0.0.0/8"]],
  ])("at %s, of a proxy at %s, trusting %j", async (wss, from, wssTrustedProxies) => {
    const beacon = await BridgeBeacon.start({ wss, wssTrustedProxies });
    others.push(beacon);
    const url = new URL(beacon.url);
    url.hostname = from.includes(":") ? `[${from}]` : from;
    const see = async (headers: Record<string, string>) => {
      const id = newId();
      const node = await BridgedNode.connect(url, beacon.nodes.identity(id), { headers });
      node.send(discover(id));
      const message = await node.message();
      node.connection.destroy();
      return message;
    };
    expect(await see({})).toMatchObject({ type: "discoverReply", address: from });
    for (const client of [CLIENT, "2001:db8::1"])
      expect(await see({ "x-forwarded-for": client })).toMatchObject({
        type: "discoverReply",
        address: client,
      });
  });
});
