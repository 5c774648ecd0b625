/** The list of peers: from text, from JSON, from code. */
import { afterAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { validateConfig } from "../../src/config.ts";
import { refusal, run, temporaryFiles } from "./support.ts";

const { file, remove } = temporaryFiles();
afterAll(remove);

const many = (count: number) => Array.from({ length: count }, (_, i) => `b${i}:9001`);
const inFile = (peers: unknown) => run(["--config", file({ peers })]).peers;
const inCode = (peers: unknown) => validateConfig({ peers } as never).peers;

/** What the reason ends in where the value is no list of peers at all. */
const NO_LIST =
  "must be a list of at most 128 host:port with commas between (in JSON and in code, an array)";

describe("an array of peers", () => {
  test.each([
    [[], []],
    [["b2:1"], ["b2:1"]],
    [
      ["b2:1", "[::1]:2", "b2:1"],
      ["b2:1", "[::1]:2"],
    ],
    [many(128), many(128)],
    [Array(128).fill("b2:1"), ["b2:1"]],
  ])("%#", (peers, expected) => {
    expect(inFile(peers)).toEqual(expected);
    expect(inCode(peers)).toEqual(expected);
    expect(run(["--peers", peers.join()]).peers).toEqual(expected);
  });

  test.each([
    [many(129), NO_LIST],
    [{ 0: "b2:1", length: 1 }, NO_LIST],
    [null, NO_LIST],
    [false, NO_LIST],
    [9001, NO_LIST],
    [[""], '"": must be host:port'],
    [["b2:1", "b3"], "b3: must be host:port"],
    [["b2:1,b3:1"], "in brackets"],
    [[" b2:1"], '" b2:1": use a host name'],
    [[["b2:1"]], '"": must be host:port'],
    [[1], '"": must be host:port'],
    [[null], '"": must be host:port'],
    [["b2:1\n"], '"b2:1\\n": must be host:port'],
    [["x".repeat(5000)], "must be host:port"],
  ])("refuses #%#", (peers, reason) => {
    for (const message of [refusal(() => inFile(peers)), refusal(() => inCode(peers))]) {
      expect(message).toContain(reason);
      expect(message).not.toContain("\n");
      expect(message.length).toBeLessThan(500);
    }
  });

  test("may not have holes, nor be huge", () => {
    expect(refusal(() => inCode(new Array(2)))).toContain('"": must be host:port');
    expect(refusal(() => inCode(new Array(2 ** 32 - 1)))).toContain(NO_LIST);
  });

  test("is not the caller's: what happens to that one later changes nothing, and this one cannot be changed", () => {
    const given = ["b2:1"];
    const peers = inCode(given);
    given.push("nonsense");
    expect(peers).toEqual(["b2:1"]);
    expect(Object.isFrozen(peers)).toBe(true);
    expect(Object.isFrozen(validateConfig({}).peers)).toBe(true);
  });
});

test("in code, text is no list", () => {
  expect(refusal(() => inCode("b2:1"))).toBe(`peers "b2:1": ${NO_LIST}`);
});

test("a message names the entry", () => {
  expect(refusal(() => run(["--peers", "b2:1,b3"]))).toStartWith(
    "--peers b2:1,b3: b3: must be host:port",
  );
  expect(refusal(() => run([], { BEACON_PEERS: "b2:0" }))).toBe(
    "BEACON_PEERS=b2:0: b2:0: the port must be a whole number from 1 to 65535",
  );
  expect(refusal(() => inFile(["b2:0"]))).toContain('"peers": [...]: b2:0: the port');
});

test("the flag outranks the environment, which outranks the file; an empty flag is a list too", () => {
  const argv = ["--config", file({ peers: ["file:1"] })];
  const env = { BEACON_PEERS: "env:1" };
  expect(run([...argv, "--peers", "flag:1"], env).peers).toEqual(["flag:1"]);
  expect(run([...argv, "--peers="], env).peers).toEqual([]);
  expect(run(argv, env).peers).toEqual(["env:1"]);
  expect(run(argv, { BEACON_PEERS: "" }).peers).toEqual(["file:1"]);
});

test("text and array mean the same, whatever the peers", () => {
  const host = fc.oneof(
    fc.domain().filter((name) => name.length <= 253), // fast-check makes some of 255
    fc.ipV4(),
    fc.ipV6().map((address) => `[${address}]`),
  );
  const peer = fc.tuple(host, fc.integer({ min: 1, max: 65_535 })).map((parts) => parts.join(":"));
  const comma = fc.constantFrom(",", ", ", " ,", "  ,\t");
  fc.assert(
    fc.property(fc.array(peer, { maxLength: 20 }), comma, (peers, separator) => {
      const expected = [...new Set(peers)];
      expect(inCode(peers)).toEqual(expected);
      expect(run([`--peers=${peers.join(separator)}`]).peers).toEqual(expected);
    }),
  );
});

test("whatever stands in the array, the answer is a list or one line", () => {
  fc.assert(
    fc.property(fc.array(fc.anything(), { maxLength: 4 }), (peers) => {
      expect(refusalOrList(() => inCode(peers))).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}]/u);
    }),
  );
});

function refusalOrList(read: () => readonly string[]): string {
  let list: string | undefined;
  try {
    list = read().join();
  } catch {}
  return list ?? refusal(read);
}
