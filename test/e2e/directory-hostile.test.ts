/** Somebody writes into the directory who is no beacon: what comes of it, and that it ends when he ends. */
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from "bun:test";
import type { Config } from "../../src/beacon.ts";
import { CHANGES, type Entry, encodeEntry, LEASE, stepped } from "../../src/control/directory/entries.ts";
import { encodePart, partKey } from "../../src/control/directory/snapshots.ts";
import { REDIS, type RedisServer, RedisServers } from "../support/redis.ts";
import { Client } from "./support/client.ts";
import {
  expectReached,
  Fleet,
  type FleetBeacon,
  LEASE_MS,
  newId,
  type UdpNode,
  untilNotFound,
  untilReached,
} from "./support/directory.ts";
import { freePort, Mesh, nameOf } from "./support/mesh.ts";
import { TEST_TIMEOUT_MS, until, untilEqual } from "./support/wait.ts";

setDefaultTimeout(TEST_TIMEOUT_MS);

const YEAR_MS = 365 * 86_400_000;
const EPOCHS_PER_MS = 1024;
/** As many beacons as there is room for, and more. */
const MANY = 200;
const ROOM = 128;

const isMissing = REDIS.program === undefined;

describe.skipIf(isMissing)(`with Redis${isMissing ? " (which is not installed)" : ""}`, () => {
  const servers = new RedisServers();
  let server: RedisServer;
  let redis: Bun.RedisClient;
  let prefixes = 0;
  let prefix = "";
  let fleet: Fleet;
  let a: FleetBeacon;
  let b: FleetBeacon;
  let nodeA: UdpNode;
  let nodeB: UdpNode;

  beforeAll(async () => {
    server = await servers.start();
    redis = new Bun.RedisClient(`redis://${server.name}`);
  });
  afterAll(async () => {
    redis.close();
    await servers.stop();
  });
  beforeEach(() => {
    prefix = `fleet-${prefixes++}`;
    fleet = new Fleet({ directory: `redis://${server.name}`, directoryPrefix: prefix });
  });
  afterEach(() => fleet.close());

  /** Two beacons with a node each. */
  async function start(options: Partial<Config> = {}): Promise<void> {
    [a, b] = (await fleet.startAll(2, options)) as [FleetBeacon, FleetBeacon];
    [nodeA, nodeB] = [await a.udp(), await b.udp()];
    await untilReached(b, nodeA);
    await untilReached(a, nodeB);
  }

  const key = (name: string) => `{${prefix}}:${name}`;
  const epochNow = () => Math.floor(Date.now()) * EPOCHS_PER_MS;

  async function write(entry: Entry | Uint8Array): Promise<void> {
    const bytes = entry instanceof Uint8Array ? entry : encodeEntry(entry);
    await redis.send("XADD", [key("log"), "*", "e", Buffer.from(bytes).toString("base64")]);
  }

  function lease(name: string, more: Partial<Extract<Entry, { kind: typeof LEASE }>> = {}): Entry {
    return {
      ...{ kind: LEASE, name, epoch: epochNow(), seq: 0, timeMs: stepped(Date.now()), beaconId: 0, nodes: 1 },
      ...{ leaseMs: 1000, isLeaving: false, snapshot: undefined, ...more },
    };
  }

  /** Somebody who says that he is a beacon, at a port of his own, with these nodes. */
  async function impostor(nodeIds: readonly number[], timeMs: number): Promise<Client> {
    const client = fleet.with(await Client.open("127.0.0.1", a.at));
    const name = nameOf(client);
    const epoch = epochNow();
    const claims = { nodeIds: Int32Array.from(nodeIds), timesMs: Float64Array.from(nodeIds, () => timeMs) };
    const head = { epoch, seq: 0, parts: 1, part: 0, timeMs };
    await redis.set(key(`nodes:${partKey(name, head)}`), encodePart(head, claims));
    await write(lease(name, { epoch, snapshot: { seq: 0, parts: 1 } }));
    for (const beacon of [a, b])
      await until("it is followed", () => beacon.told({ name })?.state === "following");
    await write({ kind: CHANGES, name, epoch, seq: 1, timeMs, claims, gone: new Int32Array() });
    return client;
  }

  test("nodes that are claimed from a year ahead are back as soon as they are heard again", async () => {
    await start();
    const other = await a.udp();
    const client = await impostor([nodeA.id, nodeB.id, other.id], stepped(Date.now() + YEAR_MS));
    // In his snapshot, and once more.
    await untilEqual("claims from ahead", () => [a, b].map((one) => one.directory.claimsFromFuture), [6, 6]);
    expect([a, b].map((one) => one.directory.nodesLost)).toEqual([2, 1]);
    expect(a.routes({ name: nameOf(client) })).toBe(3);
    await nodeA.discover();
    await nodeB.discover();
    for (const via of [a, b]) {
      await untilReached(via, nodeA);
      await untilReached(via, nodeB);
    }
    // The other one is his until he is no longer believed to be there.
    const routes = () => [a, b].map((one) => one.routes({ name: nameOf(client) }));
    await untilEqual("routes to him", routes, [undefined, undefined]);
    for (const via of [a, b]) await untilNotFound(via, other.id);
    await other.discover();
    for (const via of [a, b]) await untilReached(via, other);
  });

  test("an id of 0 makes an entry count for nothing; in a snapshot it is passed over", async () => {
    await start();
    const id = newId();
    const client = await impostor([0, id], stepped(Date.now()));
    await untilEqual("malformed entries", () => [a, b].map((one) => one.directory.entriesMalformed), [1, 1]);
    expect([a, b].map((one) => one.routes({ name: nameOf(client) }))).toEqual([1, 1]);
    await expectReached(a, nodeB);
  });

  test(`${MANY} beacons that are none: those that were there stay; others get in when they are gone`, async () => {
    await start();
    const names = Array.from({ length: MANY }, (_, i) => `127.66.0.${1 + i}:9`);
    for (const name of names) await write(lease(name));
    await until("some are left out", () => [a, b].every((one) => one.directory.beaconsIgnored > 0));
    for (const one of [a, b]) expect(one.directory.beacons).toHaveLength(ROOM);
    await expectReached(a, nodeB);
    await expectReached(b, nodeA);
    for (const one of [a, b]) expect(one.warnings(/more than 128 beacons/)).toHaveLength(1);

    // In the hash they are found by who comes now, too.
    for (const name of names)
      await redis.hset(
        key("beacons"),
        name,
        Buffer.from(encodeEntry(lease(name, { timeMs: YEAR_MS * 100 }))).toString("base64"),
      );
    const late = await fleet.start();
    await fleet.untilWhole();
    await untilReached(late, nodeA);
    await untilReached(a, await late.udp());
  });

  test("beacons where nobody may be are not routed to", async () => {
    await start({ denyEndpoint: ["127.66.0.0/16"] });
    const names = [
      "127.66.0.1:9",
      "0.0.0.0:9",
      "255.255.255.255:9",
      "224.0.0.1:9",
      "nobody.invalid:9",
      a.name,
    ];
    for (const name of names.slice(0, -1)) {
      await write(lease(name, { leaseMs: 60_000, seq: 0, snapshot: { seq: 0, parts: 1 } }));
      const changes = {
        kind: CHANGES,
        name,
        epoch: epochNow(),
        seq: 1,
        timeMs: stepped(Date.now()),
      } as const;
      const claims = { nodeIds: Int32Array.of(newId()), timesMs: Float64Array.of(stepped(Date.now())) };
      await write({ ...changes, claims, gone: new Int32Array() });
    }
    for (const beacon of [a, b]) {
      await until("all are told of", () => beacon.directory.beacons.length === names.length);
      const { beacons } = beacon.directory;
      for (const { name, state, routes } of beacons)
        expect([name, state, routes]).toEqual(
          names.slice(0, -1).includes(name) ? [name, "no_address", 0] : [name, "following", 1],
        );
      expect(beacon.beacon.stats().mesh.peers).toHaveLength(1);
    }
    await expectReached(a, nodeB);
  });

  test("who speaks in a beacon's name, of a later start: it comes back when he is silent", async () => {
    await start();
    await write(lease(a.name, { epoch: Number.MAX_SAFE_INTEGER })); // there cannot be a later one
    await untilEqual("malformed entries", () => [a, b].map((one) => one.directory.entriesMalformed), [1, 1]);
    await write(lease(a.name, { epoch: epochNow() + 86_400_000 * EPOCHS_PER_MS, leaseMs: 600_000 }));
    await untilEqual("state", () => a.directory.state, "duplicate");
    await expectReached(a, nodeB);
    const late = await a.udp();
    await untilEqual("state", () => a.directory.state, "ok");
    await fleet.untilWhole(5 * LEASE_MS);
    await untilReached(b, nodeA);
    await untilReached(b, late);
  });

  test("two names for one place: whoever began later is there, whatever becomes of the other", async () => {
    await start();
    const alias = `localhost:${a.at.port}`;
    await write(lease(alias, { epoch: epochNow() - 3_600_000 * EPOCHS_PER_MS })); // as if it had this name before
    await until("it is told of", () => b.told({ name: alias }) !== undefined);
    await until("it is gone", () => b.told({ name: alias }) === undefined);
    await expectReached(b, nodeA);
    await write(lease(alias)); // and now
    await until("it is told of", () => b.told({ name: alias }) !== undefined);
    await until("it is gone", () => b.told({ name: alias }) === undefined);
    await fleet.untilWhole();
    await untilReached(b, nodeA);
    const node = await a.udp();
    await untilReached(b, node);
  });

  test("a beacon that is killed, and comes back with another name for its place", async () => {
    const watcher = await fleet.start();
    const mesh = fleet.with(new Mesh());
    const port = freePort();
    const flags = (name: string) => [
      ...[`--directory=redis://${server.name}`, `--directory-prefix=${prefix}`, "--directory-lease=3s"],
      ...["--beacon-id=4711", `--advertise-addr=${name}:${port}`],
    ];
    const first = await mesh.beacon(`127.0.0.1:${port}`, flags("127.0.0.1"));
    await until("it is followed", () => watcher.follows([first]));
    first.program.signal("SIGKILL");
    await first.program.exited();
    const second = await mesh.beacon(`127.0.0.1:${port}`, flags("localhost"));
    const client = await mesh.client(second);
    await client.discover(newId());
    await until("it is followed", () => watcher.told({ name: `localhost:${port}` })?.state === "following");
    await until("its old name is gone", () => watcher.told({ name: first.name }) === undefined);
    await untilEqual("routes", () => watcher.routes(second), 1);
  });
});
