import { expect, test } from "bun:test";
import { obstacleToUpgrade, type ProcessInfo } from "../../../src/control/upgrade/watcher.ts";

/** A process, its parent, and so on; the last one is process 1 if it says so. */
function ask(ancestors: readonly [name: string, ...command: string[]][], env = {}, lastPid = 2) {
  const pids = ancestors.map((_, i) => (i === ancestors.length - 1 ? lastPid : 100 - i));
  const read = (pid: number): ProcessInfo | undefined => {
    if (pid === 1000) return { name: "bun", parentPid: pids[0]!, command: ["bun"] };
    const at = pids.indexOf(pid);
    if (at < 0) return undefined;
    const [name, ...command] = ancestors[at]!;
    return { name, command, parentPid: pids[at + 1] ?? 0 };
  };
  return obstacleToUpgrade(env, 1000, read);
}

test.each([
  "tini",
  "docker-init",
  "dumb-init",
  "catatonit",
  "runsv",
  "s6-supervise",
  "supervisord",
  "supervise-daemo",
])("%s does not follow", (name) => {
  expect(ask([[name, name]])).toStartWith(`process 2 (${name}) waits for this process`);
});

test("process 1 does not, whatever it is, and this process as process 1 is alone", () => {
  expect(ask([["systemd", "/sbin/init"]], {}, 1)).toContain("process 1 (systemd)");
  expect(obstacleToUpgrade({}, 1)).toContain("this is process 1 of its container");
  expect(obstacleToUpgrade({ NOTIFY_SOCKET: "/run/n" }, 1)).toContain(
    "this is process 1 of its container",
  );
});

test("what has given a NOTIFY_SOCKET does", () => {
  expect(ask([["systemd", "/sbin/init"]], { NOTIFY_SOCKET: "@n" }, 1)).toBeUndefined();
  expect(ask([["tini", "tini"]], { NOTIFY_SOCKET: "" })).toContain("tini");
});

test("shell scripts wait for it as their own watcher waits for them", () => {
  const tini: [string, ...string[]] = ["tini", "tini"];
  expect(ask([["entry.sh", "/bin/sh", "/entry.sh"], tini])).toContain("process 2 (tini)");
  expect(ask([["bash", "bash", "-ec", "beacon"], ["run", "/bin/dash", "./run"], tini])).toContain(
    "tini",
  );
});

test("any other parent is taken for a person, or a program that knows", () => {
  expect(
    ask([
      ["bash", "-bash"],
      ["sshd", "sshd"],
    ]),
  ).toBeUndefined();
  expect(
    ask([
      ["bash", "bash", "-i"],
      ["tini", "tini"],
    ]),
  ).toBeUndefined();
  expect(
    ask([
      ["bun", "bun", "test"],
      ["sh", "sh", "-c", "x"],
      ["tini", "tini"],
    ]),
  ).toBeUndefined();
  expect(obstacleToUpgrade({}, 1000, () => undefined)).toBeUndefined();
});

test("a chain without end is followed so far only", () => {
  const read = (pid: number): ProcessInfo => ({
    name: "sh",
    command: ["sh", "x"],
    parentPid: pid + 1,
  });
  expect(obstacleToUpgrade({}, 1000, read)).toBeUndefined();
});
