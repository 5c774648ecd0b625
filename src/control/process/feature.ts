/** The process as a whole: its version, its health, and what it uses of the host. */

import * as v from "valibot";
import type { AnyFeature, Host, Service } from "../feature.ts";
import { Readings } from "../kit/readings.ts";
import { counts, list, number, optional, type StatsOf, text } from "../kit/schema.ts";
import { sockets } from "../sockets/feature.ts";
import { processOptions } from "./options.ts";

type ProcessHost = Host<{ readonly beaconId: number }>;

const stats = {
  version: text,
  beaconId: number,
  address: v.strictObject({ address: text, port: number, family: v.picklist(["IPv4", "IPv6"]) }),
  uptimeS: number,
  healthy: v.boolean(),
  /** Why /readyz answers 503; null if it answers 200. */
  notReady: v.nullable(text),
  /** Warnings though the beacon is ready, a sentence each. */
  warnings: list(text),
  /** Bytes of this process in memory, and the CPU seconds it used; null if that cannot be read. */
  residentBytes: optional,
  cpuS: optional,
  /** Mistakes of this program that it survived, by the work that they ended. */
  internalErrors: counts,
};
type ProcessStats = StatsOf<typeof stats>;

class ProcessService implements Service {
  readonly #readings: Readings;
  #startedMs = performance.now();
  #lastResidentBytes: number | undefined;

  constructor(private readonly host: ProcessHost) {
    this.#readings = new Readings(host.log);
  }

  start(): void {
    if (!this.host.predecessor) this.#startedMs = performance.now();
  }

  stats(): ProcessStats {
    const { version, config, beacon } = this.host;
    return {
      version,
      beaconId: config.beaconId,
      address: this.host.use(sockets).address,
      uptimeS: (performance.now() - this.#startedMs) / 1000,
      healthy: beacon.isHealthy,
      notReady: beacon.notReady ?? null,
      warnings: beacon.warnings,
      residentBytes: this.#residentBytes(),
      internalErrors: this.host.guard.errors,
      cpuS: this.#readings.read("the CPU time", () => {
        const { user, system } = process.cpuUsage();
        return (user + system) / 1e6;
      }),
    };
  }

  /** The last value if it cannot be read: that takes a file, of which none may be left. */
  #residentBytes(): number | null {
    return this.#readings.read("the resident memory", () => {
      try {
        this.#lastResidentBytes = process.memoryUsage.rss();
      } catch (error) {
        if (this.#lastResidentBytes === undefined) throw error;
      }
      return this.#lastResidentBytes;
    });
  }
}

export const program = {
  name: "process",
  stats,
  options: processOptions,
  metrics: [
    {
      rows: (values: ProcessStats) => [[{}, values]],
      counters: [
        {
          name: "process_cpu_seconds_total",
          help: "User and system CPU time spent.",
          values: ({ cpuS }) => cpuS,
        },
        {
          name: "beacon_internal_errors_total",
          help: "Mistakes of this program that it survived, by the work that they ended.",
          label: "work",
          values: ({ internalErrors }) => internalErrors,
        },
      ],
      gauges: [
        {
          name: "beacon_healthy",
          help: "1 while /healthz answers 200.",
          values: ({ healthy }) => Number(healthy),
        },
        {
          name: "beacon_start_time_seconds",
          help: "When the beacon started, in Unix seconds.",
          values: ({ uptimeS }) => Math.round(Date.now() / 1000 - uptimeS),
        },
        {
          name: "process_resident_memory_bytes",
          help: "Resident memory.",
          values: ({ residentBytes }) => residentBytes,
        },
      ],
    },
    {
      rows: ({ version }: ProcessStats) => [[{ version, bun: Bun.version }, 1]],
      rowLabels: ["version", "bun"],
      gauges: [
        {
          name: "beacon_build_info",
          help: "Version of the beacon and of the runtime; always 1.",
          values: (one: number) => one,
        },
      ],
    },
  ],
  create: (host: ProcessHost) => new ProcessService(host),
} satisfies AnyFeature;
