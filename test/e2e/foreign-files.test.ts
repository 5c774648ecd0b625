/**
 * Files of others on the paths that a beacon writes: none is replaced, renamed, removed, followed
 * or waited for.
 */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import { freePort } from "./support/mesh.ts";
import { MAIN, type Program, Programs } from "./support/program.ts";
import { encodeState } from "./support/state.ts";
import { until } from "./support/wait.ts";

const root = temporaryFolder();
let folder = "";
let path = "";
beforeEach(() => {
  folder = mkdtempSync(join(root, "case-"));
  path = join(folder, "nodes");
});
const programs = new Programs();
const servers: Server[] = [];
afterEach(async () => {
  await programs.kill();
  for (const server of servers.splice(0)) server.close();
});

const FLAGS = ["--http=off", "--log-format=json", "--workers=1", "--max-nodes=1000"];
const ADVICE = /choose|name the path/;

function start(...flags: string[]): Program {
  return programs.beacon([...FLAGS, "--addr=127.0.0.1:0", "--state-interval=1s", ...flags]);
}

/** All that lies in the folder, with kinds, modes, contents and inodes. */
function picture(): unknown[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .sort()
    .map((name) => {
      const at = join(folder, name);
      const info = lstatSync(at);
      const holds = info.isFile()
        ? readFileSync(at, "hex")
        : info.isSymbolicLink()
          ? readlinkSync(at)
          : "";
      return [name, info.ino, info.mode, info.mtimeMs, holds];
    });
}

const state = () => encodeState({ savedMs: Date.now(), nodes: [] });

/** Kinds of files at a path, by the refusal's name for them. */
const OCCUPANTS: readonly { readonly says: string; readonly lay: (at: string) => unknown }[] = [
  {
    says: "is not a state file",
    lay: (at) => writeFileSync(at, "root:x:0:0:root:/root:/bin/bash\n"),
  },
  { says: "is not a state file", lay: (at) => writeFileSync(at, "PBNODES") },
  { says: "is not a state file", lay: (at) => writeFileSync(at, Buffer.alloc(64)) },
  { says: "is empty", lay: (at) => writeFileSync(at, "") },
  { says: "is a directory", lay: (at) => mkdirSync(at) },
  { says: "is a named pipe", lay: (at) => Bun.spawnSync(["mkfifo", at]) },
  {
    says: "is a socket",
    lay: (at) =>
      new Promise((resolve) => servers.push(createServer().listen(at, () => resolve(undefined)))),
  },
  {
    says: "is a symbolic link",
    lay: (at) => {
      writeFileSync(join(folder, "victim"), state());
      symlinkSync("victim", at);
    },
  },
  { says: "is a symbolic link", lay: (at) => symlinkSync("not-there", at) },
];

test.each(OCCUPANTS)(
  "a path that $says: start and check-config refuse it with one sentence",
  async ({ says, lay }) => {
    await lay(path);
    const before = picture();
    const program = start(`--state-file=${path}`);
    expect(await program.exited()).toBe(2);
    const [line, ...more] = program.log().filter(({ level }) => level === "fatal");
    expect(more).toEqual([]);
    expect(line!.msg).toStartWith(`--state-file: ${path} ${says}`);
    expect(line!.msg).toMatch(ADVICE);
    expect(picture()).toEqual(before);
    const check = programs.spawn([
      process.execPath,
      MAIN,
      "check-config",
      "--http=off",
      `--state-file=${path}`,
    ]);
    expect(await check.exited()).toBe(2);
    expect(check.stderr).toInclude(line!.msg);
    expect(picture()).toEqual(before);
  },
);

test("a device is refused without being opened", async () => {
  const program = start("--state-file=/dev/null");
  expect(await program.exited()).toBe(2);
  expect(program.output()).toInclude("--state-file: /dev/null is a device; choose");
  expect(lstatSync("/dev/null").isCharacterDevice()).toBe(true);
});

test.each(OCCUPANTS)("a path that $says since the start: no save replaces it", async ({ lay }) => {
  const program = start(`--state-file=${path}`);
  await program.listening();
  await until("the first save", () => readdirSync(folder).includes("nodes"));
  // In one step, as a save may fall in between.
  rmSync(path);
  await lay(`${path}-new`);
  Bun.spawnSync(["mv", "-T", `${path}-new`, path]);
  const before = picture();
  const warning = await program.logged(/cannot be saved/);
  expect(warning.level).toBe("warn");
  expect(warning.msg).toInclude(`${path} is `);
  program.signal("SIGTERM");
  expect(await program.exited()).toBe(0);
  expect(picture()).toEqual(before);
});

test.each(OCCUPANTS)(
  "a temporary path that $says: the save fails and names it",
  async ({ lay }) => {
    writeFileSync(path, state());
    await lay(`${path}.tmp`);
    const before = picture();
    const program = start(`--state-file=${path}`);
    const { msg } = await program.logged(/cannot be saved/);
    expect(msg).toInclude(`${path}.tmp is `);
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
    expect(picture()).toEqual(before);
  },
);

test.each(["", "\0".repeat(80), state().subarray(0, 40)])(
  "a half-written state file of a killed beacon is replaced",
  async (left) => {
    writeFileSync(`${path}.tmp`, left);
    chmodSync(`${path}.tmp`, 0o600);
    const program = start(`--state-file=${path}`);
    await program.listening();
    await until("the save", () => readdirSync(folder).join() === "nodes");
  },
);

test.each(OCCUPANTS)(
  "a .rejected that $says stays when a damaged state file is refused",
  async ({ lay }) => {
    writeFileSync(path, state().subarray(0, 20));
    await lay(`${path}.rejected`);
    const before = picture().filter((entry) => (entry as string[])[0] !== "nodes");
    const program = start(`--state-file=${path}`);
    const { msg } = await program.logged(/is damaged/);
    expect(msg).toMatch(
      /could not be renamed \(.*\.rejected is .*\), and the next save replaces it/,
    );
    await program.listening();
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
    expect(picture().filter((entry) => (entry as string[])[0] !== "nodes")).toEqual(before);
  },
);

test("an upgrade to a configuration with a foreign state file is refused", async () => {
  const config = join(root, "config.json");
  writeFileSync(config, JSON.stringify({ "state-file": path }));
  const addr = `127.0.0.1:${freePort()}`;
  const program = programs.beacon([...FLAGS, `--addr=${addr}`, `--config=${config}`]);
  await program.listening();
  const other = join(folder, "other");
  writeFileSync(other, "somebody's");
  writeFileSync(config, JSON.stringify({ "state-file": other }));
  program.signal("SIGHUP");
  await program.logged(/^changed only by a restart: --state-file/);
  program.signal("SIGUSR2");
  const { msg } = await program.logged(/^no upgrade/);
  expect(msg).toInclude(`--state-file: ${other} is not a state file`);
  program.signal("SIGTERM");
  expect(await program.exited()).toBe(0);
  expect(readFileSync(other, "utf8")).toBe("somebody's");
  expect(readdirSync(folder).sort()).toEqual(["nodes", "other"]);
});
