/** Upgrades: one process hands over to another, and whatever happens, one of them serves. */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { endpointOf } from "../../ffi/endpoint.ts";
import { UnixChannel } from "../../ffi/unix-channel.ts";
import { Beacon, type Stats, UpgradeError } from "../../src/beacon.ts";
import { Channel, type Kind } from "../../src/control/hand-over/channel.ts";
import { FORMAT, frameSection } from "../../src/control/hand-over/format.ts";
import { RECORD_WORDS_WITH_KEY, writeRecord } from "../../src/control/nodes/record.ts";
import { openSockets } from "../../src/control/sockets/sockets.ts";
import { temporaryFolder } from "../support/folder.ts";
import { NodeIdentity } from "../support/pilot-node.ts";
import { BridgedNode, KnownNodes } from "./support/bridged.ts";
import { type Client, Clients, numbersOf, stream } from "./support/client.ts";
import { freePort } from "./support/mesh.ts";
import { Notified } from "./support/notified.ts";
import { CLEAN_ENV, installed, isAlive, MAIN, type Program, Programs } from "./support/program.ts";
import { inTime, until, untilEqual } from "./support/wait.ts";
import { discover, relay, sync } from "./support/wire.ts";

const FAKE = join(import.meta.dir, "support/fake-successor.ts");
const FLAGS = ["--addr=127.0.0.1:0", "--http=off", "--log-format=json", "--max-nodes=1000"];
const BUFFER_BYTES = 1 << 20;
const TOKEN = "0123456789abcdef0123456789abcdef";

const folder = temporaryFolder();
const programs = new Programs();
/** Processes that took over: nobody's children any more. */
const successors: number[] = [];
afterEach(async () => {
  for (const pid of successors.splice(0)) kill(pid);
  await programs.kill();
});

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {} // it has ended
}

let port = 0;
const clients = new Clients(() => ({ port }));
afterEach(() => clients.close());

/** Waits until a program has handed over. @returns the other process */
async function handedOver(program: Program, from = 0): Promise<number> {
  const { successor } = await program.logged(/serves; this one ends$/, from);
  successors.push(successor as number);
  return successor as number;
}

/** Registers a node, and has it reach itself by relay. */
async function expectServed(client: Client, nodeId: number): Promise<void> {
  await client.send(relay(nodeId, nodeId, Uint8Array.of(1)));
  expect(await client.message()).toMatchObject({ type: "deliver", senderId: nodeId });
}

test("no packet is lost, none is overtaken, and all nodes stay", async () => {
  const unlimited = ["--relay-limit=0", "--relay-address-limit=0"];
  const program = programs.beacon([...FLAGS, "--workers=2", "--http=127.0.0.1:0", ...unlimited]);
  ({ port } = await program.listening());
  const nodes = await Promise.all(
    Array.from({ length: 20 }, async (_, i) => {
      const client = await clients.open();
      await client.discover(100 + i);
      return client;
    }),
  );
  const [a, b] = [nodes[0]!, nodes[1]!];
  const stops = [stream(a, 100, 101, b), stream(b, 101, 100, a)];
  await Bun.sleep(100);
  program.signal("SIGUSR2");
  const pid = await handedOver(program);
  await until("the old process ends", () => !isAlive(program.pid));
  expect(isAlive(pid)).toBe(true);
  const sent = await Promise.all(stops.map((stop) => stop()));
  const arrived: number[][] = [[], []];
  await untilEqual(
    "packets that arrived",
    () => {
      arrived[0]!.push(...numbersOf(b));
      arrived[1]!.push(...numbersOf(a));
      return arrived.map((numbers) => numbers.length);
    },
    sent,
  );
  for (const numbers of arrived) expect(numbers).toEqual(numbers.map((_, i) => i));
  const sender = await clients.open();
  for (const [i, node] of nodes.entries()) {
    await sender.relay(1, 100 + i, Uint8Array.of(i));
    expect(await node.message()).toMatchObject({ type: "deliver", payload: Uint8Array.of(i) });
  }
  // Again, from the one that was started so.
  const lines = program.lines.length;
  process.kill(pid, "SIGUSR2");
  const next = await handedOver(program, lines);
  await until("that one ends, too", () => !isAlive(pid));
  await expectServed(a, 100);
  process.kill(next, "SIGTERM");
  await until("the last one ends", () => !isAlive(next));
  expect(program.log().filter(({ level }) => level === "error" || level === "fatal")).toEqual([]);
});

