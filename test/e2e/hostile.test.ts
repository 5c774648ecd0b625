/**
 * Whatever anybody sends: the beacon stays well, answers nothing that it should not, and counts
 * every datagram.
 */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Beacon } from "../../src/beacon.ts";
import { createLogger } from "../../src/control/log/log.ts";
import { socketDrops, sum, sumByName, taken, UNLIMITED } from "./support/beacon.ts";
import { BurstSocket } from "./support/bursts.ts";
import { Client, Clients } from "./support/client.ts";
import { installed } from "./support/program.ts";
import { Random } from "./support/random.ts";
import { until, untilEqual } from "./support/wait.ts";
import { decode, discover, discoverEx, punchRequest, relay } from "./support/wire.ts";

/** What a beacon sends. */
const ANSWERS = new Set(["discoverReply", "punchCommand", "deliver", "deliverDest"]);
/**
 * Bytes that the kernel books for a small datagram, at least (skb->truesize), with room to spare.
 */
const BOOKED_BYTES = 2048;
/**
 * Datagrams that may be on their way at once: as many as a socket's buffer holds, but enough to get
 * on where that is little; the kernel counts what it drops then.
 */
const WINDOW = (() => {
  const granted = Number(readFileSync("/proc/sys/net/core/rmem_max", "utf8"));
  return Math.max(512, Math.min(2048, Math.floor(granted / BOOKED_BYTES)));
})();

let beacon: Beacon;
let lines: string[];
const clients = new Clients(() => beacon.address);

async function start(options: ConstructorParameters<typeof Beacon>[0] = {}) {
  lines = [];
  const log = createLogger({
    level: "trace",
    format: "json",
    destination: { write: (line) => lines.push(line) },
  });
  beacon = new Beacon(
    { addr: ":0", workers: 2, maxNodes: 5000, gossipStrict: "on", ...UNLIMITED, ...options },
    log,
  );
  await beacon.listen();
}

const [ID_A, ID_B] = [0xfeed_0001, 0xfeed_0002];

/** Two nodes, new or known already, exchange a packet, and no worker was harmed. */
async function expectWell() {
  const [a, b] = [await clients.open("127.0.0.1"), await clients.open("::1")];
  expect(await a.discover(ID_A)).toEqual({ type: "discoverReply", ...a.address });
  expect(await b.discoverEx(ID_B)).toEqual({ type: "discoverReply", ...b.address });
  const payload = new Random(1).bytes(1200);
  await a.relay(ID_A, ID_B, payload);
  expect(await b.message()).toEqual({ type: "deliverDest", senderId: ID_A, destId: ID_B, payload });
  await b.relay(ID_B, ID_A, payload);
  expect(await a.message()).toEqual({ type: "deliver", senderId: ID_B, payload });
  const stats = beacon.stats();
  expect(stats.workers.map(({ alive, restarts }) => ({ alive, restarts }))).toEqual(
    stats.workers.map(() => ({ alive: true, restarts: 0 })),
  );
}

/** Waits until no more than `most` of the `sent` datagrams are on their way. */
async function pace(sent: number, most: number) {
  await until("the beacon takes what was sent", () => {
    const stats = beacon.stats();
    return sent - taken(stats) - socketDrops(stats) <= most;
  });
}

/** @returns how many answers were waiting. @throws Error for one that a beacon does not send */
function takeAnswers(sockets: readonly BurstSocket[]): number {
  let answers = 0;
  for (const socket of sockets) {
    for (const { bytes } of socket.take()) {
      if (!ANSWERS.has(decode(bytes).type)) throw new Error("not an answer of a beacon");
      answers++;
    }
  }
  return answers;
}

function openSockets(): BurstSocket[] {
  const { port } = beacon.address;
  return ["127.0.0.1", "::1", "127.0.0.1", "::1"].map(
    (host) => new BurstSocket(host, { address: host, port }),
  );
}

