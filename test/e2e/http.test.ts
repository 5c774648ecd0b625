/** What an operator sees over HTTP. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Beacon, type Stats, version } from "../../src/beacon.ts";
import { recordedLog } from "../support/log.ts";
import { ScriptedRegistry } from "../support/scripted-registry.ts";
import { sum } from "./support/beacon.ts";
import { BurstSocket } from "./support/bursts.ts";
import { Client, Clients } from "./support/client.ts";
import { nameOf } from "./support/mesh.ts";
import { installed } from "./support/program.ts";
import { until, untilEqual } from "./support/wait.ts";
import { deliver, discover, relay, sync } from "./support/wire.ts";

/**
 * Every metric that a dashboard or an alert may rely on, with its type and the label beside
 * `worker`.
 */
const METRICS: Record<string, { type: string; label?: string }> = {
  beacon_nodes: { type: "gauge" },
  beacon_packets_received_total: { type: "counter", label: "type" },
  beacon_relay_forwarded_total: { type: "counter", label: "tier" },
  beacon_relay_not_found_total: { type: "counter" },
  beacon_relay_dropped_total: { type: "counter", label: "reason" },
  beacon_discover_total: { type: "counter" },
  beacon_punch_total: { type: "counter", label: "outcome" },
  beacon_punch_grants_total: { type: "counter", label: "outcome" },
  beacon_node_keys_refused_total: { type: "counter" },
  beacon_punched_pairs_total: { type: "counter", label: "family" },
  beacon_punched_pairs_unwatched_total: { type: "counter" },
  beacon_punched_pairs_watched: { type: "gauge" },
  beacon_malformed_total: { type: "counter", label: "reason" },
  beacon_received_bytes_total: { type: "counter" },
  beacon_sent_bytes_total: { type: "counter" },
  beacon_offload_segments_total: { type: "counter", label: "direction" },
  beacon_socket_receive_drops_total: { type: "counter" },
  beacon_worker_restarts_total: { type: "counter" },
  beacon_log_lines_dropped_total: { type: "counter" },
  beacon_gossip_received_total: { type: "counter" },
  beacon_gossip_rejected_total: { type: "counter", label: "reason" },
  beacon_gossip_sent_total: { type: "counter" },
  beacon_gossip_send_errors_total: { type: "counter" },
  beacon_gossip_truncated_total: { type: "counter" },
  beacon_gossip_refused_total: { type: "counter", label: "reason" },
  beacon_peers: { type: "gauge" },
  beacon_learned_peers: { type: "gauge" },
  beacon_learned_peer_routes: { type: "gauge" },
  beacon_peer_routes_limit: { type: "gauge" },
  beacon_peer_routes_refused_total: { type: "counter" },
  beacon_peer_routes_ignored_total: { type: "counter" },
  beacon_registry_rounds_total: { type: "counter", label: "outcome" },
  beacon_registry_last_success_timestamp_seconds: { type: "gauge" },
  beacon_state_saved_timestamp_seconds: { type: "gauge" },
  beacon_build_info: { type: "gauge", label: "version" },
};

/** And those that are there only where there are peers. */
const PEER_METRICS: typeof METRICS = {
  beacon_peer_routes: { type: "gauge", label: "peer" },
  beacon_peer_gossip_age_seconds: { type: "gauge", label: "peer" },
};

interface Sample {
  readonly name: string;
  readonly labels: Record<string, string>;
  readonly value: number;
}

/**
 * Reads the text format, without anything that this beacon does not write.
 * @throws Error for a line it does not know
 */
function parse(text: string): { types: Record<string, string>; samples: Sample[] } {
  const types: Record<string, string> = {};
  const samples: Sample[] = [];
  for (const line of text.split("\n")) {
    const type = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (type) types[type[1]!] = type[2]!;
    if (line === "" || line.startsWith("#")) continue;
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match) throw new Error(`no sample: ${line}`);
    const labels = [...(match[2] ?? "").matchAll(/([a-z_]+)="([^"]*)"/g)].map(([, k, v]) => [k, v]);
    samples.push({ name: match[1]!, labels: Object.fromEntries(labels), value: Number(match[3]) });
  }
  return { types, samples };
}

