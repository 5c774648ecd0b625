import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ENDPOINT_PORT_MASK, ENDPOINT_WORDS, endpointOf } from "../../ffi/endpoint.ts";
import { LEARNED_PEERS_MAX, PEERS_END, PEERS_MAX, SharedMemory } from "../../src/shared/memory.ts";
import { isLearned } from "../../src/shared/peers.ts";
import { PeerTableOwner } from "../../src/shared/peers-owner.ts";
import { IS_PEER, SLOT_WORDS, WANTS_DEST } from "../../src/shared/slots.ts";
import { anyEndpoint, endpointFromBytes, port, v6Bytes } from "../support/arbitraries.ts";

function table(): { memory: SharedMemory; peers: PeerTableOwner } {
  const memory = new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 1 });
  return { memory, peers: new PeerTableOwner(memory) };
}

const V4 = endpointOf("192.0.2.1", 9001);
const V6 = endpointOf("2001:db8::1", 9001);

/** Where packets to a peer go, without flags, or undefined. */
function endpointOfPeer(peers: PeerTableOwner, peer: number): number[] | undefined {
  const out = new Int32Array(ENDPOINT_WORDS);
  if (peers.slots.read(peers.slot(peer), peers.slotId(peer), out, 0) < 0) return undefined;
  expect(out[0]! & ~ENDPOINT_PORT_MASK).toBe(IS_PEER);
  out[0] = out[0]! & ENDPOINT_PORT_MASK;
  return [...out];
}

