/** What a beacon makes of its features. */
import type { Logger } from "pino";
import { ConfigError } from "../config/units.ts";
import type {
  AnyFeature,
  FilesOf,
  Given,
  HandOverSections,
  Host,
  Reading,
  Service,
  ServiceOf,
} from "./feature.ts";
import type { Guard } from "./kit/guard.ts";
import { added, type Counts } from "./kit/metrics.ts";

const TICK_MS = 1000;

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

/** The configuration in force, and the files that it names. */
export class InForce<Config> {
  #config: Config;
  #files: FeatureFiles | undefined;

  constructor(
    private readonly features: readonly AnyFeature[],
    config: Config,
    private readonly given: Given,
    private readonly log: Logger,
  ) {
    this.#config = config;
  }

  get config(): Config {
    return this.#config;
  }

  /** Undefined before `use`. */
  get files(): FeatureFiles | undefined {
    return this.#files;
  }

  /** Reads a configuration's files, and applies both, or neither. @throws ConfigError */
  use(config: Config): void {
    const files = new FeatureFiles(this.features, config, this.given, this.#files);
    const known = new Set(this.#files?.warnings); // each once, however often files are read
    this.#config = config;
    this.#files = files;
    for (const warning of files.warnings) if (!known.has(warning)) this.log.warn(warning);
  }
}

/** What all services of a beacon share. */
export type Shared = Omit<Host<unknown, unknown>, "config" | "files" | "services" | "use">;

/** The services of one beacon, in the order of the features' list. */
export class Services {
  readonly #made = new Map<AnyFeature, Service>();
  #ticks: Timer | undefined;

  constructor(
    private readonly features: readonly AnyFeature[],
    private readonly inForce: InForce<unknown>,
    private readonly guard: Guard,
  ) {}

  /** @throws what a feature throws; `stop` releases what was made before it */
  async create(shared: Shared): Promise<void> {
    for (const feature of this.features)
      this.#made.set(feature, await feature.create(this.#host(feature, shared)));
  }

  #host(feature: AnyFeature, shared: Shared): Host<unknown, unknown> {
    const services = this;
    return {
      ...shared,
      use: (other) => services.use(other),
      get services() {
        return services.all;
      },
      get config() {
        return services.inForce.config;
      },
      get files() {
        return services.inForce.files?.of(feature);
      },
    };
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
    this.#ticks = setInterval(() => this.each((service) => service.tick?.()), TICK_MS);
  }

  /** Calls each service; an error in one is logged and keeps no other from being called. */
  each(call: (service: Service, feature: AnyFeature) => void): void {
    for (const [feature, service] of this.#made)
      this.guard.run(feature.name, () => call(service, feature));
  }

  /** Has all services go on with the configuration in force. */
  reconfigure(): void {
    const { config, files } = this.inForce;
    this.each((service, feature) =>
      service.reconfigure?.(config as never, files!.of(feature) as never),
    );
  }

  /** Stops all in reverse, each once the one before has stopped. */
  async stop(isReplaced: boolean): Promise<void> {
    clearInterval(this.#ticks);
    const made = [...this.#made].reverse();
    await this.guard.runAll(
      made.map(
        ([{ name }, service]) => [`stopping ${name}`, () => service.stop?.(isReplaced)] as const,
      ),
    );
  }

  stats(): object {
    return Object.assign({}, ...this.all.map((service) => service.stats?.()));
  }

  summary(): Counts {
    const stats = this.stats() as never;
    return added(this.features.map((feature) => feature.summary?.(stats) ?? {}));
  }

  get notReady(): string | undefined {
    return this.gather((service) => service.notReady?.() ?? [])[0];
  }

  get warnings(): readonly string[] {
    return this.gather((service) => service.warnings?.() ?? []);
  }

  get handOvers(): readonly HandOverSections[] {
    return this.gather(({ handOver }) => handOver ?? []);
  }

  /** What all services return, one after the other. */
  gather<T>(read: (service: Service) => T | readonly T[]): readonly T[] {
    return this.all.flatMap(read);
  }
}
