/** What is shown of the mesh. */
import * as v from "valibot";
import { counts, list, number, optional, type StatsOf, text } from "../kit/schema.ts";

const peerCheck = v.strictObject({
  sent: number,
  /** Checks that were not back within their round. */
  lost: number,
  /** Checks that came back from another source than this beacon. */
  disagreed: number,
  /** Round trip of the last successful check in milliseconds; null if there was none. */
  lastRttMs: optional,
});
export type PeerCheck = v.InferOutput<typeof peerCheck>;

const peerStats = v.strictObject({
  /** "ip:port" */
  address: text,
  /** Number of nodes that are reached through the peer. */
  routes: number,
  /** Seconds since its last gossip or directory entry; null if there was none. */
  gossipAgeS: optional,
  /** Whether its nodes come from the directory, not from gossip. */
  isInDirectory: v.boolean(),
  /** Results of the self-check through the peer; null if there are none. */
  check: v.nullable(peerCheck),
});
export type PeerStats = v.InferOutput<typeof peerStats>;

const meshStats = v.strictObject({
  peers: list(peerStats),
  /** Unlisted beacons whose gossip is accepted, and nodes that are reached through them. */
  learnedPeers: number,
  learnedRoutes: number,
  routesMax: number,
  /** Announced nodes for which the route table had no room. */
  routesRefused: number,
  /** Announced nodes beyond --max-peer-routes. */
  routesIgnored: number,
  /** Gossip that the main thread rejected, by reason. */
  gossipRefused: counts,
  gossipSent: number,
  gossipSendErrors: number,
  /** Gossip rounds whose message did not hold all nodes. */
  gossipTruncated: number,
  /** Rounds with the registry by outcome; "ok" is success. */
  registryRounds: counts,
  /** Unix seconds; null if there was none. */
  registryLastSuccessS: optional,
});
export type MeshStats = v.InferOutput<typeof meshStats>;

export const stats = { mesh: meshStats };
export type Stats = StatsOf<typeof stats>;
