/**
 * Hand-over of the peers and their nodes. Sections name a peer by its endpoint: each process has
 * its own peer numbers.
 *
 *   names      JSON: the names of the peers, and the addresses of their hosts
 *   instances  JSON: the replay protection of signed gossip
 *   routes     a peer's endpoint (6 words), 1 for a learned peer, ms since it was last seen or -1,
 *              and the ids of its nodes
 *   claims     the endpoint of a peer in the directory; of each node 12 bytes: its id, and the time
 *              of the claim as a float
 */
import * as v from "valibot";
import { ENDPOINT_WORDS } from "../../../ffi/endpoint.ts";
import { PEERS_MAX } from "../../shared/memory.ts";
import { isLearned } from "../../shared/peers.ts";
import { type RouteTableOwner, UNMARKED } from "../../shared/routes-owner.ts";
import type { HandOverPhase, HandOverSections, SendSection } from "../feature.ts";
import { BODY_BYTES_MAX, FormatError } from "../hand-over/channel.ts";
import { count, readJson, text, wordsOf } from "../hand-over/format.ts";
import { addressText } from "../kit/addresses.ts";
import { Pacing } from "../kit/pacing.ts";
import type { Mesh } from "./mesh.ts";
import type { Peer } from "./peers.ts";

/** Maximum number of instances in a message: each has about 80 bytes. */
const INSTANCES_IN_MESSAGE = 512;
/** Steps through the routes without a pause: less than a millisecond. */
const SLICE_STEPS = 65_536;
/** Mark of routes that another process read in the directory: any but that of gossip. */
const FLEET_MARK = UNMARKED + 1;

const names = v.pipe(v.array(text), v.maxLength(PEERS_MAX));

export const namesSchema = v.object({
  advertised: text,
  listed: names,
  lastListed: names,
  /** Beacons in the directory; earlier versions lack it. */
  fleet: v.optional(names),
  hosts: v.pipe(
    v.array(v.tuple([text, v.pipe(v.array(text), v.maxLength(64))])),
    v.maxLength(PEERS_MAX),
  ),
});
export type MeshNames = v.InferOutput<typeof namesSchema>;

/** Per instance: 16 hex digits, source address, time of the last message, ms since then. */
export const instancesSchema = v.array(
  v.tuple([v.pipe(v.string(), v.regex(/^[0-9a-f]{1,16}$/)), text, count, count]),
);
export type SeenInstances = v.InferOutput<typeof instancesSchema>;

const ROUTES_LEARNED_AT = ENDPOINT_WORDS;
const ROUTES_AGE_MS_AT = ENDPOINT_WORDS + 1;
const ROUTES_IDS_AT = ENDPOINT_WORDS + 2;
/** More than one message of gossip holds. */
const ROUTES_MAX = BODY_BYTES_MAX / 4 - ROUTES_IDS_AT;

/** A peer and its nodes. */
export interface PeerNodes {
  readonly endpoint: Int32Array;
  readonly isLearned: boolean;
  /** Time since its last gossip; undefined if there was none. */
  readonly ageMs: number | undefined;
  readonly nodeIds: Int32Array;
}

export function writeRoutes({ endpoint, isLearned, ageMs, nodeIds }: PeerNodes): Uint8Array {
  const count = Math.min(nodeIds.length, ROUTES_MAX);
  const words = new Int32Array(ROUTES_IDS_AT + count);
  words.set(endpoint);
  words[ROUTES_LEARNED_AT] = Number(isLearned);
  words[ROUTES_AGE_MS_AT] = ageMs === undefined ? -1 : Math.min(Math.max(0, ageMs), 2 ** 31 - 1);
  words.set(nodeIds.subarray(0, count), ROUTES_IDS_AT);
  return new Uint8Array(words.buffer);
}

/** @throws FormatError */
export function readRoutes(body: Uint8Array): PeerNodes {
  const words = wordsOf(body, 1, "routes");
  if (words.length < ROUTES_IDS_AT) throw new FormatError("routes without a peer");
  const ageMs = words[ROUTES_AGE_MS_AT]!;
  return {
    endpoint: words.slice(0, ENDPOINT_WORDS),
    isLearned: words[ROUTES_LEARNED_AT] !== 0,
    ageMs: ageMs < 0 ? undefined : ageMs,
    nodeIds: words.slice(ROUTES_IDS_AT),
  };
}

const CLAIM_BYTES = 12;
const CLAIMS_AT = ENDPOINT_WORDS * 4;
const CLAIMS_MAX = Math.floor((BODY_BYTES_MAX - CLAIMS_AT) / CLAIM_BYTES);

/** The claims of a peer in the directory. */
export interface PeerClaims {
  readonly endpoint: Int32Array;
  readonly nodeIds: Int32Array;
  /** Directory time (src/control/directory/clock.ts). */
  readonly timesMs: Float64Array;
}

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
  if (!Number.isInteger(count) || count < 0) throw new FormatError("claims are truncated");
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
      throw new FormatError("a claim without a node or a time");
  }
  return claims;
}

type SeenPeer = Pick<Peer, "number" | "endpoint" | "lastSeenMs">;

