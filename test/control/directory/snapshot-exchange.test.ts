/** Snapshots from the beacon that writes them to one that loads them. */
import { describe, expect, test } from "bun:test";
import { Announcer, SELF } from "../../../src/control/directory/announcer.ts";
import { Fleet, type Followed } from "../../../src/control/directory/fleet.ts";
import type { Claimer } from "../../../src/control/directory/fleet-routes.ts";
import { SnapshotLoader } from "../../../src/control/directory/snapshot-loader.ts";
import { SnapshotWriter } from "../../../src/control/directory/snapshot-writer.ts";
import { encodePart, PART_NODES_MAX } from "../../../src/control/directory/snapshots.ts";
import type { Store } from "../../../src/control/directory/store.ts";
import { ALL_RANGES, isIn } from "../../../src/shared/claim-digest.ts";
import { NO_PEER } from "../../../src/shared/routes.ts";
import { NO_MARK, RouteTableOwner } from "../../../src/shared/routes-owner.ts";
import { routeMemory } from "../../support/route-memory.ts";
import { BOOT_MS, changesOf, host, leaseOf, routesOf } from "./fleet-parts.ts";

const W = "w:1";
const NUMBER = 4;
const NODES = PART_NODES_MAX + 2000;

let asks = 0;

/** The parts of a store, in a map. */
function partsOnly() {
  const parts = new Map<string, Uint8Array>();
  /** Called before a part is handed out. */
  const hooks = { get: (_key: string) => {} };
  const store = {
    putPart: async (key: string, bytes: Uint8Array) => void parts.set(key, bytes),
    keepPart: async (key: string) => parts.has(key),
    getPart: async (key: string) => {
      hooks.get(key);
      return parts.get(key);
    },
  } as unknown as Store;
  return { parts, store, hooks };
}

/** Beacon "w:1", which writes. */
function writerOf() {
  const parts = { ...host(), published: new RouteTableOwner(routeMemory(50_000)) };
  parts.published.keepClaims();
  const announcer = new Announcer({ ...parts, name: W, random: () => 0 });
  announcer.start();
  const monotonicMs = () => parts.at.ms;
  const writer = new SnapshotWriter({ ...parts, name: W, announcer, monotonicMs });
  const { signal } = new AbortController();
  /** Publishes all its nodes first, as they are. */
  const write = async (store: Store, ranges = ALL_RANGES, ending = signal) => {
    for (const nodeId of parts.own.heard.keys()) parts.published.withdraw(nodeId, SELF);
    announcer.restart();
    await announcer.complete(signal);
    return answer(store, ranges, ending);
  };
  const answer = async (store: Store, ranges = ALL_RANGES, ending = signal) => {
    writer.ask(ranges, `asker ${asks++}`);
    await writer.answer(store, ending);
    return ranges === ALL_RANGES ? writer.last : writer.lastRanged;
  };
  return { ...parts, announcer, writer, write, answer };
}

/** Sweeps that stand still while they are held. */
function heldSweeps() {
  const sweep = { isHeld: false, go: () => {} };
  const pause = (): Promise<void> => {
    if (!sweep.isHeld) return Promise.resolve();
    return new Promise((resolve) => {
      sweep.go = resolve;
    });
  };
  return { sweep, pause };
}

/** Lets everything run that waits for nothing but its turn. */
async function settled(): Promise<void> {
  for (let i = 0; i < 1000; i++) await undefined;
}

/** Beacon "m:1", which is behind of "w:1" and has number 4 for it. */
function loaderOf(epoch = 1, pause = async () => {}) {
  const parts = { ...host(), table: new RouteTableOwner(routeMemory(50_000)), pause };
  parts.table.keepClaims();
  const { routes, claimers } = routesOf(parts);
  const fleet = new Fleet({
    ...{ name: "m:1", beaconId: 1, routes, random: () => 0, complain: () => {} },
    ...{
      heardOfSelf: () => {},
      asked: () => {},
      applied: () => {},
      changed: () => {},
      left: () => {},
    },
  });
  const loader = new SnapshotLoader({
    fleet,
    routes,
    clock: parts.clock,
    follow: async () => {},
    pause: async () => {},
    monotonicMs: () => 0,
  });
  fleet.hear(changesOf(W, 1, {}, [], epoch), 0);
  const beacon = fleet.beacons.get(W)!;
  beacon.number = NUMBER;
  claimers.set(NUMBER, beacon as Followed & Claimer);
  const load = (store: Store, seq: number, count = 1, ranges = ALL_RANGES) => {
    beacon.wanted = { seq, parts: count, ranges };
    return loader.load(beacon as Followed & { number: number }, store);
  };
  return { ...parts, fleet, routes, loader, beacon, load };
}

