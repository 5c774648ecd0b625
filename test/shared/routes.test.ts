import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ClaimSums, isIn } from "../../src/shared/claim-digest.ts";
import { nodeHash, slotOfHash } from "../../src/shared/hash.ts";
import {
  HASH_SECRET,
  PEERS_MAX,
  ROUTE_REMOVALS,
  ROUTE_WORDS,
  SharedMemory,
} from "../../src/shared/memory.ts";
import { PROBES_MAX } from "../../src/shared/open-addressing.ts";
import { NO_PEER, type RouteMemory } from "../../src/shared/routes.ts";
import {
  NO_MARK,
  privateRouteMemory,
  RouteTableOwner,
  TABLE_FULL,
} from "../../src/shared/routes-owner.ts";
import { nodeId } from "../support/arbitraries.ts";
import { routeMemory, SECRET } from "../support/route-memory.ts";

function table(routesMax: number): { memory: SharedMemory; routes: RouteTableOwner } {
  const memory = new SharedMemory({ workers: 1, nodesMax: 1, routesMax });
  memory.words[HASH_SECRET] = SECRET;
  return { memory, routes: new RouteTableOwner(memory) };
}

/** Ids whose search begins at one of `starts` slots, from slot `first` on. */
function idsStartingAt(
  memory: RouteMemory,
  first: number,
  starts: number,
  count: number,
): number[] {
  const ids: number[] = [];
  for (let id = 1; ids.length < count; id++) {
    const slot = slotOfHash(nodeHash(id, SECRET), memory.routeSlots);
    if ((slot - first + memory.routeSlots) % memory.routeSlots < starts) ids.push(id);
  }
  return ids;
}

describe("RouteTableOwner", () => {
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
      for (const [i, id] of ids.entries())
        expect(routes.find(id)).toBe(id === removed ? NO_PEER : i);
      memory.words.set(before);
    }
  });

  test("another thread's table finds the same, as long as the process's secret is the same", () => {
    const { memory, routes } = table(10);
    const there = new RouteTableOwner(new SharedMemory(memory.shape, memory.buffer));
    for (let id = 1; id <= 10; id++) routes.claim(id, id);
    for (let id = 1; id <= 10; id++) expect(there.find(id)).toBe(id);
  });

  test("touches nothing but its own words", () => {
    const { memory, routes } = table(1000);
    const before = memory.words.slice(0, memory.routesAt);
    for (let id = -600; id <= 600; id++) if (id !== 0) routes.claim(id, 1);
    for (let id = -600; id <= 0; id++) routes.withdraw(id, 1);
    expect(Bun.deepEquals(memory.words.slice(0, memory.routesAt), before)).toBe(true);
    expect(memory.routeSlotsAt + memory.routeSlots * ROUTE_WORDS).toBeLessThanOrEqual(
      memory.words.length,
    );
  });
});

