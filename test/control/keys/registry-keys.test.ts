import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { KeySourceError, type KeySourceErrorCode } from "../../../src/control/keys/keys.ts";
import {
  RecentAnswers,
  RegistryKeys,
  type RegistryKeysOptions,
} from "../../../src/control/keys/registry-keys.ts";
import { FRAME_BYTES_MAX } from "../../../src/control/registry/protocol.ts";
import { installed } from "../../e2e/support/program.ts";
import { inTime, until } from "../../e2e/support/wait.ts";
import { openFds } from "../../support/fds.ts";
import {
  type Behaviour,
  close,
  correct,
  cutAfter,
  drip,
  frame,
  type RegistryRequest,
  refuse,
  reset,
  type ScriptedConnection,
  ScriptedRegistry,
  say,
  sayBytes,
  silent,
} from "../../support/scripted-registry.ts";

let registry: ScriptedRegistry;
const sources: RegistryKeys[] = [];
beforeEach(async () => {
  registry = await ScriptedRegistry.listen();
  for (let nodeId = 1; nodeId <= 99; nodeId++) registry.keys.set(nodeId, base64(keyOf(nodeId)));
});
afterEach(async () => {
  for (const source of sources.splice(0)) source.close();
  await registry.close();
});

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}

/** A key that no other node has. */
function keyOf(nodeId: number): Uint8Array {
  const key = new Uint8Array(32).fill(0xa5);
  new DataView(key.buffer).setUint32(4, nodeId);
  return key;
}

function keysFrom(options: Partial<RegistryKeysOptions> = {}, nowMs?: () => number): RegistryKeys {
  const source = new RegistryKeys(
    { registry: { host: "127.0.0.1", port: registry.port }, ...options },
    nowMs,
  );
  sources.push(source);
  return source;
}

const ask = (source: RegistryKeys, nodeIds: readonly number[]) =>
  nodeIds.map((id) => source.keyOf(id));

/**
 * Checks an error's message: one readable line that says which registry it is about, if it is about
 * one.
 */
function expectReadable(error: unknown): KeySourceError {
  expect(error).toBeInstanceOf(KeySourceError);
  const { message, code } = error as KeySourceError;
  expect(message).toMatch(
    /^(registry \S+:\d+: |no keys are looked up any more: their source is closed$)/,
  );
  expect(message).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
  expect(message.length).toBeLessThan(300);
  expect(code).toBeString();
  return error as KeySourceError;
}

/** What a question failed with. */
async function failure(question: Promise<unknown>): Promise<KeySourceError> {
  const answered = inTime("the question ends", question);
  return expectReadable(await answered.then(() => "an answer").catch((error) => error));
}

/** What each question came to: a key, undefined, or an error's code. */
function outcomes(questions: readonly Promise<Uint8Array | undefined>[]) {
  const ends = questions.map((question) => question.catch((error) => expectReadable(error).code));
  return inTime("the questions end", Promise.all(ends));
}

const asksFor = (nodeId: number, request: RegistryRequest) => request["node_id"] === nodeId;
const askedNodes = () => registry.requests.map(({ node_id }) => node_id);
const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** What was asked and waits for the test to answer, in its order. */
class Held {
  readonly #asked: [RegistryRequest, ScriptedConnection][] = [];

  readonly behaviour: Behaviour = (request, connection) => this.#asked.push([request, connection]);

  get size(): number {
    return this.#asked.length;
  }

