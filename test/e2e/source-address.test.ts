/**
 * Packets leave from the address of this host that their destination sent to. All of 127.0.0.0/8 is
 * local, and what is sent to any address of it the kernel would answer from 127.0.0.1.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { Beacon, type Config, type KeyFunction } from "../../src/beacon.ts";
import { temporaryFolder } from "../support/folder.ts";
import { UNLIMITED, UNLIMITED_FLAGS } from "./support/beacon.ts";
import { BridgedNode, KnownNodes } from "./support/bridged.ts";
import { Client } from "./support/client.ts";
import { freePort } from "./support/mesh.ts";
import { isAlive, Programs } from "./support/program.ts";
import { until } from "./support/wait.ts";
import { decode, type Message, punchRequest, sync } from "./support/wire.ts";

const A = "127.0.0.2";
const B = "127.0.0.3";
const folder = temporaryFolder();
const programs = new Programs();
const beacons: Beacon[] = [];
const clients: Client[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  for (const beacon of beacons.splice(0)) await beacon.close();
  await programs.kill();
});

async function start(options: Partial<Config> = {}, keyOf?: KeyFunction) {
  const config = {
    workers: 2,
    maxNodes: 1000,
    sourceAddress: "on" as const,
    ...UNLIMITED,
    ...options,
  };
  const beacon = new Beacon({ addr: ":0", ...config }, undefined, keyOf);
  beacons.push(beacon);
  await beacon.listen();
  return beacon;
}

/** A client that talks to one address of the beacon's host. */
async function open(host: string, port: number): Promise<Client> {
  const client = await Client.open("127.0.0.1", { address: host, port });
  clients.push(client);
  return client;
}

/** The next message, which has to come from the address that the client talks to. */
async function answer(client: Client): Promise<Message> {
  const { bytes, from } = await client.next();
  expect(from).toEqual({ address: client.beacon.address, port: client.beacon.port });
  return decode(bytes);
}

async function register(client: Client, nodeId: number): Promise<void> {
  await client.send(Uint8Array.of(1, 0, 0, 0, nodeId));
  expect(await answer(client)).toMatchObject({ type: "discoverReply" });
}

async function expectRelay(from: Client, fromId: number, to: Client, toId: number): Promise<void> {
  await from.relay(fromId, toId, Uint8Array.of(fromId, toId));
  expect(await answer(to)).toMatchObject({ type: "deliver", senderId: fromId });
}

for (const [title, addr] of [
  ["a dual-stack socket", ":0"],
  ["an IPv4 socket", "0.0.0.0:0"],
] as const) {
  for (const offload of [true, false]) {
    describe(`${title}, offload ${offload ? "on" : "off"}`, () => {
      test("a Discover is answered from the address that it was sent to", async () => {
        const { port } = (await start({ addr, offload })).address;
        for (const host of [A, B, "127.0.0.1"]) await register(await open(host, port), 0);
      });

      test("relays leave from the address at which their node registered", async () => {
        const { port } = (await start({ addr, offload })).address;
        const [a, b] = [await open(A, port), await open(B, port)];
        await register(a, 1);
        await register(b, 2);
        await expectRelay(a, 1, b, 2);
        await expectRelay(b, 2, a, 1);
      });

      test("a burst leaves whole and in order from the address at which its node registered", async () => {
        const { port } = (await start({ addr, offload })).address;
        const [a, b] = [await open(A, port), await open(B, port)];
        await register(a, 1);
        await register(b, 2);
        for (let i = 0; i < 50; i++) await a.relay(1, 2, Uint8Array.of(i, ...new Uint8Array(500)));
        for (let i = 0; i < 50; i++) {
          const message = await answer(b);
          expect(message.type === "deliver" && message.payload[0]).toBe(i);
        }
      });

      test("each end of a punch is told from the address at which it is known", async () => {
        const { port } = (await start({ addr, offload })).address;
        const [a, b] = [await open(A, port), await open(B, port)];
        await register(b, 2);
        await a.send(punchRequest(1, 2));
        expect(await answer(a)).toMatchObject({ type: "punchCommand", port: b.address.port });
        expect(await answer(b)).toMatchObject({ type: "punchCommand", port: a.address.port });
      });
    });
  }
}

test("a node that goes over to another address of the host gets its packets from there", async () => {
  const { port } = (await start()).address;
  const [a, b] = [await open(A, port), await open(B, port)];
  await register(a, 1);
  await register(b, 2);
  await a.send(Uint8Array.of(1, 0, 0, 0, 1), { address: B, port });
  expect((await a.next()).from.address).toBe(B);
  await b.relay(2, 1, Uint8Array.of(7));
  expect((await a.next()).from.address).toBe(B);
});

