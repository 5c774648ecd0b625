/** What a schedule is about; decided before it begins. */
import type { Chance } from "./chance.ts";
import type { Delays } from "./connection.ts";
import { TROUBLES, type TroubleName } from "./troubles.ts";

export interface Plan {
  readonly beacons: number;
  readonly nodes: number;
  readonly troubleMs: number;
  readonly leaseMs: number;
  readonly graceMs: number;
  readonly delays: Delays;
  readonly resolveMs: number;
  /** Short sleeps take up to so many times as long. */
  readonly sleepsLonger: number;
  readonly isBusy: boolean;
  /**
   * Clocks are so wrong that they cannot tell which of two claims is later. Then a node moves only
   * once its new beacon knows of the claim before, and what was heard before a restart is not
   * restored.
   */
  readonly hasBadClocks: boolean;
  /** Between two nodes' doings, and two troubles, on average. */
  readonly nodeEveryMs: number;
  readonly troubleEveryMs: number;
  readonly weights: ReadonlyMap<TroubleName, number>;
  /** How much later than its clock the server's log begins. */
  readonly idsAheadMs: number;
  /** How wrong the server's clock is, at most. */
  readonly clockMs: number;
  /**
   * Only the server makes trouble, and never for longer than the grace: no beacon may be dropped.
   */
  readonly isServersOnly: boolean;
  /** Whether the calm is watched to its end, though all is well long before. */
  readonly isPatient: boolean;
  /** Moves that go on after the trouble, and for how long; then it is quiet. */
  readonly calmMoves: { readonly everyMs: number; readonly forMs: number } | undefined;
  /**
   * Nodes named by the changes that a beacon keeps of a peer that is behind; undefined: the
   * default.
   */
  readonly keptNodesMax: number | undefined;
  /**
   * Own nodes are in real node tables; a schedule with a thread beside it is not reproducible.
   * undefined: they are simulated.
   */
  readonly realNodes: "alone" | "with a thread" | undefined;
  /** As in Server. */
  readonly streamNodeBytes: number;
}

const SERVERS: readonly TroubleName[] = [
  "server clock steps",
  "server is full by bytes",
  "log replaced twice",
  "server down",
  "fail-over",
  "trim",
  "flushed",
  "full",
  "parts dropped",
];

export function planOf(chance: Chance): Plan {
  const hasBadClocks = chance.is(0.12);
  const isServersOnly = chance.is(0.1);
  const weights = new Map<TroubleName, number>();
  for (const { name } of TROUBLES) {
    const isLeftOut = chance.is(0.5) || (isServersOnly && !SERVERS.includes(name));
    weights.set(name, isLeftOut ? 0 : chance.scale(0.1, 4));
  }
  return {
    beacons: chance.is(0.003) ? 20 : 2 + chance.below(5),
    nodes: Math.round(chance.scale(5, 60)),
    troubleMs: chance.scale(5_000, 40_000),
    // Two servers that both live are two fleets for up to 6 s when the log is replaced twice: a
    // lease outlives that.
    leaseMs: Math.round(chance.between(isServersOnly ? 8_000 : 3_000, 10_000)),
    graceMs: isServersOnly ? 300_000 : chance.pick([0, 5_000, 300_000]),
    delays: {
      usualMs: chance.pick([1, 5, 20]),
      slowOf: isServersOnly ? 0 : chance.pick([0, 30, 100, 300]),
      timeMs: hasBadClocks ? [200, 600] : [0, 40],
    },
    resolveMs: chance.pick([0, 100, 3_000, 8_000]),
    sleepsLonger: chance.pick([1, 3, 8, 15]),
    isBusy: chance.is(0.3),
    ...{ hasBadClocks, isServersOnly },
    nodeEveryMs: chance.scale(30, 1_000),
    troubleEveryMs: chance.scale(300, 8_000),
    weights,
    idsAheadMs: chance.is(0.3) ? chance.scale(100, 3_600_000) : 0,
    clockMs: hasBadClocks ? 300 : 30,
    isPatient: chance.is(0.05),
    calmMoves: chance.is(0.2)
      ? { everyMs: chance.scale(50, 1_000), forMs: chance.scale(2_000, 20_000) }
      : undefined,
    realNodes: chance.is(0.97) ? undefined : chance.pick(["alone", "with a thread"] as const),
    streamNodeBytes: chance.pick([0, 4096]),
    keptNodesMax: chance.is(0.3) ? Math.round(chance.scale(4, 200)) : undefined,
  };
}
