/**
 * The page at "/", in a real browser. PAGE_SCREENSHOTS names a folder to leave pictures of it in.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import type { Stats } from "../../src/beacon.ts";
import { HttpProxy } from "../support/http-proxy.ts";
import { sum } from "./support/beacon.ts";
import type { Client } from "./support/client.ts";
import { announced, type BeaconProcess, freePort, Mesh } from "./support/mesh.ts";
import { CLEAN_ENV, MAIN } from "./support/program.ts";
import { TEST_TIMEOUT_MS, until, untilEqual } from "./support/wait.ts";

const TOKEN = "correct-horse-battery-staple";
/** A name that leads to this host and is none of its own: who asks by it needs the token. */
const ELSEWHERE = "beacon.test";
const CHROMIUM = Bun.which("chromium");

const folder = mkdtempSync(join(tmpdir(), "beacon-page-"));
const pictures = process.env["PAGE_SCREENSHOTS"] ?? folder;
const tokenFile = join(folder, "token");
const [udp, otherUdp, http] = [freePort(), freePort(), freePort()];
const origin = `http://127.0.0.1:${http}`;
const mesh = new Mesh();
let beacon: BeaconProcess;

function start(): Promise<BeaconProcess> {
  const flags = [
    "--beacon-id=1",
    `--peers=127.0.0.1:${otherUdp}`,
    `--admin-token-file=${tokenFile}`,
  ];
  return mesh.beacon(`127.0.0.1:${udp}`, [...flags, `--http=127.0.0.1:${http}`]);
}

beforeAll(async () => {
  mkdirSync(pictures, { recursive: true });
  writeFileSync(tokenFile, TOKEN, { mode: 0o600 });
  beacon = await start();
});
afterAll(async () => {
  await mesh.close();
  rmSync(folder, { recursive: true });
});

test("the page's files allow nothing but themselves, and are kept until they change", async () => {
  const types = {
    "/": "text/html",
    "/page/app.js": "text/javascript",
    "/page/style.css": "text/css",
    "/page/icon.svg": "image/svg+xml",
  };
  for (const [path, type] of Object.entries(types)) {
    const { status, headers } = await fetch(origin + path, { headers: { host: ELSEWHERE } });
    expect([path, status, headers.get("content-type")?.split(";")[0]]).toEqual([path, 200, type]);
    expect(headers.get("content-security-policy")).toBe(
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("referrer-policy")).toBe("no-referrer");
    const etag = headers.get("etag")!;
    const again = await fetch(origin + path, { headers: { "if-none-match": etag } });
    expect([again.status, again.headers.get("etag"), await again.text()]).toEqual([304, etag, ""]);
  }
  expect((await fetch(`${origin}/page/app.ts`)).status).toBe(404);
  expect((await fetch(origin, { method: "POST" })).status).toBe(405);
});

/** What a page complained of, and whom it asked. */
class Watched {
  readonly complaints: string[] = [];
  readonly hosts = new Set<string>();
  readonly paths = new Set<string>();

  constructor(readonly page: Page) {
    page.on("console", (message) => {
      // The browser's own line about an answer that is no 2xx, or about none: what the page makes
      // of those is looked at.
      if (message.type() !== "info" && !message.text().startsWith("Failed to load resource"))
        this.complaints.push(message.text());
    });
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("request", (request) => {
      const { host, pathname } = new URL(request.url());
      this.hosts.add(host);
      this.paths.add(pathname);
    });
  }
}

/** All that is compared, at one moment: the page changes between two looks. */
interface Seen {
  readonly link: string;
  readonly trouble: string;
  readonly nodes: string;
  readonly packetsIn: string;
  readonly packetsOut: string;
  /** The rows of a table, by their first cell. */
  readonly relays: Record<string, string[]>;
  readonly drops: Record<string, string[]>;
  readonly workers: Record<string, string[]>;
  readonly peers: Record<string, string[]>;
}

