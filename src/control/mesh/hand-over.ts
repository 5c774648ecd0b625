/**
 * Peers, and the nodes that are reached through them, in an upgrade. Peers go by address, as
 * numbers are each process's own.
 *
 *   names      JSON: what peers are named by, and where those names led
 *   instances  JSON: what signed gossip showed of its senders, so that no replay deceives the successor
 *   routes     a peer's endpoint (6 words), 1 if it is a learned one, ms since it was last seen or -1, and
 *              the ids of its nodes
 *   claims     the endpoint of a peer in the directory, and 12 bytes each: a node's id, and when it was
 *              claimed, a float
 */
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { ENDPOINT_WORDS } from "../../../ffi/endpoint.ts";
import { PEERS_MAX } from "../../shared/memory.ts";
import type { RouteTable } from "../../shared/routes.ts";
import type { HandOverPhase, HandOverSections, SendSection } from "../feature.ts";
import { BODY_BYTES_MAX, FormatError } from "../hand-over/channel.ts";
import { count, readJson, text, wordsOf } from "../hand-over/format.ts";
import type { Mesh } from "./mesh.ts";

/** Instances in a message: each is some 80 bytes. */
const INSTANCES_IN_MESSAGE = 512;
/** Steps through the routes in one go: below a millisecond. */
const SLICE_STEPS = 65_536;

/** Names of one list: those of the last round with a registry, or of the one before. */
const names = v.pipe(v.array(text), v.maxLength(PEERS_MAX));

/** What peers are named by, and where those names led. */
export const namesSchema = v.object({
  advertised: text,
  listed: names,
  lastListed: names,
  /** Beacons that the directory tells of; earlier versions know of none. */
  fleet: v.optional(names),
  hosts: v.pipe(
    v.array(v.tuple([text, v.pipe(v.array(text), v.maxLength(64))])),
    v.maxLength(PEERS_MAX),
  ),
});
export type MeshNames = v.InferOutput<typeof namesSchema>;

/**
 * An instance of a peer, 16 hex digits; the address that it was heard from, its last time, and ms
 * since then.
 */
export const instancesSchema = v.array(
  v.tuple([v.pipe(v.string(), v.regex(/^[0-9a-f]{1,16}$/)), text, count, count]),
);
export type HeardInstances = v.InferOutput<typeof instancesSchema>;

const ROUTES_LEARNED_AT = ENDPOINT_WORDS;
const ROUTES_AGE_MS_AT = ENDPOINT_WORDS + 1;
const ROUTES_IDS_AT = ENDPOINT_WORDS + 2;
/** More than gossip, which is one datagram, ever brings. */
const ROUTES_MAX = BODY_BYTES_MAX / 4 - ROUTES_IDS_AT;

/** A peer, and the nodes that are reached through it. */
export interface PeerNodes {
  readonly endpoint: Int32Array;
  readonly isLearned: boolean;
  /** Since it was last heard; undefined if it never was. */
  readonly heardAgeMs: number | undefined;
  readonly nodeIds: Int32Array;
}

export function writeRoutes({ endpoint, isLearned, heardAgeMs, nodeIds }: PeerNodes): Uint8Array {
  const count = Math.min(nodeIds.length, ROUTES_MAX);
  const words = new Int32Array(ROUTES_IDS_AT + count);
  words.set(endpoint);
  words[ROUTES_LEARNED_AT] = Number(isLearned);
  words[ROUTES_AGE_MS_AT] =
    heardAgeMs === undefined ? -1 : Math.min(Math.max(0, heardAgeMs), 2 ** 31 - 1);
  words.set(nodeIds.subarray(0, count), ROUTES_IDS_AT);
  return new Uint8Array(words.buffer);
}

/** @throws FormatError */
export function readRoutes(body: Uint8Array): PeerNodes {
  const words = wordsOf(body, 1, "routes");
  if (words.length < ROUTES_IDS_AT) throw new FormatError("a peer's routes have no peer");
  const ageMs = words[ROUTES_AGE_MS_AT]!;
  return {
    endpoint: words.slice(0, ENDPOINT_WORDS),
    isLearned: words[ROUTES_LEARNED_AT] !== 0,
    heardAgeMs: ageMs < 0 ? undefined : ageMs,
    nodeIds: words.slice(ROUTES_IDS_AT),
  };
}

const CLAIM_BYTES = 12;
const CLAIMS_AT = ENDPOINT_WORDS * 4;
const CLAIMS_MAX = Math.floor((BODY_BYTES_MAX - CLAIMS_AT) / CLAIM_BYTES);

/** What the directory told of a peer's nodes. */
export interface PeerClaims {
  readonly endpoint: Int32Array;
  readonly nodeIds: Int32Array;
  /** Directory time (src/control/directory/clock.ts). */
  readonly timesMs: Float64Array;
}

