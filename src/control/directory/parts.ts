/** What the directory asks of the rest of the beacon, and of the world. */
import type { RouteTableOwner } from "../../shared/routes-owner.ts";
import type { FleetClock } from "./clock.ts";
import type { OwnNodes } from "./fleet-routes.ts";
import type { Store } from "./store.ts";

/** The mesh, as the directory needs it. */
export interface FleetPeers {
  /** Makes the fleet's beacons peers, by name, besides others. First called once known. */
  setFleet(names: readonly string[]): void;
  /** The peer number of the beacon with this name; undefined while it has none. */
  numberOf(name: string): number | undefined;
  /** What nodes this peer has is told by the directory, and no longer by gossip. */
  follow(number: number): Promise<void>;
  unfollow(number: number): void;
  /** How many peers are not followed: `--peers` or the registry name them. */
  notFollowed(): number;
  /** A peer gave a sign of life through the directory. */
  heard(number: number): void;
}

export interface DirectoryParts {
  /** This beacon, as its peers reach it: "host:port". */
  readonly name: string;
  readonly beaconId: number;
  readonly leaseMs: number;
  readonly graceMs: number;
  /** As in FleetParts. */
  readonly keptNodesMax?: number;
  /** @param first which server to try first. The signal ends it. */
  readonly connect: (first: number, signal: AbortSignal) => Promise<Store>;
  readonly table: RouteTableOwner;
  /** For what this beacon publishes (announcer.ts). */
  readonly published: RouteTableOwner;
  readonly own: OwnNodes;
  /** Calls `came` for the nodes that came since the last time. @returns whether some are missing */
  readonly drainArrivals: (came: (nodeId: number) => void) => boolean;
  readonly peers: FleetPeers;
  /** Whether another process speaks for this beacon. */
  readonly isSilent?: () => boolean;
  readonly clock: FleetClock;
  readonly monotonicMs: () => number;
  readonly random: () => number;
  /** Resolves after so long, or when the signal is given. */
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
  readonly info: (message: string) => void;
  /** Warns, at most once a minute about the same. */
  readonly complain: (about: string, message: string) => void;
  /** Reports a mistake of this program, which ended what the directory was about. */
  readonly internalError: (error: unknown) => void;
}