describe("PeerTableOwner", () => {
  test("an empty one finds nobody", () => {
    const { peers } = table();
    for (const endpoint of [V4, V6, new Int32Array(ENDPOINT_WORDS)])
      expect(peers.find(endpoint, 0)).toBe(-1);
  });

  test("finds a peer by its endpoint, and by no other port or address", () => {
    const { peers } = table();
    const [a, b] = [peers.add(V4, 0), peers.add(V6, 0)];
    expect([a, b]).toEqual([0, 1]);
    expect(peers.find(V4, 0)).toBe(a);
    expect(peers.find(V6, 0)).toBe(b);
    for (const [address, other] of [
      ["192.0.2.1", 9002],
      ["192.0.2.2", 9001],
      ["2001:db8::2", 9001],
      ["2001:db9::1", 9001],
      ["192.0.2.1", 0],
    ] as const)
      expect(peers.find(endpointOf(address, other), 0)).toBe(-1);
    expect(peers.find(endpointOf("::ffff:192.0.2.1", 9001), 0)).toBe(a);
    const compatible = endpointFromBytes(
      new Uint8Array([...Array<number>(12).fill(0), 192, 0, 2, 1]),
      9001,
    );
    expect(peers.find(compatible, 0)).toBe(-1); // ::192.0.2.1 is another address
  });

  test("every word of an address counts, and every bit of a port", () => {
    const { peers } = table();
    peers.add(V6, 0);
    for (let word = 0; word < ENDPOINT_WORDS - 1; word++) {
      for (let bit = word === 0 ? 16 : 0; bit < 32; bit++) {
        const other = V6.slice();
        other[word]! ^= 1 << bit;
        expect(peers.find(other, 0)).toBe(-1);
      }
    }
  });

  test("the scope id, and what a holder keeps beside the port, are no part of it", () => {
    fc.assert(
      fc.property(
        v6Bytes,
        port,
        fc.nat(0xffff),
        fc.nat(0xffff),
        fc.nat(0xffff),
        (bytes, p, s1, s2, flags) => {
          const { peers } = table();
          const peer = peers.add(endpointFromBytes(bytes, p, s1), 0);
          const seen = endpointFromBytes(bytes, p, s2);
          seen[0] = seen[0]! | flags;
          expect(peers.find(seen, 0)).toBe(peer);
        },
      ),
    );
  });

  test("takes endpoints from the midst of an array", () => {
    const { peers } = table();
    const words = new Int32Array(20).fill(-1);
    words.set(V4, 5);
    words[5] = words[5]! | WANTS_DEST;
    const peer = peers.add(words, 5);
    expect(endpointOfPeer(peers, peer)).toEqual([...V4]);
    words.fill(7);
    words.set(V4, 9);
    expect(peers.find(words, 9)).toBe(peer);
    expect(peers.find(words, 8)).toBe(-1);
  });

  test("another thread's table finds the same", () => {
    const { memory, peers } = table();
    const there = new PeerTableOwner(new SharedMemory(memory.shape, memory.buffer));
    const peer = peers.add(V6, 0);
    expect(there.find(V6, 0)).toBe(peer);
    expect(endpointOfPeer(there, peer)).toEqual([...V6]);
    peers.disown(peer);
    expect(there.find(V6, 0)).toBe(-1);
  });

  test("takes PEERS_MAX and no more, all of them found, and has room again once one is removed", () => {
    const { memory, peers } = table();
    const endpoints = Array.from({ length: PEERS_MAX + 1 }, (_, i) =>
      endpointOf("192.0.2.1", 1000 + i),
    );
    for (let i = 0; i < PEERS_MAX; i++) expect(peers.add(endpoints[i]!, 0)).toBe(i);
    const before = memory.words.slice();
    expect(peers.add(endpoints[PEERS_MAX]!, 0)).toBe(-1);
    expect(Bun.deepEquals(memory.words.slice(), before)).toBe(true);
    for (let i = 0; i < PEERS_MAX; i++) expect(peers.find(endpoints[i]!, 0)).toBe(i);
    expect(peers.find(endpoints[PEERS_MAX]!, 0)).toBe(-1);
    peers.remove(77);
    expect(peers.add(endpoints[PEERS_MAX]!, 0)).toBe(77);
    expect(peers.find(endpoints[PEERS_MAX]!, 0)).toBe(77);
    expect(peers.find(endpoints[77]!, 0)).toBe(-1);
  });

  test("learned peers have places of their own, and what is in both is the other's", () => {
    const { peers } = table();
    const endpoints = Array.from({ length: LEARNED_PEERS_MAX + 1 }, (_, i) =>
      endpointOf("192.0.2.1", 1000 + i),
    );
    for (let i = 0; i < LEARNED_PEERS_MAX; i++)
      expect(peers.addLearned(endpoints[i]!, 0)).toBe(PEERS_MAX + i);
    expect(peers.addLearned(endpoints[LEARNED_PEERS_MAX]!, 0)).toBe(-1);
    for (let i = 0; i < LEARNED_PEERS_MAX; i++)
      expect(peers.find(endpoints[i]!, 0)).toBe(PEERS_MAX + i);
    expect([PEERS_MAX - 1, PEERS_MAX].map(isLearned)).toEqual([false, true]);
    const named = peers.add(endpoints[3]!, 0);
    expect([named, peers.find(endpoints[3]!, 0)]).toEqual([0, 0]);
    peers.remove(named);
    expect(peers.find(endpoints[3]!, 0)).toBe(PEERS_MAX + 3);
    peers.remove(PEERS_MAX + 3);
    expect(peers.find(endpoints[3]!, 0)).toBe(-1);
    expect(peers.addLearned(endpoints[LEARNED_PEERS_MAX]!, 0)).toBe(PEERS_MAX + 3);
  });

  test("a peer's instance is known while it is there, in all its bits", () => {
    const { peers } = table();
    const peer = peers.add(V4, 0);
    const view = new DataView(new ArrayBuffer(20));
    const says = (instance: bigint): boolean => {
      view.setBigUint64(3, instance);
      return peers.hasInstance(peer, view, 3);
    };
    expect(says(0n)).toBe(false); // nobody's
    peers.setInstance(peer, -1, 2);
    const instance = 0xffff_ffff_0000_0002n;
    expect(says(instance)).toBe(true);
    for (let bit = 0n; bit < 64n; bit++) expect(says(instance ^ (1n << bit))).toBe(false);
    peers.setInstance(peer, 0, 7);
    expect([says(7n), says(7n << 32n)]).toEqual([true, false]);
    peers.remove(peer);
    expect(peers.add(V4, 0)).toBe(peer);
    expect(says(7n)).toBe(false);
  });

  test("a slot is a peer's own: within the peers' words, and never of id 0", () => {
    const { memory, peers } = table();
    for (let peer = 0; peer < PEERS_MAX + LEARNED_PEERS_MAX; peer++) {
      expect(peers.slot(peer)).toBe(memory.peerSlotsAt + peer * SLOT_WORDS);
      expect(peers.slot(peer) % SLOT_WORDS).toBe(0);
      expect(peers.slotId(peer)).toBeGreaterThan(0);
    }
    expect(memory.peersAt + PEERS_END).toBeLessThan(memory.peerKeysAt);
    expect(memory.peerKeysAt + PEERS_MAX + LEARNED_PEERS_MAX).toBeLessThanOrEqual(
      memory.peerSlotsAt,
    );
    expect(peers.slot(PEERS_MAX + LEARNED_PEERS_MAX)).toBeLessThanOrEqual(memory.slotsAt);
  });

  test("who is disowned is no source any more but still a destination, until it is removed", () => {
    const { peers } = table();
    const peer = peers.add(V4, 0);
    peers.disown(peer);
    expect(peers.find(V4, 0)).toBe(-1);
    expect(endpointOfPeer(peers, peer)).toEqual([...V4]);
    // Its number is not free yet: routes may still lead to it.
    const again = peers.add(V4, 0);
    expect(again).not.toBe(peer);
    expect(peers.find(V4, 0)).toBe(again);
    peers.remove(peer);
    expect(endpointOfPeer(peers, peer)).toBeUndefined();
    expect(peers.find(V4, 0)).toBe(again);
    expect(peers.add(V6, 0)).toBe(peer);
  });

  test("a number that is used again has another version, no merge limit, and nothing of its last owner", () => {
    const { peers } = table();
    const peer = peers.add(V4, 0);
    const slot = peers.slot(peer);
    const versions = new Set([peers.slots.version(slot)]);
    for (const endpoint of [V6, V4, V6]) {
      peers.slots.limitMerge(slot, 1199);
      peers.remove(peer);
      expect(peers.add(endpoint, 0)).toBe(peer);
      expect(peers.slots.mergeLimit(slot)).toBe(0);
      expect(endpointOfPeer(peers, peer)).toEqual([...endpoint]);
      expect(peers.find(endpoint === V6 ? V4 : V6, 0)).toBe(-1);
      versions.add(peers.slots.version(slot));
    }
    expect(versions.size).toBe(4);
  });

  test("a refresh forgets the merge limit and changes nothing else", () => {
    const { memory, peers } = table();
    const peer = peers.add(V4, 0);
    const before = memory.words.slice();
    peers.slots.limitMerge(peers.slot(peer), 1199);
    peers.refresh(peer);
    expect(Bun.deepEquals(memory.words.slice(), before)).toBe(true);
  });

  test("peers whose keys are the same are told apart", () => {
    const { memory, peers } = table();
    const key = (peer: number) => memory.words[memory.peerKeysAt + peer]!;
    // The same words in another order, and one whose port makes up for a part of its address.
    const endpoints = [
      endpointOf("2001:db8:1:2:3:4:5:6", 9001),
      endpointOf("1:2:2001:db8:3:4:5:6", 9001),
      endpointOf("5:6:3:4:1:2:2001:db8", 9001),
      endpointOf("2001:db8:1:2:3:4:5:7", 9000),
    ];
    expect(peers.add(endpoints[0]!, 0)).toBe(0);
    for (const stranger of endpoints.slice(1)) expect(peers.find(stranger, 0)).toBe(-1);
    for (const [peer, endpoint] of endpoints.entries()) {
      if (peer > 0) expect(peers.add(endpoint, 0)).toBe(peer);
      expect(key(peer)).toBe(key(0));
    }
    expect(endpoints.map((endpoint) => peers.find(endpoint, 0))).toEqual([0, 1, 2, 3]);
    peers.disown(1);
    peers.remove(2);
    expect(endpoints.map((endpoint) => peers.find(endpoint, 0))).toEqual([0, -1, -1, 3]);
  });

  test("no endpoint's key is that of a vacant place", () => {
    const { memory, peers } = table();
    const nothing = new Int32Array(ENDPOINT_WORDS);
    const peer = peers.add(nothing, 0);
    expect(memory.words[memory.peerKeysAt + peer]).not.toBe(0);
    peers.disown(peer);
    expect(peers.find(nothing, 0)).toBe(-1);
  });
});