/** Each metric is there, of its type, and no sample lacks its label. */
function expectMetrics(
  metrics: typeof METRICS,
  { types, samples }: ReturnType<typeof parse>,
): void {
  for (const [name, { type, label }] of Object.entries(metrics)) {
    expect([name, types[name]]).toEqual([name, type]);
    const own = samples.filter((sample) => sample.name === name);
    expect([name, own.length > 0]).toEqual([name, true]);
    if (label !== undefined) {
      expect([name, own.filter((sample) => !sample.labels[label]).length]).toEqual([name, 0]);
    }
  }
}

const promtool = installed("promtool");
const promtoolNote = promtool ? "" : " (needs promtool)";

function expectPromtoolSilent(text: string): void {
  const child = Bun.spawnSync(["promtool", "check", "metrics"], {
    stdin: new TextEncoder().encode(text),
  });
  expect(child.stdout.toString() + child.stderr.toString()).toBe("");
  expect(child.exitCode).toBe(0);
}

let beacon: Beacon;
const clients = new Clients(() => beacon.address);
beforeAll(async () => {
  beacon = new Beacon({
    addr: "127.0.0.1:0",
    http: "127.0.0.1:0",
    workers: 2,
    maxNodes: 1000,
    beaconId: 0xffff_ffff,
  });
  await beacon.listen();
});
afterEach(() => clients.close());
afterAll(() => beacon.close());

const get = (path: string, init?: RequestInit) => fetch(new URL(path, beacon.httpUrl), init);
const scrape = async () => parse(await (await get("/metrics")).text());

/** Sum of a metric's samples that have these labels. */
function value(
  samples: readonly Sample[],
  name: string,
  labels: Record<string, string> = {},
): number {
  return samples
    .filter((sample) => sample.name === name)
    .filter((sample) =>
      Object.entries(labels).every(([label, wanted]) => sample.labels[label] === wanted),
    )
    .reduce((all, sample) => all + sample.value, 0);
}

describe("paths", () => {
  test("/healthz and /readyz", async () => {
    for (const [path, body] of [
      ["/healthz", "ok\n"],
      ["/readyz", "ready\n"],
    ] as const) {
      const response = await get(path);
      expect(response.status).toBe(200);
      expect(response.headers.get("content-type")).toStartWith("text/plain");
      expect(await response.text()).toBe(body);
    }
    beacon.setHealthy(false);
    const sick = await get("/healthz");
    expect(sick.status).toBe(503);
    expect((await get("/readyz")).status).toBe(200);
    beacon.setHealthy(true);
    expect((await get("/healthz")).status).toBe(200);
  });

  test("/api/stats is what stats() returns", async () => {
    const response = await get("/api/stats");
    expect(response.headers.get("content-type")).toStartWith("application/json");
    const served = (await response.json()) as Stats;
    for (const number of [served.uptimeS, served.residentBytes, served.cpuS])
      expect(number).toBeGreaterThan(0);
    /** Without what changes from one moment to the next. */
    const lasting = ({
      uptimeS: _,
      residentBytes: __,
      cpuS: ___,
      workers,
      ...rest
    }: Stats): unknown => {
      return JSON.parse(
        JSON.stringify({ ...rest, workers: workers.map((one) => ({ ...one, cpuS: 0 })) }),
      );
    };
    expect(lasting(served)).toEqual(lasting(beacon.stats()));
    expect(served).toMatchObject({ version, beaconId: 0xffff_ffff, nodesMax: 1000, healthy: true });
    expect(served).toMatchObject({
      stateSavedS: null,
      mesh: { peers: [], registryLastSuccessS: null },
    });
  });

  test("no answer is to be kept, or taken for anything but what it is", async () => {
    for (const path of [
      "/healthz",
      "/readyz",
      "/metrics",
      "/api/stats",
      "/api/breakers",
      "/nothing",
    ]) {
      const { headers } = await get(path);
      expect(headers.get("cache-control")).toBe("no-store");
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("server")).toBeNull();
    }
  });

  test("anything else is 404 and names what there is", async () => {
    for (const path of [
      "/metric",
      "/healthz/x",
      "/api/",
      "/api/nothing",
      "/healthz/",
      "/%2e%2e/etc/passwd",
    ]) {
      const response = await get(path);
      expect(response.status).toBe(404);
      expect(await response.text()).toContain("/metrics");
    }
  });

  test("HEAD is answered like GET, other methods are refused", async () => {
    for (const path of ["/healthz", "/readyz", "/metrics", "/api/stats", "/api/breakers"]) {
      const head = await get(path, { method: "HEAD" });
      expect(head.status).toBe(200);
      expect(await head.text()).toBe("");
      for (const method of ["POST", "PUT", "DELETE", "PATCH"]) {
        const response = await get(path, { method });
        expect(response.status).toBe(405);
        expect(response.headers.get("allow")).toBe("GET, HEAD");
      }
    }
    expect(
      (await get("/healthz", { method: "POST", body: "x".repeat(100_000) })).status,
    ).toBeGreaterThan(399);
    expect((await get("/healthz")).status).toBe(200);
  });
});

