/**
 * The mesh: the peer beacons, the nodes that they announce, and the nodes that this beacon
 * announces to them. This file wires its parts:
 * - peer-names.ts, peers.ts, learned-peers.ts: who the peers are
 * - own-addresses.ts: the addresses of this host
 * - gossip-in.ts, announcements.ts: a peer's gossip becomes routes
 * - gossip-out.ts, gossip-sender.ts: gossip to the peers
 * - registry-rounds.ts: the list of beacons
 * - self-check.ts: whether peers reach this beacon
 */
import type { Logger } from "pino";
import { LocalAddresses } from "../../shared/local-addresses.ts";
import { PeerTableOwner } from "../../shared/peers-owner.ts";
import { addressText } from "../kit/addresses.ts";
import { PeriodicTask } from "../kit/periodic-task.ts";
import { ThrottledLog } from "../kit/throttled-log.ts";
import { Announcements } from "./announcements.ts";
import { acceptsUnlisted, type MeshContext, type MeshDeps } from "./context.ts";
import { GossipIn } from "./gossip-in.ts";
import type { GossipKeys } from "./gossip-keys.ts";
import { GossipOut } from "./gossip-out.ts";
import { GossipSender } from "./gossip-sender.ts";
import { LearnedPeers } from "./learned-peers.ts";
import type { MeshReads } from "./options.ts";
import { OwnAddresses } from "./own-addresses.ts";
import { PeerNames } from "./peer-names.ts";
import { Peers } from "./peers.ts";
import { RegistryRounds } from "./registry-rounds.ts";
import { SelfCheck } from "./self-check.ts";
import type { MeshStats, PeerStats } from "./stats.ts";

export class Mesh {
  /** Whether another process sends for this beacon, so that this one sends nothing to peers. */
  isSilent = false;
  readonly announcements: Announcements;
  readonly names: PeerNames;
  readonly peers: Peers;
  readonly learned: LearnedPeers;
  /** Receives the gossip that workers admitted. */
  readonly gossipIn: GossipIn;
  readonly #gossipOut: GossipOut;
  readonly #sender: GossipSender;
  readonly #registry: RegistryRounds;
  readonly #selfCheck: SelfCheck;
  readonly #checking: PeriodicTask;
  readonly #context: MeshContext;

  constructor(deps: MeshDeps, config: MeshReads, keys: GossipKeys, log: Logger) {
    this.announcements = new Announcements(deps.routes, deps.nowMs);
    const context = this.#contextOf(deps, config, log);
    this.#context = context;
    this.names = new PeerNames(context);
    const own = new OwnAddresses(context, this.names);
    this.peers = new Peers(context, this.names, own, () => this.#gossipOut.soon());
    this.learned = new LearnedPeers(context);
    this.#sender = new GossipSender(deps.socket, config.beaconId, context.locals);
    this.#gossipOut = new GossipOut(context, this.peers, own, this.#sender);
    const { instance } = this.#sender;
    this.gossipIn = new GossipIn(context, this.peers, this.learned, own, instance);
    this.#selfCheck = new SelfCheck(context);
    this.#checking = context.task(
      "the self-check",
      () => {
        const { selfCheck, gossipIntervalMs } = context.config;
        return this.#selfCheck.round(selfCheck ? [...this.peers.all()] : [], gossipIntervalMs);
      },
      () => context.config.gossipIntervalMs,
    );
    this.#registry = new RegistryRounds(
      context,
      (localAddress) => own.toRegister(localAddress),
      (beacons, advertised) => {
        this.names.list(beacons, advertised);
        this.peers.refresh();
      },
    );
    this.#useKeys(keys);
    this.peers.apply(); // peers named by address are known before the first packet
  }

  #contextOf(deps: MeshDeps, config: MeshReads, log: Logger): MeshContext {
    const throttled = new ThrottledLog(log);
    return {
      ...deps,
      config,
      log,
      warn: (event, fields, message) =>
        throttled.warn(`${event} ${fields.reason}`, message, { event, ...fields }),
      table: new PeerTableOwner(deps.memory),
      locals: new LocalAddresses(deps.memory),
      announcements: this.announcements,
      isSilent: () => this.isSilent,
      task: (work, run, intervalMs) =>
        new PeriodicTask(run, intervalMs, (error) => deps.guard.report(work, error)),
    };
  }

  #useKeys({ keys }: GossipKeys): void {
    this.gossipIn.keys = keys;
    this.#sender.key = keys[0];
  }

  start(): void {
    this.#checking.start();
    this.#gossipOut.start();
    this.peers.start();
    this.#registry.start();
  }

  /** Applies another configuration, whose limits are in force. */
  reconfigure(config: MeshReads, keys: GossipKeys): void {
    const { limits } = this.#context;
    this.#context.config = config;
    this.#useKeys(keys);
    this.learned.remove(({ endpoint }) => !acceptsUnlisted(config) || limits.isDenied(endpoint));
    this.peers.refresh();
    this.#gossipOut.soon();
    this.#registry.soon();
    this.#checking.soon();
  }

  /** Runs about once a second. */
  tick(): void {
    this.peers.tick();
    this.learned.expire(this.#context.config.peerTimeoutMs);
    this.#selfCheck.tick();
    this.gossipIn.tick();
  }

  /** Ends all tasks, and withdraws this beacon's nodes from the peers. */
  async stop(): Promise<void> {
    const tasks = [this.#gossipOut, this.peers, this.#registry, this.#checking];
    await Promise.all(tasks.map((task) => task.stop()));
    this.#selfCheck.leave();
    if (!this.isSilent) await this.#gossipOut.withdraw();
  }

  /** Returns the peer with this number, learned or not; null if there is none. */
  peer(number: number): Pick<PeerStats, "address" | "gossipAgeS" | "isInDirectory"> | null {
    for (const { number: its, endpoint, lastSeenMs } of [
      ...this.peers.all(),
      ...this.learned.all(),
    ])
      if (its === number)
        return {
          address: addressText(endpoint),
          gossipAgeS: ageS(lastSeenMs),
          isInDirectory: this.announcements.isReleased(number),
        };
    return null;
  }

  stats(): MeshStats {
    return {
      peers: Array.from(this.peers.all(), ({ address, number, lastSeenMs }) => ({
        address,
        routes: this.announcements.routes(number),
        gossipAgeS: ageS(lastSeenMs),
        isInDirectory: this.announcements.isReleased(number),
        check: this.#selfCheck.statsOf(address),
      })),
      learnedPeers: this.learned.size,
      learnedRoutes: this.learned.routes,
      routesMax: this.#context.config.maxRoutes,
      routesRefused: this.announcements.refused,
      routesIgnored: this.gossipIn.routesIgnored,
      gossipRefused: { ...this.gossipIn.refused },
      gossipSent: this.#gossipOut.sent,
      gossipSendErrors: this.#gossipOut.sendErrors,
      gossipTruncated: this.#gossipOut.truncated,
      registryRounds: { ...this.#registry.outcomes },
      registryLastSuccessS: this.#registry.lastSuccessS ?? null,
    };
  }

  /** Number of nodes in the table that are this beacon itself. */
  get ownNodes(): number {
    return this.#selfCheck.ownNodes;
  }

  /** Warnings of a beacon that is ready. */
  get remarks(): readonly string[] {
    const { problem } = this.#registry;
    return [...this.#selfCheck.remarks, ...(problem === undefined ? [] : [problem])];
  }
}

const ageS = (lastSeenMs: number | undefined): number | null =>
  lastSeenMs === undefined ? null : (performance.now() - lastSeenMs) / 1000;
