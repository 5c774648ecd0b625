/** What the directory's parts are tested with: a beacon's nodes, its clock, its route table. */
import { DirectoryClock } from "../../../src/control/directory/clock.ts";
import { CHANGES, type Changes, LEASE, type Lease } from "../../../src/control/directory/entries.ts";
import {
  FleetRoutes,
  type FleetRoutesParts,
  type OwnNodes,
} from "../../../src/control/directory/fleet-routes.ts";
import { RouteTable } from "../../../src/shared/routes.ts";
import { routeMemory } from "../../support/route-memory.ts";

/** The directory's time when the host's monotonic clock is at 0. */
export const BOOT_MS = 1_900_000_000_000;

/** Nodes by id, and when each was heard, monotonic. */
export class MapNodes implements OwnNodes {
  readonly heard = new Map<number, number>();
  readonly givenUp: number[] = [];
  /** Heard in the moment in which they are to be given up. */
  readonly speakingUp = new Set<number>();
  /** Whether the shards are locked by a worker. */
  isLocked = false;

  size(): number {
    return this.heard.size;
  }
  heardMs(nodeId: number): number {
    return this.heard.get(nodeId) ?? -1;
  }
  heardAtLeast(nodeId: number, ms: number): boolean {
    if (!this.isLocked) this.heard.set(nodeId, Math.max(ms, this.heard.get(nodeId)!));
    return !this.isLocked;
  }
  giveUp(nodeId: number, heardMs: number): boolean {
    if (this.speakingUp.has(nodeId) || this.heard.get(nodeId)! > heardMs) return true;
    this.heard.delete(nodeId);
    this.givenUp.push(nodeId);
    return false;
  }
  async scan(visit: (nodeId: number) => void): Promise<boolean> {
    for (const nodeId of this.heard.keys()) visit(nodeId);
    return true;
  }
}

/** A host whose monotonic clock stands where it is put, and that knows the directory's time exactly. */
export function host() {
  const at = { ms: 100_000 };
  const clock = new DirectoryClock(() => at.ms, 0);
  clock.sample(BOOT_MS + at.ms, 0);
  clock.adjust();
  const table = new RouteTable(routeMemory());
  table.keepClaims();
  return { at, clock, table, own: new MapNodes() };
}

export type Host = ReturnType<typeof host>;

/** A host's routes to the others, as beacon "m:1" has them. */
export function routesOf({ clock, table, own }: Host, parts: Partial<FleetRoutesParts> = {}) {
  const names = new Map<number, string>();
  const epochs = new Map<number, number>();
  const claimedAgain: number[] = [];
  const outlived: number[] = [];
  const routes = new FleetRoutes({
    ...{ table, own, clock, name: "m:1", pause: async () => {} },
    claimedMs: (nodeId) => clock.timeOf(own.heardMs(nodeId)),
    beaconAt: (number) => {
      const beacon = names.get(number);
      return beacon === undefined ? undefined : { name: beacon, epoch: epochs.get(number) ?? 1 };
    },
    claimAgain: (nodeId) => claimedAgain.push(nodeId),
    outlived: (number) => outlived.push(number),
    ...parts,
  });
  return { routes, names, epochs, claimedAgain, outlived };
}

/** @param claims ids and times, monotonic */
export function changesOf(
  name: string,
  seq: number,
  claims: Readonly<Record<number, number>> = {},
  gone: readonly number[] = [],
  epoch = 1,
): Changes {
  const timesMs = Object.values(claims).map((ms) => BOOT_MS + ms);
  return {
    ...{ kind: CHANGES, name, epoch, seq, timeMs: Math.max(BOOT_MS + 100_000, ...timesMs) },
    claims: {
      nodeIds: Int32Array.from(Object.keys(claims), Number),
      timesMs: Float64Array.from(timesMs),
    },
    gone: Int32Array.from(gone),
  };
}

export function leaseOf(name: string, seq: number, fields: Partial<Lease> = {}): Lease {
  return {
    ...{
      kind: LEASE,
      name,
      epoch: 1,
      seq,
      timeMs: BOOT_MS + 100_000,
      beaconId: 7,
      nodes: 1,
      leaseMs: 10_000,
    },
    ...{ isLeaving: false, snapshot: undefined },
    ...fields,
  };
}
