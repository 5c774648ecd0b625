/**
 * Two beacons and a directory, on the generators' core, for one more beacon that shares it: what it
 * hears of them is what it costs.
 */
import { DirectoryServer } from "./directory-server.ts";
import { Fleet, POLL_MS } from "./fleet.ts";
import type { BenchOptions } from "./options.ts";
import { GENERATOR_CPU, startScript, statsOf, type Target } from "./targets.ts";

const BEACONS = 2;
const NODES_EACH = 10_000;
const NODES_EACH_SMOKE = 500;
const FOLLOWING_MS_MAX = 30_000;

export class OtherFleet {
  private constructor(
    private readonly server: DirectoryServer,
    private readonly fleet: Fleet,
    private readonly mover: Bun.Subprocess,
  ) {}

  /** @param movesPerS nodes that move from one of the two to the other */
  static async start(
    movesPerS: number,
    { batch, smoke }: Pick<BenchOptions, "batch" | "smoke">,
  ): Promise<OtherFleet> {
    const server = await DirectoryServer.prepare({ cpus: GENERATOR_CPU });
    await server.start();
    const nodesEach = smoke ? NODES_EACH_SMOKE : NODES_EACH;
    const options = { directory: server.url, batch, cpus: GENERATOR_CPU };
    const fleet = await Fleet.start({ beacons: BEACONS, nodesEach }, options);
    const ports = fleet.targets.map(({ port }) => String(port));
    const mover = await startScript("mover.ts", String(nodesEach), String(movesPerS), ...ports);
    return new OtherFleet(server, fleet, mover);
  }

  /** Of a beacon that shares the directory. */
  get flags(): readonly string[] {
    return [`--directory=${this.server.url}`, `--beacon-id=${BEACONS + 1}`];
  }

  async stop(): Promise<void> {
    this.mover.kill();
    await this.mover.exited;
    await this.fleet.stop();
    await this.server.stop();
  }
}

/** Waits until a beacon has the routes of the two. @throws Error if that takes long */
export async function untilFollowing(target: Pick<Target, "http">): Promise<void> {
  const deadline = performance.now() + FOLLOWING_MS_MAX;
  for (;;) {
    const { directory } = await statsOf(target);
    const following = directory?.beacons.filter(({ state }) => state === "following") ?? [];
    if (following.length === BEACONS) return;
    if (performance.now() > deadline)
      throw new Error("the beacon does not follow those in its directory");
    await Bun.sleep(POLL_MS);
  }
}
