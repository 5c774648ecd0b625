/** Explains one node: where it is, its last drops, and what its next relay would meet. */
import {
  ENDPOINT_FLAGS_MASK,
  ENDPOINT_WORDS,
  hasNoPort,
  localNumber,
  socketAddressOf,
} from "../../../ffi/endpoint.ts";
import type { Limit } from "../../shared/counters.ts";
import { dropsOf, type NodeDropReason } from "../../shared/drops.ts";
import { addressHash, endpointHash, nodeHash } from "../../shared/hash.ts";
import {
  ANSWER_LIMIT,
  NEW_NODE_LIMIT,
  PUNCH_LIMIT,
  PUNCH_SOURCE_LIMIT,
  RateLimitOwner,
  RELAY_ADDRESS_LIMIT,
  RELAY_LIMIT,
} from "../../shared/limits.ts";
import { LocalAddresses } from "../../shared/local-addresses.ts";
import { CLOCK_S, type SharedMemory } from "../../shared/memory.ts";
import type { NodeTableOwner } from "../../shared/nodes-owner.ts";
import type { RouteTableOwner } from "../../shared/routes-owner.ts";
import { HAS_KEY, IS_BRIDGED, SLOT_SEEN_S, WANTS_DEST } from "../../shared/slots.ts";
import type { Directory } from "../directory/directory.ts";
import type { Breakers } from "../limits/breakers.ts";
import type { Mesh } from "../mesh/mesh.ts";
import type { MeshConfig } from "../mesh/options.ts";
import { endpointText } from "../nodes/list.ts";
import type { NodesConfig } from "../nodes/options.ts";

/** Rounds of gossip that a peer may miss before its last is called old. */
const GOSSIP_ROUNDS_MISSED = 3;
/** Looks at a node that changes while it is looked at. */
const READS_MAX = 3;

export interface LimitUse {
  readonly limit: Limit;
  readonly perSecond: number;
  /** Share of the burst that is used up, 0 to 1; beyond it packets are dropped. */
  readonly used: number;
}

export interface DropReport {
  /** Seconds since the last one. */
  readonly ageS: number;
  readonly reason: NodeDropReason;
  /** Whose packets they were, by what those say, and for whom; of Discovers, 0 and whose. */
  readonly from: number;
  readonly to: number;
  /** How many of the same there were, as far as is remembered. */
  readonly count: number;
}

export interface NodeReport {
  readonly id: number;
  /** local: heard by UDP. bridged: connected by WebSocket. peer: another beacon has it. */
  readonly where: "local" | "bridged" | "peer" | "unknown";
  /** "ip:port"; null if it was not heard by UDP. */
  readonly endpoint: string | null;
  /** The address of this host that packets to it leave from; null where the kernel chooses. */
  readonly localAddress: string | null;
  /** Seconds since it was last heard by UDP, or else since it connected; null if it is not here. */
  readonly ageS: number | null;
  readonly wantsDest: boolean;
  readonly hasKey: boolean;
  /** The shard that it has, or would have, a place in, of so many. */
  readonly shard: number;
  readonly shards: number;
  /**
   * The beacon that has it; seconds since that was last heard; and, if the directory tells its
   * nodes, since it heard this one when it last said so, which it says when a node comes, and not
   * with each Discover.
   */
  readonly peer: {
    readonly address: string;
    readonly gossipAgeS: number | null;
    readonly claimAgeS: number | null;
  } | null;
  /** Those that what comes from it meets. */
  readonly limits: readonly LimitUse[];
  /** The last ones that it was part of, newest first. */
  readonly drops: readonly DropReport[];
  /** What the next relay to it would come to. */
  readonly next: { readonly outcome: "delivered" | "forwarded" | "dropped"; readonly why: string };
}

export interface ExplainerParts {
  readonly memory: SharedMemory;
  /** The main thread's. */
  readonly nodes: NodeTableOwner;
  readonly routes: RouteTableOwner;
  readonly mesh: Mesh;
  readonly directory: Directory | undefined;
  readonly breakers: Breakers;
  /** The configuration in force. */
  readonly config: () => Pick<MeshConfig, "gossipIntervalMs"> & Pick<NodesConfig, "nodeTtlMs">;
  /** As of Clock. */
  readonly nowNs: () => number;
}

/** A node as it stands in the table. */
interface Entry {
  /** The free half of the first word is 0. */
  readonly endpoint: Int32Array;
  readonly flags: number;
  readonly ageS: number;
}

export class Explainer {
  constructor(private readonly parts: ExplainerParts) {}

  /** @param id unsigned, not 0 */
  explain(id: number): NodeReport {
    const { nodes } = this.parts;
    const entry = this.#entry(id);
    const number = entry ? -1 : this.parts.routes.find(id);
    const peer = number < 0 ? null : this.#peer(id, number);
    const has = (flag: number) => entry !== undefined && (entry.flags & flag) !== 0;
    return {
      id,
      where: entry ? (has(IS_BRIDGED) ? "bridged" : "local") : peer ? "peer" : "unknown",
      endpoint: entry ? endpointText(entry.endpoint) : null,
      localAddress: entry ? this.#localAddress(entry.endpoint) : null,
      ageS: entry ? entry.ageS : null,
      wantsDest: has(WANTS_DEST),
      hasKey: has(HAS_KEY),
      shard: nodes.shardOf(id),
      shards: nodes.shards,
      peer,
      limits: entry ? this.#limits(id, entry) : [],
      drops: this.#drops(id),
      next: this.#next(entry, peer),
    };
  }

