/** Beacons in a mesh: a relay through two of them, what gossip costs, and all of it at once. */
import type { BenchOptions } from "../harness/options.ts";
import type { Recorder } from "../harness/results.ts";
import { pinGenerator } from "../harness/targets.ts";
import { measureFullMesh } from "./mesh-full.ts";
import { measureGossip } from "./mesh-gossip.ts";
import { measureTwoBeacons } from "./mesh-relay.ts";

const PARTS = [
  ["relay through two beacons", measureTwoBeacons],
  ["gossip of a peer", measureGossip],
  ["a full mesh", measureFullMesh],
] as const;

export async function benchMesh(options: BenchOptions, recorder: Recorder): Promise<void> {
  pinGenerator();
  for (const [title, measure] of PARTS) {
    if (!title.includes(options.only)) continue;
    recorder.title(title);
    await measure(options, recorder);
  }
}
