/**
 * Beacons that find each other through a registry, and what they make of one that fails, lies or is
 * gone.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import {
  type Behaviour,
  close,
  correct,
  cutAfter,
  drip,
  frame,
  on,
  refuse,
  requireToken,
  reset,
  ScriptedRegistry,
  say,
  sayBytes,
  silent,
} from "../support/scripted-registry.ts";
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
import { Programs } from "./support/program.ts";
import { TEST_TIMEOUT_MS, until, untilEqual } from "./support/wait.ts";
import { sync } from "./support/wire.ts";

const TOKEN = "s3cret-t0ken";
const FRAME_BYTES_MAX = 1 << 20;
/** What a beacon allows a round. */
const ROUND_MS = 10_000;

const folder = temporaryFolder();

/** Flags of a beacon that asks a registry, so often that no test waits for it long. */
const flagsFor = (registry: { readonly port: number }, beaconId: number) => [
  `--registry=127.0.0.1:${registry.port}`,
  "--registry-interval=100ms",
  `--beacon-id=${beaconId}`,
];

const peers = async (beacon: BeaconProcess) => Object.keys(await beacon.routes()).sort();
const untilPeers = (beacon: BeaconProcess, names: readonly string[]) =>
  untilEqual(`peers of ${beacon.name}`, () => peers(beacon), [...names].sort());

/** Rounds so far, by outcome. */
const rounds = async (beacon: BeaconProcess) => (await beacon.stats()).mesh.registryRounds;
const roundsOf = async (beacon: BeaconProcess, outcome: string) =>
  (await rounds(beacon))[outcome] ?? 0;

/** Waits until a round that has yet to begin went well. */
async function goodRound(beacon: BeaconProcess): Promise<void> {
  const before = await roundsOf(beacon, "ok");
  await until("another round goes well", async () => (await roundsOf(beacon, "ok")) > before + 1);
}

interface Node {
  readonly client: Client;
  readonly id: number;
}

let ids = 1000;
async function nodeOf(mesh: Mesh, beacon: BeaconProcess): Promise<Node> {
  const client = await mesh.client(beacon);
  const id = ++ids;
  await client.discover(id);
  return { client, id };
}

