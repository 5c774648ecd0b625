/**
 * The peer set: the beacons that `--peers`, the directory and the registry name, one entry for each
 * address. Also the directory's view of the peers (FleetPeers in src/control/directory/parts.ts).
 */
import { endpointOf, localNumber, setLocalNumber } from "../../../ffi/endpoint.ts";
import { PEERS_MAX } from "../../shared/memory.ts";
import { addressText } from "../kit/addresses.ts";
import type { PeriodicTask } from "../kit/periodic-task.ts";
import type { MeshContext } from "./context.ts";
import { forgetPeer } from "./learned-peers.ts";
import type { OwnAddresses } from "./own-addresses.ts";
import { type PeerName, type PeerNames, warnOfTooManyPeers } from "./peer-names.ts";

/** Interval of name lookups. */
const RESOLVE_MS = 30_000;
/** Gossip rounds without a message to the present local address until another may replace it. */
const LOCAL_ROUNDS = 3;

/** An endpoint that sends and receives gossip. */
export interface Peer {
  readonly number: number;
  /** "ip:port" */
  readonly address: string;
  /** With the local address that packets to it leave from. */
  readonly endpoint: Int32Array;
  /** Time on the clock of performance.now; undefined before the first and after a timeout. */
  lastSeenMs: number | undefined;
  /** Start of the period without a timeout that lastSeenMs ends; undefined with it. */
  seenSinceMs: number | undefined;
  /** Why the kernel refused the last gossip to it, or 0. */
  sendErrno: number;
  /** When gossip last came to the local address in `endpoint`; -Infinity before the first. */
  localSeenMs: number;
}

export class Peers {
  readonly #peers = new Map<string, Peer>(); // by address
  /** Addresses by name, in the order to try them. */
  #addresses = new Map<string, readonly string[]>();
  readonly #resolving: PeriodicTask;
  #sourcesWereOn: boolean;
  /** Whether the directory's beacons are unknown yet: gossip waits, or would claim old nodes. */
  isFleetAwaited: boolean;

