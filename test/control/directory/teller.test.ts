/**
 * The teller with a scripted store: when it renews its lease, what a refusal comes to, and when it
 * is silent.
 */
import { describe, expect, test } from "bun:test";
import { Announcer, SELF } from "../../../src/control/directory/announcer.ts";
import { Condition } from "../../../src/control/directory/condition.ts";
import {
  CHANGES,
  decodeEntry,
  type Entry,
  EPOCHS_PER_MS,
  LEASE,
} from "../../../src/control/directory/entries.ts";
import { Presence } from "../../../src/control/directory/presence.ts";
import type { AppendOptions, Store } from "../../../src/control/directory/store.ts";
import { StoreError, type StoreFailure } from "../../../src/control/directory/store-error.ts";
import { Teller } from "../../../src/control/directory/teller.ts";
import { host } from "./fleet-parts.ts";

const LEASE_MS = 10_000;
/** Leases are renewed after a third of one; the random part is 0 here. */
const RENEW_MS = LEASE_MS / 3;
const NAME = "m:1";

const failure = (failure: StoreFailure, endsConnection = false) =>
  new StoreError(failure, `directory s:1: ${failure}`, endsConnection);

function teller() {
  const parts = host();
  const { at, clock, own } = parts;
  const announcer = new Announcer({ ...parts, name: NAME, random: () => 0 });
  const seen = {
    written: [] as Entry[],
    options: [] as AppendOptions[],
    trimmed: [] as string[],
    fields: 0,
    failed: [] as string[],
    warned: [] as string[],
    slept: [] as number[],
    silent: false,
    trimTo: "7-7",
    refuses: undefined as StoreError | undefined,
    refusesTrim: undefined as StoreError | undefined,
  };
  const monotonicMs = () => at.ms;
  const condition = new Condition(monotonicMs, LEASE_MS);
  const presence = new Presence({ leaseMs: LEASE_MS, graceMs: 60_000, clock, monotonicMs });
  let beats = 0;
  let over = new AbortController();
  const made = new Teller({
    beacon: {
      ...{
        name: NAME,
        beaconId: 1,
        leaseMs: LEASE_MS,
        graceMs: 60_000,
        own,
        clock,
        monotonicMs,
        published: parts.published,
      },
      ...{ random: () => 0, info: () => {}, isSilent: () => seen.silent },
      sleep: async (ms) => {
        seen.slept.push(ms);
        at.ms += ms;
      },
      complain: (about) => seen.warned.push(about),
      internalError: () => {},
    },
    announcer,
    writer: { isAsked: false, last: undefined, lastRanged: undefined, answer: async () => {} },
    fleet: { toAsk: () => [] },
    ...{ condition, presence },
    beat: async () => {
      if (--beats <= 0) over.abort();
    },
    gather: () => {},
    trimTo: () => seen.trimTo,
    wrote: () => {},
    failed: (error) => {
      seen.failed.push(error.failure);
      condition.failed(error);
    },
  });
  const refuse = (error: StoreError | undefined) => {
    if (error !== undefined) throw error;
  };
  const store = {
    append: async (bytes, options) => {
      refuse(seen.refuses);
      seen.written.push(decodeEntry(bytes, options.extra)!);
      seen.options.push(options);
    },
    trim: async (id) => {
      refuse(seen.refusesTrim);
      seen.trimmed.push(id);
    },
    setBeacon: async () => {
      seen.fields++;
    },
  } as Partial<Store> as Store;
  made.join();
  return {
    ...{ ...parts, announcer, seen, teller: made, condition },
    /** So many turns of its loop. @returns what it wrote there */
    run: async (turns = 1): Promise<Entry[]> => {
      const before = seen.written.length;
      beats = turns;
      over = new AbortController();
      await made.tell(store, over.signal);
      return seen.written.slice(before);
    },
    kinds: () => seen.written.map(({ kind }) => kind),
  };
}

