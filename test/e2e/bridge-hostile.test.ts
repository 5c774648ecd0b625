/**
 * Whatever anybody says to the WebSocket bridge: who does not prove an id gets nothing, all is
 * counted, nothing is left behind, and everybody else is served as before.
 */
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  spyOn,
  test,
} from "bun:test";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import fc from "fast-check";
import { AF_INET } from "../../ffi/abi.ts";
import { ListeningSocket } from "../../ffi/listening-socket.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { Bridge } from "../../src/control/bridge/bridge.ts";
import { Guard } from "../../src/control/kit/guard.ts";
import { CLOCK_S, MAIN_THREAD_LOCK, SharedMemory } from "../../src/shared/memory.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { openFds } from "../support/fds.ts";
import { silentLog } from "../support/log.ts";
import { base64, NodeIdentity } from "../support/pilot-node.ts";
import {
  BINARY,
  CLOSE,
  type Closing,
  CONTINUATION,
  clientFrame,
  exchange,
  firstAnswer,
  PING,
  PONG,
  TEXT,
  WebSocketClient,
} from "../support/websocket.ts";
import { total } from "./support/beacon.ts";
import { BridgeBeacon, BridgedNode, KnownNodes, textOf } from "./support/bridged.ts";
import { Random } from "./support/random.ts";
import { inTime, until, untilEqual } from "./support/wait.ts";
import { decode, discover, punchRequest, relay, sync } from "./support/wire.ts";

const FRAME_BYTES_MAX = 65_536;
/** Nodes that behave, and one that does as a test says. */
const [ALICE, BOB, CAROL, NODE] = [0xfeed_0001, 0xfeed_0002, 0xfeed_0003, 42];
/** A node whose key nobody has. */
const STRANGER = NodeIdentity.create(999);

const REFUSED: Closing = { code: 1008, reason: "auth failed" };
const AUTH_OK = '{"type":"auth_ok"}';

const nodes = new KnownNodes();
const node = nodes.identity(NODE);
const other = nodes.identity(43);
/** Keys that are none. */
const stored = new Map<number, Uint8Array>();
/** Nodes whose keys were asked for. */
const asked: number[] = [];
/** While it is there, no key is told. */
let gate: ReturnType<typeof Promise.withResolvers<void>> | undefined;

async function keyOf(nodeId: number): Promise<Uint8Array | undefined> {
  asked.push(nodeId);
  await gate?.promise;
  return stored.get(nodeId) ?? (await nodes.keyOf(nodeId)) ?? undefined;
}

let host: BridgeBeacon;
/** Nodes of its that spoke by UDP: CAROL, at first. */
let knownByUdp = 1;
/** One that is left to those who take their time. */
let slowHost: BridgeBeacon;

beforeAll(async () => {
  host = await BridgeBeacon.start({ http: "127.0.0.1:0", addr: "127.0.0.1:0" }, { keyOf, nodes });
  slowHost = await BridgeBeacon.start({}, { keyOf, nodes });
  takeTime();
});
afterEach(async () => {
  gate?.resolve();
  gate = undefined;
  stored.clear();
  await host.leave();
  await expectWell();
  asked.length = 0;
});
afterAll(() => host.close());
afterAll(() => slowHost.close());

/** Nodes of both sorts exchange packets, nobody else is there, and no worker was harmed. */
async function expectWell(): Promise<void> {
  const [alice, bob, carol] = [
    await host.bridged(ALICE),
    await host.bridged(BOB),
    await host.udp(CAROL),
  ];
  const payload = randomBytes(1200);
  alice.relay(BOB, payload);
  expect(await bob.message()).toEqual({ type: "deliver", senderId: ALICE, payload });
  bob.relay(CAROL, payload);
  expect(await carol.message()).toEqual({
    type: "deliver",
    senderId: BOB,
    payload: new Uint8Array(payload),
  });
  await carol.relay(CAROL, ALICE, payload);
  expect(await alice.message()).toEqual({ type: "deliver", senderId: CAROL, payload });
  expect([alice, bob].map(({ connection }) => connection.pending)).toEqual([0, 0]);
  expect(carol.pending).toBe(0);
  expect(host.stats).toMatchObject({ peers: 2, connections: 2 });
  await host.leave();
  const { workers, nodes: known } = host.beacon.stats();
  expect(workers.map(({ alive, restarts }) => ({ alive, restarts }))).toEqual(
    workers.map(() => ({ alive: true, restarts: 0 })),
  );
  expect(known).toBe(knownByUdp); // who was behind the bridge is not known any more
  expect(host.stats.bufferedBytes).toBe(0);
}

/** Handshakes that ended, by outcome, as an operator sees them. */
async function authTotals(): Promise<Map<string, number>> {
  const text = await (await fetch(new URL("metrics", host.beacon.httpUrl))).text();
  const samples = text.matchAll(/^beacon_wss_auth_total\{outcome="(\w+)"\} (\d+)$/gm);
  return new Map([...samples].map(([, outcome, count]) => [outcome!, Number(count)]));
}

/**
 * @returns what `attempt` does; meanwhile so many handshakes end in this way, and no other one does
 */
async function counted<T>(outcomes: Record<string, number>, attempt: () => Promise<T>): Promise<T> {
  const before = await authTotals();
  const result = await attempt();
  const grown = async () =>
    Object.fromEntries(
      [...(await authTotals())].flatMap(([name, count]) =>
        count === before.get(name) ? [] : [[name, count - before.get(name)!]],
      ),
    );
  await untilEqual("handshakes that ended", grown, outcomes);
  return result;
}

/** Connects up to the challenge. */
async function challenged(): Promise<{ connection: WebSocketClient; challenge: string }> {
  const connection = await WebSocketClient.open(host.url);
  return { connection, challenge: await textOf(connection) };
}

/**
 * Connects, says what a test makes of the challenge, and waits for the end.
 * @throws Error if it is told anything
 */
async function answered(replyTo: (challenge: string) => string | Uint8Array): Promise<Closing> {
  const { connection, challenge } = await challenged();
  const reply = replyTo(challenge);
  if (typeof reply === "string") connection.text(reply);
  else connection.sendBytes(reply);
  const closing = await inTime("the connection ends", connection.closed);
  expect(connection.pending).toBe(0);
  return closing;
}

type ReplyTo = (challenge: string) => string;
/** A correct reply, but for these fields. */
const edited =
  (fields: Record<string, unknown>): ReplyTo =>
  (challenge) =>
    node.reply(challenge, fields);
/** A correct reply with its text changed. */
const rewritten =
  (change: (reply: string) => string): ReplyTo =>
  (challenge) =>
    change(node.reply(challenge));
/** A correct reply but for the text of the signature. */
const signature =
  (change: (base64: string) => unknown): ReplyTo =>
  (challenge) =>
    edited({ sig: change(JSON.parse(node.reply(challenge)).sig) })(challenge);
/** A correct reply but for the signed text. */
const signing =
  (change: (text: string) => string): ReplyTo =>
  (challenge) =>
    edited({ sig: base64(node.sign(change(node.proofText(challenge)))) })(challenge);