test("one may hand over while the one before it still ends", async () => {
  const http = `127.0.0.1:${freePort()}`;
  const program = programs.beacon([...FLAGS, "--workers=2", `--http=${http}`]);
  ({ port } = await program.listening());
  const node = await clients.open();
  await node.discover(100);
  const pids = [program.pid];
  for (let i = 0; i < 3; i++) {
    const lines = program.lines.length;
    process.kill(pids.at(-1)!, "SIGUSR2");
    pids.push(await handedOver(program, lines));
  }
  await until("all but the last have ended", () => !pids.slice(0, -1).some(isAlive));
  await expectServed(node, 100);
  // Sockets that one of them had shut down would bring nothing, again and again.
  const { workers } = (await (await fetch(`http://${http}/api/stats`)).json()) as Stats;
  const messages = workers.reduce((sum, { receiveBatch }) => sum + receiveBatch.messages, 0);
  expect(messages).toBe(1);
});

test("routes, keys, breakers and used-up limits go over; nodes on WebSockets are sent there", async () => {
  const [token, keys] = [join(folder, "token"), join(folder, "keys.json")];
  const known = new KnownNodes();
  const identity = known.identity(300);
  writeFileSync(token, TOKEN);
  writeFileSync(keys, known.file());
  const peer = await clients.open(); // its own address matters, not that of a beacon
  const wssPort = freePort();
  const program = programs.beacon([
    ...[...FLAGS.filter((flag) => flag !== "--http=off"), "--http=127.0.0.1:0", "--workers=2"],
    ...[`--peers=127.0.0.1:${peer.address.port}`, "--require-punch-grant=on", "--new-node-limit=1"],
    ...[`--admin-token-file=${token}`, `--wss=127.0.0.1:${wssPort}`, `--wss-keys=${keys}`],
  ]);
  const { port: udpPort, http } = await program.listening();
  port = udpPort;
  const stats = async (of: string) =>
    (await (await fetch(new URL("api/stats", of))).json()) as Stats;

  await peer.send(sync(2, [900]), { address: "127.0.0.1", port });
  await untilEqual("routes", async () => (await stats(http!)).mesh.peers[0]?.routes, 1);
  const node = await clients.open();
  await node.discover(7, NodeIdentity.create(7).publicKey);
  const bridged = await BridgedNode.connect(`ws://127.0.0.1:${wssPort}/v1/compat`, identity);
  const body = JSON.stringify({ on: false });
  const headers = { authorization: `Bearer ${TOKEN}` };
  await fetch(new URL("api/breakers/punch", http), { method: "POST", body, headers });
  // New nodes of one address, until it may have no more.
  const crowd = await clients.open();
  const limitedMs = performance.now();
  for (let id = 1000; id < 1050; id++) await crowd.send(discover(id));
  await until("the limit", async () =>
    (await stats(http!)).workers.some(({ limited }) => limited["new_node"]! > 0),
  );
  const before = (await stats(http!)).nodes;

  const from = program.lines.length;
  program.signal("SIGUSR2");
  await handedOver(program);
  const next = (await program.logged(/listens on/, from))["http"] as string;
  for (let id = 2000; id < 2050; id++) await crowd.send(discover(id));
  await until("the limit", async () =>
    (await stats(next)).workers.some(({ limited }) => limited["new_node"]! > 0),
  );
  const passedS = (performance.now() - limitedMs) / 1000;
  expect((await stats(next)).nodes).toBeLessThanOrEqual(before + passedS + 1);

  peer.take(); // its own gossip
  await node.relay(7, 900, Uint8Array.of(9));
  await until("the relay at the peer", () =>
    peer.take().some(({ bytes }) => Buffer.from(bytes).equals(relay(7, 900, Uint8Array.of(9)))),
  );
  await node.send(discover(7, NodeIdentity.create(7).publicKey));
  await until("another key is refused", async () =>
    (await stats(next)).workers.some(({ keysRefused }) => keysRefused > 0),
  );
  expect((await stats(next)).breakers).toMatchObject({ punch: "off", relay: "on" });
  expect((await inTime("its close", bridged.connection.closed)).code).toBe(1012);
  const again = await BridgedNode.connect(`ws://127.0.0.1:${wssPort}/v1/compat`, identity);
  await node.relay(7, 300, Uint8Array.of(3));
  expect(await again.message()).toMatchObject({ type: "deliver", payload: Uint8Array.of(3) });
  again.close();
  bridged.connection.destroy();
});

