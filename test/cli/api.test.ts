/** The admin API from outside: where it is, and what goes wrong in words. */
import { afterEach, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Api, ApiError, apiUrl } from "../../src/cli/api.ts";
import { ConfigError } from "../../src/config.ts";
import { temporaryFolder } from "../support/folder.ts";
import { FakeApi } from "./support/fake.ts";

const folder = temporaryFolder();
const tokenFile = join(folder, "token");
writeFileSync(tokenFile, "a-token-of-16-characters\n");

let fake: FakeApi | undefined;
afterEach(async () => {
  await fake?.stop();
  fake = undefined;
});

function answering(answer: () => Response, token?: string): Api {
  fake = new FakeApi(answer);
  return new Api(fake.url, token);
}

async function troubleOf(promise: Promise<unknown>): Promise<[string, string]> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof ApiError) return [error.trouble, error.message];
    throw error;
  }
  throw new Error("went well");
}

test.each([
  ["127.0.0.1:9002", "http://127.0.0.1:9002/"],
  [":9002", "http://127.0.0.1:9002/"],
  ["0.0.0.0:9002", "http://127.0.0.1:9002/"],
  ["[::]:9002", "http://[::1]:9002/"],
  ["[2001:db8::1]:9002", "http://[2001:db8::1]:9002/"],
  ["beacon.example:9002", "http://beacon.example:9002/"],
  ["https://beacon.example/behind", "https://beacon.example/behind/"],
])("%s is asked at %s", (text, url) => {
  expect(apiUrl(text).href).toBe(url);
});

test.each(["off", "", "9002", "127.0.0.1", "127.0.0.1:0", "http://", "http://user@host/", "a b:1"])(
  "%j is nowhere",
  (text) => {
    expect(() => apiUrl(text)).toThrow(ConfigError);
  },
);

test("a flag outranks the environment, which outranks the default; mistakes name their place", () => {
  const env = { BEACON_HTTP: "127.0.0.1:1" };
  expect(Api.from({ http: "127.0.0.1:2" }, env).url.port).toBe("2");
  expect(Api.from({}, env).url.port).toBe("1");
  expect(Api.from({}, { BEACON_HTTP: "" }).url.port).toBe("9002");
  expect(() => Api.from({ http: "x" }, env)).toThrow(/^--http x: must be host:port/);
  expect(() => Api.from({}, { BEACON_HTTP: "off" })).toThrow(/^BEACON_HTTP=off: /);
  expect(() => Api.from({}, { BEACON_ADMIN_TOKEN_FILE: join(folder, "none") })).toThrow(
    /none.*ENOENT/,
  );
});

test("the token is borne, and goes nowhere else", async () => {
  const api = answering(() => Response.json({}), tokenFile);
  await api.get("api/stats");
  expect(fake!.asked[0]!.authorization).toBe("Bearer a-token-of-16-characters");
  await fake!.stop();
  const moved = answering(
    () => new Response("", { status: 302, headers: { location: "/elsewhere" } }),
    tokenFile,
  );
  expect((await troubleOf(moved.get("api/stats")))[0]).toBe("refused");
  expect(fake!.asked).toHaveLength(1);
});

test("nobody there", async () => {
  const api = answering(() => Response.json({}));
  await fake!.stop();
  expect(await troubleOf(api.get("api/stats"))).toEqual([
    "unreachable",
    expect.stringContaining("connection refused"),
  ]);
});

test.each([
  { name: "no token", status: 401, says: "give it with --admin-token-file", token: undefined },
  { name: "a wrong one", status: 401, says: "is not this beacon's", token: tokenFile },
  {
    name: "a beacon without",
    status: 403,
    says: "start the beacon with --admin-token-file",
    token: undefined,
  },
  { name: "too many", status: 429, says: "wait", token: tokenFile },
])("the token: $name", async ({ status, says, token }) => {
  const api = answering(() => new Response("the admin token is needed\n", { status }), token);
  expect(await troubleOf(api.get("api/stats"))).toEqual([
    "forbidden",
    expect.stringContaining(says),
  ]);
});

test("not a beacon, another version, no JSON, a refusal, one too many", async () => {
  const cases: [Response, string, RegExp][] = [
    [
      new Response("{}", { headers: { "beacon-api": "2" } }),
      "unreachable",
      /version 2 of the admin API/,
    ],
    [new Response("<html>"), "unreachable", /no answer of a beacon/],
    [new Response("5"), "unreachable", /no answer of a beacon/],
    [new Response("not here: \x1b[2J", { status: 404 }), "refused", /not here: \?\[2J \(404\)/],
    [new Response("not found: there are /api", { status: 404 }), "refused", /no such thing/],
    [new Response("no room", { status: 500 }), "refused", /no room/],
    [new Response("too many", { status: 503 }), "refused", /try again/],
  ];
  for (const [response, trouble, message] of cases) {
    const api = answering(() => response);
    expect(await troubleOf(api.get("api/x"))).toEqual([trouble, expect.stringMatching(message)]);
    await fake!.stop();
  }
});

test.each([200, 301, 401, 403, 404, 405, 429, 500, 502, 503])(
  "an answer %i of something else, or of a proxy, is no beacon's, and says nothing of the token",
  async (status) => {
    const answer = () => new Response("<html>Unauthorized</html>", { status });
    const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: answer });
    const [trouble, message] = await troubleOf(new Api(server.url).get("api/x"));
    expect([trouble, message]).toEqual(["unreachable", expect.stringMatching(/not as a beacon/)]);
    expect(message.includes(`(${status})`)).toBe(status !== 200);
    await server.stop(true);
  },
);

test("refusals of older beacons, which name no version, are understood", async () => {
  const older: [number, string, string][] = [
    [401, "the admin token is needed", "forbidden"],
    [
      403,
      "the admin token is needed, and this beacon has none: see --admin-token-file",
      "forbidden",
    ],
    [429, "too many wrong tokens", "forbidden"],
    [404, "not found: there are /api", "refused"],
    [405, "only GET is answered here", "refused"],
  ];
  for (const [status, text, trouble] of older) {
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () => new Response(text, { status }),
    });
    expect((await troubleOf(new Api(server.url).post("api/drain")))[0]).toBe(trouble as never);
    await server.stop(true);
  }
});

test("an answer without end is not read to its end", async () => {
  const megabyte = new Uint8Array(1 << 20).fill(0x20);
  const endless = new ReadableStream({ pull: (controller) => controller.enqueue(megabyte) });
  const api = answering(() => new Response(endless));
  expect((await troubleOf(api.get("api/x")))[1]).toMatch(/no answer of a beacon/);
});

test("lines come one by one, wherever they are cut", async () => {
  const parts = ['{"a":1}\n{"a"', ":2}", '\n{"a":3}\n'];
  const body = new ReadableStream({
    async pull(controller) {
      const part = parts.shift();
      if (part === undefined) controller.close();
      else controller.enqueue(new TextEncoder().encode(part));
      await Bun.sleep(1);
    },
  });
  const lines: unknown[] = [];
  for await (const line of answering(() => new Response(body)).lines("x")) lines.push(line);
  expect(lines).toEqual([{ a: 1 }, { a: 2 }, { a: 3 }]);
});
