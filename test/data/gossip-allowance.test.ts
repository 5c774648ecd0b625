import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { GossipAllowance } from "../../src/data/gossip-allowance.ts";
import { PEER_PLACES } from "../../src/shared/memory.ts";

const SECOND_NS = 1e9;
const STRANGER = -1;
/** Messages a second, and at once. */
const PEER_RATE = 30;
const STRANGERS_RATE = 4;
const STRANGERS_BURST = 8;

function allowance() {
  const clock = { ns: 5 * SECOND_NS, nowNs: () => clock.ns };
  const gossip = new GossipAllowance(clock);
  /** How many of some messages are let through, `everyNs` apart. */
  const through = (peer: number, messages: number, everyNs = 0, namesInstance = false): number => {
    let taken = 0;
    for (let i = 0; i < messages; i++) {
      if (gossip.take(peer, namesInstance)) taken++;
      clock.ns += everyNs;
    }
    return taken;
  };
  return { clock, through };
}

describe("the allowance of gossip", () => {
  test("a peer's is its own: a second's worth at once, then its rate", () => {
    const { clock, through } = allowance();
    expect(through(0, 1000)).toBe(PEER_RATE);
    expect(through(PEER_PLACES - 1, 1000)).toBe(PEER_RATE);
    clock.ns += SECOND_NS / 2;
    expect(through(0, 1000)).toBe(PEER_RATE / 2);
    clock.ns += 100 * SECOND_NS;
    expect(through(0, 1000)).toBe(PEER_RATE);
  });

  test("what names a peer's instance has its own beside what does not", () => {
    const { through } = allowance();
    expect(through(3, 1000)).toBe(PEER_RATE);
    expect(through(3, 1000, 0, true)).toBe(PEER_RATE);
    expect(through(4, 1000, 0, true)).toBe(PEER_RATE);
    expect(through(PEER_PLACES - 1, 1000, 0, true)).toBe(PEER_RATE);
    expect(through(STRANGER, 1000)).toBe(STRANGERS_BURST);
  });

  test("strangers share one, and take nothing from peers", () => {
    const { clock, through } = allowance();
    expect(through(STRANGER, 1000)).toBe(STRANGERS_BURST);
    expect(through(1, 5)).toBe(5);
    clock.ns += SECOND_NS;
    expect(through(STRANGER, 1000)).toBe(STRANGERS_RATE);
  });

  test("the shortest gossip interval is never limited, however uneven", () => {
    const { through } = allowance();
    const INTERVAL_NS = SECOND_NS / 10;
    expect(through(7, 1000, INTERVAL_NS)).toBe(1000);
    fc.assert(
      fc.property(fc.array(fc.nat(2 * INTERVAL_NS), { maxLength: 100 }), (delays) => {
        const { clock, through } = allowance();
        const begin = clock.ns;
        for (const [i, delayNs] of delays.entries()) {
          clock.ns = Math.max(clock.ns, begin + i * INTERVAL_NS + delayNs);
          expect(through(0, 1)).toBe(1);
        }
      }),
    );
  });

  test("no flood gets more than its rate", () => {
    const { through } = allowance();
    expect(through(0, 100_000, SECOND_NS / 10_000)).toBeLessThanOrEqual(PEER_RATE * 11);
    expect(through(STRANGER, 100_000, SECOND_NS / 10_000)).toBeLessThanOrEqual(
      STRANGERS_RATE * 10 + STRANGERS_BURST,
    );
  });
});
