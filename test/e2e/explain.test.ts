/** What the admin API tells of one node, after real packets; and what it changes. */
import { afterEach, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../../src/beacon.ts";
import type { NodeReport } from "../../src/control/admin/explain.ts";
import type { NodePage } from "../../src/control/nodes/list.ts";
import { temporaryFolder } from "../support/folder.ts";
import { BridgeBeacon } from "./support/bridged.ts";
import { Client } from "./support/client.ts";
import { until, untilEqual } from "./support/wait.ts";
import { relay, sync } from "./support/wire.ts";

const TOKEN = "correct-horse-battery-staple";
const [ALICE, BOB, CAROL, REMOTE, NOBODY] = [1, 2, 3, 11, 404];
const NOTHING = new Uint8Array(1);

const folder = temporaryFolder();
const adminTokenFile = join(folder, "token");
writeFileSync(adminTokenFile, TOKEN, { mode: 0o600 });

let host: BridgeBeacon;
const others: Client[] = [];

async function start(options: Partial<Config> = {}): Promise<void> {
  host = await BridgeBeacon.start({ http: "127.0.0.1:0", adminTokenFile, ...options });
}
afterEach(async () => {
  for (const other of others.splice(0)) other.close();
  await host.close();
});

const get = (path: string) => fetch(new URL(path, host.beacon.httpUrl));
function post(path: string, body?: string) {
  const headers = { authorization: `Bearer ${TOKEN}` };
  return fetch(new URL(path, host.beacon.httpUrl), {
    method: "POST",
    headers,
    ...(body ? { body } : {}),
  });
}
const explain = async (id: number) => (await (await get(`/api/nodes/${id}`)).json()) as NodeReport;
/** Waits for the drops of a node, without their times. */
async function untilDrops(id: number, expected: readonly object[]): Promise<void> {
  const drops = async () => (await explain(id)).drops.map(({ ageS: _, ...drop }) => drop);
  await untilEqual(`drops of ${id}`, drops, expected as Awaited<ReturnType<typeof drops>>);
}

test("a node by UDP, one by WebSocket, one that nobody has, and what was dropped on the way to it", async () => {
  await start();
  const alice = await host.udp(ALICE);
  await alice.discoverEx(ALICE);
  const carol = await host.bridged(CAROL);

  const { address, port } = alice.address;
  expect(await explain(ALICE)).toMatchObject({
    id: ALICE,
    where: "local",
    endpoint: `${address}:${port}`,
    wantsDest: true,
    hasKey: false,
    shards: 2,
    peer: null,
    limits: [],
    drops: [],
    next: {
      outcome: "delivered",
      why: expect.stringContaining(`it is sent to ${address}:${port}, where the node was heard`),
    },
  });
  expect(await explain(CAROL)).toMatchObject({
    where: "bridged",
    endpoint: null,
    next: { outcome: "delivered" },
  });
  expect(await explain(NOBODY)).toMatchObject({
    where: "unknown",
    endpoint: null,
    ageS: null,
    next: { outcome: "dropped", why: expect.stringContaining("has no peers") },
  });

  for (let i = 0; i < 3; i++) await alice.relay(ALICE, NOBODY, NOTHING);
  const notFound = { reason: "not_found", from: ALICE, to: NOBODY };
  await untilDrops(NOBODY, [{ ...notFound, count: 3 }]);
  await untilDrops(ALICE, [{ ...notFound, count: 3 }]);
  carol.send(relay(BOB, ALICE, NOTHING)); // in another's name
  await untilDrops(CAROL, [{ reason: "forged_sender", from: CAROL, to: ALICE, count: 1 }]);
  await alice.punch(ALICE, 405);
  await untilDrops(405, [{ reason: "target_unknown", from: ALICE, to: 405, count: 1 }]);

  expect((await post("/api/breakers/relay", '{"on": false}')).status).toBe(200);
  await alice.relay(ALICE, BOB, NOTHING);
  await untilDrops(BOB, [{ reason: "relay_off", from: ALICE, to: BOB, count: 1 }]);
  expect((await explain(ALICE)).next).toMatchObject({
    outcome: "dropped",
    why: expect.stringContaining("switched off"),
  });
});

test("limits are shown as used as they are, and what they dropped", async () => {
  await start({ relayLimit: 2, endpointHoldMs: 3_600_000 });
  const [alice, bob] = [await host.udp(ALICE), await host.udp(BOB)];
  expect((await explain(ALICE)).limits).toEqual([{ limit: "relay", perSecond: 2, used: 0 }]);
  for (let i = 0; i < 20; i++) await alice.relay(ALICE, BOB, NOTHING);
  const used = async () => (await explain(ALICE)).limits[0]!.used > 0.2;
  await until("the limit's use", used);
  await until("drops", async () =>
    (await explain(BOB)).drops.some(({ reason }) => reason === "relay_limit"),
  );
  await bob.discover(ALICE); // claims her id
  await until("the claim", async () =>
    (await explain(ALICE)).drops.some(
      ({ reason, to }) => reason === "endpoint_hold" && to === ALICE,
    ),
  );
});

test("the limit of an address is shown by its own name, as used and as the reason for drops", async () => {
  await start({ relayAddressLimit: 2 });
  const nodes = [await host.udp(ALICE), await host.udp(BOB)];
  const [limit] = (await explain(ALICE)).limits;
  expect(limit).toEqual({ limit: "relay_address", perSecond: 2, used: 0 });
  // Two ports of one address.
  for (let i = 0; i < 10; i++) for (const node of nodes) await node.relay(ALICE, BOB, NOTHING);
  await until("drops", async () =>
    (await explain(BOB)).drops.some(({ reason }) => reason === "relay_address_limit"),
  );
});

test("a node of another beacon: which, and since when that was heard", async () => {
  const peer = await Client.open("127.0.0.1", { address: "127.0.0.1", port: 9 });
  others.push(peer);
  const name = `127.0.0.1:${peer.address.port}`;
  await start({ peers: [name] });
  expect((await explain(REMOTE)).next.why).toContain("1 of 1 peers are silent");
  await peer.send(sync(0, [REMOTE]), host.at);
  await until("the route", async () => (await explain(REMOTE)).where === "peer");
  const { peer: found, next } = await explain(REMOTE);
  expect(found).toEqual({ address: name, gossipAgeS: expect.any(Number), claimAgeS: null });
  expect(next).toMatchObject({ outcome: "forwarded", why: expect.stringContaining(name) });
});

test("a node is disconnected, by UDP and by WebSocket, and comes back", async () => {
  await start();
  const alice = await host.udp(ALICE);
  const carol = await host.bridged(CAROL);
  const list = async () =>
    ((await (await get("/api/nodes")).json()) as NodePage).nodes.map(({ id }) => id);
  expect(await list()).toEqual([ALICE, CAROL]);

  expect(
    (await fetch(new URL("/api/nodes/1/disconnect", host.beacon.httpUrl), { method: "POST" }))
      .status,
  ).toBe(401);
  const answer = await post(`/api/nodes/${ALICE}/disconnect`);
  expect([answer.status, await answer.json()]).toEqual([200, { id: ALICE, was: "local" }]);
  expect(await (await post(`/api/nodes/${CAROL}/disconnect`)).json()).toEqual({
    id: CAROL,
    was: "bridged",
  });
  expect(await list()).toEqual([]);
  expect((await post(`/api/nodes/${ALICE}/disconnect`)).status).toBe(404);
  await expect(carol.connection.next()).rejects.toThrow('{"code":1013,"reason":"disconnected"}');

  await alice.discover(ALICE);
  await host.bridged(CAROL);
  expect(await list()).toEqual([ALICE, CAROL]);
});

test("what makes no sense is refused, with a sentence; another method with the right one", async () => {
  await start();
  for (const [path, status, says] of [
    ["/api/nodes/0", 400, "from 1 to 4294967295"],
    ["/api/nodes/4294967296", 400, "from 1 to 4294967295"],
    ["/api/nodes/alice", 400, "from 1 to 4294967295"],
    ["/api/nodes?limit=0", 400, "limit: must be a whole number from 1 to 10000"],
    ["/api/drain", 405, "only POST"],
    ["/api/nodes/7/disconnect", 405, "only POST"],
    ["/api/nothing", 404, "/api/nodes/:id"],
  ] as const) {
    const response = await get(path);
    expect([path, response.status]).toEqual([path, status]);
    expect(await response.text()).toContain(says);
  }
  expect((await post("/api/nodes/7")).status).toBe(405);
  expect((await post("/api/nodes/0/disconnect")).status).toBe(400);
  const upgrade = await post("/api/upgrade");
  expect([upgrade.status, await upgrade.text()]).toEqual([
    501,
    "this beacon was not started by its program\n",
  ]);
});

test("a second drain promises no new wait, but what is left of the first one", async () => {
  await start({ drainMs: 600_000 });
  expect(await (await post("/api/drain")).json()).toEqual({
    drainMs: 600_000,
    leftMs: 600_000,
    wasDraining: false,
  });
  await until("the drain", () => !host.beacon.stats().healthy);
  await Bun.sleep(10);
  host.beacon.reconfigure({ ...host.beacon.config, drainMs: 900_000 });
  const second = (await (await post("/api/drain")).json()) as Record<
    "drainMs" | "leftMs",
    number
  > & {
    wasDraining: boolean;
  };
  expect(second).toEqual({ drainMs: 900_000, leftMs: expect.any(Number), wasDraining: true });
  expect(second.leftMs).toBeWithin(1, 600_000);
  expect(await (await post("/api/upgrade")).text()).toContain("not started by its program");
});

test("every answer names the API's version, so that a refusal is known from a proxy's", async () => {
  await start();
  const anonymous = await fetch(new URL("/api/drain", host.beacon.httpUrl), { method: "POST" });
  const crossing = await fetch(new URL("/api/stats", host.beacon.httpUrl), {
    headers: { origin: "https://evil.example" },
  });
  const answers = [anonymous, crossing, await get("/api/nothing"), await get("/api/drain")];
  answers.push(await get("/api/nodes/0"), await get("/api/stats"));
  expect(answers.map(({ status }) => status)).toEqual([401, 403, 404, 405, 400, 200]);
  for (const { headers } of answers) expect(headers.get("beacon-api")).toBe("1");
});

test("a drain is answered, then the beacon goes", async () => {
  await start({ drainMs: 0 });
  const answer = await post("/api/drain");
  expect([answer.status, await answer.json()]).toEqual([
    200,
    { drainMs: 0, leftMs: 0, wasDraining: false },
  ]);
  await host.beacon.closed;
});
