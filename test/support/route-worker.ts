/**
 * A worker thread that looks up routes while the main thread changes them; see
 * test/shared/routes.threads.test.ts.
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { type MemoryShape, SharedMemory } from "../../src/shared/memory.ts";
import { RouteTableOwner } from "../../src/shared/routes-owner.ts";

export interface RouteWorkerData {
  readonly shape: MemoryShape;
  readonly buffer: SharedArrayBuffer;
  /**
   * Lookups that it wants to have made of routes that were there throughout, at least; it goes on
   * until it has seen many routes.
   */
  readonly lookups: number;
  readonly words: SharedArrayBuffer;
  /** All ids that there ever is a route for. */
  readonly nodeIds: readonly number[];
}

/** What a worker says at its end. */
export interface RouteWorkerResult {
  /** Lookups of routes that were there throughout. */
  readonly done: number;
  /** Of those: how many found nothing. */
  readonly missed: number;
  /** Lookups of any route, there or not, that found a peer that never had the node. */
  readonly wrong: number;
}

// What the main thread tells: a route that is there, 0 for none; +1 with every other such route;
// not 0 once all is over.
export const PRESENT = 0;
export const SERIAL = 1;
/** What the worker tells: not 0 once it has made its lookups. */
export const DONE = 2;

/**
 * Different routes that a reader wants to see: far more than there are if the two threads take long
 * turns.
 */
const DISTINCT_MIN = 200;

/** A node may be any of two peers'. */
export const PEERS_OF_NODE = 2;
export const peerOfNode = (nodeId: number, which: number): number => ((nodeId & 31) << 1) | which;

function work({ shape, buffer, lookups, words, nodeIds }: RouteWorkerData): void {
  const routes = new RouteTableOwner(new SharedMemory(shape, buffer));
  const shared = new Int32Array(words);
  let [done, missed, wrong] = [0, 0, 0];
  let distinct = 0;
  let lastSerial = -1;
  const isWrong = (nodeId: number, peer: number) =>
    peer >= 0 && peer >> 1 !== peerOfNode(nodeId, 0) >> 1;
  for (let round = 0; done < lookups || distinct < DISTINCT_MIN; round++) {
    const any = nodeIds[round % nodeIds.length]!;
    if (isWrong(any, routes.find(any))) wrong++;
    const nodeId = Atomics.load(shared, PRESENT);
    const serial = Atomics.load(shared, SERIAL);
    if (nodeId === 0 || Atomics.load(shared, PRESENT) !== nodeId) continue;
    const peer = routes.find(nodeId);
    if (Atomics.load(shared, PRESENT) !== nodeId || Atomics.load(shared, SERIAL) !== serial)
      continue;
    done++;
    if (serial !== lastSerial) distinct++;
    lastSerial = serial;
    if (peer < 0) missed++;
    if (isWrong(nodeId, peer)) wrong++;
  }
  Atomics.store(shared, DONE, 1);
  parentPort?.postMessage({ done, missed, wrong } satisfies RouteWorkerResult);
}

if (!isMainThread && workerData) work(workerData as RouteWorkerData);
