/**
 * A fleet and its route directory: how fast it learns, what it costs, and what it does when
 * something breaks. All are processes.
 */
import { directoryProgram, NO_DIRECTORY_PROGRAM } from "../harness/directory-server.ts";
import type { FleetShape } from "../harness/fleet.ts";
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";
import { measureChurn } from "./directory-churn.ts";
import { measureConvergence } from "./directory-convergence.ts";
import { measureTrouble } from "./directory-trouble.ts";
import { measureUnits } from "./directory-units.ts";

export const BEACONS_DEFAULT = 10;
export const NODES_DEFAULT = 100_000;

const PARTS = [
  ["convergence", measureConvergence],
  ["churn", measureChurn],
  ["trouble", measureTrouble],
  ["units", measureUnits],
] as const;

export async function benchDirectory(options: BenchOptions, recorder: Recorder): Promise<void> {
  if (directoryProgram() === undefined) {
    recorder.note(`${NO_DIRECTORY_PROGRAM}: nothing was measured`);
    return;
  }
  const { beacons = BEACONS_DEFAULT, nodes: nodesEach = NODES_DEFAULT } = options;
  const shape: FleetShape = { beacons, nodesEach };
  recorder.note(
    `${beacons} beacons with one worker each, the directory's server and the load generator share this machine's cores`,
  );
  for (const [title, measure] of PARTS) {
    if (!title.includes(options.only)) continue;
    recorder.title(`${title}: ${beacons} beacons with ${nodesEach} nodes each`);
    await measure(shape, options, recorder);
  }
}
