/** The directory of a beacon: what it asks of the real world. */
import { setTimeout } from "node:timers/promises";
import type { Logger } from "pino";
import { MonotonicClock } from "../../../ffi/clock.ts";
import type { SocketAddress } from "../../../ffi/endpoint.ts";
import { hostPort } from "../../../ffi/host-port.ts";
import { ConfigError } from "../../config/units.ts";
import { Arrivals } from "../../shared/arrivals.ts";
import { ARRIVALS_NOTED, HASH_SECRET, type SharedMemory } from "../../shared/memory.ts";
import { LOCK_RETRY_MS } from "../../shared/nodes.ts";
import { HEARD_SINCE, type NodeTableOwner } from "../../shared/nodes-owner.ts";
import { privateRouteMemory, RouteTableOwner } from "../../shared/routes-owner.ts";
import type { Guard } from "../kit/guard.ts";
import { ThrottledLog } from "../kit/throttled-log.ts";
import type { Mesh } from "../mesh/mesh.ts";
import { scanNodes } from "../nodes/scan.ts";
import { UNTOLD_MAX } from "./announcer.ts";
import { FleetClock } from "./clock.ts";
import { Directory } from "./directory.ts";
import type { DirectoryConfig } from "./options.ts";
import { connectStore, type Store } from "./store.ts";
import { StoreError } from "./store-error.ts";
import { type DirectoryStoreOptions, storeOptions } from "./store-options.ts";

const MIB = 1 << 20;
/** Arrivals taken in one go: some tenths of a millisecond, and 200,000 a second. */
const ARRIVALS_MAX = 4096;

const monotonic = new MonotonicClock();
const monotonicMs = () => monotonic.nowNs() / 1e6;

/** What has to be known from the beacon's very beginning, before the first node is. */
export class DirectorySetup {
  readonly clock = new FleetClock(monotonicMs, Date.now());
  readonly #arrivals: Arrivals;
  readonly #published: RouteTableOwner;

  constructor(
    memory: SharedMemory,
    private readonly nodes: NodeTableOwner,
    private readonly routes: RouteTableOwner,
  ) {
    memory.words[memory.rulesAt + ARRIVALS_NOTED] = 1;
    routes.keepClaims();
    this.#arrivals = new Arrivals(memory);
    const claimsMax = memory.shape.nodesMax + UNTOLD_MAX;
    this.#published = new RouteTableOwner(
      privateRouteMemory(claimsMax, memory.words[HASH_SECRET]!),
    );
    this.#published.keepClaims();
  }

  /** @param disconnect ends a node's connection to the bridge, if it has one */
  open(
    config: DirectoryConfig,
    address: SocketAddress,
    mesh: Mesh,
    disconnect: (nodeId: number) => unknown,
    log: Logger,
    guard: Pick<Guard, "report">,
  ): Directory {
    const { nodes } = this;
    const complaints = new ThrottledLog(log);
    // The node's shard is locked: retry later, and claim the node again if it was received
    // meanwhile.
    const retryToGiveUp = async (nodeId: number, heardMs: number): Promise<void> => {
      await sleep(LOCK_RETRY_MS);
      if (giveUp(nodeId, heardMs)) directory.nodeHeard(nodeId);
    };
    const giveUp = (nodeId: number, heardMs: number): boolean => {
      const result = nodes.removeUnlessHeardSince(nodeId, heardMs);
      if (result === 1) disconnect(nodeId);
      if (result === -1) void retryToGiveUp(nodeId, heardMs);
      return result === HEARD_SINCE;
    };
    const directory: Directory = new Directory({
      name:
        config.advertiseAddr === "auto"
          ? hostPort(address.address, address.port)
          : config.advertiseAddr,
      beaconId: config.beaconId,
      leaseMs: config.directoryLeaseMs,
      graceMs: config.directoryGraceMs,
      connect: (first, signal) => this.#connect(config, first, signal),
      table: this.routes,
      published: this.#published,
      own: {
        size: () => nodes.size(),
        heardMs: (nodeId) => nodes.heardMs(nodeId),
        giveUp,
        scan: (visit, pause, signal) => scanNodes(nodes, visit, { pause, signal }),
      },
      drainArrivals: (came) => this.#arrivals.drain(came, ARRIVALS_MAX).lost,
      peers: mesh.peers,
      isSilent: () => mesh.isSilent,
      clock: this.clock,
      monotonicMs,
      random: Math.random,
      sleep,
      info: (message) => log.info(message),
      complain: (about, message) => complaints.warn(about, message),
      internalError: (error) => guard.report("the directory", error),
    });
    nodes.removed = (nodeId) => directory.nodeWent(nodeId);
    mesh.announcements.others = directory;
    const { bytesPerRoute } = this.routes;
    const wholeMib = Math.ceil((config.maxRoutes * bytesPerRoute) / MIB);
    log.info(
      `directory: routes take ${Math.ceil(bytesPerRoute)} bytes each, ${wholeMib} MiB if all ${config.maxRoutes} of --max-routes come`,
    );
    return directory;
  }

  async #connect(config: DirectoryConfig, first: number, signal: AbortSignal): Promise<Store> {
    let options: DirectoryStoreOptions;
    try {
      options = storeOptions(config);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      throw new StoreError("denied", error.message); // a file that was good at the start
    }
    return connectStore({ ...options, signal }, first);
  }
}

/** Resolves after so long, or when the signal is given. */
const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
  setTimeout(ms, undefined, { ...(signal && { signal }) }).catch(() => {});
