/** Which gossip is accepted: of peers and unlisted beacons, signed or not, replayed, in excess. */
import { afterEach, describe, expect, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sign } from "../../src/control/mesh/gossip-signature.ts";
import { LEARNED_PEERS_MAX } from "../../src/shared/memory.ts";
import { temporaryFolder } from "../support/folder.ts";
import { ScriptedRegistry } from "../support/scripted-registry.ts";
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
import { installed } from "./support/program.ts";
import { until, untilEqual } from "./support/wait.ts";
import { relay, sync, type WireAddress } from "./support/wire.ts";

const SYNC = 0x07;
const SENDER_ID = 900_000;
const KEYS = [
  "first key of at least 32 characters",
  "second key of at least 32 characters",
] as const;
/** Times that no test waits for. */
const NO_GOSSIP = "--gossip-interval=1m";
const NO_TIMEOUT = "--peer-timeout=1h";
/** So often are silent peers and rejections looked at, generously. */
const TICK_S = 2;

let mesh = new Mesh();
const cleanup: (() => Promise<unknown>)[] = [];
const folder = temporaryFolder();
afterEach(async () => {
  await mesh.close();
  for (const close of cleanup.splice(0)) await close();
  mesh = new Mesh();
});

let files = 0;
/** A file that only its owner may read. */
function keyFile(...keys: readonly string[]): string {
  const path = join(folder, `${files++}.key`);
  writeFileSync(path, `${keys.join("\n")}\n`, { mode: 0o600 });
  return path;
}

/** A place on 127.0.0.1 for a beacon that is not there yet. */
function place(): { at: WireAddress; name: string } {
  const port = freePort();
  return { at: { address: "127.0.0.1", port }, name: `127.0.0.1:${port}` };
}

/** A beacon, a client that plays its peer, and two unlisted beacons. */
async function beaconWithPeer(flags: readonly string[]) {
  const at = place();
  const peer = await mesh.client(at);
  const beacon = await mesh.beacon(at.name, [NO_GOSSIP, `--peers=${nameOf(peer)}`, ...flags]);
  return { beacon, peer, unlisted: await mesh.client(beacon), other: await mesh.client(beacon) };
}

/**
 * Sends a packet of a node to another one through a beacon, and waits until it arrives at a client
 * that plays a peer.
 */
async function expectReachedPeer(sender: Client, peer: Client, nodeId: number): Promise<void> {
  await sender.discover(SENDER_ID);
  const packet = relay(SENDER_ID, nodeId, crypto.getRandomValues(new Uint8Array(20)));
  await sender.send(packet);
  for (;;) {
    const { bytes } = await peer.next();
    if (bytes[0] === SYNC) continue;
    expect(Buffer.from(bytes)).toEqual(Buffer.from(packet));
    return;
  }
}

/** Until the beacon has looked after its peers once more. */
async function tick(beacon: BeaconProcess): Promise<void> {
  const { uptimeS } = await beacon.stats();
  await until("a tick", async () => (await beacon.stats()).uptimeS > uptimeS + TICK_S);
}

const accepted = (beacon: BeaconProcess) =>
  beacon.warnings().filter((text) => text.startsWith("gossip accepted from"));
const untilLearned = (beacon: BeaconProcess, peers: number, routes: number) =>
  untilEqual("learned peers and their routes", () => beacon.learned(), { peers, routes });
const untilRefused = (beacon: BeaconProcess, reasons: Record<string, number>) =>
  untilEqual("rejected gossip", () => beacon.refused(), reasons);

