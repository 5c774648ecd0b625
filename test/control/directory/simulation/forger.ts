/** What somebody writes into the directory who is no beacon. */

import {
  ASK,
  CHANGES,
  decodeEntry,
  type Entry,
  encodeEntry,
  LEASE,
  stepped,
} from "../../../../src/control/directory/entries.ts";
import { encodePart, partKey } from "../../../../src/control/directory/snapshots.ts";
import { ALL_RANGES } from "../../../../src/shared/claim-digest.ts";
import { PEERS_MAX } from "../../../../src/shared/memory.ts";
import type { Node, World } from "./world.ts";

/** Leases of strangers are over before the calm is. */
const LEASE_MS_MAX = 20_000;
const STRANGERS = 5;
/** As far ahead as beacons still agree on when a claim was made. */
const AHEAD_MS = 900;

export function forge(world: World): boolean {
  const kind = world.chance.pick([...forgeries.keys()]);
  world.trace(() => `forged: ${kind}`);
  world.count(`forged: ${kind}`);
  forgeries.get(kind)!(world);
  return true;
}

const forgeries = new Map<string, (world: World) => void>([
  ["noise", (world) => write(world, world.chance.is(0.3) ? undefined : noise(world))],
  [
    "another version",
    (world) =>
      write(
        world,
        damaged(world, (bytes) => bytes.set([world.chance.pick([0, 2, 255])])),
      ),
  ],
  [
    "damaged",
    (world) =>
      write(
        world,
        damaged(world, (bytes) =>
          bytes.set(world.chance.bytes(1), world.chance.below(bytes.length)),
        ),
      ),
  ],
  ["cut short", (world) => write(world, someEntry(world).slice(0, world.chance.below(20)))],
  [
    "a stranger",
    (world) => write(world, encodeEntry(entryOf(world, stranger(world), epochNow(world)))),
  ],
  [
    "many strangers",
    (world) => {
      // From now on each beacon may leave out others: of what strangers claim they do not know the
      // same.
      world.isFlooded = true;
      for (const node of world.nodes) node.isPoisoned ||= node.isForged;
      for (let i = 0; i < PEERS_MAX + 20; i++)
        write(world, encodeEntry(leaseOf(world, `y${i}.example:9001`, epochNow(world))));
    },
  ],
  [
    "an impostor",
    (world) => {
      const name = world.chance.pick(world.hosts).name;
      write(world, encodeEntry(entryOf(world, name, impostorsEpoch(world, name))));
    },
  ],
  [
    "questions",
    (world) => {
      for (let i = 0; i < 10; i++)
        write(
          world,
          encodeEntry({
            kind: ASK,
            name: stranger(world),
            epoch: epochNow(world),
            of: { name: world.chance.pick(world.hosts).name, epoch: 1 },
            ranges: ALL_RANGES,
          }),
        );
    },
  ],
  ["a stranger with a snapshot", strangerWithSnapshot],
  [
    "fields",
    (world) => {
      const { chance, server } = world;
      const name = chance.is(0.5) ? stranger(world) : chance.pick(world.hosts).name;
      const other = chance.is(0.5) ? name : stranger(world);
      const epoch = chance.is(0.5) ? epochNow(world) : impostorsEpoch(world, other);
      server.setField(
        name,
        chance.is(0.4) ? noise(world) : encodeEntry(leaseOf(world, other, epoch)),
      );
    },
  ],
  [
    "parts",
    (world) => {
      const { chance, server } = world;
      for (const [key, { bytes }] of [...server.parts]) {
        if (chance.is(0.5)) continue;
        const forged = chance.is(0.5) ? noise(world) : bytes.slice(0, chance.below(bytes.length));
        server.setPart(key, forged.slice(), 60_000);
      }
    },
  ],
]);

/** A lease of a later start than the log holds, in a beacon's name. */
export function forgeRival(world: World, name: string): void {
  const epoch = impostorsEpoch(world, name, [1]);
  world.trace(() => `forged: a later start ${epoch} of ${name}`);
  write(world, encodeEntry({ ...leaseOf(world, name, epoch), isLeaving: false } as Entry));
}

function write({ server }: World, bytes: Uint8Array | undefined): void {
  server.append(bytes);
}

const noise = ({ chance }: World): Uint8Array => chance.bytes(chance.below(100));

/** An entry as some beacon writes it: one of the log, or another one. */
function someEntry(world: World): Uint8Array {
  const { chance, server } = world;
  const logged = server.log.length > 0 ? chance.pick(server.log).bytes : undefined;
  return logged ?? encodeEntry(leaseOf(world, stranger(world), epochNow(world)));
}

/**
 * One whose damage shows, or that is of nobody's present start: of what passes for a beacon's own
 * words nobody can know better.
 */
