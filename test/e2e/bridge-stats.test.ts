/** What an operator sees of the WebSocket bridge: in the metrics, the numbers and the log. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Beacon, type Stats } from "../../src/beacon.ts";
import { recordedLog } from "../support/log.ts";
import { UpgradeRefused } from "../support/websocket.ts";
import { BridgeBeacon, type BridgedNode, textOf } from "./support/bridged.ts";
import { installed, type LogLine } from "./support/program.ts";
import { until, untilEqual } from "./support/wait.ts";
import { discover, punchRequest, relay, sync } from "./support/wire.ts";

/**
 * Every metric of the bridge, with its type, and its label with all the values that are there from
 * the start.
 */
const METRICS: Record<string, { type: string; label?: string; values?: readonly string[] }> = {
  beacon_wss_listening: { type: "gauge" },
  beacon_wss_peers: { type: "gauge" },
  beacon_wss_buffered_bytes: { type: "gauge" },
  beacon_wss_idle_disconnects_total: { type: "counter" },
  beacon_wss_slow_disconnects_total: { type: "counter" },
  beacon_wss_upgrades_total: {
    type: "counter",
    label: "outcome",
    values: [
      ...[
        "ok",
        "not_websocket",
        "no_subprotocol",
        "limited",
        "crowded",
        "full",
        "switched_off",
        "closing",
      ],
    ],
  },
  beacon_wss_limited_shadow_total: { type: "counter" },
  beacon_wss_auth_total: {
    type: "counter",
    label: "outcome",
    values: [
      ...["ok", "malformed", "node_id", "unknown_node", "stored_key", "signature", "late", "used"],
      ...["left", "key_source", "no_room", "switched_off"],
    ],
  },
  beacon_wss_frames_total: { type: "counter", label: "direction", values: ["in", "out"] },
  beacon_wss_dropped_total: {
    type: "counter",
    label: "reason",
    values: ["gone", "text", "slow_reader", "mailbox_full", "forged_sender"],
  },
};

let host: BridgeBeacon;
let log: LogLine[] = [];
beforeEach(async () => {
  const recorded = recordedLog();
  log = recorded.lines;
  host = await BridgeBeacon.start({ http: "127.0.0.1:0", wssMaxPeers: 5 }, recorded);
});
afterEach(() => host.close());

let ids = 1000;
const newId = () => ++ids;

type Samples = Record<string, number>;

/**
 * Types by name, and samples as they are written: name{label="value"}, those of all workers under
 * worker="any".
 */
