/**
 * The mesh: the peer beacons, what this beacon tells them of its nodes, and what they tell of
 * theirs.
 *
 * Peers are those of the configuration together with those that the registry lists. Workers take
 * gossip from them alone, unless the operator has strangers believed, too, and hand it over in
 * their mailboxes. Where there is a key, what is not signed with it is not believed.
 */
import type { Logger } from "pino";
import {
  ENDPOINT_WORDS,
  endpointOf,
  hasNoPort,
  isIPv4,
  isLinkLocal,
  isLoopback,
  localNumber,
  type SocketAddress,
  setLocalNumber,
} from "../../../ffi/endpoint.ts";
import { EAGAIN, errnoName } from "../../../ffi/errno.ts";
import { hostPort, type UdpSocket } from "../../../ffi/socket.ts";
import {
  ConfigError,
  type HostPort,
  isWildcard,
  parseHostNamePort,
  shown,
} from "../../config/units.ts";
import { SYNC_BYTES, SYNC_COUNT_AT } from "../../protocol.ts";
import { GOSSIP_REJECTIONS, type GossipRejection } from "../../shared/counters.ts";
import { LocalAddresses } from "../../shared/local-addresses.ts";
import type { Mail } from "../../shared/mailbox.ts";
import {
  CLOCK_S,
  GOSSIP,
  LAST_REJECTED_SOURCE,
  LAST_REJECTION,
  LEARNED_PEERS_MAX,
  PEERS_MAX,
  type SharedMemory,
} from "../../shared/memory.ts";
import type { NodeTable } from "../../shared/nodes.ts";
import { isLearned, PeerTable } from "../../shared/peers.ts";
import { type RouteTable, UNMARKED } from "../../shared/routes.ts";
import { addressText, withoutZone } from "../kit/addresses.ts";
import { Guard } from "../kit/guard.ts";
import { PeriodicTask } from "../kit/periodic-task.ts";
import { ThrottledLog } from "../kit/throttled-log.ts";
import type { Limits } from "../limits/limits.ts";
import { scanNodes } from "../nodes/scan.ts";
import {
  type HostAddress,
  hostAddresses,
  type SourceAddresses,
} from "../sockets/source-addresses.ts";
import type { MailTaker } from "../workers/mail-reader.ts";
import { Announcements } from "./announcements.ts";
import type { GossipKeys } from "./gossip-keys.ts";
import { GossipSender } from "./gossip-sender.ts";
import {
  CLOCK_DIFFERENCE_MS_MAX,
  INSTANCES_MAX,
  Instances,
  readSignature,
  SIGNATURE_REFUSALS,
  type Signature,
} from "./gossip-signature.ts";
import type { HeardInstances, MeshNames, PeerClaims, PeerNodes } from "./hand-over.ts";
import { forgetPeer, LearnedPeers } from "./learned-peers.ts";
import type { MeshConfig, MeshReads } from "./options.ts";
import type { ListedBeacon } from "./registry.ts";
import { RegistryRounds } from "./registry-rounds.ts";
import { Resolver } from "./resolver.ts";
import { type CheckedPeer, type PeerCheck, SelfCheck } from "./self-check.ts";

/** How often names are looked up anew. */
const RESOLVE_MS = 30_000;
/**
 * Messages taken from one mailbox before other things have their turn: with the largest, about a
 * millisecond.
 */
const MAIL_TURN_MAX = 16;
/** Of routes that the directory told another process of: any but that of gossip's. */
const FLEET_MARK = UNMARKED + 1;
/** Addresses of this host that gossip to a peer leaves from before the peer was heard. */
const SOURCES_TRIED_MAX = 16;
/**
 * Rounds of gossip without a message to the present local address, until another one takes its
 * place.
 */
const LOCAL_ROUNDS = 3;
/** Addresses of a host name that another process of this beacon is told. */
const ADDRESSES_TOLD_MAX = 8;

const REJECTION_ADVICE: Record<GossipRejection, string> = {
  short: "it is cut short",
  count: "it holds fewer nodes than it says",
  unknown_peer:
    "that is no peer of this beacon: if it should be one, name this address in --peers, or see that the registry lists it so",
  own_id: "it carries this beacon's own id: give each beacon its own --beacon-id",
  peer_limit: "that peer says more than it can have to say, or somebody else does in its name",
  stranger_limit:
    "too many strangers gossip: name this beacon's peers in --peers, and set --gossip-strict on",
  mailbox_full: "too much of it at once",
};

/**
 * Why gossip that workers took is not believed: it comes from where no host can be, or from one
 * stranger too many; or its signature.
 */
const GOSSIP_REFUSALS = ["denied_endpoint", "learned_limit", ...SIGNATURE_REFUSALS] as const;
type GossipRefusal = (typeof GOSSIP_REFUSALS)[number];

