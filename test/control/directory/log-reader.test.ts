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
    const seen = { nowMs: 1000, heard: [] as (number | undefined)[], lost: 0, waits: 0 };
    const reader = new LogReader({
      monotonicMs: () => seen.nowMs,
      beat: () => Bun.sleep(1),
      pause: async () => {
        seen.waits++;
      },
      hear: ({ bytes }) => seen.heard.push(bytes?.[0]),
      lost: () => seen.lost++,
    });
    const ending = new AbortController();
    let reading: Promise<void> | undefined;
    return {
      ...{ seen, reader },
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
    const { seen, reader, read, end } = made();
    await write(1);
    expect(await reader.join(store)).toBe(false);
    read();
    for (const byte of [2, 3, 4]) await write(byte);
    await until("all is heard", () => seen.heard.length === 3);
    await end();
    expect(seen).toMatchObject({ heard: [2, 3, 4], lost: 0, waits: 3 });
  });

  test("who joins again goes on where it was, if what it read last is still there", async () => {
    const { seen, reader, read, end } = made();
    await reader.join(store);
    read();
    await write(1);
    await until("it is heard", () => seen.heard.length === 1);
    await end();
    expect(await reader.join(store)).toBe(true);
    await server.command("FLUSHALL");
    await write(2);
    expect(await reader.join(store)).toBe(false);
    expect(seen.lost).toBe(1);
  });

  test("a log that is emptied and written anew is noticed within three seconds", async () => {
    const { seen, reader, read, end } = made();
    await reader.join(store); // while it is empty, too: where it began is the first entry then
    read();
    await write(1);
    await until("it is heard", () => seen.heard.length === 1);
    await server.command("FLUSHALL");
    await Bun.sleep(5); // in the same millisecond the next would have the id of the last
    await write(2);
    await until("the next is heard", () => seen.heard.length === 2);
    expect(seen.lost).toBe(0);
    seen.nowMs += 3000;
    await until("it is noticed", () => seen.lost === 1);
    for (let i = 0; i < 3; i++) {
      seen.nowMs += 3000;
      await Bun.sleep(50); // some readings
    }
    await end();
    expect(seen).toMatchObject({ heard: [1, 2], lost: 1 });
  });

  test("a log that is replaced a second time is noticed a second time", async () => {
    const { seen, reader, read, end } = made();
    await write(0);
    await reader.join(store);
    read();
    for (let replaced = 1; replaced <= 3; replaced++) {
      await server.command("FLUSHALL");
      await Bun.sleep(5); // in the same millisecond the next would have the id of the last
      await write(replaced);
      await until("the new log is read", () => seen.heard.length === replaced);
      seen.nowMs += 3000;
      await until("it is noticed", () => seen.lost === replaced);
    }
    await end();
    for (let replaced = 4; replaced <= 6; replaced++) {
      await server.command("FLUSHALL");
      await write(replaced);
      expect(await reader.join(store)).toBe(false);
      expect(seen.lost).toBe(replaced);
      expect(await reader.join(store)).toBe(true);
    }
  });

  test("the log is trimmed to the last entry that was read a minute ago", async () => {
    const { seen, reader, read, end } = made();
    await write(1);
    await reader.join(store);
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
    expect([60_999, 61_000, 63_999, 64_000].map(at)).toEqual([NO_ENTRY.id, ids[0]!, ids[0]!, ids[1]!]);
    await until("the stalled log, too", () => at(seen.nowMs + 60_000) === ids[2]);
    expect(at(seen.nowMs + 1e9)).toBe(ids[2]!);
    await end();
    expect(seen.lost).toBe(0);
  });

  test("ids of a log that was replaced trim nothing", async () => {
    const { seen, reader, read, end } = made();
    await write(1);
    await reader.join(store);
    seen.nowMs += 60_000;
    expect(reader.trimTo).toBe((await store.last()).id);
    await server.command("FLUSHALL");
    await write(2);
    read();
    await until("it is noticed", () => seen.lost === 1);
    expect(reader.trimTo).toBe(NO_ENTRY.id);
    await end();
  });

  test("a log that loses what is older than what was read at the last look lost nothing", async () => {
    const { seen, reader, read, end } = made();
    for (let i = 0; i < 500; i++) await write(0);
    await reader.join(store);
    read();
    await write(1);
    await until("it is heard", () => seen.heard.length === 1);
    seen.nowMs += 3000;
    await write(2);
    await until("that, too", () => seen.heard.length === 2);
    const [[first]] = (await server.command("XRANGE", "{test}:log", "-", "+", "COUNT", "1")) as [[string]];
    await server.command("XDEL", "{test}:log", first);
    seen.nowMs += 3000;
    await write(3);
    await until("and the last", () => seen.heard.length === 3);
    await end();
    expect(seen.lost).toBe(0);
  });

  test("a log whose ids are lower than what was read is found by who wrote there and does not hear it", async () => {
    const { seen, reader, read, end } = made();
    await server.command("XADD", "{test}:log", `${Date.now() + 86_400_000}-0`, "e", "AA==");
    await reader.join(store);
    await server.command("FLUSHALL");
    await write(1);
    reader.wrote();
    read();
    await until("it is noticed", () => seen.lost === 1);
    expect(reader.trimTo).toBe(NO_ENTRY.id);
    await write(2);
    await until("it goes on behind it", () => seen.heard.length > 0);
    await end();
    expect(seen).toMatchObject({ heard: [2], lost: 1 });
  });
});
