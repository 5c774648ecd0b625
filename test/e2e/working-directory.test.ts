/**
 * A beacon from source, started in directories in which others have put files;
 * test/e2e/binary.test.ts has the compiled one.
 */
import { afterEach, expect, test } from "bun:test";
import { symlinkSync } from "node:fs";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { temporaryFolder } from "../support/folder.ts";
import { HostileDirectory } from "./support/host.ts";
import { CLEAN_ENV, isAlive, Programs, ROOT } from "./support/program.ts";
import { until } from "./support/wait.ts";

const folder = temporaryFolder();
const programs = new Programs();
const successors: number[] = [];
afterEach(async () => {
  for (const pid of successors.splice(0)) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {} // it has ended
  }
  await programs.kill();
});

const BEACON = join(ROOT, packageJson.bin.beacon);
const FLAGS = [
  "--addr=127.0.0.1:0",
  "--http=off",
  "--log-format=json",
  "--workers=2",
  "--max-nodes=1000",
];

test.each(["", "production"])(
  "settings and code of the working directory are not read, nor by an upgrade (NODE_ENV=%s)",
  async (NODE_ENV) => {
    const directory = new HostileDirectory(join(folder, `hostile-${NODE_ENV}`));
    const link = join(folder, `beacon-${NODE_ENV}`);
    symlinkSync(BEACON, link); // as npm installs it
    const program = programs.spawn([link, ...FLAGS], {
      cwd: directory.path,
      env: { ...CLEAN_ENV, NODE_ENV },
    });
    await program.listening();
    program.signal("SIGUSR2");
    const { successor } = await program.logged(/serves; this one ends$/);
    successors.push(successor as number);
    await until("the old process ends", () => !isAlive(program.pid));
    expect(directory.hasRun).toBe(false);
  },
);

test("a command does not read them either", async () => {
  const directory = new HostileDirectory(join(folder, "hostile-command"));
  const program = programs.spawn([BEACON, "check-config", "--http=off"], { cwd: directory.path });
  expect(await program.exited()).toBe(0);
  expect(program.lines[0]).toBe("the configuration is good");
  expect(directory.hasRun).toBe(false);
});

test("npm start goes the same way", () => {
  expect(packageJson.scripts.start).toBe(packageJson.bin.beacon);
});
