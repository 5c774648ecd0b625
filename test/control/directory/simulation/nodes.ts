/**
 * A beacon's own nodes, as its node table holds them: when each was last heard, on the host's
 * monotonic clock.
 */

import type { OwnNodes } from "../../../../src/control/directory/fleet-routes.ts";
import type { Pause } from "../../../../src/control/kit/pacing.ts";
import type { Chance } from "./chance.ts";

/** Nodes that are gone through without a pause. */
const SLICE_NODES = 7;
const PAUSE_MS_MAX = 30;
/** Of so many nodes that are to be given up, one speaks up in that very moment. */
const SPEAKS_UP_OF = 300;

export interface SimulatedNodesParts {
  readonly chance: Chance;
  readonly sleep: (ms: number) => Promise<void>;
  /** What every removal calls. */
  readonly removed: (nodeId: number) => void;
  /** The node is heard here right now, if it can be. @returns whether it was */
  readonly speaksUp: (nodeId: number) => boolean;
}

/** Own nodes, and what brings and removes them. */
export interface HostNodes extends OwnNodes {
  /** When each was last heard. */
  readonly heard: Pick<ReadonlyMap<number, number>, "has" | typeof Symbol.iterator>;
  /** Ids of nodes that another thread adds. */
  readonly residents: readonly number[];
  /** Nodes that came since this was last called. */
  takeArrivals(): { readonly nodeIds: readonly number[]; readonly isLost: boolean };
  /** A Discover. */
  hear(nodeId: number, nowMs: number): void;
  /** From before the process began. */
  restore(nodeId: number, heardMs: number): void;
  /** @returns whether it was there, and could be removed */
  remove(nodeId: number): boolean;
}

export class SimulatedNodes implements HostNodes {
  readonly heard = new Map<number, number>();
  readonly residents = [];
  #arrived: number[] = [];

  constructor(private readonly parts: SimulatedNodesParts) {}

  size(): number {
    return this.heard.size;
  }

  heardMs(nodeId: number): number {
    return this.heard.get(nodeId) ?? -1;
  }

  giveUp(nodeId: number, heardMs: number): boolean {
    const latestMs = this.heard.get(nodeId);
    if (latestMs === undefined) return false;
    if (latestMs > heardMs) return true;
    const { chance, speaksUp } = this.parts;
    if (chance.below(SPEAKS_UP_OF) === 0 && speaksUp(nodeId)) return true;
    this.remove(nodeId);
    return false;
  }

  async scan(visit: (nodeId: number) => void, pause: Pause, signal: AbortSignal): Promise<boolean> {
    const { chance, sleep } = this.parts;
    let left = 0;
    for (const nodeId of [...this.heard.keys()]) {
      if (left-- === 0) {
        await sleep(chance.unit() * PAUSE_MS_MAX);
        left = SLICE_NODES;
      }
      await pause();
      if (signal.aborted) return false;
      if (this.heard.has(nodeId)) visit(nodeId);
    }
    return true;
  }

  takeArrivals(): { readonly nodeIds: readonly number[]; readonly isLost: boolean } {
    return { nodeIds: this.#arrived.splice(0), isLost: false };
  }

  hear(nodeId: number, nowMs: number): void {
    if (!this.heard.has(nodeId)) this.#arrived.push(nodeId);
    this.heard.set(nodeId, nowMs);
  }

  restore(nodeId: number, heardMs: number): void {
    this.heard.set(nodeId, heardMs);
  }

  remove(nodeId: number): boolean {
    if (!this.heard.delete(nodeId)) return false;
    this.parts.removed(nodeId);
    return true;
  }
}
