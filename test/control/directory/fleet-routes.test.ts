import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { EPOCHS_PER_MS } from "../../../src/control/directory/entries.ts";
import { IN_SNAPSHOT } from "../../../src/control/directory/fleet-routes.ts";
import { NO_MARK, NO_PEER, RouteTable } from "../../../src/shared/routes.ts";
import { routeMemory } from "../../support/route-memory.ts";
import { BOOT_MS, type Host, host, routesOf } from "./fleet-parts.ts";

const A = { name: "a:1", number: 1, mark: 1, isBehind: false };
const Z = { name: "z:1", number: 2, mark: 1, isBehind: false };

function fleet(one: Host = host()) {
  const made = routesOf(one);
  for (const { name, number } of [A, Z]) made.names.set(number, name);
  /** At a moment, monotonic. */
  const claim = (nodeId: number, claimer: typeof A, ms: number, saidMs = BOOT_MS + ms) =>
    made.routes.claim(nodeId, claimer, BOOT_MS + ms, saidMs);
  return { ...one, ...made, claim };
}

describe("claims", () => {
  test("the later one has the node, whatever the order; of two at the same time that of the name that sorts later", () => {
    for (const order of [
      [A, Z],
      [Z, A],
    ]) {
      const { claim, table } = fleet();
      for (const claimer of order) claim(5, claimer, claimer === A ? 2000 : 1000);
      for (const claimer of order) claim(6, claimer, 1000);
      expect([table.find(5), table.find(6)]).toEqual([A.number, Z.number]);
    }
  });

  test("a beacon's own later claim takes the place of its earlier one, and the other way round", () => {
    const { claim, table } = fleet();
    for (const ms of [1000, 3000, 2000]) {
      claim(5, A, ms);
      expect(table.claimedMs(5)).toBe(BOOT_MS + ms);
    }
  });

  test("all beacons come to the same, in whatever order they read", () => {
    const B = { name: "b:1", number: 3, mark: 1, isBehind: false };
    const claimers = fc.shuffledSubarray([A, B, Z], { minLength: 3 });
    const times = fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 3, maxLength: 3 });
    fc.assert(
      fc.property(claimers, claimers, times, (order, other, ms) => {
        const found = [order, other].map((one) => {
          const { claim, table, names } = fleet();
          names.set(B.number, B.name);
          for (const claimer of one) claim(5, claimer, ms[claimer.number - 1]!);
          return [table.find(5), table.claimedMs(5)];
        });
        expect(found[0]).toEqual(found[1]!);
      }),
    );
  });

  test("from more than a second ahead count as made now, and are counted", () => {
    const { claim, table, routes, at } = fleet();
    claim(5, A, at.ms + 900);
    expect([table.claimedMs(5), routes.fromFuture]).toEqual([BOOT_MS + at.ms + 900, 0]);
    claim(6, A, at.ms + 3_600_000);
    expect([table.claimedMs(6), routes.fromFuture]).toEqual([BOOT_MS + at.ms, 1]);
    at.ms += 2000;
    claim(6, A, at.ms + 3_600_000);
    expect([table.claimedMs(6), routes.fromFuture]).toEqual([BOOT_MS + at.ms, 2]);
  });

  test("that find no room are counted", () => {
    const table = new RouteTable(routeMemory(4));
    table.keepClaims();
    const { claim, routes } = fleet({ ...host(), table });
    for (let id = 1; id <= 6; id++) claim(id, A, 1000);
    expect([table.size, routes.refused]).toEqual([4, 2]);
  });

  test("gone nodes have no route, unless another beacon has them by then", () => {
    const { claim, table, routes } = fleet();
    claim(5, A, 1000);
    routes.gone(5, A);
    expect(table.find(5)).toBe(NO_PEER);
    claim(5, A, 1000);
    claim(5, Z, 2000);
    routes.gone(5, A);
    expect(table.find(5)).toBe(Z.number);
  });
});

describe("this beacon's own nodes", () => {
  test("are given up if another beacon heard them later, and claimed again if this one did", () => {
    const { claim, own, claimedAgain, routes, table } = fleet();
    own.heard.set(5, 1000).set(6, 3000);
    claim(5, A, 2000);
    claim(6, A, 2000);
    expect([own.givenUp, [...own.heard.keys()], claimedAgain]).toEqual([[5], [6], [6]]);
    expect([routes.lost, routes.claimedAgain]).toEqual([1, 1]);
    expect(table.find(5)).toBe(A.number);
  });

  test("go by the name where both heard them at the same time", () => {
    const { claim, own, claimedAgain } = fleet(); // this one is m:1
    own.heard.set(5, 1000).set(6, 1000);
    claim(5, A, 1000);
    claim(6, Z, 1000);
    expect([own.givenUp, claimedAgain]).toEqual([[6], [5]]);
  });

  test("that speak up in that very moment stay, and are claimed again", () => {
    const { claim, own, claimedAgain } = fleet();
    own.heard.set(5, 1000);
    own.speakingUp.add(5);
    claim(5, A, 2000);
    expect([own.givenUp, claimedAgain]).toEqual([[], [5]]);
  });

  test("are compared by what is claimed of them, not by what was heard", () => {
    const one = host();
    one.own.heard.set(5, 1000);
    const { routes, claimedAgain } = routesOf(one, { claimedMs: () => BOOT_MS + 2500 });
    routes.claim(5, A, BOOT_MS + 2000, BOOT_MS + 2000);
    expect([one.own.givenUp, claimedAgain]).toEqual([[], [5]]);
  });

  test("can be contested without a route being made", () => {
    const { routes, own, table } = fleet();
    own.heard.set(5, 1000);
    routes.contest(5, A.name, BOOT_MS + 2000);
    expect([own.givenUp, table.size]).toEqual([[5], 0]);
  });

  test("are claimed again when another beacon no longer has them that was not known to have them, or to have them still", () => {
    const { routes, own, claim, claimedAgain } = fleet();
    own.heard.set(5, 1000).set(6, 1000);
    claim(6, A, 500); // claimed again right then
    expect(claimedAgain).toEqual([6]);
    routes.gone(5, A);
    routes.gone(6, A);
    routes.gone(7, A);
    expect(claimedAgain).toEqual([6, 5]);
    routes.contestGone(5, { number: undefined, isBehind: true });
    expect(claimedAgain).toEqual([6, 5, 5]);
    claim(6, A, 500);
    expect(claimedAgain).toEqual([6, 5, 5, 6]);
    routes.gone(6, { ...A, isBehind: true }); // it may have claimed it later than that
    expect(claimedAgain).toEqual([6, 5, 5, 6, 6]);
  });
});

