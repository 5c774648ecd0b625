/** A beacon's life as a library: opened, used, closed, and nothing left of it. */

import { afterEach, describe, expect, mock, spyOn, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { UdpSocket } from "../../ffi/socket.ts";
import { Beacon, SyscallError } from "../../src/beacon.ts";
import { Announcer } from "../../src/control/directory/announcer.ts";
import { Mesh } from "../../src/control/mesh/mesh.ts";
import { Reaper } from "../../src/control/nodes/expiry.ts";
import { Services } from "../../src/control/services.ts";
import { recordedLog } from "../support/log.ts";
import { REDIS, RedisServers } from "../support/redis.ts";
import { UNLIMITED } from "./support/beacon.ts";
import { Clients } from "./support/client.ts";
import { expectFree } from "./support/ports.ts";
import { inTime, until, untilEqual } from "./support/wait.ts";

type Options = ConstructorParameters<typeof Beacon>[0];

const opened: Beacon[] = [];
afterEach(async () => {
  for (const beacon of opened.splice(0)) await beacon.close();
});

function create(options: Options = {}, log?: ConstructorParameters<typeof Beacon>[1]): Beacon {
  const beacon = new Beacon(
    { addr: "127.0.0.1:0", workers: 2, maxNodes: 1000, ...UNLIMITED, ...options },
    log,
  );
  opened.push(beacon);
  return beacon;
}

async function listening(options: Options = {}): Promise<Beacon> {
  const beacon = create(options);
  await beacon.listen();
  return beacon;
}

/** Relays a packet through a beacon from node to node. */
async function expectRelays(beacon: Beacon): Promise<void> {
  const clients = new Clients(() => beacon.address);
  try {
    const [a, b] = [await clients.open(), await clients.open()];
    await a.discover(1);
    await b.discover(2);
    await a.relay(1, 2, new Uint8Array([7]));
    expect(await b.message()).toEqual({
      type: "deliver",
      senderId: 1,
      payload: new Uint8Array([7]),
    });
  } finally {
    clients.close();
  }
}

async function failure(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error("it did not fail");
}

/**
 * What a beacon takes of its process. Threads that the runtime starts for itself have other names.
 */
const held = () => ({
  fds: readdirSync("/proc/self/fd").length,
  workerThreads: readdirSync("/proc/self/task").filter((task) => threadName(task) === "Worker")
    .length,
});

function threadName(task: string): string {
  try {
    return readFileSync(`/proc/self/task/${task}/comm`, "utf8").trim();
  } catch {
    return ""; // it ended meanwhile
  }
}

/**
 * Waits until this process holds no more than before; a closed worker's thread takes a moment to
 * end.
 */
async function expectHeldAtMost(before: ReturnType<typeof held>): Promise<void> {
  let now = held();
  try {
    await until("all is given back", () => {
      now = held();
      return now.fds <= before.fds && now.workerThreads <= before.workerThreads;
    });
  } catch {
    expect(now).toEqual(before);
  }
}

describe("listen", () => {
  test("address and stats are there after it, not before", async () => {
    const beacon = create();
    expect(() => beacon.address).toThrow("not listening");
    expect(() => beacon.stats()).toThrow("not listening");
    expect(beacon.httpUrl).toBeUndefined();
    await beacon.listen();
    expect(beacon.address).toEqual({
      address: "127.0.0.1",
      port: beacon.address.port,
      family: "IPv4",
    });
    expect(beacon.address.port).toBeGreaterThan(0);
    expect(beacon.stats().workers.map(({ alive }) => alive)).toEqual([true, true]);
    expect(held().workerThreads).toBe(2);
    await beacon.close();
    expect(() => beacon.address).toThrow("not listening");
  });

  test("twice is once", async () => {
    const beacon = create();
    const [first, second] = [beacon.listen(), beacon.listen()];
    await Promise.all([first, second]);
    const { port } = beacon.address;
    await beacon.listen();
    expect(beacon.address.port).toBe(port);
    await expectRelays(beacon);
  });

  test("not again after close", async () => {
    const beacon = await listening();
    await beacon.close();
    expect((await failure(beacon.listen())).message).toContain("closed");
  });

  test.each([1, 2, 4])("a port that is taken, asked for by %i workers", async (workers) => {
    for (const holders of [1, 2]) {
      const holder = await listening({ workers: holders });
      const { port } = holder.address;
      const before = held();
      const second = create({ addr: `127.0.0.1:${port}`, workers });
      const error = await failure(second.listen());
      expect(error).toBeInstanceOf(SyscallError);
      expect((error as SyscallError).code).toBe("EADDRINUSE");
      expect(error.message).toContain(`127.0.0.1:${port}`);
      expect(error.message).toMatch(/in use|another/i);
      await expectHeldAtMost(before);
      await expectRelays(holder); // which lost nothing to the one that failed
      await second.close();
    }
  });

  test("a port that somebody else has", async () => {
    const socket = await Bun.udpSocket({ hostname: "127.0.0.1", port: 0 });
    const error = await failure(create({ addr: `127.0.0.1:${socket.port}` }).listen());
    expect((error as SyscallError).code).toBe("EADDRINUSE");
    socket.close();
  });

  test("an address that is not this host's", async () => {
    const error = await failure(create({ addr: "192.0.2.1:0" }).listen());
    expect(error).toBeInstanceOf(SyscallError);
    expect((error as SyscallError).code).toBe("EADDRNOTAVAIL");
    expect(error.message).toContain("192.0.2.1:0");
  });

  test("an HTTP port that is taken: an error, and nothing stays open", async () => {
    const holder = await listening({ http: "127.0.0.1:0" });
    const before = held();
    const error = await failure(create({ http: holder.httpUrl!.host }).listen());
    expect(error.message).toContain("EADDRINUSE");
    expect(error.message).toContain(holder.httpUrl!.host);
    await expectHeldAtMost(before);
  });
});

describe("close", () => {
  test("more than once is once", async () => {
    const beacon = await listening();
    const [first, second] = [beacon.close(), beacon.close()];
    await Promise.all([first, second]);
    await beacon.close();
    await inTime("closed settles", beacon.closed);
  });

  test("before listen", async () => {
    const beacon = create();
    await beacon.close();
    await inTime("closed settles", beacon.closed);
    expect((await failure(beacon.listen())).message).toContain("closed");
  });

  test("while it starts", async () => {
    const before = held();
    const beacon = create();
    const starting = beacon.listen();
    await beacon.close();
    await starting;
    await inTime("closed settles", beacon.closed);
    expect(() => beacon.address).toThrow("not listening");
    await expectHeldAtMost(before);
  });

  test("after a start that failed", async () => {
    const beacon = create({ addr: "192.0.2.1:0" });
    await failure(beacon.listen());
    await beacon.close();
    await inTime("closed settles", beacon.closed);
  });

  test("under load it ends all the same, and its port is free", async () => {
    const beacon = await listening();
    const { port } = beacon.address;
    const clients = new Clients(() => ({ port }));
    const client = await clients.open();
    await client.discover(1);
    let loading = true;
    const load = (async () => {
      while (loading) {
        for (let i = 0; i < 50; i++) await client.relay(2, 1, new Uint8Array(1200));
        client.take();
        await Bun.sleep(0);
      }
    })();
    await inTime("it closes", beacon.close());
    loading = false;
    await load;
    clients.close();
    await expectFree(port);
  });

  test("says so in the log, with the statistics of its life", async () => {
    const { log, lines } = recordedLog();
    const beacon = create({}, log);
    await beacon.listen();
    await expectRelays(beacon);
    await beacon.close();
    expect(lines.at(-1)?.["msg"]).toBe("beacon closed");
    const statistics = lines.find(({ msg }) => msg === "statistics");
    expect(statistics).toMatchObject({ nodes: 2, received: 3, discovers: 2, relayed: 1 });
  });
});

describe("a part that throws", () => {
  afterEach(() => {
    mock.restore();
  });

  function logged() {
    const { log, lines } = recordedLog();
    const messages = () => lines.map(({ msg }) => msg);
    return { log, messages };
  }

  test.skipIf(REDIS.program === undefined)(
    `in the directory is counted and shown, and the directory starts anew${REDIS.program ? "" : " (needs redis-server)"}`,
    async () => {
      const servers = new RedisServers();
      try {
        const { name } = await servers.start();
        const { log, lines } = recordedLog();
        const next = spyOn(Announcer.prototype, "next").mockImplementation(() => {
          throw new TypeError("no luck");
        });
        const options = { directory: `redis://${name}`, beaconId: 7, http: "127.0.0.1:0" };
        const beacon = create({ ...options, directoryLeaseMs: 3000 }, log);
        await beacon.listen();
        const { address } = beacon;
        await until("errors", () => (beacon.stats().internalErrors["the directory"] ?? 0) >= 2);
        expect(beacon.stats().directory).toMatchObject({ state: "internal_error", failures: {} });
        expect(beacon.warnings.join()).toMatch(
          /directory: internal_error for \d+ s: no luck: report/,
        );
        const clients = new Clients(() => address);
        const client = await clients.open();
        await client.discover(1);
        await client.relay(1, 1, Uint8Array.of(7));
        expect(await client.message()).toMatchObject({ type: "deliver" });
        clients.close();
        const logged = lines.filter(({ event }) => event === "internal_error");
        expect(logged).toMatchObject([{ level: "error", work: "the directory" }]);
        expect(JSON.stringify(logged)).toContain("TypeError");
        next.mockRestore();
        await untilEqual("the directory", () => beacon.stats().directory?.state, "ok");
        await beacon.close();
      } finally {
        await servers.stop();
      }
    },
  );

  test("at the end keeps nothing open, and close settles", async () => {
    const { log, messages } = logged();
    const before = held();
    const beacon = create({ http: "127.0.0.1:0" }, log);
    await beacon.listen();
    const { port } = beacon.address;
    const { stop } = Mesh.prototype;
    spyOn(Mesh.prototype, "stop").mockImplementation(async function (this: Mesh) {
      await stop.call(this);
      throw new Error("no luck");
    });
    spyOn(UdpSocket.prototype, "stopReceiving").mockImplementation(() => {
      throw new Error("no luck");
    });
    spyOn(Services.prototype, "summary").mockImplementation(() => {
      throw new Error("no luck");
    });
    await inTime("it closes", beacon.close());
    await inTime("closed settles", beacon.closed);
    await expectFree(port);
    await expectHeldAtMost(before);
    expect(messages()).toContainEqual(expect.stringMatching(/^stopping mesh failed/));
    expect(messages()).toContainEqual(expect.stringMatching(/^stopping statistics failed/));
    expect(messages().at(-1)).toBe("beacon closed");
  });

  test("in a tick keeps no other part from its own, and is logged once", async () => {
    const { log, messages } = logged();
    spyOn(Reaper.prototype, "tick").mockImplementation(() => {
      throw new Error("no luck");
    });
    const ticked = spyOn(Mesh.prototype, "tick");
    const beacon = create({}, log);
    await beacon.listen();
    await until("two ticks", () => ticked.mock.calls.length > 1);
    await beacon.close();
    expect(messages().filter((line) => line.startsWith("nodes failed"))).toHaveLength(1);
  });
});

describe("many", () => {
  test("20 in turn on one port leave no thread, socket or memory behind", async () => {
    const MEMORY_GROWTH_MAX = 100 << 20;
    // The first ones bring up what the runtime keeps for good.
    for (let i = 0; i < 2; i++) await (await listening({ http: "127.0.0.1:0" })).close();
    Bun.gc(true);
    const before = held();
    const residentBefore = process.memoryUsage.rss();
    let port = 0;
    for (let i = 0; i < 20; i++) {
      const beacon = await listening({ addr: `127.0.0.1:${port}`, http: "127.0.0.1:0" });
      port = beacon.address.port;
      await expectRelays(beacon);
      await beacon.close();
    }
    await expectFree(port);
    await expectHeldAtMost(before);
    Bun.gc(true);
    // One beacon's receive buffers alone are 8 MiB.
    expect(process.memoryUsage.rss() - residentBefore).toBeLessThan(MEMORY_GROWTH_MAX);
  });

  test("several in one process do not know each other", async () => {
    const beacons = await Promise.all([1, 2, 3].map((workers) => listening({ workers })));
    expect(new Set(beacons.map(({ address }) => address.port)).size).toBe(3);
    for (const beacon of beacons) await expectRelays(beacon);
    await beacons[0]!.close();
    for (const beacon of beacons.slice(1)) {
      await expectRelays(beacon);
      expect(beacon.stats().nodes).toBe(2);
    }
  });
});

describe("health", () => {
  test("setHealthy is what /healthz says, and changes nothing else", async () => {
    const beacon = await listening({ http: "127.0.0.1:0" });
    const status = async (path: string) => (await fetch(new URL(path, beacon.httpUrl))).status;
    expect(await status("/healthz")).toBe(200);
    beacon.setHealthy(false);
    expect(await status("/healthz")).toBe(503);
    expect(await status("/readyz")).toBe(200);
    expect(beacon.stats().healthy).toBe(false);
    await expectRelays(beacon);
    beacon.setHealthy(true);
    expect(await status("/healthz")).toBe(200);
  });

  test("nobody answers HTTP after close", async () => {
    const beacon = await listening({ http: "127.0.0.1:0" });
    const url = new URL("/healthz", beacon.httpUrl);
    expect((await fetch(url)).status).toBe(200);
    await beacon.close();
    expect(beacon.httpUrl).toBeUndefined();
    await failure(fetch(url));
  });
});