  constructor(
    private readonly mesh: MeshContext,
    private readonly names: PeerNames,
    private readonly own: OwnAddresses,
    private readonly gossipSoon: () => void,
  ) {
    this.#sourcesWereOn = mesh.sources.isOn;
    this.isFleetAwaited = mesh.config.directory !== "off";
    this.#resolving = mesh.task(
      "resolving the peers' names",
      (signal) => names.resolve(signal, () => this.apply()),
      () => RESOLVE_MS,
    );
  }

  start(): void {
    this.#resolving.start();
  }

  stop(): Promise<void> {
    return this.#resolving.stop();
  }

  /** Applies changed names, and looks them up. */
  refresh(): void {
    this.apply();
    this.#resolving.soon();
  }

  /** Withdraws the routes of silent peers. Runs about once a second. */
  tick(): void {
    const { sources, announcements, config, log } = this.mesh;
    if (sources.isOn !== this.#sourcesWereOn) {
      this.#sourcesWereOn = sources.isOn;
      this.#useAdvertised();
    }
    const nowMs = performance.now();
    for (const peer of this.#peers.values()) {
      // A peer of the directory has a lease there instead.
      if (announcements.isReleased(peer.number)) continue;
      if (peer.lastSeenMs === undefined || nowMs - peer.lastSeenMs <= config.peerTimeoutMs)
        continue;
      peer.lastSeenMs = peer.seenSinceMs = undefined;
      const routes = announcements.routes(peer.number);
      log.warn(
        { event: "peer_silent", peer: peer.address, routes },
        "peer went silent, its routes are withdrawn",
      );
      void announcements.withdraw(peer.number);
    }
  }

  get(address: string): Peer | undefined {
    return this.#peers.get(address);
  }

  all(): Iterable<Peer> {
    return this.#peers.values();
  }

  /** Yields the peers of each name, in the order to try them. */
  *byName(): Iterable<readonly Peer[]> {
    for (const addresses of this.#addresses.values())
      yield addresses.flatMap((address) => this.#peers.get(address) ?? []);
  }

  /** Whether a peer reads this beacon's nodes in the directory. */
  readsDirectory({ number, address }: Peer): boolean {
    return (
      this.mesh.announcements.isReleased(number) ||
      this.names.fleet.some((name) => this.#addresses.get(name)?.includes(address))
    );
  }

  markSeen(peer: Peer, atMs = performance.now()): void {
    peer.seenSinceMs ??= atMs;
    peer.lastSeenMs = atMs;
  }

  /**
   * Sends packets to a peer from the local address that the peer sent to, by which it knows this
   * beacon. While gossip comes to the present one, no other replaces it: one forged message must
   * not move it. A peer of the directory knows the advertised address.
   * @param endpoint the peer's, with that local address
   */
  sendFrom(peer: Peer, endpoint: Int32Array): void {
    const number = localNumber(endpoint, 0);
    if (number === 0 || this.mesh.announcements.isReleased(peer.number)) return;
    const nowMs = performance.now();
    const isPresent = number === localNumber(peer.endpoint, 0);
    const keepMs = LOCAL_ROUNDS * this.mesh.config.gossipIntervalMs;
    if (!isPresent && nowMs - peer.localSeenMs <= keepMs) return;
    peer.localSeenMs = nowMs;
    if (!isPresent) this.#setLocal(peer, number);
  }

  // The directory's view.

  setFleet(names: readonly string[]): void {
    this.names.fleet = names;
    this.refresh();
    if (!this.isFleetAwaited) return;
    this.isFleetAwaited = false;
    this.gossipSoon();
  }

  numberOf(name: string): number | undefined {
    for (const address of this.#addresses.get(name) ?? []) {
      const peer = this.#peers.get(address);
      if (peer !== undefined) return peer.number;
    }
    return undefined;
  }

  follow(number: number): Promise<void> {
    return this.mesh.announcements.release(number);
  }

  unfollow(number: number): void {
    this.mesh.announcements.takeBack(number);
  }

  notFollowed(): number {
    return this.#peers.size - this.followed().length;
  }

  heard(number: number): void {
    for (const peer of this.#peers.values()) if (peer.number === number) this.markSeen(peer);
  }

  /** The peers whose nodes come from the directory. */
  followed(): readonly Peer[] {
    const { announcements } = this.mesh;
    return [...this.#peers.values()].filter(({ number }) => announcements.isReleased(number));
  }

  // The set.

  /** Adds and removes peers by the names and their known addresses. */
  apply(): void {
    const own = this.own.all();
    const expected = new Map<string, Int32Array>();
    this.#addresses = new Map();
    for (const name of this.names.all()) {
      const addresses: string[] = [];
      for (const endpoint of this.#endpointsOf(name)) {
        const address = addressText(endpoint);
        if (own.has(address)) continue;
        expected.set(address, endpoint);
        addresses.push(address);
      }
      this.#addresses.set(name.name, addresses);
    }
    for (const [address, peer] of this.#peers) {
      if (!expected.has(address)) void this.#remove(address, peer);
    }
    for (const [address, endpoint] of expected) {
      if (!this.#peers.has(address)) this.#add(address, endpoint);
    }
    this.#useAdvertised();
  }

  /** Returns the endpoints of a name that this beacon can reach and that are not denied. */
  #endpointsOf({ name, host, port }: PeerName): readonly Int32Array[] {
    const { config, limits, reaches, warn } = this.mesh;
    const known = this.names.addresses(host);
    const reached = known.map((address) => endpointOf(address, port)).filter(reaches);
    if (known.length > 0 && reached.length === 0)
      warn(
        "peer_unreachable",
        { peer: name },
        `peer ${name} cannot be reached: --addr serves another address family`,
      );
    // --deny-endpoint covers unlisted beacons and names of the registry, not those of --peers.
    const isDenied = (endpoint: Int32Array) =>
      config.peers.includes(name) ? limits.isNoHost(endpoint) : limits.isDenied(endpoint);
    for (const endpoint of reached.filter(isDenied))
      warn(
        "peer_denied",
        { peer: name },
        `peer ${name} is ignored: ${addressText(endpoint)} is no host's address, or denied by ` +
          "--deny-endpoint",
      );
    return reached.filter((endpoint) => !isDenied(endpoint));
  }

  #add(address: string, endpoint: Int32Array): void {
    const number = this.mesh.table.add(endpoint, 0);
    if (number < 0) {
      warnOfTooManyPeers(this.mesh, PEERS_MAX + 1);
      return;
    }
    this.#peers.set(address, {
      ...{ number, address, endpoint, lastSeenMs: undefined, seenSinceMs: undefined },
      ...{ sendErrno: 0, localSeenMs: Number.NEGATIVE_INFINITY },
    });
    this.mesh.log.info({ event: "peer_added", peer: address }, "peer added");
    this.gossipSoon();
  }

  async #remove(address: string, { number }: Peer): Promise<void> {
    this.#peers.delete(address);
    this.mesh.announcements.takeBack(number);
    this.mesh.log.info({ event: "peer_removed", peer: address }, "peer removed");
    await forgetPeer(number, this.mesh, this.mesh.announcements.others);
  }

  #setLocal(peer: Peer, number: number): void {
    setLocalNumber(peer.endpoint, 0, number);
    this.mesh.table.setLocal(peer.number, peer.endpoint, 0);
  }

  /** Sends packets to peers that sent no gossip yet from the advertised address. */
  #useAdvertised(): void {
    for (const peer of this.#peers.values()) {
      if (peer.localSeenMs !== Number.NEGATIVE_INFINITY) continue;
      const number = this.own.advertisedTo(peer.endpoint);
      if (number !== localNumber(peer.endpoint, 0)) this.#setLocal(peer, number);
    }
  }
}
