/**
 * A beacon's life between start and end: asked to go, asked to read its configuration again,
 * watched by a service manager.
 */

import { afterEach, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { Beacon, type Config, ConfigError } from "../../src/beacon.ts";
import { temporaryFolder, temporaryPaths } from "../support/folder.ts";
import { ScriptedRegistry } from "../support/scripted-registry.ts";
import { UNLIMITED_FLAGS } from "./support/beacon.ts";
import { type Client, Clients } from "./support/client.ts";
import { BeaconProcess, nameOf } from "./support/mesh.ts";
import { Notified } from "./support/notified.ts";
import { expectFree } from "./support/ports.ts";
import { installed, type LogLine, MAIN, type Program, Programs } from "./support/program.ts";
import { inTime, until, untilEqual } from "./support/wait.ts";
import { decodeSync } from "./support/wire.ts";

/** A free port, lines that a test can read, and no more than that needs. */
const FLAGS = [
  "--addr=127.0.0.1:0",
  "--log-format=json",
  "--workers=2",
  "--max-nodes=1000",
  ...UNLIMITED_FLAGS,
];
/** Two signals that are less apart are one that arrived twice. */
const SAME_SIGNAL_MS = 500;

const folder = temporaryFolder();
const newPath = temporaryPaths(folder);

let port = 0;
const clients = new Clients(() => ({ port }));
const programs = new Programs();
const opened: Beacon[] = [];
const registries: ScriptedRegistry[] = [];
afterEach(async () => {
  for (const beacon of opened.splice(0)) await beacon.close();
  await programs.kill();
  for (const registry of registries.splice(0)) await registry.close();
  clients.close();
});

async function startWith(flags: readonly string[], env?: Record<string, string>): Promise<Started> {
  const program = programs.beacon([...FLAGS, "--http=127.0.0.1:0", ...flags], env);
  return started(program);
}

/** A beacon that listens, and where its HTTP is. */
interface Started {
  readonly program: Program;
  readonly http: string;
  readonly beacon: BeaconProcess;
}

async function started(program: Program): Promise<Started> {
  const { port: udpPort, http } = await program.listening();
  port = udpPort;
  return { program, http: http!, beacon: await BeaconProcess.of(program, "127.0.0.1") };
}

const statusOf = async (http: string | URL, path: string) =>
  (await fetch(new URL(path, http))).status;
const bothStatuses = async (http: string | URL) => [
  await statusOf(http, "/readyz"),
  await statusOf(http, "/healthz"),
];

/** Waits until the beacon says that it is going. */
const draining = (http: string | URL) =>
  untilEqual("/readyz and /healthz", () => bothStatuses(http), [503, 503]);

/** Two nodes, registered, and a packet from one to the other at a time. */
class Pair {
  static readonly IDS = [1, 2];
  /** Packets that arrived. */
  delivered = 0;
  #next = 0;

  private constructor(
    private readonly from: Client,
    private readonly to: Client,
  ) {}

  static async register(): Promise<Pair> {
    const [from, to] = [await clients.open(), await clients.open()];
    const [a, b] = Pair.IDS;
    await from.discover(a!);
    await to.discover(b!);
    return new Pair(from, to);
  }

  /** Relays one packet, and waits for it. @throws Error if another one arrives, or none */
  async relay(): Promise<void> {
    const payload = new Uint8Array(100).fill(this.#next++);
    await this.from.relay(1, 2, payload);
    expect(await this.to.message()).toEqual({ type: "deliver", senderId: 1, payload });
    this.delivered++;
  }

  /** Relays without waiting, for a beacon that may be gone; what arrives is counted. */
  async tryRelay(): Promise<void> {
    try {
      await this.from.relay(1, 2, new Uint8Array(100));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ECONNREFUSED") throw error;
    }
    this.delivered += this.to.take().length;
  }
}

/** Sends a signal as soon as the program would not die of it. */
async function signalSoon(program: Program, signal: "SIGHUP" | "SIGTERM"): Promise<void> {
  const bit = 1n << BigInt(constants.signals[signal] - 1);
  const caught = () =>
    /^SigCgt:\s*(\w+)$/m.exec(readFileSync(`/proc/${program.pid}/status`, "utf8"))?.[1];
  await until(`it takes ${signal}`, () => (BigInt(`0x${caught()}`) & bit) !== 0n);
  program.signal(signal);
}

/**
 * Signals a draining beacon again, as the terminal and the service manager do, before that is a
 * second signal.
 */
async function signalledTwice(signal: NodeJS.Signals): Promise<Started & { readonly pair: Pair }> {
  for (let left = 10; left > 0; left--) {
    const beacon = await startWith(["--drain=1h"]);
    const pair = await Pair.register();
    const signalledMs = performance.now();
    beacon.program.signal(signal);
    await draining(beacon.http);
    beacon.program.signal(signal);
    // The machine stood still: the beacon is right to close.
    if (performance.now() - signalledMs < SAME_SIGNAL_MS / 2) return { ...beacon, pair };
    await beacon.program.kill();
  }
  throw new Error("the machine is too busy for two signals in a row");
}

/** Registers a pair and relays a packet. */
async function expectRelays(): Promise<void> {
  await (await Pair.register()).relay();
}

const messages = (log: readonly LogLine[], level: string) =>
  log.filter((line) => line.level === level).map(({ msg }) => msg);

describe("asked to go", () => {
  test("with --drain: not ready and not healthy at once, relays on, and then ends with its port free", async () => {
    const DRAIN_MS = 3000;
    const { program, http } = await startWith([`--drain=${DRAIN_MS}ms`]);
    const pair = await Pair.register();
    await pair.relay();
    const askedMs = performance.now();
    program.signal("SIGTERM");
    let endedMs: number | undefined;
    const ended = program.exited().then((code) => {
      endedMs = performance.now();
      return code;
    });
    await draining(http);
    const deliveredBefore = pair.delivered;
    while (endedMs === undefined) {
      await pair.tryRelay();
      await Bun.sleep(1);
    }
    expect(await ended).toBe(0);
    expect(endedMs - askedMs).toBeGreaterThan(0.95 * DRAIN_MS);
    expect(pair.delivered).toBeGreaterThan(deliveredBefore);
    await expectFree(port);
    expect(program.log().at(-1)!.msg).toBe("beacon closed");
    expect(program.stderr).toBe("");
  });

  test.each(["SIGTERM", "SIGINT"] as const)(
    "it relays all the while, until a second %s",
    async (signal) => {
      const { program, http, pair } = await signalledTwice(signal);
      for (let i = 0; i < 100; i++) await pair.relay();
      await Bun.sleep(SAME_SIGNAL_MS);
      await pair.relay();
      expect(await bothStatuses(http)).toEqual([503, 503]);
      expect((await (await fetch(new URL("/readyz", http))).text()).trim()).toBe("draining");
      program.signal(signal);
      expect(await program.exited()).toBe(0);
      await expectFree(port);
      expect(program.log().at(-1)!.msg).toBe("beacon closed");
      expect(program.stderr).toBe("");
    },
  );

  test("one signal of each sort is two signals", async () => {
    const { program, http } = await startWith(["--drain=1h"]);
    program.signal("SIGINT");
    await draining(http);
    await Bun.sleep(SAME_SIGNAL_MS);
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
  });

  test("without --drain it does not wait", async () => {
    const { program } = await startWith([]);
    await expectRelays();
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
    expect(messages(program.log(), "info")).not.toContain("draining");
    await expectFree(port);
  });

  test("it tells its peers at last that it has no nodes any more", async () => {
    const peer = await clients.open();
    const { program } = await startWith([
      "--beacon-id=7",
      `--peers=${nameOf(peer)}`,
      "--gossip-interval=100ms",
      "--self-check=off",
      "--drain=300ms",
    ]);
    const gossip = () => peer.take().map(({ bytes }) => decodeSync(bytes));
    await expectRelays();
    const heard = gossip();
    await until("gossip of the nodes", () => {
      heard.push(...gossip());
      return heard.at(-1)?.nodeIds.length === 2;
    });
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
    await until("the last gossip", () => {
      heard.push(...gossip());
      return heard.at(-1)?.nodeIds.length === 0;
    });
    expect(heard.at(-1)).toEqual({ beaconId: 7, nodeIds: [] });
    // Before that, and while it drained, it had both.
    const before = heard.at(-2)!;
    expect({ ...before, nodeIds: before.nodeIds.sort() }).toEqual({
      beaconId: 7,
      nodeIds: Pair.IDS,
    });
  });
});

describe.skipIf(!installed("cc"))(
  `a disk that hangs${installed("cc") ? "" : " (needs cc)"}`,
  () => {
    const refuse = join(folder, "refuse");
    beforeAll(() => {
      const source = join(import.meta.dir, "support/refuse.c");
      const compiled = Bun.spawnSync(["cc", "-Wall", "-Werror", "-o", refuse, source], {
        stderr: "pipe",
      });
      expect(compiled.stderr.toString()).toBe("");
    });

    test("holds up neither relays nor, when asked twice, the end", async () => {
      const flags = [...FLAGS, "--http=127.0.0.1:0", `--state-file=${newPath()}`];
      const { program, beacon } = await started(
        programs.spawn([refuse, "disk", process.execPath, MAIN, ...flags]),
      );
      await expectRelays();
      expect((await beacon.stats()).stateSavedS).toBeNull(); // the first save is still at it
      program.signal("SIGTERM");
      await Bun.sleep(2 * SAME_SIGNAL_MS);
      process.kill(program.pid, 0); // it is still there
      program.signal("SIGTERM");
      expect(await program.exited()).toBe(0);
    });
  },
);

describe("SIGHUP", () => {
  const path = newPath();
  const write = (content: unknown) =>
    writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));

  /** Starts a beacon with this in its config file. */
  async function configured(
    content: Record<string, unknown>,
    ...flags: string[]
  ): Promise<Started> {
    write(content);
    return startWith([`--config=${path}`, ...flags]);
  }

  /** Has the beacon read its configuration again. @returns what it says of that */
  async function reload(program: Program): Promise<LogLine> {
    const from = program.lines.length;
    program.signal("SIGHUP");
    return program.logged(/^configuration (not )?reloaded/, from);
  }

  test("the log's level, the peers, the time to drain", async () => {
    const [one, two] = [await clients.open(), await clients.open()];
    const gossip = { "gossip-interval": "100ms", "self-check": "off" };
    const { program, http, beacon } = await configured({ ...gossip, peers: [nameOf(one)] });
    const pair = await Pair.register();
    expect(Object.keys(await beacon.routes())).toEqual([nameOf(one)]);

    write({ ...gossip, peers: [nameOf(two)], "log-level": "error", drain: "1h" });
    program.signal("SIGHUP");
    await untilEqual("peers", async () => Object.keys(await beacon.routes()), [nameOf(two)]);
    const { nodeIds } = await until("gossip of the nodes to the new peer", () =>
      two
        .take()
        .map(({ bytes }) => decodeSync(bytes))
        .find((gossip) => gossip.nodeIds.length > 0),
    );
    expect(nodeIds.sort()).toEqual(Pair.IDS);
    one.take();
    // which is less than an error
    expect(messages(program.log(), "info")).not.toContain("configuration reloaded");

    write({ ...gossip, peers: [nameOf(two)], drain: "1h" });
    expect(await reload(program)).toMatchObject({ level: "info", changed: ["--log-level"] });
    expect(one.pending).toBe(0);

    program.signal("SIGTERM");
    await draining(http);
    await pair.relay();
    program.signal("SIGHUP"); // too late for anything
    await pair.relay();
    expect(await bothStatuses(http)).toEqual([503, 503]);
    await Bun.sleep(SAME_SIGNAL_MS);
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
    expect(program.log().filter(({ msg }) => msg === "configuration reloaded")).toHaveLength(1);
  });

  test("the token in its file", async () => {
    const registry = await ScriptedRegistry.listen();
    registries.push(registry);
    const tokenPath = newPath();
    writeFileSync(tokenPath, "first-s3cret\n");
    const { program } = await configured({
      registry: `127.0.0.1:${registry.port}`,
      "beacon-id": 9,
      "registry-interval": "100ms",
      "registry-admin-token-file": tokenPath,
    });
    const registersWith = (token: string) =>
      until(
        `it registers with ${token}`,
        () =>
          registry.requests.at(-1)?.["admin_token"] === token ||
          registry.requests.at(-2)?.["admin_token"] === token,
      );
    await registersWith("first-s3cret");

    writeFileSync(tokenPath, "second-s3cret\n");
    expect(await reload(program)).toMatchObject({
      level: "info",
    });
    await registersWith("second-s3cret");

    rmSync(tokenPath);
    expect(await reload(program)).toMatchObject({
      level: "error",
      msg: expect.stringMatching(/the token file cannot be read \(ENOENT\)$/),
    });
    registry.requests.length = 0;
    await registersWith("second-s3cret");
    expect(program.output()).not.toContain("s3cret");
  });

  test("what needs a restart is named, and stays as it is", async () => {
    const { program, beacon } = await configured({ "max-nodes": 2000 });
    await expectRelays();
    // The flag outranks the file.
    write({ "max-nodes": 3000, "node-ttl": "1h", "state-file": newPath(), drain: "5s" });
    const from = program.lines.length;
    expect(await reload(program)).toMatchObject({ level: "info", changed: ["--drain"] });
    const warning = await program.logged(/restart/, from);
    expect(warning).toMatchObject({
      level: "warn",
      msg: "changed only by a restart: --node-ttl, --state-file",
    });
    expect((await beacon.stats()).nodesMax).toBe(1000);
    expect(await reload(program)).toMatchObject({ level: "info", changed: [] });
    await expectRelays();
  });

  test("a bad file: the reason is logged, and the configuration stays", async () => {
    const peer = await clients.open();
    const good = { peers: [nameOf(peer)], "gossip-interval": "100ms" };
    const { program, beacon } = await configured(good);
    const pair = await Pair.register();
    const bad: [content: unknown, reason: string][] = [
      ['{"drain": "5s"', "the config file is not JSON: "],
      [[], "the config file must hold one JSON object"],
      [{ peers: [], color: "red" }, "color: unknown key (the keys are the flags in --help)"],
      [{ peers: [], drain: "soon" }, '"drain": "soon": must be a duration'],
      [{ peers: ["nowhere"] }, '"peers": [...]: nowhere: must be host:port'],
      [
        { "peer-timeout": "1s", peers: [] },
        "--peer-timeout: must be longer than --gossip-interval, 10000ms",
      ],
      [{ registry: "127.0.0.1:1", "beacon-id": 5, peers: [] }, "--registry needs --beacon-id: "],
      ["x".repeat(2 << 20), "the config file is larger than 1048576 bytes"],
    ];
    for (const [content, reason] of bad) {
      write(content);
      const { level, msg } = await reload(program);
      expect(level).toBe("error");
      expect(msg).toStartWith("configuration not reloaded, the one in force stays: ");
      expect(msg).toContain(reason);
      await pair.relay();
    }
    rmSync(path);
    const { level, msg } = await reload(program);
    expect(level).toBe("error");
    expect(msg).toEndWith(`${path}: the config file cannot be read (ENOENT)`);
    await pair.relay();

    expect(Object.keys(await beacon.routes())).toEqual([nameOf(peer)]);
    peer.take();
    await peer.next(); // gossip goes on
    write(good);
    expect(await reload(program)).toMatchObject({ level: "info", changed: [] });
    expect(program.stderr).toBe("");
  });

  test("20 in a row, with other peers each time: no packet is lost", async () => {
    const peers = [await clients.open(), await clients.open()];
    const { program, beacon } = await configured({ peers: [nameOf(peers[0]!)] });
    const pair = await Pair.register();
    for (let i = 1; i <= 20; i++) {
      write({ peers: [nameOf(peers[i % 2]!)], "gossip-interval": `${100 + i}ms` });
      let isReloaded = false;
      const reloading = reload(program).then(({ changed }) => {
        isReloaded = true;
        expect(changed).toEqual(["--peers", "--gossip-interval"]);
      });
      while (!isReloaded) await pair.relay();
      await reloading;
    }
    write({ peers: peers.map(nameOf) });
    // And these without a look at what became of the one before.
    for (let i = 1; i <= 20; i++) {
      program.signal("SIGHUP");
      await pair.relay();
    }
    await untilEqual(
      "peers",
      async () => Object.keys(await beacon.routes()).sort(),
      peers.map(nameOf).sort(),
    );
    await pair.relay();
    const { delivered } = pair;
    await untilEqual("relays", () => beacon.relays(), {
      received: delivered,
      local: delivered,
      peer: 0,
      notFound: 0,
    });
    expect(messages(program.log(), "error")).toEqual([]);
    expect(program.stderr).toBe("");
  });

  test("while it starts: it does so once it listens", async () => {
    const program = programs.beacon([...FLAGS, "--http=off"]);
    await signalSoon(program, "SIGHUP");
    await program.logged(/^configuration reloaded/);
    const listens = program.log().findIndex(({ msg }) => msg.includes("listens on"));
    expect(listens).toBeWithin(0, program.log().length - 1);
    ({ port } = await program.listening());
    await expectRelays();
  });

  test("without a config file: nothing changes", async () => {
    const { program } = await startWith([]);
    expect(await reload(program)).toMatchObject({ level: "info", changed: [] });
    await expectRelays();
    expect(messages(program.log(), "warn")).toEqual([]);
  });
});

