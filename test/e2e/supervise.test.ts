/**
 * `beacon supervise` under what watches services and containers; and the server there without it,
 * which refuses to hand over.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder, temporaryPaths } from "../support/folder.ts";
import { Clients, numbersOf, stream } from "./support/client.ts";
import { ConfigPipe } from "./support/host.ts";
import { freePort } from "./support/mesh.ts";
import { Notified } from "./support/notified.ts";
import { CLEAN_ENV, installed, isAlive, MAIN, type Program, Programs } from "./support/program.ts";
import { until, untilEqual } from "./support/wait.ts";

const folder = temporaryFolder();
const programs = new Programs();
/** Processes that no program of this test waits for. */
const strays = new Set<number>();
let port = 0;
const clients = new Clients(() => ({ port }));
afterEach(async () => {
  clients.close();
  const killed = programs.kill(); // the outermost first, which start no other then
  for (const pid of strays) kill(pid, "SIGKILL");
  strays.clear();
  await killed; // until nobody holds their output
});

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {} // it has ended
}

const TOKEN = "0123456789abcdef0123456789abcdef";
const tokenPath = join(folder, "token");
writeFileSync(tokenPath, TOKEN, { mode: 0o600 });
const newPath = temporaryPaths(folder);

const FLAGS = [
  "--http=off",
  "--log-format=json",
  "--workers=1",
  "--max-nodes=1000",
  "--relay-limit=0",
];
/**
 * The server's command, on a port of its own.
 * @param words behind the program, such as "supervise"
 */
function beacon(words: readonly string[], ...flags: readonly string[]): string[] {
  port = freePort();
  return [process.execPath, MAIN, ...words, `--addr=127.0.0.1:${port}`, ...FLAGS, ...flags];
}
const SUPERVISE = ["supervise"];

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
      .split(" ")
      .filter(Boolean)
      .map(Number);
  } catch {
    return [];
  }
}

/** A process's command; empty once it has ended. */
function commandOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
}

/** Every process below one. */
function descendantsOf(pid: number): number[] {
  return childrenOf(pid).flatMap((child) => [child, ...descendantsOf(child)]);
}

/** A program that keeps services running: how it starts one, in a folder of its own. */
interface Watcher {
  readonly name: string;
  readonly needs: readonly string[];
  start(command: readonly string[], at: string): string[];
}

const script = (path: string, command: readonly string[]) =>
  writeFileSync(path, `#!/bin/sh\nexec ${command.map((word) => `'${word}'`).join(" ")}\n`, {
    mode: 0o755,
  });

const WATCHERS: readonly Watcher[] = [
  { name: "tini", needs: ["tini"], start: (command) => ["tini", "-s", "--", ...command] },
  {
    name: "a shell script under tini",
    needs: ["tini"],
    start: (command, at) => {
      writeFileSync(join(at, "entry.sh"), `#!/bin/sh\n${command.join(" ")}\nexit $?\n`, {
        mode: 0o755,
      });
      return ["tini", "-s", "--", join(at, "entry.sh")];
    },
  },
  {
    name: "runit",
    needs: ["runsv"],
    start: (command, at) => {
      script(join(at, "run"), command);
      return ["runsv", at];
    },
  },
  {
    name: "s6",
    needs: ["s6-svscan"],
    start: (command, at) => {
      mkdirSync(join(at, "beacon"));
      script(join(at, "beacon/run"), command);
      return ["s6-svscan", at];
    },
  },
  {
    name: "supervisord",
    needs: ["supervisord"],
    start: (command, at) => {
      const config = [
        ...[
          "[supervisord]",
          "nodaemon=true",
          `logfile=${join(at, "log")}`,
          `pidfile=${join(at, "pid")}`,
        ],
        ...["user=root", "[program:beacon]", `command=${command.join(" ")}`],
        ...["stdout_logfile=/dev/fd/1", "stdout_logfile_maxbytes=0", "redirect_stderr=true"],
      ];
      writeFileSync(join(at, "supervisord.conf"), config.join("\n"));
      // It opens /dev/fd/1, which works for a pipe, and not for the socket that Bun has programs
      // write to.
      return ["sh", "-c", 'supervisord --configuration "$0" | cat', join(at, "supervisord.conf")];
    },
  },
  {
    name: "a PID namespace, as its process 1",
    needs: ["unshare"],
    start: (command) => ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", ...command],
  },
];

