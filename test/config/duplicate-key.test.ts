import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { type DuplicateKey, duplicateKey } from "../../src/config/duplicate-key.ts";
import { parseCommandLine } from "../../src/config.ts";
import { FileKeys } from "../../src/control/keys/file-keys.ts";
import { temporaryFolder } from "../support/folder.ts";
import { refusal } from "./support.ts";

const folder = temporaryFolder();
const path = join(folder, "file.json");

test.each<[string, DuplicateKey | undefined]>([
  ['{"a":1,"b":2}', undefined],
  ['{"a":1,"a":1}', { key: "a", lines: [1, 1] }],
  ['{\n"a": 1,\n\n"b": {},\n"a": [2]\n}', { key: "a", lines: [2, 5] }],
  ['{"a":{"b":1,"c":2,"b":3}}', { key: "b", lines: [1, 1] }],
  ['{"a":{"b":1},"b":{"a":1}}', undefined],
  ['[{"a":1},{"a":1}]', undefined],
  ['{"a":["a","a","a"],"b":"b"}', undefined],
  ['{"a":"{\\"a\\":1,\\"a\\":2}","b":"\\\\"}', undefined],
  ['{"a":1,"\\u0061":2}', { key: "a", lines: [1, 1] }],
  ['{"__proto__":1,"__proto__":2}', { key: "__proto__", lines: [1, 1] }],
  ['{"":1,\r\n"":2}', { key: "", lines: [1, 2] }],
  ["7", undefined],
  ["{}", undefined],
])("%s", (json, expected) => {
  JSON.parse(json);
  expect(duplicateKey(json)).toEqual(expected);
});

test("no JSON that was made of a value has a duplicate key, and one that repeats an entry has", () => {
  fc.assert(
    fc.property(
      fc.jsonValue(),
      fc.string(),
      fc.jsonValue(),
      fc.nat(2),
      (value, key, other, indent) => {
        expect(duplicateKey(JSON.stringify(value, undefined, indent))).toBeUndefined();
        const entry = `${JSON.stringify(key)}: ${JSON.stringify(other, undefined, indent)}`;
        const twice = `[{"x": ${JSON.stringify(value)}},\n{${entry},\n${entry}}]`;
        expect(duplicateKey(twice)?.key).toBe(key);
      },
    ),
  );
});

const read = (json: string) => {
  writeFileSync(path, json);
  return refusal(() => parseCommandLine([`--config=${path}`], {}, "0"));
};

test("a key that the config file has twice is refused, with both lines", () => {
  expect(read('{\n  "workers": 2,\n  "max-nodes": 5,\n  "workers": 4\n}')).toBe(
    `${path}: the config file has "workers" in lines 2 and 4; give one of them`,
  );
  expect(read('{"registry-admin-token": "secret", "registry-admin-token": "other"}')).not.toMatch(
    /secret|other/,
  );
});

test("a node that the key file has twice is refused, with both lines", () => {
  const key = (byte: number) => Buffer.alloc(32, byte).toString("base64");
  writeFileSync(path, `{"1":"${key(1)}",\n"2":"${key(2)}",\n"1":"${key(3)}"}`);
  expect(refusal(() => FileKeys.read(path))).toBe(
    `${path}: node "1" has two entries, in lines 1 and 3; keep one of them`,
  );
});