const REFUSAL_ADVICE: Record<Exclude<GossipRefusal, "duplicate">, string> = {
  denied_endpoint: "nobody may be there (--deny-endpoint)",
  learned_limit: `there are ${LEARNED_PEERS_MAX} learned peers: name this beacon's peers in --peers, and set --gossip-strict on`,
  unsigned: "it is not signed: give that beacon the same --gossip-key-file",
  forged: "its signature is of another key: give all beacons the same --gossip-key-file",
  clock: `its time is more than ${CLOCK_DIFFERENCE_MS_MAX / 1000} s from this host's: see that both keep the right time`,
  replayed:
    "it was said before, or elsewhere: somebody replays it, or that beacon reaches this one in two ways",
  too_many_instances: `more than ${INSTANCES_MAX} beacons have the key, or start again all the time`,
};

/** A peer's endpoint: what gossip comes from and goes to. */
interface Peer {
  readonly number: number;
  /** "ip:port" */
  readonly address: string;
  /** With the local address that packets to it leave from. */
  readonly endpoint: Int32Array;
  /** When it was last heard, on the clock of performance.now. */
  heardMs: number | undefined;
  /**
   * And since when it has been heard without a silence that was too long; of no meaning while
   * heardMs is undefined.
   */
  heardSinceMs: number;
  /** Why the last gossip to it was refused by the kernel, or 0. */
  sendErrno: number;
  /**
   * When gossip last came to the local address that packets to it leave from; -Infinity before the
   * first.
   */
  localHeardMs: number;
}

export interface PeerStats {
  /** "ip:port" */
  readonly address: string;
  /** Nodes that are reached through it. */
  readonly routes: number;
  /** Seconds since its last gossip, or its last entry in the directory; null if there was none. */
  readonly gossipAgeS: number | null;
  /** Whether the directory tells its nodes, and not gossip. */
  readonly isInDirectory: boolean;
  /** What this beacon's packets to itself through the peer told; null if there were none. */
  readonly check: PeerCheck | null;
}

export interface MeshStats {
  readonly peers: readonly PeerStats[];
  /** Strangers whose gossip is believed, and nodes that are reached through them. */
  readonly learnedPeers: number;
  readonly learnedRoutes: number;
  readonly routesMax: number;
  /** Nodes that peers announced and that found no room among the routes. */
  readonly routesRefused: number;
  /** Nodes in gossip beyond what counts of one peer's. */
  readonly routesIgnored: number;
  /** Gossip that workers took and that is not believed, by reason. */
  readonly gossipRefused: Readonly<Record<string, number>>;
  readonly gossipSent: number;
  readonly gossipSendErrors: number;
  /** Gossip rounds in which not all nodes fitted into the message. */
  readonly gossipTruncated: number;
  /** Rounds with the registry by outcome; "ok" is the good one. */
  readonly registryRounds: Readonly<Record<string, number>>;
  /** Unix seconds; null if there was none. */
  readonly registryLastSuccessS: number | null;
}

/** What the mesh is made of. */
export interface MeshParts {
  readonly memory: SharedMemory;
  readonly nodes: NodeTable;
  /** Gossip leaves from here. */
  readonly socket: UdpSocket;
  readonly address: SocketAddress;
  /** Whether packets to an endpoint can leave from the public port. */
  readonly reaches: (endpoint: Int32Array) => boolean;
  /** Where peers may not be. */
  readonly limits: Pick<Limits, "isDenied" | "isNoHost">;
  readonly routes: RouteTable;
  readonly sources: Pick<SourceAddresses, "isOn">;
  /** What claims of nodes are stamped with. */
  readonly nowMs?: () => number;
}

/**
 * Whether gossip of unlisted beacons is accepted: only where the operator chose it, since anybody
 * can send it.
 */
export function believesStrangers({ gossipStrict }: Pick<MeshConfig, "gossipStrict">): boolean {
  return gossipStrict === "off";
}

/** Who has routes to peers that the mesh knows nothing of: the directory. */
export interface OtherRoutes {
  /** Routes for which there was no room. */
  readonly routesRefused: number;
  /** A peer number is about to be another's: its routes are to be withdrawn. */
  forget(number: number): Promise<void>;
  /**
   * A peer's gossip is about to have a node's route.
   * @param isNew whether it did not name the node before
   */
  claimedByGossip(nodeId: number, isNew: boolean): void;
  /** A route of gossip's was withdrawn. */
  withdrawnByGossip(nodeId: number): void;
}