describe("RouteTableOwner against a map", () => {
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
      arbitrary: fc.record({
        kind: fc.constant("withdraw" as const),
        id: fc.constantFrom(...ids),
        peer,
      }),
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

/** A table that keeps when claims were made. */
function keeping(routesMax: number): { memory: RouteMemory; routes: RouteTableOwner } {
  const memory = routeMemory(routesMax);
  const routes = new RouteTableOwner(memory);
  routes.keepClaims();
  return { memory, routes };
}

/** A whole sweep. @returns the nodes whose routes were withdrawn */
function sweep(
  routes: RouteTableOwner,
  peer: number,
  mark: number,
  isToGo?: (id: number) => boolean,
): number[] {
  const withdrawn: number[] = [];
  routes.sweep(peer, mark, 0, routes.sweepSteps, isToGo, (id) => {
    expect(routes.find(id)).toBe(NO_PEER);
    withdrawn.push(id);
  });
  return withdrawn.sort((one, other) => one - other);
}
/** What a whole visit comes to. */
function visited(routes: RouteTableOwner): Map<number, readonly [number, number]> {
  const found = new Map<number, readonly [number, number]>();
  routes.visit(0, routes.sweepSteps, (id, peer, ms) => found.set(id, [peer, ms]));
  return found;
}

describe("claims that are kept", () => {
  test("are those of the last to claim, with their date and mark", () => {
    const { routes } = keeping(10);
    for (const [peer, ms, before] of [
      [1, 1000, NO_PEER],
      [1, 500, 1],
      [2, 400, 1],
    ] as const) {
      expect(routes.claim(7, peer, ms, 4)).toBe(before);
      expect([routes.find(7), routes.claimedMs(7), routes.markOf(7), routes.size]).toEqual([
        peer,
        ms,
        4,
        1,
      ]);
    }
    routes.claim(7, 2, 1000);
    expect([routes.claimedMs(7), routes.markOf(7)]).toEqual([1000, 0]);
  });

  test("there are none where there is no route, nor before they are kept", () => {
    const { routes } = table(10);
    routes.claim(7, 1, 5000, 3);
    expect([
      routes.claimedMs(7),
      routes.markOf(7),
      routes.claimedMs(8),
      routes.claimedMs(0),
    ]).toEqual([0, 0, -1, -1]);
    routes.keepClaims();
    routes.keepClaims();
    expect(routes.claim(7, 2, 0.0625, 1)).toBe(1);
    expect([routes.claimedMs(0), routes.markOf(0), routes.claimedMs(8), routes.markOf(8)]).toEqual([
      -1, 0, -1, 0,
    ]);
    routes.withdraw(7, 2);
    expect([routes.claimedMs(7), routes.markOf(7)]).toEqual([-1, 0]);
  });

  test("of new nodes find no room in a full table; those of nodes that it has do", () => {
    const { routes } = keeping(3);
    for (let id = 1; id <= 3; id++) {
      expect(routes.room).toBe(4 - id);
      routes.claim(id, 1, 1000, 1);
    }
    expect(routes.room).toBe(0);
    expect(routes.claim(4, 1, 1000, 1)).toBe(TABLE_FULL);
    expect(routes.claim(3, 2, 2000, 1)).toBe(1);
    expect([1, 2].map((peer) => routes.routesOf(peer))).toEqual([2, 1]);
  });

  test("can lie in memory of one thread's own", () => {
    const routes = new RouteTableOwner(privateRouteMemory(5, 7));
    routes.keepClaims();
    for (let id = 1; id <= 6; id++)
      expect(routes.claim(id, 0, id)).toBe(id === 6 ? TABLE_FULL : NO_PEER);
    for (let id = 1; id <= 5; id++)
      expect([routes.find(id), routes.claimedMs(id)]).toEqual([0, id]);
  });

  test("take room: so many bytes a route in all", () => {
    const { memory, routes } = table(1000);
    const without = (memory.routeSlots * ROUTE_WORDS * 4) / 1000;
    expect(routes.bytesPerRoute).toBe(without);
    routes.keepClaims();
    expect(routes.bytesPerRoute).toBe(without + (memory.routeSlots * 9) / 1000);
  });
});

describe("a sweep", () => {
  test("withdraws those of a peer's routes that lack the mark and are to go, or all", () => {
    const { routes } = keeping(100);
    for (let id = 1; id <= 30; id++) routes.claim(id, 1 + (id % 2), 1000, 1 + (id % 3));
    expect(sweep(routes, 1, 2, (id) => id > 25)).toEqual([26, 30]);
    expect(sweep(routes, 1, 2)).toEqual([2, 6, 8, 12, 14, 18, 20, 24]);
    expect([routes.size, routes.routesOf(1), routes.routesOf(2)]).toEqual([20, 5, 15]);
    expect(sweep(routes, 1, 2)).toEqual([]);
    expect(sweep(routes, 2, NO_MARK)).toHaveLength(15);
    expect([routes.size, routes.routesOf(1), routes.routesOf(2)]).toEqual([5, 5, 0]);
  });

  test("withdraws all of them where no claims are kept, as none has a mark", () => {
    const { routes } = table(10);
    for (let id = 1; id <= 5; id++) routes.claim(id, 1, 1000, 7);
    expect(sweep(routes, 1, 7)).toHaveLength(5);
  });

  test("leaves a node alone that another peer claims while it is withdrawn", () => {
    const { routes } = keeping(100);
    for (let id = 1; id <= 60; id++) routes.claim(id, 1, 1000, 1);
    routes.sweep(
      1,
      NO_MARK,
      0,
      routes.sweepSteps,
      () => true,
      (id) => routes.claim(id, 2, 500, 1),
    );
    expect([routes.routesOf(1), routes.routesOf(2)]).toEqual([0, 60]);
  });

  test("of a full chain of slots, which every removal moves, leaves nothing out", () => {
    const { memory, routes } = keeping(1000);
    for (const id of idsStartingAt(memory, memory.routeSlots - 100, 2, PROBES_MAX))
      routes.claim(id, 1, 1, 1);
    for (const [i, id] of [...visited(routes).keys()].entries())
      if (i % 3 === 0) routes.claim(id, 2, 2, 1);
    const kept = routes.routesOf(2);
    expect(sweep(routes, 1, 2)).toHaveLength(PROBES_MAX - kept);
    expect([routes.size, routes.routesOf(2), visited(routes).size]).toEqual([kept, kept, kept]);
  });
});

describe("kept claims against a map", () => {
  const ROUTES_MAX = 24;
  const { memory: probe } = table(ROUTES_MAX);
  const ids = idsStartingAt(probe, probe.routeSlots - 4, 6, 32);
  const peer = fc.constantFrom(0, 1, 2);
  const step = fc.record({
    what: fc.constantFrom("claim", "claim", "claim", "withdraw", "remove" as const),
    id: fc.constantFrom(...ids),
    peer,
    ms: fc.integer({ min: 1, max: 6 }).map((seconds) => 1000 * seconds),
    mark: fc.integer({ min: 1, max: 3 }),
  });
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
  type Claim = { readonly peer: number; readonly ms: number; readonly mark: number };

  function apply(
    routes: RouteTableOwner,
    model: Map<number, Claim>,
    { what, id, peer: of, ms, mark }: Step,
  ): void {
    const there = model.get(id);
    if (what === "claim") {
      const isFull = there === undefined && model.size >= ROUTES_MAX;
      expect(routes.claim(id, of, ms, mark)).toBe(isFull ? TABLE_FULL : (there?.peer ?? NO_PEER));
      if (!isFull) model.set(id, { peer: of, ms, mark });
    } else {
      const from = what === "remove" ? (there?.peer ?? of) : of;
      expect(routes.withdraw(id, from)).toBe(there?.peer === from);
      if (there?.peer === from) model.delete(id);
    }
  }

  function expectSame(routes: RouteTableOwner, model: ReadonlyMap<number, Claim>): void {
    for (const id of ids) {
      const there = model.get(id);
      expect([routes.find(id), routes.claimedMs(id), routes.markOf(id)]).toEqual(
        there ? [there.peer, there.ms, there.mark] : [NO_PEER, -1, 0],
      );
    }
    for (const one of [0, 1, 2])
      expect(routes.routesOf(one)).toBe(
        [...model.values()].filter((there) => there.peer === one).length,
      );
    expect(routes.size).toBe(model.size);
    expectSums(routes, model);
  }

  function expectSums(routes: RouteTableOwner, model: ReadonlyMap<number, Claim>): void {
    const sums = new ClaimSums(3);
    for (const [id, there] of model) sums.add(id, there.ms, there.peer);
    for (const one of [0, 1, 2]) expect(routes.sumsOf(one)).toEqual(sums.row(one));
  }

  test("any sequence of claims and withdrawals, with whole sweeps in between", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(step, fc.boolean()), { maxLength: 80 }), (steps) => {
        const { routes } = keeping(ROUTES_MAX);
        const model = new Map<number, Claim>();
        for (const [one, isSweep] of steps) {
          if (isSweep && one.id % 5 === 0) {
            const gone = [...model].filter(
              ([, { peer: of, mark }]) => of === one.peer && mark !== one.mark,
            );
            expect(sweep(routes, one.peer, one.mark)).toHaveLength(gone.length);
            for (const [id] of gone) model.delete(id);
          } else {
            apply(routes, model, one);
          }
          expectSame(routes, model);
        }
        expect(new Map([...visited(routes)].sort())).toEqual(
          new Map([...model].map(([id, { peer: of, ms }]) => [id, [of, ms]] as const).sort()),
        );
      }),
    );
  });

  test("a sweep of some ranges of node ids withdraws a peer's claims in these alone, and sums what is left", () => {
    const spread = fc.record({
      id: fc.integer({ min: 1, max: 40 }),
      peer,
      ms: fc.integer({ min: 0, max: 9_999 }),
      mark: fc.integer({ min: 1, max: 3 }),
    });
    fc.assert(
      fc.property(
        fc.array(spread, { maxLength: 80 }),
        fc.integer(),
        spread,
        (claims, ranges, swept) => {
          const { routes } = keeping(40);
          const model = new Map<number, Claim>();
          for (const { id, peer: of, ms, mark } of claims) {
            routes.claim(id, of, ms, mark);
            model.set(id, { peer: of, ms, mark });
          }
          const isToGo = (id: number) => isIn(ranges, id);
          const gone = [...model].filter(
            ([id, { peer: of, mark }]) => of === swept.peer && mark !== swept.mark && isToGo(id),
          );
          const goneIds = gone.map(([id]) => id).sort((one, other) => one - other);
          expect(sweep(routes, swept.peer, swept.mark, isToGo)).toEqual(goneIds);
          for (const id of goneIds) model.delete(id);
          expectSums(routes, model);
          expect(new Set(visited(routes).keys())).toEqual(new Set(model.keys()));
        },
      ),
    );
  });

  test("a sweep or a visit in parts misses none, whatever is claimed and withdrawn in between", () => {
    const parts = fc.array(fc.array(step, { maxLength: 6 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), parts, (before, between) => {
        const { routes } = keeping(ROUTES_MAX);
        const model = new Map<number, Claim>();
        for (const one of before) apply(routes, model, one);
        const PEER = 1;
        const MARK = 3;
        /** There with the same claim from beginning to end, or withdrawn by the sweep. */
        const unmoved = new Map(
          [...model].filter(([, { peer: of, mark }]) => of === PEER && mark !== MARK),
        );
        const others = new Map([...model].filter(([, { peer: of }]) => of !== PEER));
        const seen = new Set<number>();
        const end = routes.sweepSteps;
        for (const [i, steps] of between.entries()) {
          const [from, to] = [i, i + 1].map((part) => Math.floor((part * end) / between.length));
          routes.visit(from!, to!, (id) => seen.add(id));
          routes.sweep(PEER, MARK, from!, to!);
          for (const one of steps) {
            unmoved.delete(one.id);
            others.delete(one.id);
            // What comes meanwhile has the new mark, as with a snapshot.
            if (one.what === "claim") routes.claim(one.id, one.peer, one.ms, MARK);
            else routes.withdraw(one.id, one.peer);
          }
        }
        for (const id of unmoved.keys()) expect([id, routes.find(id)]).not.toEqual([id, PEER]);
        for (const [id, { peer: of }] of others)
          expect([id, routes.find(id), seen.has(id)]).toEqual([id, of, true]);
        const stands = new Map<number, Claim>();
        routes.visit(0, end, (id, of, ms) => {
          if (of === PEER) expect([id, routes.markOf(id)]).toEqual([id, MARK]);
          stands.set(id, { peer: of, ms, mark: routes.markOf(id) });
        });
        expectSame(routes, stands);
      }),
      { numRuns: 300 },
    );
  });
});
