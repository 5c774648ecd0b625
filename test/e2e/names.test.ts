/**
 * Beacons on hosts whose name server is silent, fails, or has new answers: in a mount namespace
 * with files of their own.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import { NameServer } from "../support/name-server.ts";
import { REDIS, type RedisServer, RedisServers } from "../support/redis.ts";
import { BridgedNode, KnownNodes } from "./support/bridged.ts";
import { freePort, Mesh } from "./support/mesh.ts";
import { installed, isAlive } from "./support/program.ts";
import { until, untilEqual } from "./support/wait.ts";

const folder = temporaryFolder();
const [hostsFile, resolvFile] = [join(folder, "hosts"), join(folder, "resolv.conf")];

const MOUNT =
  'mount --bind "$0" /etc/hosts && mount --bind "$1" /etc/resolv.conf && shift && exec "$@"';
const within = [
  "unshare",
  "--mount",
  "--propagation=private",
  "sh",
  "-c",
  MOUNT,
  hostsFile,
  resolvFile,
];

/** A loopback address that no other test uses: resolv.conf knows port 53 alone. */
const nameServerAddress = () => `127.53.${Math.floor(Math.random() * 250)}.${process.pid % 250}`;

function canMount(): boolean {
  writeFileSync(hostsFile, "");
  writeFileSync(resolvFile, "");
  return (
    process.getuid?.() === 0 && installed("unshare") && Bun.spawnSync([...within, "true"]).success
  );
}

let mesh = new Mesh();
let names: NameServer;
const redis = new RedisServers();
const successors: number[] = [];

const has = canMount();
describe.skipIf(!has)(`names${has ? "" : " (needs root, unshare and mount)"}`, () => {
  beforeEach(async () => {
    const address = nameServerAddress();
    names = await NameServer.listen(address, 53);
    writeFileSync(hostsFile, "127.0.0.1 localhost\n");
    // Tries that would outlast the test: a look-up that goes by them blocks what it blocks for
    // good.
    writeFileSync(
      resolvFile,
      `nameserver ${address}\nsearch mesh.test\noptions timeout:30 attempts:5\n`,
    );
  });
  afterEach(async () => {
    for (const pid of successors.splice(0)) if (isAlive(pid)) process.kill(pid, "SIGKILL");
    await mesh.close();
    mesh = new Mesh();
    names.close();
    await redis.stop();
  });

  test("a silent name server stops nothing: files are saved, nodes enter the bridge, upgrades and exits go on", async () => {
    names.failure = () => "silent";
    const known = new KnownNodes();
    const keys = join(folder, "keys.json");
    const state = join(folder, "state");
    const identity = known.identity(8);
    writeFileSync(keys, known.file());
    const peers = Array.from({ length: 24 }, (_, i) => `beacon${i}.example:9001`);
    const beacon = await mesh.beacon(
      "127.0.0.1:0",
      [
        `--peers=${peers.join(",")}`,
        ...["--beacon-id=1", "--registry=registry.example:9000", "--advertise-addr=127.0.0.1:9001"],
        "--directory=redis://one.example,two.example,three.example",
        ...["--wss=127.0.0.1:0", `--wss-keys=${keys}`],
        ...[`--state-file=${state}`, "--state-interval=1s"],
      ],
      { within },
    );
    await until("names are looked up", () => names.asked.length > 0);
    await (await mesh.client(beacon)).discover(7);
    await until("the state file is saved", () => existsSync(state));
    const node = await BridgedNode.connect(beacon.wss!, identity);
    node.relay(node.nodeId, Uint8Array.of(7));
    expect(await node.message()).toMatchObject({ type: "deliver", senderId: node.nodeId });
    beacon.program.signal("SIGUSR2");
    const { successor } = await beacon.program.logged(/serves; this one ends$/);
    successors.push(successor as number);
    await until("the old process exits", () => !isAlive(beacon.program.pid));
    process.kill(successor as number, "SIGTERM");
    await until("the new process exits", () => !isAlive(successor as number));
  });

  test("peers are found by DNS with its search domains, by the hosts file first, and by a new resolv.conf", async () => {
    names.hosts.set("other.mesh.test", ["127.0.0.5"]);
    const beacon = await mesh.beacon("127.0.0.1:0", ["--peers=other:9001"], { within });
    const expectPeer = async (address: string) => {
      // Looks names up at once.
      beacon.program.signal("SIGHUP");
      await untilEqual("peers", () => beacon.routes(), { [`${address}:9001`]: 0 });
    };
    await expectPeer("127.0.0.5");
    names.hosts.set("other.mesh.test", ["127.0.0.6"]);
    await expectPeer("127.0.0.6");
    writeFileSync(hostsFile, "127.0.0.7 other\n");
    await expectPeer("127.0.0.7");
    writeFileSync(hostsFile, "127.0.0.1 localhost\n");
    const second = await NameServer.listen(nameServerAddress(), 53);
    try {
      second.hosts.set("other.fleet.test", ["127.0.0.8"]);
      writeFileSync(resolvFile, `search fleet.test\nnameserver ${second.at.replace(/:.*/, "")}\n`);
      await expectPeer("127.0.0.8");
    } finally {
      second.close();
    }
  });

  test.skipIf(REDIS.program === undefined)(
    `a directory whose name moves is followed at the next connection${REDIS.program ? "" : " (needs redis-server)"}`,
    async () => {
      const before = await redis.start({ host: "127.0.0.2" });
      const after = await redis.start({ host: "127.0.0.3", port: before.port });
      const connections = async (server: RedisServer) => {
        const stats = String(await server.command("INFO", "stats"));
        return Number(/total_connections_received:(\d+)/.exec(stats)![1]);
      };
      const announced = (server: RedisServer) =>
        until("the beacon announces itself", async () => {
          const beacons = await server.command("HLEN", "{moving}:beacons");
          return Number(beacons) > 0;
        });
      names.hosts.set("redis.mesh.test", [before.host]);
      const flags = [
        `--directory=redis://redis:${before.port}`,
        "--directory-prefix=moving",
        "--beacon-id=1",
      ];
      await mesh.beacon(`127.0.0.1:${freePort()}`, flags, { within });
      await announced(before);
      names.hosts.set("redis.mesh.test", [after.host]);
      const received = await connections(before);
      await before.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
      await announced(after);
      expect(await connections(before)).toBe(received);
    },
  );
});