/** The messages' bodies, each good until the next. */
export function* writeClaims({ endpoint, nodeIds, timesMs }: PeerClaims): Generator<Uint8Array> {
  for (let first = 0; first < nodeIds.length; first += CLAIMS_MAX) {
    const count = Math.min(CLAIMS_MAX, nodeIds.length - first);
    const view = new DataView(new ArrayBuffer(CLAIMS_AT + count * CLAIM_BYTES));
    for (let word = 0; word < ENDPOINT_WORDS; word++)
      view.setInt32(4 * word, endpoint[word]!, true);
    for (let i = 0; i < count; i++) {
      view.setInt32(CLAIMS_AT + i * CLAIM_BYTES, nodeIds[first + i]!, true);
      view.setFloat64(CLAIMS_AT + i * CLAIM_BYTES + 4, timesMs[first + i]!, true);
    }
    yield new Uint8Array(view.buffer);
  }
}

/** @throws FormatError */
export function readClaims(body: Uint8Array): PeerClaims {
  const count = (body.length - CLAIMS_AT) / CLAIM_BYTES;
  if (!Number.isInteger(count) || count < 0) throw new FormatError("claims are cut short");
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const claims = {
    endpoint: Int32Array.from({ length: ENDPOINT_WORDS }, (_, word) =>
      view.getInt32(4 * word, true),
    ),
    nodeIds: new Int32Array(count),
    timesMs: new Float64Array(count),
  };
  for (let i = 0; i < count; i++) {
    claims.nodeIds[i] = view.getInt32(CLAIMS_AT + i * CLAIM_BYTES, true);
    claims.timesMs[i] = view.getFloat64(CLAIMS_AT + i * CLAIM_BYTES + 4, true);
    if (claims.nodeIds[i] === 0 || !(claims.timesMs[i]! >= 0))
      throw new FormatError("a claim is of no node, or no time");
  }
  return claims;
}

export class MeshSections implements HandOverSections {
  readonly sections = {
    names: {
      version: 1,
      read: (body: Uint8Array) => this.mesh.adoptNames(readJson(namesSchema, body)),
    },
    instances: {
      version: 1,
      read: (body: Uint8Array) => this.mesh.adoptInstances(readJson(instancesSchema, body)),
    },
    routes: {
      version: 1,
      read: async (body: Uint8Array) => {
        const routes = readRoutes(body);
        this.translateLocal(routes.endpoint);
        await this.mesh.adoptPeerNodes(routes);
      },
    },
    claims: { version: 1, read: (body: Uint8Array) => this.mesh.adoptClaims(readClaims(body)) },
  };
  /** What was sent last: the names, and the nodes of each peer by its endpoint. */
  #names = "";
  readonly #routes = new Map<string, Uint8Array>();

  constructor(
    private readonly mesh: Mesh,
    private readonly routes: RouteTable,
    private readonly translateLocal: (endpoint: Int32Array) => void,
  ) {}

  /** Forgets what was sent to another process. */
  begin(): void {
    this.#names = "";
    this.#routes.clear();
  }

  async write(phase: HandOverPhase, send: SendSection): Promise<void> {
    if (phase === "closing" || phase === "sealed") return;
    await this.#writeNames(send);
    const { instances } = this.mesh;
    for (let at = 0; at < instances.length; at += INSTANCES_IN_MESSAGE)
      await send("instances", instances.slice(at, at + INSTANCES_IN_MESSAGE));
    for (const peer of this.mesh.peerNodes()) {
      const name = peer.endpoint.join();
      const nodeIds = new Uint8Array(peer.nodeIds.slice().buffer);
      const sent = this.#routes.get(name);
      if (sent !== undefined && Buffer.compare(sent, nodeIds) === 0) continue;
      this.#routes.set(name, nodeIds);
      await send("routes", writeRoutes(peer));
    }
    if (phase === "all") await this.#writeClaims(send);
  }

  async #writeNames(send: SendSection): Promise<void> {
    const { names } = this.mesh;
    const shownNames = JSON.stringify(names);
    if (shownNames === this.#names) return;
    this.#names = shownNames;
    const isTooLarge = Buffer.byteLength(shownNames) > BODY_BYTES_MAX;
    await send("names", isTooLarge ? { ...names, hosts: [] } : names); // hosts are looked up anew
  }

  /**
   * Sends what the directory's beacons claim. Once: what changes from now on the successor reads
   * there, too.
   */
  async #writeClaims(send: SendSection): Promise<void> {
    const { routes } = this;
    const peers = Array.from(this.mesh.toldPeers(), ({ number, endpoint }) => ({
      ...{ number, endpoint },
      nodeIds: [] as number[],
      timesMs: [] as number[],
    }));
    if (peers.length === 0) return;
    const byNumber = new Map(peers.map((peer) => [peer.number, peer]));
    for (let from = 0; from < routes.sweepSteps; from += SLICE_STEPS) {
      routes.visit(
        from,
        Math.min(from + SLICE_STEPS, routes.sweepSteps),
        (nodeId, number, claimedMs) => {
          const peer = byNumber.get(number);
          peer?.nodeIds.push(nodeId);
          peer?.timesMs.push(claimedMs);
        },
      );
      for (const { endpoint, nodeIds, timesMs } of peers) {
        const claims = {
          endpoint,
          nodeIds: Int32Array.from(nodeIds.splice(0)),
          timesMs: Float64Array.from(timesMs.splice(0)),
        };
        for (const body of writeClaims(claims)) await send("claims", body);
      }
      await sleep(1); // others have their turn
    }
  }
}
