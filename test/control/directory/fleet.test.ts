import { beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ASK, CHANGES_MAX, type Changes, type Entry } from "../../../src/control/directory/entries.ts";
import { Fleet, type Followed } from "../../../src/control/directory/fleet.ts";
import { PEERS_MAX } from "../../../src/shared/memory.ts";
import { NO_PEER } from "../../../src/shared/routes.ts";
import { changesOf, host, leaseOf, routesOf } from "./fleet-parts.ts";

const B = "b:1";
const NUMBER = 4;

function fleet() {
  const parts = host();
  const { routes, names, claimedAgain } = routesOf(parts);
  const seen = { ofSelf: [] as Entry[], asked: 0, missed: 0, applied: [] as Changes[], changed: 0 };
  const left: string[] = [];
  const complaints: string[] = [];
  const made = new Fleet({
    ...{ name: "m:1", beaconId: 99, routes, random: () => 0.5 },
    heardOfSelf: (entry) => seen.ofSelf.push(entry),
    asked: () => seen.asked++,
    missed: () => seen.missed++,
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
    names.set(number, name);
    beacon.number = number;
    beacon.follow(seq);
    made.resyncs.new = 0;
    return beacon;
  };
  return { ...parts, fleet: made, hear, follow, seen, left, complaints, claimedAgain };
}

const askOf = (name: string, of: string): Entry => ({
  kind: ASK,
  name,
  epoch: 1,
  of: { name: of, epoch: 1 },
});
const keptOf = (beacon: Followed) => beacon.kept?.map(({ seq }) => seq);

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
    expect([beacon.seq, at.seen.applied.length, at.seen.missed]).toEqual([2, 2, 0]);
  });

  test("says nothing new with a number that was there", () => {
    const beacon = at.follow(B, 5);
    for (const seq of [5, 4, 1]) at.hear(changesOf(B, seq, { 5: 1000 }));
    at.hear(leaseOf(B, 5));
    at.hear(leaseOf(B, 4));
    expect([beacon.seq, beacon.kept, at.table.size, at.seen.applied]).toEqual([5, undefined, 0, []]);
  });

  test("is behind once a number is missing, in its changes or in what a lease says; and something was missed", () => {
    const beacon = at.follow();
    at.hear(changesOf(B, 1));
    at.hear(changesOf(B, 3, { 5: 1000 }));
    expect([keptOf(beacon), beacon.needed, at.fleet.resyncs.gap, at.seen.missed]).toEqual([[3], 2, 1, 1]);
    expect(at.table.find(5)).toBe(NUMBER); // which is so, whatever was missed
    beacon.follow(3);
    at.hear(leaseOf(B, 4));
    expect([keptOf(beacon), beacon.needed, at.fleet.resyncs.gap, at.seen.missed]).toEqual([[], 4, 2, 2]);
  });

  test("is behind when it begins anew, and what it said before does not count", () => {
    const beacon = at.follow(B, 7);
    at.hear(changesOf(B, 1, { 5: 1000 }, [], 2));
    expect([beacon.epoch, keptOf(beacon), beacon.needed, at.fleet.resyncs.restarted]).toEqual([2, [1], 0, 1]);
    at.hear(changesOf(B, 8, { 6: 1000 }));
    at.hear(leaseOf(B, 8));
    expect([beacon.epoch, keptOf(beacon), at.fleet.stale, at.complaints]).toEqual([
      2,
      [1],
      2,
      ["double_name"],
    ]);
  });
});