describe("metrics", () => {
  test("every one is there, with its type and labels", async () => {
    const response = await get("/metrics");
    expect(response.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
    const parsed = parse(await response.text());
    expectMetrics(METRICS, parsed);
    const { samples } = parsed;
    for (const name of Object.keys(PEER_METRICS)) expect(value(samples, name)).toBe(0);
    expect(samples.find(({ name }) => name === "beacon_build_info")).toEqual({
      name: "beacon_build_info",
      labels: { version, bun: Bun.version },
      value: 1,
    });
  });

  test("the numbers are what was sent", async () => {
    const before = (await scrape()).samples;
    const [a, b] = [await clients.open(), await clients.open()];
    await a.discover(101);
    await b.discoverEx(102);
    for (let i = 0; i < 3; i++) await a.relay(101, 102, new Uint8Array(100));
    for (let i = 0; i < 3; i++) await b.next();
    await a.relay(101, 999, new Uint8Array(100));
    await a.punch(101, 102);
    await a.next();
    await b.next();
    await a.punch(101, 999);
    await a.send(new Uint8Array([0x33]));
    await a.send(new Uint8Array([0x01, 2]));
    await a.send(new Uint8Array(0));
    const receivedBytes = 5 + 5 + 3 * 109 + 109 + 9 + 9 + 1 + 2;
    const sentBytes = 8 + 8 + 3 * 109 + 2 * 8;
    const gained = async () => {
      const now = (await scrape()).samples;
      return (name: string, labels: Record<string, string> = {}) =>
        value(now, name, labels) - value(before, name, labels);
    };
    await untilEqual("malformed", async () => {
      const more = await gained();
      return [more("beacon_malformed_total"), more("beacon_received_bytes_total")];
    }, [3, receivedBytes]);
    const more = await gained();
    const packets = (type: string) => more("beacon_packets_received_total", { type });
    expect({
      nodes: more("beacon_nodes"),
      discover: packets("discover"),
      discoverEx: packets("discover_ex"),
      relay: packets("relay"),
      punch: packets("punch_request"),
      unknown: packets("unknown"),
      forwarded: more("beacon_relay_forwarded_total", { tier: "local" }),
      notFound: more("beacon_relay_not_found_total"),
      dropped: more("beacon_relay_dropped_total"),
      discovers: more("beacon_discover_total"),
      punched: more("beacon_punch_total", { outcome: "sent" }),
      punchedNobody: more("beacon_punch_total", { outcome: "target_unknown" }),
      short: more("beacon_malformed_total", { reason: "short" }),
      empty: more("beacon_malformed_total", { reason: "empty" }),
      unknownType: more("beacon_malformed_total", { reason: "unknown_type" }),
      sentBytes: more("beacon_sent_bytes_total"),
      drops: more("beacon_socket_receive_drops_total"),
      restarts: more("beacon_worker_restarts_total"),
    }).toEqual({
      nodes: 2,
      discover: 2,
      discoverEx: 1,
      relay: 4,
      punch: 2,
      unknown: 1,
      forwarded: 3,
      notFound: 1,
      dropped: 0,
      discovers: 2,
      punched: 1,
      punchedNobody: 1,
      short: 1,
      empty: 1,
      unknownType: 1,
      sentBytes,
      drops: 0,
      restarts: 0,
    });
  });

  test("segments, by direction", async () => {
    const before = (await scrape()).samples;
    const socket = new BurstSocket("127.0.0.1", {
      address: "127.0.0.1",
      port: beacon.address.port,
    });
    socket.sendEach([discover(201)]);
    await socket.arrivals(1);
    const packet = relay(201, 201, new Uint8Array(500));
    socket.send(Array(30).fill(packet));
    for (const { bytes } of await socket.arrivals(30))
      expect(bytes).toEqual(deliver(201, new Uint8Array(500)));
    socket.close();
    await untilEqual("segments", async () => {
      const now = (await scrape()).samples;
      return ["received", "sent"].map(
        (direction) =>
          value(now, "beacon_offload_segments_total", { direction }) -
          value(before, "beacon_offload_segments_total", { direction }),
      );
    }, [30, 30]);
  });

  test("the histogram's buckets grow, and the last holds all", async () => {
    const client = await clients.open();
    for (let i = 0; i < 20; i++) await client.discover(0);
    const { samples } = await scrape();
    const own = samples.filter(({ name }) => name.startsWith("beacon_receive_batch_size_"));
    const workers = new Set(own.map(({ labels }) => labels["worker"]));
    expect(workers.size).toBe(2);
    for (const worker of workers) {
      const part = (suffix: string) =>
        own.filter(
          ({ name, labels }) =>
            name === `beacon_receive_batch_size_${suffix}` && labels["worker"] === worker,
        );
      const buckets = part("bucket");
      const bounds = buckets.map(({ labels }) =>
        labels["le"] === "+Inf" ? Infinity : Number(labels["le"]),
      );
      expect(bounds).toEqual([...bounds].sort((a, b) => a - b));
      expect(bounds.at(-1)).toBe(Infinity);
      const counts = buckets.map((bucket) => bucket.value);
      expect(counts).toEqual([...counts].sort((a, b) => a - b));
      const [count] = part("count");
      const [all] = part("sum");
      expect(counts.at(-1)).toBe(count!.value);
      expect(all!.value).toBeGreaterThanOrEqual(count!.value);
    }
    // A worker counts a call once its batch is sent, which may be after the last answer arrived.
    await until("scrape and statistics agree", async () => {
      const { samples } = await scrape();
      const calls = sum(beacon.stats(), (w) => w.receiveBatch.calls);
      return value(samples, "beacon_receive_batch_size_count") === calls;
    });
  });

  test.skipIf(!promtool)(`promtool finds nothing to say${promtoolNote}`, async () => {
    expectPromtoolSilent(await (await get("/metrics")).text());
  });
});

describe("metrics of a beacon with a peer, a registry and a state file", () => {
  const folder = mkdtempSync(join(tmpdir(), "beacon-http-"));
  let registry: ScriptedRegistry;
  let peer: Client;
  let meshed: Beacon;
  beforeAll(async () => {
    registry = await ScriptedRegistry.listen();
    peer = await Client.open("127.0.0.1", { address: "127.0.0.1", port: 0 });
    meshed = new Beacon({
      addr: "127.0.0.1:0",
      http: "127.0.0.1:0",
      workers: 2,
      maxNodes: 1000,
      maxRoutes: 500,
      beaconId: 1,
      peers: [nameOf(peer)],
      gossipIntervalMs: 100,
      gossipStrict: "on",
      registry: `127.0.0.1:${registry.port}`,
      registryIntervalMs: 100,
      stateFile: join(folder, "nodes"),
    });
    await meshed.listen();
  });
  afterAll(async () => {
    await meshed.close();
    peer.close();
    await registry.close();
    rmSync(folder, { recursive: true });
  });

  const text = async () => (await fetch(new URL("/metrics", meshed.httpUrl))).text();
  const metric = async (name: string, labels: Record<string, string> = {}) =>
    value(parse(await text()).samples, name, labels);

  test("the numbers are what peers and registry did", async () => {
    const [PEER_ID, PEER_NODE] = [2, 5001];
    const startS = Math.floor(Date.now() / 1000) - 1;
    const { address, port } = meshed.address;
    const at = { address, port };
    const [stranger, node] = [await Client.open(address, at), await Client.open(address, at)];
    try {
      await peer.send(sync(PEER_ID, [PEER_NODE, 5002, 5003]), at);
      await untilEqual("routes", () => metric("beacon_peer_routes", { peer: nameOf(peer) }), 3);
      await stranger.send(sync(PEER_ID, [1]));
      await untilEqual(
        "rejected gossip",
        () => metric("beacon_gossip_rejected_total", { reason: "unknown_peer" }),
        1,
      );
      await node.discover(7);
      await node.relay(7, PEER_NODE, new Uint8Array([42]));
      await untilEqual(
        "relays by tier",
        async () => [
          await metric("beacon_relay_forwarded_total", { tier: "peer" }),
          await metric("beacon_relay_forwarded_total", { tier: "local" }),
        ],
        [1, 0],
      );
      const { samples } = parse(await text());
      expect(value(samples, "beacon_gossip_received_total")).toBe(1);
      expect(value(samples, "beacon_gossip_rejected_total")).toBe(1);
      expect(value(samples, "beacon_peers")).toBe(1);
      expect(value(samples, "beacon_peer_routes_limit")).toBe(500);
      expect(value(samples, "beacon_peer_routes_refused_total")).toBe(0);
      expect(
        value(samples, "beacon_peer_gossip_age_seconds", { peer: nameOf(peer) }),
      ).toBeGreaterThan(0);
      await until("gossip", async () => (await metric("beacon_gossip_sent_total")) > 0);
      await until(
        "a round with the registry",
        async () => (await metric("beacon_registry_rounds_total", { outcome: "ok" })) > 0,
      );
      expect(await metric("beacon_registry_last_success_timestamp_seconds")).toBeGreaterThan(
        startS,
      );
      await until(
        "a save",
        async () => (await metric("beacon_state_saved_timestamp_seconds")) > startS,
      );
    } finally {
      stranger.close();
      node.close();
    }
    expectMetrics({ ...METRICS, ...PEER_METRICS }, parse(await text()));
    const stats = (await (await fetch(new URL("/api/stats", meshed.httpUrl))).json()) as Stats;
    expect(stats.mesh).toMatchObject({
      peers: [{ address: nameOf(peer), routes: 3, gossipAgeS: expect.any(Number) }],
      routesMax: 500,
      registryRounds: { ok: expect.any(Number) },
    });
    expect(stats.mesh.registryLastSuccessS).toBeGreaterThan(startS);
    expect(stats.stateSavedS).toBeGreaterThan(startS);
  });

  test.skipIf(!promtool)(`promtool finds nothing to say${promtoolNote}`, async () => {
    expectPromtoolSilent(await text());
  });
});

test.each([
  ["0.0.0.0:0", 1],
  [":0", 1],
  ["127.0.0.1:0", 0],
  ["[::1]:0", 0],
])("at %s, the log warns %i times of who reads what is there", async (http, times) => {
  const { log, lines } = recordedLog("warn");
  const open = new Beacon({ addr: "127.0.0.1:0", http, workers: 1, maxNodes: 100 }, log);
  await open.listen();
  try {
    open.reconfigure(open.config);
    expect(lines.filter(({ msg }) => msg.includes("is not on loopback"))).toHaveLength(times);
  } finally {
    await open.close();
  }
});
