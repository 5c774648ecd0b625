/**
 * A fleet of beacons, a process each, on all cores: each with its share of the nodes, and with a
 * directory or without.
 */
import type { Stats } from "../../src/beacon.ts";
import { PauseProbe } from "./pauses.ts";
import {
  ALL_CPUS,
  answerOf,
  beaconSources,
  freePort,
  startBeacon,
  statsOf,
  type Target,
} from "./targets.ts";

/** Nodes move: so much more than its share can a beacon hold. */
const ROOM = 1.3;
const ROOM_MIN = 1000;

/** Nodes 1 to beacons * nodesEach; a beacon's are those behind the ones of the beacon before. */
export interface FleetShape {
  readonly beacons: number;
  readonly nodesEach: number;
}

export const nodesOf = ({ beacons, nodesEach }: FleetShape): number => beacons * nodesEach;
export const firstNodeOf = ({ nodesEach }: FleetShape, beacon: number): number =>
  1 + beacon * nodesEach;

export interface FleetOptions {
  /** Where the directory is, or "off". */
  readonly directory: string;
  readonly batch: number;
  /** Further flags of each. */
  readonly flags?: readonly string[];
  /** A list for taskset; all unless given. */
  readonly cpus?: string;
}

export class Fleet {
  /** Of the first beacon. */
  readonly probe = new PauseProbe();
  readonly targets: Target[] = [];
  readonly #ports: readonly number[];

  private constructor(
    readonly shape: FleetShape,
    private readonly options: FleetOptions,
  ) {
    this.#ports = Array.from({ length: shape.beacons }, () => freePort());
  }

  static async start(shape: FleetShape, options: FleetOptions): Promise<Fleet> {
    const fleet = new Fleet(shape, options);
    try {
      await Promise.all(fleet.#ports.map((_, beacon) => fleet.start(beacon)));
    } catch (error) {
      await fleet.stop();
      throw error;
    }
    return fleet;
  }

  /** Starts one, where it was before. */
  async start(beacon: number): Promise<void> {
    const { shape, options } = this;
    const { directory, batch, flags = [], cpus = ALL_CPUS } = options;
    const room = Math.ceil(shape.nodesEach * ROOM) + ROOM_MIN;
    const all = [
      `--addr=127.0.0.1:${this.#ports[beacon]}`,
      `--beacon-id=${1 + beacon}`,
      `--directory=${directory}`,
      `--max-nodes=${room}`,
      `--max-routes=${nodesOf(shape) + ROOM_MIN}`,
      "--node-ttl=24h", // they say that they are there just once
      "--self-check=off", // whose own node would be one more
      ...flags,
    ];
    const program = beacon === 0 ? this.probe.program : beaconSources();
    this.targets[beacon] = await startBeacon({ offload: true, batch, cpus }, all, program);
  }

  async kill(beacon: number): Promise<void> {
    const target = this.targets[beacon]!;
    process.kill(target.pid, "SIGKILL");
    await target.stop();
  }

  /** What its peers, and so the directory, call a beacon. */
  nameOf(beacon: number): string {
    return `127.0.0.1:${this.#ports[beacon]}`;
  }

  statsOf(beacon: number): Promise<Stats> {
    return statsOf(this.targets[beacon]!);
  }

  /** Whether a beacon has a route to a node, or the node itself. */
  async knows(beacon: number, nodeId: number): Promise<boolean> {
    const report = (await answerOf(this.targets[beacon]!, `api/nodes/${nodeId}`)) as {
      where: string;
    };
    return report.where !== "unknown";
  }

  /** Lets none of them run until they are to go on. */
  suspend(): void {
    for (const { pid } of this.targets) process.kill(pid, "SIGSTOP");
  }

  resume(): void {
    for (const { pid } of this.targets) process.kill(pid, "SIGCONT");
  }

  async stop(): Promise<void> {
    // one may not have come to start
    await Promise.all(this.targets.map((target) => target?.stop()));
  }
}

/** Routes of a beacon that the directory told it of. */
export const routesOf = ({ directory }: Stats): number =>
  directory?.beacons.reduce((sum, { routes }) => sum + routes, 0) ?? 0;

/** Whether a beacon follows all others, and knows of each node where it is. */
export function isSettled(stats: Stats, shape: FleetShape): boolean {
  const { nodes, directory } = stats;
  return (
    directory?.state === "ok" &&
    directory.beacons.length === shape.beacons - 1 &&
    directory.beacons.every(({ state }) => state === "following") &&
    nodes + routesOf(stats) === nodesOf(shape)
  );
}

/** What keeps a beacon from being settled, for messages. */
export function showUnsettled({ nodes, directory, ...stats }: Stats): string {
  const states = directory?.beacons.map(({ routes, state }) => `${routes} ${state}`).join(", ");
  return `${nodes} nodes, directory ${directory?.state}: ${states}; ${JSON.stringify(stats.mesh.routesRefused)} refused`;
}

/**
 * Asks one beacon after the other until each is settled.
 * @param beacons in the order in which they are asked
 * @returns the stats with which each was found so, by beacon; undefined for those that are not
 * asked
 * @throws Error if one is not in time
 */
export async function untilSettled(
  fleet: Fleet,
  beacons: readonly number[],
  msMax: number,
  settled = (stats: Stats, _beacon: number) => isSettled(stats, fleet.shape),
): Promise<Stats[]> {
  const deadline = performance.now() + msMax;
  const found: Stats[] = [];
  for (const beacon of beacons) {
    for (;;) {
      const stats = await fleet.statsOf(beacon);
      if (settled(stats, beacon)) {
        found[beacon] = stats;
        break;
      }
      if (performance.now() > deadline)
        throw new Error(
          `beacon ${beacon} is not settled after ${msMax} ms: ${showUnsettled(stats)}`,
        );
      await Bun.sleep(POLL_MS);
    }
  }
  return found;
}

/** A beacon that is asked has to answer, which costs it some tenths of a millisecond. */
export const POLL_MS = 100;
