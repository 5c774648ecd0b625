/**
 * Keeps one worker thread running on each socket. A worker that dies is replaced on the same socket
 * and the same table; one that keeps dying is beyond that, and the beacon ends.
 */
import { Worker } from "node:worker_threads";
import type { UdpSocket } from "../../../ffi/socket.ts";
import { threadCpuS } from "../../../ffi/threads.ts";
import type { WorkerData } from "../../data/worker.ts";
import {
  HEARTBEAT,
  IS_PARKED,
  PARK,
  type SharedMemory,
  STOP,
  STOPPING,
  THREAD_ID,
  workerLock,
} from "../../shared/memory.ts";
import type { NodeTableOwner } from "../../shared/nodes-owner.ts";
import { openFilesMax, partOfFiles } from "../kit/files-left.ts";
import { SpareFiles } from "../kit/spare-files.ts";

/** A worker that dies more often than this within the window is not replaced again. */
const RESTARTS_MAX = 5;
const RESTARTS_WINDOW_MS = 60_000;

/** Ticks without a step of a hung worker, whose step takes 100 ms; not time, as hosts sleep. */
const STALLED_TICKS_MAX = 10;

/** A worker leaves its loop within a batch; one that has not by now never will by itself. */
const STOP_MS_MAX = 2000;

/** A worker parks within a receive timeout and a batch; one that starts, once it has started. */
const PARK_MS_MAX = 1000;
const PARK_POLL_MS = 1;

/**
 * Files that a thread opens as it starts: two, and four at once while it reads its modules (Bun
 * 1.4.5, 2026-11); here with some to spare. Without them the runtime ends the whole process; so
 * they are held for it, and a thread is not started where they cannot be had.
 */
const STARTING_FILES = 6;
/**
 * Many more: connections that wait to be accepted take what is let go, too. Those that were taken
 * are missing until they are closed; a flood that has more of them waiting than this can still take
 * all.
 */
const SPARE_FILES_MAX = 128;
/** Less where the process may open few files: HTTP and the bridge need some, too. */
const SPARE_FILES_PART = 1 / 8;

export interface SupervisorEvents {
  /** A worker died and is being replaced. */
  restarted(worker: number, error: Error): void;
  /** A worker died, and is replaced as soon as this process can open files again. */
  delayed(worker: number, error: Error): void;
  /** A worker keeps dying; nothing was restarted. */
  failed(worker: number, error: Error): void;
}

interface Place {
  readonly loop: WorkerData["loop"];
  thread: Worker | undefined;
  lastError: Error | undefined;
  /** Why it died, while nothing takes its place; and whether that was told. */
  vacant: { readonly error: Error; isTold: boolean } | undefined;
  deathsMs: number[];
  heartbeat: number;
  /** Ticks since the heartbeat moved. */
  stalledTicks: number;
}

export class Supervisor {
  /** Workers replaced so far, by worker. */
  readonly restarts: number[];
  /** Whether another process shares, or shared, the sockets: nothing may affect it. */
  sharesSockets = false;
  readonly #places: Place[];
  /** Whose thread starts in the place of a dead one. */
  #replacing: Place | undefined;
  #stopping = false;

