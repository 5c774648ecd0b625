/** How a beacon is, in few words. */
import { expect, test } from "bun:test";
import { conditionOf, warningsOf } from "../../src/view/condition.ts";
import { statsWith } from "../cli/support/stats.ts";

test.each([
  [statsWith(), "healthy", "good"],
  [statsWith({ warnings: ["a"] }), "healthy, 1 warning", "warning"],
  [statsWith({ warnings: ["a"], breakers: { relay: "off" } }), "healthy, 2 warnings", "warning"],
  [
    statsWith({ notReady: "being replaced: worker 0", warnings: ["a"] }),
    "not ready: being replaced: worker 0",
    "bad",
  ],
  [statsWith({ healthy: false, notReady: "draining" }), "unhealthy: draining", "bad"],
  [statsWith({ healthy: false }), "unhealthy", "bad"],
] as const)("%#: a condition is as bad as its worst part", (stats, text, tone) => {
  expect(conditionOf(stats)).toEqual({ text, tone });
});

test("what is switched off is a warning behind the beacon's own; older beacons send none", () => {
  const {
    warnings: _,
    notReady: __,
    ...old
  } = statsWith({ breakers: { relay: "off", punch: "off" } });
  expect(warningsOf({ ...old, warnings: ["a"] })).toEqual(["a", "switched off: relay, punch"]);
  expect(warningsOf(old)).toEqual(["switched off: relay, punch"]);
  expect(conditionOf(old).text).toBe("healthy, 1 warning");
});