  /** Answers the oldest. */
  answer(): void {
    correct(...this.#asked.shift()!);
  }

  answerAll(): void {
    while (this.size > 0) this.answer();
  }
}

function hold(): Held {
  const held = new Held();
  registry.behaviour = held.behaviour;
  return held;
}

/**
 * One behaviour for the connection on which something is asked first, and the correct one for all
 * others.
 */
function onFirstConnection(first: Behaviour): Behaviour {
  let firstConnection: ScriptedConnection | undefined;
  return (request, connection) => {
    firstConnection ??= connection;
    (connection === firstConnection ? first : correct)(request, connection);
  };
}

describe("a key", () => {
  test("is asked for, and told", async () => {
    const source = keysFrom();
    expect(await source.keyOf(42)).toEqual(keyOf(42));
    expect(await source.keyOf(100)).toBeUndefined();
    expect(registry.requests).toEqual([
      { type: "lookup", node_id: 42 },
      { type: "lookup", node_id: 100 },
    ]);
    expect(registry.connections).toBe(1);
  });

  test("of the lowest and the highest id, from a registry with a name", async () => {
    const source = keysFrom({ registry: { host: "localhost", port: registry.port } });
    for (const nodeId of [0, 4_294_967_295]) {
      registry.keys.set(nodeId, base64(keyOf(nodeId)));
      expect(await source.keyOf(nodeId)).toEqual(keyOf(nodeId));
    }
  });

  test("has whatever bytes the registry stores", async () => {
    const source = keysFrom();
    for (const bytes of [0, 1, 31, 33, 64, 768]) {
      registry.keys.set(bytes, base64(new Uint8Array(bytes).fill(0xff)));
      expect(await source.keyOf(bytes)).toEqual(new Uint8Array(bytes).fill(0xff));
    }
  });

  test("arrives in pieces of one byte, and many in one piece", async () => {
    const answers = [1, 100, 2].map((node_id) =>
      frame(JSON.stringify(registry.correctAnswer({ type: "lookup", node_id }))),
    );
    for (const send of [
      (connection: ScriptedConnection) => connection.drip(Buffer.concat(answers), 0),
      (connection: ScriptedConnection) => connection.send(Buffer.concat(answers)),
    ]) {
      registry.behaviour = (request, connection) => {
        if (asksFor(2, request)) send(connection);
      };
      expect(await outcomes(ask(keysFrom(), [1, 100, 2]))).toEqual([keyOf(1), undefined, keyOf(2)]);
    }
  });
});

describe("questions", () => {
  test("go one behind the other, and are answered in their order", async () => {
    const held = hold();
    const questions = ask(keysFrom(), [5, 100, 3, 101, 4]);
    await until("all are asked", () => held.size === 5);
    expect(askedNodes()).toEqual([5, 100, 3, 101, 4]);
    held.answerAll();
    expect(await outcomes(questions)).toEqual([keyOf(5), undefined, keyOf(3), undefined, keyOf(4)]);
    expect(registry.connections).toBe(1);
  });

  test("for one node share a look-up, on its way and in the queue", async () => {
    const held = hold();
    const source = keysFrom({ inFlightMax: 1 });
    const questions = ask(source, [1, 2, 1, 2, 100, 100]);
    await until("the first is asked", () => held.size === 1);
    questions.push(...ask(source, [1, 2]));
    registry.behaviour = correct;
    held.answer();
    const [one, two] = [keyOf(1), keyOf(2)];
    expect(await outcomes(questions)).toEqual([one, two, one, two, undefined, undefined, one, two]);
    expect(askedNodes()).toEqual([1, 2, 100]);
  });

  test.each([[1], [2], [32]])("are %d on their way at most", async (inFlightMax) => {
    const held = hold();
    const nodeIds = range(1, 99);
    const questions = ask(keysFrom(inFlightMax === 32 ? {} : { inFlightMax }), nodeIds);
    let most = 0;
    for (let left = nodeIds.length; left > 0; left--) {
      await until("as many are asked as may be", () => held.size >= Math.min(inFlightMax, left));
      most = Math.max(most, held.size);
      held.answer();
    }
    expect(most).toBe(inFlightMax);
    expect(await outcomes(questions)).toEqual(nodeIds.map(keyOf));
    expect(askedNodes()).toEqual(nodeIds);
  });

  test("two thousand at once are all answered", async () => {
    const nodeIds = range(1, 2000);
    for (const nodeId of nodeIds) registry.keys.set(nodeId, base64(keyOf(nodeId)));
    for (let nodeId = 7; nodeId <= 2000; nodeId += 7) registry.keys.delete(nodeId);
    const expected = nodeIds.map((nodeId) => (nodeId % 7 === 0 ? undefined : keyOf(nodeId)));
    expect(await outcomes(ask(keysFrom(), nodeIds))).toEqual(expected);
    expect(askedNodes()).toEqual(nodeIds);
    expect(registry.connections).toBe(1);
  });

  test("beyond the queue are refused; those in it are not", async () => {
    const held = hold();
    const source = keysFrom({ inFlightMax: 2, queueMax: 3 });
    const questions = ask(source, [1, 2]);
    await until("two are asked", () => held.size === 2);
    questions.push(...ask(source, [3, 4, 5]));
    const error = await failure(source.keyOf(6));
    expect(error.code).toBe("busy");
    expect(error.message).toContain(`registry 127.0.0.1:${registry.port}: 3 nodes wait`);
    questions.push(source.keyOf(5)); // in the queue already
    registry.behaviour = correct;
    held.answerAll();
    expect(await outcomes(questions)).toEqual([1, 2, 3, 4, 5, 5].map(keyOf));
    expect(await source.keyOf(6)).toEqual(keyOf(6));
  });

  test("the queue holds 16384 nodes", async () => {
    registry.behaviour = silent;
    const source = keysFrom();
    const questions = ask(source, range(1, 16_384));
    expect((await failure(source.keyOf(16_385))).code).toBe("busy");
    source.close();
    expect(new Set(await outcomes(questions))).toEqual(new Set(["closed"]));
  });

  test("to a registry that takes its time for each, and longer for all than it may for one", async () => {
    // One question after the other, as a goroutine for each connection does it.
    let last = Promise.resolve();
    registry.behaviour = (request, connection) => {
      last = last.then(() => Bun.sleep(150)).then(() => correct(request, connection) as undefined);
    };
    const nodeIds = range(1, 16);
    expect(await outcomes(ask(keysFrom({ answerMs: 2000 }), nodeIds))).toEqual(nodeIds.map(keyOf));
    expect(registry.connections).toBe(1);
  });
});

describe("what was answered", () => {
  test("is known for a while, the keys longer than those that are none", async () => {
    let now = 1_000_000;
    const source = keysFrom({}, () => now);
    const expectAsked = async (...nodeIds: number[]) => {
      registry.requests.length = 0;
      expect(await outcomes(ask(source, [1, 100]))).toEqual([keyOf(1), undefined]);
      expect(askedNodes()).toEqual(nodeIds);
    };
    await expectAsked(1, 100);
    await expectAsked();
    now += 4_999;
    await expectAsked();
    now += 1;
    await expectAsked(100);
    now += 4_999;
    await expectAsked();
    now += 50_000;
    await expectAsked(100);
    now += 1; // a minute after the first answer
    await expectAsked(1);
  });

  test("counts from the answer on", async () => {
    let now = 0;
    const held = hold();
    const source = keysFrom({ foundMs: 100 }, () => now);
    const question = source.keyOf(1);
    await until("it is asked", () => held.size === 1);
    now = 1000;
    held.answer();
    await question;
    now = 1099;
    await source.keyOf(1);
    expect(askedNodes()).toEqual([1]);
  });

  test("is forgotten for what is newer, oldest first; unknown nodes drive out no keys", async () => {
    const source = keysFrom({ keptMax: 3 });
    const expectAsked = async (nodeIds: number[], asked: number[]) => {
      registry.requests.length = 0;
      for (const nodeId of nodeIds) await source.keyOf(nodeId);
      expect(askedNodes()).toEqual(asked);
    };
    await expectAsked([1, 2, 3], [1, 2, 3]);
    await expectAsked([101, 102, 103, 104], [101, 102, 103, 104]);
    await expectAsked([3, 2, 1, 104, 103, 102], []);
    await expectAsked([4], [4]);
    await expectAsked([2, 3, 4, 1], [1]);
    await expectAsked([101], [101]);
    await expectAsked([103, 104, 101, 102], [102]);
  });

  test("was a failure: that is not kept", async () => {
    const source = keysFrom();
    registry.keys.set(1, "no base64");
    expect((await failure(source.keyOf(1))).code).toBe("invalid");
    registry.behaviour = close;
    expect((await failure(source.keyOf(1))).code).toBe("closed");
    registry.behaviour = correct;
    registry.keys.set(1, base64(keyOf(1)));
    expect(await source.keyOf(1)).toEqual(keyOf(1));
  });
});

test("RecentAnswers does as a list of all answers would", () => {
  const LIFE_MS = 10;
  const step = fc.record({ id: fc.nat(8), passMs: fc.constantFrom(0, 0, 0, 1, 3, 10) });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5 }),
      fc.array(step, { maxLength: 60 }),
      (sizeMax, steps) => {
        let now = 0;
        let all: { id: number; value: number; atMs: number }[] = [];
        const recent = new RecentAnswers<number>(LIFE_MS, sizeMax, () => now);
        for (const [value, { id, passMs }] of steps.entries()) {
          now += passMs;
          all = all.filter(({ atMs }) => now < atMs + LIFE_MS);
          const known = all.find((one) => one.id === id)?.value;
          expect(recent.get(id)).toBe(known);
          if (known === undefined) {
            recent.add(id, value);
            all = [...all, { id, value, atMs: now }].slice(-sizeMax);
          }
          expect(recent.size).toBe(all.length);
        }
      },
    ),
  );
});