describe("with beacons of its own each", () => {
  let mesh = new Mesh();
  let registry: ScriptedRegistry;
  const usage = new Programs();

  const registries: ScriptedRegistry[] = [];
  async function openRegistry(): Promise<ScriptedRegistry> {
    const opened = await ScriptedRegistry.listen();
    registries.push(opened);
    return opened;
  }
  afterEach(async () => {
    await mesh.close();
    mesh = new Mesh();
    for (const opened of registries.splice(0)) await opened.close();
    await usage.kill();
  });

  /** What a beacon registered with last. */
  const registration = (beaconId: number) =>
    until("it registers", () =>
      registry.requests.findLast(
        ({ type, beacon_id }) => type === "beacon_register" && beacon_id === beaconId,
      ),
    );

  describe("finding each other", () => {
    test("beacons that know only the registry relay for each other, also with one that comes later", async () => {
      registry = await openRegistry();
      const beacon = (id: number) => mesh.beacon(`127.0.0.1:${freePort()}`, flagsFor(registry, id));
      const [a, b] = await Promise.all([beacon(1), beacon(2)]);
      await untilPeers(a, [b.name]);
      await untilPeers(b, [a.name]);
      const [nodeA, nodeB] = [await nodeOf(mesh, a), await nodeOf(mesh, b)];
      await announced(a, b);
      await announced(b, a);
      await expectReached(nodeA.client, nodeB.client, nodeB.id);
      await expectReached(nodeB.client, nodeA.client, nodeA.id);

      const c = await beacon(3);
      const nodeC = await nodeOf(mesh, c);
      await untilPeers(a, [b.name, c.name]);
      await untilPeers(b, [a.name, c.name]);
      await untilPeers(c, [a.name, b.name]);
      for (const [from, to] of [
        [c, a],
        [c, b],
        [a, c],
        [b, c],
      ] as const)
        await announced(from, to);
      await expectReached(nodeA.client, nodeC.client, nodeC.id);
      await expectReached(nodeC.client, nodeB.client, nodeB.id);
      const longAgo = (Date.now() - TEST_TIMEOUT_MS) / 1000;
      for (const one of [a, b, c]) {
        expect(await rounds(one)).toEqual({ ok: expect.any(Number) });
        expect(await one.metric('beacon_registry_rounds_total{outcome="ok"}')).toBeGreaterThan(0);
        expect(await one.metric("beacon_registry_last_success_timestamp_seconds")).toBeGreaterThan(
          longAgo,
        );
        // A new beacon may gossip before the others read the list; until then it is unlisted.
        const early = /^gossip from .* rejected: not a known peer/;
        expect(one.warnings().filter((text) => !early.test(text))).toEqual([]);
      }
    });

    test("one that is not listed any more is no peer any more, and its routes are withdrawn", async () => {
      registry = await openRegistry();
      const at = freePort();
      // Its gossip goes on all the while; that is not what makes it a peer.
      const c = await mesh.beacon(`127.0.0.1:${freePort()}`, [`--peers=127.0.0.1:${at}`]);
      registry.registered.set(3, c.name);
      const a = await mesh.beacon(`127.0.0.1:${at}`, [
        ...flagsFor(registry, 1),
        "--gossip-strict=on",
      ]);
      const [sender, node] = [await mesh.client(a), await nodeOf(mesh, c)];
      await untilPeers(a, [c.name]);
      await announced(c, a);
      await expectReached(sender, node.client, node.id);
      registry.registered.delete(3);
      await untilPeers(a, []);
      await expectNotFound(sender, a, node.id);
      await until(
        "what it goes on to say is turned away",
        async () => (await a.rejected())["unknown_peer"],
      );
      registry.registered.set(3, c.name);
      await untilPeers(a, [c.name]);
      await announced(c, a);
      await expectReached(sender, node.client, node.id);
    });

    test("peers of the configuration and of the registry stand beside each other", async () => {
      registry = await openRegistry();
      const port = freePort();
      const [configured, listed, both] = await Promise.all(
        Array.from({ length: 3 }, () => mesh.client({ at: { address: "127.0.0.1", port } })),
      );
      const names = {
        configured: nameOf(configured!),
        listed: nameOf(listed!),
        both: nameOf(both!),
      };
      registry.registered.set(8, names.listed).set(9, names.both);
      const a = await mesh.beacon(`127.0.0.1:${port}`, [
        ...flagsFor(registry, 1),
        `--peers=${names.configured},${names.both}`,
        "--peer-timeout=1h",
      ]);
      await untilPeers(a, Object.values(names));
      await Promise.all(
        [configured!, listed!, both!].map((player, i) => player.send(sync(20 + i, [500 + i]))),
      );
      const reached = { [names.configured]: 1, [names.listed]: 1, [names.both]: 1 };
      await untilEqual("routes", () => a.routes(), reached);
      registry.registered.clear();
      await untilPeers(a, [names.configured, names.both]);
      expect(await a.routes()).toEqual({ [names.configured]: 1, [names.both]: 1 });
    });

    test("a beacon is never its own peer: not by its id, not by its address, not by its name", async () => {
      registry = await openRegistry();
      const [portA, portB] = [freePort(), freePort()];
      const at = { address: "127.0.0.1", port: portA };
      const [staleA, staleB] = [await mesh.client({ at }), await mesh.client({ at })];
      // Its own id at an old address; its own address, in all of its forms, under other ids.
      registry.behaviour = on("beacon_list", (request, connection) => {
        registry.registered.set(1, nameOf(staleA));
        registry.registered.set(2, nameOf(staleB));
        const { beacons } = connection.registry.correctAnswer(request) as { beacons: object[] };
        const own = [portA, portB].flatMap((port) => [
          { id: 90, addr: `127.0.0.1:${port}` },
          { id: 91, addr: `localhost:${port}` },
          { id: 92, addr: `[::ffff:127.0.0.1]:${port}` },
        ]);
        connection.answer({ type: "beacon_list_ok", beacons: [...beacons, ...own] });
      });
      const [a, wildcard] = await Promise.all([
        mesh.beacon(`127.0.0.1:${portA}`, [
          ...flagsFor(registry, 1),
          `--advertise-addr=localhost:${portA}`,
        ]),
        mesh.beacon(`0.0.0.0:${portB}`, flagsFor(registry, 2)),
      ]);
      for (const beacon of [a, wildcard]) await goodRound(beacon);
      // The other one's stale address under the other one's id is a peer like any other.
      await untilPeers(a, [nameOf(staleB), wildcard.name]);
      await untilPeers(wildcard, [nameOf(staleA), a.name]);
      const [nodeA, nodeB] = [await nodeOf(mesh, a), await nodeOf(mesh, wildcard)];
      await announced(a, wildcard);
      await announced(wildcard, a);
      await expectReached(nodeA.client, nodeB.client, nodeB.id);
      for (const beacon of [a, wildcard]) {
        await goodRound(beacon);
        expect((await beacon.rejected())["own_id"]).toBeUndefined();
      }
    });

    test("nor by an address that is its own only to others", async () => {
      registry = await openRegistry();
      const advertised = "203.0.113.5:9001";
      registry.registered.set(90, advertised).set(91, "127.0.0.1:9");
      const a = await mesh.beacon("127.0.0.1:0", [
        ...flagsFor(registry, 1),
        ...[`--advertise-addr=${advertised}`, `--peers=${advertised}`],
      ]);
      await untilPeers(a, ["127.0.0.1:9"]);
      await goodRound(a);
      expect(await peers(a)).toEqual(["127.0.0.1:9"]);
    });
  });

  describe("registering", () => {
    test.each([
      { what: "the address that it listens on", addr: (port: number) => `127.0.0.1:${port}` },
      {
        what: "the address of the connection, where it listens on all",
        addr: (port: number) => `:${port}`,
      },
      { what: "and on all of IPv4", addr: (port: number) => `0.0.0.0:${port}` },
      { what: "an IPv6 address", addr: (port: number) => `[::1]:${port}`, expected: "[::1]" },
    ])("with $what", async ({ addr, expected = "127.0.0.1" }) => {
      registry = await openRegistry();
      const port = freePort();
      await mesh.beacon(addr(port), flagsFor(registry, 5));
      expect(await registration(5)).toEqual({
        type: "beacon_register",
        beacon_id: 5,
        addr: `${expected}:${port}`,
      });
    });

    test("with the port that it was given, and again in every round", async () => {
      registry = await openRegistry();
      const a = await mesh.beacon("127.0.0.1:0", flagsFor(registry, 0xffff_ffff));
      expect((await registration(0xffff_ffff))["addr"]).toBe(a.name);
      await until("it registers again", () => registry.requests.length >= 6);
      expect(registry.requests.map(({ type }) => type).slice(0, 4)).toEqual([
        "beacon_register",
        "beacon_list",
        "beacon_register",
        "beacon_list",
      ]);
      expect(registry.connections).toBeGreaterThanOrEqual(3);
    });

    test("with the address it is told to advertise, which the others look up", async () => {
      registry = await openRegistry();
      const [portA, portB] = [freePort(), freePort()];
      const [a, b] = await Promise.all([
        mesh.beacon(`127.0.0.1:${portA}`, [
          ...flagsFor(registry, 1),
          `--advertise-addr=localhost:${portA}`,
        ]),
        mesh.beacon(`127.0.0.1:${portB}`, [...flagsFor(registry, 2), "--advertise-addr=auto"]),
      ]);
      expect((await registration(1))["addr"]).toBe(`localhost:${portA}`);
      expect((await registration(2))["addr"]).toBe(b.name);
      await untilPeers(a, [b.name]);
      await untilPeers(b, [a.name]);
      const [nodeA, nodeB] = [await nodeOf(mesh, a), await nodeOf(mesh, b)];
      await announced(a, b);
      await announced(b, a);
      await expectReached(nodeA.client, nodeB.client, nodeB.id);
      await expectReached(nodeB.client, nodeA.client, nodeA.id);
    });

    test("with the token from the flag, the environment or a file; without one, with none", async () => {
      registry = await openRegistry();
      const path = join(folder, "token");
      writeFileSync(path, `${TOKEN}-3\n`);
      const sources: [string[], Record<string, string>][] = [
        [[`--registry-admin-token=${TOKEN}-1`], {}],
        [[], { BEACON_REGISTRY_ADMIN_TOKEN: `${TOKEN}-2` }],
        [[`--registry-admin-token-file=${path}`], {}],
        [[], {}],
      ];
      const beacons = await Promise.all(
        sources.map(([flags, env], i) =>
          mesh.beacon("127.0.0.1:0", [...flagsFor(registry, 1 + i), ...flags], { env }),
        ),
      );
      for (const [i, token] of [`${TOKEN}-1`, `${TOKEN}-2`, `${TOKEN}-3`, undefined].entries())
        expect((await registration(1 + i))["admin_token"]).toBe(token);

      // Whoever rotates the token writes the file and asks the beacon to read it again.
      writeFileSync(path, `${TOKEN}-4\n`);
      beacons[2]!.program.signal("SIGHUP");
      await until(
        "the new token is used",
        async () => (await registration(3))["admin_token"] === `${TOKEN}-4`,
      );
      registry.behaviour = requireToken(`${TOKEN}-4`);
      await goodRound(beacons[2]!);
      await until(
        "the others are refused",
        async () => (await roundsOf(beacons[0]!, "refused")) > 0,
      );
      for (const { program } of beacons) expect(program.output()).not.toContain(TOKEN);
    });

    test("not at all without an id of its own: exit code 2, and why", async () => {
      registry = await openRegistry();
      for (const flags of [[], ["--beacon-id=0"]]) {
        const program = usage.beacon([`--registry=127.0.0.1:${registry.port}`, ...flags]);
        expect(await program.exited()).toBe(2);
        expect(program.lines).toEqual([]);
        expect(program.stderr).toMatch(/^beacon: .*--beacon-id.*\n$/);
      }
      expect(registry.connections).toBe(0);
    });

    test("no longer, once a reload takes the registry away: whom it listed is no peer any more", async () => {
      registry = await openRegistry();
      registry.registered.set(8, "127.0.0.1:9");
      const path = join(folder, "beacon.json");
      writeFileSync(path, JSON.stringify({ registry: `127.0.0.1:${registry.port}` }));
      const [, ...flags] = flagsFor(registry, 1);
      const a = await mesh.beacon("127.0.0.1:0", [
        ...flags,
        `--config=${path}`,
        "--peers=127.0.0.1:8",
      ]);
      await untilPeers(a, ["127.0.0.1:8", "127.0.0.1:9"]);
      writeFileSync(path, "{}");
      a.program.signal("SIGHUP");
      await untilPeers(a, ["127.0.0.1:8"]);
      const { ok } = await rounds(a);
      expect(await rounds(a)).toEqual({ ok: ok! });
    });
  });

  describe("a registry that takes its time", () => {
    test("holds up neither the start of a beacon nor its end", async () => {
      registry = await openRegistry();
      registry.behaviour = silent;
      const a = await mesh.beacon("127.0.0.1:0", flagsFor(registry, 1));
      const { client, id } = await nodeOf(mesh, a);
      await expectReached(client, client, id);
      await registration(1);
      a.program.signal("SIGTERM");
      expect(await a.program.exited()).toBe(0);
      expect(a.warnings()).toEqual([]);
    });

    test("is given up after a while; relaying goes on, and later rounds go well again", async () => {
      const slow: [string, Behaviour][] = [
        ["beacon_register", silent],
        ["beacon_register", drip(1000)],
        ["beacon_list", silent],
      ];
      const places = slow.map(() => `127.0.0.1:${freePort()}`);
      const b = await mesh.beacon(`127.0.0.1:${freePort()}`, [`--peers=${places}`]);
      const node = await nodeOf(mesh, b);
      // Side by side, as each takes as long as a round may.
      await Promise.all(
        slow.map(async ([type, behaviour], i) => {
          const own = await openRegistry();
          own.registered.set(50, b.name);
          const a = await mesh.beacon(places[i]!, flagsFor(own, 1));
          const sender = await mesh.client(a);
          await untilPeers(a, [b.name]);
          await announced(b, a);
          own.behaviour = on(type, (request, connection) => {
            own.behaviour = correct; // in the rounds that follow
            behaviour(request, connection);
          });
          await until("the round is given up", async () => {
            await sender.relay(1, node.id, new Uint8Array(1));
            // the one before may be on its way out
            expect(own.openConnections).toBeLessThanOrEqual(2);
            return (await roundsOf(a, "timeout")) > 0;
          });
          expect(await a.routes()).toEqual({ [b.name]: 1 });
          await goodRound(a);
          expect((await a.relays()).notFound).toBe(0);
          expect(await rounds(a)).toEqual({ ok: expect.any(Number), timeout: 1 });
          const warnings = a.warnings().filter((text) => text.startsWith("registry "));
          expect(warnings).toHaveLength(1);
          expect(warnings[0]).toContain(` to ${type} in ${ROUND_MS} ms: is the registry well?`);
          expect(warnings[0]).toEndWith("; peers stay as they are");
        }),
      );
    });
  });
});