describe("a snapshot", () => {
  test("brings every node of its beacon, in parts, with when each was heard", async () => {
    const { store, parts } = partsOnly();
    const from = writerOf();
    for (let id = 1; id <= NODES; id++) from.own.heard.set(id, 50_000 + id);
    expect(await from.write(store)).toMatchObject({ seq: 0, parts: 2 });
    from.announcer.seq = 7;
    parts.clear();
    expect(await from.answer(store)).toMatchObject({ seq: 7, parts: 2 });
    expect([parts.size, from.writer.written]).toEqual([2, 2]);
    const to = loaderOf(from.announcer.epoch);
    await to.load(store, 7, 2);
    expect([
      to.table.routesOf(NUMBER),
      to.loader.loaded,
      to.beacon.isBehind,
      to.beacon.seq,
    ]).toEqual([NODES, 1, false, 7]);
    expect(to.routes.differing(to.beacon as Followed & Claimer, from.announcer.sums!, 0)).toBe(0);
    for (const id of [1, PART_NODES_MAX, PART_NODES_MAX + 1, NODES])
      expect([to.table.find(id), to.table.claimedMs(id)]).toEqual([NUMBER, BOOT_MS + 50_000 + id]);
    expect(2 * to.loader.bytesLoaded).toBe(from.writer.bytesWritten);
  });

  test("is followed by the changes that were kept, and takes away what it does not name", async () => {
    const { store } = partsOnly();
    const from = writerOf();
    from.own.heard.set(5, 1000).set(6, 1000);
    await from.write(store);
    from.announcer.seq = 3;
    await from.answer(store);
    const { epoch } = from.announcer;
    const to = loaderOf(epoch);
    to.table.claim(8, NUMBER, BOOT_MS + 1000, 1); // of before
    to.fleet.hear(changesOf(W, 2, { 9: 900 }, [], epoch), 0); // is in the snapshot: no longer there
    to.fleet.hear(changesOf(W, 3, {}, [], epoch), 0);
    to.fleet.hear(changesOf(W, 4, { 7: 2000 }, [5], epoch), 0);
    await to.load(store, 3);
    expect([5, 6, 7, 8, 9].map((id) => to.table.find(id))).toEqual([
      NO_PEER,
      NUMBER,
      NUMBER,
      NO_PEER,
      NO_PEER,
    ]);
    expect([to.beacon.isBehind, to.beacon.seq]).toEqual([false, 4]);
  });

  test("says nothing of nodes of which its beacon has said more since", async () => {
    const { store, hooks } = partsOnly();
    const from = writerOf();
    from.own.heard.set(5, 2000).set(6, 2000).set(7, 2000);
    await from.write(store);
    from.announcer.seq = 3;
    await from.answer(store);
    const { epoch } = from.announcer;
    const to = loaderOf(epoch);
    to.fleet.hear(changesOf(W, 3, {}, [], epoch), 0);
    to.table.claim(5, 9, BOOT_MS + 1000); // another one has it, who heard it earlier
    to.fleet.hear(changesOf(W, 4, {}, [5], epoch), 0);
    // while it is loaded
    hooks.get = () => to.fleet.hear(changesOf(W, 5, { 6: 3000 }, [7], epoch), 0);
    await to.load(store, 3);
    expect(to.beacon.seq).toBe(5);
    expect([5, 6, 7].map((id) => to.table.find(id))).toEqual([9, NUMBER, NO_PEER]);
    expect(to.table.claimedMs(6)).toBe(BOOT_MS + 3000);
  });

  test("that lacks a part, or has one that is damaged, of another writing or of another year, leaves its beacon behind", async () => {
    const { store, parts } = partsOnly();
    const from = writerOf();
    for (let id = 1; id <= NODES; id++) from.own.heard.set(id, 1000);
    await from.write(store);
    const { epoch } = from.announcer;
    const keys = [...parts.keys()];
    const [first, second] = [...parts.values()];
    const to = loaderOf(epoch);
    const loaded = async (change: () => void) => {
      parts.set(keys[0]!, first!).set(keys[1]!, second!);
      change();
      await to.load(store, 0, 2);
      expect(to.beacon.isLoading).toBe(false);
      return [to.loader.loaded, to.loader.missing, to.loader.malformed, to.beacon.isBehind];
    };
    expect(await loaded(() => parts.delete(keys[1]!))).toEqual([0, 1, 0, true]);
    expect(await loaded(() => parts.set(keys[0]!, first!.slice(1)))).toEqual([0, 1, 1, true]);
    const head = { epoch, seq: 0, parts: 2, part: 1, timeMs: BOOT_MS + 123_456 };
    const other = encodePart(head, {
      nodeIds: Int32Array.of(77_777),
      timesMs: Float64Array.of(BOOT_MS),
    });
    expect(await loaded(() => parts.set(keys[1]!, other))).toEqual([0, 1, 2, true]);
    const yearAhead = encodePart(
      { ...head, part: 0, timeMs: BOOT_MS + 365 * 86_400_000 },
      { nodeIds: Int32Array.of(77_778), timesMs: Float64Array.of(BOOT_MS) },
    );
    expect(await loaded(() => parts.set(keys[0]!, yearAhead))).toEqual([0, 1, 3, true]);
    expect(to.table.find(77_778)).toBe(NO_PEER);
    expect(to.table.find(77_777)).toBe(NO_PEER);
    expect(await loaded(() => {})).toEqual([1, 1, 3, false]);
    expect(to.table.routesOf(NUMBER)).toBe(NODES);
  });

  test("is loaded no further once its beacon begins anew, leaves, or has another number", async () => {
    const { store, hooks } = partsOnly();
    const from = writerOf();
    for (let id = 1; id <= NODES; id++) from.own.heard.set(id, 1000);
    await from.write(store);
    const { epoch } = from.announcer;
    const changes: ((to: ReturnType<typeof loaderOf>) => void)[] = [
      (to) => to.fleet.hear(changesOf(W, 1, {}, [], epoch + 1), 0),
      (to) => to.fleet.hear(leaseOf(W, 1, { epoch, isLeaving: true }), 0),
      (to) => {
        to.beacon.number = NUMBER + 1;
      },
    ];
    for (const change of changes) {
      const to = loaderOf(epoch);
      hooks.get = (key) => key.endsWith(":1") && change(to);
      await to.load(store, 0, 2);
      expect([to.loader.loaded, to.beacon.isBehind]).toEqual([0, true]);
      expect([to.table.routesOf(NUMBER), to.table.routesOf(NUMBER + 1)]).toEqual([
        PART_NODES_MAX,
        0,
      ]);
    }
  });

  test("does not bring its beacon into step if a gap shows meanwhile", async () => {
    const { store, hooks } = partsOnly();
    const from = writerOf();
    from.own.heard.set(5, 1000);
    await from.write(store);
    const { epoch } = from.announcer;
    const to = loaderOf(epoch);
    hooks.get = () => to.fleet.hear(changesOf(W, 9, { 6: 1000 }, [], epoch), 0);
    await to.load(store, 0);
    expect([to.loader.loaded, to.beacon.isBehind, to.table.find(6)]).toEqual([0, true, NUMBER]);
    const continues = (seq: number) => to.beacon.continues({ seq, parts: 1, ranges: ALL_RANGES });
    expect([continues(7), continues(8)]).toEqual([false, true]);
  });

  test("is not followed until the sweep of claims that it lacks is over", async () => {
    const { store } = partsOnly();
    const from = writerOf();
    from.own.heard.set(5, 1000);
    await from.write(store);
    const { epoch, sums } = from.announcer;
    const { sweep, pause } = heldSweeps();
    const to = loaderOf(epoch, pause);
    to.table.claim(8, NUMBER, BOOT_MS + 1000, 1); // the snapshot does not name it
    sweep.isHeld = true;
    const loading = to.load(store, 0);
    await settled();
    expect([to.table.find(5), to.table.find(8), to.beacon.isBehind]).toEqual([
      NUMBER,
      NUMBER,
      true,
    ]);
    // A lease that comes now is not compared with claims that are about to go.
    to.fleet.hear(leaseOf(W, 1, { epoch, sums }), 0);
    expect([to.fleet.diverged, to.fleet.resyncs.diverged]).toEqual([0, 0]);
    sweep.isHeld = false;
    sweep.go();
    await loading;
    expect([to.table.find(8), to.beacon.isBehind]).toEqual([NO_PEER, false]);
    to.fleet.hear(leaseOf(W, 1, { epoch, sums }), 0);
    expect([to.beacon.isBehind, to.fleet.diverged]).toEqual([false, 0]);
  });

  test("is not followed if a gap shows while claims that it lacks are swept", async () => {
    const { store } = partsOnly();
    const from = writerOf();
    from.own.heard.set(5, 1000);
    await from.write(store);
    const { epoch } = from.announcer;
    const { sweep, pause } = heldSweeps();
    const to = loaderOf(epoch, pause);
    to.table.claim(8, NUMBER, BOOT_MS + 1000, 1); // of before
    sweep.isHeld = true;
    const loading = to.load(store, 0);
    await settled();
    to.fleet.hear(changesOf(W, 9, { 6: 1000 }, [], epoch), 0);
    sweep.isHeld = false;
    sweep.go();
    await loading;
    expect([to.loader.loaded, to.beacon.isBehind, to.table.find(5)]).toEqual([0, true, NUMBER]);
  });

  test("brings no claims before an earlier sweep of its beacon's routes is over", async () => {
    const { store } = partsOnly();
    const from = writerOf();
    from.own.heard.set(5, 1000);
    await from.write(store);
    const { sweep, pause } = heldSweeps();
    const to = loaderOf(from.announcer.epoch, pause);
    to.table.claim(8, NUMBER, BOOT_MS, 1);
    sweep.isHeld = true;
    const swept = to.routes.sweep(NUMBER, NO_MARK);
    const loading = to.load(store, 0);
    await settled();
    expect([to.table.find(5), to.table.find(8)]).toEqual([NO_PEER, NUMBER]);
    sweep.isHeld = false;
    sweep.go();
    await Promise.all([swept, loading]);
    expect([to.table.find(5), to.table.find(8), to.beacon.isBehind]).toEqual([
      NUMBER,
      NO_PEER,
      false,
    ]);
  });

  test("that cannot be read as the server fails leaves its beacon behind, to be asked for again", async () => {
    const { store, hooks } = partsOnly();
    const to = loaderOf();
    hooks.get = () => {
      throw new Error("cut");
    };
    await expect(to.load(store, 0)).rejects.toThrow("cut");
    expect([to.beacon.isLoading, to.beacon.wanted, to.fleet.toAsk(60_000)]).toEqual([
      false,
      undefined,
      [to.beacon],
    ]);
  });
});

