/**
 * Divergence planted past the protocol: only a comparison of what beacons hold with what their
 * peers claim finds it.
 */
import {
  CHANGES,
  decodeEntry,
  encodeEntry,
  LEASE,
  stepped,
} from "../../../../src/control/directory/entries.ts";
import { UNMARKED } from "../../../../src/shared/routes-owner.ts";
import type { Beacon } from "./beacon.ts";
import type { World } from "./world.ts";

/** Routes poked at once, claims forged at once, entries dropped at once. */
const NODES_MAX = 5;
const ENTRIES_MAX = 4;
const CLAIM_AGES_MS = [0, 1_000, 100_000] as const;

/** @returns whether it was planted */
export function plant(world: World): boolean {
  const { chance } = world;
  const awake = world.awake().filter((beacon) => beacon.directory.stats().state === "ok");
  if (awake.length === 0) return false;
  const [what, planted] = chance.pick([...plants]);
  if (!planted(world, chance.pick(awake))) return false;
  world.count(`planted: ${what}`);
  return true;
}

const plants = new Map<string, (world: World, beacon: Beacon) => boolean>([
  ["routes claimed", claimRoutes],
  ["routes withdrawn", withdrawRoutes],
  ["entries dropped for one reader", dropEntries],
  ["claims forged", forgeClaims],
]);

function claimRoutes({ chance, nodes, trace }: World, beacon: Beacon): boolean {
  const { directory, peers, table, clock } = beacon;
  const numbers = directory
    .stats()
    .beacons.map(({ name }) => peers.numberOf(name))
    .filter((number) => number !== undefined);
  if (numbers.length === 0) return false;
  for (let i = 1 + chance.below(NODES_MAX); i > 0; i--) {
    const [{ id }, number] = [chance.pick(nodes), chance.pick(numbers)];
    trace(() => `planted: ${beacon} routes node ${id} to number ${number}`);
    table.claim(id, number, stepped(clock.nowMs() - chance.pick(CLAIM_AGES_MS)), UNMARKED + 1);
  }
  return true;
}

function withdrawRoutes({ chance, nodes, trace }: World, beacon: Beacon): boolean {
  const { table } = beacon;
  const routed = nodes.filter(({ id }) => table.find(id) >= 0);
  for (let i = Math.min(routed.length, 1 + chance.below(NODES_MAX)); i > 0; i--) {
    const { id } = chance.pick(routed);
    trace(() => `planted: ${beacon} loses its route of node ${id}`);
    table.withdraw(id, table.find(id));
  }
  return routed.length > 0;
}

function dropEntries({ chance, stores, trace }: World, beacon: Beacon): boolean {
  const store = [...stores].find(({ owner, isOver }) => owner === beacon && !isOver);
  if (store === undefined) return false;
  const entries = 1 + chance.below(ENTRIES_MAX);
  trace(() => `planted: ${beacon} does not get the next ${entries} entries`);
  store.drop(entries);
  return true;
}

/** Changes with the number that the beacon's own next ones have, too. */
function forgeClaims({ chance, server, nodes, trace }: World, { name, clock }: Beacon): boolean {
  const last = server.log
    .map(({ bytes }) => bytes && decodeEntry(bytes))
    .findLast((entry) => entry?.name === name && (entry.kind === CHANGES || entry.kind === LEASE));
  if (last === undefined || !("seq" in last)) return false;
  const picked = Array.from({ length: chance.below(NODES_MAX) }, () => chance.pick(nodes));
  const gone = Array.from({ length: chance.below(NODES_MAX) }, () => chance.pick(nodes));
  const timeMs = clock.nowMs();
  for (const node of picked) node.isForged = true;
  trace(() => `planted: changes ${last.seq + 1} of ${name} are forged`);
  server.append(
    encodeEntry({
      ...{ kind: CHANGES, name, epoch: last.epoch, seq: last.seq + 1, timeMs },
      claims: {
        nodeIds: Int32Array.from(picked, ({ id }) => id),
        timesMs: Float64Array.from(picked, () => stepped(timeMs - chance.pick(CLAIM_AGES_MS))),
      },
      gone: Int32Array.from(gone, ({ id }) => id),
    }),
  );
  return true;
}