describe("a registry that fails", () => {
  const mesh = new Mesh();
  let registry: ScriptedRegistry;
  let beacons: readonly BeaconProcess[] = [];
  let nodes: readonly Node[] = [];

  beforeAll(async () => {
    registry = await ScriptedRegistry.listen();
    const start = (id: number) =>
      mesh.beacon(`127.0.0.1:${freePort()}`, [
        ...flagsFor(registry, id),
        `--registry-admin-token=${TOKEN}`,
      ]);
    const [a, b] = await Promise.all([start(1), start(2)]);
    beacons = [a, b];
    await Promise.all(beacons.map(expectPeers));
    nodes = await Promise.all(beacons.map((beacon) => nodeOf(mesh, beacon)));
    await announced(a, b);
    await announced(b, a);
  });
  afterEach(async () => {
    registry.behaviour = correct;
    registry.welcome = () => {};
    await Promise.all(beacons.map(goodRound));
  });
  afterAll(async () => {
    await mesh.close();
    await registry.close();
  });

  const other = (beacon: BeaconProcess) => beacons.find((one) => one !== beacon)!;
  const expectPeers = (beacon: BeaconProcess) => untilPeers(beacon, [other(beacon).name]);

  async function expectRelays(): Promise<void> {
    const [a, b] = nodes as [Node, Node];
    await expectReached(a.client, b.client, b.id);
    await expectReached(b.client, a.client, a.id);
  }

  /** Lines about rounds that failed; one for each. */
  const complaints = (beacon: BeaconProcess) =>
    beacon.warnings().filter((text) => /^registry (?!.* are skipped, )/.test(text));

  /** Makes rounds fail, and expects that nothing else does. */
  async function expectFailing(
    outcome: string,
    advice: RegExp,
    fail: () => unknown,
  ): Promise<void> {
    const before = await Promise.all(beacons.map(async (beacon) => roundsOf(beacon, outcome)));
    await fail();
    const roundsSince = (count: number) =>
      Promise.all(
        beacons.map((beacon, i) =>
          until(
            `${count} rounds end as ${outcome}`,
            async () => (await roundsOf(beacon, outcome)) >= before[i]! + count,
          ),
        ),
      );
    // The first round that fails may have been under way before, and fails elsewhere. The log is a
    // little late.
    await roundsSince(1);
    for (const beacon of beacons)
      await until("a line for each round that failed", async () => {
        const { ok: _, ...failed } = await rounds(beacon);
        return (
          complaints(beacon).length >= Object.values(failed).reduce((all, count) => all + count, 0)
        );
      });
    const linesBefore = beacons.map((beacon) => complaints(beacon).length);
    await roundsSince(3);
    for (const beacon of beacons) expect(await peers(beacon)).toEqual([other(beacon).name]);
    await expectRelays();
    for (const [i, beacon] of beacons.entries()) {
      const linesSince = () => complaints(beacon).slice(linesBefore[i]!);
      await until("two lines", () => linesSince().length >= 2);
      const lines = linesSince();
      for (const line of lines) {
        expect(line).toStartWith(`registry 127.0.0.1:${registry.port}: `);
        expect(line).toMatch(advice);
        expect(line).toEndWith("; peers stay as they are");
      }
    }
  }

  const WRONG_PROGRAM = /is this a registry\? check --registry/;
  const THEIR_LOG = /check the registry's log/;
  const HTTP = new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n");
  const listing = (beacons: unknown): Behaviour =>
    on("beacon_list", say({ type: "beacon_list_ok", beacons }));

  test.each([
    ["refuses to register", "refused", /"not today".*--registry-admin-token/, refuse("not today")],
    [
      "refuses and repeats the token",
      "refused",
      /--registry-admin-token/,
      refuse(`what is ${TOKEN}?`),
    ],
    ["refuses to list", "refused", THEIR_LOG, on("beacon_list", refuse("not today"))],
    ["closes in place of an answer", "closed", THEIR_LOG, close],
    ["resets in place of an answer", "closed", THEIR_LOG, reset],
    ["closes when it should list", "closed", THEIR_LOG, on("beacon_list", close)],
    ["closes within a length", "closed", THEIR_LOG, cutAfter(3)],
    ["closes within an answer", "closed", THEIR_LOG, cutAfter(20)],
    [
      "announces too large a message",
      "too_big",
      WRONG_PROGRAM,
      sayBytes(frame("", FRAME_BYTES_MAX + 1)),
    ],
    ["speaks HTTP", "too_big", WRONG_PROGRAM, sayBytes(HTTP)],
    ["answers with what is not JSON", "invalid", WRONG_PROGRAM, sayBytes(frame("{"))],
    ["answers with nothing", "invalid", WRONG_PROGRAM, sayBytes(frame(""))],
    [
      "answers with what is not UTF-8",
      "invalid",
      WRONG_PROGRAM,
      sayBytes(frame(new Uint8Array([0xff]))),
    ],
    ["answers with an array", "invalid", WRONG_PROGRAM, say([])],
    [
      "registers another",
      "invalid",
      WRONG_PROGRAM,
      say({ type: "beacon_register_ok", beacon_id: 99 }),
    ],
    ["lists no list", "invalid", WRONG_PROGRAM, listing({})],
    [
      "lists too many",
      "invalid",
      WRONG_PROGRAM,
      listing(Array(10_001).fill({ id: 8, addr: "127.0.0.1:9" })),
    ],
  ] as [string, string, RegExp, Behaviour][])("it %s", async (_, outcome, advice, behaviour) => {
    await expectFailing(outcome, advice, () => {
      registry.behaviour = behaviour;
    });
  });

  test("it closes every connection at once", async () => {
    await expectFailing("closed", THEIR_LOG, () => {
      registry.welcome = (connection) => connection.end();
      registry.behaviour = silent;
    });
  });

  test("it is not there, and comes back", async () => {
    await expectFailing("unreachable", /the registry runs.*--registry/, () => registry.close());
    // It has forgotten everybody: who registers first is alone on its list for a round.
    registry = await ScriptedRegistry.listen(registry.port);
    await Promise.all(beacons.map(goodRound));
    await Promise.all(beacons.map(expectPeers));
    for (const beacon of beacons) await announced(beacon, other(beacon));
    await expectRelays();
  });

  test("it lists addresses that are none: one of them is named, once, and the others are peers all the same", async () => {
    const strange = [
      "nonsense",
      "",
      "127.0.0.1",
      "127.0.0.1:0",
      "127.1:9001",
      "::1:9001",
      "two words:9001",
    ];
    const unknown = "nobody.invalid:9001";
    for (const [i, addr] of [...strange, unknown].entries()) registry.registered.set(60 + i, addr);
    const about = (beacon: BeaconProcess) =>
      beacon.warnings().filter((text) => text.startsWith("the registry lists"));
    for (const beacon of beacons) {
      await until("one is named", () => about(beacon).length > 0);
      await until("the unknown one, too", () =>
        beacon.warnings().some((text) => text.includes("nobody.invalid")),
      );
      await goodRound(beacon);
      await goodRound(beacon);
      expect(about(beacon)).toEqual([
        `the registry lists ${strange.length} beacons without an address, such as nonsense: must be host:port, such as beacon.example:9001, 192.0.2.1:9001 or [2001:db8::1]:9001`,
      ]);
      expect(await peers(beacon)).toEqual([other(beacon).name]);
    }
    await expectRelays();
    for (let i = 0; i <= strange.length; i++) registry.registered.delete(60 + i);
  });

  test("it lists entries that are no beacons: one of them is named, and the others stay peers", async () => {
    const bad = [null, "nonsense", { id: 61 }, { id: -1, addr: "127.0.0.1:9" }];
    registry.behaviour = on("beacon_list", (request, connection) => {
      const { beacons } = connection.registry.correctAnswer(request) as { beacons: object[] };
      connection.answer({ type: "beacon_list_ok", beacons: [...bad, ...beacons] });
    });
    for (const beacon of beacons) {
      await until("one is named", () =>
        beacon
          .warnings()
          .some((text) =>
            text.startsWith(
              `registry 127.0.0.1:${registry.port}: lists 6 beacons, of which 4 are skipped, such as "null": `,
            ),
          ),
      );
      await goodRound(beacon);
      await goodRound(beacon);
      expect(await peers(beacon)).toEqual([other(beacon).name]);
    }
    await expectRelays();
  });

  test("it lists ten thousand beacons: as many as there is room for are peers, one line says so, and relaying goes on", async () => {
    const LISTED = 9000;
    for (let i = 0; i < LISTED; i++)
      registry.registered.set(1000 + i, `127.9.${i >> 8}.${i % 256}:9001`);
    const about = (beacon: BeaconProcess) =>
      beacon.warnings().filter((text) => /peers or more: 128 is the limit/.test(text));
    for (const beacon of beacons) {
      await until("it says so", () => about(beacon).length > 0);
      await goodRound(beacon);
      await goodRound(beacon);
      expect(about(beacon)).toHaveLength(1);
      const known = await peers(beacon);
      expect(known.length).toBeGreaterThan(100);
      expect(known.length).toBeLessThanOrEqual(128);
      // registered before them, and so listed before them
      expect(known).toContain(other(beacon).name);
    }
    await expectRelays();
    for (let i = 0; i < LISTED; i++) registry.registered.delete(1000 + i);
    for (const beacon of beacons) {
      await until("they are gone", async () => (await peers(beacon)).length === 1);
    }
    await expectRelays();
  });

  test("in the end: one line for each round that failed, and the token in none", async () => {
    for (const beacon of beacons) {
      const { ok: _, ...failed } = await rounds(beacon);
      const sum = Object.values(failed).reduce((all, count) => all + count, 0);
      await untilEqual("lines on them", () => complaints(beacon).length, sum);
      // Rounds go on meanwhile, so the two are read until they agree.
      await until("the metrics count the same rounds", async () => {
        for (const [outcome, count] of Object.entries(await rounds(beacon))) {
          const metric = await beacon.metric(`beacon_registry_rounds_total{outcome="${outcome}"}`);
          if (metric !== count) return false;
        }
        return true;
      });
      expect(beacon.program.output()).not.toContain(TOKEN);
      expect(beacon.program.output()).toContain("a text that repeats the token");
      expect((await beacon.stats()).workers.map(({ restarts }) => restarts)).toEqual([0, 0]);
    }
  });
});
