/** Writes this beacon's snapshots into the directory when a beacon asks for one. */
import { ALL_RANGES, CLAIM_RANGES, countRanges, isIn } from "../../shared/claim-digest.ts";
import { PEERS_MAX } from "../../shared/memory.ts";
import type { RouteTableOwner } from "../../shared/routes-owner.ts";
import type { Pause } from "../kit/pacing.ts";
import type { Announcer } from "./announcer.ts";
import type { FleetClock } from "./clock.ts";
import type { Claims, SnapshotName } from "./entries.ts";
import { beginPart, encodeNodes, PART_NODES_MAX, type PartHead, partKey } from "./snapshots.ts";
import type { Store } from "./store.ts";

/** For so long a snapshot can be read; who comes later asks for another one. */
const READABLE_MS = 60_000;
/** Nobody is sent to one that might be gone before it is read. */
const NAMED_MS = READABLE_MS / 2;
/** Rest after a snapshot, times its duration: asking costs a third of a core at most. */
const REST = 2;
const REST_MS_MIN = 250;
/** Nodes between two pauses while encoding: 0.2 ms while the code is not compiled. */
const SLICE_NODES = 1024;
/** Steps through the table between two looks at the clock. */
const SLICE_STEPS = 512;
/** Room for nodes that arrive, or that removals move, while the table is scanned. */
const ROOM_TO_GROW = 1.1;
/** Of so many ranges a snapshot of all is hardly more work, and serves everybody. */
const RANGES_MAX = CLAIM_RANGES / 4;

type Written = SnapshotName & { readonly epoch: number; readonly writtenMs: number };

export interface SnapshotWriterParts {
  readonly name: string;
  readonly published: RouteTableOwner;
  readonly announcer: Announcer;
  readonly clock: FleetClock;
  readonly pause: Pause;
  readonly monotonicMs: () => number;
}

export class SnapshotWriter {
  written = 0;
  bytesWritten = 0;
  lastMs = 0;
  /** Ranges of node ids that are asked for. */
  #asked = 0;
  #notBeforeMs = 0;
  /** Beacons that asked since the last answer, and those that it answered. */
  #askers = new Set<string>();
  #answered = new Set<string>();
  #last: Written | undefined;
  #lastRanged: Written | undefined;

  constructor(private readonly parts: SnapshotWriterParts) {}

