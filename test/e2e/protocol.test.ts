/**
 * What a beacon does with each message, the same for every family, number of workers, offload and
 * steering.
 */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { Beacon, type Stats } from "../../src/beacon.ts";
import { isSettled, sum, sumByName, UNLIMITED } from "./support/beacon.ts";
import { type Client, Clients } from "./support/client.ts";
import { Random } from "./support/random.ts";
import { until, untilEqual } from "./support/wait.ts";
import { discover } from "./support/wire.ts";

interface Variant {
  readonly family: string;
  readonly addr: string;
  /** Where two nodes of a test sit. */
  readonly hosts: readonly [string, string];
  readonly workers: number;
  readonly offload: boolean;
  readonly steering: boolean;
}

const FAMILIES: readonly Pick<Variant, "family" | "addr" | "hosts">[] = [
  { family: "IPv4", addr: "127.0.0.1:0", hosts: ["127.0.0.1", "127.0.0.1"] },
  { family: "IPv6", addr: "[::1]:0", hosts: ["::1", "::1"] },
  { family: "dual-stack", addr: ":0", hosts: ["127.0.0.1", "::1"] },
];

/** One worker has nothing to steer, so steering is varied with several only. */
const VARIANTS: Variant[] = FAMILIES.flatMap((family) =>
  [1, 2, 4].flatMap((workers) =>
    [true, false].flatMap((offload) =>
      (workers === 1 ? [true] : [true, false]).map((steering) => ({
        ...family,
        workers,
        offload,
        steering,
      })),
    ),
  ),
);

const onOff = (on: boolean) => (on ? "on" : "off");

/** Bytes of a DiscoverReply to an address of this family. */
const replyBytes = (host: string) => (host.includes(":") ? 20 : 8);

const text = (content: string) => new TextEncoder().encode(content);

let ids = 1000;
const newId = () => ++ids;

