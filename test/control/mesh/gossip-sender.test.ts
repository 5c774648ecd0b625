import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AF_INET, AF_INET6, UDP_PAYLOAD_MAX } from "../../../ffi/abi.ts";
import { ENDPOINT_WORDS, endpointOf } from "../../../ffi/endpoint.ts";
import { EINVAL } from "../../../ffi/errno.ts";
import { UdpSocket } from "../../../ffi/socket.ts";
import {
  GOSSIP_NODES_MAX,
  GossipSender,
  type Scan,
  SIGNED_GOSSIP_NODES_MAX,
} from "../../../src/control/mesh/gossip-sender.ts";
import {
  Instances,
  newInstance,
  readSignature,
  type Signature,
} from "../../../src/control/mesh/gossip-signature.ts";
import { ENTRY_SEEN_S, scanNodes } from "../../../src/control/nodes/scan.ts";
import { HASH_SECRET, MAIN_THREAD_LOCK, SharedMemory } from "../../../src/shared/memory.ts";
import { NodeTableOwner } from "../../../src/shared/nodes-owner.ts";
import { IS_BRIDGED, WANTS_DEST } from "../../../src/shared/slots.ts";
import { nodeId } from "../../support/arbitraries.ts";
import { LOOPBACK, Peer } from "../../support/peer.ts";

const BEACON_ID = 0xdead_beef;
const NOW_S = 10_000;
const TTL_S = 600;

interface Entry {
  readonly id: number;
  readonly ageS: number;
  readonly flags?: number;
}

/** A scan that comes across these nodes, in this order. */
function scanOf(entries: Iterable<Entry>): Scan {
  return async (visit) => {
    const entry = new Int32Array(ENDPOINT_WORDS + 1);
    for (const { id, ageS, flags = 0 } of entries) {
      entry[0] = 0x1f40_0000 | flags; // the port is none of its business
      entry[ENTRY_SEEN_S] = NOW_S - ageS;
      visit(id, entry);
    }
  };
}

const many = (count: number, ageOf: (i: number) => number): Entry[] =>
  Array.from({ length: count }, (_, i) => ({ id: i + 1, ageS: ageOf(i) }));

/** A Sync as the head of src/protocol.ts has it. */
function parse(bytes: Uint8Array) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  expect(view.getUint8(0)).toBe(0x07);
  const count = view.getUint16(5);
  expect(bytes.length).toBe(7 + 4 * count);
  return {
    beaconId: view.getUint32(1),
    nodeIds: Array.from({ length: count }, (_, i) => view.getUint32(7 + 4 * i)),
  };
}