describe("signals during an upgrade", () => {
  /** Begins one, and waits until the log says that it has come so far. @returns the new process */
  async function underWay(step: string): Promise<{ program: Program; successor: number }> {
    const program = programs.beacon([...FLAGS, "--workers=1", "--log-level=debug"]);
    ({ port } = await program.listening());
    program.signal("SIGUSR2");
    const { successor } = await program.logged(new RegExp(`^upgrade: ${step}`));
    successors.push(successor as number);
    return { program, successor: successor as number };
  }

  test.each([
    ["started", "the old one"],
    ["started", "both"],
    ["prepared", "both"],
    ["receiving stops", "both"],
    ["the new process serves", "both"],
  ])("%s: SIGTERM for %s ends both", async (step, whom) => {
    const { program, successor } = await underWay(step);
    program.signal("SIGTERM");
    if (whom === "both") process.kill(successor, "SIGTERM");
    await until("the new one has ended", () => !isAlive(successor));
    expect(await program.exited()).toBe(0);
    expect(program.log().filter(({ level }) => level === "fatal")).toEqual([]);
  });

  test("SIGTERM for the new one: the old one goes on", async () => {
    const { program, successor } = await underWay("prepared");
    process.kill(successor, "SIGTERM");
    await program.logged(/^no upgrade, this process goes on: .*exit code 0/);
    const client = await clients.open();
    await client.discover(7);
    await expectServed(client, 7);
  });

  test("SIGHUP and another SIGUSR2 are refused, with a word", async () => {
    const { program } = await underWay("started");
    program.signal("SIGHUP");
    program.signal("SIGUSR2");
    await program.logged(/^configuration not reloaded: an upgrade is under way/);
    await program.logged(/^no upgrade, .*under way already/);
    await handedOver(program);
  });
});

