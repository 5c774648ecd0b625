/**
 * Somebody writes into the directory who is no beacon: what comes of it, and that it ends when he
 * ends.
 */

import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Config } from "../../src/beacon.ts";
import {
  CHANGES,
  type Entry,
  encodeEntry,
  LEASE,
  stepped,
} from "../../src/control/directory/entries.ts";
import { encodePart, partKey } from "../../src/control/directory/snapshots.ts";
import { ALL_RANGES } from "../../src/shared/claim-digest.ts";
import { REDIS, type RedisServer, RedisServers } from "../support/redis.ts";
import { Client } from "./support/client.ts";
import {
  expectReached,
  Fleet,
  type FleetBeacon,
  newId,
  type UdpNode,
  untilNotFound,
  untilReached,
} from "./support/directory.ts";
import { freePort, Mesh, nameOf } from "./support/mesh.ts";
import { until, untilEqual } from "./support/wait.ts";

const DAY_MS = 86_400_000;
const YEAR_MS = 365 * 86_400_000;
const EPOCHS_PER_MS = 1024;
/** As many beacons as there is room for, and more. */
const MANY = 200;
const ROOM = 128;

const isMissing = REDIS.program === undefined;

const note = isMissing ? " (needs redis-server)" : "";
const servers = new RedisServers();
let server: RedisServer;
let redis: Bun.RedisClient;
beforeAll(async () => {
  if (isMissing) return;
  server = await servers.start();
  redis = new Bun.RedisClient(`redis://${server.name}`);
});
afterAll(async () => {
  redis?.close();
  await servers.stop();
});

let prefixes = 0;
const epochNow = () => Math.floor(Date.now()) * EPOCHS_PER_MS;

/** Beacons, and somebody who writes into their directory. */
class World {
  readonly prefix = `fleet-${prefixes++}`;
  readonly fleet: Fleet;
  a!: FleetBeacon;
  b!: FleetBeacon;
  nodeA!: UdpNode;
  nodeB!: UdpNode;

  constructor() {
    this.fleet = new Fleet({ directory: `redis://${server.name}`, directoryPrefix: this.prefix });
  }

  get both(): readonly FleetBeacon[] {
    return [this.a, this.b];
  }

  /** Two beacons with a node each. */
  async start(options: Partial<Config> = {}): Promise<void> {
    [this.a, this.b] = (await this.fleet.startAll(2, options)) as [FleetBeacon, FleetBeacon];
    [this.nodeA, this.nodeB] = [await this.a.udp(), await this.b.udp()];
    await untilReached(this.b, this.nodeA);
    await untilReached(this.a, this.nodeB);
  }

  key(name: string): string {
    return `{${this.prefix}}:${name}`;
  }

  async write(entry: Entry): Promise<void> {
    await redis.send("XADD", [this.key("log"), "*", "e", base64(entry)]);
  }

  /** Into the hash. */
  async put(name: string, entry: Entry): Promise<void> {
    await redis.hset(this.key("beacons"), name, base64(entry));
  }

  /** Somebody who says that he is a beacon, at a port of his own, with these nodes. */
  async impostor(nodeIds: readonly number[], timeMs: number, isFollowed = true): Promise<Client> {
    const client = this.fleet.with(await Client.open("127.0.0.1", this.a.at));
    const name = nameOf(client);
    const epoch = epochNow();
    const claims = {
      nodeIds: Int32Array.from(nodeIds),
      timesMs: Float64Array.from(nodeIds, () => timeMs),
    };
    const head = { epoch, seq: 0, parts: 1, part: 0, timeMs };
    await redis.set(
      this.key(`nodes:${partKey(name, epoch, SNAPSHOT, 0)}`),
      encodePart(head, claims),
    );
    await this.write(lease(name, { epoch, snapshot: SNAPSHOT }));
    for (const beacon of isFollowed ? this.both : [])
      await until("it is followed", () => beacon.told({ name })?.state === "following");
    await this.write({
      kind: CHANGES,
      name,
      epoch,
      seq: 1,
      timeMs,
      claims,
      gone: new Int32Array(),
    });
    return client;
  }
}