describe("the connection", () => {
  test("is opened anew when the registry has closed it", async () => {
    const source = keysFrom();
    for (const [i, leave] of [close, reset, close].entries()) {
      let idle: ScriptedConnection | undefined;
      registry.behaviour = (request, connection) => {
        idle = connection;
        correct(request, connection);
      };
      expect(await source.keyOf(i + 1)).toEqual(keyOf(i + 1));
      leave({ type: "" }, idle!);
      await until("it is closed on both sides", () => registry.openConnections === 0);
    }
    expect(await source.keyOf(50)).toEqual(keyOf(50));
    expect(askedNodes()).toEqual([1, 2, 3, 50]);
    expect(registry.connections).toBe(4);
  });

  test.each<[string, Behaviour]>([
    ["in place of an answer", close],
    ["with a reset", reset],
    ["within an answer", cutAfter(20)],
  ])(
    "was kept and breaks %s: what is on its way is asked once more, before the rest",
    async (_, leave) => {
      const source = keysFrom({ inFlightMax: 3 });
      await source.keyOf(1);
      registry.behaviour = onFirstConnection((request, connection) => {
        if (asksFor(4, request)) leave(request, connection);
      });
      const questions = ask(source, [2, 3, 4, 5, 6]);
      expect(await outcomes(questions)).toEqual([2, 3, 4, 5, 6].map(keyOf));
      expect(askedNodes()).toEqual([1, 2, 3, 4, 2, 3, 4, 5, 6]);
      expect(registry.connections).toBe(2);
    },
  );

  test("was kept and breaks, and so does the next: that was the last time", async () => {
    const source = keysFrom();
    await source.keyOf(1);
    registry.behaviour = close;
    expect((await failure(source.keyOf(2))).code).toBe("closed");
    expect(askedNodes()).toEqual([1, 2, 2]);
    registry.behaviour = correct;
    expect(await source.keyOf(2)).toEqual(keyOf(2));
  });

  test.each<[string, Behaviour, string]>([
    ["closes", close, "closed the connection in place of a whole answer to lookup"],
    ["resets", reset, "closed the connection (ECONNRESET) in place of"],
  ])("is new and the registry %s it: nothing is asked again", async (_, leave, words) => {
    registry.behaviour = leave;
    const error = await failure(keysFrom().keyOf(1));
    expect(error.code).toBe("closed");
    expect(error.message).toContain(`registry 127.0.0.1:${registry.port}: ${words}`);
    expect(askedNodes()).toEqual([1]);
  });

  test("is new and breaks between two answers: the queue goes on with another", async () => {
    registry.behaviour = onFirstConnection((request, connection) => {
      if (asksFor(1, request)) correct(request, connection);
      if (asksFor(3, request)) connection.end();
    });
    const questions = ask(keysFrom({ inFlightMax: 2 }), [1, 2, 3, 4, 5]);
    expect(await outcomes(questions)).toEqual([keyOf(1), "closed", "closed", keyOf(4), keyOf(5)]);
    expect(askedNodes()).toEqual([1, 2, 3, 4, 5]);
  });

  test("is opened anew when the registry was started again", async () => {
    const source = keysFrom();
    await source.keyOf(1);
    const { port } = registry;
    await registry.close();
    expect((await failure(source.keyOf(2))).code).toBe("unreachable");
    registry = await ScriptedRegistry.listen(port);
    registry.keys.set(2, base64(keyOf(2)));
    expect(await source.keyOf(2)).toEqual(keyOf(2));
    expect(await source.keyOf(1)).toEqual(keyOf(1)); // still known
    expect(askedNodes()).toEqual([2]);
  });
});

