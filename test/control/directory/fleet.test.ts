import { beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  ASK,
  CHANGES_MAX,
  type Changes,
  type Entry,
  type SnapshotName,
} from "../../../src/control/directory/entries.ts";
import { Fleet, type Followed } from "../../../src/control/directory/fleet.ts";
import type { Claimer } from "../../../src/control/directory/fleet-routes.ts";
import { ALL_RANGES, ClaimSums, rangeOf } from "../../../src/shared/claim-digest.ts";
import { PEERS_MAX } from "../../../src/shared/memory.ts";
import { NO_PEER } from "../../../src/shared/routes.ts";
import { RouteTableOwner } from "../../../src/shared/routes-owner.ts";
import { routeMemory } from "../../support/route-memory.ts";
import { BOOT_MS, changesOf, host, leaseOf, routesOf } from "./fleet-parts.ts";

const B = "b:1";
const NUMBER = 4;

function fleet({ routesMax = 480, keptNodesMax = 65_536 } = {}) {
  const parts = { ...host(), table: new RouteTableOwner(routeMemory(routesMax)) };
  parts.table.keepClaims();
  const { routes, claimers, claimedAgain } = routesOf(parts, {
    tooManyWait: (claimer) => made.tooManyWait(claimer),
  });
  const seen = {
    ofSelf: [] as Entry[],
    asked: [] as [ranges: number, asker: string][],
    applied: [] as Changes[],
    changed: 0,
  };
  const left: string[] = [];
  const complaints: string[] = [];
  const made: Fleet = new Fleet({
    ...{ name: "m:1", beaconId: 99, routes, keptNodesMax, random: () => 0.5 },
    heardOfSelf: (entry) => seen.ofSelf.push(entry),
    asked: (ranges, asker) => seen.asked.push([ranges, asker]),
    applied: (changes) => seen.applied.push(changes),
    changed: () => seen.changed++,
    left: (beacon, why) => left.push(`${beacon.name} ${why}`),
    complain: (about) => complaints.push(about),
  });
  const hear = (entry: Entry, ms = 0) => made.hear(entry, ms);
  /** Follows a beacon from a number on, as if a snapshot was loaded. */
  const follow = (name = B, seq = 0, number = NUMBER): Followed => {
    hear(leaseOf(name, seq));
    const beacon = made.beacons.get(name)!;
    beacon.numbered(number);
    claimers.set(number, beacon as Followed & Claimer);
    beacon.follow(named(seq));
    made.resyncs.new = 0;
    return beacon;
  };
  return { ...parts, fleet: made, hear, follow, seen, left, complaints, claimedAgain };
}

const named = (seq: number, ranges = ALL_RANGES): SnapshotName => ({ seq, parts: 1, ranges });
const askOf = (name: string, of: string, ranges = ALL_RANGES): Entry => ({
  ...{ kind: ASK, name, epoch: 1, ranges },
  of: { name: of, epoch: 1 },
});
/** The first of these snapshots that a beacon's changes continue. */
const neededOf = (beacon: Followed): number | undefined =>
  Array.from({ length: 100 }, (_, seq) => seq).find((seq) => beacon.continues(named(seq)));

let at: ReturnType<typeof fleet>;
beforeEach(() => {
  at = fleet();
});

