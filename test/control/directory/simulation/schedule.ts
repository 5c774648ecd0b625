/** One schedule: trouble, then calm, then a look whether everybody knows where everything is. */
import { nodeHash, slotOfHash } from "../../../../src/shared/hash.ts";
import { routeMemory, SECRET } from "../../../support/route-memory.ts";
import { Chance } from "./chance.ts";
import { planOf } from "./plan.ts";
import { plant } from "./plant.ts";
import { STOP_MS, storm, TROUBLES } from "./troubles.ts";
import { wrongs } from "./truth.ts";
import { type Extremes, LOOK_MS, TRIM_MS } from "./watch.ts";
import { World } from "./world.ts";

/** Long enough for leases, for tries to connect, and for questions that are asked again. */
const CALM_MS = 90_000;
/** Nodes that were seen while clocks differed are seen again after so long, at the latest. */
const SEEN_AGAIN_MS = 60_000;
/** What was well for so long stays so: more than a lease. */
const SURE_MS = 15_000;
/** A node that comes is known everywhere after so long, calm as it is. */
const PROBE_MS = 4_000;
const PROBES = 2;
/**
 * The same where the move may fill the server once more, until what is in the log is a minute old.
 */
const PROBES_FILLED = 25;
/** Asking for, writing and loading what differs. */
const RELOAD_MS = 2_000;
/** What a process that has stopped had called has come to nothing after so long. */
const CALLED_MS = 12_000;

export interface Outcome {
  readonly seed: number;
  readonly problems: readonly string[];
  /** What it contained. */
  readonly counts: ReadonlyMap<string, number>;
  /** How long after the trouble all was well. */
  readonly settledMs: number;
  readonly extremes: Extremes;
  readonly virtualMs: number;
  readonly happened: number;
}

/** Ids whose chains of slots in the route table run into each other, and over its end. */
const NODE_IDS: readonly number[] = (() => {
  const { routeSlots } = routeMemory();
  const ids: number[] = [];
  for (let id = 1; ids.length < 60; id++)
    if ((slotOfHash(nodeHash(id, SECRET), routeSlots) + 20) % routeSlots < 60) ids.push(id);
  return ids;
})();

/** @param trace is told everything, with the virtual time in ms */
export function runSchedule(
  seed: number,
  trace: (nowMs: number, text: () => string) => void = () => {},
): Outcome {
  const chance = new Chance(seed);
  const plan = planOf(chance);
  const world: World = new World(plan, chance, NODE_IDS, (text) => trace(world.nowMs, text));
  trace(0, () => JSON.stringify({ ...plan, weights: Object.fromEntries(plan.weights) }));
  let settledMs = Number.NaN;
  try {
    settledMs = goThrough(world);
  } catch (error) {
    world.realTables?.stopThread();
    world.problem(`thrown: ${(error as Error).stack ?? String(error)}`);
  }
  if (plan.realNodes === "with a thread" && world.problems.length > 0)
    world.problem("another thread took part: the schedule is not reproducible");
  const { problems, counts } = world;
  const { extremes } = world.watch;
  const { nowMs: virtualMs, happened } = world.timeline;
  return { seed, problems, counts, settledMs, extremes, virtualMs, happened };
}

/** @returns how long after the trouble all was well */
function goThrough(world: World): number {
  const { plan, timeline, problems, watch } = world;
  for (const host of world.hosts) if (world.chance.is(0.9)) world.start(host);
  again(world, plan.nodeEveryMs, nodesDo);
  again(world, plan.troubleEveryMs, makeTrouble);
  timeline.run(plan.troubleMs);
  calm(world);
  moveOn(world);
  world.realTables?.stopThread();
  watch.quiet();
  const calmMs = timeline.nowMs;
  const limitMs = CALM_MS + (world.hasMemoryLimit ? TRIM_MS : 0);
  let wrong: string[] = [];
  let settledMs = 0;
  let hasSeenAgain = !world.hasStepped;
  for (
    let passedMs = 0;
    passedMs < (plan.isPatient ? limitMs : Math.min(limitMs, settledMs + SURE_MS));
  ) {
    timeline.run(timeline.nowMs + LOOK_MS);
    watch.look();
    passedMs = timeline.nowMs - calmMs;
    wrong = wrongs(world);
    if (!hasSeenAgain && (wrong.length === 0 || passedMs > SEEN_AGAIN_MS)) {
      hasSeenAgain = world.areClocksEqual;
      if (hasSeenAgain) seeAgain(world);
    }
    if (wrong.length > 0 || !hasSeenAgain) settledMs = passedMs;
  }
  for (const one of wrong) world.problem(`after the calm: ${one}`);
  for (const one of watch.exceeded()) world.problem(one);
  if (problems.length === 0 && plan.weights.get("planted")! > 0) heal(world);
  watch.end();
  if (problems.length === 0) probe(world);
  for (const beacon of world.live()) world.tally(beacon);
  stopAll(world);
  return settledMs + LOOK_MS;
}

/** Something happens now and then until it is calm. */
function again(world: World, everyMs: number, happen: (world: World) => void): void {
  world.timeline.after(-Math.log(1 - world.chance.unit()) * everyMs, undefined, () => {
    if (world.isCalm) return;
    happen(world);
    again(world, everyMs, happen);
  });
}

