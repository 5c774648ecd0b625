/** Signals that arrive before the server is up: while it still reads its configuration. */
import { afterEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import { ConfigPipe } from "./support/host.ts";
import { installed, isAlive, MAIN, type Program, Programs } from "./support/program.ts";
import { until } from "./support/wait.ts";

const folder = temporaryFolder();
const programs = new Programs();
afterEach(() => programs.kill());

let pipes = 0;
const FLAGS = [
  "--addr=127.0.0.1:0",
  "--http=off",
  "--log-format=json",
  "--workers=1",
  "--max-nodes=1000",
];

/** A beacon that waits for its configuration. @param before the words before its command */
function start(
  before: readonly string[] = [],
  flags: readonly string[] = [],
): { program: Program; config: ConfigPipe } {
  const config = ConfigPipe.make(join(folder, `config-${pipes++}`));
  const command = [
    ...before,
    process.execPath,
    MAIN,
    ...FLAGS,
    ...flags,
    `--config=${config.path}`,
  ];
  return { program: programs.spawn(command), config };
}

test("SIGHUP is remembered, and the configuration is read again once the beacon listens", async () => {
  const { program, config } = start();
  await config.feed(() => program.signal("SIGHUP"));
  await program.listening();
  await config.feed();
  await program.logged(/^configuration reloaded/);
});

test("SIGUSR2 is remembered, and the beacon hands over once it listens", async () => {
  const { program, config } = start();
  await config.feed(() => program.signal("SIGUSR2"));
  await program.listening();
  await config.feed(); // of the successor
  const { successor } = await program.logged(/serves; this one ends$/);
  process.kill(successor as number, "SIGTERM");
  await until("the successor ends", () => !isAlive(successor as number));
  expect(await program.exited()).toBe(0);
});

test("SIGUSR1 is remembered, and answered with a line", async () => {
  const { program, config } = start();
  await config.feed(() => program.signal("SIGUSR1"));
  await program.logged(/^SIGUSR1 means nothing here/);
});

test.each(["SIGTERM", "SIGINT"] as const)(
  "%s ends it with exit code 0, whatever --drain is",
  async (signal) => {
    const { program, config } = start([], ["--drain=1h"]);
    await config.feed(() => program.signal(signal));
    expect([await program.exited(), program.stderr]).toEqual([0, ""]);
  },
);

const canUnshare =
  installed("unshare") &&
  Bun.spawnSync(["unshare", "--pid", "--fork", "true"], { stderr: "ignore" }).success;

describe.skipIf(!canUnshare)(
  `process 1 of a namespace${canUnshare ? "" : " (needs root and unshare)"}`,
  () => {
    /** Waits for the only child of a process. */
    const childOf = (pid: number) =>
      until(
        "a child",
        () => Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")) || undefined,
      );

    test.each(["SIGTERM", "SIGHUP"] as const)("%s is not lost", async (signal) => {
      const { program, config } = start(["unshare", "--pid", "--fork", "--kill-child"]);
      const pid = await childOf(program.pid);
      await config.feed(() => process.kill(pid, signal));
      if (signal === "SIGHUP") {
        await program.listening();
        await config.feed();
        await program.logged(/^configuration reloaded/);
      } else {
        expect(await program.exited()).toBe(0);
      }
    });
  },
);
