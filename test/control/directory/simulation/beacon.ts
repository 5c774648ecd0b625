/**
 * A beacon's process: the directory's own code, on a host with its own clock, with everything
 * around it simulated.
 */
import { FleetClock } from "../../../../src/control/directory/clock.ts";
import { Directory } from "../../../../src/control/directory/directory.ts";
import type { Store } from "../../../../src/control/directory/store.ts";
import { RouteTableOwner } from "../../../../src/shared/routes-owner.ts";
import { routeMemory } from "../../../support/route-memory.ts";
import type { Chance } from "./chance.ts";
import type { Host } from "./host.ts";
import { type HostNodes, SimulatedNodes } from "./nodes.ts";
import { SimulatedPeers } from "./peers.ts";
import { RealNodes, type RealTable } from "./real-nodes.ts";
import { BEGAN_MS } from "./server.ts";
import type { Owner, Timeline } from "./timeline.ts";

export interface BeaconParts {
  readonly host: Host;
  readonly timeline: Timeline;
  readonly chance: Chance;
  readonly leaseMs: number;
  readonly graceMs: number;
  readonly keptNodesMax: number | undefined;
  readonly resolveMs: number;
  /** For its nodes; undefined: they are simulated. */
  readonly realTable: RealTable | undefined;
  readonly contended: () => void;
  /** How much longer than asked for it sleeps, at most. */
  readonly sleepsLonger: () => number;
  /** Whether work takes time. */
  readonly isBusy: boolean;
  readonly connect: (beacon: Beacon, first: number, signal: AbortSignal) => Promise<Store>;
  readonly speaksUp: (beacon: Beacon, nodeId: number) => boolean;
  /** Routes that its peer had before the directory told of it. */
  readonly gossip: (beacon: Beacon, number: number) => void;
  readonly info: (beacon: Beacon, message: string) => void;
  /** So many arrivals. */
  readonly lost: (arrivals: number) => void;
  readonly complained: (beacon: Beacon, about: string, message: string) => void;
}

/** What a complaint of a mistake in the program is about. */
export const INTERNAL_ERROR = "internal_error";

export class Beacon implements Owner {
  isOver = false;
  isPaused = false;
  readonly waiting: (() => void)[] = [];
  readonly directory: Directory;
  readonly table: RouteTableOwner;
  readonly published: RouteTableOwner;
  readonly nodes: HostNodes;
  readonly peers: SimulatedPeers;
  readonly clock: FleetClock;
  /** What was begun around it and has not ended. */
  open = 0;
  /** The next that arrive are written over before they are read. */
  lostArrivals = false;
  /** Set once it is to stop: whether it has. */
  hasStopped: boolean | undefined;
  /** Until when it finds no server. */
  cutOffUntilMs = 0;
  /** Its name is another process's, too, or was. */
  isDouble = false;
  #workedMs = 0;
  #workedAtMs = 0;
  readonly #sleepers = new WeakMap<AbortSignal, Set<() => void>>();

  constructor(readonly parts: BeaconParts) {
    const { host, timeline, chance, leaseMs, graceMs, keptNodesMax } = parts;
    this.table = new RouteTableOwner(routeMemory());
    this.table.keepClaims();
    this.published = new RouteTableOwner(routeMemory());
    this.published.keepClaims();
    this.clock = new FleetClock(this.monotonicMs, BEGAN_MS + timeline.nowMs + host.wallMs);
    const nodesParts = {
      chance,
      sleep: (ms: number) => this.sleep(ms),
      removed: (nodeId: number) => this.directory.nodeWent(nodeId),
      speaksUp: (nodeId: number) => parts.speaksUp(this, nodeId),
    };
    const { realTable, monotonicMs } = { ...parts, monotonicMs: this.monotonicMs };
    this.nodes =
      realTable === undefined
        ? new SimulatedNodes(nodesParts)
        : new RealNodes({
            ...nodesParts,
            table: realTable,
            monotonicMs,
            contended: parts.contended,
          });
    this.peers = new SimulatedPeers({
      ...{ timeline, chance, owner: this, resolveMs: parts.resolveMs },
      forget: (number) => this.directory.forget(number),
      began: (number) => parts.gossip(this, number),
    });
    this.directory = new Directory({
      ...{ name: host.name, beaconId: host.beaconId, leaseMs, graceMs },
      ...(keptNodesMax !== undefined && { keptNodesMax }),
      connect: (first, signal) => this.#counted(parts.connect(this, first, signal)),
      table: this.table,
      published: this.published,
      own: this.nodes,
      drainArrivals: (came) => this.#drain(came),
      peers: this.peers,
      clock: this.clock,
      monotonicMs: this.monotonicMs,
      random: () => chance.unit(),
      sleep: (ms, signal) => this.sleep(ms, signal),
      info: (message) => parts.info(this, message),
      complain: (about, message) => parts.complained(this, about, message),
      internalError: (error) => parts.complained(this, INTERNAL_ERROR, String(error)),
    });
  }

