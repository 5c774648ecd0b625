/**
 * Pages of the node table, in the order of ids: each is made by one look through the whole table,
 * beside the workers and the reaper, and holds no more than a page of it.
 *
 * A node that a removal moves may come up twice in a scan, the second time within PROBES_MAX slots
 * of the first, as no node stands further from the slot that its hash names. So it is enough to
 * remember as many of those that came last.
 */
import { ENDPOINT_WORDS, hasNoPort } from "../../../ffi/endpoint.ts";
import { CLOCK_S, type SharedMemory } from "../../shared/memory.ts";
import type { NodeTableOwner } from "../../shared/nodes-owner.ts";
import { PROBES_MAX } from "../../shared/open-addressing.ts";
import { isWithin, type Prefix, prefixWords } from "../../shared/prefixes.ts";
import { IS_BRIDGED, IS_SELF, SLOT_SEEN_S, WANTS_DEST } from "../../shared/slots.ts";
import { addressText } from "../kit/addresses.ts";
import { ENTRY_SEEN_S, type ScanOptions, scanNodes, scanPause } from "./scan.ts";

/** A page of so many is a megabyte of JSON. */
export const PAGE_NODES_MAX = 10_000;
/** Limit of pages that wait for the one in progress. */
export const WAITING_PAGES_MAX = 8;

/** What is asked for; a node has to pass all filters that are given. */
export interface NodeQuery {
  /** Nodes of the page, 1 to PAGE_NODES_MAX. */
  readonly limit: number;
  /** The page begins behind this id, unsigned; 0 for the first page. */
  readonly after: number;
  readonly prefix?: Prefix | undefined;
  /** Seconds since the node was last heard. */
  readonly minAgeS?: number | undefined;
  readonly maxAgeS?: number | undefined;
  readonly bridged?: boolean | undefined;
}

export interface ListedNode {
  readonly id: number;
  /** "ip:port"; null if it was never heard by UDP. */
  readonly endpoint: string | null;
  /** Seconds since it was last heard by UDP, or else since it connected by WebSocket. */
  readonly ageS: number;
  readonly bridged: boolean;
  readonly wantsDest: boolean;
  readonly shard: number;
}

export interface NodePage {
  /** Nodes that pass the filters, on this page or not. */
  readonly matching: number;
  /** What to give as `after` for the next page; null if this is the last one. */
  readonly next: number | null;
  readonly nodes: readonly ListedNode[];
}

/** Filters an entry of a scan: endpoint with flags, then the second it was last seen. */
type Filter = (entry: Int32Array, nowS: number) => boolean;

export class NodeList {
  #last: Promise<unknown> = Promise.resolve();
  /** Pages that are being made or wait. */
  #asked = 0;

  /** @param pause as of ScanOptions, made anew for each page */
  constructor(
    private readonly memory: SharedMemory,
    private readonly nodes: NodeTableOwner,
    private readonly pause: () => NonNullable<ScanOptions["pause"]> = scanPause,
  ) {}

  /**
   * A node that is there, and passes the filters, from the first page to the last is on exactly one
   * of them.
   * @param signal gives the page up
   * @returns undefined if too many wait already, or it was given up
   */
  async page(query: NodeQuery, signal?: AbortSignal): Promise<NodePage | undefined> {
    if (this.#asked > WAITING_PAGES_MAX) return undefined;
    this.#asked++;
    const page = this.#last.then(() => this.#make(query, signal));
    this.#last = page.catch(() => {}); // the next one is none the worse for it
    try {
      return await page;
    } finally {
      this.#asked--;
    }
  }

  async #make(query: NodeQuery, signal: AbortSignal | undefined): Promise<NodePage | undefined> {
    const pause = this.pause();
    const passes = filterOf(query);
    const ids = new LowestIds(query.limit);
    const latest = new Int32Array(PROBES_MAX);
    let matching = 0;
    let behind = 0;
    const isWhole = await scanNodes(
      this.nodes,
      (nodeId, entry) => {
        if (!passes(entry, this.#nowS) || latest.includes(nodeId)) return;
        latest[matching++ % PROBES_MAX] = nodeId;
        if (nodeId >>> 0 <= query.after) return;
        behind++;
        ids.add(nodeId >>> 0);
      },
      signal ? { pause, signal } : { pause },
    );
    if (!isWhole) return undefined;
    const page = ids.take();
    const nodes: ListedNode[] = [];
    const entry = new Int32Array(ENDPOINT_WORDS + 1);
    for (const id of page) {
      if (this.#read(id, entry) && passes(entry, this.#nowS)) nodes.push(this.#listed(id, entry));
      await pause(); // a page of the largest size takes tens of milliseconds to write
      if (signal?.aborted) return undefined;
    }
    return { matching, next: behind > page.length ? page.at(-1)! : null, nodes };
  }

  /** Copies what the scan shows of a node. @returns false if it has left meanwhile */
  #read(id: number, entry: Int32Array): boolean {
    const slot = this.nodes.find(id);
    if (slot < 0 || this.nodes.slots.read(slot, id, entry, 0) < 0) return false;
    entry[ENTRY_SEEN_S] = this.memory.words[slot + SLOT_SEEN_S]!;
    return true;
  }

  #listed(id: number, entry: Int32Array): ListedNode {
    return {
      id,
      endpoint: endpointText(entry),
      ageS: ageS(entry, this.#nowS),
      bridged: (entry[0]! & IS_BRIDGED) !== 0,
      wantsDest: (entry[0]! & WANTS_DEST) !== 0,
      shard: this.nodes.shardOf(id),
    };
  }

  get #nowS(): number {
    return this.memory.words[CLOCK_S]!;
  }
}

/** The lowest of many ids, each given once, in room for twice as many as are wanted. */
class LowestIds {
  readonly #ids: Uint32Array;
  #count = 0;
  /** No id above it is wanted any more. */
  #highest = 2 ** 32 - 1;

  constructor(private readonly wanted: number) {
    this.#ids = new Uint32Array(2 * wanted);
  }

  add(id: number): void {
    if (id > this.#highest) return;
    this.#ids[this.#count++] = id;
    if (this.#count < this.#ids.length) return;
    this.#sort();
    this.#highest = this.#ids[this.#count - 1]!;
  }

  /** In their order. */
  take(): Uint32Array {
    this.#sort();
    return this.#ids.subarray(0, this.#count);
  }

  #sort(): void {
    this.#ids.subarray(0, this.#count).sort();
    this.#count = Math.min(this.#count, this.wanted);
  }
}

function filterOf({
  prefix,
  minAgeS = 0,
  maxAgeS = Number.MAX_SAFE_INTEGER,
  bridged,
}: NodeQuery): Filter {
  const words = prefix && prefixWords(prefix);
  return (entry, nowS) => {
    if ((entry[0]! & IS_SELF) !== 0) return false; // the beacon's own, for its self-check
    const age = ageS(entry, nowS);
    if (age < minAgeS || age > maxAgeS) return false;
    if (bridged !== undefined && bridged !== ((entry[0]! & IS_BRIDGED) !== 0)) return false;
    return words === undefined || (!hasNoPort(entry, 0) && isWithin(entry, 0, words, 0));
  };
}

/** The clock may not have been set for the second in which a worker saw the node. */
function ageS(entry: Int32Array, nowS: number): number {
  return Math.max(0, nowS - entry[ENTRY_SEEN_S]!);
}

/** "ip:port" of a node's endpoint; null if it was never heard by UDP. */
export function endpointText(endpoint: Int32Array): string | null {
  return hasNoPort(endpoint, 0) ? null : addressText(endpoint);
}
