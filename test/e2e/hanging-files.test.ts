/**
 * Beacons whose state file is on a file system that hangs: they serve, end, and hand over all the
 * same.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { HangingMount } from "../support/hanging-mount.ts";
import { freeTcpPort } from "../support/redis.ts";
import { Clients } from "./support/client.ts";
import { isAlive, type Program, Programs } from "./support/program.ts";
import { until } from "./support/wait.ts";

const { missing } = HangingMount;

let mount: HangingMount;
let port = 0;
let successorPid = 0;
const clients = new Clients(() => ({ port }));
const programs = new Programs();

/** Starts a beacon that saves to the mount every second. */
function start(): Program {
  return programs.beacon([
    ...[
      "--addr=127.0.0.1:0",
      `--http=127.0.0.1:${freeTcpPort()}`,
      "--workers=1",
      "--drain=0s",
      "--log-format=json",
    ],
    ...[`--state-file=${join(mount.folder, "nodes")}`, "--state-interval=1s"],
  ]);
}

/** Starts one, with two nodes, lets it save them, and lets the mount hang. */
async function startAndHang(): Promise<{ beacon: Program; http: string }> {
  const beacon = start();
  const { port: udpPort, http } = await beacon.listening();
  port = udpPort;
  const client = await clients.open();
  await client.discover(1);
  await client.discover(2);
  await until("both nodes are saved", async () => (await mount.list())["nodes"] === 96);
  await mount.hang();
  return { beacon, http: http! };
}

const isHealthy = async (http: string) => (await fetch(new URL("healthz", http))).status === 200;

describe.skipIf(missing !== undefined)(
  `a state file that hangs${missing ? ` (${missing})` : ""}`,
  () => {
    beforeEach(async () => {
      mount = await HangingMount.mount();
    });
    afterEach(async () => {
      if (successorPid !== 0 && isAlive(successorPid)) process.kill(successorPid, "SIGKILL");
      successorPid = 0;
      await programs.kill();
      clients.close();
      await mount.unmount();
    });

    test("SIGTERM ends the beacon, which logs what was not saved", async () => {
      const { beacon, http } = await startAndHang();
      expect(await isHealthy(http)).toBe(true);
      beacon.signal("SIGTERM");
      expect(await beacon.exited()).toBe(0);
      const messages = beacon.log().map(({ msg }) => msg);
      expect(messages).toContainEqual(
        expect.stringMatching(/cannot be saved: ETIMEDOUT: its file system/),
      );
      expect(messages).toContainEqual(
        expect.stringMatching(/^2 nodes were not saved before the end/),
      );
      expect(messages.at(-1)).toBe("beacon closed");
    });

    test("an upgrade succeeds, and the new process saves once the file system answers", async () => {
      const { beacon, http } = await startAndHang();
      beacon.signal("SIGUSR2");
      const { successor } = await beacon.logged(/serves; this one ends/);
      successorPid = successor as number;
      await until("the old process has ended", () => !isAlive(beacon.pid));
      expect(await isHealthy(http)).toBe(true);
      const from = beacon.lines.length;
      await (await clients.open()).discover(3);
      await mount.go();
      await until("three nodes are saved", async () => (await mount.list())["nodes"] === 128);
      process.kill(successorPid, "SIGTERM");
      await beacon.logged(/beacon closed/, from);
      expect(await beacon.exited()).toBe(0);
    });

    test("a start says what it waits for, and SIGTERM ends it", async () => {
      await mount.hang();
      const beacon = start();
      await beacon.logged(/^the start waits for the state file .*nodes/);
      beacon.signal("SIGTERM");
      expect(await beacon.exited()).toBe(0);
    });
  },
);
