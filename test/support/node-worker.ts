/**
 * A worker thread that works on a node table, by what its data says; see
 * test/shared/nodes.threads.test.ts.
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { ENDPOINT_PORT_MASK, ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import { type MemoryShape, SharedMemory } from "../../src/shared/memory.ts";
import { ADDED, CONTENDED, KEY_IGNORED, KEY_KEPT } from "../../src/shared/nodes.ts";
import { NodeTableOwner } from "../../src/shared/nodes-owner.ts";
import { IS_BRIDGED } from "../../src/shared/slots.ts";

export interface NodeWorkerData {
  readonly shape: MemoryShape;
  readonly buffer: SharedArrayBuffer;
  /** For `keys` alone. */
  readonly keysBuffer?: SharedArrayBuffer;
  readonly holder: number;
  /**
   * read: reads nodes 1 to `nodes` and checks every word, `operations` times and on until it has
   * seen many writes; move: records the same nodes at ever new endpoints, `operations` times and on
   * until `stop`; cycle: adds nodes from `firstId` on and expires them again, likewise; spin: moves
   * and adds, as a beacon's worker does, without an end; watch: reads the same nodes, which are
   * bridged and unbridged meanwhile, and the nodes of `passing`, `operations` times and on until it
   * has seen many changes; keys: adds KEY_NODES nodes from `firstId` on in any order, seen at
   * second 0 or -1, and tells each one's key, likewise.
   */
  readonly task: "move" | "read" | "cycle" | "spin" | "watch" | "keys";
  readonly nodes: number;
  readonly firstId: number;
  readonly operations: number;
  readonly seed: number;
  /**
   * Two nodes of the bridge without an endpoint, of which one at a time may be away; STABLE names
   * the other.
   */
  readonly passing?: readonly [number, number];
  /** A word for each of the names below; STABLE and FINISHED for `watch` alone. */
  readonly words: SharedArrayBuffer;
}

/** What a worker says at its end. */
export interface NodeWorkerResult {
  /** Operations that did what they should. */
  readonly done: number;
  readonly contended: number;
  /** Reads whose words do not belong together, and keys that were refused though they are right. */
  readonly torn: number;
  /**
   * Searches that did not find a node that was there all the time; of keys, one that was removed
   * since it was added.
   */
  readonly missed: number;
}

/** How often `spin` went round. */
export const ROUNDS = 0;
/** Not 0, so that `move` and `cycle` may end. */
export const STOP = 1;
/**
 * A number that grows; the node of `passing` that is there for as long as it stands is the one of
 * its lowest bit.
 */
export const STABLE = 2;
/** How many threads that `watch` have seen enough. */
export const FINISHED = 3;
/**
 * Distinct endpoints, or changes, that a reader wants to see: far more than there are without
 * writers at the same time.
 */
const DISTINCT_MIN = 200;

/** Fills `endpoint` with six words that all follow from one number. */
export function derive(number: number, endpoint: Int32Array): void {
  endpoint[0] = Math.imul(number, 0x9e37_79b1) & ENDPOINT_PORT_MASK;
  for (let word = 1; word < ENDPOINT_WORDS; word++)
    endpoint[word] = Math.imul(number, word * 2 + 1) ^ word;
}

/** How many nodes `keys` adds. */
export const KEY_NODES = 200;

/** 32 bytes that all follow from one number. */
export function keyFor(number: number): Uint8Array<ArrayBuffer> {
  const words = Int32Array.from({ length: 8 }, (_, i) => Math.imul(number, 2 * i + 1) ^ (i << 16));
  return new Uint8Array(words.buffer);
}

/** Whether six words all follow from one number, which word 1 gives away. */
export function isWhole(endpoint: Int32Array, scratch: Int32Array): boolean {
  // 0xaaaaaaab is the inverse of 3 modulo 2^32.
  derive(Math.imul(endpoint[1]! ^ 1, 0xaaaa_aaab), scratch);
  return scratch.every((word, i) => word === endpoint[i]);
}