describe("a beacon that is followed", () => {
  test("has its changes applied, gone nodes before those claimed, each numbered one more than the last", () => {
    const beacon = at.follow();
    at.hear(changesOf(B, 1, { 5: 1000, 6: 1000 }));
    at.hear(changesOf(B, 2, { 7: 1000 }, [5]));
    expect([5, 6, 7].map((id) => at.table.find(id))).toEqual([NO_PEER, NUMBER, NUMBER]);
    expect([beacon.seq, at.seen.applied.length, beacon.isBehind]).toEqual([2, 2, false]);
  });

  test("says nothing new with a number that was there", () => {
    const beacon = at.follow(B, 5);
    for (const seq of [5, 4, 1]) at.hear(changesOf(B, seq, { 5: 1000 }));
    at.hear(leaseOf(B, 5));
    expect([beacon.seq, beacon.isBehind, at.table.size, at.seen.applied]).toEqual([
      5,
      false,
      0,
      [],
    ]);
  });

  test("is behind once a number is missing, in its changes or in what a lease says", () => {
    const beacon = at.follow();
    at.hear(changesOf(B, 1));
    at.hear(changesOf(B, 3, { 5: 1000 }));
    expect([beacon.isBehind, neededOf(beacon), at.fleet.resyncs.gap]).toEqual([true, 2, 1]);
    expect(at.table.find(5)).toBe(NUMBER); // which is so, whatever was missed
    beacon.follow(named(2));
    expect(beacon.seq).toBe(3);
    at.hear(leaseOf(B, 4));
    expect([beacon.isBehind, neededOf(beacon), at.fleet.resyncs.gap]).toEqual([true, 4, 2]);
  });

  test("is behind when it begins anew, and what it said before does not count", () => {
    const beacon = at.follow(B, 7);
    at.hear(changesOf(B, 1, { 5: 1000 }, [], 2));
    expect([beacon.epoch, beacon.isBehind, neededOf(beacon), at.fleet.resyncs.restarted]).toEqual([
      2,
      true,
      0,
      1,
    ]);
    at.hear(changesOf(B, 8, { 6: 1000 }));
    at.hear(leaseOf(B, 8));
    expect([beacon.epoch, neededOf(beacon), at.fleet.stale, at.complaints]).toEqual([
      2,
      0,
      2,
      ["double_name"],
    ]);
  });
});