describe("a reply that proves nothing", () => {
  test.each<[string, string, ReplyTo]>([
    ["a node that nobody knows", "unknown_node", (challenge) => STRANGER.reply(challenge)],
    [
      "a key that the node brings along",
      "signature",
      (challenge) => NodeIdentity.create(NODE).reply(challenge),
    ],
    ["another node's key", "signature", (challenge) => other.as(NODE).reply(challenge)],
    [
      "another node's key, and that node's proof",
      "signature",
      (challenge) => other.reply(challenge, { node_id: NODE }),
    ],
    [
      "its own key, signed for another node",
      "signature",
      (challenge) => node.as(other.nodeId).reply(challenge),
    ],
    ["the text of another time", "signature", signing((text) => text.replace(/:\d+:/, ":1:"))],
    [
      "the text of another nonce",
      "signature",
      signing((text) => text.replace(/.$/, (digit) => (digit === "0" ? "1" : "0"))),
    ],
    ["the nonce in capitals", "signature", signing((text) => text.toUpperCase())],
    ["the nonce alone", "signature", signing((text) => text.slice(-64))],
    ["the text with a line break", "signature", signing((text) => `${text}\n`)],
    ["no text", "signature", signing(() => "")],
    ["64 zero bytes", "signature", edited({ sig: base64(new Uint8Array(64)) })],
    ["64 random bytes", "signature", edited({ sig: base64(randomBytes(64)) })],
    [
      "the nonce as the signature",
      "signature",
      (text) => edited({ sig: base64(Buffer.from(JSON.parse(text).nonce)) })(text),
    ],
  ])("%s", async (_, outcome, replyTo) => {
    expect(await counted({ [outcome]: 1 }, () => answered(replyTo))).toEqual(REFUSED);
  });

  test("one that was good on another connection, before and after it was used there", async () => {
    const [first, second, third] = [await challenged(), await challenged(), await challenged()];
    const reply = node.reply(first.challenge);
    await counted({ ok: 1, signature: 2 }, async () => {
      second.connection.text(reply);
      expect(await second.connection.closed).toEqual(REFUSED);
      first.connection.text(reply);
      expect(await textOf(first.connection)).toBe(AUTH_OK);
      third.connection.text(reply);
      expect(await third.connection.closed).toEqual(REFUSED);
    });
    expect(host.stats.peers).toBe(1);
    first.connection.destroy();
  });

  test.each([
    ["no byte", 0],
    ["31 bytes", 31],
    ["33 bytes", 33],
    ["64 bytes", 64],
    ["a megabyte", 1 << 20],
  ])("a stored key of %s", async (_, bytes) => {
    stored.set(NODE, Buffer.concat([node.publicKey, randomBytes(bytes)]).subarray(0, bytes));
    expect(await counted({ stored_key: 1 }, () => answered(edited({})))).toEqual(REFUSED);
  });

  test.each([
    ["of small order", Buffer.alloc(32)],
    ["the neutral element", Buffer.from([1, ...Buffer.alloc(31)])],
  ])("a stored key that anybody can sign for: %s", async (_, key) => {
    stored.set(NODE, key);
    // The signature of whatever text: R is the key, S is 0.
    const sig = base64(Buffer.concat([key, Buffer.alloc(32)]));
    expect(await counted({ stored_key: 1 }, () => answered(edited({ sig })))).toEqual(REFUSED);
  });
});

describe("a node id that is none", () => {
  const id = (json: string): ReplyTo =>
    rewritten((reply) => reply.replace(`"node_id":${NODE}`, `"node_id":${json}`));

  test.each([
    ...["0", "-0", "-1", "-42", "1.5", "42.0000001", "1e400", "-1e400", "1e-7"],
    ...["4294967296", "4294967338", "18446744073709551658", "9007199254740993", "-4294967254"],
    ...['"42"', "null", "true", "[42]", '{"id":42}', '""', '"4294967296"'],
  ])("%s", async (json) => {
    expect(await counted({ node_id: 1 }, () => answered(id(json)))).toEqual(REFUSED);
    expect(asked).toEqual([]);
  });

  test("none at all, and one under another name", async () => {
    for (const name of ["nodeId", "Node_Id", "node_id "]) {
      const renamed = rewritten((reply) => reply.replace("node_id", name));
      expect(await counted({ node_id: 1 }, () => answered(renamed))).toEqual(REFUSED);
    }
    expect(await counted({ node_id: 1 }, () => answered(edited({ node_id: undefined })))).toEqual(
      REFUSED,
    );
  });

  test.each(["42.", "042", "+42", "0x2a", "4_2", "NaN", "Infinity", "-", "42e"])(
    "%s, which is not even JSON",
    async (json) => {
      expect(await counted({ malformed: 1 }, () => answered(id(json)))).toEqual(REFUSED);
    },
  );
});

describe("a reply that is none", () => {
  test.each<[string, ReplyTo]>([
    ["nothing", () => ""],
    ["white space", () => " \n\t "],
    ["a word", () => "hello"],
    ["a brace", () => "{"],
    ["null", () => "null"],
    ["a number", () => "42"],
    ["a text", () => '"auth_reply"'],
    ["an array", rewritten((reply) => `[${reply}]`)],
    ["an empty object", () => "{}"],
    ["one cut short", rewritten((reply) => reply.slice(0, -1))],
    ["one and a brace", rewritten((reply) => `${reply}}`)],
    ["two", rewritten((reply) => reply + reply)],
    ["one and a comma", rewritten((reply) => reply.replace(/}$/, ",}"))],
    ["single quotes", rewritten((reply) => reply.replaceAll('"', "'"))],
    ["names without quotes", rewritten((reply) => reply.replace(/"(\w+)":/g, "$1:"))],
    ["a comment", rewritten((reply) => `/* */${reply}`)],
    ["a byte order mark", rewritten((reply) => `\ufeff${reply}`)],
    ["a zero byte behind it", rewritten((reply) => `${reply}\0`)],
    ["a line break in a text", rewritten((reply) => reply.replace("auth_reply", "auth_reply\n"))],
    ["arrays in arrays", () => "[".repeat(4096)],
    ["objects in objects", () => '{"a":'.repeat(800)],
    ["no type", edited({ type: undefined })],
    ["another type", edited({ type: "auth_challenge" })],
    ["the type in capitals", edited({ type: "AUTH_REPLY" })],
    ["a type that is an array", edited({ type: ["auth_reply"] })],
    ["the server's own last word", () => AUTH_OK],
    ["the challenge", (challenge) => challenge],
    ["all of it behind __proto__", rewritten((reply) => `{"__proto__":${reply}}`)],
    ["no signature", edited({ sig: undefined })],
    ["a signature that is null", edited({ sig: null })],
    ["a signature that is a number", edited({ sig: 5 })],
    ["a signature that is an object", edited({ sig: {} })],
    ["a signature that is an array of bytes", signature((sig) => [...Buffer.from(sig, "base64")])],
    ["an empty signature", signature(() => "")],
    ["63 bytes", signature((sig) => base64(Buffer.from(sig, "base64").subarray(0, 63)))],
    [
      "65 bytes",
      signature((sig) => base64(Buffer.concat([Buffer.from(sig, "base64"), Buffer.of(0)]))),
    ],
    ["base64 without padding", signature((sig) => sig.replace(/=+$/, ""))],
    ["base64 with padding too short", signature((sig) => sig.replace(/=$/, ""))],
    ["base64 with padding too long", signature((sig) => `${sig}=`)],
    ["base64 with padding alone", signature(() => "=".repeat(88))],
    ["base64url", signature((sig) => `-_${sig.slice(2)}`)],
    ["base64 in two lines", signature((sig) => `${sig.slice(0, 64)}\n${sig.slice(64)}`)],
    ["base64 between spaces", signature((sig) => ` ${sig} `)],
    ["base64 with bits that count for nothing", signature((sig) => sig.replace(/.==$/, "B=="))],
    ["base64 in wide letters", signature((sig) => `\uff21${sig.slice(1)}`)],
    ["hexadecimal", signature((sig) => Buffer.from(sig, "base64").toString("hex"))],
    ["4,097 bytes", rewritten((reply) => reply.padEnd(4097))],
    [
      "4,097 bytes in fewer characters",
      rewritten((reply) => reply.replace(/}$/, `,"x":"${"ä".repeat(1950)}"}`)),
    ],
    ["64 KiB", rewritten((reply) => reply.padEnd(FRAME_BYTES_MAX))],
  ])("%s", async (_, replyTo) => {
    expect(await counted({ malformed: 1 }, () => answered(replyTo))).toEqual(REFUSED);
    expect(asked).toEqual([]);
  });

  test.each<[string, Record<string, number>, number, (reply: string) => Uint8Array]>([
    ["a binary frame", { malformed: 1 }, 1008, (reply) => clientFrame(BINARY, Buffer.from(reply))],
    ["an empty binary frame", { malformed: 1 }, 1008, () => clientFrame(BINARY, new Uint8Array())],
    [
      "over 64 KiB",
      { left: 1 },
      1009,
      (reply) => clientFrame(TEXT, Buffer.from(reply.padEnd(65_537))),
    ],
    ["over 64 KiB, binary", { left: 1 }, 1009, () => clientFrame(BINARY, new Uint8Array(65_537))],
    [
      "no UTF-8",
      { left: 1 },
      1007,
      (reply) => clientFrame(TEXT, Buffer.from(`${reply}\xff`, "latin1")),
    ],
    ["a close frame", { left: 1 }, 1000, () => clientFrame(CLOSE, Buffer.of(3, 232))],
  ])("%s", async (_, outcomes, code, framed) => {
    const attempt = () => answered((challenge) => framed(node.reply(challenge)));
    expect((await counted(outcomes, attempt)).code).toBe(code);
  });

  test("4,096 bytes are not too many", async () => {
    const { connection, challenge } = await challenged();
    await counted({ ok: 1 }, async () => {
      connection.text(node.reply(challenge).padEnd(4096));
      expect(await textOf(connection)).toBe(AUTH_OK);
    });
    connection.destroy();
  });
});

