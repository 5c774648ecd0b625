/**
 * Bounds that hold in the calm: what beacons write, how often they claim a node, and how long a
 * lookup is wrong.
 */
import { ASK, CHANGES, decodeEntry } from "../../../../src/control/directory/entries.ts";
import { lookups } from "./truth.ts";
import type { World } from "./world.ts";

/** Between two looks. */
export const LOOK_MS = 3_000;
/** Looks without any move before the bounds hold: what was collected meanwhile is written. */
const QUIET_LOOKS = 2;
/**
 * Entries that a beacon writes in a second of quiet. A lease of 3 s is renewed once a second, and
 * once more for each snapshot and each peer whose lease ends. It asks each of up to 19 peers that
 * it is behind with about once a second. Questions that forged strangers cause are not counted.
 */
export const ENTRIES_PER_S_MAX = 20;
/**
 * Claims of one node by one beacon in the quiet: each further beacon that held it until then may
 * contradict once.
 */
export const CLAIMS_OF_NODE_MAX = 6;
/**
 * A lookup is wrong for as long as a lost beacon's lease, a connection that hangs, and questions
 * that are asked again take.
 */
export const WRONG_MS_MAX = 60_000;
/**
 * More where a full server refuses entries: its log is trimmed by what was read a minute before.
 */
export const TRIM_MS = 75_000;

/** Largest values of a schedule. */
export interface Extremes {
  entriesPerS: number;
  claimsOfNode: number;
  wrongMs: number;
}

export const noExtremes = (): Extremes => ({ entriesPerS: 0, claimsOfNode: 0, wrongMs: 0 });

export function raise(extremes: Extremes, other: Extremes): void {
  for (const key of ["entriesPerS", "claimsOfNode", "wrongMs"] as const)
    extremes[key] = Math.max(extremes[key], other[key]);
}

export class Watch {
  readonly extremes = noExtremes();
  /** -1: it is not quiet. */
  #quietLooks = -1;
  #lookedMs = 0;
  readonly #entries = new Map<string, number>();
  readonly #claims = new Map<string, number>();
  /** By beacon, node and holder: when the lookup was first seen to be wrong. */
  #wrongSinceMs = new Map<string, number>();

  constructor(private readonly world: World) {}

  /** Nothing moves from now on. */
  quiet(): void {
    this.#quietLooks = 0;
  }

  end(): void {
    this.#quietLooks = -1;
  }

  /** An entry was added to the log. */
  wrote(bytes: Uint8Array | undefined): void {
    const entry = bytes && decodeEntry(bytes);
    if (entry === undefined || this.#quietLooks < QUIET_LOOKS) return;
    if (entry.kind === ASK && !this.world.hosts.some(({ name }) => name === entry.of.name)) return;
    const { name, epoch } = entry;
    this.#entries.set(name, (this.#entries.get(name) ?? 0) + 1);
    if (entry.kind !== CHANGES) return;
    for (const nodeId of entry.claims.nodeIds) {
      const key = `${name} ${epoch} ${nodeId}`; // rivals have one name
      this.#claims.set(key, (this.#claims.get(key) ?? 0) + 1);
    }
  }

  look(): void {
    const { world, extremes } = this;
    const passedS = (world.nowMs - this.#lookedMs) / 1000;
    this.#lookedMs = world.nowMs;
    for (const count of this.#entries.values())
      extremes.entriesPerS = Math.max(extremes.entriesPerS, count / passedS);
    this.#entries.clear();
    for (const count of this.#claims.values())
      extremes.claimsOfNode = Math.max(extremes.claimsOfNode, count);
    const wrongSinceMs = new Map<string, number>();
    for (const { beacon, node, holder, isRight } of lookups(world)) {
      if (isRight) continue;
      const key = `${beacon} ${node.id} ${holder}`;
      const sinceMs = this.#wrongSinceMs.get(key) ?? world.nowMs;
      wrongSinceMs.set(key, sinceMs);
      extremes.wrongMs = Math.max(extremes.wrongMs, world.nowMs - sinceMs);
    }
    this.#wrongSinceMs = wrongSinceMs;
    if (this.#quietLooks >= 0) this.#quietLooks++;
  }

  /** @returns which bounds were exceeded, in words */
  *exceeded(): Generator<string> {
    const { entriesPerS, claimsOfNode, wrongMs } = this.extremes;
    if (entriesPerS > ENTRIES_PER_S_MAX)
      yield `a beacon wrote ${entriesPerS.toFixed(1)} entries a second in the calm`;
    if (claimsOfNode > CLAIMS_OF_NODE_MAX)
      yield `a beacon claimed a node ${claimsOfNode} times in the calm`;
    if (wrongMs > WRONG_MS_MAX + (this.world.hasMemoryLimit ? TRIM_MS : 0))
      yield `a lookup was wrong for ${wrongMs / 1000} s in the calm`;
  }
}
