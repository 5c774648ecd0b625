import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Claimer } from "../../../src/control/directory/fleet-routes.ts";
import { WAITING_MAX } from "../../../src/control/directory/waiting-claims.ts";
import { ClaimSums, rangeOf } from "../../../src/shared/claim-digest.ts";
import { NO_PEER } from "../../../src/shared/routes.ts";
import { NO_MARK, RouteTableOwner } from "../../../src/shared/routes-owner.ts";
import { routeMemory } from "../../support/route-memory.ts";
import { BOOT_MS, claimerOf, type Host, host, routesOf } from "./fleet-parts.ts";

const GOSSIP = 9;

function fleet(one: Host = host(), parts: Parameters<typeof routesOf>[1] = {}) {
  const made = routesOf(one, parts);
  const [a, z] = [claimerOf("a:1", 1), claimerOf("z:1", 2)];
  for (const claimer of [a, z]) made.claimers.set(claimer.number, claimer);
  /** At a moment, monotonic. */
  const claim = (nodeId: number, claimer: Claimer, ms: number) =>
    made.routes.claim(nodeId, claimer, BOOT_MS + ms);
  return { ...one, ...made, claim, a, z };
}

describe("claims that stand", () => {
  test("the latest has the route; of two with one date that of the name that sorts last", () => {
    for (const isReversed of [false, true]) {
      const { claim, table, a, z } = fleet();
      const order = isReversed ? [z, a] : [a, z];
      for (const claimer of order) claim(5, claimer, claimer === a ? 2000 : 1000);
      for (const claimer of order) claim(6, claimer, 1000);
      expect([table.find(5), table.find(6)]).toEqual([a.number, z.number]);
      expect([a.waiting.size, z.waiting.size]).toEqual([1, 1]);
    }
  });

  test("a withdrawn one leaves the route to the latest of those that wait", () => {
    const { claim, table, routes, claimers, a, z } = fleet();
    const b = claimerOf("b:1", 3);
    claimers.set(3, b);
    claim(5, a, 1000);
    claim(5, z, 3000);
    claim(5, b, 2000);
    routes.withdraw(5, z);
    expect([table.find(5), table.claimedMs(5)]).toEqual([b.number, BOOT_MS + 2000]);
    routes.withdraw(5, a); // which waits
    routes.withdraw(5, b);
    expect(table.find(5)).toBe(NO_PEER);
    expect([a, b, z].map(({ waiting }) => waiting.size)).toEqual([0, 0, 0]);
  });

  test("a beacon's claim replaces its claim before, whichever is later", () => {
    const { claim, table, a, z } = fleet();
    for (const ms of [1000, 3000, 2000]) {
      claim(5, a, ms);
      expect(table.claimedMs(5)).toBe(BOOT_MS + ms);
    }
    claim(5, z, 1500); // waits
    claim(5, a, 1000); // earlier than that by now
    expect([table.find(5), a.waiting.size, z.waiting.size]).toEqual([z.number, 1, 0]);
    claim(5, a, 1800);
    expect([table.find(5), a.waiting.size, z.waiting.size]).toEqual([a.number, 0, 1]);
  });

  test("routes depend on what stands, and not on the order in which it was read; and so do the sums", () => {
    const step = fc.record({
      of: fc.integer({ min: 1, max: 4 }),
      node: fc.integer({ min: 1, max: 3 }),
      ms: fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined, freq: 3 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const { claim, routes, table, claimers } = fleet();
        for (const number of [1, 2, 3, 4]) claimers.set(number, claimerOf(`${number}:1`, number));
        const standing = new Map<string, number>();
        for (const { of, node, ms } of steps) {
          if (ms === undefined) {
            routes.withdraw(node, claimers.get(of)!);
            standing.delete(`${of} ${node}`);
          } else {
            claim(node, claimers.get(of)!, 1000 * ms);
            standing.set(`${of} ${node}`, 1000 * ms);
          }
        }
        for (const node of [1, 2, 3]) {
          const best = [1, 2, 3, 4].reduce((one, of) => {
            const ms = standing.get(`${of} ${node}`) ?? -1;
            return ms >= 0 && ms >= (standing.get(`${one} ${node}`) ?? -1) ? of : one;
          }, NO_PEER);
          expect(table.find(node)).toBe(best);
        }
        for (const [number, claimer] of claimers) {
          const sums = new ClaimSums();
          for (const [key, ms] of standing) {
            const [of, node] = key.split(" ").map(Number);
            if (of === number) sums.add(node!, BOOT_MS + ms);
          }
          expect(routes.differing(claimer, sums.row(), 0)).toBe(0);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("sums differ in the ranges of nodes whose claims are missing, too many, or of another date", () => {
    const { claim, routes, a, z } = fleet();
    const sums = new ClaimSums();
    for (let id = 1; id <= 50; id++) {
      sums.add(id, BOOT_MS + 1000);
      claim(id, a, 1000);
    }
    claim(7, z, 2000); // so that one of them waits
    expect(routes.differing(a, sums.row(), 0)).toBe(0);
    sums.add(77, BOOT_MS + 1000);
    const missing = routes.differing(a, sums.row(), 0);
    expect(missing & (missing - 1)).toBe(0); // one bit
    expect(missing).not.toBe(0);
    claim(77, a, 1000);
    expect(routes.differing(a, sums.row(), 0)).toBe(0);
    claim(77, a, 5000);
    expect(routes.differing(a, sums.row(), 0)).toBe(missing);
  });

  test("sums differ in the range of a claim that waits for a node without a route", () => {
    const { claim, routes, table, a, z } = fleet();
    claim(5, a, 1000);
    claim(5, z, 2000);
    const sums = new ClaimSums();
    sums.add(5, BOOT_MS + 1000);
    expect(routes.differing(a, sums.row(), 0)).toBe(0);
    table.withdraw(5, z.number); // nobody knows how
    expect(routes.differing(a, sums.row(), 0)).toBe(1 << rangeOf(5));
    claim(5, a, 1000); // as a snapshot says
    expect([table.find(5), a.waiting.size, routes.differing(a, sums.row(), 0)]).toEqual([
      a.number,
      0,
      0,
    ]);
  });

  test("those that find no room in the table are counted", () => {
    const table = new RouteTableOwner(routeMemory(4));
    table.keepClaims();
    const { claim, routes, a } = fleet({ ...host(), table });
    for (let id = 1; id <= 6; id++) claim(id, a, 1000);
    expect([table.size, routes.refused, a.incomplete]).toEqual([
      4,
      2,
      (1 << rangeOf(5)) | (1 << rangeOf(6)),
    ]);
  });

  test("more of a beacon's than may wait are reported, and not kept", () => {
    const table = new RouteTableOwner(routeMemory(WAITING_MAX + 10));
    table.keepClaims();
    const { claim, a, z, full } = fleet({ ...host(), table });
    for (let id = 1; id <= WAITING_MAX + 1; id++) {
      claim(id, z, 2000);
      claim(id, a, 1000);
    }
    expect([full, a.waiting.size, a.incomplete]).toEqual([
      [a],
      WAITING_MAX,
      1 << rangeOf(WAITING_MAX + 1),
    ]);
  });
});

describe("this beacon's own nodes", () => {
  test("are given up if another beacon heard them later", () => {
    const { claim, own, claimedAgain, routes, table, a } = fleet();
    own.heard.set(5, 1000).set(6, 3000);
    claim(5, a, 2000);
    claim(6, a, 2000);
    expect([own.givenUp, [...own.heard.keys()], claimedAgain]).toEqual([[5], [6], []]);
    expect([routes.lost, routes.claimedAgain, table.find(5)]).toEqual([1, 0, a.number]);
  });

  test("are claimed again only if the date that was published loses to the other's", () => {
    const published = new Map([
      [5, 1000],
      [6, 2500],
      [7, -1 - BOOT_MS],
    ]);
    const { claim, own, claimedAgain, routes, a } = fleet(host(), {
      publishedMs: (id) => BOOT_MS + published.get(id)!,
    });
    for (const id of published.keys()) own.heard.set(id, 3000); // heard since
    for (const id of published.keys()) claim(id, a, 2000);
    expect(claimedAgain).toEqual([
      [5, 0],
      [7, 0],
    ]);
    expect([routes.claimedAgain, own.givenUp]).toEqual([1, []]); // 7 was never published
  });

  test("go by the name where both heard them at the same time", () => {
    const { claim, own, a, z } = fleet(); // this one is m:1
    own.heard.set(5, 1000).set(6, 1000);
    claim(5, a, 1000);
    claim(6, z, 1000);
    expect(own.givenUp).toEqual([6]);
  });

  test("that are heard in that very moment stay, and are claimed again as of later", () => {
    const { claim, own, claimedAgain, a } = fleet();
    own.heard.set(5, 1000);
    own.speakingUp.add(5);
    claim(5, a, 2000);
    expect([own.givenUp, claimedAgain]).toEqual([[], [[5, BOOT_MS + 2000]]]);
  });

  test("can be contested without a route being made", () => {
    const { routes, own, table, a } = fleet();
    own.heard.set(5, 1000);
    routes.contest(5, a.name, BOOT_MS + 2000);
    expect([own.givenUp, table.size, a.waiting.size]).toEqual([[5], 0, 0]);
  });
});

describe("gossip of peers that are not in the directory", () => {
  test("is compared by the date that its claims came", () => {
    const { claim, table, a } = fleet();
    table.claim(5, GOSSIP, BOOT_MS + 1500);
    claim(5, a, 1000);
    expect([table.find(5), a.waiting.size]).toEqual([GOSSIP, 1]);
    claim(5, a, 2000);
    expect([table.find(5), a.waiting.size]).toEqual([a.number, 0]);
  });

  test("has a node's route while its claim stands; then the directory's claim has it again", () => {
    const { claim, routes, table, a } = fleet();
    claim(5, a, 1000);
    routes.displace(5);
    table.claim(5, GOSSIP, BOOT_MS + 1500);
    expect([table.find(5), a.waiting.size]).toEqual([GOSSIP, 1]);
    table.withdraw(5, GOSSIP);
    routes.settle(5);
    expect([table.find(5), table.claimedMs(5), a.waiting.size]).toEqual([
      a.number,
      BOOT_MS + 1000,
      0,
    ]);
    routes.displace(6); // which nobody has
    expect(a.waiting.size).toBe(0);
  });
});

describe("sweeps", () => {
  test("run although the one before threw", async () => {
    const { claim, routes, a, table } = fleet();
    claim(5, a, 1000);
    const failing = routes.sweep(a.number, NO_MARK, () => {
      throw new Error("no luck");
    });
    const next = routes.sweep(a.number, NO_MARK);
    await expect(failing).rejects.toThrow("no luck");
    await next;
    await routes.swept();
    expect(table.find(5)).toBe(NO_PEER);
  });

  test("withdraw what lacks the mark, or everything; what waits for a node has its route then", async () => {
    const { routes, claim, table, a, z } = fleet();
    for (let id = 1; id <= 20; id++) claim(id, { ...a, mark: 1 + (id & 1) }, 1000);
    claim(50, z, 1000);
    claim(2, z, 500);
    await routes.sweep(a.number, 2);
    expect([
      table.routesOf(a.number),
      table.find(1),
      table.find(2),
      table.find(4),
      table.find(50),
    ]).toEqual([10, a.number, z.number, NO_PEER, z.number]);
    await routes.sweep(a.number, NO_MARK);
    expect([table.routesOf(a.number), table.routesOf(z.number)]).toEqual([0, 2]);
  });

  test("withdraw what is to go alone, among the claims that wait, too", async () => {
    const { routes, claim, table, a, z } = fleet();
    for (let id = 1; id <= 20; id++) claim(id, a, 1000);
    for (let id = 1; id <= 10; id++) claim(id, z, 2000); // ten of a's wait
    await routes.sweep(a.number, 2, (id) => id % 2 === 0);
    expect([table.routesOf(a.number), a.waiting.size]).toEqual([5, 5]);
    await routes.sweep(a.number, 2);
    expect([table.routesOf(a.number), a.waiting.size, table.routesOf(z.number)]).toEqual([
      0, 0, 10,
    ]);
  });

  test("withdraw a claim that a later one displaces while they are under way", async () => {
    let meanwhile = () => {};
    const pause = async () => meanwhile();
    const { routes, claim, table, a, z } = fleet(host(), { pause });
    claim(5, a, 1000);
    claim(6, a, 1000);
    meanwhile = () => {
      if (table.find(5) === a.number) claim(5, z, 2000);
    };
    await routes.sweep(a.number, 2, (id) => id === 5);
    expect([table.find(5), table.find(6), a.waiting.size]).toEqual([z.number, a.number, 0]);
  });

  test("come one behind the other, and all can be waited for", async () => {
    // Of several slices each, with a pause between them.
    const one = host();
    const table = new RouteTableOwner(routeMemory(20_000));
    table.keepClaims();
    let pauses = 0;
    const pause = async () => {
      pauses++;
      await Bun.sleep(0);
    };
    const { routes, a } = fleet({ ...one, table }, { pause });
    const claim = (id: number, mark: number) => routes.claim(id, { ...a, mark }, BOOT_MS + 1000);
    for (let id = 1; id <= 10_000; id++) claim(id, 1);
    const first = routes.sweep(a.number, 2);
    for (let id = 1; id <= 5000; id++) claim(id, 2);
    await first;
    expect(table.routesOf(a.number)).toBe(5000);
    const ofOne = pauses;
    expect(ofOne).toBeGreaterThan(3);
    const order: string[] = [];
    const second = routes
      .sweep(a.number, 2)
      .then(() => order.push("second", `${table.routesOf(a.number)}`));
    void routes.sweep(a.number, NO_MARK).then(() => order.push("third"));
    await routes.swept();
    expect(table.routesOf(a.number)).toBe(0);
    expect(pauses).toBeGreaterThan(2 * ofOne);
    expect([order[0], order.at(-1)]).toEqual(["second", "third"]);
    await Promise.all([second, routes.swept()]);
  });
});
