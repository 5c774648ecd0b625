/** What goes wrong. */
import type { Beacon } from "./beacon.ts";
import { forge, forgeRival } from "./forger.ts";
import type { Host } from "./host.ts";
import { plant } from "./plant.ts";
import type { World } from "./world.ts";

/** What is to stop has ended after so long, whatever the server does. */
export const STOP_MS = 3_500;

interface Trouble {
  readonly name: string;
  /** @returns whether it happened */
  readonly happen: (world: World) => boolean;
}

/** Stops short of leaving nobody. */
const anyBeacon = (world: World): Beacon | undefined => {
  const awake = world.awake();
  return awake.length === 0 ? undefined : world.chance.pick(awake);
};

const anyStore = ({ stores, chance }: World) =>
  stores.size === 0 ? undefined : chance.pick([...stores]);

/**
 * Content of a process's state file: ages of some of its nodes, and the wall clock when it was
 * saved.
 */
interface Saved {
  readonly agesMs: ReadonlyMap<number, number>;
  readonly wallMs: number;
}

const wallMsOf = ({ nowMs }: World, { wallMs }: Host): number => nowMs + wallMs;

function saved(world: World, { nodes, parts: { host } }: Beacon): Saved {
  const { chance, plan, nowMs } = world;
  const share = plan.hasBadClocks ? 0 : chance.pick([0, 0.5, 1]);
  const monotonicMs = host.monotonicMs(nowMs);
  const kept = [...nodes.heard].filter(() => chance.unit() < share);
  return {
    agesMs: new Map(kept.map(([nodeId, heardMs]) => [nodeId, monotonicMs - heardMs])),
    wallMs: wallMsOf(world, host),
  };
}

/**
 * The nodes of a state file, as a process on that host dates them: by the time that passed on the
 * wall clock.
 */
function restored(world: World, host: Host, { agesMs, wallMs }: Saved): Map<number, number> {
  const passedMs = Math.max(0, wallMsOf(world, host) - wallMs);
  const monotonicMs = host.monotonicMs(world.nowMs);
  return new Map(
    [...agesMs].map(([nodeId, ageMs]) => [
      nodeId,
      Math.max(0, monotonicMs - passedMs - ageMs), // as the node table notes it
    ]),
  );
}

/** Most that clocks are ahead or behind in all: far less than a start may be ahead. */
const STEPPED_MS_MAX = 3 * 86_400_000;

/** @returns the size of a clock's step, from 1.5 s to one day, either way */
function stepMs({ chance }: World, soFarMs: number): number {
  const ms = chance.pick([-1, 1]) * chance.scale(1_500, 86_400_000);
  return Math.abs(soFarMs + ms) > STEPPED_MS_MAX ? -ms : ms;
}

/** Steps a clock, and in most cases back again after a while. */
function stepClock(world: World, what: string, soFarMs: number, step: (ms: number) => void): void {
  const { chance } = world;
  const ms = stepMs(world, soFarMs);
  world.stepped();
  world.trace(() => `the clock of ${what} steps by ${ms.toFixed(0)} ms`);
  step(ms);
  if (chance.is(0.3)) return;
  world.timeline.after(chance.scale(200, 30_000), undefined, () => {
    world.trace(() => `the clock of ${what} steps back by ${ms.toFixed(0)} ms`);
    step(-ms);
  });
}

/** Replaces the log: by a replica that lacks the end, or by none. */
function replaceLog(world: World): void {
  if (!world.isServerUp || world.chance.is(0.4)) {
    world.trace(() => "the server is emptied");
    world.server.flush();
    return;
  }
  const before = world.server;
  world.replaceServer(world.fallenBack(), world.chance.pick([0, 200, 3_000]));
  before.isReplica = world.chance.is(0.5);
  world.trace(() => "the server fails over");
}

/** Unless it is calm by then. */
function later(world: World, maxMs: number, run: () => void): void {
  world.timeline.after(world.chance.unit() * maxMs, undefined, () => {
    if (!world.isCalm) run();
  });
}

/** Starts it again, unless another process has its name. */
function restart(world: World, beacon: Beacon, state: Saved): void {
  if (world.live().some((other) => other.name === beacon.name)) return;
  const { host } = beacon.parts;
  world.start(host, restored(world, host, state), beacon);
}

/** A second process of a beacon's name; in most cases one of the two ends after a while. */
function double(world: World, beacon: Beacon, timeAheadMs = 0): void {
  const { host } = beacon.parts;
  beacon.isDouble = true;
  const rival = world.start(world.newHost(beacon.name, host.beaconId, timeAheadMs));
  if (world.chance.is(0.3)) return;
  later(world, 30_000, () => {
    const one = world.chance.pick([beacon, rival]);
    if (!one.isAwake) return;
    if (world.chance.is(0.5)) world.crash(one);
    else stop(world, one, false);
  });
}

