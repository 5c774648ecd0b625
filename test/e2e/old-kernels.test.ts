/**
 * Kernels that lack what the beacon would like: played by a seccomp filter around the real program.
 */
import { afterEach, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { Stats } from "../../src/beacon.ts";
import { temporaryFolder } from "../support/folder.ts";
import { Clients } from "./support/client.ts";
import { installed, MAIN, type Program, Programs } from "./support/program.ts";

describe.skipIf(!installed("cc"))(`a kernel${installed("cc") ? "" : " (needs cc)"}`, () => {
  const folder = temporaryFolder();
  const refuse = join(folder, "refuse");
  const programs = new Programs();
  let port = 0;
  const clients = new Clients(() => ({ port }));

  beforeAll(() => {
    const source = join(import.meta.dir, "support/refuse.c");
    const compiled = Bun.spawnSync(["cc", "-Wall", "-Werror", "-o", refuse, source], {
      stderr: "pipe",
    });
    expect(compiled.stderr.toString()).toBe("");
  });
  afterEach(async () => {
    clients.close();
    await programs.kill();
  });

  const start = (what: string, ...flags: string[]): Program => {
    // Buffers that every host grants: no warning about those.
    const common = [
      "--http=off",
      "--log-format=json",
      "--workers=2",
      "--recv-buffer=64K",
      "--send-buffer=64K",
    ];
    return programs.spawn([refuse, what, process.execPath, MAIN, ...common, ...flags]);
  };

  async function expectRelays(beacon: Program): Promise<void> {
    ({ port } = await beacon.listening());
    const [one, two] = [await clients.open(), await clients.open()];
    await one.discover(1);
    await two.discover(2);
    await one.relay(1, 2, new Uint8Array([42]));
    expect(await two.message()).toMatchObject({ type: "deliver", senderId: 1 });
  }

  const warnings = (beacon: Program) => beacon.log().filter(({ level }) => level === "warn");

  test("without IPv6: every address means every IPv4 address", async () => {
    const beacon = start("ipv6", "--addr=:0");
    await expectRelays(beacon);
    expect((await beacon.listening()).line.msg).toContain("listens on 0.0.0.0:");
    expect(warnings(beacon)).toEqual([]);
  });

  test("without IPv6: an IPv6 address is an error that says so", async () => {
    const beacon = start("ipv6", "--addr=[::1]:0");
    expect(await beacon.exited()).toBe(1);
    expect(beacon.log().map(({ level, msg }) => [level, msg])).toEqual([
      ["fatal", expect.stringMatching(/^socket IPv6: EAFNOSUPPORT \(.*IPv4/)],
    ]);
  });

  test("without UDP_GRO: relays without offload, and says so once", async () => {
    const beacon = start("offload", "--addr=127.0.0.1:0");
    await expectRelays(beacon);
    expect(warnings(beacon).map(({ msg }) => msg)).toEqual([
      expect.stringMatching(/^offload is off/),
    ]);
    expect((await beacon.listening()).line["offload"]).toBe(false);
  });

  test("without SO_MEMINFO: that statistic is missing and logged once, and all else goes on", async () => {
    const beacon = start("meminfo", "--addr=127.0.0.1:0", "--http=127.0.0.1:0");
    await expectRelays(beacon);
    const { http } = await beacon.listening();
    for (let scrape = 0; scrape < 2; scrape++) {
      const metrics = await fetch(new URL("metrics", http));
      expect(metrics.status).toBe(200);
      const text = await metrics.text();
      expect(text).not.toMatch(/^beacon_socket_receive_drops_total\b/m);
      expect(text).toMatch(/^beacon_relay_forwarded_total\{.*\} 1$/m);
    }
    const stats = (await (await fetch(new URL("api/stats", http))).json()) as Stats;
    expect(stats.workers.map(({ socketReceiveDrops }) => socketReceiveDrops)).toEqual([null, null]);
    const status = Bun.spawnSync([process.execPath, MAIN, "status", "--http", http!]);
    expect(status.exitCode).toBe(0);
    beacon.signal("SIGTERM");
    expect(await beacon.exited()).toBe(0);
    expect(warnings(beacon).map(({ msg }) => msg)).toEqual([
      expect.stringMatching(/^drops at sockets cannot be read .*SO_MEMINFO: ENOPROTOOPT/),
    ]);
    expect(beacon.log().at(-1)!.msg).toBe("beacon closed");
    expect(beacon.stderr).toBe("");
  });

  test("without getrusage: that statistic is missing and logged once, and all else goes on", async () => {
    const beacon = start("rusage", "--addr=127.0.0.1:0", "--http=127.0.0.1:0");
    await expectRelays(beacon);
    const { http } = await beacon.listening();
    for (let scrape = 0; scrape < 2; scrape++) {
      const metrics = await fetch(new URL("metrics", http));
      expect(metrics.status).toBe(200);
      expect(await metrics.text()).not.toMatch(/^process_cpu_seconds_total\b/m);
    }
    const stats = (await (await fetch(new URL("api/stats", http))).json()) as Stats;
    expect(stats.cpuS).toBeNull();
    const status = Bun.spawnSync([process.execPath, MAIN, "status", "--http", http!]);
    expect(status.exitCode).toBe(0);
    beacon.signal("SIGTERM");
    expect(await beacon.exited()).toBe(0);
    expect(warnings(beacon).map(({ msg }) => msg)).toEqual([
      expect.stringMatching(/^the CPU time cannot be read/),
    ]);
  });

  test("that refuses the steering program: relays without steering, and says so once", async () => {
    const beacon = start("steering", "--addr=127.0.0.1:0");
    await expectRelays(beacon);
    expect(warnings(beacon).map(({ msg }) => msg)).toEqual([
      expect.stringMatching(/^steering is off.*SO_ATTACH_REUSEPORT_CBPF: EPERM/),
    ]);
  });
});