describe("a beacon that is behind", () => {
  test("is one that nobody heard of before", () => {
    at.hear(changesOf(B, 9, { 5: 1000 }));
    const beacon = at.fleet.beacons.get(B)!;
    expect([neededOf(beacon), at.seen.changed, at.fleet.resyncs.new]).toEqual([8, 1, 1]);
    at.hear(leaseOf("c:1", 9));
    expect(neededOf(at.fleet.beacons.get("c:1")!)).toBe(9);
  });

  test("needs a snapshot that its changes continue, from behind the last gap on", () => {
    at.hear(changesOf(B, 3));
    const beacon = at.fleet.beacons.get(B)!;
    for (const seq of [4, 4, 2, 5]) at.hear(changesOf(B, seq));
    expect(neededOf(beacon)).toBe(2);
    at.hear(changesOf(B, 7));
    expect(neededOf(beacon)).toBe(6);
    at.hear(leaseOf(B, 8));
    at.hear(changesOf(B, 9));
    expect(neededOf(beacon)).toBe(8);
    at.hear(leaseOf(B, 9));
    expect(neededOf(beacon)).toBe(8);
  });

  test("needs a snapshot of what its lease says if changes beyond that came: these were forged", () => {
    at.hear(changesOf(B, 5, { 5: 1000 }));
    const beacon = at.fleet.beacons.get(B)!;
    at.hear(leaseOf(B, 4));
    expect([neededOf(beacon), beacon.hasChanged(5, named(4))]).toEqual([4, false]);
  });

  test("is loaded from a snapshot that what is kept continues, and from no other", () => {
    at.hear(changesOf(B, 4));
    const beacon = at.fleet.beacons.get(B)!;
    beacon.number = NUMBER;
    let lastSeq = 4;
    const toLoad = (seq: number | undefined) => {
      at.hear(leaseOf(B, lastSeq, { snapshot: seq === undefined ? undefined : named(seq) }));
      return at.fleet.toLoad()?.wanted?.seq;
    };
    expect([toLoad(undefined), toLoad(2), toLoad(3), toLoad(4), toLoad(undefined)]).toEqual([
      undefined,
      undefined,
      3,
      4,
      undefined,
    ]);
    expect(toLoad(3)).toBe(3);
    at.hear(changesOf(B, 5));
    expect(at.fleet.toLoad()?.wanted?.seq).toBe(3);
    at.hear(changesOf(B, 7)); // a gap: the snapshot is too early
    lastSeq = 7;
    expect(at.fleet.toLoad()).toBeUndefined();
    expect(toLoad(6)).toBe(6);
    beacon.number = undefined;
    expect(at.fleet.toLoad()).toBeUndefined();
  });

  test("has at most so many changed nodes kept; beyond that a later snapshot is needed", () => {
    let seq = 1;
    const hearMore = () =>
      at.hear(
        changesOf(
          B,
          seq,
          Object.fromEntries(
            Array.from({ length: CHANGES_MAX }, (_, i) => [seq * CHANGES_MAX + i, 1000]),
          ),
        ),
      );
    for (; seq <= 64; seq++) hearMore();
    const beacon = at.fleet.beacons.get(B)!;
    expect([neededOf(beacon), at.fleet.resyncs.too_far_behind]).toEqual([0, 0]);
    hearMore();
    expect([neededOf(beacon), at.fleet.resyncs.too_far_behind]).toEqual([65, 1]);
    expect(beacon.hasChanged(65 * CHANGES_MAX, named(0))).toBe(false);
    seq++;
    hearMore();
    expect([neededOf(beacon), beacon.hasChanged(66 * CHANGES_MAX, named(65))]).toEqual([65, true]);
  });

  test("has what it says applied in the order of the log, among what others say", () => {
    at.follow("c:1", 0, NUMBER + 1);
    at.follow();
    at.hear(changesOf(B, 7, { 5: 2000, 6: 2000 })); // behind from here on
    at.hear(changesOf("c:1", 1, { 5: 1000 })); // earlier
    expect([at.table.find(5), at.table.find(6)]).toEqual([NUMBER, NUMBER]);
    at.hear(changesOf(B, 8, {}, [5]));
    at.hear(changesOf(B, 8, { 5: 3000 })); // a number that was there
    expect(at.table.find(5)).toBe(NUMBER + 1); // whose claim waited
    at.hear(changesOf("c:1", 2, {}, [5]));
    expect(at.table.find(5)).toBe(NO_PEER);
    expect(at.seen.applied).toHaveLength(4);
  });

  test("has what changed behind a snapshot left as it is", () => {
    const beacon = at.follow();
    at.hear(changesOf(B, 7, { 5: 2000, 6: 2000 }));
    at.hear(changesOf(B, 8, { 8: 2000 }, [5]));
    const changed = (seq: number) => [4, 5, 6, 8].map((id) => beacon.hasChanged(id, named(seq)));
    expect(changed(6)).toEqual([false, true, true, true]);
    expect(changed(7)).toEqual([false, true, false, true]);
    expect(changed(8)).toEqual([false, false, false, false]);
    beacon.follow(named(7));
    expect([beacon.seq, changed(6)]).toEqual([8, [false, false, false, false]]);
  });

  test("needs a snapshot of all that it said before it had a number: nothing of that could be routed", () => {
    at.hear(changesOf(B, 7, { 5: 2000 }));
    const beacon = at.fleet.beacons.get(B)!;
    expect([neededOf(beacon), at.table.size]).toEqual([6, 0]);
    beacon.numbered(NUMBER);
    expect([beacon.number, neededOf(beacon), beacon.hasChanged(5, named(6))]).toEqual([
      NUMBER,
      7,
      false,
    ]);
  });

  test("is loaded from the snapshot that was named before it had a number, if nothing changed since", () => {
    at.hear(leaseOf(B, 4, { snapshot: named(4) }));
    const beacon = at.fleet.beacons.get(B)!;
    expect(at.fleet.toLoad()).toBeUndefined();
    beacon.numbered(NUMBER);
    expect(at.fleet.toLoad()?.wanted).toEqual(named(4));
    at.hear(leaseOf("c:1", 4, { snapshot: named(4) }));
    at.hear(changesOf("c:1", 5, { 5: 2000 }));
    at.fleet.beacons.get("c:1")!.numbered(NUMBER + 1);
    expect(at.fleet.beacons.get("c:1")!.wanted).toBeUndefined();
  });

  test("has its claims to this beacon's own nodes settled at once", () => {
    at.own.heard.set(5, 1000).set(6, 3000).set(7, 1000);
    at.hear(changesOf(B, 4, { 5: 2000, 6: 2000 }, [7]));
    expect([at.own.givenUp, at.claimedAgain, at.table.size]).toEqual([[5], [], 0]);
  });

  test("is not to be loaded any more once it is followed, whatever was named meanwhile", () => {
    at.hear(changesOf(B, 4));
    const beacon = at.fleet.beacons.get(B)!;
    beacon.number = NUMBER;
    at.hear(leaseOf(B, 4, { snapshot: named(4) }));
    beacon.follow(named(4));
    expect(at.fleet.toLoad()).toBeUndefined();
    at.hear(leaseOf(B, 4, { snapshot: named(4) }));
    expect(at.fleet.toLoad()).toBeUndefined();
  });
});

