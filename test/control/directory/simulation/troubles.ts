/** What goes wrong. */
import type { Beacon } from "./beacon.ts";
import { forge } from "./forger.ts";
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

const anyStore = ({ stores, chance }: World) => (stores.size === 0 ? undefined : chance.pick([...stores]));

/** Some of a process's nodes, as its next start finds them in the state file. */
function restored(world: World, beacon: Beacon): Map<number, number> {
  const { chance, plan } = world;
  const share = plan.hasBadClocks ? 0 : chance.pick([0, 0.5, 1]);
  return new Map([...beacon.nodes.heard].filter(() => chance.unit() < share));
}

/** Unless it is calm by then. */
function later(world: World, maxMs: number, run: () => void): void {
  world.timeline.after(world.chance.unit() * maxMs, undefined, () => {
    if (!world.isCalm) run();
  });
}

/** Starts it again, unless somebody did. */
function restart(world: World, beacon: Beacon, nodes: ReadonlyMap<number, number>): void {
  if (world.live().some((other) => other.name === beacon.name)) return;
  world.start(beacon.parts.host, nodes, beacon);
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
      const nodes = restored(world, beacon);
      world.crash(beacon);
      later(world, world.chance.pick([0, 1_000, 20_000]), () => restart(world, beacon, nodes));
      return true;
    },
  },
  {
    name: "leave",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined) return false;
      const nodes = restored(world, beacon);
      world.tally(beacon);
      stop(world, beacon, false);
      later(world, 20_000, () => world.chance.is(0.6) && restart(world, beacon, nodes));
      return true;
    },
  },
  {
    name: "join",
    happen(world) {
      const absent = world.hosts.filter(({ name }) => !world.live().some((beacon) => beacon.name === name));
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
      stop(world, beacon, true, () => world.start(beacon.parts.host, new Map(beacon.nodes.heard), beacon));
      return true;
    },
  },
  {
    name: "double",
    happen(world) {
      const beacon = anyBeacon(world);
      if (beacon === undefined) return false;
      beacon.isDouble = true;
      const double = world.start(world.newHost(beacon.name, beacon.parts.host.beaconId));
      if (world.chance.is(0.7))
        later(world, 30_000, () => {
          const one = world.chance.pick([beacon, double]);
          if (!one.isAwake) return;
          if (world.chance.is(0.5)) world.crash(one);
          else stop(world, one, false);
        });
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
        () => `the server fails over${server.isReplica ? "" : `, and lives on for ${lingersMs} ms`}`,
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
      for (const key of [...parts.keys()]) if (world.chance.is(0.7)) world.server.setPart(key, undefined);
      world.trace(() => "parts are dropped");
      return true;
    },
  },
  {
    name: "forged",
    happen: (world) => forge(world),
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

export type TroubleName = (typeof TROUBLES)[number]["name"];

function stop(world: World, beacon: Beacon, isReplaced: boolean, stopped = () => {}): void {
  world.trace(() => `${beacon} is to stop${isReplaced ? ", replaced" : ""}`);
  world.timeline.after(STOP_MS, beacon, () => {
    if (!beacon.hasStopped) world.problem(`${beacon} does not stop`);
  });
  world.timeline.happen(beacon, () =>
    beacon.stop(isReplaced, (error) => {
      world.trace(() => `${beacon} has stopped`);
      if (error !== undefined) world.problem(`${beacon} stops with ${String(error)}`);
      stopped();
    }),
  );
}
