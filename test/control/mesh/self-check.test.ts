/**
 * A beacon's look at itself through a peer, which a socket here plays, as it plays the beacon's own
 * port.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { endpointOf } from "../../../ffi/endpoint.ts";
import type { Warn } from "../../../src/control/mesh/context.ts";
import { type CheckedPeer, SelfCheck } from "../../../src/control/mesh/self-check.ts";
import {
  CLOCK_S,
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  SharedMemory,
} from "../../../src/shared/memory.ts";
import { ADDED } from "../../../src/shared/nodes.ts";
import { NodeTableOwner } from "../../../src/shared/nodes-owner.ts";
import { Client } from "../../e2e/support/client.ts";
import { nameOf } from "../../e2e/support/mesh.ts";
import { until } from "../../e2e/support/wait.ts";
import { deliver } from "../../e2e/support/wire.ts";

/**
 * So long that no round ends by itself, and so short that a peer is known for two of them at once.
 */
const LONG_MS = 3_600_000;
const SHORT_MS = 0;

let socket: Client;
let other: Client;
let memory: SharedMemory;
let nodes: NodeTableOwner;
let check: SelfCheck;
let warnings: string[];
let peer: CheckedPeer;

beforeEach(async () => {
  const nowhere = { address: "127.0.0.1", port: 9 };
  [socket, other] = [
    await Client.open("127.0.0.1", nowhere),
    await Client.open("127.0.0.1", nowhere),
  ];
  memory = new SharedMemory({ workers: 1, nodesMax: 2, routesMax: 1 });
  memory.words[CLOCK_S] = 7;
  memory.words[HASH_SECRET] = 5;
  nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
  warnings = [];
  const warn: Warn = (_event, _fields, message) => warnings.push(message);
  const { address, port } = socket.address;
  check = new SelfCheck({ memory, nodes, address: { address, port, family: "IPv4" }, warn });
  peer = { address: nameOf(socket), endpoint: endpointOf(address, port), seenSinceMs: 0 };
});
afterEach(() => {
  check.leave();
  for (const client of [socket, other]) client.close();
});

const stats = () => check.statsOf(peer.address);
const ownNode = () => [...nodes.entries()].find(({ nodeId }) => nodeId >= 2 ** 31);

/** Asks the peer, and takes what it gets. */
async function ask(): Promise<{ message: Uint8Array; from: { address: string; port: number } }> {
  await check.round([peer], SHORT_MS);
  const { bytes, from } = await socket.next();
  return { message: bytes, from };
}

const answerTo = (message: Uint8Array) =>
  deliver(Buffer.from(message).readUInt32BE(1), message.subarray(9));

