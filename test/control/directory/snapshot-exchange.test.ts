/** Snapshots from the beacon that writes them to one that loads them. */
import { describe, expect, test } from "bun:test";
import { Announcer } from "../../../src/control/directory/announcer.ts";
import { Fleet, type Followed } from "../../../src/control/directory/fleet.ts";
import { SnapshotLoader } from "../../../src/control/directory/snapshot-loader.ts";
import { SnapshotWriter } from "../../../src/control/directory/snapshot-writer.ts";
import { encodePart, PART_NODES_MAX } from "../../../src/control/directory/snapshots.ts";
import type { Store } from "../../../src/control/directory/store.ts";
import { NO_PEER, RouteTable } from "../../../src/shared/routes.ts";
import { routeMemory } from "../../support/route-memory.ts";
import { BOOT_MS, changesOf, host, leaseOf, routesOf } from "./fleet-parts.ts";

const W = "w:1";
const NUMBER = 4;
const NODES = PART_NODES_MAX + 2000;

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
  const parts = host();
  const announcer = new Announcer({ ...parts, name: W, random: () => 0 });
  announcer.start();
  const monotonicMs = () => parts.at.ms;
  const writer = new SnapshotWriter({ ...parts, name: W, announcer, pause: async () => {}, monotonicMs });
  const write = async (store: Store, signal = new AbortController().signal) => {
    writer.ask();
    await writer.answer(store, signal);
    return writer.last;
  };
  return { ...parts, announcer, writer, write };
}

/** Beacon "m:1", which is behind of "w:1" and has number 4 for it. */
function loaderOf(epoch = 1) {
  const parts = { ...host(), table: new RouteTable(routeMemory(50_000)) };
  parts.table.keepClaims();
  const { routes, names } = routesOf(parts);
  names.set(NUMBER, W);
  const fleet = new Fleet({
    ...{ name: "m:1", beaconId: 1, routes, random: () => 0, complain: () => {} },
    ...{
      heardOfSelf: () => {},
      asked: () => {},
      missed: () => {},
      applied: () => {},
      changed: () => {},
      left: () => {},
    },
  });
  const loader = new SnapshotLoader({
    fleet,
    routes,
    follow: async () => {},
    pause: async () => {},
    monotonicMs: () => 0,
  });
  fleet.hear(changesOf(W, 1, {}, [], epoch), 0);
  const beacon = fleet.beacons.get(W)!;
  beacon.number = NUMBER;
  const load = (store: Store, seq: number, count = 1) => {
    beacon.wanted = { seq, parts: count };
    return loader.load(beacon as Followed & { number: number }, store);
  };
  return { ...parts, fleet, routes, loader, beacon, load };
}

