import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Announcer, SELF } from "../../../src/control/directory/announcer.ts";
import {
  CHANGES_MAX,
  type Changes,
  decodeEntry,
  EPOCHS_PER_MS,
  encodeEntry,
  TIME_STEP_MS,
} from "../../../src/control/directory/entries.ts";
import type { Pause } from "../../../src/control/kit/pacing.ts";
import type { RouteTableOwner } from "../../../src/shared/routes-owner.ts";
import { BOOT_MS, host } from "./fleet-parts.ts";

const OTHER = 3;
/** As what the directory tells of a beacon is marked. */
const MARK = 1;
/** Fewer than twice as many nodes as the table of published claims holds. */
const [NODES, PUBLISHED_MAX] = [40, 50];

function announcer(pause: Pause = () => undefined, publishedMax?: number) {
  const parts = { ...host(publishedMax), pause };
  const made = new Announcer({ ...parts, name: "m:1", random: () => 0 });
  made.start();
  /** Tells the next. */
  const tell = (): { claims: Record<number, number>; gone: number[] } | undefined => {
    const changes = made.next();
    if (changes === undefined) return undefined;
    made.told(changes);
    return { claims: claimsOf(changes), gone: [...changes.gone] };
  };
  const heard = (nodeId: number, ms = parts.at.ms) => {
    parts.own.heard.set(nodeId, ms);
    made.came(nodeId);
  };
  const went = (nodeId: number) => {
    parts.own.heard.delete(nodeId);
    made.changed(nodeId);
  };
  return { ...parts, announcer: made, tell, heard, went };
}

/** Moments, monotonic. */
const claimsOf = ({ claims }: Changes): Record<number, number> =>
  Object.fromEntries(Array.from(claims.nodeIds, (id, i) => [id, claims.timesMs[i]! - BOOT_MS]));

