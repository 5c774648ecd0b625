/** All faults, in their lanes. */
import type { Fault } from "./fault.ts";
import { DISK_FAULTS, REGISTRY_FAULTS } from "./faults-around.ts";
import { BURST, LOAD_FAULTS } from "./faults-of-load.ts";
import { CLOCK_FAULTS, PEER_FAULTS, SIGNAL_FAULTS, WORKER_FAULTS } from "./faults-of-processes.ts";
import type { Lane, Span } from "./schedule.ts";

export interface FaultLane extends Lane {
  readonly faults: readonly Fault[];
}

const lane = (faults: readonly Fault[], pauseMs: Span): FaultLane => ({ faults, pauseMs });

/**
 * The pause between workers' deaths keeps a worker from dying six times in a minute, after which
 * the beacon ends by design.
 * @param hasClock whether the subject's clock can be moved
 */
export const lanesOf = (hasClock: boolean): readonly FaultLane[] => [
  lane([...WORKER_FAULTS, BURST], [7000, 12_000]),
  lane(PEER_FAULTS, [4000, 10_000]),
  lane(REGISTRY_FAULTS, [4000, 10_000]),
  lane(DISK_FAULTS, [4000, 10_000]),
  lane(LOAD_FAULTS, [5000, 10_000]),
  lane(SIGNAL_FAULTS, [6000, 12_000]),
  ...(hasClock ? [lane(CLOCK_FAULTS, [6000, 15_000])] : []),
];