describe("PeerTableOwner against a list", () => {
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant("add" as const), endpoint: anyEndpoint }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("disown" as const), which: fc.nat(7) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("remove" as const), which: fc.nat(7) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("return" as const), which: fc.nat(7) }) },
  );

  test("any sequence of add, disown and remove", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const { peers } = table();
        const model = new Map<number, { endpoint: Int32Array; owned: boolean }>();
        const seen: Int32Array[] = [];
        const same = (a: Int32Array, b: Int32Array) =>
          a.subarray(0, ENDPOINT_WORDS - 1).every((word, i) => word === b[i]);
        const holderOf = (endpoint: Int32Array): number =>
          [...model].find(([, entry]) => entry.owned && same(entry.endpoint, endpoint))?.[0] ?? -1;
        const add = (endpoint: Int32Array): void => {
          if (holderOf(endpoint) >= 0) return;
          const free = Array.from({ length: PEERS_MAX }, (_, peer) => peer).find(
            (peer) => !model.has(peer),
          )!;
          expect(peers.add(endpoint, 0)).toBe(free);
          model.set(free, { endpoint, owned: true });
        };
        for (const action of steps) {
          switch (action.kind) {
            case "add":
              seen.push(action.endpoint);
              add(action.endpoint);
              break;
            case "return":
              if (seen.length > 0) add(seen[action.which % seen.length]!);
              break;
            case "disown": {
              const entry = model.get(action.which);
              if (entry === undefined) break;
              entry.owned = false;
              peers.disown(action.which);
              break;
            }
            case "remove":
              if (model.delete(action.which)) peers.remove(action.which);
          }
          for (const endpoint of seen) expect(peers.find(endpoint, 0)).toBe(holderOf(endpoint));
          for (let peer = 0; peer < 10; peer++) {
            const entry = model.get(peer);
            expect(endpointOfPeer(peers, peer)).toEqual(entry && [...entry.endpoint]);
          }
        }
      }),
    );
  });
});
