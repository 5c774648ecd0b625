/**
 * What OPERATIONS.md says of the directory's server, tried: its settings, the user's rights, and a
 * change of the password.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Beacon } from "../../src/beacon.ts";
import type { NodeReport } from "../../src/control/admin/explain.ts";
import { UNLIMITED } from "../e2e/support/beacon.ts";
import { Client } from "../e2e/support/client.ts";
import { ROOT } from "../e2e/support/program.ts";
import { until, untilEqual } from "../e2e/support/wait.ts";
import { REDIS, RedisServer } from "../support/redis.ts";

/** The lines of the block that begins so. */
const operations = readFileSync(join(ROOT, "docs/OPERATIONS.md"), "utf8");
const settings = /```conf\n# redis\.conf\n([^`]*)```/
  .exec(operations)![1]!
  .split("\n")
  .filter((line) => line !== "" && !line.startsWith("#"))
  .map((line) => line.split(" "));
/** "beacon on >a-long-password …", in words. */
const [user, ...rights] = settings
  .find(([name, who]) => name === "user" && who === "beacon")!
  .slice(1);
const password = rights.find((right) => right.startsWith(">"))!.slice(1);
const isNoUser = ([name]: readonly string[]) => name !== "user";

const [FIRST, LATER, LATEST] = [101, 102, 103];

describe.skipIf(!REDIS.program)(
  `the directory's server${REDIS.program ? "" : " (needs redis-server)"}`,
  () => {
    const folder = mkdtempSync(join(tmpdir(), "beacon-directory-"));
    const directoryAuthFile = join(folder, "directory.auth");
    const writeAuth = (word: string) =>
      writeFileSync(directoryAuthFile, `${user}\n${word}\n`, { mode: 0o600 });
    const endings: (() => unknown)[] = [];
    let server: RedisServer;
    let nodes: Client;

    async function start(beaconId: number): Promise<Beacon> {
      const beacon = new Beacon({
        ...{
          addr: "127.0.0.1:0",
          http: "127.0.0.1:0",
          workers: 1,
          maxNodes: 1000,
          selfCheck: false,
        },
        ...{ beaconId, directoryAuthFile, directory: `redis://127.0.0.1:${server.port}` },
        ...UNLIMITED,
      });
      await beacon.listen();
      endings.push(() => beacon.close());
      return beacon;
    }
    const explain = async (beacon: Beacon, id: number) =>
      (await (await fetch(new URL(`/api/nodes/${id}`, beacon.httpUrl))).json()) as NodeReport;
    const whereIs = async (beacon: Beacon, id: number) => (await explain(beacon, id)).where;
    const states = () => beacons.map((beacon) => beacon.stats().directory!.state);
    let beacons: Beacon[] = [];

    beforeAll(async () => {
      const config = settings
        .filter(isNoUser)
        .flatMap(([name, ...values]) => [`--${name}`, ...values]);
      server = await RedisServer.start({
        config: config.map((value) => (value === '""' ? "" : value)),
      });
      endings.push(() => server.stop());
      await server.command("ACL", "SETUSER", user!, ...rights);
      writeAuth(password);
      beacons = [await start(1), await start(2)];
      const { address, port } = beacons[0]!.address;
      nodes = await Client.open("127.0.0.1", { address, port });
      endings.push(() => nodes.close());
    });
    afterAll(async () => {
      for (const end of endings.reverse()) await end();
      rmSync(folder, { recursive: true });
    });

    test("takes the settings, and evicts nothing", async () => {
      expect(await server.command("CONFIG", "GET", "maxmemory-policy")).toEqual({
        "maxmemory-policy": "noeviction",
      });
    });

    test("gives its user rights that suffice: changes, snapshots, leaving", async () => {
      const [owner, other] = beacons as [Beacon, Beacon];
      await nodes.discover(FIRST);
      await untilEqual("the first node", () => whereIs(other, FIRST), "peer");
      await until("they are in step", () =>
        beacons.every((one) => one.stats().directory!.beacons[0]?.state === "following"),
      );
      await nodes.discover(LATER);
      await untilEqual("a change", () => whereIs(other, LATER), "peer");
      const { peer, next } = await explain(other, LATER);
      const { address, port } = owner.address;
      expect(peer).toEqual({
        address: `${address}:${port}`,
        gossipAgeS: expect.any(Number),
        claimAgeS: expect.any(Number),
      });
      expect(next).toMatchObject({
        outcome: "forwarded",
        why: expect.stringContaining("told the directory"),
      });
      expect(other.stats().mesh.peers).toMatchObject([{ routes: 2, isInDirectory: true }]);

      const third = await start(3);
      await untilEqual("a snapshot", () => whereIs(third, FIRST), "peer");
      await third.close();
      await until("it has left", () =>
        beacons.every((one) => one.stats().directory!.beacons.length === 1),
      );
      expect(await server.command("ACL", "LOG")).toEqual([]);
      expect(states()).toEqual(["ok", "ok"]);
    });

    test("and none that is not needed", async () => {
      const granted = rights.flatMap((right) => (right.startsWith("+") ? [right.slice(1)] : []));
      const used = String(await server.command("INFO", "commandstats")).matchAll(
        /cmdstat_([\w|]+):calls=[1-9]/g,
      );
      const commands = new Set(Array.from(used, ([, command]) => command!));
      // To know what an entry that was read last is good for, one has to be away: the test below.
      // And a snapshot is kept for longer only where somebody asks for one that is there already.
      // The log is trimmed by a command of its own while the server is full.
      const unused = granted.filter((command) => !commands.has(command));
      expect(["xrange", "pexpire", "xtrim"]).toEqual(expect.arrayContaining(unused));
      expect(rights.filter((right) => !/^[+>]/.test(right))).toEqual([
        ...["on", "resetkeys", "~{pilot-beacon}:*", "resetchannels", "-@all"],
      ]);
    });

    test("lets the password be changed while beacons run", async () => {
      await server.command("ACL", "SETUSER", user!, ">another-password");
      writeAuth("another-password");
      await server.command("ACL", "SETUSER", user!, `<${password}`);
      await server.command("CLIENT", "KILL", "USER", user!);
      await nodes.discover(LATEST);
      await untilEqual("a change after that", () => whereIs(beacons[1]!, LATEST), "peer");
      await untilEqual("both are well", states, ["ok", "ok"]);
      expect(await server.command("ACL", "LOG")).toEqual([]);
      expect(String(await server.command("INFO", "commandstats"))).toContain("cmdstat_xrange");
    });

    test("and Prometheus sees who is in step, and how late changes are", async () => {
      const text = await (await fetch(new URL("/metrics", beacons[1]!.httpUrl))).text();
      expect(text).toContain('beacon_directory_state{state="ok"} 1');
      const { address, port } = beacons[0]!.address;
      expect(text).toContain(`beacon_directory_routes{beacon="${address}:${port}"} 3`);
      expect(text).toContain(`beacon_peer_in_directory{peer="${address}:${port}"} 1`);
      expect(text).toMatch(/^beacon_directory_lag_seconds_count [1-9]/m);
    });
  },
);
