/** A node's record, as the state file and an upgrade hold it. */
import { expect, test } from "bun:test";
import { endpointOf, localNumber, setLocalNumber } from "../../../ffi/endpoint.ts";
import {
  RECORD_WORDS,
  RECORD_WORDS_WITH_KEY,
  readRecords,
  writeRecord,
  writeRecordKey,
} from "../../../src/control/nodes/record.ts";
import { HAS_KEY, IS_BRIDGED, WANTS_DEST } from "../../../src/shared/slots.ts";

/** An entry as a scan has it. */
function entryOf(address: string, port: number, flags: number, local = 0): Int32Array {
  const endpoint = endpointOf(address, port);
  setLocalNumber(endpoint, 0, local);
  endpoint[0]! |= flags;
  return Int32Array.from([...endpoint, 0]);
}

const copied = (words: Int32Array, recordWords: number) =>
  Array.from(readRecords(words, recordWords), (record) => ({
    ...record,
    endpoint: Array.from(record.endpoint),
  }));

test("is 32 bytes, or 64 with a key: id, endpoint with local number and flags, age", () => {
  const words = new Int32Array(RECORD_WORDS_WITH_KEY);
  writeRecord(words, 0, 7, entryOf("192.0.2.1", 4000, WANTS_DEST | IS_BRIDGED, 9), 60);
  writeRecordKey(words, 0, new Uint8Array(32).fill(0xab));
  expect(Buffer.from(words.buffer).toString("hex")).toBe(
    // id, flags (destination wanted, key known), local number, port, address, scope, age
    [
      "07000000",
      "09",
      "09",
      "0fa0",
      "00000000000000000000ffffc0000201",
      "00000000",
      "3c000000",
    ].join("") + "ab".repeat(32),
  );
});

test("is read as it was written, each with its own flags, age and key", () => {
  const words = new Int32Array(3 * RECORD_WORDS_WITH_KEY);
  const at = (i: number) => i * RECORD_WORDS_WITH_KEY;
  writeRecord(words, at(0), 1, entryOf("192.0.2.1", 4000, WANTS_DEST, 3), 10);
  writeRecord(words, at(1), -2, entryOf("2001:db8::1", 1, 0), 2 ** 32 - 1);
  writeRecordKey(words, at(1), new Uint8Array(32).fill(7));
  writeRecord(words, at(2), 3, entryOf("192.0.2.3", 65_535, HAS_KEY), 0);
  writeRecordKey(words, at(2), undefined);
  const [first, second, third] = copied(words, RECORD_WORDS_WITH_KEY);
  expect(first).toMatchObject({ nodeId: 1, flags: WANTS_DEST, ageS: 10, hasKey: false });
  expect(localNumber(Int32Array.from(first!.endpoint), 0)).toBe(3);
  expect(second).toMatchObject({ nodeId: -2, flags: 0, ageS: 2 ** 32 - 1, hasKey: true });
  expect(second!.endpoint).toEqual(Array.from(endpointOf("2001:db8::1", 1)));
  expect(Buffer.from(words.buffer, second!.keyAt, 32).toString("hex")).toBe("07".repeat(32));
  expect(third).toMatchObject({ nodeId: 3, hasKey: false });
});

test("without keys has none, whatever its flags", () => {
  const words = new Int32Array(RECORD_WORDS);
  writeRecord(words, 0, 1, entryOf("192.0.2.1", 4000, 0), 1);
  words[1]! |= HAS_KEY;
  expect(copied(words, RECORD_WORDS)).toMatchObject([{ nodeId: 1, hasKey: false }]);
});

test("a record that is cut short is left out", () => {
  expect(copied(new Int32Array(RECORD_WORDS + 3), RECORD_WORDS)).toHaveLength(1);
});
