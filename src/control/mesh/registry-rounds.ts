/** Rounds with the registry: each registers this beacon and lists the others. */
import { parseHostNamePort } from "../../config/units.ts";
import type { PeriodicTask } from "../kit/periodic-task.ts";
import { ofRegistry, RegistryError } from "../registry/protocol.ts";
import { type ListedBeacon, registryRound, skippedText } from "../registry/round.ts";
import type { MeshContext } from "./context.ts";

/** Share of the interval by which rounds vary: beacons that start together do not stay in step. */
const JITTER = 0.1;

export class RegistryRounds {
  /** Rounds by outcome: "ok" or a RegistryErrorCode. */
  readonly outcomes: Record<string, number> = { ok: 0 };
  /** Why the last round failed; undefined after a success, or without a registry. */
  problem: string | undefined;
  /** Unix seconds; undefined before the first. */
  lastSuccessS: number | undefined;
  readonly #task: PeriodicTask;

  /**
   * @param toRegister returns "host:port" of this beacon for this host's address on the connection
   * @param listed receives the beacons after each successful round, and none without a registry
   */
  constructor(
    private readonly mesh: MeshContext,
    private readonly toRegister: (localAddress: string) => string,
    private readonly listed: (beacons: readonly ListedBeacon[], advertised: string) => void,
  ) {
    this.#task = mesh.task(
      "a round with the registry",
      (signal) => this.#round(signal),
      () => mesh.config.registryIntervalMs * (1 + JITTER * (2 * Math.random() - 1)),
    );
  }

  start(): void {
    this.#task.start();
  }

  soon(): void {
    this.#task.soon();
  }

  stop(): Promise<void> {
    return this.#task.stop();
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { config, log, warn } = this.mesh;
    const { registry, beaconId, registryAdminToken: adminToken, advertiseAddr } = config;
    if (registry === "off") {
      this.problem = undefined;
      this.listed([], "");
      return;
    }
    const advertise = advertiseAddr === "auto" ? this.toRegister : () => advertiseAddr;
    const address = parseHostNamePort(registry);
    try {
      const round = await registryRound(
        { registry: address, beaconId, adminToken, advertise },
        signal,
      );
      if (signal.aborted || this.mesh.config.registry !== registry) return;
      this.#ended("ok");
      this.problem = undefined;
      this.lastSuccessS = Math.round(Date.now() / 1000);
      if (round.skipped > 0)
        warn("registry_entries_skipped", { registry }, ofRegistry(address, skippedText(round)));
      this.listed(round.beacons, round.advertised);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof RegistryError)) throw error;
      this.#ended(error.code);
      this.problem = `${error.message}; peers stay as they are`;
      log.warn({ event: "registry_failed", registry, code: error.code }, this.problem);
    }
  }

  #ended(outcome: string): void {
    this.outcomes[outcome] = (this.outcomes[outcome] ?? 0) + 1;
  }
}
