import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { connect, Namespace, rootLink } from "../../bench/rig/namespace.ts";
import { obstacle } from "../../bench/rig/requirements.ts";
import { untilEqual } from "../e2e/support/wait.ts";

const why = obstacle();

describe.skipIf(why !== undefined)(`namespaces${why === undefined ? "" : ` (${why})`}`, () => {
  const made: Namespace[] = [];
  afterEach(() => {
    for (const namespace of made.splice(0)) namespace.remove();
  });
  const create = (label: string) => {
    const namespace = Namespace.create(label);
    made.push(namespace);
    return namespace;
  };
  const mtuOf = (namespace: Namespace, link: string) =>
    namespace.run(["cat", `/sys/class/net/${link}/mtu`]).trim();

  test("a cable from the root namespace, which goes away with the other end", async () => {
    const there = create("there");
    const link = rootLink();
    expect(link.length).toBeLessThanOrEqual(15);
    connect(
      { link, addresses: ["198.51.100.1/24", "2001:db8:ffff::1/64"] },
      { namespace: there, link: "eth0", addresses: ["198.51.100.2/24", "2001:db8:ffff::2/64"] },
      1400,
    );
    expect(mtuOf(there, "eth0")).toBe("1400");
    for (const address of ["198.51.100.1", "2001:db8:ffff::1"]) {
      expect(there.run(["ip", "route", "get", address])).toContain("dev eth0");
    }
    there.remove();
    expect(existsSync(`/run/netns/${there.name}`)).toBe(false);
    await untilEqual("the other end", () => readdirSync("/sys/class/net").includes(link), false);
  });

  test("a program in it ends with it", async () => {
    const there = create("program");
    const program = Bun.spawn(there.exec("sleep", "1000"));
    await untilEqual("it runs", () => there.run(["cat", "/proc/net/dev"]).includes("lo:"), true);
    there.remove();
    expect(await program.exited).not.toBe(0);
    expect(program.signalCode).toBe("SIGKILL");
  });

  test("parameters are those of the namespace", () => {
    const [one, other] = [create("one"), create("other")];
    one.sysctl({ "net.ipv4.ip_forward": 1 });
    const forwards = (namespace: Namespace) =>
      namespace.run(["sysctl", "-n", "net.ipv4.ip_forward"]).trim();
    expect([forwards(one), forwards(other)]).toEqual(["1", "0"]);
  });

  test("a command that fails says what it said", () => {
    expect(() => create("failing").run(["ls", "/nowhere"])).toThrow(/ls \/nowhere: .*No such file/);
  });
});
