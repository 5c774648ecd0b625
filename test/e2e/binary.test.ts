/** The single-file binary: alone in a folder, without an environment, from anywhere. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import {
  copyFileSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Stats } from "../../src/beacon.ts";
import { Clients } from "./support/client.ts";
import { ConfigPipe, HostileDirectory } from "./support/host.ts";
import { freePort } from "./support/mesh.ts";
import { Notified } from "./support/notified.ts";
import { installed, Programs, ROOT } from "./support/program.ts";
import { Random } from "./support/random.ts";
import { decodeState } from "./support/state.ts";
import { TEST_TIMEOUT_MS } from "./support/wait.ts";

describe("the binary", () => {
  const programs = new Programs();
  let folder: string;
  let port = 0;
  const clients = new Clients(() => ({ port }));

  beforeAll(() => {
    const build = Bun.spawnSync([process.execPath, "build.ts"], {
      cwd: ROOT,
      stdout: "pipe",
      stderr: "pipe",
    });
    if (!build.success) throw new Error(`the build failed: ${build.stdout}${build.stderr}`);
    folder = mkdtempSync(join(tmpdir(), "beacon-e2e-"));
    copyFileSync(join(ROOT, "dist/beacon"), join(folder, "beacon"));
  }, TEST_TIMEOUT_MS);
  afterEach(async () => {
    clients.close();
    await programs.kill();
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const spawn = (...flags: string[]) =>
    programs.spawn([join(folder, "beacon"), ...flags], { env: {}, cwd: "/" });

  test("relays with 2 workers, serves HTTP, and ends with exit code 0", async () => {
    const program = spawn("--workers=2", "--addr=:0", "--http=127.0.0.1:0", "--log-format=json");
    const { port: udpPort, http } = await program.listening();
    port = udpPort;
    const [a, b] = [await clients.open("127.0.0.1"), await clients.open("::1")];
    for (let pair = 0; pair < 20; pair++) {
      const [idA, idB] = [1 + 2 * pair, 2 + 2 * pair];
      expect(await a.discover(idA)).toEqual({ type: "discoverReply", ...a.address });
      expect(await b.discoverEx(idB)).toEqual({ type: "discoverReply", ...b.address });
      const payload = new Random(pair).bytes(1200);
      await a.relay(idA, idB, payload);
      expect(await b.message()).toEqual({
        type: "deliverDest",
        senderId: idA,
        destId: idB,
        payload,
      });
      await b.relay(idB, idA, payload);
      expect(await a.message()).toEqual({ type: "deliver", senderId: idB, payload });
    }
    const stats = (await (await fetch(new URL("api/stats", http))).json()) as Stats;
    expect(stats.nodes).toBe(40);
    expect(stats.workers.map(({ alive, restarts }) => ({ alive, restarts }))).toEqual([
      { alive: true, restarts: 0 },
      { alive: true, restarts: 0 },
    ]);
    expect((await fetch(new URL("metrics", http))).status).toBe(200);
    const files = ["", "page/app.js", "page/style.css"].map((path) => fetch(new URL(path, http)));
    const [html, script, style] = await Promise.all(
      (await Promise.all(files)).map((file) => file.text()),
    );
    expect(html).toContain('src="page/app.js"');
    expect(script).toContain("api/stats/stream");
    expect(style).toContain(".uplot");
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
    expect(program.stderr).toBe("");
    expect(program.log().filter(({ level }) => level !== "info" && level !== "warn")).toEqual([]);
  });

  test.each(["", "production"])(
    "reads no settings and runs no code of the working directory (NODE_ENV=%s)",
    async (NODE_ENV) => {
      const directory = new HostileDirectory(join(folder, `hostile-${NODE_ENV}`));
      const flags = ["--addr=127.0.0.1:0", "--http=off", "--log-format=json", "--workers=2"];
      const program = programs.spawn([join(folder, "beacon"), ...flags], {
        env: { NODE_ENV },
        cwd: directory.path,
      });
      await program.listening();
      program.signal("SIGTERM");
      expect(await program.exited()).toBe(0);
      expect(directory.hasRun).toBe(false);
    },
  );

  const python = installed("python3");
  test.skipIf(!python)(
    `keeps its nodes, reads its configuration again, and tells a service manager${python ? "" : " (needs python3)"}`,
    async () => {
      const [config, state] = [join(folder, "config.json"), join(folder, "nodes")];
      const manager = await Notified.bind(programs, join(folder, "notify"));
      const env = { NOTIFY_SOCKET: manager.path, WATCHDOG_USEC: "200000" };
      port = freePort();
      const start = () =>
        programs.spawn([join(folder, "beacon"), `--addr=127.0.0.1:${port}`, `--config=${config}`], {
          env,
          cwd: "/",
        });
      const base = {
        http: "off",
        "log-format": "json",
        workers: 2,
        "max-nodes": 1000,
        "state-file": state,
      };
      writeFileSync(config, JSON.stringify(base));

      const first = start();
      expect(await manager.text(/READY/)).toBe("READY=1 STATUS=serving");
      const [a, b] = [await clients.open(), await clients.open()];
      await a.discover(1);
      await b.discoverEx(2);
      await manager.text(/WATCHDOG/);
      writeFileSync(config, JSON.stringify({ ...base, drain: "100ms" }));
      first.signal("SIGHUP");
      expect(await first.logged(/reloaded/)).toMatchObject({ level: "info", changed: ["--drain"] });
      await manager.text(/RELOADING=1/);
      first.signal("SIGTERM");
      expect(await manager.text(/STOPPING/)).toBe(
        "STOPPING=1 EXTEND_TIMEOUT_USEC=30100000 STATUS=draining",
      );
      expect(await first.exited()).toBe(0);
      expect(decodeState(readFileSync(state)).nodes).toHaveLength(2);

      const second = start();
      await second.listening();
      await a.relay(1, 2, new Uint8Array([42]));
      expect(await b.message()).toMatchObject({ type: "deliverDest", senderId: 1, destId: 2 });
      await b.relay(2, 1, new Uint8Array([43]));
      expect(await a.message()).toMatchObject({ type: "deliver", senderId: 2 });
      expect(first.stderr + second.stderr).toBe("");
    },
  );

  test("hands over to what lies by then where it was started from", async () => {
    const [link, first, next] = ["current", "beacon-1", "beacon-2"].map((name) =>
      join(folder, name),
    );
    for (const copy of [first!, next!]) linkSync(join(folder, "beacon"), copy);
    symlinkSync(first!, link!);
    const flags = [
      "--addr=127.0.0.1:0",
      "--http=off",
      "--log-format=json",
      "--workers=2",
      "--max-nodes=1000",
    ];
    const program = programs.spawn([link!, ...flags], { env: {}, cwd: "/" });
    ({ port } = await program.listening());
    const [a, b] = [await clients.open(), await clients.open()];
    await a.discover(1);
    await b.discover(2);
    unlinkSync(link!);
    symlinkSync(next!, link!);
    program.signal("SIGUSR2");
    const { successor } = await program.logged(/serves; this one ends$/);
    try {
      expect(readlinkSync(`/proc/${successor}/exe`)).toBe(next!);
      await a.relay(1, 2, new Uint8Array([42]));
      expect(await b.message()).toMatchObject({ type: "deliver", senderId: 1 });
    } finally {
      process.kill(successor as number, "SIGTERM");
    }
    expect(await program.exited()).toBe(0);
    expect(program.log().filter(({ level }) => level !== "info" && level !== "warn")).toEqual([]);
  });

  test("needs no working directory: it serves, hands over, and runs commands in a removed one", async () => {
    const cwd = join(folder, "removed");
    const inRemoved = (...args: string[]) => {
      mkdirSync(cwd);
      const command = ["sh", "-c", 'rmdir "$0" && exec "$@"', cwd, join(folder, "beacon"), ...args];
      return programs.spawn(command, { env: { PATH: process.env["PATH"]! }, cwd });
    };
    const program = inRemoved(
      ...[
        "--addr=127.0.0.1:0",
        "--http=off",
        "--log-format=json",
        "--workers=2",
        "--max-nodes=1000",
      ],
    );
    ({ port } = await program.listening());
    const client = await clients.open();
    await client.discover(1);
    const probe = inRemoved("probe", `127.0.0.1:${port}`, "--count=3");
    expect([await probe.exited(), probe.stderr]).toEqual([0, ""]);
    program.signal("SIGUSR2");
    const { successor } = await program.logged(/serves; this one ends$/);
    try {
      await client.relay(1, 1, new Uint8Array([42]));
      expect(await client.message()).toMatchObject({ type: "deliver", senderId: 1 });
    } finally {
      process.kill(successor as number, "SIGTERM");
    }
    expect(await program.exited()).toBe(0);
  });

  test("supervises itself: hands over, and is back after a kill", async () => {
    const flags = ["--http=off", "--log-format=json", "--workers=2", "--max-nodes=1000"];
    port = freePort();
    const program = spawn("supervise", `--addr=127.0.0.1:${port}`, ...flags);
    await program.listening();
    const client = await clients.open();
    await client.discover(1);
    program.signal("SIGUSR2");
    const { successor } = await program.logged(/serves; this one ends$/);
    await program.logged(/^beacon closed$/);
    await client.relay(1, 1, new Uint8Array([42]));
    expect(await client.message()).toMatchObject({ type: "deliver", senderId: 1 });
    const lines = program.lines.length;
    process.kill(successor as number, "SIGKILL");
    await program.logged(/listens on/, lines);
    expect(await client.discover(1)).toMatchObject({ type: "discoverReply" });
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
    expect(program.stderr).toStartWith(`beacon supervise: process ${successor} died (SIGKILL); `);
  });

  test("reads relative paths from its working directory", async () => {
    writeFileSync(join(folder, "relative.json"), '{"workers": 1}');
    const command = [join(folder, "beacon"), "check-config", "--json", "--config=relative.json"];
    const check = programs.spawn(command, { env: {}, cwd: folder });
    expect([await check.exited(), check.stderr]).toEqual([0, ""]);
    expect(JSON.parse(check.lines[0]!)).toMatchObject({ ok: true, config: { workers: 1 } });
  });

  test("remembers a signal that arrives while it starts", async () => {
    const config = ConfigPipe.make(join(folder, "config-pipe"));
    const flags = ["--addr=127.0.0.1:0", "--http=off", "--log-format=json", "--workers=1"];
    const program = spawn(...flags, `--config=${config.path}`);
    await config.feed(() => program.signal("SIGHUP"));
    await program.listening();
    await config.feed();
    await program.logged(/^configuration reloaded/);
    program.signal("SIGTERM");
    expect(await program.exited()).toBe(0);
  });

  test("logs for people, too", async () => {
    const program = spawn("--workers=1", "--addr=127.0.0.1:0", "--http=off", "--max-nodes=1000");
    await program.line("listens on", (line) =>
      /INFO.* listens on 127\.0\.0\.1:\d+/.test(line) ? true : undefined,
    );
    program.signal("SIGINT");
    expect(await program.exited()).toBe(0);
    expect(program.stderr).toBe("");
  });

  test("has the commands beside the server", async () => {
    const program = spawn(
      "--workers=1",
      "--addr=127.0.0.1:0",
      "--http=127.0.0.1:0",
      "--log-format=json",
    );
    const { port: udpPort, http } = await program.listening();
    const status = spawn("status", "--json", `--http=${http}`);
    const probe = spawn("probe", `127.0.0.1:${udpPort}`, "--count=3");
    expect([await status.exited(), status.stderr]).toEqual([0, ""]);
    expect(JSON.parse(status.lines[0]!)).toMatchObject({ ready: { ok: true } });
    expect([await probe.exited(), probe.stderr]).toEqual([0, ""]);
    expect(probe.output()).toContain("relays       3 of 3");
  });

  test("--version, --help, and a mistake", async () => {
    const version = spawn("--version");
    expect(await version.exited()).toBe(0);
    expect(version.lines).toEqual([expect.stringMatching(/^pilot-beacon \d+\.\d+\.\d+$/)]);
    const help = spawn("--help");
    expect(await help.exited()).toBe(0);
    expect(help.output()).toContain("--addr");
    const mistake = spawn("--adr");
    expect(await mistake.exited()).toBe(2);
    expect(mistake.stderr).toMatch(/^beacon: .+\n$/);
  });
});
