/**
 * A directory that fails in every way there is, while relays between its beacons go on: those to
 * known nodes arrive, it is told what is wrong, and all is well again without a restart once the
 * cause is gone.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import type { Config } from "../../src/beacon.ts";
import type { DirectoryState } from "../../src/control/directory/stats.ts";
import { temporaryFolder, temporaryPaths } from "../support/folder.ts";
import {
  REDIS,
  type RedisServer,
  type RedisServerOptions,
  RedisServers,
} from "../support/redis.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import { makeCertificate } from "../support/websocket.ts";
import {
  expectReached,
  Fleet,
  type FleetBeacon,
  LEASE_MS,
  Traffic,
  type UdpNode,
  untilNotFound,
  untilReached,
} from "./support/directory.ts";
import { PATIENCE_MS, TEST_TIMEOUT_MS, until, untilEqual } from "./support/wait.ts";

setDefaultTimeout(2 * TEST_TIMEOUT_MS);

const isMissing = REDIS.program === undefined;
const note = isMissing ? " (needs redis-server)" : "";
const PREFIX = "pilot-beacon";
const LOG = `{${PREFIX}}:log`;
const BEACONS = `{${PREFIX}}:beacons`;
/** Routes are kept so long that no test sees their end. */
const KEPT_MS = 600_000;
/** A connection that is silent for this long has failed (src/control/directory/connection.ts). */
const ANSWER_MS = 5000;
/** At this rate each way, relays go on between two beacons. */
const PER_SECOND = 250;
/** Of packets to known nodes. */
const DELIVERED_MIN = 0.999;
/** Scenarios at a time: they wait most of the time. */
const AT_ONCE = 8;

const folder = temporaryFolder();
const newPath = temporaryPaths(folder);

let running = 0;
const waiting: (() => void)[] = [];

/** Two beacons, with a node each, to which relays go all the time from the other beacon. */
class World {
  readonly servers = new RedisServers();
  readonly #traffic: { readonly name: string; readonly traffic: Traffic }[] = [];
  readonly #more: { close(): Promise<void> }[] = [];
  #fleet: Fleet | undefined;
  a!: FleetBeacon;
  b!: FleetBeacon;
  nodeA!: UdpNode;
  nodeB!: UdpNode;

  server(options: RedisServerOptions = {}): Promise<RedisServer> {
    return this.servers.start(options);
  }

  /** Is closed together with the rest, before the servers. */
  with<T extends { close(): Promise<void> }>(one: T): T {
    this.#more.push(one);
    return one;
  }

  get fleet(): Fleet {
    return this.#fleet!;
  }

  get beacons(): readonly FleetBeacon[] {
    return [this.a, this.b];
  }