const SNAPSHOT = { seq: 0, parts: 1, ranges: ALL_RANGES };

const base64 = (entry: Entry) => Buffer.from(encodeEntry(entry)).toString("base64");

function lease(name: string, more: Partial<Extract<Entry, { kind: typeof LEASE }>> = {}): Entry {
  return {
    ...{
      kind: LEASE,
      name,
      epoch: epochNow(),
      seq: 0,
      timeMs: stepped(Date.now()),
      beaconId: 0,
      nodes: 1,
    },
    ...{
      leaseMs: 1000,
      isLeaving: false,
      snapshot: undefined,
      ranged: undefined,
      sums: undefined,
      ...more,
    },
  };
}

/** All at a time: they wait most of the time. */
function attack(name: string, run: (world: World) => Promise<void>): void {
  test.concurrent.skipIf(isMissing)(name + note, async () => {
    const world = new World();
    try {
      await run(world);
    } finally {
      await world.fleet.close();
    }
  });
}

attack("claims from a year ahead are malformed, in the log and in snapshots", async (world) => {
  await world.start();
  const { a, b, nodeA, nodeB, both } = world;
  const client = await world.impostor([nodeA.id, nodeB.id], stepped(Date.now() + YEAR_MS), false);
  await untilEqual(
    "malformed entries",
    () => both.map((one) => one.directory.entriesMalformed),
    [1, 1],
  );
  await until("the snapshot is", () => both.every((one) => one.directory.snapshotsMalformed > 0));
  await expectReached(a, nodeB);
  await expectReached(b, nodeA);
  expect(both.map((one) => one.routes({ name: nameOf(client) }))).toEqual([0, 0]);
});

attack(
  "nodes that are claimed from a day ahead are back as soon as they are heard again",
  async (world) => {
    await world.start();
    const { a, nodeA, nodeB, both } = world;
    const other = await a.udp();
    const client = await world.impostor(
      [nodeA.id, nodeB.id, other.id],
      stepped(Date.now() + DAY_MS),
    );
    // In the log: the clocks of the beacons follow.
    await untilEqual(
      "entries from ahead",
      () => both.map((one) => one.directory.claimsFromFuture),
      [1, 1],
    );
    expect(both.map((one) => one.directory.nodesLost)).toEqual([2, 1]);
    expect(a.routes({ name: nameOf(client) })).toBe(3);
    await nodeA.discover();
    await nodeB.discover();
    for (const via of both) {
      await untilReached(via, nodeA);
      await untilReached(via, nodeB);
    }
    // The other one is his until he is no longer believed to be there.
    const routes = () => both.map((one) => one.routes({ name: nameOf(client) }));
    await untilEqual("routes to him", routes, [undefined, undefined]);
    for (const via of both) await untilNotFound(via, other.id);
    await other.discover();
    for (const via of both) await untilReached(via, other);
  },
);

attack(
  "an id of 0 makes an entry count for nothing; in a snapshot it is passed over",
  async (world) => {
    await world.start();
    const { a, nodeB, both } = world;
    const id = newId();
    const client = await world.impostor([0, id], stepped(Date.now()));
    await untilEqual(
      "malformed entries",
      () => both.map((one) => one.directory.entriesMalformed),
      [1, 1],
    );
    expect(both.map((one) => one.routes({ name: nameOf(client) }))).toEqual([1, 1]);
    await expectReached(a, nodeB);
  },
);

attack(
  `${MANY} beacons that are none: those that were there stay; others get in when they are gone`,
  async (world) => {
    await world.start();
    const { a, b, nodeA, nodeB, both } = world;
    const names = Array.from({ length: MANY }, (_, i) => `127.66.0.${1 + i}:9`);
    for (const name of names) await world.write(lease(name));
    await until("some are left out", () => both.every((one) => one.directory.beaconsIgnored > 0));
    for (const one of both) expect(one.directory.beacons).toHaveLength(ROOM);
    await expectReached(a, nodeB);
    await expectReached(b, nodeA);
    for (const one of both) expect(one.warnings(/more than 128 beacons/)).toHaveLength(1);

    // In the hash they are found by who comes now, too.
    for (const name of names) await world.put(name, lease(name, { timeMs: YEAR_MS * 100 }));
    const late = await world.fleet.start();
    await world.fleet.untilWhole();
    await untilReached(late, nodeA);
    await untilReached(a, await late.udp());
  },
);

