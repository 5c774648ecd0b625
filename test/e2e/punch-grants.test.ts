/**
 * Punches that need their target's leave, from a node's Discover to the PunchCommand, with whatever
 * knows the nodes' keys.
 */
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Beacon, type Config, type KeyFunction } from "../../src/beacon.ts";
import { base64, NodeIdentity } from "../support/pilot-node.ts";
import { ScriptedRegistry } from "../support/scripted-registry.ts";
import { sumByName, total, UNLIMITED, UNLIMITED_FLAGS } from "./support/beacon.ts";
import { BridgedNode } from "./support/bridged.ts";
import { BurstSocket } from "./support/bursts.ts";
import { type Client, Clients } from "./support/client.ts";
import { installed, Programs } from "./support/program.ts";
import { until, untilEqual } from "./support/wait.ts";
import { discover, discoverEx, punchRequest, relay } from "./support/wire.ts";

const REQUESTER = 70;
const target = NodeIdentity.create(80);
const folder = mkdtempSync(join(tmpdir(), "beacon-grants-"));
const keyFile = (...nodes: NodeIdentity[]): string => {
  const path = join(folder, `keys-${Math.random()}.json`);
  writeFileSync(
    path,
    JSON.stringify(
      Object.fromEntries(nodes.map(({ nodeId, publicKey }) => [nodeId, base64(publicKey)])),
    ),
  );
  return path;
};

let beacon: Beacon;
const clients = new Clients(() => beacon.address);
const programs = new Programs();
const registries: ScriptedRegistry[] = [];
afterEach(async () => {
  clients.close();
  await beacon?.close();
  for (const registry of registries.splice(0)) await registry.close();
});
afterAll(async () => {
  await programs.kill();
  rmSync(folder, { recursive: true });
});

async function start(options: Partial<Config> = {}, keyOf?: KeyFunction): Promise<void> {
  beacon = new Beacon(
    {
      addr: "127.0.0.1:0",
      workers: 2,
      maxNodes: 1000,
      ...UNLIMITED,
      requirePunchGrant: true,
      ...options,
    },
    undefined,
    keyOf,
  );
  await beacon.listen();
}

const inAMinute = () => Math.floor(Date.now() / 1000) + 60;
const goodGrant = () => target.grant(REQUESTER, inAMinute());

/** What became of punch requests, over all who count it. */
function outcomes(): Record<string, number> {
  const stats = beacon.stats();
  const sums = sumByName(stats, (worker) => worker.punchGrants);
  for (const [name, count] of Object.entries(stats.grants?.punchGrants ?? {}))
    if (count !== 0) sums[name] = (sums[name] ?? 0) + count;
  return sums;
}
const untilOutcomes = (expected: Record<string, number>) =>
  untilEqual("outcomes", outcomes, expected);

/** The two ends; the target tells its key, if any, with its Discover. */
async function twoEnds(key?: Uint8Array): Promise<{ requester: Client; at: Client }> {
  const [requester, at] = [await clients.open(), await clients.open()];
  await requester.discover(REQUESTER);
  await at.discover(target.nodeId, key);
  return { requester, at };
}

async function expectPunch(requester: Client, at: Client): Promise<void> {
  const from = { address: "127.0.0.1", port: beacon.address.port };
  for (const [told, about] of [
    [requester, at],
    [at, requester],
  ] as const) {
    const { bytes, from: source } = await told.next();
    expect([...bytes]).toEqual([
      4,
      4,
      ...about.address.address.split(".").map(Number),
      about.address.port >> 8,
      about.address.port & 0xff,
    ]);
    expect(source).toEqual(from); // the public port
  }
}

/** Nothing came to any of them before the answer to what is asked last. */
async function expectSilence(...all: Client[]): Promise<void> {
  for (const client of all)
    expect(await client.discover(0)).toEqual({ type: "discoverReply", ...client.address });
}