  async start(options: Partial<Config>, ofA: Partial<Config> = {}): Promise<void> {
    this.#fleet = new Fleet({ directoryGraceMs: KEPT_MS, ...options });
    this.a = await this.fleet.start(ofA);
    this.b = await this.fleet.start();
    await this.fleet.untilWhole();
    this.nodeA = await this.a.udp();
    this.nodeB = await this.b.udp();
    await untilReached(this.b, this.nodeA);
    await untilReached(this.a, this.nodeB);
    this.#traffic.push({
      name: "a to b",
      traffic: await Traffic.start(this.a, this.nodeB, PER_SECOND),
    });
    this.#traffic.push({
      name: "b to a",
      traffic: await Traffic.start(this.b, this.nodeA, PER_SECOND),
    });
  }

  /** The state of the directory at these, and that readyz tells it, with `message`. */
  async untilState(state: DirectoryState, message: RegExp, at = this.beacons): Promise<void> {
    for (const beacon of at) {
      const isTold = new RegExp(
        `^ready; directory: ${state} for \\d+ s: .*${message.source}`,
        message.flags,
      );
      let text = "";
      const tells = async () => {
        text = await beacon.readyz();
        return isTold.test(text);
      };
      await until(`${beacon.name} tells ${isTold}`, tells).catch((error: Error) => {
        throw new Error(`${error.message}: it tells ${text}`);
      });
      expect(beacon.directory.state).toBe(state);
    }
  }

  async untilOk(): Promise<void> {
    for (const beacon of this.beacons)
      await untilEqual(
        `state of the directory at ${beacon.name}`,
        () => beacon.directory.state,
        "ok",
      );
    await this.fleet.untilWhole();
    for (const beacon of this.beacons) {
      expect(await beacon.readyz()).toBe("ready");
      await untilEqual("nodes untold", () => beacon.directory.untold, 0);
    }
  }

  /** Each has warned so often of the directory. */
  expectWarnings(times: number, pattern = /directory/, at = this.beacons): void {
    for (const beacon of at) {
      const warnings = beacon.warnings(pattern);
      if (warnings.length !== times)
        throw new Error(`${warnings.length} warnings: ${warnings.join("\n")}`);
    }
  }

  /** Ends the relays, nearly all of which have arrived. */
  async expectDelivered(...names: readonly string[]): Promise<void> {
    for (const { name, traffic } of this.#traffic) {
      await until("it went on for a while", () => traffic.sent > 2 * PER_SECOND);
      traffic.stop();
      if (names.length > 0 && !names.includes(name)) continue;
      const { sent, arrived } = await traffic.settled();
      if (process.env["BEACON_TEST_FIGURES"]) console.log(`${name}: ${arrived} of ${sent} arrived`);
      expect(arrived / sent).toBeGreaterThanOrEqual(DELIVERED_MIN);
    }
  }

  async close(): Promise<void> {
    for (const { traffic } of this.#traffic) traffic.stop();
    await this.#fleet?.close();
    for (const one of this.#more) await one.close();
    await this.servers.stop();
  }
}

function scenario(name: string, run: (world: World) => Promise<void>): void {
  test.concurrent.skipIf(isMissing)(name + note, async () => {
    if (running === AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    const world = new World();
    try {
      await run(world);
    } finally {
      await world.close();
      const next = waiting.shift();
      if (next) next();
      else running--;
    }
  });
}

const directory = ({ name }: { readonly name: string }) => ({ directory: `redis://${name}` });

scenario("a server that does not answer for a while", async (world) => {
  const server = await world.server();
  await world.start(directory(server));
  server.pause();
  await world.untilState("slow", /no answer to \w+ in \d+ ms|does not answer/);
  const late = await world.a.udp();
  await expectReached(world.a, late);
  server.resume();
  await world.untilOk();
  await untilReached(world.b, late);
  world.expectWarnings(1);
  await world.expectDelivered();
});

scenario(
  "a server that is killed, and comes back empty: what moved meanwhile is where it is",
  async (world) => {
    const server = await world.server();
    await world.start(directory(server));
    const [moving, leaving] = [await world.a.udp(), await world.b.udp()];
    await untilReached(world.b, moving);
    await untilReached(world.a, leaving);
    await server.stop();
    await world.untilState("unreachable", /connection refused|connection was closed/);
    const late = await world.a.udp();
    const moved = await world.b.udp(moving.id);
    await world.server({ port: server.port });
    await world.untilOk();
    await untilReached(world.b, late);
    await untilReached(world.a, moved);
    await expectReached(world.a, leaving);
    world.expectWarnings(1);
    await world.expectDelivered();
  },
);

scenario(
  "a server that is away for longer than lease and grace: routes are gone, and come back",
  async (world) => {
    const server = await world.server();
    await world.start({ ...directory(server), directoryGraceMs: 1000 });
    await server.stop();
    await world.untilState("unreachable", /refused/);
    await world.expectDelivered();
    const ways = [
      [world.a, world.b, world.nodeB],
      [world.b, world.a, world.nodeA],
    ] as const;
    for (const [via, other, node] of ways) {
      await until("its routes are gone", () => via.routes(other) === undefined);
      await untilNotFound(via, node.id);
    }
    await world.server({ port: server.port });
    await world.untilOk();
    for (const [via, , node] of ways) {
      await untilReached(via, node);
      expect(via.messages(/was not heard for its lease/)).toHaveLength(1);
    }
    world.expectWarnings(1);
  },
);

scenario("a fail-over: the replica is promoted, and found without a word", async (world) => {
  const [primary, replica] = [await world.server(), await world.server()];
  await replica.replicaOf(primary);
  await world.start({ directory: `redis://${primary.name},${replica.name}` });
  await primary.stop();
  await world.untilState("read_only", /is a replica: name the primary/);
  const late = await world.a.udp();
  await replica.promote();
  await world.untilOk();
  for (const beacon of world.beacons) expect(beacon.directory.server).toBe(replica.name);
  await untilReached(world.b, late);
  world.expectWarnings(1);
  await world.expectDelivered();
});

scenario(
  "a primary that lost its replicas, and so takes no writes, while another one does",
  async (world) => {
    const [old, next] = [await world.server(), await world.server()];
    await next.replicaOf(old);
    await old.command("CONFIG", "SET", "min-replicas-to-write", "1");
    await world.start({ directory: `redis://${old.name},${next.name}` });
    await next.promote(); // and nobody tells the old one
    const late = await world.a.udp();
    for (const beacon of world.beacons)
      await untilEqual("the server", () => beacon.directory.server, next.name);
    world.expectWarnings(1, /NOREPLICAS/);
    await world.untilOk();
    await untilReached(world.b, late);
    world.expectWarnings(1);
    await world.expectDelivered();
  },
);

scenario("a server that becomes a replica", async (world) => {
  const [server, other] = [await world.server(), await world.server()];
  await world.start(directory(server));
  await server.replicaOf(other);
  await world.untilState("read_only", /is a replica: name the primary, too, in --directory/);
  const late = await world.a.udp();
  await server.promote();
  await world.untilOk();
  await untilReached(world.b, late);
  world.expectWarnings(1);
  await world.expectDelivered();
});

scenario(
  "a server without memory, for longer than a lease: what is known stays, the rest is told later",
  async (world) => {
    const server = await world.server();
    await world.start(directory(server));
    await server.command("CONFIG", "SET", "maxmemory", "1");
    await world.untilState("full", /OOM.*maxmemory/);
    const late = await world.a.udp();
    await Bun.sleep(2 * LEASE_MS);
    await server.command("CONFIG", "SET", "maxmemory", "0");
    await world.untilOk();
    await untilReached(world.b, late);
    world.expectWarnings(1);
    await world.expectDelivered();
    for (const beacon of world.beacons) expect(beacon.messages(/was not heard/)).toEqual([]);
  },
);

/**
 * Writes into the log, and then leaves the server so little memory that it is full until most of
 * that is dropped.
 */
async function fillLog(server: RedisServer): Promise<void> {
  for (let i = 0; i < 400; i++) await server.command("XADD", LOG, "*", "e", "x".repeat(10_000));
  const used = /used_memory:(\d+)/.exec(String(await server.command("INFO", "memory")))![1]!;
  await server.command("CONFIG", "SET", "maxmemory", `${Number(used) - 2_000_000}`);
}

const isFull = async (server: RedisServer): Promise<boolean> =>
  /OOM/.test(
    await server.command("XADD", "probe", "NOMKSTREAM", "*", "e", "").then(() => "", String),
  );

/** The log holds a minute, and is looked at every few seconds. */
const LOG_PATIENCE_MS = 3 * PATIENCE_MS;

scenario("a log that fills the server's memory: it is trimmed a minute later", async (world) => {
  const server = await world.server({ config: ["--maxmemory-policy", "noeviction"] });
  await world.start(directory(server));
  await fillLog(server);
  await world.untilState("full", /OOM.*maxmemory/);
  const late = await world.a.udp();
  await until(
    "the server takes writes again",
    async () => !(await isFull(server)),
    LOG_PATIENCE_MS,
  );
  await world.untilOk();
  await untilReached(world.b, late);
  await world.expectDelivered();
});

scenario(
  "a log that fills the memory, and beacons that start only then: the same",
  async (world) => {
    const server = await world.server({ config: ["--maxmemory-policy", "noeviction"] });
    await world.start(directory(server));
    await fillLog(server);
    await world.expectDelivered();
    for (const beacon of world.fleet.beacons.splice(0)) await beacon.close();
    const [first, second] = [await world.fleet.start(), await world.fleet.start()];
    await world.untilState("full", /OOM.*maxmemory/, [first, second]);
    await world.fleet.untilWhole(LOG_PATIENCE_MS);
    await untilReached(second, await first.udp());
  },
);

scenario("another password, which the file tells without a restart", async (world) => {
  const server = await world.server({ password: "before" });
  const directoryAuthFile = newPath();
  writeFileSync(directoryAuthFile, "before\n", { mode: 0o600 });
  await world.start({ ...directory(server), directoryAuthFile });
  await server.command("CONFIG", "SET", "requirepass", "after");
  await server.command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES");
  await world.untilState("denied", /WRONGPASS.*--directory-auth-file/);
  const late = await world.a.udp();
  writeFileSync(directoryAuthFile, "after\n");
  await world.untilOk();
  await untilReached(world.b, late);
  world.expectWarnings(1);
  for (const { log } of world.beacons)
    expect(JSON.stringify(log)).not.toMatch(/"[^"]*(before|after)/);
  await world.expectDelivered();
});

for (const command of ["xadd", "hset", "xread", "get"]) {
  scenario(`rights without ${command}, given back`, async (world) => {
    const server = await world.server();
    const directoryAuthFile = newPath();
    writeFileSync(directoryAuthFile, "beacon\nsecret", { mode: 0o600 });
    await server.command("ACL", "SETUSER", "beacon", "on", ">secret", "~*", "+@all");
    await world.start({ ...directory(server), directoryAuthFile });
    await server.command("ACL", "SETUSER", "beacon", `-${command}`);
    // for snapshots, which are read when somebody comes
    if (command === "get") await world.fleet.start();
    await world.untilState("denied", new RegExp(`${command}.*NOPERM`, "i"));
    const since = performance.now();
    const late = await world.a.udp();
    while (performance.now() - since < LEASE_MS / 2) {
      for (const beacon of world.beacons) expect(beacon.directory.state).toBe("denied");
      await Bun.sleep(20);
    }
    await server.command("ACL", "SETUSER", "beacon", `+${command}`);
    await world.untilOk();
    await untilReached(world.b, late);
    world.expectWarnings(1);
    await world.expectDelivered();
  });
}

scenario("a certificate that is not trusted, until its CA's is in the file", async (world) => {
  const [right, wrong] = [makeCertificate(folder, "right"), makeCertificate(folder, "wrong")];
  const server = await world.server({ tls: right });
  const directoryCaFile = newPath();
  writeFileSync(directoryCaFile, right.cert);
  await world.start({ directory: `rediss://${server.name}`, directoryCaFile });
  writeFileSync(directoryCaFile, wrong.cert);
  await server.command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES");
  await world.untilState("unreachable", /certificate is not trusted.*--directory-ca-file/);
  const late = await world.a.udp();
  writeFileSync(directoryCaFile, right.cert);
  await world.untilOk();
  await untilReached(world.b, late);
  world.expectWarnings(1);
  await world.expectDelivered();
});

scenario(
  "a way to the server that is cut for one of them: it routes on; the other does until the lease is over",
  async (world) => {
    const server = await world.server();
    const proxy = world.with(await TcpProxy.start(server));
    // A lease that outlives what is tried within it on a busy machine, too.
    await world.start({ ...directory(server), directoryLeaseMs: 15_000 }, directory(proxy));
    await proxy.cut();
    await world.untilState("unreachable", /connection refused/, [world.a]);
    await world.expectDelivered(); // until now both ways
    await until("b has lost a", () => world.b.told(world.a) === undefined);
    const late = await world.a.udp();
    await expectReached(world.a, late);
    await expectReached(world.a, world.nodeB);
    await untilNotFound(world.b, world.nodeA.id);
    await proxy.mend();
    await world.untilOk();
    await untilReached(world.b, world.nodeA);
    await untilReached(world.b, late);
    world.expectWarnings(1, /directory/, [world.a]);
    world.expectWarnings(0, /directory/, [world.b]);
  },
);

scenario("a way to the server that takes everything and says nothing", async (world) => {
  const server = await world.server();
  const proxy = world.with(await TcpProxy.start(server));
  await world.start(directory(proxy));
  proxy.silence();
  await world.untilState(
    "slow",
    /no answer to \w+ in \d+ ms|accepts the connection and does not answer/,
  );
  const late = await world.a.udp();
  await proxy.mend();
  await world.untilOk();
  await untilReached(world.b, late);
  world.expectWarnings(1);
  await world.expectDelivered();
});

scenario(
  "a connection that is cut again and again: it goes on where it was, and the log stays short",
  async (world) => {
    const server = await world.server();
    const proxy = world.with(await TcpProxy.start(server));
    await world.start(directory(proxy));
    const lines = () => world.beacons.map(({ log }) => log.length);
    const before = lines();
    const nodes: UdpNode[] = [];
    for (let i = 0; i < 15; i++) {
      await proxy.cut();
      nodes.push(await world.a.udp());
      await proxy.mend();
      await Bun.sleep(200);
    }
    await world.untilOk();
    for (const node of nodes) await untilReached(world.b, node);
    // Each thing is said once: that the connection is lost, that the server is not there, and on a
    // busy machine that it is slow.
    for (const [i, { log }] of world.beacons.entries()) {
      const said = log.slice(before[i]).map((line) => JSON.stringify(line.msg).replace(/\d+/g, ""));
      expect(said).toEqual([...new Set(said)]);
      expect(said.length).toBeLessThanOrEqual(3);
    }
    expect(world.b.directory.resyncs).toMatchObject({ gap: 0, diverged: 0 });
    await world.expectDelivered();
  },
);

scenario(
  "a beacon with another database number or prefix than its peers says that it is alone",
  async (world) => {
    const server = await world.server();
    await world.start(directory(server));
    expect(world.a.directory.isAlone).toBe(false);
    for (const options of [
      { directory: `redis://${server.name}/3` },
      { ...directory(server), directoryPrefix: "other" },
    ]) {
      const one = await world.fleet.start({ ...options, peers: [world.a.name] });
      await until("it says so", async () =>
        (await one.readyz()).includes("no other beacon is in it"),
      );
      expect(one.directory).toMatchObject({ state: "ok", isAlone: true });
      await until("it warns", () => one.warnings(/no other beacon is in it/).length === 1);
    }
    for (const beacon of world.beacons) expect(await beacon.readyz()).toBe("ready");
  },
);

scenario("a server that is stopped is not taken for one that expects TLS", async (world) => {
  const server = await world.server();
  await world.start(directory(server));
  server.pause();
  await world.untilState(
    "slow",
    /accepts the connection and does not answer: is it stopped, or busy\?/,
  );
  server.resume();
  await world.untilOk();
});

scenario("garbage in all keys, while it is used", async (world) => {
  const server = await world.server();
  await world.start(directory(server));
  const garbage = (bytes: number) => randomBytes(bytes).toString("base64");
  for (let i = 0; i < 300; i++) {
    const value = i % 3 === 0 ? randomBytes(40).toString("latin1") : garbage(i);
    await server.command(
      "XADD",
      LOG,
      "*",
      ...(i % 5 === 0 ? ["other", value, "e", value] : ["e", value]),
    );
    await server.command("HSET", BEACONS, i % 2 === 0 ? garbage(9) : `127.0.0.1:${i + 1}`, value);
    await server.command("SET", `{${PREFIX}}:nodes:${world.a.name}:1:${i}:0`, value);
  }
  const node = await world.a.udp();
  await untilReached(world.b, node);
  const late = await world.fleet.start(); // which goes through the hash
  await world.fleet.untilWhole();
  await untilReached(late, node);
  await untilReached(world.a, await late.udp());
  for (const beacon of world.beacons) expect(beacon.directory.entriesMalformed).toBe(300);
  expect(late.directory.entriesMalformed).toBeGreaterThan(0);
  world.expectWarnings(1, /directory's log holds what no beacon of this version writes/);
  world.expectWarnings(1);
  await world.untilOk();
  await world.expectDelivered();
});

scenario("keys of other types, until they are gone", async (world) => {
  const server = await world.server();
  await world.start(directory(server));
  for (const key of [LOG, BEACONS]) {
    await server.command("DEL", key);
    await server.command("SET", key, "x");
    await world.untilState("malformed", /WRONGTYPE.*choose another --directory-prefix/);
    const late = await world.a.udp();
    await server.command("DEL", key);
    await world.untilOk();
    await untilReached(world.b, late);
  }
  world.expectWarnings(1);
  await world.expectDelivered();
});

scenario("all keys are removed: who comes next knows all nevertheless", async (world) => {
  const server = await world.server();
  await world.start(directory(server));
  await server.command("FLUSHALL");
  const first = await world.fleet.start();
  await world.fleet.untilWhole();
  expect([first.routes(world.a), first.routes(world.b)]).toEqual([1, 1]);
  await server.command("FLUSHALL"); // with the snapshots that were just written
  const second = await world.fleet.start();
  await world.fleet.untilWhole();
  expect([second.routes(world.a), second.routes(world.b), second.routes(first)]).toEqual([1, 1, 0]);
  const node = await second.udp();
  for (const beacon of world.fleet.beacons) await untilReached(beacon, node);
  await world.untilOk();
  world.expectWarnings(0);
  await world.expectDelivered();
});

scenario(
  "a log that begins again with lower ids than those that were read: they are read, too",
  async (world) => {
    const server = await world.server();
    await world.start(directory(server));
    await server.command("XADD", LOG, `${Date.now() + 3_600_000}-0`, "e", "x");
    const malformed = () => world.beacons.map((beacon) => beacon.directory.entriesMalformed);
    await untilEqual("malformed entries", malformed, [1, 1]);
    await server.command("DEL", LOG);
    const nodes = [await world.a.udp(), await world.b.udp()];
    await untilReached(world.b, nodes[0]!);
    await untilReached(world.a, nodes[1]!);
    await world.untilOk();
    expect(world.beacons.map((beacon) => beacon.directory.failures)).toEqual([{}, {}]);
    await world.expectDelivered();
  },
);

scenario("a log without another id to give, until it is gone", async (world) => {
  const server = await world.server();
  await world.start(directory(server));
  await server.command("XADD", LOG, "18446744073709551615-18446744073709551615", "e", "x");
  await world.untilState("refused", /XADD.*last possible ID/);
  const late = await world.a.udp();
  await server.command("DEL", LOG);
  await world.untilOk();
  await untilReached(world.b, late);
  await world.expectDelivered();
});

scenario("a Sentinel, named by mistake", async (world) => {
  const sentinel = await world.server({ sentinel: true });
  const fleet = world.with(new Fleet(directory(sentinel)));
  const beacon = await fleet.start();
  await world.untilState("refused", /is a Sentinel: name the servers themselves in --directory/, [
    beacon,
  ]);
  await expectReached(beacon, await beacon.udp());
  world.expectWarnings(1, /directory/, [beacon]);
});

scenario("a cluster's node that has not all slots, until it has", async (world) => {
  const node = await world.server({ config: ["--cluster-enabled", "yes"] });
  const fleet = world.with(new Fleet(directory(node)));
  const [a, b] = [await fleet.start(), await fleet.start()];
  await world.untilState("refused", /CLUSTERDOWN/, [a, b]);
  const late = await a.udp();
  await node.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383");
  await fleet.untilWhole();
  await untilReached(b, late);
  expect(await a.readyz()).toBe("ready");
  world.expectWarnings(1, /directory/, [a, b]);
});

scenario(
  "a Sentinel that fails over; the old primary comes back, and nobody goes there",
  async (world) => {
    const [primary, replica] = [await world.server(), await world.server()];
    await replica.replicaOf(primary);
    const sentinel = await world.server({ sentinel: true });
    await sentinel.command("SENTINEL", "MONITOR", "fleet", primary.host, `${primary.port}`, "1");
    await sentinel.command("SENTINEL", "SET", "fleet", "down-after-milliseconds", "500");
    await sentinel.command("SENTINEL", "SET", "fleet", "failover-timeout", "5000");
    const replicas = async () =>
      JSON.stringify(await sentinel.command("SENTINEL", "REPLICAS", "fleet"));
    await until("the Sentinel knows it", async () => (await replicas()).includes(replica.name));
    await world.start({ directory: `redis://${primary.name},${replica.name}` });
    await primary.stop();
    const late = await world.a.udp();
    // Who is made another role closes its connections.
    const role = () => replica.command("ROLE").then(JSON.stringify, () => "");
    await until("the replica is promoted", async () => (await role()).includes("master"));
    await world.untilOk();
    await untilReached(world.b, late);
    // a primary still, until the Sentinel has looked at it for a while
    await world.server({ port: primary.port });
    const later = await world.b.udp();
    await untilReached(world.a, later);
    for (const beacon of world.beacons) expect(beacon.directory.server).toBe(replica.name);
    await world.expectDelivered();
  },
);

scenario("a cluster that fails over, and then moves the keys to another node", async (world) => {
  const config = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
  const start = () => world.server({ config });
  const nodes = [await start(), await start(), await start(), await start()] as const;
  const [owner, other, third, replica] = nodes;
  const idOf = async (node: RedisServer) => String(await node.command("CLUSTER", "MYID"));
  const owners = async (node: RedisServer) => String(await node.command("CLUSTER", "NODES"));
  const slot = Number(await owner.command("CLUSTER", "KEYSLOT", "{pilot-beacon}:log"));
  const rest = [0, slot - 1, slot + 1, 8191, 8192, 16_383]
    .sort((one, next) => one - next)
    .map(String);
  await owner.command("CLUSTER", "ADDSLOTS", `${slot}`);
  await other.command("CLUSTER", "ADDSLOTSRANGE", ...rest.slice(0, 4));
  await third.command("CLUSTER", "ADDSLOTSRANGE", ...rest.slice(4));
  for (const node of nodes.slice(1))
    await owner.command("CLUSTER", "MEET", node.host, `${node.port}`);
  const untilUp = async (all: readonly RedisServer[]) => {
    for (const node of all)
      await until("the cluster is up", async () =>
        /cluster_state:ok/.test(String(await node.command("CLUSTER", "INFO"))),
      );
  };
  const ownerId = await idOf(owner);
  await until("the replica knows the owner", async () => (await owners(replica)).includes(ownerId));
  await replica.command("CLUSTER", "REPLICATE", ownerId);
  await untilUp(nodes);
  await until("it has caught up", async () =>
    String(await replica.command("INFO", "replication")).includes("master_link_status:up"),
  );

  await world.start({ directory: `redis://${nodes.map(({ name }) => name).join(",")}` });
  for (const beacon of world.beacons) expect(beacon.directory.server).toBe(owner.name);
  await owner.stop();
  const late = await world.a.udp();
  await until("the replica is promoted", async () =>
    (await owners(other))
      .split("\n")
      .some((line) => line.includes(replica.name) && line.includes("master")),
  );
  await world.untilOk();
  for (const beacon of world.beacons) expect(beacon.directory.server).toBe(replica.name);
  await untilReached(world.b, late);

  // As a resharding ends: the keys are no longer there, and their slot is another node's.
  await replica.command("FLUSHALL");
  const otherId = await idOf(other);
  for (const node of [other, third, replica])
    await node.command("CLUSTER", "SETSLOT", `${slot}`, "NODE", otherId);
  const later = await world.b.udp();
  await untilReached(world.a, later);
  await world.untilOk();
  for (const beacon of world.beacons) expect(beacon.directory.server).toBe(other.name);
  await world.expectDelivered();
});

scenario(
  "beacons that end while the server does not answer, and while it is not there",
  async (world) => {
    const server = await world.server();
    const proxy = world.with(await TcpProxy.start(server));
    await world.start(directory(proxy));
    const { a, b } = world;
    await world.expectDelivered();
    proxy.silence();
    // Both timers are this process's: a busy machine delays one like the other.
    const ending = (beacon: FleetBeacon) =>
      Promise.race([
        beacon.close().then(() => "it does not wait for an answer"),
        Bun.sleep(ANSWER_MS).then(() => "it waits"),
      ]);
    await a.udp(); // so that a command is under way
    expect(await ending(a)).toBe("it does not wait for an answer");
    await untilEqual("state", () => b.directory.state, "slow");
    const { accepted } = proxy;
    await until("it tries again", () => proxy.accepted > accepted);
    expect(await ending(b)).toBe("it does not wait for an answer");
  },
);