describe("more than one reply", () => {
  test("a second one while the first is being looked at ends it, whatever comes of the first", async () => {
    for (const second of ["good", "bad"]) {
      gate = Promise.withResolvers();
      const { connection, challenge } = await challenged();
      await counted({ used: 1 }, async () => {
        connection.text(node.reply(challenge));
        await until("the key is asked for", () => asked.length > 0);
        connection.text(second === "good" ? node.reply(challenge) : "{}");
        expect(await connection.closed).toEqual(REFUSED);
        gate!.resolve();
        await untilEqual("connections", () => host.stats.connections, 0);
      });
      expect(connection.pending).toBe(0);
      expect(host.stats.peers).toBe(0);
      asked.length = 0;
    }
  });

  test("two in one piece", async () => {
    const attempt = () =>
      answered((challenge) => {
        const frame = clientFrame(TEXT, Buffer.from(node.reply(challenge)));
        return Buffer.concat([frame, frame]);
      });
    expect(await counted({ used: 1 }, attempt)).toEqual(REFUSED);
  });

  test("one of a node that has proven itself, good or bad: the node is gone", async () => {
    for (const second of [
      node.reply('{"nonce":"00","ts":1}'),
      other.reply('{"nonce":"00","ts":1}'),
      '{"type":"auth_reply"}',
    ]) {
      const bridged = await host.bridged(NODE);
      await counted({ used: 1 }, async () => {
        bridged.connection.text(second);
        expect(await bridged.connection.closed).toEqual(REFUSED);
      });
      expect(host.stats.peers).toBe(0);
    }
  });
});

describe("frames of who has proven nothing", () => {
  test("are not looked at, wherever they stand", async () => {
    const carol = await host.udp(CAROL);
    const { frames, packets } = host.stats;
    const harm = clientFrame(BINARY, relay(NODE, CAROL, Buffer.from("harm")));
    const wrong = clientFrame(TEXT, Buffer.from("{}"));
    gate = Promise.withResolvers();
    for (const [outcome, bytes] of [
      ["malformed", () => harm],
      ["malformed", () => Buffer.concat([wrong, harm, harm])],
      ["malformed", () => Buffer.concat([harm, wrong])],
      [
        "used",
        (challenge: string) =>
          Buffer.concat([clientFrame(TEXT, Buffer.from(node.reply(challenge))), harm]),
      ],
    ] as const)
      expect(await counted({ [outcome]: 1 }, () => answered(bytes))).toEqual(REFUSED);
    gate.resolve();
    expect(host.stats.frames).toEqual(frames);
    expect(host.stats.packets).toEqual(packets);
    // What else comes for CAROL comes first.
    const alice = await host.bridged(ALICE);
    alice.relay(CAROL, Buffer.from("good"));
    expect(await carol.message()).toMatchObject({ senderId: ALICE });
    expect(carol.pending).toBe(0);
  });

  test("in one piece with the request for the upgrade", async () => {
    const request = upgrade();
    for (const [outcomes, frame, code] of [
      [{ malformed: 1 }, clientFrame(BINARY, relay(NODE, CAROL, Buffer.of(1))), 1008],
      [{ malformed: 1 }, clientFrame(TEXT, Buffer.from("{}")), 1008],
      [{ left: 1 }, clientFrame(BINARY, new Uint8Array(65_537)), 1009],
    ] as const) {
      const answer = await counted(outcomes, () =>
        exchange(host.url, Buffer.concat([Buffer.from(request), frame])),
      );
      expect(answer).toStartWith("HTTP/1.1 101 ");
      // The close frame is the last thing, or nearly; its code is in it.
      const code16 = Buffer.alloc(2);
      code16.writeUInt16BE(code);
      expect(answer).toContain(code16.toString("latin1"));
    }
  });

  test("pings are answered; nothing else happens", async () => {
    const { connection, challenge } = await challenged();
    connection.send(PING, Buffer.from("hello"));
    connection.send(PONG, Buffer.from("hello"));
    await until("a pong", () => connection.pongs.length === 1);
    connection.text(node.reply(challenge));
    expect(await textOf(connection)).toBe(AUTH_OK);
    connection.destroy();
  });
});

describe("a key source", () => {
  test("that fails costs its nodes the connection, for now", async () => {
    const rejected = Promise.reject(new Error("no\ndatabase"));
    rejected.catch(() => {});
    gate = { ...Promise.withResolvers<void>(), promise: rejected };
    const closing = await counted({ key_source: 1 }, () =>
      answered((challenge) => node.reply(challenge)),
    );
    expect(closing).toEqual({ code: 1013, reason: "try again later" });
  });

  test("is asked once a reply, and not by who says nothing", async () => {
    const silent = await Promise.all(Array.from({ length: 20 }, challenged));
    const bridged = await host.bridged(NODE);
    expect(asked).toEqual([NODE]);
    for (const { connection } of [...silent, bridged]) connection.destroy();
  });
});

describe("who a node is", () => {
  test("twenty connections of one node at once: one stays, and it is reached there", async () => {
    const connections = await counted({ ok: 20 }, async () => {
      const all = await Promise.all(Array.from({ length: 20 }, challenged));
      for (const { connection, challenge } of all) connection.text(node.reply(challenge));
      for (const { connection } of all) expect(await textOf(connection)).toBe(AUTH_OK);
      return all.map(({ connection }) => connection);
    });
    await untilEqual("connections", () => host.stats.connections, 1);
    const carol = await host.udp(CAROL);
    await carol.relay(CAROL, NODE, Buffer.of(1));
    const reached = await Promise.race(
      connections.map(async (connection) => {
        await connection.next().catch(() => new Promise(() => {})); // those that were replaced
        return connection;
      }),
    );
    const closings = connections.flatMap((connection) =>
      connection === reached ? [] : [connection.closed],
    );
    for (const closing of await inTime("the others end", Promise.all(closings)))
      expect(closing).toEqual({ code: 1000, reason: "replaced" });
    reached.destroy();
  });

  test("one that failed to prove its id does not disturb the one that did", async () => {
    const bridged = await host.bridged(NODE);
    const forged = (challenge: string) => NodeIdentity.create(NODE).reply(challenge);
    for (let i = 0; i < 20; i++) expect(await answered(forged)).toEqual(REFUSED);
    const carol = await host.udp(CAROL);
    await carol.relay(CAROL, NODE, Buffer.of(1));
    expect(await bridged.message()).toMatchObject({ senderId: CAROL });
  });

  test("a stranger who claims its id by UDP gets nothing of what it is sent", async () => {
    const CLAIMED = 44;
    const bridged = await host.bridged(CLAIMED);
    const stranger = await host.udp(CLAIMED);
    knownByUdp++;
    const carol = await host.udp(CAROL);
    await carol.relay(CAROL, CLAIMED, Buffer.of(1));
    expect(await bridged.message()).toMatchObject({ senderId: CAROL });
    expect(stranger.pending).toBe(0);
  });

  test("a bridged node that claims the ids of others takes nothing from them", async () => {
    const [bridged, carol] = [await host.bridged(NODE), await host.udp(CAROL)];
    bridged.sendEach([
      discover(CAROL),
      punchRequest(CAROL, ALICE),
      punchRequest(ALICE, CAROL),
      sync(7, [CAROL]),
      relay(CAROL, ALICE, Buffer.of(1)),
    ]);
    const { type } = await bridged.message();
    expect(type).toBe("discoverReply");
    const alice = await host.bridged(ALICE);
    alice.relay(CAROL, Buffer.of(1));
    expect(await carol.message()).toMatchObject({ senderId: ALICE });
    expect([carol.pending, alice.connection.pending, bridged.connection.pending]).toEqual([
      0, 0, 0,
    ]);
  });
});

