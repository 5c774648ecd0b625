/**
 * Nodes in an upgrade. Section `nodes` holds records (record.ts) with keys; `removed` holds ids of
 * nodes that were removed since they were sent. A node that came back is sent again behind them.
 */
import { hasNoPort } from "../../../ffi/endpoint.ts";
import { CLOCK_S } from "../../shared/memory.ts";
import { NODE_LIMIT } from "../../shared/nodes.ts";
import { HAS_KEY, IS_SELF } from "../../shared/slots.ts";
import type { HandOverPhase, HandOverSections, SendSection } from "../feature.ts";
import { BODY_BYTES_MAX, FormatError } from "../hand-over/channel.ts";
import { wordsOf } from "../hand-over/format.ts";
import type { Pause } from "../kit/pacing.ts";
import type { Nodes } from "./feature.ts";
import { RECORD_WORDS_WITH_KEY, readRecords, writeRecord, writeRecordKey } from "./record.ts";
import { SLOTS_PER_SLICE, scanNodes, scanPause } from "./scan.ts";

const NODES_MESSAGE_BYTES =
  Math.floor(BODY_BYTES_MAX / (RECORD_WORDS_WITH_KEY * 4)) * RECORD_WORDS_WITH_KEY * 4;
const REMOVED_MAX = BODY_BYTES_MAX / 4;
/** Slices of a scan whose records are collected before they are sent. */
const SLICES_COLLECTED = 16;

export class NodeSections implements HandOverSections {
  readonly sections = {
    nodes: { version: 1, read: (body: Uint8Array) => this.#readNodes(body) },
    removed: { version: 1, read: (body: Uint8Array) => this.#readRemoved(body) },
  };
  /** Nodes of the old process for which there was no room. */
  noRoom = 0;
  #words = new Int32Array(0);
  #used = 0;
  /** Nodes that were removed and are still to be sent; undefined while nothing is handed over. */
  #removed: number[] | undefined;
  /** Nodes that were refreshed at this clock second or later are still to be sent. */
  #sinceS = Number.NEGATIVE_INFINITY;

  constructor(private readonly service: Nodes) {}

  /** Notes removals from now on, for `write`. */
  begin(): void {
    this.#removed = [];
    this.#sinceS = Number.NEGATIVE_INFINITY;
  }

  end(): void {
    this.#removed = undefined;
  }

  /** A node was removed from the table. */
  wasRemoved(nodeId: number): void {
    this.#removed?.push(nodeId);
  }

  async write(phase: HandOverPhase, send: SendSection): Promise<void> {
    if (phase === "closing") return;
    const removed = this.#removed ?? [];
    this.#removed = [];
    for (let first = 0; first < removed.length; first += REMOVED_MAX)
      await send("removed", bytesOf(Int32Array.from(removed.slice(first, first + REMOVED_MAX))));
    if (phase === "sealed") return;
    await this.#writeNodes(send, phase === "stopped" ? () => undefined : scanPause());
  }

  /** Sends the nodes that were refreshed since this began the last time. */
  async #writeNodes(send: SendSection, pause: Pause): Promise<void> {
    const { memory, nodes } = this.service.host;
    const { words } = memory;
    this.#words = new Int32Array(SLICES_COLLECTED * SLOTS_PER_SLICE * RECORD_WORDS_WITH_KEY);
    this.#used = 0;
    // Less one: a worker may have read the clock just before it went on, and record what it has in
    // hand now.
    const sinceS = this.#sinceS;
    this.#sinceS = words[CLOCK_S]! - 1;
    await scanNodes(
      nodes,
      (nodeId, entry) => {
        // one of the bridge's that was never seen by UDP: it will connect again
        if (hasNoPort(entry, 0)) return;
        // this process's own; the successor makes itself another
        if ((entry[0]! & IS_SELF) !== 0) return;
        writeRecord(this.#words, this.#used, nodeId, entry, this.service.ageS(entry));
        const key = (entry[0]! & HAS_KEY) === 0 ? undefined : nodes.keyOf(nodeId);
        writeRecordKey(this.#words, this.#used, key);
        this.#used += RECORD_WORDS_WITH_KEY;
      },
      {
        sinceS,
        pause: async () => {
          if (this.#words.length - this.#used < SLOTS_PER_SLICE * RECORD_WORDS_WITH_KEY)
            await this.#flush(send);
          await pause();
        },
      },
    );
    await this.#flush(send);
    this.#words = new Int32Array(0);
  }

  async #flush(send: SendSection): Promise<void> {
    const bytes = new Uint8Array(this.#words.buffer, 0, this.#used * 4);
    this.#used = 0;
    for (let at = 0; at < bytes.length; at += NODES_MESSAGE_BYTES)
      await send("nodes", bytes.subarray(at, at + NODES_MESSAGE_BYTES));
  }

  #readNodes(body: Uint8Array): void {
    const { service } = this;
    const { nodes, config } = service.host;
    const ttlS = Math.ceil(config.nodeTtlMs / 1000);
    const words = wordsOf(body, RECORD_WORDS_WITH_KEY, "nodes");
    const bytes = new DataView(words.buffer);
    // Nothing else sets the clock before this process serves, and nodes are dated by it.
    const nowS = service.setClock();
    for (const { nodeId, endpoint, flags, ageS, hasKey, keyAt } of readRecords(
      words,
      RECORD_WORDS_WITH_KEY,
    )) {
      if (nodeId === 0 || ageS > 0x7fff_ffff)
        throw new FormatError("a node has no id, or an age below 0");
      if (ageS >= ttlS || !service.accepts(endpoint)) {
        nodes.remove(nodeId); // it may have been sent before, at another endpoint
        continue;
      }
      service.translateLocal(endpoint);
      const result = nodes.record(nodeId, endpoint, 0, flags, nowS - ageS);
      if (result >= NODE_LIMIT) this.noRoom++;
      else if (hasKey) nodes.keepKey(nodeId, endpoint, bytes, keyAt);
    }
  }

  /** Needs no locks: workers are parked, and the old process has a table of its own. */
  #readRemoved(body: Uint8Array): void {
    for (const nodeId of wordsOf(body, 1, "removed nodes")) this.service.host.nodes.remove(nodeId);
  }
}

const bytesOf = (words: Int32Array): Uint8Array => new Uint8Array(words.buffer);