const canUnshare =
  installed("unshare") &&
  Bun.spawnSync(["unshare", "--pid", "--fork", "true"], { stderr: "ignore" }).success;

/** Starts a beacon under a watcher, and waits until it listens. */
async function startUnder(watcher: Watcher, command: readonly string[]): Promise<Program> {
  const at = newPath();
  mkdirSync(at);
  const program = programs.spawn(watcher.start(command, at));
  await program.listening();
  for (const pid of descendantsOf(program.pid)) strays.add(pid);
  return program;
}

/**
 * The beacon's processes below one, the outermost first: the supervising one, and those that serve.
 */
function beaconsUnder(pid: number): number[] {
  const found = descendantsOf(pid).filter((each) => {
    const [program, main] = commandOf(each);
    return program === process.execPath && main === MAIN;
  });
  for (const each of found) strays.add(each);
  return found;
}

/** Waits until one process serves, other than those. @returns it, and the one that supervises it */
const servingUnder = (pid: number, not: readonly number[] = []) =>
  until("one serving process", () => {
    const [supervising, serving, ...more] = beaconsUnder(pid);
    if (
      supervising === undefined ||
      serving === undefined ||
      more.length > 0 ||
      not.includes(serving)
    )
      return undefined;
    return { supervising, serving };
  });

/** The watchers that are here, and by name those that are not. */
describe.each(WATCHERS.map((watcher) => [watcher.name, watcher] as const))(
  "under %s",
  (name, watcher) => {
    const missing = watcher.needs.filter((program) => !installed(program));
    const why =
      missing.length > 0
        ? missing.join(", ")
        : name.includes("namespace") && !canUnshare
          ? "root"
          : "";
    const only = why === "" ? test : test.skip;
    const suffix = why === "" ? "" : ` (needs ${why})`;

    only(
      `supervise: no packet is lost in an upgrade, and a killed server comes back${suffix}`,
      async () => {
        const program = await startUnder(watcher, beacon(SUPERVISE));
        const { supervising, serving } = await servingUnder(program.pid);
        const [a, b] = [await clients.open(), await clients.open()];
        await a.discover(100);
        await b.discover(101);
        const stop = stream(a, 100, 101, b);
        process.kill(supervising, "SIGUSR2");
        await program.logged(/serves; this one ends$/);
        const after = await servingUnder(program.pid, [serving]);
        expect(after.supervising).toBe(supervising);
        const sent = await stop();
        const arrived: number[] = [];
        await until("every packet", () => arrived.push(...numbersOf(b)) >= sent);
        expect(arrived).toEqual(Array.from({ length: sent }, (_, i) => i));

        const lines = program.lines.length;
        process.kill(after.serving, "SIGKILL");
        await program.logged(/listens on/, lines);
        const again = await servingUnder(program.pid, [after.serving]);
        expect(again.supervising).toBe(supervising);
        await a.discover(100);
        await a.relay(100, 100, Uint8Array.of(7));
        expect(await a.message()).toMatchObject({ type: "deliver", payload: Uint8Array.of(7) });
      },
    );

    only(`without it an upgrade is refused, and the server goes on${suffix}`, async () => {
      const http = `127.0.0.1:${freePort()}`;
      const command = beacon([], `--http=${http}`, `--admin-token-file=${tokenPath}`).filter(
        (flag) => flag !== "--http=off",
      );
      const program = await startUnder(watcher, command);
      const [server] = beaconsUnder(program.pid);
      process.kill(server!, "SIGUSR2");
      const refusal = await program.logged(/^no upgrade, this process goes on: /);
      expect(refusal.msg).toEndWith(
        "start `beacon supervise` in place of the server, or restart it",
      );
      if (!name.includes("namespace")) {
        // Its loopback is this host's all the same, but it is not needed twice.
        const headers = { authorization: `Bearer ${TOKEN}` };
        const answer = await fetch(`http://${http}/api/upgrade`, { method: "POST", headers });
        expect([answer.status, await answer.text()]).toEqual([
          500,
          expect.stringContaining("beacon supervise"),
        ]);
      }
      expect(beaconsUnder(program.pid)).toEqual([server!]);
      const client = await clients.open();
      expect(await client.discover(1)).toMatchObject({ type: "discoverReply" });
    });
  },
);