function damaged(world: World, damage: (bytes: Uint8Array) => void): Uint8Array {
  const bytes = someEntry(world).slice();
  if (bytes.length > 0) damage(bytes);
  const entry = decodeEntry(bytes);
  const isOfHost = entry !== undefined && world.hosts.some(({ name }) => name === entry.name);
  const isLong = entry?.kind === LEASE && entry.leaseMs > LEASE_MS_MAX;
  if (isOfHost || isLong) bytes[0] = 9;
  else if (entry !== undefined) marked(world, entry);
  return bytes;
}

const stranger = ({ chance }: World): string => `x${chance.below(STRANGERS)}.example:9001`;

const epochNow = ({ server, chance }: World): number =>
  Math.floor(server.nowMs) * 1024 + chance.below(1024);

/** None that the beacon ever had. */
function impostorsEpoch(world: World, name: string, directions = [-1, 1]): number {
  const { chance, server } = world;
  const said = server.log
    .map(({ bytes }) => bytes && decodeEntry(bytes))
    .findLast((entry) => entry?.name === name);
  const epoch = said?.epoch ?? epochNow(world);
  return Math.min(
    Math.max(0, epoch + chance.pick(directions) * (1 + chance.below(chance.pick([1e5, 2 ** 31])))),
    chance.is(0.1) ? Number.MAX_SAFE_INTEGER : 2 ** 52,
  );
}

function leaseOf({ chance, server }: World, name: string, epoch: number): Entry {
  return {
    ...{
      kind: LEASE,
      name,
      epoch,
      seq: chance.below(10),
      beaconId: chance.below(10),
      nodes: chance.below(100),
    },
    timeMs: stepped(server.nowMs - chance.pick([0, 0, 100_000])),
    leaseMs: chance.pick([0, 1000, chance.below(LEASE_MS_MAX)]),
    isLeaving: chance.is(0.2),
    snapshot: chance.is(0.5)
      ? undefined
      : { seq: chance.below(20), parts: 1 + chance.below(3), ranges: ALL_RANGES },
    ...{ ranged: undefined, sums: undefined },
  };
}

function entryOf(world: World, name: string, epoch: number): Entry {
  const { chance } = world;
  switch (chance.below(4)) {
    case 0:
      return {
        kind: ASK,
        name,
        epoch,
        of: { name: chance.pick(world.hosts).name, epoch },
        ranges: ALL_RANGES,
      };
    case 1:
      return changesOf(world, name, epoch, 1 + chance.below(10));
    default:
      return leaseOf(world, name, epoch);
  }
}

function changesOf(world: World, name: string, epoch: number, seq: number): Entry {
  const { chance, server, nodes } = world;
  const picked = nodes.filter(() => chance.is(0.2));
  const gone = nodes.filter(() => chance.is(0.1));
  const aheadMs = chance.pick([0, 0, AHEAD_MS, 3_600_000]);
  if (aheadMs > 0) world.stepped(); // whoever reads it may set its clock by it
  const timeMs = stepped(server.nowMs + aheadMs);
  const entry: Entry = {
    ...{ kind: CHANGES, name, epoch, seq, timeMs },
    claims: {
      nodeIds: Int32Array.from(picked, ({ id }) => id),
      timesMs: Float64Array.from(picked, () => stepped(timeMs - chance.pick([0, 1000, 100_000]))),
    },
    gone: Int32Array.from(gone, ({ id }) => id),
  };
  marked(world, entry);
  return entry;
}

/** Whose claims are of no beacon. */
function marked({ byId, server, isFlooded }: World, entry: Entry): void {
  if (entry.kind !== CHANGES) return;
  for (const [i, nodeId] of entry.claims.nodeIds.entries()) {
    const node: Node | undefined = byId.get(nodeId);
    if (node === undefined) continue;
    node.isForged = true;
    if (isFlooded || entry.claims.timesMs[i]! > server.nowMs + AHEAD_MS) node.isPoisoned = true;
  }
}

/** Everything that a beacon would say; its nodes are routed to it for a while. */
function strangerWithSnapshot(world: World): void {
  const { chance, server } = world;
  const name = stranger(world);
  const epoch = epochNow(world);
  const seq = chance.below(5);
  const changes = changesOf(world, name, epoch, seq + 1);
  const inSnapshot = changesOf(world, name, epoch, seq);
  if (changes.kind !== CHANGES || inSnapshot.kind !== CHANGES) return;
  const head = { epoch, seq, parts: 1, part: 0, timeMs: inSnapshot.timeMs };
  const snapshot = { seq, parts: 1, ranges: ALL_RANGES };
  server.setPart(partKey(name, epoch, snapshot, 0), encodePart(head, inSnapshot.claims), 60_000);
  const lease = {
    ...leaseOf(world, name, epoch),
    seq,
    isLeaving: false,
    leaseMs: 5_000,
    snapshot,
  };
  write(world, encodeEntry(lease as Entry));
  write(world, encodeEntry(changes));
}