describe("unlisted beacons", () => {
  test("are accepted with --gossip-strict off: one warning names the first, and they are sent nothing", async () => {
    const flags = [NO_TIMEOUT, "--gossip-strict=off"];
    const beacon = await mesh.beacon("127.0.0.1:0", flags); // and an interval of 200 ms
    const [one, other, node] = [
      await mesh.client(beacon),
      await mesh.client(beacon),
      await mesh.client(beacon),
    ];
    await node.discover(1);
    await one.send(sync(5, [10, 11]));
    await untilLearned(beacon, 1, 2);
    await other.send(sync(6, [12]));
    await untilLearned(beacon, 2, 3);
    await expectReachedPeer(node, one, 11);
    await expectReachedPeer(node, other, 12);
    await one.send(sync(5, [11]));
    await untilLearned(beacon, 2, 2);
    await expectNotFound(node, beacon, 10);
    expect(accepted(beacon)).toHaveLength(1);
    expect(accepted(beacon)[0]).toContain(nameOf(one));
    expect(accepted(beacon)[0]).toContain("--peers");
    expect(await beacon.routes()).toEqual({});
    expect(await beacon.metric("beacon_learned_peers")).toBe(2);
    expect(await beacon.metric("beacon_learned_peer_routes")).toBe(2);
    await tick(beacon);
    expect(await beacon.metric("beacon_gossip_sent_total")).toBe(0);
    expect(one.pending + other.pending).toBe(0);
  });

  test("are rejected by default, with and without peers, a registry or a gossip key", async () => {
    const registry = await ScriptedRegistry.listen();
    cleanup.push(() => registry.close());
    const registryFlags = [`--registry=127.0.0.1:${registry.port}`, "--beacon-id=1"];
    for (const flags of [
      [],
      ["--gossip-strict=on"],
      ["--gossip-strict=auto"],
      [`--peers=${place().name}`],
      registryFlags,
      [...registryFlags, `--peers=${place().name}`],
      [`--gossip-key-file=${keyFile(KEYS[0])}`],
    ]) {
      const beacon = await mesh.beacon("127.0.0.1:0", flags);
      const unlisted = await mesh.client(beacon);
      await unlisted.send(sync(5, [10]));
      await untilEqual("gossip turned away", () => beacon.rejected(), { unknown_peer: 1 });
      await expectNotFound(unlisted, beacon, 10);
      expect(await beacon.learned()).toEqual({ peers: 0, routes: 0 });
      expect(accepted(beacon)).toEqual([]);
    }
  });

  test("take no node from a peer, and lose nodes that a peer announces", async () => {
    const { beacon, peer, unlisted, other } = await beaconWithPeer([
      NO_TIMEOUT,
      "--gossip-strict=off",
    ]);
    const name = nameOf(peer);
    await peer.send(sync(5, [10, 11]));
    await untilEqual("routes", () => beacon.routes(), { [name]: 2 });
    await unlisted.send(sync(6, [11, 12, 13]));
    await untilLearned(beacon, 1, 2);
    await other.send(sync(6, [10, 13])); // of unlisted beacons, the last to claim a node has it
    await untilLearned(beacon, 2, 2);
    const sender = await mesh.client(beacon); // what learned peers relay goes to no other peer
    for (const id of [10, 11]) await expectReachedPeer(sender, peer, id);
    await expectReachedPeer(sender, unlisted, 12);
    await expectReachedPeer(sender, other, 13);
    await peer.send(sync(5, [10, 11, 12, 13]));
    await untilEqual("routes", () => beacon.routes(), { [name]: 4 });
    await untilLearned(beacon, 2, 0);
    for (const id of [10, 11, 12, 13]) await expectReachedPeer(sender, peer, id);
  });

  test("are removed after --peer-timeout, and when strict is switched on", async () => {
    const path = join(folder, "strict.json");
    const configure = (config: object) => writeFileSync(path, JSON.stringify(config));
    configure({ "gossip-strict": "off" });
    const beacon = await mesh.beacon("127.0.0.1:0", [`--config=${path}`, "--peer-timeout=1s"]);
    const [one, other] = [await mesh.client(beacon), await mesh.client(beacon)];
    await one.send(sync(5, [10]));
    await untilLearned(beacon, 1, 1);
    await untilLearned(beacon, 0, 0);
    await expectNotFound(other, beacon, 10);
    await one.send(sync(5, [10])); // and are learned again
    await untilLearned(beacon, 1, 1);
    await expectReachedPeer(other, one, 10);

    configure({ "gossip-strict": "on", "peer-timeout": "1h" });
    beacon.program.signal("SIGHUP");
    await untilLearned(beacon, 0, 0);
    await one.send(sync(5, [10]));
    await untilEqual("gossip turned away", () => beacon.rejected(), { unknown_peer: 1 });
    await expectNotFound(other, beacon, 10);
    expect(accepted(beacon)).toHaveLength(1);
  });

  test("are learned up to a bound, at a bounded rate, while gossip of peers is accepted", async () => {
    const { beacon, peer } = await beaconWithPeer([NO_TIMEOUT, "--gossip-strict=off"]);
    const crowd = await Promise.all(
      Array.from({ length: LEARNED_PEERS_MAX + 10 }, () => mesh.client(beacon)),
    );
    const all = () => Promise.all(crowd.map((one, i) => one.send(sync(6, [1000 + i]))));
    await all();
    await until(
      "some are too many at once",
      async () => (await beacon.rejected())["stranger_limit"],
    );
    await peer.send(sync(5, [10]));
    await untilEqual("routes", () => beacon.routes(), { [nameOf(peer)]: 1 });
    await until("all places are taken", async () => {
      await all();
      await Bun.sleep(250);
      return (
        (await beacon.learned()).peers === LEARNED_PEERS_MAX &&
        (await beacon.refused())["learned_limit"]
      );
    });
    expect((await beacon.learned()).routes).toBe(LEARNED_PEERS_MAX);
    expect(Object.keys(await beacon.refused())).toEqual(["learned_limit"]);
  });

  test("relay to this beacon's nodes alone, and are limited", async () => {
    const LIMIT = 5;
    const flags = [NO_TIMEOUT, "--gossip-strict=off", `--relay-limit=${LIMIT}`];
    const { beacon, peer, unlisted, other: node } = await beaconWithPeer(flags);
    await node.discover(1);
    await peer.send(sync(5, [10]));
    await untilEqual("routes", () => beacon.routes(), { [nameOf(peer)]: 1 });
    await unlisted.send(sync(6, [20]));
    await untilLearned(beacon, 1, 1);
    await expectNotFound(unlisted, beacon, 10);
    await expectReached(unlisted, node, 1);
    const limited = async () => (await beacon.metric('beacon_limited_total{limit="relay"}'))!;
    await until("its relays are limited", async () => {
      await unlisted.send(relay(SENDER_ID, 1, new Uint8Array(20)));
      return (await limited()) > 0;
    });
    const before = await limited();
    for (let i = 0; i < 5 * LIMIT; i++) await peer.send(relay(SENDER_ID, 1, new Uint8Array([i])));
    await until(
      "the peer's last relay",
      async () => (await node.next()).bytes.at(-1) === 5 * LIMIT - 1,
    );
    expect(await limited()).toBe(before);
  });
});

