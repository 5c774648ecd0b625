/**
 * The systemd unit: by systemd's own judgement, and under a real systemd that runs in namespaces of
 * its own.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { Clients } from "./e2e/support/client.ts";
import { freePort } from "./e2e/support/mesh.ts";
import { installed, MAIN, Programs, ROOT } from "./e2e/support/program.ts";
import { TEST_TIMEOUT_MS, until, untilEqual } from "./e2e/support/wait.ts";
import { temporaryFolder } from "./support/folder.ts";
import { makeCertificate } from "./support/websocket.ts";

const UNIT = join(ROOT, "deploy/pilot-beacon.service");
const BINARY = "/usr/local/bin/beacon";
/** The first version whose `security` looks at files. */
const SYSTEMD_VERSION_MIN = 250;
/**
 * In tenths, as --threshold has it; systemd calls anything below 4.0 OK, and this unit has 1.3
 * (systemd 252).
 */
const EXPOSURE_MAX = 20;

const unit = readFileSync(UNIT, "utf8");
/** Every value of a setting, as it is written. */
const settings = (name: string): string[] =>
  [...unit.matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map(([, value]) => value!);

const folder = temporaryFolder();

function analyze(...args: string[]): { code: number; complaints: string } {
  const { exitCode, stderr } = Bun.spawnSync(["systemd-analyze", "--no-pager", ...args], {
    stderr: "pipe",
  });
  // Of this unit only: the host's own may have their faults.
  const complaints = stderr
    .toString()
    .split("\n")
    .filter((line) => line.includes("pilot-beacon"));
  return { code: exitCode, complaints: complaints.join("\n") };
}

/** Why systemd cannot be asked here, or undefined. */
function obstacleToAnalysis(): string | undefined {
  if (!installed("systemd-analyze")) return "needs systemd-analyze";
  const version = Bun.spawnSync(["systemd-analyze", "--version"]).stdout.toString();
  const number = Number(/^systemd (\d+)/.exec(version)?.[1]);
  return number >= SYSTEMD_VERSION_MIN ? undefined : `needs systemd-analyze ${SYSTEMD_VERSION_MIN}`;
}

const whyNotAnalyzed = obstacleToAnalysis();

describe.skipIf(whyNotAnalyzed !== undefined)(
  `systemd's judgement${whyNotAnalyzed === undefined ? "" : ` (${whyNotAnalyzed})`}`,
  () => {
    /** A copy of the unit whose program is there. */
    function verify(text: string) {
      const copy = join(folder, "pilot-beacon.service");
      writeFileSync(copy, text.replace(`ExecStart=${BINARY}`, `ExecStart=${process.execPath}`));
      return analyze("verify", copy);
    }

    test("it has nothing to complain of", () => {
      expect(verify(unit)).toEqual({ code: 0, complaints: "" });
    });

    test("though it does complain", () => {
      expect(verify(unit.replace("WatchdogSec=", "WatchdogSecs=")).complaints).toContain(
        "WatchdogSecs",
      );
    });

    test("the exposure is small", () => {
      expect(analyze("security", "--offline=true", `--threshold=${EXPOSURE_MAX}`, UNIT)).toEqual({
        code: 0,
        complaints: "",
      });
    });
  },
);

describe("the unit", () => {
  const [command = ""] = settings("ExecStart");
  const [program, ...words] = command.split(" ");

  test("starts the binary with flags that the beacon has", () => {
    expect(program).toBe(BINARY);
    const help = Bun.spawnSync([process.execPath, MAIN, "--help"]).stdout.toString();
    const flags = words.filter((word) => word.startsWith("--"));
    expect(flags).toEqual(["--config", "--state-file"]);
    for (const flag of flags) expect(help).toContain(`  ${flag} <`);
  });

  test("gives the beacon its own folder for what it keeps", () => {
    const [directory] = settings("StateDirectory");
    expect(words[words.indexOf("--state-file") + 1]).toStartWith(`/var/lib/${directory}/`);
  });

  test("does not try a bad configuration again", () => {
    const config = join(folder, "missing.json");
    const { exitCode, stderr } = Bun.spawnSync([process.execPath, MAIN, "--config", config], {
      stderr: "pipe",
    });
    expect(settings("RestartPreventExitStatus")).toEqual([String(exitCode)]);
    expect(stderr.toString()).toContain(config);
  });
});

const PATH = "/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Runs the rest of its arguments as process 1 of a little machine of its own. It sees this host's
 * files and network, but what it writes stays in memory and ends with it; its processes end with
 * the one that this becomes. $1: a cgroup that is its root; $2: an empty folder; $3: the binary;
 * $4: a folder with units.
 */
const MACHINE = `
echo $$ > "$1/cgroup.procs" && shift &&
exec unshare --fork --kill-child --pid --mount --uts --ipc --cgroup --propagation private sh -e -c '
  room=$1 binary=$2 units=$3; shift 3
  mount -t tmpfs tmpfs "$room"
  root=$room/root
  mkdir "$room/upper" "$room/work" "$root"
  mount -t overlay -o "lowerdir=/,upperdir=$room/upper,workdir=$room/work" overlay "$root"
  mount -t proc proc "$root/proc"
  mount --bind "$root/proc/sys" "$root/proc/sys" && mount -o remount,bind,ro "$root/proc/sys"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  for folder in run dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$folder"; done
  for device in null zero full random urandom tty; do
    touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"
  done
  mkdir "$root/dev/shm" "$root/dev/pts" && ln -s pts/ptmx "$root/dev/ptmx"
  touch "$root/usr/local/bin/beacon" && mount --bind "$binary" "$root/usr/local/bin/beacon"
  mkdir -p "$root/run/units" "$root/etc/pilot-beacon" && cp -r "$units/." "$root/run/units"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  cd "$root" && mkdir -p run/old && pivot_root . run/old && umount -l /run/old && mount --make-rshared /
  exec setpriv --bounding-set=-sys_module,-sys_time,-sys_boot,-sys_rawio env -i PATH=${PATH} container=test \\
    SYSTEMD_UNIT_PATH=/run/units "$@"
' sh "$@"
`;

const SYSTEMD = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].find((path) =>
  existsSync(path),
);

