/**
 * The store, with real servers: what it keeps, and what becomes of it when its server fails while
 * it is in use.
 */
import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { NO_ENTRY, READ_COUNT, type Store } from "../../../src/control/directory/store.ts";
import { inTime, until } from "../../e2e/support/wait.ts";
import { describeImplementations, type RedisServer } from "../../support/redis.ts";
import { eachWithStore, failureOf, PREFIX, UNTRIMMED } from "./support.ts";

const LOG = `{${PREFIX}}:log`;
const bytes = (...values: number[]) => Uint8Array.from(values);
/** Longer than a test. */
const FOREVER_MS = 60_000;

describeImplementations((implementation) => {
  let server: RedisServer;
  let store: Store;
  const { servers, stores } = eachWithStore(implementation, 100, (...made) => {
    [server, store] = made;
  });

  const behind = (id: string) => {
    const [ms, count] = id.split("-").map(Number);
    return `${ms}-${count! + 1}`;
  };

  describe("the log", () => {
    test("gives back what was added, in order, behind any entry", async () => {
      expect([await store.first(), await store.last()]).toEqual([NO_ENTRY, NO_ENTRY]);
      const added = [bytes(), bytes(0), randomBytes(1400), randomBytes(70_000)];
      for (const entry of added) await store.append(entry, UNTRIMMED);
      const entries = await store.read("0-0");
      expect(entries.map((entry) => Buffer.from(entry.bytes!).toString("hex"))).toEqual(
        added.map((entry) => Buffer.from(entry).toString("hex")),
      );
      expect(await store.last()).toEqual(entries.at(-1)!);
      expect(await store.first()).toEqual(entries[0]!);
      expect(await store.read(entries[1]!.id)).toEqual(entries.slice(2));
    });

    test("waits for what comes, and not for ever, while other commands go on", async () => {
      expect(await store.read("0-0")).toEqual([]);
      const patient = await stores.connect(server, { readWaitMs: FOREVER_MS });
      const read = patient.read("0-0");
      await until("it waits", async () =>
        /cmd=xread/.test(String(await server.command("CLIENT", "LIST"))),
      );
      await patient.append(bytes(7), UNTRIMMED);
      expect(await inTime("the entry", read)).toMatchObject([{ bytes: bytes(7) }]);
    });

    test("comes in pieces", async () => {
      await Promise.all(
        Array.from({ length: READ_COUNT + 44 }, (_, i) =>
          store.append(bytes(i & 255, i >> 8), UNTRIMMED),
        ),
      );
      const first = await store.read("0-0");
      expect(first).toHaveLength(READ_COUNT);
      const rest = await store.read(first.at(-1)!.id);
      expect(rest.map((entry) => entry.bytes)).toEqual(
        Array.from({ length: 44 }, (_, i) => bytes((READ_COUNT + i) & 255, (READ_COUNT + i) >> 8)),
      );
    });

    test("drops what is too old", async () => {
      for (let i = 0; i < 500; i++) await server.command("XADD", LOG, `${1000 + i}-0`, "e", "AA==");
      await store.append(bytes(1), { trimTo: "1499-1" });
      // by whole nodes of the stream
      expect(Number(await server.command("XLEN", LOG))).toBeLessThan(200);
      const kept = await store.read("0-0");
      expect(kept[0]!.id > "1200-0").toBe(true);
      expect(kept.at(-1)).toEqual(await store.last());
    });

    test("keeps every entry from the id on that it is trimmed to", async () => {
      for (let i = 0; i < 500; i++) await server.command("XADD", LOG, `1000-${i}`, "e", "AA==");
      await store.trim("1000-499");
      expect((await store.read("0-0")).map(({ id }) => id)).toEqual(["1000-499"]);
      await store.trim(NO_ENTRY.id);
      expect(await store.logSize()).toMatchObject({ entries: 1 });
      await store.trim("1000-500");
      expect(await store.last()).toEqual(NO_ENTRY);
    });

    test("holds a second field behind the first", async () => {
      const extras = [bytes(7), undefined, bytes(), randomBytes(1400)];
      for (const extra of extras) await store.append(bytes(1), { ...UNTRIMMED, extra });
      const entries = await store.read("0-0");
      const hex = (list: (Uint8Array | undefined)[]) =>
        list.map((extra) => extra && Buffer.from(extra).toString("hex"));
      expect(hex(entries.map(({ extra }) => extra))).toEqual(hex(extras));
      expect(entries.map((entry) => entry.bytes)).toEqual(extras.map(() => bytes(1)));
      for (const [field, value] of [
        ["y", "AA=="],
        ["x", "no base64"],
      ])
        await server.command("XADD", LOG, "*", "e", "AA==", field!, value!);
      for (const entry of await store.read(entries.at(-1)!.id))
        expect(entry).toMatchObject({ bytes: bytes(0), extra: undefined });
    });

    test("has a size", async () => {
      expect(await store.logSize()).toEqual({ entries: 0, bytes: 0 });
      for (let i = 0; i < 10; i++) await store.append(randomBytes(1000), UNTRIMMED);
      const size = await store.logSize();
      expect(size.entries).toBe(10);
      expect(size.bytes).toBeGreaterThan(10_000);
      expect(size.bytes).toBeLessThan(100_000);
    });

    test("with entries of others: they are there, without bytes", async () => {
      for (const [field, value] of [
        ["e", "no base64"],
        ["e", "AA"],
        ["x", "AA=="],
        ["e", "AA=="],
      ])
        await server.command("XADD", LOG, "*", field!, value!);
      expect((await store.read("0-0")).map((entry) => entry.bytes)).toEqual([
        undefined,
        undefined,
        undefined,
        bytes(0),
      ]);
    });
  });

  test("beacons are there by their names, whatever those are, and the last lease counts", async () => {
    const names = ["b1:9001", "[2001:db8::1]:9001", "__proto__", "7", "ä b", ""];
    for (const [i, beacon] of names.entries()) await store.setBeacon(beacon, bytes(i));
    await store.setBeacon("b1:9001", bytes(9, 9));
    await store.removeBeacon("7");
    await store.removeBeacon("nobody");
    await server.command("HSET", `{${PREFIX}}:beacons`, "other", "no base64");
    expect(new Map(await store.beacons(5))).toEqual(
      new Map([
        ["b1:9001", bytes(9, 9)],
        ["[2001:db8::1]:9001", bytes(1)],
        ["__proto__", bytes(2)],
        ["ä b", bytes(4)],
        ["", bytes(5)],
      ]),
    );
  });

  test("beacons are bounded, and it is told when there are more", async () => {
    let told = 0;
    for (const count of [3, 1000]) {
      await Promise.all(
        Array.from({ length: count }, (_, i) => store.setBeacon(`b${i}`, bytes(1))),
      );
      expect((await store.beacons(count, () => told++)).size).toBe(count);
      expect(told).toBe(0);
      expect((await store.beacons(count - 1, () => told++)).size).toBe(count - 1);
      expect(told).toBe(1);
      told = 0;
    }
  });

  test("a snapshot's part is there as it was put, for its time, which can be prolonged", async () => {
    const part = randomBytes(1_000_000);
    await store.putPart("a:1:2", part, FOREVER_MS);
    expect(Buffer.from((await store.getPart("a:1:2", part.length))!).equals(part)).toBe(true);
    expect(await store.keepPart("a:1:2", 3 * FOREVER_MS)).toBe(true);
    expect(await server.command("PTTL", `{${PREFIX}}:nodes:a:1:2`)).toBeWithin(
      FOREVER_MS,
      3 * FOREVER_MS + 1,
    );
    const tooLarge = await failureOf(store.getPart("a:1:2", part.length - 1));
    expect(tooLarge).toMatchObject({ failure: "malformed", endsConnection: false });
    await store.putPart("short", bytes(1), 1);
    await until("it is gone", async () => (await store.getPart("short", 1)) === undefined);
    expect(await store.keepPart("short", 1)).toBe(false);
  });

  test("the time is the server's, and what a command takes is measured", async () => {
    expect(Math.abs((await store.time()) - Date.now())).toBeLessThan(5000);
    expect(store.roundTripMs).toBeGreaterThan(0);
    expect(store.server).toBe(server.name);
  });

  test("databases and prefixes are apart; all keys share the tag, and nothing else is left", async () => {
    const others = [
      await stores.connect(server, { database: 3 }),
      await stores.connect(server, { prefix: "other" }),
    ];
    await store.append(bytes(1), UNTRIMMED);
    await store.setBeacon("b", bytes(1));
    await store.putPart("p", bytes(1), FOREVER_MS);
    for (const other of others) {
      expect(await other.last()).toEqual(NO_ENTRY);
      expect((await other.beacons(9)).size).toBe(0);
      expect(await other.getPart("p", 9)).toBeUndefined();
    }
    expect(((await server.command("KEYS", "*")) as string[]).sort()).toEqual([
      "{test}:beacons",
      "{test}:log",
      "{test}:nodes:p",
    ]);
  });

  describe("when the server fails", () => {
    /** One that a test may break. */
    async function victim(
      config: readonly string[] = [],
      options = {},
    ): Promise<[RedisServer, Store]> {
      const own = await servers.start({ config });
      return [own, await stores.connect(own, { readWaitMs: FOREVER_MS, ...options })];
    }

    async function expectOver(over: Store, failure: string): Promise<void> {
      const reason = await inTime("it has ended", over.ended);
      expect(reason).toMatchObject({ failure, endsConnection: true });
      const calls = [
        over.append(bytes(1), UNTRIMMED),
        over.read("0-0"),
        over.time(),
        over.beacons(1),
      ];
      for (const error of await Promise.all(calls.map(failureOf))) expect(error).toBe(reason);
    }

    test("a crash ends it, and what waits", async () => {
      const [own, over] = await victim();
      const read = failureOf(over.read("0-0"));
      await own.stop();
      expect(await read).toMatchObject({ failure: "unreachable" });
      await expectOver(over, "unreachable");
    });

    test("one that stands still is slow, whichever connection notices", async () => {
      for (const call of [
        (over: Store) => over.append(bytes(1), UNTRIMMED),
        (over: Store) => over.read("0-0"),
      ]) {
        const [own, over] = await victim([], { answerMs: 1000, readWaitMs: 100 });
        own.pause();
        const error = await failureOf(call(over));
        expect(error).toMatchObject({ failure: "slow" });
        expect(error.message).toMatch(/: no answer to X(ADD|READ) in 1[01]00 ms: /);
        await expectOver(over, "slow");
        own.resume();
      }
    });

    test("one that closes either connection ends both", async () => {
      for (const command of ["xread", "xadd"]) {
        const [own, over] = await victim();
        const read = failureOf(over.read("0-0"));
        const clientIds = async () =>
          [...String(await own.command("CLIENT", "LIST")).matchAll(/^id=(\d+) .*cmd=(\w+)/gm)]
            .filter(([, , cmd]) => cmd === command)
            .map(([, id]) => id!);
        const [id] = await until("it is connected", async () => {
          const ids = await clientIds();
          return ids.length > 0 && ids;
        });
        await own.command("CLIENT", "KILL", "ID", id!);
        expect(await read).toMatchObject({ failure: "unreachable" });
        await expectOver(over, "unreachable");
        await until(
          "both are closed",
          async () => !/cmd=x(read|add)/.test(String(await own.command("CLIENT", "LIST"))),
        );
      }
    });

    test("one that becomes a replica ends it, by the next write or what waits", async () => {
      const [primary] = await victim();
      const [own, over] = await victim();
      const read = failureOf(over.read("0-0"));
      await until("it waits", async () =>
        /cmd=xread/.test(String(await own.command("CLIENT", "LIST"))),
      );
      await own.replicaOf(primary);
      expect(await read).toMatchObject({ failure: "read_only" });
      await expectOver(over, "read_only");

      const [another, second] = await victim();
      await another.replicaOf(primary);
      const error = await failureOf(second.append(bytes(1), UNTRIMMED));
      expect(error.message).toContain("it is a replica: name the primary, too");
      await expectOver(second, "read_only");
    });

    test("one that is full is read from, also by who comes then", async () => {
      const [own, first] = await victim(["--maxmemory-policy", "noeviction"]);
      await first.append(bytes(7), UNTRIMMED);
      await own.command("CONFIG", "SET", "maxmemory", "1");
      const late = await stores.connect(own, { readWaitMs: 100 });
      for (const over of [first, late]) {
        const calls = [
          over.append(bytes(1), UNTRIMMED),
          over.setBeacon("b", bytes(1)),
          over.putPart("p", bytes(1), 9),
        ];
        for (const error of await Promise.all(calls.map(failureOf)))
          expect(error).toMatchObject({ failure: "full", endsConnection: false });
        expect(await over.read("0-0")).toMatchObject([{ bytes: bytes(7) }]);
        expect((await over.beacons(1)).size).toBe(0);
      }
      const { id } = await first.last();
      await first.trim(behind(id));
      expect(await late.logSize()).toMatchObject({ entries: 0 });
      await own.command("CONFIG", "SET", "maxmemory", "0");
      await first.append(bytes(8), UNTRIMMED);
    });

    test("a right that is missing is named, and ends nothing", async () => {
      const [own, over] = await victim();
      await own.command("ACL", "SETUSER", "default", "-xread", "-hset");
      const error = await failureOf(over.read("0-0"));
      expect(error).toMatchObject({ failure: "denied", endsConnection: false });
      expect(error.message).toMatch(/answers XREAD with "NOPERM .*xread.*": let the user do that/);
      expect(await failureOf(over.setBeacon("b", bytes(1)))).toMatchObject({ failure: "denied" });
      await over.append(bytes(1), UNTRIMMED);
    });

    test("a size that the user must not know, or that the server does not tell, is unknown", async () => {
      const [own, over] = await victim();
      await over.append(bytes(1), UNTRIMMED);
      await own.command("ACL", "SETUSER", "default", "-memory");
      expect(await over.logSize()).toEqual({ entries: 1, bytes: undefined });
      await own.command("ACL", "SETUSER", "default", "-xlen");
      expect(await over.logSize()).toEqual({ entries: undefined, bytes: undefined });
      const [, renamed] = await victim(["--rename-command", "MEMORY", ""]);
      expect(await renamed.logSize()).toEqual({ entries: 0, bytes: undefined });
      await renamed.append(bytes(1), UNTRIMMED);
    });

    test("these rights are enough for all of it", async () => {
      const [own] = await victim();
      const commands = [
        ..."xadd xread xrange xrevrange xtrim xlen memory|usage".split(" "),
        ..."hscan hset hdel set get strlen pexpire time select".split(" "),
      ];
      const rights = commands.map((command) => `+${command}`);
      await own.command(
        "ACL",
        "SETUSER",
        "bob",
        "on",
        ">s3cret",
        `~{${PREFIX}}:*`,
        "-@all",
        ...rights,
      );
      const options = { user: "bob", password: "s3cret", database: 1, readWaitMs: 1 };
      const over = await stores.connect(own, options);
      await over.append(bytes(1), UNTRIMMED);
      await over.trim(NO_ENTRY.id);
      expect(await over.logSize()).toEqual({ entries: 1, bytes: expect.any(Number) });
      await Promise.all([over.last(), over.read("0-0"), over.time()]);
      await Promise.all([over.setBeacon("b", bytes(1)), over.beacons(1), over.removeBeacon("b")]);
      await over.putPart("p", bytes(1), FOREVER_MS);
      expect(await Promise.all([over.keepPart("p", 1000), over.getPart("p", 1)])).toEqual([
        true,
        bytes(1),
      ]);
    });

    test("a user that is taken away ends it", async () => {
      const own = await servers.start();
      await own.command("ACL", "SETUSER", "bob", "on", ">s3cret", "~*", "+@all");
      const over = await stores.connect(own, { user: "bob", password: "s3cret" });
      await own.command("ACL", "DELUSER", "bob");
      await expectOver(over, "unreachable");
    });

    test("keys of others' types are malformed, and end nothing", async () => {
      const [own, over] = await victim();
      for (const key of ["log", "beacons"]) await own.command("SET", `{${PREFIX}}:${key}`, "x");
      await own.command("LPUSH", `{${PREFIX}}:nodes:p`, "x");
      const calls = [
        over.append(bytes(1), UNTRIMMED),
        over.read("0-0"),
        over.beacons(1),
        over.getPart("p", 1),
      ];
      for (const error of await Promise.all(calls.map(failureOf)))
        expect(error).toMatchObject({ failure: "malformed", endsConnection: false });
      expect((await failureOf(over.last())).message).toContain("choose another --directory-prefix");
    });

    test("a script that does not end makes it slow", async () => {
      const [own, over] = await victim(["--busy-reply-threshold", "1"]);
      const script = own
        .command("EVAL", "while true do end", "0")
        .catch((error: Error) => error.message);
      const error = await failureOf(
        until("it is busy", async () => {
          await over.time();
          return false;
        }),
      );
      expect(error).toMatchObject({ failure: "slow" });
      expect(error.message).toContain("BUSY");
      await own.stop();
      await script;
    });
  });

  test("closing ends it, and all that waits, once and for all", async () => {
    const waiting = [
      store.read("0-0"),
      ...Array.from({ length: 50 }, () => store.append(bytes(1), UNTRIMMED)),
      store.getPart("p", 1),
      store.beacons(1),
    ].map((call) => failureOf(call));
    store.close();
    store.close();
    const reason = await inTime("it has ended", store.ended);
    for (const error of waiting) expect(await error).toBe(reason);
    expect(await failureOf(store.time())).toBe(reason);
    await until(
      "both connections are closed",
      async () => !/cmd=x(read|add)/.test(String(await server.command("CLIENT", "LIST"))),
    );
  });
});
