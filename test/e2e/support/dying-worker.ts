/** A worker that dies, before it is ready or straight after, or that hangs. */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import type { WorkerData } from "../../../src/data/worker.ts";
import { HEARTBEAT, SHARD_LOCK, SharedMemory, workerLock } from "../../../src/shared/memory.ts";

/** The supervisor hands over no more than a loop's options; the batch size says when to die. */
export const DIES_BEFORE_READY = 1;
export const DIES_ONCE_READY = 2;
/**
 * It takes one step and then none, with its shard locked; its successors are workers like any
 * other.
 */
export const HANGS_AT_FIRST = 3;

export const LAST_WORDS = "this worker was made to die";

/**
 * What a worker says once it is ready: READY of src/data/worker.ts, which cannot be imported
 * without running it.
 */
const READY = "ready";

if (!isMainThread) {
  const { shape, buffer, loop } = workerData as WorkerData;
  if (loop.batchMax !== HANGS_AT_FIRST) {
    if (loop.batchMax === DIES_ONCE_READY) parentPort?.postMessage(READY);
    throw new Error(LAST_WORDS);
  }
  const memory = new SharedMemory(shape, buffer);
  const heartbeat = memory.workerWords(loop.worker) + HEARTBEAT;
  if (Atomics.add(memory.words, heartbeat, 1) === 0) {
    Atomics.store(
      memory.words,
      memory.shardWords(loop.worker) + SHARD_LOCK,
      workerLock(loop.worker),
    );
    parentPort?.postMessage(READY);
    // as code that never comes to an end does; a call that does not come back is left to the kernel
    for (;;);
  }
  await import("../../../src/data/worker.ts");
}