export const TROUBLES = [
  {
    name: "crash",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined) return false;
      world.crash(beacon);
      return true;
    },
  },
  {
    name: "restart",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined) return false;
      const state = saved(world, beacon);
      world.crash(beacon);
      later(world, world.chance.pick([0, 1_000, 20_000]), () => restart(world, beacon, state));
      return true;
    },
  },
  {
    name: "leave",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined) return false;
      const state = saved(world, beacon);
      world.tally(beacon);
      stop(world, beacon, false);
      later(world, 20_000, () => world.chance.is(0.6) && restart(world, beacon, state));
      return true;
    },
  },
  {
    name: "join",
    happen(world) {
      const absent = world.hosts.filter(
        ({ name }) => !world.live().some((beacon) => beacon.name === name),
      );
      if (absent.length === 0) return false;
      world.start(world.chance.pick(absent));
      return true;
    },
  },
  {
    name: "upgrade",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined || world.plan.hasBadClocks) return false;
      world.tally(beacon);
      stop(world, beacon, true, () =>
        world.start(beacon.parts.host, new Map(beacon.nodes.heard), beacon),
      );
      return true;
    },
  },
  {
    name: "double",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined) return false;
      double(world, beacon);
      return true;
    },
  },
  {
    name: "rival ahead",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined) return false;
      world.stepped();
      double(world, beacon, world.chance.scale(2_000, 3_600_000));
      return true;
    },
  },
  {
    name: "outbid twice",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined) return false;
      forgeRival(world, beacon.name);
      later(world, 2 * world.plan.leaseMs, () => forgeRival(world, beacon.name));
      return true;
    },
  },
  {
    name: "outlived twice",
    happen: outlivedTwice,
  },
  {
    name: "storm",
    happen(world) {
      storm(world);
      return true;
    },
  },
  {
    name: "server clock steps",
    happen(world) {
      const { server } = world;
      stepClock(world, "the server", server.steppedMs, (ms) => server.stepClock(ms));
      return true;
    },
  },
  {
    name: "host clock steps",
    happen(world) {
      const host = world.chance.pick(world.hosts);
      stepClock(world, host.name, host.wallMs, (ms) => {
        host.wallMs += ms;
      });
      return true;
    },
  },
  {
    name: "suspend",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined) return false;
      const { host } = beacon.parts;
      if (host.isSuspended) return false;
      world.stepped(); // its clock is behind until the host reads later times
      world.trace(() => `${host.name} is suspended`);
      host.suspend(world.nowMs);
      for (const one of world.beacons) if (one.parts.host === host) one.pause();
      world.timeline.after(world.chance.scale(100, 100_000), undefined, () => world.wakeUp(host));
      return true;
    },
  },
  {
    name: "server is full by bytes",
    happen(world) {
      world.fill();
      return true;
    },
  },
  {
    name: "log replaced twice",
    happen(world) {
      replaceLog(world);
      later(world, world.chance.pick([0, 100, 1_000, 4_000]), () => replaceLog(world));
      return true;
    },
  },
  {
    name: "pause",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined) return false;
      world.trace(() => `${beacon} stands still`);
      beacon.pause();
      world.timeline.after(world.chance.scale(100, 30_000), undefined, () => {
        world.trace(() => `${beacon} goes on`);
        if (beacon.isPaused) beacon.resume();
      });
      return true;
    },
  },
  {
    name: "lost arrivals",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon !== undefined) beacon.lostArrivals = true;
      return beacon !== undefined;
    },
  },
  {
    name: "cut",
    happen(world) {
      const store = anyStore(world);
      if (store === undefined) return false;
      world.cut(store);
      return true;
    },
  },
  {
    name: "silence",
    happen(world) {
      const store = anyStore(world);
      if (store === undefined) return false;
      const [calls, answers] = world.chance.pick([
        [true, false],
        [false, true],
        [true, true],
      ] as const);
      world.trace(() => `${store.owner} loses ${calls ? "calls" : ""} ${answers ? "answers" : ""}`);
      world.count(calls ? (answers ? "silence: both" : "silence: calls") : "silence: answers");
      store.lose(calls, answers);
      return true;
    },
  },
  {
    name: "cut off",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined) return false;
      const ms = world.chance.scale(500, 100_000);
      world.trace(() => `${beacon} is cut off for ${Math.round(ms)} ms`);
      beacon.cutOffUntilMs = world.nowMs + ms;
      for (const store of world.stores)
        if (store.owner === beacon) {
          if (world.chance.is(0.5)) store.lose(true, true);
          else world.cut(store);
        }
      return true;
    },
  },
  {
    name: "server down",
    happen(world) {
      if (!world.isServerUp) return false;
      const { chance } = world;
      world.isServerUp = false;
      world.isServerSilent = chance.is(0.3);
      const kind = chance.pick(["as it was", "empty", "a second back"] as const);
      world.trace(() => `the server is down, and will be ${kind}`);
      world.count(`server back ${kind}`);
      const { server } = world;
      const next =
        kind === "empty" ? world.emptied() : kind === "a second back" ? world.fallenBack() : server;
      for (const store of world.stores)
        if (chance.is(0.8)) world.cut(store);
        else store.lose(true, true);
      world.server = next;
      world.timeline.after(chance.scale(100, 30_000), undefined, () => {
        world.trace(() => "the server is back");
        world.isServerUp = true;
      });
      return true;
    },
  },
  {
    name: "fail-over",
    happen(world) {
      if (!world.isServerUp) return false;
      const { chance, server } = world;
      const next = world.fallenBack();
      if (chance.is(0.2)) next.idsAhead(chance.scale(100, 3_600_000));
      const lingersMs = chance.pick([0, 200, 3_000]);
      server.isReplica = chance.is(0.5);
      world.trace(
        () =>
          `the server fails over${server.isReplica ? "" : `, and lives on for ${lingersMs} ms`}`,
      );
      world.count(server.isReplica ? "failed over, demoted" : "failed over, both live");
      world.replaceServer(next, lingersMs);
      return true;
    },
  },
  {
    name: "trim",
    happen(world) {
      const entries = world.chance.pick([0, 1, 3, 10]);
      world.trace(() => `the log is trimmed to ${entries} entries`);
      world.server.trim(entries);
      return true;
    },
  },
  {
    name: "flushed",
    happen(world) {
      world.trace(() => "the server is emptied");
      world.server.flush();
      return true;
    },
  },
  {
    name: "full",
    happen(world) {
      const { server } = world;
      if (server.isFull) return false;
      world.trace(() => "the server is full");
      server.isFull = true;
      world.timeline.after(world.chance.scale(200, 20_000), undefined, () => {
        server.isFull = false;
        world.trace(() => "the server is no longer full");
      });
      return true;
    },
  },
  {
    name: "parts dropped",
    happen(world) {
      const { parts } = world.server;
      if (parts.size === 0) return false;
      for (const key of [...parts.keys()])
        if (world.chance.is(0.7)) world.server.setPart(key, undefined);
      world.trace(() => "parts are dropped");
      return true;
    },
  },
  {
    name: "forged",
    happen: (world) => forge(world),
  },
  {
    name: "planted",
    happen: plant,
  },
  {
    name: "renumbered",
    happen(world) {
      const beacon = anyBeacon(world);
      const names = beacon?.peers.names ?? [];
      if (beacon === undefined || names.length === 0) return false;
      const [one, other] = [world.chance.pick(names), world.chance.pick(names)];
      const isSwap = one !== other && world.chance.is(0.3);
      world.trace(() => `${beacon} has another number for ${one}${isSwap ? ` and ${other}` : ""}`);
      world.timeline.happen(beacon, () =>
        isSwap ? beacon.peers.swap(one, other) : beacon.peers.renumber(one),
      );
      return true;
    },
  },
] as const satisfies readonly Trouble[];

