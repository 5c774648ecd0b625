/** Lets the beacon answer to somebody who asked for nothing. */
import type { Attack, Evidence, Scene } from "../attack.ts";
import { numberOf, type Source } from "../datagrams.ts";
import { alternating, always, discovers, NOBODYS_FROM, punchRequests } from "../messages.ts";
import { spoofed } from "./sources.ts";

/**
 * Bytes that the victim gets for a byte of the attacker's: what an answer has at most, over IPv6.
 * Punch commands have more (SECURITY.md), but their limits let too few through to count.
 */
const AMPLIFICATION_MAX = 1.3;
/** --answer-limit, and as much at once. */
const ANSWERS_PER_S = 1000;

const asVictim =
  ({ victim }: Scene): Source =>
  (n) => ({ address: numberOf(victim.address), port: victim.ports[n % victim.ports.length]! });

function isNoWeapon({ effort, victim, attackedS }: Evidence) {
  const amplification = victim.bytes / effort.bytes;
  return [
    {
      what: `${amplification.toFixed(2)} bytes to the victim for a byte of the attacker's`,
      holds: amplification <= AMPLIFICATION_MAX,
    },
    {
      what: `${victim.packets} packets to the victim in ${attackedS.toFixed(1)} s`,
      holds: victim.packets <= ANSWERS_PER_S * (1 + attackedS),
    },
  ];
}

export const REFLECTIONS: readonly Attack[] = [
  {
    name: "reflection by Discover",
    does: "asks for its address in a victim's name",
    stage: "alone",
    limits: ["answer"],
    start: (scene) => spoofed(scene, discovers(always(0)), asVictim(scene)),
    judge: isNoWeapon,
  },
  {
    name: "reflection by PunchRequest",
    does: "brings a victim's two nodes together in its name",
    stage: "alone",
    inSmoke: false,
    limits: ["answer", "punch_source"],
    start: (scene) =>
      spoofed(
        scene,
        alternating(
          discovers(always(NOBODYS_FROM)),
          punchRequests(always(NOBODYS_FROM + 1), always(NOBODYS_FROM)),
        ),
        asVictim(scene),
      ),
    judge: isNoWeapon,
  },
];
