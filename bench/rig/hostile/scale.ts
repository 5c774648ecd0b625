/** How long and how hard attacks are. */
import type { Scene } from "./attack.ts";

export interface Scale {
  /** Of honest traffic before it is measured, without an attack, and under it. */
  readonly warmUpMs: number;
  readonly quietMs: number;
  readonly attackMs: number;
  /** Of quiet and attack, one after the other: their median is less the machine's mood than any of them. */
  readonly rounds: number;
  /** The beacon's --endpoint-hold, how often nodes register again, and how long an attack goes on that outlasts the hold. */
  readonly holdS: number;
  readonly refreshEveryMs: number;
  readonly beyondHoldMs: number;
  readonly attacker: Pick<Scene, "packetsPerS" | "connectionsPerS" | "connectionsMax">;
}

/** The beacon's own hold, and a heartbeat that is too short for daemons, but in the same proportion. */
export const FULL: Scale = {
  warmUpMs: 1000,
  quietMs: 2500,
  attackMs: 3000,
  rounds: 3,
  holdS: 30,
  refreshEveryMs: 10_000,
  beyondHoldMs: 40_000,
  attacker: { packetsPerS: 20_000, connectionsPerS: 500, connectionsMax: 1500 },
};

export const SMOKE: Scale = {
  warmUpMs: 0,
  quietMs: 300,
  attackMs: 600,
  rounds: 1,
  holdS: 2,
  refreshEveryMs: 250,
  beyondHoldMs: 3000,
  attacker: { packetsPerS: 20_000, connectionsPerS: 500, connectionsMax: 300 },
};
