/** Where the keys come from that nodes behind the WebSocket bridge prove themselves with. */
import { afterEach, describe, expect, spyOn, test } from "bun:test";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { type Config, ConfigError, type KeyFunction } from "../../src/beacon.ts";
import { temporaryFolder, temporaryPaths } from "../support/folder.ts";
import { recordedLog } from "../support/log.ts";
import { base64, NodeIdentity } from "../support/pilot-node.ts";
import {
  close,
  on,
  refuse,
  reset,
  ScriptedRegistry,
  say,
  silent,
} from "../support/scripted-registry.ts";
import { type Closing, WebSocketClient } from "../support/websocket.ts";
import { BridgeBeacon, BridgedNode, KnownNodes, textOf } from "./support/bridged.ts";
import { type BeaconProcess, Mesh } from "./support/mesh.ts";
import { type LogLine, Programs } from "./support/program.ts";
import { inTime, untilEqual } from "./support/wait.ts";

const AUTH_FAILED = { code: 1008, reason: "auth failed" };
const TRY_AGAIN = { code: 1013, reason: "try again later" };

const folder = temporaryFolder();
const newPath = temporaryPaths(folder);

let ids = 1000;
const newId = () => ++ids;

let mesh = new Mesh();
const programs = new Programs();
const beacons: BridgeBeacon[] = [];
const registries: ScriptedRegistry[] = [];
afterEach(async () => {
  await mesh.close();
  mesh = new Mesh();
  await programs.kill();
  for (const beacon of beacons.splice(0)) await beacon.close();
  for (const registry of registries.splice(0)) await registry.close();
});

async function start(...args: Parameters<typeof BridgeBeacon.start>): Promise<BridgeBeacon> {
  const beacon = await BridgeBeacon.start(...args);
  beacons.push(beacon);
  return beacon;
}

async function openRegistry(port = 0): Promise<ScriptedRegistry> {
  const registry = await ScriptedRegistry.listen(port);
  registries.push(registry);
  return registry;
}

/** Connects as a node, and relays a packet to itself. */
async function expectLetIn(url: URL | string, identity: NodeIdentity): Promise<BridgedNode> {
  const node = await BridgedNode.connect(url, identity);
  await expectReachesItself(node);
  return node;
}

async function expectReachesItself(node: BridgedNode): Promise<void> {
  node.relay(node.nodeId, Uint8Array.of(7));
  expect(await node.message()).toEqual({
    type: "deliver",
    senderId: node.nodeId,
    payload: Buffer.of(7),
  });
}

/** How a node's connection ends that is not let in. */
async function refusalOf(url: URL | string, identity: NodeIdentity): Promise<Closing> {
  const connection = await WebSocketClient.open(url);
  connection.text(identity.reply(await textOf(connection)));
  return connection.closed;
}

/** A log that a test reads. */
function logLines() {
  const { log, lines } = recordedLog();
  return {
    log,
    warnings: () => lines.filter(({ level }) => level === "warn").map(({ msg }) => msg),
  };
}

const complaint = (why: string) => `nodes cannot be let in, as their keys cannot be had: ${why}`;
/** What is said of keys among the warnings, of which there may be others. */
const complaints = (warnings: readonly string[]) =>
  warnings.filter((text) => text.startsWith(complaint("")));