describe("questions", () => {
  const asked = (ms: number) => at.fleet.toAsk(ms).map(({ name }) => name);

  test("come a little later, and again and again if nobody answers, less and less often", () => {
    at.hear(changesOf(B, 4), 1000);
    at.fleet.beacons.get(B)!.numbered(NUMBER);
    expect([asked(1000), asked(1124)]).toEqual([[], []]);
    expect([asked(1125), asked(1125)]).toEqual([[B], []]);
    const times: number[] = [];
    for (let ms = 1125; ms < 80_000; ms += 25) if (asked(ms).length > 0) times.push(ms - 1125);
    expect(times).toEqual([1250, 3750, 8750, 18_750, 31_250, 43_750, 56_250, 68_750]);
  });

  test("wait until the beacon's name is resolved", () => {
    at.hear(changesOf(B, 4), 1000);
    expect(asked(60_000)).toEqual([]);
    at.fleet.beacons.get(B)!.numbered(NUMBER);
    expect(asked(60_000)).toEqual([B]);
  });

  test("are left to others that ask first, and not asked while the answer is loaded", () => {
    at.hear(changesOf(B, 4), 1000);
    at.hear(askOf("c:1", B), 1100);
    const beacon = at.fleet.beacons.get(B)!;
    beacon.numbered(NUMBER);
    at.fleet.beacons.get("c:1")!.numbered(NUMBER + 1);
    expect([asked(1225), asked(2349), asked(2350)]).toEqual([["c:1"], [], [B]]);
    beacon.isLoading = true;
    expect(asked(60_000)).toEqual(["c:1"]);
    beacon.isLoading = false;
    beacon.wanted = named(4);
    expect(asked(120_000)).toEqual(["c:1"]);
    beacon.follow(named(4));
    expect(asked(180_000)).toEqual(["c:1"]);
  });

  test("to this beacon are passed on, whoever asks; of its own name nothing else is", () => {
    at.hear(askOf("c:1", "m:1"));
    at.hear(askOf("m:1", "m:1"));
    at.hear(leaseOf("m:1", 3));
    expect([at.seen.asked, at.seen.ofSelf.length, [...at.fleet.beacons.keys()]]).toEqual([
      [
        [ALL_RANGES, "c:1"],
        [ALL_RANGES, "m:1"],
      ],
      2,
      ["c:1"],
    ]);
  });

  test("of others hold this beacon's back only if they cover its ranges", () => {
    const beacon = at.follow();
    at.fleet.fallBehind(beacon, "diverged", 1000, 0b110);
    at.hear(askOf("c:1", B, 0b010), 1100);
    const askedOfB = (ms: number) => at.fleet.toAsk(ms).filter(({ name }) => name === B);
    expect(askedOfB(1125).map(({ ranges }) => ranges)).toEqual([0b110]);
    at.hear(askOf("c:1", B, 0b111), 2300);
    expect(askedOfB(3000)).toEqual([]);
    expect(askedOfB(3550)).toHaveLength(1);
  });
});