attack("beacons where nobody may be are not routed to", async (world) => {
  await world.start({ denyEndpoint: ["127.66.0.0/16"] });
  const { a, nodeB, both } = world;
  const names = [
    "127.66.0.1:9",
    "0.0.0.0:9",
    "255.255.255.255:9",
    "224.0.0.1:9",
    "nobody.invalid:9",
    a.name,
  ];
  for (const name of names.slice(0, -1)) {
    await world.write(lease(name, { leaseMs: 60_000, seq: 0, snapshot: SNAPSHOT }));
    const changes = {
      kind: CHANGES,
      name,
      epoch: epochNow(),
      seq: 1,
      timeMs: stepped(Date.now()),
    } as const;
    const claims = {
      nodeIds: Int32Array.of(newId()),
      timesMs: Float64Array.of(stepped(Date.now())),
    };
    await world.write({ ...changes, claims, gone: new Int32Array() });
  }
  for (const beacon of both) {
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

attack(
  "who speaks in a beacon's name, of a later start: it comes back when he is silent",
  async (world) => {
    await world.start();
    const { a, b, nodeA, nodeB, both } = world;
    // there cannot be a later one
    await world.write(lease(a.name, { epoch: Number.MAX_SAFE_INTEGER }));
    await untilEqual(
      "malformed entries",
      () => both.map((one) => one.directory.entriesMalformed),
      [1, 1],
    );
    await world.write(
      lease(a.name, { epoch: epochNow() + 86_400_000 * EPOCHS_PER_MS, leaseMs: 600_000 }),
    );
    await untilEqual("state", () => a.directory.state, "duplicate");
    await expectReached(a, nodeB);
    const late = await a.udp();
    await untilEqual("state", () => a.directory.state, "ok");
    await world.fleet.untilWhole();
    await untilReached(b, nodeA);
    await untilReached(b, late);
  },
);

attack(
  "two names for one place: whoever began later is there, whatever becomes of the other",
  async (world) => {
    await world.start();
    const { a, b, nodeA } = world;
    const alias = `localhost:${a.at.port}`;
    // as if it had this name before
    await world.write(lease(alias, { epoch: epochNow() - 3_600_000 * EPOCHS_PER_MS }));
    await until("it is told of", () => b.told({ name: alias }) !== undefined);
    await until("it is gone", () => b.told({ name: alias }) === undefined);
    await expectReached(b, nodeA);
    await world.write(lease(alias)); // and now
    await until("it is told of", () => b.told({ name: alias }) !== undefined);
    await until("it is gone", () => b.told({ name: alias }) === undefined);
    await world.fleet.untilWhole();
    await untilReached(b, nodeA);
    const node = await a.udp();
    await untilReached(b, node);
  },
);

attack("a beacon that is killed, and comes back with another name for its place", async (world) => {
  const watcher = await world.fleet.start();
  const mesh = world.fleet.with(new Mesh());
  const port = freePort();
  const flags = (name: string) => [
    ...[
      `--directory=redis://${server.name}`,
      `--directory-prefix=${world.prefix}`,
      "--directory-lease=3s",
    ],
    ...["--beacon-id=4711", `--advertise-addr=${name}:${port}`],
  ];
  const first = await mesh.beacon(`127.0.0.1:${port}`, flags("127.0.0.1"));
  await until("it is followed", () => watcher.follows([first]));
  first.program.signal("SIGKILL");
  await first.program.exited();
  const second = await mesh.beacon(`127.0.0.1:${port}`, flags("localhost"));
  const client = await mesh.client(second);
  await client.discover(newId());
  await until(
    "it is followed",
    () => watcher.told({ name: `localhost:${port}` })?.state === "following",
  );
  await until("its old name is gone", () => watcher.told({ name: first.name }) === undefined);
  await untilEqual("routes", () => watcher.routes(second), 1);
});