describe("a file", () => {
  const known = new KnownNodes();

  async function startWith(path: string): Promise<BeaconProcess & { readonly wss: string }> {
    const beacon = await mesh.beacon("127.0.0.1:0", ["--wss=127.0.0.1:0", `--wss-keys=${path}`]);
    return beacon as BeaconProcess & { readonly wss: string };
  }

  /** Has the beacon read its files again. @returns what it says of that */
  async function reload({ program }: BeaconProcess): Promise<LogLine> {
    const from = program.lines.length;
    program.signal("SIGHUP");
    return program.logged(/^configuration (not )?reloaded/, from);
  }

  test("read again on SIGHUP: nodes come and go; who is connected stays", async () => {
    const path = newPath();
    const [first, second] = [known.identity(newId()), known.identity(newId())];
    writeFileSync(path, known.file([first.nodeId]));
    const beacon = await startWith(path);
    const node = await expectLetIn(beacon.wss, first);
    expect(await refusalOf(beacon.wss, second)).toEqual(AUTH_FAILED);

    writeFileSync(path, known.file([first.nodeId, second.nodeId]));
    expect(await refusalOf(beacon.wss, second)).toEqual(AUTH_FAILED); // not before it is told to
    expect(await reload(beacon)).toMatchObject({ level: "info", msg: "configuration reloaded" });
    await expectLetIn(beacon.wss, second);

    writeFileSync(path, known.file([second.nodeId]));
    expect(await reload(beacon)).toMatchObject({ level: "info" });
    expect(await refusalOf(beacon.wss, first)).toEqual(AUTH_FAILED);
    await expectReachesItself(node);
    await expectLetIn(beacon.wss, second);

    const anotherKey = NodeIdentity.create(second.nodeId);
    writeFileSync(path, JSON.stringify({ [second.nodeId]: base64(anotherKey.publicKey) }));
    await reload(beacon);
    expect(await refusalOf(beacon.wss, second)).toEqual(AUTH_FAILED);
    await expectLetIn(beacon.wss, anotherKey);
    expect(beacon.warnings()).toEqual([]);
  });

  function replaceByFolder(path: string): void {
    rmSync(path, { force: true });
    mkdirSync(path);
  }

  const broken: readonly [what: string, write: (path: string) => unknown, reason: string][] = [
    ["that is not JSON", (path) => writeFileSync(path, '{"7":'), "the key file is not JSON"],
    ["that is an array", (path) => writeFileSync(path, "[]"), "must hold one JSON object"],
    [
      "with a key of another length",
      (path) => writeFileSync(path, '{"7":"c2VjcmV0"}'),
      'the key of node "7"',
    ],
    [
      "with a node that is none",
      (path) => writeFileSync(path, '{"x":"c2VjcmV0"}'),
      "is no node id",
    ],
    ["that is missing", (path) => rmSync(path), "cannot be read (ENOENT)"],
    ["that is a folder", (path) => replaceByFolder(path), "cannot be read (EISDIR)"],
  ];

  test("one that is broken is named in an error, and the keys before stay", async () => {
    const path = newPath();
    const [inside, outside] = [known.identity(newId()), known.identity(newId())];
    writeFileSync(path, known.file([inside.nodeId]));
    const beacon = await startWith(path);
    for (const [, write, reason] of broken) {
      write(path);
      const { level, msg } = await reload(beacon);
      expect(level).toBe("error");
      expect(msg).toStartWith("configuration not reloaded, the one in force stays: ");
      expect(msg).toContain(path);
      expect(msg).toContain(reason);
      await expectLetIn(beacon.wss, inside);
      expect(await refusalOf(beacon.wss, outside)).toEqual(AUTH_FAILED);
    }
    rmSync(path, { recursive: true });
    writeFileSync(path, known.file([outside.nodeId]));
    expect(await reload(beacon)).toMatchObject({ level: "info" });
    await expectLetIn(beacon.wss, outside);
    expect(beacon.program.output()).not.toContain("c2VjcmV0");
  });

  test.each(broken)("one %s ends the beacon with code 2 at its start", async (_, write, reason) => {
    const path = newPath();
    writeFileSync(path, "");
    write(path);
    const program = programs.beacon([
      "--addr=127.0.0.1:0",
      "--http=off",
      "--wss=127.0.0.1:0",
      `--wss-keys=${path}`,
    ]);
    expect(await program.exited()).toBe(2);
    expect(program.output()).toContain(path);
    expect(program.output()).toContain(reason);
    expect(program.output()).not.toContain("c2VjcmV0");
  });
});

test("without anything that knows the keys, the beacon ends with code 2 and says so", async () => {
  const program = programs.beacon(["--addr=127.0.0.1:0", "--http=off", "--wss=127.0.0.1:0"]);
  expect(await program.exited()).toBe(2);
  expect(program.stderr).toBe(
    "beacon: --wss needs --wss-keys or --registry: something that knows the nodes' keys\n",
  );
  await expect(start({}, { keyOf: null })).rejects.toThrow(ConfigError);
});

