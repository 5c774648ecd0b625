/** Two beacons that are each other's peers; the link between them is cut and healed. */
import type { Stats } from "../../../src/beacon.ts";
import { until } from "../../../test/e2e/support/wait.ts";
import { BEACON_PORT, BEACON_STATS, RigBeacon } from "../beacon.ts";
import { joinAt, reaches } from "../meeting.ts";
import { NodeHost, type RemoteNode } from "../remote.ts";
import { showMs } from "../report.ts";
import type { Run } from "../run.ts";
import { Internet } from "../topology.ts";

const GOSSIP_MS = 200;
const PEER_TIMEOUT_MS = 1500;
/**
 * Withdrawing takes the timeout, and an interval of looking; healing takes an interval of gossip.
 * The rest is patience.
 */
const PATIENCE_MS = 15_000;
const NODES = 50;
const NODES_SMOKE = 5;

const SIDES = ["left", "right"] as const;
type Side = (typeof SIDES)[number];
const other = (side: Side): Side => (side === "left" ? "right" : "left");

interface Step {
  readonly step: string;
  /** Until it was so at both beacons. */
  readonly tookMs: number;
  /** Routes at each beacon then. */
  readonly routes: readonly number[];
  /** Relays that got across then, of one in each direction. */
  readonly across: number;
}

class TwoBeacons {
  private constructor(
    readonly internet: Internet,
    private readonly watchers: Record<Side, NodeHost>,
    private readonly nodes: Record<Side, RemoteNode[]>,
  ) {}

  static async start(nodes: number): Promise<TwoBeacons> {
    const internet = await Internet.build({
      hosts: { left: {}, right: {}, leftNodes: {}, rightNodes: {} },
    });
    const start = async (side: Side) => {
      const { namespace } = internet.site(side);
      const peer = `${internet.site(other(side)).ipv4}:${BEACON_PORT}`;
      await RigBeacon.start(namespace, [
        `--beacon-id=${1 + SIDES.indexOf(side)}`,
        `--peers=${peer}`,
        `--gossip-interval=${GOSSIP_MS}ms`,
        `--peer-timeout=${PEER_TIMEOUT_MS}ms`,
        "--self-check=off", // which has a route of its own
      ]);
      return {
        watcher: new NodeHost(namespace),
        nodes: await joinAt(internet, `${side}Nodes`, { beacon: side, count: nodes }),
      };
    };
    const left = await start("left");
    const right = await start("right");
    return new TwoBeacons(
      internet,
      { left: left.watcher, right: right.watcher },
      { left: left.nodes, right: right.nodes },
    );
  }

  /** Waits until both beacons have so many routes, and sees whether relays get across then. */
  async step(step: string, routes: number): Promise<Step> {
    const since = performance.now();
    await until(
      `${step}: ${routes} routes at both`,
      async () => (await this.#routes()).every((n) => n === routes),
      PATIENCE_MS,
    );
    const tookMs = performance.now() - since;
    const across = await Promise.all(
      SIDES.map((side) => reaches(this.nodes[side][0]!, this.nodes[other(side)][0]!)),
    );
    return { step, tookMs, routes: await this.#routes(), across: across.filter(Boolean).length };
  }

  async #routes(): Promise<number[]> {
    const stats = SIDES.map((side) => this.watchers[side].fetch(BEACON_STATS) as Promise<Stats>);
    return (await Promise.all(stats)).map(({ mesh }) =>
      mesh.peers.reduce((all, { routes }) => all + routes, 0),
    );
  }

  /** Whether a node reaches another one of its own beacon. */
  async within(): Promise<number> {
    const reached = await Promise.all(
      SIDES.map((side) => reaches(this.nodes[side][0]!, this.nodes[side][1]!)),
    );
    return reached.filter(Boolean).length;
  }
}

export const MESH_RUN: Run = {
  name: "mesh",
  description: "two beacons, the link between them cut and healed",
  needs: ["nft"],
  async run(report, { smoke }) {
    const nodes = smoke ? NODES_SMOKE : NODES;
    const beacons = await TwoBeacons.start(nodes);
    const steps = [await beacons.step("both started", nodes)];
    const heal = beacons.internet.cut("left", "right");
    steps.push(await beacons.step("the link cut", 0));
    const within = await beacons.within();
    heal();
    steps.push(await beacons.step("the link healed", nodes));
    report.table(
      `${nodes} nodes on each beacon; gossip every ${GOSSIP_MS} ms, a peer's timeout ${PEER_TIMEOUT_MS} ms`,
      [
        ["step", "routes known", "after", "relays across"],
        ...steps.map(({ step, tookMs, routes, across }) => [
          step,
          routes.join(" and "),
          showMs(tookMs),
          `${across} of 2`,
        ]),
      ],
    );
    report.say(`while the link was cut, nodes of one beacon reached each other: ${within} of 2`);
    for (const [i, { step, across }] of steps.entries()) {
      report.expect(`${step}: ${across} of 2 relays across`, across === (i === 1 ? 0 : 2));
    }
    report.expect(`the link cut: ${within} of 2 relays within a beacon`, within === 2);
    report.keep("steps", steps);
    report.keep("within", within);
  },
};
