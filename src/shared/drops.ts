/**
 * The last drops, by node: what became of packets for it, when and why, for who asks after one
 * node. A thread keeps those that it counts in a row of its own, and is its only writer; the main
 * thread reads.
 *
 * A row is sets of four entries; a set is a cache line, and a node's hash names its set. An entry
 * is four words:
 *
 *   word 0  the node that the packet was for; of Discovers, whose it was
 *   word 1  whose it was, by what it says; 0 where nobody else is named
 *   word 2  clock second of the last drop
 *   word 3  reason in the upper 8 bits; below, how many of the same there were since it is here, 0 for a vacant entry
 *
 * Drops of the same node, sender and reason are one entry, so a stream to a node that is gone takes
 * one place; a new one takes that of the oldest. Who makes up ids without end pushes others out:
 * what is asked for then may not be there, and the counters still have it.
 *
 * A reader may come while a set is written. It reads until it gets the same twice.
 */
import { DROP_REASONS } from "./counters.ts";
import { nodeHash } from "./hash.ts";
import {
  CLOCK_S,
  DROP_ENTRY_WORDS,
  DROP_SET_ENTRIES,
  DROP_SETS,
  HASH_SECRET,
  type SharedMemory,
} from "./memory.ts";

/**
 * Why a packet was dropped, over all kinds. Of relays: those of DROP_REASONS, not_found,
 * relay_limit, relay_address_limit, relay_off, slow_reader. Of punch requests: punch_limit,
 * punch_off, target_unknown. Of Discovers: discover_off. Of both, where the node was not recorded:
 * new_node_limit, endpoint_hold, node_limit, shard_full, contended, denied_endpoint.
 */
export const NODE_DROP_REASONS = [
  ...DROP_REASONS,
  "not_found",
  "relay_limit",
  "relay_address_limit",
  "relay_off",
  "slow_reader",
  "punch_limit",
  "punch_off",
  "target_unknown",
  "discover_off",
  "new_node_limit",
  "endpoint_hold",
  "node_limit",
  "shard_full",
  "denied_endpoint",
] as const;
export type NodeDropReason = (typeof NODE_DROP_REASONS)[number];

/** A reason's number, for code that notes it. Those of DROP_REASONS have the same there. */
export const nodeDrop = (reason: NodeDropReason): number => NODE_DROP_REASONS.indexOf(reason);

const REASON_SHIFT = 24;
const COUNT_MAX = 2 ** REASON_SHIFT - 1;
const SET_WORDS = DROP_SET_ENTRIES * DROP_ENTRY_WORDS;
const SET_SHIFT = 32 - Math.log2(DROP_SETS);
/** Looks at a set that is written meanwhile. */
const READS_MAX = 4;

const OTHER = 1;
const SECOND = 2;
const REASON_AND_COUNT = 3;

/** The drops that one thread notes. */
export class DropLog {
  readonly #words: Int32Array;
  readonly #row: number;
  readonly #secret: number;

  /** @param counterRow the thread's first column among the counters */
  constructor(memory: SharedMemory, counterRow: number) {
    this.#words = memory.words;
    this.#row = memory.dropRow(counterRow);
    this.#secret = memory.words[HASH_SECRET]!;
  }

  /**
   * Notes a drop.
   * @param nodeId whom it was for
   * @param otherId whose it was, 0 for nobody that is named
   * @param reason of nodeDrop
   */
  note(nodeId: number, otherId: number, reason: number): void {
    const words = this.#words;
    const set = this.#row + (nodeHash(nodeId, this.#secret) >>> SET_SHIFT) * SET_WORDS;
    let oldest = set;
    for (let entry = set; entry < set + SET_WORDS; entry += DROP_ENTRY_WORDS) {
      const word = words[entry + REASON_AND_COUNT]!;
      if (
        words[entry] === nodeId &&
        words[entry + OTHER] === otherId &&
        word >>> REASON_SHIFT === reason
      ) {
        words[entry + SECOND] = words[CLOCK_S]!;
        words[entry + REASON_AND_COUNT] = (word & COUNT_MAX) === COUNT_MAX ? word : word + 1;
        return;
      }
      if (words[entry + SECOND]! < words[oldest + SECOND]!) oldest = entry;
    }
    words[oldest] = nodeId;
    words[oldest + OTHER] = otherId;
    words[oldest + SECOND] = words[CLOCK_S]!;
    words[oldest + REASON_AND_COUNT] = (reason << REASON_SHIFT) | 1;
  }
}

export interface NodeDrop {
  /** Unsigned. */
  readonly to: number;
  readonly from: number;
  readonly reason: NodeDropReason;
  /** Clock second of the last one. */
  readonly atS: number;
  readonly count: number;
}

/**
 * The drops that a node was part of, for it or of its own, newest first. Goes through all rows: a
 * quarter of a million entries with 64 workers.
 * @param nodeId not 0
 */
export function dropsOf(memory: SharedMemory, nodeId: number): NodeDrop[] {
  const { words, dropsAt, dropsEnd } = memory;
  const id = nodeId | 0;
  const set = new Int32Array(SET_WORDS);
  const found: NodeDrop[] = [];
  for (let at = dropsAt; at < dropsEnd; at += SET_WORDS) {
    let names = false;
    for (let entry = at; entry < at + SET_WORDS; entry += DROP_ENTRY_WORDS) {
      names ||= words[entry] === id || words[entry + OTHER] === id;
    }
    if (names && copySet(words, at, set)) found.push(...entriesOf(set, id));
  }
  return found.sort((one, other) => other.atS - one.atS);
}

/** @returns false if it did not hold still */
function copySet(words: Int32Array, at: number, set: Int32Array): boolean {
  for (let attempt = 0; attempt < READS_MAX; attempt++) {
    let isSame = true;
    for (let word = 0; word < SET_WORDS; word++) set[word] = Atomics.load(words, at + word);
    for (let word = 0; word < SET_WORDS; word++)
      isSame &&= set[word] === Atomics.load(words, at + word);
    if (isSame) return true;
  }
  return false;
}

function* entriesOf(set: Int32Array, id: number): Generator<NodeDrop> {
  for (let entry = 0; entry < SET_WORDS; entry += DROP_ENTRY_WORDS) {
    const count = set[entry + REASON_AND_COUNT]! & COUNT_MAX;
    const reason = NODE_DROP_REASONS[set[entry + REASON_AND_COUNT]! >>> REASON_SHIFT];
    if (count === 0 || reason === undefined || (set[entry] !== id && set[entry + OTHER] !== id))
      continue;
    yield {
      to: set[entry]! >>> 0,
      from: set[entry + OTHER]! >>> 0,
      reason,
      atS: set[entry + SECOND]!,
      count,
    };
  }
}