describe("nodes that an operator removes during an upgrade", () => {
  const AUTHORIZED = { headers: { authorization: `Bearer ${TOKEN}` } };
  const admin = (http: string | URL, path: string) => fetch(new URL(path, http), AUTHORIZED);
  const removed = (http: string | URL, id: number) =>
    fetch(new URL(`api/nodes/${id}/disconnect`, http), { method: "POST", ...AUTHORIZED });
  const tokenFile = () => {
    const path = join(folder, "removals-token");
    writeFileSync(path, TOKEN, { mode: 0o600 });
    return path;
  };

  test("are absent in the new process, and one that registers again is there, with its new key", async () => {
    const program = programs.beacon([
      ...FLAGS.filter((flag) => flag !== "--http=off"),
      ...["--http=127.0.0.1:0", "--workers=2", "--require-punch-grant=on", "--log-level=debug"],
      ...[`--admin-token-file=${tokenFile()}`, "--endpoint-hold=0s"],
    ]);
    const { port: udpPort, http } = await program.listening();
    port = udpPort;
    const nodes = new Map<number, Client>();
    const [before, after] = [NodeIdentity.create(8).publicKey, NodeIdentity.create(8).publicKey];
    for (const id of [7, 8, 9]) {
      const client = await clients.open();
      nodes.set(id, client);
      await client.discover(id, before);
    }
    const from = program.lines.length;
    program.signal("SIGUSR2");
    const { successor } = await program.logged(/^upgrade: started/, from);
    successors.push(successor as number);
    // All nodes are told of while the new process does not answer.
    process.kill(successor as number, "SIGSTOP");
    await Bun.sleep(300);
    for (const id of [7, 8]) expect((await removed(http!, id)).status).toBe(200);
    await nodes.get(8)!.discover(8, after);
    process.kill(successor as number, "SIGCONT");
    await handedOver(program, from);
    const next = (await program.logged(/listens on/, from))["http"] as string;
    await until("the old process ends, to which connections are kept", () => !isAlive(program.pid));
    const there = (await (await admin(next, "api/nodes")).json()) as { nodes: { id: number }[] };
    expect(there.nodes.map(({ id }) => id)).toEqual([8, 9]);
    for (const id of [8, 9]) await expectServed(nodes.get(id)!, id);
    const keysRefused = async () => {
      const { workers } = (await (await admin(next, "api/stats")).json()) as Stats;
      return workers.reduce((sum, worker) => sum + worker.keysRefused, 0);
    };
    await nodes.get(8)!.discover(8, after);
    expect(await keysRefused()).toBe(0);
    await nodes.get(8)!.discover(8, before);
    await untilEqual("keys refused", keysRefused, 1);
  });

  test("a new process is sent them, and the listening sockets", async () => {
    const http = `127.0.0.1:${freePort()}`;
    const options = {
      addr: "127.0.0.1:0",
      workers: 2,
      maxNodes: 1000,
      http,
      adminTokenFile: tokenFile(),
    };
    const beacon = new Beacon(options);
    try {
      await beacon.listen();
      ({ port } = beacon.address);
      const client = await clients.open();
      await client.discover(7);
      const path = join(folder, "successor");
      const upgrade = beacon.upgrade({ command: [process.execPath, FAKE, "looks on", path] });
      const kinds = upgrade.then(
        () => "",
        ({ message }: Error) => message.split(" "),
      );
      await until("the nodes are told", () => existsSync(`${path}.has-nodes`));
      expect((await removed(beacon.httpUrl!, 7)).status).toBe(200);
      writeFileSync(`${path}.go-on`, "");
      await until("all is told", () => existsSync(`${path}.has-all`));
      // A disconnect is refused once the new process could not learn of it.
      expect((await removed(beacon.httpUrl!, 8)).status).toBe(503);
      writeFileSync(`${path}.give-up`, "");
      const said = await kinds;
      for (const kind of ["removed", "listeners"])
        expect([kind, said.includes(kind)]).toEqual([kind, true]);
      await until("HTTP", async () => {
        const health = await fetch(new URL("healthz", beacon.httpUrl), { keepalive: false }).catch(
          () => undefined,
        );
        return health?.status === 200;
      });
      expect((await removed(beacon.httpUrl!, 8)).status).toBe(404);
    } finally {
      await beacon.close();
    }
  });
});

