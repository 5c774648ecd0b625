/** The admin API: what it tells, and whom. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { Beacon, type Stats, version } from "../../src/beacon.ts";
import { Clients } from "./support/client.ts";
import { discover } from "./support/wire.ts";

const TOKEN = "correct-horse-battery-staple";
const BEARER = { authorization: `Bearer ${TOKEN}` };
const READS = [
  "/api",
  "/api/stats",
  "/api/stats/stream",
  "/api/peers",
  "/api/workers",
  "/api/config",
  "/api/breakers",
  "/api/nodes",
  "/api/nodes/7",
];

const folder = mkdtempSync(join(tmpdir(), "beacon-api-"));
const tokenFile = join(folder, "token");
let beacon: Beacon;
const clients = new Clients(() => beacon.address);

beforeAll(async () => {
  writeFileSync(tokenFile, TOKEN, { mode: 0o600 });
  beacon = new Beacon({
    addr: "127.0.0.1:0",
    http: ":0",
    workers: 2,
    maxNodes: 1000,
    adminTokenFile: tokenFile,
    registryAdminToken: "a-secret-of-the-registry",
  });
  await beacon.listen();
});
afterEach(() => clients.close());
afterAll(async () => {
  await beacon.close();
  rmSync(folder, { recursive: true });
});

function ask(
  path: string,
  headers: Record<string, string> = {},
  host = "127.0.0.1",
): Promise<Response> {
  return fetch(`http://${host}:${beacon.httpUrl!.port}${path}`, { headers });
}

async function statusOf(response: Promise<Response>): Promise<number> {
  const { status, body } = await response;
  await body?.cancel();
  return status;
}

/** Lines of JSON as they come. */
async function* lines(response: Response): AsyncGenerator<Stats> {
  let text = "";
  for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
    text += part;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      yield JSON.parse(text.slice(0, end));
      text = text.slice(end + 1);
    }
  }
}

test("every answer names the API's version; /api lists what there is", async () => {
  const index = (await (await ask("/api")).json()) as {
    api: number;
    version: string;
    paths: string[];
  };
  const paths = index.paths.map((path) => path.replace(":id", "7"));
  expect({ ...index, paths }).toEqual({ api: 1, version, paths: expect.arrayContaining(READS) });
  for (const path of paths) {
    const response = await ask(path);
    expect([path, response.status, response.headers.get("beacon-api")]).toEqual([path, 200, "1"]);
    await response.body?.cancel();
  }
});

test("workers, peers and configuration are those of the statistics and of the beacon, without its secrets", async () => {
  const { workers } = (await (await ask("/api/workers")).json()) as Pick<Stats, "workers">;
  expect(workers.map(({ worker, alive }) => [worker, alive])).toEqual([
    [0, true],
    [1, true],
  ]);
  expect(workers[0]!.cpuS).toBeGreaterThan(0);
  expect(await (await ask("/api/peers")).json()).toMatchObject({ peers: [] });
  const text = await (await ask("/api/config")).text();
  expect(JSON.parse(text)).toMatchObject({ maxNodes: 1000, registryAdminToken: "***" });
  expect(text).not.toContain("a-secret");
  expect(text).not.toContain(TOKEN);
});

test("the stream tells the numbers again and again, and ends with the reader", async () => {
  const response = await ask("/api/stats/stream");
  expect(response.headers.get("x-accel-buffering")).toBe("no"); // or nginx would hold lines back
  const stream = lines(response);
  const first = (await stream.next()).value as Stats;
  expect(first.nodes).toBe(0);
  const client = await clients.open();
  client.send(discover(7));
  await client.message();
  let now = first;
  while (now.nodes === 0) now = (await stream.next()).value as Stats;
  expect(now.nodes).toBe(1);
  expect(now.uptimeS).toBeGreaterThan(first.uptimeS);
  await stream.return(undefined);
});

describe("reading", () => {
  const outside = Object.values(networkInterfaces())
    .flat()
    .find((address) => address?.family === "IPv4" && !address.internal)?.address;

  test.skipIf(outside === undefined)(
    "from elsewhere needs the token; health and metrics do not (needs another address)",
    async () => {
      for (const path of READS) {
        expect([path, await statusOf(ask(path, {}, outside))]).toEqual([path, 401]);
        expect([path, await statusOf(ask(path, BEARER, outside))]).toEqual([path, 200]);
      }
      for (const path of ["/healthz", "/readyz", "/metrics"])
        expect([path, await statusOf(ask(path, {}, outside))]).toEqual([path, 200]);
    },
  );

  test("through a proxy, or by a name that only leads here, needs the token", async () => {
    for (const headers of [{ "x-forwarded-for": "192.0.2.1" }, { host: "beacon.example" }]) {
      for (const path of READS) {
        expect([path, await statusOf(ask(path, headers))]).toEqual([path, 401]);
        expect([path, await statusOf(ask(path, { ...headers, ...BEARER }))]).toEqual([path, 200]);
      }
    }
  });
});