describe("a beacon that is behind", () => {
  test("is one that nobody heard of before", () => {
    at.hear(changesOf(B, 9, { 5: 1000 }));
    const beacon = at.fleet.beacons.get(B)!;
    expect([keptOf(beacon), beacon.needed, at.seen.changed, at.fleet.resyncs.new]).toEqual([[9], 8, 1, 1]);
    at.hear(leaseOf("c:1", 9));
    expect([keptOf(at.fleet.beacons.get("c:1")!), at.fleet.beacons.get("c:1")!.needed]).toEqual([[], 9]);
  });

  test("has what continues a snapshot kept, from behind the last gap on", () => {
    at.hear(changesOf(B, 3));
    const beacon = at.fleet.beacons.get(B)!;
    for (const seq of [4, 4, 2, 5]) at.hear(changesOf(B, seq));
    expect([keptOf(beacon), beacon.needed]).toEqual([[3, 4, 5], 2]);
    at.hear(changesOf(B, 7));
    expect([keptOf(beacon), beacon.needed]).toEqual([[7], 6]);
    at.hear(leaseOf(B, 8));
    at.hear(changesOf(B, 9));
    expect([keptOf(beacon), beacon.needed]).toEqual([[9], 8]);
    at.hear(leaseOf(B, 9));
    expect([keptOf(beacon), beacon.needed]).toEqual([[9], 8]);
  });

  test("is loaded from a snapshot that what is kept continues, and from no other", () => {
    at.hear(changesOf(B, 4));
    const beacon = at.fleet.beacons.get(B)!;
    beacon.number = NUMBER;
    const named = (seq: number | undefined) => {
      at.hear(leaseOf(B, 4, { snapshot: seq === undefined ? undefined : { seq, parts: 1 } }));
      return at.fleet.toLoad()?.wanted?.seq;
    };
    expect([named(undefined), named(2), named(3), named(4), named(undefined)]).toEqual([
      undefined,
      undefined,
      3,
      4,
      undefined,
    ]);
    expect(named(3)).toBe(3);
    at.hear(changesOf(B, 5));
    expect(at.fleet.toLoad()?.wanted?.seq).toBe(3);
    at.hear(changesOf(B, 7)); // what is kept begins anew, and the snapshot is too early for it
    expect(at.fleet.toLoad()).toBeUndefined();
    expect(named(6)).toBe(6);
    beacon.number = undefined;
    expect(at.fleet.toLoad()).toBeUndefined();
  });

  test("has at most so many nodes kept; beyond that a later snapshot is needed", () => {
    const nodes = Object.fromEntries(Array.from({ length: CHANGES_MAX }, (_, i) => [i + 1, 1000]));
    let seq = 1;
    const hearMore = () => at.hear(changesOf(B, seq++, nodes));
    for (let i = 0; i < 63; i++) hearMore();
    const beacon = at.fleet.beacons.get(B)!;
    expect([beacon.kept!.length, beacon.needed, at.fleet.resyncs.too_far_behind]).toEqual([63, 0, 0]);
    hearMore();
    expect([beacon.kept!.length, beacon.needed, at.fleet.resyncs.too_far_behind]).toEqual([0, 64, 1]);
    hearMore();
    expect([keptOf(beacon), beacon.needed]).toEqual([[65], 64]);
    // Empty ones count, too.
    for (let i = 0; i < 65_536; i++) at.hear(changesOf(B, seq++));
    expect(beacon.kept!.length).toBeLessThan(65_536);
    expect(at.fleet.resyncs.too_far_behind).toBe(2);
  });

  test("has what it says applied in the order of the log, among what others say", () => {
    at.follow("c:1", 0, NUMBER + 1);
    at.follow();
    at.hear(changesOf(B, 7, { 5: 2000, 6: 2000 })); // behind from here on
    at.hear(changesOf("c:1", 1, { 5: 1000 })); // earlier
    expect([at.table.find(5), at.table.find(6)]).toEqual([NUMBER, NUMBER]);
    at.hear(changesOf(B, 8, {}, [5]));
    at.hear(changesOf(B, 8, { 5: 3000 })); // a number that was there
    expect(at.table.find(5)).toBe(NO_PEER);
    at.hear(changesOf("c:1", 2, { 5: 1000 })); // which still has it
    expect(at.table.find(5)).toBe(NUMBER + 1);
    expect(at.seen.applied).toHaveLength(4);
  });

  test("of kept changes the last that names a node holds again", () => {
    const beacon = at.follow() as Followed & { number: number };
    at.hear(changesOf(B, 7, { 5: 2000, 6: 2000, 7: 2000 }));
    at.hear(changesOf(B, 8, { 8: 2000 }, [5]));
    expect([4, 5, 6, 7, 8].map((id) => beacon.lastOf(id))).toEqual([-1, 8, 7, 7, 8]);
    for (const id of [6, 7, 8]) at.table.withdraw(id, NUMBER);
    at.table.claim(5, NUMBER + 1);
    for (const changes of beacon.kept!) at.fleet.applyAgain(beacon, changes);
    expect([5, 6, 7, 8].map((id) => at.table.find(id))).toEqual([NUMBER + 1, NUMBER, NUMBER, NUMBER]);
    expect(at.seen.applied).toHaveLength(2);
    beacon.follow(8);
    expect(beacon.lastOf(5)).toBe(-1);
  });

  test("has its claims to this beacon's own nodes settled at once", () => {
    at.own.heard.set(5, 1000).set(6, 3000).set(7, 1000);
    at.hear(changesOf(B, 4, { 5: 2000, 6: 2000 }, [7]));
    expect([at.own.givenUp, at.claimedAgain, at.table.size]).toEqual([[5], [7, 6], 0]);
  });

  test("is not to be loaded any more once it is followed, whatever was named meanwhile", () => {
    at.hear(changesOf(B, 4));
    const beacon = at.fleet.beacons.get(B)!;
    beacon.number = NUMBER;
    at.hear(leaseOf(B, 4, { snapshot: { seq: 4, parts: 1 } }));
    beacon.follow(4);
    expect(at.fleet.toLoad()).toBeUndefined();
    at.hear(leaseOf(B, 4, { snapshot: { seq: 4, parts: 1 } }));
    expect(at.fleet.toLoad()).toBeUndefined();
  });
});

