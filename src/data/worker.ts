/** Entry of a worker thread: builds its loop from what the main thread gives it and stays in it. */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { kernel } from "../../ffi/libc.ts";
import { threadId } from "../../ffi/threads.ts";
import { type MemoryShape, SharedMemory, THREAD_ID } from "../shared/memory.ts";
import { type LoopOptions, RelayLoop } from "./loop.ts";

/** What the main thread gives a worker. */
export interface WorkerData {
  readonly shape: MemoryShape;
  readonly buffer: SharedArrayBuffer;
  readonly keysBuffer: SharedArrayBuffer;
  readonly loop: LoopOptions;
}

/** The one thing a worker says: its loop is built and about to run. */
export const READY = "ready";

if (!isMainThread) {
  const { shape, buffer, keysBuffer, loop } = workerData as WorkerData;
  const memory = new SharedMemory(shape, buffer, keysBuffer);
  const relay = new RelayLoop(kernel, memory, loop);
  memory.words[memory.workerWords(loop.worker) + THREAD_ID] = threadId();
  parentPort?.postMessage(READY);
  relay.run();
}