/** Many moves at once. */
export function storm(world: World): void {
  const { chance, timeline, nodes } = world;
  const withinMs = chance.pick([0, 100, 2_000]);
  world.trace(() => `a storm of moves within ${withinMs} ms`);
  for (const node of nodes)
    timeline.after(chance.unit() * withinMs, undefined, () => {
      const awake = world.awake();
      if (awake.length > 0) world.discover(node, chance.pick(awake));
    });
}

/**
 * A beacon restarts with nodes that two others have claimed later meanwhile, both of which then
 * crash.
 */
function outlivedTwice(world: World): boolean {
  const { chance, timeline, nodes } = world;
  const awake = world.awake();
  const first = awake.length < 3 ? undefined : chance.pick(awake);
  const others = awake.filter((other) => other !== first && other.name !== first?.name);
  if (first === undefined || others.length < 2) return false;
  const second = chance.pick(others);
  const third = chance.pick(others.filter((other) => other !== second));
  if (third === undefined) return false;
  const some = nodes.filter(() => chance.is(0.3));
  for (const node of some) world.discover(node, first);
  const state = saved(world, first);
  const steps = [
    () => world.crash(first),
    () => some.forEach((node) => void world.discover(node, second)),
    () => some.forEach((node) => void world.discover(node, third)),
    () => restart(world, first, state),
    ...chance
      .pick([
        [second, third],
        [third, second],
      ])
      .map((one) => () => one.isOver || world.crash(one)),
  ];
  let atMs = 0;
  for (const step of steps) {
    atMs += chance.pick([200, 1_000, 5_000]);
    timeline.after(atMs, undefined, () => world.isCalm || step());
  }
  return true;
}

export type TroubleName = (typeof TROUBLES)[number]["name"];

function stop(world: World, beacon: Beacon, isReplaced: boolean, stopped = () => {}): void {
  world.trace(() => `${beacon} is to stop${isReplaced ? ", replaced" : ""}`);
  const { host } = beacon.parts;
  const { suspendedMs } = host;
  world.timeline.after(STOP_MS, beacon, () => {
    if (!beacon.hasStopped && host.suspendedMs === suspendedMs)
      world.problem(`${beacon} does not stop`);
  });
  world.timeline.happen(beacon, () =>
    beacon.stop(isReplaced, (error) => {
      world.trace(() => `${beacon} has stopped`);
      if (error !== undefined) world.problem(`${beacon} stops with ${String(error)}`);
      stopped();
    }),
  );
}
