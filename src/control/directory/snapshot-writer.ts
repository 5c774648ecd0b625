/** Writes this beacon's snapshots into the directory, when somebody asks for one and the last does not do. */
import type { Announcer } from "./announcer.ts";
import type { DirectoryClock } from "./clock.ts";
import type { Claims, SnapshotName } from "./entries.ts";
import type { OwnNodes } from "./fleet-routes.ts";
import type { Pause } from "./slices.ts";
import { beginPart, encodeNodes, PART_NODES_MAX, type PartHead, partKey } from "./snapshots.ts";
import type { Store } from "./store.ts";

/** For so long a snapshot can be read; who comes later asks for another one. */
const READABLE_MS = 60_000;
/** Nobody is sent to one that might be gone before it is read. */
const NAMED_MS = READABLE_MS / 2;
/** After a snapshot, so many times as long as it took passes before the next: asking costs this beacon a third of a core at most. */
const REST = 2;
const REST_MS_MIN = 250;
/** Nodes between two pauses while a part is encoded: some 0.2 ms the first time, as who writes one snapshot a day has no compiled code. */
const SLICE_NODES = 1024;
/** Nodes that come while the table is gone through. */
const ROOM_TO_GROW = 1.1;

export interface SnapshotWriterParts {
  readonly name: string;
  readonly own: OwnNodes;
  readonly announcer: Announcer;
  readonly clock: DirectoryClock;
  readonly pause: Pause;
  readonly monotonicMs: () => number;
}

export class SnapshotWriter {
  written = 0;
  bytesWritten = 0;
  lastMs = 0;
  #isAsked = false;
  #notBeforeMs = 0;
  #last: (SnapshotName & { readonly epoch: number; readonly writtenMs: number }) | undefined;

  constructor(private readonly parts: SnapshotWriterParts) {}

  /** Somebody needs a snapshot with all that was told until now. */
  ask(): void {
    this.#isAsked = true;
  }

  /** What there is to be read. */
  get last(): SnapshotName | undefined {
    const { announcer, monotonicMs } = this.parts;
    const isGood = this.#last?.epoch === announcer.epoch && monotonicMs() - this.#last.writtenMs < NAMED_MS;
    return isGood ? this.#last : undefined;
  }

  /** Whether somebody asked, and is to be answered now. */
  get isAsked(): boolean {
    return this.#isAsked && this.parts.monotonicMs() >= this.#notBeforeMs;
  }

  /**
   * Answers: with the last snapshot if it has all and is still there, or else with another one. To be called while no changes are under
   * way: what they tell is in it, or behind its number. @throws StoreError
   */
  async answer(store: Store, signal: AbortSignal): Promise<void> {
    this.#isAsked = false;
    const { name, announcer, monotonicMs } = this.parts;
    const { epoch, seq } = announcer;
    const beganMs = monotonicMs();
    if (this.last?.seq === seq && (await this.#isThere(this.last, epoch, store))) {
      this.#notBeforeMs = monotonicMs() + REST_MS_MIN;
      return;
    }
    const claims = await this.#collect(signal);
    if (claims === undefined) return;
    const { nodeIds, timesMs, timeMs } = claims;
    const parts = Math.max(1, Math.ceil(nodeIds.length / PART_NODES_MAX));
    let bytes = 0;
    for (let part = 0; part < parts; part++) {
      const [from, end] = [part * PART_NODES_MAX, (part + 1) * PART_NODES_MAX];
      const ofPart = { nodeIds: nodeIds.subarray(from, end), timesMs: timesMs.subarray(from, end) };
      const encoded = await this.#encode({ epoch, seq, parts, part, timeMs }, ofPart);
      await store.putPart(partKey(name, { epoch, seq, part }), encoded, READABLE_MS);
      bytes += encoded.length;
    }
    this.#last = { epoch, seq, parts, writtenMs: monotonicMs() };
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

  /** @returns whether a snapshot is still there: the server may have lost it. One that was damaged is not named for long, either. */
  async #isThere({ seq, parts }: SnapshotName, epoch: number, store: Store): Promise<boolean> {
    for (let part = 0; part < parts; part++)
      if (!(await store.keepPart(partKey(this.parts.name, { epoch, seq, part }), READABLE_MS))) return false;
    return true;
  }

  /** @returns the claims, and a time that none of them is after: a claim can be ahead of the clock */
  async #collect(signal: AbortSignal): Promise<(Claims & { readonly timeMs: number }) | undefined> {
    const { own, announcer, clock, pause } = this.parts;
    const room = Math.ceil(own.size() * ROOM_TO_GROW) + PART_NODES_MAX;
    const nodeIds = new Int32Array(room);
    const timesMs = new Float64Array(room);
    let nodes = 0;
    let latestMs = 0;
    let isFull = false;
    const isWhole = await own.scan(
      (nodeId) => {
        const claimedMs = announcer.claimedMs(nodeId);
        isFull ||= nodes === room;
        if (claimedMs < 0 || isFull) return;
        latestMs = Math.max(latestMs, claimedMs);
        nodeIds[nodes] = nodeId;
        timesMs[nodes++] = claimedMs;
      },
      pause,
      signal,
    );
    if (!isWhole || isFull) return undefined; // who still needs it asks again
    return {
      nodeIds: nodeIds.subarray(0, nodes),
      timesMs: timesMs.subarray(0, nodes),
      timeMs: Math.max(latestMs, clock.nowMs()),
    };
  }
}
