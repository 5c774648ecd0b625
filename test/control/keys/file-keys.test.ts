import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { FileKeys } from "../../../src/control/keys/file-keys.ts";
import { refusal, temporaryFiles } from "../../config/support.ts";
import { openedSince, openFds } from "../../support/fds.ts";

const { file, folder, remove } = temporaryFiles();
afterAll(remove);

const NODE_ID_MAX = 4_294_967_295;

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");
const KEY = Uint8Array.from({ length: 32 }, (_, i) => 255 - i);
const GOOD = base64(KEY);

describe("a file of keys", () => {
  test("tells the keys that it holds, and of no other node", async () => {
    const keys = fc.uint8Array({ minLength: 32, maxLength: 32 });
    const ids = fc.oneof(
      fc.integer({ min: 1, max: NODE_ID_MAX }),
      fc.integer({ min: 1, max: 20 }),
      fc.integer({ min: NODE_ID_MAX - 20, max: NODE_ID_MAX }),
    );
    const entries = fc.uniqueArray(fc.tuple(ids, keys), { selector: ([id]) => id, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(entries, async (held) => {
        const lines = held.map(([id, key]) => `"${id}" : "${base64(key)}"`);
        const source = FileKeys.read(file(`{ ${lines.join(",\n")} }`));
        for (const [id, key] of held) {
          expect(await source.keyOf(id)).toEqual(key);
          for (const beside of [id - 1, id + 1])
            if (!held.some(([other]) => other === beside))
              expect(await source.keyOf(beside)).toBeUndefined();
        }
      }),
      { numRuns: 50 },
    );
  });

  test("the lowest and the highest id, and ids that are none", async () => {
    const source = FileKeys.read(file({ 1: GOOD, [NODE_ID_MAX]: GOOD }));
    for (const id of [1, NODE_ID_MAX]) expect(await source.keyOf(id)).toEqual(KEY);
    for (const id of [0, -1, 1.5, NaN, NODE_ID_MAX + 1, NODE_ID_MAX + 2, -NODE_ID_MAX])
      expect(await source.keyOf(id)).toBeUndefined();
  });

  test("may be empty, begin with a byte order mark, and have escapes", async () => {
    expect(await FileKeys.read(file("{}")).keyOf(1)).toBeUndefined();
    const source = FileKeys.read(file(`\ufeff{"\\u0037":"${GOOD}"}\n`));
    expect(await source.keyOf(7)).toEqual(KEY);
  });

  test("is not changed by who gets a key", async () => {
    const source = FileKeys.read(file({ 7: GOOD }));
    (await source.keyOf(7))!.fill(0);
    expect(await source.keyOf(7)).toEqual(KEY);
  });

  test("of ten thousand nodes, and still there after close", async () => {
    const keys = Array.from({ length: 10_000 }, (_, i) => {
      const bytes = new Uint8Array(32);
      new DataView(bytes.buffer).setUint32(28, i);
      return [i * 429_496 + 1, bytes] as const;
    });
    const before = openFds();
    const source = FileKeys.read(
      file(Object.fromEntries(keys.map(([id, key]) => [id, base64(key)]))),
    );
    expect(openedSince(before)).toEqual([]);
    source.close();
    for (const [id, key] of keys) expect(await source.keyOf(id)).toEqual(key);
  });
});

describe("a file that cannot be used", () => {
  const refused = (content: string | Uint8Array | object): string => {
    const path = file(content);
    const message = refusal(() => FileKeys.read(path));
    expect(message).toStartWith(`${path}: `);
    expect(message).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
    expect(message.length).toBeLessThan(300);
    return message.slice(path.length + 2);
  };

  test.each([
    "0",
    "00",
    "01",
    "+1",
    "-1",
    "1.0",
    "1e3",
    "0x1",
    " 1",
    "1 ",
    "",
    "42a",
    "٣",
    "4294967296",
    "9".repeat(40),
  ])("node id %j", (id) => {
    const message = refused(`{"5":"${GOOD}",${JSON.stringify(id)}:"${GOOD}"}`);
    expect(message).toContain('is no node id: those go from "1" to "4294967295"');
    expect(message).toContain(JSON.stringify(id).slice(0, 50));
  });

  test("a name that is none of a node, but every object's", () => {
    for (const name of ["__proto__", "constructor", "toString", "a\nb\u2028"])
      expect(refused(`{${JSON.stringify(name)}:"${GOOD}"}`)).toContain("is no node id");
  });

  test.each<[string, unknown]>([
    ["nothing", ""],
    ["31 bytes", base64(new Uint8Array(31))],
    ["33 bytes", base64(new Uint8Array(33))],
    ["64 bytes", base64(new Uint8Array(64))],
    ["no padding", GOOD.slice(0, -1)],
    ["more padding", `${GOOD}=`],
    ["a line break", `${GOOD}\n`],
    ["spaces", ` ${GOOD} `],
    ["bits that count for nothing", GOOD.replace(/.=$/, "B=")],
    ["base64url", base64(new Uint8Array(32).fill(255)).replaceAll("/", "_")],
    ["hexadecimal", Buffer.from(KEY).toString("hex")],
    ["a number", 5],
    ["null", null],
    ["an array", [GOOD]],
    ["an object", { key: GOOD }],
    ["false", false],
  ])("a key that is %s", (_, key) => {
    const message = refused({ 41: GOOD, 42: key, 43: GOOD });
    expect(message).toBe('the key of node "42" must be the standard base64 of 32 bytes');
  });

  test("names the first that is wrong", () => {
    expect(refused({ 3: "bad", 2: "bad", 1: GOOD })).toContain('node "2"');
  });

  test.each([
    ["", "is not JSON"],
    ["{", "is not JSON"],
    [`{"1":"${GOOD}"`, "is not JSON"],
    [`{"1":"${GOOD}",}`, "is not JSON"],
    [Buffer.concat([Buffer.from('{"'), Uint8Array.of(0xff), Buffer.from('":1}')]), "is not JSON"],
    ["[".repeat(1_000_000), "is not JSON"],
    ["[]", "must hold one JSON object"],
    ["null", "must hold one JSON object"],
    ['"x"', "must hold one JSON object"],
    ["5", "must hold one JSON object"],
  ])("#%#", (content, reason) => expect(refused(content)).toContain(`the key file ${reason}`));

  test("must be readable, and is read in bounds", () => {
    const missing = join(folder, "missing\n");
    const before = openFds();
    expect(refusal(() => FileKeys.read(missing))).toEndWith(
      'missing\\n": the key file cannot be read (ENOENT)',
    );
    expect(refusal(() => FileKeys.read(folder))).toBe(
      `${folder}: the key file cannot be read (EISDIR)`,
    );
    expect(refusal(() => FileKeys.read("/dev/zero"))).toBe(
      "/dev/zero: the key file is larger than 67108864 bytes",
    );
    expect(openedSince(before)).toEqual([]);
  });

  test("shows nothing of what it holds in place of keys", () => {
    for (const content of ["s3cret", '{"1":"s3cret"}', '["s3cret"]', '{"1":s3cret}'])
      expect(refused(content)).not.toContain("s3cret");
  });
});