  /** For the trace. */
  toString(): string {
    return `${this.parts.host.name.split(".")[0]}#${this.serial}`;
  }
  serial = 0;

  get name(): string {
    return this.parts.host.name;
  }

  /** Whether something can happen to it. */
  get isAwake(): boolean {
    return !this.isOver && !this.isPaused && this.hasStopped === undefined;
  }

  readonly monotonicMs = (): number => {
    const { timeline, chance, host, isBusy } = this.parts;
    const hostMs = host.monotonicMs(timeline.nowMs);
    this.parts.realTable?.showMs(hostMs);
    if (isBusy) {
      this.#workedMs = Math.max(0, this.#workedMs - (hostMs - this.#workedAtMs));
      this.#workedAtMs = hostMs;
      this.#workedMs += chance.unit() * 0.2;
    }
    return hostMs + this.#workedMs;
  };

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    const { timeline, chance, sleepsLonger, host } = this.parts;
    if (signal?.aborted) return Promise.resolve();
    this.open++;
    return new Promise((resolve) => {
      const sleepers = signal && this.#sleepersOf(signal);
      const wake = () => {
        if (happening.run === undefined) return;
        happening.run = undefined;
        sleepers?.delete(wake);
        this.open--;
        resolve();
      };
      const longer = ms < 100 ? 1 + chance.unit() * (sleepsLonger() - 1) : 1;
      // Timers go by CLOCK_MONOTONIC, which stands still while the host is suspended.
      const beganMs = timeline.nowMs;
      const { suspendedMs } = host;
      const wakeUnlessSuspended = () => {
        const lostMs = host.suspendedMs - suspendedMs;
        const leftMs = ms * longer - (timeline.nowMs - beganMs - lostMs);
        if (lostMs > 0 && leftMs > 0) timeline.after(leftMs, this, wake);
        else wake();
      };
      const happening = timeline.after(ms * longer, this, wakeUnlessSuspended);
      sleepers?.add(wake);
    });
  }

  /** The process is gone, from one moment to the next. */
  crash(): void {
    this.isOver = true;
  }

  stop(isReplaced: boolean, stopped: (error: unknown) => void): void {
    this.hasStopped = false;
    this.directory.stop(isReplaced).then(
      () => {
        this.hasStopped = true;
        stopped(undefined);
      },
      (error: unknown) => stopped(error ?? new Error("failed")),
    );
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    if (!this.isPaused || this.parts.host.isSuspended) return;
    this.isPaused = false;
    for (const run of this.waiting.splice(0)) this.parts.timeline.happen(this, run);
  }

  #drain(came: (nodeId: number) => void): boolean {
    const { nodeIds, isLost } = this.nodes.takeArrivals();
    if (nodeIds.length === 0) return isLost;
    const hasLost = this.lostArrivals;
    this.lostArrivals = false;
    if (hasLost) this.parts.lost(nodeIds.length);
    else for (const nodeId of nodeIds) came(nodeId);
    return hasLost || isLost;
  }

  #sleepersOf(signal: AbortSignal): Set<() => void> {
    let sleepers = this.#sleepers.get(signal);
    if (sleepers === undefined) {
      const waiting = new Set<() => void>();
      signal.addEventListener("abort", () => {
        for (const wake of [...waiting]) wake();
      });
      this.#sleepers.set(signal, waiting);
      sleepers = waiting;
    }
    return sleepers;
  }

  async #counted<T>(promise: Promise<T>): Promise<T> {
    this.open++;
    try {
      return await promise;
    } finally {
      this.open--;
    }
  }
}