describe("Announcer", () => {
  test("tells who came and when it was heard, and who went, numbered", () => {
    const { announcer: made, heard, went, at } = announcer();
    heard(5, 99_000);
    heard(6);
    const first = made.next()!;
    expect([first.seq, claimsOf(first), [...first.gone]]).toEqual([
      1,
      { 5: 99_000, 6: 100_000 },
      [],
    ]);
    expect(first.timeMs).toBe(BOOT_MS + at.ms);
    made.told(first);
    went(5);
    const second = made.next()!;
    expect([second.seq, claimsOf(second), [...second.gone]]).toEqual([2, {}, [5]]);
    made.told(second);
    expect(made.next()).toBeUndefined();
    expect([made.seq, made.claimsTold, made.goneTold]).toEqual([2, 2, 1]);
  });

  test("says the same until it is told", () => {
    const { announcer: made, heard } = announcer();
    heard(5);
    const first = made.next();
    heard(6);
    expect(made.next()).toBe(first);
    made.told(first!);
    expect(claimsOf(made.next()!)).toEqual({ 6: 100_000 });
  });

  test("changes that were not told yet are one, of what is then: whatever the order in which they were noted", () => {
    const { announcer: made, heard, went, tell, own } = announcer();
    heard(5);
    went(5);
    expect(tell()).toEqual({ claims: {}, gone: [5] });
    heard(5);
    went(5);
    heard(5);
    expect(tell()).toEqual({ claims: { 5: 100_000 }, gone: [] });
    // It is found among those that came when it went already.
    own.heard.delete(5);
    made.changed(5);
    made.changed(5);
    expect(tell()).toEqual({ claims: {}, gone: [5] });
    expect(made.untold).toBe(0);
  });

  test("what was said, claims less gone, in order, is what the node table holds", () => {
    const step = fc.tuple(
      fc.integer({ min: 1, max: 6 }),
      fc.constantFrom("heard", "went", "tell", "late" as const),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { announcer: made, heard, went, own } = announcer();
        const said = new Set<number>();
        const say = () => {
          for (let changes = made.next(); changes !== undefined; changes = made.next()) {
            for (const id of changes.gone) said.delete(id);
            for (const id of changes.claims.nodeIds) said.add(id);
            made.told(changes);
          }
        };
        for (const [nodeId, what] of steps) {
          if (what === "heard") heard(nodeId);
          else if (what === "went") went(nodeId);
          else if (what === "late") made.changed(nodeId);
          else say();
        }
        say();
        expect([...said].sort()).toEqual([...own.heard.keys()].sort());
      }),
    );
  });

  test("one entry holds so many, and the others come next", () => {
    const { announcer: made, heard, went } = announcer();
    for (let id = 1; id <= CHANGES_MAX + 10; id++) heard(id);
    for (let id = 1; id <= 5; id++) went(id);
    const first = made.next()!;
    expect(first.claims.nodeIds.length + first.gone.length).toBe(CHANGES_MAX);
    expect(decodeEntry(encodeEntry(first))).toEqual(first);
    made.told(first);
    expect(made.next()!.claims.nodeIds.length).toBe(10);
  });

  test("each start has a later epoch than the ones before, and the announcer knows its own", () => {
    const { announcer: made } = announcer();
    const epochs = [made.epoch];
    for (let i = 0; i < 3; i++) {
      made.restart();
      epochs.push(made.epoch);
    }
    expect(epochs.toSorted((a, b) => a - b)).toEqual(epochs);
    expect(new Set(epochs).size).toBe(4);
    expect(epochs.every((epoch) => made.wasMine(epoch))).toBe(true);
    const others = [epochs[0]! - 1, epochs[3]! + 1, 0];
    expect(others.map((epoch) => made.wasMine(epoch))).toEqual([false, false, false]);
  });

  test("a start after a rival was read has a later epoch than the rival's, however far that is ahead", () => {
    const { announcer: made } = announcer();
    const rivals = made.epoch + 3_600_000 * EPOCHS_PER_MS;
    made.outbid(rivals);
    made.outbid(rivals - 5); // an earlier one does not count
    made.restart();
    expect(made.epoch).toBeGreaterThan(rivals);
    expect(made.wasMine(rivals)).toBe(false);
    const parts = host();
    const other = new Announcer({ ...parts, name: "m:1", random: () => 0 });
    other.outbid(rivals); // as its lease in the directory says, before the start
    other.start();
    expect(other.epoch).toBeGreaterThan(rivals);
  });

  test("begins anew: from number 1, with nothing to tell; what was under way belongs to the start before", () => {
    const { announcer: made, heard, tell } = announcer();
    heard(5);
    tell();
    heard(6);
    const underWay = made.next()!;
    heard(7);
    made.restart();
    expect([made.seq, made.untold, made.next()]).toEqual([0, 0, undefined]);
    made.told(underWay);
    expect(made.seq).toBe(0);
    heard(8);
    expect([made.next()!.seq, made.next()!.epoch]).toEqual([1, made.epoch]);
  });

  test("says nothing, and names no start, before the directory's time is known", () => {
    const parts = host();
    const made = new Announcer({ ...parts, name: "m:1", random: () => 0 });
    parts.own.heard.set(5, 100_000);
    parts.table.claim(5, OTHER, BOOT_MS + 200_000, MARK); // as another process was told
    made.came(5);
    expect(parts.own.heard.get(5)).toBe(100_000);
    made.restart();
    expect([made.epoch, made.untold, made.next()]).toEqual([0, 0, undefined]);
    made.start();
    expect(made.epoch).toBe((BOOT_MS + 100_000) * 1024);
    made.start();
    expect(made.epoch).toBe((BOOT_MS + 100_000) * 1024);
  });

  test("so much that waits to be told is none of it any more: a snapshot will have it", () => {
    const { announcer: made } = announcer();
    const { epoch } = made;
    for (let id = 1; id <= 131_072; id++) made.changed(id);
    expect([made.untold, made.epoch]).toEqual([131_072, epoch]);
    made.changed(-1);
    expect(made.untold).toBe(0);
    expect(made.epoch).toBeGreaterThan(epoch);
  });

  test("a node that came here after another beacon's claim was known is claimed later than that, and stays so", () => {
    const { announcer: made, table, heard, at } = announcer();
    const theirMs = BOOT_MS + at.ms + 40; // their clock is ahead, or this one behind
    table.claim(5, OTHER, theirMs, MARK);
    heard(5);
    const changes = made.next()!;
    expect(changes.claims.timesMs[0]).toBe(theirMs + TIME_STEP_MS);
    expect(decodeEntry(encodeEntry(changes))).toEqual(changes); // though it is ahead of the clock
    expect([made.ownMs(5), made.publishedMs(5)]).toEqual([
      theirMs + TIME_STEP_MS,
      theirMs + TIME_STEP_MS,
    ]);
    table.withdraw(5, OTHER);
    expect(made.ownMs(5)).toBe(theirMs + TIME_STEP_MS);
  });

  test("so it is, too, if that claim is withdrawn before the node's is told", () => {
    const { announcer: made, table, heard, at } = announcer();
    const theirMs = BOOT_MS + at.ms + 40;
    table.claim(5, OTHER, theirMs, MARK);
    heard(5);
    table.withdraw(5, OTHER);
    expect(made.next()!.claims.timesMs[0]).toBe(theirMs + TIME_STEP_MS);
  });

  test("a node that is published again has a date beyond the one that it must come after", () => {
    const { announcer: made, heard, tell, at } = announcer();
    heard(5);
    tell();
    made.changed(5, BOOT_MS + at.ms + 7);
    expect(tell()).toEqual({ claims: { 5: at.ms + 7 + TIME_STEP_MS }, gone: [] });
    made.changed(5);
    expect(tell()).toEqual({ claims: { 5: at.ms + 7 + TIME_STEP_MS }, gone: [] });
  });

  test("what was heard later anyway, or what only gossip claims, is claimed as it was heard", () => {
    const { announcer: made, table, heard, at } = announcer();
    table.claim(5, OTHER, BOOT_MS + at.ms - 10, MARK);
    table.claim(6, OTHER, BOOT_MS + at.ms + 1000, 0);
    heard(5);
    heard(6);
    expect(claimsOf(made.next()!)).toEqual({ 5: at.ms, 6: at.ms });
    expect([made.ownMs(7), made.publishedMs(7)]).toEqual([-1, -1]);
  });

  describe("the table of published claims", () => {
    const claims = ({ published }: { published: RouteTableOwner }): Record<number, number> => {
      const found: Record<number, number> = {};
      published.visit(0, published.sweepSteps, (id, _peer, ms) => {
        found[id] = ms - BOOT_MS;
      });
      return found;
    };
    const signal = new AbortController().signal;

    test("has what was published, and no more", () => {
      const made = announcer();
      made.heard(5);
      made.heard(6, 99_000);
      expect(claims(made)).toEqual({});
      made.tell();
      made.own.heard.set(5, 200_000); // heard again: not published again
      made.went(6);
      expect(claims(made)).toEqual({ 5: 100_000, 6: 99_000 });
      made.tell();
      expect(claims(made)).toEqual({ 5: 100_000 });
    });

    test("is whole once all nodes were gone through, and has sums then, but not while changes are under way", async () => {
      const made = announcer();
      for (let id = 1; id <= 20; id++) made.own.heard.set(id, 90_000 + id);
      expect([made.announcer.isWhole, made.announcer.sums]).toEqual([false, undefined]);
      const completing = made.announcer.complete(signal);
      made.heard(30);
      made.tell();
      await completing;
      expect(made.announcer.isWhole).toBe(true);
      expect(Object.keys(claims(made))).toHaveLength(21);
      expect(made.announcer.sums).toEqual(made.published.sumsOf(SELF));
      made.heard(31);
      expect(made.announcer.sums).toBeDefined();
      const changes = made.announcer.next()!;
      expect(made.announcer.sums).toBeUndefined();
      made.announcer.told(changes);
      expect(made.announcer.sums).toBeDefined();
    });

    test("lacks after another start what went meanwhile, and keeps dates that were published", async () => {
      const made = announcer();
      made.heard(5);
      made.heard(6);
      made.announcer.changed(5, BOOT_MS + 150_000);
      made.tell();
      made.own.heard.delete(6); // nobody said so
      made.announcer.restart();
      expect(made.announcer.isWhole).toBe(false);
      await made.announcer.complete(signal);
      expect(claims(made)).toEqual({ 5: 150_000 + TIME_STEP_MS });
      expect(made.announcer.isWhole).toBe(true);
    });

    test("publishes all nodes that are here after an outage in which all others left", async () => {
      const made = announcer(undefined, PUBLISHED_MAX);
      const heardAll = (from: number) => {
        for (let id = from; id < from + NODES; id++) made.heard(id);
      };
      heardAll(1);
      made.tell();
      await made.announcer.complete(signal);
      for (let id = 1; id <= NODES; id++) made.own.heard.delete(id);
      made.announcer.restart(); // too much was untold
      heardAll(1001);
      const completing = made.announcer.complete(signal);
      const told: string[] = [];
      for (let i = 0; i < 3; i++) told.push(...Object.keys(made.tell()?.claims ?? {}));
      await completing;
      for (let i = 0; i < NODES; i++) told.push(...Object.keys(made.tell()?.claims ?? {}));
      const here = [...made.own.heard.keys()];
      expect(told.map(Number).sort()).toEqual(here.sort());
      expect(Object.keys(claims(made)).map(Number).sort()).toEqual(here);
      expect([made.announcer.isWhole, made.announcer.untold]).toEqual([true, 0]);
    });

    test("leaves nodes untold while there is no room for their claims", async () => {
      const made = announcer(undefined, PUBLISHED_MAX);
      for (let id = 1; id <= PUBLISHED_MAX + 1; id++) made.own.heard.set(id, 90_000);
      await made.announcer.complete(signal);
      expect([made.announcer.untold, made.tell()]).toEqual([1, undefined]);
      made.went(1);
      expect([made.tell(), made.tell()]).toEqual([
        { claims: {}, gone: [1] },
        { claims: { [PUBLISHED_MAX + 1]: 90_000 }, gone: [] },
      ]);
      expect(made.announcer.untold).toBe(0);
    });

    test("lacks nodes that left before any number of restarts", async () => {
      const made = announcer();
      made.heard(5);
      made.tell();
      made.own.heard.delete(5);
      for (let i = 0; i < 255; i++) made.announcer.restart();
      await made.announcer.complete(signal);
      expect([made.announcer.isWhole, claims(made)]).toEqual([true, {}]);
    });

    test("keeps published dates if another start comes while it is swept", async () => {
      let meanwhile = () => {};
      const made = announcer(async () => meanwhile());
      made.heard(5);
      made.announcer.changed(5, BOOT_MS + 150_000);
      made.tell();
      meanwhile = () => {
        meanwhile = () => {};
        made.announcer.restart();
      };
      await made.announcer.complete(signal);
      expect([made.announcer.isWhole, claims(made)]).toEqual([
        false,
        { 5: 150_000 + TIME_STEP_MS },
      ]);
      await made.announcer.complete(signal);
      expect([made.announcer.isWhole, claims(made)]).toEqual([true, { 5: 150_000 + TIME_STEP_MS }]);
    });

    test("is not whole if another start came while the nodes were gone through", async () => {
      const made = announcer();
      made.own.heard.set(5, 1);
      const completing = made.announcer.complete(signal);
      made.announcer.restart();
      await completing;
      expect(made.announcer.isWhole).toBe(false);
      await made.announcer.complete(signal);
      expect([made.announcer.isWhole, made.published.size]).toEqual([true, 1]);
    });

    test("has dates of a day and more in whole seconds, which are published once more", async () => {
      const made = announcer();
      const DAY_MS = 86_400_000;
      made.at.ms += 10 * DAY_MS; // the clock goes on with it
      made.own.heard.set(5, made.at.ms - DAY_MS - 1500.5).set(6, made.at.ms - DAY_MS + 1000.5);
      await made.announcer.complete(signal);
      const [old, young] = [made.at.ms - DAY_MS - 2000, made.at.ms - DAY_MS + 1000.5];
      expect(claims(made)).toEqual({ 5: old, 6: young });
      const roundAll = () => {
        for (let i = 0; i < 3600; i++) made.announcer.roundOld();
        return made.tell();
      };
      expect(roundAll()).toBeUndefined();
      made.at.ms += 2000;
      expect(roundAll()).toEqual({ claims: { 6: young - 0.5 }, gone: [] });
      expect(claims(made)).toEqual({ 5: old, 6: young - 0.5 });
      expect(roundAll()).toBeUndefined();
      expect(made.announcer.ownMs(6)).toBe(BOOT_MS + young);
    });
  });
});