describe("a snapshot of some ranges", () => {
  test("leaves the beacon's routes in the others as they are", async () => {
    const { store } = partsOnly();
    const from = writerOf();
    for (let id = 1; id <= 400; id++) from.own.heard.set(id, 1000);
    await from.write(store);
    await from.answer(store, 0b11);
    const to = loaderOf(from.announcer.epoch);
    await to.load(store, 0);
    for (let id = 1; id <= 400; id++) to.table.withdraw(id, NUMBER);
    for (let id = 401; id <= 500; id++) to.table.claim(id, NUMBER, BOOT_MS, 1);
    to.fleet.fallBehind(to.beacon, "diverged", 0, 0b11);
    to.fleet.hear(leaseOf(W, 1, { epoch: from.announcer.epoch }), 0);
    from.announcer.seq = 1;
    await from.answer(store, 0b11);
    await to.load(store, 1, 1, 0b11);
    expect(to.beacon.isBehind).toBe(false);
    for (let id = 1; id <= 500; id++) {
      const isThere = isIn(0b11, id) ? id <= 400 : id > 400;
      expect([id, to.table.find(id)]).toEqual([id, isThere ? NUMBER : NO_PEER]);
    }
  });
});

describe("who is asked for one", () => {
  test("names the last if nothing was told since and it is still there, and writes another one if not", async () => {
    const { store, parts } = partsOnly();
    const { write, answer, writer, announcer, own } = writerOf();
    own.heard.set(5, 1000);
    await write(store);
    expect([(await answer(store))?.seq, writer.written]).toEqual([0, 1]);
    announcer.seq = 1;
    expect([(await answer(store))?.seq, writer.written]).toEqual([1, 2]);
    parts.clear();
    expect([(await answer(store))?.seq, writer.written, parts.size]).toEqual([1, 3, 1]);
    announcer.restart();
    expect(writer.last).toBeUndefined();
    expect([(await write(store))?.seq, writer.written]).toEqual([0, 4]);
  });

  test("writes another one for a beacon that asks again: it could not load the last", async () => {
    const { store } = partsOnly();
    const { write, writer, own } = writerOf();
    own.heard.set(5, 1000);
    await write(store);
    const askAs = async (...names: string[]) => {
      for (const name of names) writer.ask(ALL_RANGES, name);
      await writer.answer(store, new AbortController().signal);
      return writer.written;
    };
    expect(await askAs("a", "b", "a")).toBe(1);
    expect(await askAs("c")).toBe(1);
    expect(await askAs("c")).toBe(2);
    expect([await askAs("c"), await askAs("d")]).toEqual([3, 3]);
  });

  test("names none that may be gone before it is read", async () => {
    const { store } = partsOnly();
    const { write, answer, writer, at } = writerOf();
    await write(store);
    at.ms += 29_999;
    expect(writer.last).toBeDefined();
    at.ms += 1;
    expect(writer.last).toBeUndefined();
    await answer(store);
    expect(writer.written).toBe(2);
  });

  test("rests for twice as long as that took", async () => {
    const { store } = partsOnly();
    const { writer, own, at, announcer } = writerOf();
    own.heard.set(5, 1000);
    const putPart = async () => {
      at.ms += 400;
    };
    const slow = { ...store, putPart } as Store;
    writer.ask(ALL_RANGES, `asker ${asks++}`);
    expect(writer.isAsked).toBe(false); // not before all nodes were gone through
    await announcer.complete(new AbortController().signal);
    expect(writer.isAsked).toBe(true);
    await writer.answer(slow, new AbortController().signal);
    expect(writer.isAsked).toBe(false);
    writer.ask(ALL_RANGES, `asker ${asks++}`);
    at.ms += 799;
    expect(writer.isAsked).toBe(false);
    at.ms += 1;
    expect(writer.isAsked).toBe(true);
  });

  test("writes none that is not whole", async () => {
    const { store, parts } = partsOnly();
    const { write, answer, writer, own, published } = writerOf();
    own.heard.set(5, 1000);
    expect([await write(store, ALL_RANGES, AbortSignal.abort()), parts.size]).toEqual([
      undefined,
      0,
    ]);
    const visit = published.visit.bind(published);
    published.visit = (from, end, visitor) => {
      // Many more came than there were when it began.
      for (let id = 1; id <= 2 * PART_NODES_MAX; id++) visitor(id, SELF, BOOT_MS);
      visit(from, end, visitor);
    };
    expect([await answer(store), parts.size]).toEqual([undefined, 0]);
    published.visit = visit;
    expect(await answer(store)).toMatchObject({ parts: 1 });
    expect(writer.written).toBe(1);
  });

  test("writes the nodes of the ranges that are asked for, by all who ask, under a key of their own", async () => {
    const { store, parts } = partsOnly();
    const { write, answer, writer, own, announcer } = writerOf();
    for (let id = 1; id <= 1000; id++) own.heard.set(id, 50_000);
    await write(store);
    // one of all will do
    expect([(await answer(store, 0b001))?.ranges, writer.written]).toEqual([undefined, 1]);
    announcer.seq = 1;
    writer.ask(0b001, `asker ${asks++}`);
    const ranged = await answer(store, 0b100);
    expect(ranged).toMatchObject({ seq: 1, parts: 1, ranges: 0b101 });
    expect([...parts.keys()]).toEqual([
      `${W}:${announcer.epoch}:0:0`,
      `${W}:${announcer.epoch}:1.5:0`,
    ]);
    expect(writer.last).toMatchObject({ seq: 0, ranges: ALL_RANGES }); // which is named beside it
    // One that has these ranges will do.
    expect([(await answer(store, 0b001))?.ranges, writer.written]).toEqual([0b101, 2]);
    const to = loaderOf(announcer.epoch);
    await to.load(store, 1, 1, 0b101);
    const inRanges = [...own.heard.keys()].filter((id) => isIn(0b101, id));
    expect(inRanges.length).toBeGreaterThan(20);
    expect(to.table.routesOf(NUMBER)).toBe(inRanges.length);
  });

  test("writes a snapshot of all if more than a quarter of the ranges is asked for", async () => {
    const { store } = partsOnly();
    const { write, answer, writer, announcer } = writerOf();
    await write(store);
    announcer.seq = 1;
    expect(await answer(store, 0b1111_1111)).toMatchObject({ seq: 1, ranges: 0b1111_1111 });
    await answer(store, 0b1_1111_1111);
    expect([writer.written, writer.last]).toMatchObject([3, { seq: 1, ranges: ALL_RANGES }]);
  });

  test("claims in it what is ahead of the clock as later as it is", async () => {
    const { store } = partsOnly();
    const { answer, own, table, at, announcer } = writerOf();
    table.claim(5, 9, BOOT_MS + at.ms + 500, 1);
    own.heard.set(5, at.ms).set(6, at.ms - 1000);
    announcer.came(5);
    announcer.told(announcer.next()!);
    await announcer.complete(new AbortController().signal);
    await answer(store);
    const to = loaderOf(announcer.epoch);
    await to.load(store, 1);
    expect([to.table.claimedMs(5), to.table.claimedMs(6)]).toEqual([
      BOOT_MS + at.ms + 500.0625,
      BOOT_MS + at.ms - 1000,
    ]);
  });
});
