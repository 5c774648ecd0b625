/** Merged bursts over a link with an MTU: two network namespaces and a veth pair between them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installed, MAIN, Programs } from "./support/program.ts";
import type { VethReport } from "./support/veth-client.ts";
import { TEST_TIMEOUT_MS } from "./support/wait.ts";

const CLIENT = join(import.meta.dir, "support/veth-client.ts");
const BEACON_SIDE = {
  namespace: `beacon-e2e-${process.pid}-b`,
  link: `pbb${process.pid}`,
  address: "10.211.7.1",
};
const CLIENT_SIDE = {
  namespace: `beacon-e2e-${process.pid}-c`,
  link: `pbc${process.pid}`,
  address: "10.211.7.2",
};
const TOKEN = "correct-horse-battery-staple";
const SIDES = [BEACON_SIDE, CLIENT_SIDE];

const ip = (...args: string[]) =>
  Bun.spawnSync(["ip", ...args], { stdout: "pipe", stderr: "pipe" });

function mustIp(...args: string[]): void {
  const { success, stderr } = ip(...args);
  if (!success) throw new Error(`ip ${args.join(" ")}: ${stderr}`);
}

const removeNamespaces = () => SIDES.map(({ namespace }) => ip("netns", "del", namespace));

/** Why these tests cannot run here, or undefined. */
function obstacle(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  if (!installed("ip")) return "needs ip of iproute2";
  const probe = ip("netns", "add", BEACON_SIDE.namespace);
  removeNamespaces();
  return probe.success ? undefined : "needs the right to make network namespaces";
}

const why = obstacle();

describe.skipIf(why !== undefined)(
  `over a veth pair${why === undefined ? "" : ` (${why})`}`,
  () => {
    const programs = new Programs();
    const folder = mkdtempSync(join(tmpdir(), "beacon-veth-"));
    let report: VethReport;

    beforeAll(async () => {
      for (const { namespace } of SIDES) mustIp("netns", "add", namespace);
      mustIp(
        ...["link", "add", BEACON_SIDE.link, "netns", BEACON_SIDE.namespace, "mtu", "1500"],
        ...[
          "type",
          "veth",
          "peer",
          "name",
          CLIENT_SIDE.link,
          "netns",
          CLIENT_SIDE.namespace,
          "mtu",
          "1500",
        ],
      );
      for (const { namespace, link, address } of SIDES) {
        mustIp("-n", namespace, "address", "add", `${address}/24`, "dev", link);
        mustIp("-n", namespace, "link", "set", link, "up");
        mustIp("-n", namespace, "link", "set", "lo", "up");
      }
      const inside = (namespace: string, ...command: string[]) =>
        programs.spawn(["ip", "netns", "exec", namespace, process.execPath, ...command]);
      const tokenFile = join(folder, "token");
      writeFileSync(tokenFile, TOKEN, { mode: 0o600 });
      const flags = [`--addr=${BEACON_SIDE.address}:0`, `--http=${BEACON_SIDE.address}:0`];
      flags.push(`--admin-token-file=${tokenFile}`);
      const beacon = inside(
        BEACON_SIDE.namespace,
        MAIN,
        ...flags,
        "--workers=2",
        "--log-format=json",
      );
      const { port, http } = await beacon.listening();
      const client = inside(
        CLIENT_SIDE.namespace,
        ...[CLIENT, CLIENT_SIDE.address, BEACON_SIDE.address, String(port), http!, TOKEN],
      );
      if ((await client.exited(TEST_TIMEOUT_MS)) !== 0) throw new Error(client.output());
      report = JSON.parse(client.lines.at(-1)!) as VethReport;
    }, TEST_TIMEOUT_MS);

    afterAll(async () => {
      await programs.kill();
      removeNamespaces();
      rmSync(folder, { recursive: true });
    });

    test("every packet arrives intact and in order, also those over the MTU", () => {
      expect(report.bursts.filter(({ intact }) => !intact)).toEqual([]);
      expect(report.dropped).toEqual({});
    });

    test("a burst of 1,200 B crosses merged, both ways", () => {
      expect(report.bursts[0]).toMatchObject({
        name: "small",
        segmentsReceived: 40,
        segmentsSent: 40,
        togetherMax: 40,
      });
    });

    test("packets over the MTU leave one by one", () => {
      const large = report.bursts.filter(({ name }) => name.startsWith("large"));
      expect(large).toHaveLength(3);
      expect(large.map(({ segmentsSent, togetherMax }) => ({ segmentsSent, togetherMax }))).toEqual(
        large.map(() => ({ segmentsSent: 0, togetherMax: 1 })),
      );
    });

    test("small packets after them are merged as before", () => {
      const after = report.bursts.filter(({ name }) => name.startsWith("small "));
      expect(after).toHaveLength(4);
      for (const burst of after) {
        expect(burst).toMatchObject({ segmentsReceived: 40, segmentsSent: 40, togetherMax: 40 });
      }
    });
  },
);