describe("questions", () => {
  const asked = (ms: number) => at.fleet.toAsk(ms).map(({ name }) => name);

  test("come a little later, and again and again if nobody answers, less and less often", () => {
    at.hear(changesOf(B, 4), 1000);
    expect([asked(1000), asked(1124)]).toEqual([[], []]);
    expect([asked(1125), asked(1125)]).toEqual([[B], []]);
    const times: number[] = [];
    for (let ms = 1125; ms < 80_000; ms += 25) if (asked(ms).length > 0) times.push(ms - 1125);
    expect(times).toEqual([1250, 3750, 8750, 18_750, 31_250, 43_750, 56_250, 68_750]);
  });

  test("are left to others that ask first, and not asked while the answer is loaded", () => {
    at.hear(changesOf(B, 4), 1000);
    at.hear(askOf("c:1", B), 1100);
    expect([asked(1225), asked(2349), asked(2350)]).toEqual([["c:1"], [], [B]]);
    const beacon = at.fleet.beacons.get(B)!;
    beacon.isLoading = true;
    expect(asked(60_000)).toEqual(["c:1"]);
    beacon.isLoading = false;
    beacon.wanted = { seq: 4, parts: 1 };
    expect(asked(120_000)).toEqual(["c:1"]);
    beacon.follow(4);
    expect(asked(180_000)).toEqual(["c:1"]);
  });

  test("to this beacon are passed on, whoever asks; of its own name nothing else is", () => {
    at.hear(askOf("c:1", "m:1"));
    at.hear(askOf("m:1", "m:1"));
    at.hear(leaseOf("m:1", 3));
    expect([at.seen.asked, at.seen.ofSelf.length, [...at.fleet.beacons.keys()]]).toEqual([2, 2, ["c:1"]]);
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
    at.fleet.find(leaseOf(B, 7, { snapshot: { seq: 7, parts: 1 }, leaseMs: 3000 }), 1000);
    at.fleet.find(leaseOf("m:1", 7), 1000);
    at.fleet.find(leaseOf("c:1", 7, { isLeaving: true }), 1000);
    expect([...at.fleet.beacons.keys()]).toEqual([B]);
    const beacon = at.fleet.beacons.get(B)!;
    beacon.number = NUMBER;
    expect([beacon.needed, beacon.wanted, beacon.leaseMs, at.fleet.toLoad()]).toEqual([
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
    expect([at.own.givenUp, at.claimedAgain, at.table.size, at.fleet.ignored]).toEqual([[5], [6], 0, 1]);
  });

  test("two with one id are complained of", () => {
    at.hear(leaseOf(B, 0, { beaconId: 4 }));
    at.hear(leaseOf("c:1", 0, { beaconId: 5 }));
    expect(at.complaints).toEqual([]);
    at.hear(leaseOf("c:1", 0, { beaconId: 4 }));
    at.hear(leaseOf("d:1", 0, { beaconId: 99 }));
    expect(at.complaints).toEqual(["double_id", "double_id"]);
  });

  test("whose changes were ignored as of an earlier start, and who is dropped, may have claimed something", () => {
    const beacon = at.follow();
    beacon.epoch = 5;
    at.hear(leaseOf(B, 3));
    at.fleet.expire(1, () => 0);
    expect(at.seen.missed).toBe(0);
    const again = at.follow();
    again.epoch = 5;
    at.hear(changesOf(B, 3));
    at.fleet.expire(1, () => 0);
    expect(at.seen.missed).toBe(1);
  });

  test("a log that lost entries leaves everybody behind", () => {
    const [b, c] = [at.follow(), at.follow("c:1", 3, 5)];
    at.fleet.logLost(1000);
    expect([b.kept, c.kept, at.fleet.resyncs.log_lost]).toEqual([[], [], 2]);
  });

  test("whose claims had lost to those of one that is gone is behind", () => {
    const [b, c] = [at.follow(), at.follow("c:1", 3, 5)];
    at.fleet.outlived(5, 1000);
    expect([b.kept, c.kept, at.fleet.resyncs.outbid]).toEqual([undefined, [], 1]);
  });
});

test("whatever is heard in whatever order: what is applied is numbered without a gap, and what is kept, too", () => {
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
              snapshot: snapshot === undefined ? undefined : { seq: snapshot, parts: 1 },
            }),
          );
        const beacon = made.beacons.get(B);
        if (beacon === undefined) continue;
        beacon.number = NUMBER;
        const toLoad = made.toLoad();
        if (kind === "load" && toLoad !== undefined) {
          // As the loader does it.
          let reached = toLoad.wanted!.seq;
          expect(reached).toBeGreaterThanOrEqual(toLoad.needed!);
          for (const next of toLoad.kept!) {
            if (next.seq <= reached) continue;
            expect(next.seq).toBe(reached + 1);
            reached = next.seq;
          }
          toLoad.follow(reached);
          seen.applied.length = 0;
        }
        if (beacon.kept === undefined) {
          const numbers = seen.applied.map((changes) => changes.seq);
          expect(numbers).toEqual(numbers.map((_, i) => beacon.seq - numbers.length + 1 + i));
          expect(beacon.wanted).toBeUndefined();
        } else {
          expect(keptOf(beacon)).toEqual(beacon.kept.map((_, i) => beacon.needed! + 1 + i));
          if (beacon.wanted !== undefined) expect(beacon.wanted.seq).toBeGreaterThanOrEqual(beacon.needed!);
          seen.applied.length = 0;
        }
      }
    }),
    { numRuns: 500 },
  );
});
