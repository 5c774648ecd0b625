/** Garbage and gossip of benches: that it is what it is meant to be. */
import { expect, test } from "bun:test";
import { garbage } from "../../bench/harness/garbage.ts";
import { GOSSIP_NODES_MAX, gossipMessage } from "../../bench/harness/gossip.ts";
import { SYNC_BYTES, SYNC_COUNT_AT } from "../../src/protocol.ts";

/** Bytes of the fixed part of what a node or peer may send, by type. */
const FIXED_BYTES: Readonly<Record<number, number>> = { 1: 5, 3: 9, 5: 9, 7: 7, 8: 5 };

test("garbage is cut short or foreign, never empty, and the same each time", () => {
  const all = garbage();
  expect(all.length).toBeGreaterThan(100);
  for (const datagram of all) {
    const fixed = FIXED_BYTES[datagram[0]!];
    expect(datagram.length).toBeGreaterThan(0);
    if (fixed !== undefined) expect(datagram.length).toBeLessThan(fixed);
    else expect(datagram[0]!).toBeGreaterThan(9);
  }
  expect(garbage()).toEqual(all);
});

const ids = (message: Uint8Array): number[] => {
  const view = new DataView(message.buffer);
  expect(view.getUint16(SYNC_COUNT_AT)).toBe((message.length - SYNC_BYTES) / 4);
  return Array.from({ length: view.getUint16(SYNC_COUNT_AT) }, (_, i) => view.getUint32(SYNC_BYTES + 4 * i));
};

for (const changed of [0, 0.01, 0.5, 1]) {
  test(`gossip of which ${changed * 100} % changes`, () => {
    const before = ids(gossipMessage(1000, 1000, changed, 0));
    const after = new Set(ids(gossipMessage(1000, 1000, changed, 1)));
    expect(new Set(before).size).toBe(1000);
    expect(before.filter((id) => !after.has(id))).toHaveLength(1000 * changed);
  });
}

test("the largest gossip fills a datagram", () => {
  expect(gossipMessage(1, GOSSIP_NODES_MAX, 0, 0).length).toBe(65_507);
});