  /** Notes that another beacon needs a snapshot of these ranges, of all published so far. */
  ask(ranges: number, asker: string): void {
    // It could not load the last ones: they may be damaged.
    if (this.#answered.has(asker)) [this.#last, this.#lastRanged] = [undefined, undefined];
    if (this.#askers.size < PEERS_MAX) this.#askers.add(asker);
    this.#asked |= ranges;
    if (countRanges(this.#asked) > RANGES_MAX) this.#asked = ALL_RANGES;
  }

  /** What there is to be read, of all ranges. */
  get last(): SnapshotName | undefined {
    return this.#named(this.#last);
  }

  /** The same of some ranges. */
  get lastRanged(): SnapshotName | undefined {
    return this.#named(this.#lastRanged);
  }

  /** Whether a snapshot is asked for, and can be written now. */
  get isAsked(): boolean {
    return (
      this.#asked !== 0 &&
      this.parts.announcer.isWhole &&
      this.parts.monotonicMs() >= this.#notBeforeMs
    );
  }

  #named(written: Written | undefined): SnapshotName | undefined {
    const { announcer, monotonicMs } = this.parts;
    const isGood =
      written?.epoch === announcer.epoch && monotonicMs() - written.writtenMs < NAMED_MS;
    return isGood ? written : undefined;
  }

  /**
   * Answers: with the last snapshot if it has all and is still there, or else with another one. To
   * be called while no changes are under way: what they tell is in it, or behind its number.
   * @throws StoreError
   */
  async answer(store: Store, signal: AbortSignal): Promise<void> {
    const ranges = this.#asked;
    this.#asked = 0;
    this.#answered = this.#askers;
    this.#askers = new Set();
    const { name, announcer, monotonicMs } = this.parts;
    const { epoch, seq } = announcer;
    const beganMs = monotonicMs();
    const last = [this.last, this.lastRanged].find(
      (one) => one?.seq === seq && (one.ranges & ranges) === ranges,
    );
    if (last !== undefined && (await this.#isThere(last, epoch, store))) {
      this.#notBeforeMs = monotonicMs() + REST_MS_MIN;
      return;
    }
    const claims = await this.#collect(ranges, signal);
    if (claims === undefined || announcer.epoch !== epoch) return;
    const { nodeIds, timesMs, timeMs } = claims;
    const parts = Math.max(1, Math.ceil(nodeIds.length / PART_NODES_MAX));
    const snapshot = { seq, parts, ranges };
    let bytes = 0;
    for (let part = 0; part < parts; part++) {
      const [from, end] = [part * PART_NODES_MAX, (part + 1) * PART_NODES_MAX];
      const ofPart = { nodeIds: nodeIds.subarray(from, end), timesMs: timesMs.subarray(from, end) };
      const encoded = await this.#encode({ epoch, seq, parts, part, timeMs }, ofPart);
      await store.putPart(partKey(name, epoch, snapshot, part), encoded, READABLE_MS);
      bytes += encoded.length;
    }
    const written = { ...snapshot, epoch, writtenMs: monotonicMs() };
    if (ranges === ALL_RANGES) this.#last = written;
    else this.#lastRanged = written;
    this.written++;
    this.bytesWritten += bytes;
    this.lastMs = monotonicMs() - beganMs;
    this.#notBeforeMs = monotonicMs() + Math.max(REST_MS_MIN, REST * this.lastMs);
  }

  async #encode(head: PartHead, claims: Claims): Promise<Uint8Array<ArrayBuffer>> {
    const nodes = claims.nodeIds.length;
    const bytes = beginPart(head, nodes);
    for (let from = 0; from < nodes; from += SLICE_NODES) {
      await this.parts.pause();
      encodeNodes(bytes, head, claims, from, Math.min(from + SLICE_NODES, nodes));
    }
    return bytes;
  }

  /**
   * @returns whether a snapshot is still there: the server may have lost it. One that was damaged
   * is not named for long, either.
   */
  async #isThere(snapshot: SnapshotName, epoch: number, store: Store): Promise<boolean> {
    for (let part = 0; part < snapshot.parts; part++)
      if (!(await store.keepPart(partKey(this.parts.name, epoch, snapshot, part), READABLE_MS)))
        return false;
    return true;
  }

  /**
   * @returns what is published in these ranges, and a time that none of it is after: a claim can be
   * ahead of the clock
   */
  async #collect(
    ranges: number,
    signal: AbortSignal,
  ): Promise<(Claims & { readonly timeMs: number }) | undefined> {
    const { published, clock, pause } = this.parts;
    const room = Math.ceil(published.size * ROOM_TO_GROW) + PART_NODES_MAX;
    const nodeIds = new Int32Array(room);
    const timesMs = new Float64Array(room);
    let nodes = 0;
    let latestMs = 0;
    const visit = (nodeId: number, _peer: number, claimedMs: number) => {
      if (nodes >= room || !isIn(ranges, nodeId)) return;
      latestMs = Math.max(latestMs, claimedMs);
      nodeIds[nodes] = nodeId;
      timesMs[nodes++] = claimedMs;
    };
    for (let from = 0; from < published.sweepSteps; from += SLICE_STEPS) {
      await pause();
      if (signal.aborted) return undefined;
      published.visit(from, Math.min(from + SLICE_STEPS, published.sweepSteps), visit);
    }
    if (nodes >= room) return undefined; // too many came: who still needs it asks again
    return {
      nodeIds: nodeIds.subarray(0, nodes),
      timesMs: timesMs.subarray(0, nodes),
      timeMs: Math.max(latestMs, clock.nowMs()),
    };
  }
}
