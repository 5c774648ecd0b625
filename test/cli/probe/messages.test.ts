/** A probe's messages, beside what the tests' own client says. */
import { expect, test } from "bun:test";
import {
  addressIn,
  DISCOVER_REPLY,
  discover,
  PUNCH_COMMAND,
  payloadFrom,
  punchRequest,
  relay,
} from "../../../src/cli/probe/messages.ts";
import * as wire from "../../e2e/support/wire.ts";

const [A, B] = [0xf000_0001, 0xffff_fffe];
const payload = new Uint8Array([1, 2, 3]);

test("are those of the protocol", () => {
  const same = (ours: Buffer, theirs: Uint8Array) => expect(Buffer.compare(ours, theirs)).toBe(0);
  same(discover(A), wire.discover(A));
  same(punchRequest(A, B), wire.punchRequest(A, B));
  same(relay(A, B, payload), wire.relay(A, B, payload));
});

test("addresses are read, and nothing else is taken for one", () => {
  const v4 = Buffer.from("0204c00002071f90", "hex");
  expect(addressIn(DISCOVER_REPLY, v4)).toBe("192.0.2.7:8080");
  expect(addressIn(PUNCH_COMMAND, v4)).toBeUndefined();
  const v6 = Buffer.from("041020010db80000000000000000000000071f90", "hex");
  expect(addressIn(PUNCH_COMMAND, v6)).toBe("[2001:db8::7]:8080");
  for (const bytes of [
    v4.subarray(0, 7),
    Buffer.from("0205c00002071f90ff", "hex"),
    Buffer.alloc(0),
    Buffer.from([2]),
  ])
    expect(addressIn(DISCOVER_REPLY, bytes)).toBeUndefined();
});

test("a relay's payload is its sender's", () => {
  const delivered = Buffer.from(wire.deliver(A, payload));
  expect(payloadFrom(A, delivered)).toEqual(Buffer.from(payload));
  expect(payloadFrom(B, delivered)).toBeUndefined();
  expect(payloadFrom(A, delivered.subarray(0, 4))).toBeUndefined();
});
