/** Asks for everybody's address. */
import { PUNCH_COMMAND } from "../../../../src/protocol.ts";
import type { Attack, Scene } from "../attack.ts";
import { always, NOBODYS_FROM, punchRequests, upFrom } from "../messages.ts";
import { fromOneSource, spoofed } from "./sources.ts";

/** Ids that a scan goes through. */
const SCANNED_IDS = 2 ** 16;
/**
 * Addresses that a host may learn: --punch-source-limit and its burst, and a request of good
 * fortune.
 */
const LEARNED_PER_S = 1;
const LEARNED_AT_ONCE = 11;
/** The first that it comes to are there. */
const scan = ({ honestIds }: Scene) =>
  punchRequests(always(NOBODYS_FROM), upFrom(Math.min(...honestIds), SCANNED_IDS));

export const PUNCH_SCANS: readonly Attack[] = [
  {
    name: "punch scan, one host",
    does: "asks for all ids in turn from one address",
    stage: "alone",
    limits: ["punch_source"],
    newcomer: "punches",
    start: (scene) => fromOneSource(scene, scan(scene)),
    judge: ({ effort, attackedS }) => {
      const learned = effort.heard[PUNCH_COMMAND] ?? 0;
      const most = LEARNED_AT_ONCE + LEARNED_PER_S * attackedS;
      return [{ what: `${learned} addresses learned by the scan`, holds: learned <= most }];
    },
  },
  {
    name: "punch scan, spoofed",
    does: "asks for all ids in turn in the name of many",
    stage: "alone",
    inSmoke: false,
    limits: ["punch"],
    start: (scene) => spoofed(scene, scan(scene)),
  },
];