export class Mesh {
  /** Takes the gossip that workers let through. */
  readonly mail: MailTaker = {
    kind: GOSSIP,
    turnMax: MAIL_TURN_MAX,
    receive: (mail) => this.#receive(mail),
  };
  readonly #peers = new Map<string, Peer>(); // by address
  /** Addresses of each "host:port" that a peer was named by, in the order to try them. */
  #addresses = new Map<string, readonly string[]>();
  /**
   * Names of the beacons that the registry listed in one of the last two rounds, and in the last
   * one.
   */
  #listed: readonly string[] = [];
  #lastListed: readonly string[] = [];
  #advertised = "";
  /** Names of the beacons that the directory tells of. */
  #fleet: readonly string[] = [];
  /**
   * Before it is known who is in the directory, nobody is gossiped to: old nodes of ours might be
   * taken for new ones.
   */
  #awaitsFleet: boolean;
  otherRoutes: OtherRoutes | undefined;
  readonly #table: PeerTable;
  readonly #announcements: Announcements;
  readonly #locals: LocalAddresses;
  readonly #learned: LearnedPeers;
  readonly #sender: GossipSender;
  readonly #instances: Instances;
  #keys: readonly string[] = [];
  readonly #resolver: Resolver;
  readonly #registry: RegistryRounds;
  readonly #gossip: PeriodicTask;
  readonly #resolving: PeriodicTask;
  readonly #selfCheck: SelfCheck;
  readonly #checking: PeriodicTask;
  readonly #complaints: ThrottledLog;
  #gossipSent = 0;
  #gossipSendErrors = 0;
  #gossipTruncated = 0;
  #routesIgnored = 0;
  readonly #refused = Object.fromEntries(GOSSIP_REFUSALS.map((reason) => [reason, 0])) as Record<
    GossipRefusal,
    number
  >;
  #hasWarnedOfStrangers = false;
  #sourcesWereOn: boolean;
  /** Rounds of gossip, from which it follows which addresses are tried. */
  #rounds = 0;
  /**
   * Whether another process speaks for this beacon: nothing is sent to peers, not at the end
   * either.
   */
  isSilent = false;

