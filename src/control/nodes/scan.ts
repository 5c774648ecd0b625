/**
 * Going through the whole node table on the main thread, beside the workers and the reaper: in
 * slices, so that the main thread is back at its timers soon, and with pauses between them, so that
 * who shares its core gets on.
 *
 * Between two slices the reaper may remove nodes, and others move: to lower slots of their shard,
 * or from the first PROBES_MAX slots on to the last (src/shared/open-addressing.ts). So a shard's
 * slots are a ring on which nodes only ever move backwards, by less than PROBES_MAX in all, as none
 * passes the slot that its hash names. The scan goes backwards too, from the last slot once round
 * and PROBES_MAX further. A node ahead of it stays ahead. One that stands in the first slots and
 * moves on to the last, where the scan began, is met in what it looks at again; who stood anywhere
 * there from the first is left out then.
 */
import { ENDPOINT_WORDS } from "../../../ffi/endpoint.ts";
import type { NodeTableOwner } from "../../shared/nodes-owner.ts";
import { PROBES_MAX } from "../../shared/open-addressing.ts";
import { Pacing, type Pause } from "../kit/pacing.ts";

/** Words of an entry for visitors: the endpoint, with the node's flags in its first word … */
const ENTRY_WORDS = ENDPOINT_WORDS + 1;
/** … and the clock second of the node's last refresh. */
export const ENTRY_SEEN_S = ENDPOINT_WORDS;

/** Slots per slice: some 10 µs when half are used, 0.5 ms before the code is compiled. */
export const SLOTS_PER_SLICE = 256;
/** Rest in ms after WORK_MS: a scan uses a tenth of a core, and half a second a million. */
const REST_MS = 4;
const WORK_MS = 0.4;

/** @param entry good until the visitor returns; the next node is put in the same place */
export type NodeVisitor = (nodeId: number, entry: Int32Array) => void;

export interface ScanOptions {
  /** Awaited before each slice but the first. Default: scanPause. */
  readonly pause?: Pause;
  /** Ends the scan before its next slice. */
  readonly signal?: AbortSignal;
  /** Only nodes that were refreshed at this clock second or later. */
  readonly sinceS?: number;
}

/** Returns the pause of a scan at its own pace. */
export const scanPause = (): Pause => new Pacing({ workMs: WORK_MS, freeMs: REST_MS }).pause();

/**
 * Calls `visit` for every node, with its id, signed. It misses no node that is in the table from
 * beginning to end. To one that a removal moves meanwhile it may come twice, the second time not
 * with an older entry. Of nodes that come or go it sees some. (It also misses a node whose endpoint
 * changes again and again while it is read, some 30 times within a microsecond, which no network
 * brings about.) To be used where nodes are removed, on the main thread.
 * @returns whether it came to the end: false if the signal stopped it
 */
export async function scanNodes(
  nodes: NodeTableOwner,
  visit: NodeVisitor,
  { pause = scanPause(), signal, sinceS }: ScanOptions = {},
): Promise<boolean> {
  const entry = new Int32Array(ENTRY_WORDS);
  /** Who stood in the last slots when the scan of the shard began there. */
  const first = new Int32Array(PROBES_MAX);
  const slots = nodes.slotsPerShard;
  const end = slots + PROBES_MAX;
  let isFirstSlice = true;
  for (let shard = 0; shard < nodes.shards; shard++) {
    for (let step = 0; step < end; ) {
      if (!isFirstSlice) await pause();
      if (signal?.aborted) return false;
      isFirstSlice = false;
      for (const sliceEnd = Math.min(step + SLOTS_PER_SLICE, end); step < sliceEnd; step++) {
        const again = step - slots; // from 0 on once it has been round
        const nodeId = nodes.entryAt(
          shard,
          again < 0 ? -1 - again : slots - 1 - again,
          entry,
          sinceS,
        );
        if (step < PROBES_MAX) first[step] = nodeId;
        if (nodeId !== 0 && (again < 0 || !first.includes(nodeId))) visit(nodeId, entry);
      }
    }
  }
  return true;
}
