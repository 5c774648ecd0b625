import { afterEach, describe, expect, test } from "bun:test";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ServiceManager } from "../../../src/control/upgrade/service-manager.ts";
import { installed, type Program, Programs } from "../../e2e/support/program.ts";
import { temporaryFolder } from "../../support/folder.ts";
import { recordedLog } from "../../support/log.ts";
import { patience } from "../../support/patience.ts";

/**
 * A service manager's end of the protocol: prints what comes as JSON, with CLOCK_MONOTONIC in µs. With "hold" it looks
 * only once it gets a SIGUSR1.
 */
const RECEIVER = `
import json, signal, socket, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
address = sys.argv[1]
receiver.bind("\\0" + address[1:] if address.startswith("@") else address)
show = lambda text: print(json.dumps([text, time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000]), flush=True)
show("bound")
if sys.argv[2:] == ["hold"]: signal.sigwait([signal.SIGUSR1])
while True: show(receiver.recv(65536).decode())
`;

/** systemd ignores a longer one whole: NOTIFY_BUFFER_MAX. */
const NOTIFICATION_BYTES_MAX = 4096;

const folder = temporaryFolder();
const programs = new Programs();
afterEach(async () => {
  await programs.kill();
  for (const name of readdirSync(folder)) rmSync(join(folder, name));
});

const path = join(folder, "notify");
const name = `@service-manager-test-${process.pid}`;

class Receiver {
  private constructor(readonly program: Program) {}

  static async bind(address: string, ...mode: "hold"[]): Promise<Receiver> {
    const receiver = new Receiver(programs.spawn(["python3", "-c", RECEIVER, address, ...mode]));
    await receiver.#line(0);
    return receiver;
  }

