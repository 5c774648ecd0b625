/**
 * Servers that are none, or that say anything: every call fails in time and in words, and nothing
 * is believed.
 */
import { afterEach, describe, expect, test } from "bun:test";
import type { Store } from "../../../src/control/directory/store.ts";
import { StoreError } from "../../../src/control/directory/store-error.ts";
import { inTime } from "../../e2e/support/wait.ts";
import { entered, ScriptedRedis } from "../../support/scripted-redis.ts";
import { failureOf, Stores, UNTRIMMED, whyNotConnected } from "./support.ts";

const PASSWORD = "s3cret-of-the-fleet";
const stores = new Stores();
let server: ScriptedRedis | undefined;
afterEach(() => {
  stores.close();
  server?.close();
  server = undefined;
});

describe("in place of a welcome", () => {
  test.each<[string, string, string, string]>([
    [
      "HTTP",
      "HTTP/1.1 400 Bad Request\r\n\r\n",
      "malformed",
      'answers HELLO with "HTTP/1.1 400 Bad Request": is',
    ],
    [
      "a greeting",
      "SSH-2.0-OpenSSH_9.2\r\n",
      "malformed",
      'answers HELLO with "SSH-2.0-OpenSSH_9.2": is this',
    ],
    [
      "zeros",
      "\0".repeat(10_000),
      "malformed",
      "is this a Redis or Valkey server? check --directory",
    ],
    [
      "a line without an end",
      "+".repeat(100_000),
      "malformed",
      "is this a Redis or Valkey server?",
    ],
    ["a map that is none", "%x\r\n", "malformed", 'answers HELLO with "%x"'],
    [
      "an array in place of a map",
      "*0\r\n",
      "unreachable",
      "closed the connection in place of an answer",
    ],
    ["a TLS alert", "\x15\x03\x01\0\x02\x02\x28", "refused", "does it want TLS? that is rediss://"],
    ["the end", "close", "unreachable", "closed the connection in place of an answer"],
    ["nothing", "", "slow", "accepts the connection and does not answer"],
    ["loading", "-LOADING Redis is loading the dataset in memory\r\n", "slow", "it is tried again"],
    [
      "an old Redis",
      "-NOPROTO unsupported protocol version\r\n",
      "refused",
      "Redis 6.2 or later, or Valkey, is needed",
    ],
    [
      "an older one, which repeats the password",
      `-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' '${PASSWORD}'\r\n`,
      "refused",
      `answers HELLO with "ERR unknown command 'HELLO'": Redis 6.2 or later, or Valkey, is needed`,
    ],
    [
      "the password",
      `-ERR ${PASSWORD} is wrong\r\n`,
      "refused",
      "answers HELLO with a text that repeats the password",
    ],
    [
      "protected mode",
      "-DENIED Redis is running in protected mode\r\n",
      "denied",
      "give the server a password",
    ],
    ["a cluster that is down", "-CLUSTERDOWN x\r\n", "refused", "see to the cluster"],
    ["a cursor that moves", "-ERR \x1b[2J\u202e\r\n", "refused", "\\u{202e}"],
  ])("%s", async (_, answer, failure, message) => {
    server = new ScriptedRedis(() => answer || undefined);
    const error = await whyNotConnected(server, { password: PASSWORD, connectMs: 500 });
    expect(error.message).toContain(message);
    expect(error).toMatchObject({ failure, endsConnection: true });
    expect(error.message).not.toContain(PASSWORD);
    expect(error.message.length).toBeLessThan(400);
  });

  test("an error that is there before anything was asked", async () => {
    server = new ScriptedRedis(() => undefined);
    server.greeting = "-ERR max number of clients reached\r\n";
    expect((await whyNotConnected(server)).message).toContain("raise its maxclients");
  });
});

describe("to who was let in", () => {
  test.each<[string, string, string, string]>([
    [
      "a Redis that is too old",
      "-ERR syntax error\r\n",
      "refused",
      "Redis 6.2 or later, or Valkey, is needed",
    ],
    [
      "no streams",
      "-ERR unknown command 'XADD', with args beginning with: x\r\n",
      "refused",
      "6.2 or later",
    ],
    ["a replica", "-READONLY You can't write\r\n", "read_only", "name the primary, too"],
    [
      "a cluster's other node",
      "-MOVED 7 10.0.0.1:6379\r\n",
      "refused",
      "name all nodes of the cluster",
    ],
    ["garbage", "?\r\n", "malformed", "answers XADD with garbage: is this a Redis"],
    ["nothing", "", "slow", "no answer to XADD in 1000 ms"],
  ])("%s shows at once, by a write", async (_, answer, failure, message) => {
    server = new ScriptedRedis((command, args) =>
      command === "XADD" ? answer || undefined : entered(command, args),
    );
    const error = await whyNotConnected(server, { answerMs: 1000 });
    expect(error).toMatchObject({ failure, endsConnection: true });
    expect(error.message).toContain(message);
  });

  test("one that cannot save is read from", async () => {
    const answer = "-MISCONF Redis is configured to save RDB snapshots\r\n";
    server = new ScriptedRedis((command, args) =>
      command === "XADD" ? answer : entered(command, args),
    );
    const store = await stores.connect(server);
    const error = await failureOf(store.append(new Uint8Array(1), UNTRIMMED));
    expect(error).toMatchObject({ failure: "full", endsConnection: false });
    expect(error.message).toContain("see its log: it cannot save");
  });

  test("what HELLO does not tell is not asked for", async () => {
    const asked: string[] = [];
    server = new ScriptedRedis((command, args) => {
      asked.push(command);
      if (command === "TIME") return "*2\r\n$1\r\n7\r\n$1\r\n0\r\n";
      return command === "HELLO" ? "%0\r\n" : entered(command, args);
    });
    const store = await stores.connect(server);
    expect(await store.time()).toBe(7000);
    expect([...new Set(asked)]).toEqual(["HELLO", "XADD", "TIME"]);
  });
});