export class MeshSections implements HandOverSections {
  readonly sections = {
    names: {
      version: 1,
      read: (body: Uint8Array) => {
        this.mesh.names.restore(readJson(namesSchema, body));
        this.mesh.peers.apply();
      },
    },
    instances: {
      version: 1,
      read: (body: Uint8Array) => this.#restoreInstances(readJson(instancesSchema, body)),
    },
    routes: { version: 1, read: (body: Uint8Array) => this.#restoreRoutes(readRoutes(body)) },
    claims: { version: 1, read: (body: Uint8Array) => this.#restoreClaims(readClaims(body)) },
  };
  /** The names that were sent last, and the nodes of each peer by its endpoint. */
  #names = "";
  readonly #routes = new Map<string, Uint8Array>();

  constructor(
    private readonly mesh: Mesh,
    private readonly routes: RouteTableOwner,
    private readonly translateLocal: (endpoint: Int32Array) => void,
  ) {}

  /** Starts a transfer: forgets what was sent in another one. */
  begin(): void {
    this.#names = "";
    this.#routes.clear();
  }

  async write(phase: HandOverPhase, send: SendSection): Promise<void> {
    if (phase === "closing" || phase === "sealed") return;
    await this.#writeNames(send);
    const instances = this.#instances();
    for (let at = 0; at < instances.length; at += INSTANCES_IN_MESSAGE)
      await send("instances", instances.slice(at, at + INSTANCES_IN_MESSAGE));
    for (const peer of this.mesh.peers.all()) await this.#writeRoutes(peer, send);
    for (const peer of this.mesh.learned.all()) await this.#writeRoutes(peer, send);
    if (phase === "all") await this.#writeClaims(send);
  }

  async #writeNames(send: SendSection): Promise<void> {
    const names = this.mesh.names.save();
    const json = JSON.stringify(names);
    if (json === this.#names) return;
    this.#names = json;
    const isTooLarge = Buffer.byteLength(json) > BODY_BYTES_MAX;
    // Without its hosts' addresses, the successor looks them up.
    await send("names", isTooLarge ? { ...names, hosts: [] } : names);
  }

  #instances(): SeenInstances {
    const nowMs = performance.now();
    return this.mesh.gossipIn.instances
      .seen()
      .map(([instance, { source, timeMs, steadyMs }]) => [
        instance.toString(16),
        source,
        timeMs,
        Math.max(0, Math.round(nowMs - steadyMs)),
      ]);
  }

  #restoreInstances(seen: SeenInstances): void {
    const { instances } = this.mesh.gossipIn;
    const nowMs = performance.now();
    for (const [instance, source, timeMs, ageMs] of seen)
      instances.adopt(BigInt(`0x${instance}`), { source, timeMs, steadyMs: nowMs - ageMs });
  }

  async #writeRoutes({ number, endpoint, lastSeenMs }: SeenPeer, send: SendSection): Promise<void> {
    const nodeIds = this.mesh.announcements.list(number).slice();
    const bytes = new Uint8Array(nodeIds.buffer);
    const sent = this.#routes.get(endpoint.join());
    if (sent !== undefined && Buffer.compare(sent, bytes) === 0) return;
    this.#routes.set(endpoint.join(), bytes);
    const ageMs = lastSeenMs === undefined ? undefined : performance.now() - lastSeenMs;
    await send("routes", writeRoutes({ endpoint, isLearned: isLearned(number), ageMs, nodeIds }));
  }

  /** Restores the nodes of a beacon that is a peer here. Settles when the routes are in force. */
  async #restoreRoutes({ endpoint, isLearned, ageMs, nodeIds }: PeerNodes): Promise<void> {
    if (ageMs === undefined) return;
    this.translateLocal(endpoint);
    const { peers, learned, announcements } = this.mesh;
    const address = addressText(endpoint);
    const peer = peers.get(address);
    if (peer !== undefined) {
      peers.sendFrom(peer, endpoint);
      peers.markSeen(peer, performance.now() - ageMs);
      await announcements.announce(peer.number, nodeIds);
    } else if (isLearned && this.mesh.gossipIn.accepts(endpoint)) {
      const number = learned.see(address, endpoint);
      if (number !== undefined) await announcements.announce(number, nodeIds);
    }
  }

  /** Sends the claims of the directory's beacons once; changes come from the directory. */
  async #writeClaims(send: SendSection): Promise<void> {
    const { routes } = this;
    const peers = this.mesh.peers.followed().map(({ number, endpoint }) => ({
      ...{ number, endpoint },
      nodeIds: [] as number[],
      timesMs: [] as number[],
    }));
    if (peers.length === 0) return;
    const byNumber = new Map(peers.map((peer) => [peer.number, peer]));
    const pause = new Pacing().pause();
    for (let from = 0; from < routes.sweepSteps; from += SLICE_STEPS) {
      const end = Math.min(from + SLICE_STEPS, routes.sweepSteps);
      routes.visit(from, end, (nodeId, number, claimedMs) => {
        const peer = byNumber.get(number);
        peer?.nodeIds.push(nodeId);
        peer?.timesMs.push(claimedMs);
      });
      for (const { endpoint, nodeIds, timesMs } of peers) {
        const claims = {
          endpoint,
          nodeIds: Int32Array.from(nodeIds.splice(0)),
          timesMs: Float64Array.from(timesMs.splice(0)),
        };
        for (const body of writeClaims(claims)) await send("claims", body);
      }
      await pause();
    }
  }

  #restoreClaims({ endpoint, nodeIds, timesMs }: PeerClaims): void {
    const { peers, announcements } = this.mesh;
    const peer = peers.get(addressText(endpoint));
    if (peer === undefined) return;
    void announcements.release(peer.number);
    for (let i = 0; i < nodeIds.length; i++)
      this.routes.claim(nodeIds[i]!, peer.number, timesMs[i]!, FLEET_MARK);
  }
}