describe("a registry that cannot be had", () => {
  test("keeps nobody waiting, however many there are", async () => {
    const { port } = registry;
    await registry.close();
    const source = keysFrom();
    const questions = ask(source, range(1, 2000));
    const error = await failure(source.keyOf(1));
    expect(error.message).toBe(
      `registry 127.0.0.1:${port}: connection refused (ECONNREFUSED): check that the registry runs, the route to it, and --registry`,
    );
    const errors = await Promise.all(
      questions.map((question) => question.catch((reason) => reason)),
    );
    expect(new Set(errors)).toEqual(new Set([error])); // of one and the same try
    registry = await ScriptedRegistry.listen(port);
    expect(await source.keyOf(1)).toBeUndefined();
  });

  test("after a kept connection broke", async () => {
    const source = keysFrom({ inFlightMax: 2 });
    await source.keyOf(1);
    const held = hold();
    const questions = ask(source, [2, 3, 4, 5]);
    await until("two are asked", () => held.size === 2);
    await registry.close();
    expect(await outcomes(questions)).toEqual(Array(4).fill("unreachable"));
    registry = await ScriptedRegistry.listen();
  });

  test("has no address", async () => {
    const error = await failure(
      keysFrom({ registry: { host: "registry.invalid", port: 1 } }).keyOf(1),
    );
    expect(error.code).toBe("unreachable");
    expect(error.message).toContain("registry registry.invalid:1: no such host (");
  });

  test.skipIf(!installed("python3"))("does not take the connection (needs python3)", async () => {
    // It accepts nothing; once its queue is full, the kernel lets further connections wait.
    const source = `
import socket, sys
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(0)
print(listener.getsockname()[1], flush=True)
sys.stdin.read()`;
    const listener = Bun.spawn(["python3", "-c", source], { stdin: "pipe", stdout: "pipe" });
    const { value } = await listener.stdout.getReader().read();
    const port = Number(new TextDecoder().decode(value));
    const options = { registry: { host: "127.0.0.1", port }, connectMs: 300, answerMs: 600 };
    const crowd = Array.from({ length: 8 }, () => keysFrom(options));
    const errors = await Promise.all(crowd.map((keys) => failure(keys.keyOf(1))));
    listener.kill();
    await listener.exited;
    expect(errors.map(({ code }) => code)).toEqual(errors.map(() => "timeout"));
    expect(errors.map(({ message }) => message)).toContain(
      `registry 127.0.0.1:${port}: gave no connection in 300 ms: is a firewall in between? check --registry`,
    );
  });
});

