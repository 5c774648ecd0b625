import { expect, test } from "bun:test";
import { LogReader } from "../../../src/control/directory/log-reader.ts";
import { NO_ENTRY, type Store } from "../../../src/control/directory/store.ts";
import { until } from "../../e2e/support/wait.ts";
import { describeImplementations, type RedisServer } from "../../support/redis.ts";
import { eachWithStore, UNTRIMMED } from "./support.ts";

describeImplementations((implementation) => {
  let server: RedisServer;
  let store: Store;
  eachWithStore(implementation, 20, (...made) => {
    [server, store] = made;
  });

  const write = (byte: number) => store.append(Uint8Array.of(byte), UNTRIMMED);

  /** A reader whose clock stands where it is put. */
  function made() {
    const seen = { nowMs: 1000, heard: [] as (number | undefined)[], skipped: 0, waits: 0 };
    const reader = new LogReader({
      monotonicMs: () => seen.nowMs,
      beat: () => Bun.sleep(1),
      pause: async () => {
        seen.waits++;
      },
      hear: ({ bytes }) => seen.heard.push(bytes?.[0]),
      skipped: () => seen.skipped++,
    });
    const ending = new AbortController();
    let reading: Promise<void> | undefined;
    return {
      ...{ seen, reader },
      join: async () => reader.join(await store.last()),
      read: () => {
        reading = reader.read(store, ending.signal);
      },
      end: async () => {
        ending.abort();
        await reading;
      },
    };
  }

  test("what is written after it joined is heard, in order", async () => {
    const { seen, join, read, end } = made();
    await write(1);
    expect(await join()).toBe(false);
    read();
    for (const byte of [2, 3, 4]) await write(byte);
    await until("all is heard", () => seen.heard.length === 3);
    await end();
    expect(seen).toMatchObject({ heard: [2, 3, 4], waits: 3 });
  });

  test("a reader that joins again goes on where it was, unless the log ends before that", async () => {
    const { seen, reader, join, read, end } = made();
    await join();
    read();
    await write(1);
    await until("it is heard", () => seen.heard.length === 1);
    await end();
    expect(await join()).toBe(true); // nothing was written since
    await write(2);
    await write(3);
    expect(await join()).toBe(true);
    const again = new AbortController();
    const reading = reader.read(store, again.signal);
    await until("what was written meanwhile is heard", () => seen.heard.length === 3);
    again.abort();
    await reading;
    for (const replaced of [1, 2, 3]) {
      await server.command("FLUSHALL");
      expect(await join()).toBe(false);
      await write(3 + replaced);
      expect(await join()).toBe(true);
      const next = new AbortController();
      const more = reader.read(store, next.signal);
      await until("the new log is read", () => seen.heard.length === 3 + replaced);
      next.abort();
      await more;
    }
    expect(seen.heard).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test("the log is trimmed to the last entry that was read a minute ago", async () => {
    const { seen, reader, join, read, end } = made();
    await write(1);
    await join();
    expect(reader.trimTo).toBe(NO_ENTRY.id);
    read();
    await write(2);
    await until("it is heard", () => seen.heard.length === 1);
    seen.nowMs += 3000;
    await write(3);
    await until("the next is heard", () => seen.heard.length === 2);
    const ids = (await store.read(NO_ENTRY.id)).map(({ id }) => id);
    const at = (ms: number) => {
      seen.nowMs = ms;
      return reader.trimTo;
    };
    expect([60_999, 61_000, 63_999, 64_000].map(at)).toEqual([
      NO_ENTRY.id,
      ids[0]!,
      ids[0]!,
      ids[2]!,
    ]);
    await until("the stalled log, too", () => at(seen.nowMs + 60_000) === ids[2]);
    expect(at(seen.nowMs + 1e9)).toBe(ids[2]!);
    await end();
  });

  test("a log whose ids are lower than what was read is found by a beacon that wrote there, each time", async () => {
    const { seen, reader, join, read, end } = made();
    await server.command("XADD", "{test}:log", `${Date.now() + 86_400_000}-0`, "e", "AA==");
    await join();
    seen.nowMs += 60_000;
    expect(reader.trimTo).not.toBe(NO_ENTRY.id);
    read();
    for (const replaced of [1, 2, 3]) {
      await server.command("FLUSHALL");
      await write(10 * replaced);
      reader.wrote();
      await until("ids of the log before trim nothing", () => reader.trimTo === NO_ENTRY.id);
      await write(10 * replaced + 1);
      await until("the new log is read from its end on", () => seen.heard.length === replaced);
      seen.nowMs += 120_000;
      // so that the ids of the next log are lower again
      const aheadMs = 86_400_000 * (4 - replaced);
      await server.command("XADD", "{test}:log", `${Date.now() + aheadMs}-0`, "f", "AA==");
      await until("that is read, too", () => seen.heard.at(-1) === undefined);
      seen.heard.pop();
      await until("there is something to trim", () => reader.trimTo !== NO_ENTRY.id);
    }
    await end();
    expect([seen.heard, seen.skipped]).toEqual([[11, 21, 31], 3]);
  });
});
