/**
 * What the route directory reads: entries of its log and parts of snapshots, damaged and made up,
 * and what they do to the fleet's routes.
 */
import { FleetClock } from "../../../src/control/directory/clock.ts";
import {
  ASK,
  CHANGES,
  CHANGES_MAX,
  decodeEntry,
  type Entry,
  encodeEntry,
  encodeExtra,
  LEASE,
  NAME_BYTES_MAX,
  PARTS_MAX,
  stepped,
} from "../../../src/control/directory/entries.ts";
import { Fleet } from "../../../src/control/directory/fleet.ts";
import { FleetRoutes } from "../../../src/control/directory/fleet-routes.ts";
import {
  decodePart,
  encodePart,
  PART_NODES_MAX,
} from "../../../src/control/directory/snapshots.ts";
import { ALL_RANGES, CLAIM_RANGES, SUM_WORDS } from "../../../src/shared/claim-digest.ts";
import { PEERS_MAX } from "../../../src/shared/memory.ts";
import { NO_PEER } from "../../../src/shared/routes.ts";
import { RouteTableOwner } from "../../../src/shared/routes-owner.ts";
import { routeMemory } from "../../support/route-memory.ts";
import type { Choices } from "../choices.ts";
import { mutateBytes } from "../mutate.ts";
import { fail, mustBe, type OpenTarget, type Seen, type Target } from "../target.ts";

const NOW_MS = 1_900_000_000_000;
const NAMES = ["a.example:9001", "b.example:9001", "[2001:db8::1]:9001", "self.example:9001"];
const SELF = NAMES[3]!;
/** Ids of this beacon's own nodes. */
const OWN = [1, 2, 3];

function madeUp(choices: Choices): Entry {
  const said = () => ({
    name: choices.pick(NAMES),
    epoch: choices.oneIn(4) ? choices.word() : choices.below(3),
  });
  const timeMs = stepped(NOW_MS + choices.pick([0, -1000, 500, 3_600_000]));
  const seq = choices.below(6);
  switch (choices.below(3)) {
    case 0:
      return {
        kind: ASK,
        ...said(),
        of: said(),
        ranges: choices.oneIn(2) ? ALL_RANGES : choices.number() | 0 || 1,
      };
    case 1: {
      const named = (ranges: number) =>
        choices.oneIn(2)
          ? { seq: choices.below(6), parts: 1 + choices.below(3), ranges }
          : undefined;
      const snapshots = { snapshot: named(ALL_RANGES), ranged: named(choices.number() | 0 || 1) };
      const sums = choices.oneIn(2)
        ? undefined
        : new Int32Array(CLAIM_RANGES * SUM_WORDS).fill(choices.below(3));
      const numbers = {
        beaconId: choices.number(),
        nodes: choices.number(),
        leaseMs: choices.number(),
      };
      return {
        kind: LEASE,
        ...said(),
        seq,
        timeMs,
        ...numbers,
        isLeaving: choices.oneIn(4),
        ...snapshots,
        sums,
      };
    }
    default: {
      const ids = choices.some(6, () => choices.number() | 0 || 1);
      const gone = choices.some(3, () => choices.number() | 0 || 1);
      const timesMs = ids.map(() => timeMs - choices.below(60_000));
      const claims = { nodeIds: Int32Array.from(ids), timesMs: Float64Array.from(timesMs) };
      return { kind: CHANGES, ...said(), seq, timeMs, claims, gone: Int32Array.from(gone) };
    }
  }
}

export const DIRECTORY_ENTRIES: Target = {
  name: "directory-log",
  about: "entries of the route directory's log, and the routes that they make",
  choiceBytes: 400,
  open: () => ({ check: checkLog }),
};