/** Where this process may make cgroups, if anywhere. */
const cgroups = /^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 /m.exec(
  readFileSync("/proc/self/mountinfo", "utf8"),
)?.[1];
const cgroup = join(cgroups ?? "", `beacon-deploy-test-${process.pid}`);

const units = join(folder, "units");
mkdirSync(join(units, "pilot-beacon.service.d"), { recursive: true });

function machine(binary: string, ...command: string[]): string[] {
  const room = mkdtempSync(join(folder, "room-"));
  return ["sh", "-c", MACHINE, "sh", cgroup, room, binary, units, ...command];
}

/** Removes a cgroup and those in it. @returns whether it is gone */
function removeCgroup(path: string): boolean {
  for (const inner of readdirSync(path, { withFileTypes: true })) {
    if (inner.isDirectory()) removeCgroup(join(path, inner.name));
  }
  try {
    rmdirSync(path);
  } catch {} // EBUSY while its processes end
  return !existsSync(path);
}

/** Why no systemd can be run here, or undefined. */
async function obstacleToSystemd(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "needs root";
  if (SYSTEMD === undefined || !installed("systemctl")) return "needs systemd";
  if (cgroups === undefined) return "needs cgroups, version 2";
  const missing = ["unshare", "nsenter", "setpriv", "pivot_root"].find(
    (command) => !installed(command),
  );
  if (missing !== undefined) return `needs ${missing} of util-linux`;
  try {
    mkdirSync(cgroup);
    const probe = Bun.spawnSync(machine("/bin/true", "true"), { stderr: "pipe" });
    await until("the cgroup is gone", () => removeCgroup(cgroup));
    return probe.success ? undefined : "needs the right to make namespaces and mounts";
  } catch {
    return "needs the right to make cgroups";
  }
}

const whyNoSystemd = await obstacleToSystemd();