  #peer(id: number, number: number): NodeReport["peer"] {
    const { mesh, directory } = this.parts;
    const peer = mesh.peer(number);
    if (peer === null) return null;
    const { address, gossipAgeS, isInDirectory } = peer;
    return {
      address,
      gossipAgeS,
      claimAgeS: isInDirectory && directory ? directory.claimAgeS(id) : null,
    };
  }

  #entry(id: number): Entry | undefined {
    const { memory, nodes } = this.parts;
    const endpoint = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
    for (let attempt = 0; attempt < READS_MAX; attempt++) {
      const slot = nodes.find(id);
      if (slot < 0) return undefined;
      if (nodes.slots.read(slot, id, endpoint, 0) < 0) continue;
      const flags = endpoint[0]! & ENDPOINT_FLAGS_MASK;
      endpoint[0]! &= ~ENDPOINT_FLAGS_MASK;
      return {
        endpoint,
        flags,
        ageS: Math.max(0, memory.words[CLOCK_S]! - memory.words[slot + SLOT_SEEN_S]!),
      };
    }
    return undefined;
  }

  /** The address of this host that the node sent to, null where the kernel chooses. */
  #localAddress(endpoint: Int32Array): string | null {
    const address = new LocalAddresses(this.parts.memory).address(localNumber(endpoint, 0));
    return address ? socketAddressOf(address, 0).address : null;
  }

  #drops(id: number): DropReport[] {
    const { memory } = this.parts;
    const nowS = memory.words[CLOCK_S]!;
    return dropsOf(memory, id).map(({ atS, reason, from, to, count }) => ({
      ageS: Math.max(0, nowS - atS),
      reason,
      from,
      to,
      count,
    }));
  }

  /** By the sources that Admission (src/data/admission.ts) has for them. */
  #limits(id: number, { endpoint, flags }: Entry): LimitUse[] {
    const { memory } = this.parts;
    const secret = memory.sourceSecret;
    const nowNs = this.parts.nowNs();
    const use = (limit: Limit, number: number, source: number): LimitUse[] => {
      const rate = new RateLimitOwner(memory, number);
      return rate.isOn
        ? [{ limit, perSecond: rate.perSecond, used: rate.used(source, nowNs) }]
        : [];
    };
    const isBridged = (flags & IS_BRIDGED) !== 0;
    const relay = use(
      "relay",
      RELAY_LIMIT,
      isBridged ? nodeHash(id, secret) : endpointHash(endpoint, 0, secret),
    );
    if (hasNoPort(endpoint, 0)) return relay;
    const address = addressHash(endpoint, 0, secret);
    return [
      ...relay,
      ...(isBridged ? [] : use("relay_address", RELAY_ADDRESS_LIMIT, address)),
      ...use("punch_source", PUNCH_SOURCE_LIMIT, address),
      ...use("punch", PUNCH_LIMIT, 0),
      ...use("new_node", NEW_NODE_LIMIT, address),
      ...use("answer", ANSWER_LIMIT, address),
    ];
  }

  /** In the order in which PacketHandler (src/data/packets.ts) decides. */
  #next(entry: Entry | undefined, peer: NodeReport["peer"]): NodeReport["next"] {
    const { breakers } = this.parts;
    if (breakers.states["relay"] === "off")
      return {
        outcome: "dropped",
        why: "relaying is switched off: POST /api/breakers/relay switches it on",
      };
    if (entry && (entry.flags & IS_BRIDGED) !== 0)
      return {
        outcome: "delivered",
        why: "it is sent over the WebSocket by which the node is connected",
      };
    if (entry) {
      const where = endpointText(entry.endpoint);
      return {
        outcome: "delivered",
        why: `it is sent to ${where}, where the node was heard ${entry.ageS} s ago`,
      };
    }
    if (peer) return { outcome: "forwarded", why: `it is sent to ${this.#whyPeer(peer)}` };
    return { outcome: "dropped", why: this.#whyUnknown() };
  }

  #whyPeer({ address, gossipAgeS, claimAgeS }: NonNullable<NodeReport["peer"]>): string {
    const { gossipIntervalMs } = this.parts.config();
    if (claimAgeS !== null) {
      const { remark } = this.parts.directory!;
      const claimed = `beacon ${address}, which told the directory that it had heard the node ${Math.floor(claimAgeS)} s ago`;
      return remark === undefined ? claimed : `${claimed}; ${remark}`;
    }
    if (gossipAgeS === null)
      return `beacon ${address}, which has announced the node and is silent now`;
    const age = `${Math.floor(gossipAgeS)} s ago`;
    return gossipAgeS * 1000 > GOSSIP_ROUNDS_MISSED * gossipIntervalMs
      ? `beacon ${address}, which has announced the node, but was last heard ${age}: it may be gone`
      : `beacon ${address}, which has announced the node and was heard ${age}`;
  }

  #whyUnknown(): string {
    const { config, mesh, directory } = this.parts;
    const { peers, learnedPeers, routesRefused } = mesh.stats();
    const ttl = `${Math.ceil(config().nodeTtlMs / 1000)} s`;
    const here = `the node was not heard here for ${ttl} or never (--node-ttl)`;
    if (peers.length + learnedPeers === 0)
      return `${here}, and this beacon has no peers that could have it`;
    const silent = peers.filter(({ gossipAgeS }) => gossipAgeS === null).length;
    const hints = [
      ...(silent > 0 ? [`${silent} of ${peers.length} peers are silent`] : []),
      ...(routesRefused > 0 ? ["peers have announced more nodes than --max-routes holds"] : []),
      ...(directory?.hints ?? []),
    ];
    return [`${here}, and no beacon of this mesh has announced it`, ...hints].join("; ");
  }
}
