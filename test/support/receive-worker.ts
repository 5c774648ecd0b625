/** A worker thread that, whenever it is told to, goes into one receive and says what came of it. */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import type { Family } from "../../ffi/endpoint.ts";
import { kernel } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch } from "../../ffi/mmsg.ts";

export interface ReceiveWorkerData {
  readonly fd: number;
  readonly family: Family;
}

export interface Received {
  /** Messages, or a negative errno. */
  readonly count: number;
  /** Bytes of all messages, and how many of them came from somebody. */
  readonly lengths: number;
  readonly senders: number;
}

export const BLOCK = "block";

/** For good: the batch knows addresses in it, and does not keep it alive. */
export const packets = allocatePacketMemory(4, 0);

if (!isMainThread) {
  const { fd, family } = workerData as ReceiveWorkerData;
  const batch = new ReceiveBatch(kernel, fd, family, 4, packets, true);
  parentPort?.on("message", () => {
    const count = batch.receive(true);
    let lengths = 0;
    let senders = 0;
    for (let m = 0; m < count; m++) {
      lengths += batch.length(m);
      senders += batch.hasSender(m) ? 1 : 0;
    }
    parentPort?.postMessage({ count, lengths, senders } satisfies Received);
  });
}