describe("Teller", () => {
  test("writes its lease at once, and again after a third of it", async () => {
    const { run, at, seen } = teller();
    expect(await run(3)).toMatchObject([{ kind: LEASE, name: NAME, seq: 0, leaseMs: LEASE_MS }]);
    at.ms += RENEW_MS - 1;
    expect(await run(3)).toEqual([]);
    at.ms += 1;
    expect(await run(3)).toMatchObject([{ kind: LEASE }]);
    expect(seen.fields).toBe(2);
  });

  test("renews its lease a tenth earlier at most, by chance", async () => {
    const { run, at } = teller();
    await run();
    at.ms += RENEW_MS * 0.9 - 1;
    expect(await run()).toEqual([]);
  });

  test("trims the log with each entry", async () => {
    const { run, seen } = teller();
    await run();
    expect(seen.options).toMatchObject([{ trimTo: "7-7" }]);
    expect(seen.trimmed).toEqual([]);
  });

  test("writes its lease behind a moment that it is to have spoken behind, once", async () => {
    const { run, at, teller: made } = teller();
    await run();
    made.speakBehind(at.ms + 1); // which is not over
    expect(await run()).toEqual([]);
    const momentMs = at.ms;
    at.ms += 10;
    made.speakBehind(momentMs);
    expect(await run()).toMatchObject([{ kind: LEASE }]);
    made.speakBehind(momentMs); // behind which it has spoken
    expect(await run()).toEqual([]);
  });

  test("writes its changes before its lease, which has their number", async () => {
    const { run, at, own, announcer } = teller();
    own.heard.set(5, at.ms);
    announcer.came(5);
    expect(await run(3)).toMatchObject([
      { kind: CHANGES, seq: 1 },
      { kind: LEASE, seq: 1 },
    ]);
  });

  test("keeps changes that are refused, and writes them when they are accepted", async () => {
    const { run, at, own, announcer, seen } = teller();
    own.heard.set(5, at.ms);
    announcer.came(5);
    seen.refuses = failure("denied");
    expect(await run(3)).toEqual([]);
    expect(seen.failed).toEqual(["denied", "denied", "denied"]);
    expect(seen.slept).toEqual([1000, 1000, 1000]);
    expect(seen.trimmed).toEqual([]);
    seen.refuses = undefined;
    expect(await run(3)).toMatchObject([{ kind: CHANGES, seq: 1 }, { kind: LEASE }]);
  });

  test("tries a lease that is refused again after a second", async () => {
    const { run, at, seen } = teller();
    await run();
    at.ms += RENEW_MS;
    seen.refuses = failure("denied");
    expect(await run()).toEqual([]);
    seen.refuses = undefined;
    expect(await run()).toMatchObject([{ kind: LEASE }]);
    expect(seen.slept).toEqual([1000]);
  });

  test("trims the log of a full server once a second, until it accepts entries", async () => {
    const { run, seen } = teller();
    seen.refuses = failure("full");
    await run(3);
    expect(seen.trimmed).toEqual(["7-7", "7-7", "7-7"]);
    expect(seen.slept).toEqual([1000, 1000, 1000]);
    seen.refuses = undefined;
    await run(3);
    seen.refuses = failure("denied");
    await run(3);
    expect(seen.trimmed).toHaveLength(3);
  });

  test("names the right that it lacks to trim the log of a full server", async () => {
    const { run, seen, condition } = teller();
    seen.refuses = failure("full");
    for (const [error, warned] of [
      [failure("full"), []],
      [failure("unreachable", true), []],
      [failure("denied"), ["directory_trim"]],
    ] as const) {
      seen.refusesTrim = error;
      await run();
      expect(seen.warned).toEqual([...warned]);
      expect(condition.state).toBe("full");
    }
  });

  test("gives a server up that is full for a lease", async () => {
    const { run, at, seen } = teller();
    await run();
    seen.refuses = failure("full");
    at.ms += RENEW_MS;
    const beganMs = at.ms;
    await expect(run(100)).rejects.toMatchObject({ failure: "full" });
    expect(at.ms - beganMs).toBe(LEASE_MS + 1000);
    expect(seen.failed).toHaveLength(10);
  });

  test("counts a lease's time of a full server anew when entries were accepted between", async () => {
    const { run, at, seen } = teller();
    seen.refuses = failure("full");
    await run(9);
    seen.refuses = undefined;
    await run();
    at.ms += RENEW_MS;
    seen.refuses = failure("full");
    await run(9);
    expect(seen.failed).toHaveLength(18);
  });

  test("ends when the connection does", async () => {
    const { run, seen } = teller();
    seen.refuses = failure("slow", true);
    await expect(run(100)).rejects.toBe(seen.refuses);
    expect(seen.failed).toEqual([]);
  });

  test("ends with the error of a scan of its nodes that fails", async () => {
    const { run, own } = teller();
    const error = new Error("the scan failed");
    own.scan = () => Promise.reject(error);
    await expect(run(100)).rejects.toBe(error);
  });

  test("is silent while another process that began later has its name", async () => {
    const { run, at, seen, teller: made, announcer, condition } = teller();
    await run();
    const { epoch } = announcer;
    made.heardRival(epoch + 1);
    expect([made.rivalry !== undefined, condition.state]).toEqual([true, "duplicate"]);
    expect(seen.warned).toEqual(["double_name"]);
    at.ms += LEASE_MS;
    expect(await run(3)).toEqual([]);
    made.heardRival(epoch + 1); // which is there still
    at.ms += LEASE_MS;
    expect(await run(3)).toEqual([]);
    at.ms += 1;
    const [lease] = await run(3);
    expect(lease).toMatchObject({ kind: LEASE, name: NAME });
    expect(lease!.epoch).toBeGreaterThan(epoch + 1);
    expect([made.rivalry, condition.state]).toEqual([undefined, "ok"]);
  });

  test("begins anew later than a rival whose start is far ahead", async () => {
    const { run, at, teller: made, announcer } = teller();
    await run();
    const ahead = announcer.epoch + 3_600_000 * EPOCHS_PER_MS;
    made.heardRival(ahead);
    at.ms += LEASE_MS + 1;
    expect((await run())[0]!.epoch).toBeGreaterThan(ahead);
  });

  test("goes on beside another process that began earlier: that one finds out", async () => {
    const { run, at, seen, teller: made, announcer } = teller();
    await run();
    made.heardRival(announcer.epoch - 1);
    expect([made.rivalry, seen.warned]).toEqual([undefined, ["double_name"]]);
    at.ms += RENEW_MS;
    const { epoch } = announcer;
    expect(await run()).toMatchObject([{ kind: LEASE, epoch }]);
  });

  test("is silent while another process speaks for it, and begins anew behind that", async () => {
    const { run, at, seen, announcer } = teller();
    await run();
    const { epoch } = announcer;
    seen.silent = true;
    at.ms += 10 * LEASE_MS;
    expect(await run(3)).toEqual([]);
    seen.silent = false;
    const [lease] = await run(3);
    expect(lease!.epoch).toBeGreaterThan(epoch);
  });

  test("has the sums of what it claims in its lease, once all its nodes were gone through", async () => {
    const { run, at, own, announcer, published } = teller();
    own.heard.set(5, at.ms);
    expect(await run(50)).toMatchObject([{ kind: LEASE, sums: undefined }]);
    expect(announcer.isWhole).toBe(true);
    at.ms += RENEW_MS;
    expect(await run()).toMatchObject([{ kind: LEASE, sums: published.sumsOf(SELF) }]);
  });
});