describe("peers", () => {
  test("are at no address that no host has; --deny-endpoint covers peers that --peers does not list", async () => {
    const at = place();
    const peer = await mesh.client(at);
    const beacon = await mesh.beacon(at.name, [
      `--peers=224.0.0.1:9001,255.255.255.255:9001,0.0.0.0:9001,${nameOf(peer)}`,
      "--deny-endpoint=127.0.0.0/8",
      "--gossip-strict=off",
      NO_GOSSIP,
      NO_TIMEOUT,
    ]);
    const unlisted = await mesh.client(beacon);
    await peer.send(sync(5, [10]));
    await untilEqual("routes", () => beacon.routes(), { [nameOf(peer)]: 1 });
    const leftOut = beacon.warnings().filter((text) => text.includes("is ignored"));
    expect(leftOut).toHaveLength(1);
    expect(leftOut[0]).toContain("224.0.0.1");
    await unlisted.send(sync(6, [20]));
    await untilRefused(beacon, { denied_endpoint: 1 });
    expect(await beacon.learned()).toEqual({ peers: 0, routes: 0 });
    expect(await beacon.metric('beacon_gossip_refused_total{reason="denied_endpoint"}')).toBe(1);
  });

  test("are not at a denied address that the registry lists", async () => {
    const registry = await ScriptedRegistry.listen();
    try {
      registry.registered.set(3, "127.0.0.2:9001");
      registry.registered.set(4, "127.0.0.3:9001");
      const flags = ["--deny-endpoint=127.0.0.2/32", "--registry-interval=100ms", "--beacon-id=1"];
      const beacon = await mesh.beacon("127.0.0.1:0", [
        ...flags,
        `--registry=127.0.0.1:${registry.port}`,
      ]);
      await untilEqual("peers", () => beacon.routes(), { "127.0.0.3:9001": 0 });
      const warning = await until("a warning", () =>
        beacon.warnings().find((text) => text.includes("127.0.0.2:9001 is ignored")),
      );
      expect(warning).toContain("denied");
    } finally {
      await registry.close();
    }
  });
});