describe("sweeps", () => {
  test("withdraw what lacks the mark, or everything", async () => {
    const { routes, claim, table } = fleet();
    for (let id = 1; id <= 20; id++) claim(id, { ...A, mark: 1 + (id & 1) }, 1000);
    claim(50, Z, 1000);
    await routes.sweep(A.number, 2);
    expect([table.routesOf(A.number), table.find(1), table.find(2), table.find(50)]).toEqual([
      10,
      A.number,
      NO_PEER,
      Z.number,
    ]);
    await routes.sweep(A.number, NO_MARK);
    expect([table.routesOf(A.number), table.routesOf(Z.number)]).toEqual([0, 1]);
  });

  test("come one behind the other, and all can be waited for", async () => {
    // Of several slices each, with a pause between them.
    const one = host();
    const table = new RouteTable(routeMemory(20_000));
    table.keepClaims();
    let pauses = 0;
    const pause = async () => {
      pauses++;
      await Bun.sleep(0);
    };
    const { routes } = routesOf({ ...one, table }, { pause });
    const claim = (id: number, mark: number) => routes.claim(id, { ...A, mark }, BOOT_MS + 1000, IN_SNAPSHOT);
    for (let id = 1; id <= 10_000; id++) claim(id, 1);
    const first = routes.sweep(A.number, 2);
    for (let id = 1; id <= 5000; id++) claim(id, 2);
    await first;
    expect(table.routesOf(A.number)).toBe(5000);
    const ofOne = pauses;
    expect(ofOne).toBeGreaterThan(3);
    const order: string[] = [];
    const second = routes.sweep(A.number, 2).then(() => order.push("second", `${table.routesOf(A.number)}`));
    void routes.sweep(A.number, NO_MARK).then(() => order.push("third"));
    await routes.swept();
    expect(table.routesOf(A.number)).toBe(0);
    expect(pauses).toBeGreaterThan(2 * ofOne);
    expect([order[0], order.at(-1)]).toEqual(["second", "third"]);
    await Promise.all([second, routes.swept()]);
  });

  test("tell whose claims had lost to the routes that are withdrawn, if those may not know: once", async () => {
    const { routes, claim, outlived } = fleet();
    claim(5, A, 2000);
    claim(5, Z, 1000, IN_SNAPSHOT); // Z's snapshot names it, and A's claim is later
    await routes.sweep(A.number, 1);
    expect(outlived).toEqual([]); // nothing was withdrawn
    await routes.sweep(A.number, NO_MARK);
    expect(outlived).toEqual([Z.number]);
    await routes.sweep(A.number, NO_MARK);
    claim(5, A, 2000);
    await routes.sweep(A.number, NO_MARK);
    expect(outlived).toEqual([Z.number]);
  });

  test("that also if a snapshot's claim took the node; what was said in the log, who was there has heard", async () => {
    const { routes, claim, outlived } = fleet();
    claim(5, Z, 1000);
    claim(5, A, 2000);
    await routes.sweep(A.number, NO_MARK);
    expect(outlived).toEqual([]);
    claim(5, Z, 1000);
    claim(5, A, 2000, IN_SNAPSHOT);
    await routes.sweep(A.number, NO_MARK);
    expect(outlived).toEqual([Z.number]);
  });

  test("that also if a beacon that began anew claims a node as of earlier than before", async () => {
    const { routes, claim, outlived } = fleet();
    claim(5, A, 3000);
    claim(5, Z, 2000);
    claim(5, A, 1000, IN_SNAPSHOT); // another process of its name
    await routes.sweep(A.number, A.mark);
    expect(outlived).toEqual([Z.number]);
    await routes.sweep(A.number, A.mark);
    expect(outlived).toEqual([Z.number]);
  });

  test("and who began later, or hardly earlier by whatever clock, has not", async () => {
    const { routes, claim, outlived, epochs } = fleet();
    for (const [beganMs, isTold] of [
      [3000, true],
      [1500, true],
      [500, false],
    ] as const) {
      epochs.set(Z.number, (BOOT_MS + beganMs) * EPOCHS_PER_MS);
      claim(5, Z, 1000);
      claim(5, A, 2000);
      await routes.sweep(A.number, NO_MARK);
      expect(outlived.splice(0)).toEqual(isTold ? [Z.number] : []);
    }
  });
});

test("a table that gossip fills, too, is compared by the claims that it has", () => {
  const { claim, table } = fleet();
  table.claim(5, 9, BOOT_MS + 1500);
  claim(5, A, 1000);
  expect(table.find(5)).toBe(9);
  claim(5, A, 2000);
  expect(table.find(5)).toBe(A.number);
});