describe("a registry that is slow", () => {
  test.each<[string, Behaviour]>([
    ["never answers", silent],
    [
      "sends byte after byte",
      (request, connection) => asksFor(1, request) && drip(20)(request, connection),
    ],
    ["announces what never comes", sayBytes(frame("{", 1000))],
  ])("%s: what is on its way fails, the queue goes on", async (_, first) => {
    registry.behaviour = onFirstConnection(first);
    const questions = ask(keysFrom({ inFlightMax: 2, answerMs: 1000 }), [1, 2, 3, 4, 5]);
    const error = await failure(questions[0]!);
    expect(error.code).toBe("timeout");
    expect(error.message).toContain(
      "gave no whole answer to lookup in 1000 ms: is the registry well?",
    );
    expect(await outcomes(questions)).toEqual(["timeout", "timeout", keyOf(3), keyOf(4), keyOf(5)]);
    await until("the slow one is closed", () => registry.openConnections === 1);
    expect(registry.connections).toBe(2);
  });

  test("after some answers, and on a kept connection: nothing is asked again", async () => {
    const source = keysFrom({ answerMs: 1000 });
    await source.keyOf(1);
    registry.behaviour = onFirstConnection((request, connection) => {
      if (!asksFor(3, request)) correct(request, connection);
    });
    expect(await outcomes(ask(source, [2, 3]))).toEqual([keyOf(2), "timeout"]);
    expect(await source.keyOf(3)).toEqual(keyOf(3));
    expect(askedNodes()).toEqual([1, 2, 3, 3]);
  });

  test("may be left alone for longer than it has for an answer", async () => {
    const source = keysFrom({ connectMs: 1000, answerMs: 1000 });
    await source.keyOf(1);
    await Bun.sleep(1500); // nothing must happen, so there is nothing to wait for
    expect(registry.openConnections).toBe(1);
    await source.keyOf(2);
    expect(registry.connections).toBe(1);
  });
});