describe("a target that tells its key with its Discover", () => {
  test.each([
    ["Discover", discover],
    ["DiscoverEx", discoverEx],
  ] as const)("is punched to with its leave, %s", async (_name, hello) => {
    await start();
    const [requester, at] = [await clients.open(), await clients.open()];
    await at.send(hello(target.nodeId, target.publicKey));
    await at.message();
    await requester.send(punchRequest(REQUESTER, target.nodeId, goodGrant()));
    await expectPunch(requester, at);
    await untilOutcomes({ ok: 1 });
    // A requester that moved meanwhile is told of where it is now.
    const moved = await clients.open();
    await moved.send(
      punchRequest(REQUESTER, target.nodeId, new Uint8Array([...goodGrant(), 1, 2, 3])),
    );
    await expectPunch(moved, at);
    await expectSilence(requester, moved, at);
    expect(beacon.stats().grants?.punches["sent"]).toBe(2);
  });

  test("whatever is wrong: silence, as for a target that nobody knows", async () => {
    await start();
    const { requester, at } = await twoEnds(target.publicKey);
    const keyless = await clients.open();
    await keyless.discover(81);
    const nowS = Math.floor(Date.now() / 1000);
    const other = NodeIdentity.create(target.nodeId);
    const bad: Record<string, Uint8Array> = {
      missing: punchRequest(REQUESTER, target.nodeId),
      "missing, a byte short": punchRequest(REQUESTER, target.nodeId, goodGrant().subarray(0, 71)),
      expired: punchRequest(REQUESTER, target.nodeId, target.grant(REQUESTER, nowS - 1)),
      too_long: punchRequest(REQUESTER, target.nodeId, target.grant(REQUESTER, nowS + 90_000)),
      forged: punchRequest(REQUESTER, target.nodeId, other.grant(REQUESTER, nowS + 60)),
      "forged for another pair": punchRequest(71, target.nodeId, goodGrant()),
      unknown_key: punchRequest(REQUESTER, 81, target.as(81).grant(REQUESTER, nowS + 60)),
      "unknown target": punchRequest(REQUESTER, 404, target.as(404).grant(REQUESTER, nowS + 60)),
      "unknown target, no grant": punchRequest(REQUESTER, 404),
    };
    for (const message of Object.values(bad)) await requester.send(message);
    await untilOutcomes({ missing: 3, expired: 1, too_long: 1, forged: 2, unknown_key: 1 });
    await untilEqual("targets unknown", () => sumByName(beacon.stats(), (w) => w.punches), {
      target_unknown: 1,
    });
    await expectSilence(requester, at, keyless);
    expect(total(beacon.stats().grants!.punches)).toBe(0);
    await requester.send(punchRequest(REQUESTER, target.nodeId, goodGrant()));
    await expectPunch(requester, at);
  });

  test("keeps its first key until it expires; then it is whoever comes first", async () => {
    await start({ nodeTtlMs: 1000 });
    const { requester, at } = await twoEnds(target.publicKey);
    const impostor = NodeIdentity.create(target.nodeId);
    const other = await clients.open();
    // Without a hold on endpoints it moves the node, but not its key.
    await other.discover(target.nodeId, impostor.publicKey);
    const ask = (node: NodeIdentity) =>
      requester.send(punchRequest(REQUESTER, target.nodeId, node.grant(REQUESTER, inAMinute())));
    await ask(impostor);
    await untilOutcomes({ forged: 1 });
    await ask(target);
    await expectPunch(requester, other);
    const refused = beacon.stats().workers.reduce((all, worker) => all + worker.keysRefused, 0);
    expect(refused).toBe(1);
    await until("all expire", () => beacon.stats().nodes === 0);
    await at.discover(target.nodeId, impostor.publicKey);
    await ask(target);
    await untilOutcomes({ forged: 2, ok: 1 });
    await ask(impostor);
    await expectPunch(requester, at);
  });

  test("gives leave for a time: what is good becomes old", async () => {
    await start();
    const { requester, at } = await twoEnds(target.publicKey);
    const message = punchRequest(
      REQUESTER,
      target.nodeId,
      target.grant(REQUESTER, Math.floor(Date.now() / 1000) + 2),
    );
    await requester.send(message);
    await expectPunch(requester, at);
    await until("it expires", async () => {
      await requester.send(message);
      return (outcomes()["expired"] ?? 0) > 0;
    });
    expect(Object.keys(outcomes()).sort()).toEqual(["expired", "ok"]);
  });

  test("keeps its key across a restart with a state file", async () => {
    const stateFile = join(folder, "state");
    await start({ stateFile });
    await twoEnds(target.publicKey);
    clients.close();
    await beacon.close();
    await start({ stateFile });
    const impostor = NodeIdentity.create(target.nodeId);
    const { requester, at } = await twoEnds(impostor.publicKey);
    await requester.send(
      punchRequest(REQUESTER, target.nodeId, impostor.grant(REQUESTER, inAMinute())),
    );
    await untilOutcomes({ forged: 1 });
    await requester.send(punchRequest(REQUESTER, target.nodeId, goodGrant()));
    await expectPunch(requester, at);
  });
});

