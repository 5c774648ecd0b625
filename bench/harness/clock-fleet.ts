/**
 * A fleet whose directory's server runs on a clock that can step, and the fleet's nodes. A node
 * sends a Discover when it registers and when it moves, and at no other time.
 */
import type { Stats } from "../../src/beacon.ts";
import { MovableClock } from "../rig/chaos/clock.ts";
import { DirectoryServer } from "./directory-server.ts";
import { Fleet, type FleetShape, untilSettled } from "./fleet.ts";
import { FleetNodes } from "./fleet-nodes.ts";
import { LogWatch } from "./log-watch.ts";
import { type Lookups, lookUpAll } from "./lookups.ts";
import { Moves } from "./moves.ts";
import { temporaryFolder } from "./targets.ts";

export const NO_COMPILER = "no C compiler (cc) is installed, which a clock that steps needs";
const SETTLED_MS_MAX = 60_000;

export class ClockFleet {
  readonly moves: Moves;
  readonly log: LogWatch;

  private constructor(
    readonly shape: FleetShape,
    readonly clock: MovableClock,
    readonly server: DirectoryServer,
    readonly fleet: Fleet,
    private readonly nodes: FleetNodes,
  ) {
    this.moves = new Moves(nodes, shape);
    this.log = new LogWatch(server);
  }

  /** Starts everything; every beacon knows every node then. @throws Error without a C compiler */
  static async start(shape: FleetShape, batch: number, program?: string): Promise<ClockFleet> {
    const clock = MovableClock.make(temporaryFolder());
    if (clock === undefined) throw new Error(NO_COMPILER);
    const server = await DirectoryServer.prepare({ program, env: clock.env });
    await server.start();
    let fleet: Fleet | undefined;
    let nodes: FleetNodes | undefined;
    try {
      fleet = await Fleet.start(shape, { directory: server.url, batch });
      nodes = new FleetNodes(fleet);
      const one = new ClockFleet(shape, clock, server, fleet, nodes);
      nodes.registerAll();
      await untilSettled(fleet, one.#beacons, SETTLED_MS_MAX);
      return one;
    } catch (error) {
      nodes?.close();
      await fleet?.stop();
      await server.stop();
      throw error;
    }
  }

  get #beacons(): readonly number[] {
    return this.fleet.targets.map((_, beacon) => beacon);
  }

  stats(): Promise<Stats[]> {
    return Promise.all(this.#beacons.map((beacon) => this.fleet.statsOf(beacon)));
  }

  /** Sum of one of the directory's counters over all beacons. */
  async count(read: (directory: NonNullable<Stats["directory"]>) => number): Promise<number> {
    return (await this.stats()).reduce((sum, { directory }) => sum + read(directory!), 0);
  }

  /** Waits without moves. */
  async calm(seconds: number): Promise<void> {
    const until = performance.now() + seconds * 1000;
    while (performance.now() < until) {
      await Bun.sleep(Math.min(100, Math.max(1, until - performance.now())));
      this.nodes.drain();
    }
  }

  /** Steps the server's clock, waits, and steps it back unless it stays. */
  async step(offsetS: number, seconds: number, stays = false): Promise<void> {
    this.clock.move(offsetS);
    await Bun.sleep(seconds * 1000);
    if (!stays) this.clock.move(0);
  }

  lookUp(): Promise<Lookups> {
    return lookUpAll(this.nodes, this.moves, this.shape);
  }

  async stop(): Promise<void> {
    await this.log.stop();
    this.nodes.close();
    await this.fleet.stop();
    await this.server.stop();
  }
}