describe("what is no answer", () => {
  const good = { type: "lookup_ok", node_id: 1, public_key: base64(keyOf(1)) };

  test.each<[string, Uint8Array, KeySourceErrorCode, string]>([
    ...(
      [
        [null, "the top"],
        [5, "the top"],
        [[good], "type"],
        [{}, "type"],
        [{ ...good, type: "beacon_list_ok" }, "type"],
        [{ type: "error" }, "type"],
        [{ type: "error", error: 5 }, "type"],
        [{ type: "lookup_ok", public_key: good.public_key }, "node_id"],
        [{ ...good, node_id: 2 }, "node_id"],
        [{ ...good, node_id: "1" }, "node_id"],
        [{ ...good, node_id: null }, "node_id"],
      ] as const
    ).map(([answer, place]): [string, Uint8Array, KeySourceErrorCode, string] => {
      const json = JSON.stringify(answer);
      const words = `answers lookup wrongly, at ${place}, where {"type":"lookup_ok","node_id":1,"public_key":"<base64>"} was`;
      return [json, frame(json), "invalid", words];
    }),
    ["nothing", frame(""), "invalid", "answers lookup with what is not JSON"],
    ["half an object", frame('{"type":'), "invalid", "answers lookup with what is not JSON"],
    [
      "bad UTF-8",
      frame(Uint8Array.of(0x22, 0xc3, 0x28, 0x22)),
      "invalid",
      "answers lookup with what is not UTF-8",
    ],
    ["arrays in arrays", frame("[".repeat(FRAME_BYTES_MAX)), "invalid", "answers lookup"],
    ["too much", frame("", FRAME_BYTES_MAX + 1), "too_big", "announces a message of 1048577 bytes"],
    ["HTTP", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"), "too_big", "announces a message of"],
  ])(
    "%s: the connection ends, and the queue goes on with another",
    async (_, bytes, code, words) => {
      registry.behaviour = onFirstConnection((request, connection) => {
        if (asksFor(2, request)) connection.send(bytes);
      });
      const questions = ask(keysFrom({ inFlightMax: 2 }), [1, 2, 3, 4]);
      const error = await failure(questions[0]!);
      expect(error.message).toContain(`registry 127.0.0.1:${registry.port}: ${words}`);
      expect(await outcomes(questions)).toEqual([code, code, keyOf(3), keyOf(4)]);
      await until("it is closed", () => registry.openConnections === 1);
      expect(askedNodes()).toEqual([1, 2, 3, 4]); // none of them twice
    },
  );

  test("answers in another order", async () => {
    const held: (() => void)[] = [];
    registry.behaviour = onFirstConnection((request, connection) => {
      held.unshift(() => correct(request, connection));
      if (held.length === 3) for (const answer of held) answer();
    });
    const source = keysFrom();
    expect(await outcomes(ask(source, [1, 2, 3]))).toEqual(Array(3).fill("invalid"));
    expect(await source.keyOf(1)).toEqual(keyOf(1));
  });

  test("what nobody asked: nobody is told, and the next question goes elsewhere", async () => {
    const source = keysFrom();
    let idle: ScriptedConnection | undefined;
    registry.behaviour = (request, connection) => {
      idle = connection;
      correct(request, connection);
    };
    for (const bytes of [
      frame(JSON.stringify(good)),
      frame(JSON.stringify({ type: "error", error: "" })),
      frame(""),
    ]) {
      registry.keys.set(1, base64(keyOf(registry.connections)));
      await source.keyOf(registry.connections + 1);
      idle!.send(bytes);
      await until("it is closed", () => registry.openConnections === 0);
    }
    expect(registry.connections).toBe(3);
  });

  test("an answer and then another: the first counts, and what is on its way behind it fails", async () => {
    const source = keysFrom();
    const json = frame(JSON.stringify(good));
    registry.behaviour = onFirstConnection((request, connection) => {
      if (asksFor(2, request)) connection.send(Buffer.concat([json, json]));
    });
    expect(await outcomes(ask(source, [1, 2]))).toEqual([keyOf(1), "invalid"]);
    expect(await source.keyOf(2)).toEqual(keyOf(2));
  });
});

describe("a key that is none", () => {
  test.each<[string, unknown]>([
    ["not there", undefined],
    ["null", null],
    ["a number", 5],
    ["an array", [base64(keyOf(1))]],
    ["no base64", "no base64"],
    ["not padded", base64(keyOf(1)).slice(0, -1)],
    ["padded too much", `${base64(keyOf(1))}=`],
    ["base64url", "-_8="],
    ["on two lines", `AAAA\nAAAA`],
    ["with bits that count for nothing", "AB=="],
    ["longer than any", base64(new Uint8Array(771))],
  ])("%s: that is its node's matter alone", async (_, public_key) => {
    const source = keysFrom({ inFlightMax: 3 });
    registry.behaviour = (request, connection) =>
      asksFor(2, request)
        ? connection.answer({ type: "lookup_ok", node_id: 2, public_key })
        : correct(request, connection);
    const questions = ask(source, [1, 2, 3, 4]);
    const { code, message } = await failure(questions[1]!);
    expect(code).toBe("invalid");
    expect(message).toContain(
      `registry 127.0.0.1:${registry.port}: has no key in standard base64 for node 2: `,
    );
    expect(await outcomes(questions)).toEqual([keyOf(1), "invalid", keyOf(3), keyOf(4)]);
    expect(registry.connections).toBe(1);
  });
});

describe("close", () => {
  const expectClosed = async (
    source: RegistryKeys,
    questions: readonly Promise<Uint8Array | undefined>[],
  ) => {
    source.close();
    source.close();
    const after = ask(source, [1, 2, 99]);
    expect(new Set(await outcomes([...questions, ...after]))).toEqual(new Set(["closed"]));
    await until("the connection is closed", () => registry.openConnections === 0);
  };

  test("before anything is asked", () => expectClosed(keysFrom(), []));

  test.each(["127.0.0.1", "localhost", "registry.invalid"])(
    "while it connects to %s",
    async (host) => {
      const source = keysFrom({ registry: { host, port: registry.port } });
      await expectClosed(source, ask(source, [1, 2]));
      expect(registry.requests).toEqual([]);
    },
  );

  test("while questions are on their way and in the queue", async () => {
    const held = hold();
    const source = keysFrom({ inFlightMax: 2 });
    const questions = ask(source, [1, 2, 3, 4]);
    await until("two are asked", () => held.size === 2);
    await expectClosed(source, questions);
    expect(registry.requests).toHaveLength(2);
    expect(registry.connections).toBe(1);
  });

  test("while the connection is idle; what was known is told no more", async () => {
    const source = keysFrom();
    await source.keyOf(1);
    await expectClosed(source, []);
  });

  test("leaves no descriptor open, nor does anything that failed", async () => {
    const before = openFds();
    const behaviours = [
      correct,
      close,
      reset,
      refuse("no"),
      say(5),
      sayBytes(Buffer.from("HTTP/1.1")),
      cutAfter(9),
    ];
    for (const behaviour of behaviours) {
      registry.behaviour = behaviour;
      const source = keysFrom({ inFlightMax: 2 });
      await outcomes(ask(source, [1, 2, 3]));
      source.close();
    }
    registry.behaviour = silent;
    const slow = keysFrom({ answerMs: 20 });
    expect(await outcomes(ask(slow, [1, 2]))).toEqual(["timeout", "timeout"]);
    const gone = keysFrom({ registry: { host: "127.0.0.1", port: 1 } });
    expect(await outcomes(ask(gone, [1, 2]))).toEqual(["unreachable", "unreachable"]);
    await until(
      "all is closed",
      () => registry.openConnections === 0 && openFds().size <= before.size,
    );
  });
});

test("neither an idle connection nor a broken one keeps a process alive, or ends it with an error", async () => {
  const source = join(import.meta.dir, "../../../src/control/keys/registry-keys.ts");
  const script = `
    import { RegistryKeys } from ${JSON.stringify(source)};
    const keys = (port) => new RegistryKeys({ registry: { host: "127.0.0.1", port },
      connectMs: 600_000, answerMs: 600_000 });
    const outcome = (question) => question.then((key) => key?.length, (error) => error.code);
    const broken = keys(${registry.port});
    console.log(await outcome(broken.keyOf(1)));
    console.log(await outcome(broken.keyOf(2)));
    console.log(await outcome(keys(1).keyOf(1)));
    const closed = keys(${registry.port});
    const question = outcome(closed.keyOf(3));
    closed.close();
    console.log(await question);
    console.log(await outcome(keys(${registry.port}).keyOf(4)));`;
  registry.behaviour = (request, connection) =>
    (asksFor(2, request) ? reset : correct)(request, connection);
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "pipe" });
  const [out, err, status] = await inTime(
    "the process ends by itself",
    Promise.all([child.stdout.text(), child.stderr.text(), child.exited]),
  );
  expect({ out, err, status }).toEqual({
    out: "32\nclosed\nunreachable\nclosed\n32\n",
    err: "",
    status: 0,
  });
});