describe("a new process that fails", () => {
  const beacons: Beacon[] = [];
  afterEach(async () => {
    for (const beacon of beacons.splice(0)) await beacon.close();
  });

  async function listening(): Promise<Beacon> {
    const beacon = new Beacon({
      addr: "127.0.0.1:0",
      workers: 2,
      maxNodes: 1000,
      http: "127.0.0.1:0",
    });
    beacons.push(beacon);
    await beacon.listen();
    ({ port } = beacon.address);
    return beacon;
  }
  const command = (step: string) => [process.execPath, FAKE, step];

  test.each([
    ["dies at once", "(SIGKILL)"],
    ["exits", "(exit code 3)"],
    ["dies with the sockets", "(SIGKILL)"],
    ["refuses", "it is Monday"],
    ["says what is not its turn", "said serving"],
    ["says what is no format", "version"],
    ["dies when it is prepared", "(SIGKILL)"],
    ["dies when asked whether it has all", "(SIGKILL)"],
    ["dies when it is to serve", "(SIGKILL)"],
    ["refuses when it is to serve", "the port is taken"],
  ])("%s: the old one goes on", async (step, reason) => {
    const beacon = await listening();
    const client = await clients.open();
    await client.discover(7);
    const upgrade = beacon.upgrade({ command: command(step) });
    await expect(upgrade).rejects.toThrow(reason);
    await expect(upgrade).rejects.toBeInstanceOf(UpgradeError);
    expect(beacon.isUpgrading).toBe(false);
    await expectServed(client, 7);
    const health = await fetch(new URL("healthz", beacon.httpUrl));
    expect(health.status).toBe(200);
  });

  test("says nothing: the old one goes on when the time is over, and no second upgrade begins before", async () => {
    const beacon = await listening();
    const client = await clients.open();
    await client.discover(7);
    const upgrade = beacon.upgrade({ command: command("says nothing"), prepareMs: 300 });
    await expect(beacon.upgrade({ command: command("exits") })).rejects.toThrow("under way");
    await expectServed(client, 7);
    await expect(upgrade).rejects.toThrow("too long");
    await expectServed(client, 7);
  });

  test("is not there, or is not known", async () => {
    const beacon = await listening();
    await expect(beacon.upgrade()).rejects.toThrow("successor");
    await expect(beacon.upgrade({ command: [join(folder, "missing")] })).rejects.toThrow(
      /missing: ENOENT/,
    );
    const client = await clients.open();
    await client.discover(7);
    await expectServed(client, 7);
  });

  test("dies once it serves: the old one serves again", async () => {
    const beacon = await listening();
    const client = await clients.open();
    await client.discover(7);
    const { version } = await beacon.upgrade({ command: command("dies when it serves") });
    expect(version).toBe("fake");
    await untilEqual("an upgrade under way", () => beacon.isUpgrading, false);
    await expectServed(client, 7);
    expect((await fetch(new URL("healthz", beacon.httpUrl))).status).toBe(200);
  });

  test("is ended when the old one is to end", async () => {
    const beacon = await listening();
    const upgrade = beacon.upgrade({ command: command("says nothing") });
    await Bun.sleep(0);
    await inTime(
      "it closes",
      Promise.all([beacon.close(), expect(upgrade).rejects.toThrow("asked to end")]),
    );
  });

  test("has another configuration: it says which", async () => {
    const path = join(folder, "config.json");
    const write = (config: unknown) => writeFileSync(path, JSON.stringify(config));
    write({});
    const program = programs.beacon([...FLAGS.slice(1), `--config=${path}`, "--workers=1"], {
      BEACON_ADDR: "127.0.0.1:0",
    });
    ({ port } = await program.listening());
    const client = await clients.open();
    await client.discover(7);
    for (const [config, reason] of [
      [{ "max-nodes": "many" }, /^no upgrade, .*gave up: .*max-nodes/],
      ["nothing", /^no upgrade, .*gave up: .*config\.json/],
    ] as const) {
      write(config);
      const from = program.lines.length;
      program.signal("SIGUSR2");
      await program.logged(reason, from);
      await expectServed(client, 7);
    }
  });
});

/** A node as it goes over. */
function recordOf(nodeId: number, address: string, port: number, ageS: number): Uint8Array {
  const words = new Int32Array(RECORD_WORDS_WITH_KEY);
  writeRecord(words, 0, nodeId, endpointOf(address, port), ageS);
  return new Uint8Array(words.buffer);
}

/** The old process's side, by hand, with a real new one: its death is the end of the channel. */
class FakePredecessor {
  readonly sockets: ReturnType<typeof openSockets>["sockets"];
  readonly channel: Channel;
  readonly program: Program;

  /** @param flags for the new process, beside the usual ones */
  constructor(...flags: readonly string[]) {
    const options = { recvBufferBytes: BUFFER_BYTES, sendBufferBytes: BUFFER_BYTES, offload: true };
    ({ sockets: this.sockets } = openSockets(
      { host: "127.0.0.1", port: 0 },
      { count: 2, ...options },
    ));
    ({ port } = this.sockets[0]!.localAddress());
    const [ours, theirs] = UnixChannel.pair();
    this.channel = new Channel(ours);
    const command = [
      process.execPath,
      MAIN,
      `--addr=127.0.0.1:${port}`,
      ...FLAGS.slice(1),
      "--workers=2",
    ];
    command.push(...flags);
    this.program = programs.spawn(command, {
      env: { ...CLEAN_ENV, BEACON_UPGRADE_FD: "3" },
      files: [theirs.fd],
    });
    theirs.close();
  }

