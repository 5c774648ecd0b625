import { expect, test } from "bun:test";
import { Followed } from "../../../src/control/directory/fleet.ts";
import { Presence } from "../../../src/control/directory/presence.ts";
import { BOOT_MS, host, leaseOf } from "./fleet-parts.ts";

const LEASE_MS = 10_000;
const GRACE_MS = 300_000;
/** How long those are waited for that have said nothing since the server is back. */
const BACK_MS = 10_000;

/** Time goes on second by second, and with it the log: this beacon writes there. */
function made() {
  const { at, clock } = host();
  const presence = new Presence({
    leaseMs: LEASE_MS,
    graceMs: GRACE_MS,
    clock,
    monotonicMs: () => at.ms,
  });
  const beacon = new Followed("b:1", 1, at.ms);
  beacon.lease = leaseOf("b:1", 0, { leaseMs: LEASE_MS });
  return {
    ...{ at, presence },
    /** The beacon is heard now. */
    hear: (saidMs = at.ms) => {
      presence.goesOn(BOOT_MS + saidMs);
      beacon.heardMs = at.ms;
      beacon.saidMs = BOOT_MS + saidMs;
    },
    /**
     * @returns whether the beacon still counts as there after so long, in which others are heard
     */
    isThereAfter: (ms: number) => {
      for (const endMs = at.ms + ms; at.ms < endMs; ) {
        at.ms = Math.min(at.ms + 1000, endMs);
        presence.goesOn(BOOT_MS + at.ms);
      }
      return at.ms <= presence.deadlineMs(beacon);
    },
  };
}

test("who is not heard for its lease, while others are, is gone", () => {
  const { hear, isThereAfter } = made();
  hear();
  expect(isThereAfter(LEASE_MS)).toBe(true);
  expect(isThereAfter(1)).toBe(false);
});

test("while nobody is heard, everybody is there for the grace, too", () => {
  const { at, presence, hear } = made();
  hear();
  const beacon = new Followed("c:1", 1, at.ms);
  expect(presence.deadlineMs(beacon)).toBe(at.ms + LEASE_MS + GRACE_MS);
});

test("when the server is entered again, who is not heard since has some seconds more", () => {
  const { at, presence, hear, isThereAfter } = made();
  hear();
  at.ms += 60_000;
  presence.entered(true);
  expect(isThereAfter(BACK_MS + LEASE_MS)).toBe(true);
  expect(isThereAfter(1)).toBe(false);
});

test("so it has when nobody could write for a while", () => {
  const { at, hear, isThereAfter } = made();
  hear();
  at.ms += 60_000;
  expect(isThereAfter(1000)).toBe(true); // the log goes on
  expect(isThereAfter(BACK_MS + LEASE_MS)).toBe(true);
  expect(isThereAfter(1)).toBe(false);
});

test("who was heard since, and then no more, is gone after its lease", () => {
  const { at, presence, hear, isThereAfter } = made();
  hear();
  at.ms += 60_000;
  presence.entered(true);
  at.ms += 1000;
  hear();
  expect(isThereAfter(LEASE_MS)).toBe(true);
  expect(isThereAfter(1)).toBe(false);
});

test("but what was said before, and is only read now, is no sign that it is back", () => {
  const { at, presence, hear, isThereAfter } = made();
  hear();
  const saidMs = at.ms + 1000;
  at.ms += 60_000;
  presence.entered(true);
  hear(saidMs);
  expect(isThereAfter(BACK_MS + LEASE_MS)).toBe(true);
});

test("a first start is patient with nobody", () => {
  const { presence, at, hear, isThereAfter } = made();
  presence.entered(false);
  at.ms += 10;
  hear();
  expect(isThereAfter(LEASE_MS + 1)).toBe(false);
});