describe("who is there", () => {
  test("is who was heard within its lease, whose bounds are these beacons'", () => {
    at.follow();
    const deadline = ({ heardMs, leaseMs }: Followed) => heardMs + leaseMs;
    at.hear(leaseOf(B, 0, { leaseMs: 5000 }), 1000);
    at.hear(leaseOf("c:1", 0, { leaseMs: 0 }), 1000);
    at.hear(leaseOf("d:1", 0, { leaseMs: 0xffff_ffff }), 1000);
    at.fleet.expire(2000, deadline);
    expect(at.left).toEqual([]);
    at.fleet.expire(2001, deadline);
    at.fleet.expire(6001, deadline);
    expect(at.left).toEqual(["c:1 was not heard for its lease", "b:1 was not heard for its lease"]);
    at.fleet.expire(601_000, deadline);
    expect([...at.fleet.beacons.keys()]).toEqual(["d:1"]);
    at.fleet.expire(601_001, deadline);
    expect(at.fleet.beacons.size).toBe(0);
  });

  test("is not who leaves, and who was not there does not come to leave", () => {
    at.follow();
    at.hear(leaseOf(B, 0, { isLeaving: true }));
    at.hear(leaseOf("c:1", 0, { isLeaving: true }));
    expect([at.left, at.fleet.beacons.size]).toEqual([["b:1 left"], 0]);
  });

  test("that somebody left does not count if it is of an earlier start", () => {
    const beacon = at.follow();
    beacon.epoch = 5;
    at.hear(leaseOf(B, 0, { isLeaving: true }));
    expect([at.left, at.fleet.stale]).toEqual([[], 1]);
  });

  test("is found in the directory, too: how far it is shows in the log alone", () => {
    at.fleet.find(leaseOf(B, 7, { snapshot: named(7), leaseMs: 3000 }), 1000);
    at.fleet.find(leaseOf("m:1", 7), 1000);
    at.fleet.find(leaseOf("c:1", 7, { isLeaving: true }), 1000);
    expect([...at.fleet.beacons.keys()]).toEqual([B]);
    const beacon = at.fleet.beacons.get(B)!;
    beacon.number = NUMBER;
    expect([neededOf(beacon), beacon.wanted, beacon.leaseMs, at.fleet.toLoad()]).toEqual([
      undefined,
      undefined,
      3000,
      undefined,
    ]);
  });

  test("is so many beacons at most; others are counted, and come when there is room", () => {
    for (let i = 0; i < PEERS_MAX + 2; i++) at.hear(leaseOf(`b${i}:1`, 0, { beaconId: 100 + i }));
    expect([at.fleet.beacons.size, at.fleet.ignored, at.complaints]).toEqual([
      PEERS_MAX,
      2,
      ["beacons", "beacons"],
    ]);
    at.hear(leaseOf("b0:1", 0, { isLeaving: true }));
    at.hear(leaseOf("b200:1", 0));
    expect(at.fleet.beacons.has("b200:1")).toBe(true);
  });

  test("those beyond that have their claims to this beacon's own nodes settled all the same", () => {
    for (let i = 0; i < PEERS_MAX; i++) at.hear(leaseOf(`b${i}:1`, 0));
    at.own.heard.set(5, 1000).set(6, 3000);
    at.hear(changesOf("b200:1", 1, { 5: 2000, 6: 2000 }));
    expect([at.own.givenUp, at.claimedAgain, at.table.size, at.fleet.ignored]).toEqual([
      [5],
      [],
      0,
      1,
    ]);
  });

  test("two with one id are complained of", () => {
    at.hear(leaseOf(B, 0, { beaconId: 4 }));
    at.hear(leaseOf("c:1", 0, { beaconId: 5 }));
    expect(at.complaints).toEqual([]);
    at.hear(leaseOf("c:1", 0, { beaconId: 4 }));
    at.hear(leaseOf("d:1", 0, { beaconId: 99 }));
    expect(at.complaints).toEqual(["double_id", "double_id"]);
  });
});

