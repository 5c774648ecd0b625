import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { nodeHash, slotOfHash } from "../../src/shared/hash.ts";
import {
  HASH_SECRET,
  PEERS_MAX,
  ROUTE_REMOVALS,
  ROUTE_WORDS,
  SharedMemory,
} from "../../src/shared/memory.ts";
import { PROBES_MAX } from "../../src/shared/open-addressing.ts";
import { NO_PEER, RouteTable, TABLE_FULL } from "../../src/shared/routes.ts";
import { nodeId } from "../support/arbitraries.ts";

const SECRET = 0x5ec2_e701;
function table(routesMax: number): { memory: SharedMemory; routes: RouteTable } {
  const memory = new SharedMemory({ workers: 1, nodesMax: 1, routesMax });
  memory.words[HASH_SECRET] = SECRET;
  return { memory, routes: new RouteTable(memory) };
}

/** Ids whose search begins at one of `starts` slots, from slot `first` on. */
function idsStartingAt(memory: SharedMemory, first: number, starts: number, count: number): number[] {
  const ids: number[] = [];
  for (let id = 1; ids.length < count; id++) {
    const slot = slotOfHash(nodeHash(id, SECRET), memory.routeSlots);
    if ((slot - first + memory.routeSlots) % memory.routeSlots < starts) ids.push(id);
  }
  return ids;
}

describe("RouteTable", () => {
  test("has a route from when a peer claims it until it is withdrawn for the same peer", () => {
    const { routes } = table(10);
    expect(routes.find(7)).toBe(NO_PEER);
    expect(routes.claim(7, 3)).toBe(NO_PEER);
    expect(routes.find(7)).toBe(3);
    expect(routes.claim(7, 3)).toBe(3);
    expect(routes.size).toBe(1);
    expect(routes.withdraw(7, 4)).toBe(false);
    expect(routes.withdraw(8, 3)).toBe(false);
    expect(routes.find(7)).toBe(3);
    expect(routes.withdraw(7, 3)).toBe(true);
    expect(routes.find(7)).toBe(NO_PEER);
    expect(routes.size).toBe(0);
    expect(routes.withdraw(7, 3)).toBe(false);
  });

  test("the last to claim a node has it, and for who had it before it cannot be withdrawn any more", () => {
    const { routes } = table(10);
    routes.claim(7, 0);
    expect(routes.claim(7, PEERS_MAX - 1)).toBe(0);
    expect(routes.find(7)).toBe(PEERS_MAX - 1);
    expect(routes.withdraw(7, 0)).toBe(false);
    expect(routes.find(7)).toBe(PEERS_MAX - 1);
    expect(routes.size).toBe(1);
    expect(routes.withdraw(7, PEERS_MAX - 1)).toBe(true);
  });

  test("no peer's number is one of the answers that are none", () => {
    for (const answer of [NO_PEER, TABLE_FULL]) expect(answer).toBeLessThan(0);
    expect(NO_PEER).not.toBe(TABLE_FULL);
  });

  test("never finds id 0, even among vacant slots", () => {
    const { routes } = table(10);
    expect(routes.find(0)).toBe(NO_PEER);
    routes.claim(7, 3);
    routes.withdraw(7, 3);
    expect(routes.find(0)).toBe(NO_PEER);
    expect(routes.withdraw(0, 3)).toBe(false);
    expect(routes.withdraw(0, 0)).toBe(false);
    expect(routes.size).toBe(0);
  });

  test("holds the extreme ids apart, and takes them unsigned for the same as signed", () => {
    const { routes } = table(10);
    const ids = [1, -1, 0x7fff_ffff, -0x8000_0000];
    for (const [i, id] of ids.entries()) expect(routes.claim(id, i)).toBe(NO_PEER);
    for (const [i, id] of ids.entries()) {
      expect(routes.find(id)).toBe(i);
      expect(routes.find(id >>> 0)).toBe(i);
      expect(routes.claim(id >>> 0, 9)).toBe(i);
      expect(routes.withdraw(id >>> 0, 9)).toBe(true);
    }
  });

  test("refuses a new route at the limit, but takes over the old", () => {
    const { routes } = table(10);
    for (let id = 1; id <= 10; id++) expect(routes.claim(id, 1)).toBe(NO_PEER);
    expect(routes.claim(11, 1)).toBe(TABLE_FULL);
    expect(routes.find(11)).toBe(NO_PEER);
    expect(routes.claim(3, 2)).toBe(1);
    expect(routes.size).toBe(10);
    expect(routes.withdraw(3, 2)).toBe(true);
    expect(routes.claim(11, 1)).toBe(NO_PEER);
    expect(routes.claim(3, 1)).toBe(TABLE_FULL);
  });

  test("refuses a route whose chain of slots is full, and takes it when one is free", () => {
    const { memory, routes } = table(1000);
    const ids = idsStartingAt(memory, memory.routeSlots - 30, 1, PROBES_MAX + 1);
    const refused = ids.pop()!;
    for (const id of ids) expect(routes.claim(id, 1)).toBe(NO_PEER);
    expect(routes.claim(refused, 1)).toBe(TABLE_FULL);
    expect(routes.find(refused)).toBe(NO_PEER);
    expect(routes.withdraw(refused, 1)).toBe(false);
    expect(routes.size).toBe(PROBES_MAX);
    expect(routes.withdraw(ids[100]!, 1)).toBe(true);
    expect(routes.claim(refused, 2)).toBe(NO_PEER);
    for (const id of ids) expect(routes.find(id)).toBe(id === ids[100] ? NO_PEER : 1);
    expect(routes.find(refused)).toBe(2);
  });

  test("a removal that stands still, its thread off its core, hides no other route", () => {
    const { memory, routes } = table(10);
    const ids = idsStartingAt(memory, memory.routeSlots - 2, 1, 5);
    for (const [i, id] of ids.entries()) routes.claim(id, i);
    const slotOf = (id: number) => memory.words.indexOf(id | 0, memory.routeSlotsAt);
    for (const removed of ids) {
      const before = memory.words.slice();
      memory.words[memory.routesAt + ROUTE_REMOVALS]! += 1;
      memory.words[slotOf(removed)] = 0;
      for (const [i, id] of ids.entries()) expect(routes.find(id)).toBe(id === removed ? NO_PEER : i);
      memory.words.set(before);
    }
  });

  test("another thread's table finds the same, as long as the process's secret is the same", () => {
    const { memory, routes } = table(10);
    const there = new RouteTable(new SharedMemory(memory.shape, memory.buffer));
    for (let id = 1; id <= 10; id++) routes.claim(id, id);
    for (let id = 1; id <= 10; id++) expect(there.find(id)).toBe(id);
  });

  test("touches nothing but its own words", () => {
    const { memory, routes } = table(1000);
    const before = memory.words.slice(0, memory.routesAt);
    for (let id = -600; id <= 600; id++) if (id !== 0) routes.claim(id, 1);
    for (let id = -600; id <= 0; id++) routes.withdraw(id, 1);
    expect(Bun.deepEquals(memory.words.slice(0, memory.routesAt), before)).toBe(true);
    expect(memory.routeSlotsAt + memory.routeSlots * ROUTE_WORDS).toBeLessThanOrEqual(memory.words.length);
  });
});