  constructor(
    private readonly parts: MeshParts,
    private config: MeshReads,
    keys: GossipKeys,
    private readonly log: Logger,
  ) {
    const { memory, socket } = parts;
    this.#complaints = new ThrottledLog(log);
    this.#table = new PeerTable(memory);
    this.#locals = new LocalAddresses(memory);
    this.#sourcesWereOn = parts.sources.isOn;
    this.#awaitsFleet = config.directory !== "off";
    this.#announcements = new Announcements(parts.routes, parts.nowMs, {
      claims: (nodeId, isNew) => this.otherRoutes?.claimedByGossip(nodeId, isNew),
      withdrew: (nodeId) => this.otherRoutes?.withdrawnByGossip(nodeId),
    });
    this.#learned = new LearnedPeers(this.#table, this.#announcements, log);
    this.#sender = new GossipSender(socket, config.beaconId, this.#locals);
    this.#instances = new Instances(this.#sender.instance, (address) => this.#peers.has(address));
    this.#useKeys(keys);
    this.#resolver = new Resolver(log);
    const guard = new Guard(log);
    this.#gossip = new PeriodicTask(
      (signal) => this.#sendGossip(signal),
      () => this.config.gossipIntervalMs,
      (error) => guard.report("sending gossip", error),
    );
    this.#resolving = new PeriodicTask(
      (signal) => this.#resolve(signal),
      () => RESOLVE_MS,
      (error) => guard.report("resolving the peers' names", error),
    );
    this.#selfCheck = new SelfCheck({
      memory,
      nodes: parts.nodes,
      address: parts.address,
      complain: (about, message) => this.#complain(about, message),
    });
    this.#checking = new PeriodicTask(
      () => this.#selfCheck.round(this.#checkedPeers(), this.config.gossipIntervalMs),
      () => this.config.gossipIntervalMs,
      (error) => guard.report("the self-check", error),
    );
    this.#registry = new RegistryRounds(
      () => this.config,
      (localAddress) => this.#defaultAdvertised(localAddress),
      (beacons, advertised) => this.#list(beacons, advertised),
      log,
    );
    this.#applyPeers(); // those named by address are known before the first packet
  }

  start(): void {
    this.#checking.start();
    this.#gossip.start();
    this.#resolving.start();
    this.#registry.start();
  }

  /** Goes on with another configuration, whose limits are in force. */
  reconfigure(config: MeshReads, keys: GossipKeys): void {
    this.config = config;
    this.#useKeys(keys);
    const { limits } = this.parts;
    this.#learned.forget((endpoint) => !believesStrangers(config) || limits.isDenied(endpoint));
    this.#applyPeers();
    this.#gossip.soon();
    this.#resolving.soon();
    this.#registry.soon();
    this.#checking.soon();
  }

  /** To be called about every second: withdraws the routes of peers that went silent. */
  tick(): void {
    if (this.parts.sources.isOn !== this.#sourcesWereOn) {
      this.#sourcesWereOn = this.parts.sources.isOn;
      this.#useAdvertised();
    }
    const nowMs = performance.now();
    for (const peer of this.#peers.values()) {
      // its lease says whether it is there
      if (this.#announcements.isReleased(peer.number)) continue;
      if (peer.heardMs === undefined || nowMs - peer.heardMs <= this.config.peerTimeoutMs) continue;
      peer.heardMs = undefined;
      const routes = this.#announcements.routes(peer.number);
      this.log.warn({ peer: peer.address, routes }, "peer went silent, its routes are withdrawn");
      void this.#announcements.withdraw(peer.number);
    }
    this.#learned.expire(this.config.peerTimeoutMs);
    this.#selfCheck.tick();
    this.#reportRejections();
  }

  /** Ends all that goes on, and tells the peers that this beacon has no nodes any more. */
  async stop(): Promise<void> {
    const tasks = [this.#gossip, this.#resolving, this.#registry, this.#checking];
    await Promise.all(tasks.map((task) => task.stop()));
    this.#selfCheck.leave();
    if (this.isSilent) return;
    this.#sender.clear();
    await this.#sendToAll();
  }

  /**
   * Where the peer of this number is, learned or not, how long ago it was heard, and where; null if
   * there is none.
   */
  peer(number: number): Pick<PeerStats, "address" | "gossipAgeS" | "isInDirectory"> | null {
    for (const peer of this.#allPeers()) {
      if (peer.number === number)
        return {
          address: addressText(peer.endpoint),
          gossipAgeS: gossipAgeS(peer.heardMs),
          isInDirectory: this.#announcements.isReleased(number),
        };
    }
    return null;
  }

  /** Known ones and learned ones. The list changes when peers come and go. */
  *#allPeers(): Iterable<Pick<Peer, "number" | "endpoint" | "heardMs">> {
    yield* this.#peers.values();
    yield* this.#learned.peers;
  }

  stats(): MeshStats {
    return {
      peers: Array.from(this.#peers.values(), ({ address, number, heardMs }) => ({
        address,
        routes: this.#announcements.routes(number),
        gossipAgeS: gossipAgeS(heardMs),
        isInDirectory: this.#announcements.isReleased(number),
        check: this.#selfCheck.statsOf(address),
      })),
      learnedPeers: this.#learned.size,
      learnedRoutes: this.#learned.routes,
      routesMax: this.config.maxRoutes,
      routesRefused: this.routesRefused,
      routesIgnored: this.#routesIgnored,
      gossipRefused: { ...this.#refused },
      gossipSent: this.#gossipSent,
      gossipSendErrors: this.#gossipSendErrors,
      gossipTruncated: this.#gossipTruncated,
      registryRounds: { ...this.#registry.outcomes },
      registryLastSuccessS: this.#registry.lastSuccessS ?? null,
    };
  }

  /** Nodes in the table that are this beacon itself. */
  get ownNodes(): number {
    return this.#selfCheck.ownNodes;
  }

  /** What an operator should know of the mesh, though the beacon is ready. */
  get remarks(): readonly string[] {
    const { problem } = this.#registry;
    return [...this.#selfCheck.remarks, ...(problem === undefined ? [] : [problem])];
  }

  /** Routes of gossip for which there was no room, since the start. */
  get routesRefused(): number {
    return this.#announcements.refused;
  }

  // What the directory tells (FleetPeers).

  setFleet(names: readonly string[]): void {
    this.#fleet = names;
    this.#applyPeers();
    this.#resolving.soon();
    if (!this.#awaitsFleet) return;
    this.#awaitsFleet = false;
    this.#gossip.soon();
  }

  numberOf(name: string): number | undefined {
    for (const address of this.#addresses.get(name) ?? []) {
      const peer = this.#peers.get(address);
      if (peer !== undefined) return peer.number;
    }
    return undefined;
  }

  follow(number: number): Promise<void> {
    return this.#announcements.release(number);
  }

  unfollow(number: number): void {
    this.#announcements.takeBack(number);
  }

  heard(number: number): void {
    for (const peer of this.#peers.values()) if (peer.number === number) this.#hear(peer);
  }

  // What another process of this beacon takes over.

  /** What peers are named by beside the configuration, and where names led. */
  get names(): MeshNames {
    const ofOneRound = (listed: readonly string[]) => listed.slice(0, PEERS_MAX);
    const lastListed = ofOneRound(this.#lastListed);
    return {
      advertised: this.#advertised,
      listed: ofOneRound(this.#listed),
      lastListed,
      fleet: ofOneRound(this.#fleet),
      hosts: this.#resolver.hosts
        .slice(0, PEERS_MAX)
        .map(([host, addresses]) => [host, addresses.slice(0, ADDRESSES_TOLD_MAX)]),
    };
  }

  adoptNames({ advertised, listed, lastListed, hosts, fleet = [] }: MeshNames): void {
    for (const [host, addresses] of hosts) this.#resolver.adopt(host, addresses);
    this.#advertised = advertised;
    this.#listed = this.config.registry === "off" ? [] : listed;
    this.#lastListed = lastListed;
    this.#fleet = this.config.directory === "off" ? [] : fleet;
    this.#applyPeers();
  }

  /** The beacons that the directory told of. */
  get fleet(): readonly string[] {
    return this.#fleet;
  }

  /** The numbers and endpoints of the peers whose nodes the directory tells. */
  *toldPeers(): Iterable<Pick<Peer, "number" | "endpoint">> {
    for (const peer of this.#peers.values())
      if (this.#announcements.isReleased(peer.number)) yield peer;
  }

  notFollowed(): number {
    let count = 0;
    for (const { number } of this.#peers.values())
      if (!this.#announcements.isReleased(number)) count++;
    return count;
  }

  /** Takes over what the directory had told of a peer's nodes, unless it is none here. */
  adoptClaims({ endpoint, nodeIds, timesMs }: PeerClaims): void {
    const peer = this.#peers.get(addressText(endpoint));
    if (peer === undefined) return;
    void this.#announcements.release(peer.number);
    for (let i = 0; i < nodeIds.length; i++)
      this.parts.routes.claim(nodeIds[i]!, peer.number, timesMs[i]!, FLEET_MARK);
  }

  /** What signed gossip showed of its senders: whoever goes on with it is fooled by no replay. */
  get instances(): HeardInstances {
    const nowMs = performance.now();
    return this.#instances
      .heard()
      .map(([instance, { source, timeMs, steadyMs }]) => [
        instance.toString(16),
        source,
        timeMs,
        Math.max(0, Math.round(nowMs - steadyMs)),
      ]);
  }

  adoptInstances(instances: HeardInstances): void {
    const nowMs = performance.now();
    for (const [instance, source, timeMs, ageMs] of instances)
      this.#instances.adopt(BigInt(`0x${instance}`), { source, timeMs, steadyMs: nowMs - ageMs });
  }

  /** All peers, and what is reached through them. The lists change when peers announce others. */
  *peerNodes(): Iterable<PeerNodes> {
    for (const { number, endpoint, heardMs } of this.#allPeers())
      yield {
        endpoint,
        isLearned: isLearned(number),
        heardAgeMs: heardMs === undefined ? undefined : performance.now() - heardMs,
        nodeIds: this.#announcements.list(number),
      };
  }

  /**
   * Takes a peer's nodes over, unless it is none here.
   * @returns settles when the routes are in force
   */
  async adoptPeerNodes({ endpoint, isLearned, heardAgeMs, nodeIds }: PeerNodes): Promise<void> {
    if (heardAgeMs === undefined) return;
    const peer = this.#peers.get(addressText(endpoint));
    if (peer !== undefined) {
      this.#sendFrom(peer, endpoint);
      peer.heardMs = performance.now() - heardAgeMs;
      await this.#announcements.announce(peer.number, nodeIds);
    } else if (isLearned && believesStrangers(this.config) && this.#mayBePeer(endpoint)) {
      const number = this.#learned.hear(addressText(endpoint), endpoint);
      if (number !== undefined) await this.#announcements.announce(number, nodeIds);
    }
  }

  // Who the peers are.

  async #resolve(signal: AbortSignal): Promise<void> {
    const hosts = new Set(this.#names().map(({ host }) => host));
    this.#resolver.retain(hosts);
    const resolved = Array.from(hosts, async (host) => {
      // Each as soon as it is there: one slow name does not hold up the others.
      if ((await this.#resolver.resolve(host, signal)) && !signal.aborted) this.#applyPeers();
    });
    await Promise.all(resolved);
  }

  #list(beacons: readonly ListedBeacon[], advertised: string): void {
    this.#advertised = advertised;
    const names = beacons.filter(({ id }) => id !== this.config.beaconId).map(({ addr }) => addr);
    // Whoever is missing for one round is still there: a registry that lost its memory gets it back
    // within a round.
    this.#listed = this.config.registry === "off" ? [] : [...names, ...this.#lastListed];
    this.#lastListed = names;
    this.#applyPeers();
    this.#resolving.soon();
  }

  /** What peers are named by, each once. */
  #names(): readonly (HostPort & { readonly name: string })[] {
    const names = new Set([...this.config.peers, ...this.#fleet, ...this.#listed]);
    names.delete(this.#advertised);
    // Before any of them is looked up: the list is the registry's, and may be of any length.
    if (names.size > PEERS_MAX) this.#tooMany(names.size);
    const parsed: (HostPort & { readonly name: string })[] = [];
    const strange: string[] = [];
    for (const name of Array.from(names).slice(0, PEERS_MAX)) {
      try {
        parsed.push({ name, ...parseHostNamePort(name) });
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        strange.push(`${shown(name)}: ${error.message}`);
      }
    }
    if (strange.length > 0)
      this.#complain(
        "strange",
        `${this.config.directory === "off" ? "the registry lists" : "the registry and the directory list"} ${strange.length} beacons without an address, such as ${strange[0]}`,
      );
    return parsed;
  }

  /** Brings the peers in line with their names and what is known of those. */
  #applyPeers(): void {
    const own = this.#ownAddresses();
    const wanted = new Map<string, Int32Array>();
    this.#addresses = new Map();
    const { limits } = this.parts;
    for (const { name, host, port } of this.#names()) {
      const known = this.#resolver.known(host);
      const endpoints = known
        .map((address) => endpointOf(address, port))
        .filter(this.parts.reaches);
      if (known.length > 0 && endpoints.length === 0) {
        this.#complain(
          "family",
          `peer ${name} cannot be reached: --addr serves another address family`,
        );
      }
      // --deny-endpoint is about whom strangers and the registry name; whom the operator names himself, he wants.
      const isDenied = (endpoint: Int32Array) =>
        this.config.peers.includes(name) ? limits.isNoHost(endpoint) : limits.isDenied(endpoint);
      const addresses: string[] = [];
      for (const endpoint of endpoints) {
        if (isDenied(endpoint)) {
          this.#complain(
            "denied",
            `peer ${name} is left out: ${addressText(endpoint)} is no host's, or denied`,
          );
          continue;
        }
        const address = addressText(endpoint);
        if (own.has(address)) continue;
        wanted.set(address, endpoint);
        addresses.push(address);
      }
      this.#addresses.set(name, addresses);
    }
    for (const [address, peer] of this.#peers) {
      if (!wanted.has(address)) void this.#remove(address, peer);
    }
    for (const [address, endpoint] of wanted) {
      if (!this.#peers.has(address)) this.#add(address, endpoint);
    }
    this.#useAdvertised();
  }

  #add(address: string, endpoint: Int32Array): void {
    const number = this.#table.add(endpoint, 0);
    if (number < 0) {
      this.#tooMany(PEERS_MAX + 1);
      return;
    }
    this.#peers.set(address, {
      number,
      address,
      endpoint,
      heardMs: undefined,
      heardSinceMs: 0,
      sendErrno: 0,
      localHeardMs: Number.NEGATIVE_INFINITY,
    });
    this.log.info({ peer: address }, "peer added");
    this.#gossip.soon();
  }

  #tooMany(peers: number): void {
    this.#complain(
      "peers",
      `${peers} peers or more: ${PEERS_MAX} is the limit, the others are left out`,
    );
  }

  async #remove(address: string, { number }: Peer): Promise<void> {
    this.#peers.delete(address);
    this.#announcements.takeBack(number);
    this.log.info({ peer: address }, "peer removed");
    await forgetPeer(number, this.#table, this.#announcements, this.otherRoutes);
  }

  /** "ip:port" of this beacon, in all ways that this host knows of. */
  #ownAddresses(): ReadonlySet<string> {
    const { address, port } = this.parts.address;
    const hosts = isWildcard(address) ? this.#hostAddresses().map(({ text }) => text) : [address];
    return new Set(hosts.map((host) => addressText(endpointOf(withoutZone(host), port))));
  }

  #hostAddresses(): readonly HostAddress[] {
    try {
      return hostAddresses();
    } catch {
      // A sandbox without netlink sockets. A beacon that names itself among its peers then gossips
      // with itself, which it rejects.
      this.#complain(
        "own",
        "this host does not tell its addresses: leave this beacon's own out of --peers",
      );
      return [];
    }
  }

  /**
   * The number of the local address that this beacon advertises, if packets to a peer can leave
   * from it: by that one the registry and the directory name this beacon. 0, the kernel's choice,
   * for none.
   */
  #advertisedLocal(endpoint: Int32Array): number {
    if (!this.parts.sources.isOn) return 0;
    const known = this.#advertisedAddresses();
    const isSame = (one: Int32Array, other: Int32Array) =>
      one.every((word, i) => i === 0 || i === ENDPOINT_WORDS - 1 || word === other[i]);
    const advertised = this.#sourcesTo(endpoint).find((own) =>
      known.some((one) => isSame(one, own.endpoint)),
    );
    return advertised ? this.#locals.numberOf(advertised.endpoint) : 0;
  }

  #advertisedAddresses(): readonly Int32Array[] {
    const { advertiseAddr } = this.config;
    const name = advertiseAddr === "auto" ? this.#advertised : advertiseAddr;
    try {
      return this.#resolver
        .known(parseHostNamePort(name).host)
        .map((address) => endpointOf(address, 0));
    } catch (error) {
      if (error instanceof ConfigError) return []; // none yet, or another process's mistake
      throw error;
    }
  }

  /** The addresses of this host that packets to an endpoint may leave from. */
  #sourcesTo(endpoint: Int32Array): readonly HostAddress[] {
    return this.#hostAddresses().filter(
      ({ endpoint: own }) =>
        isIPv4(own, 0) === isIPv4(endpoint, 0) &&
        isLoopback(own, 0) === isLoopback(endpoint, 0) &&
        isLinkLocal(own, 0) === isLinkLocal(endpoint, 0),
    );
  }

  /**
   * Has packets to a peer leave from the local address that the peer sent to: by that one it knows
   * this beacon. While gossip comes to the present one, no other takes its place: one forged
   * message must not move it. A peer of the directory knows the advertised one.
   */
  #sendFrom(peer: Peer, endpoint: Int32Array): void {
    const number = localNumber(endpoint, 0);
    if (number === 0 || this.#announcements.isReleased(peer.number)) return;
    const nowMs = performance.now();
    const isPresent = number === localNumber(peer.endpoint, 0);
    if (!isPresent && nowMs - peer.localHeardMs <= LOCAL_ROUNDS * this.config.gossipIntervalMs)
      return;
    peer.localHeardMs = nowMs;
    if (!isPresent) this.#setLocal(peer, number);
  }

  #setLocal(peer: Peer, number: number): void {
    setLocalNumber(peer.endpoint, 0, number);
    this.#table.setLocal(peer.number, peer.endpoint, 0);
  }

  /** Has packets to peers that were never heard leave from the advertised address. */
  #useAdvertised(): void {
    for (const peer of this.#peers.values()) {
      if (peer.localHeardMs !== Number.NEGATIVE_INFINITY) continue;
      const number = this.#advertisedLocal(peer.endpoint);
      if (number !== localNumber(peer.endpoint, 0)) this.#setLocal(peer, number);
    }
  }

  /** What the registry is told if the operator has not said it. */
  #defaultAdvertised(localAddress: string): string {
    const { address, port } = this.parts.address;
    return hostPort(isWildcard(address) ? localAddress : address, port);
  }

  /** Those through whom this beacon looks whether it is reached. */
  #checkedPeers(): readonly CheckedPeer[] {
    if (!this.config.selfCheck) return [];
    return Array.from(this.#peers.values(), ({ address, endpoint, heardMs, heardSinceMs }) => ({
      address,
      endpoint,
      heardSinceMs: heardMs === undefined ? undefined : heardSinceMs,
    }));
  }

  // Gossip out.

  async #sendGossip(signal: AbortSignal): Promise<void> {
    if (this.isSilent || this.#awaitsFleet) return;
    // Nobody is told by gossip: then it does not matter either that it would not hold all nodes.
    if ([...this.#peers.values()].every((peer) => this.#readsDirectory(peer))) return;
    const { memory, nodes } = this.parts;
    const ttlS = Math.ceil(this.config.nodeTtlMs / 1000);
    const leftOut = await this.#sender.collect(
      (visit) => scanNodes(nodes, visit, { signal }),
      nodes.size(),
      memory.words[CLOCK_S]!,
      ttlS,
    );
    if (signal.aborted || this.isSilent) return;
    if (leftOut > 0) {
      this.#gossipTruncated++;
      this.#complain(
        "truncated",
        `gossip holds the ${this.#sender.nodesMax} nodes seen last, which is what one datagram takes; peers are not told of ${leftOut} others`,
      );
    }
    await this.#sendToAll();
  }

  /**
   * To each peer, by the first of its addresses that it was heard from, or by all of them while
   * there is none: the kernel may take what leads nowhere. Ends at once if the socket's buffer
   * stays full.
   */
  async #sendToAll(): Promise<void> {
    this.#rounds++;
    const sent = new Set<Peer>();
    for (const addresses of this.#addresses.values()) {
      const peers = addresses.flatMap((address) => this.#peers.get(address) ?? []);
      if (peers.some((peer) => this.#readsDirectory(peer))) continue;
      const isHeard = ({ heardMs }: Peer) => heardMs !== undefined;
      for (const peer of [...peers.filter(isHeard), ...peers.filter((one) => !isHeard(one))]) {
        const errno = sent.has(peer) ? 0 : await this.#sendTo(peer);
        if (errno === EAGAIN) return;
        if (errno !== 0) continue;
        sent.add(peer);
        if (isHeard(peer)) break;
      }
    }
  }

  /** Whether a peer reads in the directory what nodes this beacon has. */
  #readsDirectory({ number, address }: Peer): boolean {
    return (
      this.#announcements.isReleased(number) ||
      this.#fleet.some((name) => this.#addresses.get(name)?.includes(address))
    );
  }

  /**
   * A peer that was not heard yet may know this beacon by any of its addresses, and rejects gossip
   * from the others: it is sent from each until the peer's own gossip shows by which.
   */
  async #sendTo(peer: Peer): Promise<number> {
    let errno = await this.#sender.send(peer.endpoint);
    if (peer.heardMs === undefined && this.parts.sources.isOn) {
      const endpoint = peer.endpoint.slice();
      const sources = this.#sourcesTo(endpoint);
      const from = (this.#rounds * SOURCES_TRIED_MAX) % Math.max(sources.length, 1);
      for (const source of [...sources.slice(from), ...sources.slice(0, from)].slice(
        0,
        SOURCES_TRIED_MAX,
      )) {
        setLocalNumber(endpoint, 0, this.#locals.numberOf(source.endpoint));
        if ((await this.#sender.send(endpoint)) === 0) errno = 0;
      }
    }
    if (errno === 0) this.#gossipSent++;
    else {
      this.#gossipSendErrors++;
      if (errno !== peer.sendErrno)
        this.log.warn(
          { peer: peer.address },
          `gossip cannot be sent (${errnoName(errno)}); it is tried again`,
        );
    }
    peer.sendErrno = errno;
    return errno;
  }

  // Gossip in.

  #useKeys({ keys }: GossipKeys): void {
    this.#keys = keys;
    this.#sender.key = keys[0];
  }

  #receive({ at, bytes, labelAt }: Mail): void {
    const { memory } = this.parts;
    const endpoint = memory.words.slice(labelAt, labelAt + ENDPOINT_WORDS);
    const address = addressText(endpoint);
    const isSigned = this.#keys.length > 0;
    const signature = isSigned
      ? this.#proof(memory.bytes.subarray(at, at + bytes), address)
      : undefined;
    if (isSigned && signature === undefined) return;
    const message = new DataView(memory.buffer, at, bytes);
    const nodes = message.getUint16(SYNC_COUNT_AT);
    const number = this.#senderOf(endpoint, address, nodes);
    if (number === undefined) return;
    // it has not read yet that this beacon follows it in the directory
    if (this.#announcements.isReleased(number)) return;
    const nodeIds = new Int32Array(this.#counted(nodes, address));
    for (let i = 0; i < nodeIds.length; i++) nodeIds[i] = message.getInt32(SYNC_BYTES + 4 * i);
    this.#table.refresh(number);
    if (signature !== undefined) {
      const { instance } = signature;
      this.#table.setInstance(
        number,
        Number(instance >> 32n) | 0,
        Number(instance & 0xffff_ffffn) | 0,
      );
    }
    void this.#announcements.announce(number, nodeIds);
  }

  /** The signature of a message that is to be believed, undefined for others. */
  #proof(message: Uint8Array, address: string): Signature | undefined {
    const signature = readSignature(message, this.#keys);
    if (typeof signature === "string") {
      this.#refuse(signature, address);
      return undefined;
    }
    const now = { wallMs: Date.now(), steadyMs: performance.now() };
    const refusal = this.#instances.accept(signature, address, now, this.config.peerTimeoutMs);
    if (refusal === undefined) return signature;
    const detail = refusal === "clock" ? ` (${clockText(signature, now.wallMs)})` : "";
    this.#refuse(refusal, address, detail);
    return undefined;
  }

  /**
   * The number of the peer whose gossip came, which may have been a stranger; undefined if that is
   * none, and is not to become one.
   */
  #senderOf(endpoint: Int32Array, address: string, nodes: number): number | undefined {
    const peer = this.#peers.get(address);
    if (peer !== undefined) {
      if (peer.heardMs === undefined)
        this.log.info({ peer: address, nodes }, "peer announces its nodes");
      this.#hear(peer);
      this.#sendFrom(peer, endpoint);
      return peer.number;
    }
    if (!believesStrangers(this.config)) return undefined; // removed since the worker asked
    if (!this.#mayBePeer(endpoint)) {
      this.#refuse("denied_endpoint", address);
      return undefined;
    }
    const number = this.#learned.hear(address, endpoint);
    if (number === undefined) this.#refuse("learned_limit", address);
    else if (this.#keys.length === 0 && !this.#hasWarnedOfStrangers) {
      this.#hasWarnedOfStrangers = true;
      this.log.warn(
        `gossip is believed from anybody, ${address} is the first: name this beacon's peers in --peers and set ` +
          "--gossip-strict on, or give all beacons a --gossip-key-file",
      );
    }
    return number;
  }

  #hear(peer: Peer): void {
    const nowMs = performance.now();
    if (peer.heardMs === undefined) peer.heardSinceMs = nowMs;
    peer.heardMs = nowMs;
  }

  /** Whether a stranger may be there. */
  #mayBePeer(endpoint: Int32Array): boolean {
    if (
      hasNoPort(endpoint, 0) ||
      !this.parts.reaches(endpoint) ||
      this.parts.limits.isDenied(endpoint)
    )
      return false;
    // forged: this beacon does not gossip with itself
    return !this.#ownAddresses().has(addressText(endpoint));
  }

  /** How many nodes of a peer's list count. */
  #counted(nodes: number, address: string): number {
    const { maxPeerRoutes } = this.config;
    if (nodes <= maxPeerRoutes) return nodes;
    this.#routesIgnored += nodes - maxPeerRoutes;
    this.#complain(
      "peer_routes",
      `gossip from ${address} names ${nodes} nodes: the first ${maxPeerRoutes} count (--max-peer-routes)`,
    );
    return maxPeerRoutes;
  }

  /** @param detail goes behind what is said of the reason */
  #refuse(reason: GossipRefusal, address: string, detail = ""): void {
    this.#refused[reason]++;
    if (reason === "duplicate") return;
    this.#complain(
      reason,
      `gossip from ${address} is not believed: ${REFUSAL_ADVICE[reason]}${detail}`,
    );
  }

  #reportRejections(): void {
    const { memory } = this.parts;
    const { words, shape } = memory;
    for (let worker = 0; worker < shape.workers; worker++) {
      const at = memory.workerWords(worker);
      const reason = GOSSIP_REJECTIONS[words[at + LAST_REJECTION]! - 1];
      if (reason === undefined) continue;
      words[at + LAST_REJECTION] = 0;
      const source = addressText(words, at + LAST_REJECTED_SOURCE);
      // it has become one meanwhile
      if (reason === "unknown_peer" && this.#peers.has(source)) continue;
      this.#complain(reason, `gossip from ${source} is rejected: ${REJECTION_ADVICE[reason]}`);
    }
  }

  #complain(about: string, message: string): void {
    this.#complaints.warn(about, message);
  }
}

function clockText({ timeMs }: Signature, nowMs: number): string {
  const seconds = Math.round(Math.abs(timeMs - nowMs) / 1000);
  return `${seconds} s ${timeMs > nowMs ? "ahead of" : "behind"} this one`;
}

/**
 * Seconds since a peer's last gossip, null if there was none.
 * @param heardMs when that was, on the clock of performance.now
 */
function gossipAgeS(heardMs: number | undefined): number | null {
  return heardMs === undefined ? null : (performance.now() - heardMs) / 1000;
}
