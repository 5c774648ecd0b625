/**
 * The directory's time: milliseconds since 1970 by the clock of its server, as far as this host can tell. All beacons of a fleet stamp
 * their claims with it, so that the later of two is known whatever their hosts' clocks say.
 *
 * It is this host's monotonic clock and an offset. A moment's time never changes once it was told: another offset holds from the moment
 * on in which it is found. Otherwise two beacons that compare the same two claims might each hold its own for the later one.
 */
import { stepped, TIME_STEP_MS } from "./entries.ts";
import type { Store } from "./store.ts";

/** Differences below this are not worth another offset: they are the network's moods. */
const ADJUST_MS = 0.25;
/** Answers of the server that are compared: the quickest tells the offset best. */
const SAMPLES_MAX = 8;
/** Offsets that are remembered; one is found every lease at most, and what is older than that many leases has long been told. */
const OFFSETS_MAX = 64;

interface Offset {
  /** From this moment on, monotonic. */
  readonly fromMs: number;
  readonly ms: number;
}

interface Sample {
  readonly offsetMs: number;
  readonly roundTripMs: number;
}

export class DirectoryClock {
  #offsets: Offset[];
  /** Whether the server was ever asked; before, nothing is told. */
  #isKnown = false;
  #samples: Sample[] = [];

  /**
   * @param monotonicMs CLOCK_MONOTONIC
   * @param wallMs this host's own time, to begin with
   */
  constructor(
    private readonly monotonicMs: () => number,
    wallMs: number,
  ) {
    this.#offsets = [{ fromMs: Number.NEGATIVE_INFINITY, ms: wallMs - monotonicMs() }];
  }

  nowMs(): number {
    return this.timeOf(this.monotonicMs());
  }

  /** The directory's time at a moment. */
  timeOf(monotonicMs: number): number {
    const offsets = this.#offsets;
    let i = offsets.length - 1;
    while (i > 0 && offsets[i]!.fromMs > monotonicMs) i--;
    return stepped(monotonicMs + offsets[i]!.ms);
  }

  /** A moment, one of late, that has this time or a later one. */
  momentOf(timeMs: number): number {
    const { fromMs, ms } = this.#offsets.at(-1)!;
    // In the middle of the step: what is rounded down has to come out as the same. Before `fromMs` another offset holds.
    return Math.max(timeMs - ms + TIME_STEP_MS / 2, fromMs);
  }

  /** The server may be another one. */
  forgetSamples(): void {
    this.#samples = [];
  }

  /** Asks the server once. @throws StoreError */
  async ask(store: Pick<Store, "time">): Promise<void> {
    const { serverMs, roundTripMs } = await store.time();
    this.sample(serverMs, roundTripMs);
  }

  /** The server answered with its time, just now; it counts from `adjust` on. */
  sample(serverMs: number, roundTripMs: number): void {
    this.#samples.push({ offsetMs: serverMs + roundTripMs / 2 - this.monotonicMs(), roundTripMs });
    if (this.#samples.length > SAMPLES_MAX) this.#samples.shift();
  }

  /** Goes by the best sample from now on. The first time, also for all that was: until then this host's own time was but a guess. */
  adjust(): void {
    const best = this.#samples.reduce((one, other) => (other.roundTripMs < one.roundTripMs ? other : one));
    if (!this.#isKnown) {
      this.#isKnown = true;
      this.#offsets = [{ fromMs: Number.NEGATIVE_INFINITY, ms: best.offsetMs }];
    } else if (Math.abs(best.offsetMs - this.#offsets.at(-1)!.ms) >= ADJUST_MS) {
      this.#offsets.push({ fromMs: this.monotonicMs(), ms: best.offsetMs });
      if (this.#offsets.length > OFFSETS_MAX) this.#offsets.shift();
    }
  }
}
