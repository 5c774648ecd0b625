/** What /api/stats answers is what the features' schemas say, no more and no less. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import * as v from "valibot";
import { Beacon, type Config } from "../../src/beacon.ts";
import type { AnyFeature } from "../../src/control/feature.ts";
import { features } from "../../src/features.ts";
import { REDIS, RedisServers } from "../support/redis.ts";
import { freePort } from "./support/mesh.ts";
import { TEST_TIMEOUT_MS, until } from "./support/wait.ts";

setDefaultTimeout(TEST_TIMEOUT_MS);

const servers = new RedisServers();
const open: Beacon[] = [];
afterAll(async () => {
  await Promise.all(open.map((beacon) => beacon.close()));
  await servers.stop();
});

const declared = (features as readonly AnyFeature[]).flatMap(({ stats = {} }) =>
  Object.entries(stats),
);
const schema = v.strictObject(Object.fromEntries(declared));

async function started(options: Partial<Config>): Promise<Beacon> {
  const beacon = new Beacon(
    { addr: "127.0.0.1:0", http: "127.0.0.1:0", workers: 1, maxNodes: 100, ...options },
    undefined,
    () => null,
  );
  open.push(beacon);
  await beacon.listen();
  return beacon;
}

async function problems(beacon: Beacon): Promise<string[]> {
  const answer = await fetch(new URL("/api/stats", beacon.httpUrl));
  const { issues = [] } = v.safeParse(schema, await answer.json());
  return issues.map((issue) => `${v.getDotPath(issue)}: ${issue.message}`);
}

test("no two features declare the same place", () => {
  const places = declared.map(([place]) => place);
  expect(places).toEqual([...new Set(places)]);
});

test("of a beacon with default options", async () => {
  expect(await problems(await started({}))).toEqual([]);
});

test("with peers, a bridge and punch grants", async () => {
  const ports = [freePort(), freePort()] as const;
  const addresses = ports.map((port) => `127.0.0.1:${port}`) as [string, string];
  await started({ addr: addresses[0], peers: [addresses[1]], gossipIntervalMs: 100 });
  const beacon = await started({
    ...{ addr: addresses[1], peers: [addresses[0]], gossipIntervalMs: 100 },
    ...{ wss: "127.0.0.1:0", requirePunchGrant: true },
  });
  await until("a self-check", () => beacon.stats().mesh.peers[0]?.check !== null);
  expect(beacon.stats()).toMatchObject({ bridge: { peers: 0 }, grants: { discovers: 0 } });
  expect(await problems(beacon)).toEqual([]);
});

test.skipIf(!REDIS.program)(
  `with a directory${REDIS.program ? "" : " (needs redis-server)"}`,
  async () => {
    const { name } = await servers.start();
    const fleet = { directory: `redis://${name}` };
    const beacon = await started({ ...fleet, beaconId: 1 });
    const other = await started({ ...fleet, beaconId: 2 });
    await until("it follows the other", () => beacon.stats().directory!.beacons.length === 1);
    expect(await problems(beacon)).toEqual([]);
    expect(await problems(other)).toEqual([]);
  },
);