test("a peer's nodes beyond --max-peer-routes are ignored and counted", async () => {
  const { beacon, peer, unlisted } = await beaconWithPeer([NO_TIMEOUT, "--max-peer-routes=3"]);
  await peer.send(sync(5, [10, 11, 12, 13, 14]));
  await untilEqual("routes", () => beacon.routes(), { [nameOf(peer)]: 3 });
  for (const id of [10, 11, 12]) await expectReachedPeer(unlisted, peer, id);
  for (const id of [13, 14]) await expectNotFound(unlisted, beacon, id);
  await peer.send(sync(5, [13, 14]));
  await untilEqual("routes", () => beacon.routes(), { [nameOf(peer)]: 2 });
  expect(await beacon.metric("beacon_peer_routes_ignored_total")).toBe(2);
  expect(beacon.warnings().filter((text) => text.includes("--max-peer-routes"))).toHaveLength(1);
});

test("a flood from a peer's address is limited, and later gossip of the peer is accepted", async () => {
  const FLOOD = 300;
  const { beacon, peer } = await beaconWithPeer([NO_TIMEOUT]);
  for (let i = 0; i < FLOOD; i++) await peer.send(sync(5, [10, 11]));
  await until("it is limited", async () => (await beacon.rejected())["peer_limit"]);
  await until("its last word counts", async () => {
    await peer.send(sync(5, [12]));
    return (await beacon.routes())[nameOf(peer)] === 1;
  });
  await until("a warning", () => beacon.warnings().some((text) => text.includes(nameOf(peer))));
});