describe.skipIf(whyNoSystemd !== undefined)(
  `under systemd${whyNoSystemd === undefined ? "" : ` (${whyNoSystemd})`}`,
  () => {
    const CONFIG = "/etc/pilot-beacon/config.json";
    const LOG = "/run/beacon.log";
    const programs = new Programs();
    let systemd = 0;
    let port = 0;
    const clients = new Clients(() => ({ port }));

    /** Runs a command in the machine. */
    function inside(...command: string[]): { code: number; output: string } {
      const root = `/proc/${systemd}/root`;
      const enter = [
        ...["nsenter", "--mount", "--pid", "--uts", "--ipc", "--cgroup"],
        ...[`--target=${systemd}`, `--root=${root}`, `--wd=${root}`],
      ];
      const { exitCode, stdout, stderr } = Bun.spawnSync([...enter, ...command], {
        env: { PATH },
        stderr: "pipe",
      });
      return { code: exitCode, output: `${stdout}${stderr}` };
    }
    const systemctl = (...args: string[]) => inside("systemctl", "--no-pager", ...args);
    const write = (path: string, text: string) =>
      inside("sh", "-c", 'printf %s "$2" > "$1"', "sh", path, text);
    const property = (name: string) =>
      systemctl("show", "--value", "-p", name, "pilot-beacon").output.trim();
    const logged = () => inside("cat", LOG).output;
    /** Those of the service. */
    const processes = () =>
      inside("cat", "/sys/fs/cgroup/system.slice/pilot-beacon.service/cgroup.procs")
        .output.split("\n")
        .filter(Boolean);

    /** Where the last one listens that has said so. */
    const portLogged = () =>
      Number([...logged().matchAll(/listens on \S+:(\d+)/g)].at(-1)?.[1]) || undefined;

    async function start(): Promise<void> {
      write(LOG, "");
      const { code, output } = systemctl("start", "pilot-beacon");
      if (code !== 0) throw new Error(`${output}\n${logged()}`);
      // the log's own thread may be late
      port = await until("the log says where it listens", portLogged);
    }

    async function expectRelays(): Promise<void> {
      const [a, b] = [await clients.open(), await clients.open()];
      expect(await a.discover(1)).toEqual({ type: "discoverReply", ...a.address });
      expect(await b.discover(2)).toEqual({ type: "discoverReply", ...b.address });
      await a.relay(1, 2, new Uint8Array([42]));
      expect(await b.message()).toEqual({
        type: "deliver",
        senderId: 1,
        payload: new Uint8Array([42]),
      });
    }

    beforeAll(async () => {
      const build = Bun.spawnSync([process.execPath, "build.ts"], {
        cwd: ROOT,
        stdout: "pipe",
        stderr: "pipe",
      });
      if (!build.success) throw new Error(`the build failed: ${build.stdout}${build.stderr}`);
      // A copy: other tests build again.
      const binary = join(folder, "beacon");
      copyFileSync(join(ROOT, "dist/beacon"), binary);
      copyFileSync(UNIT, join(units, "pilot-beacon.service"));
      for (const target of ["default", "sysinit", "basic", "shutdown", "network-online"]) {
        writeFileSync(join(units, `${target}.target`), "[Unit]\nDefaultDependencies=no\n");
      }
      // As it is delivered, but with a log to read, death for a call that is refused, a watchdog
      // with less patience, and what the unit's own comments say of a token.
      const changes = [
        `StandardOutput=append:${LOG}`,
        `StandardError=append:${LOG}`,
        "SystemCallErrorNumber=",
        "WatchdogSec=2s",
        "LoadCredential=registry-admin-token:/etc/pilot-beacon/registry-admin-token",
      ];
      writeFileSync(
        join(units, "pilot-beacon.service.d/test.conf"),
        `[Service]\n${changes.join("\n")}\n`,
      );
      mkdirSync(cgroup);
      const program = programs.spawn(machine(binary, SYSTEMD!, "--log-target=null"), {
        env: { PATH },
      });
      const children = `/proc/${program.pid}/task/${program.pid}/children`;
      systemd = await until(
        "a process 1",
        () => Number(readFileSync(children, "utf8")) || undefined,
      );
      await untilEqual("systemd", () => systemctl("is-system-running").output, "running\n");
      inside("sh", "-c", "umask 077 && echo secret > /etc/pilot-beacon/registry-admin-token");
    }, TEST_TIMEOUT_MS);
    afterEach(() => {
      clients.close();
      systemctl("stop", "pilot-beacon");
      systemctl("reset-failed", "pilot-beacon");
    });
    afterAll(async () => {
      await programs.kill();
      await until("the cgroup is gone", () => removeCgroup(cgroup));
    });

    test("relays with no privilege, says so, reloads and stops, and keeps its nodes", async () => {
      // A peer's name is resolved, and this host's addresses are looked at.
      const config = {
        addr: ":0",
        http: "127.0.0.1:0",
        workers: 2,
        peers: ["localhost:9"],
        "endpoint-hold": "0s",
      };
      const token = "/run/credentials/pilot-beacon.service/registry-admin-token";
      write(CONFIG, JSON.stringify({ ...config, "registry-admin-token-file": token }));
      await start();
      await expectRelays();
      const pid = property("MainPID");
      const status = inside("cat", `/proc/${pid}/status`).output;
      expect(status).not.toMatch(/^Uid:.*\t0\b/m);
      expect(status).toMatch(/^NoNewPrivs:\t1$/m);
      expect(status).toMatch(/^Seccomp:\t2$/m);
      for (const set of ["Inh", "Prm", "Eff", "Bnd", "Amb"])
        expect(status).toMatch(new RegExp(`^Cap${set}:\t0+$`, "m"));
      expect(property("StatusText")).not.toBe("");
      expect(systemctl("reload", "pilot-beacon").code).toBe(0);
      await until("the configuration is reloaded", () =>
        logged().includes("configuration reloaded"),
      );
      await untilEqual("state", () => property("SubState"), "running");
      await expectRelays();
      expect(systemctl("stop", "pilot-beacon").code).toBe(0);
      expect([property("Result"), property("NRestarts")]).toEqual(["success", "0"]);
      expect(inside("ls", "-l", "/var/lib/pilot-beacon/").output).toMatch(/^-rw------- .* nodes$/m);
      await start();
      expect(logged()).toContain("2 restored");
    });

    test("reads secrets of root's as the documents say; a new one takes a restart", async () => {
      const guide = readFileSync(join(ROOT, "docs/OPERATIONS.md"), "utf8").split(
        "### Secrets\n",
      )[1]!;
      const [, dropIn] = /```ini\n(.*?)```/s.exec(guide)!;
      const [, json] = /```json\n(.*?)```/s.exec(guide)!;
      const named = [...dropIn!.matchAll(/^LoadCredential=(\S+):(\S+)$/gm)].map(
        ([, name, path]) => ({
          copy: `/run/credentials/pilot-beacon.service/${name}`,
          path: path!,
        }),
      );
      const documented = JSON.parse(json!) as Record<string, string>;
      expect(Object.values(documented).sort()).toEqual(named.map(({ copy }) => copy).sort());

      const certificate = makeCertificate(folder, "secrets");
      const tokens = ["first-token-of-16-characters", "second-token-of-16-characters"];
      const contents: Record<string, string> = {
        "admin.token": tokens[0]!,
        "gossip.key": "a secret of more than 32 characters, all the same",
        "directory.auth": "beacon\npassword\n",
        "registry.token": "registry-token",
        "tls.crt": readFileSync(certificate.certPath, "utf8"),
        "tls.key": readFileSync(certificate.keyPath, "utf8"),
      };
      const keep = (path: string, text: string) => {
        write(path, text);
        inside("chmod", "600", path);
      };
      for (const { path } of named) keep(path, contents[basename(path)]!);
      keep("/etc/pilot-beacon/keys.json", "{}");
      inside("chmod", "644", "/etc/pilot-beacon/keys.json");
      write("/run/units/pilot-beacon.service.d/secrets.conf", dropIn!);
      systemctl("daemon-reload");
      const http = `127.0.0.1:${freePort()}`;
      const others = {
        addr: "127.0.0.1:0",
        http,
        workers: 1,
        "admin-auth": "always",
        "beacon-id": 9,
      };
      const bridge = { wss: "127.0.0.1:0", "wss-keys": "/etc/pilot-beacon/keys.json" };
      const far = { directory: "redis://127.0.0.1:1", "advertise-addr": "127.0.0.1:9001" };
      write(CONFIG, JSON.stringify({ ...others, ...bridge, ...far, ...documented }));
      try {
        await start();
        expect(logged()).not.toContain("can be read by others");
        const statuses = () =>
          Promise.all(
            tokens.map(async (token) => {
              const headers = { authorization: `Bearer ${token}` };
              return (await fetch(`http://${http}/api/stats`, { headers })).status === 200;
            }),
          );
        expect(await statuses()).toEqual([true, false]);
        keep("/etc/pilot-beacon/admin.token", tokens[1]!);
        expect(systemctl("reload", "pilot-beacon").code).toBe(0);
        await until("the configuration is reloaded", () =>
          logged().includes("configuration reloaded"),
        );
        expect(await statuses()).toEqual([true, false]);
        expect(systemctl("restart", "pilot-beacon").code).toBe(0);
        expect(await statuses()).toEqual([false, true]);
      } finally {
        systemctl("stop", "pilot-beacon");
        inside("rm", "/run/units/pilot-beacon.service.d/secrets.conf");
        systemctl("daemon-reload");
      }
    });

    test("one that hands over is followed to the next, and that one is watched and started again", async () => {
      write(CONFIG, '{"addr": ":0", "http": "127.0.0.1:0", "workers": 2, "endpoint-hold": "0s"}');
      await start();
      const [a, b] = [await clients.open(), await clients.open()];
      await a.discover(1);
      await b.discover(2);
      const before = property("MainPID");
      expect(systemctl("kill", "--signal=USR2", "--kill-who=main", "pilot-beacon").code).toBe(0);
      await until("another main process", () => property("MainPID") !== before);
      const pid = property("MainPID");
      await until(
        "the one before is gone",
        () => inside("test", "-e", `/proc/${before}`).code !== 0,
      );
      await a.relay(1, 2, new Uint8Array([42]));
      expect(await b.message()).toMatchObject({ type: "deliver", senderId: 1 });
      expect([property("MainPID"), property("SubState"), property("NRestarts")]).toEqual([
        pid,
        "running",
        "0",
      ]);
      expect(property("NotifyAccess")).toBe("main");
      expect(systemctl("reload", "pilot-beacon").code).toBe(0);
      await until("the configuration is reloaded", () =>
        logged().includes("configuration reloaded"),
      );
      const starts = () => logged().split("listens on").length;
      const startsBefore = starts();
      inside("sh", "-c", `kill -KILL ${pid}`);
      await untilEqual("restarts", () => property("NRestarts"), "1");
      await untilEqual("state", () => property("SubState"), "running");
      await until("the log says where it listens", () => starts() > startsBefore);
      port = portLogged()!;
      await expectRelays();
    });

    test("whichever of two is killed while one hands over, one serves within a moment", async () => {
      port = freePort();
      write(CONFIG, `{"addr": ":${port}", "http": "off", "workers": 1, "endpoint-hold": "0s"}`);
      await start();
      for (const whom of ["main", "all"]) {
        const restarts = Number(property("NRestarts"));
        const pid = property("MainPID");
        systemctl("kill", "--signal=USR2", "--kill-who=main", "pilot-beacon");
        await until("there are two", () => processes().length > 1);
        inside("sh", "-c", `kill -KILL ${whom === "main" ? pid : processes().join(" ")}`);
        await untilEqual("restarts", () => Number(property("NRestarts")), restarts + 1);
        await untilEqual("state", () => property("SubState"), "running");
        await expectRelays();
        expect(processes()).toEqual([property("MainPID")]);
      }
    });

    test("a bad configuration ends it for good, with a word about why", async () => {
      for (const config of ["{", '{"workers": 0}']) {
        write(CONFIG, config);
        write(LOG, "");
        expect(systemctl("start", "pilot-beacon").code).not.toBe(0);
        expect(property("ActiveState")).toBe("failed");
        expect(property("ExecMainStatus")).toBe("2");
        expect(logged()).toContain(CONFIG);
      }
    });

    test("one that hangs is started again", async () => {
      write(CONFIG, '{"addr": "127.0.0.1:0", "http": "off", "workers": 1}');
      await start();
      const pid = property("MainPID");
      inside("sh", "-c", `kill -STOP ${pid}`);
      await untilEqual("restarts", () => property("NRestarts"), "1");
      await untilEqual("state", () => property("SubState"), "running");
      expect(property("MainPID")).not.toBe(pid);
    });
  },
);
