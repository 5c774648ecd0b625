/** How long and how hard attacks are. */
import type { Scene } from "./attack.ts";

export interface Scale {
  /** Of honest traffic before it is measured, without an attack, and under it. */
  readonly warmUpMs: number;
  readonly quietMs: number;
  readonly attackMs: number;
  /**
   * Of quiet and attack, one after the other: their median is less the machine's mood than any of
   * them.
   */
  readonly rounds: number;
  /**
   * How long a node's endpoint is held, and a silent peer's routes; how often nodes register again,
   * and peers gossip; and how long an attack goes on that outlasts the former. (In the smoke, the
   * peers' routes outlast all: on a busy machine gossip may be late.)
   */
  readonly holdS: number;
  readonly peerTimeoutS: number;
  readonly refreshEveryMs: number;
  readonly gossipEveryMs: number;
  readonly longMs: number;
  readonly attacker: Pick<Scene, "packetsPerS" | "connectionsPerS" | "connectionsMax">;
}

/**
 * The hold is the beacon's own; whatever shall outlive it comes three times meanwhile, or more
 * often.
 */
export const FULL: Scale = {
  warmUpMs: 1000,
  quietMs: 2500,
  attackMs: 3000,
  rounds: 3,
  holdS: 30,
  peerTimeoutS: 10,
  refreshEveryMs: 10_000,
  gossipEveryMs: 1000,
  longMs: 40_000,
  attacker: { packetsPerS: 20_000, connectionsPerS: 500, connectionsMax: 1500 },
};

export const SMOKE: Scale = {
  warmUpMs: 0,
  quietMs: 300,
  attackMs: 600,
  rounds: 1,
  holdS: 2,
  peerTimeoutS: 60,
  refreshEveryMs: 250,
  gossipEveryMs: 250,
  longMs: 3000,
  attacker: { packetsPerS: 20_000, connectionsPerS: 500, connectionsMax: 300 },
};
