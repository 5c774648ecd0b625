import { expect, test } from "bun:test";
import { spreadOf } from "../../../bench/harness/statistics.ts";
import { costsOf, estimate, modelTable } from "../../../bench/report/directory-model.ts";
import { directoryRun } from "./full-runs.ts";
import { madeUpRun } from "./runs.ts";

const costs = costsOf(directoryRun())!;
const fleet = (beacons: number) => estimate(costs, { beacons, nodesEach: 100_000, movesPerS: 200 * beacons });

test("of the fleet that was measured it says what was measured", () => {
  const measured = (name: string) =>
    spreadOf(directoryRun().figures.find((figure) => figure.name === name)!.values).median / 100;
  const { server, beacon } = fleet(10);
  expect(server).toBeCloseTo(measured("server, moving"), 10);
  expect(beacon).toBeCloseTo(measured("main thread of a beacon, moving over staying"), 10);
});

test("what the server sends grows with the square of the beacons, what one beacon does with their number", () => {
  expect(fleet(200).sentPerS / fleet(100).sentPerS).toBeCloseTo(4, 1);
  expect(fleet(200).readPerS / fleet(100).readPerS).toBeCloseTo(2, 1);
  const growth = (beacons: number) => fleet(2 * beacons).beacon - fleet(beacons).beacon;
  expect(growth(100) / growth(50)).toBeCloseTo(2, 5);
});

test("where nothing moves, nothing is said", () => {
  const { entriesPerS, sentPerS } = estimate(costs, { beacons: 10, nodesEach: 100_000, movesPerS: 0 });
  expect([entriesPerS, sentPerS]).toEqual([0, 0]);
});

test("a run without the costs gives none; the table has a column for each fleet", () => {
  expect(costsOf(madeUpRun([], { bench: "directory" }))).toBeUndefined();
  const rows = modelTable(costs).split("\n");
  expect(new Set(rows.map((row) => row.split("|").length))).toEqual(new Set([7]));
});
