/** What is told of the directory. */
import * as v from "valibot";
import { list, number, optional, type StatsOf, text } from "../kit/schema.ts";
import { RESYNC_REASONS } from "./fleet.ts";
import { histogram } from "./histogram.ts";
import { STORE_FAILURES } from "./store-error.ts";

/**
 * duplicate: another process that began later has this beacon's name, and so this one tells
 * nothing. internal_error: a mistake of this program; the directory is started anew. The others:
 * why there is no server.
 */
export const DIRECTORY_STATES = [
  "ok",
  "connecting",
  "duplicate",
  "internal_error",
  ...STORE_FAILURES,
] as const;
export type DirectoryState = (typeof DIRECTORY_STATES)[number];

/** following: in step. behind: a snapshot is needed. no_address: the name does not resolve. */
export const BEACON_STATES = ["following", "behind", "no_address"] as const;

export const beaconStats = {
  name: text,
  beaconId: optional,
  /** Nodes that it has, by its last lease; null before the first. */
  nodes: optional,
  /** Routes through it. */
  routes: number,
  state: v.picklist(BEACON_STATES),
  /** Seconds since it was last heard. */
  ageS: number,
};
export type DirectoryBeaconStats = StatsOf<typeof beaconStats>;

export const directoryStats = {
  state: v.picklist(DIRECTORY_STATES),
  /** "host:port" of the server; null while there is none. */
  server: v.nullable(text),
  /** Seconds that this state has lasted. */
  stateS: number,
  beacons: list(v.strictObject(beaconStats)),
  roundTripS: optional,
  /** Log figures of the last minute; null if not measured, or the user lacks the right. */
  logEntries: optional,
  logBytes: optional,
  /** Seconds since its oldest entry was written. */
  logOldestS: optional,
  /** Steps of the clock of the directory's server, which no route depends on. */
  clockSteps: number,
  /** Log entries, and the claims and gone nodes in them, that this beacon wrote. */
  entriesTold: number,
  bytesTold: number,
  claimsTold: number,
  goneTold: number,
  /** Changed nodes that the directory is not told of yet. */
  untold: number,
  /** Log entries that were read; of other beacons, the changes applied. */
  entriesHeard: number,
  bytesHeard: number,
  claimsHeard: number,
  goneHeard: number,
  entriesMalformed: number,
  entriesStale: number,
  beaconsIgnored: number,
  snapshotsWritten: number,
  snapshotBytesWritten: number,
  snapshotsLoaded: number,
  snapshotBytesLoaded: number,
  snapshotsMissing: number,
  snapshotsMalformed: number,
  /** The last ones; 0 if there was none. */
  lastSnapshotWrittenS: number,
  lastSnapshotLoadedS: number,
  resyncs: v.strictObject(v.entriesFromList(RESYNC_REASONS, number)),
  /** Seconds from when changes were written until they are applied here. */
  lag: v.strictObject(histogram),
  /** Nodes that this beacon gave up, as another one heard them later; that it claimed again. */
  nodesLost: number,
  nodesClaimedAgain: number,
  claimsRefused: number,
  claimsFromFuture: number,
  /** Ranges of beacons' node ids that were found to differ from what these claim, and reloaded. */
  diverged: number,
  /** Whether no other beacon is in the directory, though --peers or the registry name some. */
  isAlone: v.boolean(),
  bytesPerRoute: number,
  /** Connections that ended, and calls that were refused, by reason. */
  failures: v.partial(v.strictObject(v.entriesFromList(STORE_FAILURES, number))),
};
export type DirectoryStats = StatsOf<typeof directoryStats>;

/** null without a directory. */
export const stats = { directory: v.nullable(v.strictObject(directoryStats)) };
export type Stats = StatsOf<typeof stats>;