/** The head of a request for an upgrade, line by line; undefined leaves a line out. */
function upgrade(
  lines: Record<string, string | undefined> = {},
  { start = "GET /v1/compat HTTP/1.1", more = "" } = {},
): string {
  const all = {
    Host: "127.0.0.1",
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Key": randomBytes(16).toString("base64"),
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "pilot.v1",
    ...lines,
  };
  const head = Object.entries(all).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}: ${value}`],
  );
  return `${[start, ...head].join("\r\n")}\r\n${more}\r\n`;
}

describe("requests", () => {
  const HEALTH = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
  const HEALTH_AND_CLOSE = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

  /** The bytes of a head that the server reads before it refuses it. */
  const READ_BYTES_MAX = 16 << 10;
  /** The statuses of all answers. */
  const statuses = (text: string) =>
    [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));

  test.each<[name: string, request: string, status: number, outcome: string | null]>([
    ["to another path", upgrade({}, { start: "GET / HTTP/1.1" }), 404, null],
    ["to a path below", upgrade({}, { start: "GET /v1/compat/ HTTP/1.1" }), 404, null],
    [
      "to a path that means the same",
      upgrade({}, { start: "GET //v1/compat HTTP/1.1" }),
      404,
      null,
    ],
    ["to a path with dots", upgrade({}, { start: "GET /x/../v1/compat HTTP/1.1" }), 404, null],
    ["to a path in capitals", upgrade({}, { start: "GET /V1/COMPAT HTTP/1.1" }), 404, null],
    ["with POST", upgrade({}, { start: "POST /v1/compat HTTP/1.1" }), 405, null],
    ["with PUT", upgrade({}, { start: "PUT /v1/compat HTTP/1.1" }), 405, null],
    ["with OPTIONS", upgrade({}, { start: "OPTIONS /v1/compat HTTP/1.1" }), 405, null],
    ["with DELETE", upgrade({}, { start: "DELETE /v1/compat HTTP/1.1" }), 405, null],
    ["with TRACE", upgrade({}, { start: "TRACE /v1/compat HTTP/1.1" }), 405, null],
    ["for no upgrade", upgrade({ Upgrade: undefined }), 426, "not_websocket"],
    ["for another upgrade", upgrade({ Upgrade: "h2c" }), 426, "not_websocket"],
    ["for no version", upgrade({ "Sec-WebSocket-Version": undefined }), 426, "not_websocket"],
    ["for an older version", upgrade({ "Sec-WebSocket-Version": "8" }), 426, "not_websocket"],
    ["for a later version", upgrade({ "Sec-WebSocket-Version": "14" }), 426, "not_websocket"],
    ["without a key", upgrade({ "Sec-WebSocket-Key": undefined }), 426, "not_websocket"],
    ["with an empty key", upgrade({ "Sec-WebSocket-Key": "" }), 426, "not_websocket"],
    ["with a short key", upgrade({ "Sec-WebSocket-Key": "AAAA" }), 426, "not_websocket"],
    ["with a long key", upgrade({ "Sec-WebSocket-Key": "A".repeat(400) }), 426, "not_websocket"],
    [
      "without a subprotocol",
      upgrade({ "Sec-WebSocket-Protocol": undefined }),
      400,
      "no_subprotocol",
    ],
    ["with an empty subprotocol", upgrade({ "Sec-WebSocket-Protocol": "" }), 400, "no_subprotocol"],
    [
      "with another subprotocol",
      upgrade({ "Sec-WebSocket-Protocol": "chat" }),
      400,
      "no_subprotocol",
    ],
    [
      "with nearly the subprotocol",
      upgrade({ "Sec-WebSocket-Protocol": "pilot.v10, Pilot.v1" }),
      400,
      "no_subprotocol",
    ],
  ])("%s", async (_, request, status, outcome) => {
    const before = host.stats.upgrades;
    expect((await firstAnswer(host.url, request)).status).toBe(status);
    const expected = outcome === null ? before : { ...before, [outcome]: before[outcome]! + 1 };
    expect(host.stats.upgrades).toEqual(expected);
  });

  test("HEAD is answered without a body, and upgrades nobody", async () => {
    for (const head of [
      upgrade({}, { start: "HEAD /v1/compat HTTP/1.1" }),
      HEALTH.replace("GET", "HEAD"),
    ]) {
      const answer = await exchange(host.url, head);
      expect(answer).not.toStartWith("HTTP/1.1 101 ");
      expect(answer.split("\r\n\r\n")).toEqual([expect.stringMatching(/^HTTP\/1\.1 \d{3} /), ""]);
    }
  });

  test.each<[string, string]>([
    ["several subprotocols", upgrade({ "Sec-WebSocket-Protocol": "chat,  pilot.v1 ,pilot.v2" })],
    [
      "several subprotocols in several lines",
      upgrade({}, { more: "Sec-WebSocket-Protocol: chat\r\n" }),
    ],
    ["a query", upgrade({}, { start: "GET /v1/compat?node=42 HTTP/1.1" })],
    ["WebSocket in capitals", upgrade({ Upgrade: "WEBSOCKET" })],
    [
      "extensions",
      upgrade({ "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits, x-mux" }),
    ],
    ["many proxies", upgrade({ "X-Forwarded-For": "10.0.0.1, ".repeat(700) })],
    [
      "garbage for proxies",
      upgrade({ "X-Forwarded-For": "\xff\xfe, [::1, 1.2.3.4.5, ::g, 0x7f.1" }),
    ],
    ["an origin", upgrade({ Origin: "http://evil.example" })],
  ])(
    "are let through with %s, and given the one subprotocol and no extension",
    async (_, request) => {
      const { status, head } = await firstAnswer(host.url, Buffer.from(request, "latin1"));
      expect(status).toBe(101);
      expect(head.match(/^sec-websocket-protocol: .*$/gim)).toEqual([
        "Sec-WebSocket-Protocol: pilot.v1",
      ]);
      expect(head).not.toMatch(/^sec-websocket-extensions:/im);
    },
  );

  // Any mistake gets one answer, and an unknown method just the end. The bytes behind it are not
  // taken for a request. An answer to more than the server reads can be lost (RST).
  test.each<[name: string, status: number | null, bytes: string | Uint8Array]>([
    ["a header of 20 KB", 431, upgrade({ "X-Large": "a".repeat(20_000) })],
    ["500 headers", 431, upgrade({}, { more: "X-Many: 1\r\n".repeat(500) })],
    [
      "a header of a megabyte that does not end",
      431,
      `${HEALTH.slice(0, -2)}X: ${"a".repeat(1 << 20)}`,
    ],
    ["headers that do not end", 431, `${HEALTH.slice(0, -2)}${"X: a\r\n".repeat(200_000)}`],
    ["a path of 30 KB", 431, upgrade({}, { start: `GET /${"a".repeat(30_000)} HTTP/1.1` })],
    ["no Host", 400, upgrade({ Host: undefined })],
    ["a Host of control characters", 400, upgrade({ Host: "\x01\x02 \x1b[2J" })],
    ["HTTP/0.9", 505, "GET /health\r\n\r\n"],
    ["HTTP/2.0", 505, upgrade({}, { start: "GET /v1/compat HTTP/2.0" })],
    ["the preface of HTTP/2", 400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ["a method that is none", null, upgrade({}, { start: "FOO /v1/compat HTTP/1.1" })],
    ["a method in small letters", null, upgrade({}, { start: "get /v1/compat HTTP/1.1" })],
    ["a space before a colon", 400, HEALTH.replace("Host:", "Host :")],
    ["a folded header", 400, HEALTH.replace("x\r\n", "x\r\n y\r\n")],
    ["bare line feeds", 505, HEALTH.replaceAll("\r", "")],
    ["a zero byte", 505, HEALTH.replace("health", "hea\0lth")],
    [
      "two lengths",
      400,
      `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde${HEALTH}`,
    ],
    [
      "a length and chunks",
      400,
      `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${HEALTH}`,
    ],
    [
      "chunks under another name",
      400,
      `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${HEALTH}`,
    ],
    [
      "an encoding and no chunks",
      400,
      `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n${HEALTH}`,
    ],
    ["a negative length", 400, `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n${HEALTH}`],
    [
      "a length beyond all numbers",
      400,
      `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${"9".repeat(30)}\r\n\r\n${HEALTH}`,
    ],
    [
      "a body that is a request",
      413,
      `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${HEALTH.length}\r\n\r\n${HEALTH}`,
    ],
    [
      "a body of a megabyte",
      413,
      `PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: ${1 << 20}\r\n\r\n${"a".repeat(1 << 20)}`,
    ],
    ["a hello of TLS", 400, Buffer.from("16030100c8010000c40303", "hex")],
    ["300 random bytes", 400, Uint8Array.from(new Random(5).bytes(300))],
  ])("are refused once, and the connection ends: %s", async (_, status, bytes) => {
    const answer = await exchange(
      host.url,
      typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes,
    );
    const isLost = answer === "" && bytes.length > READ_BYTES_MAX;
    expect(statuses(answer)).toEqual(status === null || isLost ? [] : [status]);
    expect(host.stats.connections).toBe(0);
  });

  test("a body that is a request is none, with a GET either", async () => {
    const smuggled =
      HEALTH_AND_CLOSE.replace("Connection", `Content-Length: ${HEALTH.length}\r\nConnection`) +
      HEALTH;
    expect(statuses(await exchange(host.url, smuggled))).toEqual([200]);
  });

  test("chunks that are broken end the connection; what was answered is answered", async () => {
    for (const chunk of ["ZZ\r\n", "ffffffffffffffffff\r\n", "5\r\nabcdefgh\r\n", "-1\r\n\r\n"]) {
      const answer = await exchange(
        host.url,
        `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}${HEALTH}`,
      );
      expect(statuses(answer)).toEqual([404, 400]);
    }
  });

  test("one is answered on a connection; of what comes behind it, nothing is but that it is garbage", async () => {
    expect(statuses(await exchange(host.url, HEALTH.repeat(100)))).toEqual([200]);
    expect(statuses(await exchange(host.url, `${HEALTH}\x00\x01garbage\r\n\r\n${HEALTH}`))).toEqual(
      [200, 400],
    );
    expect(statuses(await exchange(host.url, upgrade({ Upgrade: undefined }) + upgrade()))).toEqual(
      [426],
    );
    expect(host.stats.connections).toBe(0);
  });

  test("are told nothing of what answers them, and nothing that is to be kept", async () => {
    for (const request of [
      HEALTH,
      upgrade({ Upgrade: undefined }),
      upgrade({}, { start: "POST / HTTP/1.1" }),
    ]) {
      const { head } = await firstAnswer(host.url, request);
      expect(head).not.toMatch(/^(server|x-powered-by):/im);
      expect(head).not.toContain("Bun");
      expect(head).toMatch(/^cache-control: no-store\r?$/im);
      expect(head).toMatch(/^x-content-type-options: nosniff\r?$/im);
    }
  });

  test("odd ones are answered within bounds, whatever the answer", async () => {
    for (const request of [
      upgrade({}, { start: "GET /v1/compat HTTP/1.0" }),
      upgrade({}, { start: "GET http://evil.example/v1/compat HTTP/1.1" }),
      upgrade({}, { more: "Host: evil.example\r\n" }),
      upgrade({ Host: "h".repeat(3000) }),
      upgrade({ Host: "[::1" }),
      upgrade({ Host: "" }),
      upgrade({ Connection: "close" }),
      `${upgrade({ "Content-Length": "5" })}hello`,
      `${upgrade({ "Transfer-Encoding": "chunked" })}0\r\n\r\n`,
      upgrade({ Expect: "100-continue", "Content-Length": "5" }),
    ]) {
      const { head } = await firstAnswer(host.url, request);
      expect(head.length).toBeLessThan(500);
      await untilEqual("connections", () => host.stats.connections, 0);
    }
  });
});

describe("breaches of the WebSocket protocol", () => {
  const bytes = (length: number) => new Uint8Array(length).fill(1);
  /** A frame whose first byte is another. */
  const startingWith = (first: number, payload: Uint8Array) => {
    const frame = clientFrame(BINARY, payload);
    frame[0] = first;
    return frame;
  };
  const unmasked = (opcode: number, payload: Uint8Array) =>
    Buffer.from([0x80 | opcode, payload.length, ...payload]);
  const closing = (code: number, reason: Uint8Array = new Uint8Array()) =>
    clientFrame(CLOSE, Buffer.of(code >> 8, code & 0xff, ...reason));
  /** The head of a frame that says to be this long. */
  const announcing = (length: bigint) => {
    const head = Buffer.alloc(14);
    head[0] = 0x80 | BINARY;
    head[1] = 0x80 | 127;
    head.writeBigUInt64BE(length, 2);
    return head;
  };
  const fragments = (count: number, length: number) =>
    Array.from({ length: count }, (_, i) =>
      clientFrame(i === 0 ? BINARY : CONTINUATION, bytes(length), i === count - 1),
    );

  const cases: [string, number, Uint8Array[]][] = [
    ["an unmasked frame", 1002, [unmasked(BINARY, relay(NODE, CAROL, bytes(5)))]],
    ["an unmasked text", 1002, [unmasked(TEXT, Buffer.from("hello"))]],
    ["an unmasked ping", 1002, [unmasked(PING, bytes(3))]],
    ["an unmasked close", 1002, [unmasked(CLOSE, Buffer.of(3, 232))]],
    [
      "reserved bit 1, which would mean compression",
      1002,
      [startingWith(0xc0 | BINARY, bytes(10))],
    ],
    ["reserved bit 2", 1002, [startingWith(0xa0 | BINARY, bytes(10))]],
    ["reserved bit 3", 1002, [startingWith(0x90 | BINARY, bytes(10))]],
    ["a compressed ping", 1002, [startingWith(0xc0 | PING, bytes(3))]],
    ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode): [string, number, Uint8Array[]] => [
      `type ${opcode}`,
      1002,
      [startingWith(0x80 | opcode, bytes(3))],
    ]),
    ["a ping in fragments", 1002, [clientFrame(PING, bytes(3), false)]],
    ["a close in fragments", 1002, [clientFrame(CLOSE, Buffer.of(3, 232), false)]],
    ["a ping of 126 bytes", 1002, [clientFrame(PING, bytes(126))]],
    ["a pong of 126 bytes", 1002, [clientFrame(PONG, bytes(126))]],
    ["a close of 126 bytes", 1002, [closing(1000, bytes(124))]],
    ["a close of 1 byte", 1002, [clientFrame(CLOSE, bytes(1))]],
    ...[0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535].map(
      (code): [string, number, Uint8Array[]] => [`close code ${code}`, 1002, [closing(code)]],
    ),
    ["a reason that is no UTF-8", 1007, [closing(1000, Buffer.of(0xff))]],
    ["text that is no UTF-8", 1007, [clientFrame(TEXT, Buffer.of(0xff, 0xfe))]],
    ["half of a surrogate pair", 1007, [clientFrame(TEXT, Buffer.of(0xed, 0xa0, 0x80))]],
    [
      "a character that breaks off at a fragment's end",
      1007,
      [clientFrame(TEXT, Buffer.of(0xe2, 0x82), false), clientFrame(CONTINUATION, Buffer.of(0x41))],
    ],
    ["a fragment of nothing", 1002, [clientFrame(CONTINUATION, bytes(5))]],
    [
      "a message within a message",
      1002,
      [clientFrame(BINARY, bytes(5), false), clientFrame(BINARY, bytes(5))],
    ],
    [
      "a text within a message",
      1002,
      [clientFrame(BINARY, bytes(5), false), clientFrame(TEXT, bytes(5))],
    ],
    ["65,537 bytes", 1009, [clientFrame(BINARY, bytes(65_537))]],
    ["a text of 65,537 bytes", 1009, [clientFrame(TEXT, bytes(65_537))]],
    ["fragments that grow over 64 KiB", 1009, fragments(9, 8000)],
    ["fragments of one byte too many", 1009, [...fragments(9, 8192)]],
    ...[
      65_537n,
      2n ** 31n,
      2n ** 32n,
      2n ** 32n + 5n,
      2n ** 63n - 1n,
      2n ** 63n,
      2n ** 64n - 1n,
    ].map((length): [string, number, Uint8Array[]] => [
      `${length} bytes announced`,
      1009,
      [announcing(length)],
    ]),
  ];

  test.each(cases)("%s: close code %d", async (_, code, frames) => {
    const bridged = await host.bridged(NODE);
    const before = host.stats;
    bridged.connection.sendBytes(Buffer.concat(frames));
    expect((await inTime("the connection ends", bridged.connection.closed)).code).toBe(code);
    await untilEqual("nodes", () => host.stats.peers, 0);
    expect(host.stats.frames).toEqual(before.frames);
    expect(host.stats.auth).toEqual(before.auth);
  });

  test.each([
    [1000, closing(1000)],
    [1001, closing(1001)],
    [1011, closing(1011, Buffer.from("\u{1f480}"))],
    [3000, closing(3000)],
    [4999, closing(4999)],
  ])("none: close code %d is answered with itself", async (code, frame) => {
    const bridged = await host.bridged(NODE);
    bridged.connection.sendBytes(Buffer.concat([frame, clientFrame(BINARY, discover(NODE))]));
    expect((await bridged.connection.closed).code).toBe(code);
    expect(bridged.connection.pending).toBe(0);
  });

  test("none: a close without a code", async () => {
    const bridged = await host.bridged(NODE);
    bridged.connection.send(CLOSE, new Uint8Array());
    expect((await bridged.connection.closed).code).toBe(1005);
  });

  test("none: lengths written longer than they need be, a thousand empty fragments, 64 KiB in fragments", async () => {
    const bridged = await host.bridged(NODE);
    const packet = discover(NODE);
    const before = host.stats.frames.in;
    // masked with zeros
    bridged.connection.sendBytes(Buffer.concat([announcing(BigInt(packet.length)), packet]));
    expect((await bridged.message()).type).toBe("discoverReply");
    bridged.connection.sendBytes(Buffer.concat(fragments(1000, 0)));
    bridged.connection.sendBytes(Buffer.concat(fragments(8, 8192)));
    await untilEqual("frames", () => host.stats.frames.in - before, 3);
    bridged.send(packet);
    expect((await bridged.message()).type).toBe("discoverReply");
  });
});

describe("sizes of frames", () => {
  test("of 0 bytes: counted as empty", async () => {
    const bridged = await host.bridged(NODE);
    const before = host.stats;
    bridged.sendEach([new Uint8Array(), discover(NODE)]);
    expect((await bridged.message()).type).toBe("discoverReply");
    const { frames, packets } = host.stats;
    expect(frames.in - before.frames.in).toBe(2);
    expect(packets.malformed["empty"]! - before.packets.malformed["empty"]!).toBe(1);
  });

  test("of 65,536 bytes: delivered whole to another node; of a byte more: the end", async () => {
    const [bridged, alice] = [await host.bridged(NODE), await host.bridged(ALICE)];
    const payload = Buffer.from(new Random(3).bytes(FRAME_BYTES_MAX - 9));
    bridged.relay(ALICE, payload);
    const message = await alice.message();
    expect(message.type === "deliver" && Buffer.compare(message.payload, payload)).toBe(0);
    bridged.relay(ALICE, Buffer.concat([payload, Buffer.of(0)]));
    expect((await bridged.connection.closed).code).toBe(1009);
    expect(alice.connection.pending).toBe(0);
  });
});

describe("floods", () => {
  test("of pings are answered, and keep nobody from anything", async () => {
    const PINGS = 20_000;
    const [bridged, alice, bob] = [
      await host.bridged(NODE),
      await host.bridged(ALICE),
      await host.bridged(BOB),
    ];
    bridged.connection.sendBytes(
      Buffer.concat(Array.from({ length: PINGS }, () => clientFrame(PING, Buffer.of(1)))),
    );
    alice.relay(BOB, Buffer.of(7));
    expect(await bob.message()).toMatchObject({ senderId: ALICE });
    bridged.send(discover(NODE));
    expect((await bridged.message()).type).toBe("discoverReply");
    expect(bridged.connection.pongs.length).toBe(PINGS);
    expect(host.stats.peers).toBe(3);
  });

  test("of pings whose answers are not read take no more memory than frames may", async () => {
    const [FRAMES_BYTES_MAX, BYTES_MAX] = [256 << 10, 1 << 20]; // of frames; with control frames
    const BLOCKS = 500;
    const bridged = await host.bridged(NODE);
    bridged.connection.pause();
    const block = Buffer.concat(
      Array.from({ length: 500 }, () => clientFrame(PING, new Uint8Array(125))),
    );
    for (let i = 0; i < BLOCKS && !bridged.connection.socket.destroyed; i++)
      if (!bridged.connection.socket.write(block))
        await Promise.race([once(bridged.connection.socket, "drain"), bridged.connection.closed]);
    // A packet for it makes the bridge look at what waits.
    const before = host.stats.frames.in;
    bridged.relay(NODE, Buffer.of(1));
    await until("all is read", () => host.stats.frames.in > before);
    const alice = await host.bridged(ALICE);
    alice.relay(NODE, Buffer.of(1));
    alice.send(discover(ALICE));
    await alice.message();
    const { bufferedBytes, connections } = host.stats;
    expect(connections).toBe(2);
    // the flood was large enough for the bound
    expect(bufferedBytes).toBeGreaterThan(FRAMES_BYTES_MAX);
    expect(bufferedBytes).toBeLessThan(BYTES_MAX);
  });

  test("of texts are counted and no more", async () => {
    const TEXTS = 5000;
    const bridged = await host.bridged(NODE);
    const before = host.stats.dropped["text"]!;
    const texts = Array.from({ length: TEXTS }, (_, i) =>
      clientFrame(TEXT, Buffer.from(`{"type":"auth_${i}"}`)),
    );
    bridged.connection.sendBytes(Buffer.concat(texts));
    bridged.send(discover(NODE));
    expect((await bridged.message()).type).toBe("discoverReply");
    expect(host.stats.dropped["text"]! - before).toBe(TEXTS);
  });
});

describe("random", () => {
  /** A frame such as a fuzzer would try: mostly nearly right. */
  const frameBytes = fc
    .record({
      first: fc.oneof(fc.constantFrom(0x82, 0x81, 0x80, 0x02, 0x88, 0x89, 0x8a), fc.nat(255)),
      isMasked: fc.nat(9).map((n) => n > 0),
      length: fc.oneof(fc.constant(-1), fc.nat(127)),
      payload: fc.uint8Array({ maxLength: 125 }),
    })
    .map(({ first, isMasked, length, payload }) =>
      Buffer.from([
        first,
        (isMasked ? 0x80 : 0) | (length < 0 ? payload.length : length),
        ...(isMasked ? [0, 0, 0, 0] : []),
        ...payload,
      ]),
    );
  const hostile = fc.oneof(
    fc.uint8Array({ maxLength: 2000 }),
    fc.array(frameBytes, { maxLength: 20 }).map((frames) => Buffer.concat(frames)),
  );

  test("bytes after a good handshake: the node's connection ends, nobody else's", async () => {
    const [alice, bob] = [await host.bridged(ALICE), await host.bridged(BOB)];
    const RUNS = 200;
    const before = host.stats.auth["ok"]!;
    await fc.assert(
      fc.asyncProperty(hostile, async (bytes) => {
        const { connection } = await host.bridged(NODE);
        connection.sendBytes(bytes);
        connection.socket.end();
        await inTime("the connection ends", connection.closed);
      }),
      { seed: 20_261_124, numRuns: RUNS, endOnFailure: true },
    );
    expect(host.stats.auth["ok"]! - before).toBe(RUNS);
    await untilEqual("nodes", () => host.stats.peers, 2);
    alice.relay(BOB, Buffer.of(1));
    expect(await bob.message()).toMatchObject({ senderId: ALICE });
  });

  test("bytes in place of a reply: nobody gets in", async () => {
    const RUNS = 200;
    const before = host.stats.auth;
    await fc.assert(
      fc.asyncProperty(hostile, async (bytes) => {
        const { connection } = await challenged();
        connection.sendBytes(bytes);
        connection.socket.end();
        await inTime("the connection ends", connection.closed);
      }),
      { seed: 20_261_125, numRuns: RUNS, endOnFailure: true },
    );
    await untilEqual("handshakes", () => total(host.stats.auth) - total(before), RUNS);
    expect(host.stats.auth["ok"]).toBe(before["ok"]!);
    const { left, malformed } = host.stats.auth;
    expect(left! + malformed! - before["left"]! - before["malformed"]!).toBe(RUNS);
  });

  test("bytes in place of a request", async () => {
    const request = Buffer.from(upgrade());
    const mutated = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 2000 }),
      fc
        .array(fc.tuple(fc.nat(request.length - 1), fc.nat(255)), { minLength: 1, maxLength: 5 })
        .map((changes) => {
          const bytes = Buffer.from(request);
          for (const [at, byte] of changes) bytes[at] = byte;
          return bytes;
        }),
    );
    const before = host.stats.auth["ok"];
    await fc.assert(
      fc.asyncProperty(mutated, async (bytes) => {
        const socket = connect(Number(host.url.port), "127.0.0.1");
        socket.on("error", () => {});
        socket.resume();
        socket.end(bytes);
        await inTime("the connection ends", new Promise((resolve) => socket.on("close", resolve)));
      }),
      { seed: 20_261_126, numRuns: 300, endOnFailure: true },
    );
    await untilEqual("connections", () => host.stats.connections, 0);
    expect(host.stats.auth["ok"]).toBe(before!);
  });

  test("packets of a proven node are each counted once, and answered as they deserve", async () => {
    const PACKETS = 30_000;
    const PER_WRITE = 250;
    const random = new Random(20_261_127);
    const [bridged, alice, carol] = [
      await host.bridged(NODE),
      await host.bridged(ALICE),
      await host.udp(CAROL),
    ];
    const before = host.stats;
    const aim = [NODE, ALICE, CAROL, BOB, 0];
    const sent = { frames: 0, empty: 0, replies: 0, toSelf: 0, toAlice: 0, forged: 0, notFound: 0 };
    let got = 0;
    const takeAnswers = () => {
      for (const { opcode, payload } of bridged.connection.take()) {
        if (opcode !== BINARY) throw new Error(`a frame of type ${opcode}`);
        expect(["discoverReply", "deliver"]).toContain(decode(payload).type);
        got++;
      }
      for (const { payload } of alice.connection.take())
        expect(decode(payload)).toMatchObject({ type: "deliver", senderId: NODE });
      carol.take();
    };
    /** Mostly short, mostly nearly right. */
    const packet = (): Uint8Array => {
      const bytes = Buffer.from(random.bytes(random.below(65)));
      if (bytes.length === 0) return bytes;
      if (random.below(10) < 8) bytes[0] = random.below(11);
      if (bytes.length >= 5 && random.below(2) === 0) bytes.writeUInt32BE(NODE, 1);
      if (bytes.length >= 9 && random.below(2) === 0)
        bytes.writeUInt32BE(aim[random.below(aim.length)]!, 5);
      return bytes;
    };
    const count = (bytes: Uint8Array) => {
      sent.frames++;
      const view = Buffer.from(bytes);
      if (view.length === 0) sent.empty++;
      else if ((view[0] === 1 || view[0] === 8) && view.length >= 5) sent.replies++;
      else if (view[0] === 5 && view.length >= 9) {
        const to = view.readUInt32BE(5);
        if (view.readUInt32BE(1) !== NODE) sent.forged++;
        else if (to === NODE) sent.toSelf++;
        else if (to === ALICE) sent.toAlice++;
        else if (to !== CAROL) sent.notFound++;
      }
    };
    while (sent.frames < PACKETS) {
      const packets = Array.from({ length: PER_WRITE }, packet);
      for (const bytes of packets) count(bytes);
      bridged.sendEach(packets);
      const expected = sent.frames;
      await until("they are read", () => host.stats.frames.in - before.frames.in === expected);
      takeAnswers();
    }
    bridged.send(discover(NODE)); // the answer comes behind all others
    sent.replies++;
    await untilEqual(
      "answers, and what there was no room for",
      () => {
        takeAnswers();
        return got + (host.stats.dropped["slow_reader"]! - before.dropped["slow_reader"]!);
      },
      sent.replies + sent.toSelf,
    );
    expect(sent.replies).toBeGreaterThan(1000); // else this was no test of anything but the parser
    expect(Math.min(sent.toSelf, sent.toAlice, sent.forged, sent.notFound)).toBeGreaterThan(50);
    const { packets, frames, dropped } = host.stats;
    expect(frames.in - before.frames.in).toBe(PACKETS + 1);
    const grown = (read: (stats: typeof packets) => number) => read(packets) - read(before.packets);
    expect(grown((p) => total(p.packetsReceived) + p.malformed["empty"]!)).toBe(PACKETS + 1);
    expect(grown((p) => p.malformed["empty"]!)).toBe(sent.empty);
    expect(grown((p) => p.discovers)).toBe(sent.replies);
    expect(grown((p) => p.relayNotFound)).toBe(sent.notFound);
    expect(grown((p) => p.relayDropped["forged_sender"]!)).toBe(sent.forged);
    expect(dropped["forged_sender"]! - before.dropped["forged_sender"]!).toBe(sent.forged);
    expect(
      frames.out - before.frames.out + dropped["slow_reader"]! - before.dropped["slow_reader"]!,
    ).toBe(sent.replies + sent.toSelf + sent.toAlice);
    expect(host.stats.peers).toBe(2);
  });
});

describe("connections that vanish", () => {
  const TIMES = 20;
  const endings: [string, (socket: Socket) => unknown][] = [
    ["destroyed", (socket) => socket.destroy()],
    ["reset", (socket) => socket.resetAndDestroy()],
    ["ended", (socket) => socket.end()],
  ];
  const steps: [string, Record<string, number>, () => Promise<Socket>][] = [
    ["once there", {}, async () => open()],
    ["within the request", {}, async () => open(upgrade().slice(0, 60))],
    ["right behind the request", { left: TIMES }, async () => open(upgrade())],
    ["after the challenge", { left: TIMES }, async () => (await challenged()).connection.socket],
    [
      "while the key is looked for",
      { left: TIMES },
      async () => {
        gate ??= Promise.withResolvers();
        const { connection, challenge } = await challenged();
        const before = asked.length;
        connection.text(node.reply(challenge));
        await until("the key is asked for", () => asked.length > before);
        return connection.socket;
      },
    ],
    ["once proven", { ok: TIMES }, async () => (await host.bridged(NODE)).connection.socket],
    [
      "within a frame",
      { ok: TIMES },
      async () => {
        const { connection } = await host.bridged(NODE);
        connection.sendBytes(
          clientFrame(BINARY, relay(NODE, CAROL, randomBytes(500))).subarray(0, 300),
        );
        return connection.socket;
      },
    ],
    [
      "with frames on their way",
      { ok: TIMES },
      async () => {
        const bridged = await host.bridged(NODE);
        bridged.sendEach(Array.from({ length: 200 }, () => relay(NODE, NODE, randomBytes(1000))));
        return bridged.connection.socket;
      },
    ],
  ];

  async function open(bytes = ""): Promise<Socket> {
    const socket = connect(Number(host.url.port), "127.0.0.1");
    socket.on("error", () => {});
    socket.resume();
    await once(socket, "connect");
    if (bytes !== "") await new Promise((resolve) => socket.write(bytes, resolve));
    return socket;
  }

  test.each(steps)("%s: nothing of them is left", async (_, outcomes, step) => {
    const before = openFds();
    for (const [, end] of endings) {
      const handshakes = host.stats.auth;
      const seen = host.stats.upgrades["ok"]!;
      for (let i = 0; i < TIMES; i++) {
        const socket = await step();
        // What was sent but not read yet would be lost with a reset, and nobody would have seen
        // this connection.
        if (total(outcomes) > 0)
          await until("it is seen", () => host.stats.upgrades["ok"]! - seen === i + 1);
        end(socket);
      }
      await untilEqual("connections", () => host.stats.connections, 0);
      gate?.resolve();
      gate = undefined;
      await untilEqual("handshakes", () => grownCounts(handshakes, host.stats.auth), outcomes);
      expect(host.stats.peers).toBe(0);
    }
    await untilEqual("nodes", () => host.beacon.stats().nodes, knownByUdp);
    await until("files are closed", () => openFds().size <= before.size);
  });

  const grownCounts = (
    before: Readonly<Record<string, number>>,
    now: Readonly<Record<string, number>>,
  ) =>
    Object.fromEntries(
      Object.entries(now).flatMap(([name, count]) =>
        count === before[name] ? [] : [[name, count - before[name]!]],
      ),
    );

  test("2,000 that come and go: nothing of them is left", async () => {
    const [CONNECTIONS, AT_ONCE] = [2000, 50];
    const before = openFds();
    const handshakes = host.stats.auth;
    const endings = [
      ({ connection }: BridgedNode) => connection.close(),
      ({ connection }: BridgedNode) => connection.destroy(),
      ({ connection }: BridgedNode) => connection.socket.resetAndDestroy(),
    ];
    for (let round = 0; round < CONNECTIONS / AT_ONCE; round++) {
      const some = await Promise.all(
        Array.from({ length: AT_ONCE }, (_, i) =>
          BridgedNode.connect(host.url, nodes.identity(1000 + i)),
        ),
      );
      expect(host.stats.peers).toBe(AT_ONCE);
      for (const bridged of some) endings[round % endings.length]!(bridged);
      await Promise.all(some.map(({ connection }) => connection.closed));
      await untilEqual("connections", () => host.stats.connections, 0);
    }
    expect(grownCounts(handshakes, host.stats.auth)).toEqual({ ok: CONNECTIONS });
    expect(host.stats).toMatchObject({ peers: 0, connections: 0, bufferedBytes: 0 });
    expect(host.beacon.stats().nodes).toBe(knownByUdp);
    await until("files are closed", () => openFds().size <= before.size);
  });
});

describe("time", () => {
  const [REPLY_MS, KEY_MS, CLOSING_MS] = [10_000, 30_000, 5_000];
  const SOME_MS = 1_000;
  const realNow = performance.now.bind(performance);
  let aheadMs = 0;
  let bridge: Bridge;
  let socket: UdpSocket;
  let clock: { mockRestore(): void };

  beforeEach(() => {
    aheadMs = 0;
    clock = spyOn(performance, "now").mockImplementation(() => realNow() + aheadMs);
    const memory = new SharedMemory({ workers: 1, nodesMax: 100, routesMax: 100 });
    memory.words[CLOCK_S] = 1;
    socket = UdpSocket.open(AF_INET);
    socket.bind("127.0.0.1", 0);
    bridge = new Bridge(
      {
        memory,
        nodes: new NodeTableOwner(memory, MAIN_THREAD_LOCK),
        fd: socket.fd,
        family: AF_INET,
        beaconId: 1,
        offload: false,
        keys: () => ({ keyOf, close: () => {} }),
        log: silentLog,
        guard: new Guard(silentLog),
      },
      {
        maxPeers: 100,
        upgradeLimit: 0,
        failureLimit: 0,
        limitsShadow: false,
        trustedProxies: [],
        tls: undefined,
      },
    );
    bridge.start(ListeningSocket.open("127.0.0.1", 0), "127.0.0.1");
  });
  afterEach(async () => {
    clock.mockRestore();
    await bridge.stop();
    socket.close();
  });

  async function connected() {
    const connection = await WebSocketClient.open(bridge.url!);
    return { connection, challenge: await textOf(connection) };
  }

  test("a reply may take ten seconds, and no longer, whether somebody looks meanwhile or not", async () => {
    const [early, late, later] = [await connected(), await connected(), await connected()];
    aheadMs = REPLY_MS - SOME_MS;
    bridge.tick(false);
    early.connection.text(node.reply(early.challenge));
    expect(await textOf(early.connection)).toBe(AUTH_OK);
    aheadMs = REPLY_MS + SOME_MS;
    late.connection.text(node.reply(late.challenge));
    expect(await late.connection.closed).toEqual(REFUSED);
    bridge.tick(false);
    expect(await later.connection.closed).toEqual(REFUSED);
    expect(bridge.stats().auth).toMatchObject({ ok: 1, late: 2 });
    expect(asked).toEqual([NODE]);
    early.connection.destroy();
  });

  test("a key may take thirty, and no longer", async () => {
    gate = Promise.withResolvers();
    const [early, late] = [await connected(), await connected()];
    for (const { connection, challenge } of [early, late]) connection.text(node.reply(challenge));
    await until("both keys are asked for", () => asked.length === 2);
    aheadMs = KEY_MS - SOME_MS;
    bridge.tick(false);
    expect(bridge.stats().connections).toBe(2);
    aheadMs = KEY_MS + SOME_MS;
    bridge.tick(false);
    expect(await early.connection.closed).toEqual(REFUSED);
    expect(await late.connection.closed).toEqual(REFUSED);
    gate.resolve();
    const third = await connected();
    third.connection.text(node.reply(third.challenge));
    expect(await textOf(third.connection)).toBe(AUTH_OK);
    expect(bridge.stats()).toMatchObject({ peers: 1, auth: { ok: 1, late: 2 } });
    third.connection.destroy();
  });

  test("a key that comes after thirty seconds comes too late, also before somebody looks", async () => {
    gate = Promise.withResolvers();
    const { connection, challenge } = await connected();
    connection.text(node.reply(challenge));
    await until("the key is asked for", () => asked.length === 1);
    aheadMs = KEY_MS + SOME_MS;
    gate.resolve();
    expect(await connection.closed).toEqual(REFUSED);
    expect(bridge.stats()).toMatchObject({ peers: 0, auth: { ok: 0, late: 1 } });
  });

  test("who was told to go and does not is no connection any more, and nothing that it says counts", async () => {
    const { connection, challenge } = await connected();
    connection.answersClose = false;
    connection.text("{}");
    expect(await refusedAt(1)).toMatchObject({ malformed: 1 });
    connection.text(node.reply(challenge));
    connection.binary(discover(NODE));
    for (aheadMs of [CLOSING_MS - SOME_MS, CLOSING_MS + SOME_MS]) bridge.tick(false);
    expect(await inTime("the connection ends", connection.closed)).toEqual(REFUSED);
    expect(bridge.stats()).toMatchObject({
      connections: 0,
      frames: { in: 0, out: 0 },
      auth: { ok: 0, malformed: 1, used: 0, left: 0 },
    });
    expect(asked).toEqual([]);
  });

  /** @returns how handshakes ended, once so many have */
  async function refusedAt(count: number) {
    await until("handshakes end", () => total(bridge.stats().auth) === count);
    return bridge.stats().auth;
  }
});

/** Connections that were opened when this file began, and how each ended. */
const slow: { name: string; ended: Promise<Closing | string> }[] = [];

function takeTime(): void {
  for (const [name, bytes, drop = ""] of [
    ["nothing", ""],
    ["half of a line", "GET /v1/com"],
    ["half of a head", upgrade().slice(0, -2)],
    ["half of a head, and a letter a second", `${upgrade().slice(0, -2)}X: `, "a"],
    ["half of a head, and a header a second", upgrade().slice(0, -2), "X: a\r\n"],
    [
      "chunk after chunk",
      "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
      "1\r\na\r\n",
    ],
    ["a request, and no other one", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"],
  ] as const) {
    const socket = connect(Number(slowHost.url.port), "127.0.0.1");
    socket.on("error", () => {});
    socket.resume();
    if (bytes !== "") socket.write(bytes);
    const timer = drop === "" ? undefined : setInterval(() => socket.write(drop), 1000);
    const ended = new Promise<string>((resolve) => socket.on("close", () => resolve("ended")));
    slow.push({ name, ended: ended.finally(() => clearInterval(timer)) });
  }
  for (const pings of [false, true]) {
    const ended = WebSocketClient.open(slowHost.url).then((connection) => {
      const timer = pings
        ? setInterval(() => connection.send(PING, new Uint8Array()), 1000)
        : undefined;
      return connection.closed.finally(() => clearInterval(timer));
    });
    slow.push({ name: pings ? "pings in place of a reply" : "no reply", ended });
  }
  const ended = WebSocketClient.open(slowHost.url).then(async (connection) => {
    connection.pause(); // it sees neither the close frame nor the end
    connection.text("{}");
    const timer = setInterval(() => connection.send(PING, new Uint8Array()), 1000);
    await connection.closed.finally(() => clearInterval(timer));
    return "ended";
  });
  slow.push({ name: "told to go, and reads nothing", ended });
}

test("who takes longer than ten seconds and a few for a request, or for a reply, is cut off", async () => {
  const how: Record<string, Closing | string> = {};
  for (const { name, ended } of slow) how[name] = await inTime(name, ended);
  expect(how).toEqual({
    nothing: "ended",
    "half of a line": "ended",
    "half of a head": "ended",
    "half of a head, and a letter a second": "ended",
    "half of a head, and a header a second": "ended",
    "chunk after chunk": "ended",
    "a request, and no other one": "ended",
    "no reply": REFUSED,
    "pings in place of a reply": REFUSED,
    "told to go, and reads nothing": "ended",
  });
  expect(slowHost.stats).toMatchObject({
    connections: 0,
    auth: { late: 2, malformed: 1, left: 0 },
    upgrades: { ok: 3 },
  });
});
