/** Gossip out: rounds that send this beacon's nodes to the peers. */
import { setLocalNumber } from "../../../ffi/endpoint.ts";
import { EAGAIN, errnoName } from "../../../ffi/errno.ts";
import { CLOCK_S } from "../../shared/memory.ts";
import type { PeriodicTask } from "../kit/periodic-task.ts";
import { scanNodes } from "../nodes/scan.ts";
import type { MeshContext } from "./context.ts";
import type { GossipSender } from "./gossip-sender.ts";
import type { OwnAddresses } from "./own-addresses.ts";
import type { Peer, Peers } from "./peers.ts";

/** Maximum number of local addresses that one round sends from, to a peer that sent no gossip. */
const SOURCES_TRIED_MAX = 16;

const isSeen = ({ lastSeenMs }: Peer): boolean => lastSeenMs !== undefined;

export class GossipOut {
  sent = 0;
  sendErrors = 0;
  /** Rounds whose message did not hold all nodes. */
  truncated = 0;
  readonly #task: PeriodicTask;
  /** Rounds so far; selects the local addresses to try. */
  #rounds = 0;

  constructor(
    private readonly mesh: MeshContext,
    private readonly peers: Peers,
    private readonly own: OwnAddresses,
    private readonly sender: GossipSender,
  ) {
    this.#task = mesh.task(
      "sending gossip",
      (signal) => this.#round(signal),
      () => mesh.config.gossipIntervalMs,
    );
  }

  start(): void {
    this.#task.start();
  }

  soon(): void {
    this.#task.soon();
  }

  stop(): Promise<void> {
    return this.#task.stop();
  }

  /** Withdraws all nodes of this beacon from its peers. */
  async withdraw(): Promise<void> {
    this.sender.clear();
    await this.#sendToAll();
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { peers, sender } = this;
    const { memory, nodes, config, warn, isSilent } = this.mesh;
    if (isSilent() || peers.isFleetAwaited) return;
    // Without a destination, a truncated message is of no consequence either.
    if ([...peers.all()].every((peer) => peers.readsDirectory(peer))) return;
    const leftOut = await sender.collect(
      (visit) => scanNodes(nodes, visit, { signal }),
      nodes.size(),
      memory.words[CLOCK_S]!,
      Math.ceil(config.nodeTtlMs / 1000),
    );
    if (signal.aborted || isSilent()) return;
    if (leftOut > 0) {
      this.truncated++;
      warn(
        "gossip_truncated",
        { leftOut },
        `gossip truncated to the ${sender.nodesMax} nodes last seen, the limit of one message: ` +
          `${leftOut} others are not announced; use a directory (--directory)`,
      );
    }
    await this.#sendToAll();
  }

  /** Sends by each peer's first address that sent gossip, else by all. Ends on a full buffer. */
  async #sendToAll(): Promise<void> {
    this.#rounds++;
    const sent = new Set<Peer>();
    for (const peers of this.peers.byName()) {
      if (peers.some((peer) => this.peers.readsDirectory(peer))) continue;
      for (const peer of peers.toSorted((a, b) => Number(isSeen(b)) - Number(isSeen(a)))) {
        const errno = sent.has(peer) ? 0 : await this.#sendTo(peer);
        if (errno === EAGAIN) return;
        if (errno !== 0) continue;
        sent.add(peer);
        if (isSeen(peer)) break;
      }
    }
  }

  /**
   * Sends to a peer. A peer that sent no gossip yet may list any address of this beacon, and
   * rejects gossip from the others: until its gossip shows which, each of them sends.
   * @returns 0, or the errno of the kernel
   */
  async #sendTo(peer: Peer): Promise<number> {
    let errno = await this.sender.send(peer.endpoint);
    if (!isSeen(peer) && this.mesh.sources.isOn) {
      const endpoint = peer.endpoint.slice();
      const sources = this.own.sourcesTo(endpoint);
      const from = (this.#rounds * SOURCES_TRIED_MAX) % Math.max(sources.length, 1);
      const inTurn = [...sources.slice(from), ...sources.slice(0, from)];
      for (const source of inTurn.slice(0, SOURCES_TRIED_MAX)) {
        setLocalNumber(endpoint, 0, this.mesh.locals.numberOf(source.endpoint));
        if ((await this.sender.send(endpoint)) === 0) errno = 0;
      }
    }
    if (errno === 0) this.sent++;
    else {
      this.sendErrors++;
      if (errno !== peer.sendErrno)
        this.mesh.log.warn(
          { event: "gossip_send_failed", peer: peer.address, errno: errnoName(errno) },
          `gossip not sent (${errnoName(errno)}); the next round tries again`,
        );
    }
    peer.sendErrno = errno;
    return errno;
  }
}