describe("signed", () => {
  /** A Sync as a beacon with the key says it, `timeMs` before or after now. */
  function signed(
    nodeIds: readonly number[],
    { key = KEYS[0] as string, instance = 77n, offsetMs = 0 } = {},
  ): Uint8Array {
    const plain = sync(5, nodeIds);
    const message = new Uint8Array(plain.length + 48);
    message.set(plain);
    sign(message, key, { instance, timeMs: Date.now() + offsetMs });
    return message;
  }

  test("beacons with one key accept each other; one without a key accepts them, and they reject it", async () => {
    const places = [place(), place(), place()] as const;
    const key = `--gossip-key-file=${keyFile(KEYS[0])}`;
    const [a, b, keyless] = await Promise.all(
      places.map((one, i) => {
        const others = places.filter((each) => each !== one).map(({ name }) => name);
        return mesh.beacon(one.name, [`--peers=${others}`, NO_TIMEOUT, ...(i < 2 ? [key] : [])]);
      }),
    );
    const nodes = await Promise.all([a, b, keyless].map((beacon) => mesh.client(beacon!)));
    for (const [i, node] of nodes.entries()) await node.discover(1 + i);
    await announced(a!, b!);
    await announced(b!, a!);
    await announced(a!, keyless!);
    await expectReached(nodes[0]!, nodes[1]!, 2);
    await expectReached(nodes[2]!, nodes[1]!, 2);
    await until("a rejection", async () => (await b!.refused())["unsigned"]);
    await expectNotFound(nodes[0]!, a!, 3);
    expect(Object.keys(await a!.refused())).toEqual(["unsigned"]);
    expect(Object.keys(await keyless!.refused())).toEqual([]);
    const warning = await until("a warning", () =>
      a!.warnings().find((text) => /^gossip from .* rejected/.test(text)),
    );
    expect(warning).toContain(keyless!.name);
    expect(warning).toContain("--gossip-key-file");
    expect(a!.program.output()).not.toContain(KEYS[0]);
  });

  test("with another key or time, or replayed: changes nothing, is counted, and its source is named", async () => {
    const flags = [NO_TIMEOUT, "--gossip-strict=off", `--gossip-key-file=${keyFile(KEYS[0])}`];
    const { beacon, peer, unlisted, other: sender } = await beaconWithPeer(flags);
    const name = nameOf(peer);
    const good = signed([10]);
    await peer.send(good);
    await untilEqual("routes", () => beacon.routes(), { [name]: 1 });
    await peer.send(good);
    await untilRefused(beacon, { duplicate: 1 });
    const expected: Record<string, number> = { duplicate: 1 };
    const bad: readonly (readonly [string, Client, Uint8Array])[] = [
      ["unsigned", peer, sync(5, [])],
      ["forged", peer, signed([], { key: KEYS[1] })],
      ["clock", peer, signed([], { offsetMs: -120_000 })],
      ["clock", peer, signed([], { offsetMs: 120_000 })],
      ["replayed", peer, signed([], { offsetMs: -30_000 })],
      ["replayed", unlisted, signed([11])],
    ];
    for (const [reason, from, message] of bad) {
      await from.send(message);
      expected[reason] = (expected[reason] ?? 0) + 1;
      await untilRefused(beacon, expected);
    }
    expect(await beacon.routes()).toEqual({ [name]: 1 });
    await expectReachedPeer(sender, peer, 10);
    const about = (reason: RegExp) => beacon.warnings().filter((text) => reason.test(text));
    expect(about(/time is more than 60 s .*120 s behind/)).toHaveLength(1);
    for (const reason of [/not signed/, /another key/, /replayed/])
      expect(about(reason)).toHaveLength(1);
    expect(about(/duplicate|gossip accepted from/)).toEqual([]);
    const rejected = beacon.program.log().filter(({ event }) => event === "gossip_rejected");
    expect(rejected.map(({ reason }) => reason)).toEqual([...new Set(bad.map(([name]) => name))]);
    // Gossip with the key is accepted from any address.
    await unlisted.send(signed([11], { instance: 78n << 16n }));
    await untilLearned(beacon, 1, 1);
    await expectReachedPeer(sender, unlisted, 11);
    expect(await beacon.metric('beacon_gossip_refused_total{reason="replayed"}')).toBe(2);
  });

  test("a flood by a host that cannot read a peer's gossip does not keep that gossip out", async () => {
    const flags = [NO_TIMEOUT, `--gossip-key-file=${keyFile(KEYS[0])}`];
    const { beacon, peer } = await beaconWithPeer(flags);
    await peer.send(signed([10, 11]));
    await untilEqual("routes", () => beacon.routes(), { [nameOf(peer)]: 2 });
    const limited = async () => (await beacon.rejected())["peer_limit"] ?? 0;
    const isFlooded = async () => {
      const before = await limited();
      for (let i = 0; i < 100; i++)
        await peer.send(signed([], { key: KEYS[1], instance: 78n << 16n }));
      return (await limited()) - before > 50;
    };
    await until("nothing else is let through", isFlooded);
    await peer.send(signed([12]));
    await untilEqual("routes", () => beacon.routes(), { [nameOf(peer)]: 1 });
  });

  test("the key is changed without a rejection: all beacons accept both before one signs with the new", async () => {
    const [placeA, placeB] = [place(), place()];
    const [fileA, fileB] = [keyFile(KEYS[0]), keyFile(KEYS[0])];
    const [a, b] = await Promise.all([
      mesh.beacon(placeA.name, [`--peers=${placeB.name}`, `--gossip-key-file=${fileA}`]),
      mesh.beacon(placeB.name, [`--peers=${placeA.name}`, `--gossip-key-file=${fileB}`]),
    ]);
    const [nodeA, nodeB] = [await mesh.client(a), await mesh.client(b)];
    let nodes = 0;
    const expectWell = async () => {
      nodes++;
      await nodeA.discover(1000 + nodes);
      await nodeB.discover(2000 + nodes);
      await announced(a, b);
      await announced(b, a);
    };
    const reload = async (beacon: BeaconProcess, file: string, ...keys: readonly string[]) => {
      writeFileSync(file, keys.join("\n"));
      const from = beacon.program.log().length;
      beacon.program.signal("SIGHUP");
      await beacon.program.logged(/configuration (not )?reloaded/, from);
    };
    await expectWell();
    for (const keys of [[KEYS[0], KEYS[1]], [KEYS[1], KEYS[0]], [KEYS[1]]]) {
      await reload(a, fileA, ...keys);
      await expectWell();
      await reload(b, fileB, ...keys);
      await expectWell();
    }
    for (const beacon of [a, b]) {
      expect((await beacon.refused())["forged"]).toBeUndefined();
      expect((await beacon.refused())["unsigned"]).toBeUndefined();
    }

    // A mistake changes nothing, and is not quoted.
    await reload(b, fileB, "hunter2");
    expect(b.messages("error").at(-1)).toContain(`${fileB}: line 1`);
    expect(b.program.output()).not.toContain("hunter2");
    await expectWell();
    // The old key, by now, is anybody's.
    await reload(b, fileB, KEYS[0]);
    await until("a rejection", async () => (await a.refused())["forged"]);
    for (const key of KEYS) expect(a.program.output() + b.program.output()).not.toContain(key);
  });

  test("a key file that others can read causes one warning; a missing one ends the start", async () => {
    const path = keyFile(KEYS[0]);
    chmodSync(path, 0o644);
    const beacon = await mesh.beacon("127.0.0.1:0", [`--gossip-key-file=${path}`]);
    const about = () => beacon.warnings().filter((text) => text.includes("gossip key file"));
    await until("a warning", () => about().length > 0);
    const from = beacon.program.log().length;
    beacon.program.signal("SIGHUP");
    await beacon.program.logged(/configuration reloaded/, from);
    expect(about()).toHaveLength(1);

    const missing = join(folder, "missing");
    await expect(mesh.beacon("127.0.0.1:0", [`--gossip-key-file=${missing}`])).rejects.toThrow();
  });

  test.skipIf(!installed("python3"))(
    "a peer in Python without signatures reads its nodes (needs python3)",
    async () => {
      const at = place();
      const script = join(import.meta.dir, "support/go_peer.py");
      const python = mesh.spawn(["python3", script, "127.0.0.1"], { stdin: "pipe" });
      const port = await python.line(
        "its port",
        (line) => (JSON.parse(line) as { port?: number }).port,
      );
      const flags = [
        "--beacon-id=9",
        `--peers=127.0.0.1:${port}`,
        `--gossip-key-file=${keyFile(KEYS[0])}`,
      ];
      const beacon = await mesh.beacon(at.name, flags);
      const node = await mesh.client(beacon);
      for (const id of [100, 101]) await node.discover(id);
      const told = await until("gossip with both", () =>
        python.lines
          .slice(1)
          .map(
            (line) =>
              JSON.parse(line) as { hex: string; sync?: { beacon_id: number; ids: number[] } },
          )
          .find((line) => line.sync?.ids.length === 2),
      );
      expect(told.sync!.beacon_id).toBe(9);
      expect(told.sync!.ids.toSorted((x, y) => x - y)).toEqual([100, 101]);
      expect(told.hex.length / 2).toBe(7 + 2 * 4 + 48);
    },
  );
});
