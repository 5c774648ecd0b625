/** Loads other beacons' snapshots, part by part, while workers read the routes. */
import { isIn } from "../../shared/claim-digest.ts";
import type { Pause } from "../kit/pacing.ts";
import type { FleetClock } from "./clock.ts";
import type { SnapshotName } from "./entries.ts";
import type { Fleet, Followed } from "./fleet.ts";
import type { Claimer, FleetRoutes } from "./fleet-routes.ts";
import { decodePart, PART_BYTES_MAX, type Part, partKey } from "./snapshots.ts";
import type { Store } from "./store.ts";

/** Claims between two looks at the clock: first claims touch new pages, 25 µs each. */
const SLICE_CLAIMS = 8;

export interface SnapshotLoaderParts {
  readonly fleet: Fleet;
  readonly routes: FleetRoutes;
  readonly clock: FleetClock;
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

  /**
   * Loads a beacon's snapshot and follows it from there, unless that cannot be had; then it stays
   * behind.
   * @throws StoreError
   */
  async load(beacon: Followed & Claimer, store: Store): Promise<void> {
    beacon.isLoading = true;
    await this.#load(beacon, store).finally(() => {
      beacon.isLoading = false;
    });
  }

  async #load(beacon: Followed & Claimer, store: Store): Promise<void> {
    const { fleet, routes, clock, follow, monotonicMs } = this.parts;
    const beganMs = monotonicMs();
    const { number, epoch, loads } = beacon;
    const snapshot = beacon.wanted!;
    beacon.wanted = undefined;
    const isStill = () =>
      fleet.beacons.get(beacon.name) === beacon &&
      beacon.number === number &&
      beacon.loads === loads &&
      beacon.continues(snapshot);
    await routes.swept();
    await follow(number);
    fleet.nextMark(beacon);
    beacon.incomplete &= ~snapshot.ranges;
    const hadClaims = routes.hasClaims(beacon); // with other marks
    let bytes = 0;
    let timeMs = 0;
    for (let part = 0; part < snapshot.parts; part++) {
      if (!isStill()) return;
      const encoded = await store.getPart(
        partKey(beacon.name, epoch, snapshot, part),
        PART_BYTES_MAX,
      );
      if (encoded === undefined) {
        this.missing++;
        return;
      }
      const decoded = decodePart(encoded, {
        epoch,
        seq: snapshot.seq,
        parts: snapshot.parts,
        part,
      });
      // Another time: it was written again meanwhile, and who is in no part of the one may be in
      // one of the other.
      const isOfOther = part > 0 && decoded?.timeMs !== timeMs;
      if (decoded === undefined || isOfOther || clock.isTooFarAhead(decoded.timeMs)) {
        this.malformed++;
        return;
      }
      timeMs = decoded.timeMs;
      bytes += encoded.length;
      if (!(await this.#claim(decoded, snapshot, beacon, isStill))) return;
    }
    if (!isStill()) return;
    // Before the beacon is followed: from then on all that stands is compared with what it says.
    if (hadClaims)
      await routes.sweep(
        number,
        beacon.mark,
        (nodeId) =>
          isIn(snapshot.ranges, nodeId) && !beacon.hasChanged(nodeId, snapshot) && isStill(),
      );
    if (!isStill()) return;
    beacon.follow(snapshot);
    this.loaded++;
    this.bytesLoaded += bytes;
    this.lastMs = monotonicMs() - beganMs;
  }

  async #claim(
    part: Part,
    snapshot: SnapshotName,
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
      if (nodeId !== 0 && !beacon.hasChanged(nodeId, snapshot))
        routes.claim(nodeId, beacon, part.claimedMs(i));
    }
    return true;
  }
}