function look(page: Page): Promise<Seen> {
  return page.evaluate(`(() => {
    const text = (id) => document.getElementById(id)?.textContent ?? "";
    const rows = (id) => Object.fromEntries(Array.from(document.querySelectorAll("#" + id + " tbody tr"), (row) => {
      const [name, ...cells] = Array.from(row.cells, (cell) => cell.textContent);
      return [name, cells];
    }));
    return {
      link: text("link"), trouble: text("trouble"), nodes: text("now-nodes"),
      packetsIn: text("now-packets-in"), packetsOut: text("now-packets-out"),
      relays: rows("relays"), drops: rows("drops"), workers: rows("workers"), peers: rows("peers"),
    };
  })()`);
}

/** The number in a text with separators; NaN for others. */
const numberIn = (text = ""): number => Number(text.replaceAll(",", ""));

const counted = ({ relays, drops }: Seen) => ({
  local: numberIn(relays["to a node of this beacon"]?.[1]),
  peer: numberIn(relays["through a peer"]?.[1]),
  notFound: numberIn(drops["not found"]?.[1] ?? "0"),
});

const received = (stats: Stats) =>
  sum(stats, (row) => Object.values(row.packetsReceived).reduce((a, b) => a + b));

/** Sends relays without a pause. @returns how many, by what becomes of them */
async function load(near: Client, isOver: () => boolean) {
  const sent = { local: 0, peer: 0, notFound: 0 };
  while (!isOver()) {
    for (let i = 0; i < 4; i++) await near.relay(1, 2, new Uint8Array(500));
    await near.relay(1, 3, new Uint8Array(500));
    await near.relay(1, 999, new Uint8Array(500));
    sent.local += 4;
    sent.peer++;
    sent.notFound++;
    near.take();
    await Bun.sleep(2);
  }
  return sent;
}

