/** What the directory's parts are tested with: a beacon's nodes, its clock, its route table. */
import { FleetClock } from "../../../src/control/directory/clock.ts";
import {
  CHANGES,
  CHANGES_MAX,
  type Changes,
  LEASE,
  type Lease,
} from "../../../src/control/directory/entries.ts";
import {
  type Claimer,
  FleetRoutes,
  type FleetRoutesParts,
  type OwnNodes,
} from "../../../src/control/directory/fleet-routes.ts";
import { WaitingClaims } from "../../../src/control/directory/waiting-claims.ts";
import { RouteTableOwner } from "../../../src/shared/routes-owner.ts";
import { routeMemory } from "../../support/route-memory.ts";

/** The directory's time when the host's monotonic clock is at 0. */
export const BOOT_MS = 1_900_000_000_000;

/** Nodes by id, and when each was heard, monotonic. */
export class MapNodes implements OwnNodes {
  readonly heard = new Map<number, number>();
  readonly givenUp: number[] = [];
  /** Heard in the moment in which they are to be given up. */
  readonly speakingUp = new Set<number>();

  size(): number {
    return this.heard.size;
  }
  heardMs(nodeId: number): number {
    return this.heard.get(nodeId) ?? -1;
  }
  giveUp(nodeId: number, heardMs: number): boolean {
    if (this.speakingUp.has(nodeId) || this.heard.get(nodeId)! > heardMs) return true;
    this.heard.delete(nodeId);
    this.givenUp.push(nodeId);
    return false;
  }
  async scan(visit: (nodeId: number) => void): Promise<boolean> {
    for (const nodeId of [...this.heard.keys()]) {
      await undefined;
      visit(nodeId);
    }
    return true;
  }
}

/** A host whose monotonic clock stands where it is put, and that knows the fleet's time exactly. */
export function host(publishedMax = 2 * CHANGES_MAX) {
  const at = { ms: 100_000 };
  const clock = new FleetClock(() => at.ms, 0);
  clock.begin(BOOT_MS + at.ms);
  const [table, published] = [routeMemory(), routeMemory(publishedMax)].map(
    (memory) => new RouteTableOwner(memory),
  ) as [RouteTableOwner, RouteTableOwner];
  table.keepClaims();
  published.keepClaims();
  return {
    at,
    clock,
    table,
    published,
    own: new MapNodes(),
    monotonicMs: () => at.ms,
    pause: async () => {},
  };
}

export type Host = ReturnType<typeof host>;

/** Another beacon, as FleetRoutes knows it. */
export const claimerOf = (name: string, number: number, mark = 1) => ({
  ...{ name, number, mark, incomplete: 0 },
  waiting: new WaitingClaims(),
});

/**
 * A host's routes to the others, as beacon "m:1" has them; it has published all its nodes as it has
 * them.
 */
export function routesOf(
  { clock, table, own, pause }: Host,
  parts: Partial<FleetRoutesParts> = {},
) {
  const claimers = new Map<number, Claimer>();
  const claimedAgain: [nodeId: number, afterMs: number][] = [];
  const full: Claimer[] = [];
  const ownMs = (nodeId: number) =>
    own.heardMs(nodeId) < 0 ? -1 : clock.timeOf(own.heardMs(nodeId));
  const routes = new FleetRoutes({
    ...{ table, own, name: "m:1", pause, ownMs, publishedMs: ownMs },
    claimerAt: (number) => claimers.get(number),
    waiters: () => [...claimers.values()],
    claimAgain: (nodeId, afterMs) => claimedAgain.push([nodeId, afterMs]),
    tooManyWait: (claimer) => full.push(claimer),
    ...parts,
  });
  return { routes, claimers, claimedAgain, full };
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
    ...{ isLeaving: false, snapshot: undefined, ranged: undefined, sums: undefined },
    ...fields,
  };
}