describe("random datagrams", () => {
  beforeAll(() => start());
  afterEach(() => clients.close());
  afterAll(() => beacon.close());

  const random = new Random(20_261_122);

  /** A length, a type and ids such as a fuzzer would try: mostly short, mostly nearly right. */
  function junk(bytes: Uint8Array): Uint8Array {
    for (let i = 0; i < bytes.length; i++) bytes[i] = random.word() >>> 7;
    if (bytes.length === 0) return bytes;
    const choice = random.below(10);
    if (choice < 7) bytes[0] = random.below(11);
    else if (choice < 8) bytes[0] = [0x02, 0x04, 0x06, 0x07, 0x09][random.below(5)]!;
    // Ids below 256 soon belong to somebody.
    if (random.below(2) === 0) bytes.fill(0, 1, 4);
    if (random.below(2) === 0) bytes.fill(0, 5, 8);
    return bytes;
  }

  const MALFORMED = [
    new Uint8Array(0),
    new Uint8Array([0x01]),
    discover(5).subarray(0, 4),
    discoverEx(5).subarray(0, 4),
    punchRequest(5, 6).subarray(0, 8),
    relay(5, 6, new Uint8Array(0)).subarray(0, 8),
    ...[0x00, 0x02, 0x04, 0x06, 0x07, 0x09, 0x0a, 0x10, 0x81, 0xff].map((type) =>
      new Uint8Array(40).fill(1).fill(type, 0, 1),
    ),
  ];

  test("a million of them", async () => {
    const DATAGRAMS = 1_000_000;
    const PER_CALL = Math.min(256, WINDOW);
    const MEMORY_GROWTH_MAX = 64 << 20;
    await expectWell(); // before random ids fill the table
    const sockets = openSockets();
    // This one sends nothing that deserves an answer, so it is nobody's endpoint either.
    const malformed = await clients.open();
    const slots = Array.from({ length: PER_CALL }, () => new Uint8Array(65));
    const sentBefore = taken(beacon.stats());
    const linesBefore = lines.length;
    let sent = 0;
    let answers = 0;
    let residentBefore = 0;
    for (let call = 0; sent < DATAGRAMS; call++) {
      const socket = sockets[call % sockets.length]!;
      socket.sendEach(slots.map((slot) => junk(slot.subarray(0, random.below(slot.length)))));
      sent += PER_CALL;
      if (call % 64 === 0) {
        socket.sendEach([junk(new Uint8Array(random.below(65_508)))]);
        await malformed.send(MALFORMED[(call / 64) % MALFORMED.length]!);
        sent += 2;
        await pace(sentBefore + sent, 0);
      }
      await pace(sentBefore + sent, WINDOW - PER_CALL);
      answers += takeAnswers(sockets);
      // A quarter of the way, all code is compiled and all buffers are there.
      if (residentBefore === 0 && sent > DATAGRAMS / 4) {
        Bun.gc(true);
        residentBefore = process.memoryUsage.rss();
      }
    }
    await untilEqual(
      "datagrams counted once",
      () => taken(beacon.stats()) + socketDrops(beacon.stats()) - sentBefore,
      sent,
    );
    Bun.gc(true);
    expect(process.memoryUsage.rss() - residentBefore).toBeLessThan(MEMORY_GROWTH_MAX);
    answers += takeAnswers(sockets);
    for (const socket of sockets) socket.close();
    expect(answers).toBeGreaterThan(10_000); // else this was no test of anything but the parser
    // Gossip of unlisted beacons is logged now and then, and so is a full table.
    const told = lines.slice(linesBefore);
    expect(
      told.filter((line) => !/"msg":"(gossip from \S+ rejected|node table full): /.test(line)),
    ).toEqual([]);
    expect(told.length).toBeLessThan(100);
    expect(await malformed.discover(0)).toEqual({ type: "discoverReply", ...malformed.address });
    expect(malformed.pending).toBe(0);
    expect(beacon.stats().nodes).toBeLessThanOrEqual(5000);
    await expectWell();
  });

  test("merged ones", async () => {
    await expectWell();
    const sockets = openSockets();
    const sentBefore = taken(beacon.stats());
    const dropsBefore = socketDrops(beacon.stats());
    let sent = 0;
    for (let call = 0; call < 2000; call++) {
      const length = 1 + random.below(64);
      const segments = Array.from({ length: 2 + random.below(62) }, () =>
        junk(new Uint8Array(length)),
      );
      segments.push(junk(new Uint8Array(1 + random.below(length))));
      sockets[call % sockets.length]!.send(segments);
      sent += segments.length;
      await pace(sentBefore + dropsBefore + sent, WINDOW - 64);
      takeAnswers(sockets);
    }
    expect(socketDrops(beacon.stats())).toBe(dropsBefore);
    await untilEqual("segments counted once", () => taken(beacon.stats()) - sentBefore, sent);
    for (const socket of sockets) socket.close();
    await expectWell();
  });
});

describe("one at a time", () => {
  beforeEach(() => start());
  afterEach(() => clients.close());
  afterEach(() => beacon.close());

  test("every type in every length up to 40", async () => {
    const LENGTH_MAX = 40;
    const TYPES = 256;
    const socket = new BurstSocket("127.0.0.1", {
      address: "127.0.0.1",
      port: beacon.address.port,
    });
    const ID_BYTE = 0xab; // all ids are 0xabababab
    const names = [
      ...["unknown", "discover", "discover_reply", "punch_request", "punch_command"],
      ...["relay", "relay_deliver", "sync", "discover_ex", "relay_deliver_dest"],
    ];
    const received: Record<string, number> = {};
    const malformed: Record<string, number> = {};
    const gossipRejected: Record<string, number> = {};
    let answers = 0;
    const count = (counts: Record<string, number>, name: string) => {
      counts[name] = (counts[name] ?? 0) + 1;
    };
    const datagrams: Uint8Array[] = [];
    for (let length = 0; length <= LENGTH_MAX; length++) {
      for (let type = 0; type < TYPES; type++) {
        datagrams.push(new Uint8Array(length).fill(ID_BYTE).fill(type, 0, 1));
        if (length === 0) {
          count(malformed, "empty");
          continue;
        }
        count(received, names[type] ?? "unknown");
        if (type === 0x01 || type === 0x08) {
          if (length < 5) count(malformed, "short");
          else answers++;
        } else if (type === 0x03) {
          if (length < 9) count(malformed, "short");
          else answers += 2; // it wants to punch to itself
        } else if (type === 0x05) {
          if (length < 9) count(malformed, "short");
          else answers++; // to itself
        } else if (type === 0x07) {
          count(gossipRejected, length < 7 ? "short" : "unknown_peer");
        } else if (type === 0 || type > 0x09) {
          count(malformed, "unknown_type");
        } else {
          count(malformed, "not_for_beacon");
        }
      }
    }
    const ID = 0xabab_abab;
    // So that the node is known whatever worker takes what first.
    socket.sendEach([discover(ID)]);
    await socket.arrivals(1);
    count(received, "discover");
    let sent = 1;
    for (let at = 0; at < datagrams.length; at += 64) {
      const some = datagrams.slice(at, at + 64);
      socket.sendEach(some);
      sent += some.length;
      await pace(sent, 0);
    }
    await untilEqual(
      "received",
      () => sumByName(beacon.stats(), (w) => w.packetsReceived),
      received,
    );
    await untilEqual("malformed", () => sumByName(beacon.stats(), (w) => w.malformed), malformed);
    expect(sumByName(beacon.stats(), (w) => w.gossipRejected)).toEqual(gossipRejected);
    expect(sum(beacon.stats(), (w) => w.gossipReceived)).toBe(0);
    const types = (await socket.arrivals(answers)).map(({ bytes }) => decode(bytes).type);
    expect(types.filter((type) => !ANSWERS.has(type))).toEqual([]);
    socket.sendEach([discover(0)]);
    expect((await socket.arrivals(1)).length).toBe(1);
    expect(socket.take()).toEqual([]);
    socket.close();
    await expectWell();
  });

  test("a node that is gone costs nobody anything", async () => {
    const gone = await Client.open("127.0.0.1", {
      address: "127.0.0.1",
      port: beacon.address.port,
    });
    await gone.discover(4242);
    gone.close();
    const sender = await clients.open();
    const before = sum(beacon.stats(), (w) => w.relayForwarded["local"]!);
    for (let i = 0; i < 100; i++) await sender.relay(1, 4242, new Uint8Array(100));
    await untilEqual(
      "forwarded",
      () => sum(beacon.stats(), (w) => w.relayForwarded["local"]!) - before,
      100,
    );
    expect(sumByName(beacon.stats(), (w) => w.relayDropped)).toEqual({});
    await expectWell();
  });
});

const rawObstacle =
  process.getuid?.() !== 0 ? " (needs root)" : installed("python3") ? "" : " (needs python3)";

describe.skipIf(rawObstacle !== "")(`forged source addresses${rawObstacle}`, () => {
  beforeEach(() => start({ addr: "127.0.0.1:0" }));
  afterEach(() => clients.close());
  afterEach(() => beacon.close());

  function sendFrom(sourcePort: number, ...payloads: Uint8Array[]) {
    const { success, stderr } = Bun.spawnSync(
      [
        ...["python3", join(import.meta.dir, "support/raw_udp.py")],
        ...["127.0.0.1", String(sourcePort), "127.0.0.1", String(beacon.address.port)],
        ...payloads.map((payload) => Buffer.from(payload).toString("hex")),
      ],
      { stderr: "pipe" },
    );
    if (!success) throw new Error(stderr.toString());
  }

  const received = () => sumByName(beacon.stats(), (w) => w.packetsReceived);
  const malformed = () => sumByName(beacon.stats(), (w) => w.malformed);

  test("a node whose endpoint is the beacon's own: what is sent there ends there", async () => {
    const NODE = 77;
    sendFrom(beacon.address.port, discover(NODE));
    await untilEqual("received", received, { discover: 1, discover_reply: 1 });
    sendFrom(beacon.address.port, punchRequest(NODE, NODE));
    await untilEqual("received", received, {
      discover: 1,
      discover_reply: 1,
      punch_request: 1,
      punch_command: 2,
    });
    // A relay whose payload is again a relay to that node, in case somebody unwraps it.
    const client = await clients.open();
    const inner = relay(1, NODE, relay(1, NODE, new Uint8Array(20)));
    await client.relay(1, NODE, inner);
    const afterRelay = { discover: 1, punch_request: 1, punch_command: 2, discover_reply: 1 };
    await untilEqual("received", received, { ...afterRelay, relay: 1, relay_deliver: 1 });
    sendFrom(beacon.address.port, discoverEx(NODE));
    await client.relay(1, NODE, inner);
    const atLast = {
      discover: 1,
      discover_reply: 2,
      punch_request: 1,
      punch_command: 2,
      relay: 2,
      relay_deliver: 1,
      discover_ex: 1,
      relay_deliver_dest: 1,
    };
    await untilEqual("received", received, atLast);
    await untilEqual("malformed", malformed, { not_for_beacon: 6 });
    // Nothing went on meanwhile.
    expect(await client.discover(0)).toEqual({ type: "discoverReply", ...client.address });
    expect(client.pending).toBe(0);
    expect(received()).toEqual({ ...atLast, discover: 2 });
  });

  test("source port 0 cannot be answered: counted, not recorded", async () => {
    const { nodes } = beacon.stats();
    const before = malformed()["no_source_port"] ?? 0;
    const client = await clients.open();
    await client.discover(90);
    sendFrom(0, discover(91), discoverEx(92), punchRequest(93, 90), discover(0));
    await untilEqual("no_source_port", () => (malformed()["no_source_port"] ?? 0) - before, 4);
    expect(beacon.stats().nodes).toBe(nodes + 1);
    expect(client.pending).toBe(0);
    // A Relay needs no answer.
    sendFrom(0, relay(91, 90, new Uint8Array([1, 2, 3])));
    expect(await client.message()).toEqual({
      type: "deliver",
      senderId: 91,
      payload: new Uint8Array([1, 2, 3]),
    });
    expect(sumByName(beacon.stats(), (w) => w.replyDropped)).toEqual({});
  });
});