test("one message to another address does not move where a peer's relays leave from", async () => {
  const port = freePort();
  const peer = await open(A, port);
  const beacon = await start({
    addr: `:${port}`,
    peers: [`127.0.0.1:${peer.address.port}`],
    gossipIntervalMs: 60_000,
    selfCheck: false,
  });
  const routes = () => beacon.stats().mesh.peers[0]!.routes;
  await peer.send(sync(9, [77]));
  await until("a route", () => routes() === 1);
  await peer.send(sync(9, [77, 78]), { address: B, port });
  await until("two routes", () => routes() === 2);
  const node = await open(A, port);
  await register(node, 1);
  peer.take(); // gossip of before
  await node.relay(1, 78, Uint8Array.of(1));
  expect((await peer.next()).from.address).toBe(A);
});

test("explain says which address packets to a node leave from", async () => {
  const beacon = await start({ http: "127.0.0.1:0" });
  const b = await open(B, beacon.address.port);
  await register(b, 2);
  const report = await (await fetch(new URL("api/nodes/2", beacon.httpUrl))).json();
  expect(report).toMatchObject({ where: "local", localAddress: B });
});

test("a held node keeps the local address at which it registered", async () => {
  const { port } = (await start({ endpointHoldMs: 60_000 })).address;
  const [a, b] = [await open(A, port), await open(B, port)];
  await register(a, 1);
  await register(b, 2);
  await a.send(Uint8Array.of(1, 0, 0, 0, 1), { address: B, port });
  expect((await a.next()).from.address).toBe(B);
  await expectRelay(b, 2, a, 1);
});

test("frames from the bridge leave from the address at which their node registered", async () => {
  const nodes = new KnownNodes();
  const identity = nodes.identity(9);
  const beacon = await start({ wss: "127.0.0.1:0" }, nodes.keyOf);
  const b = await open(B, beacon.address.port);
  await register(b, 2);
  const bridged = await BridgedNode.connect(beacon.wssUrl!, identity);
  try {
    bridged.relay(2, Uint8Array.of(5));
    expect(await answer(b)).toMatchObject({ type: "deliver", senderId: 9 });
  } finally {
    bridged.connection.destroy();
  }
});

test("punches with a grant are commanded from the addresses at which both ends are known", async () => {
  const nodes = new KnownNodes();
  const target = nodes.identity(80);
  const beacon = await start({ requirePunchGrant: true }, nodes.keyOf);
  const [a, b] = [await open(A, beacon.address.port), await open(B, beacon.address.port)];
  await register(a, 70);
  await register(b, 80);
  await a.send(punchRequest(70, 80, target.grant(70, Math.floor(Date.now() / 1000) + 60)));
  expect(await answer(a)).toMatchObject({ type: "punchCommand", port: b.address.port });
  expect(await answer(b)).toMatchObject({ type: "punchCommand", port: a.address.port });
});

test("a restart keeps the local address of each node in the state file", async () => {
  const stateFile = join(folder, "nodes");
  const first = await start({ stateFile });
  const { port } = first.address;
  const [a, b] = [await open(A, port), await open(B, port)];
  await register(a, 1);
  await register(b, 2);
  await first.close();
  await start({ stateFile, addr: `:${port}` });
  await expectRelay(a, 1, b, 2);
  await expectRelay(b, 2, a, 1);
});

test("a beacon that cannot send from an address of the state file leaves the choice to the kernel", async () => {
  const stateFile = join(folder, "other");
  const first = await start({ stateFile });
  const { port } = first.address;
  const b = await open(B, port);
  await register(b, 2);
  await first.close();
  await start({ stateFile, addr: `:${port}`, sourceAddress: "off" });
  await b.relay(2, 2, Uint8Array.of(1));
  expect(decode((await b.next()).bytes)).toMatchObject({ type: "deliver", senderId: 2 });
});

test("an upgrade hands the local address of each node over", async () => {
  const program = programs.beacon([
    ...["--addr=:0", "--http=off", "--log-format=json", "--workers=2", "--source-address=on"],
    ...UNLIMITED_FLAGS,
  ]);
  const { port } = await program.listening();
  const [a, b] = [await open(A, port), await open(B, port)];
  await register(a, 1);
  await register(b, 2);
  program.signal("SIGUSR2");
  const { successor } = await program.logged(/serves; this one ends$/);
  try {
    await until("the old process ends", () => !isAlive(program.pid));
    await expectRelay(a, 1, b, 2);
    await expectRelay(b, 2, a, 1);
  } finally {
    process.kill(successor as number, "SIGKILL");
  }
});