describe("supervise", () => {
  const start = (...flags: string[]) => programs.spawn(beacon(SUPERVISE, ...flags));

  /** The supervising process is the program itself. */
  const servingOf = (program: Program, not: readonly number[] = []) =>
    until("one serving process", () => {
      const [serving, ...more] = beaconsUnder(program.pid);
      return serving === undefined || more.length > 0 || not.includes(serving)
        ? undefined
        : serving;
    });

  async function expectServed(): Promise<void> {
    const client = await clients.open();
    expect(await client.discover(7)).toMatchObject({ type: "discoverReply" });
  }

  test.each(["SIGTERM", "SIGINT"] as const)("%s ends both with exit code 0", async (signal) => {
    const program = start();
    await program.listening();
    const serving = await servingOf(program);
    program.signal(signal);
    expect(await program.exited()).toBe(0);
    expect([isAlive(serving), program.stderr]).toEqual([false, ""]);
  });

  test("ends with the server's exit code where that ends on purpose", async () => {
    const bad = start("--workers=many");
    expect(await bad.exited()).toBe(2);
    expect(bad.stderr).toStartWith("beacon: --workers many: ");
    const help = programs.spawn([process.execPath, MAIN, "supervise", "--help"]);
    expect(await help.exited()).toBe(0);
    expect(help.output()).toContain("--addr <address>");
    const drained = start();
    await drained.listening();
    process.kill(await servingOf(drained), "SIGTERM");
    expect(await drained.exited()).toBe(0);
  });

  test("runs any other command that is named behind it", async () => {
    const check = programs.spawn([
      process.execPath,
      MAIN,
      "supervise",
      "check-config",
      "--workers=many",
    ]);
    expect([await check.exited(), check.stderr]).toEqual([
      2,
      expect.stringContaining("--workers many"),
    ]);
  });

  test("passes SIGHUP on, also one that arrives while the server starts", async () => {
    const config = ConfigPipe.make(newPath());
    const program = start(`--config=${config.path}`);
    await config.feed(() => program.signal("SIGHUP"));
    await program.listening();
    await config.feed();
    await program.logged(/^configuration reloaded/);
    const from = program.lines.length;
    program.signal("SIGHUP");
    await config.feed();
    await program.logged(/^configuration reloaded/, from);
  });

  test("starts a server that cannot serve again, later each time", async () => {
    const taken = await Bun.udpSocket({ hostname: "127.0.0.1" });
    try {
      const program = programs.spawn([
        process.execPath,
        MAIN,
        "supervise",
        `--addr=127.0.0.1:${taken.port}`,
        ...FLAGS,
      ]);
      await until("some restarts", () => program.stderr.split("the next one starts").length > 3);
      expect(program.stderr).toContain("died (exit code 1); the next one starts in 100 ms");
      expect(program.stderr).toContain("the next one starts in 400 ms");
    } finally {
      taken.close();
    }
  });

  test("the serving process killed amid a hand-over: its successor is followed, on the same sockets", async () => {
    const program = start("--log-level=debug");
    await program.listening();
    const client = await clients.open();
    await client.discover(7);
    const before = await servingOf(program);
    program.signal("SIGUSR2");
    const { successor } = await program.logged(/^upgrade: prepared/);
    strays.add(successor as number);
    process.kill(before, "SIGKILL");
    await until("it is followed", () =>
      program.stderr.includes(`process ${successor} serves in its place`),
    );
    await client.relay(7, 7, Uint8Array.of(1)); // which is known still
    expect(await client.message()).toMatchObject({ type: "deliver", senderId: 7 });
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
    expect(isAlive(successor as number)).toBe(false);
  });

  test("a successor killed at once: the process before serves again, and is followed", async () => {
    const program = start();
    await program.listening();
    const client = await clients.open();
    await client.discover(7);
    const before = await servingOf(program);
    program.signal("SIGUSR2");
    const { successor } = await program.logged(/serves; this one ends$/);
    process.kill(successor as number, "SIGKILL");
    await program.logged(/this one serves again$/);
    await until("it is followed", () =>
      program.stderr.includes(`process ${before} serves in its place`),
    );
    await client.relay(7, 7, Uint8Array.of(1));
    expect(await client.message()).toMatchObject({ type: "deliver", senderId: 7 });
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
  });

  test("a server that hangs is killed by its watchdog and replaced", async () => {
    const program = programs.spawn(beacon(SUPERVISE), {
      env: { ...CLEAN_ENV, WATCHDOG_USEC: "1000000" },
    });
    await program.listening();
    const serving = await servingOf(program);
    process.kill(serving, "SIGSTOP");
    await until("it is killed", () =>
      program.stderr.includes(`process ${serving} hangs: it is killed`),
    );
    await servingOf(program, [serving]);
    await program.logged(/listens on/, 1);
    await expectServed();
  });

  test("the server ends when the supervising process is killed", async () => {
    const program = start();
    await program.listening();
    const serving = await servingOf(program);
    program.signal("SIGKILL");
    await until("it ends", () => !isAlive(serving));
  });

  test.skipIf(!canUnshare)(
    `as process 1 it waits for orphans${canUnshare ? "" : " (needs root and unshare)"}`,
    async () => {
      const command = ["unshare", "--pid", "--fork", "--kill-child", ...beacon(SUPERVISE)];
      const program = programs.spawn(command);
      await program.listening();
      const { supervising, serving } = await servingUnder(program.pid);
      const orphan = programs.spawn([
        "nsenter",
        "--target",
        String(supervising),
        "--pid",
        "sh",
        "-c",
        "sleep 1000 & echo started",
      ]);
      await orphan.line("a start", (line) => line === "started" || undefined);
      const sleeper = await until("it is adopted", () =>
        childrenOf(supervising).find((pid) => pid !== serving),
      );
      process.kill(sleeper, "SIGKILL");
      await untilEqual("children", () => childrenOf(supervising), [serving]);
    },
  );

  const python = installed("python3");
  test.skipIf(!python)(
    `passes on what the server notifies, but for its successor${python ? "" : " (needs python3)"}`,
    async () => {
      const manager = await Notified.bind(programs, newPath());
      const env = { ...CLEAN_ENV, NOTIFY_SOCKET: manager.path, WATCHDOG_USEC: "200000" };
      const program = programs.spawn(beacon(SUPERVISE), { env });
      expect(await manager.text(/READY/)).toBe("READY=1 STATUS=serving");
      await manager.text(/WATCHDOG=1/);
      const from = manager.texts.length;
      program.signal("SIGUSR2");
      await program.logged(/serves; this one ends$/);
      expect(await manager.text(/READY/, from)).toBe("READY=1 STATUS=serving");
      program.signal("SIGTERM");
      await manager.text(/STOPPING=1/);
      expect(await program.exited()).toBe(0);
      expect(manager.texts.join()).not.toContain("MAINPID");
    },
  );
});
