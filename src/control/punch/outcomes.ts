/** Outcomes of punches: watched pairs, direct and relayed, by address family. */
import { CLOCK_S, type SharedMemory } from "../../shared/memory.ts";
import { PUNCH_FAMILIES, PunchWatchOwner } from "../../shared/punch-watch.ts";
import { counts, number, type StatsOf } from "../kit/schema.ts";

/** By the address family of the two endpoints: "ipv4", "ipv6" or "mixed". */
export const punchedPairs = {
  /** Pairs that did not relay here from the fifth second after their punch to the 60th. */
  direct: counts,
  /** Pairs that did. */
  relayed: counts,
  /** Pairs for which there was no room. */
  unwatched: number,
  /** Pairs whose minute is not over. */
  watching: number,
};
export type PunchedPairs = StatsOf<typeof punchedPairs>;

const noPairs = () => Object.fromEntries(PUNCH_FAMILIES.map((family) => [family, 0]));

export class PunchOutcomes {
  readonly #watch: PunchWatchOwner;
  readonly #direct = noPairs();
  readonly #relayed = noPairs();
  #unwatched = 0;
  #watching = 0;

  constructor(private readonly memory: SharedMemory) {
    this.#watch = new PunchWatchOwner(memory);
  }

  /** To be called about every second, once the clock is set. */
  tick(): void {
    this.#unwatched += this.#watch.takeUnwatched();
    this.#watching = this.#watch.sweep(this.memory.words[CLOCK_S]!, (family, hasRelayed) => {
      const counts = hasRelayed ? this.#relayed : this.#direct;
      counts[PUNCH_FAMILIES[family]!]!++;
    });
  }

  /** As of the last tick. */
  stats(): PunchedPairs {
    return {
      direct: { ...this.#direct },
      relayed: { ...this.#relayed },
      unwatched: this.#unwatched,
      watching: this.#watching,
    };
  }
}
