/** Loads other beacons' snapshots: a part at a time, a slice at a time, while the workers read the routes. */
import type { Fleet, Followed } from "./fleet.ts";
import { type Claimer, type FleetRoutes, IN_SNAPSHOT } from "./fleet-routes.ts";
import type { Pause } from "./slices.ts";
import { decodePart, PART_BYTES_MAX, type Part, partKey } from "./snapshots.ts";
import type { Store } from "./store.ts";

/** Claims between two looks at the clock: each of a table's first claims finds pages that nobody has written yet, and takes 25 µs. */
const SLICE_CLAIMS = 8;

export interface SnapshotLoaderParts {
  readonly fleet: Fleet;
  readonly routes: FleetRoutes;
  /** Ends what else is told of this peer's nodes. */
  readonly follow: (number: number) => Promise<void>;
  readonly pause: Pause;
  readonly monotonicMs: () => number;
}

export class SnapshotLoader {
  loaded = 0;
  bytesLoaded = 0;
  /** Parts that were gone when they were to be read, or were not what they had to be. */
  missing = 0;
  malformed = 0;
  lastMs = 0;

  constructor(private readonly parts: SnapshotLoaderParts) {}

  /** Loads a beacon's snapshot and follows it from there, unless that cannot be had; then it stays behind. @throws StoreError */
  async load(beacon: Followed & Claimer, store: Store): Promise<void> {
    beacon.isLoading = true;
    await this.#load(beacon, store).finally(() => {
      beacon.isLoading = false;
    });
  }

  async #load(beacon: Followed & Claimer, store: Store): Promise<void> {
    const { fleet, routes, follow, monotonicMs } = this.parts;
    const beganMs = monotonicMs();
    const { number, epoch } = beacon;
    const snapshot = beacon.wanted!;
    beacon.wanted = undefined;
    const { kept } = beacon;
    const isStill = () =>
      fleet.beacons.get(beacon.name) === beacon && beacon.number === number && beacon.kept === kept;
    await routes.swept();
    await follow(number);
    fleet.nextMark(beacon);
    const hadRoutes = routes.countOf(number) > 0; // with other marks
    let bytes = 0;
    let timeMs = 0;
    for (let part = 0; part < snapshot.parts; part++) {
      if (!isStill()) return;
      const encoded = await store.getPart(
        partKey(beacon.name, { epoch, seq: snapshot.seq, part }),
        PART_BYTES_MAX,
      );
      if (encoded === undefined) {
        this.missing++;
        return;
      }
      const decoded = decodePart(encoded, { epoch, seq: snapshot.seq, parts: snapshot.parts, part });
      // Another time: it was written again meanwhile, and who is in no part of the one may be in one of the other.
      if (decoded === undefined || (part > 0 && decoded.timeMs !== timeMs)) {
        this.malformed++;
        return;
      }
      timeMs = decoded.timeMs;
      bytes += encoded.length;
      if (!(await this.#claim(decoded, snapshot.seq, beacon, isStill))) return;
    }
    if (!(await this.#catchUp(beacon, snapshot.seq, isStill))) return;
    this.loaded++;
    this.bytesLoaded += bytes;
    this.lastMs = monotonicMs() - beganMs;
    if (hadRoutes) await routes.sweep(number, beacon.mark);
  }

  async #claim(
    part: Part,
    seq: number,
    beacon: Followed & Claimer,
    isStill: () => boolean,
  ): Promise<boolean> {
    const { routes, pause } = this.parts;
    if (!isStill()) return false;
    for (let i = 0; i < part.nodes; i++) {
      const over = i % SLICE_CLAIMS === 0 ? pause() : undefined;
      if (over !== undefined) {
        await over;
        if (!isStill()) return false;
      }
      const nodeId = part.nodeId(i);
      // What the beacon said behind the snapshot holds by now.
      if (nodeId !== 0 && beacon.lastOf(nodeId) <= seq)
        routes.claim(nodeId, beacon, part.claimedMs(i), IN_SNAPSHOT);
    }
    return true;
  }

  /** What was kept holds again. @returns whether the beacon is followed from now on */
  async #catchUp(beacon: Followed & Claimer, seq: number, isStill: () => boolean): Promise<boolean> {
    const { fleet, pause } = this.parts;
    let reached = seq;
    for (let i = 0; ; i++) {
      // What is kept may have begun anew, behind a gap; otherwise it only grows.
      if (!isStill() || beacon.needed! > reached) return false;
      const next = beacon.kept![i];
      if (next === undefined) break;
      if (next.seq <= reached) continue;
      reached = next.seq;
      fleet.applyAgain(beacon, next);
      await pause();
    }
    beacon.follow(reached);
    return true;
  }
}