async function scrape(
  beacon: Beacon,
): Promise<{ types: Record<string, string>; samples: Samples; text: string }> {
  const text = await (await fetch(new URL("/metrics", beacon.httpUrl))).text();
  const types: Record<string, string> = {};
  const samples: Samples = {};
  for (const line of text.split("\n")) {
    const [, name, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? [];
    if (name !== undefined) types[name] = type!;
    const [, sample, value] = /^([a-z_]+(?:\{.*\})?) (\S+)$/.exec(line) ?? [];
    if (sample === undefined) continue;
    const key = sample.replace(/worker="\d+"/, 'worker="any"');
    samples[key] = (samples[key] ?? 0) + Number(value);
  }
  return { types, samples, text };
}

/** The samples that changed, and by how much; without those that change of themselves. */
function gained(before: Samples, after: Samples): Samples {
  const changing = /^(process_|beacon_receive_batch|beacon_start_time|beacon_worker_cpu)/;
  const more = Object.entries(after).map(
    ([sample, value]) => [sample, value - (before[sample] ?? 0)] as const,
  );
  return Object.fromEntries(
    more.filter(([sample, value]) => value !== 0 && !changing.test(sample)),
  );
}

/** Waits until just these samples have changed by so much. */
async function untilGained(before: Samples, expected: Samples): Promise<void> {
  await untilEqual(
    "samples",
    async () => gained(before, (await scrape(host.beacon)).samples),
    expected,
  );
}

describe("metrics", () => {
  test("every one is there from the start, with its type and labels", async () => {
    const { types, samples } = await scrape(host.beacon);
    for (const [name, { type, label, values }] of Object.entries(METRICS)) {
      expect([name, types[name]]).toEqual([name, type]);
      const expected = values?.map((value) => `${name}{${label}="${value}"}`) ?? [name];
      const own = Object.keys(samples).filter((sample) => sample.split("{")[0] === name);
      expect(own.sort()).toEqual(expected.sort());
      const first = Number(name === "beacon_wss_listening");
      for (const sample of own) expect([sample, samples[sample]]).toEqual([sample, first]);
    }
    expect(samples['beacon_relay_forwarded_total{worker="bridge",tier="bridged"}']).toBe(0);
    expect(samples['beacon_relay_forwarded_total{worker="any",tier="bridged"}']).toBe(0);
  });

  test("the bridge is a worker in those that count packets, and in no others", async () => {
    const { samples } = await scrape(host.beacon);
    const names = (worker: string) =>
      new Set(
        Object.keys(samples).flatMap((sample) =>
          sample.includes(`worker="${worker}"`) ? [sample.split("{")[0]!] : [],
        ),
      );
    const sockets = [
      "beacon_socket_receive_drops_total",
      "beacon_worker_restarts_total",
      "beacon_worker_cpu_seconds_total",
    ];
    const batches = ["bucket", "sum", "count"].map(
      (suffix) => `beacon_receive_batch_size_${suffix}`,
    );
    const both = [...names("any")].filter((name) => ![...sockets, ...batches].includes(name));
    expect([...names("bridge")].sort()).toEqual(both.sort());
    expect(samples["beacon_workers"]).toBe(2);
  });

  test("tell of upgrades and handshakes", async () => {
    const before = (await scrape(host.beacon)).samples;
    const [known, other] = [host.nodes.identity(newId()), host.nodes.identity(newId())];
    const handshake = async (reply: (challenge: string) => string) => {
      const connection = await host.open();
      connection.text(reply(await textOf(connection)));
      await connection.closed;
    };
    await handshake(() => "garbage");
    await handshake((challenge) => known.reply(challenge, { node_id: 0 }));
    await handshake((challenge) => known.as(newId()).reply(challenge));
    await handshake((challenge) => other.as(known.nodeId).reply(challenge));
    await handshake((challenge) => known.reply(challenge.replace(/[\da-f]{64}/, "0".repeat(64))));
    (await host.open()).destroy();
    await until("it has left", () => host.stats.connections === 0);
    await expect(host.open({ protocol: null })).rejects.toThrow(UpgradeRefused);
    await expect(host.open({ protocol: "pilot.v2" })).rejects.toThrow(UpgradeRefused);
    await expect(host.open({ headers: { upgrade: "h2c" } })).rejects.toThrow(UpgradeRefused);
    const nodes: BridgedNode[] = [];
    while (nodes.length < 5) nodes.push(await host.bridged(newId()));
    await expect(host.open()).rejects.toThrow(UpgradeRefused);
    nodes[0]!.connection.text('{"type":"auth_reply"}');
    await nodes[0]!.connection.closed;
    await untilGained(before, {
      'beacon_wss_upgrades_total{outcome="ok"}': 11,
      'beacon_wss_upgrades_total{outcome="not_websocket"}': 1,
      'beacon_wss_upgrades_total{outcome="no_subprotocol"}': 2,
      'beacon_wss_upgrades_total{outcome="full"}': 1,
      'beacon_wss_auth_total{outcome="ok"}': 5,
      'beacon_wss_auth_total{outcome="malformed"}': 1,
      'beacon_wss_auth_total{outcome="node_id"}': 1,
      'beacon_wss_auth_total{outcome="unknown_node"}': 1,
      'beacon_wss_auth_total{outcome="signature"}': 2,
      'beacon_wss_auth_total{outcome="left"}': 1,
      'beacon_wss_auth_total{outcome="used"}': 1,
      beacon_wss_peers: 4,
      beacon_nodes: 4,
    });
  });

  test("tell of frames and packets, by who handled them", async () => {
    const [a, b] = [await host.bridged(newId()), await host.bridged(newId())];
    const udp = await host.udp(newId());
    const udpId = ids;
    // Bytes are counted once a batch is over, which may be after its answer has arrived.
    const received = async () =>
      (await scrape(host.beacon)).samples['beacon_received_bytes_total{worker="any"}'];
    await untilEqual("bytes of the Discover", received, 5);
    const before = (await scrape(host.beacon)).samples;
    const payload = new Uint8Array(100);

    for (let i = 0; i < 3; i++) a.relay(b.nodeId, payload);
    for (let i = 0; i < 3; i++) await b.next();
    for (let i = 0; i < 2; i++) {
      a.relay(udpId, payload);
      await udp.next(); // so that they do not leave merged
    }
    for (let i = 0; i < 4; i++) await udp.relay(udpId, a.nodeId, payload);
    for (let i = 0; i < 4; i++) await a.next();
    a.send(discover(a.nodeId));
    await a.next();
    a.relay(newId(), payload);
    a.send(relay(b.nodeId, udpId, payload));
    a.send(punchRequest(a.nodeId, b.nodeId));
    a.send(sync(1, [2]));
    a.send(new Uint8Array());
    a.send(Uint8Array.of(5, 1));
    a.connection.text("hello");
    await udp.punch(udpId, a.nodeId);
    const bytesIn = 7 * (9 + payload.length) + 5 + 9 + 11 + 2;
    const bytesOut = (7 + 2) * (5 + payload.length) + 8;
    await untilGained(before, {
      'beacon_wss_frames_total{direction="in"}': 12,
      'beacon_wss_frames_total{direction="out"}': 8,
      'beacon_wss_dropped_total{reason="text"}': 1,
      'beacon_wss_dropped_total{reason="forged_sender"}': 1,
      'beacon_packets_received_total{worker="bridge",type="relay"}': 8,
      'beacon_packets_received_total{worker="bridge",type="discover"}': 1,
      'beacon_packets_received_total{worker="bridge",type="punch_request"}': 1,
      'beacon_packets_received_total{worker="bridge",type="sync"}': 1,
      'beacon_packets_received_total{worker="any",type="relay"}': 4,
      'beacon_packets_received_total{worker="any",type="punch_request"}': 1,
      'beacon_relay_forwarded_total{worker="bridge",tier="bridged"}': 7,
      'beacon_relay_forwarded_total{worker="bridge",tier="local"}': 2,
      'beacon_relay_not_found_total{worker="bridge"}': 1,
      'beacon_relay_dropped_total{worker="bridge",reason="forged_sender"}': 1,
      'beacon_discover_total{worker="bridge"}': 1,
      'beacon_punch_total{worker="bridge",outcome="bridged"}': 1,
      'beacon_punch_total{worker="any",outcome="bridged"}': 1,
      'beacon_gossip_rejected_total{worker="bridge",reason="unknown_peer"}': 1,
      'beacon_malformed_total{worker="bridge",reason="empty"}': 1,
      'beacon_malformed_total{worker="bridge",reason="short"}': 1,
      'beacon_replies_sent_total{worker="bridge"}': 1,
      'beacon_sent_bytes_total{worker="bridge"}': bytesOut,
      'beacon_received_bytes_total{worker="bridge"}': bytesIn,
      'beacon_received_bytes_total{worker="any"}': 4 * (9 + payload.length) + 9,
    });
  });

  test("tell of readers that are too slow, and of what waits for them", async () => {
    const [sender, slow] = [await host.client(), await host.bridged(newId())];
    slow.connection.pause();
    const metric = async (sample: string) => (await scrape(host.beacon)).samples[sample]!;
    const dropped = 'beacon_wss_dropped_total{reason="slow_reader"}';
    const buffered = "beacon_wss_buffered_bytes";
    await until("it is too slow", async () => {
      for (let i = 0; i < 16; i++) await sender.relay(1, slow.nodeId, new Uint8Array(60_000));
      return (await metric(dropped)) > 0 && (await metric(buffered)) > 0;
    });
    slow.connection.resume();
    await untilEqual(buffered, () => metric(buffered), 0);
    slow.connection.pause();
    await until("it is too slow again", async () => {
      for (let i = 0; i < 16; i++) await sender.relay(1, slow.nodeId, new Uint8Array(60_000));
      return (await metric(buffered)) > 0;
    });
    slow.connection.destroy();
    await untilEqual(buffered, () => metric(buffered), 0);
    expect(await metric("beacon_wss_peers")).toBe(0);
  });

  const promtool = installed("promtool");
  test.skipIf(!promtool)(
    `promtool finds nothing to say${promtool ? "" : " (needs promtool)"}`,
    async () => {
      await host.bridged(newId());
      const { text } = await scrape(host.beacon);
      const child = Bun.spawnSync(["promtool", "check", "metrics"], {
        stdin: new TextEncoder().encode(text),
      });
      expect(child.stdout.toString() + child.stderr.toString()).toBe("");
      expect(child.exitCode).toBe(0);
    },
  );
});

test("/api/stats has the bridge, and says where frames went", async () => {
  const node = await host.bridged(newId());
  node.relay(node.nodeId, new Uint8Array(10));
  await node.next();
  await host.open();
  const served = (await (await fetch(new URL("/api/stats", host.beacon.httpUrl))).json()) as Stats;
  expect(served.bridge as unknown).toEqual(JSON.parse(JSON.stringify(host.stats)));
  expect(served.bridge).toMatchObject({
    peers: 1,
    connections: 2,
    upgrades: { ok: 2 },
    auth: { ok: 1 },
    frames: { in: 1, out: 1 },
    dropped: { gone: 0, text: 0, slow_reader: 0, mailbox_full: 0, forged_sender: 0 },
    idleDisconnects: 0,
    slowDisconnects: 0,
    bufferedBytes: 0,
    packets: { packetsReceived: { relay: 1 }, relayForwarded: { bridged: 1, local: 0, peer: 0 } },
  });
});

test("the log says where the bridge listens", () => {
  const line = log.find(({ msg }) => msg.includes("listens on"));
  expect(line?.["wss"]).toBe(host.url.href);
  expect(host.url.href).toMatch(/^ws:\/\/127\.0\.0\.1:\d+\/v1\/compat$/);
});

describe("a beacon without a bridge", () => {
  let beacon: Beacon;
  beforeEach(async () => {
    beacon = new Beacon({ addr: "127.0.0.1:0", http: "127.0.0.1:0", workers: 1, maxNodes: 1000 });
    await beacon.listen();
  });
  afterEach(() => beacon.close());

  test("says null of it, and has no samples of it with a label", async () => {
    expect(beacon.stats().bridge).toBeNull();
    expect(beacon.wssUrl).toBeUndefined();
    const served = (await (await fetch(new URL("/api/stats", beacon.httpUrl))).json()) as Stats;
    expect(served.bridge).toBeNull();
    const { types, samples } = await scrape(beacon);
    for (const [name, { type }] of Object.entries(METRICS))
      expect([name, types[name]]).toEqual([name, type]);
    const own = Object.entries(samples).filter(([sample]) => /beacon_wss_|bridge"/.test(sample));
    expect(Object.fromEntries(own)).toEqual({
      beacon_wss_peers: 0,
      beacon_wss_buffered_bytes: 0,
      beacon_wss_idle_disconnects_total: 0,
      beacon_wss_limited_shadow_total: 0,
      beacon_wss_listening: 0,
      beacon_wss_slow_disconnects_total: 0,
    });
  });
});