  offer(change: object = {}): Promise<boolean> {
    const offer = {
      format: FORMAT,
      version: "fake",
      addr: `127.0.0.1:${port}`,
      hashSecret: 12_345,
      ...{ offload: true, steering: true, maySave: true },
      ...change,
    };
    return this.channel.sendJson(
      "offer",
      offer,
      this.sockets.map(({ fd }) => fd),
    );
  }

  async expect(kind: Kind): Promise<void> {
    expect((await inTime(kind, this.channel.receive()))?.kind).toBe(kind);
  }

  /** Tells of one node. */
  tell(
    nodeId: number,
    { address, port }: { address: string; port: number },
    ageS = 0,
  ): Promise<boolean> {
    return this.channel.send("nodes", recordOf(nodeId, address, port, ageS));
  }

  die(): void {
    for (const socket of this.sockets) socket.close();
    this.channel.close();
  }
}

describe("an old process that dies", () => {
  const STEPS = ["offer", "nodes", "prepare", "prepared", "more nodes", "go"] as const;

  test.each([undefined, ...STEPS])(
    "after %s: the new one serves with what it has got",
    async (last) => {
      const predecessor = new FakePredecessor();
      const { program, channel } = predecessor;
      const [one, other] = [await clients.open(), await clients.open()];
      const steps: Record<(typeof STEPS)[number], () => Promise<unknown>> = {
        offer: () => predecessor.offer(),
        nodes: () => predecessor.tell(7, one.address),
        prepare: () => channel.send("prepare"),
        prepared: () => predecessor.expect("prepared"),
        "more nodes": async () => {
          await predecessor.tell(8, other.address);
          await channel.send("sync");
          await predecessor.expect("synced");
          // What comes now waits in the sockets: it is not this process's turn.
          await one.send(relay(7, 7, Uint8Array.of(1)));
          await Bun.sleep(50);
          expect(one.pending).toBe(0);
        },
        go: () => channel.send("go"),
      };
      const taken = STEPS.slice(0, last === undefined ? 0 : STEPS.indexOf(last) + 1);
      for (const step of taken) await steps[step]();
      predecessor.die();
      await program.listening();
      if (taken.includes("more nodes")) {
        expect(await one.message()).toMatchObject({ type: "deliver", senderId: 7 });
        await expectServed(other, 8);
      }
      if (!taken.includes("nodes")) await one.discover(7);
      await expectServed(one, 7);
      expect(program.log().filter(({ level }) => level !== "info")).toEqual([]);
      program.signal("SIGTERM");
      expect(await program.exited()).toBe(0);
    },
  );
});

describe("nodes that a new process does not take over", () => {
  /**
   * Hands over what `tell` tells, before and after the new process is prepared.
   * @returns the URL of its HTTP
   */
  async function handOver(
    flags: readonly string[],
    before: (predecessor: FakePredecessor) => Promise<unknown>,
    after: (predecessor: FakePredecessor) => Promise<unknown> = async () => {},
  ): Promise<string> {
    const predecessor = new FakePredecessor("--http=127.0.0.1:0", ...flags);
    const { program, channel } = predecessor;
    await predecessor.offer();
    await before(predecessor);
    await channel.send("prepare");
    await predecessor.expect("prepared");
    await after(predecessor);
    await channel.send("go");
    const { http } = await program.listening();
    predecessor.die();
    return http!;
  }
  /** The ids of the nodes that it has. */
  async function idsAt(http: string): Promise<number[]> {
    const { nodes } = (await (await fetch(new URL("api/nodes", http))).json()) as {
      nodes: { id: number }[];
    };
    return nodes.map(({ id }) => id);
  }

  test("are those that are too old for its --node-ttl", async () => {
    let client!: Client;
    const http = await handOver(["--node-ttl=100s"], async (predecessor) => {
      client = await clients.open();
      for (const [id, ageS] of [
        [7, 0],
        [8, 80],
        [9, 100],
        [10, 5000],
      ] as const)
        await predecessor.tell(id, client.address, ageS);
    });
    expect(await idsAt(http)).toEqual([7, 8]);
    await expectServed(client, 8);
  });

  test("are those at an address in its --deny-endpoint, wherever they were before", async () => {
    const [allowed, denied] = [await clients.open("127.0.0.1"), await clients.open("127.0.0.2")];
    const http = await handOver(
      ["--deny-endpoint=127.0.0.2"],
      async (predecessor) => {
        await predecessor.tell(7, allowed.address);
        await predecessor.tell(8, denied.address);
        await predecessor.tell(9, allowed.address);
      },
      (predecessor) => predecessor.tell(9, denied.address),
    );
    expect(await idsAt(http)).toEqual([7]);
  });

  test("are those that were removed, unless they came back", async () => {
    let moved!: Client;
    const http = await handOver(
      [],
      async (predecessor) => {
        const client = await clients.open();
        moved = await clients.open();
        for (const id of [7, 8, 9]) await predecessor.tell(id, client.address);
      },
      async (predecessor) => {
        await predecessor.channel.send("removed", new Uint8Array(Int32Array.of(8, 9, 10).buffer));
        await predecessor.tell(9, moved.address);
      },
    );
    expect(await idsAt(http)).toEqual([7, 9]);
    await expectServed(moved, 9);
  });

  test("a section of another version, or of another beacon's, is skipped", async () => {
    const http = await handOver(
      [],
      async ({ channel }) => {
        const { address, port } = (await clients.open()).address;
        await channel.send("section", frameSection("fast_path", 1, new Uint8Array(5)));
        await channel.send("section", frameSection("nodes", 2, new Uint8Array(5)));
        await channel.send("section", frameSection("nodes", 1, recordOf(7, address, port, 0)));
      },
      () => Promise.resolve(),
    );
    expect(await idsAt(http)).toEqual([7]);
  });
});

