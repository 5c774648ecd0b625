/** What beacons may say, for properties. */

import fc from "fast-check";
import {
  ASK,
  CHANGES,
  type Changes,
  type Entry,
  LEASE,
  PARTS_MAX,
  TIME_STEP_MS,
} from "../../../src/control/directory/entries.ts";
import { ALL_RANGES, CLAIM_RANGES, SUM_WORDS } from "../../../src/shared/claim-digest.ts";
import { nodeId } from "../../support/arbitraries.ts";

export const whole = fc.oneof(
  fc.nat(1000),
  fc.constantFrom(0, 1, Number.MAX_SAFE_INTEGER, 2 ** 32, 2 ** 52),
  fc.maxSafeNat(),
);
export const name = fc
  .string({
    unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)),
    minLength: 1,
    maxLength: 261,
  })
  .map((text) => text.slice(0, 261));
/** Directory ms. */
export const time = fc.maxSafeNat().map((steps) => steps * TIME_STEP_MS);
const word = fc.nat({ max: 0xffff_ffff });

export const changes: fc.Arbitrary<Changes> = fc
  .record({
    epoch: whole,
    name,
    seq: whole,
    timeMs: time,
    claimed: fc.array(fc.tuple(nodeId, fc.oneof(fc.nat(100_000), fc.nat({ max: 0x7fff_ffff }))), {
      maxLength: 40,
    }),
    gone: fc.array(nodeId, { maxLength: 40 }),
  })
  .map(({ claimed, gone, timeMs, ...said }) => ({
    ...{ kind: CHANGES, ...said, timeMs },
    claims: {
      nodeIds: Int32Array.from(claimed, ([id]) => id),
      timesMs: Float64Array.from(claimed, ([, steps]) => timeMs - steps * TIME_STEP_MS),
    },
    gone: Int32Array.from(gone),
  }));

const ranges = word.map((one) => one | 0).filter((one) => one !== 0);
const snapshotOf = (of: fc.Arbitrary<number>) =>
  fc.option(fc.record({ seq: whole, parts: fc.integer({ min: 1, max: PARTS_MAX }), ranges: of }), {
    nil: undefined,
  });

export const lease = fc
  .record({
    epoch: whole,
    name,
    seq: whole,
    timeMs: time,
    beaconId: word,
    nodes: word,
    leaseMs: word,
    isLeaving: fc.boolean(),
    snapshot: snapshotOf(fc.constant(ALL_RANGES)),
    ranged: snapshotOf(ranges),
    sums: fc.option(
      fc.int32Array({ minLength: CLAIM_RANGES * SUM_WORDS, maxLength: CLAIM_RANGES * SUM_WORDS }),
      { nil: undefined },
    ),
  })
  .map((fields): Entry => ({ kind: LEASE, ...fields }));

export const ask = fc
  .record({ epoch: whole, name, of: fc.record({ epoch: whole, name }), ranges })
  .map((fields): Entry => ({ kind: ASK, ...fields }));

export const entry: fc.Arbitrary<Entry> = fc.oneof(changes, lease, ask);
