/**
 * A beacon's own nodes in the real node table, in shared memory. In some schedules another thread
 * takes shard locks meanwhile, and records nodes of its own, the residents: these schedules are not
 * reproducible.
 */
import type { Pause } from "../../../../src/control/kit/pacing.ts";
import { scanNodes } from "../../../../src/control/nodes/scan.ts";
import { Arrivals } from "../../../../src/shared/arrivals.ts";
import {
  ARRIVALS_NOTED,
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  SharedMemory,
  workerLock,
} from "../../../../src/shared/memory.ts";
import { LOCK_RETRY_MS } from "../../../../src/shared/nodes.ts";
import { HEARD_SINCE, NodeTableOwner } from "../../../../src/shared/nodes-owner.ts";
import type { HostNodes, SimulatedNodesParts } from "./nodes.ts";

/** One worker records what the schedule brings, the other one is the thread. */
export const SHAPE = { workers: 2, nodesMax: 200, routesMax: 1 };
const RECEIVER_LOCK = workerLock(0);
export const THREAD_LOCK = workerLock(1);
/** Tables that the thread uses; processes beyond have theirs to themselves. */
const TABLES = 8;
const RESIDENTS = 8;
const FIRST_RESIDENT = 1_000_000;
const ARRIVALS_MAX = 4096;
/** 127.0.0.1:9001 */
export const ENDPOINT = new Int32Array([0x2923, 0, 0, -65536, 0x0100_007f, 0]);

/** Words of the control buffer: the thread's state, and how many of the tables are in use. */
export const CONTROL_STATE = 0;
export const CONTROL_TABLES = 1;
export const RUNNING = 1;
const STOPPING = 2;
export const STOPPED = 3;
const STOP_MS = 30_000;

export interface Job {
  readonly control: SharedArrayBuffer;
  /** Monotonic clocks of the tables' beacons, in ms. */
  readonly clocks: SharedArrayBuffer;
  readonly tables: readonly {
    readonly buffer: SharedArrayBuffer;
    readonly keysBuffer: SharedArrayBuffer;
    readonly residents: readonly number[];
  }[];
  readonly seed: number;
}

export interface RealTable {
  readonly memory: SharedMemory;
  /** Ids of nodes that only the thread records. */
  readonly residents: readonly number[];
  /** Shows the thread its beacon's monotonic clock. */
  readonly showMs: (ms: number) => void;
}

/** One thread for all schedules of a process. */
let thread: Worker | undefined;

export class RealTables {
  readonly #control = new Int32Array(new SharedArrayBuffer(8));
  readonly #clocks = new Float64Array(new SharedArrayBuffer(8 * TABLES));
  readonly #tables: readonly RealTable[];
  #taken = 0;
  #isRunning = false;

  constructor() {
    this.#tables = Array.from({ length: TABLES }, (_, table) => ({
      memory: tableMemory(),
      residents: Array.from({ length: RESIDENTS }, (_, i) => FIRST_RESIDENT + 100 * table + i),
      showMs: (ms: number) => {
        this.#clocks[table] = ms;
      },
    }));
  }

  startThread(seed: number): void {
    if (thread === undefined) {
      thread = new Worker(new URL("node-thread.ts", import.meta.url).href);
      thread.unref();
    }
    this.#isRunning = true;
    Atomics.store(this.#control, CONTROL_STATE, RUNNING);
    thread.postMessage({
      control: this.#control.buffer as SharedArrayBuffer,
      clocks: this.#clocks.buffer as SharedArrayBuffer,
      tables: this.#tables.map(({ memory: { buffer, keysBuffer }, residents }) => ({
        ...{ buffer, keysBuffer, residents },
      })),
      seed,
    } satisfies Job);
  }

  /** For one process. */
  take(): RealTable {
    const table = this.#tables[this.#taken];
    if (table === undefined) return { memory: tableMemory(), residents: [], showMs: () => {} };
    this.#taken++;
    return table;
  }

  /** The process has begun: the thread may use its table. */
  began(): void {
    Atomics.store(this.#control, CONTROL_TABLES, this.#taken);
  }

  /** Settles the tables: the thread leaves them. */
  stopThread(): void {
    if (!this.#isRunning) return;
    this.#isRunning = false;
    const control = this.#control;
    Atomics.store(control, CONTROL_STATE, STOPPING);
    Atomics.wait(control, CONTROL_STATE, STOPPING, STOP_MS);
    if (Atomics.load(control, CONTROL_STATE) !== STOPPED)
      throw new Error("the thread does not stop");
  }
}

function tableMemory(): SharedMemory {
  const memory = new SharedMemory(SHAPE);
  memory.words[HASH_SECRET] = 0x5ec2_e701;
  memory.words[memory.rulesAt + ARRIVALS_NOTED] = 1;
  return memory;
}

export interface RealNodesParts extends SimulatedNodesParts {
  readonly table: RealTable;
  /** A shard was locked. */
  readonly contended: () => void;
  readonly monotonicMs: () => number;
}

export class RealNodes implements HostNodes {
  readonly #main: NodeTableOwner;
  readonly #receiver: NodeTableOwner;
  readonly #arrivals: Arrivals;

  readonly heard = {
    has: (nodeId: number) => this.#main.find(nodeId) >= 0,
    [Symbol.iterator]: () => this.#all(),
  };

  constructor(private readonly parts: RealNodesParts) {
    const { memory } = parts.table;
    const clock = { nowNs: () => parts.monotonicMs() * 1e6 };
    this.#main = new NodeTableOwner(memory, MAIN_THREAD_LOCK, clock);
    this.#receiver = new NodeTableOwner(memory, RECEIVER_LOCK, clock);
    this.#main.removed = parts.removed;
    this.#arrivals = new Arrivals(memory);
  }

  get residents(): readonly number[] {
    return this.parts.table.residents;
  }

  size(): number {
    return this.#main.size();
  }

  heardMs(nodeId: number): number {
    return this.#main.heardMs(nodeId);
  }

  /** As setup.ts does. */
  giveUp(nodeId: number, heardMs: number): boolean {
    const { sleep, removed, contended } = this.parts;
    const result = this.#main.removeUnlessHeardSince(nodeId, heardMs);
    if (result === -1) {
      contended();
      void sleep(LOCK_RETRY_MS).then(() => {
        if (this.giveUp(nodeId, heardMs)) removed(nodeId);
      });
    }
    return result === HEARD_SINCE;
  }

  scan(visit: (nodeId: number) => void, pause: Pause, signal: AbortSignal): Promise<boolean> {
    return scanNodes(this.#main, visit, { pause, signal });
  }

  takeArrivals(): { readonly nodeIds: readonly number[]; readonly isLost: boolean } {
    const nodeIds: number[] = [];
    const { lost: isLost } = this.#arrivals.drain((nodeId) => nodeIds.push(nodeId), ARRIVALS_MAX);
    return { nodeIds, isLost };
  }

  hear(nodeId: number): void {
    this.#receiver.record(nodeId, ENDPOINT, 0, 0, 0);
  }

  restore(nodeId: number, heardMs: number): void {
    const { memory } = this.parts.table;
    this.hear(nodeId);
    memory.floats[memory.heard(this.#main.find(nodeId))] = heardMs;
  }

  remove(nodeId: number): boolean {
    const removed = this.#main.remove(nodeId);
    if (removed === -1) this.parts.contended();
    return removed === 1;
  }

  *#all(): Generator<[number, number]> {
    for (const { nodeId } of this.#main.entries())
      if (nodeId < FIRST_RESIDENT) yield [nodeId, this.#main.heardMs(nodeId)];
  }
}
