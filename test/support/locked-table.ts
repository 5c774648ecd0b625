/**
 * A process that writes as a worker to a locked table, again and again, and reports each time that
 * it gave up.
 */
import { ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import { MAIN_THREAD_LOCK, SHARD_LOCK, SharedMemory, workerLock } from "../../src/shared/memory.ts";
import { CONTENDED, NodeTable } from "../../src/shared/nodes.ts";

const memory = new SharedMemory({ workers: 1, nodesMax: 10, routesMax: 10 });
memory.words[memory.shardWords(0) + SHARD_LOCK] = MAIN_THREAD_LOCK;
const nodes = new NodeTable(memory, workerLock(0));
const endpoint = new Int32Array(new ArrayBuffer(4 * ENDPOINT_WORDS));
console.log("waits");
for (;;) {
  if (nodes.record(1, endpoint, 0, 0, 0) !== CONTENDED)
    throw new Error("the lock was not respected");
  console.log("gave up");
}
