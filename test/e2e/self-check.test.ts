/** Beacons that look whether they are reached through their peers. */
import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Beacon, type Config, type PeerStats } from "../../src/beacon.ts";
import { Client } from "./support/client.ts";
import { freePort, nameOf } from "./support/mesh.ts";
import { until, untilEqual } from "./support/wait.ts";
import { deliver, sync } from "./support/wire.ts";

const beacons: Beacon[] = [];
const clients: Client[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await Promise.all(beacons.splice(0).map((beacon) => beacon.close()));
});

async function start(options: Partial<Config>): Promise<Beacon> {
  const beacon = new Beacon({ workers: 2, maxNodes: 100, gossipIntervalMs: 100, ...options });
  await beacon.listen();
  beacons.push(beacon);
  return beacon;
}

/** Somebody who plays a peer. */
async function player(): Promise<Client> {
  const client = await Client.open("127.0.0.1", { address: "127.0.0.1", port: 9 });
  clients.push(client);
  return client;
}

const peersOf = (beacon: Beacon): readonly PeerStats[] => beacon.stats().mesh.peers;

test("two beacons, one of them on every address, find their way to themselves through each other", async () => {
  const folder = mkdtempSync(join(tmpdir(), "beacon-self-check-"));
  try {
    const ports = [freePort(), freePort()] as const;
    const stateFile = join(folder, "nodes");
    const one = await start({ addr: `:${ports[0]}`, peers: [`127.0.0.1:${ports[1]}`], stateFile });
    const two = await start({
      addr: `127.0.0.1:${ports[1]}`,
      peers: [`127.0.0.1:${ports[0]}`],
      http: "127.0.0.1:0",
    });
    for (const beacon of [one, two]) {
      await until("a round trip", () => (peersOf(beacon)[0]?.check?.lastRttMs ?? 0) > 0);
      expect(beacon.stats().nodes).toBe(0); // but the other one is told of one
      expect(peersOf(beacon)[0]).toMatchObject({ routes: 1, check: { disagreed: 0 } });
    }
    const get = async (path: string) => (await fetch(new URL(path, two.httpUrl))).text();
    expect(await get("/metrics")).toMatch(
      new RegExp(`^beacon_peer_check_rtt_seconds\\{peer="127.0.0.1:${ports[0]}"\\} 0\\.\\d+$`, "m"),
    );
    two.reconfigure({ ...two.config, selfCheck: false });
    await untilEqual("the peer", () => peersOf(one)[0]?.routes, 0);
    expect(peersOf(two)[0]?.check).toBeNull();
    expect(await get("/metrics")).not.toContain("beacon_peer_check_rtt_seconds{");

    await one.close();
    const again = await start({ addr: "127.0.0.1:0", stateFile, stateIntervalMs: 3_600_000 });
    expect(again.stats().nodes).toBe(0);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a peer without a route loses what a liar answers itself, and /readyz names it", async () => {
  const [silent, liar] = [await player(), await player()];
  const beacon = await start({
    addr: "127.0.0.1:0",
    http: "127.0.0.1:0",
    peers: [nameOf(silent), nameOf(liar)],
  });
  for (const peer of [silent, liar]) await peer.send(sync(0, []), beacon.address);
  const checkOf = (peer: Client) =>
    peersOf(beacon).find(({ address }) => address === nameOf(peer))?.check ?? undefined;
  await until("disagreements and losses", async () => {
    for (const { bytes, from } of liar.take()) {
      const senderId = Buffer.from(bytes).readUInt32BE(1);
      if (bytes[0] === 5) await liar.send(deliver(senderId, bytes.subarray(9)), from);
    }
    return (checkOf(liar)?.disagreed ?? 0) > 0 && (checkOf(silent)?.lost ?? 0) >= 3;
  });
  expect(checkOf(liar)?.lastRttMs).toBeNull();
  expect(checkOf(silent)).toMatchObject({ disagreed: 0, lastRttMs: null });
  const ready = await fetch(new URL("/readyz", beacon.httpUrl));
  expect(ready.status).toBe(200);
  expect(await ready.text()).toMatch(
    new RegExp(`^ready; (.*; )?peer ${nameOf(silent)}: self-check lost \\d+ in a row`),
  );
  const metrics = await (await fetch(new URL("/metrics", beacon.httpUrl))).text();
  expect(metrics).toMatch(
    new RegExp(`^beacon_peer_check_disagreements_total\\{peer="${nameOf(liar)}"\\} [1-9]`, "m"),
  );
  expect(metrics).toMatch(
    new RegExp(`^beacon_peer_check_lost_total\\{peer="${nameOf(silent)}"\\} [1-9]`, "m"),
  );
});
