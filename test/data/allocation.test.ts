import { expect, test } from "bun:test";
import type { AllocationResult } from "../support/allocation.ts";

/** A longer run on demand: ALLOCATION_PACKETS=50000000 bun test test/data/allocation.test.ts */
const PACKETS = Number(process.env["ALLOCATION_PACKETS"] ?? 300_000);
/**
 * The true figure is at most 32 KiB (Bun 1.4.5, x86-64), after 3,000 packets as after a million:
 * the two measurements' own objects. One empty object a packet would be 2 MB after 30,000 packets
 * and 11 MB after 300,000, where collections begin to find room for more; one for each of those
 * alone that go to the bridge, a fifth of that.
 */
const GROWTH_BYTES_MAX = 65_536;

test.each([
  ["on", "off", "on"],
  ["off", "on", "off"],
])(
  "handling packets takes nothing from the heap, offload %s, grants required %s, arrivals noted %s",
  (offload, grants, noted) => {
    const script = new URL("../support/allocation.ts", import.meta.url).pathname;
    const { stdout, stderr } = Bun.spawnSync([
      process.execPath,
      script,
      offload,
      grants,
      noted,
      String(PACKETS),
    ]);
    expect(stderr.toString()).toBe("");
    const { handled, growthBytes } = JSON.parse(stdout.toString()) as AllocationResult;
    expect(handled).toBeGreaterThanOrEqual(PACKETS);
    expect(growthBytes).toBeLessThan(GROWTH_BYTES_MAX);
  },
  600_000,
);