for (const variant of VARIANTS) {
  const { family, hosts, workers, offload, steering } = variant;
  const title = `${family}, ${workers} workers, offload ${onOff(offload)}, steering ${onOff(steering)}`;

  describe(title, () => {
    let beacon: Beacon;
    const clients = new Clients(() => beacon.address);

    beforeAll(async () => {
      beacon = new Beacon({
        addr: variant.addr,
        workers,
        offload,
        steering,
        maxNodes: 10_000,
        ...UNLIMITED,
      });
      await beacon.listen();
    });
    afterEach(() => clients.close());
    afterAll(() => beacon.close());

    const open = (which: 0 | 1 = 0): Promise<Client> => clients.open(hosts[which]);

    /** Two clients, of both families where there are two, whose node ids the beacon knows. */
    async function twoNodes() {
      const [a, b] = [await open(0), await open(1)];
      const [idA, idB] = [newId(), newId()];
      await a.discover(idA);
      await b.discover(idB);
      return { a, b, idA, idB };
    }

    /** What changes in the beacon's counters from here on. */
    async function countersFromHere() {
      const read = (stats: Stats) => ({
        nodes: stats.nodes,
        discovers: sum(stats, (w) => w.discovers),
        notFound: sum(stats, (w) => w.relayNotFound),
        forwarded: sum(stats, (w) => w.relayForwarded["local"]!),
        punchesSent: sum(stats, (w) => w.punches["sent"]!),
        punchTargetsUnknown: sum(stats, (w) => w.punches["target_unknown"]!),
        sentBytes: sum(stats, (w) => w.sentBytes),
      });
      await until("the beacon is done with what it took", () => isSettled(beacon.stats()));
      const before = read(beacon.stats());
      return () => {
        const now = read(beacon.stats());
        const changes: Partial<Record<keyof typeof now, number>> = {};
        for (const name of Object.keys(now) as (keyof typeof now)[]) {
          if (now[name] !== before[name]) changes[name] = now[name] - before[name];
        }
        return changes;
      };
    }

    /** Asks for the own address and expects that this answer is the first thing that comes. */
    async function expectOnlySentinel(client: Client) {
      expect(await client.discover(0)).toEqual({ type: "discoverReply", ...client.address });
      expect(client.pending).toBe(0);
    }

    test("a Discover is answered with the address it came from", async () => {
      for (const which of [0, 1] as const) {
        const client = await open(which);
        const changes = await countersFromHere();
        expect(await client.discover(newId())).toEqual({
          type: "discoverReply",
          ...client.address,
        });
        await untilEqual("counters", changes, {
          nodes: 1,
          discovers: 1,
          sentBytes: replyBytes(hosts[which]),
        });
      }
    });

    test("everything comes from the beacon's public address and port", async () => {
      const { a, b, idA, idB } = await twoNodes();
      await a.send(discover(idA));
      await a.punch(idA, idB);
      await b.relay(idB, idA, text("hello"));
      const expected = { address: hosts[0], port: beacon.address.port };
      for (let i = 0; i < 3; i++) expect((await a.next()).from).toEqual(expected);
      expect((await b.next()).from).toEqual({ address: hosts[1], port: beacon.address.port });
    });

    test("a Discover of id 0 is answered and not recorded", async () => {
      const { a, b, idB } = await twoNodes();
      const changes = await countersFromHere();
      expect(await a.discover(0)).toEqual({ type: "discoverReply", ...a.address });
      await b.relay(idB, 0, text("nobody has id 0"));
      await untilEqual("counters", changes, {
        discovers: 1,
        notFound: 1,
        sentBytes: replyBytes(hosts[0]),
      });
      await expectOnlySentinel(a);
    });

    test("32 bytes behind a Discover are tolerated", async () => {
      const [a, b] = [await open(0), await open(1)];
      const idA = newId();
      const key = new Random(7).bytes(32);
      expect(await a.discover(idA, key)).toEqual({ type: "discoverReply", ...a.address });
      expect(await a.discoverEx(idA, key)).toEqual({ type: "discoverReply", ...a.address });
      expect(await b.discover(0, key)).toEqual({ type: "discoverReply", ...b.address });
      await b.relay(5, idA, text("x"));
      expect(await a.message()).toEqual({
        type: "deliverDest",
        senderId: 5,
        destId: idA,
        payload: text("x"),
      });
    });

    test("DiscoverEx asks for RelayDeliverDest, and Discover turns that back", async () => {
      const { a, b, idA, idB } = await twoNodes();
      const payload = text("payload");
      await b.relay(idB, idA, payload);
      expect(await a.message()).toEqual({ type: "deliver", senderId: idB, payload });
      expect(await a.discoverEx(idA)).toEqual({ type: "discoverReply", ...a.address });
      await b.relay(idB, idA, payload);
      expect(await a.message()).toEqual({
        type: "deliverDest",
        senderId: idB,
        destId: idA,
        payload,
      });
      await a.discover(idA);
      await b.relay(idB, idA, payload);
      expect(await a.message()).toEqual({ type: "deliver", senderId: idB, payload });
    });

    test.each([0, 1, 1200, 4200, 65_498])(
      "a Relay of %i payload bytes arrives as it was",
      async (length) => {
        const { a, b, idA, idB } = await twoNodes();
        const payload = new Random(length + 1).bytes(length);
        await a.relay(idA, idB, payload);
        expect(await b.message()).toEqual({ type: "deliver", senderId: idA, payload });
        await a.discoverEx(idA);
        await b.relay(idB, idA, payload);
        expect(await a.message()).toEqual({
          type: "deliverDest",
          senderId: idB,
          destId: idA,
          payload,
        });
      },
    );

    test("a sender need not be registered; its id is passed on", async () => {
      const { b, idB } = await twoNodes();
      const stranger = await open();
      const changes = await countersFromHere();
      for (const senderId of [0, 1, 0xdead_beef, idB]) {
        await stranger.relay(senderId, idB, text("x"));
        expect(await b.message()).toEqual({ type: "deliver", senderId, payload: text("x") });
      }
      await untilEqual("counters", changes, { forwarded: 4, sentBytes: 4 * 6 });
    });

    test("a Relay to nobody is counted and not answered", async () => {
      const { a, idA } = await twoNodes();
      const changes = await countersFromHere();
      await a.relay(idA, newId(), text("x"));
      await untilEqual("counters", changes, { notFound: 1 });
      await expectOnlySentinel(a);
      await untilEqual("counters", changes, {
        notFound: 1,
        discovers: 1,
        sentBytes: replyBytes(hosts[0]),
      });
    });

    test("a node's endpoint moves with its Discover", async () => {
      const { a, b, idA, idB } = await twoNodes();
      const moved = await open(1);
      await moved.discover(idA);
      await b.relay(idB, idA, text("to the new one"));
      expect(await moved.message()).toEqual({
        type: "deliver",
        senderId: idB,
        payload: text("to the new one"),
      });
      await expectOnlySentinel(a);
    });

    test("a PunchRequest tells both ends where the other is", async () => {
      const { a, b, idA, idB } = await twoNodes();
      const changes = await countersFromHere();
      await a.punch(idA, idB);
      expect(await a.message()).toEqual({ type: "punchCommand", ...b.address });
      expect(await b.message()).toEqual({ type: "punchCommand", ...a.address });
      await untilEqual("counters", changes, {
        punchesSent: 1,
        sentBytes: replyBytes(hosts[0]) + replyBytes(hosts[1]),
      });
    });

    test("a node's endpoint moves with its PunchRequest, and it keeps its wish for RelayDeliverDest", async () => {
      const { a, b, idA, idB } = await twoNodes();
      await a.discoverEx(idA);
      const moved = await open();
      await moved.punch(idA, idB);
      expect(await moved.message()).toEqual({ type: "punchCommand", ...b.address });
      expect(await b.message()).toEqual({ type: "punchCommand", ...moved.address });
      await b.relay(idB, idA, text("x"));
      expect(await moved.message()).toEqual({
        type: "deliverDest",
        senderId: idB,
        destId: idA,
        payload: text("x"),
      });
      await expectOnlySentinel(a);
    });

    test("a PunchRequest for nobody sends nothing, is counted, and records the requester all the same", async () => {
      const [a, b] = [await open(0), await open(1)];
      const idA = newId();
      const changes = await countersFromHere();
      await a.punch(idA, newId());
      await untilEqual("counters", changes, { nodes: 1, punchTargetsUnknown: 1 });
      await b.relay(5, idA, text("x"));
      expect(await a.message()).toEqual({ type: "deliver", senderId: 5, payload: text("x") });
      await expectOnlySentinel(a);
    });

    test("a PunchRequest of id 0 is served and not recorded", async () => {
      const { b, idB } = await twoNodes();
      const nobody = await open();
      const changes = await countersFromHere();
      await nobody.punch(0, idB);
      expect(await nobody.message()).toEqual({ type: "punchCommand", ...b.address });
      expect(await b.message()).toEqual({ type: "punchCommand", ...nobody.address });
      await untilEqual("counters", changes, {
        punchesSent: 1,
        sentBytes: replyBytes(hosts[0]) + replyBytes(hosts[1]),
      });
    });

    test.each([1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff])(
      "node id %i is one like any other",
      async (id) => {
        const [a, b] = [await open(0), await open(1)];
        await a.discover(id);
        await b.relay(id, id, text("self"));
        expect(await a.message()).toEqual({ type: "deliver", senderId: id, payload: text("self") });
        await a.discoverEx(id);
        await b.relay(id, id, text("self"));
        expect(await a.message()).toEqual({
          type: "deliverDest",
          senderId: id,
          destId: id,
          payload: text("self"),
        });
        await b.punch(newId(), id);
        expect(await b.message()).toEqual({ type: "punchCommand", ...a.address });
        expect(await a.message()).toEqual({ type: "punchCommand", ...b.address });
      },
    );

    test("50 nodes at once: each pair's packets keep their order, every byte arrives", async () => {
      const NODES = 50;
      const ROUNDS = 67;
      const BURST = 3; // so that a round fits into the buffers of a host that was never tuned
      const random = new Random(workers * 4 + Number(offload) * 2 + Number(steering));
      const nodes = await Promise.all(
        Array.from({ length: NODES }, async (_, i) => {
          const id = newId();
          const client = await open((i % 2) as 0 | 1);
          await client.discover(id);
          return { id, client };
        }),
      );
      const changes = await countersFromHere();
      /** What is still to come, by sender and destination, in order. */
      const expected = new Map<string, Uint8Array[]>();
      for (let round = 0; round < ROUNDS; round++) {
        // Two destinations a round and sender, the same two for nobody else: everybody gets one
        // burst's worth.
        const shifts = [1 + random.below(NODES - 1), 1 + random.below(NODES - 1)];
        for (let i = 0; i < BURST; i++) {
          for (const [n, from] of nodes.entries()) {
            const to = nodes[(n + shifts[i % 2]!) % NODES]!;
            const payload = random.bytes(random.below(20) === 0 ? 4200 : random.below(1300));
            const pair = `${from.id} ${to.id}`;
            if (!expected.has(pair)) expected.set(pair, []);
            expected.get(pair)!.push(payload);
            await from.client.relay(from.id, to.id, payload);
          }
        }
        for (const to of nodes) {
          for (let i = 0; i < BURST; i++) {
            const message = await to.client.message();
            if (message.type !== "deliver") throw new Error(`a ${message.type} came`);
            const payload = expected.get(`${message.senderId} ${to.id}`)?.shift();
            if (payload === undefined || Buffer.compare(payload, message.payload) !== 0) {
              throw new Error(`round ${round}: not what ${message.senderId} sent next to ${to.id}`);
            }
          }
        }
      }
      expect([...expected.values()].flat()).toEqual([]);
      await untilEqual("packets forwarded", () => changes().forwarded, NODES * ROUNDS * BURST);
    });

    test("nothing of all this was malformed, dropped or refused", () => {
      const stats = beacon.stats();
      expect({
        malformed: sumByName(stats, (w) => w.malformed),
        relayDropped: sumByName(stats, (w) => w.relayDropped),
        replyDropped: sumByName(stats, (w) => w.replyDropped),
        nodesRefused: sumByName(stats, (w) => w.nodesRefused),
        socketReceiveDrops: sum(stats, (w) => w.socketReceiveDrops ?? 0),
        restarts: sum(stats, (w) => w.restarts),
      }).toEqual({
        malformed: {},
        relayDropped: {},
        replyDropped: {},
        nodesRefused: {},
        socketReceiveDrops: 0,
        restarts: 0,
      });
    });
  });
}
