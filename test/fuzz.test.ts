/**
 * All fuzzing targets for a moment: a run that finds something belongs into `bun run fuzz`; here it
 * is seen that all of them work.
 */
import { describe, expect, test } from "bun:test";
import { randomInt } from "node:crypto";
import { fuzz, replay } from "./fuzz/fuzzer.ts";
import { fail, type Target } from "./fuzz/target.ts";
import { TARGETS } from "./fuzz/targets.ts";

const MS = 700;
const SEED = 1;

describe.each(TARGETS.map((target) => [target.name, target] as const))("%s", (_, target) => {
  test.each([
    ["the same cases as ever", SEED],
    ["others each time", randomInt(2 ** 31)],
  ])("%s", async (_, seed) => {
    const { failure, cases, outcomes } = await fuzz(target, seed, { casesMax: 50_000, msMax: MS });
    expect(failure && { seed, ...failure }).toBeUndefined(); // bun run fuzz <target> --seed <seed>
    expect(cases).toBeGreaterThan(10);
    expect(Object.keys(outcomes).length).toBeGreaterThan(1);
  });
});

describe("the fuzzer", () => {
  /** Fails where two bytes, found one after the other, are right. */
  const picky: Target = {
    name: "picky",
    about: "",
    choiceBytes: 64,
    open: () => ({
      check(choices, seen) {
        choices.bytes(10);
        if (choices.byte() !== 0xa5) return;
        seen.outcome("half");
        if (choices.byte() === 0x5a) fail("found");
      },
    }),
  };

  test("finds a case that needs the right bytes, makes it small and can repeat it", async () => {
    const { failure } = await fuzz(picky, SEED, { casesMax: 1_000_000, msMax: 30_000 });
    expect(failure?.repeats).toBe(true);
    expect(failure!.choices).toEndWith("a55a");
    expect(failure!.choices).toMatch(/^(00){10}/);
    expect(await replay(picky, failure!.choices)).toContain("found");
    expect(await replay(picky, "00")).toBeUndefined();
  });

  test("brings the same cases for the same seed", async () => {
    const limits = { casesMax: 2000, msMax: 30_000 };
    const [one, same, other] = [
      await fuzz(picky, 7, limits),
      await fuzz(picky, 7, limits),
      await fuzz(picky, 8, limits),
    ];
    expect(one.outcomes).toEqual(same.outcomes);
    expect(
      [one.cases, same.cases, other.cases].filter((cases) => cases === 2000).length,
    ).toBeGreaterThan(0);
  });
});