describe("as a library", () => {
  function create(options: Partial<Config> = {}): Beacon {
    const common = { addr: "127.0.0.1:0", http: "127.0.0.1:0", workers: 2, maxNodes: 1000 };
    const beacon = new Beacon({ ...common, ...options });
    opened.push(beacon);
    return beacon;
  }

  async function listening(options: Partial<Config> = {}): Promise<Beacon> {
    const beacon = create(options);
    await beacon.listen();
    ({ port } = beacon.address);
    return beacon;
  }

  const peersOf = (beacon: Beacon) => beacon.stats().mesh.peers.map(({ address }) => address);
  const PEER = "127.0.0.1:9";

  test("reconfigure takes what can change, and names the rest", async () => {
    const beacon = await listening();
    const { addr } = beacon.config;
    const changes = beacon.reconfigure({
      ...beacon.config,
      peers: [PEER],
      drainMs: 5,
      workers: 3,
      maxNodes: 5,
    });
    expect(changes).toEqual({
      reloaded: ["peers", "drainMs"],
      needRestart: ["maxNodes", "workers"],
    });
    expect(beacon.config).toMatchObject({
      addr,
      peers: [PEER],
      drainMs: 5,
      workers: 2,
      maxNodes: 1000,
    });
    await untilEqual("peers", () => peersOf(beacon), [PEER]);
    await expectRelays();
  });

  test("a bad option, or one that does not go with the rest, changes nothing", async () => {
    const beacon = await listening({ peers: [PEER], drainMs: 7 });
    const before = beacon.config;
    const bad: Partial<Config>[] = [
      { drainMs: -1 },
      { peers: ["nowhere"] },
      { gossipIntervalMs: 5000, peerTimeoutMs: 5000 },
      { registry: "127.0.0.1:1", beaconId: 5 }, // the id takes a restart
      { registryAdminTokenFile: join(folder, "missing") },
      { colour: "red" } as Partial<Config>,
    ];
    for (const options of bad) {
      expect(() => beacon.reconfigure({ ...options, peers: options.peers ?? [] })).toThrow(
        ConfigError,
      );
      expect(beacon.config).toBe(before);
    }
    expect(peersOf(beacon)).toEqual([PEER]);
    await expectRelays();
  });

  test("reconfigure before, while and after it listens", async () => {
    const beacon = create();
    beacon.reconfigure({ ...beacon.config, drainMs: 1 });
    const starting = beacon.listen();
    beacon.reconfigure({ ...beacon.config, peers: [PEER] });
    await starting;
    expect(peersOf(beacon)).toEqual([PEER]);
    await beacon.close();
    expect(beacon.reconfigure({ ...beacon.config, peers: [] })).toEqual({
      reloaded: ["peers"],
      needRestart: [],
    });
  });

  test("drain twice is once, and close ends it", async () => {
    const beacon = await listening({ drainMs: 3_600_000 });
    const pair = await Pair.register();
    let settled = 0;
    const drains = [beacon.drain(), beacon.drain()].map((drain) => drain.then(() => settled++));
    expect(await bothStatuses(beacon.httpUrl!)).toEqual([503, 503]);
    expect(beacon.stats().healthy).toBe(false);
    await pair.relay();
    expect(settled).toBe(0);
    await inTime("it closes", beacon.close());
    await inTime("both drains are over", Promise.all(drains));
    await inTime("closed settles", beacon.closed);
    await expectFree(port);
  });

  test("drain is over when its time is", async () => {
    const beacon = await listening({ drainMs: 100 });
    const startMs = performance.now();
    await inTime("it closes", beacon.drain());
    expect(performance.now() - startMs).toBeGreaterThan(95);
    expect(() => beacon.address).toThrow("not listening");
    await inTime("closed settles", beacon.closed);
  });

  test("drain after close, and before listen", async () => {
    const closed = await listening({ drainMs: 3_600_000 });
    await closed.close();
    await inTime("there is nothing to drain", closed.drain());
    const fresh = create();
    await inTime("there is nothing to drain", fresh.drain());
    await expect(fresh.listen()).rejects.toThrow("closed");
  });

  test("drain while it starts", async () => {
    const beacon = create();
    const starting = beacon.listen();
    await inTime("it closes", beacon.drain());
    await starting;
    expect(() => beacon.address).toThrow("not listening");
  });
});