describe("a registry", () => {
  const of = (registry: ScriptedRegistry): Partial<Config> => ({
    registry: `127.0.0.1:${registry.port}`,
    registryIntervalMs: 3_600_000,
    beaconId: 5,
  });
  const lookups = (registry: ScriptedRegistry) =>
    registry.requests.flatMap(({ type, node_id }) => (type === "lookup" ? [node_id] : []));
  const register = (registry: ScriptedRegistry, { nodeId, publicKey }: NodeIdentity) =>
    registry.keys.set(nodeId, base64(publicKey));

  test("is asked for nodes that connect, and for none twice in a while", async () => {
    const registry = await openRegistry();
    const nodes = [NodeIdentity.create(newId()), NodeIdentity.create(0xffff_ffff)] as const;
    for (const node of nodes) register(registry, node);
    const beacon = await start(of(registry), { keyOf: null });
    for (let round = 0; round < 3; round++)
      for (const node of nodes) await expectLetIn(beacon.url, node);
    expect(lookups(registry)).toEqual(nodes.map(({ nodeId }) => nodeId));
    expect(beacon.stats.auth).toMatchObject({ ok: 6, unknown_node: 0, key_source: 0 });
  });

  test("that does not know a node, or knows another key, or none that is one: the node is refused", async () => {
    const registry = await openRegistry();
    const [unknown, other, short, good] = [1, 2, 3, 4].map(() => NodeIdentity.create(newId()));
    register(registry, NodeIdentity.create(other!.nodeId));
    registry.keys.set(short!.nodeId, base64(short!.publicKey.subarray(1)));
    register(registry, good!);
    const beacon = await start(of(registry), { keyOf: null });
    for (const node of [unknown, other, short])
      expect(await refusalOf(beacon.url, node!)).toEqual(AUTH_FAILED);
    expect(beacon.stats.auth).toMatchObject({
      unknown_node: 1,
      signature: 1,
      stored_key: 1,
      ok: 0,
    });
    await expectLetIn(beacon.url, good!);
  });

  test.each([
    ["closes the connection", on("lookup", close)],
    ["resets it", on("lookup", reset)],
    ["answers with something else", on("lookup", say({ type: "beacon_list_ok", beacons: [] }))],
    [
      "has a key that is no base64",
      on("lookup", ({ node_id }, connection) =>
        connection.answer({ type: "lookup_ok", node_id, public_key: "?" }),
      ),
    ],
  ])("that %s: later, with one warning a minute", async (_, behaviour) => {
    const registry = await openRegistry();
    const identity = NodeIdentity.create(newId());
    register(registry, identity);
    registry.behaviour = behaviour;
    const { log, warnings } = logLines();
    const beacon = await start(of(registry), { keyOf: null, log });
    for (let i = 0; i < 3; i++) expect(await refusalOf(beacon.url, identity)).toEqual(TRY_AGAIN);
    expect(beacon.stats.auth).toMatchObject({ key_source: 3, ok: 0, unknown_node: 0 });
    const [warning, ...more] = complaints(warnings());
    expect(warning).toContain(`127.0.0.1:${registry.port}`);
    expect(more).toEqual([]);

    const now = performance.now.bind(performance);
    const clock = spyOn(performance, "now").mockImplementation(() => now() + 60_000);
    try {
      for (let i = 0; i < 3; i++) expect(await refusalOf(beacon.url, identity)).toEqual(TRY_AGAIN);
      expect(complaints(warnings())).toEqual([warning!, warning!]);
    } finally {
      clock.mockRestore();
    }
  });

  test("that is gone, and back: so are its nodes", async () => {
    const registry = await openRegistry();
    const [early, late] = [NodeIdentity.create(newId()), NodeIdentity.create(newId())];
    register(registry, early);
    const beacon = await start(of(registry), { keyOf: null });
    const node = await expectLetIn(beacon.url, early);
    await registry.close();
    expect(await refusalOf(beacon.url, late)).toEqual(TRY_AGAIN);
    await expectReachesItself(node);
    register(await openRegistry(registry.port), late);
    await expectLetIn(beacon.url, late);
  });

  test("that refuses to answer does not know the node", async () => {
    const registry = await openRegistry();
    registry.behaviour = on("lookup", refuse("node 7 not found"));
    const { url } = await start(of(registry), { keyOf: null });
    expect(await refusalOf(url, NodeIdentity.create(7))).toEqual(AUTH_FAILED);
  });

  /**
   * A beacon, a node that is connected, and how another one's connection ends whose key the
   * registry does not tell.
   */
  async function waiting() {
    const registry = await openRegistry();
    const [known, waits] = [NodeIdentity.create(newId()), NodeIdentity.create(newId())];
    register(registry, known);
    const { log, warnings } = logLines();
    const beacon = await start(of(registry), { keyOf: null, log });
    const node = await expectLetIn(beacon.url, known);
    registry.behaviour = on("lookup", silent);
    const refusal = refusalOf(beacon.url, waits);
    await untilEqual("questions", () => lookups(registry).at(-1), waits.nodeId);
    return { beacon, node, known, refusal, warnings };
  }

  test("that does not answer holds up nobody else", async () => {
    const { beacon, node, known, refusal } = await waiting();
    await expectReachesItself(node);
    await expectLetIn(beacon.url, known);
    await inTime("the beacon closes", beacon.beacon.close());
    expect(await refusal).toEqual({ code: 1001, reason: "going away" });
  });

  test("stays the same source at a reload: what it told is known, and who waits for its answer gets in", async () => {
    const registry = await openRegistry();
    const [known, waits] = [NodeIdentity.create(newId()), NodeIdentity.create(newId())];
    register(registry, known);
    register(registry, waits);
    const { beacon, url, stats } = await start(of(registry), { keyOf: null });
    await expectLetIn(url, known);
    const { promise: gate, resolve: answer } = Promise.withResolvers<void>();
    registry.behaviour = on("lookup", ({ node_id }, connection) => {
      const key = registry.keys.get(Number(node_id));
      void gate.then(() => connection.answer({ type: "lookup_ok", node_id, public_key: key }));
    });
    const node = BridgedNode.connect(url, waits);
    await untilEqual("questions", () => lookups(registry).at(-1), waits.nodeId);
    beacon.reconfigure({ ...beacon.config, wssMaxPeers: 100 });
    answer();
    await expectReachesItself(await node);
    await expectLetIn(url, known);
    expect(lookups(registry)).toEqual([known.nodeId, waits.nodeId]);
    expect(stats.auth["key_source"]).toBe(0);
  });

  test("that is another one after a reload is asked from then on; who waits for the first has to come again", async () => {
    const { beacon, known, refusal } = await waiting();
    const next = await openRegistry();
    register(next, known);
    beacon.beacon.reconfigure({ ...beacon.beacon.config, registry: `127.0.0.1:${next.port}` });
    expect(await refusal).toEqual(TRY_AGAIN);
    await expectLetIn(beacon.url, known);
    expect(lookups(next)).toEqual([known.nodeId]);
  });

  test("that does not answer: a beacon that closes meanwhile has nothing to warn of", async () => {
    const { beacon, refusal, warnings } = await waiting();
    await beacon.beacon.close();
    await refusal;
    expect(complaints(warnings())).toEqual([]);
  });
});

