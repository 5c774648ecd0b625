/** The commands beside the server, as processes, and real beacons. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Beacon } from "../../src/beacon.ts";
import { installed, MAIN, type Program, Programs, ROOT } from "./support/program.ts";
import { inTime, until } from "./support/wait.ts";

const TOKEN = "correct-horse-battery-staple";
const folder = mkdtempSync(join(tmpdir(), "beacon-commands-"));
const tokenFile = join(folder, "token");
const programs = new Programs();
let beacon: Beacon;
let env: Record<string, string>;

const options = () => ({
  addr: ":0",
  http: "127.0.0.1:0",
  workers: 1,
  maxNodes: 1000,
  adminTokenFile: tokenFile,
});

beforeAll(async () => {
  writeFileSync(tokenFile, TOKEN, { mode: 0o600 });
  beacon = new Beacon(options());
  await beacon.listen();
  env = { BEACON_HTTP: beacon.httpUrl!.host };
});
afterAll(async () => {
  await programs.kill();
  await beacon.close();
  rmSync(folder, { recursive: true });
});

async function ended(program: Program): Promise<{ code: number; text: string; stderr: string }> {
  const code = await program.exited();
  return { code, text: program.lines.join("\n"), stderr: program.stderr };
}

const ran = (...args: string[]) => ended(programs.beacon(args, env));

function switchBreaker(name: string, on: boolean): Promise<Response> {
  return fetch(new URL(`api/breakers/${name}`, beacon.httpUrl), {
    method: "POST",
    headers: { authorization: `Bearer ${TOKEN}` },
    body: JSON.stringify({ on }),
  });
}

test("probe of a beacon that relays nothing, and of nothing", async () => {
  expect((await switchBreaker("relay", false)).status).toBe(200);
  const [off, nothing] = await Promise.all([
    ran("probe", `[::1]:${beacon.address.port}`, "--count=2", "--timeout=1000"),
    ran("probe", "127.0.0.1:1"),
  ]);
  await switchBreaker("relay", true);
  expect([off.code, off.stderr]).toEqual([1, ""]);
  expect(off.text).toContain("relays       0 of 2");
  expect(off.text).toContain("! it answers, but relays nothing");
  expect(nothing).toEqual({
    code: 3,
    text: "",
    stderr: expect.stringContaining("nothing listens"),
  });
});

test.concurrent("status, top and check-config of a beacon; probe of it", async () => {
  const probe = programs.beacon(
    ["probe", `localhost:${beacon.address.port}`, "--count=30", "--json"],
    env,
  );
  const [top, status, config, probed] = await Promise.all([
    ran("top", "--count=1", "--json"),
    ran("status"),
    ran("check-config", "--max-nodes=2000", `--http=${beacon.httpUrl!.host}`),
    ended(probe),
  ]);
  expect([status.code, status.stderr]).toEqual([0, ""]);
  expect(status.text).toMatch(/^beacon \d+\.\d+\.\d+ at \[::\]:\d+/);
  expect(status.text).toContain("\nhealth    ok; ready\n");
  expect([top.code, top.stderr]).toEqual([0, ""]);
  expect(JSON.parse(top.text)).toMatchObject({
    healthy: true,
    workers: [{ worker: 0, alive: true }],
  });
  expect([config.code, config.stderr]).toEqual([0, ""]);
  expect(config.text).toMatch(/a restart is needed {2}for .*--max-nodes/);
  expect([probed.code, probed.stderr]).toEqual([0, ""]);
  const found = JSON.parse(probed.text);
  expect(found).toMatchObject({
    ok: true,
    problems: [],
    roundTrips: { sent: 30, lost: 0 },
    punch: { ok: true },
    relay: { sent: 30, lost: 0 },
  });
  expect(found.seenAs).toBe(found.here);
  expect(beacon.stats().nodes).toBe(4); // with those of the probe before
});

test.concurrent("nobody to ask, and what is no command: exit codes 3 and 2", async () => {
  const [status, usage, help] = await Promise.all([
    ran("status", "--http=127.0.0.1:1"),
    ran("status", "--nope"),
    ran("help"),
  ]);
  expect(status).toEqual({
    code: 3,
    text: "",
    stderr: expect.stringMatching(/^beacon: .*refused.*\n$/),
  });
  expect(usage).toEqual({
    code: 2,
    text: "",
    stderr: expect.stringMatching(/^beacon: .*--nope.*\n$/),
  });
  expect([help.code, help.stderr]).toEqual([0, ""]);
});

test("a missing or wrong token is exit code 4, and the message says which", async () => {
  const wrong = join(folder, "wrong");
  writeFileSync(wrong, "no-token-of-this-beacon", { mode: 0o600 });
  for (const command of [["drain"], ["upgrade"], ["disconnect", "7"]]) {
    const [none, other] = [
      await ran(...command),
      await ran(...command, `--admin-token-file=${wrong}`),
    ];
    expect([none.code, none.stderr]).toEqual([
      4,
      expect.stringContaining("give it with --admin-token-file"),
    ]);
    expect([other.code, other.stderr]).toEqual([
      4,
      expect.stringContaining("is not this beacon's"),
    ]);
  }
  beacon.reconfigure({ ...beacon.config, adminAuth: "always" });
  for (const command of [["status"], ["top", "--count=1"], ["nodes"], ["explain", "7"]])
    expect([command, (await ran(...command)).code]).toEqual([command, 4]);
  expect((await ran("nodes", `--admin-token-file=${tokenFile}`)).code).toBe(0);
  beacon.reconfigure({ ...beacon.config, adminAuth: "auto", adminTokenFile: "off" });
  const off = await ran("drain");
  expect([off.code, off.stderr]).toEqual([
    4,
    expect.stringContaining("start the beacon with --admin-token-file"),
  ]);
  beacon.reconfigure({ ...beacon.config, adminTokenFile: tokenFile });
  expect(beacon.stats().healthy).toBe(true);
});

test.concurrent("a reader that leaves ends it quietly", async () => {
  const shell = programs.spawn(["sh", "-c", `"$0" "$1" top | head -n 1`, process.execPath, MAIN], {
    env: { PATH: process.env["PATH"]!, ...env },
  });
  const { code, text, stderr } = await ended(shell);
  expect([code, stderr]).toEqual([0, ""]);
  expect(text).toMatch(/^nodes \d+ {2}in /);
});

test.concurrent("top goes on when its beacon is started anew", async () => {
  const first = new Beacon(options());
  await first.listen();
  const { host, port } = first.httpUrl!;
  const top = programs.beacon(["top", "--json", "--http", host]);
  try {
    await top.line("numbers", (line) => line || undefined);
  } finally {
    await first.close();
  }
  await until("it says so", () => top.stderr.includes("trying again"));
  const second = new Beacon({ ...options(), http: `127.0.0.1:${port}`, maxNodes: 500 });
  await second.listen();
  try {
    const before = top.lines.length;
    await top.line("numbers again", (line) => line || undefined, before);
  } finally {
    await top.kill();
    await second.close();
  }
});

/**
 * Runs a program on a terminal of 80 by 24; prints all it wrote, then "<exit code> <whether the
 * terminal is as before>".
 */
