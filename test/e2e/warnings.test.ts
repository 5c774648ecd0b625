/**
 * Warnings of a beacon that is ready: in /readyz, the statistics, the log, the commands and the
 * page.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { Beacon, type Config } from "../../src/beacon.ts";
import { temporaryFolder } from "../support/folder.ts";
import { recordedLog } from "../support/log.ts";
import { Clients } from "./support/client.ts";
import { type LogLine, Programs } from "./support/program.ts";
import { until, untilEqual } from "./support/wait.ts";

const CHROMIUM = Bun.which("chromium");
const NODES_MAX = 10;

const folder = temporaryFolder();
const programs = new Programs();
let beacon: Beacon;
let log: LogLine[] = [];
const clients = new Clients(() => beacon.address);

async function start(options: Partial<Config>): Promise<void> {
  const recorded = recordedLog("warn");
  log = recorded.lines;
  const all = { addr: "127.0.0.1:0", http: "127.0.0.1:0", workers: 1, maxNodes: 1000, ...options };
  beacon = new Beacon(all, recorded.log);
  await beacon.listen();
}
afterEach(async () => {
  clients.close();
  await programs.kill();
  await beacon.close();
});

const ready = async () => {
  const response = await fetch(new URL("/readyz", beacon.httpUrl));
  return { status: response.status, text: (await response.text()).trim() };
};
const warned = (pattern: RegExp) => log.filter(({ msg }) => pattern.test(msg)).length;

async function ran(...args: string[]): Promise<{ code: number; text: string }> {
  const program = programs.beacon([...args, "--http", beacon.httpUrl!.host]);
  const code = await program.exited();
  expect(program.stderr).toBe("");
  return { code, text: program.lines.join("\n") };
}

describe("a full node table", () => {
  const FULL =
    /^node table full: \d+ registrations refused within the last minute; raise --max-nodes \(10\)/;

  /** Has a few more nodes come than there is room for. */
  async function crowd(): Promise<void> {
    const client = await clients.open();
    for (let id = 1; id <= 3 * NODES_MAX; id++) await client.send(Uint8Array.of(1, 0, 0, 0, id));
    await until("a warning", () => beacon.stats().warnings.some((text) => FULL.test(text)));
  }

  test("is named, though the beacon is ready, and logged once for all of a minute's refusals", async () => {
    await start({ maxNodes: NODES_MAX });
    expect(await ready()).toEqual({ status: 200, text: "ready" });
    await crowd();
    await crowd();
    expect(beacon.stats()).toMatchObject({ healthy: true, notReady: null, nodes: NODES_MAX });
    const { status, text } = await ready();
    expect([status, FULL.test(text.replace(/^ready; /, ""))]).toEqual([200, true]);
    expect(warned(FULL)).toBe(1);
  });

  test("is on the screens of status and top", async () => {
    await start({ maxNodes: NODES_MAX });
    await crowd();
    const [status, top, json] = await Promise.all([
      ran("status"),
      ran("top", "--count=1"),
      ran("top", "--count=1", "--json"),
    ]);
    expect([status.code, top.code]).toEqual([0, 0]);
    expect(status.text).toMatch(
      /^health {4}ok; ready\nwarning {3}node table full: \d+ registrations/m,
    );
    expect(top.text).toMatch(/ healthy, 1 warning; node table full: \d+ registrations/);
    expect(JSON.parse(json.text)).toMatchObject({
      notReady: null,
      warnings: [expect.stringMatching(FULL)],
    });
  });

  test.skipIf(CHROMIUM === null)(
    `turns the page's health from green${CHROMIUM === null ? " (needs chromium)" : ""}`,
    async () => {
      await start({ maxNodes: NODES_MAX, drainMs: 600_000 });
      const browser = await chromium.launch({ executablePath: CHROMIUM!, args: ["--no-sandbox"] });
      try {
        const page = await browser.newPage();
        await page.goto(beacon.httpUrl!.href);
        const health = () => page.evaluate("[health.textContent, health.className]");
        await untilEqual("health", health, ["healthy", "pill good"]);
        expect(await page.isVisible("#warnings")).toBe(false);
        await crowd();
        await untilEqual("health", health, ["healthy, 1 warning", "pill warning"]);
        expect(await page.textContent("#warnings li")).toMatch(FULL);
        expect(await page.textContent("#tiles")).toContain(`of ${NODES_MAX}, full`);
        void beacon.drain();
        await untilEqual("health", health, ["unhealthy: draining", "pill bad"]);
        await beacon.close();
        await until("no health of before", async () => !(await page.isVisible("#health")));
        expect(await page.isVisible("#warnings")).toBe(false);
      } finally {
        await browser.close();
      }
    },
  );
});

test("a directory that does not answer is named until it does", async () => {
  await start({ directory: "redis://127.0.0.1:1", beaconId: 1, advertiseAddr: "192.0.2.1:9001" });
  await until("a warning", () =>
    beacon.stats().warnings.some((text) => /^directory: unreachable/.test(text)),
  );
  expect((await ready()).text).toMatch(/^ready; directory: unreachable for \d+ s: /);
});

test("a registry that does not answer is named", async () => {
  await start({ registry: "127.0.0.1:1", beaconId: 1 });
  await until("a warning", () =>
    beacon.stats().warnings.some((text) => /peers stay as they are/.test(text)),
  );
});

test("a state file that cannot be written is named until it can", async () => {
  const gone = join(folder, "gone");
  mkdirSync(gone);
  await start({ stateFile: join(gone, "nodes"), stateIntervalMs: 1000 });
  rmSync(gone, { recursive: true });
  await until("a warning", () => beacon.stats().warnings.some((text) => text.includes(gone)));
  mkdirSync(gone);
  await untilEqual("warnings", () => beacon.stats().warnings, []);
});
