/**
 * Saves and loads a state file in a process of its own, for tests that kill it, or run it as
 * another user or beside another file system. Prints one JSON object: the message of each save or
 * its error, what the load at the end came to, and the files that lie beside the state file.
 *
 * Arguments: the path, and for each save how many nodes the table has then.
 */
import { readdirSync } from "node:fs";
import { dirname } from "node:path";
import { endpointOf } from "../../ffi/endpoint.ts";
import { type LoadResult, StateFile } from "../../src/control/nodes/state-file.ts";
import { HASH_SECRET, MAIN_THREAD_LOCK, SharedMemory } from "../../src/shared/memory.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";

export interface StateFileReport {
  readonly saves: readonly string[];
  readonly load: LoadResult;
  readonly files: readonly string[];
}

const NODES_MAX = 100_000;
const [path = "", ...counts] = process.argv.slice(2);

function table(): { memory: SharedMemory; nodes: NodeTableOwner } {
  const memory = new SharedMemory({ workers: 1, nodesMax: NODES_MAX, routesMax: 1 });
  memory.words[HASH_SECRET] = 0x5ec2_e701;
  return { memory, nodes: new NodeTableOwner(memory, MAIN_THREAD_LOCK) };
}

const { memory, nodes } = table();
const file = new StateFile(path, memory, nodes, 600);
const endpoint = endpointOf("192.0.2.1", 9001);
const saves: string[] = [];
for (const count of counts) {
  for (let id = 1; id <= Number(count); id++) nodes.record(id, endpoint, 0, 0, 1);
  try {
    saves.push((await file.save(1))!.message);
  } catch (error) {
    saves.push(String(error));
  }
}
const restored = table();
const load = await new StateFile(path, restored.memory, restored.nodes, 600).load({
  nowS: 1,
  accepts: () => true,
  localNumber: () => 0,
});
/** None if this user may not list them. */
const filesBeside = (): string[] => {
  try {
    return readdirSync(dirname(path)).sort();
  } catch {
    return [];
  }
};
const files = filesBeside();
console.log(JSON.stringify({ saves, load, files } satisfies StateFileReport));