describe("the sums of a lease", () => {
  const sumsOf = (claims: Record<number, number>): Int32Array => {
    const sums = new ClaimSums();
    for (const [id, ms] of Object.entries(claims)) sums.add(Number(id), BOOT_MS + ms);
    return sums.row();
  };
  const rangesOf = (...nodeIds: number[]) =>
    nodeIds.reduce((ranges, id) => ranges | (1 << rangeOf(id)), 0);

  test("that match what stands leave the beacon followed, whether its claims have a route or wait", () => {
    const beacon = at.follow();
    at.follow("c:1", 0, NUMBER + 1);
    at.hear(changesOf(B, 1, { 5: 1000, 6: 1000, 7: 1000 }));
    at.hear(changesOf("c:1", 1, { 6: 2000 }));
    at.hear(changesOf(B, 2, {}, [7]));
    at.hear(leaseOf(B, 2, { sums: sumsOf({ 5: 1000, 6: 1000 }) }));
    at.hear(leaseOf("c:1", 1, { sums: sumsOf({ 6: 2000 }) }));
    expect([beacon.isBehind, at.fleet.diverged]).toEqual([false, 0]);
  });

  test("that differ leave it behind in those ranges, are counted, and named in the log", () => {
    const beacon = at.follow();
    at.hear(changesOf(B, 1, { 5: 1000, 6: 1000, 7: 1000 }));
    at.table.withdraw(5, NUMBER); // nobody knows how
    at.table.claim(6, NUMBER, BOOT_MS + 9000, 1);
    at.table.claim(1000, NUMBER, BOOT_MS + 1000, 1);
    const lease = leaseOf(B, 1, { sums: sumsOf({ 5: 1000, 6: 1000, 7: 1000 }) });
    at.hear(lease, 1000);
    expect([beacon.isBehind, beacon.ranges]).toEqual([true, rangesOf(5, 6, 1000)]);
    expect([at.fleet.diverged, at.fleet.resyncs.diverged, at.complaints]).toEqual([
      3,
      1,
      ["diverged"],
    ]);
    expect(at.fleet.toAsk(2000).map(({ name, ranges }) => [name, ranges])).toEqual([
      [B, rangesOf(5, 6, 1000)],
    ]);
    // A snapshot of these ranges will do, and one of others will not.
    at.hear(leaseOf(B, 1, { ranged: named(1, rangesOf(5)) }), 2000);
    expect(at.fleet.toLoad()).toBeUndefined();
    at.hear(leaseOf(B, 1, { ranged: named(1, rangesOf(5, 6, 7, 1000)) }), 2000);
    expect(at.fleet.toLoad()?.wanted?.ranges).toBe(rangesOf(5, 6, 7, 1000));
    at.fleet.fallBehind(beacon, "gap", 3000);
    expect(beacon.ranges).toBe(ALL_RANGES);
  });

  test("leave a beacon that falls behind again behind in the union of the ranges", () => {
    const beacon = at.follow();
    at.fleet.fallBehind(beacon, "diverged", 1000, rangesOf(5));
    at.fleet.fallBehind(beacon, "diverged", 2000, rangesOf(6));
    expect(beacon.ranges).toBe(rangesOf(5, 6));
    beacon.isBehind = false;
    at.fleet.fallBehind(beacon, "diverged", 3000, rangesOf(7));
    expect(beacon.ranges).toBe(rangesOf(7));
  });

  test("are compared after 1, 2, 4 seconds, … while they go on to differ, and at once after they matched", () => {
    const beacon = at.follow();
    const lease = (ms: number, claims: Record<number, number>) => {
      at.hear(leaseOf(B, 0, { sums: sumsOf(claims) }), ms);
      const isBehind = beacon.isBehind;
      if (isBehind) beacon.follow(named(0));
      return isBehind;
    };
    const times = Array.from({ length: 200 }, (_, i) => 100 * i).filter((ms) =>
      lease(ms, { 5: 1000 }),
    );
    expect(times).toEqual([0, 1000, 3000, 7000, 15_000]);
    expect([lease(40_000, {}), lease(40_001, { 5: 1000 }), lease(40_002, { 5: 1000 })]).toEqual([
      false,
      true,
      false,
    ]);
    expect(lease(41_001, { 5: 1000 })).toBe(true);
  });

  test("of an earlier version, which has none, are not compared", () => {
    const beacon = at.follow();
    at.hear(leaseOf(B, 0));
    at.table.claim(5, NUMBER);
    expect(beacon.isBehind).toBe(false);
  });

  describe("in ranges with refused claims", () => {
    const nodes = 3;
    const sums = sumsOf({ 5: 1000, 6: 1000, 7: 1000 });
    /** But for the id, which all beacons of this file have. */
    const complaints = () => at.complaints.filter((what) => what !== "double_id");

    test("are compared once the table has room for all nodes that are missing", () => {
      at = fleet({ routesMax: 3 });
      const beacon = at.follow();
      at.follow("c:1", 0, NUMBER + 1);
      at.hear(changesOf("c:1", 1, { 10: 1000, 11: 1000 }));
      at.hear(changesOf(B, 1, { 5: 1000, 6: 1000, 7: 1000 }));
      at.hear(leaseOf(B, 1, { nodes, sums }));
      at.hear(changesOf("c:1", 2, {}, [10]));
      at.hear(leaseOf(B, 1, { nodes, sums }));
      expect(beacon.isBehind).toBe(false);
      at.hear(changesOf("c:1", 3, {}, [11]));
      at.hear(leaseOf(B, 1, { nodes, sums }));
      expect([beacon.isBehind, beacon.ranges]).toEqual([true, rangesOf(6, 7)]);
      expect([at.fleet.resyncs.refused, at.fleet.diverged, complaints()]).toEqual([1, 0, []]);
    });

    test("are compared once as many claims may wait", () => {
      at = fleet({ keptNodesMax: 2 });
      const beacon = at.follow();
      at.follow("c:1", 0, NUMBER + 1);
      at.hear(changesOf(B, 1, { 5: 1000, 6: 1000, 7: 1000 }));
      at.hear(changesOf("c:1", 1, { 5: 2000, 6: 2000, 7: 2000 }));
      at.hear(leaseOf(B, 1, { nodes, sums }));
      expect([beacon.isBehind, beacon.waiting.size, complaints()]).toEqual([
        false,
        2,
        ["too_many_wait"],
      ]);
      at.hear(changesOf("c:1", 2, {}, [5, 6, 7]));
      expect([5, 6, 7].map((id) => at.table.find(id))).toEqual([NUMBER, NUMBER, NO_PEER]);
      at.hear(leaseOf(B, 1, { nodes, sums }));
      expect([beacon.isBehind, beacon.ranges, at.fleet.resyncs.refused]).toEqual([
        true,
        rangesOf(7),
        1,
      ]);
    });

    test("are compared as ever once they match", () => {
      at = fleet({ routesMax: 3 });
      const beacon = at.follow();
      at.table.claim(10, 9);
      at.hear(changesOf(B, 1, { 5: 1000, 6: 1000, 7: 1000 }));
      at.hear(changesOf(B, 2, {}, [7]));
      at.hear(leaseOf(B, 2, { nodes: 2, sums: sumsOf({ 5: 1000, 6: 1000 }) }));
      expect(beacon.isBehind).toBe(false);
      at.hear(leaseOf(B, 2, { nodes, sums }));
      expect([beacon.ranges, at.fleet.diverged, complaints()]).toEqual([
        rangesOf(7),
        1,
        ["diverged"],
      ]);
    });
  });

  test("with a lower number than was followed, changes were forged: all of it is reloaded", () => {
    const beacon = at.follow();
    at.hear(changesOf(B, 1, { 5: 1000 }));
    at.hear(leaseOf(B, 0, { sums: sumsOf({ 5: 1000 }) }));
    expect([beacon.isBehind, beacon.ranges, at.fleet.diverged, neededOf(beacon)]).toEqual([
      true,
      ALL_RANGES,
      32,
      0,
    ]);
  });
});

