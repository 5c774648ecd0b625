/** What a fleet and its directory's server use for as long as something goes on. */
import type { DirectoryServer } from "./directory-server.ts";
import type { Fleet } from "./fleet.ts";
import { cpuNs, workersCpuNs } from "./usage.ts";

export interface FleetUse {
  readonly seconds: number;
  /** By beacon, % of a core: of all its threads but the workers, and of its workers. */
  readonly control: readonly number[];
  readonly workers: readonly number[];
  /** Of the server: % of a core, and bytes a second. */
  readonly server: number;
  readonly serverIn: number;
  readonly serverOut: number;
}

/** @param server undefined if there is none */
export async function fleetUseDuring(
  fleet: Fleet,
  server: DirectoryServer | undefined,
  act: () => Promise<void>,
): Promise<FleetUse> {
  const before = await countersOf(fleet, server);
  await act();
  const after = await countersOf(fleet, server);
  const seconds = (after.atNs - before.atNs) / 1e9;
  const percent = (ns: number) => (ns / 1e9 / seconds) * 100;
  const workers = after.workers.map((ns, i) => percent(ns - before.workers[i]!));
  return {
    ...{ seconds, workers },
    control: after.all.map((ns, i) => percent(ns - before.all[i]!) - workers[i]!),
    server: percent(after.server - before.server),
    serverIn: (after.bytesIn - before.bytesIn) / seconds,
    serverOut: (after.bytesOut - before.bytesOut) / seconds,
  };
}

async function countersOf({ targets }: Fleet, server: DirectoryServer | undefined) {
  const { bytesIn = 0, bytesOut = 0 } = (await server?.use()) ?? {};
  return {
    ...{ bytesIn, bytesOut },
    server: server ? cpuNs(server.pid) : 0,
    all: targets.map(({ pid }) => cpuNs(pid)),
    workers: targets.map(({ pid }) => workersCpuNs(pid)),
    atNs: Bun.nanoseconds(),
  };
}
