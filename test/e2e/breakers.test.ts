/** What an operator switches off and on while the beacon runs, and who else cannot. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Config, ConfigError, type Stats } from "../../src/beacon.ts";
import { temporaryFolder } from "../support/folder.ts";
import { recordedLog } from "../support/log.ts";
import { UpgradeRefused } from "../support/websocket.ts";
import { UNLIMITED } from "./support/beacon.ts";
import { BridgeBeacon, textOf } from "./support/bridged.ts";
import type { LogLine } from "./support/program.ts";
import { untilEqual } from "./support/wait.ts";

const TOKEN = "correct-horse-battery-staple";
const ALL_ON = { discover: "on", punch: "on", relay: "on", bridge: "on" } as const;
const [ALICE, BOB, CAROL] = [1, 2, 3];

const folder = temporaryFolder();
let files = 0;

/** A file that holds the token, of its owner alone. */
function tokenFile(text: string, mode = 0o600): string {
  const path = join(folder, `token-${files++}`);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

let host: BridgeBeacon;
let log: LogLine[];
const warnings = () => log.filter(({ level }) => level === "warn").map(({ msg }) => msg);

async function start(options: Partial<Config>): Promise<void> {
  const recorded = recordedLog();
  host = await BridgeBeacon.start({ http: "127.0.0.1:0", ...UNLIMITED, ...options }, recorded);
  recorded.lines.length = 0;
  log = recorded.lines;
}
beforeEach(() => start({ adminTokenFile: tokenFile(`${TOKEN}\n`) }));
afterEach(() => host.close());

const at = (path: string) => new URL(path, host.beacon.httpUrl);

function post(breaker: string, body: string, authorization: string | null = `Bearer ${TOKEN}`) {
  const headers = authorization === null ? {} : { authorization };
  return fetch(at(`/api/breakers/${breaker}`), { method: "POST", body, headers });
}

async function turn(breaker: string, state: "on" | "off"): Promise<void> {
  const response = await post(breaker, JSON.stringify({ on: state === "on" }));
  expect(response.status).toBe(200);
  expect(await response.json()).toEqual({ [breaker]: state });
}

const states = async () => (await fetch(at("/api/breakers"))).json();

/** What was dropped for a breaker. */
const dropped = (breaker: string) => host.count(({ switchedOff }) => switchedOff[breaker]!);

describe("discover, punch, relay", () => {
  test("each is dropped while it is off, by UDP and by WebSocket, and counted; the others go on", async () => {
    const [alice, bob] = [await host.udp(ALICE), await host.udp(BOB)];
    const carol = await host.bridged(CAROL);

    await turn("relay", "off");
    await alice.relay(ALICE, BOB, new Uint8Array(1));
    carol.relay(BOB, new Uint8Array(1));
    await untilEqual("relays dropped", () => dropped("relay"), 2);
    await alice.discover(ALICE);
    await turn("relay", "on");
    await alice.relay(ALICE, BOB, new Uint8Array(2));
    expect(await bob.message()).toMatchObject({ type: "deliver", payload: new Uint8Array(2) });

    await turn("punch", "off");
    await alice.punch(ALICE, BOB);
    await untilEqual("punch requests dropped", () => dropped("punch"), 1);
    await turn("punch", "on");
    await alice.punch(ALICE, BOB);
    expect(await bob.message()).toMatchObject({ type: "punchCommand" });
    expect(await alice.message()).toMatchObject({ type: "punchCommand" });

    await turn("discover", "off");
    await alice.send(Uint8Array.of(1, 0, 0, 0, ALICE));
    await untilEqual("discovers dropped", () => dropped("discover"), 1);
    await alice.relay(ALICE, BOB, new Uint8Array(3));
    expect(await bob.message()).toMatchObject({ type: "deliver", payload: new Uint8Array(3) });
    await turn("discover", "on");
    await alice.discover(ALICE);
    expect(alice.pending + bob.pending).toBe(0);
  });

  test("are seen in the statistics, the metrics and the log", async () => {
    expect(await states()).toEqual(ALL_ON);
    await turn("punch", "off");
    await turn("relay", "off");
    await turn("punch", "on");
    expect(await states()).toEqual({ ...ALL_ON, relay: "off" });
    const stats = (await (await fetch(at("/api/stats"))).json()) as Stats;
    expect(stats.breakers).toEqual({ ...ALL_ON, relay: "off" });
    const metrics = await (await fetch(at("/metrics"))).text();
    expect(metrics.match(/^beacon_breaker_off.*$/gm)).toEqual([
      'beacon_breaker_off{breaker="discover"} 0',
      'beacon_breaker_off{breaker="punch"} 0',
      'beacon_breaker_off{breaker="relay"} 1',
      'beacon_breaker_off{breaker="bridge"} 0',
    ]);
    expect(warnings()).toEqual([
      "punch is switched off by 127.0.0.1",
      "relay is switched off by 127.0.0.1",
      "punch is switched on by 127.0.0.1",
    ]);
  });
});

describe("bridge", () => {
  test("off: connections end, and nobody is let in; on: nodes come back", async () => {
    const node = await host.bridged(CAROL);
    const stranger = await host.open();
    await textOf(stranger);
    await turn("bridge", "off");
    for (const connection of [node.connection, stranger])
      expect(await connection.closed).toEqual({ code: 1013, reason: "switched off" });
    const refusal = await host.open().catch((error) => error);
    expect(refusal).toBeInstanceOf(UpgradeRefused);
    expect(refusal).toMatchObject({ status: 503, body: "switched off\n" });
    expect(host.stats).toMatchObject({
      peers: 0,
      upgrades: { switched_off: 1 },
      auth: { switched_off: 1 },
    });
    expect(await states()).toEqual({ ...ALL_ON, bridge: "off" });
    await turn("bridge", "on");
    await host.bridged(CAROL);
  });

  test("is no breaker where there is no bridge", async () => {
    await host.close();
    await start({ wss: "off", adminTokenFile: tokenFile(TOKEN) });
    const { bridge: _, ...others } = ALL_ON;
    expect(await states()).toEqual(others);
    const response = await post("bridge", '{"on":false}');
    expect(response.status).toBe(404);
    expect(await response.text()).toContain("discover, punch, relay");
  });
});

describe("a request", () => {
  test.each([
    ["nothing", ""],
    ["no JSON", "{on: false}"],
    ["a word", '"off"'],
    ["null", "null"],
    ["an array", "[false]"],
    ["no state", "{}"],
    ["a state that is a text", '{"on":"false"}'],
    ["a state that is a number", '{"on":0}'],
    ["more than the state", '{"on":false,"for":"1h"}'],
    ["the state in capitals", '{"ON":false}'],
  ])("with %s for a body is told what it should be", async (_, body) => {
    const response = await post("relay", body);
    expect(response.status).toBe(400);
    expect(await response.text()).toBe('the body must be {"on": true} or {"on": false}\n');
    expect(await states()).toEqual(ALL_ON);
  });

  test("with too large a body is refused", async () => {
    const response = await post("relay", `{"on":false${" ".repeat(2000)}}`);
    expect(response.status).toBe(413);
    expect(await states()).toEqual(ALL_ON);
  });

  test.each(["relays", "RELAY", "toString", "__proto__", "%2e%2e"])(
    "for %s finds nothing",
    async (name) => {
      expect((await post(name, '{"on":false}')).status).toBe(404);
      expect(await states()).toEqual(ALL_ON);
    },
  );

  test.each([
    null,
    "",
    "Bearer",
    "Bearer ",
    TOKEN,
    `Basic ${TOKEN}`,
    `Bearer ${TOKEN}x`,
    `Bearer ${TOKEN.slice(0, -1)}`,
    `Bearer ${TOKEN.toUpperCase()}`,
    `Bearer x ${TOKEN}`,
  ])("with %p in place of the token changes nothing", async (authorization) => {
    const response = await post("relay", '{"on":false}', authorization);
    expect(response.status).toBe(401);
    expect(response.headers.get("www-authenticate")).toBe("Bearer");
    expect(await states()).toEqual(ALL_ON);
  });

  test("may write the scheme in small letters", async () => {
    expect((await post("relay", '{"on":false}', `bearer ${TOKEN}`)).status).toBe(200);
  });

  test("with a wrong token too many: its address has to wait, but with the right one; the log says so once", async () => {
    const statuses: number[] = [];
    while (statuses.at(-1) !== 429)
      statuses.push((await post("relay", '{"on":false}', "Bearer wrong")).status);
    expect(statuses.length).toBeGreaterThanOrEqual(10);
    expect(new Set(statuses)).toEqual(new Set([401, 429]));
    expect(await states()).toEqual(ALL_ON);
    expect(warnings()).toEqual([
      "a request of 127.0.0.1 needed the admin token, and had none or a wrong one",
    ]);
    // Others on its address must not be able to keep the operator out.
    expect((await post("relay", '{"on":false}')).status).toBe(200);
    expect(await states()).toEqual({ ...ALL_ON, relay: "off" });
  });
});

describe("the token's file", () => {
  test("none: nothing can be switched, and everything can be read", async () => {
    await host.close();
    await start({});
    for (const authorization of [null, "Bearer ", `Bearer ${TOKEN}`])
      expect((await post("relay", '{"on":false}', authorization)).status).toBe(403);
    expect(await states()).toEqual(ALL_ON);
  });

  test("is read again at a reload; one that cannot be used changes nothing", async () => {
    const { config } = host.beacon;
    const [next, broken] = [tokenFile("another-token-0123456789"), tokenFile("short-secret")];
    host.beacon.reconfigure({ ...config, adminTokenFile: next });
    expect((await post("relay", '{"on":false}')).status).toBe(401);
    expect((await post("relay", '{"on":false}', "Bearer another-token-0123456789")).status).toBe(
      200,
    );
    expect(() => host.beacon.reconfigure({ ...config, adminTokenFile: broken })).toThrow(
      ConfigError,
    );
    expect((await post("relay", '{"on":true}', "Bearer another-token-0123456789")).status).toBe(
      200,
    );
    writeFileSync(next, "a-third-token-0123456789");
    host.beacon.reconfigure({ ...config, adminTokenFile: next });
    expect((await post("relay", '{"on":false}', "Bearer a-third-token-0123456789")).status).toBe(
      200,
    );
    host.beacon.reconfigure({ ...config, adminTokenFile: "off" });
    expect((await post("relay", '{"on":true}', "Bearer a-third-token-0123456789")).status).toBe(
      403,
    );
    expect(await states()).toEqual({ ...ALL_ON, relay: "off" }); // a reload switches nothing
  });

  test.each([
    ["nothing", ""],
    ["15 characters", "x".repeat(15)],
    ["a space", "hunter2hunter2 hunter2"],
    ["two lines", "hunter2hunter2hunter2\nhunter2hunter2hunter2"],
    ["letters beyond ASCII", "hunter2hunter2hunter2\u00e4"],
    ["5,000 characters", "hunter2".repeat(5000 / 7 + 1)],
  ])("with %s is refused by its name alone", async (_, text) => {
    const path = tokenFile(text);
    let message = "";
    try {
      host.beacon.reconfigure({ ...host.beacon.config, adminTokenFile: path });
    } catch (error) {
      if (error instanceof ConfigError) ({ message } = error);
    }
    expect(message).toStartWith(`${path}: the admin token`);
    expect(message).not.toContain("hunter2");
  });

  test("that others can read is used, and warned of", async () => {
    const path = tokenFile(TOKEN, 0o640);
    host.beacon.reconfigure({ ...host.beacon.config, adminTokenFile: path });
    expect(warnings()).toEqual([
      `${path}: the admin token can be read by others than its owner: chmod 600`,
    ]);
    await turn("relay", "off");
  });
});