test("whatever is heard in whatever order: what is followed is numbered without a gap", () => {
  const entry = fc.record({
    kind: fc.constantFrom("changes", "changes", "changes", "lease", "load" as const),
    seq: fc.integer({ min: 0, max: 12 }),
    epoch: fc.integer({ min: 1, max: 3 }),
    snapshot: fc.option(fc.integer({ min: 0, max: 12 }), { nil: undefined }),
  });
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 60 }), (entries) => {
      const { fleet: made, hear, seen } = fleet();
      for (const { kind, seq, epoch, snapshot } of entries) {
        if (kind === "changes") hear(changesOf(B, seq, {}, [], epoch));
        else if (kind === "lease")
          hear(
            leaseOf(B, seq, {
              epoch,
              snapshot: snapshot === undefined ? undefined : named(snapshot),
            }),
          );
        const beacon = made.beacons.get(B);
        if (beacon === undefined) continue;
        beacon.number = NUMBER;
        const toLoad = made.toLoad();
        if (kind === "load" && toLoad !== undefined) {
          const loaded = toLoad.wanted!;
          expect(toLoad.continues(loaded)).toBe(true);
          toLoad.follow(loaded);
          expect(toLoad.seq).toBeGreaterThanOrEqual(loaded.seq);
          seen.applied.length = 0;
        }
        if (beacon.isBehind) {
          if (beacon.wanted !== undefined) expect(beacon.continues(beacon.wanted)).toBe(true);
          seen.applied.length = 0;
        } else {
          const numbers = seen.applied.map((changes) => changes.seq);
          expect(numbers).toEqual(numbers.map((_, i) => beacon.seq - numbers.length + 1 + i));
          expect(beacon.wanted).toBeUndefined();
        }
      }
    }),
    { numRuns: 500 },
  );
});
