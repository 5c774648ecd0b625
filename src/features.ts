/**
 * The features of a beacon. They are created and started in this order and stopped in reverse; each
 * may use those before it. Reasons for the order that types do not state:
 * - statistics: before the workers, so that its last line counts what they handled last.
 * - nodes: before the workers, so that its file is saved when no thread writes to the table.
 * - bridge: before the mesh and the directory, which leave before its connections end.
 * - admin: last, so that no request meets a service that has not started, or has stopped.
 */
import type * as v from "valibot";
import { admin } from "./control/admin/feature.ts";
import { statistics } from "./control/admin/statistics-log.ts";
import { bridge } from "./control/bridge/feature.ts";
import { directory } from "./control/directory/feature.ts";
import type { AnyFeature } from "./control/feature.ts";
import { keys } from "./control/keys/feature.ts";
import type { StatsOf } from "./control/kit/schema.ts";
import { limits } from "./control/limits/feature.ts";
import { listeners } from "./control/listeners/feature.ts";
import { log } from "./control/log/feature.ts";
import { mesh } from "./control/mesh/feature.ts";
import { nodes } from "./control/nodes/feature.ts";
import { program } from "./control/process/feature.ts";
import { punch } from "./control/punch/feature.ts";
import { sockets } from "./control/sockets/feature.ts";
import { upgrades } from "./control/upgrade/feature.ts";
import { workers } from "./control/workers/feature.ts";

export type { BridgeStats } from "./control/bridge/bridge.ts";
export type { DirectoryStats } from "./control/directory/stats.ts";
export type { MeshStats, PeerStats } from "./control/mesh/stats.ts";
export type { PunchedPairs } from "./control/punch/outcomes.ts";
export type { WorkerStats } from "./control/workers/metrics.ts";
export type { PacketStats } from "./control/workers/packet-stats.ts";

export const features = [
  program,
  log,
  sockets,
  statistics,
  limits,
  nodes,
  workers,
  keys,
  punch,
  listeners,
  bridge,
  mesh,
  directory,
  upgrades,
  admin,
] as const;

/** The metrics of all features. */
export const metrics = features.flatMap((feature: AnyFeature) => feature.metrics ?? []);

type All<T> = (T extends unknown ? (one: T) => void : never) extends (all: infer Every) => void
  ? Every
  : never;
type Statistics<F> = F extends { readonly stats: infer Entries extends v.ObjectEntries }
  ? StatsOf<Entries>
  : never;

/** All statistics, by their place in `/api/stats`. */
export type Stats = All<Statistics<(typeof features)[number]>>;