const calls: Record<string, (store: Store) => Promise<unknown>> = {
  append: (store) => store.append(new Uint8Array(1), UNTRIMMED),
  first: (store) => store.first(),
  last: (store) => store.last(),
  read: (store) => store.read("0-0"),
  trim: (store) => store.trim("1-1"),
  logSize: (store) => store.logSize(),
  beacons: (store) => store.beacons(10),
  setBeacon: (store) => store.setBeacon("b", new Uint8Array(1)),
  removeBeacon: (store) => store.removeBeacon("b"),
  putPart: (store) => store.putPart("p", new Uint8Array(1), 1000),
  keepPart: (store) => store.keepPart("p", 1000),
  getPart: (store) => store.getPart("p", 10),
  time: (store) => store.time(),
};

describe("whatever is asked", () => {
  const entry = (id: string) => `*2\r\n$${id.length}\r\n${id}\r\n*2\r\n$1\r\ne\r\n$0\r\n\r\n`;
  const answers: [string, string][] = [
    ["no type there is", "?7\r\n"],
    ["a number that is none", ":seven\r\n"],
    ["a negative number", ":-7\r\n"],
    ["a fraction", ",1.5\r\n"],
    ["another text", "+YES\r\n"],
    ["an array of arrays", `${"*1\r\n".repeat(50)}:1\r\n`],
    ["arrays without an end", "*1\r\n".repeat(300_000)],
    ["more than it says", `*1\r\n${entry("1-1")}`.repeat(3)],
    ["entries without an id", `*1\r\n${entry("x")}`],
    ["entries of another log", `%1\r\n$1\r\nx\r\n*1\r\n${entry("1-1")}`],
    [
      "more entries than were asked for",
      `%1\r\n$10\r\n{test}:log\r\n*257\r\n${entry("1-1").repeat(257)}`,
    ],
    ["a text in place of a list", "*2\r\n$1\r\n0\r\n$1\r\n0\r\n"],
    ["an array of nothing", "*2\r\n_\r\n_\r\n"],
    ["a push", ">2\r\n+message\r\n+x\r\n"],
    ["far too much", "$3000000000\r\n"],
    ["a length that is none", "$-7x\r\n"],
    ["half an answer", "*2\r\n$10\r\nabc"],
    ["a large array that does not come", "*1000000000\r\n"],
    ["a large map that does not come", "%1000000000\r\n"],
    ["nothing", ""],
    ["the end", "close"],
  ];

  /** Those that would be right. */
  const right: Record<string, string[]> = {
    first: ["more than it says"],
    last: ["more than it says"],
    has: ["more than it says"],
    time: ["a text in place of a list"],
  };

  test.each(Object.keys(calls))("%s: every answer that is none ends it in time", async (name) => {
    const outcome = async ([what, answer]: [string, string]) => {
      const own = new ScriptedRedis();
      try {
        const store = await stores.connect(own, { answerMs: 500, readWaitMs: 1 });
        own.script = () => answer || undefined;
        await inTime(`${name} is over, ${what}`, calls[name]!(store));
        return "taken";
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        return error.endsConnection ? "ended" : "refused, and goes on";
      } finally {
        own.close();
      }
    };
    const outcomes = await Promise.all(answers.map(async (one) => [one[0], await outcome(one)]));
    const expected = answers.map(([what]) => [
      what,
      right[name]?.includes(what) ? "taken" : "ended",
    ]);
    expect(outcomes).toEqual(expected);
  });

  test("a hash that goes on for ever is gone through no more than is sensible", async () => {
    let scans = 0;
    server = new ScriptedRedis();
    const store = await stores.connect(server);
    server.script = () => `*2\r\n$1\r\n${(scans++ % 9) + 1}\r\n*2\r\n$1\r\nb\r\n$4\r\nAA==\r\n`;
    let told = 0;
    expect((await store.beacons(1000, () => told++)).size).toBe(1);
    expect([scans < 100, told]).toEqual([true, 1]);
  });

  test("a part that is larger than it was said to be is not taken", async () => {
    server = new ScriptedRedis();
    const store = await stores.connect(server);
    server.script = (command) => (command === "STRLEN" ? ":3\r\n" : "$5\r\nabcde\r\n");
    expect(await failureOf(store.getPart("p", 4))).toMatchObject({
      failure: "malformed",
      endsConnection: true,
    });
  });

  test("answers that nobody asked for are taken for others', which shows", async () => {
    server = new ScriptedRedis();
    const store = await stores.connect(server);
    server.script = (command) => (command === "TIME" ? "*2\r\n+1\r\n+2\r\n+OK\r\n" : ":1\r\n");
    await store.time();
    expect(await failureOf(store.setBeacon("b", new Uint8Array(1)))).toMatchObject({
      failure: "malformed",
      endsConnection: true,
    });
  });
});
