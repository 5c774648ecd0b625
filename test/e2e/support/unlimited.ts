/** For tests that are about something else than limits: many nodes on one address, bursts of one source, nodes that move at once. */
import type { Config } from "../../../src/beacon.ts";
import { settings } from "../../../src/config/settings.ts";

export const UNLIMITED = {
  relayLimit: 0,
  relayAddressLimit: 0,
  punchSourceLimit: 0,
  punchLimit: 0,
  endpointHoldMs: 0,
  newNodeLimit: 0,
  answerLimit: 0,
  wssUpgradeLimit: 0,
  wssFailureLimit: 0,
} satisfies Partial<Config>;

const flags = Object.keys(UNLIMITED).map((name) => settings.find(({ property }) => property === name)!.flag);

/** The same for a process. */
export const UNLIMITED_FLAGS: readonly string[] = flags.map((flag) => `--${flag}=0`);
