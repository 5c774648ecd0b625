/**
 * Relays between the beacons of a fleet while one of them is killed and comes back, and while the
 * directory is, and comes back empty.
 */
import type { Stats } from "../../src/beacon.ts";
import { DirectoryServer } from "../harness/directory-server.ts";
import {
  Fleet,
  type FleetShape,
  firstNodeOf,
  isSettled,
  POLL_MS,
  untilSettled,
} from "../harness/fleet.ts";
import { FleetNodes } from "../harness/fleet-nodes.ts";
import type { BenchOptions } from "../harness/options.ts";
import { PairedRelays } from "../harness/paired-relays.ts";
import type { Pauses } from "../harness/pauses.ts";
import type { Recorder } from "../harness/results.ts";

const RELAYS_PER_S = 5_000;
const RELAYS_PER_S_SMOKE = 500;
const SETTLED_MS_MAX = 120_000;
/** Before, and after what is over. */
const CALM_MS = 10_000;
const AFTER_MS = 2_000;
const AWAY_MS = 5_000;
const CALM_MS_SMOKE = 200;
const DELIVERED_PERCENT_BAR = 99.9;
const LEASE_S = 10;
const LEASE_S_SMOKE = 3;
/** The sweep, and the look for it. */
const WITHDRAWN_S_MORE = 0.5;
const ROUNDS_SHARE = 0.5;

interface Times {
  readonly withdrawnFirstS: number;
  readonly withdrawnS: number;
  readonly backS: number;
  readonly foundS: number;
  readonly emptyS: number;
}

interface Measured {
  readonly times: Times;
  readonly relays: PairedRelays;
  /** Of a healthy beacon, by phase. */
  readonly pauses: readonly Pauses[];
}

export async function measureTrouble(
  shape: FleetShape,
  options: BenchOptions,
  recorder: Recorder,
): Promise<void> {
  const leaseS = options.smoke ? LEASE_S_SMOKE : LEASE_S;
  const rounds: Measured[] = [];
  for (let round = 0; round < Math.ceil(options.rounds * ROUNDS_SHARE); round++) {
    const one = await measure(shape, leaseS, options);
    rounds.push(one);
    const { withdrawnS, backS, emptyS } = one.times;
    const lost = one.relays.phases.map(
      ({ name, healthy }) => `${healthy.sent - healthy.arrived} ${name}`,
    );
    recorder.progress(
      `round ${round + 1}  withdrawn after ${withdrawnS.toFixed(1)} s, back after ${backS.toFixed(1)} s, ` +
        `an empty directory filled after ${emptyS.toFixed(1)} s; lost between healthy beacons: ${lost.join(", ")}`,
    );
  }
  const title = `trouble of ${shape.beacons} beacons with ${shape.nodesEach} nodes each`;
  const params = { group: "directory trouble", ...shape };
  const figure = recorder.of(title, params);
  const time = (
    name: string,
    of: (times: Times) => number,
    more: Parameters<typeof figure>[3] = {},
  ) =>
    figure(
      name,
      "s",
      rounds.map(({ times }) => of(times)),
      more,
    );
  const bar = { atMost: leaseS + WITHDRAWN_S_MORE };
  const withdrawn = "from the kill of a beacon until the last one has withdrawn its routes";
  time(withdrawn, ({ withdrawnS }) => withdrawnS, { bar });
  time("until the first one has", (times) => times.withdrawnFirstS);
  time("from its new start until all know its nodes, and it all others", (times) => times.backS);
  time(
    "from its new start until no relay to its nodes or from them is lost",
    (times) => times.foundS,
  );
  time("from the new start of an empty directory until all is as before", (times) => times.emptyS);
  for (const [phase, { name }] of rounds[0]!.relays.phases.entries()) {
    const delivered = (of: "healthy" | "others") =>
      rounds.map(({ relays }) => {
        const { sent, arrived } = relays.phases[phase]![of];
        return (100 * arrived) / Math.max(1, sent);
      });
    const healthy = { better: "more", bar: { atLeast: DELIVERED_PERCENT_BAR } } as const;
    figure(`delivered between healthy beacons, ${name}`, "%", delivered("healthy"), healthy);
    const gaps = rounds.map(({ relays }) => relays.longestGapMs(phase));
    figure(`longest time without any, ${name}`, "ms", gaps);
    const others = `delivered to and from the killed one, ${name}`;
    figure(others, "%", delivered("others"), { better: "more" });
    const turns = rounds.map(({ pauses }) => pauses[phase]!.used.max);
    figure(`longest turn of a healthy one's main thread, CPU time, ${name}`, "ms", turns);
  }
  figure(
    "came twice",
    "packets",
    rounds.map(({ relays }) => relays.duplicates),
  );
}