function work({
  shape,
  buffer,
  keysBuffer,
  holder,
  task,
  nodes,
  firstId,
  operations,
  seed,
  passing = [0, 0],
  words,
}: NodeWorkerData): void {
  const table = new NodeTableOwner(new SharedMemory(shape, buffer, keysBuffer), holder);
  const endpoint = new Int32Array(ENDPOINT_WORDS);
  const scratch = new Int32Array(ENDPOINT_WORDS);
  const shared = new Int32Array(words);
  const seen = new Set<number>();
  const flagsSeen = new Int32Array(1 + nodes);
  let changes = 0;
  let [done, contended, torn, missed] = [0, 0, 0, 0];
  let state = seed;
  const random = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return state >>> 8;
  };
  const mayEnd = {
    read: () => seen.size >= DISTINCT_MIN,
    move: () => Atomics.load(shared, STOP) !== 0,
    cycle: () => Atomics.load(shared, STOP) !== 0,
    spin: () => false,
    watch: () => changes >= DISTINCT_MIN,
    keys: () => Atomics.load(shared, STOP) !== 0,
  }[task];
  for (let operation = 0; operation < operations || !mayEnd(); operation++) {
    switch (task) {
      case "move": {
        derive(random(), endpoint);
        const result = table.record(1 + (operation % nodes), endpoint, 0, 0, 1);
        if (result === CONTENDED) contended++;
        else done++;
        break;
      }
      case "read": {
        const id = 1 + (operation % nodes);
        const slot = table.find(id);
        if (slot < 0) missed++;
        if (slot < 0 || table.slots.read(slot, id, endpoint, 0) < 0) break;
        done++;
        if (!isWhole(endpoint, scratch)) torn++;
        if (seen.size < DISTINCT_MIN) seen.add(endpoint[1]!);
        break;
      }
      case "watch": {
        const id = 1 + (operation % nodes);
        const slot = table.find(id);
        if (slot < 0) missed++;
        else if (table.slots.read(slot, id, endpoint, 0) >= 0) {
          done++;
          const flags = endpoint[0]! & ~ENDPOINT_PORT_MASK;
          endpoint[0]! &= ENDPOINT_PORT_MASK;
          if ((flags !== 0 && flags !== IS_BRIDGED) || !isWhole(endpoint, scratch)) torn++;
          if (flags !== flagsSeen[id]) changes++;
          flagsSeen[id] = flags;
        }
        const round = Atomics.load(shared, STABLE);
        const passingId = passing[round & 1]!;
        const passingSlot = table.find(passingId);
        if (passingSlot < 0) {
          if (Atomics.load(shared, STABLE) === round) missed++;
        } else if (table.slots.read(passingSlot, passingId, endpoint, 0) >= 0) {
          if (endpoint[0] !== IS_BRIDGED || endpoint.some((word, i) => i > 0 && word !== 0)) torn++;
        }
        break;
      }
      case "cycle": {
        derive(random(), endpoint);
        if (table.record(firstId + operation, endpoint, 0, 0, 0) === ADDED) done++;
        else contended++;
        if (operation % 50 === 49) table.expire(0, 0, table.slotsPerShard, 1);
        break;
      }
      case "keys": {
        const id = firstId + (random() % KEY_NODES);
        derive(id, endpoint);
        table.record(id, endpoint, 0, 0, -(random() & 1));
        const result = table.keepKey(id, endpoint, new DataView(keyFor(id).buffer), 0);
        if (result === KEY_KEPT) done++;
        else if (result === KEY_IGNORED) missed++;
        else if (result === CONTENDED) contended++;
        else torn++;
        break;
      }
      case "spin": {
        derive(random(), endpoint);
        table.record(1 + (operation % nodes), endpoint, 0, 0, 1);
        for (let i = 0; i < 10; i++) table.record(firstId + (random() % 1000), endpoint, 0, 0, 0);
        Atomics.add(shared, ROUNDS, 1);
        Atomics.notify(shared, ROUNDS);
      }
    }
  }
  if (task === "watch") Atomics.add(shared, FINISHED, 1);
  parentPort?.postMessage({ done, contended, torn, missed } satisfies NodeWorkerResult);
}

if (!isMainThread && workerData) work(workerData as NodeWorkerData);
