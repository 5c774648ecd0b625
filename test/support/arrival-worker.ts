/**
 * A worker thread that adds nodes to a node table, or only notes them; see
 * test/shared/arrivals.test.ts.
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { endpointOf } from "../../ffi/endpoint.ts";
import { ArrivalNotes } from "../../src/shared/arrivals.ts";
import { type MemoryShape, SharedMemory, workerLock } from "../../src/shared/memory.ts";
import { ADDED, NodeTable } from "../../src/shared/nodes.ts";

export interface ArrivalWorkerData {
  readonly shape: MemoryShape;
  readonly buffer: SharedArrayBuffer;
  readonly worker: number;
  /**
   * note: notes the serial numbers from 1 on, as ids, with the worker's number in their lowest
   * bits; add: records the nodes 1 to `nodes` again and again, until it has added so many.
   */
  readonly task: "note" | "add";
  readonly nodes: number;
  readonly count: number;
  /** How far it may be ahead of what the main thread has seen; for `note`. */
  readonly aheadMax: number;
  /** A word for each of the names below. */
  readonly words: SharedArrayBuffer;
}

/** Not 0 once all may begin. */
export const GO = 0;
/** The last serial number that the main thread has seen, a word a worker. */
export const SEEN = 1;

/** What a worker says at its end: how many it added, by id. */
export type ArrivalWorkerResult = Int32Array;

export const WORKER_BITS = 2;

function work({
  shape,
  buffer,
  worker,
  task,
  nodes,
  count,
  aheadMax,
  words,
}: ArrivalWorkerData): void {
  const memory = new SharedMemory(shape, buffer);
  const shared = new Int32Array(words);
  const added = new Int32Array(1 + nodes);
  while (Atomics.load(shared, GO) === 0) Bun.sleepSync(1);
  if (task === "note") {
    const notes = new ArrivalNotes(memory, workerLock(worker));
    for (let serial = 1; serial <= count; serial++) {
      while (serial - Atomics.load(shared, SEEN + worker) > aheadMax) Bun.sleepSync(0.1);
      notes.note((serial << WORKER_BITS) | worker);
    }
  } else {
    const table = new NodeTable(memory, workerLock(worker));
    const endpoint = endpointOf("192.0.2.1", 9001 + worker);
    for (let id = 1, all = 0; all < count; id = (id % nodes) + 1) {
      if (table.record(id, endpoint, 0, 0, 1) !== ADDED) continue;
      added[id]!++;
      all++;
    }
  }
  parentPort?.postMessage(added satisfies ArrivalWorkerResult);
}

if (!isMainThread && workerData) work(workerData as ArrivalWorkerData);
