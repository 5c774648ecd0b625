import { describe, expect, spyOn, test } from "bun:test";
import fc from "fast-check";
import type { Clock } from "../../ffi/clock.ts";
import { ENDPOINT_PORT_MASK, ENDPOINT_WORDS, endpointOf } from "../../ffi/endpoint.ts";
import { nodeHash, shardOfHash, slotOfHash } from "../../src/shared/hash.ts";
import {
  ARRIVALS_NOTED,
  GROUP_SLOTS,
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  SHARD_LOCK,
  SHARD_NODES,
  SHARD_REMOVALS,
  SharedMemory,
  workerLock,
} from "../../src/shared/memory.ts";
import {
  ADDED,
  CONTENDED,
  HELD,
  KEY_IGNORED,
  KEY_KEPT,
  KEY_REFUSED,
  MOVED,
  NODE_LIMIT,
  REFRESHED,
  SHARD_FULL,
} from "../../src/shared/nodes.ts";
import { HEARD_SINCE, NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { IS_BRIDGED, SLOT_WORDS, WANTS_DEST } from "../../src/shared/slots.ts";
import { anyEndpoint } from "../support/arbitraries.ts";

const SECRET = 0x5ec2_e701;

function table(
  workers: number,
  nodesMax: number,
  clock?: Clock,
): { memory: SharedMemory; nodes: NodeTableOwner } {
  const memory = new SharedMemory({ workers, nodesMax, routesMax: 100 });
  memory.words[HASH_SECRET] = SECRET;
  return { memory, nodes: new NodeTableOwner(memory, MAIN_THREAD_LOCK, clock) };
}

/** Ids of `shard` whose search begins at one of `starts` slots, from slot `first` on. */
function idsStartingAt(
  memory: SharedMemory,
  shard: number,
  first: number,
  starts: number,
  count: number,
): number[] {
  const ids: number[] = [];
  for (let id = 1; ids.length < count; id++) {
    const hash = nodeHash(id, SECRET);
    if (shardOfHash(hash, memory.shards) !== shard) continue;
    const slot = slotOfHash(hash, memory.slotsPerShard);
    if ((slot - first + memory.slotsPerShard) % memory.slotsPerShard < starts) ids.push(id);
  }
  return ids;
}

/** The endpoint in the table, or undefined. */
function lookUp(
  nodes: NodeTableOwner,
  nodeId: number,
): { endpoint: Int32Array; flags: number; version: number } | undefined {
  const slot = nodes.find(nodeId);
  if (slot < 0) return undefined;
  const endpoint = new Int32Array(ENDPOINT_WORDS);
  const version = nodes.slots.read(slot, nodeId, endpoint, 0);
  if (version < 0) return undefined;
  expect(nodes.slots.version(slot)).toBe(version);
  const flags = endpoint[0]! & ~ENDPOINT_PORT_MASK;
  endpoint[0] = endpoint[0]! & ENDPOINT_PORT_MASK;
  return { endpoint, flags, version };
}

// Words of a slot, as the head of src/shared/nodes.ts lays it out.
const ID = 0;
const SEEN_S = 2;

/** Removes one node, refreshed or not, and none that moves into its slot. */
function remove(memory: SharedMemory, nodes: NodeTableOwner, nodeId: number): void {
  const slot = nodes.find(nodeId);
  const index = (slot - memory.slotsAt) / SLOT_WORDS;
  const shard = Math.floor(index / memory.slotsPerShard);
  memory.words[slot + SEEN_S] = 0; // no refresh is at second 0
  expect(nodes.expire(shard, index % memory.slotsPerShard, 1, 1)).toBe(1);
}

const HOME = endpointOf("192.0.2.1", 9001);
const AWAY = endpointOf("2001:db8::1", 4000);

describe("NodeTableOwner", () => {
  test("records, refreshes, moves, and its version says so", () => {
    const { nodes } = table(1, 10);
    expect(nodes.find(7)).toBe(-1);
    expect(nodes.record(7, HOME, 0, 0, 1)).toBe(ADDED);
    const slot = nodes.find(7);
    const { version } = lookUp(nodes, 7)!;
    expect(nodes.record(7, HOME, 0, 0, 2)).toBe(REFRESHED);
    expect(nodes.record(7, HOME, 0, -1, 2)).toBe(REFRESHED);
    expect(nodes.slots.version(slot)).toBe(version);
    expect(nodes.record(7, AWAY, 0, 0, 3)).toBe(MOVED);
    const moved = nodes.slots.version(slot);
    expect(moved).not.toBe(version);
    expect(nodes.record(7, AWAY, 0, WANTS_DEST, 3)).toBe(MOVED);
    expect(nodes.slots.version(slot)).not.toBe(moved);
    expect(nodes.record(7, HOME, 0, -1, 3)).toBe(MOVED);
    expect(lookUp(nodes, 7)).toMatchObject({ endpoint: HOME, flags: WANTS_DEST });
    expect(nodes.find(7)).toBe(slot);
    expect(nodes.size()).toBe(1);
  });

  test("takes an endpoint from the midst of an array and leaves the flags in its first word out", () => {
    const { nodes } = table(1, 10);
    const words = new Int32Array(20).fill(-1);
    words.set(HOME, 5);
    words[5] = words[5]! | WANTS_DEST;
    nodes.record(7, words, 5, 0, 1);
    expect(lookUp(nodes, 7)).toMatchObject({ endpoint: HOME, flags: 0 });
    const out = new Int32Array(10).fill(99);
    nodes.slots.read(nodes.find(7), 7, out, 2);
    expect([...out]).toEqual([99, 99, ...HOME, 99, 99]);
  });

  test("a version stays positive, so that it is never taken for a failed read", () => {
    const { memory, nodes } = table(1, 10);
    nodes.record(7, HOME, 0, 0, 1);
    const slot = nodes.find(7);
    memory.words[slot + 1] = 0x7fff_fffe; // word 1 is the version
    for (const endpoint of [AWAY, HOME, AWAY, HOME]) {
      const before = nodes.slots.version(slot);
      expect(nodes.record(7, endpoint, 0, 0, 1)).toBe(MOVED);
      const found = lookUp(nodes, 7)!;
      expect(found.endpoint).toEqual(endpoint);
      expect(found.version).toBeGreaterThanOrEqual(0);
      expect(found.version).not.toBe(before);
    }
  });

  test("reads nothing for another node's id", () => {
    const { memory, nodes } = table(1, 10);
    nodes.record(7, HOME, 0, 0, 1);
    const slot = nodes.find(7);
    const out = new Int32Array(ENDPOINT_WORDS);
    expect(nodes.slots.read(slot, 8, out, 0)).toBe(-1);
    remove(memory, nodes, 7);
    expect(nodes.slots.read(slot, 7, out, 0)).toBe(-1);
  });

  test("keeps a merge limit until the next refresh", () => {
    const { nodes } = table(1, 10);
    nodes.record(7, HOME, 0, 0, 1);
    const slot = nodes.find(7);
    expect(nodes.slots.mergeLimit(slot)).toBe(0);
    nodes.slots.limitMerge(slot, 1199);
    expect(nodes.slots.mergeLimit(slot)).toBe(1199);
    nodes.record(7, HOME, 0, 0, 2);
    expect(nodes.slots.mergeLimit(slot)).toBe(0);
  });

  test("never finds id 0, even among vacant slots", () => {
    const { memory, nodes } = table(1, 10);
    expect(nodes.find(0)).toBe(-1);
    nodes.record(7, HOME, 0, 0, 1);
    remove(memory, nodes, 7);
    expect(nodes.find(0)).toBe(-1);
    expect([...nodes.entries()]).toEqual([]);
  });

  test("holds the extreme ids apart, and shows them unsigned", () => {
    const { nodes } = table(3, 10);
    const ids = [1, -1, 0x7fff_ffff, -0x8000_0000];
    for (const [i, id] of ids.entries()) {
      expect(nodes.record(id, endpointOf("192.0.2.1", i + 1), 0, 0, 1)).toBe(ADDED);
    }
    for (const [i, id] of ids.entries()) {
      expect(lookUp(nodes, id)?.endpoint).toEqual(endpointOf("192.0.2.1", i + 1));
    }
    expect([...nodes.entries()].map(({ nodeId }) => nodeId).sort((a, b) => a - b)).toEqual([
      1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
    ]);
  });

  test("takes an id unsigned for the same node as signed", () => {
    const { nodes } = table(1, 10);
    nodes.record(-1, HOME, 0, 0, 1);
    expect(nodes.find(0xffff_ffff)).toBe(nodes.find(-1));
    expect(nodes.record(0xffff_ffff, HOME, 0, 0, 2)).toBe(REFRESHED);
    expect(
      nodes.slots.read(nodes.find(-1), 0xffff_ffff, new Int32Array(ENDPOINT_WORDS), 0),
    ).toBeGreaterThan(0);
  });

  test("refuses id 0 and leaves no trace of it", () => {
    const { memory, nodes } = table(1, 10);
    const before = memory.words.slice();
    expect(() => nodes.record(0, HOME, 0, 0, 1)).toThrow(RangeError);
    expect(memory.words).toEqual(before);
  });

  test("refuses a new node at the limit, over all shards, but refreshes and moves the old", () => {
    const { memory, nodes } = table(4, 10);
    for (let id = 1; id <= 10; id++) expect(nodes.record(id, HOME, 0, 0, 1)).toBe(ADDED);
    expect(nodes.record(11, HOME, 0, 0, 1)).toBe(NODE_LIMIT);
    expect(nodes.find(11)).toBe(-1);
    expect(nodes.record(3, HOME, 0, 0, 1)).toBe(REFRESHED);
    expect(nodes.record(3, AWAY, 0, 0, 1)).toBe(MOVED);
    remove(memory, nodes, 3);
    expect(nodes.record(11, HOME, 0, 0, 1)).toBe(ADDED);
    expect(nodes.record(3, HOME, 0, 0, 1)).toBe(NODE_LIMIT);
    expect(nodes.size()).toBe(10);
  });

  test("refuses a node whose chain of slots is full, and takes it when one is free", () => {
    const { memory, nodes } = table(1, 2000);
    const ids = idsStartingAt(memory, 0, memory.slotsPerShard - 30, 1, 600);
    const added: number[] = [];
    let refused: number | undefined;
    for (const id of ids) {
      const result = nodes.record(id, HOME, 0, 0, 1);
      if (result === ADDED) added.push(id);
      else {
        expect(result).toBe(SHARD_FULL);
        refused ??= id;
      }
    }
    expect(refused).toBeDefined();
    expect(added.length).toBe(512);
    expect(nodes.size()).toBe(added.length);
    for (const id of added) expect(nodes.find(id)).toBeGreaterThanOrEqual(0);
    expect(nodes.record(added[0]!, AWAY, 0, 0, 1)).toBe(MOVED);
    expect(nodes.find(refused!)).toBe(-1);
    remove(memory, nodes, added[100]!);
    expect(nodes.record(refused!, HOME, 0, 0, 1)).toBe(ADDED);
    expect(nodes.find(added[100]!)).toBe(-1);
    for (const id of added) if (id !== added[100]) expect(nodes.find(id)).toBeGreaterThanOrEqual(0);
  });

  test("expires what was last refreshed before a second, in a range of one shard", () => {
    const { nodes } = table(2, 100);
    for (let id = 1; id <= 100; id++) nodes.record(id, HOME, 0, 0, id);
    expect(nodes.shards).toBe(2);
    const whole = nodes.slotsPerShard;
    const inShard = (shard: number) =>
      [...Array(100).keys()]
        .map((i) => i + 1)
        .filter((id) => shardOfHash(nodeHash(id, SECRET), 2) === shard);
    expect(nodes.expire(0, 0, whole, 1)).toBe(0);
    expect(nodes.expire(0, 0, whole, 51)).toBe(inShard(0).filter((id) => id < 51).length);
    const left = [...inShard(0).filter((id) => id >= 51), ...inShard(1)].sort((a, b) => a - b);
    expect([...nodes.entries()].map(({ nodeId }) => nodeId).sort((a, b) => a - b)).toEqual(left);
    for (const { nodeId, seenS } of nodes.entries()) expect(seenS).toBe(nodeId);
    // In pieces, the last of which reaches beyond the shard's end.
    let removed = 0;
    for (let from = 0; from < whole; from += 100) removed += nodes.expire(1, from, 100, 1000);
    expect(removed).toBe(inShard(1).length);
    expect(nodes.size()).toBe(inShard(0).filter((id) => id >= 51).length);
  });
});

describe("nodes of the bridge", () => {
  const NOWHERE = new Int32Array(ENDPOINT_WORDS);
  const entryOf = (nodes: NodeTableOwner, nodeId: number) =>
    [...nodes.entries()].find((entry) => entry.nodeId === nodeId >>> 0);
  /** Ids whose chain passes the end of a shard. */
  const chain = (memory: SharedMemory, count: number) =>
    idsStartingAt(memory, 0, memory.slotsPerShard - 3, 2, count);

  test("one that was not known is added, without an endpoint", () => {
    const { memory, nodes } = table(2, 10);
    expect(nodes.bridge(7, 5)).toBe(ADDED);
    expect(lookUp(nodes, 7)).toMatchObject({ endpoint: NOWHERE, flags: IS_BRIDGED });
    expect(entryOf(nodes, 7)).toEqual({
      nodeId: 7,
      endpoint: NOWHERE,
      seenS: 5,
      wantsDest: false,
      isBridged: true,
    });
    expect(nodes.size()).toBe(1);
    const before = memory.words.slice();
    expect(nodes.bridge(7, 6)).toBe(REFRESHED);
    expect(memory.words).toEqual(before);
  });

  test("one added in a slot that was another's has nothing of it", () => {
    const { memory, nodes } = table(1, 10);
    const [first, second] = idsStartingAt(memory, 0, 100, 1, 2) as [number, number];
    nodes.record(first, AWAY, 0, WANTS_DEST, 1);
    const slot = nodes.find(first);
    nodes.slots.limitMerge(slot, 1199);
    remove(memory, nodes, first);
    expect(nodes.bridge(second, 2)).toBe(ADDED);
    expect(nodes.find(second)).toBe(slot);
    expect(nodes.slots.mergeLimit(slot)).toBe(0);
    expect(lookUp(nodes, second)).toMatchObject({ endpoint: NOWHERE, flags: IS_BRIDGED });
  });

  test.each([0, WANTS_DEST])(
    "one that was heard by UDP, with flags %d, keeps what it has",
    (flags) => {
      const { memory, nodes } = table(1, 10);
      nodes.record(7, HOME, 0, flags, 5);
      const slot = nodes.find(7);
      nodes.slots.limitMerge(slot, 1199);
      const { version } = lookUp(nodes, 7)!;
      expect(nodes.bridge(7, 6)).toBe(MOVED);
      expect(nodes.find(7)).toBe(slot);
      const bridged = lookUp(nodes, 7)!;
      expect(bridged).toMatchObject({ endpoint: HOME, flags: flags | IS_BRIDGED });
      expect(bridged.version).not.toBe(version);
      expect(nodes.slots.mergeLimit(slot)).toBe(1199);
      const wantsDest = flags !== 0;
      expect(entryOf(nodes, 7)).toEqual({
        nodeId: 7,
        endpoint: HOME,
        seenS: 5,
        wantsDest,
        isBridged: true,
      });
      const before = memory.words.slice();
      expect(nodes.bridge(7, 7)).toBe(REFRESHED);
      expect(memory.words).toEqual(before);
      expect(nodes.unbridge(7)).toBe(true);
      const after = lookUp(nodes, 7)!;
      expect(after).toMatchObject({ endpoint: HOME, flags });
      expect(after.version).not.toBe(bridged.version);
      expect(nodes.size()).toBe(1);
    },
  );

  test("what is heard by UDP meanwhile is noted, does not unbridge, and is in force after that", () => {
    const { nodes } = table(1, 10);
    nodes.record(7, HOME, 0, 0, 1);
    for (const [i, id] of [7, 8].entries()) {
      expect(nodes.bridge(id, 2)).toBe(i === 0 ? MOVED : ADDED);
      if (i === 1) expect(nodes.record(id, HOME, 0, 0, 3)).toBe(MOVED);
      expect(nodes.record(id, HOME, 0, 0, 3)).toBe(REFRESHED);
      expect(lookUp(nodes, id)).toMatchObject({ endpoint: HOME, flags: IS_BRIDGED });
      expect(nodes.record(id, AWAY, 0, -1, 4)).toBe(MOVED);
      expect(lookUp(nodes, id)).toMatchObject({ endpoint: AWAY, flags: IS_BRIDGED });
      expect(nodes.record(id, AWAY, 0, WANTS_DEST, 5)).toBe(MOVED);
      expect(nodes.record(id, AWAY, 0, -1, 6)).toBe(REFRESHED);
      expect(lookUp(nodes, id)).toMatchObject({ endpoint: AWAY, flags: IS_BRIDGED | WANTS_DEST });
      expect(entryOf(nodes, id)).toMatchObject({ seenS: 6, wantsDest: true, isBridged: true });
      expect(nodes.unbridge(id)).toBe(true);
      expect(lookUp(nodes, id)).toMatchObject({ endpoint: AWAY, flags: WANTS_DEST });
      expect(entryOf(nodes, id)).toMatchObject({ seenS: 6, wantsDest: true, isBridged: false });
    }
    expect(nodes.size()).toBe(2);
  });

  test("one that has no endpoint is gone once it left, and no other", () => {
    const { nodes } = table(2, 10);
    nodes.record(1, HOME, 0, 0, 1);
    for (const id of [2, 3, 4]) nodes.bridge(id, 1);
    for (const [i, id] of [3, 2, 4].entries()) {
      expect(nodes.unbridge(id)).toBe(true);
      expect(nodes.find(id)).toBe(-1);
      expect(nodes.size()).toBe(3 - i);
    }
    expect([...nodes.entries()].map(({ nodeId }) => nodeId)).toEqual([1]);
    expect(nodes.bridge(3, 2)).toBe(ADDED);
  });

  test("to let one go that is not there, or not of the bridge, does nothing", () => {
    const { memory, nodes } = table(2, 10);
    nodes.record(1, HOME, 0, WANTS_DEST, 1);
    nodes.bridge(2, 1);
    const before = memory.words.slice();
    for (const id of [1, 3, -1, 0]) {
      expect(nodes.unbridge(id)).toBe(true);
      expect(memory.words).toEqual(before);
    }
    nodes.unbridge(2);
    const without = memory.words.slice();
    expect(nodes.unbridge(2)).toBe(true); // once more
    expect(memory.words).toEqual(without);
  });

  test("id 0 is nobody's, and leaves no trace", () => {
    const { memory, nodes } = table(1, 10);
    const before = memory.words.slice();
    expect(() => nodes.bridge(0, 1)).toThrow(RangeError);
    expect(() => nodes.bridge(2 ** 32, 1)).toThrow(RangeError);
    expect(nodes.unbridge(0)).toBe(true);
    expect(memory.words).toEqual(before);
  });

  test("an id unsigned is the same as signed", () => {
    const { nodes } = table(3, 10);
    expect(nodes.bridge(0xffff_ffff, 1)).toBe(ADDED);
    expect(nodes.bridge(-1, 1)).toBe(REFRESHED);
    expect(lookUp(nodes, -1)).toMatchObject({ flags: IS_BRIDGED });
    nodes.record(-0x8000_0000, HOME, 0, 0, 1);
    expect(nodes.bridge(0x8000_0000, 1)).toBe(MOVED);
    expect(nodes.unbridge(0xffff_ffff)).toBe(true);
    expect(nodes.find(-1)).toBe(-1);
    expect(nodes.unbridge(-0x8000_0000)).toBe(true);
    expect(lookUp(nodes, 0x8000_0000)).toMatchObject({ endpoint: HOME, flags: 0 });
  });

  test("and those heard by UDP are removed when asked for, whatever their id's sign; others stay", () => {
    const { memory, nodes } = table(2, 100);
    for (let id = 1; id <= 50; id++) nodes.record(id, HOME, 0, 0, 1);
    nodes.record(-5, HOME, 0, 0, 1);
    nodes.bridge(60, 1);
    for (const id of [7, 60, 2 ** 32 - 5]) {
      expect(nodes.remove(id)).toBe(1);
      expect(nodes.find(id)).toBe(-1);
      expect(nodes.remove(id)).toBe(0);
    }
    expect(nodes.remove(0)).toBe(0);
    expect(nodes.size()).toBe(49);
    for (let id = 1; id <= 50; id++)
      if (id !== 7) expect(lookUp(nodes, id)).toMatchObject({ endpoint: HOME });
    expect(memory.words[memory.shardWords(nodes.shardOf(7)) + SHARD_LOCK]).toBe(0);
    expect(nodes.record(7, HOME, 0, 0, 1)).toBe(ADDED);
  });

  test("count among the nodes of the limit; those known find room however full it is", () => {
    const { nodes } = table(4, 10);
    for (let id = 1; id <= 5; id++) nodes.record(id, HOME, 0, 0, 1);
    for (let id = 6; id <= 10; id++) expect(nodes.bridge(id, 1)).toBe(ADDED);
    expect(nodes.bridge(11, 1)).toBe(NODE_LIMIT);
    expect(nodes.record(11, HOME, 0, 0, 1)).toBe(NODE_LIMIT);
    expect(nodes.find(11)).toBe(-1);
    expect(nodes.bridge(6, 2)).toBe(REFRESHED);
    expect(nodes.bridge(1, 2)).toBe(MOVED);
    expect(nodes.record(6, HOME, 0, 0, 2)).toBe(MOVED);
    nodes.unbridge(6); // it stays, with its endpoint
    expect(nodes.bridge(11, 2)).toBe(NODE_LIMIT);
    nodes.unbridge(7);
    expect(nodes.bridge(11, 2)).toBe(ADDED);
    expect(nodes.size()).toBe(10);
  });

  test("one whose chain of slots is full is refused, those in it are not, and one that leaves makes room", () => {
    const { memory, nodes } = table(1, 2000);
    const ids = idsStartingAt(memory, 0, memory.slotsPerShard - 30, 1, 514);
    const [refused, ...rest] = ids.splice(512) as [number, number];
    for (const [i, id] of ids.entries()) {
      if (i % 2 === 0) expect(nodes.bridge(id, 1)).toBe(ADDED);
      else expect(nodes.record(id, HOME, 0, 0, 1)).toBe(ADDED);
    }
    const before = memory.words.slice();
    expect(nodes.bridge(refused, 1)).toBe(SHARD_FULL);
    expect(nodes.unbridge(refused)).toBe(true);
    expect(memory.words).toEqual(before);
    expect(nodes.find(refused)).toBe(-1);
    expect(nodes.bridge(ids.at(-1)!, 2)).toBe(MOVED);
    expect(nodes.bridge(ids.at(-2)!, 2)).toBe(REFRESHED);
    nodes.unbridge(ids[0]!);
    expect(nodes.bridge(refused, 2)).toBe(ADDED);
    expect(nodes.bridge(rest[0]!, 2)).toBe(SHARD_FULL);
    for (const id of ids.slice(1)) expect(nodes.find(id)).toBeGreaterThanOrEqual(0);
    expect(nodes.size()).toBe(512);
  });

  test("those behind one that leaves move up, with all that they have", () => {
    for (let leaving = 0; leaving < 12; leaving++) {
      const { memory, nodes } = table(2, 100);
      const ids = chain(memory, 12);
      // By turns: of the bridge and never heard by UDP, of the bridge and heard, only heard.
      for (const [i, id] of ids.entries()) {
        if (i % 3 !== 0)
          nodes.record(id, endpointOf("192.0.2.1", id & 0xffff || 1), 0, i & WANTS_DEST, i);
        if (i % 3 !== 2) nodes.bridge(id, i);
      }
      const gone = ids[leaving]!;
      const slotsBefore = ids.map((id) => nodes.find(id));
      if (leaving % 3 === 0) {
        nodes.unbridge(gone);
      } else {
        if (leaving % 3 === 1) nodes.unbridge(gone);
        remove(memory, nodes, gone);
      }
      expect(nodes.find(gone)).toBe(-1);
      expect(nodes.size()).toBe(11);
      for (const [i, id] of ids.entries()) {
        if (id === gone) continue;
        expect(entryOf(nodes, id)).toEqual({
          nodeId: id,
          endpoint: i % 3 === 0 ? NOWHERE : endpointOf("192.0.2.1", id & 0xffff || 1),
          seenS: i,
          wantsDest: i % 3 !== 0 && (i & WANTS_DEST) !== 0,
          isBridged: i % 3 !== 2,
        });
        expect(lookUp(nodes, id)).toBeDefined();
      }
      // But for the last of the chain, somebody stands where it stood.
      const moved = ids.filter((id, i) => id !== gone && nodes.find(id) !== slotsBefore[i]);
      if (leaving < 10) expect(moved.length).toBeGreaterThan(0);
    }
  });

  test("expire neither, however long they were silent, until they leave", () => {
    const { memory, nodes } = table(1, 100);
    const ids = chain(memory, 9);
    for (const [i, id] of ids.entries()) {
      if (i % 3 !== 0) nodes.record(id, HOME, 0, 0, 1);
      if (i % 3 !== 2) nodes.bridge(id, 1);
    }
    const expireAll = () => nodes.expire(0, 0, nodes.slotsPerShard, 1000);
    expect(expireAll()).toBe(3);
    expect(expireAll()).toBe(0);
    for (const [i, id] of ids.entries()) expect(nodes.find(id) >= 0).toBe(i % 3 !== 2);
    expect(nodes.size()).toBe(6);
    for (const id of ids) nodes.unbridge(id);
    expect(nodes.size()).toBe(3); // those heard by UDP
    expect(expireAll()).toBe(3);
    expect(nodes.size()).toBe(0);
    expect([...nodes.entries()]).toEqual([]);
  });

  test("a lock that nobody releases makes bridge and unbridge give up, without a change", () => {
    const { memory, nodes } = table(1, 10);
    nodes.record(1, HOME, 0, 0, 1);
    nodes.bridge(2, 1);
    const lock = memory.shardWords(0) + SHARD_LOCK;
    memory.words[lock] = workerLock(3);
    const before = memory.words.slice();
    for (const id of [1, 3]) expect(nodes.bridge(id, 2)).toBe(CONTENDED);
    expect(nodes.unbridge(2)).toBe(false);
    expect(memory.words).toEqual(before);
    memory.words[lock] = 0;
    expect(nodes.bridge(1, 2)).toBe(MOVED);
    expect(nodes.unbridge(2)).toBe(true);
    expect(nodes.find(2)).toBe(-1);
  }, 120_000);
});

describe("nodes' keys", () => {
  const HOME = endpointOf("192.0.2.1", 4001);
  const AWAY = endpointOf("192.0.2.2", 4001);
  const ID = 0x8000_0007;
  /** Of 32 bytes, behind some that are not of it. */
  const keyOf = (number: number): Uint8Array => {
    const key = new Uint8Array(32);
    for (let i = 0; i < 8; i++)
      new DataView(key.buffer).setUint32(4 * i, Math.imul(number, 2 * i + 1));
    return key;
  };
  const keep = (nodes: NodeTableOwner, id: number, key: Uint8Array, from = HOME, at = 5): number =>
    nodes.keepKey(
      id,
      from,
      new DataView(Uint8Array.from([...new Uint8Array(at), ...key]).buffer),
      at,
    );

  test("the first stays, whatever comes after it, and however the node moves", () => {
    const { nodes } = table(2, 10);
    nodes.record(ID, HOME, 0, 0, 1);
    expect(nodes.keyOf(ID)).toBeUndefined();
    expect(keep(nodes, ID, keyOf(1))).toBe(KEY_KEPT);
    expect(keep(nodes, ID | 0, keyOf(1))).toBe(KEY_KEPT);
    expect(keep(nodes, ID, keyOf(2))).toBe(KEY_REFUSED);
    expect(nodes.record(ID, AWAY, 0, WANTS_DEST, 2)).toBe(MOVED);
    expect(keep(nodes, ID, keyOf(2), AWAY)).toBe(KEY_REFUSED);
    expect(nodes.bridge(ID, 2)).toBe(MOVED);
    expect(nodes.unbridge(ID)).toBe(true);
    expect(nodes.keyOf(ID)).toEqual(keyOf(1));
    expect(lookUp(nodes, ID)?.endpoint).toEqual(AWAY);
    expect([...nodes.entries()]).toEqual([
      { nodeId: ID, endpoint: AWAY, seenS: 2, wantsDest: true, isBridged: false },
    ]);
  });

  test("one that differs in a single bit is another", () => {
    const { nodes } = table(1, 10);
    nodes.record(ID, HOME, 0, 0, 1);
    expect(keep(nodes, ID, keyOf(1))).toBe(KEY_KEPT);
    for (let bit = 0; bit < 256; bit++) {
      const other = keyOf(1);
      other[bit >>> 3]! ^= 1 << (bit & 7);
      expect(keep(nodes, ID, other)).toBe(KEY_REFUSED);
    }
    expect(nodes.keyOf(ID)).toEqual(keyOf(1));
  });

  test("counts only from where the node is: a claim that was held brings none", () => {
    const { nodes } = table(1, 10);
    nodes.record(ID, HOME, 0, 0, 1);
    expect(nodes.record(ID, AWAY, 0, 0, 2, 30)).toBe(HELD);
    expect(keep(nodes, ID, keyOf(9), AWAY)).toBe(KEY_IGNORED);
    for (const near of [endpointOf("192.0.2.1", 4002), endpointOf("::ffff:192.0.2.129", 4001)])
      expect(keep(nodes, ID, keyOf(9), near)).toBe(KEY_IGNORED);
    expect(nodes.keyOf(ID)).toBeUndefined();
    expect(keep(nodes, ID, keyOf(1))).toBe(KEY_KEPT);
    expect(keep(nodes, ID, keyOf(9), AWAY)).toBe(KEY_REFUSED);
  });

  test("is nobody's who is not there, and zeros are none", () => {
    const { nodes } = table(1, 10);
    expect(keep(nodes, ID, keyOf(1))).toBe(KEY_IGNORED);
    expect(keep(nodes, 0, keyOf(1))).toBe(KEY_IGNORED);
    nodes.record(ID, HOME, 0, 0, 1);
    expect(keep(nodes, ID, new Uint8Array(32))).toBe(KEY_IGNORED);
    expect(nodes.keyOf(ID)).toBeUndefined();
    expect(keep(nodes, ID, keyOf(1))).toBe(KEY_KEPT);
    expect(keep(nodes, ID, new Uint8Array(32))).toBe(KEY_REFUSED);
    expect([0, 1].map((id) => nodes.keyOf(id))).toEqual([undefined, undefined]);
  });

  test("goes with its node: who comes again, or gets its slot, has none", () => {
    const { memory, nodes } = table(1, 10);
    const [first, second] = idsStartingAt(memory, 0, 100, 1, 2) as [number, number];
    nodes.record(first, HOME, 0, 0, 1);
    keep(nodes, first, keyOf(1));
    const slot = nodes.find(first);
    expect(nodes.expire(0, 0, nodes.slotsPerShard, 2)).toBe(1);
    expect(nodes.record(second, HOME, 0, 0, 2)).toBe(ADDED);
    expect(nodes.find(second)).toBe(slot);
    expect(nodes.keyOf(second)).toBeUndefined();
    expect(nodes.expire(0, 0, nodes.slotsPerShard, 3)).toBe(1);
    expect(nodes.bridge(first, 3)).toBe(ADDED);
    expect(nodes.find(first)).toBe(slot);
    expect(nodes.keyOf(first)).toBeUndefined();
  });

  test("moves up with its node when one before it is removed", () => {
    const { memory, nodes } = table(1, 100);
    // Chains across the end of the area, of nodes with a key and without.
    const ids = idsStartingAt(memory, 0, nodes.slotsPerShard - 4, 4, 24);
    for (const [i, id] of ids.entries()) {
      nodes.record(id, HOME, 0, 0, 1 + i);
      if (i % 3 !== 1) expect(keep(nodes, id, keyOf(id))).toBe(KEY_KEPT);
    }
    const left = new Map(ids.map((id, i) => [id, i]));
    for (const gone of [...left.values()].sort((a, b) => ((a * 7) % 24) - ((b * 7) % 24))) {
      const id = ids[gone]!;
      nodes.bridge(id, 1);
      // so that it is removed as it leaves the bridge
      nodes.record(id, endpointOf("0.0.0.0", 0), 0, 0, 1);
      expect(nodes.unbridge(id)).toBe(true);
      left.delete(id);
      expect(nodes.keyOf(id)).toBeUndefined();
      for (const [other, i] of left)
        expect([other, nodes.keyOf(other)]).toEqual([
          other,
          i % 3 === 1 ? undefined : keyOf(other),
        ]);
    }
    expect(nodes.size()).toBe(0);
  });

  test("are kept and read as a map would, under any sequence of coming, going and claiming", () => {
    const ids = fc.integer({ min: 1, max: 40 });
    const operation = fc.oneof(
      { weight: 3, arbitrary: fc.record({ kind: fc.constant("hear"), id: ids, at: fc.nat(1) }) },
      {
        weight: 3,
        arbitrary: fc.record({ kind: fc.constant("key"), id: ids, at: fc.nat(1), key: fc.nat(3) }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("expire"), keep: fc.nat(5) }) },
    );
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 200 }), (operations) => {
        const { nodes } = table(2, 100);
        const model = new Map<number, { at: number; seenS: number; key: number }>();
        let nowS = 1;
        for (const { kind, id = 0, at = 0, key = 0, keep: kept = 0 } of operations as {
          kind: string;
          id?: number;
          at?: number;
          key?: number;
          keep?: number;
        }[]) {
          nowS++;
          const from = [HOME, AWAY][at]!;
          const node = model.get(id);
          if (kind === "hear") {
            nodes.record(id, from, 0, 0, nowS);
            model.set(id, { at, seenS: nowS, key: node?.key ?? 0 });
          } else if (kind === "key") {
            const expected =
              node === undefined || (node.key === 0 && (node.at !== at || key === 0))
                ? KEY_IGNORED
                : node.key === 0 || node.key === key
                  ? KEY_KEPT
                  : KEY_REFUSED;
            expect(keep(nodes, id, key === 0 ? new Uint8Array(32) : keyOf(key), from)).toBe(
              expected,
            );
            if (expected === KEY_KEPT) node!.key = key;
          } else {
            const beforeS = nowS - kept;
            for (let shard = 0; shard < 2; shard++)
              nodes.expire(shard, 0, nodes.slotsPerShard, beforeS);
            for (const [one, { seenS }] of model) if (seenS < beforeS) model.delete(one);
          }
        }
        for (let id = 1; id <= 40; id++) {
          const known = model.get(id)?.key;
          expect(nodes.keyOf(id)).toEqual(known ? keyOf(known) : undefined);
        }
      }),
    );
  });

  test("are kept by threads that were given their memory, and that of the same shape, alone", () => {
    const { memory, nodes } = table(1, 10);
    nodes.record(ID, HOME, 0, 0, 1);
    const { shape, buffer, keysBuffer } = memory;
    const there = new NodeTableOwner(new SharedMemory(shape, buffer, keysBuffer), workerLock(0));
    expect(keep(there, ID, keyOf(1))).toBe(KEY_KEPT);
    expect(nodes.keyOf(ID)).toEqual(keyOf(1));
    const without = new NodeTableOwner(new SharedMemory(shape, buffer), workerLock(0));
    expect(() => keep(without, ID, keyOf(1))).toThrow("not given");
    expect(memory.words[memory.shardWords(0) + SHARD_LOCK]).toBe(0);
    expect(() => new SharedMemory(shape, buffer, new SharedArrayBuffer(32))).toThrow(
      "another shape",
    );
  });

  test("a lock that nobody releases makes keepKey give up, and keyOf reads on", () => {
    const { memory, nodes } = table(1, 10);
    nodes.record(ID, HOME, 0, 0, 1);
    keep(nodes, ID, keyOf(1));
    const worker = new NodeTableOwner(memory, workerLock(0));
    memory.words[memory.shardWords(0) + SHARD_LOCK] = workerLock(1);
    expect(keep(worker, ID, keyOf(1))).toBe(CONTENDED);
    expect(nodes.keyOf(ID)).toEqual(keyOf(1));
    memory.words[memory.shardWords(0) + SHARD_LOCK] = 0;
    expect(keep(worker, ID, keyOf(1))).toBe(KEY_KEPT);
  });
});