describe("anything that a registry may send", () => {
  const damage = fc.record({ at: fc.nat(), drop: fc.nat(3), put: fc.uint8Array({ maxLength: 3 }) });
  const answer = fc.record({
    damages: fc.oneof(fc.constant([]), fc.array(damage, { minLength: 1, maxLength: 2 })),
    fields: fc.oneof(
      fc.constant({}),
      fc.dictionary(fc.constantFrom("type", "node_id", "public_key", "error"), fc.jsonValue(), {
        maxKeys: 2,
      }),
    ),
    leaves: fc.boolean(),
    isWhole: fc.boolean(),
  });

  test("ends as a key, as no key or as an error in words; and a right one is believed afterwards", async () => {
    const source = keysFrom({ answerMs: 20, foundMs: 0, unknownMs: 0, inFlightMax: 3 });
    await fc.assert(
      fc.asyncProperty(fc.array(answer, { minLength: 1, maxLength: 4 }), async (answers) => {
        let next = 0;
        registry.behaviour = (request, connection) => {
          const { damages, fields, leaves, isWhole } = answers[next++ % answers.length]!;
          let bytes = Buffer.from(
            frame(JSON.stringify({ ...registry.correctAnswer(request), ...fields })),
          );
          for (const { at, drop, put } of damages) {
            const from = at % (bytes.length + 1);
            bytes = Buffer.concat([bytes.subarray(0, from), put, bytes.subarray(from + drop)]);
          }
          connection.send(isWhole ? bytes : bytes.subarray(0, bytes.length >> 1));
          if (leaves) connection.end();
        };
        for (const outcome of await outcomes(ask(source, [1, 2, 3, 100, 4, 5])))
          if (typeof outcome !== "string" && outcome !== undefined)
            expect(outcome).toBeInstanceOf(Uint8Array);
        registry.behaviour = correct;
        // What is on the connection still may spoil a question more, and on a busy host 20 ms may
        // not do.
        const key = await until("a key is told again", async () => {
          const [outcome] = await outcomes([source.keyOf(7)]);
          return outcome instanceof Uint8Array && outcome;
        });
        expect(key).toEqual(keyOf(7));
      }),
      { numRuns: 150 },
    );
  });
});
