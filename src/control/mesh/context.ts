/** Dependencies of the mesh, and the context that its parts share. */

import type { Logger } from "pino";
import type { SocketAddress } from "../../../ffi/endpoint.ts";
import type { UdpSocket } from "../../../ffi/socket.ts";
import type { LocalAddresses } from "../../shared/local-addresses.ts";
import type { SharedMemory } from "../../shared/memory.ts";
import type { NodeTableOwner } from "../../shared/nodes-owner.ts";
import type { PeerTableOwner } from "../../shared/peers-owner.ts";
import type { RouteTableOwner } from "../../shared/routes-owner.ts";
import type { Guard } from "../kit/guard.ts";
import type { PeriodicTask } from "../kit/periodic-task.ts";
import type { Limits } from "../limits/limits.ts";
import type { SourceAddresses } from "../sockets/source-addresses.ts";
import type { Announcements } from "./announcements.ts";
import type { MeshReads } from "./options.ts";

export interface MeshDeps {
  readonly guard: Pick<Guard, "report">;
  readonly memory: SharedMemory;
  readonly nodes: NodeTableOwner;
  /** The socket that sends gossip. */
  readonly socket: UdpSocket;
  readonly address: SocketAddress;
  /** Returns whether packets to an endpoint can leave from the public port. */
  readonly reaches: (endpoint: Int32Array) => boolean;
  /** The endpoints that peers may not have. */
  readonly limits: Pick<Limits, "isDenied" | "isNoHost">;
  readonly routes: RouteTableOwner;
  readonly sources: Pick<SourceAddresses, "isOn">;
  /** Clock for the time of claims. */
  readonly nowMs?: () => number;
}

/** Routes to peers from another source than gossip: the directory. */
export interface OtherRoutes {
  /** Routes for which there was no room. */
  readonly routesRefused: number;
  /** Withdraws the routes of a peer number that another peer is about to get. */
  forget(number: number): Promise<void>;
  /** Gossip is about to claim a route. @param isNew whether the last list lacks the node */
  claimedByGossip(nodeId: number, isNew: boolean): void;
  /** A route of gossip was withdrawn. */
  withdrawnByGossip(nodeId: number): void;
}

/** Fields of a log line; warnings with the same event and reason are logged once a minute. */
export type Warn = (
  event: string,
  fields: { readonly reason?: string; readonly [field: string]: unknown },
  message: string,
) => void;

export interface MeshContext extends MeshDeps {
  /** The options in force; `reconfigure` replaces them. */
  config: MeshReads;
  readonly log: Logger;
  readonly warn: Warn;
  readonly table: PeerTableOwner;
  readonly locals: LocalAddresses;
  readonly announcements: Announcements;
  /** Whether another process sends for this beacon. */
  readonly isSilent: () => boolean;
  /** Returns a task that logs its errors under the name of its work. */
  readonly task: (
    work: string,
    run: (signal: AbortSignal) => Promise<void>,
    intervalMs: () => number,
  ) => PeriodicTask;
}

/** Whether to accept gossip of unlisted beacons: by choice only, as any host can send it. */
export const acceptsUnlisted = ({ gossipStrict }: Pick<MeshReads, "gossipStrict">): boolean =>
  gossipStrict === "off";
