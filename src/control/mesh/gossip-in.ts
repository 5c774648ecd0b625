/**
 * Gossip in: what peers send, after the workers' checks. A worker admits gossip of peers alone,
 * unless unlisted beacons are accepted, and puts it in its mailbox. With a gossip key, messages
 * without its signature are rejected here.
 */
import { ENDPOINT_WORDS, hasNoPort } from "../../../ffi/endpoint.ts";
import { SYNC_BYTES, SYNC_COUNT_AT } from "../../protocol.ts";
import { GOSSIP_REJECTIONS, type GossipRejection } from "../../shared/counters.ts";
import type { Mail } from "../../shared/mailbox.ts";
import {
  GOSSIP,
  LAST_REJECTED_SOURCE,
  LAST_REJECTION,
  LEARNED_PEERS_MAX,
} from "../../shared/memory.ts";
import { addressText } from "../kit/addresses.ts";
import type { MailTaker } from "../workers/mail-reader.ts";
import { acceptsUnlisted, type MeshContext } from "./context.ts";
import {
  CLOCK_DIFFERENCE_MS_MAX,
  INSTANCES_MAX,
  Instances,
  readSignature,
  SIGNATURE_REFUSALS,
  type Signature,
} from "./gossip-signature.ts";
import type { LearnedPeers } from "./learned-peers.ts";
import type { OwnAddresses } from "./own-addresses.ts";
import type { Peers } from "./peers.ts";

/** Messages accepted from one mailbox in a turn: with the largest, about a millisecond. */
const MAIL_TURN_MAX = 16;

const LIST_PEERS = "list this beacon's peers in --peers and set --gossip-strict on";

/** Why a worker rejected gossip. */
const REJECTION_ADVICE: Record<GossipRejection, string> = {
  short: "the message is truncated",
  count: "the message holds fewer nodes than its count",
  unknown_peer:
    "not a known peer; if it is one, add this address to --peers, or correct it at the registry",
  own_id: "it carries this beacon's own id; give each beacon its own --beacon-id",
  peer_limit: "more messages than a peer sends; set --gossip-key-file if its address is forged",
  stranger_limit: `too much gossip of unlisted beacons; ${LIST_PEERS}`,
  mailbox_full: "too much gossip at once; raise --gossip-interval if it recurs",
};

/** Why the main thread rejects gossip that a worker admitted. */
const GOSSIP_REFUSALS = ["denied_endpoint", "learned_limit", ...SIGNATURE_REFUSALS] as const;
type GossipRefusal = (typeof GOSSIP_REFUSALS)[number];

const REFUSAL_ADVICE: Record<Exclude<GossipRefusal, "duplicate">, string> = {
  denied_endpoint: "no unlisted beacon may have this address (--deny-endpoint)",
  learned_limit: `${LEARNED_PEERS_MAX} unlisted beacons are accepted already; ${LIST_PEERS}`,
  unsigned: "not signed; give that beacon the same --gossip-key-file",
  forged: "signed with another key; give all beacons the same --gossip-key-file",
  clock:
    `its time is more than ${CLOCK_DIFFERENCE_MS_MAX / 1000} s from this host's; synchronise ` +
    "both clocks",
  replayed: "replayed by another host, or sent on two paths; find the host that has this address",
  too_many_instances:
    `more than ${INSTANCES_MAX} starts of beacons with this key; find the beacon that restarts ` +
    "again and again",
};

export class GossipIn implements MailTaker {
  readonly kind = GOSSIP;
  readonly turnMax = MAIL_TURN_MAX;
  keys: readonly string[] = [];
  /** Nodes beyond --max-peer-routes. */
  routesIgnored = 0;
  readonly refused = Object.fromEntries(GOSSIP_REFUSALS.map((reason) => [reason, 0])) as Record<
    GossipRefusal,
    number
  >;
  readonly instances: Instances;
  #hasWarnedOfUnlisted = false;

  /** @param ownInstance the instance that signs this beacon's gossip */
  constructor(
    private readonly mesh: MeshContext,
    private readonly peers: Peers,
    private readonly learned: LearnedPeers,
    private readonly own: OwnAddresses,
    ownInstance: bigint,
  ) {
    this.instances = new Instances(ownInstance, (address) => peers.get(address) !== undefined);
  }

