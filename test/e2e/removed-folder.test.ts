/** A working directory that was removed: before the start, or under a beacon that serves. */
import { afterEach, expect, test } from "bun:test";
import { mkdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import { Clients } from "./support/client.ts";
import { isAlive, MAIN, type Program, Programs } from "./support/program.ts";
import { until } from "./support/wait.ts";

const folder = temporaryFolder();
const programs = new Programs();
let port = 0;
const clients = new Clients(() => ({ port }));
afterEach(async () => {
  clients.close();
  await programs.kill();
});

const FLAGS = ["--addr=127.0.0.1:0", "--log-format=json", "--workers=1", "--max-nodes=1000"];
const cwd = join(folder, "work");

/** Starts the program in a directory that it removes first. */
const startInRemoved = (...args: string[]): Program => {
  mkdirSync(cwd);
  const script = 'rmdir "$0" && exec "$@"';
  return programs.spawn(["sh", "-c", script, cwd, process.execPath, MAIN, ...args], { cwd });
};

test("a beacon that was started in one serves, its page too, and commands answer", async () => {
  const program = startInRemoved(...FLAGS, "--http=127.0.0.1:0");
  const { port: udpPort, http } = await program.listening();
  port = udpPort;
  const client = await clients.open();
  await client.discover(7);
  expect((await fetch(new URL("page/app.js", http))).status).toBe(200);
  const status = startInRemoved("status", `--http=${http}`);
  expect([await status.exited(), status.stderr]).toEqual([0, ""]);
});

test("a relative path is refused there, with what to do", async () => {
  const program = startInRemoved(...FLAGS, "--http=off", "--state-file=nodes");
  expect(await program.exited()).toBe(2);
  expect(program.stderr).toBe(
    "beacon: --state-file nodes: must be an absolute path, as the working directory was removed; or off\n",
  );
});

test("removed and made again, it is where a reload and the new process of an upgrade read their files", async () => {
  mkdirSync(cwd);
  const config = join(cwd, "config.json");
  writeFileSync(config, '{"drain": "1s"}');
  const program = programs.spawn(
    [process.execPath, MAIN, ...FLAGS, "--http=off", "--config=config.json"],
    {
      cwd,
    },
  );
  ({ port } = await program.listening());
  const client = await clients.open();
  await client.discover(7);
  rmSync(config);
  rmdirSync(cwd);
  mkdirSync(cwd);
  writeFileSync(config, '{"drain": "0s"}');
  program.signal("SIGHUP");
  expect(await program.logged(/^configuration reloaded/)).toMatchObject({ changed: ["--drain"] });
  program.signal("SIGUSR2");
  const { successor } = await program.logged(/serves; this one ends$/);
  await client.relay(7, 7, Uint8Array.of(1));
  expect(await client.message()).toMatchObject({ type: "deliver", senderId: 7 });
  process.kill(successor as number, "SIGTERM");
  await until("the successor ends", () => !isAlive(successor as number));
  expect(await program.exited()).toBe(0);
});