  /** Waits for notification `i`. */
  async notification(i: number): Promise<string> {
    return (await this.#line(1 + i))[0];
  }

  /** When it was bound (-1), or got notification `i`: CLOCK_MONOTONIC in µs. */
  async timeUs(i: number): Promise<number> {
    return (await this.#line(1 + i))[1];
  }

  get count(): number {
    return this.program.lines.length - 1;
  }

  async #line(i: number): Promise<[text: string, us: number]> {
    return JSON.parse(await this.program.line(`line ${i}`, () => this.program.lines[i]));
  }
}

/** A service manager of this environment, and what it logs: level and message. */
function withEnvironment(env: Record<string, string | undefined>) {
  const { log, lines } = recordedLog("trace");
  const logged = () => lines.map(({ level, msg }) => [level, msg]);
  return { manager: ServiceManager.fromEnvironment(env, log), logged };
}

const everyCall: ((manager: ServiceManager) => void)[] = [
  (manager) => manager.ready("relays"),
  (manager) => manager.status("3 nodes"),
  (manager) => manager.reloading(),
  (manager) => manager.watchdog(),
  (manager) => manager.stopping("drains", 5000),
];

const python = installed("python3");

describe.skipIf(!python)(`who listens at NOTIFY_SOCKET${python ? "" : " (needs python3)"}`, () => {
  test.each([
    ["a path", path],
    ["an abstract name", name],
  ])("is told everything, at %s", async (_, address) => {
    const receiver = await Receiver.bind(address);
    const { manager, logged } = withEnvironment({ NOTIFY_SOCKET: address });
    for (const call of everyCall) call(manager);
    const told = [
      "READY=1\nSTATUS=relays",
      "STATUS=3 nodes",
      expect.stringMatching(/^RELOADING=1\nMONOTONIC_USEC=\d+$/),
      "WATCHDOG=1",
      "STOPPING=1\nEXTEND_TIMEOUT_USEC=5000000\nSTATUS=drains",
    ];
    for (const [i, text] of told.entries()) expect(await receiver.notification(i)).toEqual(text);
    expect(logged()).toEqual([]);
  });

  test("hears of a reload at a time of its own clock", async () => {
    const receiver = await Receiver.bind(path);
    withEnvironment({ NOTIFY_SOCKET: path }).manager.reloading();
    const us = Number(/MONOTONIC_USEC=(\d+)/.exec(await receiver.notification(0))?.[1]);
    expect(us).toBeGreaterThan(await receiver.timeUs(-1));
    expect(us).toBeLessThanOrEqual(await receiver.timeUs(0));
  });

  test("gets whole microseconds", async () => {
    const receiver = await Receiver.bind(path);
    withEnvironment({ NOTIFY_SOCKET: path }).manager.stopping("ends", 0.0001);
    expect(await receiver.notification(0)).toContain("EXTEND_TIMEOUT_USEC=1\n");
  });

  test("sees a status of one line, that smuggles nothing in", async () => {
    const receiver = await Receiver.bind(path);
    const { manager } = withEnvironment({ NOTIFY_SOCKET: path });
    manager.status("a\nREADY=1\r\n\0b\u0085c = grün\n");
    expect(await receiver.notification(0)).toBe("STATUS=a READY=1 b c = grün ");
    manager.status("");
    expect(await receiver.notification(1)).toBe("STATUS=");
  });

  test.each(["x", "ö", "€", "🐢", "\ud800"])(
    "sees the start of a status too long, of %j",
    async (letter) => {
      const receiver = await Receiver.bind(path);
      const { manager } = withEnvironment({ NOTIFY_SOCKET: path });
      manager.status(letter.repeat(5000));
      const told = await receiver.notification(0);
      expect(Buffer.byteLength(told)).toBeLessThan(NOTIFICATION_BYTES_MAX / 2);
      expect(told).toStartWith(`STATUS=${letter.repeat(200).toWellFormed()}`);
    },
  );

  test("is told late of what it missed, and of nothing that is over", async () => {
    const { manager, logged } = withEnvironment({ NOTIFY_SOCKET: name });
    manager.reloading();
    manager.ready("relays");
    manager.status("3 nodes");
    const receiver = await Receiver.bind(name);
    manager.status("4 nodes");
    manager.watchdog();
    expect(await receiver.notification(0)).toBe("STATUS=4 nodes\nREADY=1\nSTATUS=relays");
    expect(await receiver.notification(1)).toBe("WATCHDOG=1");
    expect(logged()).toHaveLength(1);
  });

  test("is not waited for when it does not look, and told late of what it missed", async () => {
    const receiver = await Receiver.bind(path, "hold");
    const { manager, logged } = withEnvironment({ NOTIFY_SOCKET: path });
    let queued = 0;
    for (const check = patience("the queue is full"); logged().length === 0; check()) {
      manager.status("x".repeat(5000));
      queued++;
    }
    manager.stopping("drains".padEnd(5000, "€"), 1);
    manager.watchdog();
    const refused = `the service manager was not notified: sendto ${path}: EAGAIN`;
    expect(logged()).toEqual([["warn", expect.stringContaining(refused)]]);
    receiver.program.signal("SIGUSR1");
    await receiver.notification(queued - 2); // the last that the queue took
    manager.status("drains".padEnd(5000, "€"));
    const late = await receiver.notification(queued - 1);
    expect(late).toMatch(
      /^STATUS=drains€+\nSTOPPING=1\nEXTEND_TIMEOUT_USEC=1000\nSTATUS=drains€+$/,
    );
    expect(Buffer.byteLength(late)).toBeLessThan(NOTIFICATION_BYTES_MAX);
    expect(receiver.count).toBe(queued);
  });
});

describe("NOTIFY_SOCKET", () => {
  test.each([
    ["not set", {}],
    ["empty", { NOTIFY_SOCKET: "" }],
    ["not set, but a watchdog", { WATCHDOG_USEC: "1000000" }],
  ])("%s: nothing is said, nothing logged", (_, env) => {
    const { manager, logged } = withEnvironment(env);
    for (const call of everyCall) call(manager);
    expect(manager.watchdogMs).toBeUndefined();
    expect(logged()).toEqual([]);
  });

  test.each(["notify", "vsock:2:1234", "./notify", "@", "/"])(
    "%j: one warning, at once",
    (address) => {
      const { manager, logged } = withEnvironment({
        NOTIFY_SOCKET: address,
        WATCHDOG_USEC: "1000000",
      });
      const warning = [
        "warn",
        `NOTIFY_SOCKET "${address}" is no path and no @name: no notifications`,
      ];
      expect(logged()).toEqual([warning]);
      for (const call of everyCall) call(manager);
      expect(logged()).toEqual([warning]);
      expect(manager.watchdogMs).toBeUndefined();
    },
  );

  test.each([
    ["no such path", join(folder, "nobody"), "ENOENT"],
    ["no such name", `${name}-nobody`, "ECONNREFUSED"],
    ["a path too long", `/${"x".repeat(200)}`, "must have 1 to 107 bytes"],
  ])("%s: one warning, the first time", (_, address, reason) => {
    const { manager, logged } = withEnvironment({ NOTIFY_SOCKET: address });
    expect(logged()).toEqual([]);
    for (const call of [...everyCall, ...everyCall]) call(manager);
    expect(logged()).toEqual([["warn", expect.stringContaining(reason)]]);
  });
});

describe("watchdogMs", () => {
  const mine = String(process.pid);
  const another = String(process.ppid);

  test.each<[usec: string | undefined, pid: string | undefined, ms: number | undefined]>([
    ["30000000", undefined, 30_000],
    ["30000000", mine, 30_000],
    ["30000000", "", 30_000],
    ["1500", mine, 1.5],
    ["30000000", another, undefined],
    ["30000000", "broken", undefined],
    [undefined, mine, undefined],
    ["", mine, undefined],
    ["0", mine, undefined],
    ["-1", mine, undefined],
    ["1e6", mine, undefined],
    [" 1000", mine, undefined],
    ["30s", mine, undefined],
    ["18446744073709551615", mine, 86_400_000],
  ])("WATCHDOG_USEC %j, WATCHDOG_PID %j: %j", (WATCHDOG_USEC, WATCHDOG_PID, ms) => {
    const { manager, logged } = withEnvironment({
      NOTIFY_SOCKET: name,
      WATCHDOG_USEC,
      WATCHDOG_PID,
    });
    expect(manager.watchdogMs).toBe(ms);
    expect(logged()).toEqual([]);
  });
});