  /** @param workerEntry file of a worker thread @param spare files for a starting thread */
  constructor(
    private readonly workerEntry: URL,
    private readonly memory: SharedMemory,
    private readonly nodes: NodeTableOwner,
    private readonly sockets: readonly UdpSocket[],
    options: Omit<WorkerData["loop"], "worker" | "fd" | "family">,
    private readonly events: SupervisorEvents,
    private readonly spare: Pick<SpareFiles, "hold" | "release" | "close"> = new SpareFiles(
      Math.max(STARTING_FILES, partOfFiles(openFilesMax(), SPARE_FILES_PART, SPARE_FILES_MAX)),
    ),
  ) {
    this.restarts = sockets.map(() => 0);
    this.#places = sockets.map(({ fd, family }, worker) => ({
      loop: { worker, fd, family, ...options },
      thread: undefined,
      lastError: undefined,
      vacant: undefined,
      deathsMs: [],
      heartbeat: 0,
      stalledTicks: 0,
    }));
  }

  /**
   * Starts all workers, one after the other, and returns when each is in its loop.
   * @param parked they receive nothing before `unpark`
   * @throws Error of a worker that died before it got there
   */
  async start(parked = false): Promise<void> {
    if (parked) Atomics.store(this.memory.words, STOPPING, PARK);
    for (const place of this.#places) {
      await new Promise<void>((ready, died) => this.#spawn(place, ready, died));
    }
    this.spare.hold();
  }

  /**
   * Has all workers stop receiving, each once it has handled and sent what it has in hand. One that
   * starts does so parked.
   * @throws Error if one does not in time; they go on then
   */
  async park(): Promise<void> {
    const { words } = this.memory;
    const isParked = (worker: number) => this.memory.workerWords(worker) + IS_PARKED;
    Atomics.store(words, STOPPING, PARK);
    for (const { loop } of this.#places) Atomics.store(words, isParked(loop.worker), 0);
    const receives = ({ thread, loop }: Place) =>
      thread !== undefined && Atomics.load(words, isParked(loop.worker)) === 0;
    for (const deadlineMs = performance.now() + PARK_MS_MAX; ; await Bun.sleep(PARK_POLL_MS)) {
      const late = this.#places.find(receives);
      if (late === undefined) return;
      if (performance.now() < deadlineMs) continue;
      this.unpark();
      throw new Error(`worker ${late.loop.worker} did not stop receiving in ${PARK_MS_MAX} ms`);
    }
  }

  /** Has workers receive again, within PARKED_MS. */
  unpark(): void {
    Atomics.compareExchange(this.memory.words, STOPPING, PARK, 0);
  }

  /** Ends all workers; returns when their threads are gone. */
  async stop(): Promise<void> {
    this.#stopping = true;
    Atomics.store(this.memory.words, STOPPING, STOP);
    if (!this.sharesSockets) {
      for (const socket of this.sockets) {
        try {
          socket.stopReceiving();
        } catch {} // its worker ends with its receive timeout, as all do where sockets are shared
      }
    }
    const threads = this.#places.flatMap(({ thread }) => thread ?? []);
    const late = setTimeout(
      () => threads.forEach((thread) => void thread.terminate()),
      STOP_MS_MAX,
    );
    await Promise.all(threads.map((thread) => new Promise((exit) => thread.once("exit", exit))));
    clearTimeout(late);
    this.spare.close();
  }

  /** Whether worker's thread is alive. */
  isAlive(worker: number): boolean {
    return this.#places[worker]?.thread !== undefined;
  }

  /** Seconds of CPU that the worker's thread has used; null if it has none. */
  cpuS(worker: number): number | null {
    if (!this.isAlive(worker)) return null;
    return threadCpuS(this.memory.words[this.memory.workerWords(worker) + THREAD_ID]!) ?? null;
  }

  /** Called once a second: kills a hung worker, retries a failed replacement. */
  tick(): void {
    this.#fillVacant();
    for (const place of this.#places) {
      const { worker } = place.loop;
      const heartbeat = Atomics.load(
        this.memory.words,
        this.memory.workerWords(worker) + HEARTBEAT,
      );
      const stalled = heartbeat === place.heartbeat && place.thread !== undefined;
      place.heartbeat = heartbeat;
      place.stalledTicks = stalled ? place.stalledTicks + 1 : 0;
      if (place.stalledTicks < STALLED_TICKS_MAX) continue;
      place.stalledTicks = 0;
      place.lastError = new Error(`its loop took no step in ${STALLED_TICKS_MAX} seconds`);
      this.kill(worker);
    }
  }

  /** Kills a worker as a crash would; it is replaced. */
  kill(worker: number): void {
    void this.#places[worker]?.thread?.terminate();
  }

  #spawn(place: Place, ready?: () => void, died?: (error: Error) => void): void {
    const workerData: WorkerData = {
      shape: this.memory.shape,
      buffer: this.memory.buffer,
      keysBuffer: this.memory.keysBuffer,
      loop: place.loop,
    };
    const thread = new Worker(this.workerEntry, { workerData });
    place.thread = thread;
    place.lastError = undefined;
    let running = false;
    thread.once("message", () => {
      running = true;
      this.#started(place);
      ready?.();
    });
    thread.once("error", (error) => {
      place.lastError = error instanceof Error ? error : new Error(String(error));
    });
    thread.once("exit", (code) => {
      place.thread = undefined;
      this.#started(place);
      if (this.#stopping) return;
      const error = place.lastError ?? new Error(`the worker thread ended with code ${code}`);
      if (!running && died) died(error);
      else this.#died(place, error);
    });
  }

  #died(place: Place, error: Error): void {
    const { worker } = place.loop;
    this.nodes.breakLocks(workerLock(worker));
    const nowMs = performance.now();
    place.deathsMs = place.deathsMs.filter((deathMs) => nowMs - deathMs < RESTARTS_WINDOW_MS);
    place.deathsMs.push(nowMs);
    if (place.deathsMs.length > RESTARTS_MAX) {
      this.events.failed(worker, error);
      return;
    }
    place.vacant = { error, isTold: false };
    this.#fillVacant();
  }

  /** Replaces dead threads one by one, so that none takes another's files. */
  #fillVacant(): void {
    if (this.#replacing) return;
    this.spare.hold();
    for (const place of this.#places) {
      if (!place.vacant || this.#replacing) continue;
      const { worker } = place.loop;
      const { error, isTold } = place.vacant;
      if (!this.spare.release(STARTING_FILES)) {
        place.vacant.isTold = true;
        if (!isTold) this.events.delayed(worker, error);
        continue;
      }
      place.vacant = undefined;
      this.#replacing = place;
      this.restarts[worker]!++;
      this.#spawn(place);
      this.events.restarted(worker, error);
    }
  }

  /** A thread has come to its loop, or to its end: the next may start. */
  #started(place: Place): void {
    if (this.#replacing !== place) return;
    this.#replacing = undefined;
    if (!this.#stopping) this.#fillVacant();
  }
}