describe("a source of keys, without a bridge", () => {
  const sources: Record<string, () => Promise<void>> = {
    "a function": () =>
      start({}, async (nodeId) => (nodeId === target.nodeId ? target.publicKey : undefined)),
    "a key file": () => start({ wssKeys: keyFile(target) }),
    "a registry": async () => {
      const registry = await ScriptedRegistry.listen();
      registries.push(registry);
      registry.keys.set(target.nodeId, base64(target.publicKey));
      await start({ registry: `127.0.0.1:${registry.port}`, beaconId: 5 });
    },
  };

  test.each(Object.entries(sources))(
    "%s outranks what a node says, and nodes that it does not know say it",
    async (_name, begin) => {
      await begin();
      const impostor = NodeIdentity.create(target.nodeId);
      const newcomer = NodeIdentity.create(90);
      const { requester, at } = await twoEnds(impostor.publicKey);
      const there = await clients.open();
      await there.discover(90, newcomer.publicKey);
      await requester.send(
        punchRequest(REQUESTER, target.nodeId, impostor.grant(REQUESTER, inAMinute())),
      );
      await untilOutcomes({ forged: 1 });
      await requester.send(punchRequest(REQUESTER, target.nodeId, goodGrant()));
      await expectPunch(requester, at);
      await requester.send(punchRequest(REQUESTER, 90, newcomer.grant(REQUESTER, inAMinute())));
      await expectPunch(requester, there);
      await expectSilence(requester, at, there);
    },
  );

  test("one that is away makes no grant good, though the node told its key", async () => {
    const registry = await ScriptedRegistry.listen();
    await registry.close();
    await start({ registry: `127.0.0.1:${registry.port}`, beaconId: 5 });
    const { requester, at } = await twoEnds(target.publicKey);
    await requester.send(punchRequest(REQUESTER, target.nodeId, goodGrant()));
    await untilOutcomes({ key_source: 1 });
    await expectSilence(requester, at);
  });

  test("a key file that cannot be used is said at start, and at a reload, which changes nothing then", async () => {
    const path = join(folder, "none.json");
    const bad = new Beacon({
      addr: "127.0.0.1:0",
      workers: 1,
      requirePunchGrant: true,
      wssKeys: path,
    });
    await expect(bad.listen()).rejects.toThrow("none.json");
    await bad.close();
    await start({ requirePunchGrant: false });
    const { config } = beacon;
    expect(() => beacon.reconfigure({ ...config, requirePunchGrant: true, wssKeys: path })).toThrow(
      "none.json",
    );
    expect(beacon.config.requirePunchGrant).toBe(false);
    const { requester, at } = await twoEnds();
    await requester.punch(REQUESTER, target.nodeId);
    await expectPunch(requester, at);
  });
});

describe("a reload", () => {
  test("asks for grants from then on, with other keys, and no more", async () => {
    await start({ requirePunchGrant: false });
    const { requester, at } = await twoEnds();
    const { config } = beacon;
    await requester.punch(REQUESTER, target.nodeId);
    await expectPunch(requester, at);
    expect(beacon.stats().grants).toBeNull();

    const impostor = NodeIdentity.create(target.nodeId);
    beacon.reconfigure({ ...config, requirePunchGrant: true, wssKeys: keyFile(impostor) });
    await requester.punch(REQUESTER, target.nodeId);
    await requester.send(punchRequest(REQUESTER, target.nodeId, goodGrant()));
    await untilOutcomes({ missing: 1, forged: 1 });
    beacon.reconfigure({ ...config, requirePunchGrant: true, wssKeys: keyFile(target) });
    await requester.send(punchRequest(REQUESTER, target.nodeId, goodGrant()));
    await expectPunch(requester, at);

    beacon.reconfigure(config);
    await requester.punch(REQUESTER, target.nodeId);
    await expectPunch(requester, at);
    await expectSilence(requester, at);
    expect(outcomes()).toEqual({ missing: 1, forged: 1, ok: 1 });
  });
});

