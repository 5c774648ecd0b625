/** What is measured side by side: programs under load, and what the load costs them. */
import type { LoadResult } from "./load.ts";
import type { Contestant } from "./rounds.ts";
import { showNumber } from "./statistics.ts";
import type { Target } from "./targets.ts";
import { cpuNs } from "./usage.ts";

export interface Loaded extends Contestant {
  /** Loads it without counting: compiled code, caches, page tables. */
  warmUp(seconds: number): void;
  /** From now on it counts. */
  begin(): Promise<void>;
  /** Loads it for so long. */
  slice(ns: number): void;
  readonly cpuNsPerPacket: number;
  /** The same of a beacon's workers alone; undefined where that was not counted. */
  readonly workersNsPerPacket?: number | undefined;
  readonly packetsPerS: number;
  readonly lost: number;
  /** One line about what was counted. */
  show(): Promise<string>;
}

/** What makes packets for a target and takes what comes back. */
export interface Generator {
  run(durationNs: number): LoadResult;
  close(): void;
}

/**
 * A load that goes through one process, or through several one after the other; what it costs all
 * of them counts.
 */
export class LoadedTargets<G extends Generator = Generator> implements Loaded {
  #cpuNs = 0;
  #elapsedNs = 0;
  #handled = 0;
  #lost = 0;

  constructor(
    private readonly name: string,
    readonly targets: readonly Target[],
    readonly generator: G,
  ) {}

  warmUp(seconds: number): void {
    this.generator.run(seconds * 1e9);
  }

  async begin(): Promise<void> {}

  slice(ns: number): void {
    const before = this.#usedNs();
    const { handled, lost, elapsedNs } = this.generator.run(ns);
    this.#cpuNs += this.#usedNs() - before;
    this.#elapsedNs += elapsedNs;
    this.#handled += handled;
    this.#lost += lost;
  }

  #usedNs(): number {
    return this.targets.reduce((sum, { pid }) => sum + cpuNs(pid), 0);
  }

  get cpuNsPerPacket(): number {
    return this.#cpuNs / this.#handled;
  }

  protected get handled(): number {
    return this.#handled;
  }

  get packetsPerS(): number {
    return (this.#handled / this.#elapsedNs) * 1e9;
  }

  get lost(): number {
    return this.#lost;
  }

  async show(): Promise<string> {
    const share = ((this.#cpuNs / this.#elapsedNs) * 100).toFixed(0);
    return (
      `${this.name}: ${showNumber(this.cpuNsPerPacket)} ns, ${showNumber(this.packetsPerS / 1000)} k/s` +
      ` at ${share} % of a core${this.#lost === 0 ? "" : `, LOST ${this.#lost}`}`
    );
  }

  async stop(): Promise<void> {
    this.generator.close();
    for (const target of this.targets) await target.stop();
  }
}
