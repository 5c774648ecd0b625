import { expect, test } from "bun:test";
import { join } from "node:path";
import { loadRun } from "../../../bench/harness/results.ts";
import { costsOf, estimate, modelTable } from "../../../bench/report/directory-model.ts";
import { madeUpRun } from "./runs.ts";

/** Of a fleet of ten beacons, above the sum of the steps. */
const MEASURED: Readonly<Record<string, number>> = {
  "server, moving": 5,
  "main thread of a beacon, moving over staying": 6,
};
const run = loadRun(join(import.meta.dir, "../../../bench/results/directory.json"));
const figures = run.figures.map((figure) => {
  const percent = MEASURED[figure.name];
  return percent === undefined ? figure : { ...figure, values: [percent] };
});
const costs = costsOf({ ...run, figures })!;
const fleet = (beacons: number) =>
  estimate(costs, { beacons, nodesEach: 100_000, movesPerS: 200 * beacons });

test("the model of the measured fleet gives the measured shares of a core", () => {
  const { server, beacon } = fleet(10);
  expect([100 * server, 100 * beacon].map((percent) => Number(percent.toFixed(6)))).toEqual([5, 6]);
});

test("the server sends with the square of the beacons, and a beacon reads with their number", () => {
  expect(fleet(200).sentPerS / fleet(100).sentPerS).toBeCloseTo(4, 1);
  expect(fleet(200).readPerS / fleet(100).readPerS).toBeCloseTo(2, 1);
  const growth = (beacons: number) => fleet(2 * beacons).beacon - fleet(beacons).beacon;
  expect(growth(100) / growth(50)).toBeCloseTo(2, 5);
});

test("a run without the costs gives none; the table has a column for each fleet", () => {
  expect(costsOf(madeUpRun([], { bench: "directory" }))).toBeUndefined();
  const rows = modelTable(costs).split("\n");
  expect(new Set(rows.map((row) => row.split("|").length))).toEqual(new Set([7]));
});