function checkLog(choices: Choices, seen: Seen): void {
  const table = new RouteTableOwner(routeMemory());
  table.keepClaims();
  const heard = new Map(OWN.map((id) => [id, 1000]));
  const clock = new FleetClock(() => 1000, NOW_MS);
  const own = {
    size: () => heard.size,
    heardMs: (id: number) => heard.get(id) ?? -1,
    giveUp: (id: number) => !heard.delete(id),
    scan: async () => true,
  };
  const ownMs = (id: number) => (own.heardMs(id) < 0 ? -1 : clock.timeOf(own.heardMs(id)));
  const routes: FleetRoutes = new FleetRoutes({
    ...{ table, own, name: SELF, ownMs, publishedMs: ownMs },
    claimerAt: (number) => fleet.claimerAt(number),
    waiters: () => fleet.waiters(),
    claimAgain: (id) => heard.has(id) || fail(`node ${id} is claimed again, and is not here`),
    tooManyWait: (claimer) => fleet.tooManyWait(claimer),
    pause: async () => {},
  });
  const fleet: Fleet = new Fleet({
    ...{ name: SELF, beaconId: 7, routes, random: () => 0 },
    ...{ heardOfSelf: () => {}, asked: () => {}, applied: () => {}, changed: () => {} },
    left: (beacon) => table.sweep(beacon.number ?? NO_PEER, -1, 0, table.sweepSteps),
    complain: (_, message) =>
      /[\p{C}\p{Zl}\p{Zp}]/u.test(message) && fail("a message that moves the cursor"),
  });
  for (let left = 1 + choices.below(8); left > 0; left--) {
    const made = madeUp(choices);
    const whole = encodeEntry(made);
    const extra = encodeExtra(made);
    const mutated = extra && mutateBytes(choices, extra.slice(), 2);
    const bytes = choices.oneIn(8)
      ? choices.bytes(choices.below(64))
      : mutateBytes(choices, whole.slice(), 2);
    seen.note(
      () => `${Buffer.from(bytes).toString("hex")} ${Buffer.from(mutated ?? []).toString("hex")}`,
    );
    const entry = decodeEntry(bytes, mutated);
    if (entry === undefined) {
      seen.outcome("none");
      continue;
    }
    checkEntry(entry);
    fleet.hear(entry, 1000);
    const beacon = fleet.beacons.get(entry.name);
    seen.outcome(
      `${entry.kind} ${beacon === undefined ? "of nobody" : beacon.isBehind ? "behind" : "followed"}`,
    );
    if (beacon === undefined) continue;
    if (beacon.isBehind && choices.oneIn(2)) {
      const number = NAMES.indexOf(beacon.name);
      if (number >= 0 && beacon.number === undefined) beacon.numbered(number);
      // As if its snapshot had been loaded.
      if (number >= 0 && beacon.wanted !== undefined) beacon.follow(beacon.wanted);
    }
  }
  fleet.toAsk(1e9);
  fleet.expire(choices.number(), ({ heardMs, leaseMs }) => heardMs + leaseMs);
  if (fleet.beacons.size > PEERS_MAX) fail(`${fleet.beacons.size} beacons`);
  let counted = 0;
  for (let peer = 0; peer < NAMES.length; peer++) counted += table.routesOf(peer);
  mustBe("routes", table.size, counted);
  if (table.find(0) !== NO_PEER) fail("node 0 has a route");
}

function checkEntry(entry: Entry): void {
  if (!/^[!-~]+$/.test(entry.name) || entry.name.length > NAME_BYTES_MAX)
    fail(`a name: ${entry.name}`);
  const again = decodeEntry(encodeEntry(entry), encodeExtra(entry));
  if (again === undefined || !Bun.deepEquals(again, entry))
    fail("written and read again it is another one");
  if (
    entry.kind === LEASE &&
    Math.max(entry.snapshot?.parts ?? 0, entry.ranged?.parts ?? 0) > PARTS_MAX
  )
    fail("a snapshot of too many parts");
  if (entry.kind !== CHANGES) return;
  const { claims, gone, timeMs } = entry;
  if (claims.nodeIds.length + gone.length > CHANGES_MAX) fail("too many nodes");
  if (claims.nodeIds.includes(0) || gone.includes(0)) fail("node 0");
  for (const ms of claims.timesMs)
    if (!(ms <= timeMs) || stepped(ms) !== ms) fail(`claimed at ${ms}`);
}

export const DIRECTORY_PARTS: Target = {
  name: "directory-parts",
  about: "parts of the route directory's snapshots",
  choiceBytes: 200,
  open: (): OpenTarget => ({ check: checkPart }),
};

function checkPart(choices: Choices, seen: Seen): void {
  const head = {
    ...{
      epoch: choices.below(3),
      seq: choices.below(3),
      parts: 1 + choices.below(3),
      part: choices.below(3),
    },
    timeMs: stepped(NOW_MS),
  };
  const ids = choices.some(8, () => choices.number() | 0);
  const timesMs = Float64Array.from(ids, () => NOW_MS - choices.number() / 16);
  const bytes = mutateBytes(
    choices,
    encodePart(head, { nodeIds: Int32Array.from(ids), timesMs }),
    3,
  );
  seen.note(() => Buffer.from(bytes).toString("hex"));
  const expected = choices.oneIn(4) ? { ...head, seq: choices.below(3) } : head;
  const part = decodePart(bytes, expected);
  seen.outcome(part === undefined ? "none" : `${part.nodes} nodes`);
  if (part === undefined) return;
  if (part.nodes > PART_NODES_MAX) fail(`${part.nodes} nodes`);
  for (let i = 0; i < part.nodes; i++) {
    if (!Number.isInteger(part.nodeId(i))) fail(`node ${part.nodeId(i)}`);
    if (!(part.claimedMs(i) <= part.timeMs)) fail(`claimed at ${part.claimedMs(i)}`);
  }
}