describe.each([AF_INET, AF_INET6] as const)("GossipSender on a socket of family %d", (family) => {
  let socket: UdpSocket;
  let peer: Peer;
  let sender: GossipSender;

  beforeAll(() => {
    socket = UdpSocket.open(family);
    socket.bind(LOOPBACK[family], 0);
    peer = new Peer(family);
    sender = new GossipSender(socket, BEACON_ID);
  });
  afterEach(() => {
    sender.clear();
  });
  afterAll(() => {
    socket.close();
    peer.close();
  });

  const collect = (entries: readonly Entry[], size = entries.length) =>
    sender.collect(scanOf(entries), size, NOW_S, TTL_S);

  /** Sends to the peer. @returns what arrives there, taken apart */
  async function arrives(to = peer) {
    expect(await sender.send(to.endpoint)).toBe(0);
    const { bytes, from } = to.receive()!;
    expect(from).toEqual(socket.localAddress());
    const { beaconId, nodeIds } = parse(bytes);
    expect(beaconId).toBe(BEACON_ID);
    return nodeIds;
  }

  test("names nobody before it has collected, and nobody when there is nobody", async () => {
    expect(await arrives()).toEqual([]);
    expect(await collect([])).toBe(0);
    expect(await arrives()).toEqual([]);
  });

  test("names the nodes of the table, unsigned, in their order, to each peer the same", async () => {
    const entries = [7, -1, 1, 0x7fff_ffff, -0x8000_0000].map((id) => ({ id, ageS: 3 }));
    expect(await collect(entries)).toBe(0);
    const other = new Peer(family);
    const expected = [7, 0xffff_ffff, 1, 0x7fff_ffff, 0x8000_0000];
    for (const to of [peer, other, peer]) expect(await arrives(to)).toEqual(expected);
    other.close();
  });

  test("names what it collected last, and after a clear nobody", async () => {
    await collect(many(100, () => 0));
    expect(await arrives()).toHaveLength(100);
    await collect(many(3, () => 0));
    expect(await arrives()).toEqual([1, 2, 3]);
    sender.clear();
    expect(await arrives()).toEqual([]);
    await collect(many(2, () => 0));
    expect(await arrives()).toEqual([1, 2]);
  });

  test("names no node that is as old as the time to live, and each that is not", async () => {
    const ages = [0, TTL_S - 1, TTL_S, TTL_S + 1, NOW_S, 1];
    expect(await collect(ages.map((ageS, i) => ({ id: i + 1, ageS })))).toBe(0);
    expect(await arrives()).toEqual([1, 2, 6]);
  });

  test("a node heard since the clock was read is new", async () => {
    expect(await collect([{ id: 5, ageS: -1 }])).toBe(0);
    expect(await arrives()).toEqual([5]);
  });

  test("a node of the bridge is there, however long ago it was heard by UDP", async () => {
    const entries = [0, TTL_S - 1, TTL_S, TTL_S + 1, NOW_S, NOW_S + 1].flatMap((ageS, i) => [
      { id: 10 + i, ageS, flags: IS_BRIDGED },
      { id: 20 + i, ageS, flags: IS_BRIDGED | WANTS_DEST },
      { id: 30 + i, ageS, flags: WANTS_DEST },
    ]);
    expect(await collect(entries)).toBe(0);
    expect(await arrives()).toEqual([10, 20, 30, 11, 21, 31, 12, 22, 13, 23, 14, 24, 15, 25]);
  });

  test("nodes of the bridge are not left out for others that were heard a while ago", async () => {
    const bridged = 10;
    const entries = many(GOSSIP_NODES_MAX + 100, (i) => (i < bridged ? TTL_S + i : 5)).map(
      (entry, i) => (i < bridged ? { ...entry, flags: IS_BRIDGED } : entry),
    );
    expect(await collect(entries)).toBe(100);
    const nodeIds = await arrives();
    expect(nodeIds).toHaveLength(GOSSIP_NODES_MAX);
    expect(nodeIds.slice(0, bridged)).toEqual(entries.slice(0, bridged).map(({ id }) => id));
  });

  test("as many as a message takes are all named, in a datagram as large as there may be", async () => {
    expect(7 + 4 * GOSSIP_NODES_MAX).toBe(UDP_PAYLOAD_MAX);
    expect(await collect(many(GOSSIP_NODES_MAX, (i) => i % TTL_S))).toBe(0);
    expect(await arrives()).toEqual(many(GOSSIP_NODES_MAX, () => 0).map(({ id }) => id));
  });

  test("with a key, messages are signed from the next one on, and hold so many fewer", async () => {
    const KEY = "a key of at least 32 characters, here";
    const nodes = many(GOSSIP_NODES_MAX, () => 0);
    const signed = new GossipSender(socket, BEACON_ID);
    const read = async () => {
      expect(await signed.send(peer.endpoint)).toBe(0);
      const { bytes } = peer.receive()!;
      return {
        nodes: Buffer.from(bytes).readUInt16BE(5),
        bytes,
        signature: readSignature(bytes, [KEY]),
      };
    };
    expect((await read()).signature).toBe("unsigned");
    expect(await signed.collect(scanOf(nodes), nodes.length, NOW_S, TTL_S)).toBe(0);
    signed.key = KEY;
    expect(await read()).toMatchObject({ nodes: GOSSIP_NODES_MAX, signature: "unsigned" });
    let lastMs = 0;
    for (let round = 0; round < 3; round++) {
      expect(await signed.collect(scanOf(nodes), nodes.length, NOW_S, TTL_S)).toBe(12);
      for (let receivers = 0; receivers < 2; receivers++) {
        const { nodes: told, bytes, signature } = await read();
        expect(told).toBe(SIGNED_GOSSIP_NODES_MAX);
        expect(bytes.length).toBeLessThanOrEqual(UDP_PAYLOAD_MAX);
        if (typeof signature === "string") throw new Error(signature);
        expect(signature.instance).toBe(signed.instance);
        // One message for all, and a later one in the next round, however fast that comes.
        if (receivers === 0) expect(signature.timeMs).toBeGreaterThan(lastMs);
        else expect(signature.timeMs).toBe(lastMs);
        lastMs = signature.timeMs;
      }
    }
    signed.clear();
    expect(await read()).toMatchObject({ nodes: 0, signature: { instance: signed.instance } });
    signed.key = undefined;
    signed.clear();
    expect((await read()).signature).toBe("unsigned");
  });

  describe("with a clock that is set", () => {
    const KEY = "a key of at least 32 characters, here";
    const HOUR_MS = 3_600_000;
    const LIVE_MS = 90_000;
    const TRUE_MS = 1_800_000_000_000;
    let clockMs: number;
    let clocked: GossipSender;
    beforeEach(() => {
      clockMs = TRUE_MS;
      clocked = new GossipSender(socket, BEACON_ID, undefined, () => clockMs);
      clocked.key = KEY;
    });

    /** The signature of the next message, as it arrives. */
    async function next(): Promise<Signature> {
      clocked.clear();
      expect(await clocked.send(peer.endpoint)).toBe(0);
      const signature = readSignature(peer.receive()!.bytes, [KEY]);
      if (typeof signature === "string") throw new Error(signature);
      return signature;
    }

    /** A beacon that receives, with a clock of its own. */
    function receiver() {
      const instances = new Instances(newInstance(), () => true);
      return (signature: Signature, wallMs: number) =>
        instances.accept(signature, "peer", { wallMs, steadyMs: wallMs }, LIVE_MS);
    }

    test("is accepted as soon as its clock is set back, and what it said before is not replayed later", async () => {
      const [receives, lateReceives] = [receiver(), receiver()];
      clockMs = TRUE_MS + HOUR_MS;
      const ahead = [await next(), await next()];
      expect(receives(ahead[0]!, TRUE_MS)).toBe("clock");
      clockMs = TRUE_MS + 1;
      const right = await next();
      expect(receives(right, TRUE_MS + 1)).toBeUndefined();
      expect(lateReceives(right, TRUE_MS + 1)).toBeUndefined();
      clockMs += 10_000;
      expect(receives(await next(), clockMs)).toBeUndefined();
      for (const message of ahead)
        for (const hear of [receives, lateReceives])
          expect(hear(message, TRUE_MS + HOUR_MS)).toBe("replayed");
      clockMs = TRUE_MS + HOUR_MS + 1;
      expect(receives(await next(), clockMs)).toBeUndefined();
    });

    test("is accepted as soon as its clock is set forward to the right time", async () => {
      const receives = receiver();
      clockMs = TRUE_MS - HOUR_MS;
      const behind = await next();
      expect(receives(behind, TRUE_MS)).toBe("clock");
      clockMs = TRUE_MS + 1;
      const right = await next();
      expect(receives(right, TRUE_MS + 1)).toBeUndefined();
      expect(right.instance).toBe(behind.instance);
      expect(receives(behind, TRUE_MS + 2)).toBe("clock");
    });

    test("is accepted as soon as the receiver's clock is right, whichever way that was wrong", async () => {
      for (const error of [-HOUR_MS, HOUR_MS]) {
        const receives = receiver();
        expect(receives(await next(), clockMs + error)).toBe("clock");
        clockMs += 10;
        const right = await next();
        expect(receives(right, clockMs)).toBeUndefined();
        expect(receives(right, clockMs)).toBe("duplicate");
      }
    });

    test("both clocks were ahead: nothing of that time is replayed when it comes again", async () => {
      const receives = receiver();
      clockMs = TRUE_MS + HOUR_MS;
      const ahead = await next();
      expect(receives(ahead, clockMs)).toBeUndefined();
      clockMs = TRUE_MS;
      expect(receives(await next(), clockMs)).toBeUndefined();
      expect(receives(ahead, TRUE_MS + HOUR_MS)).toBe("replayed");
    });

    test("a step of less than a second begins no other instance, and times go up all the same", async () => {
      const before = await next();
      clockMs -= 900;
      const after = await next();
      expect(after).toEqual({ instance: before.instance, timeMs: before.timeMs + 1 });
    });
  });

  test("one more, and the oldest is left out, wherever it stands", async () => {
    for (const oldest of [0, 5000, GOSSIP_NODES_MAX]) {
      expect(await collect(many(GOSSIP_NODES_MAX + 1, (i) => (i === oldest ? 7 : i % 7)))).toBe(1);
      const nodeIds = await arrives();
      expect(nodeIds).toHaveLength(GOSSIP_NODES_MAX);
      expect(nodeIds).not.toContain(oldest + 1);
    }
  });

  test("of nodes of one age, as many are named as there is room for", async () => {
    for (const age of [0, TTL_S - 1]) {
      expect(await collect(many(40_000, () => age))).toBe(40_000 - GOSSIP_NODES_MAX);
      expect(new Set(await arrives()).size).toBe(GOSSIP_NODES_MAX);
    }
  });

  test("those that are too old take no room from the others", async () => {
    const entries = many(40_000, (i) => (i % 3 === 0 ? 5 : TTL_S + (i % 50)));
    expect(await collect(entries)).toBe(0);
    expect(await arrives()).toEqual(entries.filter(({ ageS }) => ageS === 5).map(({ id }) => id));
  });

  test("whatever their ages: the newest are named, and nobody is who is older than one left out", async () => {
    const ages = fc.array(fc.tuple(fc.integer({ min: -2, max: TTL_S + 5 }), fc.nat(9000)), {
      minLength: 1,
      maxLength: 6,
    });
    await fc.assert(
      fc.asyncProperty(ages, fc.nat(1000), async (groups, rotation) => {
        const all = groups.flatMap(([ageS, count]) => Array<number>(count).fill(ageS));
        const ageOf = all.map((_, i) => all[(i * 7919 + rotation) % all.length]!);
        const entries = many(all.length, (i) => ageOf[i]!);
        const alive = entries.filter(({ ageS }) => ageS < TTL_S);
        expect(await collect(entries)).toBe(Math.max(0, alive.length - GOSSIP_NODES_MAX));
        const named = new Set(await arrives());
        expect(named.size).toBe(Math.min(alive.length, GOSSIP_NODES_MAX));
        let oldestNamed = 0;
        let newestLeftOut = TTL_S;
        for (const { id, ageS } of entries) {
          if (named.has(id)) oldestNamed = Math.max(oldestNamed, ageS);
          else newestLeftOut = Math.min(newestLeftOut, Math.max(0, ageS));
        }
        expect(oldestNamed).toBeLessThanOrEqual(newestLeftOut);
      }),
      { numRuns: 25 },
    );
  });

  test("a table that grew while it was looked through is named as far as its nodes were noted", async () => {
    expect(
      await collect(
        many(100, () => 1),
        0,
      ),
    ).toBe(0);
    expect(await arrives()).toHaveLength(100);
    // More than there was made room for: what is noted of it fills a message, and the rest of that
    // is left out.
    const fresh = new GossipSender(socket, BEACON_ID);
    const nodes = many(3 * GOSSIP_NODES_MAX, () => 1);
    const left = await fresh.collect(scanOf(nodes), 100, NOW_S, TTL_S);
    expect(left).toBeGreaterThanOrEqual(100);
    expect(left).toBeLessThan(2 * GOSSIP_NODES_MAX);
    expect(await fresh.send(peer.endpoint)).toBe(0);
    expect(parse(peer.receive()!.bytes).nodeIds).toHaveLength(GOSSIP_NODES_MAX);
  });

  test("names what is in a real table", async () => {
    const memory = new SharedMemory({ workers: 2, nodesMax: 1000, routesMax: 1 });
    memory.words[HASH_SECRET] = 1;
    const nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
    const home = endpointOf("192.0.2.1", 1);
    const ids = fc.sample(nodeId, 200);
    for (const [i, id] of ids.entries())
      nodes.record(id, home, 0, 0, NOW_S - (i % 2 === 0 ? 0 : TTL_S));
    const scan: Scan = (visit) => scanNodes(nodes, visit);
    expect(await sender.collect(scan, nodes.size(), NOW_S, TTL_S)).toBe(0);
    const alive = [...nodes.entries()]
      .filter(({ seenS }) => seenS === NOW_S)
      .map(({ nodeId: id }) => id);
    expect((await arrives()).sort()).toEqual(alive.sort());
    // Some of the bridge, of which every second was not known before, and the others perhaps too
    // old.
    const bridged = ids.slice(0, 20).map((id, i) => (i % 2 === 0 ? id : id ^ 0x5555_5555));
    for (const id of bridged) nodes.bridge(id, NOW_S - TTL_S);
    const named = new Set([...alive, ...bridged.map((id) => id >>> 0)]);
    expect(await sender.collect(scan, nodes.size(), NOW_S, TTL_S)).toBe(0);
    expect((await arrives()).sort()).toEqual([...named].sort());
  });

  test("a scan that fails leaves the message as it was", async () => {
    await collect(many(3, () => 0));
    const failing: Scan = async (visit) => {
      await scanOf([{ id: 9, ageS: 0 }])(visit);
      throw new Error("no luck");
    };
    await expect(sender.collect(failing, 10, NOW_S, TTL_S)).rejects.toThrow("no luck");
    expect(await arrives()).toEqual([1, 2, 3]);
  });

  test("says why the kernel did not take it, and goes on with the next", async () => {
    await collect(many(3, () => 0));
    const nowhere = endpointOf(LOOPBACK[family], 0); // nothing can be sent to port 0
    expect(await sender.send(nowhere)).toBe(EINVAL);
    expect(await arrives()).toEqual([1, 2, 3]);
  });
});