  receive({ at, bytes, labelAt }: Mail): void {
    const { memory, announcements, table } = this.mesh;
    const endpoint = memory.words.slice(labelAt, labelAt + ENDPOINT_WORDS);
    const address = addressText(endpoint);
    const isSigned = this.keys.length > 0;
    const signature = isSigned
      ? this.#verify(memory.bytes.subarray(at, at + bytes), address)
      : undefined;
    if (isSigned && signature === undefined) return;
    const message = new DataView(memory.buffer, at, bytes);
    const nodes = message.getUint16(SYNC_COUNT_AT);
    const number = this.#senderOf(endpoint, address, nodes);
    // A released peer has not read yet that this beacon follows it in the directory.
    if (number === undefined || announcements.isReleased(number)) return;
    const nodeIds = new Int32Array(this.#accepted(nodes, address));
    for (let i = 0; i < nodeIds.length; i++) nodeIds[i] = message.getInt32(SYNC_BYTES + 4 * i);
    table.refresh(number);
    if (signature !== undefined) {
      const { instance } = signature;
      table.setInstance(number, Number(instance >> 32n) | 0, Number(instance & 0xffff_ffffn) | 0);
    }
    void announcements.announce(number, nodeIds);
  }

  /** Warns of the last gossip that each worker rejected. Runs about once a second. */
  tick(): void {
    const { memory } = this.mesh;
    const { words, shape } = memory;
    for (let worker = 0; worker < shape.workers; worker++) {
      const at = memory.workerWords(worker);
      const reason = GOSSIP_REJECTIONS[words[at + LAST_REJECTION]! - 1];
      if (reason === undefined) continue;
      words[at + LAST_REJECTION] = 0;
      const source = addressText(words, at + LAST_REJECTED_SOURCE);
      // It has become a peer in the meantime.
      if (reason === "unknown_peer" && this.peers.get(source) !== undefined) continue;
      this.#warnOf(reason, source, REJECTION_ADVICE[reason]);
    }
  }

  /** Whether gossip of an unlisted beacon at this endpoint is accepted. */
  accepts(endpoint: Int32Array): boolean {
    return acceptsUnlisted(this.mesh.config) && this.#mayBePeer(endpoint);
  }

  #mayBePeer(endpoint: Int32Array): boolean {
    const { reaches, limits } = this.mesh;
    if (hasNoPort(endpoint, 0) || !reaches(endpoint) || limits.isDenied(endpoint)) return false;
    // Forged: this beacon does not gossip with itself.
    return !this.own.all().has(addressText(endpoint));
  }

  /** Returns the signature of a message; undefined if it is rejected. */
  #verify(message: Uint8Array, address: string): Signature | undefined {
    const signature = readSignature(message, this.keys);
    if (typeof signature === "string") {
      this.#refuse(signature, address);
      return undefined;
    }
    const now = { wallMs: Date.now(), steadyMs: performance.now() };
    const { peerTimeoutMs } = this.mesh.config;
    const refusal = this.instances.accept(signature, address, now, peerTimeoutMs);
    if (refusal === undefined) return signature;
    const detail = refusal === "clock" ? ` (${clockText(signature, now.wallMs)})` : "";
    this.#refuse(refusal, address, detail);
    return undefined;
  }

  /** Returns the number of the peer that sent gossip, which it may get now; undefined if none. */
  #senderOf(endpoint: Int32Array, address: string, nodes: number): number | undefined {
    const peer = this.peers.get(address);
    const { config, log } = this.mesh;
    if (peer !== undefined) {
      if (peer.lastSeenMs === undefined)
        log.info({ event: "peer_announced", peer: address, nodes }, "peer announces its nodes");
      this.peers.markSeen(peer);
      this.peers.sendFrom(peer, endpoint);
      return peer.number;
    }
    if (!acceptsUnlisted(config)) return undefined; // removed after the worker's check
    if (!this.#mayBePeer(endpoint)) {
      this.#refuse("denied_endpoint", address);
      return undefined;
    }
    const number = this.learned.see(address, endpoint);
    if (number === undefined) this.#refuse("learned_limit", address);
    else if (this.keys.length === 0 && !this.#hasWarnedOfUnlisted) {
      this.#hasWarnedOfUnlisted = true;
      log.warn(
        { event: "gossip_unlisted_accepted", source: address },
        `gossip accepted from ${address}, an unlisted beacon without a signature; ${LIST_PEERS}, ` +
          "or give all beacons a --gossip-key-file",
      );
    }
    return number;
  }

  /** Returns how many nodes of a peer's list are accepted. */
  #accepted(nodes: number, address: string): number {
    const { config, warn } = this.mesh;
    const ignored = nodes - config.maxPeerRoutes;
    if (ignored <= 0) return nodes;
    this.routesIgnored += ignored;
    warn(
      "gossip_routes_ignored",
      { source: address, nodes },
      `gossip from ${address}: ${ignored} of ${nodes} nodes ignored; raise --max-peer-routes`,
    );
    return config.maxPeerRoutes;
  }

  #refuse(reason: GossipRefusal, address: string, detail = ""): void {
    this.refused[reason]++;
    if (reason !== "duplicate") this.#warnOf(reason, address, REFUSAL_ADVICE[reason] + detail);
  }

  #warnOf(reason: string, source: string, advice: string): void {
    this.mesh.warn(
      "gossip_rejected",
      { reason, source },
      `gossip from ${source} rejected: ${advice}`,
    );
  }
}

function clockText({ timeMs }: Signature, nowMs: number): string {
  const seconds = Math.round(Math.abs(timeMs - nowMs) / 1000);
  return `${seconds} s ${timeMs > nowMs ? "ahead" : "behind"}`;
}
