/** A worker that dies: before it is ready, or straight after. */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import type { WorkerData } from "../../../src/data/worker.ts";

/** The supervisor hands over no more than a loop's options; the batch size says when to die. */
export const DIES_BEFORE_READY = 1;
export const DIES_ONCE_READY = 2;

export const LAST_WORDS = "this worker was made to die";

/** What a worker says once it is ready: READY of src/data/worker.ts, which cannot be imported without running it. */
const READY = "ready";

if (!isMainThread) {
  if ((workerData as WorkerData).loop.batchMax === DIES_ONCE_READY) parentPort?.postMessage(READY);
  throw new Error(LAST_WORDS);
}