const PTY = `
import os, pty, sys, termios, fcntl, struct, threading
main, peer = pty.openpty()
fcntl.ioctl(peer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
before = termios.tcgetattr(peer)
pid = os.fork()
if pid == 0:
    os.login_tty(peer)
    os.execvp(sys.argv[1], sys.argv[1:])
def keys():
    for line in sys.stdin:
        if line.startswith("kill"): os.kill(pid, int(line[4:]))
        else: os.write(main, line.rstrip("\\n").encode())
threading.Thread(target=keys, daemon=True).start()
def show():
    while True:
        data = os.read(main, 65536)
        sys.stdout.write(data.decode().replace("\\r", "").replace("\\x1b[H", "\\n[frame]\\n"))
        sys.stdout.flush()
threading.Thread(target=show, daemon=True).start()
status = os.waitpid(pid, 0)[1]
same = termios.tcgetattr(peer) == before
import time; time.sleep(0.05)
print("\\n[end]", os.waitstatus_to_exitcode(status), same, flush=True)
os._exit(0)
`;

const python =
  installed("python3") &&
  Bun.spawnSync(["python3", "-c", "import os; os.login_tty"]).exitCode === 0;

describe("top on a terminal", () => {
  test
    .skipIf(!python)
    .concurrent(
      `shows, takes keys, and gives the terminal back${python ? "" : " (needs python3 of 3.11 or newer)"}`,
      async () => {
        const start = () =>
          programs.spawn(["python3", "-c", PTY, process.execPath, MAIN, "top"], {
            env: { PATH: process.env["PATH"]!, TERM: "xterm", NO_COLOR: "1", ...env },
            cwd: ROOT,
            stdin: "pipe",
          });
        const pressing = async (top: Program, what: string, key: string, then: string) => {
          const from = top.lines.length;
          await top.write(key);
          await top.line(what, (line) => (line.includes(then) ? true : undefined), from);
        };
        const isSame = async (top: Program, ending: string) => {
          expect(await inTime("ends", top.exited())).toBe(0);
          const text = top.lines.join("\n");
          expect(text).toContain(`[end] ${ending} True`);
          expect(text).toContain("\x1b[?1049h");
          expect(text.lastIndexOf("\x1b[?1049l")).toBeGreaterThan(text.lastIndexOf("[frame]"));
        };
        const [quit, killed] = [start(), start()];
        const shown = (top: Program) =>
          top.line("workers", (line) => (line.startsWith("worker ") ? true : undefined));
        await Promise.all([shown(quit), shown(killed)]);
        await pressing(quit, "peers", "m", "peer  nodes");
        await pressing(quit, "workers", "b", "worker ");
        await quit.write("q");
        await killed.write("kill 15");
        await isSame(quit, "0");
        await isSame(killed, "143");
      },
    );
});