describe("a function of the library's user", () => {
  const identity = NodeIdentity.create(newId());
  const { nodeId, publicKey } = identity;

  test.each<[string, KeyFunction]>([
    ["a key", (asked) => (asked === nodeId ? publicKey : undefined)],
    ["a Buffer", () => Buffer.from(publicKey)],
    ["a promise of a key", async () => publicKey],
  ])("that returns %s", async (_, keyOf) => {
    const { url } = await start({}, { keyOf });
    await expectLetIn(url, identity);
    expect(await refusalOf(url, NodeIdentity.create(newId()))).toEqual(AUTH_FAILED);
  });

  test("that is slow: a reload meanwhile ends no handshake", async () => {
    const { promise: gate, resolve: answer } = Promise.withResolvers<void>();
    const { promise: asked, resolve: ask } = Promise.withResolvers<void>();
    const keyOf = async () => {
      ask();
      await gate;
      return publicKey;
    };
    const { beacon, url } = await start({}, { keyOf });
    const node = BridgedNode.connect(url, identity);
    await asked;
    beacon.reconfigure({ ...beacon.config, wssMaxPeers: 100 });
    answer();
    await expectReachesItself(await node);
  });

  test.each<[string, KeyFunction]>([
    ["undefined", () => undefined],
    ["null", async () => null],
    ["too short a key", () => publicKey.subarray(1)],
    ["another's key", () => NodeIdentity.create(1).publicKey],
  ])("that returns %s: refused", async (_, keyOf) => {
    const { url } = await start({}, { keyOf });
    expect(await refusalOf(url, identity)).toEqual(AUTH_FAILED);
  });

  test.each<[string, KeyFunction, string]>([
    [
      "throws",
      () => {
        throw new Error("no database");
      },
      "no database",
    ],
    ["rejects", () => Promise.reject(new Error("no database")), "no database"],
    ["returns text", () => "key" as unknown as Uint8Array, "a value of type string"],
  ])("that %s: later, with a warning", async (_, keyOf, reason) => {
    const { log, warnings } = logLines();
    const { url } = await start({}, { keyOf, log });
    for (let i = 0; i < 3; i++) expect(await refusalOf(url, identity)).toEqual(TRY_AGAIN);
    expect(complaints(warnings())).toEqual([expect.stringContaining(reason)]);
  });

  test("is asked each time, so that a key may change", async () => {
    let current = identity;
    const { url } = await start({}, { keyOf: () => current.publicKey });
    await expectLetIn(url, identity);
    current = NodeIdentity.create(nodeId);
    expect(await refusalOf(url, identity)).toEqual(AUTH_FAILED);
    await expectLetIn(url, current);
  });
});

