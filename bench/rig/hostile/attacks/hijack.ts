/**
 * Claims other nodes' ids, so that what is sent to them comes to the attacker: the beacon's hold on
 * endpoints.
 */
import { RELAY_DELIVER, RELAY_DELIVER_DEST } from "../../../../src/protocol.ts";
import type { Attack, Evidence } from "../attack.ts";
import { discovers, inTurn, punchRequests } from "../messages.ts";
import { fromOneSource, spoofed } from "./sources.ts";

function nothingStolen({ effort }: Evidence) {
  const stolen = (effort.heard[RELAY_DELIVER] ?? 0) + (effort.heard[RELAY_DELIVER_DEST] ?? 0);
  return [{ what: `${stolen} packets of others came to the attacker`, holds: stolen === 0 }];
}

export const HIJACKS: readonly Attack[] = [
  {
    name: "hijack by Discover",
    does: "claims honest nodes' ids from one address",
    stage: "alone",
    limits: ["endpoint_hold"],
    isLong: true,
    start: (scene) => fromOneSource(scene, discovers(inTurn(scene.honestIds))),
    judge: nothingStolen,
  },
  {
    name: "hijack by PunchRequest",
    does: "claims honest nodes' ids as a requester from one address",
    stage: "alone",
    limits: ["punch_source"],
    isLong: true,
    // Requests within the limit are those that reach the hold.
    start: (scene) =>
      fromOneSource(scene, punchRequests(inTurn(scene.honestIds), inTurn(scene.sleepingIds))),
    judge: nothingStolen,
  },
  {
    name: "hijack, spoofed",
    does: "claims honest nodes' ids from many addresses",
    stage: "alone",
    inSmoke: false,
    limits: ["endpoint_hold"],
    isLong: true,
    start: (scene) => spoofed(scene, discovers(inTurn(scene.honestIds))),
  },
];
