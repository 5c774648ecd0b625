import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import type { KeyFunction } from "../../../src/control/feature.ts";
import {
  bytesOfBase64,
  FunctionKeys,
  type FunctionKeysOptions,
  KeySourceError,
} from "../../../src/control/keys/keys.ts";
import { inTime } from "../../e2e/support/wait.ts";

const KEY = Uint8Array.from({ length: 32 }, (_, i) => i);

const sources: FunctionKeys[] = [];
afterEach(() => {
  for (const source of sources.splice(0)) source.close();
});

function keysOf(keyFunction: KeyFunction, options?: FunctionKeysOptions): FunctionKeys {
  const source = new FunctionKeys(keyFunction, options);
  sources.push(source);
  return source;
}

/** What a question failed with, which is always one readable line. */
async function failure(question: Promise<unknown>): Promise<KeySourceError> {
  const error = await inTime("the question ends", question).catch((reason) => reason);
  expect(error).toBeInstanceOf(KeySourceError);
  const { message } = error as KeySourceError;
  expect(message).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
  expect(message.length).toBeLessThan(300);
  return error as KeySourceError;
}

describe("bytesOfBase64", () => {
  test("takes what was encoded, of any length, and nothing else", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        expect(bytesOfBase64(Buffer.from(bytes).toString("base64"))).toEqual(bytes);
      }),
    );
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: "binary" }), fc.base64String()), (text) => {
        const bytes = bytesOfBase64(text);
        if (bytes) expect(Buffer.from(bytes).toString("base64")).toBe(text);
      }),
    );
  });

  test.each([
    "A",
    "AA",
    "AAA",
    "AA=",
    "AA===",
    "AB==",
    "AAB=",
    "-_8=",
    "AA==\n",
    " AA==",
    "AA==AA==",
    "A\0==",
    "ÄÄ==",
  ])("refuses %j", (text) => expect(bytesOfBase64(text)).toBeUndefined());
});

describe("a function as the source", () => {
  test("is asked for each node, and may answer at once or later", async () => {
    const known = new Map([[1, KEY]]);
    for (const keyFunction of [
      (nodeId: number) => known.get(nodeId),
      (nodeId: number) => known.get(nodeId) ?? null,
      async (nodeId: number) => known.get(nodeId),
      async (nodeId: number) => known.get(nodeId) ?? null,
    ]) {
      const source = keysOf(keyFunction);
      expect(await source.keyOf(1)).toBe(KEY);
      expect(await source.keyOf(4_294_967_295)).toBeUndefined();
    }
  });

  test("hands on whatever bytes it gets", async () => {
    for (const bytes of [new Uint8Array(0), new Uint8Array(33), Buffer.from("key")])
      expect(await keysOf(() => bytes).keyOf(1)).toBe(bytes);
  });

  test.each<[string, KeyFunction]>([
    [
      "at once",
      () => {
        throw new TypeError("no\ndatabase\u2028");
      },
    ],
    ["later", () => Promise.reject(new TypeError("no\ndatabase\u2028"))],
  ])("that fails %s", async (_, keyFunction) => {
    const error = await failure(keysOf(keyFunction).keyOf(42));
    expect(error.code).toBe("failed");
    expect(error.message).toContain('"no\\ndatabase\\u{2028}" for node 42');
    expect(error.cause).toBeInstanceOf(TypeError);
  });

  test("that throws no error, or an endless one", async () => {
    for (const thrown of [
      "text",
      undefined,
      null,
      Object.create(null),
      new Error("x".repeat(100_000)),
    ]) {
      const error = await failure(keysOf(() => Promise.reject(thrown)).keyOf(1));
      expect(error.code).toBe("failed");
      expect(error.cause).toBe(thrown);
    }
  });

  test.each<[unknown]>([
    ["AAAA"],
    [[1, 2]],
    [new ArrayBuffer(32)],
    [new Uint16Array(16)],
    [0],
    [false],
    [{}],
  ])("that answers %p", async (answer) => {
    const error = await failure(keysOf(() => answer as Uint8Array).keyOf(1));
    expect(error.code).toBe("invalid");
    expect(error.message).toContain("must be a Uint8Array, or undefined");
  });

  test("that does not answer in time: it may answer or fail later, and nobody minds", async () => {
    const answers: PromiseWithResolvers<Uint8Array>[] = [];
    const source = keysOf(
      () => {
        answers.push(Promise.withResolvers());
        return answers.at(-1)!.promise;
      },
      { keyMs: 20 },
    );
    const questions = [source.keyOf(1), source.keyOf(2), source.keyOf(3)];
    for (const error of await Promise.all(questions.map(failure))) {
      expect(error.code).toBe("timeout");
      expect(error.message).toContain("in 20 ms");
    }
    answers[0]!.resolve(KEY);
    answers[1]!.reject(new Error("too late"));
    const next = source.keyOf(4);
    answers[3]!.resolve(KEY);
    expect(await next).toBe(KEY);
  });

  test("owes so many keys at once and no more", async () => {
    const answers: ((key: undefined) => void)[] = [];
    const source = keysOf(() => new Promise((resolve) => answers.push(resolve)));
    const questions = Array.from({ length: 1024 }, (_, i) => source.keyOf(i + 1));
    const error = await failure(source.keyOf(1025));
    expect(error.code).toBe("busy");
    expect(error.message).toContain("1024 keys");
    expect(answers).toHaveLength(1024);
    answers[7]!(undefined);
    await questions[7];
    const next = source.keyOf(1025);
    for (const answer of answers) answer(undefined);
    await Promise.all([...questions, next]);
    expect(answers).toHaveLength(1025);
  });

  test("one that failed, or was late, is owed no more", async () => {
    const source = keysOf(
      (nodeId) => (nodeId === 1 ? Promise.reject("no") : new Promise(() => {})),
      {
        keyMs: 10,
        openMax: 1,
      },
    );
    for (const [nodeId, code] of [
      [1, "failed"],
      [2, "timeout"],
      [1, "failed"],
    ] as const)
      expect((await failure(source.keyOf(nodeId))).code).toBe(code);
  });
});

describe("close", () => {
  test("ends what is open, and there is nothing after it", async () => {
    let calls = 0;
    const source = keysOf(() => {
      calls++;
      return new Promise(() => {});
    });
    const questions = [source.keyOf(1), source.keyOf(2)];
    source.close();
    source.close();
    for (const question of [...questions, source.keyOf(3)])
      expect((await failure(question)).code).toBe("closed");
    expect(calls).toBe(2);
  });

  test("may come from the function itself", async () => {
    const source: FunctionKeys = keysOf(() => {
      source.close();
      return new Promise(() => {});
    });
    expect((await failure(source.keyOf(1))).code).toBe("closed");
  });
});

test("an answered question keeps no process alive", async () => {
  const source = join(import.meta.dir, "../../../src/control/keys/keys.ts");
  const script = `
    import { FunctionKeys } from ${JSON.stringify(source)};
    await new FunctionKeys(() => undefined, { keyMs: 600_000 }).keyOf(1);
    await new FunctionKeys(() => Promise.reject("no"), { keyMs: 600_000 }).keyOf(1).catch(() => {});`;
  const child = Bun.spawn([process.execPath, "-e", script], { stderr: "pipe" });
  const ended = Promise.all([child.stderr.text(), child.exited]);
  expect(await inTime("the process ends by itself", ended)).toEqual(["", 0]);
});