describe("NodeTableOwner against a map", () => {
  const SHARDS = 2;
  const NODES_MAX = 24;
  const { memory: probe } = table(SHARDS, NODES_MAX);
  // Chains that share slots and pass the end of a shard, in both shards.
  const ids = [
    ...idsStartingAt(probe, 0, probe.slotsPerShard - 4, 6, 24),
    ...idsStartingAt(probe, 1, probe.slotsPerShard - 2, 3, 12),
  ];
  const range = fc.record({
    from: fc.constantFrom(0, 0, 1, 2, probe.slotsPerShard - 8),
    count: fc.constantFrom(4, 8, probe.slotsPerShard),
  });
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant("record" as const),
        id: fc.constantFrom(...ids),
        endpoint: anyEndpoint,
        flags: fc.constantFrom(-1, 0, WANTS_DEST),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant("refresh" as const), id: fc.constantFrom(...ids) }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant("expire" as const),
        shard: fc.nat(SHARDS - 1),
        range,
        ageS: fc.integer({ min: 0, max: 20 }),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant("remove" as const), id: fc.constantFrom(...ids) }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant("bridge" as const), id: fc.constantFrom(...ids) }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant("unbridge" as const), id: fc.constantFrom(...ids) }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant("removeUnlessHeardSince" as const),
        id: fc.constantFrom(...ids),
        agoMs: fc.integer({ min: -5000, max: 20_000 }),
      }),
    },
  );

  interface Expected {
    endpoint: Int32Array;
    flags: number;
    seenS: number;
    /** While times are noted; else 0. */
    heardMs: number;
  }

  test("any sequence of what adds, changes and removes nodes, with times noted or not", () => {
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 1, maxLength: 80, size: "max" }),
        fc.boolean(),
        (steps, isNoted) => {
          let nowS = 1;
          const nowMs = () => (isNoted ? nowS * 1000 + 0.25 : 0);
          const { memory, nodes } = table(SHARDS, NODES_MAX, { nowNs: () => nowMs() * 1e6 });
          memory.words[memory.rulesAt + ARRIVALS_NOTED] = Number(isNoted);
          const model = new Map<number, Expected>();
          const told: number[] = [];
          nodes.removed = (id) => {
            expect(memory.words[memory.shardWords(nodes.shardOf(id)) + SHARD_LOCK]).toBe(0);
            told.push(id);
          };
          const record = (id: number, endpoint: Int32Array, flags: number): void => {
            const known = model.get(id);
            const versionBefore = known && lookUp(nodes, id)!.version;
            const result = nodes.record(id, endpoint, 0, flags, nowS);
            if (known === undefined) {
              expect(result).toBe(model.size < NODES_MAX ? ADDED : NODE_LIMIT);
              if (result === NODE_LIMIT) return;
              model.set(id, { endpoint, flags: Math.max(flags, 0), seenS: nowS, heardMs: nowMs() });
              return;
            }
            const newFlags = flags < 0 ? known.flags : flags | (known.flags & IS_BRIDGED);
            const same =
              newFlags === known.flags && endpoint.every((word, i) => word === known.endpoint[i]);
            expect(result).toBe(same ? REFRESHED : MOVED);
            expect(lookUp(nodes, id)!.version === versionBefore).toBe(same);
            const heardMs = Math.max(known.heardMs, nowMs());
            model.set(id, { endpoint, flags: newFlags, seenS: nowS, heardMs });
          };
          const bridge = (id: number): void => {
            const known = model.get(id);
            const result = nodes.bridge(id, nowS);
            if (known === undefined) {
              expect(result).toBe(model.size < NODES_MAX ? ADDED : NODE_LIMIT);
              const endpoint = new Int32Array(ENDPOINT_WORDS);
              if (result === ADDED)
                model.set(id, { endpoint, flags: IS_BRIDGED, seenS: nowS, heardMs: nowMs() });
              return;
            }
            known.heardMs = Math.max(known.heardMs, nowMs());
            expect(result).toBe((known.flags & IS_BRIDGED) === 0 ? MOVED : REFRESHED);
            known.flags |= IS_BRIDGED;
          };
          const unbridge = (id: number): void => {
            expect(nodes.unbridge(id)).toBe(true);
            const known = model.get(id);
            if (known === undefined || (known.flags & IS_BRIDGED) === 0) return;
            known.flags &= ~IS_BRIDGED;
            if ((known.endpoint[0]! & ENDPOINT_PORT_MASK) === 0) model.delete(id);
          };
          for (const action of steps) {
            nowS++;
            const before = [...model.keys()];
            switch (action.kind) {
              case "record":
                record(action.id, action.endpoint, action.flags);
                break;
              case "refresh": {
                const known = model.get(action.id);
                if (known) record(action.id, known.endpoint, known.flags & WANTS_DEST);
                break;
              }
              case "expire": {
                const first =
                  memory.slotsAt +
                  (action.shard * memory.slotsPerShard + action.range.from) * SLOT_WORDS;
                const shardEnd =
                  memory.slotsAt + (action.shard + 1) * memory.slotsPerShard * SLOT_WORDS;
                const end = Math.min(first + action.range.count * SLOT_WORDS, shardEnd);
                const stale = [...model]
                  .filter(
                    ([, { seenS, flags }]) =>
                      seenS < nowS - action.ageS && (flags & IS_BRIDGED) === 0,
                  )
                  .map(([id]) => id);
                const inRange = stale.filter(
                  (id) => nodes.find(id) >= first && nodes.find(id) < end,
                );
                const { from, count } = action.range;
                const removed = nodes.expire(action.shard, from, count, nowS - action.ageS);
                // All stale ones that stood there, and perhaps such as moved up into the range.
                for (const id of inRange) expect(nodes.find(id)).toBe(-1);
                const gone = stale.filter((id) => nodes.find(id) < 0);
                expect(removed).toBe(gone.length);
                for (const id of gone) model.delete(id);
                break;
              }
              case "remove":
                // One of the bridge has to leave that first.
                if (((model.get(action.id)?.flags ?? 0) & IS_BRIDGED) !== 0) unbridge(action.id);
                if (model.delete(action.id)) remove(memory, nodes, action.id);
                break;
              case "bridge":
                bridge(action.id);
                break;
              case "unbridge":
                unbridge(action.id);
                break;
              case "removeUnlessHeardSince": {
                const known = model.get(action.id);
                const ms = nowMs() - action.agoMs;
                const expected = known === undefined ? 0 : known.heardMs <= ms ? 1 : HEARD_SINCE;
                expect(nodes.removeUnlessHeardSince(action.id, ms)).toBe(expected);
                if (expected === 1) model.delete(action.id);
                break;
              }
            }
            const gone = before.filter((id) => !model.has(id));
            expect(told.splice(0).toSorted()).toEqual(gone.toSorted());
            expect(nodes.size()).toBe(model.size);
            for (const id of ids) {
              const expected = model.get(id);
              expect(nodes.heardMs(id)).toBe(expected?.heardMs ?? -1);
              if (expected === undefined) {
                expect(nodes.find(id)).toBe(-1);
              } else {
                const { endpoint, flags } = expected;
                expect(lookUp(nodes, id)).toMatchObject({ endpoint, flags });
              }
            }
            const entries = new Map([...nodes.entries()].map((entry) => [entry.nodeId, entry]));
            expect(entries.size).toBe(model.size);
            for (const [id, { endpoint, flags, seenS }] of model) {
              const [wantsDest, isBridged] = [WANTS_DEST, IS_BRIDGED].map(
                (flag) => (flags & flag) !== 0,
              );
              expect(entries.get(id)).toEqual({
                nodeId: id,
                endpoint,
                seenS,
                wantsDest: wantsDest!,
                isBridged: isBridged!,
              });
            }
          }
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe("NodeTableOwner under churn", () => {
  /** Slots that a search for `nodeId` looks at. */
  function searchLength(memory: SharedMemory, nodeId: number): number {
    const { words, slotsPerShard } = memory;
    const hash = nodeHash(nodeId, SECRET);
    const shard = shardOfHash(hash, memory.shards);
    const start = slotOfHash(hash, slotsPerShard);
    for (let looked = 1; ; looked++) {
      const index = shard * slotsPerShard + ((start + looked - 1) % slotsPerShard);
      const slot = memory.slotsAt + index * SLOT_WORDS;
      const id = words[slot + ID];
      if (id === nodeId || id === 0) return looked;
      if (looked === slotsPerShard) return looked;
    }
  }

  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;

  /**
   * Fills a table to `load`, then replaces one node after another, each at a random place.
   * @returns the mean search length for nodes that are there and for nodes that are not
   */
  function churn(load: number, replacements: number): { hits: number; misses: number } {
    const NODES_MAX = 8192;
    const { memory, nodes } = table(4, NODES_MAX);
    const count = memory.slotsPerShard * memory.shards * load;
    expect(count).toBeLessThanOrEqual(NODES_MAX);
    const alive = Array.from({ length: count }, (_, i) => i + 1);
    for (const id of alive) expect(nodes.record(id, HOME, 0, 0, 1)).toBe(ADDED);
    let state = 1;
    for (let step = 0; step < replacements; step++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0; // Numerical Recipes' generator
      const victim = Math.floor((state / 2 ** 32) * count);
      remove(memory, nodes, alive[victim]!);
      alive[victim] = count + 1 + step;
      if (nodes.record(alive[victim], HOME, 0, 0, 1) !== ADDED)
        throw new Error(`no room at step ${step}`);
    }
    expect(nodes.size()).toBe(count);
    const missing = Array.from({ length: count }, (_, i) => -1 - i);
    return {
      hits: mean(alive.map((id) => searchLength(memory, id))),
      misses: mean(missing.map((id) => searchLength(memory, id))),
    };
  }

  test("searches are as short as Knuth says before there was any", () => {
    const { hits, misses } = churn(1 / 2, 0);
    expect(hits).toBeLessThan(2); // 1.5 expected
    expect(misses).toBeLessThan(3.5); // 2.5 expected
  });

  test("searches stay so at half of the slots, a hundred turnovers later", () => {
    const { hits, misses } = churn(1 / 2, 100 * 8192);
    expect(hits).toBeLessThan(2);
    expect(misses).toBeLessThan(3.5);
  }, 120_000);
});

describe("locks", () => {
  test("slots that never held a node are passed over, without the lock", () => {
    const { memory, nodes } = table(1, 10);
    nodes.record(7, HOME, 0, 0, 1);
    memory.words[memory.shardWords(0) + SHARD_LOCK] = workerLock(3);
    const groups = Array.from(
      { length: nodes.slotsPerShard / GROUP_SLOTS },
      (_, i) => i * GROUP_SLOTS,
    );
    const results = groups.map((from) => nodes.expire(0, from, GROUP_SLOTS, 1));
    expect(results.filter((result) => result !== 0)).toEqual([-1]);
  });

  test("a lock that nobody releases makes record and expire give up, and reads go on", () => {
    const { memory, nodes } = table(1, 10);
    nodes.record(7, HOME, 0, 0, 1);
    const lock = memory.shardWords(0) + SHARD_LOCK;
    memory.words[lock] = workerLock(3);
    expect(nodes.record(7, AWAY, 0, 0, 1)).toBe(CONTENDED);
    expect(nodes.expire(0, 0, nodes.slotsPerShard, 1)).toBe(-1);
    expect(lookUp(nodes, 7)?.endpoint).toEqual(HOME);
    expect(memory.words[lock]).toBe(workerLock(3));
  }, 120_000);

  test("a worker waits for a locked shard, the main thread does not", () => {
    const { memory, nodes } = table(1, 10);
    nodes.record(7, HOME, 0, 0, 1);
    memory.words[memory.shardWords(0) + SHARD_LOCK] = workerLock(3);
    const sleep = spyOn(Bun, "sleepSync").mockImplementation(() => {});
    try {
      expect(nodes.record(7, AWAY, 0, 0, 1)).toBe(CONTENDED);
      expect(nodes.bridge(7, 1)).toBe(CONTENDED);
      expect(nodes.unbridge(7)).toBe(false);
      expect(nodes.remove(7)).toBe(-1);
      expect(nodes.expire(0, 0, nodes.slotsPerShard, 1)).toBe(-1);
      expect(sleep).not.toHaveBeenCalled();
      const worker = new NodeTableOwner(memory, workerLock(0));
      expect(worker.record(7, AWAY, 0, 0, 1)).toBe(CONTENDED);
      expect(sleep).toHaveBeenCalled();
    } finally {
      sleep.mockRestore();
    }
  });

  test("breakLocks frees the dead one's locks and no others, and counts anew", () => {
    const { memory, nodes } = table(4, 1000);
    for (let id = 1; id <= 400; id++) nodes.record(id, HOME, 0, 0, 1);
    const word = (shard: number, which: number) => memory.shardWords(shard) + which;
    const dead = workerLock(2);
    const alive = workerLock(1);
    memory.words[word(0, SHARD_LOCK)] = dead;
    memory.words[word(1, SHARD_LOCK)] = alive;
    memory.words[word(3, SHARD_LOCK)] = dead;
    // It died between storing a node and counting it, and between removing some and counting them.
    memory.words[word(0, SHARD_NODES)]! -= 1;
    memory.words[word(3, SHARD_NODES)]! += 5;
    expect(nodes.breakLocks(dead)).toBe(2);
    expect([0, 1, 2, 3].map((shard) => memory.words[word(shard, SHARD_LOCK)])).toEqual([
      0,
      alive,
      0,
      0,
    ]);
    expect(nodes.size()).toBe(400);
    expect(nodes.breakLocks(dead)).toBe(0);
    expect(nodes.breakLocks(alive)).toBe(1);
    for (let id = 1; id <= 400; id++) expect(nodes.record(id, AWAY, 0, 0, 2)).toBe(MOVED);
  });

  test("a removal in progress makes a search that found nothing look again, a bounded number of times", () => {
    const { memory, nodes } = table(1, 10);
    nodes.record(7, HOME, 0, 0, 1);
    memory.words[memory.shardWords(0) + SHARD_REMOVALS]! += 1;
    expect(nodes.find(8)).toBe(-1);
    expect(nodes.find(7)).toBeGreaterThanOrEqual(0);
  });

  test("a removal that stands still, its thread off its core, hides no other node", () => {
    const { memory, nodes } = table(2, 10);
    const ids = idsStartingAt(memory, 1, memory.slotsPerShard - 2, 1, 5);
    for (const id of ids) nodes.record(id, HOME, 0, 0, 1);
    for (const removed of ids) {
      const slot = nodes.find(removed);
      memory.words[memory.shardWords(1) + SHARD_REMOVALS]! += 1;
      memory.words[slot + ID] = 0;
      for (const id of ids) expect(nodes.find(id) >= 0).toBe(id !== removed);
      memory.words[slot + ID] = removed;
      memory.words[memory.shardWords(1) + SHARD_REMOVALS]! -= 1;
    }
  });

  test("all locks are free after every kind of call", () => {
    const { memory, nodes } = table(2, 1);
    nodes.record(1, HOME, 0, 0, 1);
    nodes.record(1, AWAY, 0, 0, 1);
    nodes.record(2, HOME, 0, 0, 1);
    nodes.bridge(1, 1);
    nodes.bridge(1, 1);
    nodes.bridge(3, 1);
    nodes.unbridge(3);
    nodes.unbridge(1);
    nodes.unbridge(1);
    nodes.expire(0, 0, 1024, 2);
    nodes.expire(1, 0, 1024, 2);
    nodes.bridge(3, 1);
    nodes.unbridge(3);
    for (const shard of [0, 1]) expect(memory.words[memory.shardWords(shard) + SHARD_LOCK]).toBe(0);
  });
});