describe("RouteTable against a map", () => {
  const ROUTES_MAX = 20;
  const { memory: probe } = table(ROUTES_MAX);
  // Chains that share slots and pass the end of the table.
  const ids = idsStartingAt(probe, probe.routeSlots - 4, 6, 32);
  const peer = fc.constantFrom(0, 1, 2, PEERS_MAX - 1);
  const step = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant("claim" as const),
        id: fc.oneof(fc.constantFrom(...ids), fc.constantFrom(...ids), nodeId),
        peer,
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant("withdraw" as const), id: fc.constantFrom(...ids), peer }),
    },
    {
      // From the peer that has it.
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant("remove" as const), id: fc.constantFrom(...ids) }),
    },
  );

  test("any sequence of claims and withdrawals", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 120 }), (steps) => {
        const { routes } = table(ROUTES_MAX);
        const model = new Map<number, number>();
        const touched = new Set(ids);
        for (const action of steps) {
          const { id } = action;
          touched.add(id);
          const there = model.get(id);
          switch (action.kind) {
            case "claim": {
              const full = there === undefined && model.size >= ROUTES_MAX;
              expect(routes.claim(id, action.peer)).toBe(full ? TABLE_FULL : (there ?? NO_PEER));
              if (!full) model.set(id, action.peer);
              break;
            }
            case "withdraw":
              expect(routes.withdraw(id, action.peer)).toBe(there === action.peer);
              if (there === action.peer) model.delete(id);
              break;
            case "remove":
              if (there !== undefined) expect(routes.withdraw(id, there)).toBe(true);
              model.delete(id);
          }
          expect(routes.size).toBe(model.size);
          for (const one of touched) expect(routes.find(one)).toBe(model.get(one) ?? NO_PEER);
        }
      }),
    );
  });
});