async function measure(
  shape: FleetShape,
  leaseS: number,
  { batch, smoke }: BenchOptions,
): Promise<Measured> {
  const server = await DirectoryServer.prepare();
  await server.start();
  const flags = [`--directory-lease=${leaseS}s`];
  const fleet = await Fleet.start(shape, { directory: server.url, batch, flags });
  const nodes = new FleetNodes(fleet);
  const all = fleet.targets.map((_, beacon) => beacon);
  const broken = shape.beacons - 1;
  const healthy = all.slice(0, broken);
  const relays = new PairedRelays(nodes, shape, broken);
  try {
    nodes.registerAll();
    await untilSettled(fleet, all, SETTLED_MS_MAX);
    const pauses: Pauses[] = [];
    const begin = async (phase: string) => {
      if (relays.phases.length > 0) pauses.push(await fleet.probe.read());
      relays.phase(phase);
      await fleet.probe.start();
    };
    const calm = async () => Bun.sleep(smoke ? CALM_MS_SMOKE : AFTER_MS);

    await begin("before");
    relays.start(smoke ? RELAYS_PER_S_SMOKE : RELAYS_PER_S);
    await Bun.sleep(smoke ? CALM_MS_SMOKE : CALM_MS);

    await begin("a beacon killed");
    const killed = performance.now();
    await fleet.kill(broken);
    const withdrawn = await untilWithdrawn(fleet, healthy, broken);
    await calm();

    await begin("it comes back");
    const cameBack = performance.now();
    await fleet.start(broken);
    // As nodes do that get no answer.
    do await relays.discoverAll(broken);
    while ((await fleet.statsOf(broken)).nodes < shape.nodesEach);
    await untilSettled(fleet, all, SETTLED_MS_MAX);
    const backS = since(cameBack);
    await calm();

    await begin("the directory killed");
    await server.kill();
    await Bun.sleep(smoke ? CALM_MS_SMOKE : AWAY_MS);

    await begin("it comes back empty");
    const restarted = performance.now();
    await server.start();
    await untilSettled(
      fleet,
      all,
      SETTLED_MS_MAX,
      (stats) => hasHeardAll(stats, since(restarted)) && isSettled(stats, shape),
    );
    const emptyS = since(restarted);
    await calm();
    pauses.push(await fleet.probe.read());
    await relays.stop();
    const comeBack = relays.phases.findIndex(({ name }) => name === "it comes back");
    const foundS = (relays.lastLostMs(comeBack) - cameBack) / 1000;
    if (Number.isNaN(foundS)) throw new Error("nothing was lost while a beacon was away: was it?");
    const first = Math.min(...withdrawn);
    const last = Math.max(...withdrawn);
    const times = { withdrawnFirstS: (first - killed) / 1000, withdrawnS: (last - killed) / 1000 };
    return { times: { ...times, backS, foundS, emptyS }, relays, pauses };
  } finally {
    await relays.stop();
    nodes.close();
    await fleet.stop();
    await server.stop();
  }
}

const since = (ms: number): number => (performance.now() - ms) / 1000;

/** Whether a beacon has read an entry of each other one within so many seconds. */
const hasHeardAll = ({ directory }: Stats, seconds: number): boolean =>
  directory!.beacons.every(({ ageS }) => ageS < seconds);

/** @returns when each beacon was found not to route to the nodes of the broken one any more */
async function untilWithdrawn(
  fleet: Fleet,
  beacons: readonly number[],
  broken: number,
): Promise<number[]> {
  const deadline = performance.now() + SETTLED_MS_MAX;
  const nodeId = firstNodeOf(fleet.shape, broken);
  const found: number[] = [];
  for (let left = [...beacons]; left.length > 0; await Bun.sleep(POLL_MS)) {
    if (performance.now() > deadline)
      throw new Error(`beacons ${left} still route to one that was killed`);
    for (const beacon of left) {
      const { directory } = await fleet.statsOf(beacon);
      const isThere = directory!.beacons.some(({ name }) => name === fleet.nameOf(broken));
      if (isThere || (await fleet.knows(beacon, nodeId))) continue;
      found[beacon] = performance.now();
      left = left.filter((one) => one !== beacon);
    }
  }
  return found;
}