describe("a snapshot", () => {
  test("brings every node of its beacon, in parts, with when each was heard", async () => {
    const { store, parts } = partsOnly();
    const from = writerOf();
    for (let id = 1; id <= NODES; id++) from.own.heard.set(id, 50_000 + id);
    from.announcer.seq = 7;
    expect(await from.write(store)).toMatchObject({ seq: 7, parts: 2 });
    expect([parts.size, from.writer.written]).toEqual([2, 1]);
    const to = loaderOf(from.announcer.epoch);
    await to.load(store, 7, 2);
    expect([to.table.routesOf(NUMBER), to.loader.loaded, to.beacon.kept, to.beacon.seq]).toEqual([
      NODES,
      1,
      undefined,
      7,
    ]);
    for (const id of [1, PART_NODES_MAX, PART_NODES_MAX + 1, NODES])
      expect([to.table.find(id), to.table.claimedMs(id)]).toEqual([NUMBER, BOOT_MS + 50_000 + id]);
    expect(to.loader.bytesLoaded).toBe(from.writer.bytesWritten);
  });

  test("is followed by the changes that were kept, and takes away what it does not name", async () => {
    const { store } = partsOnly();
    const from = writerOf();
    from.own.heard.set(5, 1000).set(6, 1000);
    from.announcer.seq = 3;
    await from.write(store);
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
    expect([to.beacon.kept, to.beacon.seq]).toEqual([undefined, 4]);
  });

  test("says nothing of nodes of which its beacon has said more since", async () => {
    const { store, hooks } = partsOnly();
    const from = writerOf();
    from.own.heard.set(5, 2000).set(6, 2000).set(7, 2000);
    from.announcer.seq = 3;
    await from.write(store);
    const { epoch } = from.announcer;
    const to = loaderOf(epoch);
    to.fleet.hear(changesOf(W, 3, {}, [], epoch), 0);
    to.table.claim(5, 9, BOOT_MS + 1000); // another one has it, who heard it earlier
    to.fleet.hear(changesOf(W, 4, {}, [5], epoch), 0);
    hooks.get = () => to.fleet.hear(changesOf(W, 5, { 6: 3000 }, [7], epoch), 0); // while it is loaded
    await to.load(store, 3);
    expect(to.beacon.seq).toBe(5);
    expect([5, 6, 7].map((id) => to.table.find(id))).toEqual([9, NUMBER, NO_PEER]);
    expect(to.table.claimedMs(6)).toBe(BOOT_MS + 3000);
  });

  test("that lacks a part, or has one that is damaged or of another writing, leaves its beacon behind", async () => {
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
      return [to.loader.loaded, to.loader.missing, to.loader.malformed, to.beacon.kept !== undefined];
    };
    expect(await loaded(() => parts.delete(keys[1]!))).toEqual([0, 1, 0, true]);
    expect(await loaded(() => parts.set(keys[0]!, first!.slice(1)))).toEqual([0, 1, 1, true]);
    const head = { epoch, seq: 0, parts: 2, part: 1, timeMs: BOOT_MS + 123_456 };
    const other = encodePart(head, { nodeIds: Int32Array.of(77_777), timesMs: Float64Array.of(BOOT_MS) });
    expect(await loaded(() => parts.set(keys[1]!, other))).toEqual([0, 1, 2, true]);
    expect(to.table.find(77_777)).toBe(NO_PEER);
    expect(await loaded(() => {})).toEqual([1, 1, 2, false]);
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
      expect([to.loader.loaded, to.beacon.kept !== undefined]).toEqual([0, true]);
      expect([to.table.routesOf(NUMBER), to.table.routesOf(NUMBER + 1)]).toEqual([PART_NODES_MAX, 0]);
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
    expect([to.loader.loaded, to.beacon.needed, to.table.find(6)]).toEqual([0, 8, NUMBER]);
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

describe("who is asked for one", () => {
  test("names the last if nothing was told since and it is still there, and writes another one if not", async () => {
    const { store, parts } = partsOnly();
    const { write, writer, announcer, own } = writerOf();
    own.heard.set(5, 1000);
    await write(store);
    expect([(await write(store))?.seq, writer.written]).toEqual([0, 1]);
    announcer.seq = 1;
    expect([(await write(store))?.seq, writer.written]).toEqual([1, 2]);
    parts.clear();
    expect([(await write(store))?.seq, writer.written, parts.size]).toEqual([1, 3, 1]);
    announcer.restart();
    expect(writer.last).toBeUndefined();
    expect([(await write(store))?.seq, writer.written]).toEqual([0, 4]);
  });

  test("names none that may be gone before it is read", async () => {
    const { store } = partsOnly();
    const { write, writer, at } = writerOf();
    await write(store);
    at.ms += 29_999;
    expect(writer.last).toBeDefined();
    at.ms += 1;
    expect(writer.last).toBeUndefined();
    await write(store);
    expect(writer.written).toBe(2);
  });

  test("rests for twice as long as that took", async () => {
    const { store } = partsOnly();
    const { writer, own, at } = writerOf();
    own.heard.set(5, 1000);
    const putPart = async () => {
      at.ms += 400;
    };
    const slow = { ...store, putPart } as Store;
    expect(writer.isAsked).toBe(false);
    writer.ask();
    expect(writer.isAsked).toBe(true);
    await writer.answer(slow, new AbortController().signal);
    writer.ask();
    at.ms += 799;
    expect(writer.isAsked).toBe(false);
    at.ms += 1;
    expect(writer.isAsked).toBe(true);
  });

  test("writes none that is not whole", async () => {
    const { store, parts } = partsOnly();
    const { write, writer, own } = writerOf();
    const scan = own.scan;
    own.scan = async () => false; // the signal ended it
    expect([await write(store), parts.size]).toEqual([undefined, 0]);
    own.scan = async (visit) => {
      // Many more came than there were when it began.
      for (let id = 1; id <= PART_NODES_MAX + 10; id++) own.heard.set(id, 1000);
      for (const id of own.heard.keys()) visit(id);
      return true;
    };
    expect([await write(store), parts.size]).toEqual([undefined, 0]);
    own.scan = scan;
    expect(await write(store)).toMatchObject({ parts: 2 });
    expect(writer.written).toBe(1);
  });

  test("claims in it what is ahead of the clock as later as it is", async () => {
    const { store } = partsOnly();
    const { write, own, table, at, announcer } = writerOf();
    table.claim(5, 9, BOOT_MS + at.ms + 500, 1);
    own.heard.set(5, at.ms).set(6, at.ms - 1000);
    await write(store);
    const to = loaderOf(announcer.epoch);
    await to.load(store, 0);
    expect([to.table.claimedMs(5), to.table.claimedMs(6)]).toEqual([
      BOOT_MS + at.ms + 500.0625,
      BOOT_MS + at.ms - 1000,
    ]);
  });
});