describe("beside a bridge", () => {
  test("a node there is no target, and asks for no punch; what proves it there is its key here", async () => {
    await start({ wss: "127.0.0.1:0", wssKeys: keyFile(target) });
    const requester = await clients.open();
    const node = await BridgedNode.connect(beacon.wssUrl!, target);
    await requester.send(punchRequest(REQUESTER, target.nodeId, goodGrant()));
    node.send(punchRequest(target.nodeId, REQUESTER, goodGrant()));
    await untilEqual("those bridged", () => sumByName(beacon.stats(), (w) => w.punches), {
      bridged: 1,
    });
    await until("its own", () => beacon.stats().bridge!.packets.punches["bridged"] === 1);
    await expectSilence(requester);
    node.close();
    await until("it left", () => beacon.stats().bridge!.peers === 0);
    const at = await clients.open();
    await at.discover(target.nodeId);
    await requester.send(punchRequest(REQUESTER, target.nodeId, goodGrant()));
    await expectPunch(requester, at);
    expect(outcomes()).toEqual({ ok: 1 });
  });
});

test("a flood of forged grants takes nothing from relays, each is counted, and leave is leave after it", async () => {
  const FLOOD = 20_000;
  const RELAYS = 5000;
  const WINDOW = 100;
  await start();
  const { requester, at } = await twoEnds(target.publicKey);
  const where = { address: "127.0.0.1", port: beacon.address.port };
  const [attacker, receiver] = [
    new BurstSocket("127.0.0.1", where),
    new BurstSocket("127.0.0.1", where),
  ];
  try {
    receiver.sendEach([discover(5)]);
    await receiver.arrivals(1);
    const grant = NodeIdentity.create(target.nodeId).grant(REQUESTER, inAMinute());
    const forged = punchRequest(REQUESTER, target.nodeId, grant);
    const asked = () => total(outcomes());
    for (let sent = 0; sent < FLOOD; sent += WINDOW) {
      attacker.sendEach(Array<Uint8Array>(WINDOW).fill(forged));
      if (sent % ((FLOOD / RELAYS) * WINDOW) === 0) {
        const payloads = Array.from({ length: WINDOW }, (_, i) =>
          relay(sent + i, 5, new Uint8Array(8)),
        );
        receiver.sendEach(payloads);
        for (const [i, { bytes }] of (await receiver.arrivals(WINDOW)).entries())
          expect(Buffer.from(bytes).readUInt32BE(1)).toBe(sent + i);
      }
      await until("they are taken", () => asked() >= sent + WINDOW);
    }
    await until("all are judged", () => asked() === FLOOD);
    expect(Object.keys(outcomes()).sort()).toEqual(["forged", "overload"]);
    await expectSilence(requester, at);
    await until("there is room for one that is good", async () => {
      await requester.send(punchRequest(REQUESTER, target.nodeId, goodGrant()));
      await Bun.sleep(10);
      return (outcomes()["ok"] ?? 0) > 0;
    });
    await expectPunch(requester, at);
  } finally {
    attacker.close();
    receiver.close();
  }
});

const pythonHasEd25519 =
  installed("python3") && Bun.spawnSync(["python3", "-c", "import cryptography"]).success;

describe("nodes in Python", () => {
  const needs = pythonHasEd25519 ? "" : " (needs python3 with cryptography)";
  test.skipIf(!pythonHasEd25519)(`sign grants that are good${needs}`, async () => {
    const program = programs.beacon([
      "--addr=127.0.0.1:0",
      "--http=127.0.0.1:0",
      "--log-format=json",
      "--workers=2",
      "--require-punch-grant=on",
      ...UNLIMITED_FLAGS,
    ]);
    const { port, http } = await program.listening();
    const script = join(import.meta.dir, "support/pilot_grant_client.py");
    const python = programs.spawn(["python3", script, "127.0.0.1", String(port)]);
    const code = await python.exited();
    expect({ lines: python.lines, stderr: python.stderr }).toEqual({
      lines: [
        "a discovered True",
        "b discovered True",
        "without leave, silence True",
        "with another's or an old one, silence True",
        "a punches True",
        "b punches True",
      ],
      stderr: "",
    });
    expect(code).toBe(0);
    const metrics = await (await fetch(new URL("metrics", http))).text();
    const samples = metrics
      .split("\n")
      .filter((line) => /^beacon_punch_grants_total\{.*[1-9]$/.test(line));
    expect(samples.filter((line) => line.includes('worker="grants"')).sort()).toEqual([
      'beacon_punch_grants_total{worker="grants",outcome="expired"} 1',
      'beacon_punch_grants_total{worker="grants",outcome="forged"} 1',
      'beacon_punch_grants_total{worker="grants",outcome="ok"} 1',
    ]);
    expect(metrics).toContain('beacon_punch_total{worker="grants",outcome="sent"} 1');
  });
});