describe("a web page of another origin", () => {
  const CHANGES = ["/api/breakers/relay", "/api/nodes/7/disconnect", "/api/drain", "/api/upgrade"];
  const CROSS: Record<string, string>[] = [
    { "sec-fetch-site": "cross-site" },
    { "sec-fetch-site": "same-site" },
    { origin: "https://evil.example" },
    { origin: "http://127.0.0.1:3000" },
    { origin: "null" },
  ];

  test("reads nothing, with the token or without", async () => {
    for (const headers of CROSS) {
      for (const path of READS) {
        expect([path, await statusOf(ask(path, headers))]).toEqual([path, 403]);
        expect([path, await statusOf(ask(path, { ...headers, ...BEARER }))]).toEqual([path, 403]);
      }
    }
  });

  test("changes nothing by a form or a plain request, though a proxy adds the token", async () => {
    const url = (path: string) => `http://127.0.0.1:${beacon.httpUrl!.port}${path}`;
    for (const from of CROSS) {
      for (const type of [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
      ]) {
        const headers = { ...from, ...BEARER, "content-type": type };
        for (const path of CHANGES) {
          const answer = fetch(url(path), { method: "POST", headers, body: '{"on":false}' });
          expect([path, await statusOf(answer)]).toEqual([path, 403]);
        }
      }
    }
    expect(beacon.stats()).toMatchObject({ healthy: true, breakers: { relay: "on" } });
  });

  test("gets no permission of a preflight, and no WebSocket", async () => {
    for (const path of [...READS, ...CHANGES]) {
      const preflight = await fetch(`http://127.0.0.1:${beacon.httpUrl!.port}${path}`, {
        method: "OPTIONS",
        headers: { origin: "https://evil.example", "access-control-request-method": "POST" },
      });
      expect([path, preflight.status]).toEqual([path, 405]);
      expect(preflight.headers.get("access-control-allow-origin")).toBeNull();
    }
    const handshake = {
      ...{ origin: "https://evil.example", connection: "Upgrade", upgrade: "websocket" },
      ...{ "sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" },
    };
    expect(await statusOf(ask("/api/stats/stream", handshake))).toBe(403);
  });

  test("embeds no answer and frames none", async () => {
    for (const path of ["/healthz", "/readyz", "/metrics", "/nothing", ...READS]) {
      const { headers, body } = await ask(path);
      await body?.cancel();
      expect([path, headers.get("cross-origin-resource-policy")]).toEqual([path, "same-origin"]);
      expect(headers.get("content-security-policy")).toBe(
        "default-src 'none'; frame-ancestors 'none'",
      );
      expect(headers.get("referrer-policy")).toBe("no-referrer");
    }
  });
});

test("localhost in capitals, with a dot, and the address in brackets are this host", async () => {
  for (const host of ["LOCALHOST", "localhost.", "[::1]", "[::1]:9002"])
    expect([host, await statusOf(ask("/api", { host }))]).toEqual([host, 200]);
});

test("--admin-auth always asks this host's own programs for the token, too, and a reload ends it", async () => {
  beacon.reconfigure({ ...beacon.config, adminAuth: "always" });
  for (const path of READS) {
    expect([path, await statusOf(ask(path))]).toEqual([path, 401]);
    expect([path, await statusOf(ask(path, BEARER))]).toEqual([path, 200]);
  }
  for (const path of ["/", "/healthz", "/readyz", "/metrics"])
    expect([path, await statusOf(ask(path))]).toEqual([path, 200]);
  beacon.reconfigure({ ...beacon.config, adminAuth: "auto" });
  expect(await statusOf(ask("/api"))).toBe(200);
});

test("no more than 64 follow the stream; one who leaves makes room", async () => {
  const open = await Promise.all(Array.from({ length: 64 }, () => ask("/api/stats/stream")));
  expect(open.map(({ status }) => status)).toEqual(Array(64).fill(200));
  expect(await statusOf(ask("/api/stats/stream"))).toBe(503);
  await Promise.all(open.map(({ body }) => body?.cancel()));
  let status = 503;
  while (status === 503) status = await statusOf(ask("/api/stats/stream"));
  expect(status).toBe(200);
});