const python = installed("python3");
describe.skipIf(!python)(`a service manager${python ? "" : " (needs python3)"}`, () => {
  /** How often the service manager wants to hear from it, in µs. */
  const WATCHDOG_USEC = "200000";
  const isWatchdog = (text: string) => text === "WATCHDOG=1";

  test("is told when it serves, reads its configuration again, and stops", async () => {
    const manager = await Notified.bind(programs, newPath());
    const config = newPath();
    writeFileSync(config, "{}");
    const { program, http } = await startWith([`--config=${config}`, "--drain=1h"], {
      NOTIFY_SOCKET: manager.path,
    });
    expect(await manager.text(/READY/)).toBe("READY=1 STATUS=serving");
    await expectRelays(); // and each packet is answered at the first try

    for (const content of ["{}", "{"]) {
      writeFileSync(config, content);
      const from = manager.texts.length;
      program.signal("SIGHUP");
      expect(await manager.text(/READY/, from)).toBe("READY=1 STATUS=serving");
      expect(manager.texts.slice(from)).toEqual([
        expect.stringMatching(/^RELOADING=1 MONOTONIC_USEC=\d+$/),
        "READY=1 STATUS=serving",
      ]);
    }

    program.signal("SIGTERM");
    const CLOSE_S = 30;
    const extendUs = (3600 + CLOSE_S) * 1_000_000;
    const stopping = `STOPPING=1 EXTEND_TIMEOUT_USEC=${extendUs} STATUS=draining`;
    expect(await manager.text(/STOPPING/)).toBe(stopping);
    await draining(http);
    program.signal("SIGHUP"); // it has said that it stops, and keeps to that
    await Bun.sleep(SAME_SIGNAL_MS);
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
    expect(manager.texts.at(-1)).toBe(stopping);
    expect(manager.texts).toHaveLength(6);
    expect(messages(program.log(), "warn")).toEqual([]);
  });

  test("is not told that it serves once it is told that it stops", async () => {
    const manager = await Notified.bind(programs, newPath());
    const program = programs.beacon([...FLAGS, "--http=off"], { NOTIFY_SOCKET: manager.path });
    await signalSoon(program, "SIGTERM"); // most likely while it starts
    expect(await program.exited()).toBe(0);
    expect(await manager.text(/STOPPING/)).toBe(manager.texts.at(-1)!);
    expect(program.stderr).toBe("");
  });

  test("hears that it is alive, again and again, until it ends", async () => {
    const manager = await Notified.bind(programs, newPath());
    const { program, http } = await startWith(["--drain=1h"], {
      NOTIFY_SOCKET: manager.path,
      WATCHDOG_USEC,
    });
    const watchdogs = () => manager.texts.filter(isWatchdog).length;
    await until("five signs of life", () => watchdogs() >= 5);
    expect(manager.texts.findIndex(isWatchdog)).toBeGreaterThan(0); // READY is the first
    program.signal("SIGTERM");
    await draining(http);
    const before = watchdogs();
    await until("signs of life while it drains", () => watchdogs() >= before + 3);
  });

  test("that is not there is one warning, and no more", async () => {
    const { program } = await startWith([], {
      NOTIFY_SOCKET: join(folder, "nobody"),
      WATCHDOG_USEC,
    });
    await expectRelays();
    const from = program.lines.length;
    program.signal("SIGHUP");
    await program.logged(/^configuration reloaded/, from);
    await expectRelays();
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
    expect(messages(program.log(), "warn")).toEqual([
      expect.stringMatching(/^the service manager was not notified: .*ENOENT/),
    ]);
  });
});