describe("what takes a restart", () => {
  test("another number of workers: the new process says so, and ends", async () => {
    for (const workers of [1, 3]) {
      const predecessor = new FakePredecessor(`--workers=${workers}`);
      await predecessor.offer();
      const message = await inTime("an answer", predecessor.channel.receive());
      expect(JSON.parse(new TextDecoder().decode(message?.body)).reason).toBe(
        `--workers is ${workers} now, and was 2: that takes a restart`,
      );
      expect(await predecessor.program.exited()).toBe(1);
      predecessor.die();
    }
  });

  test.each([
    [
      "another address",
      { addr: "127.0.0.1:1" },
      /^--addr is .*, and was 127\.0\.0\.1:1: that takes a restart$/,
    ],
    ["another format", { format: FORMAT + 1 }, /format/],
    ["an offer that is none", { hashSecret: "secret" }, /hashSecret/],
  ])("%s: the new process says so, and ends", async (_, change, reason) => {
    const predecessor = new FakePredecessor();
    await predecessor.offer(change);
    const message = await inTime("an answer", predecessor.channel.receive());
    expect(message?.kind).toBe("refused");
    expect(JSON.parse(new TextDecoder().decode(message?.body)).reason).toMatch(reason);
    expect(await predecessor.program.exited()).toBe(1);
    predecessor.die();
  });
});

test.skipIf(!installed("python3"))(
  "the service manager hears of the new process from the old one, and all else from the new one then (needs python3)",
  async () => {
    const manager = await Notified.bind(programs, join(folder, "notify"));
    const env = { NOTIFY_SOCKET: manager.path, WATCHDOG_USEC: "200000" };
    const program = programs.beacon([...FLAGS, "--workers=1"], env);
    ({ port } = await program.listening());
    await manager.text(/READY=1/);
    program.signal("SIGUSR2");
    const pid = await handedOver(program);
    const texts = () => manager.texts;
    await manager.text(/MAINPID/);
    const at = texts().findIndex((text) => text.startsWith("MAINPID"));
    expect(texts()[at]).toBe(`MAINPID=${pid}`);
    await manager.text(/READY=1/, at);
    await manager.text(/WATCHDOG=1/, at);
    expect(
      texts()
        .slice(0, at)
        .filter((text) => text.includes("READY")),
    ).toHaveLength(1);
    process.kill(pid, "SIGTERM");
    await manager.text(/STOPPING=1/, at);
    await until("both end", () => !isAlive(pid) && !isAlive(program.pid));
    expect(texts().slice(0, at).join()).not.toContain("STOPPING");
  },
);