test("the function outranks the file, and the file the registry, which is not even asked", async () => {
  const nodeId = newId();
  const [ofFunction, ofFile, ofRegistry] = [1, 2, 3].map(() => NodeIdentity.create(nodeId)) as [
    NodeIdentity,
    NodeIdentity,
    NodeIdentity,
  ];
  const path = newPath();
  writeFileSync(path, JSON.stringify({ [nodeId]: base64(ofFile.publicKey) }));
  const registry = await openRegistry();
  registry.keys.set(nodeId, base64(ofRegistry.publicKey));
  const options = { registry: `127.0.0.1:${registry.port}`, beaconId: 5, wssKeys: path };
  const expectOnly = async ({ url }: BridgeBeacon, wanted: NodeIdentity) => {
    for (const identity of [ofFunction, ofFile, ofRegistry]) {
      if (identity === wanted) await expectLetIn(url, identity);
      else expect(await refusalOf(url, identity)).toEqual(AUTH_FAILED);
    }
  };
  await expectOnly(await start(options, { keyOf: () => ofFunction.publicKey }), ofFunction);
  const beacon = await start(options, { keyOf: null });
  await expectOnly(beacon, ofFile);
  expect(registry.requests.filter(({ type }) => type === "lookup")).toEqual([]);

  // And so when it changes while the beacon runs.
  const { config } = beacon.beacon;
  beacon.beacon.reconfigure({ ...config, wssKeys: "off" });
  await expectOnly(beacon, ofRegistry);
  beacon.beacon.reconfigure(config);
  await expectOnly(beacon, ofFile);
  await untilEqual("connections to the registry", () => registry.openConnections, 0);
  expect(() => beacon.beacon.reconfigure({ ...config, wssKeys: "off", registry: "off" })).toThrow(
    ConfigError,
  );
  expect(() => beacon.beacon.reconfigure({ ...config, wssKeys: newPath() })).toThrow(ConfigError);
  await expectOnly(beacon, ofFile);
});
