/** The services of one beacon, in the order of the features' list. */

import { ConfigError } from "../config/units.ts";
import type { AnyFeature, FilesOf, Given, Host, Reading, Service, ServiceOf } from "./feature.ts";

import type { Guard } from "./kit/guard.ts";

/** Files of all features, as one reading found them. */
export class FeatureFiles {
  readonly warnings: string[] = [];
  readonly #files = new Map<AnyFeature, unknown>();

  /**
   * Reads all files that a configuration names.
   * @param config the whole configuration
   * @param before the last reading
   * @param onMistake receives each error, so that all are found; unless given, the first is thrown
   * @throws ConfigError that names the file, and never what is in it
   */
  constructor(
    features: readonly AnyFeature[],
    config: unknown,
    given: Given,
    before?: FeatureFiles,
    onMistake?: (mistake: ConfigError) => void,
  ) {
    for (const feature of features) {
      const reading: Reading<unknown> = {
        given,
        before: before?.of(feature),
        of: (other) => this.of(other),
        warn: (message) => this.warnings.push(message),
      };
      try {
        this.#files.set(feature, feature.read?.(config, reading));
      } catch (error) {
        if (!(error instanceof ConfigError) || onMistake === undefined) throw error;
        onMistake(error);
      }
    }
  }

  of<F extends AnyFeature>(feature: F): FilesOf<F> {
    return this.#files.get(feature) as FilesOf<F>;
  }
}

export class Services {
  readonly #made = new Map<AnyFeature, Service>();

  constructor(
    private readonly features: readonly AnyFeature[],
    private readonly guard: Guard,
  ) {}

  /** @throws what a feature throws; `stop` releases what was made before it */
  async create(hostOf: (feature: AnyFeature) => Host<unknown, unknown>): Promise<void> {
    for (const feature of this.features)
      this.#made.set(feature, await feature.create(hostOf(feature)));
  }

  /** Returns a service that was made. */
  use<F extends AnyFeature>(feature: F): ServiceOf<F> {
    const service = this.#made.get(feature);
    if (service === undefined)
      throw new Error(`${feature.name} stands later in the list of features`);
    return service as ServiceOf<F>;
  }

  /** In the list's order. */
  get all(): readonly Service[] {
    return [...this.#made.values()];
  }

  /** @throws what a service throws */
  async start(isWhole: boolean): Promise<void> {
    for (const service of this.all) await service.restore?.(isWhole);
    for (const service of this.all) await service.start?.();
  }

  /** Calls each service; an error in one is logged and keeps no other from being called. */
  each(call: (service: Service, feature: AnyFeature) => void): void {
    for (const [feature, service] of this.#made)
      this.guard.run(feature.name, () => call(service, feature));
  }

  /** Stops all in reverse, each once the one before has stopped. */
  async stop(isReplaced: boolean): Promise<void> {
    const made = [...this.#made].reverse();
    await this.guard.runAll(
      made.map(
        ([{ name }, service]) => [`stopping ${name}`, () => service.stop?.(isReplaced)] as const,
      ),
    );
  }

  /** What all services return, one after the other. */
  gather<T>(read: (service: Service) => readonly T[] | undefined): readonly T[] {
    return this.all.flatMap((service) => read(service) ?? []);
  }
}
