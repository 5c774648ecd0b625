/** What is told of the directory. */
import type { ResyncReason } from "./fleet.ts";
import type { HistogramStats } from "./histogram.ts";
import { STORE_FAILURES, type StoreFailure } from "./store-error.ts";

/**
 * duplicate: another process that began later has this beacon's name, and so this one tells
 * nothing. The others: why there is no server.
 */
export const DIRECTORY_STATES = ["ok", "connecting", "duplicate", ...STORE_FAILURES] as const;
export type DirectoryState = (typeof DIRECTORY_STATES)[number];

/**
 * following: its routes are as it tells them. behind: they wait for a snapshot. no_address: there
 * is none that it is reached at.
 */
export const BEACON_STATES = ["following", "behind", "no_address"] as const;

export interface DirectoryBeaconStats {
  readonly name: string;
  readonly beaconId: number | null;
  /** Nodes that it has, by its last lease; null before the first. */
  readonly nodes: number | null;
  /** Routes through it. */
  readonly routes: number;
  readonly state: (typeof BEACON_STATES)[number];
  /** Seconds since it was last heard. */
  readonly ageS: number;
}

export interface DirectoryStats {
  readonly state: DirectoryState;
  /** "host:port" of the server; null while there is none. */
  readonly server: string | null;
  /** Seconds that this state has lasted. */
  readonly stateS: number;
  readonly beacons: readonly DirectoryBeaconStats[];
  readonly roundTripS: number | null;
  /**
   * The log, as measured within the last minute; null: not measured, or the server's user lacks the
   * right.
   */
  readonly logEntries: number | null;
  readonly logBytes: number | null;
  /** Seconds since its oldest entry was written. */
  readonly logOldestS: number | null;
  /** Steps of the clock of the directory's server, which no route depends on. */
  readonly clockSteps: number;
  /** Log entries, and the claims and gone nodes in them, that this beacon wrote. */
  readonly entriesTold: number;
  readonly bytesTold: number;
  readonly claimsTold: number;
  readonly goneTold: number;
  /** Changed nodes that the directory is not told of yet. */
  readonly untold: number;
  /** Log entries that were read; of other beacons, the changes applied. */
  readonly entriesHeard: number;
  readonly bytesHeard: number;
  readonly claimsHeard: number;
  readonly goneHeard: number;
  readonly entriesMalformed: number;
  readonly entriesStale: number;
  readonly beaconsIgnored: number;
  readonly snapshotsWritten: number;
  readonly snapshotBytesWritten: number;
  readonly snapshotsLoaded: number;
  readonly snapshotBytesLoaded: number;
  readonly snapshotsMissing: number;
  readonly snapshotsMalformed: number;
  /** The last ones; 0 if there was none. */
  readonly lastSnapshotWrittenS: number;
  readonly lastSnapshotLoadedS: number;
  readonly resyncs: Readonly<Record<ResyncReason, number>>;
  /** Seconds from when changes were written until they are applied here. */
  readonly lag: HistogramStats;
  /** Nodes that this beacon gave up, as another one heard them later; that it claimed again. */
  readonly nodesLost: number;
  readonly nodesClaimedAgain: number;
  readonly claimsRefused: number;
  readonly claimsFromFuture: number;
  /** Ranges of beacons' node ids that were found to differ from what these claim, and reloaded. */
  readonly diverged: number;
  /** Whether no other beacon is in the directory, though --peers or the registry name some. */
  readonly isAlone: boolean;
  readonly bytesPerRoute: number;
  /** Connections that ended, and calls that were refused, by reason. */
  readonly failures: Readonly<Partial<Record<StoreFailure, number>>>;
}