describe.skipIf(CHROMIUM === null)(
  `in a browser${CHROMIUM === null ? " (needs chromium)" : ""}`,
  () => {
    let browser: Browser;
    let watched: Watched;

    beforeAll(async () => {
      const args = ["--no-sandbox", `--host-resolver-rules=MAP *.test 127.0.0.1`];
      browser = await chromium.launch({ executablePath: CHROMIUM!, args });
      watched = await open(origin);
    }, TEST_TIMEOUT_MS);
    afterAll(() => browser?.close());

    async function open(url: string): Promise<Watched> {
      const found = new Watched(
        await browser.newPage({ viewport: { width: 1280, height: 800 }, colorScheme: "light" }),
      );
      await found.page.goto(url);
      return found;
    }

    test("the numbers are those of the beacon, while it relays and after", async () => {
      const { page } = watched;
      const other = await mesh.beacon(`127.0.0.1:${otherUdp}`, [
        "--beacon-id=2",
        `--peers=127.0.0.1:${udp}`,
      ]);
      const [near, far] = [await mesh.client(beacon), await mesh.client(other)];
      for (const id of [1, 2]) await near.discover(id);
      await far.discover(3);
      await announced(other, beacon);

      let isOver = false;
      const sending = load(near, () => isOver);
      // The page's rate is that between two readings a second apart, and so are those here. On a
      // busy machine the load is uneven: then the two agree a little later.
      let first = await beacon.stats();
      let rates: number[] = [];
      await until("rates on the page that agree with the beacon's", async () => {
        const last = await beacon.stats();
        if (last.uptimeS - first.uptimeS >= 1) {
          const rate = (received(last) - received(first)) / (last.uptimeS - first.uptimeS);
          rates = [...rates.slice(-2), rate];
          first = last;
        }
        if (rates.length < 2) return false;
        const { packetsIn, packetsOut, workers } = await look(page);
        const [incoming, outgoing] = [numberIn(packetsIn), numberIn(packetsOut)];
        const busy = Object.values(workers).reduce((all, cells) => all + numberIn(cells[1]), 0);
        const isRate = incoming > Math.min(...rates) / 2 && incoming < Math.max(...rates) * 2;
        // Of six packets five go on.
        return (
          isRate &&
          Math.abs(outgoing / incoming - 5 / 6) < 0.05 &&
          Math.abs(busy / incoming - 1) < 0.05
        );
      });
      isOver = true;
      const sent = await sending;

      await untilEqual("what the page counted", async () => counted(await look(page)), sent);
      const seen = await look(page);
      expect([seen.link, seen.trouble, seen.nodes]).toEqual(["live", "", "2"]);
      expect(Object.keys(seen.workers)).toEqual(["0", "1"]);
      expect(seen.peers).toEqual({
        [other.name]: [
          "1",
          "gossip",
          expect.stringMatching(/^\d s ago$/),
          ...Array(2).fill(expect.any(String)),
        ],
      });
      const stats = await beacon.stats();
      expect(counted(seen).local).toBe(sum(stats, (row) => row.relayForwarded["local"]!));
      expect(await page.title()).toStartWith("Beacon 1: ");
    });

    test("in light and dark, wide and on a phone", async () => {
      const { page } = watched;
      const ground = () => page.evaluate("getComputedStyle(document.body).backgroundColor");
      const picture = (name: string) =>
        page.screenshot({ path: join(pictures, `page-${name}.png`) });
      const light = await ground();
      await picture("light");
      await page.emulateMedia({ colorScheme: "dark" });
      expect(await ground()).not.toBe(light);
      await picture("dark");
      await page.setViewportSize({ width: 390, height: 844 });
      await until("charts that fit", () =>
        page.evaluate("document.querySelector('.plot canvas').clientWidth < 390"),
      );
      expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(390);
      await picture("phone");
    });

    test("it explains a node, and what is none", async () => {
      const { page } = watched;
      const answers = {
        "1": /Next relaydelivered: .*Knownlocal/,
        "3": /forwarded: .*Knownpeer/,
        "0": /1 to 4,294,967,295/,
      };
      for (const [id, answer] of Object.entries(answers)) {
        await page.fill("#node", id);
        await page.press("#node", "Enter");
        await until(`an answer about ${id}`, async () =>
          answer.test((await page.textContent("#answer")) ?? ""),
        );
      }
    });

    test("when the beacon is gone it says so, and goes on with the next one", async () => {
      const { page } = watched;
      await beacon.program.kill();
      await until("the loss on the page", async () => (await look(page)).link === "not connected");
      const lost = await look(page);
      expect(lost.trouble).toMatch(/^No numbers from the beacon: .+ Trying again in [\d.]+ s\.$/);
      expect(counted(lost).local).toBeGreaterThan(0);
      expect(await page.isVisible("#charts canvas")).toBe(true);
      beacon = await start();
      await untilEqual("what the page counted", async () => counted(await look(page)).local, 0);
      const { packetsIn } = await until("rates", async () => {
        const seen = await look(page);
        return seen.packetsIn !== "–" && seen;
      });
      expect(numberIn(packetsIn)).toBeGreaterThanOrEqual(0);
      const back = await look(page);
      expect([back.link, back.trouble, back.nodes]).toEqual(["live", "", "0"]);
    });

    test("from elsewhere it asks for the token, and keeps it for the tab alone", async () => {
      const elsewhere = await open(`http://${ELSEWHERE}:${http}`);
      const { page } = elsewhere;
      await page.waitForSelector("#token-form:not([hidden])");
      expect(await page.isVisible("#numbers")).toBe(false);
      for (const [token, why] of [
        ["two words", /printable/],
        ["some-other-token-of-mine", /another token/],
      ] as const) {
        await page.fill("#token", token);
        await page.press("#token", "Enter");
        await until(String(why), async () =>
          why.test((await page.textContent("#token-why")) ?? ""),
        );
      }
      await page.fill("#token", TOKEN);
      await page.press("#token", "Enter");
      await page.waitForSelector("#numbers:not([hidden])");
      await page.waitForSelector("#token-form", { state: "hidden" });
      expect(
        await page.evaluate(
          "[localStorage.length, document.cookie, Object.values(sessionStorage)]",
        ),
      ).toEqual([0, "", [TOKEN]]);
      expect(page.url()).not.toContain(TOKEN);
      await page.click("#forget");
      await page.waitForSelector("#token-form:not([hidden])");
      expect(await page.evaluate("sessionStorage.length")).toBe(0);
      expect([elsewhere.complaints, [...elsewhere.hosts]]).toEqual([[], [`${ELSEWHERE}:${http}`]]);
    });

    describe("behind a proxy, below a path", () => {
      const proxies: HttpProxy[] = [];
      afterEach(async () => {
        for (const proxy of proxies.splice(0)) await proxy.close();
      });

      function proxied(prefix: string, adds: Record<string, string> = {}): HttpProxy {
        const proxy = new HttpProxy({ prefix, to: `127.0.0.1:${http}`, adds });
        proxies.push(proxy);
        return proxy;
      }

      async function explainsNode(page: Page): Promise<void> {
        await page.fill("#node", "999");
        await page.press("#node", "Enter");
        await until("an answer", async () =>
          /dropped: /.test((await page.textContent("#answer")) ?? ""),
        );
      }

      test("shows the numbers, and asks for nothing beside that path", async () => {
        const { port } = proxied("/ops/beacon/");
        const seen = await open(`http://${ELSEWHERE}:${port}/ops/beacon/`);
        const { page } = seen;
        await until("numbers", async () => (await look(page)).packetsIn !== "");
        await explainsNode(page);
        expect(await page.evaluate("getComputedStyle(document.body).paddingTop")).toBe("16px");
        expect([
          seen.complaints,
          [...seen.paths].filter((path) => !path.startsWith("/ops/beacon/")),
        ]).toEqual([[], []]);
        await page.close();
      });

      test("asks for the token where the proxy names itself, and keeps it for that path alone", async () => {
        const { port } = proxied("/a/", { "x-forwarded-for": "192.0.2.1" });
        const seen = await open(`http://${ELSEWHERE}:${port}/a/`);
        const { page } = seen;
        await page.waitForSelector("#token-form:not([hidden])");
        await page.fill("#token", TOKEN);
        await page.press("#token", "Enter");
        await page.waitForSelector("#numbers:not([hidden])");
        await explainsNode(page);
        expect(await page.evaluate("Object.entries(sessionStorage)")).toEqual([
          ["beacon-admin-token:/a/", TOKEN],
        ]);
        await page.close();
      });

      test("the commands find a beacon there", async () => {
        const { port } = proxied("/ops/beacon/");
        for (const end of ["", "/"]) {
          const status = mesh.spawn(
            [process.execPath, MAIN, "status", `--http=http://127.0.0.1:${port}/ops/beacon${end}`],
            { env: CLEAN_ENV },
          );
          expect([await status.exited(), status.stderr]).toEqual([0, ""]);
          expect(status.lines).toContain("health    ok; ready");
        }
      });

      test("a page of another origin changes nothing through a proxy that adds the token", async () => {
        const { port } = proxied("/beacon/", { authorization: `Bearer ${TOKEN}` });
        const posts = (host: string) => `http://${host}:${port}/beacon/api/breakers/relay`;
        const attack = (url: string) => `Promise.all(["cors", "no-cors"].map((mode) =>
        fetch("${url}", { method: "POST", mode, credentials: "include", body: '{"on":false}',
          headers: { "content-type": "text/plain" } })
        .then((response) => response.type, () => "refused")))`;
        const html = { "content-type": "text/html" };
        using evil = Bun.serve({
          port: 0,
          fetch: () => new Response("<title>evil</title>", { headers: html }),
        });
        const { page } = await open(`http://evil.test:${evil.port}/`);
        // Browsers send Sec-Fetch-Site to 127.0.0.1; to a name without TLS they send Origin alone.
        for (const host of ["127.0.0.1", ELSEWHERE]) {
          const answers = (await page.evaluate(attack(posts(host)))) as string[];
          expect(answers[0]).toBe("refused");
        }
        expect((await beacon.stats()).breakers).toMatchObject({ relay: "on" });
        // The same request of the page itself goes through, so the way was open.
        const own = await fetch(posts("127.0.0.1"), { method: "POST", body: '{"on":true}' });
        expect(own.status).toBe(200);
        await page.close();
      });
    });

    test("through all of this the page asked nobody else, and the browser had nothing to say", () => {
      expect([watched.complaints, [...watched.hosts]]).toEqual([[], [`127.0.0.1:${http}`]]);
    });
  },
);
