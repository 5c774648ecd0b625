/** What `beacon status` says. */
import { afterEach, expect, test } from "bun:test";
import { Api } from "../../src/cli/api.ts";
import { status, statusLines } from "../../src/cli/status.ts";
import { ratesBetween } from "../../src/view/rates.ts";
import { TestConsole } from "./support/console.ts";
import { FakeApi } from "./support/fake.ts";
import { directoryStats, statsWith, workerStats } from "./support/stats.ts";

const WELL = { health: { ok: true, text: "ok" }, ready: { ok: true, text: "ready" } };

const earlier = statsWith();
const later = statsWith({
  uptimeS: 102,
  cpuS: 1,
  nodes: 250,
  breakers: { discover: "on", relay: "off" },
  mesh: {
    ...earlier.mesh,
    peers: [
      {
        address: "192.0.2.2:9001",
        routes: 1234,
        gossipAgeS: 3,
        isInDirectory: false,
        check: { sent: 50, lost: 5, disagreed: 0, lastRttMs: 1.5 },
      },
      { address: "192.0.2.3:9001", routes: 0, gossipAgeS: null, isInDirectory: false, check: null },
    ],
  },
  workers: [
    workerStats(0, {
      cpuS: 0.5,
      packetsReceived: { relay: 4000 },
      relayForwarded: { local: 2000, peer: 20, bridged: 0 },
      limited: { relay: 200 },
      relayNotFound: 1000,
    }),
    workerStats(1, { alive: false, restarts: 2, cpuS: null }),
  ],
});

let fake: FakeApi;
afterEach(() => fake?.stop());

function serving(first: unknown, second: unknown, health = 200): Api {
  fake = new FakeApi(({ path }) =>
    path.startsWith("/api")
      ? new Response(`${JSON.stringify(first)}\n${JSON.stringify(second)}\n`)
      : new Response(path === "/healthz" && health !== 200 ? "unhealthy\n" : "ready\n", {
          status: path === "/healthz" ? health : 200,
        }),
  );
  return new Api(fake.url);
}

test("all on one page", () => {
  expect(statusLines(later, ratesBetween(earlier, later), WELL)).toEqual([
    "beacon 1.2.3 at 192.0.2.1:9001, id 5, up 1m 42s",
    "health    ok; ready",
    "nodes     250 of 1,000 (25%)",
    "traffic   in 2.0k packets/s, 0 B/s; out 1.0k packets/s, 0 B/s",
    "relays    local 1.0k/s, peer 10/s",
    "drops     not found 500/s, limit: relay 100/s",
    "received  relay 4,000 since the start",
    "dropped   not found 1,000, limit: relay 200 since the start",
    "cpu       50% of a core, the busiest worker 25% of its core",
    "workers   1 of 2 alive, replaced 2 times",
    "peers     2",
    "  192.0.2.2:9001: 1,234 nodes, heard 3s ago, round trip 1.5 ms, 5 of 50 checks lost",
    "  192.0.2.3:9001: 0 nodes, not heard yet",
    "breakers  off: relay",
  ]);
});

test("the directory, and who is in it", () => {
  const peers = [{ ...later.mesh.peers[0]!, isInDirectory: true }];
  const stats = { ...later, mesh: { ...later.mesh, peers }, directory: directoryStats() };
  const lines = statusLines(stats, undefined, WELL);
  expect(lines).toContain(
    "directory ok at 192.0.2.10:6379, round trip 0.4 ms; 2 other beacons, 1 not in step; " +
      "1234 routes to their 1240 nodes; 99% of changes within 0.05 s; log of 1500 entries, 0.4 MB, 61 s",
  );
  expect(lines).toContain(
    "  192.0.2.2:9001: 1,234 nodes, heard 3s ago in the directory, round trip 1.5 ms, 5 of 50 checks lost",
  );
});

test("an older beacon, which tells of no directory", async () => {
  const { directory: _, ...old } = later;
  const peers = later.mesh.peers.map(({ isInDirectory: _, ...peer }) => peer);
  const out = new TestConsole();
  await status(serving(old, { ...old, mesh: { ...later.mesh, peers } }), false, out);
  expect(out.lines.some((line) => line.includes("directory"))).toBe(false);
});

test("exit code 0 for a beacon that is well, 1 for one that is not", async () => {
  const out = new TestConsole();
  expect(await status(serving(earlier, later), false, out)).toBe(0);
  expect(out.lines[0]).toStartWith("beacon 1.2.3");
  await fake.stop();
  const json = new TestConsole();
  expect(await status(serving(earlier, later, 503), true, json)).toBe(1);
  expect(json.values).toEqual([
    expect.objectContaining({
      health: { ok: false, text: "unhealthy" },
      rates: expect.objectContaining({ packetsIn: 2000 }),
      dropped: { "not found": 1000, "limit: relay": 200 },
    }),
  ]);
});

test("what a beacon would not say is not counted with, nor shown as it is", async () => {
  const without = { ...later, workers: [{}] };
  await expect(status(serving(earlier, without), false, new TestConsole())).rejects.toThrow(
    /not understood \(workers\.0\./,
  );
  await fake.stop();
  const out = new TestConsole();
  await status(serving(earlier, { ...later, version: "\x1b]0;x\x07" }), false, out);
  expect(out.lines[0]).toStartWith("beacon ?]0;x? at");
});
