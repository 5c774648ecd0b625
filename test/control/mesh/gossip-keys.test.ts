/** The keys that sign gossip: from a file, and in no message. */
import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync } from "node:fs";
import { join } from "node:path";
import { NO_GOSSIP_KEYS, readGossipKeys } from "../../../src/control/mesh/gossip-keys.ts";
import { refusal, temporaryFiles } from "../../config/support.ts";

const { file, folder, remove } = temporaryFiles();
afterAll(remove);

const [FIRST, SECOND] = [
  "0123456789abcdef0123456789abcdef",
  "a pass phrase of several words, with spaces",
];

describe("the gossip key file", () => {
  test.each<[string, string[]]>([
    [FIRST, [FIRST]],
    [`${FIRST}\n`, [FIRST]],
    [`  ${FIRST}\t\r\n${SECOND} \r\n\n`, [FIRST, SECOND]],
    [`${FIRST}\n${FIRST}`, [FIRST, FIRST]],
  ])("%#", (content, keys) => {
    expect(readGossipKeys(file(content)).keys).toEqual(keys);
  });

  test("off is none", () => {
    expect(readGossipKeys("off")).toEqual(NO_GOSSIP_KEYS);
  });

  const reason = (line: number) =>
    `line ${line} of the gossip key file must have at least 32 characters of printable ASCII`;
  test.each<[string, string]>([
    ["", reason(1)],
    ["\n\n", reason(1)],
    [FIRST.slice(1), reason(1)],
    [`\n${FIRST}`, reason(1)],
    [`${FIRST}\nhunter2`, reason(2)],
    [`${FIRST}\n\n${SECOND}`, "the gossip key file has more than 2 lines"],
    [`${FIRST}\n${SECOND}\nx`, "the gossip key file has more than 2 lines"],
    [`hünter2 ${FIRST}`, reason(1)],
    [`${FIRST}\0`, reason(1)],
    [`${FIRST}\n${"x".repeat(5000)}`, "the gossip key file is larger than 4096 bytes"],
  ])("refuses #%#", (content, expected) => {
    const path = file(content);
    expect(refusal(() => readGossipKeys(path))).toBe(`${path}: ${expected}`);
  });

  test("must be there", () => {
    const path = join(folder, "missing");
    expect(refusal(() => readGossipKeys(path))).toBe(
      `${path}: the gossip key file cannot be read (ENOENT)`,
    );
  });

  test.each([
    [0o600, false],
    [0o400, false],
    [0o640, true],
    [0o604, true],
    [0o620, true],
  ])("of mode %o: exposed is %p", (mode, exposed) => {
    const path = file(FIRST);
    chmodSync(path, mode);
    expect(readGossipKeys(path).exposed).toBe(exposed);
  });
});