describe("a packet through a peer", () => {
  test("is a Relay of the own node to itself, and back from the beacon it tells the round trip", async () => {
    const { message, from } = await ask();
    const own = ownNode()!;
    expect([...message.subarray(0, 9)]).toEqual([
      5,
      ...[own.nodeId, own.nodeId].flatMap((id) => [
        ...Buffer.from(Uint32Array.of(id).buffer).reverse(),
      ]),
    ]);
    expect(message).toHaveLength(25);
    expect(own.endpoint).toEqual(endpointOf(from.address, from.port));
    expect([own.seenS, check.ownNodes]).toEqual([7, 1]);
    expect(stats()).toEqual({ sent: 1, lost: 0, disagreed: 0, lastRttMs: null });
    await socket.send(answerTo(message), from);
    const rttMs = await until("the round trip", () => stats()?.lastRttMs ?? undefined);
    expect(rttMs).toBeGreaterThan(0);
    const { message: next } = await ask();
    expect(next.subarray(0, 9)).toEqual(message.subarray(0, 9));
    expect(next.subarray(9)).not.toEqual(message.subarray(9));
    expect(stats()).toEqual({ sent: 2, lost: 0, disagreed: 0, lastRttMs: rttMs });
  });

  test("from another source counts as a disagreement", async () => {
    const { message, from } = await ask();
    await other.send(answerTo(message), from);
    await until("a disagreement", () => stats()?.disagreed === 1);
    expect(warnings[0]).toContain(`through ${peer.address} came back from ${nameOf(other)}`);
    await socket.send(answerTo(message), from); // too late
    await ask();
    expect(stats()).toEqual({ sent: 2, lost: 0, disagreed: 1, lastRttMs: null });
  });

  test("that is not back within the round is lost, whatever else comes; worth a word after three", async () => {
    for (let round = 0; round < 3; round++) {
      expect(check.remarks).toEqual([]);
      const { message, from } = await ask();
      const answer = answerTo(message);
      const forged = Uint8Array.from(answer, (byte, i) => (i === 20 ? byte ^ 1 : byte));
      for (const wrong of [forged, answer.subarray(0, 20), message, new Uint8Array([...answer, 0])])
        await socket.send(wrong, from);
      await Bun.sleep(2); // for the receiver, which is on this thread
    }
    await ask();
    expect(stats()).toEqual({ sent: 4, lost: 3, disagreed: 0, lastRttMs: null });
    expect(check.remarks).toEqual([`peer ${peer.address}: self-check lost 3 in a row`]);
    // which was begun early, so nothing is lost yet
    await check.round([{ ...peer, seenSinceMs: undefined }], LONG_MS);
    expect(stats()?.lost).toBe(3);
  });
});

test("a peer that is not heard, or not for two rounds, is not asked; nor is any before the own node is known", async () => {
  await check.round([peer], LONG_MS);
  await check.round([{ ...peer, seenSinceMs: undefined }], SHORT_MS);
  await check.round([{ ...peer, seenSinceMs: performance.now() }], LONG_MS);
  await check.round([peer], LONG_MS);
  expect([stats(), socket.pending, check.ownNodes]).toEqual([null, 0, 1]);
});

test("has no own node without peers, or in a full table", async () => {
  await check.round([], SHORT_MS);
  expect(nodes.size()).toBe(0);
  await ask();
  await check.round([], SHORT_MS);
  expect([nodes.size(), check.ownNodes, stats()]).toEqual([0, 0, null]);
  for (const id of [1, 2]) expect(nodes.record(id, peer.endpoint, 0, 0, 7)).toBe(ADDED);
  await check.round([peer], SHORT_MS);
  expect([stats(), socket.pending]).toEqual([null, 0]);
  expect(warnings[0]).toContain("no room");
});

test("keeps the own node in the table, and gives it another id once a node claims its id", async () => {
  await ask();
  const { nodeId: before } = ownNode()!;
  memory.words[CLOCK_S] = 8;
  check.tick();
  expect(ownNode()).toMatchObject({ nodeId: before, seenS: 8 });
  nodes.expire(0, 0, nodes.slotsPerShard, 100);
  check.tick();
  expect(ownNode()?.nodeId).toBe(before);
  nodes.record(before, peer.endpoint, 0, 0, 8);
  expect(check.ownNodes).toBe(0);
  const { message } = await ask();
  expect(Buffer.from(message).readUInt32BE(1)).not.toBe(before);
  check.leave();
  expect([...nodes.entries()]).toMatchObject([{ nodeId: before, endpoint: peer.endpoint }]);
});

test("closes a flooded port until the next round, and counts no check as lost", async () => {
  const { from } = await ask();
  await until("the port is closed", async () => {
    for (let i = 0; i < 100; i++) await other.send(new Uint8Array(21), from);
    await Bun.sleep(1); // the receiver is on this thread
    return warnings.length > 0;
  });
  expect(warnings).toEqual(["no self-check until its next round: its port is flooded"]);
  const next = await ask();
  expect(next.from.port).not.toBe(from.port);
  expect(ownNode()?.endpoint).toEqual(endpointOf(next.from.address, next.from.port));
  expect(nodes.size()).toBe(1);
  expect(stats()).toEqual({ sent: 2, lost: 0, disagreed: 0, lastRttMs: null });
});