function nodesDo(world: World): void {
  const { chance, nodes, timeline } = world;
  const awake = world.awake();
  if (awake.length === 0) return;
  const [node, beacon] = [chance.pick(nodes), chance.pick(awake)];
  const what = chance.below(20);
  if (what < 14) {
    world.discover(node, beacon);
  } else if (what < 16) {
    const other = chance.pick(awake);
    world.count("back and forth");
    // Where clocks do not tell, so soon that they tell it wrongly.
    const [fromMs, endMs] = world.plan.hasBadClocks ? [20, 200] : [150, 400];
    for (let i = 0, atMs = 0; i < 2 + chance.below(6); i++, atMs += chance.between(fromMs, endMs))
      timeline.after(
        atMs,
        undefined,
        () => !world.isCalm && world.discover(node, i & 1 ? other : beacon),
      );
  } else if (what < 18) {
    const holder = awake.find(({ nodes: own }) => own.heard.has(node.id));
    if (holder !== undefined && world.remove(node, holder)) world.count("removed where it is");
  } else if (world.realTables !== undefined && chance.is(0.3)) {
    for (const id of beacon.nodes.residents)
      if (chance.is(0.3) && beacon.nodes.remove(id)) world.count("residents removed");
  } else if (world.remove(node, beacon)) {
    world.count("removed");
    if (chance.is(0.3)) world.discover(node, beacon);
  }
}

function makeTrouble(world: World): void {
  const { chance, plan } = world;
  const total = [...plan.weights.values()].reduce((sum, weight) => sum + weight, 0);
  let left = chance.unit() * total;
  for (const trouble of TROUBLES) {
    left -= plan.weights.get(trouble.name)!;
    if (left >= 0) continue;
    if (trouble.happen(world)) world.count(`trouble: ${trouble.name}`);
    return;
  }
}

/** Moves that go on in the calm; then it is quiet. */
function moveOn(world: World): void {
  const { plan, chance, timeline, watch } = world;
  if (plan.calmMoves === undefined) return;
  const { everyMs, forMs } = plan.calmMoves;
  if (chance.is(0.3)) storm(world);
  const untilMs = timeline.nowMs + forMs;
  const move = () => {
    const awake = world.awake();
    if (awake.length > 0) world.discover(chance.pick(world.nodes), chance.pick(awake));
    if (timeline.nowMs < untilMs) timeline.after(2 * chance.unit() * everyMs, undefined, move);
  };
  timeline.after(everyMs, undefined, move);
  while (timeline.nowMs < untilMs) {
    timeline.run(Math.min(untilMs, timeline.nowMs + LOOK_MS));
    watch.look();
  }
  world.trace(() => "quiet");
}

/** Nodes repeat their Discover, at the beacon that saw them last. */
function seeAgain(world: World): void {
  world.trace(() => "all nodes are seen again");
  for (const node of world.nodes) {
    const { last } = node;
    if (last === undefined || last.isRemoved || !last.beacon.isAwake) continue;
    world.discover(node, last.beacon);
  }
}

function calm(world: World): void {
  world.trace(() => "calm");
  world.isCalm = true;
  for (const host of world.hosts) world.wakeUp(host);
  for (const beacon of world.beacons) world.wakeUp(beacon.parts.host);
  world.isServerUp = true;
  world.server.isFull = false;
  world.fitLimit();
  for (const store of [...world.stores]) if (store.of !== world.server) world.cut(store);
  for (const beacon of world.beacons) {
    beacon.cutOffUntilMs = 0;
    if (beacon.isPaused) beacon.resume();
  }
  if (world.live().length === 0) world.start(world.chance.pick(world.hosts));
}

/** A divergence is gone within three renewals of a lease. */
function heal(world: World): void {
  // A server with a limit may be full once more until what filled it is a minute old.
  if (world.isFlooded || world.hasMemoryLimit || !plant(world)) return;
  world.timeline.run(world.nowMs + world.plan.leaseMs + RELOAD_MS);
  for (const one of wrongs(world)) world.problem(`after a planted divergence: ${one}`);
}

/**
 * Nothing only looks well: what changes now is known everywhere soon, or soon after if a beacon
 * begins anew just then.
 */
function probe(world: World): void {
  const told = world.live().filter((beacon) => beacon.directory.stats().state === "ok");
  for (const beacon of told) world.discover(world.chance.pick(world.nodes), beacon);
  let wrong: string[] = [];
  for (let left = world.hasMemoryLimit ? PROBES_FILLED : PROBES; left > 0; left--) {
    world.timeline.run(world.nowMs + PROBE_MS);
    wrong = wrongs(world);
    if (wrong.length === 0) return;
  }
  for (const one of wrong) world.problem(`after another move: ${one}`);
}

/** What is to stop stops, and leaves nothing open behind it. */
function stopAll(world: World): void {
  for (const beacon of world.live())
    world.timeline.happen(beacon, () =>
      beacon.stop(world.chance.is(0.5), (error) => {
        if (error !== undefined)
          world.problem(`${beacon} stops with ${(error as Error).stack ?? String(error)}`);
      }),
    );
  const ended = world.beacons.filter(
    ({ isOver, hasStopped }) => !isOver && hasStopped !== undefined,
  );
  world.timeline.run(world.nowMs + STOP_MS);
  for (const beacon of ended) if (!beacon.hasStopped) world.problem(`${beacon} does not stop`);
  world.timeline.run(world.nowMs + CALLED_MS);
  for (const beacon of ended) {
    if (beacon.open > 0) world.problem(`${beacon} has stopped, and ${beacon.open} things are open`);
  }
}
