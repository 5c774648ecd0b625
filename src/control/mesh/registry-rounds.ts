/**
 * Rounds with the registry: this beacon is registered, and its peers are known, as long as they go
 * well.
 */
import type { Logger } from "pino";
import { parseHostNamePort } from "../../config/units.ts";
import { Guard } from "../kit/guard.ts";
import { PeriodicTask } from "../kit/periodic-task.ts";
import { ThrottledLog } from "../kit/throttled-log.ts";
import type { MeshConfig } from "./options.ts";
import { type ListedBeacon, registryRound, skippedText } from "./registry.ts";
import { ofRegistry, RegistryError } from "./registry-protocol.ts";

/**
 * Rounds are spread by this share of their interval, so that beacons that were started together do
 * not ask together for ever.
 */
const JITTER = 0.1;

export class RegistryRounds {
  /** Rounds by how they ended: "ok", or a RegistryErrorCode. */
  readonly outcomes: Record<string, number> = { ok: 0 };
  /** Why the last round failed; undefined if it went well, or there is no registry. */
  problem: string | undefined;
  /** Unix seconds; undefined before the first. */
  lastSuccessS: number | undefined;
  readonly #task: PeriodicTask;
  readonly #complaints: ThrottledLog;

  /**
   * @param config as it is now
   * @param defaultAdvertised "host:port" of this beacon, from this host's address on the connection
   * @param listed is told of the beacons after each round that went well, and of none when there is
   * no registry any more
   */
  constructor(
    private readonly config: () => MeshConfig,
    private readonly defaultAdvertised: (localAddress: string) => string,
    private readonly listed: (beacons: readonly ListedBeacon[], advertised: string) => void,
    private readonly log: Logger,
  ) {
    this.#complaints = new ThrottledLog(log);
    const guard = new Guard(log);
    this.#task = new PeriodicTask(
      (signal) => this.#round(signal),
      () => config().registryIntervalMs * (1 + JITTER * (2 * Math.random() - 1)),
      (error) => guard.report("a round with the registry", error),
    );
  }

  start(): void {
    this.#task.start();
  }

  /** The next round begins as soon as it can. */
  soon(): void {
    this.#task.soon();
  }

  stop(): Promise<void> {
    return this.#task.stop();
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { registry, beaconId, registryAdminToken: adminToken, advertiseAddr } = this.config();
    if (registry === "off") {
      this.problem = undefined;
      this.listed([], "");
      return;
    }
    const advertise = advertiseAddr === "auto" ? this.defaultAdvertised : () => advertiseAddr;
    const address = parseHostNamePort(registry);
    try {
      const round = await registryRound(
        { registry: address, beaconId, adminToken, advertise },
        signal,
      );
      if (signal.aborted || this.config().registry !== registry) return;
      this.#ended("ok");
      this.problem = undefined;
      this.lastSuccessS = Math.round(Date.now() / 1000);
      if (round.skipped > 0)
        this.#complaints.warn("skipped", ofRegistry(address, skippedText(round)));
      this.listed(round.beacons, round.advertised);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof RegistryError)) throw error;
      this.#ended(error.code);
      this.problem = `${error.message}; peers stay as they are`;
      this.log.warn(this.problem);
    }
  }

  #ended(outcome: string): void {
    this.outcomes[outcome] = (this.outcomes[outcome] ?? 0) + 1;
  }
}
